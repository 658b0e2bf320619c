"""A process that does one run after another: what starting anew would repeat is done once.

Importing, and reading what runs on the same data share, take several times as long as a short trial
trains. A table hands its runs to one such process. A run that fails leaves it as it is; one that is
killed takes the process with it, and the next run finds a new one.

    python -m int_ra_jax.comparison.worker    # tasks on stdin, what became of them on stdout
"""

import contextlib
import gc
import json
import os
import subprocess
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import IO, NamedTuple

from absl import logging

from int_ra_jax.common import config as configuration


class Outcome(NamedTuple):
    """What became of a task.

    Attributes:
      code: with which the process ended, 0 where it goes on.
      error: of the run, "" where there was none.
      diverged: whether the error is that training diverged, which it would again.
    """

    code: int
    error: str
    diverged: bool


class Worker:
    """The process, as the table sees it.

    Args:
      root: the folder of launch.py.
      environment: of the process.
    """

    def __init__(self, root: Path, environment: Mapping[str, str]) -> None:
        paths = [str(root), *filter(None, [environment.get("PYTHONPATH")])]
        self._environment = {**environment, "PYTHONPATH": os.pathsep.join(paths)}
        self._process: subprocess.Popen[str] | None = None

    def do(self, workdir: Path, log: Path, config: str = "") -> Outcome:
        """Trains or evaluates a run, and waits for it.

        Args:
          workdir: of the run.
          log: file to which everything that the run prints is added.
          config: to train; as ``configuration.to_json`` writes it. "" evaluates what was trained.
        """
        process = self._running()
        assert process.stdin is not None and process.stdout is not None
        task = {"workdir": str(workdir), "log": str(log), "config": config}
        try:
            with contextlib.suppress(BrokenPipeError):
                process.stdin.write(json.dumps(task) + "\n")
                process.stdin.flush()
            answer = process.stdout.readline()
        except BaseException:
            process.terminate()
            logging.info("stopping: the run saves and ends; once more stops it at once")
            try:
                self.close()
            finally:
                process.kill()
            raise
        if not answer:
            return Outcome(self.close() or 1, "", False)
        return Outcome(0, **json.loads(answer))

    def close(self) -> int:
        """Ends the process once its run has ended; returns its code, 0 where there is none."""
        process, self._process = self._process, None
        if process is None:
            return 0
        process.communicate()  # closes what it reads, and waits
        return process.returncode

    def _running(self) -> subprocess.Popen[str]:
        if self._process is not None and self._process.poll() is not None:
            self.close()
        if self._process is None:
            # A session of its own: Ctrl-C reaches the table alone, which passes on one signal.
            self._process = subprocess.Popen(
                # -P: what the current folder holds is nobody's package.
                [sys.executable, "-P", "-m", "int_ra_jax.comparison.worker"],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                env=self._environment, start_new_session=True,
            )  # fmt: skip
        return self._process


def _do(task: Mapping[str, str]) -> tuple[str, bool]:
    """Does a task; returns its error in words, "" where there is none, and whether it diverged."""
    try:
        if task["config"]:
            _train(Path(task["workdir"]), configuration.from_json(task["config"]))
        else:
            _evaluate(Path(task["workdir"]))
    except (ValueError, OSError, FloatingPointError) as error:
        return str(error), isinstance(error, FloatingPointError)
    except Exception:
        return traceback.format_exc(), False
    return "", False


def _train(workdir: Path, config: configuration.ConfigDict) -> None:
    from int_ra_jax.training.loop import train

    for name, value in train(config, workdir).items():
        logging.info("valid %s: %.4f", name, value)


def _evaluate(workdir: Path) -> None:
    from int_ra_jax.evaluation.evaluate import evaluate
    from int_ra_jax.evaluation.report import table, verdict
    from int_ra_jax.run.workdir import open_run
    from int_ra_jax.training import sharding

    run = open_run(workdir)
    target, placement = sharding.for_evaluation(run.abstract_params)
    data = evaluate(run, *run.restore_best(target), placement)
    print(*table(data), *verdict(data), sep="\n")


def _serve(tasks: IO[str], answers: IO[str]) -> None:
    from int_ra_jax.common import log, memory, process_memory

    memory.keep_freed()
    process_memory.switch_on()
    logging.use_absl_handler()
    log.set_up_console()
    for line in tasks:
        task = json.loads(line)
        with Path(task["log"]).open("ab") as file:
            for stream in (1, 2):
                os.dup2(file.fileno(), stream)
        error, diverged = _do(task)
        if error:
            print(error, file=sys.stderr)
        gc.collect()  # the run's arrays go before the next one has its own
        sys.stdout.flush()
        sys.stderr.flush()
        print(json.dumps({"error": error, "diverged": diverged}), file=answers, flush=True)


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
    _serve(sys.stdin, os.fdopen(os.dup(1), "w"))
