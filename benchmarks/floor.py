"""What the device can do at best: its measured matmul rate and memory bandwidth.

    python -m benchmarks.floor [--dtype=float32,bfloat16] [--device=cpu|gpu] [--out=FILE]

The floor of a benchmark is ``FLOPs / matmul rate``, or ``bytes / bandwidth`` where memory bounds
it: the time that the same work would take if only its matrix products (its traffic) took any. Both
rates are measured on the machine at hand and not taken from a data sheet, so that a share of the
floor says what is lost in the program and not in the machine.
"""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks import command

ROUNDS = 7
ADAM_BYTES = 28  # a parameter: it and two moments read and written, its gradient read
_GPU_SIDES = (4096, 8192)
# Rows, inner and outer width: a square, and the two products of a BERT-base feed-forward layer.
_CPU_SHAPES = ((2048, 2048, 2048), (2048, 768, 3072), (2048, 3072, 768))


@dataclass(frozen=True)
class Floor:
    """Measured rates of one device.

    Attributes:
      device: its kind, as JAX names it.
      dtype: of the operands of the matmuls.
      matmul_rate: FLOP/s, the best of a few shapes, each the median of its rounds.
      bandwidth: bytes/s, of an update in place that reads two float32 arrays and writes one.
    """

    device: str
    dtype: str
    matmul_rate: float
    bandwidth: float

    def seconds(self, flops: float, moved: float = 0.0) -> float:
        """Returns the least time for so many FLOPs and then so many bytes.

        Args:
          flops: in matrix products.
          moved: bytes that are moved while no matrix product runs, such as an optimiser's.
        """
        return flops / self.matmul_rate + moved / self.bandwidth

    def step_seconds(self, facts: Mapping[str, Any]) -> float:
        """Returns the least time for a training step: its matrix products and then Adam.

        Args:
          facts: ``flops`` of the step, and ``parameters``, the number of those that train.
        """
        return self.seconds(facts["flops"], ADAM_BYTES * facts["parameters"])

    def __str__(self) -> str:
        return (
            f"{self.device}, {self.dtype}: {self.matmul_rate / 1e9:.1f} GFLOP/s in matmuls, "
            f"{self.bandwidth / 1e9:.1f} GB/s"
        )


def measure(dtype: str) -> Floor:
    """Measures the default device.

    Args:
      dtype: float32 or bfloat16.
    """
    device = jax.devices()[0]
    cpu = device.platform == "cpu"
    shapes = _CPU_SHAPES if cpu else tuple((side,) * 3 for side in _GPU_SIDES)
    return Floor(
        device.device_kind,
        dtype,
        max(_matmul_rate(*shape, dtype) for shape in shapes),
        _bandwidth(2**26 if cpu else 2**29),
    )


def flops_of(lowered: jax.stages.Lowered) -> float:
    """Returns the FLOPs of a lowered program, before optimisation.

    After it, matrix products may be calls of a library that the compiler's cost analysis counts
    as nothing.
    """
    cost: Any = lowered.cost_analysis()
    return float(cost["flops"])


def _matmul_rate(rows: int, inner: int, outer: int, dtype: str) -> float:
    keys = jax.random.split(jax.random.key(0))
    left = jax.random.normal(keys[0], (rows, inner), jnp.dtype(dtype))
    right = jax.random.normal(keys[1], (inner, outer), jnp.dtype(dtype))
    seconds = _median_seconds(jax.jit(jnp.matmul), lambda _: (left, right))
    return 2.0 * rows * inner * outer / seconds


def _bandwidth(entries: int) -> float:
    # In place (donated): a new output would be paged in by the system, which is not bandwidth.
    update = jax.jit(lambda x, y: 0.5 * x + y, donate_argnums=0)
    y = jnp.ones(entries, jnp.float32)
    seconds = _median_seconds(update, lambda x: (jnp.zeros_like(y) if x is None else x, y))
    return 3.0 * y.nbytes / seconds


def _median_seconds(compute: Callable[..., Any], arguments: Callable[[Any], Any]) -> float:
    """Returns seconds a call; several calls are queued so that their dispatch is hidden."""
    calls = 4
    result = jax.block_until_ready(compute(*arguments(None)))
    times = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        for _ in range(calls):
            result = compute(*arguments(result))
        jax.block_until_ready(result)
        times.append((time.perf_counter() - start) / calls)
    return statistics.median(times)


def main() -> None:
    """Prints both rates for each dtype."""
    parser = command.parser(__doc__)
    parser.add_argument("--dtype", default="float32", help="comma-separated")
    command.add_device(parser)
    arguments = parser.parse_args()
    command.use_device(arguments.device)
    found = [measure(dtype) for dtype in arguments.dtype.split(",")]
    command.publish(arguments, "\n".join(map(str, found)), floors=[asdict(one) for one in found])


if __name__ == "__main__":
    main()
