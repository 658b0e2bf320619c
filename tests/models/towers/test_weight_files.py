"""Weight files are hostile until they are read: whatever is wrong, it is one error that says so."""

import json
import struct

import jax.numpy as jnp
import numpy as np
import pytest
from fixtures.checkpoints import (
    failure,
    nested,
    rewrite,
    same,
    tiny_bert,
    torch_tensors,
    write_bert,
)
from flax import nnx, serialization
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from int_ra_jax.common.params import flatten
from int_ra_jax.models.towers.pretrained import load_text_tower, load_weights

many = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture(scope="module")
def wanted():
    return flatten(nnx.state(tiny_bert()))


@pytest.fixture(scope="module")
def abstract():
    return nnx.state(nnx.eval_shape(tiny_bert))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The bytes of a good safetensors file and of a good msgpack file."""
    directory = write_bert(tmp_path_factory.mktemp("whole"))
    content = serialization.msgpack_serialize(nested(tiny_bert(), ""))
    return (directory / "model.safetensors").read_bytes(), content


def load_bytes(directory, name, content, abstract):
    """Loads a file of that content; None where it is refused as it should be."""
    (directory / name).write_bytes(content)
    try:
        return flatten(load_weights(abstract, directory))
    except ValueError as error:
        assert str(error).startswith(f"cannot load weights from {directory}")
        return None


@many
@given(share=st.floats(0, 1, exclude_max=True))
def test_a_truncated_safetensors_file_is_refused_wherever_it_ends(tmp_path, whole, abstract, share):
    content = whole[0][: int(share * len(whole[0]))]
    assert load_bytes(tmp_path, "model.safetensors", content, abstract) is None


@many
@given(
    place=st.floats(0, 1, exclude_max=True), flipped=st.integers(1, 255), count=st.integers(1, 3)
)
def test_a_flipped_header_gives_the_same_numbers_or_that_error(
    tmp_path, whole, abstract, wanted, place, flipped, count
):
    content = bytearray(whole[0])
    header = 8 + struct.unpack("<Q", content[:8])[0]
    for step in range(count):
        content[(int(place * header) + step) % header] ^= flipped
    loaded = load_bytes(tmp_path, "model.safetensors", bytes(content), abstract)
    if loaded is not None:  # a byte of the padding, or of what nobody reads
        for name, array in wanted.items():
            np.testing.assert_array_equal(loaded[name], array)


@many
@given(share=st.floats(0, 1), place=st.floats(0, 1, exclude_max=True), flipped=st.integers(0, 255))
def test_a_damaged_msgpack_file_gives_finite_numbers_or_that_error(
    tmp_path, whole, abstract, share, place, flipped
):
    content = bytearray(whole[1][: 1 + int(share * len(whole[1]))])
    content[int(place * len(content))] ^= flipped
    loaded = load_bytes(tmp_path, "flax_model.msgpack", bytes(content), abstract)
    assert loaded is None or all(jnp.isfinite(array).all() for array in loaded.values())


@many
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-9, 2**40) | st.text(max_size=3) | st.floats(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
        max_leaves=8,
    )
)
def test_msgpack_of_anything_but_arrays_is_refused(tmp_path, abstract, tree):
    content = serialization.msgpack_serialize({"embeddings": tree})
    assert load_bytes(tmp_path, "flax_model.msgpack", content, abstract) is None


def test_leaves_that_are_no_arrays_are_refused_under_their_own_name(tmp_path, abstract):
    tree = nested(tiny_bert(), "")
    tree["embeddings"]["LayerNorm"] = {"scale": "text", "bias": [1.0, [2.0]]}
    (tmp_path / "flax_model.msgpack").write_bytes(serialization.msgpack_serialize(tree))
    text = failure(tmp_path, lambda path: load_weights(abstract, path))
    assert "embeddings.LayerNorm.scale" in text and "embeddings.LayerNorm.bias" in text


@pytest.mark.parametrize("file", ["model.safetensors", "flax_model.msgpack"])
def test_an_empty_file_is_named_as_such(file, tmp_path):
    write_bert(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / file).touch()
    assert f"{file} is empty" in failure(tmp_path)


@pytest.mark.parametrize("file", ["model.safetensors", "flax_model.msgpack"])
def test_a_git_lfs_pointer_is_named_as_such(file, tmp_path):
    write_bert(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / file).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    assert "git lfs pull" in failure(tmp_path)


def test_a_data_type_that_numpy_lacks_is_refused(tmp_path, abstract):
    header = json.dumps({"x": {"dtype": "F8_E4M3", "shape": [2], "data_offsets": [0, 2]}}).encode()
    content = struct.pack("<Q", len(header)) + header + bytes(2)
    (tmp_path / "model.safetensors").write_bytes(content)
    target = {"x": jnp.ones(2)}
    text = failure(tmp_path, lambda path: load_weights(target, path))
    assert "x (" in text and "quantised" in text


# --- shards -----------------------------------------------------------------------------------


def write_shards(directory, dtype=np.float32):
    """The tiny BERT in three shards with an index; returns the content of the index."""
    write_bert(directory)
    tensors = torch_tensors(tiny_bert())
    (directory / "model.safetensors").unlink()
    index = {"metadata": {"total_size": 0}, "weight_map": {}}
    for number in range(3):
        shard = f"model-{number + 1:05}-of-00003.safetensors"
        part = {k: tensors[k].astype(dtype) for k in sorted(tensors)[number::3]}
        save_file(part, directory / shard)
        index["weight_map"] |= dict.fromkeys(part, shard)
    write_index(directory, index)
    return index


def write_index(directory, content):
    (directory / "model.safetensors.index.json").write_text(json.dumps(content))


@pytest.mark.parametrize("dtype", [np.float32, jnp.bfloat16, np.float16])
def test_shards_in_any_precision_equal_the_single_file(dtype, tmp_path):
    write_shards(tmp_path / "shards", dtype)
    write_bert(tmp_path / "single")
    rewrite(tmp_path / "single", lambda t: {k: v.astype(dtype) for k, v in t.items()})
    same(load_text_tower(tmp_path / "shards"), load_text_tower(tmp_path / "single"))


@pytest.mark.parametrize("place", ["../secret.safetensors", "/etc/passwd", "a/b.safetensors", ".."])
def test_an_index_that_points_outside_its_directory_is_not_followed(place, tmp_path):
    directory = tmp_path / "model"
    index = write_shards(directory)
    save_file({"x": np.ones(1, np.float32)}, tmp_path / "secret.safetensors")
    name = next(iter(index["weight_map"]))
    index["weight_map"][name] = place
    write_index(directory, index)
    text = failure(directory)
    assert repr(place) in text or f"shard {place}" in text
    assert "parameters are missing" not in text  # nothing was read


def test_all_missing_and_damaged_shards_are_named_together(tmp_path):
    index = write_shards(tmp_path)
    first, second, third = sorted(set(index["weight_map"].values()))
    (tmp_path / first).unlink()
    (tmp_path / second).write_bytes((tmp_path / second).read_bytes()[:-1])
    (tmp_path / third).write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    text = failure(tmp_path)
    assert f"shard {first}" in text and f"{second} is truncated" in text
    assert f"{third} is a git-LFS pointer" in text


def test_an_index_and_shards_that_disagree_are_refused(tmp_path):
    index = write_shards(tmp_path)
    shard = min(index["weight_map"].values())
    write_index(tmp_path, {"weight_map": index["weight_map"] | {"ghost.weight": shard}})
    assert "ghost.weight" in failure(tmp_path)
    write_index(tmp_path, {"weight_map": dict.fromkeys(index["weight_map"], shard)})
    assert "but in no shard" in failure(tmp_path)
    write_index(tmp_path, index)
    tensors = torch_tensors(tiny_bert())
    save_file(tensors, tmp_path / shard)
    assert "repeats tensors" in failure(tmp_path)


@pytest.mark.parametrize("content", [{}, {"weight_map": {}}, {"weight_map": ["x"]}, [], None])
def test_an_index_without_a_map_is_refused(content, tmp_path):
    write_shards(tmp_path)
    write_index(tmp_path, content)
    assert "model.safetensors.index.json" in failure(tmp_path)


def test_shards_that_are_not_names_are_refused(tmp_path):
    write_shards(tmp_path)
    write_index(tmp_path, {"weight_map": {"a": 1, "b": None, "c": ["x"], "d": ""}})
    assert "shard None" in failure(tmp_path)
