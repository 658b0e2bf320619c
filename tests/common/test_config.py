"""A config is the same config on disk, and says which run it belongs to."""

import functools
import importlib
import json
import operator
from pathlib import Path

import pytest
from fixtures.trained import tiny_config
from hypothesis import given
from hypothesis import strategies as st

from configs import rules
from int_ra_jax.common import config as configuration
from int_ra_jax.models.registry import SYSTEMS


def test_a_workdir_from_before_a_key_existed_is_read(tmp_path):
    config = tiny_config("somewhere")
    configuration.save(config, tmp_path / "config.json")
    record = json.loads((tmp_path / "config.json").read_text())
    for key in ("shared_cache", "rows", "cache_dtype"):
        del record["train"][key]
    del record["loss"]["unseen_negatives"]
    for tower in ("text", "image"):
        del record["model"][tower]["standardise"]
    del record["text"]["emoji"]
    (tmp_path / "config.json").write_text(json.dumps(record))
    assert configuration.load(tmp_path).to_dict() == config.to_dict()


COMPARED = sorted({*SYSTEMS} - {"int_ra"})
LATER = {
    "train.rows": 5,
    "train.cache_dtype": "float16",
    "loss.unseen_negatives": False,
    "model.text.standardise": True,
    "model.image.standardise": True,
    "text.emoji": "words",
    "model.newest_turn": True,
    "model.attributes": "on",
    "model.intention_match": 1.0,
    "loss.retrieval": "gold_softmax",
    "loss.bank_refresh_steps": 7,
}


@pytest.mark.parametrize("name", COMPARED)
def test_what_every_system_is_offered_leaves_old_runs_as_they_are(name, tmp_path):
    config = importlib.import_module(f"configs.{name}").get_config("smoke")
    before = configuration.fingerprint(config)
    assert not before.keys() & LATER.keys()
    configuration.save(config, tmp_path / "config.json")
    record = json.loads((tmp_path / "config.json").read_text())
    for key in LATER:
        *sections, last = key.split(".")
        del functools.reduce(operator.getitem, sections, record)[last]
    (tmp_path / "config.json").write_text(json.dumps(record))
    loaded = configuration.load(tmp_path)
    assert loaded.to_dict() == config.to_dict()
    for key, value in LATER.items():
        changed = config.copy_and_resolve_references()
        changed.update_from_flattened_dict({key: value})
        assert configuration.fingerprint(changed) == {**before, key: value}


def test_what_int_ra_always_had_stays_in_its_fingerprint():
    held = configuration.fingerprint(tiny_config("", model__attributes="off"))
    assert held["model.attributes"] == "off" and held["model.intention_match"] == 0.0
    assert held["loss.bank_size"] == 0 and "loss.unseen_negatives" not in held


def test_a_saved_config_is_the_same_when_loaded(tmp_path):
    config = tiny_config("somewhere", optim__frozen=(r"image/.*", r"text/embeddings/.*"))
    configuration.save(config, tmp_path / "config.json")
    loaded = configuration.load(tmp_path)
    assert loaded.to_dict() == config.to_dict()
    assert isinstance(loaded.optim.frozen, tuple)
    assert loaded.is_locked
    assert isinstance(loaded.log.profile_steps, tuple)
    assert configuration.fingerprint(loaded) == configuration.fingerprint(config)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("mesh.data", -1),
        ("eval.batch_size", 5),
        ("checkpoint.steps", 7),
        ("log.tensorboard", True),
        ("train.log_steps", 1),
        ("train.eval_steps", 1),
        ("train.max_steps", 99),
        ("data.prepared_dir", "elsewhere"),
        ("data.tfds_dir", "elsewhere"),
    ],
)
def test_the_fingerprint_ignores_what_changes_no_parameter(key, value):
    changed = tiny_config("", **{key.replace(".", "__"): value})
    assert configuration.fingerprint(changed) == configuration.fingerprint(tiny_config(""))


@pytest.mark.parametrize("key", ["model.", "loss.", "text.", "optim.", "data.image", "seed"])
def test_the_fingerprint_holds_everything_else(key):
    for name in SYSTEMS:
        config = importlib.import_module(f"configs.{name}").get_config()
        flat = configuration.as_before(configuration.flatten(config))
        expected = {name for name in flat if name.startswith(key)}
        assert expected <= configuration.fingerprint(config).keys()


def test_the_fingerprint_is_unchanged_by_json():
    held = configuration.fingerprint(tiny_config("", optim__frozen=("image/.*",)))
    assert json.loads(json.dumps(held)) == held


@given(st.integers(1, 500), st.integers(1, 64), st.floats(0.1, 20))
def test_the_steps_cover_the_epochs_and_no_batch_more(size, batch, epochs):
    config = tiny_config("", train__batch_size=batch, train__epochs=epochs)
    steps = configuration.total_steps(config, size)
    assert steps >= 1
    assert steps * batch >= epochs * size * (1 - 1e-9)
    assert (steps - 1) * batch < epochs * size


def test_fewer_rows_are_fewer_steps():
    config = tiny_config("", train__batch_size=8, train__epochs=2.0, train__rows=40)
    assert configuration.total_steps(config, 1000) == 10
    assert configuration.total_steps(config, 24) == 6


def test_a_workdir_without_a_run_names_the_nearest_one(tmp_path):
    (tmp_path / "demo_run").mkdir()
    (tmp_path / "empty").mkdir()
    configuration.save(tiny_config(""), tmp_path / "demo_run" / "config.json")
    with pytest.raises(
        FileNotFoundError, match=r"no run was started there.*Did you mean .*demo_run\?"
    ):
        configuration.load(tmp_path / "demo_rum")
    with pytest.raises(FileNotFoundError, match="no run was started there"):
        configuration.load(tmp_path / "nowhere" / "demo_run")


@pytest.mark.parametrize(
    ("flag", "hint"),
    [
        ("lr=1", "Did you mean --config.optim.lr?"),
        ("train.profile_step=5", "Did you mean --config.log.profile_steps?"),
        ("model.heds=2", "Did you mean --config.model.heads"),
        ("optim.learning_rate=1", "There are optim.b1, optim.b2"),
        ("zzz.q=1", "There are checkpoint, data, eval"),
    ],
)
def test_a_key_that_is_not_known_is_answered_with_where_it_may_lie(flag, hint):
    line = ["launch.py", "--config=configs/int_ra.py:demo", f"--config.{flag}"]
    unknown = flag.partition("=")[0].split(".")
    sections = {key.partition(".")[0] for key in rules.known_keys(line)}
    name = unknown[0] if unknown[0] not in sections else unknown[-1]
    error = KeyError(f"'{name}'")
    said = configuration.flag_problem(error, Path("configs"), line, rules.known_keys)
    assert said.startswith(f"flags: no config key '{name}'. ") and hint in said
    other = [line[0], "--config=configs/none.py", line[2]]
    assert "flags: no config key" in configuration.flag_problem(
        error, Path("configs"), other, rules.known_keys
    )
