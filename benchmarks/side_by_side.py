"""Runs contestants in turn, one process each, and gathers what they took.

A process of its own gives every contestant its own threads, allocator and peak memory; only one
works at a time, and their rounds alternate, so that a slow moment of the machine falls on all of
them alike.

This module and the benchmarks that use it import neither jax nor torch at the top: a contestant
then starts with what it needs itself, which its time to the first result and its memory include.
"""

import importlib
import multiprocessing
import resource
import statistics
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from concurrent.futures import Executor, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.command import say


@dataclass(frozen=True)
class Contestant:
    """How to set one contestant up, in its own process.

    Attributes:
      factory: ``module:function``, which returns a ``Prepared``.
      arguments: of that function; they are pickled.
    """

    factory: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True)
class Prepared:
    """A contestant that is ready to run.

    Attributes:
      run: does the work once, waits for it, and returns something small: an array to compare by.
      facts: what is reported besides times, such as FLOPs; plain numbers and strings.
      device_memory: returns the peak bytes on the accelerator; None on the CPU.
    """

    run: Callable[[], Any]
    facts: dict[str, Any] = field(default_factory=dict)
    device_memory: Callable[[], int] | None = None


@dataclass
class Result:
    """What one contestant took.

    Attributes:
      first: what its first run returned, before it has updated anything.
      first_seconds: from the start of its process to that result: imports, weights, compilation.
      seconds: of each timed run.
      processor_seconds: of each timed run, over all threads; on a busy machine they say more.
      values: what each timed run returned.
      peak_bytes: of its process, or of the accelerator where it runs on one.
      facts: as it was prepared with.
    """

    first: Any
    first_seconds: float
    seconds: list[float] = field(default_factory=list)
    processor_seconds: list[float] = field(default_factory=list)
    values: list[Any] = field(default_factory=list)
    peak_bytes: int = 0
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def median(self) -> float:
        """Median seconds of a run."""
        return statistics.median(self.seconds)

    @property
    def spread(self) -> float:
        """Largest minus smallest time, as a share of the median."""
        return (max(self.seconds) - min(self.seconds)) / self.median

    def cells(self, least: float) -> dict[str, str]:
        """Returns the columns that every race ends with.

        Args:
          least: seconds that a run takes at the floor.
        """
        return {
            "spread": f"{self.spread:.0%}",
            "peak GB": f"{self.peak_bytes / 1e9:.1f}",
            "of floor": f"{least / self.median:.0%}",
        }

    def to_json(self) -> dict[str, Any]:
        """Returns times, memory and facts as plain data."""
        left_out = ("first", "values")
        kept = {key: value for key, value in asdict(self).items() if key not in left_out}
        return {**kept, "median": self.median, "spread": self.spread}


def race(contestants: Mapping[str, Contestant], rounds: int) -> dict[str, Result]:
    """Sets the contestants up one after the other, then times their rounds in turn.

    Each runs twice before it is timed: the first run compiles, the second settles the allocator.

    Args:
      contestants: name -> contestant.
      rounds: timed runs of each.

    Raises:
      RuntimeError: with its traceback, if a contestant fails.
    """
    spawn = multiprocessing.get_context("spawn")
    results: dict[str, Result] = {}
    with ExitStack() as stack:
        workers = {}
        for name, contestant in contestants.items():
            workers[name] = stack.enter_context(ProcessPoolExecutor(1, spawn))
            results[name] = _ask(name, workers[name], _set_up, contestant, time.time())
            say(f"{name}: first result after {results[name].first_seconds:.1f} s")
            warm, *_ = _ask(name, workers[name], _run)
            say(f"{name}: warmed up, {warm:.3f} s; the timed part takes {rounds} of each")
        for index in range(rounds):
            for name, worker in workers.items():
                wall, processor, value = _ask(name, worker, _run)
                results[name].values.append(value)
                results[name].seconds.append(wall)
                results[name].processor_seconds.append(processor)
            last = {name: result.seconds[-1] for name, result in results.items()}
            say(
                f"round {index + 1}/{rounds}: "
                + ", ".join(f"{name} {seconds:.3f} s" for name, seconds in last.items())
                + f"; ETA {sum(last.values()) * (rounds - index - 1):.0f} s"
            )
        for name, worker in workers.items():
            results[name].peak_bytes = _ask(name, worker, _peak)
    return results


def _ask(name: str, worker: Executor, what: Callable[..., Any], *arguments: Any) -> Any:
    try:
        answer, failure = worker.submit(_caught, what, *arguments).result()
    except BrokenProcessPool as error:
        raise RuntimeError(
            f"The process of {name} ended without an answer; it may have been killed for want of "
            "memory. Run fewer contestants at once, or a smaller batch."
        ) from error
    if failure:
        raise RuntimeError(f"{name} failed:\n{failure}")
    return answer


# The rest runs in the contestant's process.
_prepared: list[Prepared] = []


def _caught(what: Callable[..., Any], *arguments: Any) -> tuple[Any, str]:
    """Returns the answer, or the traceback: not every exception can be pickled."""
    try:
        return what(*arguments), ""
    except Exception:
        return None, traceback.format_exc()


def _set_up(contestant: Contestant, started: float) -> Result:
    module, function = contestant.factory.split(":")
    prepared = getattr(importlib.import_module(module), function)(**contestant.arguments)
    _prepared.append(prepared)
    return Result(prepared.run(), time.time() - started, facts=prepared.facts)


def _run() -> tuple[float, float, Any]:
    begin, processor = time.perf_counter(), time.process_time()
    value = _prepared[0].run()
    return time.perf_counter() - begin, time.process_time() - processor, value


def _peak() -> int:
    if _prepared[0].device_memory is not None:
        return _prepared[0].device_memory()
    status = Path("/proc/self/status")
    if status.is_file():  # unlike ru_maxrss it does not inherit the peak of the parent
        lines = dict(row.split(":", 1) for row in status.read_text().splitlines() if ":" in row)
        return int(lines["VmHWM"].split()[0]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
