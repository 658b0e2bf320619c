"""Damaged checkpoints: found whatever is broken, passed over aloud, and never in the way."""

import gc
import os
import resource
import shutil
from contextlib import contextmanager

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from int_ra_jax.run.checkpoint import Checkpoints, CheckpointWriteError
from int_ra_jax.run.checkpoint_record import DamagedCheckpointError

METRIC = "mAP"
STEPS = (10, 20, 30)


def make_tree(step, size=40_000):
    rng = np.random.default_rng(step)
    kernel = jnp.asarray(rng.normal(size=size), jnp.float32)
    bias = jnp.asarray(rng.normal(size=24), jnp.bfloat16)
    return {"params": {"kernel": kernel, "bias": bias}, "step": jnp.int32(step)}


def abstract(tree):
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), tree)


def as_bytes(tree):
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(tree)]


def open_checkpoints(directory, keep_newest=3):
    return Checkpoints(
        directory, primary_metric=METRIC, greater_is_better=True, keep_newest=keep_newest
    )


def save(checkpoints, step, value=None):
    metrics = None if value is None else {METRIC: value}
    return checkpoints.save(step, make_tree(step), metrics=metrics, metadata={"step": step})


@contextmanager
def small_files_only():
    """Stands for a full disk: no file may grow beyond a part of an array."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        gc.collect()  # what Orbax leaves behind must not speak up in another test


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Three checkpoints; the newest is the best, the oldest the next best."""
    directory = tmp_path_factory.mktemp("saved") / "checkpoints"
    with open_checkpoints(directory) as checkpoints:
        for step, value in zip(STEPS, (0.5, 0.2, 0.9), strict=True):
            save(checkpoints, step, value)
    return directory


@pytest.fixture
def copied(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "checkpoints")


def flip(path, place):
    content = bytearray(path.read_bytes())
    content[place] ^= 0x10
    path.write_bytes(content)


def record_of(directory, step):
    return directory / str(step) / "record" / "record"


def largest(directory, step):
    return max((directory / str(step)).rglob("*"), key=lambda path: path.stat().st_size)


def listing(directory):
    return {path: path.stat().st_mtime_ns for path in directory.rglob("*")}


def files_of(directory, step):
    return sorted(path for path in (directory / str(step)).rglob("*") if path.is_file())


# Reads that were under way call back after the one that failed has closed its event loop.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(
    ("which", "harm"),
    [("latest", "flip"), ("latest", "cut"), ("latest", "remove"), ("best", "flip")],
)
def test_whatever_file_is_damaged_only_saved_bits_are_handed_out(
    saved, copied, tmp_path, caplog, which, harm
):
    previous = {"latest": 20, "best": 10}[which]
    rng = np.random.default_rng(0)
    passed_over = 0
    for file in files_of(copied, 30):
        content = file.read_bytes()
        if harm == "flip":
            flip(file, int(rng.integers(len(content))))
        elif harm == "cut":
            os.truncate(file, len(content) // 2)
        else:
            file.unlink()
        caplog.clear()
        with open_checkpoints(copied) as checkpoints:
            tree, step = checkpoints.restore_intact(which, abstract(make_tree(0)))
        assert as_bytes(tree) == as_bytes(make_tree(step)), file
        # What nobody reads may be damaged: then it is still the newest that is used.
        assert step in (30, previous)
        if step == previous:
            passed_over += 1
            assert "  step 30: " in caplog.text
            assert f"Step {previous} is used instead" in caplog.text
        file.write_bytes(content)
    assert passed_over >= 3  # a part of the arrays, the record, the index of the arrays


@pytest.mark.parametrize("part", ["", "state", "record"])
def test_a_missing_part_is_damage(copied, part):
    folder = copied / "30" / part
    shutil.rmtree(folder)
    folder.mkdir()
    with open_checkpoints(copied) as checkpoints:
        tree, step = checkpoints.restore_intact("latest", abstract(make_tree(0)))
    assert step == 20
    assert as_bytes(tree) == as_bytes(make_tree(20))


def test_every_altered_byte_of_the_record_is_noticed(copied):
    file = record_of(copied, 30)
    content = file.read_bytes()
    for place in range(0, len(content), 7):
        flip(file, place)
        with pytest.raises(DamagedCheckpointError, match="checkpoint 30"):
            open_checkpoints(copied).restore_metadata(30)
        file.write_bytes(content)
    assert open_checkpoints(copied).restore_metadata(30) == {"step": 30}


def test_a_flipped_metric_cannot_make_a_checkpoint_the_best(copied, caplog):
    file = record_of(copied, 20)
    file.write_text(file.read_text().replace("0.2", "0.99"))
    with open_checkpoints(copied) as checkpoints:
        assert checkpoints.best_step() == 30
        assert checkpoints.restore_intact("best", abstract(make_tree(0)))[1] == 30
    # It may have been the best, so it is reported although the best is intact.
    assert "  step 20: " in caplog.text
    assert "was altered" in caplog.text


def test_when_all_are_damaged_the_error_lists_each(copied):
    flip(largest(copied, 30), 40_000)
    record_of(copied, 20).unlink()
    record_of(copied, 10).write_text("{}")
    with open_checkpoints(copied) as checkpoints:
        assert not checkpoints.empty
        with pytest.raises(DamagedCheckpointError, match="every checkpoint in") as caught:
            checkpoints.restore_intact("latest", abstract(make_tree(0)))
    for words in ("  step 30: 1 leaves whose checksum", "kernel", "  step 20: ", "  step 10: "):
        assert words in str(caught.value)


def test_reading_changes_nothing_and_the_next_save_sets_the_damaged_aside(copied, caplog):
    flip(largest(copied, 30), 40_000)
    before = listing(copied)
    with open_checkpoints(copied) as checkpoints:
        checkpoints.restore_intact("latest", abstract(make_tree(0)))
        assert listing(copied) == before
        assert checkpoints.latest_step() == 20
        assert save(checkpoints, 25, 0.1)
        assert save(checkpoints, 30, 0.3)
        checkpoints.wait()
        assert checkpoints.latest_step() == 30
    assert {path.name for path in copied.iterdir()} == {"10", "20", "25", "30", "damaged_30"}
    assert "damaged_30" in caplog.text
    with open_checkpoints(copied) as checkpoints:
        tree, step = checkpoints.restore_intact("latest", abstract(make_tree(0)))
    assert step == 30
    assert as_bytes(tree) == as_bytes(make_tree(30))
    flip(largest(copied, 30), 40_000)
    with open_checkpoints(copied) as checkpoints:
        checkpoints.restore_intact("latest", abstract(make_tree(0)))
        save(checkpoints, 30)
    assert (copied / "damaged_30_2").is_dir()


def test_a_damaged_checkpoint_does_not_count_among_the_newest_that_are_kept(copied):
    record_of(copied, 30).unlink()
    with open_checkpoints(copied, keep_newest=2) as checkpoints:
        save(checkpoints, 40)
    assert {path.name for path in copied.iterdir()} == {"10", "20", "40", "damaged_30"}


def test_a_tree_that_does_not_fit_is_no_damage(copied):
    target = abstract(make_tree(0)) | {"more": jax.ShapeDtypeStruct((2,), jnp.float32)}
    with open_checkpoints(copied) as checkpoints:
        with pytest.raises(ValueError, match=r"checkpoint 30 .*does not fit this model") as caught:
            checkpoints.restore_intact("latest", target)
        assert not isinstance(caught.value, DamagedCheckpointError)
        assert checkpoints.latest_step() == 30


def test_what_refuses_the_metadata_is_asked_before_the_arrays_are_read(copied):
    flip(largest(copied, 30), 40_000)

    def refuse(metadata):
        assert metadata == {"step": 30}
        raise ValueError("not this one")

    checkpoints = open_checkpoints(copied)
    with pytest.raises(ValueError, match="not this one"):
        checkpoints.restore_intact("latest", abstract(make_tree(0)), accept=refuse)
    checkpoints.close()


def test_what_interrupted_saves_left_is_removed_by_the_next_save_and_by_nothing_else(copied):
    left = copied / "40.orbax-checkpoint-tmp" / "state"
    left.mkdir(parents=True)
    with open_checkpoints(copied) as checkpoints:
        checkpoints.restore_intact("latest", abstract(make_tree(0)))
        assert left.exists()
        save(checkpoints, 50)
    assert not left.parent.exists()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_save_that_finds_no_room_says_so_and_loses_nothing(copied):
    checkpoints = open_checkpoints(copied)
    with (
        small_files_only(),
        pytest.raises(CheckpointWriteError, match=r"File too large.*step 30 is kept.*Make room"),
    ):
        save(checkpoints, 40)
        checkpoints.wait()
    with open_checkpoints(copied) as reopened:
        assert reopened.restore_intact("latest", abstract(make_tree(0)))[1] == 30
        assert save(reopened, 40)
        reopened.wait()
        assert as_bytes(reopened.restore(40, abstract(make_tree(0)))) == as_bytes(make_tree(40))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_error_of_the_run_is_not_hidden_by_one_of_its_last_save(copied):
    with (
        pytest.raises(ZeroDivisionError),
        small_files_only(),
        open_checkpoints(copied) as checkpoints,
    ):
        save(checkpoints, 40)
        raise ZeroDivisionError
