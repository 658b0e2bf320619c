"""What training costs with both towers frozen and their output cached, against training everything.

    python -m benchmarks.frozen_towers [--preset=paper|tiny] [--batch_size=4]
        [--dtype=float32|bfloat16] [--steps=5] [--negatives=in_batch|both] [--stickers=64]
        [--cached=16] [--device=cpu|gpu] [--out=FILE]

Both are the paper's model and loss, their steps taken in turn. ``full`` trains both towers;
``cached`` has both frozen as a whole, and a step gathers the rows of its conversations and stickers
from hidden states that stay on the device. With ``--negatives=both``, the preset's own, the cached
step also encodes the whole gallery live, which the full one reads from stale columns; in-batch is
the like-for-like comparison. The cache is filled once, for ``--cached`` conversations and
``--stickers`` stickers, and its cost is given per row.

The floor of either step is that of ``train_step.py``; a cached step of a few GFLOP stays far above
it, because its time is dispatch and small matrices.
"""

import argparse
from dataclasses import replace

from benchmarks import command, side_by_side
from benchmarks.side_by_side import Contestant

FROZEN = {"model.text.frozen_layers": -1, "model.image.frozen_layers": -1}


def main() -> None:
    """Prints steps per second of both, their ratio, and what filling the cache costs."""
    arguments = _parse()
    command.use_device(arguments.device)
    # Here, so that a contestant, which imports this module again, loads what it needs and no more.
    from benchmarks import floor, ours, synthetic

    def problem(rows: int, changes: dict[str, int]) -> synthetic.Problem:
        return synthetic.make(
            arguments.preset, batch_size=rows, stickers=arguments.stickers, dtype=arguments.dtype,
            overrides={"loss.negatives": arguments.negatives, **changes},
        )  # fmt: skip

    full, cached = problem(arguments.batch_size, {}), problem(arguments.batch_size, FROZEN)
    with ours.weights_of(full) as directory:
        resident, cost = ours.fill_cache(problem(arguments.cached, FROZEN), directory)
        contestants = {
            name: Contestant("benchmarks.ours:train", {"problem": one, "directory": directory})
            for name, one in {"full": full, "cached": replace(cached, resident=resident)}.items()
        }
        results = side_by_side.race(contestants, arguments.steps)
    rates = floor.measure(arguments.dtype)
    ratio = results["full"].median / results["cached"].median
    rows = [
        {
            "": name,
            "ms/step": f"{1000 * result.median:.1f}",
            "steps/s": f"{1 / result.median:.2f}",
            "GFLOP": f"{result.facts['flops'] / 1e9:.1f}",
            "parameters M": f"{result.facts['parameters'] / 1e6:.1f}",
            **result.cells(rates.step_seconds(result.facts)),
        }
        for name, result in results.items()
    ]
    text = (
        f"{rates}\nbatch of {arguments.batch_size}, median of {arguments.steps} steps\n\n"
        f"{command.table(rows)}\n\ncached: {ratio:.1f} times the steps per second of full\n"
        f"the cache: {cost['seconds_a_conversation']:.3f} s and "
        f"{cost['bytes_a_conversation'] / 2**20:.2f} MiB a conversation, "
        f"{cost['seconds_a_sticker']:.3f} s and {cost['bytes_a_sticker'] / 2**20:.2f} MiB a sticker"
    )
    named = {name: result.to_json() for name, result in results.items()}
    command.publish(arguments, text, floor=vars(rates), ratio=ratio, cache=cost, results=named)


def _parse() -> argparse.Namespace:
    parser = command.model_parser(__doc__)
    parser.add_argument("--batch_size", type=int, default=4)
    parser.add_argument("--steps", type=int, default=5, help="timed steps of each")
    parser.add_argument("--negatives", choices=("in_batch", "both"), default="in_batch")
    parser.add_argument("--stickers", type=int, default=64, help="in the gallery")
    parser.add_argument("--cached", type=int, default=16, help="conversations in the cache")
    return parser.parse_args()


if __name__ == "__main__":
    main()
