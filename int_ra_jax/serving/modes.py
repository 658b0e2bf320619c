"""launch.py's modes for others: serve and mcp answer them, export writes for them; their flags.

Nothing heavy is imported before a mode is chosen.
"""

from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags

if TYPE_CHECKING:
    from int_ra_jax.retrieval.gallery import Describe
    from int_ra_jax.retrieval.whether import Whether
    from int_ra_jax.serving.service import Service
    from int_ra_jax.serving.uploads import PackReader

_KEY_FILE = flags.DEFINE_string("key_file", None, "serve: holds the key; who has it may write.")
_OPEN = flags.DEFINE_bool(
    "open_without_key", False, "serve: others may read from a service without a key."
)
_TO = flags.DEFINE_string("to", None, "export: directory to write, which does not exist yet.")
_NAMES = flags.DEFINE_multi_string(
    "name", [], "serve: HOST or HOST:PORT that a proxy shows the service as; may be repeated."
)
# flag -> modes
READ_BY = {
    **dict.fromkeys(("key_file", "open_without_key", "name"), ("serve",)),
    "to": ("export",),
}
WordsReader = Callable[[], Callable[[bytes], str] | None]
DescriberOf = Callable[[], "Describe | None"]


def serve(
    workdir: Path, read_pack: "PackReader", words_reader: WordsReader, describer: DescriberOf
) -> None:
    """Serves a run and its gallery over HTTP, with the page, until it is interrupted.

    Args:
      workdir: of the run.
      read_pack: reads packs as people exchange them.
      words_reader: returns what reads the words on a new sticker, or None.
      describer: returns what describes one, or None.

    Raises:
      ValueError: if a package is missing, the settings are not safe, or the gallery does not fit.
      FileNotFoundError: if the workdir, its checkpoint or the key's file does not exist, or the
        gallery where there is no key with which it could be filled.
    """
    _need("serve")
    from int_ra_jax.serving import app, page, server
    from int_ra_jax.serving.settings import settings_of

    settings = settings_of(
        flags.FLAGS.host,
        flags.FLAGS.port,
        Path(_KEY_FILE.value) if _KEY_FILE.value else None,
        open_without_key=_OPEN.value,
        names=_NAMES.value,
    )
    may_write = settings.key is not None  # a mistyped gallery is not made by who can fill none
    service = _service(workdir, read_pack, words_reader(), describer(), create=may_write)
    built = app.build(service, settings)
    page.attach(built, service, settings)
    server.run(built, settings)


def mcp(workdir: Path) -> None:
    """Serves a run and its gallery as tools of a language model, on standard input and output.

    Args:
      workdir: of the run; no tool writes into its gallery.

    Raises:
      ValueError, FileNotFoundError: as ``serve``.
    """
    _need("mcp")
    from int_ra_jax.serving import tool_server

    tool_server.run(_service(workdir))


def export(workdir: Path) -> None:
    """Writes a run's encoder and a gallery for programs without JAX; see ``retrieval.export``.

    Args:
      workdir: of the run.

    Raises:
      ValueError: if no directory is named, a package is missing, or as ``retrieval.export``.
      FileNotFoundError, FileExistsError: as ``retrieval.export``.
    """
    if not _TO.value:
        raise ValueError("--mode=export needs --to=DIR, a directory that does not exist yet.")
    _need("export")
    from int_ra_jax.retrieval.export import export as written

    print(*written(workdir, Path(_TO.value), flags.FLAGS.gallery), sep="\n")


def _service(
    workdir: Path,
    read_pack: "PackReader | None" = None,
    read_words: Callable[[bytes], str] | None = None,
    describe: "Describe | None" = None,
    create: bool = False,
) -> "Service":
    from int_ra_jax.retrieval.gallery import Gallery
    from int_ra_jax.retrieval.retriever import Retriever
    from int_ra_jax.serving.service import Service
    from int_ra_jax.serving.settings import Limits

    gallery = None
    if path := flags.FLAGS.gallery:
        gallery = Gallery.open(
            path, workdir, create=create, read_words=read_words, describe=describe
        )
    elif describe is not None:
        raise ValueError("--describer needs --gallery: a run's own stickers are not changed.")
    retriever, limits = Retriever.from_workdir(workdir, gallery), Limits()
    return Service(retriever, limits, read_pack, _whether(workdir))


def _whether(workdir: Path) -> "Whether | None":
    """Reads the model of whether a sticker would be sent, if the workdir has one."""
    from int_ra_jax.retrieval.whether import FILE, Whether

    return Whether.load(workdir / FILE) if (workdir / FILE).exists() else None


def _need(mode: str) -> None:
    """Refuses a mode whose packages are missing, before anything heavy is imported."""
    missing = [name for name in _PACKAGES[mode] if find_spec(name) is None]
    if missing:
        extras = "export" if mode == "export" else "serve,gallery"
        raise ValueError(f"--mode={mode} needs {', '.join(missing)}: pip install -e '.[{extras}]'")


_WORDS = ("lancedb", "filelock", "jieba")  # typed words are looked for in a run's own gallery too
_PACKAGES = {
    "serve": ("fastapi", "uvicorn", "httptools", "nicegui", "fastapi_offline", *_WORDS),
    "mcp": ("mcp", "fastapi", *_WORDS),
    "export": ("onnx", "onnxruntime", "pyarrow"),
}
MODES = ("serve", "mcp", "export")


def modes(
    read_pack: "PackReader", words_reader: WordsReader, describer: DescriberOf
) -> dict[str, Callable[[Path], None]]:
    """Returns the modes, which take a workdir.

    Args:
      read_pack: reads packs as people exchange them.
      words_reader: returns what reads the words on a new sticker, or None.
      describer: returns what describes one, or None.
    """
    served = partial(serve, read_pack=read_pack, words_reader=words_reader, describer=describer)
    return {"serve": served, "mcp": mcp, "export": export}
