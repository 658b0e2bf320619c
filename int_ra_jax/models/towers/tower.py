"""What the text and the image tower share: reading a config.json, and running a stack of layers."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import Field, fields
from typing import Any, TypeVar

import jax
from flax import nnx

from int_ra_jax.models.layers import ACTIVATIONS

Shape = TypeVar("Shape", bound="TowerConfig")
# A config.json may claim any number, and a tower is built before it is filled.
_MOST = {"num_hidden_layers": 1_000, "image_size": 10_000, "patch_size": 10_000}
_MOST_OF_THE_REST = 10_000_000


class TowerConfig:
    """What every tower's shape has; the towers' own are frozen dataclasses with these fields.

    Attributes:
      hidden_size: width of the tower.
      num_hidden_layers: layers of the stack.
      num_attention_heads: heads, which must divide the width.
      hidden_act: name of the activation.
    """

    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    hidden_act: str

    @classmethod
    def from_hf(cls: type[Shape], config: Mapping[str, Any]) -> Shape:
        """Reads a Hugging Face config; keys that the shape does not have are passed over.

        Args:
          config: the content of config.json, or the section of it that describes the tower.

        Returns:
          The same shape.

        Raises:
          ValueError: names everything in the config that this tower does not do.
        """
        problems, values = cls.unsupported(config), {}
        for field in fields(cls):  # type: ignore[arg-type]
            value = config.get(field.name, field.default)
            if wanted := _misfit(field, value):
                problems.append(f"{field.name} {value!r} must be {wanted}")
            else:  # JSON writes a whole number where a float is meant
                values[field.name] = float(value) if field.type is float else value
        shape = cls(**values)
        if shape.hidden_act not in ACTIVATIONS:
            problems.append(f"hidden_act {shape.hidden_act!r}: known are {sorted(ACTIVATIONS)}")
        if shape.hidden_size % shape.num_attention_heads:
            problems.append(
                f"hidden_size {shape.hidden_size} is not divisible by num_attention_heads "
                f"{shape.num_attention_heads}"
            )
        if problems:
            raise ValueError(f"not a {cls.__name__} that is supported: " + "; ".join(problems))
        return shape

    @classmethod
    def unsupported(cls, config: Mapping[str, Any]) -> list[str]:
        """Returns what a config asks for that this kind of tower lacks, one phrase each."""
        raise NotImplementedError


def _misfit(field: Field, value: Any) -> str:
    """Returns what a field of a shape must be if the value is not that, else an empty string."""
    if field.type is int:
        most = _MOST.get(field.name, _MOST_OF_THE_REST)
        return "" if type(value) is int and 1 <= value <= most else f"a whole number, 1 to {most:,}"
    if field.type is float:  # rates and epsilons
        return "" if type(value) in (int, float) and 0 <= value < 1 else "a number in [0, 1)"
    return "" if isinstance(value, type(field.default)) else "a name"


class Tower(nnx.Module):
    """A stack of layers over embeddings; subclasses cut it in two by ``prefix`` and ``suffix``.

    Attributes:
      remat: whether the backward pass keeps of each layer only its input, and computes the rest
        again: about a third more arithmetic for a memory that hardly grows with the depth.
        Neither values nor gradients change. A CPU saves memory by it only where XLA schedules for
        memory (``xla_cpu_scheduler_type=CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED``).
    """

    remat: bool = False

    def run(
        self,
        layers: Sequence[nnx.Module],
        hidden: jax.Array,
        start: int,
        stop: int,
        arguments: Callable[[int], tuple[Any, ...]],
    ) -> jax.Array:
        """Returns the hidden state that leaves layer ``stop - 1``.

        Args:
          layers: the whole stack.
          hidden: the state that enters layer ``start``.
          start: first layer to run.
          stop: number of the layer to stop before.
          arguments: layer number -> what that layer is given besides the hidden state.

        Raises:
          ValueError: if there are no such layers.
        """
        if not 0 <= start <= stop <= len(layers):
            raise ValueError(f"no layers {start}..{stop} in a tower of {len(layers)} layers")
        for index in range(start, stop):
            call = _recomputed(layers[index]) if self.remat else layers[index]
            hidden = call(hidden, *arguments(index))
        return hidden


def _recomputed(layer: nnx.Module) -> Callable[..., jax.Array]:
    # Parameters go in as an argument. Closed over, they would be read from a trace that
    # jax.checkpoint keeps by the identity of the function.
    graphdef, params = nnx.split(layer)

    def call(params: Any, *arguments: Any) -> jax.Array:
        hidden: jax.Array = nnx.merge(graphdef, params)(*arguments)
        return hidden

    return lambda *arguments: jax.checkpoint(call)(params, *arguments)
