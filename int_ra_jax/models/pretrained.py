"""Pretrained towers from Hugging Face checkpoints, without torch and strict in both directions.

Our parameters have the names of Hugging Face's Flax models, so one rule maps them to a PyTorch
checkpoint: join with dots, and kernel, scale and embedding become weight. Every tensor of the
checkpoint is used or on a named list of what is not wanted, every parameter is filled, and all
problems are raised together.
"""

import difflib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar, overload

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Float32

from int_ra_jax.common.params import flatten, path_string, shown
from int_ra_jax.common.sources import DESCRIPTION_FILES, resolve_directory
from int_ra_jax.models.bert import BertConfig, BertModel
from int_ra_jax.models.clip_vision import ClipVisionConfig, ClipVisionModel
from int_ra_jax.models.weight_files import MSGPACK, WeightSource, open_weights, read_json

POSITIONS = "embeddings/position_embedding/embedding"
Shape = TypeVar("Shape", BertConfig, ClipVisionConfig)
Adapter = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class _Tower:
    """What is known about the checkpoints that hold a tower.

    Attributes:
      kind: the tower's name in messages.
      sections: model_type of config.json -> key of the tower's own config in it, None for the
        whole file.
      prefixes: what may stand before our names in the checkpoint.
      ignore: reason -> pattern of source names that a checkpoint may hold and the tower lacks.
    """

    kind: str
    sections: Mapping[str, str | None]
    prefixes: Sequence[str]
    ignore: Mapping[str, str]


_TEXT = _Tower(
    kind="text tower",
    sections={"bert": None, "chinese_clip": "text_config", "chinese_clip_text_model": None},
    prefixes=("", "bert.", "text_model."),
    ignore={
        "position_ids buffer": r"(.*\.)?position_ids",
        "pooler": r"(.*\.)?pooler\..*",
        "pretraining heads": r"cls\..*",
        "task heads": r"(classifier|qa_outputs)\..*",
        "image tower": r"vision_model\..*",
        "joint space": r"(text_projection|visual_projection)\..*|logit_scale",
    },
)
_IMAGE = _Tower(
    kind="image tower",
    sections={
        "clip": "vision_config",
        "clip_vision_model": None,
        "chinese_clip": "vision_config",
        "chinese_clip_vision_model": None,
    },
    prefixes=("", "vision_model."),
    ignore={
        "position_ids buffer": r"(.*\.)?position_ids",
        "text tower": r"text_model\..*",
        "joint space": r"(text_projection|visual_projection)\..*|logit_scale",
        "task heads": r"classifier\..*",
    },
)


def load_text_tower(path_or_name: str | Path, dtype: DTypeLike = jnp.float32) -> BertModel:
    """Returns a BERT-shaped text tower with pretrained weights.

    Args:
      path_or_name: directory, ``package:NAME/dir`` or hub name of a BERT or a Chinese-CLIP.
      dtype: of the computation; parameters are float32 whatever the file holds.

    Returns:
      The tower.

    Raises:
      FileNotFoundError: if there is no such directory or hub repository.
      ValueError: names everything that keeps the checkpoint from being this tower.
    """
    directory = _directory(path_or_name)
    problems: list[str] = []
    config = _config(directory, _TEXT, BertConfig.from_hf, problems)
    build = partial(BertModel, config, dtype=dtype) if config else None
    return _load(build, directory, _TEXT, {}, problems)


def load_image_tower(
    path_or_name: str | Path, dtype: DTypeLike = jnp.float32, image_size: int | None = None
) -> ClipVisionModel:
    """Returns a CLIP image tower with pretrained weights.

    Args:
      path_or_name: directory, ``package:NAME/dir`` or hub name of a CLIP, Chinese-CLIP or the
        vision part of one.
      dtype: of the computation; parameters are float32 whatever the file holds.
      image_size: pixels along a side; another size than the checkpoint's resizes its position
        table, see ``resize_positions``. None for the checkpoint's own.

    Returns:
      The tower.

    Raises:
      FileNotFoundError: if there is no such directory or hub repository.
      ValueError: names everything that keeps the checkpoint from being this tower.
    """
    directory = _directory(path_or_name)
    problems: list[str] = []
    stored = _config(directory, _IMAGE, ClipVisionConfig.from_hf, problems)
    if stored is None:
        return _load(None, directory, _IMAGE, {}, problems)
    config = replace(stored, image_size=image_size or stored.image_size)
    adapt: dict[str, Adapter] = {}
    if config.grid != stored.grid:
        adapt[POSITIONS] = partial(resize_positions, grid=stored.grid, new_grid=config.grid)
    build = partial(ClipVisionModel, config, dtype=dtype)
    return _load(build, directory, _IMAGE, adapt, problems)


@overload
def load_tower_config(path_or_name: str | Path, tower: Literal["text"]) -> BertConfig: ...
@overload
def load_tower_config(path_or_name: str | Path, tower: Literal["image"]) -> ClipVisionConfig: ...
def load_tower_config(
    path_or_name: str | Path, tower: Literal["text", "image"]
) -> BertConfig | ClipVisionConfig:
    """Returns the shape of a tower from its config.json alone; weights are neither read nor needed.

    Args:
      path_or_name: as for the loaders.
      tower: which tower, since a Chinese-CLIP holds both.

    Returns:
      A BertConfig for "text", a ClipVisionConfig for "image".

    Raises:
      FileNotFoundError: if there is no such directory or hub repository.
      ValueError: if config.json is missing, or describes no such tower.
    """
    directory = resolve_directory(path_or_name)
    problems: list[str] = []
    config: BertConfig | ClipVisionConfig | None
    if tower == "text":
        config = _config(directory, _TEXT, BertConfig.from_hf, problems)
    else:
        config = _config(directory, _IMAGE, ClipVisionConfig.from_hf, problems)
    if config is None:
        raise _failure(directory, problems)
    return config


def load_weights(
    target: Any,
    directory: Path,
    *,
    prefixes: Sequence[str] = ("",),
    ignore: Mapping[str, str] | None = None,
    adapt: Mapping[str, Adapter] | None = None,
) -> Any:
    """Returns a copy of a parameter tree that is filled from a checkpoint, strictly both ways.

    Args:
      target: the parameters or their abstract shapes, named like Hugging Face's Flax models.
      directory: a local model directory.
      prefixes: what may stand before our names in the checkpoint, dots included; the one that
        fits most parameters is taken.
      ignore: reason -> regular expression for whole source names that are not wanted.
      adapt: our name -> function of the stored array (Flax axes), for what must be resized.

    Returns:
      The same tree with float32 arrays.

    Raises:
      ValueError: names all missing, unexpected and misshapen tensors and all damaged files.
    """
    problems: list[str] = []
    loaded = _fill(target, directory, prefixes, ignore or {}, adapt or {}, problems)
    if problems:
        raise _failure(directory, problems)
    return loaded


def resize_positions(
    table: Float32[np.ndarray, "P1 Dv"], grid: int, new_grid: int
) -> Float32[np.ndarray, "P2 Dv"]:
    """Returns a position table for another number of patches: bicubic on the grid, CLS kept.

    Args:
      table: [1+P, Dv], CLS first, patches row by row.
      grid: patches along a side of the table; a table of another size is returned as it is, for
        the check of shapes to report.
      new_grid: patches along a side that are wanted.

    Returns:
      [1 + new_grid**2, Dv].
    """
    if len(table) != 1 + grid**2:
        return table
    patches = table[1:].reshape(grid, grid, -1)
    resized = jax.image.resize(
        patches, (new_grid, new_grid, table.shape[1]), "bicubic", precision="highest"
    )
    return np.concatenate([table[:1], np.asarray(resized).reshape(new_grid**2, -1)])


def _directory(path_or_name: str | Path) -> Path:
    """Fetches from the hub only one form of the weights, safetensors where there are any."""
    wanted = (*DESCRIPTION_FILES, "model*.safetensors", "model.safetensors.index.json")
    directory = resolve_directory(path_or_name, patterns=wanted)
    if any(directory.glob("model*.safetensors")):
        return directory
    return resolve_directory(path_or_name, patterns=(*wanted, MSGPACK))


def _config(
    directory: Path,
    tower: _Tower,
    parse: Callable[[Mapping[str, Any]], Shape],
    problems: list[str],
) -> Shape | None:
    """Parses the tower's own part of config.json; None, with problems noted, if that fails."""
    config = read_json(directory / "config.json", problems)
    if not config:
        return None
    model_type = str(config.get("model_type"))
    if model_type not in tower.sections:
        problems.append(
            f"config.json: model_type {model_type!r} (architectures "
            f"{config.get('architectures')}) has no {tower.kind} of a known shape; "
            f"known model types: {', '.join(tower.sections)}"
        )
        return None
    key = tower.sections[model_type]
    try:
        return parse(config if key is None else config.get(key) or {})
    except ValueError as error:
        problems.append(f"config.json: {error}")
        return None


def _load(
    build: Callable[..., Any] | None,
    directory: Path,
    tower: _Tower,
    adapt: Mapping[str, Adapter],
    problems: list[str],
) -> Any:
    """Builds the tower abstractly and fills it; without a config it still checks the files."""
    if build is None:
        open_weights(directory, problems)
        raise _failure(directory, problems)
    graph, target = nnx.split(nnx.eval_shape(lambda: build(rngs=nnx.Rngs(0))))
    state = _fill(target, directory, tower.prefixes, tower.ignore, adapt, problems)
    if problems:
        raise _failure(directory, problems)
    return nnx.merge(graph, state)


def _fill(
    target: Any,
    directory: Path,
    prefixes: Sequence[str],
    ignore: Mapping[str, str],
    adapt: Mapping[str, Adapter],
    problems: list[str],
) -> Any:
    source = open_weights(directory, problems)
    if source is None or problems:  # names in a damaged checkpoint would only hide the cause
        return None
    leaves = flatten(target)
    names = _source_names(leaves, source, prefixes)
    unexpected = [
        name
        for name in source.tensors
        if name not in names.values()
        and not any(re.fullmatch(pattern, name) for pattern in ignore.values())
    ]
    missing = [name for name in names.values() if name not in source.tensors]
    problems += _name_problems(source.file, missing, unexpected, prefixes)
    values = {}
    for path, name in names.items():
        if name in source.tensors:
            value = _read(source, name, path, adapt.get(path), problems)
            if value.shape != leaves[path].shape:
                problems.append(
                    f"{name} has shape {value.shape} (axes as in Flax) where {path} needs "
                    f"{leaves[path].shape}; config.json and weights are of different models"
                )
            values[path] = value
    if problems:
        return None
    return jax.tree_util.tree_map_with_path(
        lambda path, _: jnp.asarray(values[path_string(path)]), target
    )


def _source_names(
    leaves: Mapping[str, Any], source: WeightSource, prefixes: Sequence[str]
) -> dict[str, str]:
    """Returns our name -> name in the checkpoint, under the prefix that fits most of them."""
    bare = {path: path.replace("/", ".") for path in leaves}
    if source.torch_layout:
        bare = {
            path: re.sub(r"\.(kernel|scale|embedding)$", ".weight", name)
            for path, name in bare.items()
        }
    best = max(
        prefixes, key=lambda prefix: sum(prefix + n in source.tensors for n in bare.values())
    )
    return {path: best + name for path, name in bare.items()}


def _read(
    source: WeightSource, name: str, path: str, adapter: Adapter | None, problems: list[str]
) -> np.ndarray:
    """Returns one array in float32 with Flax's axes."""
    stored = source.tensors[name]()
    if not jnp.issubdtype(stored.dtype, jnp.floating):
        problems.append(f"{name} holds {stored.dtype}; quantised checkpoints cannot be loaded")
    value = stored.astype(np.float32)
    if source.torch_layout and path.endswith("kernel"):
        value = value.transpose(2, 3, 1, 0) if value.ndim == 4 else value.T
    return adapter(value) if adapter else value


def _name_problems(
    file: str, missing: list[str], unexpected: list[str], prefixes: Sequence[str]
) -> list[str]:
    problems = []
    if missing:
        near = [difflib.get_close_matches(name, unexpected, n=1) for name in missing[:10]]
        pairs = [
            f"{name} (nearest: {close[0]})" if close else name
            for name, close in zip(missing, near, strict=False)
        ] + missing[len(near) :]
        problems.append(
            f"{len(missing)} parameters are missing in {file}: {shown(pairs)}; accepted prefixes "
            f"are {', '.join(map(repr, prefixes))}: is this checkpoint of the right model class?"
        )
    if unexpected:
        problems.append(
            f"{len(unexpected)} tensors in {file} belong to no parameter: {shown(unexpected)}; "
            "load the model class that they belong to, or put them on the list of ignored names"
        )
    return problems


def _failure(directory: Path, problems: Sequence[str]) -> ValueError:
    return ValueError(f"cannot load weights from {directory}:\n  " + "\n  ".join(problems))
