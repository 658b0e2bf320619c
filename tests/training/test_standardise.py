"""Standardised features have mean 0 and deviation 1 on train, whatever the tower gives."""

import jax
import numpy as np
import pytest
from fixtures.trained import tiny_config

from int_ra_jax.common.params import flatten
from int_ra_jax.data.batches import make_batches
from int_ra_jax.models import registry
from int_ra_jax.models.interface import merge
from int_ra_jax.run.encode import Encoder
from int_ra_jax.run.workdir import open_run
from int_ra_jax.training import sharding, standardise
from int_ra_jax.training.create import create_workdir
from int_ra_jax.training.loop import train

HERE = sharding.placement(sharding.make_mesh({"data": 1, "fsdp": 1, "tensor": 1}))
MESH = sharding.placement(sharding.make_mesh({"data": 2, "fsdp": 2, "tensor": 2}))
BOTH = {"model__text__standardise": True, "model__image__standardise": True}


def config_of(trained, **changes):
    frozen = {"model__text__frozen_layers": -1, "model__image__frozen_layers": -1}
    records = str(trained.workdir / "tfds")
    return tiny_config(trained.prepared, data__tfds_dir=records, **frozen, **BOTH, **changes)


def first_params(run):
    key = jax.random.key(run.config.seed)
    return jax.jit(lambda key: registry.initialise(run.config, run.facts, key))(key)


@pytest.fixture(scope="module")
def opened(trained, tmp_path_factory):
    """A run and its parameters before and after they were measured."""
    folder = tmp_path_factory.mktemp("standardise")
    (folder / "shared").mkdir()
    config = config_of(trained, train__shared_cache=str(folder / "shared"))
    run = create_workdir(config, folder / "run")
    params = first_params(run)
    return run, params, standardise.measured(run, params, HERE)


def test_features_of_train_and_gallery_get_mean_0_and_deviation_1(opened):
    run, before, after = opened
    batch = jax.device_put(
        next(make_batches(run.dataset, run.tokenizer, run.config.text, "train", 64, 0))
    )
    assert 64 < run.dataset.size("train") < 128  # one batch of an epoch is measured

    @jax.jit
    def tokens(params, context, bank):
        system = merge(run.graphdef, params)
        return system.text_tokens(context, None), system.image_tokens(bank)

    for params, standard in ((before, False), (after, True)):
        texts, pictures = map(np.asarray, tokens(params, batch.context, run.bank))
        texts = texts[np.asarray(batch.context.mask)]
        for features in (texts, pictures.reshape(-1, run.facts.image.hidden_size)):
            same = np.allclose(features.mean(0), 0, atol=1e-3)
            same &= np.allclose(features.std(0), 1, atol=1e-2)
            assert same == standard


def test_nothing_else_changes_and_any_devices_measure_the_same(opened, monkeypatch):
    run, before, after = opened
    flat = flatten(after)
    changed = {
        path for path, leaf in flatten(before).items() if not np.array_equal(leaf, flat[path])
    }
    assert changed == {
        f"{tower}_standard/{name}" for tower in ("text", "image") for name in ("scale", "bias")
    }
    assert not changed & run.trainable
    # Another run takes those of texts from the shared folder.
    monkeypatch.setattr(standardise, "_text_features", None)
    again = flatten(standardise.measured(run, MESH.everywhere(before), MESH))
    for path in changed:
        np.testing.assert_allclose(again[path], flat[path], atol=1e-5)


def test_a_channel_that_never_differs_is_only_shifted():
    features = np.stack([np.full(10, 3.0), np.arange(10.0)], axis=1)
    sums = features.sum(0), np.square(features).sum(0), np.array(10)
    found = standardise._constants(iter([sums]))
    np.testing.assert_allclose(
        features @ np.diag(found["scale"]) + found["bias"],
        np.stack([np.zeros(10), (np.arange(10) - 4.5) / np.arange(10).std()], axis=1),
        atol=1e-5,
    )


def test_a_trained_run_keeps_what_was_measured(trained, tmp_path):
    config = config_of(trained, train__max_steps=4, train__eval_steps=4)
    assert train(config, tmp_path / "run")["mAP"] > 0
    run = open_run(tmp_path / "run")
    params, _ = run.restore_best()
    measured = flatten(standardise.measured(run, first_params(run), HERE))
    kept = flatten(params)
    for path in ("text_standard/scale", "image_standard/bias"):
        np.testing.assert_allclose(kept[path], measured[path], atol=1e-5)
    assert np.isfinite(Encoder(run).gallery(params).embedding).all()
