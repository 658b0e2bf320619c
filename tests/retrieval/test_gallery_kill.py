"""What a gallery has acknowledged is there after kill -9, and the gallery opens and goes on."""

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from int_ra_jax.retrieval.gallery_store import GalleryStore

ROOT = Path(__file__).resolve().parents[2]
CHECKSUM = "0123456789abcdef"

# Puts, changes and removes stickers one by one, and says so once each is done.
WRITER = """
import sys
import numpy as np
from int_ra_jax.common.types import ATTRIBUTES
from int_ra_jax.retrieval import gallery_store
from int_ra_jax.retrieval.gallery_rows import digest_of
from int_ra_jax.retrieval.sticker_encoder import Encoded
from int_ra_jax.retrieval.stickers import GallerySticker

path, checksum, first = sys.argv[1], sys.argv[2], int(sys.argv[3])
gallery_store._COMPACT = 7  # files are joined while the process is killed, too
store = gallery_store.GalleryStore(path)
for number in range(first, first + 10_000):
    id = f"s{number}"
    picture = id.encode() * 500
    one = GallerySticker(id, picture, words="", language="", media_type="image/png",
                         attributes=dict.fromkeys(ATTRIBUTES, ""))
    with store.writing():
        digest = digest_of(one)
        numbers = np.full((1, 8), number, np.float32)
        store.add_vectors(checksum, [digest], Encoded(numbers, numbers[:, :2], numbers[:, :3]))
        store.write([one], [digest])
    print("put", id, flush=True)
    if number % 3 == 1:
        with store.writing():
            store.mark([id], hidden=True)
        print("hide", id, flush=True)
    if number % 5 == 4:
        with store.writing():
            store.delete([id])
        print("remove", id, flush=True)
"""


def killed(path, first, seconds):
    """Runs a writer, kills it some time after its first word, and returns what it has said."""
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path), CHECKSUM, str(first)],
        stdout=subprocess.PIPE, text=True, cwd=ROOT,
    ) as writer:  # fmt: skip
        said = [writer.stdout.readline()]
        time.sleep(seconds)
        writer.send_signal(signal.SIGKILL)
        said += writer.stdout.readlines()
    assert said[0], "the writer never came to its first word"
    return [line.split() for line in said if line.endswith("\n")]


def check(path, said, underway):
    """Compares a gallery with the words of its writers; what was underway may be there or not."""
    store = GalleryStore(path, create=False)
    last = {}
    for what, id in said:
        last[id] = what
    found = store.read([*last], pictures=True)
    for id, what in last.items():
        if what == "remove":
            assert id not in found
            continue
        assert id in found or number_of(id) in underway  # its removal was not yet acknowledged
        if id in found:
            one = found[id]
            assert one.sticker.picture == id.encode() * 500
            assert one.sticker.hidden >= (what == "hide")
            rows = store.embeddings(CHECKSUM, [one.digest]).rows
            np.testing.assert_array_equal(rows, [[number_of(id)] * 8])
    assert {number_of(id) for id in store.digests() if id not in last} <= underway


def number_of(id):
    return int(id[1:])


def kill_in_rounds(path, rounds, longest, writes=0):
    said, underway, first, rng = [], set(), 0, random.Random(str(path))
    while rounds > 0 or len(said) < writes:
        rounds -= 1
        said += killed(path, first, rng.uniform(0, longest))
        newest = number_of(said[-1][1])
        underway |= {newest, newest + 1}
        check(path, said, underway)
        first = newest + 2
    return said


def test_what_is_acknowledged_survives_kill_9(tmp_path):
    assert kill_in_rounds(tmp_path / "gallery", rounds=2, longest=0.8)


@pytest.mark.long
def test_what_is_acknowledged_survives_kill_9_at_twenty_moments(tmp_path):
    kill_in_rounds(tmp_path / "gallery", rounds=20, longest=4, writes=1000)
