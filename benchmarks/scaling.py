"""Counts what a training step of the paper's model costs on 1 to 64 devices, and what follows.

    python -m benchmarks.scaling [--devices=1,2,4,8,16,32,64] [--meshes=data,fsdp,...]
        [--cache=DIR] [--out=FILE]

Nothing is executed and no accelerator is needed: the step that training jits is compiled for
simulated devices from shapes and shardings alone. Its FLOPs and bytes accessed are XLA's cost
analysis of the compiled program of one device, its communication is read from the same program
(``collectives.py``). Layers are alike, and so are conversations: the step is compiled with 1 and 2
layers in each tower and with two batch sizes, and continued linearly in both to the full depth and
any batch. ``--cache`` keeps the counts of each program, so that an interrupted run goes on.

The roofline is ``step = max(FLOPs / peak, bytes / HBM bandwidth) + communication``; with perfect
overlap it is the largest of the three. The CPU's program fuses less than an accelerator's and holds
bfloat16 as float32, so its bytes are an upper bound: a third efficiency leaves memory out, which
makes communication weigh most. docs/scaling.md shows the arithmetic.
"""

import argparse
import dataclasses
import json
import os
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import side_by_side

DEVICES = 64
STICKERS = 4096  # in the gallery; with fewer, every device would encode the whole table of texts
DEPTHS = (1, 2)
ROWS = (4, 8)  # conversations per device in the compiled programs
FULL_DEPTH = 12
WEAK_ROWS = 32  # conversations per device, whatever the number of devices
STRONG_ROWS = 512  # conversations over all devices
MESHES = {
    "data": lambda n: (n, 1, 1),
    "fsdp": lambda n: (1, n, 1),
    "tensor": lambda n: (1, 1, n) if n <= 8 else None,
    "data x fsdp 8": lambda n: (n // 8, 8, 1) if n > 8 else None,
    "data x fsdp 4 x tensor 2": lambda n: (n // 8, 4, 2) if n >= 8 else None,
}


@dataclass(frozen=True)
class Chip:
    """An accelerator and its network.

    Attributes:
      name: as it is sold.
      flops: of bfloat16 matrix products a second, without sparsity.
      memory: bytes a second between it and its memory.
      link: bytes a second that it can send to its neighbours in a node (slice).
      node: devices that are linked so.
      network: bytes a second that it can send out of its node.
    """

    name: str
    flops: float
    memory: float
    link: float
    node: int
    network: float

    def bandwidth(self, group: Iterable[int]) -> float:
        """Returns the bytes a second that each device of a group can send round its ring.

        A ring through several nodes leaves each node as often as it has members there, over their
        own network ports.
        """
        nodes: dict[int, int] = {}
        for device in group:
            nodes[device // self.node] = nodes.get(device // self.node, 0) + 1
        return self.link if len(nodes) == 1 else min(self.link, min(nodes.values()) * self.network)


# NVIDIA's data sheet of the H100 SXM: 989 TFLOP/s, 3.35 TB/s, NVLink 900 GB/s both ways; one 400
# Gbit/s port a GPU between nodes. Google's page of the v5e: 197 TFLOP/s, 819 GB/s, 400 GB/s both
# ways over 4 ports; a ring through a slice uses two of them in each chip, 50 GB/s one way each.
CHIPS = (
    Chip("H100 SXM", 989e12, 3.35e12, 450e9, 8, 50e9),
    Chip("TPU v5e", 197e12, 819e9, 100e9, 256, 0.0),
)


@dataclass(frozen=True)
class Cost:
    """What one device does in one step.

    Attributes:
      flops: FLOPs.
      bytes: read and written in its memory.
      sent: kind of collective -> bytes sent.
      seconds: chip -> seconds that sending takes, one collective after the other.
    """

    flops: float
    bytes: float
    sent: dict[str, float]
    seconds: dict[str, float]

    def mixed(self, weight: float, other: "Cost", other_weight: float) -> "Cost":
        """Returns the weighted sum of two costs."""

        def both(mine: dict[str, float], theirs: dict[str, float]) -> dict[str, float]:
            return {
                key: weight * mine.get(key, 0.0) + other_weight * theirs.get(key, 0.0)
                for key in mine | theirs
            }

        return Cost(
            weight * self.flops + other_weight * other.flops,
            weight * self.bytes + other_weight * other.bytes,
            both(self.sent, other.sent),
            both(self.seconds, other.seconds),
        )


def line(at: tuple[float, float], costs: tuple[Cost, Cost], where: float) -> Cost:
    """Returns the cost at ``where`` on the line through two points."""
    share = (where - at[0]) / (at[1] - at[0])
    return costs[0].mixed(1 - share, costs[1], share)


def lowered(problem: Any, mesh: Any, rows: int, stickers: int) -> Any:
    """Lowers the step of a problem for a mesh, as the training loop does, from shapes alone.

    Args:
      problem: of ``synthetic.make``; its batch and gallery are resized.
      mesh: of ``sharding.make_mesh``.
      rows: conversations over all devices.
      stickers: in the gallery, each with four attribute texts of its own.
    """
    import jax

    from int_ra_jax.models import registry
    from int_ra_jax.models.interface import merge
    from int_ra_jax.training import optim, sharding
    from int_ra_jax.training.state import create
    from int_ra_jax.training.step import make_train_step

    graphdef, params = registry.abstract(problem.config, problem.facts)
    system = merge(graphdef, params)
    optimizer, info = optim.make_optimizer(
        problem.config.optim, params, system.param_groups(),
        total_steps=1_000_000, frozen=system.frozen_patterns(),
    )  # fmt: skip
    state = jax.eval_shape(lambda params: create(params, optimizer, 0, None), params)
    places = sharding.state_shardings(state, mesh, system.sharding_rules)
    split, whole = sharding.batch_sharding(mesh), sharding.replicated(mesh)

    def resized(tree: Any, length: int) -> Any:
        return jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct((length, *leaf.shape[1:]), leaf.dtype), tree
        )

    bank = problem.resident.bank
    texts = resized(bank.attributes, bank.attribute_index.shape[1] * stickers)
    resident = dataclasses.replace(
        problem.resident, bank=dataclasses.replace(resized(bank, stickers), attributes=texts)
    )
    step = jax.jit(
        make_train_step(
            graphdef, optimizer, info.trainable,
            gather=sharding.gather_for_use(places.params, mesh),
        ),
        in_shardings=(places, split, whole),
        out_shardings=(places, whole),
        donate_argnums=0,
    )  # fmt: skip
    return step.lower(state, resized(problem.batch, rows), resident)


def cost_of(compiled: Any) -> Cost:
    """Reads the cost of a compiled program."""
    from benchmarks.collectives import KINDS, collectives

    analysis = compiled.cost_analysis()
    found = collectives(compiled.as_text())
    return Cost(
        analysis["flops"],
        analysis["bytes accessed"],
        {kind: sum(item.sent for item in found if item.kind == kind) for kind in KINDS},
        {
            chip.name: sum(item.sent / chip.bandwidth(item.group) for item in found)
            for chip in CHIPS
        },
    )


def measure(shape: tuple[int, int, int], depth: int, rows: int, cache: str) -> Cost:
    """Returns the cost of one program, read from the cache where it is kept there."""
    file = Path(cache) / f"{'x'.join(map(str, shape))}-{depth}-{rows}.json" if cache else None
    if file and file.is_file():
        return Cost(**json.loads(file.read_text()))
    from benchmarks import synthetic
    from int_ra_jax.training import sharding

    begin = time.monotonic()
    problem = synthetic.make("paper", batch_size=1, stickers=1, dtype="bfloat16")
    facts = dataclasses.replace(
        problem.facts,
        text=dataclasses.replace(problem.facts.text, num_hidden_layers=depth),
        image=dataclasses.replace(problem.facts.image, num_hidden_layers=depth),
    )
    mesh = sharding.make_mesh(dict(zip(sharding.AXES, shape, strict=True)))
    problem = dataclasses.replace(problem, facts=facts)
    cost = cost_of(lowered(problem, mesh, rows * mesh.size, STICKERS).compile())
    print(f"{shape}, {depth} layers, {rows} rows a device: {time.monotonic() - begin:.0f} s",
          file=sys.stderr, flush=True)  # fmt: skip
    if file:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(dataclasses.asdict(cost)))
    return cost


def full_cost(shape: tuple[int, int, int], rows: float, cache: str) -> Cost:
    """Returns the cost at full depth and any batch, continued from the compiled programs.

    Args:
      shape: devices along data, fsdp and tensor.
      rows: conversations per device.
      cache: directory, or "".
    """
    at_depth = [
        line(ROWS, tuple(measure(shape, depth, given, cache) for given in ROWS), rows)  # type: ignore[arg-type]
        for depth in DEPTHS
    ]
    return line(DEPTHS, (at_depth[0], at_depth[1]), FULL_DEPTH)


def times(cost: Cost, chip: Chip) -> dict[str, float]:
    """Returns the parts of a step and the step in seconds: in turn, overlapped, without memory."""
    compute, memory = cost.flops / chip.flops, cost.bytes / chip.memory
    network = cost.seconds[chip.name]
    return {
        "compute": compute,
        "memory": memory,
        "network": network,
        "in turn": max(compute, memory) + network,
        "overlapped": max(compute, memory, network),
        "no memory": compute + network,
    }


def main() -> None:
    """Prints the counts, and two Markdown tables for each chip."""
    arguments = _parse()
    os.environ["JAX_PLATFORMS"] = "cpu"
    os.environ["XLA_FLAGS"] = (
        f"--xla_force_host_platform_device_count={DEVICES} "
        # The programs are never run; without these, code for the CPU takes most of the time.
        "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
    )
    begin = time.monotonic()
    counts = [int(number) for number in arguments.devices.split(",")]
    chosen = {
        (name, n): shape
        for name in arguments.meshes.split(",")
        for n in counts
        if n > 1 and (shape := MESHES[name](n))
    }
    regimes = {
        f"{WEAK_ROWS} conversations a device": lambda n: WEAK_ROWS,
        f"{STRONG_ROWS} conversations in all": lambda n: STRONG_ROWS / n,
    }
    content: dict[str, Any] = {"arguments": vars(arguments), "regimes": {}}
    for regime, rows_of in regimes.items():
        one = full_cost((1, 1, 1), rows_of(1), arguments.cache)
        costs = {("one device", 1): one} | {
            (name, n): full_cost(shape, rows_of(n), arguments.cache)
            for (name, n), shape in chosen.items()
        }
        print(f"\n### {regime}\n\n{_counts(costs)}")
        weak = rows_of(1) == rows_of(2)
        for chip in CHIPS:
            print(f"\n{chip.name}\n\n{_roofline(costs, chip, weak)}")
        content["regimes"][regime] = [
            {"mesh": name, "devices": n, **dataclasses.asdict(cost),
             "times": {chip.name: times(cost, chip) for chip in CHIPS}}
            for (name, n), cost in costs.items()
        ]  # fmt: skip
    content["total_seconds"] = time.monotonic() - begin
    print(f"\n{content['total_seconds']:.0f} s in all", file=sys.stderr)
    side_by_side.write_json(arguments.out, content)


def _counts(costs: dict[tuple[str, int], Cost]) -> str:
    kinds = [kind for kind in next(iter(costs.values())).sent]
    rows = [["mesh", "devices", "TFLOP", "GB accessed", *(f"{kind} GB" for kind in kinds)]]
    for (name, n), cost in costs.items():
        sent = [f"{cost.sent[kind] / 1e9:.3f}" for kind in kinds]
        rows.append([name, f"{n}", f"{cost.flops / 1e12:.2f}", f"{cost.bytes / 1e9:.0f}", *sent])
    return _markdown(rows)


def _roofline(costs: dict[tuple[str, int], Cost], chip: Chip, weak: bool) -> str:
    steps = ("in turn", "overlapped", "no memory")
    rows = [["mesh", "devices", "compute ms", "memory ms", "network ms", "step ms", "overlapped ms",
             *(f"efficiency, {step}" for step in steps)]]  # fmt: skip
    alone = times(next(iter(costs.values())), chip)
    for (name, n), cost in costs.items():
        found = times(cost, chip)
        parts = ("compute", "memory", "network", "in turn", "overlapped")
        share = [alone[step] / found[step] / (1 if weak else n) for step in steps]
        rows.append(
            [name, f"{n}", *(f"{1000 * found[part]:.2f}" for part in parts),
             *(f"{value:.0%}" for value in share)]
        )  # fmt: skip
    return _markdown(rows)


def _markdown(rows: list[list[str]]) -> str:
    ruled = [rows[0], ["---"] * len(rows[0]), *rows[1:]]
    return "\n".join(f"| {' | '.join(row)} |" for row in ruled)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--devices", default="1,2,4,8,16,32,64", help="comma-separated")
    parser.add_argument("--meshes", default=",".join(MESHES), help="comma-separated")
    parser.add_argument("--cache", default="", help="directory for the counts of each program")
    parser.add_argument("--out", default="", help="JSON file")
    return parser.parse_args()


if __name__ == "__main__":
    main()
