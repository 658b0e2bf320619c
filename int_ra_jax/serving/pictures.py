"""Pictures that come with a request: within bounds, and decoded by the hardened decoder alone."""

import hashlib
import re

from int_ra_jax.data import images
from int_ra_jax.serving.problems import Problem
from int_ra_jax.serving.settings import Limits

_CALLED = 60  # characters of a file's name that may say something
_SAYS_NOTHING = re.compile(r"\d+|[0-9a-f]{16,}|sticker|file|image|img|pack", re.IGNORECASE)


def checked(content: bytes, limits: Limits) -> str:
    """Returns a picture's media type, by what it holds and not by what it is called.

    Raises:
      Problem: 422, if it is no picture, or out of bounds.
    """
    if len(content) > limits.picture:
        raise _refused(f"has {len(content):,} bytes; at most {limits.picture:,} are taken")
    try:
        extent = images.extent(content)
        if extent.width * extent.height > limits.pixels:
            raise _refused(
                f"is {extent.width} x {extent.height}; at most {limits.pixels:,} pixels are taken"
            )
        if extent.frames > limits.frames:
            raise _refused(f"has more than {limits.frames} frames")
        if extent.width * extent.height * extent.frames > limits.all_pixels:
            raise _refused(
                f"has {extent.frames} frames of {extent.width} x {extent.height}; at most "
                f"{limits.all_pixels:,} pixels of all frames together are taken"
            )
        for frame in images.FRAMES:
            images.decode(content, frame)
        return images.media_type(content)
    except ValueError as error:
        raise _refused(str(error)) from None


def identity(content: bytes) -> str:
    """Returns an id that the same picture always gets."""
    return f"sticker_{hashlib.sha256(content).hexdigest()[:20]}"


def called(file: str) -> str:
    """Returns what a file's name says of a picture; the name is used for nothing else."""
    stem = re.split(r"[/\\]", file)[-1].rpartition(".")[0]
    words = (one for one in re.split(r"[\W_]+", stem) if one and not _SAYS_NOTHING.fullmatch(one))
    return " ".join(words)[:_CALLED]


def _refused(why: str) -> Problem:
    return Problem(422, "the picture is not taken", [("picture", why)])
