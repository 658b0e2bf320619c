"""An ONNX graph that is being written: operators in order, known arrays, and shapes."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

AXES = "batch", "length"  # of the inputs; their lengths stay open


class Tensor(NamedTuple):
    """A value that the program computes; what is known before is an array.

    Attributes:
      name: of the tensor.
      shape: as the program has it: 1 where JAX has broadcast the value and the program need not.
    """

    name: str
    shape: tuple[Any, ...]


class Graph:
    """Operators of one program.

    Attributes:
      nodes: the operators, in order.
    """

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self._constants: dict[tuple[Any, ...], Any] = {}
        self._sizes: dict[str, str] = {}  # axis -> its length, int64[1]
        self._number = 0

    def add(self, operator: str, *inputs: str, into: str = "", **attributes: Any) -> str:
        """Adds an operator of one output, and returns its name."""
        (name,) = self.several(operator, inputs, [into or self.name()], **attributes)
        return name

    def several(
        self, operator: str, inputs: Sequence[str], outputs: list[str], **attributes: Any
    ) -> list[str]:
        """Adds an operator, and returns the names of its outputs."""
        from onnx import helper

        self.nodes.append(helper.make_node(operator, [*inputs], outputs, **attributes))
        return outputs

    def name(self) -> str:
        """Returns a name that is new."""
        self._number += 1
        return f"t{self._number}"

    def measure(self, tensor: str) -> None:
        """Takes the open lengths from a tensor that has both axes."""
        size = self.add("Shape", tensor)
        for place, axis in enumerate(AXES):
            self._sizes[axis] = self.add("Gather", size, self.numbers(place), axis=0)

    def size(self, axis: Any) -> str:
        """Returns the name of an axis's length, a scalar of int64."""
        return self.add("Squeeze", self._sizes[str(axis)])

    def constant(self, value: Any) -> str:
        """Returns the name of a known array; the same one for the same array."""
        from onnx import numpy_helper

        array = np.asarray(value)
        key = (array.dtype, array.shape, array.tobytes())
        if key not in self._constants:
            self._constants[key] = numpy_helper.from_array(array, f"c{len(self._constants)}")
        name: str = self._constants[key].name
        return name

    def numbers(self, *values: int) -> str:
        """Returns the name of known axes, lengths or places."""
        return self.constant(np.array(values, np.int64))

    def tensor(self, value: Any) -> Tensor:
        """Returns a value as a tensor, known or not."""
        if isinstance(value, Tensor):
            return value
        return Tensor(self.constant(value), np.shape(value))

    def full(self, value: Any, shape: tuple[Any, ...]) -> str:
        """Returns the name of a value whose tensor has JAX's shape."""
        tensor = self.tensor(value)
        if tensor.shape == shape:
            return tensor.name
        return self.add("Expand", tensor.name, self.shape(shape))

    def reshaped(self, name: str, shape: tuple[Any, ...]) -> str:
        """Reshapes a tensor."""
        return self.add("Reshape", name, self.shape(shape))

    def shape(self, shape: tuple[Any, ...]) -> str:
        """Returns the name of a shape; a length that is a product of open ones is left to -1."""
        fixed = [size if isinstance(size, int) else -1 for size in shape]
        if fixed.count(-1) < 2 and not any(str(size) in self._sizes for size in shape):
            return self.numbers(*fixed)
        parts = [
            self._sizes.get(str(size)) or self.numbers(one)
            for size, one in zip(shape, fixed, strict=True)
        ]
        return self.add("Concat", *parts, axis=0)

    def cast(self, name: str, kind: Any) -> str:
        """Casts a tensor to a type of NumPy's."""
        from onnx import helper

        return self.add("Cast", name, to=helper.np_dtype_to_tensor_dtype(np.dtype(kind)))

    def needed(self, outputs: Iterable[str]) -> tuple[list[Any], list[Any]]:
        """Returns the operators and the known arrays on which outputs depend."""
        wanted, nodes = {*outputs}, []
        for node in reversed(self.nodes):
            if wanted.intersection(node.output):
                nodes.append(node)
                wanted.update(_read(node))
        return nodes[::-1], [one for one in self._constants.values() if one.name in wanted]


def described(name: str, array: Any) -> Any:
    """Returns what a graph says of an input or an output with the shape and type of JAX's."""
    from onnx import helper

    axes = [one if isinstance(one, int) else str(one) for one in array.shape]
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(array.dtype))
    return helper.make_tensor_value_info(name, kind, axes)


def _read(node: Any) -> Iterator[str]:
    """Yields what an operator reads, a loop's body included."""
    yield from node.input
    for attribute in node.attribute:
        for inner in attribute.g.node:
            yield from _read(inner)
