"""What requests and answers hold: the models behind the OpenAPI page.

Nothing is converted: a number in quotes is no number, a key that is not known is an error.
"""

import unicodedata
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from int_ra_jax.common.types import ATTRIBUTES, RELATIONS
from int_ra_jax.serving.settings import LIMITS

_NAME = 100  # characters of a name
_HELD = 1_000  # of a pack's name that a gallery holds, however it came there
_ID = 200
_PHRASE = 500


def plain(text: str) -> str:
    """Returns a name as it is.

    Raises:
      ValueError: if it is blank, or has a character that is not seen.
    """
    if not text.strip():
        raise ValueError("is blank")
    if any(unicodedata.category(one) in ("Cc", "Cs", "Zl", "Zp") for one in text):
        raise ValueError("holds a control character")
    return text


def no_path(text: str) -> str:
    """Returns the name of something new as it is.

    Raises:
      ValueError: if it could be taken for a path, or for part of an address.
    """
    plain(text)
    if text.startswith(".") or any(one in text for one in "/\\?#%:"):
        raise ValueError("begins with a dot or holds one of / \\ ? # % :")
    return text


Name = Annotated[str, Field(min_length=1, max_length=_NAME), AfterValidator(plain)]
Id = Annotated[str, Field(min_length=1, max_length=_ID), AfterValidator(plain)]
HeldName = Annotated[str, Field(min_length=1, max_length=_HELD)]
NewName = Annotated[str, Field(min_length=1, max_length=_NAME), AfterValidator(no_path)]
NewId = Annotated[str, Field(min_length=1, max_length=_ID), AfterValidator(no_path)]
Phrase = Annotated[str, Field(max_length=_PHRASE)]
Names = Annotated[list[Name], Field(max_length=LIMITS.names)]
Packs = Annotated[list[Annotated[str, Field(max_length=_HELD)]], Field(max_length=LIMITS.names)]
Ids = Annotated[list[Id], Field(max_length=LIMITS.names)]
Relation = Literal[RELATIONS]  # type: ignore[valid-type]
Attribute = Literal[ATTRIBUTES]  # type: ignore[valid-type]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Filters(_Strict):
    """Which stickers are ranked at all."""

    packs: Packs | None = Field(
        default=None, description='Of these packs alone; "" is what belongs to none.'
    )
    without_packs: Packs = Field(
        default=[], description='Not of these packs, whatever packs says; "" likewise.'
    )
    tags: Names | None = Field(default=None, description="With one of these tags.")
    languages: Names | None = Field(
        default=None, description="With words in one of these languages, or none."
    )
    adult: bool = Field(default=False, description="Indecent ones as well.")
    approved_only: bool = Field(default=False, description="Those alone that somebody approved.")
    top_k: int = Field(default=5, ge=1, le=LIMITS.top_k, description="How many stickers.")

    def as_arguments(self) -> dict[str, Any]:
        """Returns the filters as a retriever's methods take them."""
        return {
            "packs": _tuple(self.packs),
            "without_packs": tuple(self.without_packs),
            "tags": _tuple(self.tags),
            "languages": _tuple(self.languages),
            "adult": self.adult,
            "approved_only": self.approved_only,
            "top_k": self.top_k,
        }


class FiltersQuery(Filters):
    """The same in an address, where every value is text."""

    model_config = ConfigDict(strict=False)


class TurnIn(_Strict):
    """One message."""

    speaker: Annotated[str, Field(max_length=_NAME)]
    text: Annotated[str, Field(max_length=LIMITS.text)]


class ReplyIn(Filters):
    """A conversation, and who replies with a sticker."""

    turns: list[TurnIn] = Field(min_length=1, max_length=LIMITS.turns, description="Oldest first.")
    reply_speaker: Annotated[str, Field(max_length=_NAME)]
    knowledge: dict[Relation, Annotated[list[Phrase], Field(max_length=20)]] | None = Field(
        default=None,
        description="Inferred phrases by relation; read only if the training data had them.",
    )
    exclude: Ids = Field(default=[], description="Never these stickers.")
    recent: list[Id] = Field(
        default=[],
        max_length=LIMITS.recent,
        description="Sent a moment ago, the newest first: not again.",
    )
    habits: Annotated[list[Id], Field(max_length=LIMITS.habits)] | None = Field(
        default=None, description="What the person sent before, the newest first. It is not stored."
    )
    variety: float = Field(
        default=0.0,
        ge=0,
        le=1,
        allow_inf_nan=False,
        description="0 is by score alone; 1 is most varied.",
    )


class SearchIn(Filters):
    """Words that a sticker is looked for by."""

    words: Annotated[str, Field(min_length=1, max_length=LIMITS.words), AfterValidator(plain)]


class StickerIn(_Strict):
    """What is said of a new sticker; what is not said is predicted or empty."""

    pack: NewName = "own"
    name: Annotated[str, Field(max_length=_NAME)] = ""
    tags: Annotated[list[Name], Field(max_length=50)] = []
    emoji: Annotated[list[Name], Field(max_length=20)] = []
    attributes: dict[Attribute, Phrase] = {}
    intentions: Annotated[list[Name], Field(max_length=50)] = []
    adult: bool = False
    approved: bool = False


class StickerChange(_Strict):
    """What is to be different of a sticker; the rest stays."""

    pack: NewName | None = None
    tags: Annotated[list[Name], Field(max_length=50)] | None = None
    emoji: Annotated[list[Name], Field(max_length=20)] | None = None
    attributes: dict[Attribute, Phrase] | None = None
    adult: bool | None = None
    approved: bool | None = None
    hidden: bool | None = None


class StickerOut(BaseModel):
    """A sticker of the gallery."""

    id: str
    pack: str
    name: str
    tags: list[str]
    emoji: list[str]
    attributes: dict[str, str]
    words: str = Field(description="What is written on it.")
    language: str = Field(description="Of the words on it.")
    adult: bool
    approved: bool
    hidden: bool
    intentions: dict[str, float] = Field(description="What it expresses, the likeliest first.")
    intentions_given: bool = Field(description="By people; else they are predicted.")
    picture: str = Field(description="Where its picture is.")


class Look(BaseModel):
    """Where in its picture an attribute of a sticker looks."""

    text: str = Field(description="Of the attribute.")
    peak: float = Field(description="Attention of the strongest patch, in means: 1 is flat.")
    overlay: str = Field(
        description="A data URL, to be stretched over the picture, or its middle square."
    )


class AttentionOut(BaseModel):
    """Where the attributes of a sticker look; none, if the system has no such attention."""

    attributes: dict[str, Look]
    middle_square: bool = Field(
        description="Whether the model sees the picture's middle square alone, over which the "
        "overlays lie then, and not all of it, squeezed."
    )


class Why(BaseModel):
    """Why a sticker was found."""

    intention: str | None = Field(description="That the conversation and the sticker share most.")
    matched: list[str] = Field(description="Words that both have, or attributes that were found.")


class Ranked(BaseModel):
    """One answer."""

    rank: int = Field(description="1 is the best.")
    score: float
    sticker: StickerOut
    why: Why


class ReplyOut(BaseModel):
    """Stickers that would reply, the best first."""

    stickers: list[Ranked]
    intention: str | None = Field(description="The likeliest; none if the model predicts none.")
    intention_probabilities: dict[str, float]
    whether: float | None = Field(
        description="Probability that a person would send any sticker now; null without a fitted "
        "model of it, or where that judges typed messages and nothing is typed."
    )
    tokens: int = Field(description="Words, or parts of words, that were read.")
    unknown: dict[str, int] = Field(description="Those of them that the model does not know.")
    eligible: int | None = Field(description="Stickers that pass the filters.")


class FoundOut(BaseModel):
    """Stickers that were found, the best first."""

    stickers: list[Ranked]
    eligible: int | None = Field(description="Stickers that pass the filters.")


class PackOut(BaseModel):
    """A pack of the gallery."""

    name: str
    stickers: int
    ids: list[str] = Field(description="At most a thousand of them.")


class PacksOut(BaseModel):
    """All packs, with how many stickers each has."""

    packs: dict[str, int]


class LedgerOut(BaseModel):
    """What became of an upload: every sticker of it was kept, or left out for a reason."""

    kept: int
    left_out: dict[str, int]
    removed: int = Field(
        description="Stickers of the pack that the upload no longer has; none while a file is left "
        "out that may be one of them."
    )


class ModelOut(BaseModel):
    """What answers."""

    system: str
    checkpoint: str = Field(description="The checkpoint's checksum.")
    width: int = Field(description="Channels of an embedding; 0 where pairs are compared.")
    intentions: list[str]
    stickers: int
    version: int = Field(description="Of the gallery; every change counts it up.")
    ready: bool


def _tuple(values: list[str] | None) -> tuple[str, ...] | None:
    return None if values is None else tuple(values)
