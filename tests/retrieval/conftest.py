"""An open gallery of the tiny run, and two checkpoints that embed for it."""

import jax
import pytest

from int_ra_jax.retrieval.gallery import Gallery
from int_ra_jax.retrieval.sticker_encoder import StickerEncoder


@pytest.fixture(scope="module")
def encoder(evaluated):
    return StickerEncoder.from_workdir(evaluated.workdir)


@pytest.fixture(scope="module")
def other_encoder(encoder):
    """Another checkpoint: every parameter is a little larger."""
    return StickerEncoder(encoder.run, jax.tree.map(lambda leaf: leaf * 1.1, encoder.params))


@pytest.fixture
def gallery(encoder, tmp_path):
    return Gallery.open(tmp_path / "gallery", encoder)
