"""Measurements; the figures in docs come from here.

``python -m benchmarks.NAME [OPTIONS]`` prints Markdown tables; ``--out=FILE`` adds a JSON file.
"""
