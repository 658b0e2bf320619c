"""Words written on stickers, read by OCR: rapidocr, whose package ships its models."""

from collections.abc import Sequence
from importlib import metadata
from typing import Any

import numpy as np
from PIL import Image

from data_prep.extraction.device import MISSING
from data_prep.extraction.frames import BACKGROUNDS, Picture
from int_ra_jax.data import images

CONFIDENCE = 0.7  # below it a line is more often a drawing than a word
# Eyes are read as 8 and folded hands as 人: so little writing must be read with more confidence.
SHORT = {1: 0.995, 2: 0.95}  # characters of the whole reading -> confidence


def reader_identity() -> dict[str, Any]:
    """Returns what decides a reading besides the picture: package, version, settings.

    Raises:
      ImportError: if rapidocr is not installed.
    """
    try:
        version = metadata.version("rapidocr")
    except metadata.PackageNotFoundError as error:
        raise ImportError(MISSING.format(name="rapidocr")) from error
    return {
        "package": f"rapidocr=={version}",
        "confidence": CONFIDENCE,
        "short": [list(one) for one in SHORT.items()],
        "backgrounds": list(BACKGROUNDS),
    }


class StickerReader:
    """Reads Chinese and English words."""

    def __init__(self) -> None:
        """Loads the models.

        Raises:
          ImportError: if rapidocr or onnxruntime is not installed.
        """
        try:
            import onnxruntime  # noqa: F401  rapidocr asks for it only when it first reads
            from rapidocr import RapidOCR
        except ImportError as error:
            raise ImportError(MISSING.format(name="rapidocr or onnxruntime")) from error
        self._engine: Any = RapidOCR(params={"Global.log_level": "critical"})

    def read(self, picture: Picture) -> str:
        """Returns the writing on a sticker; "" if there is none.

        Light writing on a transparent sticker shows on a dark ground only, so both are tried. Of
        the frames of an animation the one with the most writing counts.

        Raises:
          ValueError: if the file cannot be decoded.
        """
        grounds = BACKGROUNDS if picture.is_transparent() else BACKGROUNDS[:1]
        images = [image for ground in grounds for image in picture.load(ground)]
        return max((self.read_image(image) for image in images), key=_weight)[0]

    def read_file(self, content: bytes) -> str:
        """Returns the writing on a sticker's first frame, as ``read`` does; "" if there is none.

        Args:
          content: an encoded picture.

        Raises:
          ValueError: if it cannot be decoded.
        """
        grounds = BACKGROUNDS if images.is_transparent(content) else BACKGROUNDS[:1]
        shown = [images.decode(content, ground=ground) for ground in grounds]
        return max((self.read_image(image) for image in shown), key=_weight)[0]

    def read_image(self, image: Image.Image) -> tuple[str, float]:
        """Returns the writing in an RGB picture, line after line, and the mean confidence."""
        found = self._engine(np.asarray(image)[:, :, ::-1])
        lines = zip(found.txts or (), found.scores or (), strict=True)
        sure = [(text.strip(), float(score)) for text, score in lines if score >= CONFIDENCE]
        text = join_lines([text for text, _ in sure])
        confidence = sum(score for _, score in sure) / max(len(sure), 1)
        if confidence < SHORT.get(len("".join(text.split())), CONFIDENCE):
            return "", 0.0
        return text, confidence


def _weight(reading: tuple[str, float]) -> float:
    text, confidence = reading
    return len(text) * confidence


def join_lines(lines: Sequence[str]) -> str:
    """Joins lines of writing: with a blank, except between two Chinese characters."""
    joined = ""
    for line in lines:
        wide = joined and line and ord(joined[-1]) > 0x2E7F and ord(line[0]) > 0x2E7F
        joined += line if wide or not joined else f" {line}"
    return joined.strip()
