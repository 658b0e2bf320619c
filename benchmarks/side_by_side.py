"""Runs contestants in turn, one process each, and gathers what they took.

A process of its own gives every contestant its own threads, allocator and peak memory; only one
works at a time, and their rounds alternate, so that a slow moment of the machine falls on all of
them alike.

This module and the scripts that use it import neither jax nor torch at the top: a contestant then
starts with what it needs itself, which its time to the first result and its memory include.
"""

import argparse
import importlib
import json
import multiprocessing
import os
import resource
import statistics
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

_PLATFORMS = {"cpu": "cpu", "gpu": "cuda"}


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
      run: does the work once, waits for it, and returns a small NumPy array to compare by.
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
      first: what its first run returned, before anything it changes has changed.
      first_seconds: from the start of its process to that result: imports, weights, compilation.
      seconds: of each timed run.
      processor_seconds: of each timed run, over all threads; on a busy machine they say more.
      peak_bytes: of its process, or of the accelerator where it runs on one.
      facts: as it was prepared with.
    """

    first: Any
    first_seconds: float
    seconds: list[float] = field(default_factory=list)
    processor_seconds: list[float] = field(default_factory=list)
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

    def to_json(self) -> dict[str, Any]:
        """Returns times, memory and facts as plain data."""
        kept = {key: value for key, value in asdict(self).items() if key != "first"}
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
    lines: dict[str, Connection] = {}
    results: dict[str, Result] = {}
    processes = []
    try:
        for name, contestant in contestants.items():
            here, there = spawn.Pipe()
            process = spawn.Process(
                target=_serve, args=(there, contestant, time.time()), daemon=True
            )
            process.start()
            there.close()
            processes.append(process)
            lines[name] = here
            results[name] = _answer(name, here)
            _say(f"{name}: first result after {results[name].first_seconds:.1f} s")
            warm, _ = _ask(name, here, "run")
            _say(f"{name}: warmed up, {warm:.3f} s; the timed part takes {rounds} of each")
        for index in range(rounds):
            for name, line in lines.items():
                wall, processor = _ask(name, line, "run")
                results[name].seconds.append(wall)
                results[name].processor_seconds.append(processor)
            turn = sum(result.seconds[-1] for result in results.values())
            _say(
                f"round {index + 1}/{rounds}: "
                + ", ".join(f"{name} {r.seconds[-1]:.3f} s" for name, r in results.items())
                + f"; ETA {turn * (rounds - index - 1):.0f} s"
            )
        for name, line in lines.items():
            results[name].peak_bytes = _ask(name, line, "stop")
    finally:
        for process in processes:
            process.join(timeout=5)
            process.kill()
    return results


def write_json(path: str, content: dict[str, Any]) -> None:
    """Writes the figures beside the table; an empty path writes nothing."""
    if not path:
        return
    file = Path(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    _say(f"written: {file}")


def add_device(parser: argparse.ArgumentParser) -> None:
    """Adds ``--device``."""
    parser.add_argument("--device", choices=sorted(_PLATFORMS), default="cpu")


def use_device(device: str) -> None:
    """Makes JAX, here and in the contestants, use the CPU or the GPU; before its first use.

    On a GPU it also keeps JAX from reserving most of the memory, since contestants share it.
    """
    os.environ["JAX_PLATFORMS"] = _PLATFORMS[device]
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")


def table(rows: list[list[str]]) -> str:
    """Returns rows as aligned columns, the first one to the left."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )


def _serve(line: Connection, contestant: Contestant, started: float) -> None:
    """Runs in the contestant's process until it is told to stop."""
    try:
        module, function = contestant.factory.split(":")
        prepared: Prepared = getattr(importlib.import_module(module), function)(
            **contestant.arguments
        )
        first = prepared.run()
        line.send(Result(first, time.time() - started, facts=prepared.facts))
        while line.recv() == "run":
            begin, processor = time.perf_counter(), time.process_time()
            prepared.run()
            line.send((time.perf_counter() - begin, time.process_time() - processor))
        line.send(_peak(prepared))
    except EOFError:
        return
    except Exception:
        line.send(traceback.format_exc())


def _peak(prepared: Prepared) -> int:
    if prepared.device_memory is not None:
        return prepared.device_memory()
    status = Path("/proc/self/status")
    if status.is_file():  # unlike ru_maxrss it does not inherit the peak of the parent
        lines = dict(row.split(":", 1) for row in status.read_text().splitlines() if ":" in row)
        return int(lines["VmHWM"].split()[0]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _ask(name: str, line: Connection, what: str) -> Any:
    line.send(what)
    return _answer(name, line)


def _answer(name: str, line: Connection) -> Any:
    try:
        answer = line.recv()
    except EOFError:
        raise RuntimeError(
            f"{name} ended without a word; it may have been killed for want of memory. Run fewer "
            "contestants at once (--peers), or a smaller batch."
        ) from None
    if isinstance(answer, str):
        raise RuntimeError(f"{name} failed:\n{answer}")
    return answer


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
