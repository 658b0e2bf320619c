"""The pytrees that travel between data, models, training and evaluation.

Axis letters, the same in annotations, einsum strings and comments:
B batch (conversations), N stickers in the gallery, L text tokens, A attribute tokens, J attributes
(4: gesture, posture, facial, verbal), P image regions, H heads, D joint width, Dt / Dv tower
widths, K intentions, C candidate columns of a score matrix.

Fields carry their shape in a comment and not in a checked annotation: the same classes also hold
shardings, abstract shapes and ``None`` leaves while JAX maps over them.
"""

from dataclasses import dataclass
from typing import Any

import jax
from flax import struct

ATTRIBUTES: tuple[str, ...] = ("gesture", "posture", "facial", "verbal")
RELATIONS: tuple[str, ...] = ("xIntent", "xNeed", "xWant", "xEffect", "xReact")


@struct.dataclass
class Tokens:
    """Tokenised text, ready for a text tower.

    Attributes:
      ids: i32[..., L] vocabulary ids.
      mask: bool[..., L], True where a token is real.
      type_ids: i32[..., L], 0 for the conversation and 1 for the knowledge.
    """

    ids: jax.Array
    mask: jax.Array
    type_ids: jax.Array


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
    """

    context: Tokens
    sticker: jax.Array
    intention: jax.Array
    example: jax.Array
    valid: jax.Array
    context_hidden: jax.Array | None = None


@struct.dataclass
class Bank:
    """What a model may read of the gallery; every leaf has the leading axis N.

    Attributes:
      pixels: u8[N, S, S, 3] RGB on white; None once ``image_hidden`` replaces it.
      attributes: Tokens [N, J, A].
      attribute_mask: bool[N, J], True where the sticker has that attribute (its text is not empty).
      intentions: bool[N, K], intentions with which the sticker is annotated in train, and only
        there: valid and test annotations never reach training.
      index: i32[N], the row's own gallery index, kept when rows are gathered.
      image_hidden: f[N, 1+P, Dv], the frozen lower layers' output where cached, else None.
      attribute_hidden: f[N, J, A, Dt], likewise for the attribute texts.
    """

    pixels: jax.Array | None
    attributes: Tokens
    attribute_mask: jax.Array
    intentions: jax.Array
    index: jax.Array
    image_hidden: jax.Array | None = None
    attribute_hidden: jax.Array | None = None

    def rows(self, index: jax.Array) -> "Bank":
        """Gathers the rows ``index`` (i32[C]); the result is a Bank of C stickers."""
        return jax.tree.map(lambda leaf: leaf[index], self)


@struct.dataclass
class Context:
    """An encoded conversation batch.

    Attributes:
      query: f32[B, D], unit norm.
      intention_logits: f32[B, K], unscaled by softmax.
    """

    query: jax.Array
    intention_logits: jax.Array


@struct.dataclass
class Sticker:
    """Encoded stickers.

    Attributes:
      embedding: f32[N, D], unit norm.
      attention: f32[N, J, P], attention mass of each attribute over the image's patches, averaged
        over heads; None unless asked for.
    """

    embedding: jax.Array
    attention: jax.Array | None = None


@dataclass(frozen=True)
class RankedSticker:
    """One answer: rank 1 is the best; score is a cosine in [-1, 1]."""

    rank: int
    sticker: str
    score: float
    image: str
    attributes: dict[str, str]


@dataclass(frozen=True)
class RankedList:
    """What a search returns: the best stickers first, and the intention that was predicted."""

    stickers: list[RankedSticker]
    intention: str
    intention_probabilities: dict[str, float]

    def to_json(self) -> dict[str, Any]:
        """Returns plain dicts and lists, ready for json.dumps."""
        return {
            "intention": self.intention,
            "intention_probabilities": self.intention_probabilities,
            "stickers": [vars(sticker) for sticker in self.stickers],
        }
