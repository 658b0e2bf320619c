"""Stickers that no image library decodes: Lottie (``.tgs``, ``.was``, JSON) and WebM.

Everything downstream reads pictures, so such a sticker becomes an animated WebP of at most
``animation_frames.FRAMES`` frames, drawn by a package that need not be installed, in a process of
its own.
"""

import importlib.util
import subprocess
import sys

from data_prep.formats import animation_frames
from data_prep.problems import short

# What draws an animation: the module, and the package by the name under which pip installs it.
_DRAWN_BY = {
    animation_frames.LOTTIE: ("rlottie_python", "rlottie-python"),
    animation_frames.VIDEO: ("av", "av"),
}
_SECONDS = 120  # for one sticker, on a machine that is busy


class PackageMissingError(ImportError):
    """What draws an animation is not installed.

    Attributes:
      package: by the name under which pip installs it.
    """

    def __init__(self, package: str) -> None:
        self.package = package
        super().__init__(f"an animated sticker needs the package {package}: pip install {package}")


def is_animation(content: bytes) -> bool:
    """Whether a file's bytes are such an animation; of GIF, APNG and WebP they are not."""
    return animation_frames.kind(content) is not None


def as_picture(content: bytes) -> bytes:
    """Returns an animation as an animated WebP, with its transparency.

    Args:
      content: an animation by ``is_animation``.

    Raises:
      ValueError: if it cannot be decoded, whatever it does to its decoder.
      PackageMissingError: if what draws it is not installed.
    """
    module, package = _DRAWN_BY[str(animation_frames.kind(content))]
    if importlib.util.find_spec(module) is None:
        raise PackageMissingError(package)
    command = [sys.executable, "-P", animation_frames.__file__]
    try:
        done = subprocess.run(command, input=content, capture_output=True, timeout=_SECONDS)
    except subprocess.TimeoutExpired as error:
        raise ValueError(f"animation that takes more than {_SECONDS} s to decode") from error
    if done.returncode or not done.stdout:
        said = done.stderr.decode("utf-8", "replace").strip().rpartition("\n")[2]
        ended = said or f"its decoder ended with {done.returncode}"
        raise ValueError(f"animation that cannot be decoded: {short(ended, 120)}")
    return done.stdout
