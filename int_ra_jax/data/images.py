"""Sticker files to pixels: one frame, on white, S x S, bounded in every direction.

Sticker files come from third parties and are hostile until decoded: the numbers of bytes, pixels
and frames are checked before anything is decompressed.
"""

import io
import os
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

MAX_BYTES = 32 * 2**20
MAX_PIXELS = 40_000_000
MAX_FRAMES = 1_000
FORMATS = ("PNG", "JPEG", "WEBP", "GIF")
FRAMES = ("first", "middle")
RESIZES = ("squeeze", "crop")


def load_pixels(
    content: bytes | str | os.PathLike[str],
    size: int,
    frame: str = "first",
    resize: str = "squeeze",
) -> UInt8[np.ndarray, "S S 3"]:
    """Decodes a sticker to the square of pixels that a vision tower reads.

    By default the image is squeezed to the square without keeping its aspect, as in the paper's
    code: a centre crop cuts off the writing. Transparency becomes white, whatever colour hides
    below. For the rest both ways equal Hugging Face's image processors to the pixel.

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
    if resize not in RESIZES:
        raise ValueError(f"resize is {resize!r}. Choose one of {', '.join(RESIZES)}.")
    image = decode(content if isinstance(content, bytes) else Path(content).read_bytes(), frame)
    width, height = (size, size) if resize == "squeeze" else _around_square(image, size)
    image = image.resize((width, height), Image.Resampling.BICUBIC)
    left, top = (width - size) // 2, (height - size) // 2
    return np.asarray(image.crop((left, top, left + size, top + size)))


def decode(content: bytes, frame: str = "first") -> Image.Image:
    """Decodes one frame of a sticker to RGB on white, in its own size.

    Args:
      content: an encoded image.
      frame: "first" or "middle".

    Raises:
      ValueError: as ``load_pixels``.
    """
    if frame not in FRAMES:
        raise ValueError(f"frame is {frame!r}. Choose one of {', '.join(FRAMES)}.")
    if len(content) > MAX_BYTES:
        raise ValueError(f"image file has {len(content):,} bytes; at most {MAX_BYTES:,} are read")
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            _check_size(image)
            # Where frames depend on each other a seek decodes all that lie before.
            frames = getattr(image, "n_frames", 1)
            if frame == "middle" and frames > 1:
                image.seek(min(frames, MAX_FRAMES) // 2)
            return opaque(image)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ValueError(f"decompression bomb: {error}") from error
    except _SizeError:
        raise
    except Exception as error:  # decoders of hostile bytes raise anything, SyntaxError included
        raise ValueError(f"unreadable or truncated image: {error}") from error


def opaque(image: Image.Image, background: str = "white") -> Image.Image:
    """Returns the frame as RGB, with a colour laid below what is seen through.

    Args:
      image: a frame in any of PIL's modes.
      background: name of the colour.
    """
    if image.mode.startswith("I"):  # 16-bit grey, which PIL would clip instead of scaling
        scaled = (np.asarray(image, np.int64) // 257).clip(0, 255)
        image = Image.fromarray(scaled.astype(np.uint8))
    if image.mode == "RGB" and "transparency" not in image.info:
        return image.copy()
    layer = image.convert("RGBA")
    ground = Image.new("RGBA", layer.size, background)
    return Image.alpha_composite(ground, layer).convert("RGB")


class _SizeError(ValueError):
    """The header promises more pixels than are decoded."""


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
