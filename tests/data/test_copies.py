"""What tells copies of a sticker from others, and that it can be kept as bytes."""

import dataclasses
import io

import numpy as np
import pytest
from PIL import Image

from int_ra_jax.data.copies import Fingerprint, Fingerprints


def file_of(seed, transparent=False, size=(120, 90)):
    """Draws a smooth random picture; a transparent one has a hole."""
    small = np.random.default_rng(seed).integers(0, 256, (5, 5, 3), np.uint8)
    image = Image.fromarray(small).resize(size, Image.Resampling.BICUBIC)
    if transparent:
        image = image.convert("RGBA")
        image.paste((0, 0, 0, 0), (10, 10, 60, 60))
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def flat(content):
    one = Fingerprint.from_bytes(content) if isinstance(content, bytes) else content
    return (
        *(one.bits.tolist(), one.colours.tolist(), pytest.approx(one.aspect), one.blank),
        one.on_dark and flat(one.on_dark),
    )


@pytest.mark.parametrize("transparent", [False, True])
def test_a_fingerprint_is_the_same_after_it_was_kept(transparent):
    one = Fingerprint.of_file(file_of(0, transparent))
    assert (one.on_dark is not None) == transparent
    kept = Fingerprint.from_bytes(one.to_bytes())
    assert flat(kept) == flat(one)
    assert kept.shows_same(one)
    assert one.shows_same(kept)
    assert not kept.shows_same(Fingerprint.of_file(file_of(1, transparent)))


def test_a_picture_that_shows_nothing_is_nobodys_copy_after_it_was_kept_either():
    file = io.BytesIO()
    Image.new("RGB", (50, 50), "white").save(file, "PNG")
    kept = Fingerprint.from_bytes(Fingerprint.of_file(file.getvalue()).to_bytes())
    assert kept.blank
    assert not kept.shows_same(kept)


@pytest.mark.parametrize("content", [b"", b"x" * 32, b"x" * 780])
def test_other_bytes_are_refused(content):
    with pytest.raises(ValueError, match=f"{len(content)} bytes are no fingerprint"):
        Fingerprint.from_bytes(content)


def test_one_is_compared_with_all_as_with_each():
    contents = [file_of(seed, seen) for seed in range(4) for seen in (False, True)]
    contents += [file_of(0, size=(240, 180)), file_of(0, size=(120, 60)), file_of(0, True)]
    prints = [Fingerprint.of_file(one) for one in contents]
    rng = np.random.default_rng(0)
    for one in prints[:6]:  # near and less near ones, some on one ground alone
        moved = dataclasses.replace(one, colours=one.colours + rng.integers(-40, 40, (16, 16, 3)))
        bits = one.bits ^ (rng.random(64) < 0.15)
        prints += [dataclasses.replace(one, bits=bits), moved]
        prints += [dataclasses.replace(one, on_dark=on_dark) for on_dark in (None, moved, one)]
    prints.append(dataclasses.replace(prints[0], blank=True))
    each = [[other.shows_same(one) for other in prints] for one in prints]
    together = Fingerprints(prints)
    assert [together.copies_of(place).tolist() for place in range(len(prints))] == each
    assert 0.05 < np.mean(each) < 0.5
    Fingerprints([])
