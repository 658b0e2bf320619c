"""One run of a table: what it is, whether it is done, and doing it.

A run is two commands, ``--mode=train`` and ``--mode=eval``, which can be repeated by hand. A
process of their own does them, run after run: one that fails, or is killed for its memory, takes
nothing else with it.
"""

import dataclasses
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from int_ra_jax.common import config as configuration
from int_ra_jax.common.files import replace_text
from int_ra_jax.common.log import METRICS_FILE, read_metrics
from int_ra_jax.comparison.table_config import Entry
from int_ra_jax.comparison.worker import Worker
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


class RunFailedError(ValueError):
    """A run did not end well; the message is its own."""


class DivergedError(RunFailedError):
    """A loss or gradient was not finite: the same settings will end so again."""


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
            done &= isinstance(found.get("diverged", ""), str)
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return found if done else None

    def validation(self) -> tuple[int, float]:
        """Returns the last validated step, 0 where there is none, and the best validation mAP."""
        path = self.workdir / METRICS_FILE
        steps, values = (read_metrics(path) if path.is_file() else {}).get(_VALIDATION, ([], []))
        return max(steps, default=0), max(values, default=float("nan"))

    @property
    def diverged(self) -> str:
        """Says how training diverged, "" where it did not: of a trial alone, which is then done."""
        record = self.record()
        return record.get("diverged", "") if record else ""

    @property
    def score(self) -> float:
        """By what a finished trial is judged: its best validation mAP, 0 where it diverged."""
        return 0.0 if self.diverged else self.validation()[1]

    def give_up(self, seconds: float, reason: str) -> None:
        """Puts on record that a trial diverged, so that nobody tries it again."""
        self._write({"evaluated": False, "seconds": seconds, "diverged": reason})

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
        self._write({"evaluated": self.evaluates, "seconds": seconds})

    def _write(self, outcome: dict[str, Any]) -> None:
        record = {**self.wanted, **outcome}
        replace_text(self.workdir / RECORD, json.dumps(record, indent=2) + "\n")


Execute = Callable[[Job], None]


class Processes:
    """Does runs one after another in a process that stays, of which ``Worker`` tells more.

    Args:
      launcher: launch.py.
      compiled: folder of the programs that all runs share.
    """

    def __init__(self, launcher: Path, compiled: Path) -> None:
        # Evaluation, too, compiles what another run has compiled already.
        cache = {
            "JAX_COMPILATION_CACHE_DIR": str(compiled),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        }
        self._worker = Worker(launcher.parent, {**cache, **os.environ})

    def __call__(self, job: Job) -> None:
        """Does a run.

        Raises:
          DivergedError: if a loss or gradient is not finite.
          RunFailedError: if it ends with another error, or its process is killed.
        """
        job.workdir.mkdir(parents=True, exist_ok=True)
        if not dataclasses.replace(job, evaluates=False).record():  # else trained as a trial
            self._do(job.workdir, configuration.to_json(job.config))
        if job.evaluates:
            self._do(job.workdir)

    def _do(self, workdir: Path, config: str = "") -> None:
        log = workdir / LOG
        code, error, diverged = self._worker.do(workdir, log, config)
        if code < 0:
            name = signal.Signals(-code).name
            raise RunFailedError(f"killed by {name} (of memory, perhaps); its log is {log}")
        if code:
            raise RunFailedError(f"it ended without a word (log: {log})")
        if error:
            kind = DivergedError if diverged else RunFailedError
            raise kind(f"{_last_lines(error)} (log: {log})")

    def close(self) -> None:
        """Ends the process."""
        self._worker.close()


def _last_lines(error: str) -> str:
    """Returns an error as it is, and of a traceback its last lines."""
    lines = error.splitlines()
    return "\n  ".join(lines[-3:] if lines[0].startswith("Traceback") else lines)


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
