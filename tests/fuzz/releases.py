"""Small releases in each published format, good as they are and made to be spoilt by tests."""

import base64
import io
import json
import pickle
from pathlib import Path

from PIL import Image

LABELS = ("anger", "joy", "sadness")
SPLITS = ("train", "valid", "test")
LMDB_FIELDS = (
    *("image_ids", "textid", "text", "style", "form", "coarse_intent", "fined_intent"),
    *("intent_zh", "keyword", "speaker", "comet"),
)


def picture(number: int, form: str = "PNG") -> bytes:
    """Returns a tiny picture of its own colour."""
    buffer = io.BytesIO()
    Image.new("RGB", (3, 2), (number * 40 % 256, 80, 120)).save(buffer, form)
    return buffer.getvalue()


PICTURES = {f"boba_{n}": picture(n, ("PNG", "WEBP", "JPEG", "GIF")[n % 4]) for n in range(4)}


def row(split: str, number: int, **changes) -> dict:
    """Returns one row of StickerInt with a text of its own."""
    record = {
        "image_ids": [f"boba_{number % 4}"],
        "textid": number,
        "text": f"\thello from {split}[SEP]\tnumber {number}[SEP]",
        "style": "cartoon",
        "form": "static",
        "coarse_intent": "entertain",
        "fined_intent": LABELS[number % 3],
        "intent_zh": "x",
        "keyword": f"wave{number % 4},sitting,smile,hi",
        "speaker": f"User{number % 2}",
        "comet": "to be happy[SEP]to laugh",
        "response": "",
    }
    return record | changes


def stickerint(root: Path, rows: dict | None = None, pictures: dict | None = None) -> Path:
    """Writes a release of StickerInt; ``rows`` replaces those of the splits that it names."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "intent_label.txt").write_text("".join(f"{i}\t{n}\tx\n" for i, n in enumerate(LABELS)))
    encoded = {k: base64.b64encode(v).decode() for k, v in (pictures or PICTURES).items()}
    for split in SPLITS:
        members = (rows or {}).get(split, [row(split, number) for number in range(4)])
        text = "".join(json.dumps(member, ensure_ascii=False) + "\n" for member in members)
        (root / f"{split}_contexts_total_key.jsonl").write_text(text, "utf-8")
        lines = "".join(f"{sticker}\t{text}\n" for sticker, text in encoded.items())
        (root / f"{split}_imgs.tsv").write_text(lines)
    return root


def lmdb_database(path: Path, entries: dict[str, bytes]) -> None:
    """Writes a database of LMDB."""
    import lmdb

    path.mkdir(parents=True)
    with lmdb.open(str(path), map_size=2**22) as database, database.begin(write=True) as written:
        for key, value in entries.items():
            written.put(key.encode(), value)


def stickerint_lmdb(root: Path, pairs: dict[str, dict[str, bytes]] | None = None) -> Path:
    """Writes the LMDB form; ``pairs`` replaces the databases of the splits that it names."""
    root.mkdir(parents=True)
    (root / "intent_label.txt").write_text("".join(f"{i}\t{n}\tx\n" for i, n in enumerate(LABELS)))
    for split in SPLITS:
        images = {key: base64.urlsafe_b64encode(value) for key, value in PICTURES.items()}
        lmdb_database(root / split / "imgs", images | {"num_images": b"4"})
        values = {str(n): pickled(row(split, n)) for n in range(4)} | {"num_samples": b"4"}
        lmdb_database(root / split / "pairs", (pairs or {}).get(split, values))
    return root


def pickled(record: dict) -> bytes:
    """Returns the pickled tuple that the authors' script stores."""
    (sticker,) = record["image_ids"]
    return pickle.dumps(tuple((record | {"image_ids": sticker})[name] for name in LMDB_FIELDS))


def multichat(root: Path, mode: str = "all") -> Path:
    """Writes a release of MultiChat, with Python literals as its lines."""
    folder = root / mode / "intent_style_attribute"
    folder.mkdir(parents=True)
    (root / mode / "intent.txt").write_text("".join(f"{i}\t{n}\n" for i, n in enumerate(LABELS)))
    ending = "_3" if mode == "all" else ""
    for split, written in (("train", "train"), ("valid", "val"), ("test", "test")):
        records = [
            {
                "session_id": 1,
                "sample_id": number,
                "summary": "they talk",
                "related_history_session_ids": [],
                "dialogue_context": f"\tit's {split}\tnumber {number}",
                "speaker": "User3",
                "text": "wave, smile",
                "fined_intent": LABELS[number % 3].title(),
                "image_ids": f"boba_{number % 4}",
            }
            for number in range(4)
        ]
        text = "".join(f"{record!r}\n" for record in records)
        (folder / f"{mode}_session_all_{written}{ending}.jsonl").write_text(text)
        lines = (f"{key}\t{base64.b64encode(v).decode()}\n" for key, v in PICTURES.items())
        (root / f"{mode}_{written}_img.tsv").write_text("".join(lines))
    return root


def mod_turn(speaker: int, text: str, image: str | None = None, emotion: int | None = None) -> dict:
    """Returns one turn of MOD."""
    turn: dict = {"speaker_id": f"[speaker{speaker}]", "txt": text}
    if image is not None:
        turn["img_id"] = image
    if emotion is not None:
        turn["emotion_id"] = emotion
    return turn


def mod(root: Path, labelled_tests: bool = True) -> Path:
    """Writes MOD with one test row in each level, labelled or as they were first given out."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "meme_set").mkdir(exist_ok=True)
    for number in range(4):
        (root / "meme_set" / f"meme{number}.png").write_bytes(picture(number))
    _dump(root / "img2id.json", {f"meme{number}.png": number for number in range(4)})
    _dump(root / "emotion_dict.json", {name: number for number, name in enumerate(LABELS)})
    for name, count in (("c_train", 3), ("c_val", 8)):
        dialogues = {
            f"dialogue {number}": [
                mod_turn(1, f"{name} {number}", "003", 2),
                mod_turn(2, f"own words {name} {number}", "001", number % 3),
                mod_turn(1, "", "002", 1),
            ]
            for number in range(count)
        }
        _dump(root / f"{name}.json", dialogues)
    for level in ("easy", "hard"):
        history = [mod_turn(1, f"hi {level}", "003", 0), mod_turn(2, f"own {level}")]
        answer = {"speaker_id": "[speaker2]", "img_id": "000" if labelled_tests else ""}
        candidate = {"speaker_id": "[speaker2]", "set": ["000", "001", "002"]}
        rows = [{"history": history, "candidate": candidate, "answer": answer}]
        _dump(root / f"c_test_{level}_task2.json", rows)
        history = [history[0], history[1] | {"img_id": "000"}]
        emotion = {"speaker_id": "[speaker2]", "emotion_id": 1 if labelled_tests else ""}
        _dump(root / f"c_test_{level}_task3.json", [{"history": history, "answer": emotion}])
    return root


def _dump(path: Path, value) -> None:
    path.write_text(json.dumps(value, indent=1), "utf-8")


WRITERS = {
    "stickerint": stickerint,
    "stickerint-lmdb": stickerint_lmdb,
    "multichat": multichat,
    "mod": mod,
}
