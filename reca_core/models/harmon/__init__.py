"""Harmon: one masked-autoregressive encoder for seeing and drawing, a language model between it and its decoder."""
