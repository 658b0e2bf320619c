"""The paper's Figure 2: how many conversations have which intention."""

import contextlib
import io
from collections.abc import Iterable, Mapping, Sequence

from matplotlib import font_manager, style
from matplotlib.figure import Figure
from matplotlib.ft2font import FT2Font

_COLOURS = ("#2f7fc1", "#d97a22", "#2e9e6b")
# Fonts with Chinese, Japanese and Korean signs, of Linux, macOS and Windows.
_WIDE_FONTS = (
    "Noto Sans CJK SC",
    "Noto Sans CJK JP",
    "Noto Sans SC",
    "Source Han Sans SC",
    "WenQuanYi Zen Hei",
    "PingFang SC",
    "Microsoft YaHei",
    "SimHei",
)
_DEFAULT = "DejaVu Sans"


def draw_intentions(
    counts: Mapping[str, Mapping[str, int]], splits: Sequence[str]
) -> tuple[bytes, str]:
    """Draws one bar an intention, the commonest on top, its splits side by side in it.

    Args:
      counts: intention -> split -> conversations.
      splits: which of them to draw, from left to right.

    Returns:
      A PNG, and the characters that no font of this machine draws: they stand as boxes there.
    """
    names = sorted(counts, key=lambda name: sum(counts[name][split] for split in splits))
    fonts, missing = fonts_for("".join(names))
    settings = {"font.family": fonts, "font.size": 9, "text.parse_math": False}
    with style.context(settings):
        figure = Figure(figsize=(8, 0.6 + 0.25 * len(names)), layout="constrained")
        axes = figure.subplots()
        left = [0] * len(names)
        places = range(len(names))
        for split, colour in zip(splits, _COLOURS, strict=True):
            widths = [counts[name][split] for name in names]
            axes.barh(places, widths, left=left, label=split, color=colour, height=0.75)
            left = [before + width for before, width in zip(left, widths, strict=True)]
        for place, total in enumerate(left):
            axes.text(total, place, f" {total:,}", va="center", fontsize=8)
        axes.set_yticks(places, names)
        axes.set_ylim(-0.6, len(names) - 0.4)
        axes.margins(x=0.08)
        axes.set_xlabel("conversations")
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, loc="lower right")
        content = io.BytesIO()
        figure.savefig(content, format="png", dpi=130)
    return content.getvalue(), missing


def fonts_for(text: str) -> tuple[list[str], str]:
    """Chooses fonts that draw a text.

    Returns:
      Names for ``font.family``, and the characters that none of them has, each once.
    """
    files = _files_by_name()
    missing = {char for char in text if not char.isspace()}
    chosen = [_DEFAULT]
    missing -= _drawn(files[_DEFAULT], missing)
    if missing:
        # matplotlib keeps a list of fonts on disk, which lacks those that were installed later.
        for file in set(font_manager.findSystemFonts()) - set(files.values()):
            with contextlib.suppress(RuntimeError, OSError):  # a damaged font, or of another kind
                font_manager.fontManager.addfont(file)
        files = _files_by_name()
    for name in _WIDE_FONTS:
        if name in files and (drawn := _drawn(files[name], missing)):
            chosen.append(name)
            missing -= drawn
    return chosen, "".join(sorted(missing))


def _files_by_name() -> dict[str, str]:
    return {entry.name: entry.fname for entry in reversed(font_manager.fontManager.ttflist)}


def _drawn(file: str, characters: Iterable[str]) -> set[str]:
    available = FT2Font(file).get_charmap()
    return {char for char in characters if ord(char) in available}
