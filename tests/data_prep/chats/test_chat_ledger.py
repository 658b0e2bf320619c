"""Every record of an export is kept, or left out for a reason that has a count and a place."""

import json
import zipfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep import archives
from data_prep.chats import neutral, step, telegram, whatsapp
from data_prep.chats.collect import collect
from data_prep.chats.construct import construct
from data_prep.problems import Problems
from int_ra_jax.common.ledger import Ledger

CASES = Path(__file__).resolve().parents[4] / "shared" / "cases"
# Records in, and kept, of exports in awkward forms that lie beside the project, where they do.
COUNTS = {
    "02_whatsapp_colon_without_space": (24, 24),
    "04_whatsapp_french_android": (16, 16),
    "04_whatsapp_french_ios": (16, 16),
    "05_whatsapp_ios_group_notices": (29, 16),
    "06_whatsapp_colons": (19, 16),
    "07_whatsapp_captions": (24, 16),
    "08_whatsapp_was_and_hash": (48, 40),
    "09_whatsapp_txt_document": (18, 17),
    "10_whatsapp_zip": (16, 16),
    "11_whatsapp_arabic": (16, 16),
    "12_whatsapp_chinese_periods": (16, 16),
    "13_whatsapp_czech_blanks": (16, 16),
    "13_whatsapp_german_ios": (40, 16),
    "13_whatsapp_korean": (16, 16),
    "15_whatsapp_words_like_notices": (16, 16),
    "20_telegram_rich_message": (40, 32),
    "25_telegram_topics": (26, 24),
    "30_exif_orientation": (10, 10),
    "32_white_on_transparent": (14, 14),
}


def collected(format, source, out):
    """Collects, and returns the report once its sum is found exact."""
    counts = collect(format, source, out)
    report = step.read_report(out)
    left_out = sum(reason["count"] for reason in report["left_out"].values())
    assert report["records_in"] == report["kept"] + left_out
    assert report["kept"] == counts["messages"] == len(list(step.read_messages(out, "")))
    return report


@pytest.mark.parametrize("name", COUNTS)
def test_every_record_of_an_awkward_export_is_accounted_for(name, tmp_path):
    if not CASES.is_dir():
        pytest.skip("no directory of awkward exports beside the project")
    (source,) = [one for one in (CASES / name).iterdir() if one.is_dir()] or [CASES / name]
    format = next((one for one in ("whatsapp", "telegram") if one in name), "jsonl")
    report = collected(format, source, tmp_path / "out")
    assert (report["records_in"], report["kept"]) == COUNTS[name]


def test_the_report_names_each_reason_its_count_and_the_first_place(tmp_path, exports):
    source = exports.whatsapp(tmp_path / "export")
    report = collected("whatsapp", source, tmp_path / "out")
    assert report["left_out"] == {
        "notice of the program": {"count": 1, "first": "WhatsApp Chat with Bob.txt:1"},
        "placeholder or notice of the program": {
            "count": 28,
            "first": "WhatsApp Chat with Bob.txt:3",
        },
    }
    assert (report["records_in"], report["kept"]) == (69, 40)


@pytest.mark.parametrize("format", ["jsonl", "telegram", "whatsapp"])
def test_the_ledger_reaches_the_data_set_and_names_no_file_and_no_chat(format, tmp_path, exports):
    source = exports.MAKERS[format](tmp_path / "export")
    ledger = collected(format, source, tmp_path / "one")
    construct(format, source, tmp_path / "out")
    info = (tmp_path / "out/dataset.json").read_text("utf-8")
    final = json.loads(info)["ledger"]
    assert "Bob" not in info and "result.json" not in info
    for reason in final["left_out"].values():
        assert reason.pop("first").startswith("file_")
    for reason in ledger["left_out"].values():
        reason.pop("first")
    assert final == ledger


def test_a_sticker_that_cannot_be_taken_leaves_the_words_beside_it(tmp_path):
    sticker = {
        "type": "message",
        "date": "2021-03-13T20:00:00",
        "from": "A",
        "media_type": "sticker",
    }
    (tmp_path / "broken.webp").write_bytes(b"RIFF")
    files = ["broken.webp", "none.webp", "a.tgs"]
    texts = ["", "hi", ""]
    messages = [
        sticker | {"id": i, "file": file, "text": text}
        for i, (file, text) in enumerate(zip(files, texts, strict=True))
    ]
    (tmp_path / "result.json").write_text(json.dumps({"id": 1, "messages": messages}))
    report = collected("telegram", tmp_path, tmp_path / "out")
    assert set(report["left_out"]) == {
        "sticker: no picture that can be read",
        "sticker: file not in the export",
    }
    (kept,) = step.read_messages(tmp_path / "out", "")
    assert kept.text == "hi" and kept.sticker is None


def zipped(path, members, method=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


@pytest.mark.parametrize("format", ["jsonl", "telegram", "whatsapp"])
def test_a_zip_gives_what_its_folder_gives(format, tmp_path, exports):
    folder = exports.MAKERS[format](tmp_path / "export")
    members = {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }
    (tmp_path / "zips").mkdir()
    archive = zipped(tmp_path / "zips/chat.zip", members)
    report = collected(format, folder, tmp_path / "one")
    assert collected(format, archive, tmp_path / "two") == report
    assert collected(format, archive.parent, tmp_path / "three") == report
    for name in ("messages.jsonl", "people.jsonl"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    names = sorted(path.name for path in (tmp_path / "two").iterdir())
    assert names == ["messages.jsonl", "people.jsonl", "report.json", "step.json", "stickers"]


def test_of_a_zips_other_files_the_names_are_known_and_not_the_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "MAX_BYTES", 200)
    head = "14/03/2024, 12:30 - Mira: "
    chat = f"{head}hi\n{head}plan.pdf (qqq)\n{head}node.js (qqq)\n"
    path = zipped(tmp_path / "a.zip", {"_chat.txt": chat, "plan.pdf": bytes(2**22)})
    report = collected("whatsapp", path, tmp_path / "out")
    assert report["kept"] == 2 and set(report["left_out"]) == {"document without words"}


def test_files_of_file_managers_are_no_chats_in_a_zip_and_in_a_folder(tmp_path):
    chat = "14/03/2024, 12:30 - Mira: hi\n"
    members = {"_chat.txt": chat, "._chat.txt": chat, "__MACOSX/a/_chat.txt": f"\0{chat}"}
    path = zipped(tmp_path / "a.zip", members)
    zipfile.ZipFile(path).extractall(tmp_path / "folder")
    for number, source in enumerate((path, tmp_path / "folder")):
        report = collected("whatsapp", source, tmp_path / f"out{number}")
        assert report == {"records_in": 1, "kept": 1, "left_out": {}}


@pytest.mark.parametrize(
    "name", ["群聊/x.txt".encode("gb18030"), "群聊/x.txt".encode(), b"a\\x.txt"]
)
def test_names_in_a_zip_are_read_as_their_program_wrote_them(name, tmp_path):
    blank = "n" * len(name)
    content = zipped(tmp_path / "a.zip", {blank: "14/03/2024, 12:30 - Mira: hi\n"}).read_bytes()
    (tmp_path / "a.zip").write_bytes(content.replace(blank.encode(), name))
    collected("whatsapp", tmp_path / "a.zip", tmp_path / "out")
    (message,) = step.read_messages(tmp_path / "out", "")
    assert message.chat == ("a/x" if name.isascii() else "群聊/x")


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"..\\x.txt": b"a"}, "leaves the folder"),
        ({"../x.txt": b"a"}, "leaves the folder"),
        ({"/x.txt": b"a"}, "leaves the folder"),
        ({"C:\\x.txt": b"a"}, "leaves the folder"),
        ({"_chat.txt": bytes(2**22)}, "unpacks to 4,194,304 bytes"),
        ({f"{n}.txt": b"a" for n in range(5)}, "5 members; at most 4"),
        ({f"{n}.txt": b"ab" * 40 for n in range(4)}, "320 bytes unpacked; at most 300"),
        ({"a": b"x", "a/b.txt": b"y"}, "is not unpacked"),
    ],
)
def test_a_zip_out_of_bounds_is_refused_in_one_message(members, message, tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "MAX_MEMBERS", 4)
    monkeypatch.setattr(archives, "MAX_BYTES", 300 if len(members) == 4 else 2**30)
    path = zipped(tmp_path / "a.zip", members)
    with pytest.raises(ValueError, match=rf"a\.zip is not unpacked: .*{message}|{message}"):
        collect("whatsapp", path, tmp_path / "out")
    assert {one.name for one in tmp_path.iterdir()} <= {"a.zip", "out.incomplete"}
    assert not list(tmp_path.glob("out.incomplete/unpacked-*"))


def test_a_broken_zip_and_one_without_a_chat_say_what_to_do(tmp_path):
    good = zipped(tmp_path / "good.zip", {"_chat.txt": b"x" * 999}, zipfile.ZIP_STORED)
    broken = bytearray(good.read_bytes())
    broken[60] ^= 1
    (tmp_path / "broken.zip").write_bytes(broken)
    (tmp_path / "none.zip").write_bytes(b"PK")
    for name in ("broken.zip", "none.zip"):
        with pytest.raises(ValueError, match=r"is not unpacked: .*Unpack it yourself"):
            collect("whatsapp", tmp_path / name, tmp_path / "out")
    with pytest.raises(FileNotFoundError, match=r"holds no result\*\.json. In Telegram"):
        collect("telegram", good, tmp_path / "out")


HEADS = (
    "14/03/2024, 12:30 - ",
    "\u200e[14/03/24 下午3:00] ",
    "2024. 3. 14. 오후 8:00, ",
    "9/9/9 99:99 - ",
)
SAID = (
    "Mira",
    "Tobin Oak",
    ": ",
    ":",
    "\u200e",
    "<Anhang: ",
    ".webp>",
    "STK-1.webp (file attached)",
)
PIECES = st.lists(
    st.sampled_from([*HEADS, *SAID, "\n", "\n", "\0", '"', "•", "\ufffd", " ", "١"]),
    max_size=40,
).map(lambda parts: "".join(parts).encode())
JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["text", "id", "type", "date", "file"]), inner, max_size=4
        )
    ),
    max_leaves=6,
)
GOOD = {"id": 1, "type": "message", "from": "A", "date": "2021-03-13", "text": "hi"}
KEYS = st.sampled_from([*GOOD, "from_id", "media_type", "reply_to_message_id", "rich_message"])
MESSAGES = st.lists(st.dictionaries(KEYS, JSON, max_size=3).map(lambda keys: GOOD | keys) | JSON)
LINES = st.lists(st.dictionaries(st.sampled_from(["chat", "sender", "time", "text", "id"]), JSON))


@settings(max_examples=25, deadline=None)
@given(st.binary(max_size=200), PIECES, MESSAGES, LINES)
def test_whatever_the_bytes_the_sum_is_exact_and_nothing_but_problems_is_raised(
    tmp_path_factory, rubbish, pieces, messages, lines
):
    folder = tmp_path_factory.mktemp("fuzz")
    whole = json.dumps({"id": 1, "messages": messages}).encode()
    rows = "\n".join(json.dumps(line) for line in lines).encode()
    good = (whatsapp, "a.txt", pieces), (telegram, "result.json", whole), (neutral, "a.jsonl", rows)
    for reader, name, content in good:
        for written in (content, content[: len(content) // 2] + rubbish + content[-20:]):
            (folder / name).write_bytes(written)
            problems, ledger, refused, count = Problems("x"), Ledger(), 0, 0
            for record in reader.read(folder / name, problems):
                count += 1
                try:
                    ledger.judge(record.place, record.make)
                except ValueError:
                    refused += 1
            left_out = sum(reason.count for reason in ledger.left_out.values())
            assert ledger.records_in == count == ledger.kept + left_out + refused
            assert reader.STRICT or not refused
            (folder / name).unlink()


def test_an_encrypted_zip_is_refused(tmp_path):
    path = zipped(tmp_path / "a.zip", {"_chat.txt": b"x"}, zipfile.ZIP_STORED)
    flagged = bytearray(path.read_bytes())
    flagged[6] |= 1  # of the member's own header
    flagged[flagged.index(b"PK\x01\x02") + 8] |= 1  # of the directory
    path.write_bytes(flagged)
    with pytest.raises(ValueError, match=r"a\.zip is not unpacked: .*encrypted"):
        collect("whatsapp", path, tmp_path / "out")
