"""Which ONNX operators do what a primitive of JAX's does."""

import string
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from int_ra_jax.retrieval.onnx_graph import Graph, Tensor

_ELEMENTWISE = {
    **{"add": "Add", "sub": "Sub", "mul": "Mul", "div": "Div", "max": "Max", "min": "Min"},
    **{"eq": "Equal", "lt": "Less", "le": "LessOrEqual", "gt": "Greater", "ge": "GreaterOrEqual"},
    **{"neg": "Neg", "exp": "Exp", "log": "Log", "tanh": "Tanh", "logistic": "Sigmoid"},
    **{"sqrt": "Sqrt", "erf": "Erf", "abs": "Abs"},
    **dict.fromkeys(("stop_gradient", "copy", "copy_p"), "Identity"),
}
_OF_TRUTH = {"and": "And", "or": "Or", "not": "Not"}  # of other numbers they are bit by bit
_COMPOSED: dict[str, Callable[..., str]] = {
    "square": lambda graph, x: graph.add("Mul", x, x),
    "rsqrt": lambda graph, x: graph.add("Reciprocal", graph.add("Sqrt", x)),
    "erfc": lambda graph, x: graph.add("Sub", graph.constant(np.float32(1)), graph.add("Erf", x)),
    "ne": lambda graph, x, y: graph.add("Not", graph.add("Equal", x, y)),
    "select_n": lambda graph, which, no, yes: graph.add("Where", which, yes, no),
}


def written(graph: Graph, equation: Any, values: Sequence[Any]) -> list[Tensor]:
    """Writes one equation of a trace, and returns its results.

    Args:
      graph: into which it is written.
      equation: with a primitive that calls no function of its own.
      values: of its inputs, arrays where they are known and tensors elsewhere.

    Raises:
      ValueError: if there is no operator for it.
    """
    kind, shapes = equation.primitive.name, [one.aval.shape for one in equation.outvars]
    operator = _ELEMENTWISE.get(kind)
    if kind in _OF_TRUTH and equation.outvars[0].aval.dtype == bool:
        operator = _OF_TRUTH[kind]
    if operator or kind in _COMPOSED:
        tensors = [graph.tensor(one) for one in values]
        names = [one.name for one in tensors]
        name = graph.add(operator, *names) if operator else _COMPOSED[kind](graph, *names)
        return [Tensor(name, _together([one.shape for one in tensors], shapes[0]))]
    if kind in _SHAPED:
        return [_SHAPED[kind](graph, equation, *map(graph.tensor, values))]
    if kind not in _WHOLE:
        raise ValueError(f"{kind}, a primitive of JAX's, has no operator of ONNX's here")
    names = [
        graph.full(value, one.aval.shape)
        for value, one in zip(values, equation.invars, strict=True)
    ]
    results = _WHOLE[kind](graph, equation, *names)
    found = [results] if isinstance(results, str) else results
    return [Tensor(*one) for one in zip(found, shapes, strict=True)]


def _together(shapes: Sequence[tuple[Any, ...]], full: tuple[Any, ...]) -> tuple[Any, ...]:
    """Returns the shape to which tensors broadcast; ``full`` is JAX's, which has all lengths."""
    ranked = [one for one in shapes if len(one) == len(full)]
    return tuple(
        1 if all(_is_one(one[axis]) for one in ranked) else size for axis, size in enumerate(full)
    )


def _is_one(size: Any) -> bool:
    return isinstance(size, int) and size == 1


# ---- what broadcasting may be left out of -------------------------------------------------------


def _cast(graph: Graph, equation: Any, x: Tensor) -> Tensor:
    return Tensor(graph.cast(x.name, equation.params["new_dtype"]), x.shape)


def _transposed(graph: Graph, equation: Any, x: Tensor) -> Tensor:
    order = equation.params["permutation"]
    name = graph.add("Transpose", x.name, perm=[*order])
    return Tensor(name, tuple(x.shape[axis] for axis in order))


def _broadcast(graph: Graph, equation: Any, x: Tensor) -> Tensor:
    shape: list[Any] = [1] * len(equation.params["shape"])
    for axis, size in zip(equation.params["broadcast_dimensions"], x.shape, strict=True):
        shape[axis] = size
    aligned = (*shape,)
    name = x.name if aligned == x.shape else graph.reshaped(x.name, aligned)
    return Tensor(name, aligned)


def _iota(graph: Graph, equation: Any) -> Tensor:
    params = equation.params
    axis, shape = params["dimension"], params["shape"]
    ends = graph.constant(np.int64(0)), graph.constant(np.int64(1))
    places = graph.add("Range", ends[0], graph.size(shape[axis]), ends[1])
    line = tuple(size if place == axis else 1 for place, size in enumerate(shape))
    name = graph.cast(places, params["dtype"])
    return Tensor(name if len(line) == 1 else graph.reshaped(name, line), line)


def _size(graph: Graph, equation: Any) -> Tensor:
    aval = equation.outvars[0].aval
    return Tensor(graph.cast(graph.size(equation.params["dim"]), aval.dtype), ())


_SHAPED: dict[str, Callable[..., Tensor]] = {
    "convert_element_type": _cast,
    "transpose": _transposed,
    "broadcast_in_dim": _broadcast,
    "iota": _iota,
    "dim_as_value": _size,
}


# ---- what reads whole tensors -------------------------------------------------------------------


def _reshape(graph: Graph, equation: Any, x: str) -> str:
    return graph.reshaped(x, equation.outvars[0].aval.shape)


def _reduction(operator: str) -> Callable[..., str]:
    def reduced(graph: Graph, equation: Any, x: str) -> str:
        return graph.add(operator, x, graph.numbers(*equation.params["axes"]), keepdims=0)

    return reduced


def _argmax(graph: Graph, equation: Any, x: str) -> str:
    (axis,) = equation.params["axes"]
    return graph.cast(graph.add("ArgMax", x, axis=axis, keepdims=0), equation.params["index_dtype"])


def _concatenate(graph: Graph, equation: Any, *parts: str) -> str:
    return graph.add("Concat", *parts, axis=equation.params["dimension"])


def _stack(graph: Graph, equation: Any, *parts: str) -> str:
    axis = equation.params["axis"]
    rows = [graph.add("Unsqueeze", one, graph.numbers(axis)) for one in parts]
    return graph.add("Concat", *rows, axis=axis)


def _split(graph: Graph, equation: Any, x: str) -> list[str]:
    sizes = graph.numbers(*map(int, equation.params["sizes"]))
    names = [graph.name() for _ in equation.outvars]
    return graph.several("Split", [x, sizes], names, axis=equation.params["axis"])


def _gather(graph: Graph, equation: Any, x: str, places: str) -> str:
    """Takes what stands at some places of one axis, in one of the three ways that systems use."""
    source, index = (one.aval.shape for one in equation.invars)
    numbers, sizes = equation.params["dimension_numbers"], equation.params["slice_sizes"]
    rank, axis = len(index) - 1, numbers.start_index_map[0]
    cut = {one for one, size in enumerate(source) if sizes[one] != size}
    batched = (numbers.operand_batching_dims, numbers.start_indices_batching_dims)
    how = (numbers.offset_dims, numbers.collapsed_slice_dims, numbers.start_index_map, *batched)
    behind = range(axis + rank, rank + len(source) - 1)
    if how == ((*range(axis), *behind), (axis,), (axis,), (), ()) and cut <= {axis}:
        return graph.add("Gather", x, graph.reshaped(places, index[:-1]), axis=axis)
    if how == ((*range(rank, rank + len(source) - 2),), (1,), (1,), (0,), (0,)) and cut <= {0, 1}:
        return graph.add("GatherND", x, graph.cast(places, np.int64), batch_dims=1)
    if not rank and how == ((*range(len(source)),), (), (axis,), (), ()) and cut <= {axis}:
        # Neighbouring channels: JAX takes them so where the batch is open.
        start = graph.cast(places, np.int64)
        end = graph.add("Add", start, graph.numbers(sizes[axis]))
        return graph.add("Slice", x, start, end, graph.numbers(axis))
    raise ValueError(f"gather, with {numbers}, has no operator of ONNX's here")


def _dot(graph: Graph, equation: Any, x: str, y: str) -> str:
    """A matrix product where it is one, since its right side is laid out once; else Einsum."""
    (x_summed, y_summed), (x_batch, y_batch) = equation.params["dimension_numbers"]
    x_rank, y_rank = (len(one.aval.shape) for one in equation.invars)
    x_free = [one for one in range(x_rank) if one not in (*x_summed, *x_batch)]
    y_free = [one for one in range(y_rank) if one not in (*y_summed, *y_batch)]
    if len(x_summed) == len(y_free) == 1 and (len(x_free) == 1 or not x_batch):
        return graph.add(
            "MatMul",
            _ordered(graph, x, [*x_batch, *x_free, *x_summed]),
            _ordered(graph, y, [*y_batch, *y_summed, *y_free]),
        )
    letters = iter(string.ascii_lowercase)
    x_axes, y_axes = [next(letters) for _ in range(x_rank)], [next(letters) for _ in range(y_rank)]
    for left, right in zip((*x_summed, *x_batch), (*y_summed, *y_batch), strict=True):
        y_axes[right] = x_axes[left]
    result = [x_axes[one] for one in (*x_batch, *x_free)] + [y_axes[one] for one in y_free]
    sides = ",".join("".join(one) for one in (x_axes, y_axes))
    return graph.add("Einsum", x, y, equation=f"{sides}->{''.join(result)}")


def _ordered(graph: Graph, x: str, order: list[int]) -> str:
    return x if order == sorted(order) else graph.add("Transpose", x, perm=order)


_WHOLE: dict[str, Callable[..., str | list[str]]] = {
    **dict.fromkeys(("reshape", "squeeze", "expand_dims"), _reshape),
    **{"reduce_sum": _reduction("ReduceSum"), "reduce_max": _reduction("ReduceMax")},
    **{"argmax": _argmax, "concatenate": _concatenate, "stack": _stack, "split": _split},
    **{"gather": _gather, "dot_general": _dot},
}
