"""A run's configuration on disk, and what identifies a run.

``fingerprint`` is the part of a config that a checkpoint depends on: a run can be resumed with
other logging, but not with another model. What values may be is said in ``configs``.
"""

import functools
import json
import math
import operator
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from int_ra_jax.common.files import replace_text
from int_ra_jax.common.nearest import nearest

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
_LATER: dict[str, Any] = {
    "train.shared_cache": "",
    "train.rows": 0,
    "train.cache_dtype": "same",
    "loss.unseen_negatives": True,
    "model.text.standardise": False,
    "model.image.standardise": False,
    "text.emoji": "keep",
}
# Those that Int-RA had from the start.
_LATER_BUT_IN_INT_RA: dict[str, Any] = {
    "model.attributes": "off",
    "model.newest_turn": False,
    "model.intention_match": 0.0,
    "loss.retrieval": "own",
    "loss.bank_size": 0,
    "loss.bank_refresh_steps": 100,
}


def flatten(config: ConfigDict | Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns {"section.key": value}; tuples become lists, as they do in JSON."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, ConfigDict | Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = list(value) if isinstance(value, tuple) else value
    return flat


def fingerprint(config: ConfigDict | Mapping[str, Any]) -> dict[str, Any]:
    """Returns the keys and values on which a checkpoint depends."""
    flat = as_before(flatten(config))
    return {key: value for key, value in sorted(flat.items()) if not key.startswith(_FREE)}


def as_before(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a flat config without the later keys that mean what held before there were any.

    So a run is the same run, whether its record was made before a key existed or after.
    """
    later = _later(flat.get("model.name", ""))
    return {k: v for k, v in flat.items() if k not in later or v != later[k]}


def _later(system: str) -> dict[str, Any]:
    return _LATER if system == "int_ra" else {**_LATER, **_LATER_BUT_IN_INT_RA}


def total_steps(config: ConfigDict, train_size: int) -> int:
    """Turns epochs into steps: the one place where that happens.

    Args:
      config: of a run.
      train_size: conversations of train, of which ``train.rows`` may take some.
    """
    size = min(train_size, config.train.rows or train_size)
    return max(1, math.ceil(config.train.epochs * size / config.train.batch_size))


def save(config: ConfigDict, path: Path) -> None:
    """Writes the resolved config as JSON, so that the workdir alone can be evaluated."""
    replace_text(path, to_json(config) + "\n")


def to_json(config: ConfigDict) -> str:
    """Returns the resolved config as JSON."""
    return json.dumps(config.to_dict(), indent=2, default=list)


def from_json(text: str) -> ConfigDict:
    """Returns the config that ``to_json`` wrote, locked; it has tuples where JSON has lists."""
    record = json.loads(
        text,
        object_hook=lambda found: {
            key: tuple(value) if isinstance(value, list) else value for key, value in found.items()
        },
    )
    for key, value in _later(record["model"]["name"]).items():
        *sections, name = key.split(".")
        functools.reduce(operator.getitem, sections, record).setdefault(name, value)
    return ConfigDict(record, convert_dict=True).lock()


def load(workdir: Path) -> ConfigDict:
    """Reads the config that a training run left in its workdir.

    Raises:
      FileNotFoundError: if there is none; names the nearest sibling directory that has one.
    """
    path = workdir / "config.json"
    if not path.is_file():
        siblings = sorted(p.parent.name for p in workdir.parent.glob("*/config.json"))
        near = nearest(workdir.name, siblings)
        hint = f" Did you mean {workdir.parent / near}?" if near else ""
        raise FileNotFoundError(
            f"--workdir={workdir} holds no config.json: no run was started there.{hint}"
        )
    return from_json(path.read_text())


def flag_problem(
    error: BaseException,
    configs: Path,
    line: Sequence[str] = (),
    known_keys: Callable[[Sequence[str]], Sequence[str]] = lambda _: (),
) -> str:
    """Returns in one line what is wrong with the command line.

    Args:
      error: what parsing the flags raised; ml_collections wraps tracebacks into some.
      configs: directory of the config files, for the nearest name.
      line: the command line.
      known_keys: returns the dotted keys of the config that a command line names.
    """
    if isinstance(error, OSError):
        name = Path(str(error).rpartition(": ")[2].strip("'"))
        files = sorted(path.name for path in configs.glob("[!_]*.py"))
        return f"--config={name}: no such file. Did you mean configs/{nearest(name.name, files)}?"
    while error.args and isinstance(error.args[0], BaseException):
        error = error.args[0]
    text = str(error.args[0] if error.args else error)
    if "Traceback" in text:
        text = text.strip().splitlines()[-1].removeprefix("ValueError: ")
    if isinstance(error, KeyError):
        lines = text.splitlines()
        hint = lines[1:] or [_nearest_key(lines[0].strip("'\""), line, known_keys(line))]
        return "flags: no config key " + ". ".join([lines[0], *filter(None, hint)])
    return "flags: " + " ".join(text.split())


def _nearest_key(name: str, line: Sequence[str], known: Sequence[str]) -> str:
    """Returns where a key that is not known may lie: in another section, or under another name.

    Args:
      name: the part of the key that is not known.
      line: the command line that has it.
      known: the dotted keys that there are.
    """
    given = [one.removeprefix("--config.").partition("=")[0] for one in line]
    asked = next((one for one in given if name in one.split(".")), name)
    ends: dict[str, list[str]] = {}
    for key in known:
        ends.setdefault(key.rpartition(".")[2], []).append(key)
    last = asked.rpartition(".")[2]
    near = nearest(last, list(ends), cutoff=0.6) or last
    found = ends.get(near) or [key for key in known if last in key.split(".")]
    if found:
        return "Did you mean " + " or ".join(f"--config.{key}" for key in found[:5]) + "?"
    section = asked.rpartition(".")[0]
    inside = [key for key in known if section and key.startswith(f"{section}.")]
    parts = inside or sorted({key.partition(".")[0] for key in known})
    return f"There are {', '.join(parts)}" if parts else ""
