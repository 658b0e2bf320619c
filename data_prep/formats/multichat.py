"""MultiChat, the sessions of several groups that followed StickerInt.

    SRC/**/{mode}_session_*_{train,val,test}[_N].jsonl   one row a line, mostly Python literals
    SRC/**/{mode}_{train,val,test}_img.tsv               image_id TAB base64
    SRC/**/intent.txt                                    id TAB name

A mode is one chat group, or "all". Of several modes "all" is read. The files
``*_sample_*.json`` list stickers with the intentions of all splits; they are not read, since test
annotations must not reach training.
"""

import re
from collections.abc import Mapping
from typing import Any

from data_prep.formats.labels import Labels, read_labels, tidy
from data_prep.formats.reading import InputDirectory
from data_prep.formats.staging import READING_ORDER, UNKNOWN, Description, Staging, extra_keys
from data_prep.formats.stickerint import NOTES, read_pictures, split_turns
from data_prep.problems import short
from int_ra_jax.data.schema import Conversation, Turn

DESCRIPTION = Description(
    name="multichat",
    licence="as agreed with the authors of MultiChat; this copy grants nothing",
    source="MultiChat release (IGSR), imported from JSON lines",
    notes=NOTES,
)
SPLIT_NAMES = {"train": "train", "valid": "val", "test": "test"}
_SESSIONS = re.compile(r"(?:.*/)?([^/_]+)_session_[^/]*?_(train|val|test)(?:_[\d.]+)?\.jsonl")
_STRINGS = ("dialogue_context", "speaker", "image_ids")
_TAKEN = ("dialogue_context", "text", "speaker", "image_ids")


def read(source: InputDirectory, staging: Staging) -> Labels:
    """Reads a release into the staging area.

    Args:
      source: the directory with the files above.
      staging: takes conversations and pictures.

    Returns:
      The intentions.
    """
    names = source.names()
    labels = read_labels(source, _one(names, "intent.txt") or "intent.txt")
    sessions = [found for name in names if (found := _SESSIONS.fullmatch(name))]
    modes = sorted({found[1] for found in sessions})
    mode = "all" if "all" in modes else next(iter(modes), None)
    if mode is None or (mode != "all" and len(modes) > 1):
        listed = ", ".join(modes) or "none"
        message = (
            f"expected files MODE_session_*_train.jsonl of one mode or of 'all'; modes: {listed}"
        )
        source.problems.add(".", 0, message)
        return labels
    pictures = [name for name in names if re.fullmatch(rf"(.*/)?{mode}_\w+_img\.tsv", name)]
    if not pictures:
        source.problems.add(f"{mode}_train_img.tsv", 0, f"no picture file in {source.root}")
    for name in pictures:
        read_pictures(source, staging, name)
    for split in READING_ORDER:
        files = [f[0] for f in sessions if f[1] == mode and f[2] == SPLIT_NAMES[split]]
        if len(files) != 1:
            message = f"split {split!r} has {len(files)} files, expected one: {', '.join(files)}"
            source.problems.add(f"{mode}_session_*_{SPLIT_NAMES[split]}.jsonl", 0, message)
            continue
        for line, record in source.records(files[0]):
            _add_row(record, split, files[0], line, staging, labels)
    return labels


def _one(names: list[str], ending: str) -> str | None:
    """The first file of this name; the label files of several modes are the same list."""
    found = [name for name in names if name.split("/")[-1] == ending]
    return min(found, key=lambda name: (not name.startswith("all/"), name), default=None)


def _add_row(
    record: Mapping[str, Any], split: str, file: str, line: int, staging: Staging, labels: Labels
) -> None:
    messages = [
        f"{key} is {short(record.get(key))}, expected a string"
        for key in _STRINGS
        if not isinstance(record.get(key), str) or not record[key].strip()
    ]
    number = record.get("sample_id")
    if isinstance(number, bool) or not isinstance(number, int | str):
        messages.append(f"sample_id is {short(number)}, expected a number or a string")
    message = labels.message(record.get("fined_intent"))
    if message:
        messages.append(message)
    if not messages:
        _, *fields = record["dialogue_context"].split("\t")
        turns = split_turns(fields)
        if not turns:
            context = short(record["dialogue_context"])
            messages.append(f"empty context: no turn behind a TAB in {context}")
    for message in messages:
        staging.problems.add(file, line, message)
    if messages:
        return
    # "text" may hold the sticker's attributes, that is the answer, so it is no turn.
    legacy = {"legacy_context": record["dialogue_context"], "legacy_text": record.get("text")}
    row = Conversation(
        id=f"{split}-{number}",
        split=split,
        turns=tuple(Turn(UNKNOWN, text) for text in turns),
        reply_speaker=record["speaker"].strip(),
        sticker=record["image_ids"],
        intention=tidy(record["fined_intent"]),
        extra=extra_keys(record, _TAKEN) | legacy,
    )
    staging.add(row, file, line)
