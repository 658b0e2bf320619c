"""One kill in the middle of a save; tests/faults/kill_at_random.py does thirty, anywhere."""

import jax
import numpy as np
import pytest
from fixtures.trained import STEPS, tiny_config

from configs import int_ra
from int_ra_jax.common.config import flatten
from int_ra_jax.training.loop import train
from tests.faults import harness


@pytest.mark.slow
def test_a_run_killed_during_a_save_ends_with_the_bits_of_one_that_was_not(trained, tmp_path):
    workdir = tmp_path / "killed"
    config = tiny_config(trained.prepared, checkpoint__steps=2)
    preset = flatten(int_ra.get_config("smoke"))
    changed = {key: value for key, value in flatten(config).items() if value != preset[key]}
    changed["train.compilation_cache"] = jax.config.jax_compilation_cache_dir
    process = harness.Training(workdir, trained.prepared, settings=changed)
    process.wait_for_save()
    process.wait_for_save()
    assert process.kill(), process.output
    complete = harness.complete_steps(workdir)
    assert complete[-1] < STEPS
    assert harness.interrupted_saves(workdir)
    train(config, workdir)
    assert not harness.interrupted_saves(workdir)
    expected, found = harness.arrays(trained.workdir, STEPS), harness.arrays(workdir, STEPS)
    assert expected.keys() == found.keys()
    for path, value in expected.items():
        np.testing.assert_array_equal(found[path], value, err_msg=path)
