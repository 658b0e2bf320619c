import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from fixtures.tiny_towers import TINY_BERT, TINY_CLIP
from fixtures.toy_system import make_toy
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

from configs import int_ra
from int_ra_jax.common.params import flatten, path_string, replace_leaves
from int_ra_jax.models import interface, registry
from int_ra_jax.models.towers.bert import BertModel
from int_ra_jax.models.towers.clip_vision import ClipVisionModel
from int_ra_jax.models.towers.lora import add_lora, merge_lora

TEXT, IMAGE = TINY_BERT, TINY_CLIP
ALPHA = 6.0
INPUTS = {
    "text": (jnp.arange(20).reshape(2, 10), jnp.ones((2, 10), bool), jnp.zeros((2, 10), int)),
    "image": (jax.random.normal(jax.random.key(0), (2, 16, 16, 3)),),
}
BUILD = {
    "text": lambda: BertModel(TEXT, rngs=nnx.Rngs(0)),
    "image": lambda: ClipVisionModel(IMAGE, rngs=nnx.Rngs(0)),
}


def lora_tower(kind, rank=3):
    tower = BUILD[kind]()
    add_lora(tower, rank, ALPHA, nnx.Rngs(1))
    return tower


def moved(params, seed=2):
    """Parameters with every lora_b drawn at random, as if it had been trained."""
    rng = np.random.default_rng(seed)

    def draw(path, leaf):
        trained = path[-1].key == "lora_b"
        return jnp.asarray(0.1 * rng.normal(size=leaf.shape), jnp.float32) if trained else leaf

    return jax.tree_util.tree_map_with_path(draw, params)


def run(graphdef, params, inputs):
    return jax.jit(lambda params: interface.merge(graphdef, params)(*inputs))(params)


@pytest.mark.parametrize("kind", ["text", "image"])
def test_a_tower_with_lora_starts_as_the_plain_one_exactly(kind):
    plain, ours = BUILD[kind](), lora_tower(kind)
    np.testing.assert_array_equal(ours(*INPUTS[kind]), plain(*INPUTS[kind]))
    names, more = (set(flatten(interface.split(tower)[1])) for tower in (plain, ours))
    assert names < more
    kernels = {name for name in names if re.search(r"layers?/\d+/.*kernel$", name)}
    assert len(kernels) == 6 * 2  # query, key, value, out and two of the MLP, in each layer
    assert more - names == {
        name.replace("kernel", matrix) for name in kernels for matrix in ("lora_a", "lora_b")
    }


@pytest.mark.parametrize("kind", ["text", "image"])
def test_a_merged_tower_is_a_plain_one_that_computes_the_same(kind):
    graphdef, params = interface.split(lora_tower(kind))
    plain_graphdef, plain = interface.split(BUILD[kind]())
    trained = moved(params)
    merged = merge_lora(trained, ALPHA)
    assert jax.tree.structure(merged) == jax.tree.structure(plain)
    with jax.default_matmul_precision("highest"):
        wanted = run(graphdef, trained, INPUTS[kind])
        ours = run(plain_graphdef, merged, INPUTS[kind])
        untrained = run(plain_graphdef, plain, INPUTS[kind])
    np.testing.assert_allclose(ours, wanted, rtol=1e-4, atol=1e-5)
    assert jnp.abs(wanted - untrained).max() > 1e-2


@given(rank=st.integers(1, 8), alpha=st.floats(0.5, 64), seed=st.integers(0, 99))
@settings(max_examples=20, deadline=None)
def test_the_merged_kernel_is_the_kernel_plus_the_scaled_product(rank, alpha, seed):
    rng = np.random.default_rng(seed)
    kernel, a, b = (rng.normal(size=s).astype("f") for s in ((5, 4), (5, rank), (rank, 4)))
    merged = merge_lora({"x": {"kernel": kernel, "lora_a": a, "lora_b": b}, "y": 1}, alpha)
    assert merged.keys() == {"x", "y"} and merged["x"].keys() == {"kernel"}
    wanted = kernel + alpha / rank * (a.astype("d") @ b.astype("d"))
    np.testing.assert_allclose(merged["x"]["kernel"], wanted, rtol=1e-4, atol=1e-4)


def test_plain_weights_fill_a_lora_tower_and_leave_its_own_parameters():
    params = moved(interface.split(lora_tower("text"))[1])
    other = flatten(interface.split(BertModel(TEXT, rngs=nnx.Rngs(9)))[1])
    filled = flatten(replace_leaves(params, other))
    assert filled.keys() == flatten(params).keys()
    for name, leaf in filled.items():
        np.testing.assert_array_equal(leaf, (flatten(params) | other)[name])


def trainable(toy):
    frozen = [re.compile(pattern) for pattern in toy.system.frozen_patterns()]
    return {
        name
        for name in flatten(toy.params)
        if not any(pattern.fullmatch(name) for pattern in frozen)
    }


@pytest.mark.parametrize("towers", [("text",), ("image",), ("text", "image")])
def test_of_a_tower_with_lora_only_its_matrices_are_left_to_train(towers):
    toy = make_toy(**{f"model__{tower}__lora_rank": 2 for tower in towers})
    names = set(flatten(toy.params))
    matrices = {name for name in names if name.endswith(("lora_a", "lora_b"))}
    others = {name for name in names if not name.startswith(tuple(f"{t}/" for t in towers))}
    assert len(matrices) == 12 * len(towers) and not matrices & others
    assert trainable(toy) == matrices | others
    roles = toy.system.param_groups().values()
    assert all(any(re.fullmatch(pattern, name) for pattern in roles) for name in names)


def test_a_tower_with_lora_is_one_that_trains():
    """So its columns of the gallery go stale, and nothing of it is cached."""
    toy = make_toy(model__text__lora_rank=2, model__image__frozen_layers=-1)
    assert not toy.system.negatives.live
    assert toy.system.hidden_text(toy.batch.context) is None
    assert toy.system.hidden_image(toy.resident.bank.pixels) is not None
    with pytest.raises(ValueError, match="while a tower trains"):
        make_toy(model__text__lora_rank=2, model__image__frozen_layers=-1, loss__negatives="bank")


def test_lora_changes_no_other_initial_parameter():
    config = int_ra.get_config("smoke")
    facts = interface.Facts(TEXT, IMAGE, 3, 12, (1, 1, 1), interface.SpecialIds(0, 1, 2, 3))
    plain = flatten(registry.initialise(config, facts, jax.random.key(config.seed)))
    config.update_from_flattened_dict({"model.text.lora_rank": 2, "model.image.lora_rank": 4})
    ours = flatten(registry.initialise(config, facts, jax.random.key(config.seed)))
    for name, leaf in plain.items():
        np.testing.assert_array_equal(ours[name], leaf, err_msg=name)
    assert ours["text/encoder/layer/0/output/dense/lora_a"].shape == (64, 2)
    assert ours["image/encoder/layers/1/mlp/fc1/lora_b"].shape == (4, 64)


def test_the_matrices_get_gradient_and_alone_lower_the_loss():
    toy = make_toy(model__text__lora_rank=4, model__image__lora_rank=4)
    live = {name for name in trainable(toy) if "lora" in name}
    labels = jax.tree_util.tree_map_with_path(
        lambda path, _: "live" if path_string(path) in live else "frozen", toy.params
    )
    optimizer = optax.partition({"live": optax.adam(1e-2), "frozen": optax.set_to_zero()}, labels)
    state, losses = optimizer.init(toy.params), []
    for step in range(20):
        loss, gradients = toy.loss_and_gradients()
        losses.append(float(loss))
        norms = {name: float(jnp.abs(leaf).max()) for name, leaf in flatten(gradients).items()}
        # While B is zero, A gets none.
        assert all(norms[name] > 0 for name in live if step or name.endswith("lora_b"))
        assert all(norms[name.rpartition("/")[0] + "/kernel"] == 0 for name in live)
        updates, state = optimizer.update(gradients, state, toy.params)
        toy.params = optax.apply_updates(toy.params, updates)
    assert losses[-1] < 0.8 * losses[0], losses


@pytest.mark.parametrize("kind", ["text", "image"])
def test_the_gradient_of_a_frozen_kernel_is_not_computed(kind):
    def flops(tower):
        graphdef, params = nnx.split(tower)
        gradient = jax.grad(lambda p: nnx.merge(graphdef, p)(*INPUTS[kind]).sum())
        return jax.jit(gradient).lower(params).cost_analysis()["flops"]

    full, low_rank = flops(BUILD[kind]()), flops(lora_tower(kind, rank=1))
    assert low_rank < 0.8 * full, (low_rank, full)
