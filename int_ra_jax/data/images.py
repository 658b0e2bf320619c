"""Sticker files to pixels: upright, on a ground that shows them, bounded in every direction.

Sticker files come from third parties and are hostile until decoded: the numbers of bytes, pixels
and frames are checked before anything is decompressed. No other module opens a sticker's file.
"""

import contextlib
import io
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from int_ra_jax.data.grounds import (
    CONTRAST,
    WHITE,
    alpha_of,
    contrast,
    ground_of,
    is_see_through,
    opaque,
)

MAX_BYTES = 32 * 2**20
MAX_PIXELS = 40_000_000
MAX_FRAMES = 1_000
FORMATS = ("PNG", "JPEG", "WEBP", "GIF")
FRAMES = ("first", "middle")
RESIZES = ("squeeze", "crop")
_FLAT = 8  # of 255: a picture whose pixels differ by less shows nothing
_OTHERS = {  # other formats -> where in a file their mark is, and the mark
    "TIFF": (0, (b"II*\0", b"MM\0*")),
    "HEIC or AVIF": (4, (b"ftyp",)),
    "BMP": (0, (b"BM",)),
    "SVG or a web page": (0, (b"<",)),
    "ZIP": (0, (b"PK\3\4",)),
    "WebM": (0, (b"\x1a\x45\xdf\xa3",)),
}
_TURNED = 4 * MAX_PIXELS  # of all frames together, which are in memory at once
_ENCODING: dict[str, dict[str, object]] = {
    "WEBP": {"lossless": True},
    "JPEG": {"quality": 95, "subsampling": 0},
}
_ABOUT_PIXELS = {"transparency", "icc_profile", "duration", "loop"}  # of what is told beside them


def load_pixels(
    content: bytes | str | os.PathLike[str],
    size: int,
    frame: str = "first",
    resize: str = "squeeze",
) -> UInt8[np.ndarray, "S S 3"]:
    """Decodes a sticker to the square of pixels that a vision tower reads.

    By default the image is squeezed to the square without keeping its aspect, as in the paper's
    code: a centre crop cuts off the writing. Transparency becomes white, whatever colour hides
    below, or dark where white would hide the drawing. For the rest both ways equal Hugging Face's
    image processors to the pixel.

    Args:
      content: an encoded image, or the path of one.
      size: S, edge of the result in pixels.
      frame: which frame of an animation to take: "first", or "middle" for those that fade in.
      resize: "squeeze", as Chinese-CLIP was trained; or "crop", as OpenAI's CLIP was: the shorter
        edge becomes S and the middle of the longer one is kept.

    Returns:
      [S, S, 3] RGB, 0 to 255.

    Raises:
      ValueError: if the image is unreadable, truncated, too large or of another format.
    """
    content = content if isinstance(content, bytes) else Path(content).read_bytes()
    return _square(decode(content, frame), size, resize)


def load_frames(
    content: bytes, size: int, count: int, resize: str = "squeeze"
) -> UInt8[np.ndarray, "F S S 3"]:
    """Decodes frames that stand evenly in an animation, as ``load_pixels`` does one.

    Args:
      content: an encoded image; of one that does not move each frame is the same.
      size: S, edge of the result in pixels.
      count: F.
      resize: see ``load_pixels``.

    Raises:
      ValueError: as ``load_pixels``.
    """
    total = traits(content).frames
    wanted = [(2 * place + 1) * total // (2 * count) for place in range(count)]
    distinct = sorted({*wanted})  # an animation may have fewer
    found = decode_frames(content, lambda _: distinct)
    squares = [_square(one, size, resize) for one in found]
    return np.stack([squares[distinct.index(place)] for place in wanted])


def _square(image: Image.Image, size: int, resize: str) -> UInt8[np.ndarray, "S S 3"]:
    if resize not in RESIZES:
        raise ValueError(f"resize is {resize!r}. Choose one of {', '.join(RESIZES)}.")
    width, height = (size, size) if resize == "squeeze" else _around_square(image, size)
    image = image.resize((width, height), Image.Resampling.BICUBIC)
    left, top = (width - size) // 2, (height - size) // 2
    return np.asarray(image.crop((left, top, left + size, top + size)))


def decode(content: bytes, frame: str = "first", ground: str | None = None) -> Image.Image:
    """Decodes one frame of a sticker to RGB, upright and in its own size.

    Args:
      content: an encoded image.
      frame: "first" or "middle".
      ground: colour below what is seen through; None for the one of ``ground_of``.

    Raises:
      ValueError: as ``load_pixels``.
    """
    if frame not in FRAMES:
        raise ValueError(f"frame is {frame!r}. Choose one of {', '.join(FRAMES)}.")
    return decode_frames(content, lambda total: [total // 2 if frame == "middle" else 0], ground)[0]


def decode_frames(
    content: bytes, choose: Callable[[int], Sequence[int]], ground: str | None = None
) -> list[Image.Image]:
    """Decodes some frames of a sticker to RGB, upright and in their own size.

    Args:
      content: an encoded image.
      choose: number of frames -> numbers of those wanted, ascending, from 0.
      ground: colour below what is seen through; None for that of ``ground_of`` for each frame.

    Raises:
      ValueError: as ``load_pixels``.
    """
    return [picture for picture, _ in _decoded(content, choose, ground)]


class Traits(NamedTuple):
    """How a sticker's first frame is shown.

    Attributes:
      size: width and height, upright.
      turned: whether its EXIF says that its pixels do not stand upright.
      ground: the colour below it.
      frames: how many of them can be decoded, at most ``MAX_FRAMES``.
    """

    size: tuple[int, int]
    turned: bool
    ground: str
    frames: int


def traits(content: bytes) -> Traits:
    """Returns how a sticker's first frame is shown.

    Raises:
      ValueError: as ``load_pixels``.
    """
    with _opened(content) as image:
        frame = _upright(image)
        turned = _orientation(image) != 1
        return Traits(frame.size, turned, ground_of(frame), _frames_of(image))


class Extent(NamedTuple):
    """What a sticker's file promises, before anything of it is decompressed.

    Attributes:
      width: in pixels.
      height: likewise.
      frames: at most ``MAX_FRAMES`` + 1, which stands for any greater number.
    """

    width: int
    height: int
    frames: int


def extent(content: bytes) -> Extent:
    """Returns what a sticker's file promises.

    Raises:
      ValueError: as ``load_pixels``.
    """
    with _opened(content) as image:
        total = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)
        return Extent(*image.size, min(total, MAX_FRAMES + 1))


def media_type(content: bytes) -> str:
    """Returns the media type of a sticker's file, "image/png".

    Raises:
      ValueError: as ``load_pixels``.
    """
    with _opened(content) as image:
        return "image/jpeg" if image.format == "MPO" else f"image/{str(image.format).lower()}"


def is_transparent(content: bytes) -> bool:
    """Tells whether anything of the first frame is seen through.

    Raises:
      ValueError: as ``load_pixels``.
    """
    with _opened(content) as image:
        return bool(is_see_through(image) and np.asarray(alpha_of(image)).min() < 255)


def shows_nothing(image: Image.Image) -> bool:
    """Tells whether a decoded picture is of one colour throughout."""
    return contrast(image) < _FLAT


def oddities(content: bytes) -> list[str]:
    """Returns what a person should know of a sticker that decodes: where little or nothing is seen.

    Args:
      content: an encoded image.

    Raises:
      ValueError: if any frame that a run may read does not decode; else as ``load_pixels``.
    """
    for picture, ground in _decoded(content, lambda total: sorted({0, total // 2})):
        if shows_nothing(picture):
            return ["shows nothing: a frame that a model may see is of one colour"]
        if contrast(picture) < CONTRAST:
            return ["shows little: a frame that a model may see is nearly of one colour"]
        if ground != WHITE:
            return [f"is hidden by white: it is shown on {ground}"]
    return []


def as_upright(content: bytes) -> bytes:
    """Returns a sticker whose pixels themselves stand upright; it itself where they do already.

    What must be turned is encoded anew: without loss, except JPEG, at quality 95.

    Args:
      content: an encoded image.

    Raises:
      ValueError: as ``load_pixels``.
    """
    with _opened(content) as image:
        if _orientation(image) == 1:
            return content
        count = _frames_of(image)
        if count * image.width * image.height > _TURNED:
            raise _SizeError(
                f"an animation of more than {_TURNED:,} pixels cannot be turned upright"
            )
        form = "JPEG" if image.format == "MPO" else str(image.format)
        options = dict(_ENCODING.get(form, {}))
        if profile := image.info.get("icc_profile"):
            options["icc_profile"] = profile
        frames = []
        for number in range(count):
            image.seek(number)
            frames.append(_upright(image))
        if len(frames) > 1:
            options |= {"save_all": True, "append_images": frames[1:]}
            options["duration"] = [frame.info.get("duration", 0) for frame in frames]
            options["loop"] = image.info.get("loop", 0)
        turned = io.BytesIO()
        frames[0].save(turned, form, **options)
        return turned.getvalue()


class _SizeError(ValueError):
    """The header promises more pixels than are decoded."""


class _FormatError(ValueError):
    """A file is no picture of a known format."""


@contextlib.contextmanager
def _opened(content: bytes) -> Iterator[Image.Image]:
    """Opens an image within bounds; whatever goes wrong while it is read is a ValueError."""
    if len(content) > MAX_BYTES:
        raise ValueError(f"image file has {len(content):,} bytes; at most {MAX_BYTES:,} are read")
    try:
        with _recognised(content) as image:
            _check_size(image)
            yield image
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ValueError(f"decompression bomb: {error}") from error
    except (_SizeError, _FormatError):
        raise
    except Exception as error:  # decoders of hostile bytes raise anything, SyntaxError included
        raise ValueError(f"unreadable or truncated image: {error}") from error


def _recognised(content: bytes) -> Image.Image:
    """Opens an image of a known format, or says of which one it is."""
    try:
        return Image.open(io.BytesIO(content), formats=FORMATS)
    except UnidentifiedImageError:
        known = f"save it as {', '.join(FORMATS[:-1])} or {FORMATS[-1]}"
        if not content:
            raise _FormatError(
                f"unreadable or truncated image: the file is empty; {known}"
            ) from None
        for name, (place, marks) in _OTHERS.items():
            if content[:999].lstrip()[place : place + 12].startswith(marks):
                raise _FormatError(
                    f"unreadable or truncated image: it is {name}; {known}"
                ) from None
        raise _FormatError(f"unreadable or truncated image: no known format; {known}") from None


def _decoded(
    content: bytes, choose: Callable[[int], Sequence[int]], ground: str | None = None
) -> list[tuple[Image.Image, str]]:
    """Returns the frames of ``decode_frames``, each with the colour below it."""
    decoded = []
    with _opened(content) as image:
        for number in choose(_frames_of(image)):
            if number:  # where frames depend on each other a seek decodes all that lie before
                image.seek(number)
            frame = _upright(image)
            below = ground or ground_of(frame)
            decoded.append((opaque(frame, below), below))
    return decoded


def _frames_of(image: Image.Image) -> int:
    # The further pictures of a photo (MPO) are depths and previews, and no animation.
    return 1 if image.format == "MPO" else min(getattr(image, "n_frames", 1), MAX_FRAMES)


def _upright(image: Image.Image) -> Image.Image:
    """Returns the present frame as its EXIF says that it is to be seen."""
    image.load()
    orientation = _orientation(image)
    if orientation == 1:
        return image
    # Pillow would also write the metadata anew, which fails where they are damaged.
    bare = image.copy()
    bare.info = {name: image.info[name] for name in _ABOUT_PIXELS & image.info.keys()}
    bare.getexif()[ExifTags.Base.Orientation] = orientation
    return ImageOps.exif_transpose(bare)


def _orientation(image: Image.Image) -> int:
    """Returns how the pixels lie by EXIF's table, 1 to 8; 1 is upright."""
    try:
        found = image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # metadata of hostile bytes raises anything, and is no part of the picture
        return 1
    return found if isinstance(found, int) and 1 <= found <= 8 else 1


def _around_square(image: Image.Image, size: int) -> tuple[int, int]:
    """Width and height of the image when its shorter edge has become ``size``."""
    shorter, longer = sorted(image.size)
    stretched = size * longer // shorter
    if size * stretched > MAX_PIXELS:
        raise _SizeError(
            f"{image.size[0]} x {image.size[1]} pixels are too long and thin to be cropped to a "
            "square; leave the sticker out, or squeeze (resize)"
        )
    return (size, stretched) if image.width == shorter else (stretched, size)


def _check_size(image: Image.Image) -> None:
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise _SizeError(
            f"decompression bomb: {width} x {height} pixels; at most {MAX_PIXELS:,} are decoded"
        )
