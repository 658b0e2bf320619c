"""Where arrays live: the mesh, and one table of parameter path -> axes.

The models know no mesh. ``jax.jit`` is given these shardings for its inputs and outputs and the
compiler inserts the communication. ``data`` splits the batch; ``fsdp`` splits the batch and the
parameters with their optimiser moments; ``tensor`` splits the wide layers of the towers.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import jax
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from int_ra_jax.common import hosts
from int_ra_jax.common.params import label_by_pattern

AXES = ("data", "fsdp", "tensor")

# Layers come in pairs: the first splits what it computes over ``tensor``, the second what it reads,
# so that one reduction per pair is enough. Optimiser moments end in the path of their parameter.
_RULES: tuple[tuple[str, P], ...] = (
    # BERT-shaped text tower; kernels are [in, out].
    (r"(?:.*/)?embeddings/word_embeddings/embedding", P("tensor", "fsdp")),
    (r"(?:.*/)?layer/\d+/attention/self/(?:query|key|value)/kernel", P("fsdp", "tensor")),
    (r"(?:.*/)?layer/\d+/attention/output/dense/kernel", P("tensor", "fsdp")),
    (r"(?:.*/)?layer/\d+/intermediate/dense/kernel", P("fsdp", "tensor")),
    (r"(?:.*/)?layer/\d+/output/dense/kernel", P("tensor", "fsdp")),
    # CLIP-shaped image tower; the patch embedding is a convolution [height, width, in, out].
    (r"(?:.*/)?embeddings/patch_embedding/kernel", P(None, None, None, "fsdp")),
    (r"(?:.*/)?layers/\d+/self_attn/(?:q|k|v)_proj/kernel", P("fsdp", "tensor")),
    (r"(?:.*/)?layers/\d+/self_attn/out_proj/kernel", P("tensor", "fsdp")),
    (r"(?:.*/)?layers/\d+/mlp/fc1/kernel", P("fsdp", "tensor")),
    (r"(?:.*/)?layers/\d+/mlp/fc2/kernel", P("tensor", "fsdp")),
    # The linear layers that the systems put above the towers.
    (r"(?!(?:.*/)?(?:text|image)/).*kernel", P("fsdp")),
    # Whole on every device, because splitting them would save nothing: vectors, small tables,
    # low-rank updates, the temperature, and what a state holds besides parameters and moments.
    (r"(?:.*/)?(?:bias|scale|lora_[ab]|logit_scale|class_embedding)", P()),
    (r"(?:.*/)?(?:position_embeddings?|token_type_embeddings)/embedding", P()),
    (r"(?:.*/)?count|step|key|bad_step|bank_embedding", P()),
)


def make_mesh(shape: Mapping[str, int]) -> Mesh:
    """Returns the mesh of a run.

    Uses as many devices as the shape says, the first ones if there are more.

    Args:
      shape: sizes of ``data``, ``fsdp`` and ``tensor``, >= 1; data = -1 takes all the devices that
        the other two leave.

    Raises:
      ValueError: if an axis is missing or unknown, or the devices do not fit.
    """
    if set(shape) != set(AXES):
        raise ValueError(
            f"config.mesh has the axes {', '.join(sorted(shape))}; it needs {', '.join(AXES)}."
        )
    sizes = {axis: shape[axis] for axis in AXES}
    wrong = [f"{axis}={size}" for axis, size in sizes.items() if size < 1]
    if wrong not in ([], ["data=-1"]):
        raise ValueError(f"config.mesh has {', '.join(wrong)}; use 1 or more, or data=-1 for all.")
    devices = jax.devices()
    model = sizes["fsdp"] * sizes["tensor"]
    if sizes["data"] == -1:
        if len(devices) % model:
            raise ValueError(
                f"{len(devices)} devices cannot be divided by fsdp x tensor = {model} "
                f"(config.mesh.fsdp={sizes['fsdp']}, config.mesh.tensor={sizes['tensor']}). "
                f"Use sizes whose product divides {len(devices)}, or set config.mesh.data."
            )
        sizes["data"] = len(devices) // model
    count = sizes["data"] * model
    if count > len(devices):
        raise ValueError(
            f"config.mesh asks for {count} devices ({_written(sizes)}), but there are "
            f"{len(devices)}. Use smaller sizes, or --config.mesh.data=-1 for all the rest."
        )
    if jax.process_count() > 1 and count < len(devices):
        raise ValueError(
            f"config.mesh uses {count} of {len(devices)} devices ({_written(sizes)}), but with "
            "several hosts all have to take part. Use --config.mesh.data=-1."
        )
    # Explicit axes, the default, fail at the first embedding look-up of a model without a mesh.
    return jax.make_mesh(
        tuple(sizes.values()), AXES, axis_types=(AxisType.Auto,) * 3, devices=devices[:count]
    )


def state_shardings(
    abstract_state: Any, mesh: Mesh, system_rules: Sequence[tuple[str, P]] = ()
) -> Any:
    """Returns one sharding per leaf of a training state or of parameters.

    Every leaf has to be named by the table or by the system's own rules, so that a large one is
    never replicated unseen. Optimiser moments follow their parameter, whose path their own
    path ends in. A dimension that the mesh axis does not divide is replicated.

    Args:
      abstract_state: pytree of arrays or jax.ShapeDtypeStruct.
      mesh: as ``make_mesh`` returns it.
      system_rules: ``System.sharding_rules``, which come before the table.

    Raises:
      ValueError: with every leaf that no rule names.
    """
    own = [(rf"(?:.*/)?(?:{pattern})", spec) for pattern, spec in system_rules]
    specs = label_by_pattern(abstract_state, (*own, *_RULES), allow_unused=True)
    return jax.tree.map(
        lambda leaf, spec: NamedSharding(mesh, _fitting(spec, leaf.shape, mesh)),
        abstract_state,
        specs,
    )


def gather_for_use(shardings: Any, mesh: Mesh) -> Callable[[Any], Any]:
    """Returns a function that makes parameters whole over ``fsdp`` where they are used.

    Left to itself the compiler follows the parameters' split: it gathers the whole batch on every
    device and splits the layers' widths, which sends activations where parameters would do, 27
    times the bytes on 8 devices (docs/scaling.md). Gradients are summed back into the shards.

    Args:
      shardings: of the parameters, as ``state_shardings`` returns them.
      mesh: of the shardings.
    """
    whole = jax.tree.map(
        lambda place: NamedSharding(
            mesh, P(*[None if axis == "fsdp" else axis for axis in place.spec])
        ),
        shardings,
    )

    @jax.custom_vjp
    def gather(params: Any) -> Any:
        return jax.lax.with_sharding_constraint(params, whole)

    def forward(params: Any) -> tuple[Any, None]:
        return gather(params), None

    def backward(_: None, gradients: Any) -> tuple[Any]:
        return (jax.lax.with_sharding_constraint(gradients, shardings),)

    gather.defvjp(forward, backward)
    return gather


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of a batch: its leading axis over data and fsdp."""
    return NamedSharding(mesh, P(("data", "fsdp")))


@cache
def placement(mesh: Mesh) -> hosts.Placement:
    """Returns where batches lie on a mesh, and which of their rows this process reads.

    Raises:
      ValueError: if the mesh splits the rows half-way through a process.
    """
    return hosts.placement(batch_sharding(mesh), replicated(mesh))


def for_evaluation(params: Any) -> tuple[Any, hosts.Placement | None]:
    """Returns where parameters are read to and batches are put when nothing is trained.

    One process needs one device, whatever mesh the run was trained on. Several put the parameters
    on each of their devices and share the rows.

    Args:
      params: abstract parameters.

    Returns:
      The parameters with shardings and the placement; for one process nothing, twice.
    """
    if jax.process_count() == 1:
        return None, None
    where = placement(make_mesh({"data": -1, "fsdp": 1, "tensor": 1}))
    target = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where.whole), params
    )
    return target, where


def replicated(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of what every device holds in full."""
    return NamedSharding(mesh, P())


def check_batch_size(batch_size: int, mesh: Mesh, key: str = "config.train.batch_size") -> None:
    """Raises if a batch cannot be split evenly, with the nearest sizes that can.

    Args:
      batch_size: conversations over all devices.
      mesh: as ``make_mesh`` returns it.
      key: name of the config value, for the message.

    Raises:
      ValueError: if data x fsdp does not divide the batch size.
    """
    parts = mesh.shape["data"] * mesh.shape["fsdp"]
    if batch_size % parts:
        below, above = batch_size // parts * parts, -(-batch_size // parts) * parts
        sizes = f"{below} or {above}" if below else f"{above}"
        raise ValueError(
            f"batch size {batch_size} is not divisible by {parts} devices ({key}={batch_size}, "
            f"mesh data={mesh.shape['data']}, fsdp={mesh.shape['fsdp']}).\n"
            f"Use {sizes}, or fewer devices with --config.mesh.data=1."
        )


def create_sharded(init_fn: Callable[..., Any], shardings: Any, *args: Any) -> Any:
    """Returns ``init_fn(*args)``, every array created where it belongs, never whole on one device.

    Args:
      init_fn: pure function.
      shardings: pytree of shardings with the structure of its result.
      *args: its arguments, such as a key: what is not baked into the program needs no new one.
    """
    return jax.jit(init_fn, out_shardings=shardings)(*args)


def _fitting(spec: P, shape: tuple[int, ...], mesh: Mesh) -> P:
    if len(spec) > len(shape):
        return P()
    axes = [
        axis if axis is not None and size % mesh.shape[axis] == 0 else None
        for axis, size in zip(spec, shape, strict=False)
    ]
    return P(*axes)


def _written(sizes: Mapping[str, int]) -> str:
    return " x ".join(f"{axis}={size}" for axis, size in sizes.items())
