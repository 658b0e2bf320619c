"""Stickers encoded per second: in batches against one by one, ours against PyTorch.

    python -m benchmarks.encode_gallery [--preset=paper|tiny] [--stickers=64] [--batch_size=32]
        [--distinct_attributes=0] [--dtype=float32|bfloat16] [--rounds=3] [--peers=eager,compile]
        [--device=cpu|gpu] [--out=FILE]

One round encodes the whole gallery: pixels of 224 x 224 through CLIP ViT-B/32, four attribute texts
of 32 tokens through a text tower of BERT-base shape, and the relation head. One by one is the
published procedure: a full forward pass of each sticker and its attributes. PyTorch
(``torch_peer.py``) has the same weights and batches, in inference mode; ``--peers=compile`` adds
torch.compile. All embeddings must agree within 1e-4. ``--distinct_attributes`` is the number of
different attribute texts in the gallery, 0 for four of its own per sticker; each batch reads its
distinct texts once where that is fewer.

The floor is FLOPs / measured matmul rate, with the FLOPs of our batched program.
"""

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import side_by_side
from benchmarks.side_by_side import Contestant, Result

TOLERANCE = {"float32": 1e-4, "bfloat16": 3e-2}  # of unit embeddings, absolute
BATCHED = "ours, batched"


def main() -> None:
    """Prints stickers per second of each contestant, and ratios to our batched one."""
    arguments = _parse()
    side_by_side.use_device(arguments.device)
    # Here, so that a contestant, which imports this module again, loads what it needs and no more.
    from benchmarks import floor

    begin = time.time()
    results = _race(arguments)
    errors = {
        name: float(np.max(np.abs(result.first - results[BATCHED].first)))
        for name, result in results.items()
    }
    wrong = {name: e for name, e in errors.items() if not e <= TOLERANCE[arguments.dtype]}
    if wrong:
        raise AssertionError(f"embeddings differ from ours, batched, by {wrong}")
    rates = floor.measure(arguments.dtype)
    least = rates.seconds(results[BATCHED].facts["flops"])
    rows = [["", "stickers/s", "spread", "ours / it", "largest difference", "peak GB", "of floor"]]
    for name, result in results.items():
        rows.append(
            [
                name,
                f"{arguments.stickers / result.median:.2f}",
                f"{result.spread:.0%}",
                f"{result.median / results[BATCHED].median:.2f}",
                f"{errors[name]:.0e}",
                f"{result.peak_bytes / 1e9:.1f}",
                f"{least / result.median:.0%}",
            ]
        )
    print(f"\n{rates.device}, {arguments.dtype}, {arguments.stickers} stickers, batches of "
          f"{arguments.batch_size}, median of {arguments.rounds} rounds")  # fmt: skip
    print(side_by_side.table(rows))
    print(f"floor {arguments.stickers / least:.2f} stickers/s at "
          f"{rates.matmul_rate / 1e9:.0f} GFLOP/s")  # fmt: skip
    print(f"{time.time() - begin:.0f} s in all")
    content = {
        "arguments": vars(arguments),
        "floor": vars(rates),
        "floor_seconds": least,
        "largest_differences": errors,
        "results": {name: result.to_json() for name, result in results.items()},
    }
    side_by_side.write_json(arguments.out, content)


def _race(arguments: argparse.Namespace) -> dict[str, Result]:
    from benchmarks import ours, synthetic

    problem = synthetic.make(
        arguments.preset,
        stickers=arguments.stickers,
        distinct_attributes=arguments.distinct_attributes,
        dtype=arguments.dtype,
    )
    sizes = {"batched": arguments.batch_size, "one by one": 1}
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder)
        ours.write_weights(problem, directory)
        given = {"problem": problem, "directory": directory}
        contestants = {
            f"ours, {name}": Contestant(
                "benchmarks.ours:encode_gallery", {**given, "batch_size": size}
            )
            for name, size in sizes.items()
        }
        given = {
            "shapes": synthetic.peer_shapes(problem),
            "inputs": synthetic.peer_stickers(problem.resident.bank),
            "weights": directory / ours.WEIGHTS,
            "dtype": arguments.dtype,
            "device": arguments.device,
        }
        for peer in filter(None, arguments.peers.split(",")):
            for name, size in sizes.items():
                if peer == "eager" or name == "batched":
                    contestants[f"torch {peer}, {name}"] = Contestant(
                        "benchmarks.torch_peer:encode_gallery",
                        {**given, "batch_size": size, "compiled": peer == "compile"},
                    )
        return side_by_side.race(contestants, arguments.rounds)


def _parse() -> Any:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", choices=("paper", "tiny"), default="paper")
    parser.add_argument("--stickers", type=int, default=64)
    parser.add_argument("--batch_size", type=int, default=32, help="stickers encoded at once")
    parser.add_argument("--distinct_attributes", type=int, default=0)
    parser.add_argument("--dtype", choices=sorted(TOLERANCE), default="float32")
    parser.add_argument("--rounds", type=int, default=3, help="timed encodings of the gallery")
    parser.add_argument("--peers", default="eager", help="of eager, compile; may be empty")
    parser.add_argument("--out", default="", help="JSON file")
    side_by_side.add_device(parser)
    return parser.parse_args()


if __name__ == "__main__":
    main()
