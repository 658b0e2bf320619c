"""On which colour a sticker is laid, so that it is seen.

White, as the paper's pictures are, unless white would hide what is drawn.
"""

import numpy as np
from PIL import Image, ImageChops, ImageFilter

WHITE, DARK = "white", "dimgray"
"""What is laid below a sticker: white, or dark where white would hide all of it."""
CONTRAST = 32  # of 255: a pixel that is nearer to white in every channel is not seen on white
_SEEN = 0.05  # share of what is drawn that must be seen on white, where no outline is
_OPAQUE = 16  # of 255: what covers less is not drawn
_SOLID = 128  # of 255: what covers less may be a shadow of what is drawn


def ground_of(image: Image.Image) -> str:
    """Returns the colour on which a frame is shown.

    White, as the paper's pictures are; ``DARK`` if the frame is transparent in parts and white
    hides it: of what is drawn, less than a twentieth differs from white, and no outline does. A
    faint shadow shows nothing of what throws it, so what is hardly covered is left out, unless
    nothing else is drawn: then it is the ground that shows more.

    Args:
      image: a frame in any of PIL's modes.
    """
    if not is_see_through(image):
        return WHITE
    alpha = alpha_of(image)
    if alpha.getextrema()[0] == 255:
        return WHITE
    shown = opaque(image, WHITE)
    red, green, blue = shown.split()
    darkest = ImageChops.darker(ImageChops.darker(red, green), blue)
    drawn = _mask(alpha, _SOLID)
    faint = not _area(drawn)
    if faint:
        drawn = _mask(alpha, _OPAQUE)
    seen = ImageChops.multiply(_mask(ImageChops.invert(darkest), CONTRAST), drawn)
    if not _area(drawn) or _area(seen) >= _SEEN * _area(drawn):
        return WHITE
    if faint:
        return DARK if contrast(opaque(image, DARK)) > contrast(shown) else WHITE
    outline = ImageChops.subtract(drawn, drawn.filter(ImageFilter.MinFilter(3)))
    # Of an outline's soft edge the outermost pixels are nearly white.
    outlined = ImageChops.multiply(outline, seen.filter(ImageFilter.MaxFilter(5)))
    return DARK if _area(outlined) <= _area(outline) / 2 else WHITE


def opaque(image: Image.Image, background: str = WHITE) -> Image.Image:
    """Returns the frame as RGB, with a colour laid below what is seen through.

    Args:
      image: a frame in any of PIL's modes.
      background: name of the colour.
    """
    image = in_bytes(image)
    if not is_see_through(image):
        return image.convert("RGB") if image.mode != "RGB" else image.copy()
    layer = image.convert("RGBA")
    ground = Image.new("RGBA", layer.size, background)
    return Image.alpha_composite(ground, layer).convert("RGB")


def contrast(image: Image.Image) -> int:
    """Returns by how much the pixels of an RGB picture differ in any channel."""
    pixels = np.asarray(image)
    return int((pixels.max((0, 1)) - pixels.min((0, 1))).max())


def is_see_through(image: Image.Image) -> bool:
    """Says whether a frame has pixels that may be seen through."""
    return in_bytes(image).has_transparency_data


def alpha_of(image: Image.Image) -> Image.Image:
    """Returns how much each pixel covers, in grey."""
    return in_bytes(image).convert("RGBA").getchannel("A")


def in_bytes(image: Image.Image) -> Image.Image:
    """Returns 16-bit grey, which PIL would clip instead of scaling, as grey of 8 bits."""
    if not image.mode.startswith("I"):
        return image
    values = np.asarray(image, np.int64)
    scaled = Image.fromarray((values // 257).clip(0, 255).astype(np.uint8))
    hole = image.info.get("transparency")
    if isinstance(hole, int):
        scaled.putalpha(Image.fromarray(np.where(values == hole, 0, 255).astype(np.uint8)))
    return scaled


def _mask(channel: Image.Image, least: int) -> Image.Image:
    """Returns 255 where a channel reaches a value, and 0 elsewhere."""
    return channel.point([255 * (value >= least) for value in range(256)])


def _area(mask: Image.Image) -> int:
    return mask.histogram()[255]
