"""Benchmark rules: pure, torch-free."""
