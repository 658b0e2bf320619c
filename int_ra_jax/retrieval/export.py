"""Writes a run's query encoder and a gallery for programs that have neither JAX nor this library.

    DIR/encoder.onnx      tokens to a query and to the intentions' probabilities
        tokenizer.json    of the package tokenizers;  emoji.json: where emoji are read as words
        gallery.parquet   a sticker a row, with its picture and its embedding
        export.json       how a conversation becomes tokens, and what the files are

A score is the dot product of a query and an embedding. docs/export.md describes all of it.
"""

import copy
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from int_ra_jax.common.types import ATTRIBUTES, RELATIONS, Batch, Sticker, Tokens
from int_ra_jax.data.text import compose_context, context_length
from int_ra_jax.models import registry
from int_ra_jax.models.interface import Params, System, merge
from int_ra_jax.retrieval.engine import programs_kept
from int_ra_jax.retrieval.gallery import Gallery
from int_ra_jax.retrieval.onnx_program import OPSET, program
from int_ra_jax.retrieval.retriever import Retriever
from int_ra_jax.retrieval.shelved import Shelved
from int_ra_jax.retrieval.sticker_encoder import Layout, StickerEncoder
from int_ra_jax.run.workdir import Run, open_run

TOLERANCE = 1e-4  # of what onnxruntime computes, against JAX
FORMAT = 1  # of export.json
_INPUTS = {"ids": np.int32, "mask": np.bool_, "type_ids": np.int32, "turn": np.int32}
_CHECKED, _AT_ONCE = 100, 10  # conversations that both compute
_STICKERS = 256  # that are read and written at once
_PLAIN = ("pack", "name", "words", "language", "media_type")
_FLAGS = ("adult", "approved", "hidden")
_LISTS = ("tags", "emoji")

Encode = Callable[..., dict[str, jax.Array]]


def export(workdir: Path, target: Path, gallery: str | None = None) -> list[str]:
    """Writes the best checkpoint of a run and a gallery.

    Args:
      workdir: of the run.
      target: a directory that does not exist yet, or is empty. It is there as a whole or not.
      gallery: path or URI of an open one; None for the stickers that the run was trained on.

    Returns:
      Lines that say what was written.

    Raises:
      FileNotFoundError: if the workdir, its checkpoint or the gallery does not exist.
      FileExistsError: if the target holds anything.
      ValueError: if the system's score is no dot product, its encoder cannot be written, or what
        onnxruntime computes of it differs from what JAX does.
    """
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise FileExistsError(f"--to={target} is not empty. Choose a new directory or remove it.")
    run = open_run(workdir)
    with programs_kept(run):
        params, step = run.restore_best()
    # What is not there is not to be made: a mistyped path would be exported without a sticker.
    opened = Gallery.open(gallery, StickerEncoder(run, params), create=False) if gallery else None
    shelved = Retriever(run, params, opened).gallery
    check_dot_product(run, shelved.shelf.encoded)
    building = target.absolute().with_name(f"{target.absolute().name}.incomplete-{os.getpid()}")
    building.mkdir(parents=True)
    try:
        described = {
            "format": FORMAT,
            "versions": {name: version(name) for name in ("int_ra_jax", "jax", "onnx")},
            "system": run.config.model.name,
            "checkpoint": {"step": step, "checksum": shelved.checksum},
            "score": "dot product of query and embedding",
            "encoder": _write_encoder(run, params, building),
            "text": write_text(run, building),
            "gallery": write_gallery(run, shelved, building),
        }
        described["files"] = {one.name: hashed(one) for one in sorted(building.iterdir())}
        (building / "export.json").write_text(
            json.dumps(described, ensure_ascii=False, indent=2) + "\n", encoding="utf-8"
        )
        if target.exists():
            target.rmdir()
        building.rename(target.absolute())
    finally:
        shutil.rmtree(building, ignore_errors=True)
    found = described["encoder"]["largest_difference"]
    sizes = [f"{name}: {one['bytes']:,} bytes" for name, one in described["files"].items()]
    stickers, checked = described["gallery"]["stickers"], described["encoder"]["checked"]
    told = f"{checked} conversations differ from JAX by {found:.1e} at most; {stickers} stickers"
    return [*sizes, told, f"written: {target}"]


def check_dot_product(run: Run, encoded: Sticker | None) -> None:
    """Refuses systems whose score is no dot product of two vectors.

    Args:
      run: the open run.
      encoded: its stickers; None where they are searched on disk, as vectors alone are.

    Raises:
      ValueError: for such a system, with what to do instead.
    """
    if encoded is not None and not Layout.of(encoded).is_vector:
        raise ValueError(
            f"{run.workdir}: this system ({run.config.model.name}) compares a conversation with "
            "each sticker by a network, and no dot product is its score: there is nothing to "
            "export. Serve it (--mode=serve), or export a run of int_ra, clip, irra, mod, lgur, or "
            "of pcme with model.score=mean."
        )


# ---- the encoder ------------------------------------------------------------------------------


def encoder(run: Run, params: Params) -> Encode:
    """Returns what is exported, as a function of ids, mask, type_ids and turn, all [B, L].

    It computes in float32 whatever the run computes in: few programs elsewhere read bfloat16.

    Args:
      run: the open run.
      params: of its system.

    Returns:
      A function to ``query`` f32[B, W] and, where the system predicts them, ``intentions`` f32[B,
      K], their probabilities.
    """
    config = copy.deepcopy(run.config)
    with config.unlocked():
        config.model.dtype = "float32"
    graphdef, _ = registry.abstract(config, run.facts)
    labels = jax.device_put(run.labels)

    def encode(
        ids: jax.Array, mask: jax.Array, type_ids: jax.Array, turn: jax.Array
    ) -> dict[str, jax.Array]:
        system: System = merge(graphdef, params)
        zeros = jnp.zeros(ids.shape[0], jnp.int32)
        tokens = Tokens(ids, mask, type_ids, turn, mask)  # nothing that is exported reads words
        batch = Batch(tokens, zeros, zeros, zeros, zeros == 0, labels=labels)
        context = system.encode_context(batch)
        found = {"query": context.query}
        if context.intention_logits is not None:
            found["intentions"] = jax.nn.softmax(context.intention_logits, axis=1)
        return found

    return encode


def _write_encoder(run: Run, params: Params, directory: Path) -> dict[str, Any]:
    encode, path = encoder(run, params), directory / "encoder.onnx"
    longest = context_length(run.config.text, run.dataset.has_knowledge)
    try:
        model = program(encode, _INPUTS, longest)
    except ValueError as error:
        raise ValueError(
            f"{run.workdir}: the encoder of {run.config.model.name} cannot be exported: {error}. "
            "Serve it (--mode=serve)."
        ) from error
    path.write_bytes(model.SerializeToString())
    checked, difference = _compared(run, encode, path)
    if not difference <= TOLERANCE:
        raise ValueError(
            f"{run.workdir}: what onnxruntime computes differs from JAX by {difference:.1e}, more "
            f"than {TOLERANCE}; nothing was written. Try another version of onnxruntime."
        )
    predicts = any(one.name == "intentions" for one in model.graph.output)
    return {
        "file": path.name,
        "opset": OPSET,
        "inputs": [*_INPUTS],
        "longest": longest,
        "intentions": [*run.dataset.intentions] if predicts else [],
        "checked": checked,
        "largest_difference": difference,
        "tolerance": TOLERANCE,
    }


def _compared(run: Run, encode: Encode, path: Path) -> tuple[int, float]:
    """Returns how many conversations both have computed, and the largest difference.

    Of queries that are no unit vectors it is measured in their largest number.
    """
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [one.name for one in session.get_outputs()]
    some = [one for split in ("test", "valid") for one in run.dataset.conversations(split)]
    some = some[:_CHECKED]
    tokens, _ = compose_context(run.tokenizer, some, run.config.text, run.dataset.has_knowledge)
    program, worst = jax.jit(encode), 0.0
    for start in range(0, len(some), _AT_ONCE):
        rows = np.arange(start, start + _AT_ONCE) % len(some)  # one shape, and so one compilation
        read = {name: getattr(tokens, name)[rows] for name in _INPUTS}
        expected = jax.device_get(program(**read))
        longest = int(read["mask"].sum(axis=1).max())
        given = {name: one[:, :longest].astype(np.int64) for name, one in read.items()}
        for name, found in zip(names, session.run(None, given), strict=True):
            size = max(1.0, float(np.abs(expected[name]).max()))
            worst = max(worst, float(np.abs(found - expected[name]).max()) / size)
    return len(some), worst


# ---- the text -----------------------------------------------------------------------------------


def write_text(run: Run, directory: Path) -> dict[str, Any]:
    """Writes the tokenizer, and returns how a conversation becomes tokens."""
    tokenizer, text = run.tokenizer, run.config.text
    (directory / "tokenizer.json").write_text(tokenizer.plain(), encoding="utf-8")
    if tokenizer.emoji:
        emoji = {"pattern": tokenizer.emoji.pattern.pattern, "names": tokenizer.emoji.names}
        content = json.dumps(emoji, ensure_ascii=False)
        (directory / "emoji.json").write_text(content + "\n", encoding="utf-8")
    reads = run.dataset.has_knowledge and text.knowledge == "append"
    return {
        "tokenizer": "tokenizer.json",
        "emoji": "emoji.json" if tokenizer.emoji else None,
        "cls": tokenizer.cls_id,
        "sep": tokenizer.sep_id,
        "pad": tokenizer.pad_id,
        "speakers": text.speakers == "prefix",
        "context_tokens": text.context_tokens,
        "knowledge_tokens": text.knowledge_tokens if reads else 0,
        "relations": [*RELATIONS],
    }


# ---- the gallery --------------------------------------------------------------------------------


def write_gallery(run: Run, gallery: Shelved, directory: Path) -> dict[str, Any]:
    """Writes all stickers, hidden ones too, and returns what export.json says of them."""
    import pyarrow as pa
    from pyarrow import parquet

    path, number, width = directory / "gallery.parquet", 0, _width(run, gallery)
    schema = pa.schema(
        [
            pa.field("id", pa.string(), nullable=False),
            *((name, pa.string()) for name in (*_PLAIN, *ATTRIBUTES)),
            *((name, pa.list_(pa.string())) for name in _LISTS),
            *((name, pa.bool_()) for name in _FLAGS),
            ("intentions", pa.map_(pa.string(), pa.float32())),
            ("picture", pa.binary()),
            ("embedding", pa.list_(pa.float32(), width)),
        ]
    )
    with parquet.ParquetWriter(path, schema) as writer:
        for rows, embeddings in _batches(gallery):
            flat = pa.array(embeddings.astype(np.float32).reshape(-1))
            vectors = pa.FixedSizeListArray.from_arrays(flat, width)
            plain = pa.Table.from_pylist(rows, pa.schema([*schema][:-1]))
            writer.write_table(plain.append_column(schema.field("embedding"), vectors))
            number += len(rows)
    return {
        "file": path.name,
        "stickers": number,
        "width": width,
        "intention_channels": run.system.intention_width,
    }


def _width(run: Run, gallery: Shelved) -> int:
    encoded = gallery.shelf.encoded
    return run.system.embedding_width if encoded is None else int(encoded.embedding.shape[1])


def _batches(gallery: Shelved) -> Iterator[tuple[list[dict[str, Any]], np.ndarray]]:
    """Yields rows and their embeddings, hidden stickers among them."""
    with gallery.lock:
        ids = gallery.shelf.of_pack(None)
    for start in range(0, len(ids), _STICKERS):
        found = gallery.read(ids[start : start + _STICKERS], pictures=True)
        if not found:
            continue
        rows = [
            {
                "id": one.id,
                **{name: getattr(one, name) for name in (*_PLAIN, *_FLAGS, "picture")},
                **{name: [*getattr(one, name)] for name in _LISTS},
                **{name: one.attributes[name] for name in ATTRIBUTES},
                "intentions": [*(one.intentions or {}).items()],
            }
            for one in found.values()
        ]
        yield rows, gallery.vectors([*found])


def hashed(path: Path) -> dict[str, Any]:
    """Returns the size and the SHA-256 of a file."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
    return {"bytes": path.stat().st_size, "sha256": digest.hexdigest()}
