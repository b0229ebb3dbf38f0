"""The mathematics of the losses as free functions."""
