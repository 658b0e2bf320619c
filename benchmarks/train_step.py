"""What a training step of the paper's model costs, ours against PyTorch, side by side.

    python -m benchmarks.train_step [--preset=paper|tiny] [--batch_size=4,16]
        [--dtype=float32|bfloat16] [--steps=5] [--peers=eager,compile,eager+kept,compile+kept]
        [--device=cpu|gpu] [--out=FILE]

One step: B conversations of 256 tokens, their B gold stickers of 224 pixels with four attribute
texts of 32 tokens each, the 27 intention names; forward, hinge loss on in-batch negatives and
intention loss, backward, Adam. The text tower has the shape of bert-base-multilingual-cased, the
image tower that of CLIP ViT-B/32. PyTorch (``torch_peer.py``) has the same weights, batch, loss and
optimiser; its first loss must agree within 1e-4. The contestants take turns, each in a process of
its own. Ours keeps freed memory, as launch.py does; ``+kept`` is a peer that does so too.

The floor is ``FLOPs / matmul rate + 28 bytes x parameters / bandwidth``: the matrix products of the
step (counted by XLA in the program before optimisation) and Adam, which reads and writes parameters
and two moments and reads gradients, while no matrix product runs. Both rates are measured here.
"""

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import side_by_side
from benchmarks.side_by_side import Contestant, Result

ADAM_BYTES = 28  # parameter and two moments read and written, gradient read, four bytes each
TOLERANCE = {"float32": 1e-4, "bfloat16": 2e-2}  # of the first loss, relative
PEERS = ("eager", "compile", "eager+kept", "compile+kept")
COLUMNS = [
    "", "ms/step", "spread", "/ ours", "tokens/s", "stickers/s", "first step s", "peak GB",
    "of floor",
]  # fmt: skip


def main() -> None:
    """Prints one table per batch size."""
    arguments = _parse()
    side_by_side.use_device(arguments.device)
    # Here, so that a contestant, which imports this module again, loads what it needs and no more.
    from benchmarks import floor

    begin = time.time()
    runs = [_race(arguments, int(size)) for size in arguments.batch_size.split(",")]
    rates = floor.measure(arguments.dtype)
    print(
        f"\n{rates.device}, {arguments.dtype}: {rates.matmul_rate / 1e9:.0f} GFLOP/s in matmuls, "
        f"{rates.bandwidth / 1e9:.1f} GB/s"
    )
    content = {"arguments": vars(arguments), "floor": vars(rates), "runs": []}
    for size, tokens, results in runs:
        facts = results["ours"].facts
        least = rates.seconds(facts["flops"], ADAM_BYTES * facts["parameters"])
        print(f"\nbatch of {size}, median of {arguments.steps} steps")
        print(side_by_side.table(_rows(results, size, tokens, least)))
        print(
            f"floor {1000 * least:.0f} ms ({facts['flops'] / 1e9:.0f} GFLOP and Adam over "
            f"{facts['parameters'] / 1e6:.0f} M parameters), gap of ours "
            f"{1000 * (results['ours'].median - least):.0f} ms; matmul rate reached by ours: "
            f"{facts['flops'] / results['ours'].median / rates.matmul_rate:.0%}"
        )
        content["runs"].append(
            {
                "batch_size": size,
                "tokens": tokens,
                "floor_seconds": least,
                "results": {name: result.to_json() for name, result in results.items()},
            }
        )
    content["total_seconds"] = time.time() - begin
    print(f"\n{content['total_seconds']:.0f} s in all")
    side_by_side.write_json(arguments.out, content)


def _race(arguments: argparse.Namespace, size: int) -> tuple[int, int, dict[str, Result]]:
    from benchmarks import ours, synthetic

    problem = synthetic.make(arguments.preset, batch_size=size, dtype=arguments.dtype)
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder)
        ours.write_weights(problem, directory)
        contestants = {
            "ours": Contestant(
                "benchmarks.ours:train", {"problem": problem, "directory": directory}
            )
        }
        given = {
            "shapes": synthetic.peer_shapes(problem),
            "inputs": synthetic.peer_batch(problem),
            "weights": directory / ours.WEIGHTS,
            "lr": problem.config.optim.lr,
            "eps": problem.config.optim.eps,
            "dtype": arguments.dtype,
            "device": arguments.device,
            "mode": arguments.compile_mode,
        }
        for peer in arguments.peers:
            way, _, kept = peer.partition("+")
            options = {**given, "compiled": way == "compile", "kept": bool(kept)}
            contestants[f"torch {peer}"] = Contestant("benchmarks.torch_peer:train", options)
        results = side_by_side.race(contestants, arguments.steps)
    reference = float(results["ours"].first)
    for name, result in results.items():
        print(f"batch of {size}: first loss of {name}: {float(result.first):.6f}")
        error = abs(float(result.first) / reference - 1)
        if not error <= TOLERANCE[arguments.dtype]:
            raise AssertionError(f"{name} does not compute the loss of ours ({error:.1e} off)")
    return size, problem.tokens, results


def _rows(results: dict[str, Result], size: int, tokens: int, least: float) -> list[list[str]]:
    rows = [COLUMNS]
    for name, result in results.items():
        median = result.median
        rows.append(
            [
                name,
                f"{1000 * median:.0f}",
                f"{result.spread:.0%}",
                f"{median / results['ours'].median:.2f}",
                f"{tokens / median:.0f}",
                f"{size / median:.2f}",
                f"{result.first_seconds:.1f}",
                f"{result.peak_bytes / 1e9:.1f}",
                f"{least / median:.0%}",
            ]
        )
    return rows


def _peers(given: str) -> list[str]:
    peers = [peer for peer in given.split(",") if peer]
    if unknown := sorted(set(peers) - set(PEERS)):
        raise argparse.ArgumentTypeError(f"{unknown}: known are {', '.join(PEERS)}")
    return peers


def _parse() -> Any:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", choices=("paper", "tiny"), default="paper")
    parser.add_argument("--batch_size", default="4,16", help="comma-separated")
    parser.add_argument("--dtype", choices=sorted(TOLERANCE), default="float32")
    parser.add_argument("--steps", type=int, default=5, help="timed steps of each")
    parser.add_argument("--peers", type=_peers, default="eager,compile", help=", ".join(PEERS))
    parser.add_argument("--compile_mode", default="default", help="mode of torch.compile")
    parser.add_argument("--out", default="", help="JSON file")
    side_by_side.add_device(parser)
    return parser.parse_args()


if __name__ == "__main__":
    main()
