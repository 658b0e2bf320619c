"""One run of a table in a process: what became of it, and how it ends."""

import os
import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from int_ra_jax.comparison.table_run import DivergedError, Processes, RunFailedError
from int_ra_jax.comparison.worker import Outcome, Worker

ROOT = Path(__file__).resolve().parents[2]

# A process in the worker's place, which does what the config says in Python.
STAND_IN = """
import json, os, signal, sys, time
for line in sys.stdin:
    task = json.loads(line)
    answer = {"error": "", "diverged": False}
    exec(task["config"])
    print(json.dumps(answer), flush=True)
"""


@pytest.fixture
def stand_in(tmp_path):
    """A folder whose package has the stand-in."""
    folder = tmp_path / "root" / "int_ra_jax" / "comparison"
    folder.mkdir(parents=True)
    for package in (folder.parent, folder):
        (package / "__init__.py").touch()
    (folder / "worker.py").write_text(STAND_IN)
    return tmp_path / "root"


def test_one_process_does_run_after_run_and_a_killed_one_is_replaced(stand_in, tmp_path):
    with closing(Worker(stand_in, os.environ)) as worker:

        def process():
            return worker.do(tmp_path, tmp_path / "log", "answer['error'] = str(os.getpid())")

        first = process()
        assert first.code == 0 and process() == first
        assert worker.do(tmp_path, tmp_path / "log", "os.kill(os.getpid(), 9)") == Outcome(
            -9, "", False
        )
        assert process().error not in ("", first.error)


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("answer['error'] = 'no\\n  such key'", "^no\n    such key \\(log: "),
        ("answer['error'] = 'Traceback:\\n a\\n b\\n c\\nKeyError: 3'", "^ b\n   c\n  KeyError: 3"),
        ("os.kill(os.getpid(), 9)", "^killed by SIGKILL"),
        ("sys.exit(3)", "^it ended without a word"),
    ],
)
def test_a_run_that_fails_is_reported_with_its_own_words(stand_in, tmp_path, script, message):
    with closing(Processes(stand_in / "launch.py", tmp_path / "compiled")) as processes:
        with pytest.raises(RunFailedError, match=message):
            processes._do(tmp_path, script)
        with pytest.raises(DivergedError, match=r"^nan \(log"):
            processes._do(tmp_path, "answer.update(error='nan', diverged=True)")
        processes._do(tmp_path, "pass")  # the next one runs


def test_a_signal_ends_the_run_in_order_and_then_the_table(stand_in, tmp_path):
    child = (
        f"os.chdir({str(tmp_path)!r})\n"
        "signal.signal(signal.SIGTERM, lambda *_: open('saved', 'w').close())\n"
        "open('ready', 'w').close()\n"
        "while not os.path.exists('saved'): time.sleep(0.01)"
    )
    parent = (
        "import pathlib\n"
        "from int_ra_jax.comparison import table_run\n"
        f"here = pathlib.Path({str(tmp_path)!r})\n"
        "with table_run.terminable():\n"
        f"    table_run.Processes(here / 'root' / 'launch.py', here)._do(here, {child!r})\n"
    )
    process = subprocess.Popen([sys.executable, "-c", parent], cwd=ROOT, stderr=subprocess.PIPE)
    try:
        while not (tmp_path / "ready").exists():
            assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        _, shown = process.communicate(timeout=60)
    finally:
        process.kill()
    assert (tmp_path / "saved").exists()
    assert b"ValueError: stopped by a signal; the same command goes on" in shown
