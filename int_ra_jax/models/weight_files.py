"""Weight files of Hugging Face model directories, read without torch.

A directory holds ``model.safetensors``, or shards of it with an index, or ``flax_model.msgpack``.
Whatever is wrong with the files is added to a list, so that it can be reported together with what
is wrong with the names and shapes inside them.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from flax import serialization
from safetensors import SafetensorError, safe_open

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
MSGPACK = "flax_model.msgpack"
_LFS_POINTER = b"version https://git-lfs"


@dataclass(frozen=True)
class WeightSource:
    """The tensors of one checkpoint, read one at a time.

    Attributes:
      tensors: dotted source name -> function that reads the array.
      torch_layout: True if names and axes are PyTorch's (safetensors), False if they are Flax's.
      file: name of the file, for messages.
    """

    tensors: Mapping[str, Callable[[], np.ndarray]]
    torch_layout: bool
    file: str


def open_weights(directory: Path, problems: list[str]) -> WeightSource | None:
    """Returns the weights of a model directory: one safetensors file, its shards, or msgpack.

    Args:
      directory: a local model directory.
      problems: receives one line for everything that is wrong with the files.

    Returns:
      The tensors, or None if there is nothing to read; then ``problems`` says why.
    """
    if (directory / SINGLE).is_file():
        return WeightSource(_open_safetensors(directory / SINGLE, problems), True, SINGLE)
    if (directory / INDEX).is_file():
        return WeightSource(_open_shards(directory, problems), True, INDEX)
    if (directory / MSGPACK).is_file():
        return WeightSource(_open_msgpack(directory / MSGPACK, problems), False, MSGPACK)
    problem = f"no weights: neither {SINGLE}, {INDEX} nor {MSGPACK} is in {directory}"
    if any(directory.glob("*.bin")):
        problem += (
            "; convert its PyTorch .bin file where torch is installed: "
            "transformers.AutoModel.from_pretrained(directory).save_pretrained(new_directory)"
        )
    problems.append(problem)
    return None


def read_json(file: Path, problems: list[str]) -> dict[str, Any]:
    """Returns the object in a JSON file; empty, with a problem noted, if there is none."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        problems.append(f"{file.name} is missing in {file.parent}")
        return {}
    except ValueError as error:  # broken JSON or broken UTF-8
        problems.append(f"{file.name} is not JSON ({error}); fetch it again")
        return {}
    if not isinstance(content, dict):
        problems.append(f"{file.name} holds a {type(content).__name__}, not an object")
        return {}
    return content


def _open_safetensors(file: Path, problems: list[str]) -> dict[str, Callable[[], np.ndarray]]:
    if _is_lfs_pointer(file, problems):
        return {}
    try:
        handle = safe_open(file, framework="numpy")
    except (SafetensorError, OSError) as error:
        problems.append(f"{file.name} is truncated or damaged ({error}); fetch it again")
        return {}

    def reader(name: str) -> Callable[[], np.ndarray]:
        return lambda: handle.get_tensor(name)

    return {_modern_name(name): reader(name) for name in handle.keys()}  # noqa: SIM118


def _open_shards(directory: Path, problems: list[str]) -> dict[str, Callable[[], np.ndarray]]:
    weight_map = read_json(directory / INDEX, problems).get("weight_map", {})
    tensors: dict[str, Callable[[], np.ndarray]] = {}
    for shard in sorted(set(weight_map.values())):
        if (directory / shard).is_file():
            tensors |= _open_safetensors(directory / shard, problems)
        else:
            problems.append(f"shard {shard} is named in {INDEX} but missing; fetch it")
    return tensors


def _open_msgpack(file: Path, problems: list[str]) -> dict[str, Callable[[], np.ndarray]]:
    if _is_lfs_pointer(file, problems):
        return {}
    try:
        tree = serialization.msgpack_restore(file.read_bytes())
    except Exception as error:  # msgpack raises its own, ValueError or KeyError by where it breaks
        problems.append(f"{file.name} is truncated or damaged ({error}); fetch it again")
        return {}
    if not isinstance(tree, dict):
        problems.append(f"{file.name} holds no tree of parameters; fetch it again")
        return {}

    def reader(array: Any) -> Callable[[], np.ndarray]:
        return lambda: np.asarray(array)

    return {name: reader(array) for name, array in _dotted(tree)}


def _dotted(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _dotted(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _modern_name(name: str) -> str:
    """Checkpoints converted from the first TensorFlow BERT call LayerNorm's leaves gamma, beta."""
    for old, new in ((".gamma", ".weight"), (".beta", ".bias")):
        if name.endswith(old):
            return name.removesuffix(old) + new
    return name


def _is_lfs_pointer(file: Path, problems: list[str]) -> bool:
    with file.open("rb") as stream:
        pointer = stream.read(len(_LFS_POINTER)) == _LFS_POINTER
    if pointer:
        problems.append(
            f"{file.name} is a git-LFS pointer, not weights; run `git lfs pull` in {file.parent}"
        )
    return pointer
