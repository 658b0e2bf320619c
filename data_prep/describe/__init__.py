"""What a prepared directory holds: its problems, its statistics, and what leaks between splits."""
