"""Pictures in: decoding, sources, manifests, the rendered world."""
