"""A config is checked as a whole before a run, and is the same config afterwards."""

import ast
import copy
import importlib
import json
from pathlib import Path

import pytest
from fixtures.trained import tiny_config
from hypothesis import given
from hypothesis import strategies as st

from configs import int_ra
from int_ra_jax.common import config as configuration
from int_ra_jax.models.registry import SYSTEMS

ROOT = Path(__file__).resolve().parents[2]
NAMES = tuple(SYSTEMS)
FILES = {name: importlib.import_module(f"configs.{name}") for name in NAMES}
# Every key that some system has.
FLAT = {
    key: value
    for file in (*FILES.values(), int_ra)
    for key, value in configuration.flatten(file.get_config()).items()
}


@pytest.mark.parametrize(("name", "preset"), [(n, p) for n in NAMES for p in FILES[n].PRESETS])
def test_every_preset_is_valid(name, preset):
    config = FILES[name].get_config(preset)
    assert config.model.name == name
    configuration.validate(config, NAMES)


def test_every_problem_is_listed_at_once_with_the_nearest_choice():
    config = tiny_config(
        "",
        model__name="int_rb",
        loss__retrieval="hing",
        text__speakers="prefixes",
        optim__lr=0.0,
        model__image__heads=0,
        data__image_size=50,
        train__batch_size=6,
        mesh__data=4,
        optim__weight_decay=0.1,
        model__text__lora_rank=4,
        model__text__frozen_layers=1,
        log__profile_steps=(7, 3),
    )
    with pytest.raises(ValueError) as raised:
        configuration.validate(config, NAMES)
    message = str(raised.value)
    for part in (
        "model.name='int_rb': did you mean 'int_ra'?",
        "loss.retrieval='hing': did you mean 'hinge'?",
        "text.speakers='prefixes': did you mean 'prefix'?",
        "optim.lr=0.0 must be above 0",
        "model.image.heads=0 must be above 0",
        "data.image_size=50 is not divisible by model.image.patch=16; use 48",
        "train.batch_size=6 is not divisible by 4 (mesh.data * mesh.fsdp * train.micro_batches); "
        "use 4",
        "optim.weight_decay=0.1 is not read by optim.name=adam",
        "model.text.lora_rank freezes the tower's own weights itself",
        "log.profile_steps=(7, 3): the first step comes first",
    ):
        assert part in message
    assert len(message.splitlines()) == 11  # the heading, and one line each


@pytest.mark.parametrize("key", [*configuration.CHOICES, *configuration.RANGES])
def test_every_rule_is_about_a_key_that_exists_and_that_holds_by_default(key):
    assert key in FLAT
    if key in configuration.CHOICES:
        assert FLAT[key] in configuration.CHOICES[key]
    else:
        assert configuration.RANGES[key][0](FLAT[key])


@pytest.mark.parametrize("key", configuration.CHOICES)
def test_a_choice_that_does_not_exist_is_refused_by_its_key(key):
    smoke = (file.get_config("smoke") for file in FILES.values())
    config = next(copy.deepcopy(one) for one in smoke if key in configuration.flatten(one))
    config.update_from_flattened_dict({key: "nonsense"})
    with pytest.raises(ValueError, match=key.replace(".", r"\.") + "='nonsense': did you mean"):
        configuration.validate(config, NAMES)


def test_every_string_key_that_is_no_free_text_has_its_choices():
    free = {"data.prepared_dir", "data.tfds_dir", "checkpoint.resume_from", "model.name"}
    free |= {
        "model.text.source",
        "model.image.source",
        "train.compilation_cache",
        "train.shared_cache",
    }
    strings = {key for key, value in FLAT.items() if isinstance(value, str)}
    assert strings - free == set(configuration.CHOICES)


def test_every_key_is_read_somewhere():
    read = set()
    for path in (ROOT / "launch.py", *(ROOT / "int_ra_jax").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute):
                # config.train.log_steps -> ("train", "log_steps"), loss.margin likewise
                base = node.value
                read.add((getattr(base, "attr", getattr(base, "id", "")), node.attr))
            elif isinstance(node, ast.Constant) and path.name == "optim.py":
                read.add(("config", node.value))  # getattr(config, key) over a table of names
    aliases = {"tower", "section", "names", "image_names", "config"}
    unread = []
    for key in FLAT:
        *sections, name = key.split(".")
        if sections in (["mesh"], ["optim", "multipliers"]):
            continue  # read as a whole, by the name of an axis or a role
        if not any((section, name) in read for section in aliases.union(sections)):
            unread.append(key)
    assert unread == []


def test_a_workdir_from_before_a_key_existed_is_read(tmp_path):
    config = tiny_config("somewhere")
    configuration.save(config, tmp_path / "config.json")
    record = json.loads((tmp_path / "config.json").read_text())
    del record["train"]["shared_cache"]
    (tmp_path / "config.json").write_text(json.dumps(record))
    assert configuration.load(tmp_path).to_dict() == config.to_dict()


def test_a_saved_config_is_the_same_when_loaded(tmp_path):
    config = tiny_config("somewhere", optim__frozen=(r"image/.*", r"text/embeddings/.*"))
    configuration.save(config, tmp_path / "config.json")
    loaded = configuration.load(tmp_path)
    assert loaded.to_dict() == config.to_dict()
    assert isinstance(loaded.optim.frozen, tuple)
    assert loaded.is_locked
    configuration.validate(loaded, NAMES)
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
    for file in FILES.values():
        config = file.get_config()
        expected = {name for name in configuration.flatten(config) if name.startswith(key)}
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
