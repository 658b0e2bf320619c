"""kill -9 at random moments of a run; every restart has to end with the bits of an undisturbed one.

    python -m tests.faults.kill_at_random --kills=30

Real processes of launch.py on a tiny data set. A third of the kills fall anywhere in the time that
a process takes to its first step, a third anywhere in the training after it, and a third into a
save: shortly after its temporary folder has appeared. After each kill the next process has to
start from the newest complete checkpoint; at the end every array of the last checkpoint and the
whole curve of the loss are compared with those of a run that nobody killed.
"""

import os
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")  # an accelerator's sums may differ by themselves

from absl import app, flags, logging

from tests.faults import harness
from tests.faults.harness import Row, Training
from tests.fixtures.prepared import make_prepared_directory

MOMENTS = ("start", "training", "save")


class Killer:
    """Kills one run after the other until the kills are used up, and keeps book."""

    def __init__(self, root: Path, seed: int) -> None:
        self._random = random.Random(seed)
        self._root = root
        self._prepared = make_prepared_directory(root / "prepared", num_conversations=60)
        self.kills: list[dict[str, object]] = []
        self.problems: list[str] = []
        self.finished = 0

    def measure(self) -> None:
        """Runs undisturbed, for the bits to compare with and the times to choose moments in."""
        reference = Training(self._root / "reference", self._prepared)
        self._until_first_step = reference.wait_for_step()
        if reference.finish() != 0:
            sys.exit(f"the undisturbed run failed:\n{reference.output}")
        total = time.monotonic() - reference.started
        # A quarter of the training: else too few kills would fit into one run.
        self._slice = (total - self._until_first_step) / 4

    def run(self, kills: int) -> None:
        """Trains to the end, in as many runs as it takes, while killing."""
        while len(self.kills) < kills or not self.finished:
            self._run_once(self._root / f"killed_{self.finished}", kills)
            self.finished += 1

    def _run_once(self, workdir: Path, kills: int) -> None:
        expected = 0
        while True:
            process = Training(workdir, self._prepared)
            moment = MOMENTS[len(self.kills) % 3] if len(self.kills) < kills else None
            killed = moment is not None and self._kill(process, moment)
            if not killed and process.finish() != 0:
                sys.exit(f"a restart failed:\n{process.output}")
            if process.resumed_from not in (None, expected):
                self.problems.append(f"started from {process.resumed_from}, not from {expected}")
            if "damaged" in process.output:
                self.problems.append(f"a complete checkpoint was taken for damaged in {workdir}")
            if not killed:
                self.problems += harness.differences(self._root / "reference", workdir)
                return
            expected = max(harness.complete_steps(workdir), default=0)
            self.kills.append(
                {
                    "moment": moment,
                    "run": self.finished,
                    "after_step": max(process.steps, default=None),
                    "interrupted_saves": len(harness.interrupted_saves(workdir)),
                    "newest_complete": expected,
                }
            )
            print(f"kill {len(self.kills)}/{kills}: {self.kills[-1]}", flush=True)

    def _kill(self, process: Training, moment: str) -> bool:
        if moment == "start":
            time.sleep(self._random.uniform(0, self._until_first_step))
            return process.kill()
        process.wait_for_step()
        if moment == "training":
            time.sleep(self._random.uniform(0, self._slice))
            return process.kill()
        for _ in range(self._random.randint(1, 2)):
            process.wait_for_save()
        time.sleep(self._random.uniform(0, 0.1))
        return process.kill()


def main(argv: Sequence[str]) -> None:
    """Kills, restarts, compares, and prints a row of the table."""
    del argv
    logging.set_verbosity(logging.WARNING)
    root = Path(flags.FLAGS.workdir or tempfile.mkdtemp(prefix="kills_"))
    started = time.monotonic()
    killer = Killer(root, flags.FLAGS.seed)
    killer.measure()
    killer.run(flags.FLAGS.kills)
    moments = Counter(str(kill["moment"]) for kill in killer.kills)
    hit = sum(bool(kill["interrupted_saves"]) for kill in killer.kills)
    resumed = sum(bool(kill["newest_complete"]) for kill in killer.kills)
    happened = (
        f"{moments['start']} while starting, {moments['training']} in training, {moments['save']} "
        f"aimed at a save; {hit} left a save half-written. {resumed} restart(s) went on from the "
        f"newest complete checkpoint, {len(killer.kills) - resumed} from the beginning, as none "
        f"was there yet. {killer.finished} finished run(s) against the undisturbed one: "
    ) + ("; ".join(killer.problems) or "every bit equal")
    command = f"python -m tests.faults.kill_at_random --kills={len(killer.kills)}"
    command += f" --seed={flags.FLAGS.seed}"
    row = Row("kill -9", len(killer.kills), happened, command, time.monotonic() - started)
    harness.write_results(root / "kills.json", row, killer.kills)
    sys.exit(1 if killer.problems else 0)


if __name__ == "__main__":
    flags.DEFINE_integer("kills", 30, "How many times to kill.", lower_bound=1)
    flags.DEFINE_integer("seed", 0, "Of the moments.")
    flags.DEFINE_string("workdir", None, "Where the runs go; by default a new temporary folder.")
    app.run(main)
