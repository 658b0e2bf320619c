"""A run, opened: workdir, checkpoints, encoders, rankings; knows neither losses nor metrics."""
