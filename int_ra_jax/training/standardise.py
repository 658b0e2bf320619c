"""Measures a tower's features on train, for ``model.text.standardise`` and its image twin."""

import itertools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float32

from int_ra_jax.common import hosts
from int_ra_jax.common.hosts import Placement
from int_ra_jax.common.params import flatten, replace_leaves
from int_ra_jax.common.types import Bank
from int_ra_jax.data.batches import make_batches
from int_ra_jax.models.interface import Params, merge
from int_ra_jax.run.row_chunks import chunk_rows
from int_ra_jax.run.workdir import Run

_CONVERSATIONS = 2048  # of train that are measured, drawn at random
_ROWS = 64  # conversations or stickers at once


def measured(run: Run, params: Params, placement: Placement) -> Params:
    """Returns parameters in which the towers' features are measured and standardised.

    Of texts they are those of the tokens of some conversations of train, of pictures those of all
    tokens of the gallery. Nothing changes for a tower that is not to be standardised.

    Args:
      run: the open workdir.
      params: parameters, of which the towers' are read.
      placement: of what is computed.
    """
    found: dict[str, np.ndarray] = {}
    if run.config.model.text.standardise:
        found |= _named("text", _kept(run, params, placement))
    if run.config.model.image.standardise:
        found |= _named("image", _constants(_image_features(run, params, placement)))
    leaves = flatten(params)
    return replace_leaves(
        params, {path: hosts.put(value, leaves[path].sharding) for path, value in found.items()}
    )


def _named(tower: str, constants: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {f"{tower}_standard/{name}": value for name, value in constants.items()}


def _kept(run: Run, params: Params, placement: Placement) -> dict[str, np.ndarray]:
    """Returns the constants of texts, as another run on the same data and tower left them."""

    def sources() -> Iterator[str | bytes | np.ndarray]:
        yield from run.texts("train")
        yield from run.code(("models/towers", "data/batches.py", "training/standardise.py"))
        yield f"{run.config.model.dtype}"
        for path, leaf in sorted(flatten(params).items()):
            if path.startswith("text/"):
                yield path
                yield np.asarray(leaf)

    def compute() -> dict[str, np.ndarray]:
        return _constants(_text_features(run, params, placement))

    if jax.process_count() > 1:
        return compute()
    kept = run.shared.get_all("standardise", sources, compute)
    return {name: np.asarray(leaf) for name, leaf in kept.items()}


_Sums = tuple[Any, Any, Any]  # features, their squares, how many


def _text_features(run: Run, params: Params, placement: Placement) -> Iterator[_Sums]:
    compute = jax.jit(
        lambda params, batch: _sums(
            merge(run.graphdef, params).text_tokens(batch.context, None), batch.context.mask
        ),
        out_shardings=placement.whole,
    )
    size = -(-_ROWS // placement.parts) * placement.parts
    wanted = min(_CONVERSATIONS, run.dataset.size("train"))
    batches = make_batches(
        run.dataset, run.tokenizer, run.config.text, "train", size, 0, 0,
        placement.share, placement.shares, composed=run.composed("train"),
    )  # fmt: skip
    for batch in itertools.islice(batches, max(wanted // size, 1)):  # within one epoch
        yield compute(params, placement.place(batch))


def _image_features(run: Run, params: Params, placement: Placement) -> Iterator[_Sums]:
    def sums(params: Params, bank: Bank, rows: Any, first: Any) -> _Sums:
        tokens = merge(run.graphdef, params).image_tokens(bank.rows(rows))
        return _sums(tokens, jnp.broadcast_to(first[:, None], tokens.shape[:2]))

    compute = jax.jit(sums, out_shardings=placement.whole)
    bank = placement.everywhere(run.bank)
    number = len(run.bank.index)
    size = -(-_ROWS // placement.parts) * placement.parts
    for position, rows in enumerate(chunk_rows(number, size)):
        first = position * size + np.arange(size) < number  # what fills up the last chunk is not
        yield compute(params, bank, *placement.scatter((rows, first)))


def _sums(features: Any, mask: Any) -> _Sums:
    kept = jnp.where(mask[..., None], features.astype(jnp.float32), 0.0)
    return kept.sum((0, 1)), jnp.square(kept).sum((0, 1)), mask.sum()


def _constants(parts: Iterator[_Sums]) -> dict[str, Float32[np.ndarray, " W"]]:
    """Returns ``layers.Standardise``'s constants; a channel that never differs is only shifted."""
    first, second, count = (
        sum(np.asarray(x, np.float64) for x in column) for column in zip(*parts, strict=True)
    )
    mean = first / count
    variance = np.maximum(second / count - np.square(mean), 0.0)
    constant = variance <= 1e-10 * np.maximum(np.square(mean), 1e-10)
    deviation = np.where(constant, 1.0, np.sqrt(variance))
    scale, bias = 1 / deviation, -mean / deviation
    return {"scale": scale.astype(np.float32), "bias": bias.astype(np.float32)}
