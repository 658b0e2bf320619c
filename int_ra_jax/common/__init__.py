"""L0: types, configuration, parameter paths, checkpoints and logs; imports nothing of ours."""
