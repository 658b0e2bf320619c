"""What a training step of the paper's model costs, ours against PyTorch, side by side.

    python -m benchmarks.train_step [--preset=paper|tiny] [--batch_size=4,16]
        [--dtype=float32|bfloat16] [--steps=5] [--peers=eager,compile,eager+kept,compile+kept]
        [--compile_mode=default] [--device=cpu|gpu] [--out=FILE]

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

from benchmarks import command, side_by_side
from benchmarks.side_by_side import Contestant, Result

TOLERANCE = {"float32": 1e-4, "bfloat16": 2e-2}  # of the first loss, relative
PEERS = ("eager", "compile", "eager+kept", "compile+kept")


def main() -> None:
    """Prints one table per batch size."""
    arguments = _parse()
    command.use_device(arguments.device)
    # Here, so that a contestant, which imports this module again, loads what it needs and no more.
    from benchmarks import floor

    races = [_race(arguments, int(size)) for size in arguments.batch_size.split(",")]
    rates = floor.measure(arguments.dtype)
    text, runs = [str(rates)], []
    for size, tokens, results in races:
        ours = results["ours"]
        least = rates.step_seconds(ours.facts)
        rows = [_row(name, one, ours, size, tokens, least) for name, one in results.items()]
        text += [
            f"\nbatch of {size}, median of {arguments.steps} steps\n\n{command.table(rows)}\n",
            f"floor {1000 * least:.0f} ms ({ours.facts['flops'] / 1e9:.0f} GFLOP and Adam over "
            f"{ours.facts['parameters'] / 1e6:.0f} M parameters), gap of ours "
            f"{1000 * (ours.median - least):.0f} ms; matmul rate reached by ours: "
            f"{ours.facts['flops'] / ours.median / rates.matmul_rate:.0%}",
        ]
        named = {name: one.to_json() for name, one in results.items()}
        runs.append(
            {"batch_size": size, "tokens": tokens, "floor_seconds": least, "results": named}
        )
    command.publish(arguments, "\n".join(text), floor=vars(rates), runs=runs)


def _race(arguments: argparse.Namespace, size: int) -> tuple[int, int, dict[str, Result]]:
    from benchmarks import ours, synthetic

    problem = synthetic.make(arguments.preset, batch_size=size, dtype=arguments.dtype)
    inputs, optim = synthetic.peer_batch(problem), problem.config.optim
    with ours.weights_of(problem) as directory:
        given = {"problem": problem, "directory": directory}
        contestants = {"ours": Contestant("benchmarks.ours:train", given)}
        for name in arguments.peers:
            way, _, kept = name.partition("+")
            peer = synthetic.Peer(
                synthetic.peer_shapes(problem), directory / ours.WEIGHTS, arguments.dtype,
                arguments.device, way == "compile", arguments.compile_mode, bool(kept),
            )  # fmt: skip
            given = {"peer": peer, "inputs": inputs, "lr": optim.lr, "eps": optim.eps}
            contestants[f"torch {name}"] = Contestant("benchmarks.torch_peer:train", given)
        results = side_by_side.race(contestants, arguments.steps)
    reference = float(results["ours"].first)
    for name, result in results.items():
        command.say(f"batch of {size}: first loss of {name}: {float(result.first):.6f}")
        error = abs(float(result.first) / reference - 1)
        if not error <= TOLERANCE[arguments.dtype]:
            raise AssertionError(f"{name} does not compute the loss of ours ({error:.1e} off)")
    return size, problem.tokens, results


def _row(
    name: str, result: Result, ours: Result, size: int, tokens: int, least: float
) -> dict[str, str]:
    return {
        "": name,
        "ms/step": f"{1000 * result.median:.0f}",
        "/ ours": f"{result.median / ours.median:.2f}",
        "tokens/s": f"{tokens / result.median:.0f}",
        "stickers/s": f"{size / result.median:.2f}",
        "first step s": f"{result.first_seconds:.1f}",
        **result.cells(least),
    }


def _parse() -> argparse.Namespace:
    parser = command.model_parser(__doc__)
    parser.add_argument("--batch_size", default="4,16", help="comma-separated")
    parser.add_argument("--steps", type=int, default=5, help="timed steps of each")
    known = f"of {', '.join(PEERS)}; may be empty"
    parser.add_argument(
        "--peers", type=command.chosen_from(PEERS), default="eager,compile", help=known
    )
    parser.add_argument("--compile_mode", default="default", help="mode of torch.compile")
    return parser.parse_args()


if __name__ == "__main__":
    main()
