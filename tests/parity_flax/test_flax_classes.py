"""Towers read from flax_model.msgpack, against Hugging Face's own Flax classes, stage by stage.

Those classes ended with transformers 4, so this runs in an environment of its own:
``make parity-flax``.
"""

import jax
import numpy as np
import pytest
from fixtures.parity import check_image, check_text, sentence_batch

from int_ra_jax.models.towers.pretrained import load_image_tower, load_text_tower

transformers = pytest.importorskip("transformers")
if not transformers.__version__.startswith("4."):
    pytest.skip(
        f"transformers {transformers.__version__} has no Flax classes; run `make parity-flax`",
        allow_module_level=True,
    )

pytestmark = pytest.mark.parity
BERT = {
    "vocab_size": 50,
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 40,
    "max_position_embeddings": 20,
}
VISION = {
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": 16,
    "patch_size": 4,
}


@pytest.fixture(autouse=True)
def exact_matmul():
    with jax.default_matmul_precision("highest"):
        yield


def randomised(model):
    """Moves every parameter away from 0 and 1, so that each of them shows in the output."""
    leaves, tree = jax.tree.flatten(model.params)
    keys = jax.random.split(jax.random.key(7), len(leaves))
    moved = [
        leaf + 0.2 * jax.random.normal(key, leaf.shape)
        for leaf, key in zip(leaves, keys, strict=True)
    ]
    model.params = jax.tree.unflatten(tree, moved)
    return model


def saved(model, directory):
    model.save_pretrained(directory)
    assert (directory / "flax_model.msgpack").is_file()
    assert not list(directory.glob("*.safetensors"))
    return directory


@pytest.mark.parametrize(
    ("name", "act"),
    [
        ("FlaxBertModel", "gelu"),
        ("FlaxBertForMaskedLM", "gelu_new"),
        ("FlaxBertForSequenceClassification", "gelu"),
    ],
)
def test_text_towers_equal_flax_bert(name, act, tmp_path):
    config = transformers.BertConfig(**BERT, hidden_act=act)
    model = randomised(getattr(transformers, name)(config))
    ids, mask, types = sentence_batch(BERT["vocab_size"])
    out = model(ids, mask.astype(int), token_type_ids=types, output_hidden_states=True)
    states = [np.asarray(state) for state in out.hidden_states]
    check_text(load_text_tower(saved(model, tmp_path)), states, ids, mask, types)


def test_xlm_roberta_equals_flax_xlm_roberta(tmp_path):
    config = transformers.XLMRobertaConfig(**BERT, type_vocab_size=1, layer_norm_eps=1e-5)
    model = randomised(transformers.FlaxXLMRobertaModel(config))
    ids, mask, types = sentence_batch(BERT["vocab_size"])
    out = model(ids, mask.astype(int), output_hidden_states=True)
    states = [np.asarray(state) for state in out.hidden_states]
    check_text(load_text_tower(saved(model, tmp_path)), states, ids, mask, types)


@pytest.mark.parametrize(
    ("name", "act"), [("FlaxCLIPVisionModel", "quick_gelu"), ("FlaxCLIPModel", "gelu")]
)
def test_image_towers_equal_flax_clip(name, act, tmp_path):
    joint, vision = name == "FlaxCLIPModel", VISION | {"hidden_act": act}
    text = BERT | {"bos_token_id": 1, "eos_token_id": 2}
    config = (
        transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=12)
        if joint
        else transformers.CLIPVisionConfig(**vision)
    )
    model = randomised(getattr(transformers, name)(config))
    pixels = np.random.default_rng(0).normal(size=(2, 16, 16, 3)).astype(np.float32)
    inputs = {"pixel_values": pixels.transpose(0, 3, 1, 2), "output_hidden_states": True}
    if joint:
        out = model(np.array([[1, 5, 2]] * 2), **inputs).vision_model_output
    else:
        out = model(**inputs)
    states = [np.asarray(state) for state in out.hidden_states]
    last = layer_norm(states[-1], **model.params["vision_model"]["post_layernorm"])
    # They apply the last LayerNorm to the first token alone.
    np.testing.assert_allclose(last[:, 0], out.pooler_output, rtol=1e-4, atol=1e-5)
    check_image(load_image_tower(saved(model, tmp_path)), states, last, pixels)


def layer_norm(x, scale, bias):
    centred = x - x.mean(-1, keepdims=True)
    deviation = np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
    return centred / deviation * np.asarray(scale) + np.asarray(bias)
