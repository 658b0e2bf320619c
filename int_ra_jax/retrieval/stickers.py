"""A sticker of an open gallery, and which of them an answer may hold."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Protocol, runtime_checkable

import numpy as np

from int_ra_jax.common.types import ATTRIBUTES


@dataclass(frozen=True)
class GallerySticker:
    """One sticker: what it is called, what it shows, and whether it may be shown.

    A new one needs an id and a picture; what else is empty, a gallery derives when it is put.

    Attributes:
      id: unique in the gallery; any text of 1 to 200 printable characters.
      picture: the encoded file, PNG, JPEG, WebP or GIF; empty where a list was asked for.
      pack: name of the pack that it belongs to, or "".
      name: what its makers call it, or "".
      attributes: the text of each of the four attributes, "" for an absent one.
      attributes_given: names of those that somebody gave; the others are described, or derived
        from its emoji, its name, its tags and the words on it. None for all four where one is not
        empty, else for none.
      attributes_described: names of those that a gallery's describer saw in the picture, none of
        them given; None where it was not described.
      tags: free words, read by searches for words.
      emoji: what its makers say that it stands for.
      words: what is written on it; None lets the gallery read it where OCR is installed.
      language: of these words, as two letters ("zh", "en"); "" for none, None to tell it by
        their letters.
      adult: shown only where adult stickers are asked for.
      approved: looked at by a person; an answer can be limited to these.
      hidden: never part of an answer.
      intentions: name -> probability in [0, 1] that it expresses the intention, of the run's
        intentions; those left out have 0. None lets the gallery predict them.
      intentions_given: whether a person gave them; False for predicted ones.
      media_type: of the picture, "image/png"; "" lets the gallery tell.
      looks: what tells copies of the picture, as ``data.copies.Fingerprint.to_bytes`` writes it; a
        gallery computes it.
    """

    id: str
    picture: bytes = field(default=b"", repr=False)
    pack: str = ""
    name: str = ""
    attributes: Mapping[str, str] = field(default_factory=lambda: dict.fromkeys(ATTRIBUTES, ""))
    attributes_given: tuple[str, ...] | None = None
    attributes_described: tuple[str, ...] | None = None
    tags: tuple[str, ...] = ()
    emoji: tuple[str, ...] = ()
    words: str | None = None
    language: str | None = None
    adult: bool = False
    approved: bool = False
    hidden: bool = False
    intentions: Mapping[str, float] | None = None
    intentions_given: bool = False
    media_type: str = ""
    looks: bytes = field(default=b"", repr=False)


def stated(sticker: GallerySticker) -> frozenset[str]:
    """Returns the names of the fields in which a sticker says more than a bare id would."""
    bare = GallerySticker(sticker.id)
    names = (one.name for one in fields(GallerySticker))
    said = {name for name in names if getattr(sticker, name) != getattr(bare, name)}
    if not any(text.strip() for text in sticker.attributes.values()):
        said.discard("attributes")
    return frozenset(said)


def stated_by_pack(sticker: GallerySticker) -> frozenset[str]:
    """Returns the same of a sticker of a pack, whose tags repeat what else its makers say of it."""
    return stated(sticker) - {"tags"}


@dataclass(frozen=True)
class Filters:
    """Which stickers may be part of an answer. Hidden ones never are.

    Attributes:
      packs: names of the packs to take from; None for all.
      tags: a sticker must have one of these, letters' case ignored; None for all.
      languages: of the words on it, as two letters; a sticker without words passes. None for all.
      adult: whether adult stickers pass beside the others.
      approved_only: whether only approved ones pass.
      exclude: ids that do not pass; unknown ones are passed over.
      without_packs: names of packs that do not pass, whatever ``packs`` says; likewise.
    """

    packs: frozenset[str] | None = None
    tags: frozenset[str] | None = None
    languages: frozenset[str] | None = None
    adult: bool = False
    approved_only: bool = False
    exclude: frozenset[str] = frozenset()
    without_packs: frozenset[str] = frozenset()

    @classmethod
    def of(
        cls,
        packs: Collection[str] | None,
        tags: Collection[str] | None,
        languages: Collection[str] | None,
        adult: bool,
        approved_only: bool,
        exclude: Collection[str],
        without_packs: Collection[str] = (),
    ) -> "Filters":
        """Returns what was asked for as filters.

        Raises:
          ValueError: where one text stands in the place of several.
        """
        several = {"packs": packs, "tags": tags, "languages": languages, "exclude": exclude}
        several["without_packs"] = without_packs
        if wrong := [name for name, value in several.items() if isinstance(value, str)]:
            raise ValueError(f"{', '.join(wrong)}: give a list of texts, not one text")
        sets = {
            name: None if value is None else frozenset(value) for name, value in several.items()
        }
        excluded = sets.pop("exclude") or frozenset()
        without = sets.pop("without_packs") or frozenset()
        return cls(
            **sets,
            adult=adult,
            approved_only=approved_only,
            exclude=excluded,
            without_packs=without,
        )


@runtime_checkable
class Lifting(Protocol):
    """How much a habit counts; ``habits.Mixture``, which loads more than other answers need."""

    @property
    def scale(self) -> float:
        """What makes log-probabilities of a model's scores."""
        ...

    def lifts(self, recent: Sequence[int], popularity: np.ndarray) -> Mapping[int, float]:
        """Returns by how many nats stickers rise; see ``habits.Mixture``."""
        ...


@dataclass(frozen=True)
class Habits:
    """What a person sent before, which an answer leans towards. Nothing of it is stored.

    Attributes:
      recent: ids of their stickers, the newest first, each as often as it was sent.
      mixture: how much that counts; None for the defaults of ``habits.Mixture`` with the scale of
        the run's scores (docs/ranking.md).
      uses: id -> how often anybody sent it, which is no habit; those left out were not sent.
    """

    recent: tuple[str, ...]
    mixture: Lifting | None = None
    uses: Mapping[str, float] = field(default_factory=dict)
