"""Weight files of Hugging Face model directories, read without torch.

A directory holds ``model.safetensors``, or shards of it with an index, or ``flax_model.msgpack``.
Whatever is wrong with the files is added to a list, so that it can be reported together with what
is wrong with the names and shapes inside them.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from flax import serialization
from safetensors import SafetensorError, safe_open

from int_ra_jax.common.model_directory import is_lfs_pointer, read_json
from int_ra_jax.common.params import shown
from int_ra_jax.models.towers.weight_names import Reader, modernise

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
MSGPACK = "flax_model.msgpack"


@dataclass(frozen=True)
class WeightSource:
    """The tensors of one checkpoint, read one at a time.

    Attributes:
      tensors: dotted name, as Hugging Face calls it today -> function that reads the array.
      torch_layout: True if names and axes are PyTorch's (safetensors), False if they are Flax's.
      file: name of the file, for messages.
    """

    tensors: Mapping[str, Reader]
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
        tensors = _open_safetensors(directory / SINGLE, problems)
        return WeightSource(modernise(tensors, problems), True, SINGLE)
    if (directory / INDEX).is_file():
        return WeightSource(modernise(_open_shards(directory, problems), problems), True, INDEX)
    if (directory / MSGPACK).is_file():
        return WeightSource(_open_msgpack(directory / MSGPACK, problems), False, MSGPACK)
    problems.append(
        f"no weights: neither {SINGLE}, {INDEX} nor {MSGPACK} is in {directory}; PyTorch's .bin "
        "is converted where torch is installed by "
        "transformers.AutoModel.from_pretrained(name).save_pretrained(directory), and a .pt by "
        f"safetensors.torch.save_file(torch.load(file)['state_dict'], '{SINGLE}')"
    )
    return None


def _open_safetensors(file: Path, problems: list[str]) -> dict[str, Reader]:
    if not _is_content(file, problems):
        return {}
    try:
        handle = safe_open(file, framework="numpy")
    except (SafetensorError, OSError) as error:
        problems.append(f"{file.name} is truncated or damaged ({error}); fetch it again")
        return {}
    return {name: partial(handle.get_tensor, name) for name in handle.keys()}  # noqa: SIM118


def _open_shards(directory: Path, problems: list[str]) -> dict[str, Reader]:
    noted = len(problems)
    index = read_json(directory / INDEX, problems)
    weight_map = index.get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        if len(problems) == noted:
            problems.append(f"{INDEX} names no tensors (weight_map); fetch it again")
        return {}
    tensors: dict[str, Reader] = {}
    for shard in sorted(set(map(str, weight_map.values()))):
        # A shard lies beside its index; anything else would read files that are not the model's.
        if shard != Path(shard).name:
            problems.append(f"{INDEX} names {shard!r}, which is not a file beside it; not opened")
        elif (directory / shard).is_file():
            content = _open_safetensors(directory / shard, problems)
            if twice := sorted(content.keys() & tensors.keys()):
                problems.append(f"{shard} repeats tensors of other shards: {shown(twice)}")
            tensors |= content
        else:
            problems.append(f"shard {shard} is named in {INDEX} but missing; fetch it")
    absent = [name for name in weight_map if name not in tensors]
    if absent and len(problems) == noted:
        problems.append(
            f"{len(absent)} tensors are named in {INDEX} but in no shard: {shown(absent)}; "
            "index and shards are of different models: fetch all of them again"
        )
    return tensors


def _open_msgpack(file: Path, problems: list[str]) -> dict[str, Reader]:
    if not _is_content(file, problems):
        return {}
    try:
        tree = serialization.msgpack_restore(file.read_bytes())
    except Exception as error:  # msgpack raises its own, ValueError or KeyError by where it breaks
        problems.append(f"{file.name} is truncated or damaged ({error}); fetch it again")
        return {}
    if not isinstance(tree, dict):
        problems.append(f"{file.name} holds no tree of parameters; fetch it again")
        return {}
    return {name: partial(np.asarray, array) for name, array in _dotted(tree)}


def _dotted(tree: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _dotted(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _is_content(file: Path, problems: list[str]) -> bool:
    """False, with a problem noted, for a file that cannot hold weights whatever its format."""
    try:
        pointer, size = is_lfs_pointer(file), file.stat().st_size
    except OSError as error:
        problems.append(f"{file.name} cannot be read ({error})")
        return False
    if pointer:
        problems.append(
            f"{file.name} is a git-LFS pointer, not weights; run `git lfs pull` in {file.parent}"
        )
    elif size == 0:
        problems.append(f"{file.name} is empty; fetch it again")
    return not pointer and size > 0
