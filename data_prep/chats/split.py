"""Step 6, split: train, valid and test without a shared segment or text, as a prepared directory.

Privacy: adds nothing. Pseudonyms are the same in all conversations of a person; whoever publishes
the result deletes the salt, so that nobody can go back from a pseudonym to an id.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from absl import logging
from scipy.cluster.hierarchy import DisjointSet

from data_prep.chats import step
from data_prep.formats.shares import FRACTION, assign
from int_ra_jax.common.types import ATTRIBUTES
from int_ra_jax.data import schema
from int_ra_jax.data.schema import Conversation, StickerEntry, Turn


def split(source: Path, out: Path, valid: float = FRACTION, test: float = FRACTION) -> None:
    """Writes the prepared directory.

    Args:
      source: the result of the step deduplicate.
      out: must not exist yet, or be empty, or hold this very result.
      valid: share of the conversations.
      test: share of the conversations.

    Raises:
      ValueError: if the shares are impossible, or there is too little to split.
      FileExistsError: if ``out`` holds anything else.
    """
    if not (valid > 0 and test > 0 and valid + test < 1):
        raise ValueError(f"valid={valid}, test={test}: both above 0, together below 1")
    identity = step.identity(source, "split")
    construction = {"step": "split", "source": identity, "shares": {"valid": valid, "test": test}}
    if out.exists() and any(out.iterdir()):
        if step.construction_of(out) != construction:
            raise FileExistsError(f"{out} is not empty. Choose a new directory or remove it.")
        logging.info("split: %s is finished already", out)
        return
    groups = group(step.read_lines(source, step.CONTEXTS_FILE, "grouping"))
    splits = assign(Counter(groups.values()), {"valid": valid, "test": test})
    stickers: dict[str, str | None] = {}
    intentions: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    for row in step.read_lines(source, step.CONTEXTS_FILE, "counting"):
        sizes[splits[groups[row["id"]]]] += 1
        intentions[row["intention"]] += 1
        stickers[row["sticker"]] = row.get("emoji") or stickers.get(row["sticker"])
        for turn in row["turns"]:
            if "sticker" in turn:
                stickers.setdefault(turn["sticker"], None)
    entries = [_entry(name, emoji) for name, emoji in sorted(stickers.items())]
    names = sorted(intentions)
    logging.info("split: %s, %d stickers", dict(sizes), len(entries))
    schema.write_prepared(
        out,
        _conversations(source, groups, splits),
        entries,
        names,
        _info(construction, sizes, intentions) | {"ledger": step.read_report(source)},
        {entry.image: source / step.STICKERS / Path(entry.image).name for entry in entries},
    )


def group(rows: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Returns id of a context -> its group: contexts of one segment or of the same text are one."""
    joined = DisjointSet()
    for row in rows:
        said = "\0".join(t for turn in row["turns"] if (t := " ".join(turn["text"].split())))
        text = hashlib.sha256(said.casefold().encode()).hexdigest()
        context, *shared = ("id", row["id"]), ("segment", row["segment"]), ("text", text)
        joined.add(context)
        for one in shared:
            joined.add(one)
            joined.merge(context, one)
    members = ([name for kind, name in one if kind == "id"] for one in joined.subsets())
    return {name: min(names) for names in members for name in names}


def _conversations(
    source: Path, groups: Mapping[str, str], splits: Mapping[str, str]
) -> Iterator[Conversation]:
    for row in step.read_lines(source, step.CONTEXTS_FILE, "writing"):
        turns = (
            Turn(turn["speaker"], turn["text"], _sticker_id(turn.get("sticker")))
            for turn in row["turns"]
        )
        yield Conversation(
            id=row["id"],
            split=splits[groups[row["id"]]],
            turns=tuple(turns),
            reply_speaker=row["reply_speaker"],
            sticker=str(_sticker_id(row["sticker"])),
            intention=row["intention"],
            extra={"case": row["case"], "segment": row["segment"]},
        )


def _sticker_id(name: str | None) -> str | None:
    return None if name is None else f"sticker_{Path(name).stem}"


def _entry(name: str, emoji: str | None) -> StickerEntry:
    return StickerEntry(
        id=str(_sticker_id(name)),
        image=f"{schema.IMAGES}/{name}",
        attributes=dict.fromkeys(ATTRIBUTES, ""),
        tags=(emoji,) if emoji else (),
    )


def _info(
    construction: Mapping[str, Any], sizes: Mapping[str, int], intentions: Mapping[str, int]
) -> dict[str, Any]:
    counted = {"split": dict(sorted(sizes.items())), "intention": dict(sorted(intentions.items()))}
    return {
        "name": "own-chats",
        "version": "1",
        "licence": "the writers' own; ask them before the data leave this machine",
        "source": "chat exports, by data_prep (docs/construction.md)",
        "relevance": "The gold sticker is the one that was sent; others may fit as well. The "
        f"intention {step.UNLABELLED!r} waits for annotation.",
        "knowledge": False,
        "counts": counted,
        "construction": dict(construction),
    }
