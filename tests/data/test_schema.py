"""The prepared form survives a round trip, is hashed as stated, and stays in its directory."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
from fixtures.prepared import draw_sticker, make_prepared_directory

from int_ra_jax.data import schema
from int_ra_jax.data.schema import Conversation, StickerEntry


def test_records_keep_unknown_keys_through_a_round_trip():
    record = {
        "id": "c",
        "split": "train",
        "turns": [{"speaker": "u", "text": "hi", "sticker": "s", "time": 3}],
        "reply_speaker": "v",
        "sticker": "s",
        "intention": "joy",
        "knowledge": {"xReact": ["happy"]},
        "source_line": {"file": 7},
    }
    assert Conversation.from_json(record).to_json() == record
    del record["knowledge"]
    assert Conversation.from_json(record).to_json() == record
    sticker = {
        "id": "s",
        "image": "images/s.png",
        "attributes": {"gesture": "", "posture": "", "facial": "smile", "verbal": ""},
        "tags": ["cat"],
        "intentions": ["joy"],
        "artist": "x",
    }
    assert StickerEntry.from_json(sticker).to_json() == sticker


def test_image_digest_is_what_sha256sum_prints(tmp_path):
    if shutil.which("sha256sum") is None:
        pytest.skip("no sha256sum on this machine")
    directory = make_prepared_directory(tmp_path / "d", num_conversations=6, num_stickers=4)
    command = "LC_ALL=C sha256sum images/* | sha256sum"
    printed = subprocess.run(command, shell=True, cwd=directory, capture_output=True, text=True)
    stated = json.loads((directory / "dataset.json").read_text())["files"]["images"]
    assert printed.stdout.split()[0] == stated["sha256"]
    assert stated["count"] == 4


@pytest.mark.parametrize("file", ["conversations.jsonl", "dataset.json", "images/sticker_000.png"])
def test_content_hash_changes_with_any_file(tmp_path, file):
    directory = make_prepared_directory(tmp_path / "d", num_conversations=6, num_stickers=4)
    before = schema.content_hash(directory)
    assert schema.content_hash(directory) == before
    (directory / file).write_bytes((directory / file).read_bytes() + b" ")
    assert schema.content_hash(directory) != before


def test_directory_is_the_same_wherever_and_whenever_it_is_written(tmp_path):
    first = make_prepared_directory(tmp_path / "a")
    second = make_prepared_directory(tmp_path / "b")
    assert schema.content_hash(first) == schema.content_hash(second)
    third = make_prepared_directory(tmp_path / "c", seed=1)
    assert schema.content_hash(first) != schema.content_hash(third)


def test_writing_refuses_a_full_directory_and_leaves_nothing_when_it_fails(tmp_path):
    directory = make_prepared_directory(tmp_path / "d", num_conversations=6)
    with pytest.raises(FileExistsError, match="not empty"):
        make_prepared_directory(directory)
    sticker = StickerEntry("s", "images/s.png", {})
    with pytest.raises(KeyError):
        schema.write_prepared(tmp_path / "new", [], [sticker], [], {}, {})
    assert not (tmp_path / "new").exists()
    outside = StickerEntry("s", "images/../../s.png", {})
    with pytest.raises(ValueError, match="leaves the directory"):
        content = {outside.image: draw_sticker("gold", np.random.default_rng(0))}
        schema.write_prepared(tmp_path / "new", [], [outside], [], {}, content)


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        ("/etc/passwd.png", "leaves"),
        ("images/../../x.png", "leaves"),
        ("images\\..\\x.png", "leaves"),
        ("images/link.png", "leaves"),
        ("images/folder/x.png", "leaves"),
        ("other/x.png", "not below images/"),
        ("x.png", "not below images/"),
        ("images/x.svg", "ends in none of"),
    ],
)
def test_a_path_may_not_leave_the_images(tmp_path, image, reason):
    (tmp_path / "d/images").mkdir(parents=True)
    (tmp_path / "x.png").write_bytes(b"")
    (tmp_path / "d/images/link.png").symlink_to(tmp_path / "x.png")
    (tmp_path / "d/images/folder").symlink_to(tmp_path)
    with pytest.raises(ValueError, match=reason):
        schema.confined(tmp_path / "d", image)
    assert schema.confined(tmp_path / "d", "images/y.PNG").name == "y.PNG"


def test_schema_text_and_images_import_no_tensorflow():
    code = (
        "import sys; from int_ra_jax.data import batches, dataset, gallery, images, text;"
        "from int_ra_jax.data import tokenizer;"
        "from int_ra_jax.data import validation;"
        "sys.exit(any(name.split('.')[0] in ('tensorflow', 'torch') for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
