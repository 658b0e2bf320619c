"""Records that are damaged or gone stop whoever reads them, with the file and the remedy."""

import os
import shutil

import pytest
from fixtures.prepared import make_prepared_directory, text_config

from int_ra_jax.data.batches import make_batches
from int_ra_jax.data.dataset import Dataset, UnreadableRecordsError
from int_ra_jax.data.records import open_records
from int_ra_jax.data.sticker_int import prepare


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A prepared directory and its records."""
    root = tmp_path_factory.mktemp("built")
    directory = make_prepared_directory(root / "prepared")
    return directory, root / "tfds", prepare(directory, root / "tfds").content_hash


@pytest.fixture
def copied(built, tmp_path):
    """The records, to break, and their hash."""
    return shutil.copytree(built[1], tmp_path / "tfds"), built[2]


def find(records, name):
    (path,) = records.rglob(name)
    return path


def flip(path, place):
    content = bytearray(path.read_bytes())
    content[place] ^= 0x10
    path.write_bytes(content)


def read_all(source):
    conversations = {split: source.conversations(split) for split in source.splits}
    images = [source.image(row) for row in range(len(source.stickers))]
    return conversations, source.stickers, images, source.intentions, dict(source.info)


@pytest.mark.parametrize("name", ["*-train.array_record*", "*-gallery.array_record*"])
def test_a_flipped_byte_of_a_record_is_never_handed_out(copied, name):
    records, content_hash = copied
    expected = read_all(open_records(records, content_hash))
    file = find(records, name)
    content = file.read_bytes()
    noticed = 0
    for place in range(100, 5_000, 177):  # the records; the rest of the file is padding
        flip(file, place)
        try:
            assert read_all(open_records(records, content_hash)) == expected
        except UnreadableRecordsError as error:
            noticed += 1
            assert str(file) in str(error)
            assert f"Delete {file.parent} and start the training command again" in str(error)
        file.write_bytes(content)
    assert noticed > 10


@pytest.mark.parametrize("name", ["*-valid.array_record*", "*-gallery.array_record*"])
@pytest.mark.parametrize("size", [0, 65_536, 100_000])
def test_a_file_that_was_cut_short_is_named_on_opening(copied, name, size):
    records, content_hash = copied
    file = find(records, name)
    os.truncate(file, size)
    with pytest.raises(UnreadableRecordsError, match=r"cannot be read:\n  /") as caught:
        open_records(records, content_hash)
    assert str(file) in str(caught.value)


def test_all_files_that_are_gone_are_named_at_once(copied):
    records, content_hash = copied
    files = [find(records, f"*-{split}.array_record*") for split in ("train", "test", "gallery")]
    for file in files:
        file.unlink()
    with pytest.raises(UnreadableRecordsError) as caught:
        open_records(records, content_hash)
    assert all(str(file) in str(caught.value) for file in files)
    assert " and ".join(str(file.parent) for file in files[1:]) in str(caught.value)


@pytest.mark.parametrize("name", ["dataset_info.json", "features.json", "metadata.json"])
@pytest.mark.parametrize("kind", ["conversations", "gallery"])
def test_a_damaged_description_is_named_and_changes_nothing_read(copied, kind, name):
    records, content_hash = copied
    expected = read_all(open_records(records, content_hash))
    (folder,) = (records / "sticker_int").glob(f"{kind}-*/*")
    content = (folder / name).read_bytes()
    noticed = 0
    for place in range(1, len(content), len(content) // 12):
        flip(folder / name, place)
        try:
            assert read_all(open_records(records, content_hash)) == expected
        except UnreadableRecordsError as error:
            noticed += 1
            assert str(folder) in str(error)
        (folder / name).write_bytes(content)
    assert noticed >= 3


def test_what_the_message_advises_works(built, copied):
    records, content_hash = copied
    os.truncate(find(records, "*-train.array_record*"), 0)
    with pytest.raises(UnreadableRecordsError) as caught:
        prepare(built[0], records)
    shutil.rmtree(str(caught.value).partition("Delete ")[2].partition(" and start")[0])
    assert read_all(prepare(built[0], records)) == read_all(open_records(built[1], content_hash))


def test_an_error_in_a_reading_thread_comes_out_as_it_was_raised(
    tiny_source, tiny_tokenizer, monkeypatch, capfd
):
    read, calls = Dataset.conversations, []

    def conversations(source, split, rows=None):
        calls.append(split)
        if len(calls) > 3:
            raise UnreadableRecordsError("the disk is gone")
        return read(source, split, rows)

    monkeypatch.setattr(Dataset, "conversations", conversations)
    batches = make_batches(tiny_source, tiny_tokenizer, text_config(), "train", 4, seed=0)
    with pytest.raises(UnreadableRecordsError, match=r"^the disk is gone$") as caught:
        for _ in range(10):
            next(batches)
    assert caught.value.__cause__ is None
    assert "Traceback" not in "".join(capfd.readouterr())
