"""What is kept on the device is what would have been computed in every step."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fixtures.trained import tiny_config

from int_ra_jax.data.batches import make_batches
from int_ra_jax.models import registry
from int_ra_jax.models.interface import merge
from int_ra_jax.run import workdir as runs
from int_ra_jax.run.encode import Encoder
from int_ra_jax.training import resident, sharding
from int_ra_jax.training.create import create_workdir
from int_ra_jax.training.step import compute_loss

HERE = sharding.placement(sharding.make_mesh({"data": 1, "fsdp": 1, "tensor": 1}))
MESH = sharding.placement(sharding.make_mesh({"data": 2, "fsdp": 2, "tensor": 2}))


def first_params(config, run):
    key = jax.random.key(config.seed)
    return jax.jit(lambda key: registry.initialise(config, run.facts, key))(key)


@pytest.fixture(scope="module")
def opened(trained, tmp_path_factory):
    """A run with both towers frozen, its first parameters, and what stays on the device."""
    config = tiny_config(
        trained.prepared,
        data__tfds_dir=str(trained.workdir / "tfds"),
        model__text__frozen_layers=-1,
        model__image__frozen_layers=-1,
    )
    run = create_workdir(config, tmp_path_factory.mktemp("frozen") / "run")
    params = first_params(config, run)
    return run, params, resident.build(run, params, HERE)


def test_a_cached_conversation_is_the_one_that_a_batch_addresses(opened):
    run, params, kept = opened
    direct = jax.jit(lambda params, tokens: merge(run.graphdef, params).hidden_text(tokens))
    stream = make_batches(run.dataset, run.tokenizer, run.config.text, "train", 8, 5)
    for _ in range(3):
        batch = next(stream)
        attached = kept.attach(batch)
        expected = direct(params, batch.context)
        real = np.asarray(batch.context.mask)
        np.testing.assert_allclose(
            np.asarray(attached.context_hidden)[real], np.asarray(expected)[real], atol=1e-5
        )
    assert kept.context_hidden.shape[0] == run.dataset.size("train")


def test_the_cached_gallery_needs_no_pixels_and_encodes_the_same_stickers(opened):
    run, params, kept = opened
    assert kept.bank.pixels is None
    assert kept.bank.image_hidden.shape[0] == len(run.dataset.stickers)
    plain = Encoder(run).gallery(params).embedding
    cached = Encoder(run, kept.bank, kept.labels).gallery(params).embedding
    np.testing.assert_allclose(cached, plain, atol=1e-5)


def test_pictures_that_do_not_move_are_the_mean_of_their_frames(opened, tmp_path):
    run, params, kept = opened
    config = run.config.copy_and_resolve_references()
    with config.unlocked():
        config.data.frame = "mean"
    several = create_workdir(config, tmp_path / "mean")
    assert several.bank.pixels.ndim == 5
    cached = resident.build(several, params, HERE)
    for bank in (None, cached.bank):
        found = Encoder(several, bank, cached.labels).gallery(params).embedding
        expected = Encoder(run, kept.bank, kept.labels).gallery(params).embedding
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_how_many_rows_are_cached_at_once_does_not_show(opened, monkeypatch):
    run, params, kept = opened
    monkeypatch.setattr(resident, "_CHUNK", 5)  # 12 stickers: the last chunk is filled up
    again = resident.build(run, params, HERE)
    for one, other in zip(jax.tree.leaves(kept), jax.tree.leaves(again), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_several_devices_compute_the_cache_together_and_each_holds_all_of_it(opened):
    run, params, kept = opened
    spread = resident.build(run, MESH.everywhere(params), MESH)
    for one, other in zip(jax.tree.leaves(kept), jax.tree.leaves(spread), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)
        assert other.sharding.is_fully_replicated and len(other.sharding.device_set) == 8


def test_without_the_cache_everything_is_left_to_the_step(opened):
    run, params, _ = opened
    changed = run.config.copy_and_resolve_references()
    changed.train.cache_frozen = False
    plain = resident.build(
        runs.Run(run.workdir, changed, run.dataset, run.tokenizer, run.facts, run.graphdef,
                 run.abstract_params),
        params, HERE,
    )  # fmt: skip
    assert plain.context_hidden is plain.labels.hidden is plain.bank.image_hidden is None
    np.testing.assert_array_equal(plain.bank.pixels, run.bank.pixels)


def test_a_cache_in_half_precision_takes_half_and_moves_the_loss_by_little(opened, tmp_path):
    run, params, kept = opened
    config = run.config.copy_and_resolve_references()
    with config.unlocked():
        config.train.update({"cache_dtype": "float16", "shared_cache": ""})
    half = create_workdir(config, tmp_path / "half")
    halved = resident.build(half, params, HERE)
    assert halved.context_hidden.dtype == jnp.float16
    assert 2 * halved.context_hidden.nbytes == kept.context_hidden.nbytes
    np.testing.assert_allclose(halved.context_hidden, kept.context_hidden, atol=5e-3)
    assert resident._check_size(half) == halved.context_hidden.nbytes
    batch = next(make_batches(run.dataset, run.tokenizer, run.config.text, "train", 8, 5))
    batch = jax.device_put(batch)

    @jax.jit
    def loss(params, kept):
        system = merge(run.graphdef, params)
        return compute_loss(system, batch, kept, None, jax.random.key(0))[0]

    one, other = float(loss(params, kept)), float(loss(params, halved))
    assert one != other and abs(one - other) < 1e-3


def test_a_run_that_trains_its_towers_caches_nothing(trained):
    run = runs.open_run(trained.workdir)
    kept = resident.build(run, run.restore_best()[0], HERE)
    assert kept.context_hidden is kept.labels.hidden is kept.bank.attribute_hidden is None
    assert kept.bank.image_hidden is None
    assert kept.bank.pixels.dtype == jnp.uint8


def test_runs_that_share_a_folder_take_the_frozen_layers_output_from_each_other(
    trained, tmp_path, monkeypatch
):
    def opened(name, **changes):
        config = tiny_config(
            trained.prepared,
            data__tfds_dir=str(trained.workdir / "tfds"),
            model__text__frozen_layers=-1,
            train__shared_cache=str(tmp_path / "shared"),
            **changes,
        )
        run = create_workdir(config, tmp_path / name)
        return run, first_params(config, run)

    run, params = opened("first")
    first = resident.build(run, params, HERE).context_hidden
    assert len(list((tmp_path / "shared").glob("hidden-train-*"))) == 1
    # Another rate and another device count: the same frozen layers.
    other, _ = opened("other", optim__lr=0.5)
    monkeypatch.setattr(Encoder, "_compute_hidden", lambda self, params, split: None)
    again = resident.build(other, MESH.everywhere(params), MESH).context_hidden
    np.testing.assert_array_equal(first, again)
    assert again.sharding.is_fully_replicated and len(again.sharding.device_set) == 8
    # Whatever changes the output is not taken for it: weights, tokens, split, precision.
    changed = jax.tree.map(lambda leaf: leaf + 1, params)
    assert Encoder(other).hidden(changed, "train") is None
    assert Encoder(other).hidden(params, "valid") is None
    for name, key in (("tokens", {"text__context_tokens": 40}),
                      ("precision", {"model__dtype": "bfloat16"}),
                      ("half", {"train__cache_dtype": "float16"}),
                      ("rows", {"train__rows": 9})):  # fmt: skip
        differs, _ = opened(name, **key)
        assert Encoder(differs).hidden(params, "train") is None
