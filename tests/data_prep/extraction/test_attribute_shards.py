"""Attributes extracted by parts on several machines, and joined."""

import json
from dataclasses import replace

import pytest
from fixtures.prepared import make_prepared_directory

from data_prep.extraction import attributes
from data_prep.extraction import work as extraction_work
from data_prep.extraction.attributes import Describer, extract
from data_prep.extraction.prompts import load_prompt
from data_prep.extraction.store import Shard
from data_prep.extraction.work import Chat, UnansweredError, Work
from int_ra_jax.common.types import ATTRIBUTES
from int_ra_jax.data.validation import read_prepared

PROMPT = load_prompt("attributes", {"questions": dict})
SIDE = 64


class Reader:
    """Stands for the OCR: reads each picture as its own hash, and remembers which it was shown."""

    seen: list[str] = []

    def read(self, picture):
        self.seen.append(picture.digest)
        return f"words {picture.digest[:6]}"


@pytest.fixture
def reader(monkeypatch):
    monkeypatch.setattr(attributes, "StickerReader", Reader)
    monkeypatch.setattr(attributes, "reader_identity", lambda: {"package": "reader==1"})
    monkeypatch.setattr(Reader, "seen", [])
    return Reader


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    return make_prepared_directory(tmp_path_factory.mktemp("bare") / "d", num_stickers=9)


def describer(model):
    return Describer(Chat(str(model), device="cpu", batch_size=4, length=3), PROMPT, "both")


def run(bare, out, cache, who, **changes):
    work = Work(bare, out, cache, overwrite=True, **changes)
    counts = extract(work, who, side=SIDE)
    return counts, work


def keys_of(cache, pattern="attributes*.jsonl"):
    lines = [line for path in cache.glob(pattern) for line in path.read_text().splitlines()]
    return sorted(json.loads(line)["key"] for line in lines)


def test_shards_of_stickers_merge_to_what_one_run_writes(
    bare, vision_dir, reader, tmp_path, monkeypatch
):
    who = describer(vision_dir("llava"))
    run(bare, tmp_path / "whole", tmp_path / "one", who)
    whole_seen = sorted(reader.seen)
    reader.seen.clear()
    cache, out = tmp_path / "cache", tmp_path / "out"
    for index in (3, 1, 2):
        run(bare, out, cache, who, shard=Shard(index, 3))
        assert not out.exists()
        if index != 2:
            with pytest.raises(UnansweredError, match=r"\d+ of \d+ stickers have no answer"):
                run(bare, out, cache, who, merge=True)
    assert len(list(cache.glob("attributes-*-of-3.jsonl"))) == 3
    # No sticker is asked about twice: the parts have no answer in common, and lack none.
    assert sorted(reader.seen) == whole_seen
    assert keys_of(cache) == keys_of(tmp_path / "one")

    def refuse(*_, **__):
        raise AssertionError("merging loads no model and reads no picture")

    monkeypatch.setattr(extraction_work, "InProcessChat", refuse)
    monkeypatch.setattr(reader, "read", refuse)
    counts, _ = run(bare, out, cache, who, merge=True)
    assert counts["stickers"] == 9
    for file in ("stickers.jsonl", "conversations.jsonl"):
        assert (out / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()
    checks = (tmp_path / name / attributes.CHECK_FILE for name in ("cache", "one"))
    assert len({path.read_text("utf-8") for path in checks}) == 1


def test_files_of_shards_copied_into_one_folder_merge_by_ocr_alone(bare, reader, tmp_path):
    who = Describer(None, PROMPT, "ocr")
    together = tmp_path / "together"
    together.mkdir()
    for index in (1, 2):
        run(bare, tmp_path / "out", tmp_path / f"machine{index}", who, shard=Shard(index, 2))
        for path in (tmp_path / f"machine{index}").glob("*.jsonl"):
            (together / path.name).write_bytes(path.read_bytes())
    pictures = {(bare / sticker.image).read_bytes() for sticker in read_prepared(bare).stickers}
    assert len(reader.seen) == len(set(reader.seen)) == len(pictures)
    run(bare, tmp_path / "out", together, who, merge=True)
    before = {sticker.id: sticker for sticker in read_prepared(bare).stickers}
    for sticker in read_prepared(tmp_path / "out").stickers:
        read = sticker.attributes["verbal"]
        assert read.startswith("words ")
        kept = dict(before[sticker.id].attributes) | {"verbal": read}
        assert sticker == replace(before[sticker.id], attributes=kept)
        assert set(sticker.attributes) == set(ATTRIBUTES)


def test_a_shard_and_a_merge_at_once_are_refused(bare, tmp_path):
    with pytest.raises(ValueError, match="give no --shard with it"):
        Work(bare, tmp_path / "out", tmp_path / "cache", Shard(1, 2), merge=True)
