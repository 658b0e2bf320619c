"""Models that infer knowledge and describe stickers: backends, cache, prompts, cleaning."""
