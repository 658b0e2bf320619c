"""A pack of stickers that replies name: pictures, codes, and what readers saw in each sticker.

    PACK/stickers.jsonl     {"id", "name", "codes": [...], "image": "images/x.png"} a line
    openmoji                instead of a directory: emoji by code point, drawn by OpenMoji

The intentions and attributes of a sticker come from two independent readings and their
adjudication (``readings/*.jsonl``; docs/data.md has how they were made and how far they agree). A
sticker without one is not in the pack, since a conversation needs an intention.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any

from data_prep.embedded import openmoji
from data_prep.formats.labels import Labels
from data_prep.formats.reading import InputDirectory
from data_prep.formats.staging import Staging
from data_prep.problems import Problems, short
from int_ra_jax.common.types import ATTRIBUTES
from int_ra_jax.data.schema import StickerEntry

OPENMOJI = "openmoji"


@dataclass(frozen=True)
class PackSticker:
    """One sticker of a pack.

    Attributes:
      id: unique in the pack.
      name: what its makers call it.
      codes: what people's texts have in its place, without brackets.
      picture: returns the encoded picture.
      intentions: what people express with it, the commonest first.
      attributes: what its picture shows, by name of the attribute.
    """

    id: str
    name: str
    codes: tuple[str, ...]
    picture: Callable[[], bytes]
    intentions: tuple[str, ...]
    attributes: Mapping[str, str]


class Pack:
    """Stickers by id and by code.

    Attributes:
      stickers: id -> sticker.
      codes: code -> id.
    """

    def __init__(self, stickers: Mapping[str, PackSticker]) -> None:
        self.stickers = stickers
        self.codes = {code: one.id for one in stickers.values() for code in one.codes}
        self._taken: set[str] = set()

    def take(self, sticker: str, staging: Staging) -> None:
        """Puts a sticker's picture and description into the staging, once."""
        if sticker in self._taken:
            return
        self._taken.add(sticker)
        one = self.stickers[sticker]
        staging.pictures.add(one.id, one.picture(), "stickers.jsonl", 0)
        staging.declare(
            StickerEntry(
                id=one.id,
                image="",
                attributes=one.attributes,
                tags=tuple(dict.fromkeys((one.name, *one.codes))),
                intentions=one.intentions,
            )
        )

    def labels(self) -> Labels:
        """Returns the intentions of the stickers that were taken."""
        names = {name for one in self._taken for name in self.stickers[one].intentions}
        return Labels(sorted(names), stated=True)


def load(name: str, problems: Problems) -> Pack:
    """Opens a pack.

    Args:
      name: a directory with ``stickers.jsonl`` and its pictures, or ``openmoji``.
      problems: where everything is noted that is wrong with it.

    Raises:
      FileNotFoundError: if the directory has no ``stickers.jsonl``.
    """
    if name == OPENMOJI:
        return _openmoji()
    root = Path(name)
    if not (root / "stickers.jsonl").is_file():
        raise FileNotFoundError(
            f"--stickers={name} holds no stickers.jsonl. Name the pack's directory, or "
            f"{OPENMOJI} for emoji."
        )
    directory, readings, found = InputDirectory(root, problems), _readings("weibo"), {}
    for line, record in directory.records("stickers.jsonl"):
        message = _message(record, directory)
        if message:
            problems.add("stickers.jsonl", line, message)
        elif record["id"] not in readings:
            problems.warn("stickers.jsonl", line, f"sticker {short(record['id'])} has no reading")
        else:
            picture = root / record["image"]
            found[record["id"]] = _sticker(
                record["id"], record["name"], record["codes"], picture.read_bytes, readings
            )
    return Pack(found)


def _openmoji() -> Pack:
    readings = _readings(OPENMOJI)
    drawn = {code: openmoji.artwork(code) for code in readings}
    return Pack(
        {
            code: _sticker(
                code, art.names[0], (art.emoji,), partial(openmoji.rasterise, art), readings
            )
            for code, art in drawn.items()
        }
    )


def _sticker(
    identity: str,
    name: str,
    codes: list[str] | tuple[str, ...],
    picture: Callable[[], bytes],
    readings: Mapping[str, Mapping[str, Any]],
) -> PackSticker:
    read = readings[identity]
    attributes = {key: read["attributes"][key] for key in ATTRIBUTES}
    # Its name is what a sticker says, beside what is written on it.
    said = dict.fromkeys(filter(None, (name, attributes["verbal"])))
    attributes["verbal"] = ", ".join(said)
    return PackSticker(identity, name, tuple(codes), picture, tuple(read["intentions"]), attributes)


def _readings(name: str) -> dict[str, Any]:
    """Returns sticker id -> its reading: intentions and attributes."""
    path = resources.files("data_prep.formats") / "readings" / f"{name}.jsonl"
    rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    return {row["id"]: row for row in rows}


def _message(record: Mapping[str, Any], directory: InputDirectory) -> str | None:
    for key in ("id", "name", "image"):
        if not isinstance(record.get(key), str) or not record[key]:
            return f"{key} is {short(record.get(key))}, expected a string"
    codes = record.get("codes")
    if not isinstance(codes, list) or not all(isinstance(one, str) and one for one in codes):
        return f"codes is {short(codes)}, expected a list of strings"
    if not directory.has(record["image"]):
        return f"image {short(record['image'])} is missing"
    return None
