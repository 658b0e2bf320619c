"""From the names in a checkpoint to ours.

Our parameters have the names of Hugging Face's Flax models, so one rule maps them to a PyTorch
checkpoint of Hugging Face: join with dots, and kernel, scale and embedding become weight. What
older or original releases call differently is rewritten to that by one table: there is one loader.
"""

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

import numpy as np
from absl import logging

from int_ra_jax.common.nearest import nearest
from int_ra_jax.common.params import SHOWN, shown

Reader = Callable[[], np.ndarray]
"""Reads one array of a checkpoint."""

_LAYER = r"^(vision_model\.encoder\.layers\.\d+)\."
RULES: tuple[tuple[str, str], ...] = (
    # Saved from inside a wrapper: for several devices, of a training loop, of a compiled model.
    (r"^(?:module\.|model\.|_orig_mod\.)+", ""),
    # Converted from the first TensorFlow BERT.
    (r"\.gamma$", ".weight"),
    (r"\.beta$", ".bias"),
    # The image tower as OpenAI and the authors of Chinese-CLIP released it.
    (r"^visual\.class_embedding$", "vision_model.embeddings.class_embedding"),
    (r"^visual\.conv1\.", "vision_model.embeddings.patch_embedding."),
    (r"^visual\.positional_embedding$", "vision_model.embeddings.position_embedding.weight"),
    (r"^visual\.ln_pre\.", "vision_model.pre_layrnorm."),
    (r"^visual\.ln_post\.", "vision_model.post_layernorm."),
    (r"^visual\.transformer\.resblocks\.", "vision_model.encoder.layers."),
    (_LAYER + r"ln_([12])\.", r"\1.layer_norm\2."),
    (_LAYER + r"attn\.(in_proj_|out_proj\.)", r"\1.self_attn.\2"),
    (_LAYER + r"mlp\.c_fc\.", r"\1.mlp.fc1."),
    (_LAYER + r"mlp\.c_proj\.", r"\1.mlp.fc2."),
    (r"^visual\.proj$", "visual_projection.weight"),
    (r"^text_projection$", "text_projection.weight"),
)
"""Pattern -> replacement, applied to each name of a PyTorch checkpoint in this order."""
_FUSED = re.compile(r"(.*\.self_attn)\.in_proj_(weight|bias)")


def modernise(tensors: Mapping[str, Reader], problems: list[str]) -> dict[str, Reader]:
    """Returns the tensors of a PyTorch checkpoint under the names that Hugging Face uses today.

    A fused projection of query, key and value becomes three tensors.

    Args:
      tensors: name in the file -> function that reads the array.
      problems: receives one line for each two names that come to mean the same.

    Returns:
      Name of today -> function that reads the array.
    """
    renamed: dict[str, Reader] = {}
    origin: dict[str, str] = {}
    for name, read in tensors.items():
        for new, reader in _modern(name, read):
            if new in renamed:
                problems.append(
                    f"{origin[new]} and {name} both stand for {new}; two checkpoints were merged "
                    "into one: keep the tensors of one of them"
                )
            renamed[new], origin[new] = reader, name
    return renamed


def _modern(name: str, read: Reader) -> Iterator[tuple[str, Reader]]:
    for pattern, replacement in RULES:
        name = re.sub(pattern, replacement, name)
    fused = _FUSED.fullmatch(name)
    if fused is None:
        yield name, read
        return
    for part, role in enumerate("qkv"):
        yield f"{fused[1]}.{role}_proj.{fused[2]}", _third(read, part)


def _third(read: Reader, part: int) -> Reader:
    # array_split also takes what three does not divide; the check of shapes reports it then.
    return lambda: np.array_split(np.atleast_1d(read()), 3)[part]


def match(
    paths: Sequence[str], stored: Mapping[str, Reader], prefixes: Sequence[str], torch_names: bool
) -> dict[str, str]:
    """Returns our name -> name in the checkpoint, under the prefix that fits most of them.

    Args:
      paths: our names, ``encoder/layer/0/output/dense/kernel``.
      stored: the tensors of the checkpoint by name.
      prefixes: what may stand before our names in the checkpoint, dots included.
      torch_names: True if leaves are called weight, False if they are called as ours.

    Returns:
      A name for each path, whether the checkpoint has it or not.
    """
    bare = {path: path.replace("/", ".") for path in paths}
    if torch_names:
        bare = {
            path: re.sub(r"\.(kernel|scale|embedding)$", ".weight", name)
            for path, name in bare.items()
        }
    best = max(prefixes, key=lambda prefix: sum(prefix + name in stored for name in bare.values()))
    return {path: best + name for path, name in bare.items()}


def name_problems(
    names: Mapping[str, str],
    stored: Mapping[str, Reader],
    prefixes: Sequence[str],
    ignore: Mapping[str, str],
    file: str,
) -> list[str]:
    """Returns what is wrong between the names wanted and those in a checkpoint; empty if nothing.

    Args:
      names: our name -> name in the checkpoint.
      stored: the tensors of the checkpoint by name.
      prefixes: for the message.
      ignore: reason -> pattern of names that a checkpoint may hold and the tower lacks.
      file: name of the file, for the message.
    """
    wanted = set(names.values())
    missing = [name for name in names.values() if name not in stored]
    unexpected = [
        name
        for name in stored
        if name not in wanted and not any(re.fullmatch(rule, name) for rule in ignore.values())
    ]
    if not missing:
        unexpected = _of_the_tower(unexpected, wanted, file)
    problems = []
    if missing:
        near = [nearest(name, unexpected, cutoff=0.6) for name in missing[:SHOWN]]
        pairs = [
            f"{name} (nearest: {close})" if close else name
            for name, close in zip(missing, near, strict=False)
        ] + missing[len(near) :]
        problems.append(
            f"{len(missing)} parameters are missing in {file}: {shown(pairs)}; accepted prefixes "
            f"are {', '.join(map(repr, prefixes))}: is this checkpoint of the right model class?"
        )
    if unexpected:
        problems.append(
            f"{len(unexpected)} tensors in {file} belong to no parameter: {shown(unexpected)}; "
            "the file is of another kind of model than config.json says; take the two from one "
            "place, or save the tower that is wanted alone"
        )
    return problems


def _of_the_tower(unexpected: Sequence[str], wanted: Collection[str], file: str) -> list[str]:
    """Leaves out the tensors that lie beside a tower which is whole under a name of its own.

    A model's other towers have as many names as there are authors. What has the tower's name in it
    stays, and so do low-rank updates: they may be meant for it.
    """
    roots = {name.partition(".")[0] for name in wanted}
    if len(roots) != 1:
        return list(unexpected)
    own = {*roots, "visual"}
    near = [name for name in unexpected if own & {*name.split(".")} or "lora" in name.lower()]
    if beside := [name for name in unexpected if name not in near]:
        logging.info("%s: not read, beside the tower: %s", file, shown(beside))
    return near
