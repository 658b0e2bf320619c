"""Options of the loop from the config to the checkpoint: average, micro-batches, like lengths."""

import numpy as np
from fixtures.trained import tiny_config

from int_ra_jax.common import config as configuration
from int_ra_jax.common.params import flatten
from int_ra_jax.evaluation.relevance import PROTOCOLS
from int_ra_jax.run.workdir import open_run
from int_ra_jax.training.loop import prepare, selection_protocol, train


def states(workdir, step):
    trainer = prepare(configuration.load(workdir), workdir)
    with trainer.run.checkpoints() as checkpoints:
        return checkpoints.restore(step, trainer.abstract_state)


def test_the_average_is_saved_and_is_what_a_run_is_judged_by(trained, tmp_path):
    records = str(trained.workdir / "tfds")
    options = {"train__ema_decay": 0.5, "train__micro_batches": 2, "train__bucket_tokens": 8}
    config = tiny_config(trained.prepared, data__tfds_dir=records, train__max_steps=4, **options)
    results = train(config, tmp_path / "run")
    assert 0 < results["mAP"] <= 1
    state = states(tmp_path / "run", 4)
    assert set(state.ema) == set(flatten(state.params))
    run = open_run(tmp_path / "run")
    params, step = run.restore_best()
    assert step == 4
    differing = 0
    for path, leaf in flatten(params).items():
        np.testing.assert_array_equal(leaf, state.ema[path], err_msg=path)
        differing += not np.array_equal(leaf, flatten(state.params)[path])
    assert differing > 10  # the average lags behind the parameters themselves


def test_no_run_is_selected_by_test_labels():
    # "paper" reads them; under "exact" the gold sticker alone is right, on valid as on test.
    chosen = {name: selection_protocol(name) for name in PROTOCOLS}
    assert chosen == {"multi": "multi", "paper": "multi", "exact": "exact"}
