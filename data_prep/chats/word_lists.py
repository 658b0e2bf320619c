"""Word lists that ship with the package, or that replace them."""

from importlib import resources
from pathlib import Path

LISTS = "lists"


def shipped(name: str) -> Path:
    """Returns a list, or a folder of lists, of this package."""
    return Path(str(resources.files("data_prep.chats") / LISTS / name))


def words(path: Path) -> frozenset[str]:
    """Reads words separated by white space; lines that begin with # are notes."""
    return frozenset(word for line in lines(path) for word in line.split())


def lines(path: Path) -> list[str]:
    """Reads one expression a line; blank lines and lines that begin with # are passed over.

    Raises:
      ValueError: if the file is not UTF-8.
    """
    try:
        text = path.read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8: {error}") from error
    stripped = (line.strip() for line in text.splitlines())
    return [line for line in stripped if line and not line.startswith("#")]
