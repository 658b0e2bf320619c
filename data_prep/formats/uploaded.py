"""A pack that came over the network: read as any pack, within narrower bounds.

Names inside it are used below a fresh folder alone, which is deleted again, and only after
``archives`` has found that none leaves it.
"""

import io
import tempfile
import zipfile
from pathlib import Path

from data_prep.formats import galleries
from data_prep.problems import Problems
from int_ra_jax.data.schema import StickerEntry

MAX_BYTES = 512 * 2**20  # of all members, unpacked
MAX_MEMBERS = 5_000


def read_pack(content: bytes) -> tuple[list[tuple[StickerEntry, bytes]], dict[str, int]]:
    """Returns the stickers of a pack with their pictures, and how many were left out by reason.

    Args:
      content: a .wastickers or another zip of pictures.

    Raises:
      ValueError: if nothing of it can be read; the message names no file of this machine.
    """
    with tempfile.TemporaryDirectory(prefix="uploaded-", ignore_cleanup_errors=True) as scratch:
        source = Path(scratch) / "pack.zip"
        source.write_bytes(content)
        problems = Problems("the pack")
        try:
            _check(content)
            with galleries.collected(source, problems) as found:
                stickers = [
                    (one, found.picture(one).read_bytes()) for one in found.entries.values()
                ]
        except ValueError as error:
            raise ValueError(str(error).replace(str(source), "the pack")) from None
    if not stickers:
        problems.add(".", 0, f"no sticker: {', '.join(found.ledger.left_out) or 'it is empty'}")
        problems.stop_if_any()
    return stickers, {reason: noted.count for reason, noted in found.ledger.left_out.items()}


def _check(content: bytes) -> None:
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, NotImplementedError, UnicodeError) as error:
        raise ValueError(f"the pack is not unpacked: {error}") from None
    if len(members) > MAX_MEMBERS:
        raise ValueError(f"the pack has {len(members):,} members; at most {MAX_MEMBERS:,} are read")
    total = sum(one.file_size for one in members)
    if total > MAX_BYTES:
        raise ValueError(f"the pack unpacks to {total:,} bytes; at most {MAX_BYTES:,} are read")
