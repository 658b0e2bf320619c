"""What to run: plain get_config(arg) files that import ml_collections only."""
