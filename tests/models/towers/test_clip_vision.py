import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fixtures import torch_checkpoints as hf
from fixtures.tiny_towers import TINY_CLIP
from flax import nnx

from int_ra_jax.common.params import flatten
from int_ra_jax.models.towers.clip_vision import ClipVisionConfig, ClipVisionModel
from int_ra_jax.models.towers.pretrained import load_image_tower

TINY = TINY_CLIP
TOWER = ClipVisionModel(TINY, rngs=nnx.Rngs(0))
GRAPH, STATE = nnx.split(TOWER)
encode = jax.jit(TOWER)


@pytest.fixture(autouse=True)
def exact_matmul():
    with jax.default_matmul_precision("highest"):
        yield


def pixels(size=16, number=3):
    return np.random.default_rng(0).normal(size=(number, size, size, 3)).astype(np.float32)


@pytest.mark.parity
@pytest.mark.parametrize("act", ["quick_gelu", "gelu"])
def test_every_layer_equals_torch(act, tmp_path):
    torch = pytest.importorskip("torch")
    torch_model = hf.image_model(hidden_act=act)
    tower = load_image_tower(hf.saved(torch_model, tmp_path))
    images = pixels()
    with torch.no_grad():
        out = torch_model(
            pixel_values=torch.from_numpy(images.transpose(0, 3, 1, 2).copy()),
            output_hidden_states=True,
        )
        post = getattr(torch_model, "vision_model", torch_model).post_layernorm
        last = post(out.last_hidden_state).numpy()
    states = [state.numpy() for state in out.hidden_states]
    hidden = tower.prefix(jnp.asarray(images), 0)
    np.testing.assert_allclose(hidden, states[0], rtol=1e-5, atol=1e-5)
    for index, layer in enumerate(tower.encoder.layers):
        # Each layer starts from torch's own input, so that errors do not add up.
        ours = jax.jit(layer)(jnp.asarray(states[index]))
        np.testing.assert_allclose(ours, states[index + 1], rtol=1e-5, atol=1e-5)
    whole = jax.jit(tower)(jnp.asarray(images))
    np.testing.assert_allclose(whole, last, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(whole[:, 0], out.pooler_output.numpy(), rtol=1e-4, atol=1e-5)


def test_tokens_are_cls_and_one_per_patch():
    assert encode(jnp.asarray(pixels())).shape == (3, 1 + 4, 32)
    assert TINY.num_tokens == 5


def test_patches_stand_row_by_row():
    """A change in the top right patch shows, before any attention, in token 2 alone."""
    images = jnp.asarray(pixels(number=1))
    changed = images.at[:, :8, 8:].add(1.0)
    moved = jnp.abs(TOWER.prefix(changed, 0) - TOWER.prefix(images, 0)).max(-1)[0]
    assert [index for index in range(5) if moved[index] > 0] == [2]


@pytest.mark.parametrize("cut", range(TINY.num_hidden_layers + 1))
def test_prefix_then_suffix_is_the_whole_tower_exactly(cut):
    images = jnp.asarray(pixels())
    np.testing.assert_array_equal(TOWER.suffix(TOWER.prefix(images, cut), cut), TOWER(images))


def test_an_image_alone_equals_the_image_in_a_batch():
    images = jnp.asarray(pixels())
    alone = jnp.concatenate([encode(images[i : i + 1]) for i in range(3)])
    np.testing.assert_allclose(alone, encode(images), rtol=1e-4, atol=1e-5)


def test_bfloat16_stays_close_to_float32():
    images = jnp.asarray(pixels())
    narrow = jax.jit(ClipVisionModel(TINY, dtype=jnp.bfloat16, rngs=nnx.Rngs(0)))(images)
    assert narrow.dtype == jnp.bfloat16
    np.testing.assert_allclose(narrow.astype(jnp.float32), encode(images), atol=0.1)


def test_every_parameter_gets_gradient_and_is_float32():
    images = jnp.asarray(pixels())

    def loss(state):
        tokens = nnx.merge(GRAPH, state)(images)
        return (tokens**2 * jnp.arange(tokens.size).reshape(tokens.shape)).mean()

    gradients = flatten(jax.jit(jax.grad(loss))(STATE))
    # A key bias adds the same number to all logits of a query, which softmax takes away again.
    still = [n for n, g in gradients.items() if float(jnp.abs(g).max()) < 1e-9]
    assert all(name.endswith("k_proj/bias") for name in still)
    assert {leaf.dtype for leaf in jax.tree.leaves(STATE)} == {jnp.dtype("float32")}


def test_parameters_have_the_names_of_flax_clip():
    names = set(flatten(STATE))
    assert {
        "embeddings/class_embedding",
        "embeddings/patch_embedding/kernel",
        "embeddings/position_embedding/embedding",
        "pre_layrnorm/scale",
        "encoder/layers/0/self_attn/q_proj/kernel",
        "encoder/layers/1/layer_norm2/bias",
        "encoder/layers/1/mlp/fc2/kernel",
        "post_layernorm/bias",
    } <= names
    assert len(names) == 3 + 2 + 16 * TINY.num_hidden_layers + 2


def test_images_of_another_size_and_layers_that_do_not_exist_are_refused():
    with pytest.raises(ValueError, match="24 pixels for a tower of 16"):
        TOWER(jnp.asarray(pixels(24)))
    with pytest.raises(ValueError, match="tower of 2 layers"):
        TOWER.prefix(jnp.asarray(pixels()), 3)


def test_a_config_of_another_kind_of_tower_is_refused_with_all_reasons():
    config = {"num_channels": 1, "hidden_act": "x", "hidden_size": 10, "num_attention_heads": 3}
    with pytest.raises(ValueError) as caught:
        ClipVisionConfig.from_hf(config)
    for reason in ("num_channels 1", "'x'", "not divisible"):
        assert reason in str(caught.value)


@pytest.mark.parity
def test_what_a_config_leaves_out_is_what_transformers_leaves_out():
    transformers = pytest.importorskip("transformers")
    full = transformers.CLIPVisionConfig().to_dict()
    assert ClipVisionConfig.from_hf({}) == ClipVisionConfig.from_hf(full)
