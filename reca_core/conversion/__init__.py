"""Checkpoints from one layout to another: what ``reca convert`` does in its child process."""
