"""A gallery's embeddings: a table for each checkpoint, and one of what it cannot embed."""

import contextlib
import datetime
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float32

from int_ra_jax.retrieval.sticker_encoder import Encoded

_VECTORS, _REFUSED = "vectors_", "refused_"
_EMBEDDED = ("digest", "rows", "said")
_NONE = np.zeros((0, 1), np.float32)
_ASKED = 500  # values in one condition
KEPT = datetime.timedelta(hours=1)  # readers may still be at versions of this age
_PART = 16  # numbers that the index codes together: rows are padded to a multiple of so many
_WIDTH = b"width"  # of a row without its padding, in the metadata of its field
_ANN = 4096  # rows from which on an index of embeddings is made; fewer are scanned


class Embeddings(NamedTuple):
    """Rows f32[N, W], and f32[N, Dt] for typed words, with the digests under which they lie."""

    digests: list[str]
    rows: np.ndarray
    said: np.ndarray


class EmbeddingTables(ABC):
    """Reads and writes the embeddings of checkpoints.

    Args:
      db: the connection to a gallery.
    """

    def __init__(self, db: Any) -> None:
        self._db = db
        self._vectors: dict[str, Any] = {}

    @abstractmethod
    def writing(self) -> contextlib.AbstractContextManager[None]:
        """Is entered by one thread of one process at a time."""

    def checksums(self) -> list[str]:
        """Returns the checkpoints of which there are embeddings."""
        names = self._db.list_tables(limit=1000).tables
        return [name.removeprefix(_VECTORS) for name in names if name.startswith(_VECTORS)]

    def add_vectors(
        self,
        checksum: str,
        digests: Sequence[str],
        encoded: Encoded,
    ) -> None:
        """Keeps embeddings, inside ``writing``."""
        import pyarrow as pa

        distinct = [*{one: place for place, one in enumerate(digests)}.values()]
        table = self.vectors(checksum)
        if table is None:
            table = self._db.create_table(f"{_VECTORS}{checksum}", schema=_schema(encoded))
            self._vectors[checksum] = table
        schema = table.schema
        columns: list[Any] = [pa.array([digests[place] for place in distinct])]
        for name, array in encoded._asdict().items():
            width = schema.field(name).type.list_size
            padded = _padded(array[distinct].astype(np.float32), width)
            columns.append(pa.FixedSizeListArray.from_arrays(pa.array(padded.reshape(-1)), width))
        merge = table.merge_insert("digest").when_not_matched_insert_all()
        merge.execute(pa.Table.from_arrays(columns, schema=schema))

    def vectors(self, checksum: str) -> Any:
        """Returns the table of a checkpoint's embeddings at its newest version, or None."""
        if checksum not in self._vectors:
            table = opened(self._db, f"{_VECTORS}{checksum}")
            if table is None:
                return None
            self._vectors[checksum] = table
        self._vectors[checksum].checkout_latest()
        return self._vectors[checksum]

    def embeddings(self, checksum: str, digests: Sequence[str]) -> "Embeddings":
        """Returns those of some embeddings that there are."""
        table = self.vectors(checksum)
        names: list[str] = []
        rows, said = [_NONE], [_NONE]
        for some in conditions("digest", digests) if table is not None else ():
            for batch in table.search().where(some).select([*_EMBEDDED]).to_batches():
                names += batch["digest"].to_pylist()
                rows.append(_rows(batch))
                said.append(_matrix(batch["said"]))
        return Embeddings(names, _joined(rows), _joined(said))

    def missing(self, checksum: str, digests: Iterable[str], refused: bool = False) -> list[str]:
        """Returns those digests of which a checkpoint has no embedding.

        Args:
          checksum: of the checkpoint.
          digests: that are asked about.
          refused: whether those that it could not embed are missing as well.
        """
        known = {*self.all_embeddings(checksum, rows=False).digests}
        known |= set() if refused else self.refused(checksum).keys()
        return [one for one in dict.fromkeys(digests) if one not in known]

    def version_of(self, checksum: str) -> int:
        """Returns the version of a checkpoint's embeddings, 0 where there are none."""
        table = self.vectors(checksum)
        return 0 if table is None else int(table.version)

    def refuse(self, checksum: str, reasons: Mapping[str, str]) -> None:
        """Keeps why a checkpoint cannot embed stickers, inside ``writing``.

        Args:
          checksum: of the checkpoint.
          reasons: digest -> why.
        """
        import pyarrow as pa

        columns = {"digest": [*reasons], "reason": [*reasons.values()]}
        rows = pa.table({name: pa.array(values, "string") for name, values in columns.items()})
        table = opened(self._db, f"{_REFUSED}{checksum}")
        if table is None:
            self._db.create_table(f"{_REFUSED}{checksum}", rows)
            return
        merge = table.merge_insert("digest").when_matched_update_all()
        merge.when_not_matched_insert_all().execute(rows)

    def refused(self, checksum: str) -> dict[str, str]:
        """Returns digest -> why a checkpoint could not embed it; it may have an embedding since."""
        table = opened(self._db, f"{_REFUSED}{checksum}")
        rows = table.search().to_list() if table is not None else ()
        return {row["digest"]: row["reason"] for row in rows}

    def intentions(self, checksum: str, name: str) -> list[float] | None:
        """Returns the probabilities that stand in one embedding, or None."""
        table = self.vectors(checksum)
        if table is None:
            return None
        query = table.search().where(f"digest = {quoted(name)}").select(["intentions"])
        rows = query.to_arrow()["intentions"].to_pylist()
        return rows[0] if rows else None

    def nearest(
        self, checksum: str, query: Float32[np.ndarray, "W"], number: int, refine: int, probes: int
    ) -> "Embeddings":
        """Returns likely candidates for the largest dot products with a query.

        Args:
          checksum: of the checkpoint.
          query: a row.
          number: how many at most.
          refine: of how many times as many the distance is computed exactly.
          probes: how many of the index's lists are read.
        """
        table = self.vectors(checksum)
        query = _padded(query, table.schema.field("rows").type.list_size)
        search = table.search(query, "rows").distance_type("dot").limit(number)
        search = search.refine_factor(refine).nprobes(probes)
        search = search.select([*_EMBEDDED[:2], "_distance"])
        found = search.to_arrow().combine_chunks()
        parts = [_rows(one) for one in found.to_batches()]
        return Embeddings(found["digest"].to_pylist(), _joined([_NONE, *parts]), _NONE)

    def all_embeddings(self, checksum: str, rows: bool = True) -> "Embeddings":
        """Returns all embeddings of a checkpoint.

        Args:
          checksum: of the checkpoint.
          rows: whether their numbers are read, or their digests alone.
        """
        names: list[str] = []
        vectors, said = [_NONE], [_NONE]
        for batch in self.batches(checksum, _EMBEDDED if rows else _EMBEDDED[:1]):
            names += batch["digest"].to_pylist()
            if rows:
                vectors.append(_rows(batch))
                said.append(_matrix(batch["said"]))
        return Embeddings(names, _joined(vectors), _joined(said))

    def each_embedding(self, checksum: str) -> Iterator["Embeddings"]:
        """Yields all embeddings of a checkpoint, in batches."""
        for batch in self.batches(checksum, _EMBEDDED[:2]):
            yield Embeddings(batch["digest"].to_pylist(), _rows(batch), _NONE)

    def batches(self, checksum: str, columns: Sequence[str]) -> Iterator[Any]:
        """Yields columns of a checkpoint's embeddings, nothing where there are none."""
        table = self.vectors(checksum)
        yield from table.search().select([*columns]).to_batches() if table is not None else ()

    def index(self, checksum: str) -> None:
        """Makes the index that ``nearest`` uses, or takes new embeddings into it.

        Fewer than some thousand embeddings are scanned, which is exact.
        """
        from lancedb.index import IvfPq

        with self.writing():
            table = self.vectors(checksum)
            if table is None or table.count_rows() < _ANN:
                return
            if any("rows" in one.columns for one in table.list_indices()):
                table.optimize(cleanup_older_than=KEPT)
            else:
                table.create_index("rows", config=IvfPq(distance_type="dot"))

    def others(self, checksums: set[str]) -> list[str]:
        """Returns the checkpoints with embeddings, but for some; the last written is last."""
        found = [one for one in self.checksums() if one not in checksums]
        written = {one: self.vectors(one).list_versions()[-1]["timestamp"] for one in found}
        return sorted(found, key=lambda one: written[one])

    def forget(self, checksums: Iterable[str]) -> None:
        """Deletes the embeddings of checkpoints, inside ``writing``."""
        for one in checksums:
            self._vectors.pop(one, None)
            self._db.drop_table(f"{_REFUSED}{one}", ignore_missing=True)
            self._db.drop_table(f"{_VECTORS}{one}")


def opened(db: Any, name: str) -> Any:
    """Returns a table, or None where there is none."""
    try:
        return db.open_table(name)
    except (ValueError, FileNotFoundError) as error:
        if "not found" in str(error):
            return None
        raise


def _schema(encoded: Encoded) -> Any:
    """Returns the columns of a table of embeddings."""
    import pyarrow as pa

    fields = [pa.field("digest", pa.string())]
    for name, array in encoded._asdict().items():
        width = array.shape[1]
        size = -(-width // _PART) * _PART if name == "rows" else width
        fields.append(pa.field(name, pa.list_(pa.float32(), size), metadata={_WIDTH: str(width)}))
    return pa.schema(fields)


def _padded(array: Float32[np.ndarray, "*N W"], width: int) -> Float32[np.ndarray, "*N P"]:
    """Returns rows with zeros behind them, which no dot product sees."""
    missing = [(0, 0)] * (array.ndim - 1) + [(0, width - array.shape[-1])]
    return np.pad(array, missing)


def _rows(batch: Any) -> Float32[np.ndarray, "N W"]:
    """Returns the rows of a batch without their padding."""
    metadata = batch.schema.field("rows").metadata or {}  # none in tables from before there was any
    width = metadata.get(_WIDTH)
    return _matrix(batch["rows"])[:, : int(width) if width else None]


def _matrix(column: Any) -> Float32[np.ndarray, "N W"]:
    """Returns a column of lists of one length as rows."""
    flat = column.flatten().to_numpy(zero_copy_only=False)
    return flat.reshape(len(column), -1) if len(column) else np.zeros((0, 1), np.float32)


def _joined(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Joins rows; the first part is for where there are no others."""
    return np.concatenate(parts[1:] or parts)


def conditions(column: str, values: Sequence[str]) -> Iterator[str]:
    """Yields SQL that asks for values, some at a time."""
    for start in range(0, len(values), _ASKED):
        some = ", ".join(map(quoted, values[start : start + _ASKED]))
        yield f"{column} IN ({some})"


def quoted(text: str) -> str:
    """Returns a text as SQL has it."""
    return "'" + text.replace("'", "''") + "'"
