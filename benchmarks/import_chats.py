"""What it takes to import exported chats and a release of StickerInt, at any size.

    python -m benchmarks.import_chats [--messages=100000] [--stickers=200] [--senders=20]
        [--side=96] [--formats=jsonl,telegram,whatsapp,stickerint] [--out=FILE]

Generates an input of distinct messages of 12 English words in each form, the same bytes every time,
and imports it by ``data_prep.formats`` or ``data_prep.chats`` in a process of its own. Prints the
input's size, the processor time and the peak memory of that process, and what a message takes.
Every tenth message of a chat is a sticker; a row of StickerInt has eight turns, which count as
messages.
"""

import base64
import io
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks import command
from benchmarks.build_records import INTENTIONS, Used, measured, noise, split_of
from int_ra_jax.data.schema import SPLITS

START = 1_600_000_000  # of the first message, in seconds since 1970
CHAT = 1_000  # messages of a chat
TALK = 20  # messages between two long silences
STICKER = 10  # one message of so many
TURNS = 8  # of a row of StickerInt
_SYLLABLES = [a + b for a in "bdfgklmnprstvz" for b in "aeiou"]


@dataclass(frozen=True)
class Size:
    """How large a generated input is.

    Attributes:
      messages: in all chats.
      stickers: distinct pictures.
      senders: people in each chat.
      side: pixels of a sticker; above 96 it is noise, which makes a large file.
    """

    messages: int
    stickers: int
    senders: int
    side: int = 96


@dataclass(frozen=True)
class Message:
    """One message of a generated export; ``text`` is empty where it is a sticker."""

    number: int
    chat: str
    time: int
    sender: str
    text: str
    sticker: str


def main() -> None:
    """Prints one table."""
    parser = command.parser(__doc__)
    parser.add_argument("--messages", type=int, default=100_000)
    parser.add_argument("--stickers", type=int, default=200)
    parser.add_argument("--senders", type=int, default=20, help="people in each chat")
    parser.add_argument("--side", type=int, default=96, help="pixels of a sticker")
    formats = command.chosen_from(list(WRITERS))
    parser.add_argument("--formats", type=formats, default=",".join(WRITERS), help="with commas")
    arguments = parser.parse_args()
    size = Size(arguments.messages, arguments.stickers, arguments.senders, arguments.side)
    rows, results = [], {}
    for name in arguments.formats:
        with tempfile.TemporaryDirectory() as folder:
            megabytes, used, conversations = measure(name, Path(folder), size)
        rows.append(
            {
                "": name,
                "MB": f"{megabytes:.0f}",
                "conversations": f"{conversations:,}",
                "seconds": f"{used.seconds:.1f}",
                "processor s": f"{used.processor_seconds:.1f}",
                "peak MB": f"{used.peak_bytes / 1e6:.0f}",
                "us a message": f"{1e6 * used.processor_seconds / size.messages:.0f}",
            }
        )
        results[name] = {
            "megabytes": megabytes, "conversations": conversations, **asdict(used)
        }  # fmt: skip
    text = f"{size.messages:,} messages, {size.stickers:,} stickers\n\n{command.table(rows)}"
    command.publish(arguments, text, results=results)


def measure(name: str, folder: Path, size: Size) -> tuple[float, Used, int]:
    """Generates one input, imports it in a process of its own, and counts what came out.

    Args:
      name: one of ``WRITERS``.
      folder: empty; takes the input and the result.
      size: of the input.

    Returns:
      megabytes of the input, what the import took, and the conversations that it wrote.

    Raises:
      RuntimeError: if the import fails.
    """
    source, out = folder / "source", folder / "out"
    source.mkdir()
    begin = time.perf_counter()
    WRITERS[name](source, size)
    command.say(f"{name}: generated in {time.perf_counter() - begin:.0f} s")
    read = sum(path.stat().st_size for path in source.rglob("*") if path.is_file())
    room = ["data_prep.formats"] if name == "stickerint" else ["data_prep.chats", "all"]
    used = measured([*room, f"--format={name}", str(source), str(out)])
    with (out / "conversations.jsonl").open("rb") as lines:
        return read / 1e6, used, sum(1 for _ in lines)


def talk(size: Size) -> Iterator[Message]:
    """Yields distinct messages in the order of time; the same ones every time."""
    rng = np.random.default_rng(0)
    words = [a + b + c for a in _SYLLABLES for b in _SYLLABLES for c in _SYLLABLES[:4]]
    moment = START
    for number in range(size.messages):
        moment += 45 if number % TALK else 7200
        said = " ".join(words[place] for place in rng.integers(0, len(words), 12))
        shows = number % STICKER == STICKER - 1
        person = number // CHAT * size.senders % 997 + int(rng.integers(size.senders))
        yield Message(
            number,
            f"chat{number // CHAT}",
            moment,
            f"Person {words[person]}",
            "" if shows else said,
            f"{number // STICKER % size.stickers:06d}" if shows else "",
        )


def write_jsonl(source: Path, size: Size) -> None:
    """Writes the neutral form."""
    _write_pictures(source, "{}.webp", size)
    with (source / "chat.jsonl").open("w", encoding="utf-8") as file:
        for one in talk(size):
            row = {"chat": one.chat, "id": one.number, "time": one.time, "sender": one.sender}
            row |= {"sticker": f"{one.sticker}.webp"} if one.sticker else {"text": one.text}
            file.write(json.dumps(row) + "\n")


def write_telegram(source: Path, size: Size) -> None:
    """Writes the export of a whole account, laid out as Telegram Desktop does."""
    (source / "stickers").mkdir()
    _write_pictures(source, "stickers/{}.webp", size)
    with (source / "result.json").open("w", encoding="utf-8") as file:
        file.write('{\n "about": "generated",\n "chats": {\n  "list": [')
        chat = ""
        for one in talk(size):
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


def write_whatsapp(source: Path, size: Size) -> None:
    """Writes one text file in Android's form."""
    _write_pictures(source, "STK-20200913-WA{}.webp", size)
    with (source / "WhatsApp Chat with Everybody.txt").open("w", encoding="utf-8") as file:
        for one in talk(size):
            head = datetime.fromtimestamp(one.time, UTC).strftime("%d/%m/%Y, %H:%M - ")
            shown = f"STK-20200913-WA{one.sticker}.webp (file attached)"
            file.write(f"{head}{one.sender}: {shown if one.sticker else one.text}\n")


def write_stickerint(source: Path, size: Size) -> None:
    """Writes a release of StickerInt; eight rows of ten in train."""
    labels = "".join(f"{i}\t{name}\t{name}\n" for i, name in enumerate(INTENTIONS))
    (source / "intent_label.txt").write_text(labels)
    for split in SPLITS:
        with (source / f"{split}_imgs.tsv").open("w", encoding="ascii") as lines:
            for number in range(size.stickers):
                encoded = base64.b64encode(_picture(number, size.side)).decode()
                lines.write(f"s_{number:06d}\t{encoded}\n")
    more = Size(size.messages * STICKER, size.stickers, size.senders)
    said = (one for one in talk(more) if one.text)
    with ExitStack() as stack:
        files = {
            split: stack.enter_context(
                (source / f"{split}_contexts_total_key.jsonl").open("w", encoding="utf-8")
            )
            for split in SPLITS
        }
        for number in range(size.messages // TURNS):
            turns = [next(said) for _ in range(TURNS)]
            row = {
                "image_ids": [f"s_{number % size.stickers:06d}"],
                "textid": number,
                "text": "".join(f"\t{one.text}[SEP]" for one in turns),
                "fined_intent": INTENTIONS[number % len(INTENTIONS)],
                "keyword": "wave,,,",
                "speaker": turns[-1].sender,
                "comet": "",
            }
            files[split_of(number)].write(json.dumps(row) + "\n")


def _write_pictures(source: Path, name: str, size: Size) -> None:
    for number in range(size.stickers):
        (source / name.format(f"{number:06d}")).write_bytes(_picture(number, size.side))


def _picture(number: int, side: int) -> bytes:
    """Returns a picture that is near to no other: blocks, or noise where it is to be large."""
    if side > Size.side:
        return noise(number, side)
    rng = np.random.default_rng(number)
    file = io.BytesIO()
    blocks = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8))
    blocks.resize((side, side), Image.Resampling.NEAREST).save(file, "WEBP", lossless=True)
    return file.getvalue()


WRITERS: dict[str, Callable[[Path, Size], None]] = {
    "jsonl": write_jsonl,
    "telegram": write_telegram,
    "whatsapp": write_whatsapp,
    "stickerint": write_stickerint,
}

if __name__ == "__main__":
    main()
