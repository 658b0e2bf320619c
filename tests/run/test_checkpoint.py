"""Checkpoints: exact, complete or absent, and clear about what does not fit."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from int_ra_jax.run.checkpoint import Checkpoints
from int_ra_jax.run.checkpoint_record import check_fingerprint
from int_ra_jax.run.checksum import checksum, host_checksum

METRIC = "valid/retrieval/mAP"


def open_checkpoints(directory, keep_newest=1, greater_is_better=True):
    return Checkpoints(
        directory,
        primary_metric=METRIC,
        greater_is_better=greater_is_better,
        keep_newest=keep_newest,
    )


def make_tree(seed=0):
    """A training state in small: nested dicts, a named tuple, three dtypes, odd bit patterns."""
    rng = np.random.default_rng(seed)
    kernel = rng.normal(size=(64, 24)).astype(np.float32)
    kernel[0, :4] = [np.nan, -0.0, np.inf, 1e-42]
    params = {
        "text": {"encoder": {"layer": {"0": {"kernel": jnp.asarray(kernel)}}}},
        "head": {"bias": jnp.asarray(rng.normal(size=24), jnp.bfloat16)},
    }
    return {
        "params": params,
        "opt_state": optax.adam(1e-3).init(params),
        "step": jnp.int32(2**31 - 1),
        "rng": jax.random.key_data(jax.random.key(seed)),
        "live": jnp.asarray([True, False]),
    }


def abstract(tree):
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), tree)


def as_bytes(tree):
    return [(leaf.dtype, leaf.shape, np.asarray(leaf).tobytes()) for leaf in jax.tree.leaves(tree)]


def test_a_restored_tree_has_the_saved_bits_and_structure(tmp_path):
    tree = make_tree()
    with open_checkpoints(tmp_path / "checkpoints") as checkpoints:
        assert checkpoints.save(7, tree, metrics=None, metadata={"seed": 3, "place": [1, None]})
    with open_checkpoints(tmp_path / "checkpoints") as checkpoints:
        step = checkpoints.find("latest")
        restored = checkpoints.restore(step, abstract(tree))
        assert step == 7
        assert checkpoints.restore_metadata(step) == {"seed": 3, "place": [1, None]}
    assert jax.tree.structure(restored) == jax.tree.structure(tree)
    assert as_bytes(restored) == as_bytes(tree)
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(restored))


def test_a_state_saved_on_one_device_is_restored_onto_eight_and_back(tmp_path):
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    tree = {"kernel": make_tree()["params"]["text"]["encoder"]["layer"]["0"]["kernel"]}
    sharding = NamedSharding(mesh, PartitionSpec("data"))
    with open_checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, tree, metrics=None, metadata={})
        target = {"kernel": jax.ShapeDtypeStruct((64, 24), jnp.float32, sharding=sharding)}
        spread = checkpoints.restore(1, target)
        assert len(spread["kernel"].sharding.device_set) == 8
        checkpoints.save(2, spread, metrics=None, metadata={})
        gathered = checkpoints.restore(2, abstract(tree))
    assert gathered["kernel"].sharding.device_set == {jax.devices()[0]}
    assert as_bytes(spread) == as_bytes(gathered) == as_bytes(tree)


@pytest.mark.parametrize("keep_newest", [1, 2])
@pytest.mark.parametrize("greater_is_better", [True, False])
def test_the_newest_and_the_best_are_kept(tmp_path, keep_newest, greater_is_better):
    values = {0: None, 1: 0.5, 2: 0.9, 3: None, 4: 0.1, 5: math.nan, 6: 0.3, 7: None}
    best = 2 if greater_is_better else 4
    with open_checkpoints(tmp_path, keep_newest, greater_is_better) as checkpoints:
        for step, value in values.items():
            metrics = None if value is None else {METRIC: value, "valid/retrieval/hit_at_1": 0.0}
            checkpoints.save(step, {"step": jnp.int32(step)}, metrics=metrics, metadata={})
        assert (checkpoints.latest_step(), checkpoints.best_step()) == (7, best)
    with open_checkpoints(tmp_path, keep_newest, greater_is_better) as reopened:
        assert (reopened.latest_step(), reopened.best_step()) == (7, best)
    expected = {best, *list(values)[-keep_newest:]}
    assert {int(entry.name) for entry in tmp_path.iterdir()} == expected


def test_saves_without_metrics_never_count_as_best(tmp_path):
    with open_checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, {"x": jnp.ones(2)}, metrics=None, metadata={})
        checkpoints.save(2, {"x": jnp.ones(2)}, metrics=None, metadata={})
        assert checkpoints.best_step() is None
        with pytest.raises(FileNotFoundError, match="none has the metric 'valid/retrieval/mAP'"):
            checkpoints.find("best")


def test_an_interrupted_save_is_ignored_and_can_be_repeated(tmp_path):
    (tmp_path / f"5{'.orbax-checkpoint-tmp'}" / "state").mkdir(parents=True)
    tree = {"x": jnp.arange(3.0)}
    with open_checkpoints(tmp_path) as checkpoints:
        assert checkpoints.latest_step() is None
        with pytest.raises(FileNotFoundError, match="a save that was interrupted"):
            checkpoints.find("latest")
        checkpoints.save(5, tree, metrics=None, metadata={})
        assert as_bytes(checkpoints.restore(5, abstract(tree))) == as_bytes(tree)


def test_opening_a_missing_directory_creates_nothing_and_says_so(tmp_path):
    with open_checkpoints(tmp_path / "none") as checkpoints:
        assert checkpoints.latest_step() is None
        with pytest.raises(FileNotFoundError, match=r"the directory does not exist.*train first"):
            checkpoints.restore(3, {})
    assert not (tmp_path / "none").exists()


def test_a_step_that_is_not_there_is_answered_with_those_that_are(tmp_path):
    with open_checkpoints(tmp_path) as checkpoints:
        checkpoints.save(4, {"x": jnp.ones(2)}, metrics=None, metadata={})
        with pytest.raises(FileNotFoundError, match=r"no step 9 in .*: it holds the steps 4\."):
            checkpoints.restore_metadata(9)


def test_a_step_is_stored_once_and_steps_only_grow(tmp_path):
    with open_checkpoints(tmp_path) as checkpoints:
        assert checkpoints.save(4, {"x": jnp.ones(2)}, metrics=None, metadata={})
        assert not checkpoints.save(4, {"x": jnp.zeros(2)}, metrics=None, metadata={})
        with pytest.raises(ValueError, match="step 3 is older than the newest checkpoint 4"):
            checkpoints.save(3, {"x": jnp.ones(2)}, metrics=None, metadata={})
        assert checkpoints.restore(4, abstract({"x": jnp.ones(2)}))["x"].tolist() == [1, 1]


def test_every_leaf_that_does_not_fit_is_listed_at_once(tmp_path):
    with open_checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, make_tree(), metrics=None, metadata={})
        target = abstract(make_tree())
        target["params"]["head"]["bias"] = jax.ShapeDtypeStruct((24,), jnp.float32)
        target["params"]["head"]["scale"] = jax.ShapeDtypeStruct((24,), jnp.float32)
        target["step"] = jax.ShapeDtypeStruct((2,), jnp.int32)
        del target["rng"]
        with pytest.raises(ValueError) as caught:
            checkpoints.restore(1, target)
    lines = [line.strip() for line in str(caught.value).splitlines()]
    for line in [
        "1 leaves not in the checkpoint:",
        "params/head/scale",
        "1 leaves in the checkpoint only:",
        "rng",
        "2 leaves of another shape or type:",
        "params/head/bias: bfloat16[24], expected float32[24]",
        "step: int32[], expected int32[2]",
    ]:
        assert line in lines


def test_the_parameters_can_be_read_without_the_optimiser_state(tmp_path):
    tree = make_tree()
    with open_checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, tree, metrics=None, metadata={})
        target = {"params": abstract(tree["params"])}
        restored = checkpoints.restore(1, target, partial=True)
        assert as_bytes(restored) == as_bytes(tree["params"])
        with pytest.raises(ValueError, match="leaves in the checkpoint only"):
            checkpoints.restore(1, target)
        target["params"]["extra"] = jax.ShapeDtypeStruct((1,), jnp.float32)
        with pytest.raises(ValueError, match="1 leaves not in the checkpoint:\n  params/extra"):
            checkpoints.restore(1, target, partial=True)


def test_no_flipped_byte_on_disk_is_handed_out(tmp_path):
    tree = {"kernel": make_tree()["params"]["text"]["encoder"]["layer"]["0"]["kernel"]}
    with open_checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, tree, metrics=None, metadata={})
        checkpoints.wait()
        largest = max((tmp_path / "1").rglob("*"), key=lambda path: path.stat().st_size)
        content = largest.read_bytes()
        assert len(content) > tree["kernel"].nbytes // 2
        messages = []
        for place in np.linspace(len(content) // 8, len(content) * 7 // 8, 8, dtype=int):
            largest.write_bytes(
                content[:place] + bytes([content[place] ^ 0x10]) + content[place + 1 :]
            )
            with pytest.raises(ValueError) as caught:
                checkpoints.restore(1, abstract(tree))
            messages.append(str(caught.value))
        # The storage layer sees some of it, in compressed parts; our checksum has to see the rest.
        assert any("is damaged:\n" in message and "\n  kernel\n" in message for message in messages)
        largest.write_bytes(content)
        assert as_bytes(checkpoints.restore(1, abstract(tree))) == as_bytes(tree)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data(), dtype=st.sampled_from([jnp.float32, jnp.bfloat16, jnp.int32, jnp.uint8]))
def test_a_flipped_bit_or_a_swap_changes_the_checksum(data, dtype):
    values = np.random.default_rng(0).normal(size=(3, 5)).astype(dtype)
    raw = values.view(np.uint8).reshape(-1).copy()
    # Two sign bits at once would cancel in a plain sum.
    places = st.integers(0, 8 * raw.size - 1)
    for place in data.draw(st.lists(places, min_size=1, max_size=2, unique=True)):
        raw[place // 8] ^= 1 << (place % 8)
    flipped = raw.view(values.dtype).reshape(values.shape)
    assert int(checksum(jnp.asarray(flipped))) != int(checksum(jnp.asarray(values)))
    swapped = values[::-1]
    if swapped.tobytes() != values.tobytes():
        assert int(checksum(jnp.asarray(swapped))) != int(checksum(jnp.asarray(values)))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.int32, jnp.uint8, jnp.bool_])
@pytest.mark.parametrize("shape", [(), (7, 3), (70_000, 2), (0, 4)])
def test_the_host_finds_the_checksum_that_a_device_finds(shape, dtype):
    values = jnp.asarray(50 * np.random.default_rng(0).normal(size=shape)).astype(dtype)
    assert host_checksum(np.asarray(values)) == int(checksum(values))


def test_the_checksum_does_not_depend_on_the_sharding():
    mesh = jax.make_mesh((4, 2), ("data", "tensor"), axis_types=(AxisType.Auto,) * 2)
    values = jnp.asarray(np.random.default_rng(0).normal(size=(8, 6)), jnp.float32)
    spread = jax.device_put(values, NamedSharding(mesh, PartitionSpec("data", "tensor")))
    assert int(checksum(spread)) == int(checksum(values))


def test_leaves_that_would_not_come_back_are_refused_together(tmp_path):
    tree = {
        "key": jax.random.key(0),
        "step": 3,
        "wide": np.zeros(2, np.int64),
        "empty": jnp.zeros((0, 2)),
        "fine": jnp.zeros(2),
    }
    checkpoints = open_checkpoints(tmp_path / "run")
    with pytest.raises(ValueError, match="4 leaves that cannot be saved") as caught:
        checkpoints.save(1, tree, metrics=None, metadata={})
    checkpoints.close()
    for name in ("key: typed random key", "step: int", "wide: int64", "empty: no elements"):
        assert name in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_metrics_without_the_primary_one_and_odd_metadata_are_refused(tmp_path):
    with open_checkpoints(tmp_path) as checkpoints:
        with pytest.raises(ValueError, match="lack the primary metric 'valid/retrieval/mAP'"):
            checkpoints.save(1, {"x": jnp.ones(2)}, metrics={"valid/loss/total": 1}, metadata={})
        with pytest.raises(ValueError, match="must be JSON"):
            checkpoints.save(1, {"x": jnp.ones(2)}, metrics=None, metadata={"x": jnp.ones(2)})


def test_keeping_no_checkpoint_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"keep_newest is 0 \(config.checkpoint.keep_newest\)"):
        open_checkpoints(tmp_path, keep_newest=0)


def test_a_fingerprint_mismatch_names_every_key_with_both_values():
    stored = {"model.heads": 8, "optim.betas": [0.9, 0.98], "data.seed": 0, "model.old": "x"}
    current = {"model.heads": 4, "optim.betas": (0.9, 0.98), "data.seed": 0, "model.new": None}
    with pytest.raises(ValueError) as caught:
        check_fingerprint(stored, current)
    assert [line.strip() for line in str(caught.value).splitlines()[1:-1]] == [
        "model.heads: 8 in the checkpoint, 4 now",
        "model.new: absent in the checkpoint, null now",
        'model.old: "x" in the checkpoint, absent now',
    ]
    check_fingerprint(stored, dict(stored))
