"""Our side of the benchmarks: the same functions that training and evaluation jit.

Weights are kept in a file of the layout that PyTorch's Hugging Face models have, and every
contestant reads that file, so all begin from the same numbers.
"""

import re
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from safetensors.numpy import save_file

from benchmarks import floor
from benchmarks.side_by_side import Prepared
from benchmarks.synthetic import Problem
from int_ra_jax.common import memory
from int_ra_jax.common.params import flatten
from int_ra_jax.common.types import Bank, Resident
from int_ra_jax.models import registry
from int_ra_jax.models.interface import Params, merge
from int_ra_jax.models.towers.pretrained import load_weights
from int_ra_jax.training import optim
from int_ra_jax.training.step import create_state, make_train_step

WEIGHTS = "model.safetensors"


def torch_name(path: str) -> str:
    """Returns the name that a parameter of ours has in a PyTorch model."""
    return re.sub(r"\.(kernel|scale|embedding)$", ".weight", path.replace("/", "."))


def torch_axes(path: str, value: np.ndarray) -> np.ndarray:
    """Returns a parameter of ours with the axes that it has in a PyTorch model."""
    if path.endswith("kernel"):
        value = value.transpose(3, 2, 0, 1) if value.ndim == 4 else value.T
    return np.ascontiguousarray(value)


@contextmanager
def weights_of(problem: Problem) -> Iterator[Path]:
    """Yields a directory with the weights of ``write_weights``, and removes it afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        write_weights(problem, Path(folder))
        yield Path(folder)


def write_weights(problem: Problem, directory: Path) -> None:
    """Writes random weights under PyTorch's names and axes.

    Args:
      problem: whose system they are for.
      directory: that gets the file ``WEIGHTS``.
    """
    rng = np.random.default_rng(1)
    _, abstract = registry.abstract(problem.config, problem.facts)
    tensors = {}
    for path, leaf in flatten(abstract).items():
        inputs = np.prod(leaf.shape[:-1]) if path.endswith("kernel") else 2500
        draw = rng.standard_normal(leaf.shape, np.float32) * np.float32(inputs**-0.5)
        draw = draw + 1 if path.endswith("scale") else draw
        tensors[torch_name(path)] = torch_axes(path, draw)
    save_file(tensors, directory / WEIGHTS)


def read_weights(problem: Problem, directory: Path) -> tuple[nnx.GraphDef, Params]:
    """Returns the system's structure and the parameters of ``write_weights``."""
    graphdef, abstract = registry.abstract(problem.config, problem.facts)
    return graphdef, load_weights(abstract, directory)


def optimizer_of(problem: Problem, graphdef: nnx.GraphDef, params: Params) -> tuple[Any, Any, Any]:
    """Returns the system, the optimiser of a long training, and the optimiser's description."""
    system = merge(graphdef, params)
    optimizer, info = optim.make_optimizer(
        problem.config.optim, params, system.param_groups(),
        total_steps=1_000_000, frozen=system.frozen_patterns(),
    )  # fmt: skip
    return system, optimizer, info


def train(problem: Problem, directory: Path) -> Prepared:
    """Prepares training steps on one repeated batch; a run returns the loss before its update.

    Args:
      problem: its resident may hold the frozen layers' output, which is then what is trained on.
      directory: of the weights.
    """
    memory.keep_freed()  # as launch.py does
    graphdef, params = read_weights(problem, directory)
    system, optimizer, info = optimizer_of(problem, graphdef, params)
    negatives, shape = system.negatives, None
    if negatives.bank and not negatives.live:
        shape = (len(problem.resident.bank.index), problem.config.model.joint_width)
    state = [
        jax.jit(lambda params: create_state(params, optimizer, 0, shape), donate_argnums=0)(params)
    ]
    step = jax.jit(make_train_step(graphdef, optimizer, info.trainable), donate_argnums=0)
    batch, resident = jax.device_put((problem.batch, problem.resident))
    begin = time.perf_counter()
    lowered = step.lower(state[0], batch, resident)
    compiled = lowered.compile()

    def run() -> np.ndarray:
        state[0], metrics = compiled(state[0], batch, resident)
        jax.block_until_ready(state[0])
        return np.asarray(metrics["loss/total"])

    facts = {
        "compile_seconds": time.perf_counter() - begin,
        "flops": floor.flops_of(lowered),
        "parameters": sum(g.parameters for g in info.groups if not g.frozen),
    }
    return Prepared(run, facts, _device_memory())


def encode_gallery(problem: Problem, directory: Path, batch_size: int) -> Prepared:
    """Prepares the encoding of the whole gallery; a run returns its embeddings [N, D].

    Args:
      problem: whose gallery it is.
      directory: of the weights.
      batch_size: stickers encoded at once; 1 is the published procedure.
    """
    memory.keep_freed()
    graphdef, params = read_weights(problem, directory)
    bank = jax.device_put(problem.resident.bank)
    number = int(problem.resident.bank.index.shape[0])
    size = min(batch_size, number)

    @jax.jit
    def encode(params: Params, bank: Bank, rows: jax.Array) -> jax.Array:
        return merge(graphdef, params).encode_sticker(bank.rows(rows)).embedding

    def run() -> np.ndarray:
        parts = []
        for start in range(0, number, size):
            rows = np.minimum(np.arange(start, start + size), number - 1)
            parts.append(encode(params, bank, rows))
        return np.asarray(jnp.concatenate(parts)[:number])

    lowered = encode.lower(params, bank, np.arange(size))
    facts = {"flops": floor.flops_of(lowered) * -(-number // size)}
    return Prepared(run, facts, _device_memory())


def fill_cache(problem: Problem, directory: Path) -> tuple[Resident, dict[str, float]]:
    """Returns the resident with the frozen layers' output, and the seconds of each part.

    Args:
      problem: with both towers frozen; the cached conversations are those of its batch.
      directory: of the weights.
    """
    graphdef, params = read_weights(problem, directory)

    def timed(method: str, given: Any) -> tuple[jax.Array, float]:
        compute = jax.jit(lambda params, given: getattr(merge(graphdef, params), method)(given))
        compiled = compute.lower(params, given).compile()
        begin = time.perf_counter()
        hidden = jax.block_until_ready(compiled(params, given))
        return hidden, time.perf_counter() - begin

    resident = problem.resident
    bank, labels = resident.bank, resident.labels
    context, context_seconds = timed("hidden_text", problem.batch.context)
    names, names_seconds = timed("hidden_text", labels.tokens)
    attributes, attribute_seconds = timed("hidden_text", bank.attributes)
    images, image_seconds = timed("hidden_image", bank.pixels)
    cached = Resident(
        replace(bank, attribute_hidden=attributes, image_hidden=images, pixels=None),
        replace(labels, hidden=names),
        context,
    )
    rows, stickers = context.shape[0], images.shape[0]
    return jax.device_get(cached), {
        "seconds_a_conversation": context_seconds / rows,
        "seconds_a_sticker": (attribute_seconds + image_seconds) / stickers,
        "seconds_of_the_names": names_seconds,
        "bytes_a_conversation": context.nbytes / rows,
        "bytes_a_sticker": (attributes.nbytes + images.nbytes) / stickers,
    }


def _device_memory() -> Any:
    device = jax.devices()[0]
    if device.platform == "cpu":
        return None
    return lambda: int(device.memory_stats()["peak_bytes_in_use"])
