"""A config is checked as a whole before a run, by rules that stand beside its keys."""

import ast
import copy
import importlib
from pathlib import Path

import pytest
from fixtures.trained import tiny_config

from configs import base, int_ra, rules
from int_ra_jax.common.config import flatten
from int_ra_jax.models import losses
from int_ra_jax.models.registry import SYSTEMS

ROOT = Path(__file__).resolve().parent.parent
FILES = {name: importlib.import_module(f"configs.{name}") for name in SYSTEMS}
SHARED = flatten(base.get_config())
# Every key that some system has.
FLAT = {k: v for file in (*FILES.values(), int_ra) for k, v in flatten(file.get_config()).items()}
RULES = [(name, key) for name, file in {"base": base, **FILES}.items() for key in file.RULES]


@pytest.mark.parametrize(("name", "preset"), [(n, p) for n in SYSTEMS for p in FILES[n].PRESETS])
def test_every_preset_is_valid(name, preset):
    config = FILES[name].get_config(preset)
    assert config.model.name == name
    rules.validate(config, SYSTEMS)


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
        loss__margin=float("inf"),
    )
    with pytest.raises(ValueError) as raised:
        rules.validate(config, SYSTEMS)
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
        "loss.margin=inf must be finite",
    ):
        assert part in message
    assert len(message.splitlines()) == 12  # the heading, and one line each


@pytest.mark.parametrize(("file", "key"), RULES)
def test_every_rule_stands_beside_its_key_and_holds_by_default(file, key):
    value = (SHARED if file == "base" else flatten(FILES[file].get_config()))[key]
    rule = (base if file == "base" else FILES[file]).RULES[key]
    assert rule(value) == ""
    assert file == "base" or key not in SHARED


def test_every_string_key_that_is_no_free_text_has_its_choices():
    free = {
        "data.prepared_dir", "data.tfds_dir", "checkpoint.resume_from", "model.name",
        "model.text.source", "model.image.source", "train.compilation_cache", "train.shared_cache",
    }  # fmt: skip
    ruled = {key for _, key in RULES if isinstance(FLAT[key], str)}
    assert {key for key, value in FLAT.items() if isinstance(value, str)} - free == ruled


@pytest.mark.parametrize("key", sorted({k for _, k in RULES if isinstance(FLAT[k], str)}))
def test_a_choice_that_does_not_exist_is_refused_by_its_key(key):
    smoke = (file.get_config("smoke") for file in FILES.values())
    config = next(copy.deepcopy(one) for one in smoke if key in flatten(one))
    config.update_from_flattened_dict({key: "nonsense"})
    with pytest.raises(ValueError, match=key.replace(".", r"\.") + "='nonsense': did you mean"):
        rules.validate(config, SYSTEMS)


def test_every_loss_of_the_library_can_be_chosen():
    assert all(int_ra.RULES["loss.retrieval"](name) == "" for name in losses.RETRIEVAL)
    once = {name for name, loss in losses.RETRIEVAL.items() if loss.compares_once}
    assert {*rules.OVER_GALLERY} == once
    for name, file in FILES.items():
        assert all(file.RULES["loss.retrieval"](x) == "" for x in once), name


@pytest.mark.parametrize(
    ("name", "changes", "problem"),
    [
        ("mod", {"model.head": "id", "model.attributes": "on"}, "model.head=id has one class"),
        *(
            (name, {"model.intention_match": 1.0, "loss.lambda_int": 0.0}, "leaves untrained")
            for name in ("int_ra", "lgur", "mod")
        ),
    ],
)
def test_what_cannot_be_offered_together_is_refused(name, changes, problem):
    with pytest.raises(ValueError, match=problem):
        rules.validate(_with(name, changes), SYSTEMS)
    for key in changes:  # either of them alone is fine
        rules.validate(_with(name, {k: v for k, v in changes.items() if k != key}), SYSTEMS)


def _with(name, changes):
    config = copy.deepcopy(FILES[name].get_config("smoke"))
    config.update_from_flattened_dict(changes)
    return config


def test_a_config_from_before_a_key_existed_is_checked_without_it():
    config = tiny_config("").copy_and_resolve_references().unlock()
    del config.train["shared_cache"], config.train["ema_decay"], config.model["heads"]
    rules.validate(config, SYSTEMS)


def test_every_key_is_read_somewhere_under_its_own_name():
    read = set()
    for path in (ROOT / "launch.py", *(ROOT / "int_ra_jax").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute):
                # config.train.log_steps -> ("train", "log_steps"), loss.margin likewise
                base_name = node.value
                read.add((getattr(base_name, "attr", getattr(base_name, "id", "")), node.attr))
    # The two axes' and roles' sections are read as a whole, by the name of an axis or a role.
    keys = [key.split(".") for key in FLAT if not key.startswith(("mesh.", "optim.multipliers."))]
    unread = sorted(key for key in keys if (key[-2] if key[1:] else "config", key[-1]) not in read)
    # One section describes either tower, and the fingerprint of every workdir has all of it.
    assert unread == [["model", "image", "vocabulary"], ["model", "text", "patch"]]


@pytest.mark.parametrize("steps", [(5,), (), (1, 2, 3), ("a", 3)])
def test_a_window_of_steps_has_two_of_them(steps):
    with pytest.raises(ValueError, match=r"log\.profile_steps=.*: two steps are meant"):
        rules.validate(tiny_config("", log__profile_steps=steps), SYSTEMS)
