"""A gallery on disk is made by who may write alone; processes of any length keep it in order."""

import dataclasses

import numpy as np
import pytest

from int_ra_jax.common.types import ATTRIBUTES
from int_ra_jax.retrieval import gallery_store, words
from int_ra_jax.retrieval.completion import given_attributes
from int_ra_jax.retrieval.gallery_rows import digest_of
from int_ra_jax.retrieval.gallery_store import GalleryStore
from int_ra_jax.retrieval.on_disk import OnDisk
from int_ra_jax.retrieval.sticker_encoder import Encoded
from int_ra_jax.retrieval.stickers import GallerySticker


def put(store, number, name=""):
    """Writes a sticker with an embedding of eight numbers."""
    one = GallerySticker(
        f"s{number}", bytes(8), name=name, words="", language="", media_type="image/png",
        attributes=dict.fromkeys(ATTRIBUTES, ""), attributes_given=(),
    )  # fmt: skip
    numbers = np.full((1, 8), number, np.float32)
    with store.writing():
        store.add_vectors("c", [digest_of(one)], Encoded(numbers, numbers[:, :2], numbers[:, :3]))
        store.write([one], [digest_of(one)])


def test_processes_that_write_once_and_end_join_small_files_too(tmp_path, monkeypatch):
    joined, compact = [], GalleryStore.compact
    monkeypatch.setattr(gallery_store, "_COMPACT", 8)
    monkeypatch.setattr(GalleryStore, "compact", lambda self: (joined.append(1), compact(self)))
    for number in range(20):
        put(GalleryStore(tmp_path / "g"), number)
    store = GalleryStore(tmp_path / "g", create=False)
    assert len(joined) >= 2 and store.version < 20 + 20
    assert len(store) == 20 and store.missing("c", store.digests().values()) == []
    for table in (store._stickers, store.vectors("c")):
        assert table.stats()["fragment_stats"]["num_fragments"] <= 8


def test_a_gallery_that_was_killed_before_it_had_its_index_gets_it_when_it_is_opened(
    tmp_path, monkeypatch
):
    def killed(table):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(words, "index_terms", killed)
        with pytest.raises(KeyboardInterrupt):
            GalleryStore(tmp_path / "g")
    store = GalleryStore(tmp_path / "g", create=False)
    put(store, 1, "two owls")
    assert store.matches("owl", 5) == ["s1"]  # a stem, which the index alone knows
    assert [one.columns for one in store._stickers.list_indices()] == [[words.COLUMN]]


def test_a_gallery_of_an_older_version_has_its_columns_made_and_says_what_was_given(tmp_path):
    store = GalleryStore(tmp_path / "g")
    put(store, 1)
    store._stickers.drop_columns(["attributes_given"])
    store = GalleryStore(tmp_path / "g", create=False)
    put(store, 2)
    found = {id: one.sticker for id, one in store.read(["s1", "s2"]).items()}
    assert found["s1"].attributes_given is None and found["s2"].attributes_given == ()
    assert found["s1"] == dataclasses.replace(found["s2"], id="s1", attributes_given=None)
    (older,) = store.read(["s1"]).values()
    for attributes, given in (
        ({"facial": "loudly crying face", "verbal": "cat"}, ()),
        ({"facial": "loudly crying face", "verbal": "a cat"}, ATTRIBUTES),
    ):
        whole = dict.fromkeys(ATTRIBUTES, "") | attributes
        one = dataclasses.replace(older.sticker, name="cat", emoji=("😭",), attributes=whole)
        assert given_attributes(one) == given


def test_a_folder_without_a_gallery_is_made_one_and_told_or_refused_and_left_alone(
    tmp_path, caplog
):
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("hm")
    for name in ("mistyped", "notes"):
        with pytest.raises(FileNotFoundError, match=f"{name} holds no gallery; .* add PACK"):
            GalleryStore(tmp_path / name, create=False)
    assert [path.name for path in tmp_path.rglob("*")] == ["notes", "a.txt"]
    with caplog.at_level("INFO", logger="absl"):
        GalleryStore(tmp_path / "new")
        GalleryStore(tmp_path / "new")
    assert caplog.messages == [f"made an empty gallery at {tmp_path / 'new'}"]


def test_packages_that_are_missing_are_named_before_anything_is_made(tmp_path, monkeypatch):
    monkeypatch.setattr(gallery_store, "find_spec", lambda name: name != "jieba" or None)
    with pytest.raises(ValueError, match=r"a gallery needs jieba: pip install -e '\.\[gallery\]'"):
        GalleryStore(tmp_path / "g")
    assert not (tmp_path / "g").exists()


def test_the_index_proposes_what_is_near_and_exact_products_decide(tmp_path):
    # As wide as no multiple of 8, of which LanceDB would code a row by a single byte.
    rng, size, width = np.random.default_rng(0), 5000, 37
    directions = rng.standard_normal((8, width))
    rows = rng.standard_normal((size, 8)) @ directions
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    digests = [f"{number:064x}" for number in range(size)]
    store = GalleryStore(tmp_path / "g")
    with store.writing():
        store.add_vectors("c", digests, Encoded(rows, rows[:, :2], rows[:, :3]))
    assert not store.vectors("c").list_indices()
    store.index("c")
    assert any("rows" in one.columns for one in store.vectors("c").list_indices())
    assert store.vectors("c").schema.field("rows").type.list_size == 48
    names = {digest: f"s{number}" for number, digest in enumerate(digests)}
    places = {f"s{number}": number for number in range(size)}
    search = OnDisk(store, "c", {digest: {name} for digest, name in names.items()}, places)
    allowed, found = rng.random(size) < 0.9, 0
    for query in rows[:20]:
        near = store.nearest("c", query, 64, 4, 20)
        assert len(near.digests) == 64
        numbers = [int(digest, 16) for digest in near.digests]
        np.testing.assert_array_equal(near.rows, rows[numbers])
        best = search.best(query, allowed, 10, lambda: pytest.fail("the index was not asked"))
        assert all(allowed[places[one]] for one, _ in best) and len(best) == 10
        assert [score for _, score in best] == sorted((s for _, s in best), reverse=True)
        exact = np.argsort(-np.where(allowed, rows @ query, -2))[:10]
        found += len({places[one] for one, _ in best} & {*exact.tolist()})
    assert found > 0.95 * 20 * 10
