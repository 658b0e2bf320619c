"""Which checkpoints a directory holds, which of them are damaged, and which are to stay.

Knows files and records and nothing of how arrays are stored.
"""

import math
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

from absl import logging

from int_ra_jax.run.checkpoint_record import DamagedCheckpointError, Record

TEMPORARY = ".orbax-checkpoint-tmp"  # in the name of a save that is not finished
RECORD = "record"  # name of the folder of the record, and of the file in it
_SHOWN = 20  # names of a directory listed in an error


class Ledger:
    """What is known of the checkpoints of one run.

    Attributes:
      damaged: step -> what is wrong with it, as far as it was read.
    """

    def __init__(
        self, directory: Path, primary_metric: str, greater_is_better: bool, keep_newest: int
    ) -> None:
        """Opens the books of a directory; see ``Checkpoints`` for the arguments."""
        self.damaged: dict[int, str] = {}
        self._directory = directory
        self._metric = primary_metric
        self._sign = 1.0 if greater_is_better else -1.0
        self._keep_newest = keep_newest
        self._records: dict[int, Record] = {}

    def folder(self, step: int) -> Path:
        """Returns where the checkpoint of a step lies."""
        return self._directory / str(step)

    def read(self, steps: Iterable[int]) -> None:
        """Reads the records of these steps anew; those that cannot be read are damaged."""
        self._records, self.damaged = {}, {}
        for step in steps:
            try:
                self._records[step] = Record.read(self.folder(step) / RECORD / RECORD)
            except DamagedCheckpointError as error:
                self.damaged[step] = str(error)

    def add(self, step: int, record: Record) -> None:
        """Enters a checkpoint that is being saved."""
        self._records[step] = record

    def record(self, step: int) -> Record:
        """Returns the record of a step.

        Raises:
          DamagedCheckpointError: if it could not be read.
        """
        if step not in self._records:
            raise self.damage(step, self.damaged[step])
        return self._records[step]

    def damage(self, step: int, problem: str) -> DamagedCheckpointError:
        """Notes that a checkpoint is damaged, and returns the error to raise."""
        self.damaged[step] = problem
        return DamagedCheckpointError(
            f"checkpoint {step} in {self._directory} is damaged:\n{problem}\nUse another step."
        )

    def intact(self, steps: Iterable[int]) -> list[int]:
        """Returns the steps that are not known to be damaged."""
        return [step for step in steps if step not in self.damaged]

    def best(self, steps: Iterable[int]) -> int | None:
        """Returns the best of these steps by the primary metric; the newest among equals."""
        measured = [step for step in self.intact(steps) if self._measured(step)]
        return max(measured, key=self._rank, default=None)

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
        """Says which checkpoints stay once the last of them is saved; Orbax asks this.

        Args:
          checkpoints: with a ``step`` each, the one that is being saved included.
          context: not used.
        """
        del context
        steps = [checkpoint.step for checkpoint in checkpoints]
        kept = {*sorted(steps)[-self._keep_newest :], self.best(steps)}
        return [step in kept for step in steps]

    def order(self, which: Literal["latest", "best"], steps: Iterable[int]) -> list[int]:
        """Returns all steps in the order in which they are to be tried.

        For "best" those that cannot tell their metric stand first: each may have been the best,
        and is to be reported.
        """
        steps = sorted(steps, reverse=True)
        if which == "latest":
            return steps
        mute = [step for step in steps if step not in self._records]
        told = [step for step in steps if step in self._records]
        return mute + sorted(told, key=self._rank, reverse=True)

    def tidy_up(self) -> None:
        """Renames damaged folders to damaged_STEP, and removes what interrupted saves have left."""
        if not self._directory.is_dir():
            return
        for entry in self._directory.iterdir():
            if TEMPORARY in entry.name:
                shutil.rmtree(entry, ignore_errors=True)
        for step, problem in sorted(self.damaged.items()):
            if self.folder(step).is_dir():
                aside = _free_name(self._directory / f"damaged_{step}")
                self.folder(step).rename(aside)
                logging.warning(
                    "checkpoint %d is damaged and now lies in %s: %s", step, aside, problem
                )

    def newest_on_disk(self) -> int | None:
        """Returns the newest complete checkpoint that the directory shows at this moment."""
        names = self._directory.iterdir() if self._directory.is_dir() else ()
        return max((int(entry.name) for entry in names if entry.name.isdigit()), default=None)

    def warn(self, passed_over: Sequence[int], used: int) -> None:
        """Logs which damaged checkpoints were passed over, why, and which one is used."""
        if passed_over:
            logging.warning(
                "damaged checkpoints in %s are passed over:\n%s\nStep %d is used instead.",
                self._directory, self._described(passed_over), used,
            )  # fmt: skip

    def all_damaged(self, steps: Sequence[int]) -> str:
        """Says that none of these steps can be used, and what is wrong with each."""
        return (
            f"every checkpoint in {self._directory} is damaged:\n{self._described(steps)}\n"
            "Bring one back from a copy, or move the directory away to start anew."
        )

    def nothing_found(self, which: str | int, steps: Sequence[int]) -> str:
        """Says that a checkpoint does not exist, and what does."""
        if not self._directory.is_dir():
            there = "the directory does not exist"
        elif steps:
            there = f"it holds the steps {', '.join(map(str, steps))}"
        else:
            names = sorted(entry.name for entry in self._directory.iterdir())
            there = f"it holds {', '.join(names[:_SHOWN]) or 'nothing'}"
            if any(TEMPORARY in name for name in names):
                there += f" (a name with {TEMPORARY} is a save that was interrupted)"
        if self.damaged:
            there += f" (damaged: {', '.join(map(str, sorted(self.damaged)))})"
        if which == "best" and steps:
            todo = f"none has the metric {self._metric!r}. Ask for the latest instead."
        else:
            todo = "Check the working directory, or train first."
        wanted = f"step {which}" if isinstance(which, int) else f"{which} checkpoint"
        return f"no {wanted} in {self._directory}: {there}. {todo}"

    def _described(self, steps: Sequence[int]) -> str:
        return "\n".join(f"  step {step}: {self.damaged[step]}" for step in steps)

    def _measured(self, step: int) -> bool:
        return self._metric in self._records[step].metrics

    def _rank(self, step: int) -> tuple[bool, float, int]:
        value = self._records[step].metrics.get(self._metric, math.nan)
        quality = -math.inf if math.isnan(value) else self._sign * value
        return self._measured(step), quality, step


def _free_name(path: Path) -> Path:
    free, number = path, 1
    while free.exists():
        number += 1
        free = path.with_name(f"{path.name}_{number}")
    return free
