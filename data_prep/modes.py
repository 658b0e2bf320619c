"""The modes of launch.py that work on data and not on a run, with their flags.

Nothing heavy is imported before a mode is chosen.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

from absl import flags

from int_ra_jax.data.schema import StickerEntry

_PREPARED = flags.DEFINE_string("prepared_dir", None, "annotate, stats: the directory to read.")
_ANNOTATOR = flags.DEFINE_string("annotator", None, "annotate: the only person served.")
_OVERLAP = flags.DEFINE_float("overlap", None, "annotate: share of conversations that all see.")
_HOST = flags.DEFINE_string("host", "127.0.0.1", "annotate, serve: address to listen on.")
_PORT = flags.DEFINE_integer("port", 8080, "annotate, serve: port to listen on.", 1, 65535)
GALLERY = flags.DEFINE_string("gallery", None, "search, gallery, serve, mcp, export: open gallery.")
_DESCRIBER = flags.DEFINE_string(
    "describer", None, "gallery add, serve: MODEL@URL of an endpoint that sees; describes stickers."
)
_LANGUAGE = flags.DEFINE_string(
    "describer_language", None, "gallery add, serve: of what it says, by name: Chinese."
)
# flag -> the modes that read it
READ_BY = {
    "gallery": ("search", "gallery", "serve", "mcp", "export"),
    **dict.fromkeys(("describer", "describer_language"), ("gallery", "serve")),
    "prepared_dir": ("annotate", "stats"),
    **dict.fromkeys(("annotator", "overlap"), ("annotate",)),
    **dict.fromkeys(("host", "port"), ("annotate", "serve")),
}


def annotate(workdir: Path) -> None:
    """Serves the page on which people give stickers their intention.

    Args:
      workdir: where their decisions go.

    Raises:
      ValueError: as ``page.serve``, or if no prepared directory is named.
    """
    prepared_dir = _prepared_dir("annotate")
    try:
        from data_prep.annotation import page
    except ModuleNotFoundError as error:
        raise ValueError(f"--mode=annotate needs {error.name}: pip install -e '.[data]'") from None
    page.serve(
        prepared_dir,
        workdir,
        annotator=_ANNOTATOR.value,
        host=_HOST.value,
        port=_PORT.value,
        overlap=_OVERLAP.value,
        split=flags.FLAGS.split,
    )


def stats(workdir: Path) -> None:
    """Describes a prepared directory, on the terminal and in files.

    Args:
      workdir: where the tables, the picture and the page go.

    Raises:
      ValueError: if no prepared directory is named, or nothing in it can be read.
    """
    from data_prep.describe.statistics import write_statistics

    print("\n".join(write_statistics(_prepared_dir("stats"), workdir)))


def read_pack(content: bytes) -> tuple[list[tuple[StickerEntry, bytes]], dict[str, int]]:
    """Reads a pack that came over the network; see ``formats.uploaded.read_pack``."""
    from data_prep.formats import uploaded

    return uploaded.read_pack(content)


def words_reader() -> Callable[[bytes], str] | None:
    """Returns what reads the words on a picture, if anything does; see ``open_gallery``."""
    from data_prep import open_gallery

    return open_gallery.words_reader()


def describer() -> Callable[[bytes], Mapping[str, str]] | None:
    """Returns what describes pictures, if anything is named; see ``open_gallery``.

    Raises:
      ValueError: if it is named wrongly, or its language alone.
    """
    if not _DESCRIBER.value:
        if _LANGUAGE.value:
            raise ValueError("--describer_language needs --describer=MODEL@URL.")
        return None
    from data_prep import open_gallery

    return open_gallery.describer(_DESCRIBER.value, _LANGUAGE.value or "")


def _prepared_dir(mode: str) -> Path:
    if not _PREPARED.value:
        raise ValueError(f"--mode={mode} needs --prepared_dir=DIR, a prepared directory.")
    return Path(_PREPARED.value)


def gallery(workdir: Path, *words: str) -> None:
    """Adds stickers to an open gallery, lists them, hides or removes them.

    Args:
      workdir: of the run that embeds them.
      words: what to do, and with what; see ``open_gallery.act``.

    Raises:
      ValueError: if no gallery is named, or as ``open_gallery.act``.
    """
    if not GALLERY.value:
        raise ValueError("--mode=gallery needs --gallery=DIR, a folder or a URI.")
    from data_prep.open_gallery import act

    for line in act(GALLERY.value, workdir, words, describer()):
        print(line, flush=True)


MODES: dict[str, Callable[..., None]] = {"annotate": annotate, "stats": stats, "gallery": gallery}
TAKE_WORDS = ("gallery",)  # modes that take words behind the flags
