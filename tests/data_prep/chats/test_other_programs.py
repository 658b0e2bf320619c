"""WeChat as CSV, ChatLab's format, DiscordChatExporter's JSON and LINE's text, record by record."""

import csv
import io
import json
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep.chats import chatlab, discord, json_stream, line, step, wechat
from data_prep.chats.anonymise import anonymise
from data_prep.chats.collect import collect
from data_prep.problems import BadInputError, Problems
from int_ra_jax.common.ledger import Ledger

MD5 = "0f1e2d3c4b5a69788796a5b4c3d2e1f0"
EMOJI = f'<msg><emoji fromusername = "wxid_a" type="2" md5="{MD5.upper()}" len = "9"></emoji></msg>'
OMITTED = "sticker: file not in the export"
NOTICE = "notice of the program"
TAKEN = "[sticker]"  # stands for a sticker that was taken
COLUMNS = (
    "localId,TalkerId,Type,SubType,IsSender,CreateTime,Status,StrContent,StrTime,Remark,NickName,"
    "Sender"
)


def at(*moment):
    return int(datetime(*moment, tzinfo=UTC).timestamp())


def write(folder, files):
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


def collected(format, folder, files, date_order="auto"):
    """Returns [(sender, text)] and {reason: count}, once the ledger's sum is found exact."""
    out = folder / "out"
    counts = collect(format, write(folder / "export", files), out, date_order)
    report = step.read_report(out)
    left_out = {name: reason["count"] for name, reason in report["left_out"].items()}
    assert report["records_in"] == report["kept"] + sum(left_out.values())
    messages = list(step.read_messages(out, ""))
    assert report["kept"] == counts["messages"] == len(messages)
    said = [(one.sender, one.text or (TAKEN if one.sticker else "")) for one in messages]
    return said, left_out, messages


def rows(*changed, columns=COLUMNS, delimiter=","):
    """Returns a table; a row is what differs from a text of Wang's."""
    names = columns.split(",")
    usual = {
        **{"localId": 1, "TalkerId": 5, "Type": 1, "SubType": 0, "IsSender": 0, "Status": ""},
        **{"StrTime": "2023-11-14 22:13:20", "Remark": "老王", "NickName": "Wang"},
        **{"Sender": "wxid_wang", "StrContent": "在吗"},
    }
    text = io.StringIO()
    table = csv.writer(text, delimiter=delimiter)
    table.writerow(names)
    for second, keys in enumerate(changed):
        row = usual | {"CreateTime": 1_700_000_000 + second} | keys
        table.writerow([row[name] for name in names])
    return text.getvalue()


WECHAT = (
    {"StrContent": '两行\n"引号", 逗号'},
    {"Type": 47, "StrContent": EMOJI},
    {"Type": 47, "StrContent": EMOJI.replace("0F", "1F")},
    {"Type": 3},
    {"Type": 10000, "StrContent": "你已添加了老王", "Sender": ""},
    {"Type": 49, "SubType": 57, "StrContent": "<msg><title>同意</title></msg>"},
    {"Type": (57 << 32) + 49, "StrContent": "<msg><title><![CDATA[也同意]]></title></msg>"},
    {"Type": 49, "SubType": 5, "StrContent": ""},
    {"Type": -1879048186},
    {"Type": "1.0", "CreateTime": "", "StrTime": "2023/11/15 7:05"},
    {"CreateTime": "", "StrTime": "gestern"},
    {"Sender": "", "StrContent": "wxid_zhao:\n你好"},
    {"IsSender": 1, "Sender": "", "Remark": "", "NickName": "", "StrContent": "好"},
)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "gb18030", "utf-16"])
@pytest.mark.parametrize("picture", [f"emoji/{MD5}.gif", MD5.upper(), f"a/b/th_{MD5}.webp"])
def test_wechats_table_gives_words_and_stickers_by_their_hash(encoding, picture, tmp_path, exports):
    files = {
        "王.csv": rows(*WECHAT).encode(encoding),
        "contacts.csv": "UserName,Alias\na,b\n",
        picture: exports.sticker(1),
    }
    said, left_out, messages = collected("wechat", tmp_path, files)
    assert said == [
        ("wxid_wang", '两行\n"引号", 逗号'),
        ("wxid_wang", TAKEN),
        ("wxid_wang", "同意"),
        ("wxid_wang", "也同意"),
        ("wxid_zhao", "你好"),
        ("me", "好"),
        ("wxid_wang", "在吗"),
    ]
    assert left_out == {
        OMITTED: 1,
        "photo without words": 1,
        NOTICE: 1,
        "link without words": 1,
        "message of a type that is not known": 1,
        "time of an unknown form": 1,
    }
    assert messages[0].time == 1_700_000_000 and messages[-1].time == at(2023, 11, 15, 7, 5)
    people = list(step.read_lines(tmp_path / "out", step.PEOPLE_FILE, ""))
    assert {one["name"] for one in people if one["sender"] == "wxid_wang"} == {
        "老王",
        "Wang",
        "wxid_wang",
    }


@pytest.mark.parametrize(
    ("table", "kept"),
    [
        (rows({}, columns=",".join(reversed(COLUMNS.split(",")))), "在吗"),
        (rows({}, delimiter=";"), "在吗"),
        (rows({}, columns="IsSender,CreateTime,StrContent").replace("Is", "is_"), "在吗"),
        ("消息ID,类型,发送人,时间,内容\n9,文本,王,2024-01-01 10:00:00,在吗\n", "在吗"),
        ("消息ID,类型,发送人,时间,内容\n9,引用消息,王,2024-01-01 10:00:00,在吗\n", "在吗"),
        ("Time,SenderName,Sender,Talker,Content\n2024-01-01 10:00:00,王,a,b,在吗\n", "在吗"),
    ],
)
def test_wechats_columns_are_found_by_their_names(table, kept, tmp_path):
    said, left_out, _ = collected("wechat", tmp_path, {"a.csv": table})
    assert [text for _, text in said] == [kept] and not left_out


def test_what_a_program_calls_its_owner_is_no_name_to_mask(tmp_path):
    own = {"Sender": "我", "Remark": "我", "NickName": "Me"}
    collected("wechat", tmp_path, {"a.csv": rows(own, own | {"NickName": "Ida"})})
    people = list(step.read_lines(tmp_path / "out", step.PEOPLE_FILE, ""))
    assert [one["name"] for one in people] == ["", "Ida"]


SILENT = {
    "whatsapp": (
        "_chat.txt",
        "14/03/2024, 12:30 - Zorbin: <Media omitted>\n14/03/2024, 12:30 - Mira: Zorbin is late\n",
    ),
    "whatsapp, an unknown head": (
        "_chat.txt",
        "14-Mar-24 12:30 - Zorbin: hi\n14/03/2024, 12:30 - Mira: Zorbin is late\n",
    ),
    "line": (
        "a.txt",
        "2024/03/14(Thu)\n12:30\tZorbin\t[Sticker]\n12:31\tMira\tZorbin is late\n",
    ),
    "wechat": (
        "a.csv",
        "时间,发送人,类型,内容\n2024-03-14 18:00:00,Zorbin,图片,x\n"
        "2024-03-14 18:00:00,Mira,文本,Zorbin is late\n",
    ),
    "telegram": (
        "result.json",
        json.dumps(
            {
                "id": 5,
                "messages": [
                    {"type": "service", "actor": "Quonk", "members": ["Zorbin", None], "text": ""},
                    {
                        "type": "message",
                        "from": "Mira",
                        "from_id": "user1",
                        "date": "2024-03-14T18:00:00",
                        "text": "Zorbin is late",
                    },
                ],
            }
        ),
    ),
}


@pytest.mark.parametrize("format", SILENT)
def test_who_says_no_word_that_is_kept_is_masked_and_no_person_of_the_chat(format, tmp_path):
    name, content = SILENT[format]
    said, _, _ = collected(format.partition(",")[0], tmp_path, {name: content})
    assert [text for _, text in said] == ["Zorbin is late"]
    counts = json.loads((tmp_path / "out/step.json").read_text())["counts"]
    assert counts["senders"] == 1
    anonymise(tmp_path / "out", tmp_path / "two", tmp_path / "salt")
    (message,) = step.read_messages(tmp_path / "two", "")
    assert message.text == "[name] is late"


def test_newer_tables_name_the_type_or_write_it_in_brackets(tmp_path):
    table = "Time,Sender,Content\n2024-01-01 10:00:00,a,在吗\n2024-01-01 10:00:01,a,[动画表情]\n"
    named = (
        "类型,发送人,时间,内容\n表情包,王,2024-01-01 10:00:00,x\n系统消息,,2024-01-01 10:00:00,x\n"
    )
    said, left_out, _ = collected("wechat", tmp_path, {"a.csv": table, "b.csv": named})
    assert said == [("a", "在吗")] and left_out == {OMITTED: 2, NOTICE: 1}


def test_broken_quotes_cost_their_row_alone_and_a_strange_table_is_told(tmp_path):
    table = rows({}) + '2,5,1,0,0,1700000009,,"bro"ken,,,,a\n3,5,1,0,0,1700000010,,ok,,,,a\n'
    said, left_out, _ = collected("wechat", tmp_path, {"a.csv": f'{table}4,5,1,0,0,17,,"never\n'})
    assert [text for _, text in said] == ["在吗", "ok"]
    assert left_out == {"row whose quotes are broken": 2}
    with pytest.raises(BadInputError, match=r"b\.csv:1: no table of messages\. The first row"):
        collect("wechat", write(tmp_path / "other", {"b.csv": "x,y\n1,2\n"}), tmp_path / "none")


HEADER = {
    "chatlab": {"version": "0.0.2", "exportedAt": 1_703_001_600},
    "meta": {"name": "g", "platform": "wechat", "type": "group"},
}
MEMBER = {"platformId": "7", "accountName": "Zoe", "groupNickname": "Zo", "aliases": ["Zozo"]}
CHATLAB = (
    {"content": "hi", "platformMessageId": "m1"},
    {"type": 25, "content": "yo", "replyToMessageId": "m1", "timestamp": 1_703_001_601_000},
    {"type": 5, "content": "[动画表情]", "emojiMd5": MD5},
    {"type": 5, "content": "media\\wave 1.webp"},
    {"type": "EMOJI", "content": "media/wave%201.webp"},
    {"type": 5, "content": None},
    {"type": 1, "content": "[图片]"},
    {"content": "[贴图]"},
    {"type": 80},
    {"type": 81},
    {"type": 99},
    {"type": []},
    {"timestamp": "soon"},
    {"sender": "", "accountName": ""},
    {"content": {"a": 1}},
)


def chatlab_messages():
    usual = {"sender": "7", "accountName": "Zoe", "timestamp": 1_703_001_600, "type": 0}
    return [usual | {"content": "hi"} | keys for keys in CHATLAB]


def chatlab_lines():
    lines = [{"_type": "header"} | HEADER, {"_type": "member"} | MEMBER]
    lines += [{"_type": "message"} | one for one in chatlab_messages()]
    return "# a note\n" + "\n\n".join(map(json.dumps, lines))


FIRST, MEMBER_LINE, *LINES = chatlab_lines().split("\n\n")
CHATLAB_FORMS = {
    "g.json": json.dumps(HEADER | {"members": [MEMBER], "messages": chatlab_messages()}),
    "indented.json": "\ufeff"
    + json.dumps(HEADER | {"members": [MEMBER], "messages": chatlab_messages()}, indent=2),
    "g.jsonl": chatlab_lines(),
    "members last.json": json.dumps(HEADER | {"messages": chatlab_messages(), "members": [MEMBER]}),
    "members last.jsonl": "\n".join((FIRST, *LINES, MEMBER_LINE)),
}
CHATLAB_FORMS |= {
    f"wide {name}": text.removeprefix("\ufeff").encode("utf-16")
    for name, text in CHATLAB_FORMS.items()
}


@pytest.mark.parametrize("form", CHATLAB_FORMS)
def test_chatlabs_format_gives_words_stickers_and_names(form, tmp_path, exports):
    pictures = {f"x/{MD5}.webp": exports.sticker(1), "media/wave 1.webp": exports.sticker(2)}
    files = {form: CHATLAB_FORMS[form], "other.json": "{}", **pictures}
    said, left_out, messages = collected("chatlab", tmp_path, files)
    assert said == [("7", text) for text in ("hi", TAKEN, TAKEN, TAKEN, "yo")]
    assert left_out == {
        OMITTED: 2,
        "photo without words": 1,
        NOTICE: 1,
        "message that was taken back": 1,
        "message of a type that is not known": 2,
        "time of an unknown form": 1,
        "message without a sender": 1,
        "text of an unknown form": 1,
    }
    assert (messages[0].id, messages[-1].reply_to) == ("m1", "m1")
    assert messages[-1].time == 1_703_001_601
    people = list(step.read_lines(tmp_path / "out", step.PEOPLE_FILE, ""))
    assert {one["name"] for one in people} == {"Zoe", "Zo", "Zozo"}


def test_weflows_own_json_is_read_as_chatlabs(tmp_path, exports):
    usual = {
        "createTime": 1_703_001_600,
        "type": "文本消息",
        "senderUsername": "wxid_a",
        "isSend": 0,
    }
    messages = [
        usual | {"content": "在吗", "senderDisplayName": "老王"},
        usual | {"type": "动画表情", "content": f"emojis/{MD5}.gif"},
        usual | {"type": "其他消息", "chatLabType": 5, "content": None, "rawContent": EMOJI},
        usual | {"type": "图片消息", "content": "images/1.jpg"},
        usual | {"type": "系统消息", "content": "x"},
    ]
    top = {"weflow": {"version": "1"}, "session": {"wxid": "wxid_a"}, "messages": messages}
    files = {"a.json": json.dumps(top), f"emojis/{MD5}.gif": exports.sticker(1)}
    said, left_out, _ = collected("chatlab", tmp_path, files)
    assert said == [("wxid_a", "在吗"), ("wxid_a", TAKEN), ("wxid_a", TAKEN)]
    assert left_out == {"photo without words": 1, NOTICE: 1}


def test_broken_lines_of_chatlab_are_left_out_alone_and_broken_json_refuses(tmp_path, monkeypatch):
    monkeypatch.setattr(json_stream, "MAX_MESSAGE", 400)
    message = {"_type": "message", **chatlab_messages()[0]}
    more = ['{"bro', "null", "[1]", '{"_type": "x"}', json.dumps({"a": "x" * 900})]
    lines = [json.dumps({"_type": "header"} | HEADER), json.dumps(message), *more]
    _, left_out, _ = collected("chatlab", tmp_path, {"g.jsonl": "\n".join(lines)})
    assert left_out == {
        "line that is no JSON": 1,
        "message that is no object": 2,
        "line of a kind that is not known": 1,
        "line that is too long": 1,
    }
    for content, told in (
        ('{"chatlab": 1, "messages": [{', "g.json:1: not JSON"),
        ("{}", "g.json:0"),
    ):
        folder = write(tmp_path / told[:8].replace(":", "_"), {"g.json": content})
        with pytest.raises(BadInputError, match=told):
            collect("chatlab", folder, tmp_path / "none")


ANN = {"id": "7", "name": "ann#1", "nickname": "Ann", "isBot": False}
DISCORD = (
    {"content": "hi", "reactions": [{"emoji": {"name": "👍"}, "count": 2}]},
    {"type": "Reply", "content": "yes", "reference": {"messageId": "1", "channelId": "55"}},
    {"type": "19", "content": "no", "reference": {"messageId": "1", "channelId": "56"}},
    {"stickers": [{"id": "9", "sourceUrl": "c.json_Files\\wave-1.webp"}]},
    {
        "stickers": [
            {"sourceUrl": "https://cdn.example/9.png"},
            {"sourceUrl": "c.json_Files/wave-1.webp"},
        ]
    },
    {"stickers": [{"sourceUrl": "https://cdn.example/9.png"}]},
    {"content": "beside", "stickers": [{"sourceUrl": "../outside.webp"}]},
    {"content": "x", "author": ANN | {"isBot": True}},
    {"type": "GuildMemberJoin", "content": "Joined the server."},
    {"type": "20", "content": "/roll"},
    {"attachments": [{"url": "a.png"}]},
    {"embeds": [{"title": "t"}]},
    {"forwardedMessage": {"content": "of another"}},
    {"timestamp": None, "content": "x"},
    {"author": None, "content": "x"},
    {"content": 5},
    {},
)


def discord_export():
    usual = {"type": "Default", "timestamp": "2023-01-01T12:00:00.5+02:00", "author": ANN}
    messages = [
        usual | {"id": str(number), "content": "", "stickers": []} | keys
        for number, keys in enumerate(DISCORD, start=1)
    ]
    top = {"guild": {"id": "1"}, "channel": {"id": "55", "name": "c"}}
    return json.dumps(top | {"messages": [*messages, None], "messageCount": 18}, indent=2)


def test_discords_export_gives_words_replies_and_stickers(tmp_path, exports):
    files = {
        "c.json": discord_export(),
        "c.json_Files/wave-1.webp": exports.sticker(1),
        "c.json_Files/lottie.json": '{"v": "5"}',
    }
    said, left_out, messages = collected("discord", tmp_path, files)
    assert said == [("7", text) for text in ("hi", "yes", "no", TAKEN, TAKEN, "beside")]
    assert [one.reply_to for one in messages[:3]] == [None, "1", None]
    assert messages[0].chat == "55" and messages[0].time == at(2023, 1, 1, 10)
    assert left_out == {
        OMITTED: 1,
        "message of a bot": 1,
        NOTICE: 2,
        "file without words": 1,
        "embed without words": 1,
        "forwarded message without words": 1,
        "time of an unknown form": 1,
        "message without a sender": 1,
        "text of an unknown form": 1,
        "message without words": 1,
        "message that is no object": 1,
    }


JAPANESE = """[LINE] 佐藤 花子とのトーク履歴
保存日時：2026/09/26 11:00

2026/09/25(金)
21:03\t佐藤 花子\t何時？
21:06\t森川\t"場所は駅前
2026/09/26(土)
彼は ""OK"" と"
21:07\t森川\t"あの件
21:10\t佐藤 花子\t[スタンプ]
21:11\t佐藤 花子がメッセージの送信を取り消しました
21:11\t森川\t☎ 通話時間 1:23
21:12\t\t誰かが参加しました
25:12\t森川\tx

2026/09/26(土)
午後8:15\t森川\t[写真]
20:16\t森川\t"引用"
20:17\t森川\t[ノート] 買い物
"""
CHINESE = """[LINE] 與王小明的聊天記錄
儲存日期： 2024/01/06 09:00

2024/01/05（週五）
上午09:15\t王小明\t早安
下午01:02\t我\t[貼圖]
2024年1月6日 星期六
凌晨12:30\t我\t晚安
"""
THAI = """[LINE] ประวัติการแชทกับ G
บันทึกวันที่ 2024/01/15 10:30

2567/01/15 จันทร์
10:30\tก\tสวัสดี
10:31\tข\t[สติกเกอร์]
10:32\tข\t[คำใหม่]
10:32\tก\t[คำใหม่]
"""
COMPUTER = """2017.09.03 Sunday
16:23 Bob Oak Today I found:
Apparently 2024/01/15 there
10:00 is too early
16:25 Alice Whaaat
16:25 Bob Oak Yes
16:26 Bob Oak スタンプ
16:27 Alice Stickers
16:27 Alice unsent a message.
"""
ENGLISH = "Sun, 26/04/2026\n04:35PM\tAlex\tramen\n12:36 AM\tMaya\t[Sticker]\n"


@pytest.mark.parametrize(
    ("text", "said", "left_out"),
    [
        (
            JAPANESE,
            [
                (at(2026, 9, 25, 21, 3), "佐藤 花子", "何時？"),
                (at(2026, 9, 25, 21, 6), "森川", '場所は駅前\n2026/09/26(土)\n彼は "OK" と'),
                (at(2026, 9, 25, 21, 7), "森川", '"あの件'),
                (at(2026, 9, 26, 20, 16), "森川", '"引用"'),
            ],
            {
                OMITTED: 1,
                NOTICE: 2,
                "call without words": 1,
                "date or time that does not exist": 1,
                "photo without words": 1,
                "note without words": 1,
            },
        ),
        (
            CHINESE,
            [(at(2024, 1, 5, 9, 15), "王小明", "早安"), (at(2024, 1, 6, 0, 30), "我", "晚安")],
            {OMITTED: 1},
        ),
        (
            THAI,
            [(at(2024, 1, 15, 10, 30), "ก", "สวัสดี")],
            {OMITTED: 1, "placeholder of a language that is not known": 2},
        ),
        (
            COMPUTER,
            [
                (
                    at(2017, 9, 3, 16, 23),
                    "Bob Oak",
                    "Today I found:\nApparently 2024/01/15 there\n10:00 is too early",
                ),
                (at(2017, 9, 3, 16, 25), "Alice", "Whaaat"),
                (at(2017, 9, 3, 16, 25), "Bob Oak", "Yes"),
            ],
            {OMITTED: 2, NOTICE: 1},
        ),
        (ENGLISH, [(at(2026, 4, 26, 16, 35), "Alex", "ramen")], {OMITTED: 1}),
    ],
    ids=["japanese", "chinese", "thai", "computer", "english"],
)
def test_lines_text_is_read_as_phones_and_computers_write_it(text, said, left_out, tmp_path):
    _, lost, messages = collected("line", tmp_path, {"[LINE] chat.txt": text, "note.txt": "hello"})
    assert [(one.time, one.sender, one.text) for one in messages] == said and lost == left_out


@pytest.mark.parametrize(
    ("day", "order", "month"),
    [
        ("Sun, 05/04/2026", "auto", 4),
        ("Mon, 05/04/2026", "auto", 5),
        ("05/04/2026", "auto", 4),
        ("05/04/2026", "mdy", 5),
        ("So., 05.04.2026", "auto", 4),
        ("Sonntag, 5. April 2026", "auto", 4),
        ("Tuesday, May 5, 2026", "auto", 5),
        ("2026년 5월 4일 월요일", "auto", 5),
    ],
)
def test_the_day_of_the_week_tells_the_order_of_lines_dates(day, order, month, tmp_path):
    _, _, (message,) = collected("line", tmp_path, {"a.txt": f"{day}\n10:00\tA\thi\n"}, order)
    assert datetime.fromtimestamp(message.time, UTC).month == month


def test_a_text_that_is_no_chat_of_line_is_told(tmp_path):
    for number, text in enumerate(("hello\n", "2024/01/05 Fri\nnothing\n", "")):
        folder = write(tmp_path / str(number), {"a.txt": text})
        with pytest.raises(BadInputError, match=r"a\.txt:0: no date with messages below it"):
            collect("line", folder, tmp_path / "none")


GOOD = {
    wechat: ("a.csv", rows(*WECHAT)),
    chatlab: ("a.json", CHATLAB_FORMS["g.json"]),
    discord: ("a.json", discord_export()),
    line: ("a.txt", JAPANESE + COMPUTER),
}


@pytest.mark.parametrize("reader", GOOD, ids=lambda reader: reader.__name__.rpartition(".")[2])
@settings(max_examples=20, deadline=None)
@given(st.binary(max_size=60), st.floats(0, 1), st.integers(0, 200))
def test_whatever_the_bytes_the_sum_is_exact_and_nothing_but_problems_is_raised(
    reader, tmp_path_factory, rubbish, where, gone
):
    name, text = GOOD[reader]
    content = text.encode()
    place = int(where * len(content))
    path = tmp_path_factory.mktemp("fuzz") / name
    path.write_bytes(content[:place] + rubbish + content[place + gone :])
    problems, ledger, count = Problems("x"), Ledger(), 0
    for record in reader.read(path, problems):
        count += 1
        ledger.judge(record.place, record.make)
    left_out = sum(reason.count for reason in ledger.left_out.values())
    assert ledger.records_in == count == ledger.kept + left_out
    path.unlink()
