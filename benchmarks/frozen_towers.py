"""What training costs with both towers frozen and their output cached, against training everything.

    python -m benchmarks.frozen_towers [--preset=paper|tiny] [--batch_size=4]
        [--dtype=float32|bfloat16] [--steps=5] [--negatives=in_batch|both] [--stickers=64]
        [--cached=16] [--device=cpu|gpu] [--out=FILE]

Both are the paper's model and loss, their steps taken in turn. ``full`` trains both towers;
``cached`` has them frozen wholly, and a step gathers the rows of its conversations and stickers
from hidden states that stay on the device. With ``--negatives=both``, the preset's own, the cached
step also encodes the whole gallery live, which the full one reads from stale columns; in-batch is
the like-for-like comparison. The cache is filled once, for ``--cached`` conversations and
``--stickers`` stickers, and its cost is given per row, with the number of full steps it is worth.

The floor of either step is ``FLOPs / matmul rate + 28 bytes x trained parameters / bandwidth``, as
in ``train_step.py``; a cached step of a few GFLOP stays far above it, because its time is dispatch
and small matrices.
"""

import argparse
import dataclasses
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import side_by_side
from benchmarks.side_by_side import Contestant, Result

FROZEN = {"model.text.frozen_layers": -1, "model.image.frozen_layers": -1}


def main() -> None:
    """Prints steps per second of both, their ratio, and what filling the cache costs."""
    arguments = _parse()
    side_by_side.use_device(arguments.device)
    # Here, so that a contestant, which imports this module again, loads what it needs and no more.
    from benchmarks import floor, ours, synthetic

    begin = time.time()
    sizes = {
        "batch_size": arguments.batch_size,
        "stickers": arguments.stickers,
        "dtype": arguments.dtype,
    }
    changes = {"loss.negatives": arguments.negatives}
    full = synthetic.make(arguments.preset, **sizes, overrides=changes)
    frozen = {**changes, **FROZEN}
    rows = synthetic.make(
        arguments.preset, **{**sizes, "batch_size": arguments.cached}, overrides=frozen
    )
    cached = synthetic.make(arguments.preset, **sizes, overrides=frozen)
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder)
        ours.write_weights(full, directory)
        resident, cost = ours.fill_cache(rows, directory)
        problems = {"full": full, "cached": dataclasses.replace(cached, resident=resident)}
        results = side_by_side.race(
            {
                name: Contestant("benchmarks.ours:train", {"problem": p, "directory": directory})
                for name, p in problems.items()
            },
            arguments.steps,
        )
    rates = floor.measure(arguments.dtype)
    ratio = results["full"].median / results["cached"].median
    print(f"\n{rates.device}, {arguments.dtype}, batch of {arguments.batch_size}, median of "
          f"{arguments.steps} steps")  # fmt: skip
    print(side_by_side.table(_rows(results, rates.seconds)))
    print(f"cached: {ratio:.1f} times the steps per second of full")
    print(
        f"the cache: {cost['seconds_a_conversation']:.3f} s and "
        f"{cost['bytes_a_conversation'] / 2**20:.2f} MiB a conversation, "
        f"{cost['seconds_a_sticker']:.3f} s and {cost['bytes_a_sticker'] / 2**20:.2f} MiB a sticker"
    )
    print(f"{time.time() - begin:.0f} s in all")
    content = {
        "arguments": vars(arguments),
        "floor": vars(rates),
        "ratio": ratio,
        "cache": cost,
        "results": {name: result.to_json() for name, result in results.items()},
    }
    side_by_side.write_json(arguments.out, content)


def _rows(
    results: dict[str, Result], floor_seconds: Callable[[float, float], float]
) -> list[list[str]]:
    rows = [["", "ms/step", "spread", "steps/s", "GFLOP", "parameters M", "peak GB", "of floor"]]
    for name, result in results.items():
        facts = result.facts
        least = floor_seconds(facts["flops"], 28 * facts["parameters"])
        rows.append(
            [
                name,
                f"{1000 * result.median:.1f}",
                f"{result.spread:.0%}",
                f"{1 / result.median:.2f}",
                f"{facts['flops'] / 1e9:.1f}",
                f"{facts['parameters'] / 1e6:.1f}",
                f"{result.peak_bytes / 1e9:.1f}",
                f"{least / result.median:.0%}",
            ]
        )
    return rows


def _parse() -> Any:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", choices=("paper", "tiny"), default="paper")
    parser.add_argument("--batch_size", type=int, default=4)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--steps", type=int, default=5, help="timed steps of each")
    parser.add_argument("--negatives", choices=("in_batch", "both"), default="in_batch")
    parser.add_argument("--stickers", type=int, default=64, help="in the gallery")
    parser.add_argument("--cached", type=int, default=16, help="conversations in the cache")
    parser.add_argument("--out", default="", help="JSON file")
    side_by_side.add_device(parser)
    return parser.parse_args()


if __name__ == "__main__":
    main()
