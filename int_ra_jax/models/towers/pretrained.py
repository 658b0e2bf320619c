"""Pretrained towers from Hugging Face checkpoints, without torch and strict in both directions.

Every tensor of the checkpoint is used or on a named list of what is not wanted, every parameter is
filled with finite numbers, and all problems are raised together. ``shapes`` reads what a
directory says of its towers, ``weight_files`` opens the weights, ``weight_names`` maps their names.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike

from int_ra_jax.common.model_directory import DESCRIPTION_FILES, resolve_directory
from int_ra_jax.common.params import flatten, path_string, shown
from int_ra_jax.models.towers.bert import BertModel
from int_ra_jax.models.towers.clip_vision import ClipVisionModel
from int_ra_jax.models.towers.shapes import (
    IMAGE,
    TEXT,
    Adapter,
    Described,
    Shape,
    TowerSource,
    describe_image,
    describe_text,
    failure,
)
from int_ra_jax.models.towers.weight_files import MSGPACK, WeightSource, open_weights
from int_ra_jax.models.towers.weight_names import match, name_problems


def load_text_tower(path_or_name: str | Path, dtype: DTypeLike = jnp.float32) -> BertModel:
    """Returns a BERT-shaped text tower with pretrained weights.

    A tower that knows one segment gets a second with the same embedding, since our knowledge is a
    segment of its own. The tokenizer of the same directory is ``data.text.load_tokenizer``.

    Args:
      path_or_name: directory, ``package:NAME/dir`` or hub name of a BERT, a RoBERTa, an
        XLM-RoBERTa or a Chinese-CLIP.
      dtype: of the computation; parameters are float32 whatever the file holds.

    Returns:
      The tower: ``tower(ids, mask, type_ids)`` is its last hidden state [B, L, Dt].

    Raises:
      FileNotFoundError: if there is no such directory or hub repository.
      ValueError: names everything that keeps the checkpoint from being this tower.
    """
    return _load(path_or_name, TEXT, describe_text, partial(BertModel, dtype=dtype))


def load_image_tower(
    path_or_name: str | Path, dtype: DTypeLike = jnp.float32, image_size: int | None = None
) -> ClipVisionModel:
    """Returns a CLIP image tower with pretrained weights, and the scaling of the pixels it reads.

    Args:
      path_or_name: directory, ``package:NAME/dir`` or hub name of a CLIP, Chinese-CLIP or the
        vision part of one.
      dtype: of the computation; parameters are float32 whatever the file holds.
      image_size: pixels along a side; another size than the checkpoint's resizes its position
        table, see ``resize_positions``. None for the checkpoint's own.

    Returns:
      The tower: ``tower(normalise(pixels, tower.config.image_mean, tower.config.image_std))`` is
      all its tokens [N, 1+P, Dv] after the final LayerNorm.

    Raises:
      FileNotFoundError: if there is no such directory or hub repository.
      ValueError: names everything that keeps the checkpoint from being this tower.
    """
    describe = partial(describe_image, image_size=image_size)
    return _load(path_or_name, IMAGE, describe, partial(ClipVisionModel, dtype=dtype))


def load_weights(
    target: Any,
    directory: Path,
    *,
    prefixes: Sequence[str] = ("",),
    ignore: Mapping[str, str] | None = None,
    adapt: Mapping[str, Adapter] | None = None,
    problems: list[str] | None = None,
) -> Any:
    """Returns a copy of a parameter tree that is filled from a checkpoint, strictly both ways.

    Args:
      target: the parameters or their abstract shapes, named like Hugging Face's Flax models.
      directory: a local model directory.
      prefixes: what may stand before our names in the checkpoint, dots included; the one that
        fits most parameters is taken.
      ignore: reason -> regular expression for whole source names that are not wanted.
      adapt: our name -> function of the stored array (Flax axes), for what must be resized.
      problems: what is known to be wrong with the directory and is to be raised as well.

    Returns:
      The same tree with float32 arrays.

    Raises:
      ValueError: names all missing, unexpected and misshapen tensors and all damaged files.
    """
    problems = [] if problems is None else problems
    noted = len(problems)
    source = open_weights(directory, problems)
    if source is None or len(problems) > noted:  # names in damaged files would hide the cause
        raise failure(directory, problems)
    leaves = flatten(target)
    names = match(list(leaves), source.tensors, prefixes, source.torch_layout)
    problems += name_problems(names, source.tensors, prefixes, ignore or {}, source.file)
    values = _values(source, names, leaves, adapt or {}, problems)
    if problems:
        raise failure(directory, problems)
    return jax.tree_util.tree_map_with_path(
        lambda path, _: jnp.asarray(values[path_string(path)]), target
    )


def _directory(path_or_name: str | Path) -> Path:
    """Fetches from the hub only one form of the weights, safetensors where there are any."""
    wanted = (*DESCRIPTION_FILES, "model*.safetensors", "model.safetensors.index.json")
    directory = resolve_directory(path_or_name, patterns=wanted)
    if any(directory.glob("model*.safetensors")):
        return directory
    return resolve_directory(path_or_name, patterns=(*wanted, MSGPACK))


def _load(
    path_or_name: str | Path,
    tower: TowerSource,
    describe: Callable[[Path, list[str]], Described[Shape]],
    build: Callable[..., Any],
) -> Any:
    """Builds the tower abstractly and fills it; without a config it still checks the files."""
    directory = _directory(path_or_name)
    problems: list[str] = []
    config, adapt = describe(directory, problems)
    if config is None:
        open_weights(directory, problems)
        raise failure(directory, problems)
    graph, target = nnx.split(nnx.eval_shape(lambda: build(config, rngs=nnx.Rngs(0))))
    state = load_weights(
        target, directory, prefixes=tower.prefixes, ignore=tower.ignore, adapt=adapt,
        problems=problems,
    )  # fmt: skip
    return nnx.merge(graph, state)


def _values(
    source: WeightSource,
    names: Mapping[str, str],
    leaves: Mapping[str, Any],
    adapt: Mapping[str, Adapter],
    problems: list[str],
) -> dict[str, np.ndarray]:
    """Reads the arrays that are there, in float32 and with Flax's axes; notes all unusable ones."""
    values = {}
    unread, quantised, infinite, misshapen = [], [], [], []
    for path, name in names.items():
        if name not in source.tensors:
            continue
        try:
            stored = source.tensors[name]()
        except Exception as error:  # of a data type that numpy lacks, or a file changed meanwhile
            unread.append(f"{name} ({error})")
            continue
        if not jnp.issubdtype(stored.dtype, jnp.floating):
            quantised.append(f"{name} holds {stored.dtype}")
            continue
        with np.errstate(over="ignore"):  # of float64; reported below
            value = stored.astype(np.float32)
        if source.torch_layout and path.endswith("kernel"):
            value = value.transpose(2, 3, 1, 0) if value.ndim == 4 else value.T
        value = adapt[path](value) if path in adapt and value.ndim == 2 else value
        if value.shape != leaves[path].shape:
            misshapen.append(
                f"{name} has shape {value.shape} where {path} needs {leaves[path].shape}"
            )
        if not np.isfinite(value).all():
            infinite.append(name)
        values[path] = value
    for found, remedy in (
        (unread, "no array of numpy; if it is not quantised, the file is damaged: fetch it again"),
        (quantised, "numbers that are no plain floats; quantised checkpoints cannot be loaded"),
        (misshapen, "(axes as in Flax); config.json and weights are of different models"),
        (infinite, "holds NaN or infinity; the checkpoint was damaged or its training diverged"),
    ):
        if found:
            problems.append(f"{len(found)} tensors in {source.file}: {shown(found)}: {remedy}")
    return values
