"""Measurements, side by side in one process; every figure in docs/performance.md comes from here."""
