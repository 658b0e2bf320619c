"""Int-RA: reply to a conversation with a sticker (arXiv 2403.05427), in JAX."""
