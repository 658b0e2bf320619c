"""A gallery is open: what is put is found, what is hidden is not, and nothing acknowledged is lost."""

import io

import numpy as np
import pytest
from PIL import Image, ImageDraw

from int_ra_jax.data.schema import Conversation, Turn
from int_ra_jax.retrieval.gallery import Gallery
from int_ra_jax.retrieval.retriever import Retriever
from int_ra_jax.retrieval.sticker_encoder import StickerEncoder
from int_ra_jax.retrieval.stickers import GallerySticker


def drawn(number, form="PNG"):
    """A picture that no other number has."""
    rng = np.random.default_rng(number)
    image = Image.new("RGB", (48, 40), tuple(rng.integers(0, 255, 3).tolist()))
    ImageDraw.Draw(image).ellipse(
        (4, 4, 20 + number % 20, 30), fill=tuple(rng.integers(0, 255, 3).tolist())
    )
    content = io.BytesIO()
    image.save(content, form)
    return content.getvalue()


def sticker(number, **fields):
    return GallerySticker(f"s{number}", picture=drawn(number), **fields)


SAID = Conversation("c", "test", (Turn("ann", "we won the game"),), "bo", "", "")


@pytest.fixture(scope="module")
def encoder(evaluated):
    return StickerEncoder.from_workdir(evaluated.workdir)


@pytest.fixture
def gallery(encoder, tmp_path):
    return Gallery.open(tmp_path / "gallery", encoder)


def retriever_of(evaluated, gallery):
    return Retriever.from_workdir(evaluated.workdir, gallery=gallery)


def found(ranked):
    return [one.sticker for one in ranked.stickers]


def test_put(evaluated, gallery):
    ledger = gallery.put([sticker(n, pack="a", emoji=("😭",)) for n in range(20)])
    assert str(ledger) == "20 records in, 20 kept"
    retriever = retriever_of(evaluated, gallery)
    ranked = retriever.reply(SAID, top_k=30)
    assert len(found(ranked)) == 20
    print(ranked)
    print(gallery.get("s3"))
    print(retriever.similar("s3", top_k=3))
