"""Prompts as versioned files: what is asked of a model, with a hash for each answer."""

import hashlib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_FOLDER = Path(__file__).parent / "prompts"
_MAX_BYTES = 64 * 1024


@dataclass(frozen=True)
class Prompt:
    """One prompt file.

    Attributes:
      name: of the file, without its suffix.
      version: as the file states it; raised by hand with every change of meaning.
      sha256: of the file's bytes. It is part of each result's key, so a changed file asks anew.
      parts: the texts of the file, by key; whitespace around them is cut.
    """

    name: str
    version: int
    sha256: str
    parts: Mapping[str, Any]

    def text(self, key: str, **values: object) -> str:
        """Returns a part with its ``{names}`` filled in.

        Raises:
          KeyError: if a name of the text has no value.
        """
        return str(self.parts[key]).format(**values)

    def record(self) -> dict[str, Any]:
        """Returns what dataset.json says of the prompt."""
        return {"name": self.name, "version": self.version, "sha256": self.sha256}


def load_prompt(name: str, needed: Mapping[str, type], path: Path | None = None) -> Prompt:
    """Reads a prompt file.

    Args:
      name: of one that comes with the package: comet, knowledge or attributes.
      needed: the keys that must be there, and their types.
      path: another file of the same form to read instead.

    Raises:
      ValueError: if it is no TOML, too large, or lacks a key; all missing keys at once.
      FileNotFoundError: if there is no such file.
    """
    file = path or _FOLDER / f"{name}.toml"
    content = file.read_bytes()
    if len(content) > _MAX_BYTES:
        raise ValueError(f"{file} has {len(content):,} bytes; a prompt has at most {_MAX_BYTES:,}")
    try:
        parts = tomllib.loads(content.decode("utf-8"))
    except ValueError as error:
        raise ValueError(f"{file} is not TOML in UTF-8: {error}") from error
    wrong = [
        f"{key} must be {kind.__name__}"
        for key, kind in {"version": int, **needed}.items()
        if not isinstance(parts.get(key), kind)
    ]
    if wrong:
        raise ValueError(f"{file}: {'; '.join(wrong)}. Compare {_FOLDER.name}/{name}.toml")
    stripped = {k: v.strip() if isinstance(v, str) else v for k, v in parts.items()}
    return Prompt(file.stem, parts["version"], hashlib.sha256(content).hexdigest(), stripped)
