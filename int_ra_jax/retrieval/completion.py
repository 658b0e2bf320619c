"""What a gallery finds out of a new sticker by itself: a picture and an id are enough.

What cannot be taken is left out with a reason, so that a broken sticker never stops the others.
"""

import dataclasses
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from int_ra_jax.common.ledger import LeftOut
from int_ra_jax.common.nearest import nearest
from int_ra_jax.common.types import ATTRIBUTES
from int_ra_jax.data import emoji_language, emoji_names, images
from int_ra_jax.data.copies import Fingerprint
from int_ra_jax.retrieval.stickers import GallerySticker

MAX_ID = 200  # characters
MAX_TEXT = 1000  # characters of a name, a tag, an attribute, of the words on a sticker
MAX_TEXTS = 100  # tags, emoji
_WHENCE = ("attributes_given", "attributes_described")
DERIVED = ("id", *_WHENCE, "intentions_given", "media_type", "looks")  # nobody changes these

# Words of CLDR's English names that tell what an emoji shows; checked from hands to faces, since
# "person facepalming" is a gesture before it is a person.
_SHOWN = {
    "gesture": {
        *("hand", "hands", "finger", "fingers", "thumb", "thumbs", "fist", "palm", "palms"),
        *("clapping", "waving", "folded", "handshake", "biceps", "index", "pointing", "victory"),
        *("salute", "facepalming", "shrugging", "bowing", "raising", "gesturing", "hugging"),
    },
    "posture": {
        *("person", "man", "woman", "people", "men", "women", "boy", "girl", "boys", "girls"),
        *("kneeling", "standing", "walking", "running", "dancing", "dancer"),
    },
    "facial": {
        *("face", "smiling", "grinning", "crying", "kissing", "winking", "pouting", "frowning"),
        *("weary", "cat", "monkey", "skull", "see-no-evil", "hear-no-evil", "speak-no-evil"),
    },
}


@dataclasses.dataclass(frozen=True)
class Finders:
    """What finds out what a sticker lacks; ``completed`` says what each of them does."""

    read_words: Callable[[bytes], str] | None
    names: emoji_names.EmojiNames | None
    intentions: Sequence[str]
    describe: Callable[[bytes], Mapping[str, str] | None] | None

    def completed(
        self,
        sticker: GallerySticker,
        before: GallerySticker | None,
        given: Callable[[GallerySticker], Iterable[str]],
    ) -> GallerySticker | LeftOut:
        """Returns a sticker as it will be stored, or why it is left out.

        Args:
          sticker: that is put.
          before: what is stored under its id, if anything is.
          given: names of the fields of ``sticker`` that replace those, besides its picture; is
            asked of one that was checked.
        """
        known, words, names = self.intentions, self.read_words, self.names
        try:
            if before is not None:
                check(sticker, frozenset(known))
                sticker = renewed(before, _replaced(sticker, given(sticker)), words, names)
            return completed(sticker, words, names, known, self.describe)
        except LeftOut as reason:
            return reason


def completed(
    sticker: GallerySticker,
    read_words: Callable[[bytes], str] | None = None,
    names: emoji_names.EmojiNames | None = None,
    intentions: Iterable[str] = (),
    describe: Callable[[bytes], Mapping[str, str] | None] | None = None,
) -> GallerySticker:
    """Returns a sticker with everything that a gallery stores, but its predicted intentions.

    Args:
      sticker: with its picture.
      read_words: reads what is written on a picture; None leaves the words empty.
      names: of emoji, in the language that the run's text tower reads; English by default.
      intentions: names that the run knows.
      describe: returns what is seen in the picture of a sticker that was not described, attribute
        -> text and none of them empty, or None; it is asked where an attribute is not given.

    Raises:
      LeftOut: with the reason, if something of it cannot be taken.
    """
    check(sticker, frozenset(intentions))
    try:
        for frame in images.FRAMES:
            images.decode(sticker.picture, frame)
        looks = Fingerprint.of_file(sticker.picture).to_bytes()
        media_type = images.media_type(sticker.picture)
    except ValueError as error:
        raise LeftOut("no picture that can be read") from error
    words = sticker.words
    if words is None:
        words = _read(read_words, sticker.picture) if read_words else ""
    language = language_of(words) if sticker.language is None else sticker.language
    given = sticker.attributes_given
    if given is None:
        given = ATTRIBUTES if any(map(str.strip, sticker.attributes.values())) else ()
    found = derived_attributes(sticker.emoji, sticker.name, words, names, sticker.tags)
    described, texts = sticker.attributes_described, dict(sticker.attributes)
    if described is None and describe and {*given} != {*ATTRIBUTES}:
        seen = describe(sticker.picture)
        described = None if seen is None else tuple(seen)
        texts |= {name: text for name, text in (seen or {}).items() if name not in given}
    found |= {name: texts.get(name, "") for name in (*(described or ()), *given)}
    return dataclasses.replace(
        sticker,
        words=words,
        language=language,
        attributes=found,
        attributes_given=tuple(given),
        attributes_described=described
        and tuple(name for name in ATTRIBUTES if name in described and name not in given),
        tags=tuple(dict.fromkeys(sticker.tags)),
        emoji=tuple(dict.fromkeys(sticker.emoji)),
        intentions_given=sticker.intentions is not None,
        media_type=media_type,
        looks=looks,
    )


def renewed(
    before: GallerySticker,
    fields: Mapping[str, Any],
    read_words: Callable[[bytes], str] | None = None,
    names: emoji_names.EmojiNames | None = None,
) -> GallerySticker:
    """Returns a complete sticker with some fields anew, to be completed again.

    What nobody gave, but a gallery found out of other fields, does not outlast these: it is empty,
    so that it is found again. What was described stays as long as the picture does.

    Args:
      before: with its picture.
      fields: name -> new value.
      read_words: as ``completed``, and likewise ``names``.
      names: of emoji.
    """
    after = dataclasses.replace(before, **fields)
    moved = "words" not in fields and after.picture != before.picture
    # Whether words were given or read is stored nowhere; who reads the old picture again knows it.
    if moved and read_words and before.words == _read(read_words, before.picture):
        after = dataclasses.replace(after, words=None)
    if "language" not in fields and after.words != before.words:
        after = dataclasses.replace(after, language=None)
    if after.picture != before.picture:
        after = dataclasses.replace(after, attributes_described=None)
    if "attributes" not in fields:
        after = dataclasses.replace(after, attributes_given=given_attributes(before, names))
    return after


def given_attributes(
    sticker: GallerySticker, names: emoji_names.EmojiNames | None = None
) -> tuple[str, ...]:
    """Returns which attributes of a complete sticker somebody gave.

    Args:
      sticker: of a gallery; where an older version kept it, nothing says so, and all are given
        that are not what would be derived as a whole.
      names: as ``completed``.
    """
    if sticker.attributes_given is not None:
        return sticker.attributes_given
    found = derived_attributes(
        sticker.emoji, sticker.name, sticker.words or "", names, sticker.tags
    )
    return () if dict(sticker.attributes) == found else ATTRIBUTES


def renamed_attributes(
    sticker: GallerySticker,
    named: Mapping[str, str],
    names: emoji_names.EmojiNames | None = None,
) -> dict[str, Any]:
    """Returns a sticker's attributes and which are given, where some are given anew.

    Args:
      sticker: complete.
      named: attributes; those that it does not name stay as they are, given or found. Four empty
        ones give nothing: all are found again.
      names: as ``completed``.
    """
    given = {*given_attributes(sticker, names), *named}
    described = sticker.attributes_described
    if give_nothing(named):
        given, described = set(), None
    return {
        "attributes": {**sticker.attributes, **named},
        "attributes_given": tuple(name for name in ATTRIBUTES if name in given),
        "attributes_described": described,
    }


def give_nothing(named: object) -> bool:
    """Tells whether attributes are the four empty ones."""
    if not isinstance(named, Mapping) or not named.keys() >= {*ATTRIBUTES}:
        return False
    return not any(str(text).strip() for text in named.values())


def derived_attributes(
    emoji: Iterable[str],
    name: str = "",
    words: str = "",
    names: emoji_names.EmojiNames | None = None,
    tags: Iterable[str] = (),
) -> dict[str, str]:
    """Returns the four attributes as emoji, name, words and tags of a sticker tell them.

    An emoji of a hand is a gesture, one of a person a posture, one of a face facial; any other is
    said, as the name, the words and those tags are that are no emoji of the sticker.

    Args:
      emoji: each one emoji.
      name: of the sticker.
      words: on the sticker.
      names: in which language emoji are named.
      tags: of the sticker.
    """
    emoji = [*emoji]
    found: dict[str, list[str]] = {attribute: [] for attribute in ATTRIBUTES}
    found["verbal"] += [name.strip(), words.strip()]
    found["verbal"] += [one.strip() for one in tags if one not in emoji]
    for one in emoji:
        english = emoji_names.in_language(emoji_language.DEFAULT)  # kept, once read
        told = english.to_words(one).strip()
        if told == one.strip():  # no emoji, or none that has a name
            continue
        said = {*re.split(r"[^a-z-]+", told.lower())}
        shown = names.to_words(one).strip() if names else told
        kind = next((kind for kind, known in _SHOWN.items() if said & known), "verbal")
        found[kind].append(shown)
    return {kind: ", ".join(dict.fromkeys(filter(None, texts))) for kind, texts in found.items()}


def language_of(words: str) -> str:
    """Returns the language of some words by their letters, "" where there is none."""
    return emoji_language.of_letters([words]) if any(map(str.isalpha, words)) else ""


def problems(sticker: GallerySticker, intentions: frozenset[str]) -> list[str]:
    """Returns everything of a sticker that does not fit but its picture, as reasons.

    Args:
      sticker: to be checked.
      intentions: names that the run knows.
    """
    found = [why] if (why := id_problem(sticker.id)) else []
    texts = {"pack": sticker.pack, "name": sticker.name, "words": sticker.words or ""}
    texts |= {"language": sticker.language or ""}
    if isinstance(sticker.attributes, Mapping):
        if {*sticker.attributes} - {*ATTRIBUTES}:
            found.append(f"attribute that is none of {', '.join(ATTRIBUTES)}")
        texts |= {f"attribute {name}": text for name, text in sticker.attributes.items()}
    else:
        found.append("attributes that are no mapping")
    for kind, several in (("tag", sticker.tags), ("emoji", sticker.emoji)):
        if not isinstance(several, tuple | list) or len(several) > MAX_TEXTS:
            found.append(f"{kind} list that is no list of at most {MAX_TEXTS} texts")
        else:
            texts |= {f"{kind} {place}": text for place, text in enumerate(several)}
    found += list(dict.fromkeys(filter(None, (_text_problem(*one) for one in texts.items()))))
    for flag in ("adult", "approved", "hidden"):
        if not isinstance(getattr(sticker, flag), bool):
            found.append(f"{flag} that is neither True nor False")
    return found + _intention_problems(sticker.intentions, intentions)


def id_problem(id: object) -> str | None:
    """Returns why an id is none, or None."""
    if not isinstance(id, str) or not 0 < len(id) <= MAX_ID:
        return f"id that is not of 1 to {MAX_ID} characters"
    return None if id.isprintable() else "id that cannot be printed"


def check(sticker: GallerySticker, intentions: frozenset[str]) -> None:
    """Checks a sticker that is to be put, but for what its picture shows.

    Args:
      sticker: to be checked.
      intentions: names that the run knows.

    Raises:
      LeftOut: with everything that does not fit.
    """
    if found := problems(sticker, intentions):
        raise LeftOut("; ".join(found))
    if not isinstance(sticker.picture, bytes) or not sticker.picture:
        raise LeftOut("no picture")
    if len(sticker.picture) > images.MAX_BYTES:
        raise LeftOut("picture that is too large")


def check_changeable(names: Iterable[str]) -> None:
    """Checks names of fields that are to be changed.

    Args:
      names: of fields of ``GallerySticker``, so one hopes.

    Raises:
      ValueError: with all that are none, or that are computed.
    """
    known = [one.name for one in dataclasses.fields(GallerySticker) if one.name not in DERIVED]
    if wrong := [name for name in names if name not in known]:
        near = {name: nearest(name, known, cutoff=0.6) for name in wrong}
        told = (f"{one} (did you mean {near[one]}?)" if near[one] else one for one in wrong)
        raise ValueError(f"cannot change {', '.join(told)}. Fields are {', '.join(known)}.")


def _replaced(sticker: GallerySticker, given: Iterable[str]) -> dict[str, Any]:
    fields = {"picture", *given} - {*DERIVED}
    fields |= {*_WHENCE} if "attributes" in fields else set()
    return {name: getattr(sticker, name) for name in fields}


def _text_problem(where: str, text: object) -> str | None:
    kind = where.partition(" ")[0]
    if not isinstance(text, str):
        return f"{kind} that is no text"
    if len(text) > MAX_TEXT:
        return f"{kind} of more than {MAX_TEXT} characters"
    try:
        text.encode()
    except UnicodeEncodeError:
        return f"{kind} with half a character"
    return f"{kind} with a NUL" if "\0" in text else None


def _intention_problems(given: object, known: frozenset[str]) -> list[str]:
    if given is None:
        return []
    if not isinstance(given, Mapping):
        return ["intentions that are no mapping from name to probability"]
    found = []
    if {*given} - known:
        found.append("intention that the run does not know")
    if not all(
        isinstance(value, int | float) and math.isfinite(value) and 0 <= value <= 1
        for value in given.values()
    ):
        found.append("intention whose probability is not in [0, 1]")
    return found


def _read(read_words: Callable[[bytes], str], picture: bytes) -> str:
    """Returns the words on a picture, within bounds."""
    return plain(read_words(picture))


def plain(text: str) -> str:
    """Returns a text that a model read or wrote as a gallery can keep it, in one line."""
    sound = text.encode("utf-8", "ignore").decode("utf-8", "ignore").replace("\0", "")
    return " ".join(sound.split())[:MAX_TEXT]
