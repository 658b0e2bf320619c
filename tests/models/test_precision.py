"""What a bfloat16 system computes in bfloat16, read from its jaxpr, and what it does not."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fixtures.toy_system import GALLERY, make_toy
from jax.extend.core import jaxprs_in_params

from int_ra_jax.common.params import flatten
from int_ra_jax.models import interface, layers
from int_ra_jax.models.two_towers import dot_products
from int_ra_jax.training.step import compute_loss

# Sums, and what norms, softmax, pooling, cosines and losses are made of.
FLOAT32_ONLY = {
    "reduce_sum", "reduce_max", "reduce_min", "argmax", "cumsum", "scatter-add", "scatter_add",
    "exp", "exp2", "log", "log1p", "rsqrt", "sqrt", "integer_pow", "tanh",
}  # fmt: skip
READINGS = [
    {"loss__retrieval": "hinge", "model__text_pool": "mean"},
    {"loss__retrieval": "infonce", "model__attribute_tokens": "all"},
    {"loss__retrieval": "multi_positive", "model__relation_pool": "logsumexp"},
    {"model__relation": "region", "model__remat": True, "model__text__lora_rank": 2},
]


def equations(jaxpr):
    """Yields every equation of a jaxpr and of the jaxprs inside it."""
    for equation in jaxpr.eqns:
        yield equation
        for inner in jaxprs_in_params(equation.params):
            yield from equations(inner)


def traced(toy):
    """The equations of the loss and its gradient."""
    width = toy.config.model.joint_width

    def loss(params):
        system = interface.merge(toy.graphdef, params)
        stale = jnp.zeros((GALLERY, width))
        return compute_loss(system, toy.batch, toy.resident, stale, jax.random.key(0))[0]

    return list(equations(jax.make_jaxpr(jax.value_and_grad(loss))(toy.params).jaxpr))


def dtypes(variables):
    return [str(v.aval.dtype) for v in variables if hasattr(v.aval, "dtype")]


@pytest.mark.parametrize("reading", READINGS)
def test_bfloat16_reaches_no_norm_softmax_loss_or_sum_and_every_large_product(reading, monkeypatch):
    # The derivative of the exact gelu holds an exp of its own.
    monkeypatch.setitem(layers.ACTIVATIONS, "gelu", jax.nn.relu)
    narrow = traced(make_toy(model__dtype="bfloat16", model__dropout=0.1, **reading))
    wrong = [
        f"{equation.primitive.name}: {equation.source_info.name_stack}"
        for equation in narrow
        if equation.primitive.name in FLOAT32_ONLY and "bfloat16" in dtypes(equation.invars)
    ]
    assert wrong == []
    products = [equation for equation in narrow if equation.primitive.name == "dot_general"]
    # Batched ones are the towers' and the attention's; the others are products of pooled vectors.
    slow = [
        str(equation)
        for equation in products
        if all(v.aval.ndim == 4 for v in equation.invars) and "float32" in dtypes(equation.invars)
    ]
    assert slow == []
    assert any("bfloat16" in dtypes(equation.invars) for equation in products)
    wide = traced(make_toy(model__dropout=0.1, **reading))
    assert not any("bfloat16" in dtypes(equation.outvars) for equation in wide)


def test_parameters_and_gradients_are_float32_and_scores_stay_close():
    wide, narrow = (make_toy(model__dtype=name) for name in ("float32", "bfloat16"))
    gradients, wanted = narrow.gradients(), wide.gradients()
    for tree in (narrow.params, gradients):
        assert {leaf.dtype for leaf in flatten(tree).values()} == {jnp.dtype("float32")}
    assert narrow.scores().dtype == jnp.float32
    # Cosines. bfloat16 has 8 bits, so each rounding is up to 0.004 of a value.
    np.testing.assert_allclose(narrow.scores(), wide.scores(), atol=0.02)

    def vector(tree):
        return np.concatenate([np.ravel(leaf) for leaf in tree.values()])

    ours, theirs = vector(gradients), vector(wanted)
    cosine = ours @ theirs / (np.linalg.norm(ours) * np.linalg.norm(theirs))
    assert cosine > 0.99, cosine


def test_the_cosine_is_never_rounded_to_an_accelerator_s_default():
    """On the CPU the default is exact, so that only the program can tell."""
    rows = jnp.ones((2, 3))
    [product] = [
        equation
        for equation in equations(jax.make_jaxpr(dot_products)(rows, rows).jaxpr)
        if equation.primitive.name == "dot_general"
    ]
    assert set(product.params["precision"]) == {jax.lax.Precision.HIGHEST}
