"""The embedded data set and a text tower, both built from packages alone, without a download."""
