"""What all benchmarks share as commands: their options, and the two forms of their results."""

import argparse
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_PLATFORMS = {"cpu": "cpu", "gpu": "cuda"}


def parser(doc: str) -> argparse.ArgumentParser:
    """Returns a parser with ``--out``, described by the first line of a module's docstring."""
    found = argparse.ArgumentParser(description=doc.splitlines()[0])
    found.add_argument("--out", type=Path, help="JSON file to write the figures to")
    return found


def model_parser(doc: str) -> argparse.ArgumentParser:
    """Returns a parser that also has the options of a benchmark on the paper's model."""
    found = parser(doc)
    found.add_argument("--preset", choices=("paper", "tiny"), default="paper")
    found.add_argument("--dtype", choices=("bfloat16", "float32"), default="float32")
    add_device(found)
    return found


def add_device(options: argparse.ArgumentParser) -> None:
    """Adds ``--device``."""
    options.add_argument("--device", choices=sorted(_PLATFORMS), default="cpu")


def use_device(device: str) -> None:
    """Makes JAX, here and in the contestants, use the CPU or the GPU; call it before JAX is used.

    On a GPU it also keeps JAX from reserving most of the memory, which contestants share.
    """
    os.environ["JAX_PLATFORMS"] = _PLATFORMS[device]
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")


def chosen_from(known: Sequence[str]) -> Any:
    """Returns an argument type: names separated by commas, all of them known; may be empty."""

    def names(given: str) -> list[str]:
        found = [name for name in given.split(",") if name]
        if unknown := sorted(set(found) - set(known)):
            raise argparse.ArgumentTypeError(f"{unknown}: choose from {', '.join(known)}")
        return found

    return names


def table(rows: Sequence[Mapping[str, object]]) -> str:
    """Returns a Markdown table, aligned for a terminal: the first column left, the others right.

    Args:
      rows: column -> cell, with the same columns in every row; at least one row.
    """
    cells = [[*rows[0]], *([str(cell) for cell in row.values()] for row in rows)]
    widths = [max(3, *map(len, column)) for column in zip(*cells, strict=True)]
    ruled = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    return "\n".join(
        f"| {row[0].ljust(widths[0])} | "
        + "".join(f"{c.rjust(w)} | " for c, w in zip(row[1:], widths[1:], strict=True)).rstrip()
        for row in (cells[0], ruled, *cells[1:])
    )


def publish(arguments: argparse.Namespace, text: str, **content: Any) -> None:
    """Prints the tables, and writes the figures where ``--out`` says.

    Args:
      arguments: of the command; they are written too.
      text: tables and the lines around them.
      content: plain data.
    """
    print(f"\n{text}", flush=True)
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        figures = {"arguments": vars(arguments), **content}
        text = json.dumps(figures, indent=1, default=str, ensure_ascii=False)
        arguments.out.write_text(text + "\n", encoding="utf-8")
        say(f"written: {arguments.out}")


def say(text: str) -> None:
    """Prints progress, apart from the results."""
    print(text, file=sys.stderr, flush=True)
