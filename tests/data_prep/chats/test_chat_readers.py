"""The three export forms, line by line."""

import json
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep.chats import (
    json_stream,
    neutral,
    step,
    telegram,
    text_lines,
    whatsapp,
    whatsapp_dates,
)
from data_prep.chats.collect import collect
from data_prep.chats.whatsapp_dates import decide
from data_prep.chats.whatsapp_heads import Reader
from data_prep.formats import animations
from data_prep.problems import BadInputError, Problems
from int_ra_jax.common.ledger import Ledger


def messages_of(records, problems):
    ledger, found = Ledger(), []
    for record in records:
        try:
            exported = ledger.judge(record.place, record.make)
        except ValueError as error:
            problems.add(record.file, record.line, str(error))
        else:
            found += [] if exported is None else [exported.message]
    problems.stop_if_any()
    return found


def read_whatsapp(folder, text, order="auto"):
    folder.mkdir(exist_ok=True)
    (folder / "_chat.txt").write_text(text, "utf-8")
    problems = Problems("x")
    return messages_of(whatsapp.read(folder, problems, order), problems)


def at(*moment):
    return int(datetime(*moment, tzinfo=UTC).timestamp())


@pytest.mark.parametrize(
    ("line", "time"),
    [
        ("31/12/2020, 21:41 - Ann: hi", at(2020, 12, 31, 21, 41)),
        ("12/31/20, 9:41 PM - Ann: hi", at(2020, 12, 31, 21, 41)),
        ("12/31/20, 12:05\u202fAM - Ann: hi", at(2020, 12, 31, 0, 5)),
        ("31.12.20, 21:41 - Ann: hi", at(2020, 12, 31, 21, 41)),
        ("[31/12/20, 21:41:05] Ann: hi", at(2020, 12, 31, 21, 41, 5)),
        ("\u200e[12/31/20, 9:41:05\u202fp. m.] Ann: hi", at(2020, 12, 31, 21, 41, 5)),
        ("2020/12/31 下午9:41 - Ann: hi", at(2020, 12, 31, 21, 41)),
        ("[2020/12/31 上午12:05:09] Ann: hi", at(2020, 12, 31, 0, 5, 9)),
        ("2020-12-31 21:41 - Ann: hi", at(2020, 12, 31, 21, 41)),
    ],
)
def test_a_line_of_either_phone_in_any_order_gives_its_time(line, time, tmp_path):
    (message,) = read_whatsapp(tmp_path / "e", line)
    assert (message.time, message.sender, message.text) == (time, "Ann", "hi")


def test_lines_go_on_system_lines_and_omitted_media_do_not_count(tmp_path):
    text = (
        "13/01/2021, 10:00 - Messages and calls are end-to-end encrypted. Tap to learn more.\n"
        "13/01/2021, 10:01 - Ann: first\nsecond: line\n\n13 is a number\n"
        "13/01/2021, 10:02 - Ben: <Media omitted>\n"
        "13/01/2021, 10:03 - Ben: \u200eimage omitted\n"
        "13/01/2021, 10:03 - Ben: This message was deleted\n"
        "13/01/2021, 10:04 - Ann added Cleo\n"
        "13/01/2021, 10:05 - Ben: note: this <This message was edited>\n"
        "13/01/2021, 10:06 - Ben: IMG-20210113-WA0001.jpg (file attached)\n"
    )
    found = read_whatsapp(tmp_path / "e", text)
    assert [m.text for m in found] == ["first\nsecond: line\n\n13 is a number", "note: this"]


def test_stickers_of_both_phones_are_attached_and_omitted_ones_counted(tmp_path, exports):
    folder = tmp_path / "e"
    folder.mkdir()
    names = ("STK-20210113-WA0001.webp", "00000012-STICKER-2021-01-13-10-00-00.webp")
    for number, name in enumerate(names):
        (folder / name).write_bytes(exports.sticker(number))
    text = (
        f"[13/01/2021, 10:00:00] Ann: \u200e{names[0]} (file attached)\n"
        f"[13/01/2021, 10:01:00] Ann: \u200e<attached: {names[1]}>\n"
        "[13/01/2021, 10:02:00] Ann: \u200esticker omitted\n"
        "[13/01/2021, 10:03:00] Ann: hello\n"
    )
    (folder / "_chat.txt").write_text(text, "utf-8")
    counts = collect("whatsapp", folder, tmp_path / "out")
    assert counts["stickers"] == 2 and counts["messages"] == 3
    assert counts["stickers_left_out"] == {"file not in the export": 1}


@settings(max_examples=50, deadline=None)
@given(st.lists(st.datetimes(datetime(2019, 1, 1), datetime(2024, 1, 1)), min_size=1), st.data())
def test_the_decided_order_is_right_or_the_doubt_is_told(moments, data):
    form = data.draw(st.sampled_from(["%d/%m/%y", "%m/%d/%y", "%Y/%m/%d"]))
    lines = [f"{moment:{form}, %H:%M} - A: x" for moment in sorted(moments)]
    heads = [Reader().find(line).head for line in lines]
    decision = decide(heads)
    order = {"%d/%m/%y": "dmy", "%m/%d/%y": "mdy", "%Y/%m/%d": "ymd"}[form]
    true = [
        int(m.replace(second=0, microsecond=0, tzinfo=UTC).timestamp()) for m in sorted(moments)
    ]
    if decision.order == order:
        assert [head.seconds(order) for head in heads] == true
    else:
        assert decision.doubt and order in decision.doubt
        assert decide(heads, order).order == order


def test_an_order_that_no_date_allows_is_refused_with_its_line(tmp_path):
    with pytest.raises(BadInputError, match=r"_chat.txt:2: .*\(31, 12, 20\) is no date"):
        read_whatsapp(tmp_path / "e", "1/2/20, 10:00 - A: x\n31/12/20, 10:00 - A: y\n", "mdy")
    with pytest.raises(BadInputError, match="no line begins with a date"):
        read_whatsapp(tmp_path / "e", "hello\n")
    assert whatsapp_dates.ORDERS == ("dmy", "mdy", "ymd")


def telegram_messages(tmp_path, *messages):
    (tmp_path / "result.json").write_text(
        json.dumps({"name": "x", "type": "personal_chat", "id": 5, "messages": messages}, indent=1)
    )
    problems = Problems("x")
    return messages_of(telegram.read(tmp_path, problems), problems)


def telegram_message(**keys):
    return {
        "id": 7,
        "type": "message",
        "date": "2021-03-13T20:00:00",
        "from": "Ann",
        "from_id": "user1",
        "text": "hi",
    } | keys


def test_telegram_text_may_be_a_list_and_replies_are_kept(tmp_path):
    text = ["see ", {"type": "link", "text": "https://example.com"}, " ok"]
    (message,) = telegram_messages(tmp_path, telegram_message(text=text, reply_to_message_id=3))
    assert message.text == "see https://example.com ok"
    assert (message.chat, message.id, message.reply_to) == ("5", "7", "3")
    assert message.time == at(2021, 3, 13, 20)


def test_an_animated_sticker_gives_its_thumbnail_or_is_counted(tmp_path, exports):
    (tmp_path / "t.jpg").write_bytes(exports.sticker(1, form="PNG"))
    animated = {"media_type": "sticker", "text": "", "file": "stickers/a.tgs"}
    telegram_messages(
        tmp_path,
        telegram_message(id=1),
        telegram_message(id=2, thumbnail="t.jpg", **animated),
        telegram_message(id=3, **animated),
        telegram_message(id=4, **animated | {"file": "(File not included. Change settings.)"}),
    )
    counts = collect("telegram", tmp_path, tmp_path / "out")
    assert counts["stickers"] == 1
    assert counts["stickers_left_out"] == {"file not in the export": 2}


@pytest.mark.parametrize("thumbnail", [{}, {"thumbnail": "t.jpg"}])
@pytest.mark.parametrize("drawn", [True, False])
def test_an_animated_sticker_is_drawn_or_its_thumbnail_is_taken(
    drawn, thumbnail, tmp_path, exports, monkeypatch
):
    def as_picture(content):
        if not drawn:
            raise animations.PackageMissingError("painter")
        return exports.sticker(2)

    monkeypatch.setattr(animations, "as_picture", as_picture)
    (tmp_path / "a.tgs").write_bytes(b"\x1f\x8b")
    (tmp_path / "t.jpg").write_bytes(exports.sticker(1, form="PNG"))
    sticker = {"media_type": "sticker", "text": "", "file": "a.tgs"} | thumbnail
    telegram_messages(tmp_path, telegram_message(id=1), telegram_message(id=2, **sticker))
    counts = collect("telegram", tmp_path, tmp_path / "out")
    kept = drawn or bool(thumbnail)
    assert counts["stickers_left_out"] == ({} if kept else {"animated; pip install painter": 1})
    suffixes = {path.suffix for path in (tmp_path / "out" / step.STICKERS).iterdir()}
    assert suffixes == ({".webp"} if drawn else {".png"} if kept else set())


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (telegram_message(text=3), "text of an unknown form"),
        (telegram_message(date="now"), "time of an unknown form"),
        (telegram_message(date_unixtime="9" * 30, date=None), "time of an unknown form"),
        (telegram_message(date="0001-01-01T00:00:00+23:59"), None),
        (telegram_message(**{"from": None, "from_id": None}), "message without a sender"),
        (telegram_message(from_id={"user": 1}), None),
        (telegram_message(text=None, text_entities=[{"type": "bold", "text": "hi"}]), None),
        (telegram_message(text="a\0b"), "NUL character in the text"),
        (telegram_message(text=""), "message without words"),
        (telegram_message(text="", photo="p.jpg"), "photo without words"),
        (telegram_message(text="", poll={"question": "when?"}), "poll without words"),
        (telegram_message(text="", media_type="voice_message"), "voice message without words"),
        (telegram_message(text="", file="a.pdf"), "file without words"),
        (telegram_message(type="service", action="pin_message"), "notice of the program"),
        (telegram_message(type="unsupported"), "message of a type that is not known"),
        (telegram_message(text="", rich_message={"blocks": [{}]}), "rich message without words"),
        (telegram_message(id=1), "id of an earlier message of the chat"),
        ("words", "message that is no object"),
        ([[]], "message that is no object"),
        (
            telegram_message(text="", media_type="sticker", file="../../x.webp"),
            "sticker: no picture that can be read",
        ),
        (
            telegram_message(text="", media_type="sticker", file="a" * 999),
            "sticker: no picture that can be read",
        ),
        (
            telegram_message(text="", media_type="sticker", file=7),
            "sticker: file not in the export",
        ),
    ],
)
def test_one_odd_telegram_message_is_left_out_by_name_and_the_others_are_read(
    record, reason, tmp_path
):
    messages = [telegram_message(id=1), record, telegram_message(id=3)]
    (tmp_path / "result.json").write_text(json.dumps({"id": 5, "messages": messages}, indent=1))
    counts = collect("telegram", tmp_path, tmp_path / "out")
    report = step.read_report(tmp_path / "out")
    assert report["records_in"] == 3 and report["kept"] == counts["messages"]
    assert {name: one["count"] for name, one in report["left_out"].items()} == (
        {reason: 1} if reason else {}
    )


def test_a_rich_message_gives_the_words_of_its_blocks(tmp_path):
    part = {"type": "bold", "text": ["it ", {"type": "italic", "text": "twice"}]}
    blocks = [
        {"type": "heading", "text": "Plan"},
        {"type": "list", "items": [{"text": "soup"}, "rice"]},
        {"type": "paragraph", "text": ["read ", part]},
        {"type": "photo", "file": "p.jpg", "caption": ["at ", part]},
    ]
    message = telegram_message(rich_message={"blocks": blocks})
    del message["text"]
    (found,) = telegram_messages(tmp_path, message)
    assert found.text == "Plan\nsoup\nrice\nread it twice\nat it twice"


def test_topics_of_a_forum_are_chats_of_their_own(tmp_path):
    made = {"type": "service", "action": "topic_created", "text": ""}
    found = telegram_messages(
        tmp_path,
        made | {"id": 1},
        made | {"id": 2},
        telegram_message(id=10, reply_to_message_id=1),
        telegram_message(id=11, reply_to_message_id=2),
        telegram_message(id=12, reply_to_message_id=10),
        telegram_message(id=13, text="", photo="p.jpg", reply_to_message_id=2),
        telegram_message(id=14, reply_to_message_id=13),
        telegram_message(id=15),
    )
    assert [(m.id, m.chat, m.reply_to) for m in found] == [
        ("10", "5/1", None),
        ("11", "5/2", None),
        ("12", "5/1", "10"),
        ("14", "5/2", "13"),
        ("15", "5", None),
    ]


def test_a_chat_without_an_id_does_not_take_that_of_the_chat_before(tmp_path):
    chats = [
        {"id": 9, "messages": [telegram_message()]},
        {"id": 9, "type": "private_group", "messages": [telegram_message()]},
        {"name": "no id", "messages": [telegram_message()]},
        {"id": "", "messages": [telegram_message()]},
    ]
    (tmp_path / "result.json").write_text(json.dumps({"chats": {"list": chats}}))
    problems = Problems("x")
    found = messages_of(telegram.read(tmp_path, problems), problems)
    assert len({message.chat for message in found}) == 4


def test_a_second_download_of_an_export_is_found_and_a_wrong_format_is_asked_about(tmp_path):
    export = {"id": 5, "messages": [telegram_message(date=None, date_unixtime=1_700_000_000)]}
    (tmp_path / "result (1).json").write_text(json.dumps(export))
    collect("telegram", tmp_path, tmp_path / "out")
    (message,) = step.read_messages(tmp_path / "out", "")
    assert message.time == 1_700_000_000
    (tmp_path / "result (1).json").write_text("[]")
    with pytest.raises(BadInputError, match=r"0 records in, 0 kept\. Is --format the program"):
        collect("telegram", tmp_path, tmp_path / "new")


def test_an_export_as_html_is_told_how_to_export_json(tmp_path):
    (tmp_path / "messages.html").write_text("<html></html>")
    for source in (tmp_path, tmp_path / "messages.html"):
        with pytest.raises(FileNotFoundError, match=r"messages\.html: .*Machine-readable JSON"):
            collect("telegram", source, tmp_path / "out")


def test_broken_telegram_json_is_reported_with_its_line(tmp_path, exports):
    folder = exports.telegram(tmp_path / "e")
    lines = (folder / "result.json").read_text().splitlines()
    lines[40] = "}}"
    (folder / "result.json").write_text("\n".join(lines))
    with pytest.raises(BadInputError) as raised:
        collect("telegram", folder, tmp_path / "out")
    (problem,) = raised.value.problems
    assert problem.file == "result.json" and abs(problem.line - 41) <= 1
    assert not (tmp_path / "out").exists()


def test_a_message_without_an_end_is_reported_before_it_fills_the_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(json_stream, "MAX_MESSAGE", 2**16)
    long = telegram_message(text="x" * 2**14)
    found = telegram_messages(tmp_path, *[long | {"id": number} for number in range(40)])
    assert len(found) == 40
    with pytest.raises(BadInputError, match="more than 65,536 bytes in one message"):
        telegram_messages(tmp_path, telegram_message(text="x" * 2**18))
    with pytest.raises(BadInputError, match="more than 65,536 bytes in one message"):
        telegram_messages(tmp_path, telegram_message(text=["x" * 99] * 2**12))


def test_a_line_that_is_too_long_is_reported_and_the_next_ones_are_read(tmp_path, monkeypatch):
    monkeypatch.setattr(neutral, "MAX_LINE", 200)
    good = {"chat": "c", "time": 1, "sender": "a", "text": "hi"}
    lines = [good, good | {"text": "x" * 999}, good, good | {"time": "now"}]
    (tmp_path / "chat.jsonl").write_text("\n".join(map(json.dumps, lines)))
    problems = Problems("x")
    with pytest.raises(
        BadInputError, match=r"chat\.jsonl:2: line of more than 200 bytes"
    ) as raised:
        messages_of(neutral.read(tmp_path, problems), problems)
    assert [problem.line for problem in raised.value.problems] == [2, 4]


@given(st.lists(st.integers(0, 40), max_size=12), st.integers(6, 30))
def test_a_message_of_any_length_is_cut_and_the_next_one_is_found(tmp_path_factory, lengths, limit):
    head = "13/01/2021, 10:01 - Ann: "
    lines = [head + "begin", *("x" * length for length in lengths), head + "end"]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(text_lines, "MAX_TEXT", limit + len(head))
        first, last = read_whatsapp(tmp_path_factory.mktemp("e"), "\n".join(lines))
    assert last.text == "end"
    assert len(first.text) <= 5 + limit + len(head)
    assert ("\n".join(lines[:-1]) + "\n").startswith(head + first.text)


def test_messages_are_sorted_and_an_id_twice_is_reported(tmp_path):
    rows = [{"chat": "c", "time": t, "sender": "a", "text": f"{t}", "id": t} for t in (9, 1, 5)]
    path = tmp_path / "chat.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    collect("jsonl", path, tmp_path / "out")
    assert [m.time for m in step.read_messages(tmp_path / "out", "")] == [1, 5, 9]
    path.write_text("\n".join(map(json.dumps, [*rows, rows[0]])))
    with pytest.raises(BadInputError, match=r"chat\.jsonl:4: duplicate id '9'"):
        collect("jsonl", path, tmp_path / "other")


@settings(max_examples=30, deadline=None)
@given(st.binary(max_size=300))
def test_no_rubbish_ends_in_anything_but_a_report(tmp_path_factory, content):
    folder = tmp_path_factory.mktemp("rubbish")
    for format, name in (("jsonl", "a.jsonl"), ("telegram", "result.json"), ("whatsapp", "a.txt")):
        (folder / name).write_bytes(content)
        with pytest.raises(BadInputError):
            collect(format, folder, folder / "out")
        assert not (folder / "out").exists()
