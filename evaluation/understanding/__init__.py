"""Understanding kept: questions about given pictures, answered in words and read exactly. No judge model, no torch."""
