"""A gallery on disk: one LanceDB table of stickers, and those of ``embedding_tables``.

An embedding lies under the hash of what it was computed from, and not under a sticker's id: so a
put writes the embedding first and then, in one step, the sticker that refers to it. Whoever reads
in between, or after the writer was killed in between, sees the old sticker with its old embedding.
"""

import contextlib
import threading
from collections.abc import Iterator, Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from absl import logging

from int_ra_jax.retrieval import words
from int_ra_jax.retrieval.embedding_tables import KEPT, EmbeddingTables, conditions, opened
from int_ra_jax.retrieval.gallery_rows import Stored, sticker_schema, stored, to_row
from int_ra_jax.retrieval.stickers import GallerySticker

_PACKAGES = ("lancedb", "filelock", "jieba")  # the extra ``gallery``
_STICKERS = "stickers"
_COMPACT = 128  # versions after which small files are joined, whoever wrote them
_INDEXED = 20_000  # rows from which on ids are found by an index
_INDEX_CACHE, _METADATA_CACHE = 2**30, 64 * 2**20  # bytes: the codes of some 40 million rows
_ABOUT = -2  # columns behind this one are what is searched and the picture
_OLDEST = -1  # version before all


class GalleryStore(EmbeddingTables):
    """Reads and writes a gallery's tables.

    Args:
      uri: a local folder, or what else LanceDB takes.
      create: whether tables are made where there are none.

    Raises:
      FileNotFoundError: if there is no gallery and ``create`` is False.
      ValueError: if a package of the extra ``gallery`` is not installed.
    """

    def __init__(self, uri: str | Path, create: bool = True) -> None:
        if missing := [name for name in _PACKAGES if find_spec(name) is None]:
            raise ValueError(f"a gallery needs {', '.join(missing)}: pip install -e '.[gallery]'")
        import lancedb  # here, because it takes seconds, and a run's own gallery needs none
        from filelock import FileLock

        self.uri = str(uri)
        local = "://" not in self.uri
        if local and not create and not Path(self.uri, f"{_STICKERS}.lance").is_dir():
            raise _no_gallery(self.uri)
        if local:
            Path(self.uri).mkdir(parents=True, exist_ok=True)
        super().__init__(lancedb.connect(self.uri, session=_session()))
        # Of object storage LanceDB itself refuses the second of two writes at once.
        self._lock: Any = FileLock(Path(self.uri) / ".writer.lock") if local else None
        self._thread_lock = threading.RLock()
        self._stickers = opened(self._db, _STICKERS)
        if self._stickers is None and not create:
            raise _no_gallery(self.uri)
        if (
            self._stickers is None
            or not _is_indexed(self._stickers)
            or _newer_columns(self._stickers)
        ):
            self._make()

    def _make(self) -> None:
        """Makes the table of stickers, or what of it is missing.

        A process that was killed left something out, or an older version made it.
        """
        with self.writing():
            self._stickers = opened(self._db, _STICKERS)  # another process may have made it
            if self._stickers is None:
                self._stickers = self._db.create_table(_STICKERS, schema=sticker_schema())
                logging.info("made an empty gallery at %s", self.uri)
            if newer := _newer_columns(self._stickers):
                self._stickers.add_columns(newer)
            if not _is_indexed(self._stickers):
                words.index_terms(self._stickers)

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Is entered by one thread of one process at a time; at the newest version.

        It is the first lock that a thread takes: see ``StoredShelf`` for the others.
        """
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
        for some in conditions("id", ids):
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
        with self._upkeep():
            merge.execute(pa.Table.from_pylist(rows, schema=sticker_schema()))

    def mark(self, ids: Sequence[str], **flags: bool) -> None:
        """Sets flags of stickers; inside ``writing``."""
        with self._upkeep():
            for some in conditions("id", ids):
                self._stickers.update(some, values={**flags, "changed": self.version + 1})

    def delete(self, ids: Sequence[str]) -> None:
        """Removes stickers; inside ``writing``."""
        with self._upkeep():
            for some in conditions("id", ids):
                self._stickers.delete(some)

    def matches(self, query: str, number: int) -> list[str]:
        """Returns the ids of stickers that have any of a query's words, the best first."""
        return words.matches(self._stickers, query, number)

    # ---- upkeep ---------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _upkeep(self) -> Iterator[None]:
        """Joins the small files that writes leave, now and then; inside ``writing``.

        Versions are counted, which all processes share: most of them write once and end.
        """
        before = self.version
        yield
        if self.version // _COMPACT > before // _COMPACT:
            self.compact()

    def compact(self) -> None:
        """Joins small files, and deletes versions that nobody reads; inside ``writing``."""
        tables = [self.vectors(one) for one in self.checksums()]
        self._sweep(tables)
        for table, column in ((self._stickers, "id"), *((table, "digest") for table in tables)):
            if table.count_rows() >= _INDEXED and not any(
                column in one.columns for one in table.list_indices()
            ):
                table.create_scalar_index(column)
            table.optimize(cleanup_older_than=KEPT)

    def _sweep(self, tables: Sequence[Any]) -> None:
        """Deletes embeddings of no sticker, where they have become many."""
        used: set[str] | None = None
        for table in tables:
            if table.count_rows() <= 1.1 * len(self) + _COMPACT:
                continue
            if used is None:
                used = {*self.digests().values()}
            known = table.search().select(["digest"]).to_arrow()["digest"].to_pylist()
            for some in conditions("digest", [one for one in known if one not in used]):
                table.delete(some)


@cache
def _session() -> Any:
    """Returns what bounds LanceDB's caches, for all galleries of the process.

    By itself it keeps a gigabyte of what describes versions, of which each write makes one.
    """
    import lancedb

    return lancedb.Session(_INDEX_CACHE, _METADATA_CACHE)


def _is_indexed(table: Any) -> bool:
    return any(words.COLUMN in one.columns for one in table.list_indices())


def _newer_columns(table: Any) -> list[Any]:
    there = {*table.schema.names}
    return [one for one in sticker_schema() if one.name not in there]


def _no_gallery(uri: str) -> FileNotFoundError:
    return FileNotFoundError(
        f"{uri} holds no gallery; name another, or make one: launch.py --mode=gallery "
        f"--workdir=RUN --gallery={uri} add PACK"
    )
