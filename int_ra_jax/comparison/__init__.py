"""Many systems under one budget: their trials, their runs, the table and its tests."""
