"""What loads, and that what does not is refused with everything that is wrong with it."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fixtures import torch_checkpoints as hf
from fixtures.checkpoints import (
    failure,
    nested,
    rewrite,
    same,
    tiny_bert,
    torch_tensors,
    write_bert,
    write_config,
)
from fixtures.tiny_towers import TINY_BERT, TINY_CLIP
from flax import nnx, serialization
from safetensors.numpy import save_file

from int_ra_jax.common.params import flatten
from int_ra_jax.models.towers.bert import BertModel
from int_ra_jax.models.towers.clip_vision import ClipVisionModel
from int_ra_jax.models.towers.pretrained import load_image_tower, load_text_tower, load_weights


@pytest.fixture(scope="module")
def bert_checkpoint(tmp_path_factory):
    """A directory as transformers saves it, written without torch: config.json, safetensors."""
    return write_bert(tmp_path_factory.mktemp("bert"))


def our_output(tower, ids):
    ids = jnp.asarray(ids, jnp.int32)
    return tower(ids, jnp.ones(ids.shape, bool), jnp.zeros_like(ids))


IDS = np.random.default_rng(1).integers(0, 50, (2, 9))


# --- what loads -------------------------------------------------------------------------------


@pytest.mark.parity
def test_shards_with_an_index_equal_the_single_file(tmp_path):
    torch_model = hf.text_model()
    single = hf.saved(torch_model, tmp_path / "single")
    sharded = hf.saved(torch_model, tmp_path / "sharded", max_shard_size="20KB")
    assert len(list(sharded.glob("*.safetensors"))) > 1
    same(load_text_tower(sharded), load_text_tower(single))


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_half_precision_files_give_float32_parameters(dtype, tmp_path):
    write_bert(tmp_path)
    rewrite(tmp_path, lambda tensors: {k: v.astype(dtype) for k, v in tensors.items()})
    loaded, exact = flatten(nnx.state(load_text_tower(tmp_path))), flatten(nnx.state(tiny_bert()))
    for name, leaf in loaded.items():
        assert leaf.dtype == jnp.float32
        np.testing.assert_array_equal(leaf, exact[name].astype(dtype).astype(jnp.float32))


def test_the_compute_dtype_is_taken_and_parameters_stay_float32(bert_checkpoint):
    tower = load_text_tower(bert_checkpoint, dtype=jnp.bfloat16)
    assert our_output(tower, IDS).dtype == jnp.bfloat16
    same(tower, tiny_bert())


@pytest.mark.parametrize("prefix", ["", "bert.", "roberta.", "text_model.", "module.bert."])
def test_every_prefix_and_the_ignored_names_load(prefix, tmp_path):
    write_bert(tmp_path)
    extra = {
        f"{prefix}pooler.dense.weight": np.ones((2, 2), np.float32),
        f"{prefix}embeddings.position_ids": np.arange(4),
        "cls.predictions.bias": np.ones(2, np.float32),
    }
    rewrite(tmp_path, lambda tensors: {prefix + k: v for k, v in tensors.items()} | extra)
    same(load_text_tower(tmp_path), tiny_bert())


def test_gamma_and_beta_of_the_first_checkpoints_load(tmp_path):
    write_bert(tmp_path)
    old = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}

    def rename(name):
        for new, legacy in old.items():
            name = name.replace(new, legacy)
        return name

    rewrite(tmp_path, lambda tensors: {rename(k): v for k, v in tensors.items()})
    same(load_text_tower(tmp_path), tiny_bert())


@pytest.mark.parametrize("wrap", ["", "bert"])
def test_flax_msgpack_loads(wrap, tmp_path):
    write_bert(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    content = serialization.msgpack_serialize(nested(tiny_bert(), wrap))
    (tmp_path / "flax_model.msgpack").write_bytes(content)
    same(load_text_tower(tmp_path), tiny_bert())


def test_flax_msgpack_of_an_image_tower_loads(tmp_path):
    tower = ClipVisionModel(TINY_CLIP, rngs=nnx.Rngs(5))
    config = {"model_type": "clip", "vision_config": vars(TINY_CLIP)}
    (tmp_path / "config.json").write_text(json.dumps(config))
    content = serialization.msgpack_serialize(nested(tower, "vision_model") | {"logit_scale": 1.0})
    (tmp_path / "flax_model.msgpack").write_bytes(content.replace(b"\xa3cls", b"\xaatext_model"))
    same(load_image_tower(tmp_path), tower)


def test_load_weights_fills_a_concrete_or_an_abstract_state(bert_checkpoint):
    abstract = nnx.state(nnx.eval_shape(tiny_bert))
    concrete = nnx.state(BertModel(TINY_BERT, rngs=nnx.Rngs(1)))
    wanted = flatten(nnx.state(tiny_bert()))
    for target in (abstract, concrete):
        loaded = load_weights(target, bert_checkpoint)
        assert jax.tree.structure(loaded) == jax.tree.structure(target)
        for name, leaf in flatten(loaded).items():
            np.testing.assert_array_equal(leaf, wanted[name])


@pytest.mark.parity
def test_an_image_tower_loads_at_another_image_size(tmp_path):
    directory = hf.saved(hf.image_model(), tmp_path)
    tower = load_image_tower(directory, image_size=24)
    assert tower(jnp.zeros((1, 24, 24, 3))).shape == (1, 1 + 36, 24)
    stored = flatten(nnx.state(load_image_tower(directory)))
    for name, leaf in flatten(nnx.state(tower)).items():
        if "position" not in name:
            np.testing.assert_array_equal(leaf, stored[name])


# --- what is refused --------------------------------------------------------------------------


def test_missing_unexpected_and_misshapen_tensors_are_in_one_error(tmp_path):
    write_bert(tmp_path)

    def break_it(tensors):
        dense = tensors.pop("encoder.layer.1.output.dense.weight")
        tensors["encoder.layer.1.output.dens.weight"] = dense
        tensors["embeddings.word_embeddings.weight"] = np.ones((7, 32), np.float32)
        tensors["adapter.weight"] = np.ones(3, np.float32)
        return tensors

    rewrite(tmp_path, break_it)
    text = failure(tmp_path)
    assert "1 parameters are missing" in text
    assert "(nearest: encoder.layer.1.output.dens.weight)" in text
    assert "2 tensors" in text and "adapter.weight" in text
    assert "embeddings.word_embeddings.weight has shape (7, 32)" in text and "(128, 32)" in text
    assert str(tmp_path) in text


def test_a_transposed_kernel_of_the_right_size_is_refused(tmp_path):
    write_bert(tmp_path)
    name = "encoder.layer.0.intermediate.dense.weight"
    rewrite(tmp_path, lambda t: t | {name: np.ascontiguousarray(t[name].T)})
    assert name in failure(tmp_path)


def test_weights_of_more_layers_than_the_config_are_refused(tmp_path):
    write_bert(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text()) | {"num_hidden_layers": 1}
    (tmp_path / "config.json").write_text(json.dumps(config))
    refusal = failure(tmp_path)
    assert "16 tensors in model.safetensors belong to no parameter" in refusal
    assert "another kind of model than config.json says" in refusal


@pytest.mark.parametrize("file", ["model.safetensors", "flax_model.msgpack"])
def test_a_wrong_model_type_and_a_damaged_file_are_in_one_error(file, tmp_path):
    write_bert(tmp_path, model_type="electra")
    if file == "flax_model.msgpack":
        content = serialization.msgpack_serialize(nested(tiny_bert(), ""))
        (tmp_path / "model.safetensors").unlink()
    else:
        content = (tmp_path / file).read_bytes()
    (tmp_path / file).write_bytes(content[:-100])
    text = failure(tmp_path)
    assert "'electra'" in text and "chinese_clip" in text
    assert f"{file} is truncated" in text


def test_a_plain_clip_has_no_text_tower_of_bert_shape(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "clip"}')
    assert "has no text tower" in failure(tmp_path)


def test_a_directory_without_config_and_weights_says_both(tmp_path):
    (tmp_path / "pytorch_model.bin").touch()
    text = failure(tmp_path, load_image_tower)
    assert "config.json is missing" in text
    assert "no weights" in text and "save_pretrained" in text


def test_an_unsupported_config_is_refused_together_with_missing_weights(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "bert", "is_decoder": true}')
    text = failure(tmp_path)
    assert "is_decoder" in text and "no weights" in text


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_numbers_that_are_not_finite_are_refused(value, tmp_path):
    write_bert(tmp_path)
    names = ["encoder.layer.0.intermediate.dense.bias", "embeddings.LayerNorm.weight"]

    def spoil(tensors):
        for name in names:
            tensors[name][3] = value
        return tensors

    rewrite(tmp_path, spoil)
    text = failure(tmp_path)
    assert "2 tensors in model.safetensors" in text and "NaN or infinity" in text
    assert all(name in text for name in names)


def test_a_number_too_large_for_float32_is_refused(tmp_path):
    write_bert(tmp_path)
    name = "embeddings.LayerNorm.weight"
    rewrite(tmp_path, lambda t: t | {name: t[name].astype(np.float64) * 1e300})
    assert f"{name}: holds NaN or infinity" in failure(tmp_path)


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.bool_, np.complex64])
def test_weights_that_are_no_floats_are_refused_in_one_line(dtype, tmp_path):
    write_bert(tmp_path)
    rewrite(tmp_path, lambda t: {k: v.astype(dtype) for k, v in t.items()})
    text = failure(tmp_path)
    assert f"holds {np.dtype(dtype).name}" in text and "quantised" in text
    assert len(text.splitlines()) == 2


def test_two_names_for_one_parameter_are_refused(tmp_path):
    write_bert(tmp_path)
    name = "embeddings.LayerNorm"
    rewrite(tmp_path, lambda t: t | {f"{name}.gamma": t[f"{name}.weight"]})
    text = failure(tmp_path)
    assert f"{name}.gamma" in text and f"{name}.weight" in text and "merged" in text


def test_a_fused_projection_that_three_does_not_divide_is_refused(tmp_path):
    vision = hf.original_vision()
    tensors = {f"visual.{k}": v.numpy() for k, v in vision.state_dict().items()}
    name = "visual.transformer.resblocks.0.attn.in_proj_bias"
    for wrong in (np.ones(73, np.float32), np.float32(1)):
        save_file(tensors | {name: np.asarray(wrong)}, tmp_path / "model.safetensors")
        write_config(tmp_path, model_type="chinese_clip_vision_model", **hf.VISION)
        text = failure(tmp_path, load_image_tower)
        assert "self_attn.q_proj.bias has shape" in text


@pytest.mark.parametrize("wrapper", ["", "module.", "model.", "module._orig_mod."])
def test_an_image_tower_loads_from_a_file_that_holds_open_clips_text_tower_too(wrapper, tmp_path):
    vision = hf.original_vision()
    tensors = {f"visual.{k}": v.numpy() for k, v in vision.state_dict().items()}
    alone, whole = tmp_path / "alone", tmp_path / "whole"
    ones = np.ones((2, 2), np.float32)
    text = {
        "positional_embedding": ones,
        "text_projection": ones,
        "token_embedding.weight": ones,
        "ln_final.weight": ones[0],
        "logit_scale": np.ones((), np.float32),
        "transformer.resblocks.0.attn.in_proj_weight": np.ones((6, 2), np.float32),
        "transformer.resblocks.0.mlp.c_fc.bias": ones[0],
        # Of other authors, in no list of ours.
        "txt_encoder.blocks.0.weight": ones,
        "text_proj.0.bias": ones[0],
        "word_embeddings": ones,
        "step": np.zeros((), np.int64),
    }
    for directory, more in ((alone, {}), (whole, text)):
        directory.mkdir()
        held = {wrapper + name: value for name, value in (tensors | more).items()}
        save_file(held, directory / "model.safetensors")
        write_config(directory, model_type="chinese_clip_vision_model", **hf.VISION)
    same(load_image_tower(whole), load_image_tower(alone))
    for odd in ("visual.extra.weight", "base.visual.ln_pre.lora_A", "txt_encoder.lora_A.weight"):
        rewrite(whole, lambda held, odd=odd: held | {wrapper + odd: ones})
        assert odd in failure(whole, load_image_tower)
        rewrite(whole, lambda held, odd=odd: {k: v for k, v in held.items() if odd not in k})
    (whole / "config.json").rename(whole / "open_clip_config.json")
    refusal = failure(whole, load_image_tower)
    assert "open_clip_config.json" in refusal and "as transformers saves it" in refusal


def test_everything_wrong_with_config_preprocessing_and_weights_is_in_one_error(tmp_path):
    tower = ClipVisionModel(TINY_CLIP, rngs=nnx.Rngs(5))
    tensors = torch_tensors(tower)
    tensors.pop("post_layernorm.bias")
    save_file(tensors, tmp_path / "model.safetensors")
    write_config(tmp_path, model_type="clip_vision_model", **vars(TINY_CLIP))
    (tmp_path / "preprocessor_config.json").write_text('{"image_std": [1, 1], "resample": 2}')
    text = failure(tmp_path, load_image_tower)
    for reason in ("image_std [1, 1]", "resample 2", "post_layernorm.bias"):
        assert reason in text
