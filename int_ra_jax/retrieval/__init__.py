"""L3: what a product imports to search a gallery."""
