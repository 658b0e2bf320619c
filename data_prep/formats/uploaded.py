"""A pack that came over the network: read as any pack, within narrower bounds.

Names inside it are used below a fresh folder alone, which is deleted again, and only after
``archives`` has found that none leaves it.
"""

import io
import json
import tempfile
import zipfile
from pathlib import Path

from data_prep.formats import galleries
from int_ra_jax.data.schema import STICKERS_FILE, StickerEntry

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
        source, out = Path(scratch) / "pack.zip", Path(scratch) / "gallery"
        source.write_bytes(content)
        try:
            _check(content)
            ledger = galleries.import_packs(source, out)
        except ValueError as error:
            raise ValueError(str(error).replace(str(source), "the pack")) from None
        lines = (out / STICKERS_FILE).read_text("utf-8").splitlines()
        entries = [StickerEntry.from_json(json.loads(line)) for line in lines]
        stickers = [(one, (out / one.image).read_bytes()) for one in entries]
    return stickers, {reason: noted.count for reason, noted in ledger.left_out.items()}


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
