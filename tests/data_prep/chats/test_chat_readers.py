"""The three export forms, line by line."""

import json
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep.chats import neutral, step, telegram, whatsapp, whatsapp_dates
from data_prep.chats.collect import collect
from data_prep.chats.whatsapp_dates import HEAD, Head, decide
from data_prep.problems import BadInputError, Problems


def read_whatsapp(folder, text, order="auto"):
    folder.mkdir(exist_ok=True)
    (folder / "_chat.txt").write_text(text, "utf-8")
    problems = Problems("x")
    found = [one.message for one in whatsapp.read(folder, problems, order)]
    problems.stop_if_any()
    return found


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
    heads = [Head.of(HEAD.match(line)) for line in lines]
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
    found = [one.message for one in telegram.read(tmp_path, problems)]
    problems.stop_if_any()
    return found


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
    assert counts["stickers_left_out"] == {
        "animated, without a thumbnail": 1,
        "file not in the export": 1,
    }


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"text": 3}, "text is '3'"),
        ({"date": "now", "date_unixtime": None}, "time is 'now'"),
        ({"from": None, "from_id": None}, "from_id is 'None'"),
    ],
)
def test_a_telegram_message_of_another_form_is_reported(keys, message, tmp_path):
    with pytest.raises(BadInputError, match=message):
        telegram_messages(tmp_path, telegram_message(), telegram_message(**keys))


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
    monkeypatch.setattr(telegram, "MAX_MESSAGE", 2**16)
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
    assert len(list(neutral.read(tmp_path, problems))) == 2
    with pytest.raises(
        BadInputError, match=r"chat\.jsonl:2: line of more than 200 bytes"
    ) as raised:
        problems.stop_if_any()
    assert [problem.line for problem in raised.value.problems] == [2, 4]


@given(st.lists(st.integers(0, 40), max_size=12), st.integers(6, 30))
def test_a_message_of_any_length_is_cut_and_the_next_one_is_found(tmp_path_factory, lengths, limit):
    head = "13/01/2021, 10:01 - Ann: "
    lines = [head + "begin", *("x" * length for length in lengths), head + "end"]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(whatsapp, "MAX_TEXT", limit + len(head))
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
