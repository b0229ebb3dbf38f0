"""One module per command of ``reca``, imported only when the command is used."""
