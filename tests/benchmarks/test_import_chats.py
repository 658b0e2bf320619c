"""The generated exports are of the size asked for, the same every time, and can be imported."""

import pytest

from benchmarks import import_chats
from data_prep.chats.collect import collect

SIZE = import_chats.Size(messages=120, stickers=7, senders=5)


@pytest.mark.parametrize("name", import_chats.WRITERS)
def test_an_input_is_the_same_bytes_every_time(name, tmp_path):
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        import_chats.WRITERS[name](tmp_path / folder, SIZE)
    files = [sorted(p for p in (tmp_path / f).rglob("*") if p.is_file()) for f in ("one", "two")]
    one, two = ([(p.name, p.read_bytes()) for p in found] for found in files)
    assert one == two and len(one) >= 7


@pytest.mark.parametrize("name", ["jsonl", "telegram", "whatsapp"])
def test_every_message_and_every_sticker_is_read(name, tmp_path):
    (tmp_path / "source").mkdir()
    import_chats.WRITERS[name](tmp_path / "source", SIZE)
    counts = collect(name, tmp_path / "source", tmp_path / "out")
    assert counts["messages"] == 120
    assert counts["messages_with_sticker"] == 12
    assert counts["stickers"] == 7 and not counts["stickers_left_out"]


def test_an_import_is_measured_and_its_conversations_are_counted(tmp_path):
    megabytes, used, conversations = import_chats.measure("jsonl", tmp_path, SIZE)
    assert 0 < megabytes < 1
    assert used.seconds > 0 and used.peak_bytes > 2**20
    lines = (tmp_path / "out" / "conversations.jsonl").read_text().splitlines()
    assert conversations == len(lines) > 0
