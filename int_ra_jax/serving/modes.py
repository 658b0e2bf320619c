"""launch.py's modes that answer others: serve and mcp, with their flags.

Nothing heavy is imported before a mode is chosen.
"""

from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags

if TYPE_CHECKING:
    from int_ra_jax.serving.service import Service
    from int_ra_jax.serving.uploads import PackReader

_GALLERY = flags.DEFINE_string("gallery", None, "serve, mcp: an open gallery; else the run's own.")
_KEY_FILE = flags.DEFINE_string("key_file", None, "serve: holds the key; who has it may write.")
_OPEN = flags.DEFINE_bool(
    "open_without_key", False, "serve: others may read from a service without a key."
)
_OWN = flags.DEFINE_bool(
    "own_stickers", False, "serve: put the run's own stickers into a gallery that is empty."
)
# flag -> the modes that read it; host and port are data_prep's too
READ_BY = {
    "gallery": ("serve", "mcp"),
    **dict.fromkeys(("key_file", "open_without_key", "own_stickers"), ("serve",)),
    **dict.fromkeys(("host", "port"), ("annotate", "serve")),
}


def serve(workdir: Path, read_pack: "PackReader") -> None:
    """Serves a run and its gallery over HTTP, with the page, until it is interrupted.

    Args:
      workdir: of the run.
      read_pack: reads packs as people exchange them.

    Raises:
      ValueError: if a package is missing, the settings are not safe, or the gallery does not fit.
      FileNotFoundError: if the workdir, its checkpoint or the key's file does not exist.
    """
    _need("serve")
    from int_ra_jax.serving import app, page, server
    from int_ra_jax.serving.settings import settings_of

    settings = settings_of(
        flags.FLAGS.host,
        flags.FLAGS.port,
        Path(_KEY_FILE.value) if _KEY_FILE.value else None,
        open_without_key=_OPEN.value,
    )
    service = _service(workdir, read_pack)
    built = app.build(service, settings)
    page.attach(built, service, settings)
    server.run(built, settings)


def mcp(workdir: Path, read_pack: "PackReader") -> None:
    """Serves a run and its gallery as tools of a language model, on standard input and output.

    Args:
      workdir: of the run.
      read_pack: as ``serve``; no tool writes.

    Raises:
      ValueError, FileNotFoundError: as ``serve``.
    """
    _need("mcp")
    from int_ra_jax.serving import tool_server

    tool_server.run(_service(workdir, read_pack))


def _service(workdir: Path, read_pack: "PackReader") -> "Service":
    from int_ra_jax.retrieval.retriever import Retriever
    from int_ra_jax.serving import uploads
    from int_ra_jax.serving.service import Service
    from int_ra_jax.serving.settings import Limits

    retriever = Retriever.from_workdir(workdir, gallery=_GALLERY.value)
    if _OWN.value:
        uploads.put_own(retriever, workdir)
    return Service(retriever, Limits(), read_pack)


def _need(mode: str) -> None:
    """Refuses a mode whose packages are missing, before anything heavy is imported."""
    missing = [name for name in _PACKAGES[mode] if find_spec(name) is None]
    if missing:
        raise ValueError(f"--mode={mode} needs {', '.join(missing)}: pip install -e '.[serve]'")


_PACKAGES = {
    "serve": ("fastapi", "uvicorn", "httptools", "nicegui", "fastapi_offline"),
    "mcp": ("mcp", "fastapi"),
}
MODES = ("serve", "mcp")


def modes(read_pack: "PackReader") -> dict[str, Callable[[Path], None]]:
    """Returns the modes, which take a workdir.

    Args:
      read_pack: reads packs as people exchange them.
    """
    return {"serve": partial(serve, read_pack=read_pack), "mcp": partial(mcp, read_pack=read_pack)}
