"""Measurements, side by side in one process; docs/performance.md takes its figures from here."""
