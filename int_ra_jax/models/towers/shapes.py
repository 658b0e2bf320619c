"""From the description of a model directory to the shape of a tower.

A config.json names the class of a checkpoint; the tables below say where a tower's own part stands
in it, what stands before the tower's names in the weights, and what else may lie there. Where our
tower is built to another shape than the stored one, it comes with functions that fit its tables.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar, overload

import jax
import numpy as np
from jaxtyping import Float32

from int_ra_jax.common.model_directory import read_json, resolve_directory
from int_ra_jax.common.pixels import read_normalisation
from int_ra_jax.models.towers.bert import BertConfig
from int_ra_jax.models.towers.clip_vision import ClipVisionConfig

PATCH_POSITIONS = "embeddings/position_embedding/embedding"
TEXT_POSITIONS = "embeddings/position_embeddings/embedding"
SEGMENTS = "embeddings/token_type_embeddings/embedding"
_OPEN_CLIP = "open_clip_config.json"
Shape = TypeVar("Shape", BertConfig, ClipVisionConfig)
Adapter = Callable[[np.ndarray], np.ndarray]
"""From the stored array (Flax axes) to the one that the tower takes."""
Described = tuple[Shape | None, dict[str, Adapter]]


@dataclass(frozen=True)
class TowerSource:
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


_ROBERTA = ("roberta", "xlm-roberta")
TEXT = TowerSource(
    kind="text tower",
    sections={
        "bert": None,
        **dict.fromkeys(_ROBERTA),
        "chinese_clip": "text_config",
        "chinese_clip_text_model": None,
    },
    prefixes=("", "bert.", "roberta.", "text_model."),
    ignore={
        "position_ids buffer": r"(.*\.)?position_ids",
        "pooler": r"(.*\.)?pooler\..*",
        "pretraining heads": r"(cls|lm_head)\..*",
        "task heads": r"(classifier|qa_outputs)\..*",
        "image tower": r"vision_model\..*",
        "joint space": r"(text_projection|visual_projection)\..*|logit_scale",
    },
)
IMAGE = TowerSource(
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
        "text tower": r"(text_model|bert)\..*",
        "text tower of OpenAI's and open_clip's files": (
            r"(text|token_embedding|ln_final|transformer\.resblocks|text_decoder)\..*"
            r"|positional_embedding|attn_mask|cls_emb|context_length|vocab_size|input_resolution"
        ),
        "joint space": r"(text_projection|visual_projection)(\..*)?|logit_scale|logit_bias",
        "task heads": r"classifier\..*",
    },
)


@overload
def load_tower_config(path_or_name: str | Path, tower: Literal["text"]) -> BertConfig: ...
@overload
def load_tower_config(path_or_name: str | Path, tower: Literal["image"]) -> ClipVisionConfig: ...
def load_tower_config(
    path_or_name: str | Path, tower: Literal["text", "image"]
) -> BertConfig | ClipVisionConfig:
    """Returns the shape of a tower from its description alone; weights are neither read nor needed.

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
    describe = describe_text if tower == "text" else describe_image
    config, _ = describe(directory, problems)
    if config is None or problems:
        raise failure(directory, problems)
    return config


def describe_text(directory: Path, problems: list[str]) -> Described[BertConfig]:
    """Returns the shape of the text tower in a model directory.

    Args:
      directory: a local model directory.
      problems: receives one line for everything that keeps it from being a text tower.

    Returns:
      The shape, None if there is a problem with it; and by our name what must be done to a table.
    """
    model_type, section = _section(directory, TEXT, problems)
    config = _parse(BertConfig, section, problems)
    if config is None:
        return None, {}
    adapt: dict[str, Adapter] = {}
    first = 0
    if model_type in _ROBERTA:  # counts positions from behind the padding's
        padding = section.get("pad_token_id", 1)
        if type(padding) is not int or not 0 <= padding < config.max_position_embeddings - 1:
            problems.append(f"config.json: pad_token_id {padding!r} is no row of the positions")
            return None, {}
        first = padding + 1
        adapt[TEXT_POSITIONS] = lambda table: table[first:]
    if config.type_vocab_size == 1:
        adapt[SEGMENTS] = lambda table: np.repeat(table, 2, axis=0)
    config = replace(
        config,
        max_position_embeddings=config.max_position_embeddings - first,
        type_vocab_size=max(config.type_vocab_size, 2),
    )
    return config, adapt


def describe_image(
    directory: Path, problems: list[str], image_size: int | None = None
) -> Described[ClipVisionConfig]:
    """Returns the shape of the image tower in a model directory, and how it reads pixels.

    Args:
      directory: a local model directory.
      problems: receives one line for everything that keeps it from being an image tower.
      image_size: pixels along a side; None for the checkpoint's own.

    Returns:
      The shape, None if there is a problem with it; and by our name what must be done to a table.
    """
    _, section = _section(directory, IMAGE, problems)
    mean, std = read_normalisation(directory, problems, default=section)
    section = {**section, "image_mean": mean, "image_std": std} if section else {}
    stored = _parse(ClipVisionConfig, section, problems)
    if stored is None:
        return None, {}
    if not stored.grid:
        problems.append(
            f"config.json: patch_size {stored.patch_size} exceeds image_size {stored.image_size}"
        )
        return None, {}
    config = replace(stored, image_size=image_size or stored.image_size)
    if config.grid == stored.grid:
        return config, {}
    adapter = partial(resize_positions, grid=stored.grid, new_grid=config.grid)
    return config, {PATCH_POSITIONS: adapter}


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


def _section(
    directory: Path, tower: TowerSource, problems: list[str]
) -> tuple[str, Mapping[str, Any]]:
    """Returns the model type and the tower's own part of config.json, empty if there is none."""
    if not (directory / "config.json").exists() and (directory / _OPEN_CLIP).exists():
        problems.append(
            f"{_OPEN_CLIP} is of a form that is not read here; take the same model as "
            "transformers saves it (config.json, model.safetensors), which most repositories of "
            "open_clip's models offer, too"
        )
        return "", {}
    config = read_json(directory / "config.json", problems)
    if not config:
        return "", {}
    model_type = str(config.get("model_type"))
    if model_type not in tower.sections:
        problems.append(
            f"config.json: model_type {model_type!r} (architectures "
            f"{config.get('architectures')}) has no {tower.kind} of a known shape; "
            f"known model types: {', '.join(tower.sections)}"
        )
        return model_type, {}
    key = tower.sections[model_type]
    section = config if key is None else config.get(key)
    if not isinstance(section, dict) or not section:
        problems.append(f"config.json: {key} describes no {tower.kind}; fetch the file again")
        return model_type, {}
    return model_type, section


def _parse(shape: type[Shape], section: Mapping[str, Any], problems: list[str]) -> Shape | None:
    """Reads a tower's part of config.json; None, with problems noted, if that fails."""
    try:
        return shape.from_hf(section) if section else None
    except ValueError as error:
        problems.append(f"config.json: {error}")
        return None


def failure(directory: Path, problems: Sequence[str]) -> ValueError:
    """Returns the error that names everything wrong with a model directory."""
    return ValueError(f"cannot load weights from {directory}:\n  " + "\n  ".join(problems))
