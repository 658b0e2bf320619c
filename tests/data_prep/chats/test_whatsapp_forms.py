"""WhatsApp's exports as phones of many languages write them: heads, senders, what is said."""

from datetime import UTC, datetime

import pytest

from data_prep.chats import whatsapp
from data_prep.chats.message import StickerLeftOut
from data_prep.problems import BadInputError, Problems
from int_ra_jax.common.ledger import LeftOut

HEAD = "14/03/2024, 12:30 - "
IPHONE = "[14/03/2024, 12:30:11] "
NOTICE = "notice of the program"
PLACEHOLDER = "placeholder or notice of the program"
UNKNOWN = "head of a message in a form that is not known"
OMITTED = "sticker: file not in the export"


def read(folder, text, files=()):
    """Returns for each record (sender, text, sticker), or the reason why it is left out."""
    content = text if isinstance(text, bytes) else text.encode()
    (folder / "_chat.txt").write_bytes(content)
    for name in files:
        (folder / name).touch()
    problems, found = Problems("x"), []
    for record in whatsapp.read(folder, problems):
        try:
            message = record.make().message
            found.append((message.sender, message.text, message.sticker))
        except (LeftOut, StickerLeftOut) as reason:
            found.append(str(reason))
    problems.stop_if_any()
    return found


@pytest.mark.parametrize(
    ("head", "hour"),
    [
        ("14/03/2024 à 18:00 - ", 18),
        ("14/03/2024 à 9:00 - ", 9),
        ("\u200f١٤\u200f/٣\u200f/٢٠٢٤، ٨:٠٠ م - ", 20),
        ("१४/३/२०२४, ८:०० pm - ", 20),
        ("14. 3. 2024 22:00 - ", 22),
        ("14. 03. 2024. 22:00 - ", 22),
        ("2024. 03. 14. du. 8:00 - ", 20),
        ("2024. 3. 14. 오후 8:00, ", 20),
        ("2024년 3월 14일 오전 12:00, ", 0),
        ("[2024. 3. 14. 오후 8:00:11] ", 20),
        ("2024年3月14日 下午8:00 - ", 20),
        ("2024/3/14 清晨6:00 - ", 6),
        ("2024/3/14 凌晨12:00 - ", 0),
        ("2024/3/14 午夜12:00 - ", 0),
        ("2024/3/14 中午12:00 - ", 12),
        ("2024/3/14 中午11:00 - ", 11),
        ("2024/3/14 晚上12:00 - ", 0),
        ("14.03.2024 ÖS 8:00 - ", 20),
        ("14/3/2024, 8:00 π.μ. - ", 8),
        ("14.3.2024 klo 22.00 - ", 22),
        ("14.03.2024 г., 20:00 ч. - ", 20),
        ("14/3/2567 20:00 - ", 20),
        ("20:00, 14/3/2024 - ", 20),
        ("8:00 CH 14/3/2024 - ", 20),
        ("2024-03-14 18 h 00 - ", 18),
        ("14/3/2024, 18:00:00: ", 18),
        ("14.03.2024 nachm. 8:00 - ", 20),
    ],
)
def test_the_head_of_a_phone_of_any_language_is_read(head, hour, tmp_path):
    (tmp_path / "a.txt").write_text(f"{head}Mira: hi\n{head}Tobin: ok\n", "utf-8")
    records = list(whatsapp.read(tmp_path, Problems("x")))
    times = {datetime.fromtimestamp(one.make().message.time, UTC) for one in records}
    assert len(records) == 2 and {(t.month, t.day, t.hour) for t in times} == {(3, 14, hour)}


@pytest.mark.parametrize(
    "strange",
    [
        "14 mars 2024 à 18:00 - ",
        "Thu, 14 Mar 2024 18:00 - ",
        "Do., 14.03.24 18:00 - ",
        "14-Mar-24 6:00 PM - ",
        "2024/3/14 魑魅3:10 - ",
        "[18:00, 14/3/2024] ",
    ],
)
def test_a_head_that_is_not_understood_is_left_out_and_never_glued(strange, tmp_path):
    text = f"{HEAD}Mira: hi\nthere\n{strange}Tobin Oak: secret\nmore\n{HEAD}Mira: ok\n"
    assert read(tmp_path, text) == [("Mira", "hi\nthere", None), UNKNOWN, ("Mira", "ok", None)]


def test_a_file_of_heads_that_are_not_understood_names_the_line_and_the_known_forms(tmp_path):
    with pytest.raises(BadInputError, match=r"_chat\.txt:1: .*14 mars 2024.*Known forms are: 14/"):
        read(tmp_path, "14 mars 2024 à 18:00 - Tobin: salut\n")
    with pytest.raises(BadInputError, match=r"_chat\.txt:1: .*Buddhist calendar.*Known forms"):
        read(tmp_path, "۱۴۰۳/۱/۱۴، ۸:۰۰ ب.ظ - Tobin: x\n")


def test_a_date_in_a_persons_words_stays_there(tmp_path):
    party = "party on 14 March 2024, 18:00 - cake"
    words = f"when?\n14/03/2024 18:00, dinner: pasta\n15/03 is free\n{party}"
    strange = "14/03/2024 18:00, Tobin : pasta"
    text = f"{HEAD}Mira: {words}\n{HEAD}Tobin: ok\n{strange}\n"
    assert read(tmp_path, text) == [("Mira", words, None), ("Tobin", "ok", None), UNKNOWN]


@pytest.mark.parametrize(
    ("head", "pasted"), [(HEAD, "[14/03/2024, 9:30] "), (IPHONE, "14/03/2024, 9:30 - ")]
)
def test_who_speaks_in_pasted_messages_does_not_speak_in_the_chat(head, pasted, tmp_path):
    said = f"{head}Mira: one\n{head}Tobin: two\n" * 3
    text = f"{said}{head}Mira: he wrote:\n{pasted}Kell Vosk: bring cake\n{head}Tobin: ok\n"
    assert read(tmp_path, text)[6:] == [("Mira", "he wrote:", None), UNKNOWN, ("Tobin", "ok", None)]


def test_words_behind_three_files_mean_that_they_are_attached(tmp_path):
    files = ("a b.jpg", "c.pdf", "d.mp4")
    text = "".join(f"{HEAD}Mira: {name} (qqq zzz)\nlook\n" for name in files)
    assert read(tmp_path, text) == [("Mira", "look", None)] * 3


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
def test_any_encoding_and_end_of_lines_is_read(encoding, end, tmp_path):
    text = f"{HEAD}Mira: hé\n{HEAD}Tobin: ok\nthen\n".replace("\n", end)
    found = [("Mira", "hé", None), ("Tobin", "ok\nthen", None)]
    assert read(tmp_path, text.encode(encoding)) == found


def test_odd_dates_bytes_and_first_lines_are_left_out_alone(tmp_path):
    text = f"hello\n{HEAD}A: x\n31/31/2024, 10:00 - A: y\n14/03/2024, 25:61 - A: z\n{HEAD}A: \xe9\n"
    wrong = "date or time that does not exist"
    assert read(tmp_path, text.encode("latin-1")) == [
        "lines before the first message",
        ("A", "x", None),
        wrong,
        wrong,
        "bytes that are no text",
    ]
    assert read(tmp_path, f"{HEAD}A: hé\n".encode("utf-16")) == [("A", "hé", None)]


@pytest.mark.parametrize(
    ("rest", "found"),
    [
        ("Bob:Hi", ("Bob", "Hi", None)),
        ("Bob:note: this", ("Bob", "note: this", None)),
        ("Work: Tobin Oak: hi", ("Work: Tobin Oak", "hi", None)),
        ("Work: Lena Ash: hi", ("Work: Lena Ash", "hi", None)),
        ("同事: 小红: 你好", ("同事: 小红", "你好", None)),
        ("Mira: Note: buy milk", ("Mira", "Note: buy milk", None)),
        ("Mira: at 18:00?", ("Mira", "at 18:00?", None)),
        ("~\u202fMira: hi", ("Mira", "hi", None)),
        ("Re:Max: hello", ("Re:Max", "hello", None)),
        ("Mira Vale: another", ("Mira Vale", "another", None)),
        ("小明：你好", ("小明", "你好", None)),
        ("Mira: ", "message without words"),
        ("Mira left", NOTICE),
        ("Mira added Work: Tobin Oak", NOTICE),
        ("Your code with Work: Tobin Oak changed.", NOTICE),
        ('Mira changed the subject from "Trip: north" to "Trip: south"', NOTICE),
        ("Mira changed the subject to Trip: south", NOTICE),
        ("Mira hat die Gruppe „Trip: Süd“ erstellt", NOTICE),
        ("Mira a changé le sujet en « Trip : sud »", NOTICE),
        ("Mira已将群名更改为“旅行: 南”", NOTICE),
        ("Mira已将群名更改为旅行: 南", NOTICE),
        ("消息和通话已进行端到端加密。点击了解更多: 这里", NOTICE),
        ("Messages are encrypted. Nobody reads them. Tap: here", NOTICE),
        ("\u200eMessages are encrypted: tap to learn more", NOTICE),
        ("Group call at 18:00 ended", NOTICE),
        ("Learn more at https://faq.example", NOTICE),
    ],
)
def test_who_speaks_is_told_from_notices_by_the_whole_file(rest, found, tmp_path):
    said = ["Mira: hi", "Mira: ok", "Work: Tobin Oak: a", "Work: Tobin Oak: b", "Re:Max: a"]
    lines = [HEAD + one for one in [*said, rest]]
    assert read(tmp_path, "\n".join(lines))[-1] == found


def test_the_name_of_a_group_before_an_iphones_notice_is_nobody(tmp_path):
    text = (
        f"{IPHONE}Sunday Hikers: \u200eMira added you\n{IPHONE}Mira: \u200eMira changed the icon\n"
        f"{IPHONE}~\u202fTobin: hi\n\u200e{IPHONE}Tobin: \u200e<Anhang: 01-STICKER-1.webp>\n"
    )
    assert read(tmp_path, text) == [
        PLACEHOLDER,
        PLACEHOLDER,
        ("Tobin", "hi", None),
        ("Tobin", "", "01-STICKER-1.webp"),
    ]


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ("Is Signal end-to-end encrypted as well?", "="),
        ("Missed voice call from the dentist", "="),
        ("image omitted", "="),
        ("Media omitted", "="),
        ("null", "="),
        ("<hugs>", "="),
        ("see you at 9.30 (if possible)", "="),
        ("I like node.js (mostly great)", "="),
        ("This message was deleted", PLACEHOLDER),
        ("Diese Nachricht wurde gelöscht.", PLACEHOLDER),
        ("<Medien ausgeschlossen>", PLACEHOLDER),
        ("<媒体已忽略>", PLACEHOLDER),
        ("<Media omitted>\nthe new kitchen", ("the new kitchen", None)),
        ("Bu mesaj silindi", PLACEHOLDER),
        ("הודעה זו נמחקה", PLACEHOLDER),
        ("peki <Bu mesaj düzenlendi>", ("peki", None)),
        ("konum: https://maps.google.com/?q=41.5,-29.0", "location without words"),
        ("here https://maps.google.com/?q=41.5,-29.0 at six", "="),
        (
            "SONDAGE:\nquand ?\nOPTION: lundi (2 votes)\nOPTION: mardi (0 vote)",
            "poll without words",
        ),
        ("PLAN:\nshop\nmilk: two (2 litres)\nbread: one", "="),
        ("well then <Diese Nachricht wurde bearbeitet.>", ("well then", None)),
        ("IMG-20240314-WA0001.jpg (qqq zzz)\nthe kitchen\nat last", ("the kitchen\nat last", None)),
        ("VID-20240314-WA0001.mp4 (qqq zzz)", "video without words"),
        ("Plan for (the) garden v1.2.pdf (qqq zzz)", "document without words"),
        ("a beach.jpg (file attached)", "photo without words"),
        ("there it is.xyz (any words)", "document without words"),
        ("DOC-20240314-WA0001.pdf (qqq zzz)\nPlan for the garden.pdf", "document without words"),
        ("4f2680f1db95a845.webp (qqq zzz)", ("", "4f2680f1db95a845.webp")),
        ("STK-20240314-WA0001.was (qqq zzz)", ("", "STK-20240314-WA0001.was")),
        ("\u200eSTK-20240314-WA0001.webp (fichier joint)", ("", "STK-20240314-WA0001.webp")),
    ],
)
def test_what_android_writes_is_told_from_words_by_its_form(said, found, tmp_path):
    start = f"{HEAD}Mira: IMG-20240314-WA0000.jpg (qqq zzz)\n"
    if found == "=":
        found = (said, None)
    expected = found if isinstance(found, str) else ("Mira", *found)
    text = f"{start}{HEAD}Mira: {said}\n"
    assert read(tmp_path, text, files=["there it is.xyz"])[-1] == expected


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ("sticker omitted", ("sticker omitted", None)),
        ("<sighs loudly>", ("<sighs loudly>", None)),
        ("call \u200e+49 151 now", ("call +49 151 now", None)),
        ("\u200eSticker weggelassen", OMITTED),
        ("\u200e스티커 생략됨", OMITTED),
        ("\u200eDiese Nachricht wurde gelöscht.", PLACEHOLDER),
        ("\u200ePOLL:\nwhen?\n\u200eOPTION: now", PLACEHOLDER),
        ("late again \u200e<Diese Nachricht wurde bearbeitet.>", ("late again", None)),
        ("\u200e<pièce jointe : 01-STICKER-1.webp>", ("", "01-STICKER-1.webp")),
        ("\u200e‹pièce jointe : 01-STICKER-1.webp›", ("", "01-STICKER-1.webp")),
        ("\u200e<附件：a b.was>", ("", "a b.was")),
        ("the kitchen \u200e<attached: 01-PHOTO-1.jpg>", ("the kitchen", None)),
        ("\u200e<attached: 01-PHOTO-1.jpg>\nthe kitchen", ("the kitchen", None)),
        ("a plan.pdf • \u200e2 pages \u200e<attached: 01-a plan.pdf>", "document without words"),
    ],
)
def test_an_iphones_own_words_are_told_by_the_mark_in_any_language(said, found, tmp_path):
    expected = found if isinstance(found, str) else ("Mira", *found)
    text = f"{IPHONE}Mira: \u200eBild weggelassen\n{IPHONE}Mira: {said}\n"
    assert read(tmp_path, text)[-1] == expected


def test_what_is_left_out_of_a_marked_line_leaves_its_caption(tmp_path):
    text = f"\u200e{IPHONE}Mira: the kitchen \u200eimage omitted\n"
    assert read(tmp_path, text) == [("Mira", "the kitchen", None)]
    text = f"\u200e{IPHONE}Mira: a plan.pdf • \u200e2 pages \u200edocument omitted\n"
    assert read(tmp_path, text) == [PLACEHOLDER]


def test_a_phone_that_writes_from_right_to_left_marks_its_words_likewise(tmp_path):
    head = "[١٤/٣/٢٠٢٤، ٨:٠٠:١١ م] Mira: "
    text = f"{head}\u200fمرحبا\n\u200f{head}\u200fتم استبعاد الملصق\n"
    assert read(tmp_path, text) == [("Mira", "مرحبا", None), OMITTED]


def test_a_text_file_that_somebody_sent_is_no_chat(tmp_path):
    (tmp_path / "list.txt").write_text("two lemons\n")
    (tmp_path / "log.txt").write_text(f"{HEAD}INFO: started\n")
    (tmp_path / "empty.txt").touch()
    text = f"{HEAD}Mira: hi\n{HEAD}Mira: log.txt (file attached)\n"
    assert read(tmp_path, text) == [("Mira", "hi", None), "document without words"]
    (tmp_path / "two.txt").write_text("۱۴۰۳/۱/۱۴، ۸:۰۰ ب.ظ - Tobin: x\n")
    assert read(tmp_path, text)[2:] == ["date or time that does not exist"]
    (tmp_path / "two.txt").unlink()
    (tmp_path / "other.txt").write_text("14 mars 2024 à 18:00 - Tobin: salut\n")
    assert read(tmp_path, text)[2:] == ["file whose heads are not known"]
