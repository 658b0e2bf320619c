"""Checks of the arrays that enter the evaluation; every message names rows and says what to do.

Figures are only as good as their inputs: a NaN, a query without a right answer or a shifted id
would otherwise still give a plausible number.
"""

from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

OnEmpty = Literal["error", "exclude"]
# Bounds the float64 temporaries of one step to some 100 MB, whatever the size of the gallery.
_BLOCK_ELEMENTS = 2**22
_LISTED_ROWS = 10


def check_tables(scores: ArrayLike, relevant: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Converts scores and relevance, raising one error that names every problem with them.

    Args:
      scores: [Q, N] real numbers in anything NumPy can convert.
      relevant: [Q, N] bool (or 0/1).

    Returns:
      Scores as f32 or f64 [Q, N], relevance as bool [Q, N].

    Raises:
      ValueError: for other shapes or types, or where a score is NaN.
    """
    table = np.asarray(scores)
    if table.ndim != 2 or 0 in table.shape:
        raise ValueError(f"scores must be a non-empty [Q, N] table, got shape {table.shape}.")
    if not np.can_cast(table.dtype, np.float64, casting="same_kind"):
        raise ValueError(f"scores must be real numbers, got dtype {table.dtype}.")
    if table.dtype not in (np.float32, np.float64):
        table = table.astype(np.float64)
    truth = check_relevant(relevant)
    problems = []
    if truth.shape != table.shape:
        problems.append(f"relevant has shape {truth.shape} but scores has {table.shape}.")
    broken = [
        start + row
        for start, block in row_blocks(table)
        for row in np.flatnonzero(np.isnan(block).any(axis=1))
    ]
    if broken:
        problems.append(
            f"{len(broken)} rows of scores hold NaN (rows {first_rows(broken)}); NaN has no rank: "
            "look for it in the model's output."
        )
    if problems:
        raise ValueError(" ".join(problems))
    return table, truth


def check_relevant(relevant: ArrayLike) -> np.ndarray:
    """Converts a table of truth values to bool [Q, N]; graded relevance raises ValueError."""
    table = np.asarray(relevant)
    if table.ndim != 2 or 0 in table.shape:
        raise ValueError(f"relevant must be a non-empty [Q, N] table, got shape {table.shape}.")
    if table.dtype != np.bool_:
        if not np.isin(table, (0, 1)).all():
            raise ValueError("relevant must hold truth values (bool, or 0 and 1).")
        table = table.astype(np.bool_)
    return table


def check_ids(name: str, ids: ArrayLike, length: int, size: int | None) -> np.ndarray:
    """Checks a column of ids: one integer per row, not negative, below ``size`` where given.

    Args:
      name: what the message calls the column.
      ids: [length] int.
      length: how many rows there must be.
      size: exclusive upper bound, or None.

    Returns:
      i64[length].

    Raises:
      ValueError: for another shape or type, or ids out of range, whose rows are listed.
    """
    column = np.asarray(ids)
    if column.shape != (length,) or (length and column.dtype.kind not in "iu"):
        raise ValueError(
            f"{name} must be int [{length}], one id per row; got {column.dtype} {column.shape}."
        )
    bad = np.flatnonzero((column < 0) | (False if size is None else column >= size))
    if bad.size:
        limit = "0 or more" if size is None else f"in [0, {size})"
        found = column[bad[:_LISTED_ROWS]].tolist()
        raise ValueError(f"{name} must be {limit}; rows {first_rows(bad)} hold {found}.")
    return column.astype(np.int64)


def scorable_queries(relevant: np.ndarray, on_empty: str) -> np.ndarray:
    """Marks the queries that have a right answer and applies the policy for those that have none.

    Args:
      relevant: [Q, N] bool.
      on_empty: "error" or "exclude".

    Returns:
      bool[Q].

    Raises:
      ValueError: for queries without a relevant sticker under "error", for an unknown policy, or
        if no query can be scored at all.
    """
    if on_empty not in ("error", "exclude"):
        raise ValueError(f"on_empty must be 'error' or 'exclude', got {on_empty!r}.")
    kept = np.asarray(relevant.any(axis=1))
    empty = np.flatnonzero(~kept)
    if empty.size and on_empty == "error":
        raise ValueError(
            f"{empty.size} of {len(kept)} queries have no relevant sticker (rows "
            f"{first_rows(empty)}). Check the relevance protocol, or pass on_empty='exclude'."
        )
    if not kept.any():
        raise ValueError(f"None of the {len(kept)} queries has a relevant sticker.")
    return kept


def row_blocks(table: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Cuts a table into runs of rows of bounded size, each with the index of its first row."""
    step = max(1, _BLOCK_ELEMENTS // table.shape[1])
    for start in range(0, len(table), step):
        yield start, table[start : start + step]


def first_rows(rows: Any) -> str:
    """Lists the first few row numbers for a message."""
    listed = ", ".join(str(int(row)) for row in rows[:_LISTED_ROWS])
    return listed + (", ..." if len(rows) > _LISTED_ROWS else "")
