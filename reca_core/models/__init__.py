"""Unified multimodal models: the protocol, the registry, one folder per family."""
