"""A sticker as a row of a gallery's table, and back."""

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from int_ra_jax.common.types import ATTRIBUTES
from int_ra_jax.retrieval import words
from int_ra_jax.retrieval.stickers import GallerySticker
from int_ra_jax.run.array_store import digest

_TEXTS = ("pack", "name", *ATTRIBUTES, "words", "language", "media_type", "digest")
_LISTS = ("tags", "emoji")
_WHENCE = ("attributes_given", "attributes_described")
_FLAGS = ("adult", "approved", "hidden")


class Stored(NamedTuple):
    """A sticker as it is stored, without its picture.

    Attributes:
      sticker: with given intentions alone.
      digest: under which its embedding lies.
      changed: version in which it was written.
    """

    sticker: GallerySticker
    digest: str
    changed: int


def digest_of(sticker: GallerySticker) -> str:
    """Returns the hash of what a sticker's embedding depends on, besides the checkpoint."""
    given = None if sticker.intentions is None else dict(sorted(sticker.intentions.items()))
    attributes = [sticker.attributes[name] for name in ATTRIBUTES]
    names = [sticker.name, sticker.words, *sticker.emoji, *sticker.tags]
    # The id, since a system that draws draws for each sticker.
    return digest([json.dumps([sticker.id, attributes, given, names]), sticker.picture])


def sticker_schema() -> Any:
    """Returns the columns of the table of stickers, last what is searched and the picture."""
    import pyarrow as pa

    return pa.schema(
        [
            pa.field("id", pa.string(), nullable=False),
            *((name, pa.string()) for name in _TEXTS),
            *((name, pa.list_(pa.string())) for name in _LISTS),
            *((name, pa.bool_()) for name in _FLAGS),
            ("intentions", pa.string()),  # JSON of given ones, or null
            ("attributes_given", pa.list_(pa.string())),  # null where an older version wrote it
            ("attributes_described", pa.list_(pa.string())),  # null where nobody described it
            ("looks", pa.binary()),
            ("changed", pa.int64()),
            (words.COLUMN, pa.string()),
            ("picture", pa.large_binary()),
        ]
    )


def to_row(sticker: GallerySticker, name: str, changed: int) -> dict[str, Any]:
    """Returns a sticker as a row.

    Args:
      sticker: complete.
      name: digest under which its embedding lies.
      changed: version in which it is written.
    """
    given = sticker.intentions
    own = ("id", "pack", "name", "words", "language", "media_type", *_LISTS, *_FLAGS, "looks")
    return {
        **{key: getattr(sticker, key) for key in own},
        **{key: sticker.attributes[key] for key in ATTRIBUTES},
        "digest": name,
        "intentions": None if given is None else json.dumps(dict(given)),
        "attributes_given": sticker.attributes_given,
        "attributes_described": sticker.attributes_described,
        "changed": changed,
        words.COLUMN: words.terms_of(**called(sticker)),
        "picture": sticker.picture,
    }


def called(sticker: GallerySticker) -> dict[str, Any]:
    """Returns what a sticker is called, as ``words`` takes it."""
    return {
        name: getattr(sticker, name) for name in ("name", "emoji", "tags", "attributes", "words")
    }


def stored(row: Mapping[str, Any]) -> Stored:
    """Returns a row as what it says; inverse of ``to_row``, the picture may be left out."""
    given = row["intentions"]
    plain = ("id", "pack", "name", "words", "language", "media_type", *_FLAGS, "looks")
    columns: dict[str, Any] = {key: row[key] for key in plain}
    columns |= {key: tuple(row[key] or ()) for key in _LISTS}
    columns |= {key: None if row[key] is None else tuple(row[key]) for key in _WHENCE}
    sticker = GallerySticker(
        **columns,
        attributes={key: row[key] for key in ATTRIBUTES},
        intentions=None if given is None else json.loads(given),
        intentions_given=given is not None,
        picture=row.get("picture", b""),
    )
    return Stored(sticker, row["digest"], row["changed"])
