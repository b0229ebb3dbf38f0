"""OpenUni: a frozen vision-language model, learned queries that ask it what to draw, and a diffusion transformer."""
