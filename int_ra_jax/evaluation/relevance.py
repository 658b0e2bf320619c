"""Which stickers are right answers to which queries, under a named protocol."""

from collections.abc import Iterator, Mapping

import numpy as np
from jaxtyping import Bool, Int
from numpy.typing import ArrayLike

from int_ra_jax.common.nearest import did_you_mean
from int_ra_jax.evaluation.checks import check_ids

# Name -> what the report says of it; ``known`` are the splits whose annotations count.
PROTOCOLS = {
    "multi": "A sticker is relevant if it is annotated with the query's intention in {known}, or "
    "if it is the one that was sent.",
    "paper": "A sticker is relevant if the single intention written last for it (train, then "
    "test, then valid, as in the released code) is the query's.",
    "exact": "Only the sticker that was sent is relevant.",
}
# The order in which the released code reads the splits: test labels are overwritten by valid ones.
WRITING_ORDER: tuple[str, ...] = ("train", "test", "valid")


def relevance(
    protocol: str,
    *,
    query_intention: ArrayLike,
    gold: ArrayLike,
    annotations: ArrayLike | None = None,
    last_written: ArrayLike | None = None,
) -> Bool[np.ndarray, "Q N"]:
    """Says which stickers are right answers to which queries, under a named protocol.

    ``multi``, the default everywhere: the query's intention is among those with which the sticker
    is annotated in train or valid, or the sticker is the query's gold one. ``paper``: the single
    intention that was written last for the sticker is the query's; test labels take part, and a
    gold sticker can be irrelevant to its own query. ``exact``: the gold sticker only.

    Args:
      protocol: one of PROTOCOLS; store it beside every result.
      query_intention: [Q] int, class id annotated for the query.
      gold: [Q] int, gallery row of the query's sticker.
      annotations: [N, K] bool, intentions of each sticker in train and valid, never test; read by
        multi, and by exact for the size of the gallery.
      last_written: [N] int, see last_written_intention; read by paper, and by exact for the size
        of the gallery where annotations is None.

    Returns:
      bool[Q, N].

    Raises:
      ValueError: for an unknown protocol, a missing or misshapen argument, or an id out of range.
    """
    table = None if annotations is None else np.asarray(annotations)
    written = None if last_written is None else np.asarray(last_written)
    if problems := list(_problems(protocol, table, written)):
        raise ValueError(" ".join(problems))
    num_stickers = len(written if table is None else table)  # type: ignore[arg-type]
    intention = np.atleast_1d(query_intention)
    gold_rows = check_ids("gold", gold, len(intention), num_stickers)
    num_classes = None if table is None else table.shape[1]
    columns = check_ids("query_intention", intention, len(intention), num_classes)
    if protocol == "paper":
        return columns[:, None] == written
    exact = gold_rows[:, None] == np.arange(num_stickers)
    return exact if protocol == "exact" else table[:, columns].T | exact  # type: ignore[index]


def last_written_intention(
    pairs_by_split: Mapping[str, tuple[ArrayLike, ArrayLike]], num_stickers: int
) -> Int[np.ndarray, " N"]:
    """Keeps one intention per sticker as the released code does: the last one written.

    The splits are read in WRITING_ORDER (train, then test, then valid), each in the order of its
    rows, so test labels define relevance. That is a property of the ``paper`` protocol, not advice.

    Args:
      pairs_by_split: split name -> (stickers int [M], intentions int [M]), row by row.
      num_stickers: N, size of the gallery.

    Returns:
      i64[N], class id, or -1 for a sticker that is annotated nowhere.

    Raises:
      ValueError: for an unknown split, columns of different length, or an id out of range.
    """
    unknown = sorted(set(pairs_by_split) - set(WRITING_ORDER))
    if unknown:
        raise ValueError(f"Unknown splits {unknown}; last_written_intention reads {WRITING_ORDER}.")
    written = np.full(num_stickers, -1, dtype=np.int64)
    for split in WRITING_ORDER:
        if split in pairs_by_split:
            stickers, intentions = map(np.asarray, pairs_by_split[split])
            rows = check_ids(f"{split} stickers", stickers, len(stickers), num_stickers)
            classes = check_ids(f"{split} intentions", intentions, len(stickers), None)
            written[rows] = classes  # NumPy assigns in order: the last of a repeated index wins
    return written


def unannotated_stickers(annotations: Bool[np.ndarray, "N K"]) -> Int[np.ndarray, " U"]:
    """Lists the stickers without any annotation outside test.

    Under ``multi`` they are relevant only as somebody's gold sticker; report how many there are.

    Args:
      annotations: [N, K] bool, intentions of each sticker in train and valid.

    Returns:
      i64[U], gallery rows in ascending order.
    """
    return np.flatnonzero(~annotations.any(axis=1))


def _problems(protocol: str, table: np.ndarray | None, written: np.ndarray | None) -> Iterator[str]:
    """Yields what is wrong with a protocol's name and with the tables that it reads."""
    if protocol not in PROTOCOLS:
        hint = did_you_mean(protocol, PROTOCOLS)
        yield f"Unknown relevance protocol {protocol!r}; one of {tuple(PROTOCOLS)}{hint}"
    if protocol == "multi" and table is None:
        yield "Protocol 'multi' needs annotations, bool [N, K] from train and valid."
    if protocol == "paper" and written is None:
        yield "Protocol 'paper' needs last_written, int [N]."
    if table is None and written is None and protocol == "exact":
        yield "Protocol 'exact' needs annotations or last_written for the gallery size."
    if table is not None and (table.ndim != 2 or table.dtype != np.bool_):
        yield f"annotations must be bool [N, K], got {table.dtype} {table.shape}."
    if written is not None and (written.ndim != 1 or written.dtype.kind not in "iu"):
        yield f"last_written must be int [N], got {written.dtype} {written.shape}."
    if table is not None and written is not None and len(table) != len(written):
        yield f"annotations has {len(table)} stickers, last_written {len(written)}."
