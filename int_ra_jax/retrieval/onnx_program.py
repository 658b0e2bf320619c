"""Writes a function of tokens as an ONNX program, for any number of rows of any length.

The function is traced, and each primitive of the trace becomes one operator or a few. What depends
on parameters alone is computed here, once.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.extend.core import Literal

from int_ra_jax.retrieval.onnx_graph import AXES, Graph, Tensor, described
from int_ra_jax.retrieval.onnx_operators import written

OPSET, IR = 18, 8  # what onnxruntime reads since 1.14, of 2023
_LARGEST = 2**31 - 2**22  # bytes of parameters; a file of protobuf's has at most 2 GiB
_INNER = ("jaxpr", "call_jaxpr", "fun_jaxpr")  # where a primitive holds the function that it calls


def program(
    function: Callable[..., dict[str, jax.Array]], inputs: Mapping[str, Any], longest: int
) -> Any:
    """Returns a function as an ``onnx.ModelProto``.

    Args:
      function: takes arrays [B, L] by the names of ``inputs``; returns arrays by name.
      inputs: name -> type that the function reads. The program takes int64 for each.
      longest: the largest L; B is at least 1.

    Raises:
      ValueError: if the function has a primitive that cannot be written, or too many parameters.
    """
    from onnx import TensorProto, helper

    limits = [f"{AXES[1]} <= {longest}"]
    shape = (*jax.export.symbolic_shape(", ".join(AXES), constraints=limits),)
    shapes = [jax.ShapeDtypeStruct(shape, kind) for kind in inputs.values()]

    def by_place(*arrays: jax.Array) -> dict[str, jax.Array]:
        return function(**dict(zip(inputs, arrays, strict=True)))

    traced, found = jax.make_jaxpr(by_place, return_shape=True)(*shapes)
    graph = Graph()
    graph.measure(next(iter(inputs)))
    given = [Tensor(graph.cast(name, kind), shape) for name, kind in inputs.items()]
    results = _body(graph, traced.jaxpr, traced.consts, given)
    outputs = sorted(found)  # as JAX takes a dictionary apart
    for name, result in zip(outputs, results, strict=True):
        graph.add("Identity", graph.full(result, found[name].shape), into=name)
    nodes, constants = graph.needed(outputs)
    large = sum(len(one.raw_data) for one in constants)
    if large > _LARGEST:
        raise ValueError(
            f"the encoder has {large / 2**30:.1f} GiB of parameters, and an ONNX file holds 2 GiB"
        )
    taken = [helper.make_tensor_value_info(one, TensorProto.INT64, AXES) for one in inputs]
    returned = [described(name, found[name]) for name in outputs]
    whole = helper.make_graph(nodes, "encoder", taken, returned, constants)
    opset = [helper.make_opsetid("", OPSET)]
    return helper.make_model(whole, opset_imports=opset, ir_version=IR, producer_name="int_ra_jax")


def _body(graph: Graph, jaxpr: Any, consts: Sequence[Any], given: Sequence[Any]) -> list[Any]:
    """Writes a trace, and returns its results: arrays where they are known, else tensors."""
    values = dict(zip(jaxpr.constvars, consts, strict=True))
    values |= zip(jaxpr.invars, given, strict=True)

    def value(atom: Any) -> Any:
        if isinstance(atom, Literal):
            kind: Any = atom.aval
            return np.asarray(atom.val, kind.dtype)
        return values[atom]

    for equation in _live(jaxpr):
        results = _equation(graph, equation, [value(one) for one in equation.invars])
        values |= zip(equation.outvars, results, strict=True)
    return [value(one) for one in jaxpr.outvars]


def _live(jaxpr: Any) -> list[Any]:
    """Returns the equations on which the results depend; others may have no operator."""
    wanted, live = {one for one in jaxpr.outvars if not isinstance(one, Literal)}, []
    for equation in reversed(jaxpr.eqns):
        if wanted.intersection(equation.outvars):
            live.append(equation)
            wanted.update(one for one in equation.invars if not isinstance(one, Literal))
    return live[::-1]


def _equation(graph: Graph, equation: Any, values: list[Any]) -> Sequence[Any]:
    kind, params = equation.primitive.name, equation.params
    inner = next((params[key] for key in _INNER if key in params), None)
    if inner is not None and kind != "scan":
        jaxpr, consts = getattr(inner, "jaxpr", inner), getattr(inner, "consts", ())
        return _body(graph, jaxpr, consts, values)
    sizes = [size for one in equation.outvars for size in one.aval.shape]
    known = not any(isinstance(one, Tensor) for one in values) and kind != "dim_as_value"
    if known and all(isinstance(size, int) for size in sizes):
        found = equation.primitive.bind(*values, **params)
        return found if equation.primitive.multiple_results else [found]
    return _scan(graph, equation, values) if kind == "scan" else written(graph, equation, values)


def _scan(graph: Graph, equation: Any, values: list[Any]) -> list[Tensor]:
    """Writes a loop over rows; its body reads the constants from around it."""
    from onnx import helper

    params, loop = equation.params, equation.params["jaxpr"]
    consts, carried = params["num_consts"], params["num_carry"]
    begins = [one.aval for one in loop.jaxpr.invars[consts:]]
    ends = [one.aval for one in loop.jaxpr.outvars]
    given = [
        graph.full(value, one.aval.shape)
        for value, one in zip(values[consts:], equation.invars[consts:], strict=True)
    ]
    around, graph.nodes = graph.nodes, []
    inside = [Tensor(graph.name(), one.shape) for one in begins]
    results = _body(graph, loop.jaxpr, loop.consts, [*values[:consts], *inside])
    names = [
        graph.add("Identity", graph.full(value, one.shape))
        for value, one in zip(results, ends, strict=True)
    ]
    body = helper.make_graph(
        graph.nodes,
        "step",
        [described(one.name, aval) for one, aval in zip(inside, begins, strict=True)],
        [described(*one) for one in zip(names, ends, strict=True)],
    )
    graph.nodes = around
    direction = int(params["reverse"])
    found = graph.several(
        "Scan",
        given,
        [graph.name() for _ in names],
        body=body,
        num_scan_inputs=len(given) - carried,
        scan_input_directions=[direction] * (len(given) - carried),
        scan_output_directions=[direction] * (len(names) - carried),
    )
    return [Tensor(name, one.aval.shape) for name, one in zip(found, equation.outvars, strict=True)]
