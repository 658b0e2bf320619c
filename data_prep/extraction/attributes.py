"""Describes the stickers of a prepared directory: gesture, posture, face and words (equation 7)."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from absl import logging
from tqdm import tqdm

from data_prep.extraction.answers import NoAnswer
from data_prep.extraction.frames import Picture
from data_prep.extraction.keywords import attributes_of, describe, settle_verbal
from data_prep.extraction.ocr import StickerReader, reader_identity
from data_prep.extraction.prompts import Prompt
from data_prep.extraction.store import ResultStore, digest_of
from data_prep.extraction.work import Answers, Chat, Work, check_complete, unanswered, write
from int_ra_jax.common.files import replace_text
from int_ra_jax.common.ledger import Ledger, LeftOut
from int_ra_jax.common.types import ATTRIBUTES
from int_ra_jax.data import schema
from int_ra_jax.data.schema import StickerEntry
from int_ra_jax.data.validation import read_prepared

KIND = "attributes"
CHECK_FILE = "verbal_check.jsonl"
VERBAL = ("model", "ocr", "both")
Settled = tuple[dict[str, str], dict[str, str]]  # a sticker's attributes, and whence its words are


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

    def replies(self, pictures: Mapping[str, Picture], store: ResultStore, ask: bool) -> Answers:
        """Returns digest -> attribute -> the model's reply, where it gave one."""
        if self.chat is None:
            return Answers({digest: {} for digest in pictures}, {})
        names = ATTRIBUTES if self.verbal != "ocr" else ATTRIBUTES[:-1]
        dialogues = (
            (digest, describe(self.prompt, picture, picture.shown, names, self.language))
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
    prepared = read_prepared(work.directory, gallery=True)
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
        ask = not work.merge and replies.ended is None
        readings = describer.readings(pictures, store, ask=ask)
    settled = {
        digest: _attributes(describer, replies.found[digest], readings[digest])
        for digest in pictures
        if digest in replies.found and digest in readings
    }
    ledger = Ledger()
    asked = {one: digest for one, digest in digests.items() if digest in pictures}
    for one, digest in asked.items():
        ledger.judge(one, partial(_described, settled, replies.failed, digest, describer))
    missing = sum(digest not in settled for digest in asked.values())
    check_complete(missing, "stickers", work, ledger, replies.ended)
    counts: Counter[str] = Counter(
        stickers=len(prepared.stickers), kept=len(prepared.stickers) - len(digests)
    )
    if not work.writes:
        logging.info("shard %d/%d is done: %s", work.shard.index, work.shard.count, ledger)
        return dict(counts)
    described, checks = [], []
    for sticker in prepared.stickers:
        if asked.get(sticker.id) in settled:
            found, how = settled[asked[sticker.id]]
            checks.append({"id": sticker.id, **how})
            attributes = dict(sticker.attributes) | {n: found[n] for n in describer.fills}
            sticker = replace(sticker, attributes=attributes)
        described.append(sticker)
    _count(counts, described, checks, describer.verbal)
    if describer.verbal == "both":
        _write_checks(checks, work)
    settings = {"frames": frames, "side": side, "counts": dict(counts), "ledger": ledger.to_json()}
    conversations = [one for split in schema.SPLITS for one in prepared.conversations[split]]
    write(work, prepared, conversations, described, KIND, describer.record() | settings)
    logging.info("attributes: %s; %s", dict(counts), ledger)
    return dict(counts)


def _write_checks(checks: Sequence[Mapping[str, str]], work: Work) -> None:
    """Lists the stickers whose words a person should look at."""
    lines = [
        json.dumps(one, ensure_ascii=False) + "\n"
        for one in checks
        if one["verdict"] not in ("agree", "neither")
    ]
    replace_text(work.cache / CHECK_FILE, "".join(lines))


def _attributes(describer: Describer, replies: dict[str, str], read: str) -> Settled:
    """Returns the attributes of one sticker, and how its words were settled."""
    found = attributes_of(replies)
    how = {"model": found["verbal"], "ocr": read, "verdict": ""}
    if describer.verbal == "ocr":
        found["verbal"] = read
    elif describer.verbal == "both":
        found["verbal"], how["verdict"] = settle_verbal(found["verbal"], read)
    return found, how


def _described(
    settled: Mapping[str, Settled],
    failed: Mapping[str, NoAnswer],
    digest: str,
    describer: Describer,
) -> dict[str, str]:
    """Returns the attributes of one sticker.

    Raises:
      LeftOut: if there is no answer, or none that names anything.
    """
    if digest not in settled:
        raise unanswered(failed, digest)
    found, _ = settled[digest]
    if not any(found[name] for name in describer.fills):
        raise LeftOut("answers that name nothing" if describer.chat else "no words on it")
    return found


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
