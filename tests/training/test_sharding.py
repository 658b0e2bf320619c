"""The mesh changes where arrays are, and nothing else."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec as P

from int_ra_jax.common.params import flatten
from int_ra_jax.training.sharding import (
    batch_sharding,
    check_batch_size,
    create_sharded,
    make_mesh,
    replicated,
    state_shardings,
)

WIDTH, VOCABULARY = 8, 12


def init_params():
    """One layer of the text tower in small with the towers' path names, and a head."""
    rng = np.random.default_rng(0)

    def dense(inputs, outputs):
        kernel = jnp.asarray(rng.normal(size=(inputs, outputs)) / inputs**0.5, jnp.float32)
        return {"kernel": kernel, "bias": jnp.zeros(outputs)}

    def layer():
        return {
            "attention": {
                "self": {"query": dense(WIDTH, WIDTH)},
                "output": {"dense": dense(WIDTH, WIDTH)},
            },
            "intermediate": {"dense": dense(WIDTH, 4 * WIDTH)},
            "output": {"dense": dense(4 * WIDTH, WIDTH)},
        }

    table = jnp.asarray(rng.normal(size=(VOCABULARY, WIDTH)), jnp.float32)
    return {
        "text": {
            "embeddings": {"word_embeddings": {"embedding": table}},
            "encoder": {"layer": {"0": layer()}},
        },
        "query_projection": dense(WIDTH, 6),
        "logit_scale": jnp.float32(1.0),
    }


OPTIMIZER = optax.adamw(1e-2)


def init_state():
    params = init_params()
    return {"params": params, "opt_state": OPTIMIZER.init(params), "step": jnp.int32(0)}


def apply_dense(dense, x):
    return x @ dense["kernel"] + dense["bias"]


def loss_fn(params, ids):
    x = params["text"]["embeddings"]["word_embeddings"]["embedding"][ids]
    for layer in params["text"]["encoder"]["layer"].values():
        attended = apply_dense(layer["attention"]["self"]["query"], x)
        x = x + apply_dense(layer["attention"]["output"]["dense"], attended)
        hidden = jax.nn.gelu(apply_dense(layer["intermediate"]["dense"], x))
        x = x + apply_dense(layer["output"]["dense"], hidden)
    logits = apply_dense(params["query_projection"], x.mean(1)) * params["logit_scale"]
    return -jax.nn.log_softmax(logits)[:, 0].mean()


def train_step(state, ids):
    gradients = jax.grad(loss_fn)(state["params"], ids)
    updates, opt_state = OPTIMIZER.update(gradients, state["opt_state"], state["params"])
    params = optax.apply_updates(state["params"], updates)
    return {"params": params, "opt_state": opt_state, "step": state["step"] + 1}


def train(shape, steps=3):
    mesh = make_mesh(shape)
    shardings = state_shardings(jax.eval_shape(init_state), mesh)
    state = create_sharded(init_state, shardings)
    step = jax.jit(
        train_step,
        in_shardings=(shardings, batch_sharding(mesh)),
        out_shardings=shardings,
        donate_argnums=0,
    )
    rng = np.random.default_rng(0)
    for _ in range(steps):
        ids = rng.integers(VOCABULARY, size=(8, 5))
        state = step(state, jax.device_put(ids, batch_sharding(mesh)))
    return state


def test_training_on_a_mesh_equals_training_on_one_device():
    alone = flatten(train({"data": 1, "fsdp": 1, "tensor": 1}))
    for shape in ({"data": -1, "fsdp": 1, "tensor": 1}, {"data": 2, "fsdp": 2, "tensor": 2}):
        spread = flatten(train(shape))
        for path, value in alone.items():
            np.testing.assert_allclose(spread[path], value, rtol=1e-5, atol=1e-6, err_msg=path)


def test_one_device_is_used_unless_the_mesh_says_more():
    assert len(jax.devices()) == 8
    assert make_mesh({"data": 1, "fsdp": 1, "tensor": 1}).devices.size == 1
    assert dict(make_mesh({"data": -1, "fsdp": 2, "tensor": 2}).shape) == {
        "data": 2,
        "fsdp": 2,
        "tensor": 2,
    }


def test_kernels_are_split_as_the_table_says_and_their_moments_alike():
    mesh = make_mesh({"data": 1, "fsdp": 2, "tensor": 4})
    state = jax.eval_shape(init_state)
    specs = {
        path: sharding.spec for path, sharding in flatten(state_shardings(state, mesh)).items()
    }
    layer = "params/text/encoder/layer/0"
    assert specs[f"{layer}/attention/self/query/kernel"] == P("fsdp", "tensor")
    assert specs[f"{layer}/attention/output/dense/kernel"] == P("tensor", "fsdp")
    assert specs[f"{layer}/intermediate/dense/kernel"] == P("fsdp", "tensor")
    assert specs[f"{layer}/output/dense/kernel"] == P("tensor", "fsdp")
    assert specs[f"{layer}/output/dense/bias"] == P()
    assert specs["params/query_projection/kernel"] == P("fsdp")
    assert specs["params/logit_scale"] == specs["step"] == P()
    moments = 0
    for path, spec in specs.items():
        if "/mu/" in path or "/nu/" in path:
            moments += 1
            assert spec == specs["params/" + path.replace("/nu/", "/mu/").split("/mu/")[1]], path
    assert moments == 2 * len(flatten(state["params"]))


def test_the_image_tower_and_the_word_table_are_covered():
    mesh = make_mesh({"data": 1, "fsdp": 2, "tensor": 2})
    expected = {
        "text/embeddings/word_embeddings/embedding": ((119_546, 768), P("tensor", "fsdp")),
        "image/embeddings/patch_embedding/kernel": ((32, 32, 3, 768), P(None, None, None, "fsdp")),
        "image/encoder/layers/11/self_attn/q_proj/kernel": ((768, 768), P("fsdp", "tensor")),
        "image/encoder/layers/11/self_attn/out_proj/kernel": ((768, 768), P("tensor", "fsdp")),
        "image/encoder/layers/11/mlp/fc1/kernel": ((768, 3072), P("fsdp", "tensor")),
        "image/encoder/layers/11/mlp/fc2/kernel": ((3072, 768), P("tensor", "fsdp")),
        "image/encoder/layers/11/layer_norm1/scale": ((768,), P()),
    }
    leaves = {
        path: jax.ShapeDtypeStruct(shape, jnp.float32) for path, (shape, _) in expected.items()
    }
    shardings = state_shardings(leaves, mesh)
    assert {path: sharding.spec for path, sharding in shardings.items()} == {
        path: spec for path, (_, spec) in expected.items()
    }


def test_a_dimension_that_does_not_divide_is_replicated():
    mesh = make_mesh({"data": 1, "fsdp": 2, "tensor": 4})
    path = "text/embeddings/word_embeddings/embedding"
    leaf = jax.ShapeDtypeStruct((119_547, 768), jnp.float32)
    sharding = state_shardings({path: leaf}, mesh)[path]
    assert sharding.shard_shape(leaf.shape) == (119_547, 384)


def test_the_state_is_created_in_parts():
    mesh = make_mesh({"data": 2, "fsdp": 2, "tensor": 2})
    state = create_sharded(init_state, state_shardings(jax.eval_shape(init_state), mesh))
    kernel = state["params"]["text"]["encoder"]["layer"]["0"]["intermediate"]["dense"]["kernel"]
    assert {shard.data.shape for shard in kernel.addressable_shards} == {(WIDTH // 2, 2 * WIDTH)}
    plain = jax.device_put(np.asarray(init_params()["logit_scale"]), replicated(mesh))
    assert plain.is_fully_replicated and len(plain.sharding.device_set) == 8


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ({"data": 16, "fsdp": 1, "tensor": 1}, "asks for 16 devices .*there are 8.*data=-1"),
        ({"data": -1, "fsdp": 3, "tensor": 1}, "8 devices cannot be divided by fsdp x tensor = 3"),
        ({"data": 2, "fsdp": 0, "tensor": -1}, "has fsdp=0, tensor=-1; use 1 or more"),
        ({"data": 2, "model": 1}, "has the axes data, model; it needs data, fsdp, tensor"),
    ],
)
def test_a_mesh_that_does_not_fit_says_what_would(shape, message):
    with pytest.raises(ValueError, match=message):
        make_mesh(shape)


def test_a_batch_that_cannot_be_split_names_the_sizes_that_can():
    mesh = make_mesh({"data": 4, "fsdp": 2, "tensor": 1})
    check_batch_size(96, mesh)
    with pytest.raises(ValueError, match=r"batch size 100 is not divisible by 8 devices"):
        check_batch_size(100, mesh)
    with pytest.raises(ValueError, match="Use 96 or 104"):
        check_batch_size(100, mesh)
    with pytest.raises(ValueError, match=r"config.eval.batch_size=4(.|\n)*Use 8,"):
        check_batch_size(4, mesh, "config.eval.batch_size")
