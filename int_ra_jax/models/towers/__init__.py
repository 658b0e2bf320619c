"""The text tower and the image tower, and loading their weights."""
