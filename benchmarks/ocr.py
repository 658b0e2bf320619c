"""How well the OCR of data_prep reads words on stickers: exact matches and character errors.

    python -m benchmarks.ocr [--phrases=6] [--font=FILE ...] [--embedded=DIR] [--out=FILE]

Draws phrases on transparent stickers, as PNG, in several sizes, colours and rotations, one of these
changed at a time, and reads them as ``python -m data_prep.extraction attributes`` does. Fonts are
looked up among those of the system (fc-match), or given: the first for English, the last for
Chinese.
``--embedded`` reads the drawn words of an embedded data set too, whose attribute ``verbal`` names
them, and a hundred stickers without any, none of which was used to choose how confident a short
reading must be. Letter case and blanks do not count; punctuation does.
"""

import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont
from tqdm import tqdm

from benchmarks import command
from data_prep.extraction.frames import Picture
from data_prep.extraction.ocr import StickerReader
from int_ra_jax.data.schema import StickerEntry
from int_ra_jax.data.validation import read_prepared

PHRASES = {
    "en": ("OK", "Good night", "Thank you!", "NO WAY", "What?!", "Congratulations"),
    "zh": ("好的", "晚安", "谢谢老板", "不要啊", "什么？", "恭喜发财"),
}
INKS = {  # fill, outline
    "black": ("black", None),
    "white, outlined": ("white", "black"),
    "white": ("white", None),
    "yellow": ("gold", None),
    "red, outlined": ("crimson", "white"),
}


@dataclass(frozen=True)
class Style:
    """How a phrase is drawn; by default as most stickers have it."""

    size: int = 24
    ink: str = "white, outlined"
    rotation: int = 0


STYLES = (
    Style(),
    *(Style(size=size) for size in (12, 16, 48)),
    *(Style(ink=ink) for ink in INKS if ink != Style.ink),
    *(Style(rotation=rotation) for rotation in (15, 45, 180)),
)


@dataclass(frozen=True)
class Case:
    """One sticker with words, and what was read."""

    language: str
    style: Style
    truth: str
    read: str

    @property
    def errors(self) -> int:
        """Character errors, of at most as many as the truth is long."""
        return distance(plain(self.truth), plain(self.read))


def main() -> None:
    """Prints one table for each language, and one for the embedded data set if it is named."""
    parser = command.parser(__doc__)
    parser.add_argument("--font", type=Path, action="append", default=[])
    parser.add_argument("--phrases", type=int, default=6, help="of each language, at most six")
    parser.add_argument("--embedded", type=Path, help="directory of an embedded data set")
    arguments = parser.parse_args()
    reader, text = StickerReader(), []
    begin = time.perf_counter()
    cases = [
        case
        for language, phrases in PHRASES.items()
        for case in _read_all(reader, language, phrases[: arguments.phrases], arguments.font)
    ]
    seconds = time.perf_counter() - begin
    text.append(f"{len(cases)} stickers, {seconds / len(cases):.2f} s each")
    for language in PHRASES:
        mine = [case for case in cases if case.language == language]
        groups = {
            f"{s.size} px, {s.ink}, {s.rotation} degrees": [
                case for case in mine if case.style == s
            ]
            for s in STYLES
        }
        text.append(_table(language, groups | {"all": mine}))
    if arguments.embedded:
        written, invented, bare = _embedded(reader, arguments.embedded)
        text.append(_table("artwork", {"drawn words": written}))
        text.append(f"words read on {invented} of {bare} stickers without any")
        cases += written
    command.publish(arguments, "\n\n".join(text), cases=[asdict(case) for case in cases])


def draw(
    text: str, font: ImageFont.FreeTypeFont, ink: tuple[str, str | None], rotation: int
) -> Image.Image:
    """Draws a phrase on a transparent square of 240 pixels or more, and turns it."""
    fill, outline = ink
    width = max(1, round(font.size / 12)) if outline else 0
    box = ImageDraw.Draw(Image.new("L", (1, 1))).textbbox((0, 0), text, font, stroke_width=width)
    edge = max(240, int(box[2] - box[0]) + 40)
    image = Image.new("RGBA", (edge, edge), (0, 0, 0, 0))
    ImageDraw.Draw(image).text(
        (edge / 2, edge / 2), text, fill, font, anchor="mm", stroke_width=width, stroke_fill=outline
    )
    return image.rotate(rotation, Image.Resampling.BICUBIC, expand=True)


def distance(one: str, other: str) -> int:
    """Returns how many characters must be put in, left out or changed to get from one to other."""
    row = list(range(len(other) + 1))
    for i, mine in enumerate(one, start=1):
        above, row = row, [i]
        for j, theirs in enumerate(other, start=1):
            row.append(min(row[-1] + 1, above[j] + 1, above[j - 1] + (mine != theirs)))
    return row[-1]


def plain(text: str) -> str:
    """Returns a text without letter case and blanks, its punctuation in ASCII."""
    marks = str.maketrans("？！，。’‘", "?!,.''")
    return "".join(text.casefold().split()).translate(marks)


def _read_all(
    reader: StickerReader, language: str, phrases: Sequence[str], fonts: Sequence[Path]
) -> Iterator[Case]:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "sticker.png"
        for style in tqdm(STYLES, desc=language, unit="style"):
            font = _font(language, fonts, style.size)
            for text in phrases:
                draw(text, font, INKS[style.ink], style.rotation).save(file)
                read = reader.read(Picture.of(file, frames=1, side=768))
                yield Case(language, style, text, read)


def _font(language: str, fonts: Sequence[Path], size: int) -> ImageFont.FreeTypeFont:
    if fonts:
        return ImageFont.truetype(fonts[0] if language == "en" else fonts[-1], size)
    pattern = f"sans:lang={'zh-cn' if language == 'zh' else 'en'}:weight=200"
    command = ["fc-match", "--format=%{file}\n%{index}", pattern]
    file, index = subprocess.check_output(command, text=True).split("\n")
    return ImageFont.truetype(file, size, index=int(index) & 0xFFFF)


def _embedded(reader: StickerReader, directory: Path) -> tuple[list[Case], int, int]:
    """Reads the stickers of an embedded data set that bear words, and a hundred that bear none.

    Returns:
      the stickers with words, how many of the others were read as words, and of how many.
    """
    stickers = read_prepared(directory).stickers
    # Those at 0, 4, 8, ... were looked at for ``data_prep.extraction.ocr.SHORT``.
    bare = [sticker for sticker in stickers if not sticker.attributes["verbal"]][2::4][:100]

    def read(sticker: StickerEntry) -> str:
        return reader.read(Picture.of(directory / sticker.image, frames=1, side=768))

    written = [
        Case("art", Style(), sticker.attributes["verbal"], read(sticker))
        for sticker in stickers
        if sticker.attributes["verbal"]
    ]
    return written, sum(bool(read(sticker)) for sticker in bare), len(bare)


def _table(name: str, groups: Mapping[str, Sequence[Case]]) -> str:
    rows = []
    for group, cases in groups.items():
        exact = sum(case.errors == 0 for case in cases) / len(cases)
        errors = sum(case.errors for case in cases) / sum(len(plain(case.truth)) for case in cases)
        row = {name: group, "stickers": len(cases), "exact": f"{exact:.1%}"}
        rows.append({**row, "character errors": f"{errors:.1%}"})
    return command.table(rows)


if __name__ == "__main__":
    main()
