"""Checks a configuration before anything is loaded, and identifies it afterwards.

``validate`` reports every problem of a config at once. ``fingerprint`` is the part of a config
that a checkpoint depends on: a run can be resumed with other logging, but not with another model.
"""

import difflib
import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from int_ra_jax.common.files import replace_text

# The valid choices of every key that names one; keys that a system does not have are passed over.
CHOICES: dict[str, tuple[str, ...]] = {
    "model.dtype": ("float32", "bfloat16"),
    "model.text_pool": ("cls", "mean", "last"),
    "model.intention_fusion": ("fused", "hard_label", "soft_label", "straight_through", "off"),
    "model.attributes": ("on", "off"),
    "model.attribute_tokens": ("pooled", "all"),
    "model.regions": ("patches", "patches+cls", "cls"),
    "model.relation": ("channel", "region", "scalar"),
    "model.relation_pool": ("max", "mean", "logsumexp"),
    "loss.retrieval": ("hinge", "infonce", "multi_positive", "literal_eq14"),
    "loss.negatives": ("in_batch", "bank", "both"),
    "loss.class_weights": ("none", "balanced"),
    "loss.dup_policy": ("none", "mask_same_sticker"),
    "model.head": ("regress", "id"),
    "loss.mse": ("sum", "mean"),
    "model.score": ("mean", "matmul", "match_prob"),
    "loss.kl": ("code", "correct"),
    "loss.match": ("diag", "label"),
    "loss.match_label": ("intent", "sticker"),
    "loss.negatives_from": ("any_other_sticker", "other_intent"),
    "text.speakers": ("prefix", "off"),
    "text.knowledge": ("append", "off"),
    "data.resize": ("squeeze", "crop"),
    "data.frame": ("first", "middle"),
    "optim.name": ("adam", "adamw"),
    "optim.schedule": ("constant", "cosine", "linear"),
    "eval.protocol": ("paper", "multi", "exact"),
    "eval.split": ("train", "valid", "test"),
}

# (what must hold, its wording) by key.
_POSITIVE = (lambda x: x > 0, "must be above 0")
_NOT_NEGATIVE = (lambda x: x >= 0, "must not be negative")
_LAYERS = (lambda x: x >= -1, "must be -1 (all), 0 (none) or a count")
_RATE = (lambda x: 0 <= x < 1, "must lie in [0, 1)")
RANGES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "model.joint_width": _POSITIVE,
    "model.heads": _POSITIVE,
    "model.intention_match": _NOT_NEGATIVE,
    "model.parts": _POSITIVE,
    "model.token_width": _POSITIVE,
    "model.dictionary_size": _POSITIVE,
    "model.rebuild_head": _POSITIVE,
    "model.rebuild_ffn": _POSITIVE,
    "model.decoder_head": _POSITIVE,
    "model.decoder_ffn": _POSITIVE,
    "model.dropout": _RATE,
    "model.text.frozen_layers": _LAYERS,
    "model.text.lora_rank": _NOT_NEGATIVE,
    "model.text.lora_alpha": _POSITIVE,
    "model.text.width": _POSITIVE,
    "model.text.layers": _POSITIVE,
    "model.text.heads": _POSITIVE,
    "model.text.vocabulary": _POSITIVE,
    "model.image.frozen_layers": _LAYERS,
    "model.image.lora_rank": _NOT_NEGATIVE,
    "model.image.lora_alpha": _POSITIVE,
    "model.image.width": _POSITIVE,
    "model.image.layers": _POSITIVE,
    "model.image.heads": _POSITIVE,
    "model.image.patch": _POSITIVE,
    "loss.margin": _NOT_NEGATIVE,
    "loss.temperature": (lambda x: 0.01 <= x <= 1, "must lie in [0.01, 1], CLIP's bounds"),
    "loss.bank_size": _NOT_NEGATIVE,
    "loss.bank_refresh_steps": _POSITIVE,
    "loss.lambda_ret": _NOT_NEGATIVE,
    "loss.lambda_int": _NOT_NEGATIVE,
    "loss.label_smoothing": _RATE,
    "model.samples": _POSITIVE,
    "loss.beta": _NOT_NEGATIVE,
    "loss.lambda_uniformity": _NOT_NEGATIVE,
    "model.interaction_layers": _POSITIVE,
    "loss.lambda_id": _NOT_NEGATIVE,
    "loss.lambda_mlm": _NOT_NEGATIVE,
    "model.utterances": _POSITIVE,
    "model.utterance_tokens": (lambda x: x >= 3, "must be at least 3"),
    "model.region_window": _POSITIVE,
    "model.fusion_width": _POSITIVE,
    "model.fusion_heads": _POSITIVE,
    "model.fusion_inner": _POSITIVE,
    "model.fusion_layers": _POSITIVE,
    "loss.candidates": (lambda x: x >= 2, "must be at least 2"),
    # [CLS], one token of a turn, [SEP], and the replying speaker's own segment
    "text.context_tokens": (lambda x: x >= 8, "must be at least 8"),
    "text.knowledge_tokens": (lambda x: x >= 2, "must be at least 2"),
    "text.attribute_tokens": (lambda x: x >= 3, "must be at least 3"),
    "text.name_tokens": (lambda x: x >= 3, "must be at least 3"),
    "data.image_size": _POSITIVE,
    "optim.lr": _POSITIVE,
    "optim.warmup_steps": _NOT_NEGATIVE,
    "optim.weight_decay": _NOT_NEGATIVE,
    "optim.b1": _RATE,
    "optim.b2": _RATE,
    "optim.eps": _POSITIVE,
    "optim.clip_norm": _NOT_NEGATIVE,
    "train.batch_size": _POSITIVE,
    "train.micro_batches": _POSITIVE,
    "train.ema_decay": _RATE,
    "train.bucket_tokens": _NOT_NEGATIVE,
    "train.bucket_batches": _POSITIVE,
    "train.epochs": _POSITIVE,
    "train.max_steps": _NOT_NEGATIVE,
    "train.log_steps": _POSITIVE,
    "train.eval_steps": _NOT_NEGATIVE,
    "train.cache_limit_gib": _POSITIVE,
    "eval.batch_size": _POSITIVE,
    "eval.sticker_batch_size": _POSITIVE,
    "eval.resamples": _POSITIVE,
    "eval.conversations": _NOT_NEGATIVE,
    "checkpoint.steps": _NOT_NEGATIVE,
    "checkpoint.keep_newest": _POSITIVE,
}

# Keys that may change between a run and its continuation: they alter neither the parameters nor
# the order of the data.
_FREE = (
    "mesh.",
    "eval.",
    "checkpoint.",
    "log.",
    "train.log_steps",
    "train.eval_steps",
    "train.max_steps",
    "train.cache_limit_gib",
    "train.compilation_cache",
    "train.shared_cache",
    "data.prepared_dir",
    "data.tfds_dir",
)


# Keys that came after the first workdirs, with the value that those were made under.
_LATER = {"train": {"shared_cache": ""}}


def flatten(config: ConfigDict | Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns {"section.key": value}; tuples become lists, as they do in JSON."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, ConfigDict | Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = list(value) if isinstance(value, tuple) else value
    return flat


def validate(config: ConfigDict, systems: tuple[str, ...]) -> None:
    """Checks every choice, range and combination of a config.

    Args:
      config: the resolved configuration.
      systems: the names that ``model.name`` may take.

    Raises:
      ValueError: one error that lists every problem with its key and the nearest valid choice.
    """
    flat = flatten(config)
    problems = []
    for key, choices in {**CHOICES, "model.name": systems}.items():
        if key in flat and flat[key] not in choices:
            near = difflib.get_close_matches(str(flat[key]), choices, n=1, cutoff=0.0)[0]
            problems.append(f"{key}={flat[key]!r}: did you mean {near!r}? (one of {choices})")
    for key, (holds, wording) in RANGES.items():
        if key in flat and not holds(flat[key]):
            problems.append(f"{key}={flat[key]!r} {wording}")
    problems += _combinations(flat)
    if problems:
        raise ValueError("configuration:\n  " + "\n  ".join(problems))


def _combinations(flat: dict[str, Any]) -> list[str]:
    problems = []
    if flat.get("model.joint_width", 0) % (flat.get("model.heads") or 1):
        problems.append(
            f"model.joint_width={flat['model.joint_width']} is not divisible by "
            f"model.heads={flat['model.heads']}"
        )
    for tower in ("text", "image"):
        width, heads = flat[f"model.{tower}.width"], flat[f"model.{tower}.heads"]
        if not flat[f"model.{tower}.source"] and width % (heads or 1):
            problems.append(f"model.{tower}.width={width} is not divisible by its heads={heads}")
        if flat[f"model.{tower}.lora_rank"] and flat[f"model.{tower}.frozen_layers"]:
            problems.append(
                f"model.{tower}.lora_rank freezes the tower's own weights itself; "
                f"leave model.{tower}.frozen_layers at 0"
            )
    size, patch = flat["data.image_size"], flat["model.image.patch"]
    if not flat["model.image.source"] and size % (patch or 1):
        problems.append(
            f"data.image_size={size} is not divisible by model.image.patch={patch}; "
            f"use {size // patch * patch or patch}"
        )
    if flat["optim.weight_decay"] and flat["optim.name"] == "adam":
        problems.append(
            f"optim.weight_decay={flat['optim.weight_decay']} is not read by optim.name=adam; "
            "use --config.optim.name=adamw, or 0"
        )
    # data=-1 stands for as many as there are, which only the mesh itself can check.
    shards = max(flat["mesh.data"], 1) * flat["mesh.fsdp"]
    size, parts = flat["train.batch_size"], flat["train.micro_batches"] * shards
    if size % parts:
        problems.append(
            f"train.batch_size={size} is not divisible by {parts} (mesh.data * mesh.fsdp * "
            f"train.micro_batches); use {max(size // parts, 1) * parts}"
        )
    first, last = flat["log.profile_steps"]
    if not 0 <= first <= last:
        problems.append(f"log.profile_steps={(first, last)}: the first step comes first")
    return problems


def fingerprint(config: ConfigDict | Mapping[str, Any]) -> dict[str, Any]:
    """Returns the keys and values on which a checkpoint depends."""
    return {
        key: value for key, value in sorted(flatten(config).items()) if not key.startswith(_FREE)
    }


def total_steps(config: ConfigDict, train_size: int) -> int:
    """Turns epochs into steps: the one place where that happens."""
    return max(1, math.ceil(config.train.epochs * train_size / config.train.batch_size))


def save(config: ConfigDict, path: Path) -> None:
    """Writes the resolved config as JSON, so that the workdir alone can be evaluated."""
    replace_text(path, json.dumps(config.to_dict(), indent=2, default=list) + "\n")


def load(workdir: Path) -> ConfigDict:
    """Reads the config that a training run left in its workdir.

    Raises:
      FileNotFoundError: if there is none; names the nearest sibling directory that has one.
    """
    path = workdir / "config.json"
    if not path.is_file():
        siblings = sorted(p.parent.name for p in workdir.parent.glob("*/config.json"))
        near = difflib.get_close_matches(workdir.name, siblings, n=1, cutoff=0.0)
        hint = f" Did you mean {workdir.parent / near[0]}?" if near else ""
        raise FileNotFoundError(
            f"--workdir={workdir} holds no config.json: no run was started there.{hint}"
        )
    record = json.loads(path.read_text())
    for section, keys in _LATER.items():
        record[section] = keys | record[section]
    # Before it is a ConfigDict, which turns a tuple back into the list that a field was before.
    for section, key in (("optim", "frozen"), ("log", "profile_steps")):
        record[section][key] = tuple(record[section][key])
    return ConfigDict(record, convert_dict=True).lock()


def flag_problem(error: BaseException, configs: Path) -> str:
    """Returns in one line what is wrong with the command line.

    Args:
      error: what parsing the flags raised; ml_collections wraps tracebacks into some.
      configs: directory of the config files, for the nearest name.
    """
    if isinstance(error, OSError):
        name = Path(str(error).rpartition(": ")[2].strip("'"))
        files = sorted(path.name for path in configs.glob("[!_]*.py"))
        near = difflib.get_close_matches(name.name, files, 1, 0.0)
        return f"--config={name}: no such file. Did you mean configs/{near[0]}?"
    while error.args and isinstance(error.args[0], BaseException):
        error = error.args[0]
    text = str(error.args[0] if error.args else error)
    if "Traceback" in text:
        text = text.strip().splitlines()[-1].removeprefix("ValueError: ")
    if isinstance(error, KeyError):
        return "flags: no config key " + ". ".join(text.splitlines())
    return "flags: " + " ".join(text.split())
