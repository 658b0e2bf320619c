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
import json
import os
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import jax

from benchmarks import command, ours, synthetic
from benchmarks.collectives import KINDS, collectives
from int_ra_jax.models import registry
from int_ra_jax.models.interface import merge
from int_ra_jax.training import sharding
from int_ra_jax.training.step import create_state, make_train_step

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
        nodes = Counter(device // self.node for device in group)
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


def line(at: tuple[float, float], costs: tuple[Cost, Cost], where: float) -> Cost:
    """Returns the cost at ``where`` on the line through two points."""
    share = (where - at[0]) / (at[1] - at[0])
    parts = (asdict(cost) for cost in costs)
    return Cost(**jax.tree.map(lambda one, other: (1 - share) * one + share * other, *parts))


def lowered(
    problem: synthetic.Problem, mesh: jax.sharding.Mesh, rows: int, stickers: int
) -> jax.stages.Lowered:
    """Lowers the step of a problem for a mesh, as the training loop does, from shapes alone.

    Args:
      problem: of ``synthetic.make``; its batch and gallery are resized.
      mesh: of ``sharding.make_mesh``.
      rows: conversations over all devices.
      stickers: in the gallery, each with four attribute texts of its own.
    """
    graphdef, params = registry.abstract(problem.config, problem.facts)
    _, optimizer, info = ours.optimizer_of(problem, graphdef, params)
    state = jax.eval_shape(lambda params: create_state(params, optimizer, 0, None), params)
    places = sharding.state_shardings(state, mesh, merge(graphdef, params).sharding_rules)
    split, whole = sharding.batch_sharding(mesh), sharding.replicated(mesh)

    def resized(tree: Any, length: int) -> Any:
        return jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct((length, *leaf.shape[1:]), leaf.dtype), tree
        )

    bank = problem.resident.bank
    texts = resized(bank.attributes, bank.attribute_index.shape[1] * stickers)
    resident = replace(problem.resident, bank=replace(resized(bank, stickers), attributes=texts))
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


def measure(shape: tuple[int, int, int], depth: int, rows: int, cache: Path | None) -> Cost:
    """Returns the cost of one program, read from the cache where it is kept there.

    Args:
      shape: devices along data, fsdp and tensor.
      depth: layers of each tower.
      rows: conversations per device.
      cache: directory, or None.
    """
    file = cache and cache / f"{'x'.join(map(str, shape))}-{depth}-{rows}.json"
    if file and file.is_file():
        return Cost(**json.loads(file.read_text()))
    begin = time.monotonic()
    problem = synthetic.make("paper", batch_size=1, stickers=1, dtype="bfloat16")
    facts = replace(
        problem.facts,
        text=replace(problem.facts.text, num_hidden_layers=depth),
        image=replace(problem.facts.image, num_hidden_layers=depth),
    )
    mesh = sharding.make_mesh(dict(zip(sharding.AXES, shape, strict=True)))
    step = lowered(replace(problem, facts=facts), mesh, rows * mesh.size, STICKERS)
    cost = cost_of(step.compile())
    seconds = time.monotonic() - begin
    command.say(f"{shape}, {depth} layers, {rows} rows a device: {seconds:.0f} s")
    if file:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(asdict(cost)))
    return cost


def full_cost(shape: tuple[int, int, int], rows: float, cache: Path | None) -> Cost:
    """Returns the cost at full depth and any batch, continued from the compiled programs.

    Args:
      shape: devices along data, fsdp and tensor.
      rows: conversations per device.
      cache: directory of the counts, or None.
    """

    def at(depth: int) -> Cost:
        few, many = (measure(shape, depth, given, cache) for given in ROWS)
        return line(ROWS, (few, many), rows)

    return line(DEPTHS, (at(DEPTHS[0]), at(DEPTHS[1])), FULL_DEPTH)


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
    """Prints the counts, and for each chip a roofline, under both regimes."""
    arguments = _parse()
    command.use_device("cpu")
    jax.config.update("jax_platforms", "cpu")
    os.environ["XLA_FLAGS"] = (
        f"--xla_force_host_platform_device_count={DEVICES} "
        # The programs are never run; without these, code for the CPU takes most of the time.
        "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
    )
    counts = [int(number) for number in arguments.devices.split(",")]
    shapes = {("one device", 1): (1, 1, 1)} | {
        (name, n): shape
        for name in arguments.meshes
        for n in counts
        if n > 1 and (shape := MESHES[name](n))
    }
    regimes = {
        f"{WEAK_ROWS} conversations a device": lambda n: WEAK_ROWS,
        f"{STRONG_ROWS} conversations in all": lambda n: STRONG_ROWS / n,
    }
    text, content = [], {}
    for regime, rows_of in regimes.items():
        costs = {
            (name, n): full_cost(shape, rows_of(n), arguments.cache)
            for (name, n), shape in shapes.items()
        }
        text.append(f"### {regime}\n\n{_counts(costs)}")
        weak = rows_of(1) == rows_of(2)
        text += [f"{chip.name}\n\n{_roofline(costs, chip, weak)}" for chip in CHIPS]
        content[regime] = [
            {"mesh": name, "devices": n, **asdict(cost),
             "times": {chip.name: times(cost, chip) for chip in CHIPS}}
            for (name, n), cost in costs.items()
        ]  # fmt: skip
    command.publish(arguments, "\n\n".join(text), regimes=content)


def _counts(costs: dict[tuple[str, int], Cost]) -> str:
    return command.table(
        [
            {
                "mesh": name,
                "devices": n,
                "TFLOP": f"{cost.flops / 1e12:.2f}",
                "GB accessed": f"{cost.bytes / 1e9:.0f}",
                **{f"{kind} GB": f"{cost.sent[kind] / 1e9:.3f}" for kind in KINDS},
            }
            for (name, n), cost in costs.items()
        ]
    )


def _roofline(costs: dict[tuple[str, int], Cost], chip: Chip, weak: bool) -> str:
    alone, rows = times(costs["one device", 1], chip), []
    for (name, n), cost in costs.items():
        found = times(cost, chip)
        parts = {"compute": "compute", "memory": "memory", "network": "network",
                 "step": "in turn", "overlapped": "overlapped"}  # fmt: skip
        share = {
            f"efficiency, {step}": f"{alone[step] / found[step] / (1 if weak else n):.0%}"
            for step in ("in turn", "overlapped", "no memory")
        }
        milliseconds = {f"{key} ms": f"{1000 * found[part]:.2f}" for key, part in parts.items()}
        rows.append({"mesh": name, "devices": n, **milliseconds, **share})
    return command.table(rows)


def _parse() -> argparse.Namespace:
    parser = command.parser(__doc__)
    parser.add_argument("--devices", default="1,2,4,8,16,32,64", help="comma-separated")
    meshes = command.chosen_from(list(MESHES))
    parser.add_argument("--meshes", type=meshes, default=",".join(MESHES), help="comma-separated")
    parser.add_argument("--cache", type=Path, help="directory for the counts of each program")
    return parser.parse_args()


if __name__ == "__main__":
    main()
