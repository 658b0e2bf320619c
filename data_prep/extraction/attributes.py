"""Describes the stickers of a prepared directory: gesture, posture, face and words (equation 7)."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from absl import logging
from tqdm import tqdm

from data_prep.extraction.frames import Picture
from data_prep.extraction.keywords import attributes_of, describe, settle_verbal
from data_prep.extraction.ocr import StickerReader, reader_identity
from data_prep.extraction.prompts import Prompt
from data_prep.extraction.store import ResultStore, digest_of
from data_prep.extraction.work import Chat, Work, check_complete, write
from int_ra_jax.common.files import replace_text
from int_ra_jax.common.types import ATTRIBUTES
from int_ra_jax.data import schema
from int_ra_jax.data.schema import StickerEntry
from int_ra_jax.data.validation import read_prepared

KIND = "attributes"
CHECK_FILE = "verbal_check.jsonl"
VERBAL = ("model", "ocr", "both")


@dataclass(frozen=True)
class Describer:
    """What describes stickers.

    Attributes:
      chat: a model that sees; None for OCR alone.
      prompt: the file ``attributes``.
      verbal: "model", "ocr", or "both", where the OCR checks the model.
      language: of the keywords, by name; "" for the prompt's own.
    """

    chat: Chat | None
    prompt: Prompt
    verbal: str = "both"
    language: str = ""

    def __post_init__(self) -> None:
        """Checks that somebody reads the words.

        Raises:
          ValueError: if a model should, and there is none.
        """
        if self.chat is None and self.verbal != "ocr":
            raise ValueError(f"--verbal={self.verbal} needs a --model; without one, OCR reads")

    @property
    def fills(self) -> tuple[str, ...]:
        """The attributes that are written."""
        return ATTRIBUTES if self.chat else ("verbal",)

    def record(self) -> dict[str, Any]:
        """Returns what dataset.json says of the describer."""
        model = self.chat and {
            "model_name": self.chat.model,
            **self.chat.asked(self.prompt).record(),
        }
        return {
            "model": model or None,
            "prompt": self.prompt.record() if model else None,
            "ocr": None if self.verbal == "model" else reader_identity(),
            "verbal": self.verbal,
            "language": self.language,
        }

    def replies(
        self, pictures: Mapping[str, Picture], store: ResultStore, ask: bool
    ) -> dict[str, dict[str, str]]:
        """Returns digest -> attribute -> the model's raw reply, where it gave one."""
        if self.chat is None:
            return {digest: {} for digest in pictures}
        names = ATTRIBUTES if self.verbal != "ocr" else ATTRIBUTES[:-1]
        dialogues = (
            (digest, describe(self.prompt, picture, picture.shown(), names, self.language))
            for digest, picture in pictures.items()
        )
        titles = {digest: picture.path.name for digest, picture in pictures.items()}
        return self.chat.results(self.prompt, dialogues, titles, store, sees=True, ask=ask)

    def readings(
        self, pictures: Mapping[str, Picture], store: ResultStore, ask: bool
    ) -> dict[str, str]:
        """Returns digest -> the words that the OCR read."""
        if self.verbal == "model":
            return dict.fromkeys(pictures, "")
        return dict(self._read(pictures, store, ask))

    def _read(
        self, pictures: Mapping[str, Picture], store: ResultStore, ask: bool
    ) -> Iterator[tuple[str, str]]:
        identity = reader_identity()
        reader = None
        for digest, picture in tqdm(
            pictures.items(), desc="reading", unit="sticker", mininterval=1
        ):
            key = digest_of("ocr", identity, picture.key)
            if key not in store:
                if not ask:
                    continue
                reader = reader or StickerReader()
                store.add([(key, reader.read(picture))], model=identity["package"], prompt="")
            yield digest, store[key]


def extract(work: Work, describer: Describer, frames: int = 4, side: int = 768) -> dict[str, int]:
    """Describes stickers and writes the new directory, or does one shard's part.

    Args:
      work: what is to be done, and where results go.
      describer: what describes.
      frames: of an animated sticker, at most.
      side: pixels of the longer edge, at most.

    Returns:
      Counts, as in dataset.json.

    Raises:
      PreparedDataError: if the directory is not valid.
      UnansweredError: if something got no answer; nothing is written then.
    """
    prepared = read_prepared(work.directory)
    pictures: dict[str, Picture] = {}
    digests: dict[str, str] = {}
    for sticker in prepared.stickers:
        if work.overwrite or not any(sticker.attributes[name] for name in describer.fills):
            picture = Picture.of(schema.confined(prepared.path, sticker.image), frames, side)
            digests[sticker.id] = picture.digest
            if work.shard.owns(picture.digest):
                pictures[picture.digest] = picture
    with ResultStore(work.cache, KIND, work.shard) as store:
        replies = describer.replies(pictures, store, ask=not work.merge)
        readings = describer.readings(pictures, store, ask=not work.merge)
    missing = sum(not (one in replies and one in readings) for one in pictures)
    check_complete(missing, len(pictures), "stickers", work)
    counts: Counter[str] = Counter(
        stickers=len(prepared.stickers), kept=len(prepared.stickers) - len(digests)
    )
    if not work.writes:
        logging.info("shard %d/%d: %d done", work.shard.index, work.shard.count, len(pictures))
        return dict(counts)
    described, checks = [], []
    for sticker in prepared.stickers:
        if sticker.id in digests:
            found, how = _attributes(describer, replies, readings, digests[sticker.id])
            checks.append({"id": sticker.id, **how})
            sticker = replace(
                sticker,
                attributes=dict(sticker.attributes) | {n: found[n] for n in describer.fills},
            )
        described.append(sticker)
    _count(counts, described, checks, describer.verbal)
    if describer.verbal == "both":
        lines = [
            json.dumps(one, ensure_ascii=False) + "\n"
            for one in checks
            if one["verdict"] not in ("agree", "neither")
        ]
        replace_text(work.cache / CHECK_FILE, "".join(lines))
    conversations = [one for split in schema.SPLITS for one in prepared.conversations[split]]
    record = describer.record() | {"frames": frames, "side": side, "counts": dict(counts)}
    write(work, prepared, conversations, described, KIND, record)
    logging.info("attributes: %s", dict(counts))
    return dict(counts)


def _attributes(
    describer: Describer,
    replies: Mapping[str, dict[str, str]],
    readings: Mapping[str, str],
    digest: str,
) -> tuple[dict[str, str], dict[str, str]]:
    """Returns the attributes of one sticker, and how its words were settled."""
    found, read = attributes_of(replies[digest]), readings[digest]
    how = {"model": found["verbal"], "ocr": read, "verdict": ""}
    if describer.verbal == "ocr":
        found["verbal"] = read
    elif describer.verbal == "both":
        found["verbal"], how["verdict"] = settle_verbal(found["verbal"], read)
    return found, how


def _count(
    counts: Counter[str],
    stickers: Sequence[StickerEntry],
    checks: Sequence[Mapping[str, str]],
    verbal: str,
) -> None:
    for name in ATTRIBUTES:
        counts[f"with_{name}"] = sum(bool(sticker.attributes[name]) for sticker in stickers)
    if verbal == "both":
        counts.update(f"verbal_{check['verdict']}" for check in checks)
