"""Faults one by one: damaged checkpoints, a full disk, unreadable shards, a failing data worker.

    python -m tests.faults.inject damage disk_full shard worker

Each takes a run that was stopped half-way, breaks something, starts the same command, looks at what
it says, removes the cause, lets the run finish, and compares every bit of the last checkpoint and
the curve of the loss with an undisturbed run. disk_full needs a Linux that lets it mount a file
system of its own (``unshare -rm``), and says so where it cannot.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")

from absl import app, flags, logging

from tests.faults import harness
from tests.faults.harness import STEPS, Row, Training
from tests.fixtures.prepared import make_prepared_directory

HALF = 24
_FULL = ("unshare", "-rm", sys.executable, "-m", "tests.faults.inject", "disk_full", "--mounted")
# Raises inside tf.data's threads, as a reader does whose disk has gone.
_FAILING_WORKER = """
import runpy, sys, threading
from int_ra_jax.data.dataset import Dataset
read, calls = Dataset.conversations, 0
def conversations(self, split, rows=None):
    global calls
    if threading.current_thread() is not threading.main_thread():
        calls += 1
        if calls > 6:
            raise OSError(f"the disk with the rows {rows[:2]}... of {split} does not answer")
    return read(self, split, rows)
Dataset.conversations = conversations
sys.argv[0] = "launch.py"
runpy.run_path("launch.py", run_name="__main__")
"""


class Runs:
    """An undisturbed run, one that was stopped half-way, and copies of it to break."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.prepared = root / "prepared"
        self.problems: list[str] = []
        if self.prepared.exists():
            return
        make_prepared_directory(self.prepared, num_conversations=60)
        for name, steps in (("reference", STEPS), ("half", HALF)):
            run = Training(root / name, self.prepared, settings={"train.max_steps": steps})
            if run.finish() != 0:
                sys.exit(f"the run without any fault failed:\n{run.output}")

    def copy(self, name: str) -> Path:
        """Returns a workdir of its own that was stopped half-way."""
        return Path(shutil.copytree(self.root / "half", self.root / name))

    def check(self, fact: bool, what: str) -> None:
        """Notes what should have been and was not."""
        if not fact:
            self.problems.append(what)

    def stops(self, name: str, run: Training, *said: str) -> None:
        """Checks that a run stops by itself, and says these words and no traceback."""
        code, output = run.finish(), run.output
        self.check(code == 2, f"{name}: exit code {code}")
        for words in said:
            self.check(words in output, f"{name}: does not say {words!r}; see {run.log}")
        self.check("Traceback" not in output, f"{name}: a traceback; see {run.log}")

    def finishes(self, name: str, run: Training, *said: str) -> None:
        """Checks that a run finishes with the bits of the undisturbed one, and says these words."""
        code, output = run.finish(), run.output
        if code != 0:
            self.problems.append(f"{name}: exit code {code}; see {run.log}")
            return
        for words in said:
            self.check(words in output, f"{name}: does not say {words!r}; see {run.log}")
        self.problems += harness.differences(self.root / "reference", run.workdir)


def damage(runs: Runs) -> tuple[str, int, str]:
    """Breaks the newest checkpoint in several ways, and then all checkpoints."""
    kinds = {
        "flipped": lambda file: _flip(file, file.stat().st_size // 2),
        "cut": lambda file: os.truncate(file, file.stat().st_size // 2),
        "emptied": lambda file: os.truncate(file, 0),
        "removed": lambda file: file.unlink(),
    }
    times = 0
    for target, pick in {"arrays": _largest, "record": _record}.items():
        for kind, harm in kinds.items():
            name = f"{target}_{kind}"
            workdir = runs.copy(name)
            newest = workdir / "checkpoints" / str(HALF)
            harm(pick(newest))
            before = [step for step in harness.complete_steps(workdir) if step < HALF][-1]
            run = Training(workdir, runs.prepared)
            passed = f"Step {before} is used instead"
            runs.finishes(name, run, f"step {HALF}: ", passed, f"damaged_{HALF}")
            times += 1
    workdir = runs.copy("all_damaged")
    steps = harness.complete_steps(workdir)
    for step in steps:
        _flip(_record(workdir / "checkpoints" / str(step)), 200)
    run = Training(workdir, runs.prepared)
    runs.stops("all damaged", run, "every checkpoint in", *(f"step {step}: " for step in steps))
    happened = (
        f"{times} times (bytes flipped, file cut, emptied, removed; in the arrays and in the "
        "record) the newest was passed over with a warning and the one before it used; with all "
        "of them damaged the run stops and says what is wrong with each"
    )
    return "damaged checkpoint", times + 1, happened


def shard(runs: Runs) -> tuple[str, int, str]:
    """Breaks a file of records, and does what the message advises."""
    kinds: dict[str, Callable[[Path], object]] = {
        "flipped": lambda file: _flip(file, 600),
        "cut": lambda file: os.truncate(file, file.stat().st_size // 2),
        "removed": lambda file: file.unlink(),
    }
    for kind, harm in kinds.items():
        workdir = runs.copy(f"shard_{kind}")
        file = next((workdir / "tfds").rglob("*-train.array_record*"))
        harm(file)
        run = Training(workdir, runs.prepared)
        runs.stops(f"shard {kind}", run, str(file), f"Delete {file.parent}")
        runs.check(harness.complete_steps(workdir)[-1] == HALF, f"shard {kind}: a checkpoint lost")
        if kind == "flipped":
            shutil.rmtree(file.parent)
            runs.finishes(f"shard {kind}", Training(workdir, runs.prepared))
    happened = (
        "flipped, cut short, removed: the run stops before it trains, names the file, and says "
        "what to delete; done for the flipped one, it goes on"
    )
    return "unreadable data shard", len(kinds), happened


def worker(runs: Runs) -> tuple[str, int, str]:
    """Lets reading fail in a thread of the input pipeline, in the middle of training."""
    workdir = runs.copy("worker")
    run = Training(workdir, runs.prepared, program=("-c", _FAILING_WORKER))
    runs.stops("worker", run, "launch.py: the disk with the rows")
    runs.check(max(run.steps, default=0) > HALF, "worker: it failed before it trained")
    runs.finishes("worker", Training(workdir, runs.prepared))
    happened = "the run stops with the reader's own message; started again, it goes on"
    return "failing data worker", 1, happened


def disk_full(runs: Runs) -> tuple[str, int, str]:
    """Trains on a small file system that is full before the next checkpoint."""
    workdir = runs.root / "full"
    workdir.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200m", "tmpfs", str(workdir)], check=True)
    shutil.copytree(runs.root / "half", workdir, dirs_exist_ok=True)
    size = harness.folder_size(workdir / "checkpoints" / str(HALF))
    ballast = workdir / "ballast"
    free = shutil.disk_usage(workdir).free
    ballast.write_bytes(bytes(free - size // 2))
    run = Training(workdir, runs.prepared)
    runs.stops("disk full", run, f"checkpoint could not be written to {workdir}", "Make room")
    runs.check(harness.complete_steps(workdir)[-1] == HALF, "disk full: a checkpoint was lost")
    ballast.unlink()
    runs.finishes("disk full", Training(workdir, runs.prepared))
    happened = (
        "the run stops and says which checkpoint is kept and what to do; with room made, the same "
        "command goes on"
    )
    return "disk full during a save", 1, happened


FAULTS = {"damage": damage, "disk_full": disk_full, "shard": shard, "worker": worker}


def main(argv: Sequence[str]) -> None:
    """Injects the faults that are named, all of them by default."""
    logging.set_verbosity(logging.WARNING)
    names = argv[1:] or list(FAULTS)
    unknown = sorted(set(names) - FAULTS.keys())
    if unknown:
        sys.exit(f"no fault {', '.join(unknown)}; there are {', '.join(FAULTS)}")
    root = Path(flags.FLAGS.workdir or tempfile.mkdtemp(prefix="faults_"))
    runs = Runs(root)
    failed = False
    for name in names:
        if name == "disk_full" and not flags.FLAGS.mounted:
            failed |= _in_own_mounts(root)
            continue
        started, runs.problems = time.monotonic(), []
        fault, times, happened = FAULTS[name](runs)
        happened += "; " + ("; ".join(runs.problems) or "every bit equal at the end")
        command = f"python -m tests.faults.inject {name}"
        row = Row(fault, times, happened, command, time.monotonic() - started)
        harness.write_results(root / f"{name}.json", row, runs.problems)
        failed |= bool(runs.problems)
    sys.exit(1 if failed else 0)


def _in_own_mounts(root: Path) -> bool:
    if subprocess.run(["unshare", "-rm", "true"], capture_output=True, check=False).returncode:
        print("disk_full: skipped, this system lets nobody mount a file system (unshare -rm)")
        return False
    command = [*_FULL, f"--workdir={root}"]
    return subprocess.run(command, cwd=harness.REPOSITORY, check=False).returncode != 0


def _flip(file: Path, place: int) -> None:
    content = bytearray(file.read_bytes())
    # Some bytes: a single one may fall on padding.
    for offset in range(place, min(place + 64, len(content))):
        content[offset] ^= 0x10
    file.write_bytes(content)


def _largest(folder: Path) -> Path:
    files = [path for path in (folder / "state").rglob("*") if path.is_file()]
    return max(files, key=lambda path: path.stat().st_size)


def _record(folder: Path) -> Path:
    return folder / harness.RECORD / harness.RECORD


if __name__ == "__main__":
    flags.DEFINE_string("workdir", None, "Where the runs go; by default a new temporary folder.")
    flags.DEFINE_bool("mounted", False, "Set by the script itself, inside its own mounts.")
    app.run(main)
