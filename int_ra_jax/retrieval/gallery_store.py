"""A gallery on disk: one LanceDB table of stickers, and one of embeddings for each checkpoint.

An embedding lies under the hash of what it was computed from, and not under a sticker's id: so a
put writes the embedding first and then, in one step, the sticker that refers to it. Whoever reads
in between, or after the writer was killed in between, sees the old sticker with its old embedding.
"""

import contextlib
import datetime
import threading
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float32

from int_ra_jax.retrieval import words
from int_ra_jax.retrieval.gallery_rows import Stored, sticker_schema, stored, to_row
from int_ra_jax.retrieval.sticker_encoder import Encoded
from int_ra_jax.retrieval.stickers import GallerySticker

_STICKERS, _VECTORS = "stickers", "vectors_"
_EMBEDDED = ("digest", "rows", "said")
_NONE = np.zeros((0, 1), np.float32)
_ASKED = 500  # ids in one condition
_COMPACT = 128  # writes after which small files are joined
_INDEXED = 20_000  # rows from which on ids are found by an index
_ANN = 4096  # rows from which on an index of embeddings is made; fewer are scanned
_KEPT = datetime.timedelta(hours=1)  # readers may still be at versions of this age
_ABOUT = -2  # columns behind this one are what is searched and the picture
_OLDEST = -1  # version before all


class Embeddings(NamedTuple):
    """Rows f32[N, W], and f32[N, Dt] for typed words, with the digests under which they lie."""

    digests: list[str]
    rows: np.ndarray
    said: np.ndarray


class GalleryStore:
    """Reads and writes a gallery's tables.

    Args:
      uri: a local folder, or what else LanceDB takes.
      create: whether tables are made where there are none.

    Raises:
      FileNotFoundError: if there is no gallery and ``create`` is False.
      ValueError: if lancedb is not installed, or the folder holds something else.
    """

    def __init__(self, uri: str | Path, create: bool = True) -> None:
        try:
            import lancedb  # here, because it takes seconds, and a run's own gallery needs none
            from filelock import FileLock
        except ImportError as error:
            raise ValueError(f"a gallery needs {error.name}: pip install -e '.[gallery]'") from None
        self.uri = str(uri)
        local = "://" not in self.uri
        if local and not create and not Path(self.uri, f"{_STICKERS}.lance").is_dir():
            raise FileNotFoundError(f"{self.uri} holds no gallery; name another, or make one.")
        if local:
            Path(self.uri).mkdir(parents=True, exist_ok=True)
        self._db = lancedb.connect(self.uri)
        # Of object storage LanceDB itself refuses the second of two writes at once.
        self._lock: Any = FileLock(Path(self.uri) / ".writer.lock") if local else None
        self._thread_lock = threading.RLock()
        self._vectors: dict[str, Any] = {}
        self._writes = 0
        self._stickers = self._table(_STICKERS)
        if self._stickers is None:
            if not create:
                raise FileNotFoundError(f"{self.uri} holds no gallery; name another, or make one.")
            with self.writing():
                self._stickers = self._table(_STICKERS)  # another process may have made it
                if self._stickers is None:
                    self._stickers = self._made()

    def _made(self) -> Any:
        table = self._db.create_table(_STICKERS, schema=sticker_schema())
        words.index_terms(table)
        return table

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Is entered by one thread of one process at a time; at the newest version."""
        with self._thread_lock, self._lock or contextlib.nullcontext():
            if self._stickers is not None:
                self._stickers.checkout_latest()
            yield

    @property
    def version(self) -> int:
        """Of the stickers, as they are read now."""
        return int(self._stickers.version)

    def refresh(self) -> int:
        """Goes to the newest version and returns it; waits for no writer."""
        self._stickers.checkout_latest()
        return self.version

    def __len__(self) -> int:
        return int(self._stickers.count_rows())

    # ---- stickers -------------------------------------------------------------------------------

    def changed_since(self, version: int = _OLDEST) -> Iterator[list[Stored]]:
        """Yields the stickers that were written after a version, in batches, without pictures."""
        query = self._stickers.search().select(sticker_schema().names[:_ABOUT])
        if version > _OLDEST:
            query = query.where(f"changed > {version}")
        for batch in query.to_batches():
            yield [stored(row) for row in batch.to_pylist()]

    def digests(self) -> dict[str, str]:
        """Returns id -> digest of all stickers."""
        found = self._stickers.search().select(["id", "digest"]).to_arrow()
        return dict(zip(found["id"].to_pylist(), found["digest"].to_pylist(), strict=True))

    def read(self, ids: Sequence[str], pictures: bool = False) -> dict[str, Stored]:
        """Returns stickers by their ids; those that are not there are left out."""
        names = sticker_schema().names
        columns = [*names[:_ABOUT], *(names[-1:] if pictures else ())]
        found = {}
        for some in _conditions("id", ids):
            for row in self._stickers.search().where(some).select(columns).to_arrow().to_pylist():
                found[row["id"]] = stored(row)
        return found

    def write(self, stickers: Sequence[GallerySticker], digests: Sequence[str]) -> None:
        """Inserts stickers or replaces those of the same id; inside ``writing``.

        Args:
          stickers: complete, each id once.
          digests: under which their embeddings lie already.
        """
        import pyarrow as pa

        changed = self.version + 1
        rows = [to_row(*one, changed) for one in zip(stickers, digests, strict=True)]
        merge = self._stickers.merge_insert("id").when_matched_update_all()
        merge = merge.when_not_matched_insert_all()
        merge.execute(pa.Table.from_pylist(rows, schema=sticker_schema()))
        self._written()

    def mark(self, ids: Sequence[str], **flags: bool) -> None:
        """Sets flags of stickers; inside ``writing``."""
        for some in _conditions("id", ids):
            self._stickers.update(some, values={**flags, "changed": self.version + 1})
        self._written()

    def delete(self, ids: Sequence[str]) -> None:
        """Removes stickers; inside ``writing``."""
        for some in _conditions("id", ids):
            self._stickers.delete(some)
        self._written()

    def matches(self, query: str, number: int) -> list[str]:
        """Returns the ids of stickers that have any of a query's words, the best first."""
        return words.matches(self._stickers, query, number)

    # ---- embeddings -----------------------------------------------------------------------------

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

        parts = encoded._asdict()
        vectors = [(name, pa.list_(pa.float32(), one.shape[1])) for name, one in parts.items()]
        schema = pa.schema([("digest", pa.string()), *vectors])
        distinct = [*{one: place for place, one in enumerate(digests)}.values()]
        columns: list[Any] = [pa.array([digests[place] for place in distinct])]
        for array in encoded:
            flat = pa.array(np.ascontiguousarray(array[distinct], np.float32).reshape(-1))
            columns.append(pa.FixedSizeListArray.from_arrays(flat, array.shape[1]))
        table = self.vectors(checksum)
        if table is None:
            table = self._db.create_table(f"{_VECTORS}{checksum}", schema=schema)
            self._vectors[checksum] = table
        merge = table.merge_insert("digest").when_not_matched_insert_all()
        merge.execute(pa.Table.from_arrays(columns, schema=schema))

    def vectors(self, checksum: str) -> Any:
        """Returns the table of a checkpoint's embeddings at its newest version, or None."""
        if checksum not in self._vectors:
            table = self._table(f"{_VECTORS}{checksum}")
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
        for some in _conditions("digest", digests) if table is not None else ():
            for batch in table.search().where(some).select([*_EMBEDDED]).to_batches():
                names += batch["digest"].to_pylist()
                rows.append(_matrix(batch["rows"]))
                said.append(_matrix(batch["said"]))
        return Embeddings(names, _joined(rows), _joined(said))

    def missing(self, checksum: str, digests: Iterable[str]) -> list[str]:
        """Returns those digests of which a checkpoint has no embedding."""
        known = {*self.all_embeddings(checksum, rows=False).digests}
        return [one for one in dict.fromkeys(digests) if one not in known]

    def intentions(self, checksum: str, name: str) -> list[float] | None:
        """Returns the probabilities that stand in one embedding, or None."""
        table = self.vectors(checksum)
        if table is None:
            return None
        query = table.search().where(f"digest = {_quoted(name)}").select(["intentions"])
        rows = query.to_arrow()["intentions"].to_pylist()
        return rows[0] if rows else None

    def nearest(
        self, checksum: str, query: Float32[np.ndarray, "W"], number: int, refine: int
    ) -> "Embeddings":
        """Returns likely candidates for the largest dot products with a query.

        Args:
          checksum: of the checkpoint.
          query: a row.
          number: how many at most.
          refine: of how many times as many the distance is computed exactly.
        """
        search = self.vectors(checksum).search(query, "rows").distance_type("dot").limit(number)
        search = search.refine_factor(refine).select([*_EMBEDDED[:2], "_distance"])
        found = search.to_arrow().combine_chunks()
        rows = _matrix(found["rows"].combine_chunks()) if len(found) else _NONE
        return Embeddings(found["digest"].to_pylist(), rows, _NONE)

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
                vectors.append(_matrix(batch["rows"]))
                said.append(_matrix(batch["said"]))
        return Embeddings(names, _joined(vectors), _joined(said))

    def each_embedding(self, checksum: str) -> Iterator["Embeddings"]:
        """Yields all embeddings of a checkpoint, in batches."""
        for batch in self.batches(checksum, _EMBEDDED[:2]):
            yield Embeddings(batch["digest"].to_pylist(), _matrix(batch["rows"]), _NONE)

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
                table.optimize(cleanup_older_than=_KEPT)
            else:
                table.create_index("rows", config=IvfPq(distance_type="dot"))

    def forget_others(self, checksums: set[str]) -> None:
        """Deletes embeddings of older checkpoints, but of the newest, which may answer elsewhere.

        Args:
          checksums: whose embeddings stay as well.
        """
        with self.writing():
            others = [one for one in self.checksums() if one not in checksums]
            written = {one: self.vectors(one).list_versions()[-1]["timestamp"] for one in others}
            for one in sorted(others, key=lambda one: written[one])[:-1]:
                self._vectors.pop(one, None)
                self._db.drop_table(f"{_VECTORS}{one}")

    # ---- upkeep ---------------------------------------------------------------------------------

    def _written(self) -> None:
        """Joins the small files that writes leave, now and then; inside ``writing``."""
        self._writes += 1
        if self._writes % _COMPACT == 0:
            self.compact()

    def compact(self) -> None:
        """Joins small files, and deletes versions that nobody reads; inside ``writing``."""
        self._sweep()
        for table, column in (
            (self._stickers, "id"),
            *((t, "digest") for t in self._vectors.values()),
        ):
            if table.count_rows() >= _INDEXED and not any(
                column in one.columns for one in table.list_indices()
            ):
                table.create_scalar_index(column)
            table.optimize(cleanup_older_than=_KEPT)

    def _sweep(self) -> None:
        """Deletes embeddings of no sticker, where they have become many."""
        used: set[str] | None = None
        for checksum, table in self._vectors.items():
            if table.count_rows() <= 1.1 * len(self) + _COMPACT:
                continue
            if used is None:
                used = {*self.digests().values()}
            known = self.all_embeddings(checksum, rows=False).digests
            for some in _conditions("digest", [one for one in known if one not in used]):
                table.delete(some)

    def _table(self, name: str) -> Any:
        try:
            return self._db.open_table(name)
        except (ValueError, FileNotFoundError) as error:
            if "not found" in str(error):
                return None
            raise


def _matrix(column: Any) -> Float32[np.ndarray, "N W"]:
    """Returns a column of lists of one length as rows."""
    flat = column.flatten().to_numpy(zero_copy_only=False)
    return flat.reshape(len(column), -1) if len(column) else np.zeros((0, 1), np.float32)


def _joined(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Joins rows; the first part is for where there are no others."""
    return np.concatenate(parts[1:] or parts)


def _conditions(column: str, values: Sequence[str]) -> Iterator[str]:
    """Yields SQL that asks for values, some at a time."""
    for start in range(0, len(values), _ASKED):
        some = ", ".join(map(_quoted, values[start : start + _ASKED]))
        yield f"{column} IN ({some})"


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
