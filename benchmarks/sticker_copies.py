"""Measures which thresholds tell copies of a sticker from other stickers.

    python -m benchmarks.sticker_copies FOLDER [--out=FILE]

FOLDER holds pictures that are all distinct. Each is scaled and compressed as programs do it; a
threshold is good if it merges these copies and no two of the folder's own pictures.
"""

import io
from collections.abc import Iterator, Sequence
from itertools import combinations
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont
from tqdm import tqdm

from benchmarks import command
from int_ra_jax.data import images
from int_ra_jax.data.copies import Fingerprint
from int_ra_jax.data.schema import IMAGE_SUFFIXES

BITS = (0, 4, 6, 8, 10, 12, 16)
COLOURS = (20, 30, 40, 60, 255)
CAPTIONS = ("OK", "NO", "thank you", "good night")


def main() -> None:
    """Prints a table: what each pair of thresholds merges."""
    parser = command.parser(__doc__)
    parser.add_argument("folder", type=Path, help="distinct pictures")
    arguments = parser.parse_args()
    paths = sorted(p for p in arguments.folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES)
    pictures = [images.decode(path.read_bytes()) for path in paths]
    alike: list[tuple[int, int]] = []
    for image in tqdm(pictures, desc="copying", unit="sticker", mininterval=1):
        original = Fingerprint.of(image)
        alike += [original.distance(Fingerprint.of(copy)) for copy in copies(image)]
    prints = [Fingerprint.of(image) for image in pictures]
    others = [one.distance(other) for one, other in combinations(prints, 2)]
    captioned = [
        one.distance(other)
        for image in pictures
        for one, other in combinations(map(Fingerprint.of, with_captions(image)), 2)
    ]
    rows = [
        {
            "bits": bits,
            "colour": colour,
            "copies merged": f"{_within(alike, bits, colour) / max(len(alike), 1):.2%}",
            "distinct pairs merged": _within(others, bits, colour),
            "other captions merged": _within(captioned, bits, colour),
        }
        for bits in BITS
        for colour in COLOURS
    ]
    counts = f"{len(alike)} copies, {len(others)} distinct pairs, {len(captioned)} captioned pairs"
    command.publish(arguments, f"{counts}\n\n{command.table(rows)}", rows=rows)


def _within(pairs: Sequence[tuple[int, int]], bits: int, colour: int) -> int:
    return sum(1 for pair in pairs if pair[0] <= bits and pair[1] <= colour)


def copies(image: Image.Image) -> Iterator[Image.Image]:
    """Yields the picture as other programs keep it: in other sizes, formats and qualities."""
    for factor in (0.4, 0.75, 2.0):
        size = (round(image.width * factor), round(image.height * factor))
        yield image.resize(size, Image.Resampling.BICUBIC)
    for form, quality in (("JPEG", 40), ("JPEG", 75), ("WEBP", 40), ("WEBP", 80)):
        yield _encoded(image, form, quality)
    yield image.quantize(64).convert("RGB")  # as GIF keeps it
    half = image.resize((image.width // 2, image.height // 2), Image.Resampling.LANCZOS)
    yield _encoded(half, "JPEG", 50)


def with_captions(image: Image.Image) -> Iterator[Image.Image]:
    """Yields the picture with different words below it: distinct stickers of one maker."""
    for caption in CAPTIONS:
        drawn = image.copy()
        size = max(image.height // 7, 8)
        place = (image.width // 2, image.height - size)
        font = ImageFont.load_default(size)
        ImageDraw.Draw(drawn).text(place, caption, "black", font, anchor="mm")
        yield drawn


def _encoded(image: Image.Image, form: str, quality: int) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, form, quality=quality)
    return images.decode(buffer.getvalue())


if __name__ == "__main__":
    main()
