"""A config.json, or whatever lies in its place, becomes a shape or one error."""

import json
from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest
from fixtures.checkpoints import (
    failure,
    rewrite,
    tiny_bert,
    torch_tensors,
    write_bert,
    write_config,
)
from fixtures.toy_system import make_toy
from flax import nnx
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from int_ra_jax.common.params import flatten
from int_ra_jax.common.pixels import normalise
from int_ra_jax.models import interface
from int_ra_jax.models.towers.bert import BertConfig
from int_ra_jax.models.towers.clip_vision import ClipVisionConfig, ClipVisionModel
from int_ra_jax.models.towers.pretrained import load_image_tower, load_text_tower
from int_ra_jax.models.towers.shapes import load_tower_config, resize_positions


def config_of(kind):
    return lambda path: load_tower_config(path, kind)


def test_a_config_is_read_without_weights(tmp_path):
    text, vision = vars(BertConfig.tiny()), vars(ClipVisionConfig.tiny())
    config = {"model_type": "chinese_clip", "text_config": text, "vision_config": vision}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert load_tower_config(tmp_path, "text") == BertConfig.tiny()
    assert load_tower_config(tmp_path, "image") == ClipVisionConfig.tiny()


def test_a_position_table_keeps_cls_constants_and_its_own_size():
    rng = np.random.default_rng(0)
    table = rng.normal(size=(17, 3)).astype(np.float32)
    larger = resize_positions(table, 4, 6)
    assert larger.shape == (37, 3)
    np.testing.assert_array_equal(larger[0], table[0])
    np.testing.assert_allclose(resize_positions(table, 4, 4), table, atol=1e-6)
    flat = np.broadcast_to(table[:1], (17, 3))
    np.testing.assert_allclose(resize_positions(flat, 4, 7)[5], table[0], rtol=1e-5)


@pytest.mark.parity
@pytest.mark.parametrize("new", [3, 7, 8])
def test_position_tables_are_resized_as_torch_does_with_antialiasing(new):
    torch = pytest.importorskip("torch")
    table = np.random.default_rng(0).normal(size=(26, 3)).astype(np.float32)
    grid = torch.from_numpy(table[1:].reshape(1, 5, 5, 3)).permute(0, 3, 1, 2)
    wanted = torch.nn.functional.interpolate(
        grid, size=(new, new), mode="bicubic", align_corners=False, antialias=True
    )
    wanted = wanted.permute(0, 2, 3, 1).reshape(new * new, 3).numpy()
    np.testing.assert_allclose(resize_positions(table, 5, new)[1:], wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("content", ["{", "[1]"])
def test_a_broken_config_is_refused(content, tmp_path):
    write_bert(tmp_path)
    (tmp_path / "config.json").write_text(content)
    assert "config.json" in failure(tmp_path)
    assert "config.json" in failure(tmp_path, lambda path: load_tower_config(path, "text"))


hostile = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=4)
    | st.lists(st.integers(), max_size=3)
    | st.dictionaries(st.text(max_size=2), st.integers(), max_size=2)
)


@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    kind=st.sampled_from(["text", "image"]),
    changes=st.dictionaries(
        st.sampled_from(
            [
                *vars(BertConfig.tiny()),
                *vars(ClipVisionConfig.tiny()),
                "model_type",
                "text_config",
                "vision_config",
                "pad_token_id",
                "num_channels",
                "position_embedding_type",
                "is_decoder",
            ]
        ),
        hostile,
        max_size=4,
    ),
    model_type=st.sampled_from(["bert", "xlm-roberta", "clip", "clip_vision_model"]),
)
@example(kind="text", changes={"layer_norm_eps": 0}, model_type="bert")
def test_whatever_a_config_holds_it_is_a_shape_or_one_error(tmp_path, kind, changes, model_type):
    write_config(tmp_path, **{"model_type": model_type, **changes})
    try:
        config = load_tower_config(tmp_path, kind)
    except ValueError as error:
        assert str(error).startswith(f"cannot load weights from {tmp_path}")
        return
    assert 1 <= config.num_hidden_layers <= 1000 and config.hidden_size >= 1


def test_all_bad_values_are_listed(tmp_path):
    bad = {"hidden_size": "768", "num_hidden_layers": 10**9, "layer_norm_eps": -1, "hidden_act": 3}
    write_config(tmp_path, model_type="bert", is_decoder=True, num_attention_heads=0, **bad)
    text = failure(tmp_path, config_of("text"))
    for name in (*bad, "num_attention_heads", "is_decoder"):
        assert name in text


def test_patches_larger_than_the_image_are_refused(tmp_path):
    shape = vars(ClipVisionConfig.tiny()) | {"patch_size": 32}
    write_config(tmp_path, model_type="clip_vision_model", **shape)
    assert "patch_size 32 exceeds image_size 16" in failure(tmp_path, config_of("image"))


@pytest.mark.parametrize("section", [None, [], {}, "x"])
def test_a_joint_config_without_the_towers_part_is_refused(section, tmp_path):
    write_config(tmp_path, model_type="chinese_clip", vision_config=section)
    assert "vision_config describes no image tower" in failure(tmp_path, config_of("image"))


def test_a_tower_that_knows_one_segment_gets_a_second_of_the_same_embedding(tmp_path):
    write_bert(tmp_path, type_vocab_size=1)
    name = "embeddings.token_type_embeddings.weight"
    rewrite(tmp_path, lambda t: t | {name: t[name][:1]})
    tower = load_text_tower(tmp_path)
    assert tower.config.type_vocab_size == 2
    table = tower.embeddings.token_type_embeddings.embedding[...]
    np.testing.assert_array_equal(table[0], table[1])
    ids = jnp.arange(8)[None]
    outputs = [tower(ids, ids >= 0, ids * 0 + segment) for segment in (0, 1)]
    np.testing.assert_array_equal(*outputs)


def test_positions_of_a_roberta_begin_behind_its_padding(tmp_path):
    write_bert(tmp_path, model_type="xlm-roberta", pad_token_id=5)
    tower, stored = load_text_tower(tmp_path), flatten(nnx.state(tiny_bert()))
    table = stored["embeddings/position_embeddings/embedding"]
    np.testing.assert_array_equal(tower.embeddings.position_embeddings.embedding[...], table[6:])
    assert load_tower_config(tmp_path, "text") == tower.config
    for wrong in (-1, 63, "1", None, True):
        write_bert(tmp_path, model_type="xlm-roberta", pad_token_id=wrong)
        assert f"pad_token_id {wrong!r}" in failure(tmp_path)


def test_the_scaling_of_pixels_is_part_of_the_shape_and_survives_its_description(tmp_path):
    tower = ClipVisionModel(ClipVisionConfig.tiny(), rngs=nnx.Rngs(5))
    save_file(torch_tensors(tower), tmp_path / "model.safetensors")
    write_config(tmp_path, model_type="clip_vision_model", **vars(ClipVisionConfig.tiny()))
    own = {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6]}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(own))
    config = load_image_tower(tmp_path).config
    assert (config.image_mean, config.image_std) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    # As a working directory keeps it: all in config.json.
    (tmp_path / "preprocessor_config.json").unlink()
    write_config(tmp_path, model_type="clip_vision_model", **vars(config))
    assert load_tower_config(tmp_path, "image") == config


def test_a_system_scales_pixels_as_its_image_tower_wants_them():
    toy = make_toy()
    system = interface.merge(toy.graphdef, toy.params)
    mean, std = (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)
    system.image.config = replace(system.image.config, image_mean=mean, image_std=std)
    pixels = toy.resident.bank.pixels[:2]
    wanted = system.image.prefix(normalise(pixels, mean, std), 0)
    np.testing.assert_allclose(system._image_prefix(pixels), wanted, rtol=1e-5, atol=1e-6)
    assert not np.allclose(wanted, system.image.prefix(normalise(pixels), 0), atol=1e-3)
