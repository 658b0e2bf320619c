"""What the values of a config must be: each rule stands beside its key, and one check reads all.

A config file that brings keys declares ``RULES``, {key: rule}, and where values must fit together
``COMBINATIONS``, functions of the whole config; ``base.py`` has those of the shared keys.
"""

import difflib
import importlib.util
import math
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

Rule = Callable[[Any], str]  # what is wrong with a value, to stand behind "key=value"; "" = nothing
Combination = Callable[[ConfigDict], Iterator[str]]  # what is wrong, one text a problem


def nearest(name: str, known: Collection[str]) -> str:
    """Returns the known name most like another; there must be one.

    ``int_ra_jax.common.nearest`` is out of reach: configs import nothing of the package.
    """
    return difflib.get_close_matches(name, known, 1, 0.0)[0]


def one_of(*choices: str) -> Rule:
    """Returns the rule of a key that names its value."""
    return lambda value: (
        ""
        if value in choices
        else f": did you mean {nearest(str(value), choices)!r}? (one of {choices})"
    )


def number(holds: Callable[[Any], bool], wording: str) -> Rule:
    """Returns the rule of a number, which is finite besides."""

    def problem(value: Any) -> str:
        if not math.isfinite(value):
            return " must be finite"
        return "" if holds(value) else f" {wording}"

    return problem


def at_least(low: float) -> Rule:
    """Returns the rule of a number that has a smallest value."""
    return number(lambda x: x >= low, f"must be at least {low}")


def each(rule: Rule, *keys: str) -> dict[str, Rule]:
    """Returns one rule for several keys."""
    return dict.fromkeys(keys, rule)


def window(value: Any) -> str:
    """Tells what is wrong with two steps, of which the first comes first; a ``Rule``."""
    if len(value) != 2 or not all(isinstance(step, int) for step in value):
        return ': two steps are meant, the first and the last, as in "(100, 104)"'
    return "" if 0 <= value[0] <= value[1] else ": the first step comes first"


def known_keys(line: Sequence[str]) -> list[str]:
    """Returns the dotted keys of the config file that a command line names, or the shared ones."""
    named = [one.partition("=")[2] for one in line if one.startswith("--config=")]
    file = Path(named[-1].partition(":")[0]).stem if named else "base"
    exists = importlib.util.find_spec(f"configs.{file}") if file.isidentifier() else None
    config = importlib.import_module(f"configs.{file if exists else 'base'}").get_config()
    return list(_flat(config, ""))


def _flat(config: ConfigDict, before: str) -> Iterator[str]:
    for key, value in config.items():
        if isinstance(value, ConfigDict) and value:
            yield from _flat(value, f"{before}{key}.")
        else:
            yield f"{before}{key}"


ABOVE_0 = number(lambda x: x > 0, "must be above 0")
FROM_0 = number(lambda x: x >= 0, "must not be negative")
RATE = number(lambda x: 0 <= x < 1, "must lie in [0, 1)")
LAYERS = number(lambda x: x >= -1, "must be -1 (all), 0 (none) or a count")
# Losses over the gallery, which every system is offered in place of its own.
OVER_GALLERY = ("multi_positive", "gold_softmax")
TEMPERATURE = number(lambda x: 0.01 <= x <= 1, "must lie in [0.01, 1], CLIP's bounds")


def heads_divide_width(config: ConfigDict) -> Iterator[str]:
    """Yields a problem where ``model.heads`` cannot share ``model.joint_width`` among them."""
    width, heads = config.model.joint_width, config.model.get("heads") or 1
    if width % heads:
        yield f"model.joint_width={width} is not divisible by model.heads={heads}"


def match_is_trained(config: ConfigDict) -> Iterator[str]:
    """Yields a problem where ``model.intention_match`` would add a prediction that never trains."""
    if config.model.intention_match and not config.loss.lambda_int:
        yield (
            f"model.intention_match={config.model.intention_match} adds the predicted intention to "
            "the score, which loss.lambda_int=0 leaves untrained; set either"
        )


def validate(config: ConfigDict, systems: Collection[str]) -> None:
    """Checks every choice, range and combination of a run's config.

    Args:
      config: the resolved configuration; keys that it lacks, since it is older, are passed over.
      systems: the names that ``model.name`` may take; each has the config file of its name.

    Raises:
      ValueError: one error that lists every problem with its key and the nearest valid choice.
    """
    name = config.model.name
    problems = [f"model.name={name!r}{problem}"] if (problem := one_of(*systems)(name)) else []
    for file in ("base", nearest(name, systems)):
        module = importlib.import_module(f"configs.{file}")
        for key, rule in module.RULES.items():
            value = _value(config, key)
            if value is not None and (problem := rule(value)):
                problems.append(f"{key}={value!r}{problem}")
        for combination in getattr(module, "COMBINATIONS", ()):
            problems += combination(config)
    if problems:
        raise ValueError("configuration:\n  " + "\n  ".join(problems))


def _value(config: Any, key: str) -> Any:
    """Returns the value of a dotted key, or None where the config has no such key."""
    for part in key.split("."):
        config = config.get(part)
        if config is None:
            break
    return config
