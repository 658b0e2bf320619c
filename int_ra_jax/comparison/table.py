"""Trains and evaluates every run of a table that is not done yet, then writes the table.

DIR/runs/SYSTEM/trial-000          one trial of the search, judged by validation mAP alone
DIR/runs/SYSTEM/trial-000-seed-1   its config under another seed, evaluated, where it was chosen
DIR/runs/SYSTEM/seed-1             the same where nothing is searched
DIR/records, DIR/compiled          the data set's records and the programs, shared by all runs
DIR/shared                         frozen layers' output, vocabulary and linear row, likewise
DIR/trials.db                      the search's trials
DIR/table                          what is written
"""

import shlex
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, closing
from datetime import timedelta
from pathlib import Path
from typing import Any

from absl import logging
from ml_collections import ConfigDict

from int_ra_jax.common import config as configuration
from int_ra_jax.comparison import compare as comparison
from int_ra_jax.comparison import evaluated, table_config
from int_ra_jax.comparison import report as comparison_report
from int_ra_jax.comparison.results import RunRow, TrialRow
from int_ra_jax.comparison.table_config import BUDGET, RECIPE, SEARCH_SEED, Entry, Table
from int_ra_jax.comparison.table_run import (
    DivergedError,
    Execute,
    Job,
    Processes,
    RunFailedError,
    terminable,
)
from int_ra_jax.comparison.trials import Trials
from int_ra_jax.run.workdir import PRIMARY_METRIC


def make(
    settings: ConfigDict, workdir: Path, launcher: Path, execute: Execute | None = None
) -> list[str]:
    """Trains and evaluates what is missing, and writes WORKDIR/table.

    Args:
      settings: as configs/table.py makes it.
      workdir: of the table; continued where it holds runs.
      launcher: launch.py; systems' config files are named from its folder.
      execute: runs one job, or raises RunFailedError; by default ``launcher`` in processes.

    Returns:
      The table, one line a row, and where the page is.

    Raises:
      ValueError: for a config with problems, with every one of them; and, after the table was
        written from the other runs, if a run failed.
    """
    table = table_config.read(settings, launcher.parent)
    workdir = workdir.absolute()
    with ExitStack() as stack:
        search = stack.enter_context(closing(Trials(workdir, settings.search)))
        if execute is None:
            execute = stack.enter_context(closing(Processes(launcher, workdir / "compiled")))
        runs = _Runs(table, workdir, execute, search)
        if not settings.write_only:
            runs.prepare()
            with terminable():
                runs.do(runs.trials(table.selected))
                runs.do(runs.seeds(table.selected))
        lines = _write(runs, table, workdir / "table", launcher)
    if runs.failed:
        many = "\n  ".join(f"{name}: {message}" for name, message in runs.failed.items())
        raise ValueError(
            f"{len(runs.failed)} of the runs failed; the table holds the others:\n  {many}\n"
            "The same command tries them again."
        )
    return lines


class _Runs:
    """Which runs there are, which of them are done, and doing the others."""

    def __init__(self, table: Table, workdir: Path, execute: Execute, search: Trials) -> None:
        self.table, self.workdir, self._execute, self.search = table, workdir, execute, search
        self.failed: dict[str, str] = {}
        self._content_hash, self._size = "", 0
        self._spent: list[float] = []
        self._expected: list[float] = []
        self._jobs: dict[tuple[str, ...], Job] = {}
        self._left = 0

    def prepare(self) -> None:
        """Builds the records that all runs share, so that bad data shows before any run."""
        from int_ra_jax.data import sticker_int

        dataset = sticker_int.prepare(self.table.settings.prepared_dir, self.workdir / "records")
        self._content_hash, self._size = dataset.content_hash, dataset.size("train")
        self._show_plan()

    def trials(self, names: frozenset[str]) -> Iterator[Job]:
        """Yields the trials of the systems searched; what came out is on record before the next."""
        for entry in self._searched(names):
            for number in range(entry.budget):
                self.search.begin(entry, number)
                yield (job := self.drawn(entry)[number])
                if job.record():
                    self.search.tell(entry, number, job.score)

    def drawn(self, entry: Entry, evaluates: bool = False) -> list[Job]:
        """Returns the trials that are known so far, by number; as the runs of a seed, if asked."""
        seed = f"seed {SEARCH_SEED}" if evaluates else ""
        return [
            self._job(
                entry,
                seed or f"trial {n}",
                f"trial-{n:03d}",
                {**values, **entry.trial},
                SEARCH_SEED,
                evaluates,
            )
            for n, values in enumerate(self.search.drawn(entry))
        ]

    def chosen(self, entry: Entry) -> int | None:
        """Returns the trial with the best validation mAP, the first of equals; None without one."""
        complete = {
            number: job.score
            for number, job in enumerate(self.drawn(entry))
            if job.record() and not job.diverged
        }
        return max(complete, key=complete.__getitem__) if complete else None

    def seeds(self, names: frozenset[str]) -> list[Job]:
        """Returns the runs that enter the table; seed by seed, so that rows fill evenly.

        A system none of whose trials is complete has none yet.
        """
        jobs = [
            self.seed(entry, seed)
            for seed in self.table.settings.seeds
            for name, entry in self.table.entries.items()
            if name in names
        ]
        return [job for job in jobs if job is not None]

    def seed(self, entry: Entry, seed: int) -> Job | None:
        """Returns the run of the chosen config under one seed, or None before a choice."""
        searched = entry if entry.changes is None else self.table.systems[self.table.settings.main]
        values: Mapping[str, Any] = {}
        folder = f"seed-{seed}"
        if searched.budget:
            number = self.chosen(searched)
            if number is None:
                return None
            same = searched is entry and seed == SEARCH_SEED and entry.tried_as_trained
            if same:  # it has been trained already
                return self.drawn(entry, evaluates=True)[number]
            values = self.search.drawn(searched)[number]
            # Named by the choice: a search that is widened, or a trial that failed before, may
            # end in another one, and a workdir belongs to one config.
            folder = f"trial-{number:03d}-{folder}"
        values = {**values, **(entry.changes or {})}
        return self._job(entry, f"seed {seed}", folder, values, seed, True)

    def do(self, jobs: Iterable[Job]) -> None:
        """Does what is not done; a run that fails is noted and the next one starts."""
        for job in jobs:
            if job.record() is not None:
                continue
            name = f"{job.entry.name}, {job.label}"
            logging.info("%s: %s", name, job.workdir)
            began = time.monotonic()
            try:
                self._execute(job)
                job.finish(time.monotonic() - began)
            except RunFailedError as error:
                logging.warning("%s failed: %s", name, error)
                # A trial that diverges has answered: these settings are no good.
                if isinstance(error, DivergedError) and not job.evaluates:
                    job.give_up(time.monotonic() - began, str(error))
                else:
                    self.failed[name] = str(error)
            self._left -= 1
            self._spent.append(time.monotonic() - began)
            logging.info(
                "%s: %s; %d runs to do, %s",
                name, timedelta(seconds=round(self._spent[-1])), self._left, self._estimate(),
            )  # fmt: skip

    def _job(
        self, entry: Entry, label: str, folder: str, values: Mapping[str, Any], seed: int,
        evaluates: bool,
    ) -> Job:  # fmt: skip
        key = (entry.name, folder, label, repr(values))
        if key not in self._jobs:
            places = {
                "data.prepared_dir": str(Path(self.table.settings.prepared_dir).absolute()),
                "data.tfds_dir": str(self.workdir / "records"),
                "train.compilation_cache": str(self.workdir / "compiled"),
                "train.shared_cache": str(self.workdir / "shared"),
            }
            config = entry.resolved(**values, **places, seed=seed)
            workdir = self.workdir / "runs" / entry.name / folder
            total = configuration.total_steps(config, self._size)
            stop = min(total, config.train.max_steps or total)
            self._jobs[key] = Job(
                entry, label, workdir, config, stop, self._content_hash, evaluates
            )
        return self._jobs[key]

    def _searched(self, names: frozenset[str]) -> list[Entry]:
        """Returns the systems named that are searched, and the main one if a reading needs it."""
        main = {self.table.settings.main} if names & set(self.table.readings) else set()
        return [entry for name, entry in self.table.systems.items() if name in names | main]

    def _show_plan(self) -> None:
        table, seeds = self.table, self.table.settings.seeds
        logging.info("%d seeds: %s", len(seeds), ", ".join(map(str, seeds)))
        needed = {entry.name for entry in self._searched(table.selected)} | table.selected
        recorded: list[float] = []
        for name, entry in table.entries.items():
            if name not in needed:
                continue
            trials = [job.record() for job in self.drawn(entry)]
            tried = sum(record is not None for record in trials)
            wanted = len(seeds) if name in table.selected else 0
            # A choice among some of the trials may not be the choice among all of them.
            settled = wanted and tried == entry.budget
            jobs = [self.seed(entry, seed) for seed in seeds] if settled else []
            records = [job.record() for job in jobs if job is not None]
            done = sum(record is not None for record in records)
            logging.info(
                "%-22s %d of %d trials done, %d of %d seeds",
                name, tried, entry.budget, done, wanted,
            )  # fmt: skip
            recorded += [record["seconds"] for record in (*trials, *records) if record]
            self._left += entry.budget - tried + wanted - done
        self._expected = recorded
        logging.info("%d runs to do, %s", self._left, self._estimate())

    def _estimate(self) -> str:
        known = self._spent or self._expected
        if not self._left:
            return "nothing is left"
        if not known:
            return "as long as the first one will tell"
        return f"about {timedelta(seconds=round(self._left * sum(known) / len(known)))}"


def _write(runs: _Runs, table: Table, directory: Path, launcher: Path) -> list[str]:
    """Reads every complete run of the table, asked for or not, compares and writes."""
    settings = table.settings
    groups: dict[str, list[evaluated.RunResult]] = {}
    rows: list[RunRow] = []
    for name, entry in table.entries.items():
        group = groups.setdefault(name, [])
        for seed in settings.seeds:
            job, label = runs.seed(entry, seed), f"{name}, seed {seed}"
            if job is None:
                rows.append(RunRow(name, seed, "", "no trial is complete"))
                continue
            if job.record() is not None:
                try:
                    group.append(evaluated.read_run(job.workdir, seed))
                except ValueError as error:
                    runs.failed[label] = str(error)
            done = bool(group) and group[-1].seed == seed
            missing = "" if done else runs.failed.get(label, "not done yet")
            command = " && ".join(map(shlex.join, job.commands(launcher)))
            rows.append(RunRow(name, seed, str(job.workdir), missing, command))
    compared = comparison.compare(
        groups,
        main=settings.main,
        also_tested=tuple(settings.also_tested),
        readings=tuple(table.readings),
        seeds=tuple(settings.seeds),
        tested=tuple(settings.tested),
        resamples=settings.resamples,
        trials=_trial_rows(runs, table),
        runs=rows,
        notes=[*_unfinished(runs, table), *_notes(table)],
        lacks={name: entry.lacks for name, entry in table.systems.items() if entry.lacks},
    )
    page = comparison_report.write(directory, compared)
    return [*comparison_report.lines(compared), f"table: {page}"]


def _trial_rows(runs: _Runs, table: Table) -> list[TrialRow]:
    rows = []
    for name, entry in table.systems.items():
        chosen = runs.chosen(entry)
        points = zip(runs.search.drawn(entry), runs.drawn(entry), strict=True)
        for number, (values, job) in enumerate(points):
            done = job.record() is not None
            failed = runs.failed.get(f"{name}, trial {number}", "not done yet")
            error = job.diverged if done else failed
            best = job.validation()[1] if done and not job.diverged else None
            rows.append(TrialRow(name, number, values, best, number == chosen, error))
    return rows


def _unfinished(runs: _Runs, table: Table) -> list[str]:
    """Says where a choice was made among some of the trials."""
    notes = []
    for name, entry in table.systems.items():
        lacking = [n for n, job in enumerate(runs.drawn(entry)) if job.record() is None]
        if lacking and runs.chosen(entry) is not None:
            numbers = ", ".join(map(str, lacking))
            notes.append(f"{name}: chosen without trial {numbers}, which is not complete")
    return notes


def _notes(table: Table) -> list[str]:
    """Says what the reader must know of the budgets."""
    budget = table.settings.search.trials
    how = ", suggested by TPE" if table.settings.search.get("sampler") == "tpe" else ""
    notes = [
        f"search: at most {budget} trials for each system{how}, each with seed {SEARCH_SEED}, the "
        f"best validation {PRIMARY_METRIC} taken; readings inherit what was chosen for "
        f"{table.settings.main}"
        if budget
        else "no search: every system runs as its config file has it"
    ]
    for name, entry in table.systems.items():
        if entry.budget < budget:
            tried = f"{entry.budget} trials of the budget of {budget}"
            notes.append(f"{name}: its space has no more than {entry.points} points, {tried}")
    for name, section in table.settings.systems.items():
        if own := configuration.flatten(section.overrides):
            shown = ", ".join(f"{key}={value}" for key, value in own.items())
            notes.append(f"{name}: set for it alone: {shown}")
    for keys, what in ((BUDGET, "not the same for all systems"), (RECIPE, "each system its own")):
        for key, values in table.unequal(keys).items():
            each = [f"{name} {value}" for name, value in values.items() if value is not None]
            notes.append(f"{what}: {key} ({', '.join(each)})")
    return [*notes, *(f"left out: {problem}" for problem in table.left_out)]
