"""StickerInt in the LMDB form that the authors' scripts build from its files.

    SRC/{train,valid,test}/pairs    number -> pickled tuple of eleven fields
    SRC/{train,valid,test}/imgs     image_id -> base64; or one SRC/imgs for all
    SRC/intent_label.txt            as in the release; copy it there

A pickle is a program. Only those are run that hold nothing but tuples, lists, strings and numbers.
"""

import io
import multiprocessing
import pickle
import pickletools
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

from data_prep.formats.labels import Labels, read_labels
from data_prep.formats.pictures import MAX_TEXT
from data_prep.formats.reading import MAX_LINE, InputDirectory, check_storable, decode_base64
from data_prep.formats.staging import READING_ORDER, Description, Staging
from data_prep.formats.stickerint import DESCRIPTION as RELEASE
from data_prep.formats.stickerint import LABELS_FILE, add_row
from data_prep.problems import short
from int_ra_jax.data import schema

DESCRIPTION = Description(
    name=RELEASE.name,
    licence=RELEASE.licence,
    source="StickerInt release (arXiv 2403.05427), imported from LMDB",
    notes=RELEASE.notes,
)
FIELDS = (
    "image_ids",
    "textid",
    "text",
    "style",
    "form",
    "coarse_intent",
    "fined_intent",
    "intent_zh",
    "keyword",
    "speaker",
    "comet",
)
_DATA_FILE = "data.mdb"
_PLAIN = frozenset(
    (
        *("PROTO", "FRAME", "MARK", "STOP", "POP", "POP_MARK"),
        *("MEMOIZE", "PUT", "BINPUT", "LONG_BINPUT", "GET", "BINGET", "LONG_BINGET"),
        *("NONE", "NEWTRUE", "NEWFALSE", "FLOAT", "BINFLOAT"),
        *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4"),
        *("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
        *("EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"),
        *("EMPTY_LIST", "LIST", "APPEND", "APPENDS"),
    )
)


def read(source: InputDirectory, staging: Staging) -> Labels:
    """Reads the databases into the staging area.

    Args:
      source: the directory with the databases above.
      staging: takes conversations and pictures.

    Returns:
      The intentions.
    """
    _lmdb()  # before the first database, so that a missing package is not taken for a damaged one
    labels = read_labels(source, LABELS_FILE)
    folders = ["imgs", *(f"{split}/imgs" for split in schema.SPLITS)]
    pairs = [f"{split}/pairs" for split in READING_ORDER]
    present = [name for name in [*folders, *pairs] if source.has(f"{name}/{_DATA_FILE}")]
    for name in [name for name in pairs if name not in present]:
        source.problems.add(name, 0, f"database is missing in {source.root}")
    if not set(folders) & set(present):
        source.problems.add("imgs", 0, f"no database of pictures in {source.root}")
    for name in _sound(source, present):
        if name in folders:
            _read_pictures(source, staging, name)
        else:
            _read_pairs(source, staging, name, labels)
    return labels


def _read_pictures(source: InputDirectory, staging: Staging, name: str) -> None:
    for line, key, value in _entries(source, name, MAX_TEXT):
        try:
            content = decode_base64(value.decode("ascii", "replace"))
        except ValueError as error:
            source.problems.add(name, line, f"image of sticker {short(key)}: {error}")
        else:
            staging.pictures.add(key, content, name, line)


def _read_pairs(source: InputDirectory, staging: Staging, name: str, labels: Labels) -> None:
    for line, key, value in _entries(source, name, MAX_LINE):
        try:
            record = dict(zip(FIELDS, _fields(value), strict=True))
        except ValueError as error:
            source.problems.add(name, line, f"key {short(key)}: {error}")
        else:
            add_row(record, name.split("/")[0], name, line, staging, labels)


def _fields(value: bytes) -> tuple[Any, ...]:
    fields = load_plain_pickle(value)
    if not isinstance(fields, tuple) or len(fields) != len(FIELDS):
        raise ValueError(f"expected a tuple of {len(FIELDS)} fields: {', '.join(FIELDS)}")
    # Shared lists within lists would grow without end when they are walked.
    for name, field in zip(FIELDS, fields, strict=True):
        if not isinstance(field, str | int | float | None):
            raise ValueError(f"field {name} is a {type(field).__name__}, expected text or a number")
    check_storable(fields)
    return fields


def load_plain_pickle(content: bytes) -> Any:
    """Loads a pickle that holds tuples, lists, strings and numbers, and nothing that runs.

    Its instructions are checked before the first of them is carried out.

    Raises:
      ValueError: if it is damaged or would do anything else.
    """
    try:
        for code, argument, _ in pickletools.genops(content):
            if code.name not in _PLAIN:
                raise ValueError(f"pickle with the instruction {code.name}, which may run code")
            # A far place in the memo makes the loader allocate all places before it.
            if "PUT" in code.name and int(argument or 0) > len(content):
                raise ValueError(f"pickle with a memo of {argument} places")
    except ValueError as error:
        raise ValueError(f"refused: {short(str(error), 120)}") from None
    except Exception as error:  # the parser of hostile bytes raises anything, IndexError included
        raise ValueError(f"damaged pickle: {type(error).__name__}") from None
    try:
        return _PlainUnpickler(io.BytesIO(content)).load()
    except Exception as error:
        raise ValueError(f"damaged pickle: {type(error).__name__}") from None


class _PlainUnpickler(pickle.Unpickler):
    """A second defence behind the check of the instructions: no name is ever looked up."""

    def find_class(self, module: str, name: str) -> NoReturn:
        raise pickle.UnpicklingError(f"refused to load {module}.{name}")


def _entries(source: InputDirectory, name: str, limit: int) -> Iterator[tuple[int, str, bytes]]:
    """Yields number, key and value of a database; the number counts its rows from 1."""
    stated, rows = None, 0
    for number, (raw, value) in enumerate(_walk(source.root / name), start=1):
        key = raw.decode("utf-8", "backslashreplace")
        if key in ("num_samples", "num_images"):
            stated = value[:20].decode("ascii", "replace")
        elif len(value) > limit:
            source.problems.add(name, number, f"key {short(key)} has more than {limit:,} bytes")
        else:
            yield number, key, value
        rows += key not in ("num_samples", "num_images")
    if stated is not None and stated != str(rows):
        source.problems.add(name, 0, f"database states {short(stated)} rows and holds {rows}")
    if not rows:
        source.problems.add(name, 0, "database is empty")


def _walk(path: Path) -> Iterator[tuple[bytes, bytes]]:
    lmdb = _lmdb()
    with (
        lmdb.open(str(path), readonly=True, lock=False, readahead=False, create=False) as database,
        database.begin() as transaction,
    ):
        yield from transaction.cursor()


def _sound(source: InputDirectory, names: list[str]) -> list[str]:
    """Returns the databases that can be read, and notes a problem for each of the others.

    They are walked in another process: LMDB maps a file, and a damaged one kills its reader.
    """
    sound: list[str] = []
    rest = names
    while rest:
        walked = _walked_apart([source.root / name for name in rest])
        sound += rest[:walked]
        if walked < len(rest):
            message = "damaged database: reading it fails. Copy it again"
            source.problems.add(rest[walked], 0, message)
        rest = rest[walked + 1 :]
    return sound


def _walked_apart(paths: list[Path]) -> int:
    """Returns how many of the databases a process of its own has read before it ended."""
    context = multiprocessing.get_context("spawn")
    walked = context.Value("i", 0)
    process = context.Process(target=_exhaust, args=(paths, walked))
    process.start()
    process.join()
    return int(walked.value)


def _exhaust(paths: list[Path], walked: Any) -> None:
    try:
        for path in paths:
            for _ in _walk(path):
                pass
            walked.value += 1
    except Exception:  # whatever it is, the caller reports it; a traceback would only alarm
        sys.exit(1)


def _lmdb() -> ModuleType:
    try:
        import lmdb  # needed for this format only
    except ImportError:
        raise ImportError("this format needs the package lmdb: pip install lmdb") from None
    return lmdb
