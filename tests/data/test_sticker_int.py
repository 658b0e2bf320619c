"""The records hold exactly what the prepared directory holds, and are never stale."""

import json
import shutil
import socket

import pytest
from fixtures.prepared import make_prepared_directory

from int_ra_jax.data import schema
from int_ra_jax.data.records import open_records
from int_ra_jax.data.sticker_int import prepare
from int_ra_jax.data.validation import PreparedDataError, read_prepared


def test_records_equal_the_directory_in_its_order(prepared_dir, tiny_source):
    prepared = read_prepared(prepared_dir)
    assert tiny_source.splits == schema.SPLITS
    assert tiny_source.stickers == prepared.stickers
    assert tiny_source.intentions == prepared.intentions
    assert tiny_source.info == dict(prepared.info)
    assert tiny_source.has_knowledge
    assert tiny_source.content_hash == schema.content_hash(prepared_dir)
    for split in schema.SPLITS:
        assert tiny_source.size(split) == len(prepared.conversations[split])
        assert tuple(tiny_source.conversations(split)) == prepared.conversations[split]
    chosen = tiny_source.conversations("train", [3, 0, 3])
    assert [c.id for c in chosen] == [f"conversation_{n:04d}" for n in (3, 0, 3)]
    for row, sticker in enumerate(prepared.stickers):
        assert tiny_source.image(row) == (prepared_dir / sticker.image).read_bytes()
        assert tiny_source.sticker_rows[sticker.id] == row


def test_a_second_start_reads_what_is_there_without_validating(tmp_path, monkeypatch):
    directory = make_prepared_directory(tmp_path / "d", num_conversations=6)
    first = prepare(directory, tmp_path / "tfds")
    monkeypatch.setattr("int_ra_jax.data.sticker_int.read_outline", pytest.fail)
    second = prepare(directory, tmp_path / "tfds")
    assert second.conversations("train") == first.conversations("train")
    assert second.info == first.info
    assert second.has_knowledge == first.has_knowledge


def test_records_open_without_their_prepared_directory(tmp_path):
    directory = make_prepared_directory(tmp_path / "d", num_conversations=6)
    built = prepare(directory, tmp_path / "tfds")
    shutil.rmtree(directory)
    opened = open_records(tmp_path / "tfds", built.content_hash)
    assert opened.conversations("test") == built.conversations("test")
    assert opened.image(3) == built.image(3)
    with pytest.raises(FileNotFoundError, match="no records of the data set"):
        open_records(tmp_path / "tfds", "0" * 64)


def test_changed_content_is_rebuilt_and_the_old_records_remain(tmp_path):
    directory = make_prepared_directory(tmp_path / "d", num_conversations=6, knowledge=False)
    before = prepare(directory, tmp_path / "tfds")
    assert not before.has_knowledge
    path = directory / "conversations.jsonl"
    path.write_text(path.read_text().replace("story 0", "chapter 0"))
    with pytest.raises(PreparedDataError, match="sha256"):
        prepare(directory, tmp_path / "tfds")  # changed, but dataset.json does not say so
    info = json.loads((directory / "dataset.json").read_text())
    info["files"] = schema.describe_files(directory)
    (directory / "dataset.json").write_text(json.dumps(info))
    after = prepare(directory, tmp_path / "tfds")
    assert "chapter 0" in after.conversations("train")[0].turns[-1].text
    assert "story 0" in before.conversations("train")[0].turns[-1].text


def test_a_stopped_build_is_not_taken_for_a_finished_one(tmp_path):
    directory = make_prepared_directory(tmp_path / "d", num_conversations=6)
    prepare(directory, tmp_path / "tfds")
    (gallery,) = (tmp_path / "tfds/sticker_int").glob("gallery-*/1.0.0")
    gallery.rename(gallery.with_name("incomplete.ABC_1.0.0"))
    assert len(prepare(directory, tmp_path / "tfds").stickers) == 12


def test_building_needs_no_network(tmp_path, monkeypatch):
    def refuse(*_arguments, **_options):
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    prepare(make_prepared_directory(tmp_path / "d", num_conversations=6), tmp_path / "tfds")


def test_what_is_missing_is_named(tmp_path, tiny_source):
    with pytest.raises(FileNotFoundError, match=r"config\.data\.prepared_dir"):
        prepare(tmp_path / "none", tmp_path / "tfds")
    (tmp_path / "empty").mkdir()
    with pytest.raises(PreparedDataError, match=r"stickers.jsonl:0: file is missing"):
        prepare(tmp_path / "empty", tmp_path / "tfds")
    with pytest.raises(ValueError, match="unknown split 'dev'"):
        tiny_source.size("dev")
