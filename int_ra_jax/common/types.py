"""The pytrees that travel between data, models, training and evaluation.

Axis letters, the same in annotations, einsum strings and comments:
B batch (conversations), N stickers in the gallery, L text tokens, A attribute tokens, J attributes
(4: gesture, posture, facial, verbal), P image regions, H heads, D joint width, Dt / Dv tower
widths, K intentions, C candidate columns of a score matrix.

Fields are ``Any`` and carry their shape in the docstring, not in a checked annotation: the same
classes hold NumPy arrays on the host and, while JAX maps over them, shardings and abstract shapes.
"""

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from flax import struct

ATTRIBUTES: tuple[str, ...] = ("gesture", "posture", "facial", "verbal")
_NAMED = 10  # unknown tokens are named in a line
RELATIONS: tuple[str, ...] = ("xIntent", "xNeed", "xWant", "xEffect", "xReact")


@struct.dataclass
class Tokens:
    """Tokenised text, ready for a text tower.

    Attributes:
      ids: i32[..., L] vocabulary ids.
      mask: bool[..., L], True where a token is real.
      type_ids: i32[..., L], 0 for the conversation and 1 for the knowledge.
      turn: i32[..., L], 1 for the newest turn, 2 for the one before it; a turn's speaker and its
        closing [SEP] belong to it. 0 for [CLS], the replying user, the knowledge and padding.
        Conversations alone have turns; None for other texts.
      words: bool[..., L], True where a token is neither padding nor a [CLS] or [SEP] of the row;
        None for other texts than conversations.
    """

    ids: Any
    mask: Any
    type_ids: Any
    turn: Any = None
    words: Any = None


@struct.dataclass
class Labels:
    """The K intention names, which Int-RA embeds with its text tower.

    Attributes:
      tokens: Tokens [K, L'].
      hidden: f[K, L', Dt], the frozen lower layers' output where it is cached, else None.
    """

    tokens: Tokens
    hidden: Any = None


@struct.dataclass
class Batch:
    """B conversations. Stickers are addressed by gallery index, never stored per example.

    Attributes:
      context: Tokens [B, L].
      sticker: i32[B], gallery row of the gold sticker.
      intention: i32[B], class id of the annotated intention.
      example: i32[B], row within the split; addresses per-example caches and per-query files.
      valid: bool[B], False for rows that only pad the batch to its static size.
      context_hidden: f[B, L, Dt], the frozen lower layers' output where it is cached, else None.
      labels: the intention names, the same for every batch; see ``Resident.attach``.
    """

    context: Tokens
    sticker: Any
    intention: Any
    example: Any
    valid: Any
    context_hidden: Any = None
    labels: Labels | None = None


@struct.dataclass
class Bank:
    """What a model may read of the gallery, one row per sticker.

    Attribute texts repeat ("grinning face" describes many stickers), so they are held once, in a
    table of U unique texts that ``attribute_index`` points into.

    Attributes:
      pixels: u8[N, S, S, 3] RGB on white, or u8[N, F, S, S, 3] where a sticker is the mean of
        some frames; None once ``image_hidden`` replaces it.
      attributes: Tokens [U, A].
      attribute_index: i32[N, J], row of ``attributes``; any row where the attribute is absent.
      attribute_mask: bool[N, J], True where the sticker has that attribute (its text is not empty).
      intentions: bool[N, K], intentions with which the sticker is annotated in train, and only
        there: valid and test annotations never reach training.
      index: i32[N], the row's own gallery index, kept when rows are gathered.
      image_hidden: f[N, 1+P, Dv], or of each frame f[N, F, 1+P, Dv], the frozen lower
        layers' output where cached, else None.
      attribute_hidden: f[U, A, Dt], likewise for the attribute texts.
    """

    pixels: Any
    attributes: Tokens
    attribute_index: Any
    attribute_mask: Any
    intentions: Any
    index: Any
    image_hidden: Any = None
    attribute_hidden: Any = None

    def rows(self, index: Any) -> "Bank":
        """Gathers the stickers ``index`` (i32[C]); the table of attribute texts stays whole."""
        return dataclasses.replace(
            self,
            pixels=None if self.pixels is None else self.pixels[index],
            attribute_index=self.attribute_index[index],
            attribute_mask=self.attribute_mask[index],
            intentions=self.intentions[index],
            index=self.index[index],
            image_hidden=None if self.image_hidden is None else self.image_hidden[index],
        )


@struct.dataclass
class Resident:
    """What stays on the device for a whole run, next to the parameters.

    Attributes:
      bank: the gallery.
      labels: the intention names.
      context_hidden: f[M, L, Dt], the frozen lower layers' output for every training example, or
        None where the text tower trains from its embeddings up.
    """

    bank: Bank
    labels: Labels
    context_hidden: Any = None

    def attach(self, batch: Batch) -> Batch:
        """Adds to a batch from the host what the device already holds for it."""
        hidden = None
        if self.context_hidden is not None:  # a batch may be narrower than the cache
            hidden = self.context_hidden[:, : batch.context.ids.shape[-1]][batch.example]
        return dataclasses.replace(batch, labels=self.labels, context_hidden=hidden)


@struct.dataclass
class Context:
    """An encoded conversation batch; a system adds fields of its own by inheritance.

    Attributes:
      query: f32[B, D]; None for a system that compares pairs instead of vectors.
      intention_logits: f32[B, K], unscaled by softmax; None for a system that predicts none.
    """

    query: Any = None
    intention_logits: Any = None


@struct.dataclass
class Sticker:
    """Encoded stickers; a system adds fields of its own by inheritance.

    Attributes:
      embedding: f32[N, D]; None for a system that compares pairs instead of vectors.
    """

    embedding: Any = None


@dataclass(frozen=True)
class RankedSticker:
    """One answer: rank 1 is the best; score is the system's, for most a cosine.

    Attributes:
      rank: from 1.
      sticker: its id.
      score: higher is better.
      image: its path in the prepared directory; "" in an open gallery.
      attributes: the text of each of the four attributes.
      pack: that it belongs to, or "".
    """

    rank: int
    sticker: str
    score: float
    image: str
    attributes: dict[str, str]
    pack: str = ""


@dataclass(frozen=True)
class RankedList:
    """What a search returns: the best stickers first, and the intention that was predicted.

    A system that predicts none gives None and no probabilities.

    Attributes:
      stickers: the best first.
      intention: the likeliest one.
      intention_probabilities: of all, the likeliest first.
      tokens: words, or parts of words, of the turns that were read and of the knowledge.
      unknown: the text of those that the text tower's vocabulary lacks, with how often; it reads
        them all alike.
      eligible: stickers that pass the filters; None where nothing was filtered.
    """

    stickers: list[RankedSticker]
    intention: str | None
    intention_probabilities: dict[str, float]
    tokens: int = 0
    unknown: dict[str, int] = field(default_factory=dict)
    eligible: int | None = None

    def to_json(self) -> dict[str, Any]:
        """Returns plain dicts and lists, ready for json.dumps."""
        return {
            "intention": self.intention,
            "intention_probabilities": self.intention_probabilities,
            "stickers": [vars(sticker) for sticker in self.stickers],
            "tokens": self.tokens,
            "unknown": self.unknown,
            "eligible": self.eligible,
        }

    def to_lines(self) -> list[str]:
        """Returns lines for a terminal: the likeliest intentions, the stickers, what is unknown."""
        likeliest = list(self.intention_probabilities.items())[:3]
        lines = []
        if likeliest:
            lines = ["intention: " + ", ".join(f"{name} {100 * p:.0f}%" for name, p in likeliest)]
        for sticker in self.stickers:
            words = "; ".join(f"{k}: {v}" for k, v in sticker.attributes.items() if v)
            lines.append(f"{sticker.rank:3d}  {sticker.score:+.4f}  {sticker.sticker:20s} {words}")
        if self.eligible == len(self.stickers):
            lines.append("no other sticker of the gallery passes the filters")
        if self.unknown:
            number, named = sum(self.unknown.values()), list(self.unknown)
            lines.append(
                f"{number} of {self.tokens} words or parts of words are unknown to the text tower: "
                + " ".join(named[:_NAMED])
                + (" ..." if len(named) > _NAMED else "")
            )
        return lines
