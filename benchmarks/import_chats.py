"""What it takes to import exported chats and a release of StickerInt, at any size.

    python -m benchmarks.import_chats [--messages=100000] [--stickers=200] [--senders=20]
        [--side=96] [--formats=jsonl,telegram,whatsapp,stickerint] [--out=FILE]

Generates an input of distinct messages of 12 English words in each form, the same bytes every time,
and runs ``python -m data_prep.import_data`` on it in a process of its own. Prints the input's size,
the processor time and the peak memory of that process, and what a message takes. Every tenth
message of a chat is a sticker; a row of StickerInt has eight turns, which count as messages.
"""

import argparse
import base64
import io
import json
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks import build_records, side_by_side
from int_ra_jax.data.schema import SPLITS

START = 1_600_000_000  # of the first message, in seconds since 1970
CHAT = 1_000  # messages of a chat
TALK = 20  # messages between two long silences
STICKER = 10  # one message of so many
TURNS = 8  # of a row of StickerInt
SIDE = 96  # pixels of a small sticker
_SYLLABLES = [a + b for a in "bdfgklmnprstvz" for b in "aeiou"]


@dataclass(frozen=True)
class Message:
    """One message of a generated export; ``text`` is empty where it is the sticker's."""

    number: int
    chat: str
    time: int
    sender: str
    text: str
    sticker: str


@dataclass(frozen=True)
class Result:
    """What one import took."""

    format: str
    megabytes: float
    seconds: float
    processor_seconds: float
    peak_megabytes: float
    conversations: int


def main() -> None:
    """Prints one table."""
    arguments = _parse()
    results = []
    for name in arguments.formats.split(","):
        with tempfile.TemporaryDirectory() as folder:
            results.append(
                measure(
                    name,
                    Path(folder),
                    arguments.messages,
                    arguments.stickers,
                    arguments.senders,
                    arguments.side,
                )
            )
    rows = [["", "MB", "conversations", "seconds", "processor s", "peak MB", "us a message"]]
    rows += [
        [
            one.format,
            f"{one.megabytes:.0f}",
            f"{one.conversations:,}",
            f"{one.seconds:.1f}",
            f"{one.processor_seconds:.1f}",
            f"{one.peak_megabytes:.0f}",
            f"{1e6 * one.processor_seconds / arguments.messages:.0f}",
        ]
        for one in results
    ]
    print(f"{arguments.messages:,} messages, {arguments.stickers:,} stickers")
    print(side_by_side.table(rows))
    content = {"arguments": vars(arguments), "results": [asdict(one) for one in results]}
    side_by_side.write_json(arguments.out, content)


def measure(
    name: str, folder: Path, messages: int, stickers: int, senders: int, side: int = SIDE
) -> Result:
    """Generates one input, imports it in a process of its own, and counts what came out.

    Args:
      name: one of ``WRITERS``.
      folder: empty; takes the input and the result.
      messages: of the input.
      stickers: distinct pictures.
      senders: people in each chat.
      side: pixels of a sticker.

    Raises:
      ValueError: if the format is unknown.
      RuntimeError: if the import fails.
    """
    if name not in WRITERS:
        raise ValueError(f"format is {name!r}. Choose from {', '.join(WRITERS)}.")
    source, out = folder / "source", folder / "out"
    source.mkdir()
    begin = time.perf_counter()
    WRITERS[name](source, messages, stickers, senders, side)
    print(f"{name}: generated in {time.perf_counter() - begin:.0f} s", file=sys.stderr)
    size = sum(path.stat().st_size for path in source.rglob("*") if path.is_file())
    before = _children_seconds()
    command = ["data_prep.import_data", f"--format={name}", str(source), str(out)]
    seconds, peak = build_records.measured(command)
    used = _children_seconds() - before
    with (out / "conversations.jsonl").open("rb") as lines:
        written = sum(1 for _ in lines)
    return Result(name, size / 1e6, seconds, used, peak / 1e6, written)


def talk(messages: int, stickers: int, senders: int) -> Iterator[Message]:
    """Yields distinct messages in the order of time; the same ones every time."""
    rng = np.random.default_rng(0)
    words = [a + b + c for a in _SYLLABLES for b in _SYLLABLES for c in _SYLLABLES[:4]]
    moment = START
    for number in range(messages):
        moment += 45 if number % TALK else 7200
        said = " ".join(words[place] for place in rng.integers(0, len(words), 12))
        shows = number % STICKER == STICKER - 1
        yield Message(
            number,
            f"chat{number // CHAT}",
            moment,
            f"Person {words[number // CHAT * senders % 997 + int(rng.integers(senders))]}",
            "" if shows else said,
            f"{number // STICKER % stickers:06d}" if shows else "",
        )


def write_jsonl(source: Path, messages: int, stickers: int, senders: int, side: int = SIDE) -> None:
    """Writes the neutral form."""
    _write_pictures(source, "{}.webp", stickers, side)
    with (source / "chat.jsonl").open("w", encoding="utf-8") as file:
        for one in talk(messages, stickers, senders):
            row = {"chat": one.chat, "id": one.number, "time": one.time, "sender": one.sender}
            row |= {"sticker": f"{one.sticker}.webp"} if one.sticker else {"text": one.text}
            file.write(json.dumps(row) + "\n")


def write_telegram(
    source: Path, messages: int, stickers: int, senders: int, side: int = SIDE
) -> None:
    """Writes the export of a whole account, laid out as Telegram Desktop does."""
    (source / "stickers").mkdir()
    _write_pictures(source, "stickers/{}.webp", stickers, side)
    with (source / "result.json").open("w", encoding="utf-8") as file:
        file.write('{\n "about": "generated",\n "chats": {\n  "list": [')
        chat = ""
        for one in talk(messages, stickers, senders):
            if one.chat != chat:
                head = {"name": one.chat, "type": "private_group", "id": int(one.chat[4:])}
                start = json.dumps(head, indent=1)[:-2]
                file.write("\n   ]\n  },\n" if chat else "\n")
                file.write(f'{start},\n "messages": [\n')
            file.write("" if one.chat != chat else ",\n")
            chat = one.chat
            file.write(json.dumps(_telegram_message(one), indent=1))
        file.write("\n   ]\n  }\n ]\n}\n}\n")


def _telegram_message(one: Message) -> dict[str, Any]:
    row = {
        "id": one.number,
        "type": "message",
        "date": datetime.fromtimestamp(one.time, UTC).strftime("%Y-%m-%dT%H:%M:%S"),
        "date_unixtime": str(one.time),
        "from": one.sender,
        "from_id": f"user_{one.sender}",
    }
    if one.sticker:
        row |= {"file": f"stickers/{one.sticker}.webp", "media_type": "sticker"}
    return row | {"text": one.text, "text_entities": []}


def write_whatsapp(
    source: Path, messages: int, stickers: int, senders: int, side: int = SIDE
) -> None:
    """Writes one text file in Android's form."""
    _write_pictures(source, "STK-20200913-WA{}.webp", stickers, side)
    with (source / "WhatsApp Chat with Everybody.txt").open("w", encoding="utf-8") as file:
        for one in talk(messages, stickers, senders):
            head = datetime.fromtimestamp(one.time, UTC).strftime("%d/%m/%Y, %H:%M - ")
            shown = f"STK-20200913-WA{one.sticker}.webp (file attached)"
            file.write(f"{head}{one.sender}: {shown if one.sticker else one.text}\n")


def write_stickerint(
    source: Path, messages: int, stickers: int, senders: int, side: int = SIDE
) -> None:
    """Writes a release of StickerInt; eight rows of ten in train."""
    intentions = ("joy", "sadness", "anger")
    labels = "".join(f"{i}\t{name}\t{name}\n" for i, name in enumerate(intentions))
    (source / "intent_label.txt").write_text(labels)
    files = {}
    for split in SPLITS:
        with (source / f"{split}_imgs.tsv").open("w", encoding="ascii") as lines:
            for number in range(stickers):
                encoded = base64.b64encode(_picture(number, side)).decode()
                lines.write(f"s_{number:06d}\t{encoded}\n")
        path = source / f"{split}_contexts_total_key.jsonl"
        files[split] = path.open("w", encoding="utf-8")
    said = (one for one in talk(messages * STICKER, stickers, senders) if one.text)
    for number in range(messages // TURNS):
        turns = [next(said) for _ in range(TURNS)]
        row = {
            "image_ids": [f"s_{number % stickers:06d}"],
            "textid": number,
            "text": "".join(f"\t{one.text}[SEP]" for one in turns),
            "fined_intent": intentions[number % len(intentions)],
            "keyword": "wave,,,",
            "speaker": turns[-1].sender,
            "comet": "",
        }
        files[SPLITS[max(0, number % 10 - 7)]].write(json.dumps(row) + "\n")
    for file in files.values():
        file.close()


def _write_pictures(source: Path, name: str, stickers: int, side: int) -> None:
    for number in range(stickers):
        (source / name.format(f"{number:06d}")).write_bytes(_picture(number, side))


def _picture(number: int, side: int) -> bytes:
    """Returns a picture that is near to no other: blocks, or noise where it is to be large."""
    rng = np.random.default_rng(number)
    file = io.BytesIO()
    if side > SIDE:
        noise = rng.integers(0, 256, (side, side, 3), dtype=np.uint8)
        Image.fromarray(noise).save(file, "PNG", compress_level=0)
        return file.getvalue()
    blocks = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8))
    blocks.resize((side, side), Image.Resampling.NEAREST).save(file, "WEBP", lossless=True)
    return file.getvalue()


def _children_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


WRITERS: dict[str, Callable[[Path, int, int, int, int], None]] = {
    "jsonl": write_jsonl,
    "telegram": write_telegram,
    "whatsapp": write_whatsapp,
    "stickerint": write_stickerint,
}


def _parse() -> Any:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--messages", type=int, default=100_000)
    parser.add_argument("--stickers", type=int, default=200)
    parser.add_argument("--senders", type=int, default=20, help="people in each chat")
    parser.add_argument("--side", type=int, default=SIDE, help="pixels of a sticker")
    parser.add_argument("--formats", default=",".join(WRITERS), help="separated by commas")
    parser.add_argument("--out", default="", help="JSON file")
    return parser.parse_args()


if __name__ == "__main__":
    main()
