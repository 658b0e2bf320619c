"""L1: from the prepared directory to batches; the only package that imports tensorflow."""
