"""L1: the systems, as pure functions of (parameters, batch)."""
