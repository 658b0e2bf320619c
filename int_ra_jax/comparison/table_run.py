"""One run of a table: what it is, whether it is done, and doing it.

A run is two commands, ``--mode=train`` and ``--mode=eval``, each in a process of its own: one that
fails, or is killed for its memory, takes nothing else with it, and can be repeated by hand.
"""

import dataclasses
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from absl import logging
from ml_collections import ConfigDict

from int_ra_jax.common import config as configuration
from int_ra_jax.common.files import replace_text
from int_ra_jax.common.log import METRICS_FILE, read_metrics
from int_ra_jax.comparison.table_config import Entry
from int_ra_jax.run.workdir import PRIMARY_METRIC

RECORD = "table_run.json"  # in a run's folder, written last: the run is done
LOG = "table_run.log"
_VALIDATION = f"valid/retrieval/{PRIMARY_METRIC}"
# Where a run lies and what it prints change nothing of its result.
_PLACES = (
    "data.prepared_dir",
    "data.tfds_dir",
    "train.compilation_cache",
    "train.shared_cache",
    "log.",
)
_TAIL_BYTES = 8192


class RunFailedError(ValueError):
    """A run did not end well; the message is its own."""


@dataclass(frozen=True, eq=False)
class Job:
    """One run.

    Attributes:
      entry: the system or reading it belongs to.
      label: ``trial 3`` or ``seed 0``.
      workdir: its folder.
      config: resolved, with seed and places.
      stop: its last step.
      content_hash: of the data; empty where any data will do.
      evaluates: whether it is evaluated on the test split; a trial is not.
    """

    entry: Entry
    label: str
    workdir: Path
    config: ConfigDict
    stop: int
    content_hash: str
    evaluates: bool

    def commands(self, launcher: Path) -> list[list[str]]:
        """Returns what a person would type."""
        flat = configuration.flatten(self.config)
        changes = [
            f"--config.{key}={tuple(value) if isinstance(value, list) else value}"
            for key, value in flat.items()
            if key not in self.entry.preset or self.entry.preset[key] != value
        ]
        start = [sys.executable, str(launcher)]
        file, workdir = launcher.parent / self.entry.reference, f"--workdir={self.workdir}"
        train = [*start, "--mode=train", f"--config={file}", workdir, *changes]
        return [train, [*start, "--mode=eval", workdir]] if self.evaluates else [train]

    @property
    def wanted(self) -> dict[str, Any]:
        """What its record must say for it to be done."""
        flat = configuration.as_before(configuration.flatten(self.config))
        kept = {key: value for key, value in flat.items() if not key.startswith(_PLACES)}
        return {"config": kept} | ({"content_hash": self.content_hash} if self.content_hash else {})

    def record(self) -> dict[str, Any] | None:
        """Returns the record of the finished run, or None where it is not done."""
        try:
            found: Any = json.loads((self.workdir / RECORD).read_text(encoding="utf-8"))
            done = all(found[key] == value for key, value in self.wanted.items())
            done &= isinstance(found["seconds"], float)
            done &= found["evaluated"] is True or not self.evaluates
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return found if done else None

    def validation(self) -> tuple[int, float]:
        """Returns the last validated step, 0 where there is none, and the best validation mAP."""
        path = self.workdir / METRICS_FILE
        steps, values = (read_metrics(path) if path.is_file() else {}).get(_VALIDATION, ([], []))
        return max(steps, default=0), max(values, default=float("nan"))

    def finish(self, seconds: float) -> None:
        """Puts on record that the run is done.

        Raises:
          RunFailedError: if it is not, because its process was asked to stop.
        """
        step, best = self.validation()
        if step < self.stop or not best >= 0:
            raise RunFailedError(
                f"stopped at step {step} of {self.stop}; the same command goes on from there"
            )
        # Where a trial was trained before and is evaluated now, both count.
        before = dataclasses.replace(self, evaluates=False).record() if self.evaluates else None
        if before and not before["evaluated"]:
            seconds += before["seconds"]
        record = {**self.wanted, "evaluated": self.evaluates, "seconds": seconds}
        replace_text(self.workdir / RECORD, json.dumps(record, indent=2) + "\n")


Execute = Callable[[Job], None]


def in_processes(launcher: Path, compiled: Path) -> Execute:
    """Returns what does a run in processes of its own.

    Args:
      launcher: launch.py.
      compiled: folder of the programs that all runs share.
    """

    def execute(job: Job) -> None:
        job.workdir.mkdir(parents=True, exist_ok=True)
        # Evaluation, too, compiles what another run has compiled already.
        cache = {
            "JAX_COMPILATION_CACHE_DIR": str(compiled),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        }
        commands = job.commands(launcher)
        if dataclasses.replace(job, evaluates=False).record():  # as a trial
            commands = commands[1:]
        for command in commands:
            _run(command, job.workdir / LOG, {**cache, **os.environ})

    return execute


def _run(command: Sequence[str], log: Path, environment: Mapping[str, str]) -> None:
    with log.open("ab") as file:
        # A session of its own: Ctrl-C reaches this process alone, which passes on one signal.
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT,
            env=environment, start_new_session=True,
        )  # fmt: skip
        try:
            code = process.wait()
        except BaseException:
            process.terminate()
            logging.info("stopping: the run saves and ends; once more stops it at once")
            try:
                process.wait()
            finally:
                process.kill()
            raise
    if code < 0:
        name = signal.Signals(-code).name
        raise RunFailedError(f"killed by {name} (of memory, perhaps); its log is {log}")
    if code:
        raise RunFailedError(f"{_last_words(log)} (log: {log})")


def _last_words(log: Path) -> str:
    """Returns the error that a command ended with: launch.py's message, or its last lines."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - _TAIL_BYTES))
        lines = file.read().decode("utf-8", "replace").splitlines()
    starts = [i for i, line in enumerate(lines) if line.startswith("launch.py: ")]
    shown = lines[starts[-1] :] if starts else [line for line in lines if line.strip()][-3:]
    return "\n  ".join(shown).removeprefix("launch.py: ") or "it ended without a word"


@contextmanager
def terminable() -> Iterator[None]:
    """Turns SIGTERM into KeyboardInterrupt, and that into a message, once the run has saved."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    except KeyboardInterrupt:
        raise ValueError("stopped by a signal; the same command goes on") from None
    finally:
        signal.signal(signal.SIGTERM, before)
