"""Everything drawn for the report: line plots, attention overlays and sticker thumbnails.

Plots leave as SVG text for inlining (ink follows the page's colour, ids are unique on the page),
pictures leave as encoded bytes. The same input always gives the same bytes.
"""

import io
import re
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.style
import numpy as np
from jaxtyping import Float, Real
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image, ImageOps

from int_ra_jax.data import grounds, images

_INK = "#010203"  # drawn instead of black, so that it alone can be replaced by currentColor
_COLOURS = ("#2f7fc1", "#d97a22", "#2e9e6b", "#a06bd0", "#c9527a", "#8c8a2e", "#5f9ea0", "#8a8f98")
_DASHES: tuple[str | tuple[int, tuple[float, ...]], ...] = (
    "-",
    (0, (5.0, 1.5)),
    (0, (1.5, 1.5)),
    (0, (6.0, 1.5, 1.5, 1.5)),
)
_STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "int_ra_jax",
    "font.family": "sans-serif",
    "font.size": 9,
    "text.parse_math": False,  # a "$" in a name is a dollar
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "axes.edgecolor": "#80808080",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.grid": True,
    "grid.color": "#80808038",
    "grid.linewidth": 0.6,
    "xtick.color": "#808080a0",
    "ytick.color": "#808080a0",
    "xtick.labelcolor": _INK,
    "ytick.labelcolor": _INK,
    "lines.linewidth": 1.7,
    "legend.frameon": False,
    "legend.handlelength": 2.6,
    "figure.constrained_layout.h_pad": 0.02,
    "figure.constrained_layout.w_pad": 0.02,
}
_HEAT_LEVELS = 64
_HEAT_SIDE = 64  # pixels; browsers smooth the rest of the way up
_FULL_HEAT = 2.0  # times the mean: attention flatter than this never reaches the hottest colour


@dataclass(frozen=True)
class Curve:
    """One line of a plot.

    Attributes:
      x: positions, for example recall in [0, 1] or training steps.
      y: the value at each position; NaN leaves a gap.
    """

    x: Real[np.ndarray, " points"]
    y: Real[np.ndarray, " points"]


def pr_svg(curves: Mapping[str, Curve], prevalence: float, prefix: str) -> str:
    """Draws precision over recall for every system, and the prevalence as the floor.

    Args:
      curves: system name -> recall (x) and precision (y), both in [0, 1].
      prevalence: share of relevant (query, sticker) pairs, the precision of a random ranking.
      prefix: makes the ids of this plot unique on the page; letters, digits and hyphens.

    Returns:
      One ``<svg>`` element.
    """

    def draw(axes: Axes) -> None:
        _lines(axes, curves)
        axes.axhline(prevalence, color="#808080", linewidth=1, linestyle=":", label="prevalence")
        top = max([prevalence, *(float(np.nanmax(curve.y)) for curve in curves.values())])
        axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, min(1.0, top * 1.08)))

    return _svg(draw, (4.1, 3.1), prefix)


def training_svg(title: str, curves: Mapping[str, Curve], prefix: str) -> str:
    """Draws one metric over training steps, one line for each split.

    Args:
      title: the metric without its split, for example ``loss/total``.
      curves: split name -> steps (x) and values (y).
      prefix: makes the ids of this plot unique on the page; letters, digits and hyphens.

    Returns:
      One ``<svg>`` element.
    """

    def draw(axes: Axes) -> None:
        _lines(axes, curves)
        axes.set_title(title)
        axes.set_xlabel("step")
        axes.ticklabel_format(axis="y", scilimits=(-3, 4))

    return _svg(draw, (3.7, 2.8), prefix)


def heat_png(attention: Float[np.ndarray, "g g"]) -> bytes:
    """Draws attention over a square of patches as a transparent overlay.

    A patch with no more than the mean attention stays clear; the hottest colour is the picture's
    own maximum, but at least twice the mean, so that flat attention looks flat and not like noise
    blown up.

    Args:
      attention: mass on each patch, not negative, row by row from the top left.

    Returns:
      A small palette PNG with alpha, to be stretched over the sticker.
    """
    relative = _relative(attention)
    heat = np.clip((relative - 1) / (max(float(relative.max()), _FULL_HEAT) - 1), 0, 1)
    smooth = Image.fromarray(heat.astype(np.float32)).resize(
        (_HEAT_SIDE, _HEAT_SIDE), Image.Resampling.BILINEAR
    )
    levels = np.rint(np.asarray(smooth) * (_HEAT_LEVELS - 1)).astype(np.uint8)
    overlay = Image.fromarray(levels)
    shades = np.linspace(0.35, 0.97, _HEAT_LEVELS)  # inferno's black end would darken the picture
    colours = matplotlib.colormaps["inferno"](shades, bytes=True)[:, :3]
    overlay.putpalette(colours.tobytes(), "RGB")
    alpha = np.rint(np.linspace(0, 1, _HEAT_LEVELS) ** 0.85 * 225).astype(np.uint8)
    encoded = io.BytesIO()
    overlay.save(encoded, "PNG", transparency=alpha.tobytes(), optimize=True)
    return encoded.getvalue()


def attention_peak(attention: Float[np.ndarray, "g g"]) -> float:
    """Returns how many times the mean the strongest patch gets: 1 is flat attention."""
    return float(_relative(attention).max())


def thumbnail(image: bytes | Path, side: int = 176) -> bytes:
    """Encodes a sticker for the page: its first frame as the image tower sees it, in a square.

    A picture that is not square is centred on white, never stretched.

    Args:
      image: encoded bytes, or the path, of a sticker.
      side: longest edge of the result in pixels; smaller pictures are not enlarged.

    Returns:
      WebP bytes, about a fifth of the PNG's size.

    Raises:
      ValueError: if the picture cannot be read; names the path where there is one.
    """
    try:
        picture = images.decode(image if isinstance(image, bytes) else image.read_bytes())
    except (OSError, ValueError) as error:
        name = "picture given as bytes" if isinstance(image, bytes) else str(image)
        raise ValueError(
            f"cannot read the sticker {name}: {error}. Give a PNG, JPEG, WebP or GIF file."
        ) from error
    edge = max(picture.size)
    square = Image.new("RGB", (edge, edge), grounds.WHITE)
    square.paste(picture, ((edge - picture.width) // 2, (edge - picture.height) // 2))
    fitted = square if edge <= side else ImageOps.contain(square, (side, side))
    encoded = io.BytesIO()
    fitted.save(encoded, "WEBP", quality=82, method=4)
    return encoded.getvalue()


def _relative(attention: Float[np.ndarray, "g g"]) -> Float[np.ndarray, "g g"]:
    mean = float(attention.mean())
    return attention / mean if mean > 0 else np.ones_like(attention)


def line_style(number: int) -> tuple[str, str | tuple[int, tuple[float, ...]]]:
    """Returns colour and dashes of the n-th line; the first 32 differ from each other."""
    # Where the colours begin again, the dashes are one further on.
    dash = (number + number // len(_COLOURS)) % len(_DASHES)
    return _COLOURS[number % len(_COLOURS)], _DASHES[dash]


def _lines(axes: Axes, curves: Mapping[str, Curve]) -> None:
    for number, (name, curve) in enumerate(curves.items()):
        colour, dashes = line_style(number)
        # A line of one point would be invisible: validation may have run only once.
        marker = "o" if curve.x.size == 1 else ""
        style: dict[str, Any] = {
            "color": colour,
            "linestyle": dashes,
            "marker": marker,
            "markersize": 4,
        }
        axes.plot(curve.x, curve.y, label=name, **style)


def _svg(draw: Callable[[Axes], None], size: tuple[float, float], prefix: str) -> str:
    """Runs ``draw`` on fresh axes and returns an element that can stand inside a page."""
    # "default" first, so that a matplotlibrc on this machine cannot change the page.
    with matplotlib.style.context(["default", _STYLE]), warnings.catch_warnings():
        # Names in other scripts are drawn by the browser's fonts, not by the one measured here.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure = Figure(figsize=size, layout="constrained")
        draw(figure.subplots())
        figure.legend(loc="outside lower left", ncols=2)
        buffer = io.StringIO()
        figure.savefig(
            buffer,
            format="svg",
            transparent=True,
            metadata={"Date": None, "Creator": None, "Format": None, "Type": None},
        )
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :].strip()
    svg = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", svg, count=1, flags=re.DOTALL)
    svg = re.sub(r"font-family: [^;\"]+; ?", "", svg)  # the page's own fonts
    svg = re.sub(r'\bid="', f'id="{prefix}-', svg)
    svg = re.sub(r'(url\(#|href="#)', rf"\g<1>{prefix}-", svg)
    return svg.replace(_INK, "currentColor")
