"""Small exports of the three programs, with the same talk in each."""

import io
import json
from datetime import UTC, datetime

import pytest
from PIL import Image, ImageDraw

TOPICS = ("football", "the exam", "my cat", "dinner", "the trip", "rain", "a film", "work")
SAID = (
    ("Alice", "hey Bob, did you hear about {topic} number {n}?"),
    ("Bob", "no, what is it Wonder? call me at 13800138000"),
    ("Alice", "mail alice@example.com, it is {topic} again"),
)


def sticker(number, size=96, form="WEBP"):
    """Returns the bytes of one of a few distinct pictures."""
    image = Image.new("RGBA", (size, size), (0, 0, 0, 0))
    draw = ImageDraw.Draw(image)
    corner = size * (number % 3) // 4
    colour = ("crimson", "royalblue", "gold", "seagreen", "black")[number % 5]
    draw.ellipse((corner, size // 8, corner + size // 2, size - 4), fill=colour)
    top = size * (number % 4) // 5
    draw.rectangle((2, top, size // 4, top + size // 3), fill="purple")
    buffer = io.BytesIO()
    image.save(buffer, form)
    return buffer.getvalue()


def talk(chats=8):
    """Yields (number, time, sender, text or None, number of a sticker or None)."""
    for n in range(chats):
        start = int(datetime(2021, 3, 13 + n, 20, 0, tzinfo=UTC).timestamp())
        for place, (sender, text) in enumerate(SAID):
            yield n, start + 60 * place, sender, text.format(topic=TOPICS[n % 8], n=n), None
        yield n, start + 200, "Bob", None, n % 5
        if n % 2:
            yield n, start + 300, "Bob", f"well then, see you at {TOPICS[n % 8]}", None
            yield n, start + 310, "Bob", None, (n + 1) % 5


def make_jsonl(folder):
    """Writes the neutral form; every third sticker is annotated."""
    folder.mkdir()
    rows = []
    for i, (n, time, sender, text, picture) in enumerate(talk()):
        row = {"chat": f"c{n % 2}", "time": time, "sender": f"{sender} Wonder", "id": i}
        if picture is None:
            row["text"] = text
        else:
            row["sticker"] = f"s{picture}.webp"
            if n % 3 == 0:
                row["intention"] = "amusement"
        rows.append(json.dumps(row))
    (folder / "chat.jsonl").write_text("\n".join(rows), "utf-8")
    for number in range(5):
        (folder / f"s{number}.webp").write_bytes(sticker(number))
    return folder


def make_telegram(folder, whole_account=True):
    """Writes result.json of an account, or of one chat."""
    (folder / "stickers").mkdir(parents=True)
    messages = [{"id": 1, "type": "service", "action": "create_group", "text": ""}]
    for i, (_, time, sender, text, picture) in enumerate(talk(), start=2):
        message = {
            "id": i,
            "type": "message",
            "date": datetime.fromtimestamp(time, UTC).strftime("%Y-%m-%dT%H:%M:%S"),
            "date_unixtime": str(time),
            "from": f"{sender} Wonder",
            "from_id": f"user{sender}",
            "text": "" if text is None else [text[:4], {"type": "bold", "text": text[4:]}],
        }
        if picture is not None:
            name = f"stickers/s{picture}.webp"
            message |= {"file": name, "media_type": "sticker", "sticker_emoji": "\U0001f602"}
            (folder / name).write_bytes(sticker(picture))
        messages.append(message)
    chat = {"name": "Bob Wonder", "type": "personal_chat", "id": 42, "messages": messages}
    whole = {"about": "x", "chats": {"about": "y", "list": [chat]}} if whole_account else chat
    (folder / "result.json").write_text(json.dumps(whole, indent=1), "utf-8")
    return folder


def make_whatsapp(folder, form="%d/%m/%Y, %H:%M - "):
    """Writes a text export in Android's form; days above 12 tell the order of the date."""
    folder.mkdir()
    lines = [
        datetime(2021, 3, 13, tzinfo=UTC).strftime(form) + "Messages are end-to-end encrypted."
    ]
    for _, time, sender, text, picture in talk():
        head = datetime.fromtimestamp(time, UTC).strftime(form) + f"{sender} Wonder: "
        if picture is None:
            lines += [head + text, head + "<Media omitted>"]
            continue
        name = f"STK-20210313-WA000{picture}.webp"
        (folder / name).write_bytes(sticker(picture))
        lines.append(f"{head}\u200e{name} (file attached)")
    (folder / "WhatsApp Chat with Bob.txt").write_text("\n".join(lines), "utf-8")
    return folder


class Exports:
    """Makes exports; ``MAKERS`` by format."""

    MAKERS = {"jsonl": make_jsonl, "telegram": make_telegram, "whatsapp": make_whatsapp}
    jsonl = staticmethod(make_jsonl)
    telegram = staticmethod(make_telegram)
    whatsapp = staticmethod(make_whatsapp)
    sticker = staticmethod(sticker)


@pytest.fixture
def exports():
    """Gives the makers of exports."""
    return Exports
