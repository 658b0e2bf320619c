"""Packs go into an open gallery from the command line, each sticker and file accounted for."""

import gzip
import json
import zipfile

import numpy as np
import pytest
from fixtures.pictures import drawn

from data_prep import open_gallery
from data_prep.open_gallery import act
from int_ra_jax.retrieval.gallery import Gallery
from int_ra_jax.retrieval.gallery_store import GalleryStore
from int_ra_jax.retrieval.sticker_encoder import Encoded, StickerEncoder


@pytest.fixture
def run(evaluated, monkeypatch):
    """Does what a command line says, without reading words on pictures."""
    encoder = StickerEncoder.from_workdir(evaluated.workdir)
    opened = Gallery.open
    monkeypatch.setattr(open_gallery, "words_reader", lambda: None)
    # One run for all commands of a test; each of them opens the gallery itself.
    monkeypatch.setattr(Gallery, "open", lambda path, _, **given: opened(path, encoder, **given))
    return lambda path, *words: [*act(str(path), evaluated.workdir, list(map(str, words)))]


def pack_of(tmp_path):
    """A pack with manifest, an animation, a sign, and files that are no sticker."""
    folder = tmp_path / "birds"
    folder.mkdir()
    stickers = [{"image_file": f"{number}.webp", "emojis": ["😭"]} for number in range(1, 4)]
    pack = {"name": "Birds", "tray_image_file": "tray.png", "stickers": stickers}
    (folder / "contents.json").write_text(json.dumps({"sticker_packs": [pack]}))
    (folder / "1.webp").write_bytes(drawn(1, "WEBP"))
    (folder / "2.webp").write_bytes(drawn(2, "WEBP", frames=3))
    (folder / "tray.png").write_bytes(drawn(3))
    (folder / "broken.webp").write_bytes(drawn(4, "WEBP")[:40])
    (folder / "readme.txt").write_text("hello")
    (folder / "empty.tgs").write_bytes(gzip.compress(b"{}"))
    return folder


def test_a_pack_goes_in_and_its_ledger_is_whole(run, tmp_path):
    lines = run(tmp_path / "g", "add", pack_of(tmp_path))
    assert lines[0].endswith(
        "birds: 7 records in, 2 kept\n"
        "  left out: 1 (file not in the pack; first contents.json:3)\n"
        "  left out: 1 (file of another kind; first readme.txt)\n"
        "  left out: 2 (no picture that can be read; first broken.webp)\n"
        "  left out: 1 (sign of the pack, no sticker; first tray.png)"
    )
    assert lines[1] == "2 stickers in 1 packs"
    assert run(tmp_path / "g", "list") == ["      2  Birds", "      2  stickers"]
    listed = run(tmp_path / "g", "list", "Birds")
    assert len(listed) == 2 and all("loudly crying face  😭" in line for line in listed)


def test_packs_and_stickers_are_hidden_shown_and_removed_by_name(run, tmp_path):
    path = tmp_path / "g"
    run(path, "add", pack_of(tmp_path))
    one = run(path, "list", "Birds")[0].split()[0]
    assert run(path, "hide", one) == ["1 hidden"]
    assert run(path, "hide", "Birds") == ["1 hidden"]
    assert run(path, "list", "Birds")[0].endswith("hidden")
    assert run(path, "show", "Birds") == ["2 shown again"]
    assert run(path, "remove", one) == ["1 removed, 1 left"]
    with pytest.raises(ValueError, match="no Fish, one; its packs are Birds"):
        run(path, "remove", "Fish", "Birds", "one")
    assert run(path, "remove", "Birds") == ["1 removed, 0 left"]
    assert run(path, "rebuild")[0].startswith("0 stickers have the embeddings")


def test_a_pack_that_is_added_again_keeps_what_was_changed_since(run, tmp_path):
    path, pack = tmp_path / "g", pack_of(tmp_path)
    run(path, "add", pack)
    one = run(path, "list", "Birds")[0].split()[0]
    gallery = Gallery.open(str(path), None, create=False)
    gallery.change(one, tags=("owl",), adult=True, approved=True, hidden=True)
    run(path, "add", pack)
    (listed,) = [line for line in run(path, "list", "Birds") if line.startswith(one)]
    assert listed.endswith("owl  hidden adult approved")


def test_what_is_not_found_is_listed_with_its_reason_and_other_checkpoints_are_told(
    run, tmp_path, monkeypatch
):
    path = tmp_path / "g"
    run(path, "add", pack_of(tmp_path))
    one, two = (line.split()[0] for line in run(path, "list", "Birds"))
    store = GalleryStore(path, create=False)
    (ours,) = store.checksums()
    store._db.drop_table(f"vectors_{ours}")
    numbers = np.zeros((1, 2), np.float32)
    with store.writing():
        store.add_vectors("older", ["d"], Encoded(numbers, numbers, numbers))
    encode = StickerEncoder.encode

    def picky(encoder, some):
        if any(sticker.id == one for sticker in some):
            raise ValueError("no finite embedding of it")
        return encode(encoder, some)

    monkeypatch.setattr(StickerEncoder, "encode", picky)
    assert run(path, "rebuild") == [
        f"1 stickers have the embeddings of checkpoint {ours[:12]}",
        f"{one} is not found by this checkpoint: no finite embedding of it",
        "those of 1 other checkpoints stay, for services that answer by them; "
        "once none does, forget deletes them",
    ]
    listed = run(path, "list")
    assert listed[-1] == f"{one} is not found by this checkpoint: no finite embedding of it"
    assert [line.split()[0] for line in run(path, "list", "Birds")] == [one, two]
    assert run(path, "list", "Birds")[0].endswith("not found: no finite embedding of it")
    assert run(path, "forget") == ["the embeddings of 1 other checkpoints are deleted"]
    assert store.checksums() == [ours]
    assert run(path, "remove", one) == ["1 removed, 1 left"]


def test_a_mistyped_gallery_is_refused_and_not_made(run, tmp_path):
    for words in (["list"], ["hide", "a"], ["remove", "a"], ["rebuild"], ["forget"]):
        with pytest.raises(FileNotFoundError, match="holds no gallery"):
            run(tmp_path / "mistyped", *words)
    assert not (tmp_path / "mistyped").exists()


def test_a_source_that_cannot_be_read_stops_no_other(run, tmp_path):
    bad, good = tmp_path / "bad.wastickers", tmp_path / "good.zip"
    bad.write_bytes(b"PK no zip")
    with zipfile.ZipFile(good, "w") as archive:
        archive.writestr("a.png", drawn(1))
        archive.writestr("emoji.txt", "{ no JSON")  # of no use, and no reason to stop
    with pytest.raises(ValueError, match=r"bad\.wastickers is not unpacked"):
        run(tmp_path / "g", "add", bad, good)
    assert run(tmp_path / "g", "list") == ["      1  good", "      1  stickers"]


def test_a_prepared_directory_keeps_its_attributes_and_known_intentions(run, trained, tmp_path):
    path, broken = tmp_path / "g", tmp_path / "broken"
    lines = run(path, "add", trained.prepared)
    assert "12 records in, 12 kept" in lines[0]
    entry = json.loads((trained.prepared / "stickers.jsonl").read_text().splitlines()[0])
    listed = next(
        line for line in run(path, "list", trained.prepared.stem) if line.startswith(entry["id"])
    )
    assert "; ".join(filter(None, entry["attributes"].values())) in listed
    broken.mkdir()
    escaping = {**entry, "image": "images/../../secret.png"}
    rows = ["{", "[]", json.dumps(escaping), json.dumps({**entry, "image": "images/gone.png"}), ""]
    (broken / "stickers.jsonl").write_text("\n".join(rows))
    lines = run(path, "add", broken)
    assert "4 records in, 0 kept" in lines[0] and "3 (row that cannot be read" in lines[0]
