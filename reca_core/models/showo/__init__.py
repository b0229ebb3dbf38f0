"""Show-o: one Phi language model over text and MAGVITv2 image tokens, generation by masked-token prediction."""
