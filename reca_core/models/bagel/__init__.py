"""BAGEL: two transformers in one (understanding and generation experts) over interleaved text, ViT and VAE tokens."""
