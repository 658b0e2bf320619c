"""L3: one step function and one loop for every system."""
