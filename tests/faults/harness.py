"""Runs of launch.py that are interrupted on purpose, and how their results are compared."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import jax
import numpy as np

from int_ra_jax.common.log import read_metrics
from int_ra_jax.run.checkpoint import Checkpoints
from int_ra_jax.run.checkpoint_ledger import RECORD, TEMPORARY
from int_ra_jax.run.checkpoint_record import Record
from int_ra_jax.run.workdir import PRIMARY_METRIC

REPOSITORY = Path(__file__).resolve().parents[2]
STEPS = 40
# Tiny, with a state of some 12 MB, so that a save takes long enough to be hit.
SETTINGS = {
    "train.max_steps": STEPS,
    "train.eval_steps": 20,
    "train.log_steps": 1,
    "checkpoint.steps": 4,
    "model.text.width": 128,
    "model.image.width": 128,
    "model.joint_width": 128,
    "log.tensorboard": False,
}
STEP_LINE = re.compile(r" step (\d+)/")
START_LINE = re.compile(r"starts from: (?:checkpoint of step (\d+)|)")


@dataclass(frozen=True)
class Row:
    """One line of the table of results.

    Attributes:
      fault: what was done.
      times: how often.
      happened: what was seen.
      command: that repeats it.
      seconds: wall time of it all.
    """

    fault: str
    times: int
    happened: str
    command: str
    seconds: float

    def __str__(self) -> str:
        cells = (self.fault, self.times, self.happened, f"`{self.command}`", round(self.seconds))
        return "| " + " | ".join(map(str, cells)) + " |"


class Training:
    """A process of launch.py --mode=train, with its output in a file beside the workdir."""

    def __init__(
        self,
        workdir: Path,
        prepared: Path,
        *,
        settings: Mapping[str, object] | None = None,
        program: Sequence[str] = ("launch.py",),
    ) -> None:
        """Starts it.

        Args:
          workdir: of the run.
          prepared: the prepared directory.
          settings: dotted config keys in place of or besides ``SETTINGS``.
          program: what Python runs instead of launch.py.
        """
        workdir.parent.mkdir(parents=True, exist_ok=True)
        keys = {"data.prepared_dir": prepared, **SETTINGS, **(settings or {})}
        arguments = [f"--config.{key}={value}" for key, value in keys.items()]
        self.workdir = workdir
        number = len(list(workdir.parent.glob(f"{workdir.name}.*.log"))) + 1
        self.log = workdir.with_name(f"{workdir.name}.{number}.log")
        self.started = time.monotonic()
        with self.log.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, *program, "--mode=train", "--config=configs/int_ra.py:smoke",
                 f"--workdir={workdir}", *arguments],
                cwd=REPOSITORY, stdout=output, stderr=subprocess.STDOUT,
                env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
            )  # fmt: skip

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self.process.poll() is None

    @property
    def output(self) -> str:
        """All it has printed."""
        return self.log.read_text(encoding="utf-8", errors="replace")

    @property
    def steps(self) -> list[int]:
        """The steps it has reported, in order."""
        return [int(step) for step in STEP_LINE.findall(self.output)]

    @property
    def resumed_from(self) -> int | None:
        """The step of the checkpoint it started from; 0 is none, None is not known yet."""
        found = START_LINE.search(self.output)
        return None if found is None else int(found[1] or 0)

    def wait_for_step(self) -> float:
        """Waits until a step is reported or it ends; returns the seconds since its start."""
        while self.running and not STEP_LINE.search(self.output):
            time.sleep(0.01)
        return time.monotonic() - self.started

    def wait_for_save(self) -> None:
        """Waits until a save begins, from now on, or it ends."""
        before = set(interrupted_saves(self.workdir))
        while self.running and not set(interrupted_saves(self.workdir)) - before:
            time.sleep(0.001)

    def finish(self, seconds: float = 900) -> int:
        """Waits for its end and returns the exit code."""
        return self.process.wait(timeout=seconds)

    def kill(self) -> bool:
        """Ends it with SIGKILL; False if it had ended by itself."""
        self.process.kill()
        return self.process.wait() == -9


def interrupted_saves(workdir: Path) -> list[str]:
    """Returns the folders of saves that are not finished."""
    folder = workdir / "checkpoints"
    names = os.listdir(folder) if folder.is_dir() else []
    return [name for name in names if TEMPORARY in name]


def complete_steps(workdir: Path) -> list[int]:
    """Returns the steps of the complete checkpoints, in order."""
    folder = workdir / "checkpoints"
    names = os.listdir(folder) if folder.is_dir() else []
    return sorted(int(name) for name in names if name.isdigit())


def folder_size(folder: Path) -> int:
    """Returns the bytes of all files in a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def arrays(workdir: Path, step: int) -> dict[str, np.ndarray]:
    """Reads everything that a checkpoint holds, by path."""
    folder = workdir / "checkpoints"
    stored = Record.read(folder / str(step) / RECORD / RECORD).arrays
    wanted = {
        path: jax.ShapeDtypeStruct(array.shape, np.dtype(array.dtype))
        for path, array in stored.items()
    }
    with Checkpoints(folder, primary_metric=PRIMARY_METRIC, greater_is_better=True) as opened:
        return {path: np.asarray(x) for path, x in opened.restore(step, wanted).items()}


def differences(one: Path, other: Path, step: int = STEPS) -> list[str]:
    """Compares two finished runs bit for bit; returns what differs, which should be nothing."""
    first, second = arrays(one, step), arrays(other, step)
    found = [f"only in one: {path}" for path in sorted(first.keys() ^ second.keys())]
    found += [
        f"differs: {path}"
        for path in sorted(first.keys() & second.keys())
        if first[path].tobytes() != second[path].tobytes()
    ]
    curves = [read_metrics(run / "metrics.jsonl") for run in (one, other)]
    if curves[0]["train/loss/total"] != curves[1]["train/loss/total"]:
        found.append("differs: the curve of the loss")
    return found


def write_results(path: Path, row: Row, details: object) -> None:
    """Writes the figures beside the runs, and prints the row for docs/reliability.md."""
    path.write_text(json.dumps({**asdict(row), "details": details}, indent=2) + "\n")
    print(f"figures: {path}")
    print(row)
