"""Puts on the device what stays there: the gallery, the names, and the frozen layers' output."""

import dataclasses
import math
from operator import itemgetter
from typing import Any

import jax
import numpy as np
from absl import logging

from int_ra_jax.common.hosts import Placement
from int_ra_jax.common.types import Resident, Tokens
from int_ra_jax.data.text import context_length
from int_ra_jax.models.interface import Params, merge
from int_ra_jax.run.encode import Encoder
from int_ra_jax.run.row_chunks import chunk_rows, joined
from int_ra_jax.run.workdir import Run

_CHUNK = 64  # rows encoded at once


def build(run: Run, params: Params, placement: Placement) -> Resident:
    """Returns the gallery, the names and, where layers are frozen and cached, their output.

    Frozen layers see the same inputs in every epoch, so their output is computed once: with a
    whole tower frozen, a step touches the heads alone.

    Args:
      run: the open workdir.
      params: parameters; only the frozen ones are read.
      placement: everything returned lies in full on each of its devices, computed there together.

    Raises:
      ValueError: if the cache of the conversations would exceed ``train.cache_limit_gib``.
    """
    bank, labels = placement.everywhere((run.bank, run.labels))
    if not run.config.train.cache_frozen:
        return Resident(bank, labels)
    context_hidden, reads = None, run.system.reads
    if _check_size(run):
        if "names" in reads:
            names = _texts(run, params, run.labels.tokens, placement)
            labels = dataclasses.replace(labels, hidden=names)
        if "attributes" in reads:
            attributes = _texts(run, params, run.bank.attributes, placement)
            bank = dataclasses.replace(bank, attribute_hidden=attributes)
        encoder = Encoder(run, bank, labels, placement)
        context_hidden = encoder.hidden(params, "train")
    images = _in_chunks(run, params, "hidden_image", run.bank.pixels, placement)
    if images is not None:
        bank = dataclasses.replace(bank, image_hidden=images, pixels=None)
    return Resident(bank, labels, context_hidden)


def _texts(run: Run, params: Params, tokens: Tokens, placement: Placement) -> jax.Array:
    hidden = _in_chunks(run, params, "hidden_text", tokens, placement)
    assert hidden is not None  # asked for only where text layers are frozen
    return hidden


def _in_chunks(
    run: Run, params: Params, method: str, rows: Any, placement: Placement
) -> jax.Array | None:
    compute = jax.jit(
        lambda params, chunk: getattr(merge(run.graphdef, params), method)(chunk),
        out_shardings=placement.whole,
    )
    number = len(jax.tree.leaves(rows)[0])
    chunks = chunk_rows(number, -(-_CHUNK // placement.parts) * placement.parts)
    hidden: jax.Array | None = joined(
        (
            compute(params, placement.scatter(jax.tree.map(itemgetter(chunk), rows)))
            for chunk in chunks
        ),
        number,
    )
    return hidden


def _check_size(run: Run) -> int:
    """Returns the bytes of the conversations' cache, 0 where no text layer is frozen."""
    length = context_length(run.config.text, run.dataset.has_knowledge)
    numbers, marks = (jax.ShapeDtypeStruct((1, length), kind) for kind in (np.int32, np.bool_))
    row = jax.eval_shape(
        lambda params, tokens: merge(run.graphdef, params).hidden_text(tokens),
        run.abstract_params,
        Tokens(ids=numbers, mask=marks, type_ids=numbers, turn=numbers, words=marks),
    )
    if row is None:
        return 0
    number = run.dataset.size("train")
    kept = run.config.train.cache_dtype
    dtype = row.dtype if kept == "same" else jax.numpy.dtype(kept)
    size = number * math.prod(row.shape) * dtype.itemsize
    gib, limit = size / 2**30, run.config.train.cache_limit_gib
    if gib > limit:
        raise ValueError(
            f"caching the frozen layers' output of {number} conversations of {length} tokens "
            f"takes {gib:.1f} GiB, above train.cache_limit_gib={limit}. Raise the limit, shorten "
            "text.context_tokens, keep it in half precision with "
            "--config.train.cache_dtype=float16, or set --config.train.cache_frozen=False."
        )
    logging.info("cache of the frozen text layers: %d conversations, %.2f GiB", number, gib)
    return size
