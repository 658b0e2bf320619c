"""What a table is made of: systems and readings resolved, trials drawn, every problem at once.

A table's config names systems by config file and preset and says what is set for all of them, so
that none gets another budget. Nothing is trained here.
"""

import copy
import importlib.util
import math
import random
import re
import runpy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from configs import rules
from int_ra_jax.common import config as configuration
from int_ra_jax.common.nearest import nearest
from int_ra_jax.comparison.layout import RESERVED, columns_of
from int_ra_jax.models.registry import SYSTEMS

SEARCH_SEED = 0  # every trial is trained with it
# Sections and keys that must agree for two systems to have had the same budget.
BUDGET = re.compile(
    r"model\.(text|image)\.|data\.(image_size|resize|frame)|text\.(context|knowledge|attribute)_"
    r"|train\.(rows|batch_size|epochs|max_steps|eval_steps|ema_decay)|eval\.(protocol|split)"
)
# What a system may choose by itself, and the reader must know.
RECIPE = re.compile(r"model\.(dropout|text_pool)$|optim\.|text\.(speakers|knowledge)$")
SAMPLERS = ("random", "tpe")
Point = Mapping[str, Any]  # dotted key -> value
_CHECKED = 100
_NAME = re.compile(r"[a-z][a-z0-9_]*")
_KEYS = {
    "prepared_dir", "seeds", "main", "also_tested", "systems", "readings", "overrides", "search",
    "tested", "resamples", "only", "write_only",
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Entry:
    """One system, or one reading of the main system.

    Attributes:
      name: its row in the table and its folder.
      reference: config file and preset, as ``--config`` takes them.
      preset: the preset's own keys and values.
      config: the resolved config, before anything is searched.
      space: what is searched over, dotted key -> choices; empty where nothing is.
      budget: how many trials it has: no more than its space has points.
      changes: of a reading, what it changes of the main system.
      trial: what its trials set besides the point they try, dotted key -> value.
      lacks: the part of its method that it goes without, "" where it has all.
    """

    name: str
    reference: str
    preset: Mapping[str, Any]
    config: ConfigDict
    space: Mapping[str, list[Any]] = field(default_factory=dict)
    budget: int = 0
    changes: Mapping[str, Any] | None = None
    trial: Mapping[str, Any] = field(default_factory=dict)
    lacks: str = ""

    @property
    def points(self) -> int:
        """How many combinations its space has."""
        return math.prod(map(len, self.space.values()))

    @property
    def tried_as_trained(self) -> bool:
        """Whether what its trials alone set is what its runs have anyway."""
        flat = configuration.flatten(self.config)
        return configuration.flatten(self.trial).items() <= flat.items()

    def resolved(self, **values: Any) -> ConfigDict:
        """Returns the config with further keys set; ``values`` are dotted keys."""
        config = copy.deepcopy(self.config)
        config.update_from_flattened_dict(values)
        return config


@dataclass(frozen=True, eq=False)
class Table:
    """A checked table.

    Attributes:
      settings: the config as it was given.
      systems: name -> entry, in the order of the table.
      readings: the same for the readings of the main system.
      left_out: what is wrong with entries that ``only`` does not ask for.
    """

    settings: ConfigDict
    systems: Mapping[str, Entry]
    readings: Mapping[str, Entry]
    left_out: tuple[str, ...] = ()

    @property
    def entries(self) -> dict[str, Entry]:
        """Systems, then readings: every row that is trained."""
        return {**self.systems, **self.readings}

    @property
    def selected(self) -> frozenset[str]:
        """Names of the entries to train."""
        return frozenset(self.settings.only or self.entries)

    def unequal(self, keys: re.Pattern[str] = BUDGET) -> dict[str, dict[str, Any]]:
        """Returns the keys whose values differ between systems, system by system.

        What is searched over is not among them: the table of trials has it.

        Args:
          keys: which to look at, BUDGET or RECIPE.
        """
        flat = {name: configuration.flatten(entry.config) for name, entry in self.systems.items()}
        searched = {key for entry in self.systems.values() for key in entry.space}
        looked_at = sorted(
            {key for values in flat.values() for key in values.keys() - searched if keys.match(key)}
        )
        found = {key: {name: values.get(key) for name, values in flat.items()} for key in looked_at}
        return {key: row for key, row in found.items() if len(set(map(repr, row.values()))) > 1}


def read(settings: ConfigDict, root: Path) -> Table:
    """Resolves and checks a table's config.

    Where ``only`` names some entries, the others are kept if they are sound, and left out with
    their problems if not: one broken system must not keep the others from being trained.

    Args:
      settings: as configs/table.py makes it.
      root: folder that the systems' config files are named from.

    Raises:
      ValueError: one error that lists every problem.
    """
    if missing := sorted(_KEYS - set(settings)):
        raise ValueError(
            f"the config of a table lacks {', '.join(missing)}; --mode=table reads "
            "--config=configs/table.py:PRESET."
        )
    problems, left_out = list(_shape_problems(settings)), list[str]()
    systems: dict[str, Entry] = {}
    wanted = {*settings.only} if settings.only else {*settings.systems, *settings.readings}
    if wanted & {*settings.readings}:
        wanted.add(settings.main)
    for name, section in settings.systems.items():
        entry, found = _system(name, section, settings, root)
        (problems if name in wanted else left_out).extend(found)
        if entry is not None and not found:
            systems[name] = entry
    readings: dict[str, Entry] = {}
    for name, changes in settings.readings.items():
        if settings.main not in systems:
            break
        reading, found = _reading(name, changes, systems[settings.main])
        (problems if name in wanted else left_out).extend(found)
        if not found:
            readings[name] = reading
    problems += _repeated({**systems, **readings})
    problems += _tested_problems(settings, systems)
    if problems:
        raise ValueError("the table's config:\n  " + "\n  ".join(dict.fromkeys(problems)))
    return Table(settings, systems, readings, tuple(left_out))


def draw(space: Mapping[str, list[Any]], trials: int, seed: int) -> list[Point]:
    """Draws combinations of a space without repetition; all of them where there are no more.

    Not Optuna's own grid: its order changes with the space, and a trial's number, which names its
    folder, has to stay where a space grows.

    Args:
      space: dotted key -> choices.
      trials: how many to draw.
      seed: of the draw; the same seed and space give the same trials.

    Returns:
      One dict of dotted keys for each trial.
    """
    points = math.prod(map(len, space.values()))
    every = range(points)
    drawn: list[Point] = []
    for point in every if points <= trials else random.Random(seed).sample(every, trials):
        values = {}
        for key, choices in reversed(list(space.items())):
            point, digit = divmod(point, len(choices))
            values[key] = choices[digit]
        drawn.append({key: values[key] for key in space})
    return drawn


def _shape_problems(settings: ConfigDict) -> Iterator[str]:
    names = [*settings.systems, *settings.readings]
    for name in names:
        if not _NAME.fullmatch(name) or name in RESERVED:
            yield (
                f"{name!r} cannot name a system: lower-case letters, digits and _, and none of "
                f"{RESERVED}"
            )
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield f"{name!r} is among systems and readings: one name is one row"
    also = list(settings.also_tested)
    others = [name for name in settings.systems if name != settings.main]
    sampler = settings.search.get("sampler", SAMPLERS[0])
    for key, values, what, known in (
        ("main", [settings.main], "system", [*settings.systems]),
        ("also_tested", [x for x in also if x != settings.main], "system", others),
        ("only", settings.only, "row of this table", names),
        ("search.sampler", [sampler], "sampler", [*SAMPLERS]),
    ):
        for name in values:
            if name not in known:
                yield f"{key}={name!r} is no {what}; {_nearest(str(name), known)}"
    if settings.main in also:
        yield f"also_tested={settings.main!r} is main, which is tested anyway"
    for name in sorted({name for name in also if name in others and also.count(name) > 1}):
        yield f"also_tested holds {name!r} twice"
    seeds = list(settings.seeds)
    if not seeds:
        yield "seeds is empty; give at least one, as --config.seeds='(0, 1, 2)'"
    for seed in seeds:
        if not isinstance(seed, int) or isinstance(seed, bool) or seed < 0:
            yield f"seeds holds {seed!r}; a seed is a whole number from 0"
        elif seeds.count(seed) > 1:
            yield f"seeds holds {seed} twice"
    if settings.search.trials < 0:
        yield f"search.trials={settings.search.trials} must not be negative"
    for package in ("optuna", "statsmodels"):
        if importlib.util.find_spec(package) is None:
            yield f"the package {package} is missing; pip install 'int-ra-jax[compare]'"
    if settings.resamples < 1:
        yield f"resamples={settings.resamples} must be above 0"
    if not settings.prepared_dir and not settings.write_only:
        yield "prepared_dir is empty; name a prepared directory with --config.prepared_dir=DIR"


def _tested_problems(settings: ConfigDict, systems: Mapping[str, Entry]) -> Iterator[str]:
    """Finds what is tested and no column; which there are depends on the protocol."""
    entry = systems.get(settings.main) or next(iter(systems.values()), None)
    if entry is None:  # all have problems of their own, and no protocol
        return
    protocol = entry.config.eval.protocol
    known = [column.name for column in columns_of(protocol)]
    for name in settings.tested:
        if name not in known:
            near = _nearest(str(name), known)
            yield f"tested={name!r} is no metric of a table under protocol {protocol}; {near}"


def _system(
    name: str, section: ConfigDict, settings: ConfigDict, root: Path
) -> tuple[Entry | None, list[str]]:
    """Returns the entry, or None where its file cannot be read, and what is wrong with it."""
    if set(section) - {"lacks"} != {"config", "overrides", "space"}:
        return None, [f"systems.{name} has the keys {sorted(section)}: config, overrides, space"]
    try:
        config = _load(section.config, root)
    except Exception as error:  # a config is a program: whatever it raises is its problem
        return None, [f"systems.{name}.config={section.config}: {error}"]
    preset = configuration.flatten(config)
    problems = _set(config, configuration.flatten(settings.overrides), "overrides")
    problems += _set(config, configuration.flatten(section.overrides), f"systems.{name}.overrides")
    problems += _invalid(config)
    common = configuration.flatten(settings.search.space)
    own = configuration.flatten(section.space)
    problems += [
        f"systems.{name}.space.{key} is in search.space already; one of them must go"
        for key in sorted(common.keys() & own.keys())
    ]
    problems += [
        f"systems.{name}.space.{key}: the budget is the same for all; search it in search.space"
        for key in own
        if BUDGET.match(key)
    ]
    trial = configuration.flatten(settings.search.get("overrides", {}))
    problems += [
        f"search.overrides.{key} is searched over already; one of them must go"
        for key in sorted(trial.keys() & (common.keys() | own.keys()))
    ]
    problems += _set(copy.deepcopy(config), trial, "search.overrides")
    for where, space in (("search.space", common), (f"systems.{name}.space", own)):
        for key, choices in space.items():
            problems += _choice_problems(config, f"{where}.{key}", key, choices)
    if problems:
        return None, [f"{name}: {problem}" for problem in problems]
    space = {**common, **own} if settings.search.trials else {}
    budget = min(settings.search.trials, math.prod(map(len, space.values()))) if space else 0
    trial = {k: tuple(v) if isinstance(v, list) else v for k, v in trial.items()}
    entry = Entry(
        name,
        section.config,
        preset,
        config,
        space,
        budget,
        trial=trial,
        lacks=section.get("lacks", ""),
    )
    # TPE may suggest any of them, but a large space is not gone through.
    suggests = settings.search.get("sampler", SAMPLERS[0]) == "tpe"
    checked = max(budget, _CHECKED) if suggests else budget
    for values in draw(space, checked, settings.search.seed) if budget else ():
        named = ", ".join(f"{key}={value}" for key, value in values.items())
        problems += [
            f"{name} with {named}: {x}"
            for tried in dict.fromkeys((False, bool(trial)))
            for x in _invalid(entry.resolved(**(entry.trial if tried else {}), **values))
        ]
    return entry, problems


def _reading(name: str, changes: ConfigDict, main: Entry) -> tuple[Entry, list[str]]:
    config, changed = copy.deepcopy(main.config), configuration.flatten(changes)
    problems = [] if changed else [f"readings.{name} changes nothing"]
    problems += _set(config, changed, f"readings.{name}") + _invalid(config)
    entry = Entry(name, main.reference, main.preset, config, changes=changed)
    return entry, [f"{name}: {problem}" for problem in problems]


def _load(reference: str, root: Path) -> ConfigDict:
    file, _, preset = reference.partition(":")
    path = root / file
    if not path.is_file():
        files = [f"{Path(file).parent}/{p.name}" for p in path.parent.glob("[!_]*.py")]
        raise ValueError(f"no such file; {_nearest(file, files)}")
    get_config = runpy.run_path(str(path)).get("get_config")
    if get_config is None:
        raise ValueError("the file has no function get_config")
    config = get_config(preset) if preset else get_config()
    return copy.deepcopy(config)


def _set(config: ConfigDict, values: Mapping[str, Any], where: str) -> list[str]:
    problems = []
    flat = configuration.flatten(config)
    for key, value in values.items():
        if key not in flat:
            problems.append(f"{where}.{key}: no such key; {_nearest(key, list(flat))}")
            continue
        try:
            # A list in the config of a table is a tuple that went through ``flatten``.
            value = tuple(value) if isinstance(value, list) else value
            config.update_from_flattened_dict({key: value})
        except (TypeError, ValueError) as error:
            problems.append(f"{where}.{key}={value!r}: {' '.join(str(error).split())}")
    return problems


def _choice_problems(config: ConfigDict, where: str, key: str, choices: Any) -> list[str]:
    if not isinstance(choices, list) or not choices:
        return [f"{where}={choices!r}: a space gives a tuple of choices for each key"]
    if len(set(map(repr, choices))) < len(choices):
        return [f"{where}={choices}: a choice is given twice"]
    if key == "seed":
        return [f"{where}: seeds are not searched over"]
    return [x for choice in choices for x in _set(copy.deepcopy(config), {key: choice}, where)]


def _invalid(config: ConfigDict) -> list[str]:
    try:
        rules.validate(config, SYSTEMS)
    except ValueError as error:
        return [line.strip() for line in str(error).splitlines()[1:]]
    return []


def _repeated(entries: Mapping[str, Entry]) -> list[str]:
    """Finds entries that would be the same run under two names."""
    seen: dict[str, str] = {}
    problems = []
    for name, entry in entries.items():
        config = sorted(configuration.flatten(entry.config).items())
        content = repr((config, entry.space, entry.changes is None))
        if content in seen:
            problems.append(f"{seen[content]} and {name} are the same configuration")
        seen.setdefault(content, name)
    return problems


def _nearest(name: str, known: list[str]) -> str:
    near = nearest(name, known)
    return f"did you mean {near!r}?" if near else "there is none"
