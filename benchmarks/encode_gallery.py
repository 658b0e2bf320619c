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

import numpy as np

from benchmarks import command, side_by_side
from benchmarks.side_by_side import Contestant, Result

TOLERANCE = {"float32": 1e-4, "bfloat16": 3e-2}  # of unit embeddings, absolute
PEERS = ("eager", "compile")
BATCHED = "ours, batched"


def main() -> None:
    """Prints stickers per second of each contestant, and ratios to our batched one."""
    arguments = _parse()
    command.use_device(arguments.device)
    # Here, so that a contestant, which imports this module again, loads what it needs and no more.
    from benchmarks import floor

    results = _race(arguments)
    batched, number = results[BATCHED], arguments.stickers
    errors = {
        name: float(np.max(np.abs(one.first - batched.first))) for name, one in results.items()
    }
    wrong = {name: e for name, e in errors.items() if not e <= TOLERANCE[arguments.dtype]}
    if wrong:
        raise AssertionError(f"embeddings differ from ours, batched, by {wrong}")
    rates = floor.measure(arguments.dtype)
    least = rates.seconds(batched.facts["flops"])
    rows = [
        {
            "": name,
            "stickers/s": f"{number / result.median:.2f}",
            "ours / it": f"{result.median / batched.median:.2f}",
            "largest difference": f"{errors[name]:.0e}",
            **result.cells(least),
        }
        for name, result in results.items()
    ]
    text = (
        f"{rates}\n{number} stickers, batches of {arguments.batch_size}, median of "
        f"{arguments.rounds} rounds\n\n{command.table(rows)}\n\n"
        f"floor {number / least:.2f} stickers/s"
    )
    command.publish(
        arguments, text, floor=vars(rates), floor_seconds=least, largest_differences=errors,
        results={name: result.to_json() for name, result in results.items()},
    )  # fmt: skip


def _race(arguments: argparse.Namespace) -> dict[str, Result]:
    from benchmarks import ours, synthetic

    problem = synthetic.make(
        arguments.preset, stickers=arguments.stickers, dtype=arguments.dtype,
        distinct_attributes=arguments.distinct_attributes,
    )  # fmt: skip
    inputs = synthetic.peer_stickers(problem.resident.bank)
    sizes = {"batched": arguments.batch_size, "one by one": 1}
    with ours.weights_of(problem) as directory:
        given = {"problem": problem, "directory": directory}
        contestants = {
            f"ours, {name}": Contestant(
                "benchmarks.ours:encode_gallery", {**given, "batch_size": size}
            )
            for name, size in sizes.items()
        }
        for way in arguments.peers:
            peer = synthetic.Peer(
                synthetic.peer_shapes(problem), directory / ours.WEIGHTS, arguments.dtype,
                arguments.device, way == "compile",
            )  # fmt: skip
            given = {"peer": peer, "inputs": inputs}
            for name, size in sizes.items():
                if way == "eager" or name == "batched":
                    contestants[f"torch {way}, {name}"] = Contestant(
                        "benchmarks.torch_peer:encode_gallery", {**given, "batch_size": size}
                    )
        return side_by_side.race(contestants, arguments.rounds)


def _parse() -> argparse.Namespace:
    parser = command.model_parser(__doc__)
    parser.add_argument("--stickers", type=int, default=64)
    parser.add_argument("--batch_size", type=int, default=32, help="stickers encoded at once")
    parser.add_argument("--distinct_attributes", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=3, help="timed encodings of the gallery")
    peers = command.chosen_from(PEERS)
    parser.add_argument("--peers", type=peers, default="eager", help="of eager, compile; or empty")
    return parser.parse_args()


if __name__ == "__main__":
    main()
