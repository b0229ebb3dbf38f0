"""Judges: what answers a benchmark's questions."""
