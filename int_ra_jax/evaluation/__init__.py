"""L2: rankings, metrics, intervals and the report."""
