"""MOD (DSTC10 track 1): dialogues with memes, the usual public second set.

    SRC/**/{c,e}_train.json, {c,e}_val.json        {"dialogue N": [turn, ...]}
    SRC/**/*{c,e}_test_{easy,hard}*task2*.json     [{"history", "candidate", "answer"}, ...]
    SRC/**/*{c,e}_test_{easy,hard}*task3*.json     the emotions of the same rows, where released
    SRC/**/img2id.json, SRC/**/emotion_dict.json   name -> number
    SRC/**/NAME                                    the pictures that img2id.json names

A turn is {speaker_id, txt?, img_id?, emotion_id?}. Every turn with a meme and an emotion after the
first one is an example: the emotion is the intention, and the turn's own words come last.
"""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from data_prep.formats.labels import Labels
from data_prep.formats.pictures import images
from data_prep.formats.reading import InputDirectory
from data_prep.formats.staging import Description, Staging
from data_prep.problems import short
from int_ra_jax.data.schema import IMAGE_SUFFIXES, Conversation, Turn

DESCRIPTION = Description(
    name="mod",
    licence="research purposes only; the texts belong to their owners (DSTC10-MOD, data/README.md)",
    source="MOD, DSTC10 track 1, imported from its JSON files",
    notes={"relevance": "A sticker counts as relevant if it carries the gold emotion."},
)
UNLABELLED = "unlabelled_tests.jsonl"
LANGUAGES = {"c": "Chinese", "e": "English"}


def read(source: InputDirectory, staging: Staging, language: str | None = None) -> Labels:
    """Reads the data set into the staging area.

    Args:
      source: the directory with the files above.
      staging: takes conversations, pictures, and the test rows without an answer.
      language: "c" or "e"; None where the directory holds one of them.

    Returns:
      The intentions.
    """
    return _Mod(source, staging).read(language)


class RowError(ValueError):
    """A turn that is not of the known form; its message says why."""


@dataclass(frozen=True)
class _Said:
    """One turn, checked."""

    speaker: str
    text: str
    sticker: str | None
    emotion: str | None


class _Mod:
    """One reading of one directory."""

    def __init__(self, source: InputDirectory, staging: Staging) -> None:
        self._source = source
        self._problems = source.problems
        self._staging = staging
        self._names = source.names()
        self._labels = Labels()
        self._emotions: dict[str, str] = {}  # number -> name

    def read(self, language: str | None) -> Labels:
        here = [code for code in LANGUAGES if self._files(f"{code}_train.json")]
        if language is None and len(here) != 1:
            found = " and ".join(f"{code}_train.json" for code in here) or "none"
            message = f"expected c_train.json or e_train.json, found {found}"
            self._problems.add(".", 0, f"{message}. Choose with --language=c or --language=e")
            return self._labels
        code = language or here[0]
        self._read_emotions()
        self._read_pictures()
        for level in ("easy", "hard"):
            self._read_test(code, level)
        halve = not self._staging.counts["test"]
        if halve:
            message = "no test row with answer and emotion; half of the dialogues become the test"
            self._problems.warn(f"{code}_val.json", 0, message)
        self._read_dialogues(f"{code}_val.json", "valid", halve)
        self._read_dialogues(f"{code}_train.json", "train", False)
        return self._labels

    def _files(self, *parts: str) -> list[str]:
        """The files whose last name holds all parts, the last part at its end."""
        found = []
        for name in self._names:
            last = name.split("/")[-1]
            if last.endswith(parts[-1]) and all(part in last for part in parts):
                found.append(name)
        return found

    def _one(self, *parts: str) -> str | None:
        found = self._files(*parts)
        if len(found) > 1:
            files = ", ".join(found)
            self._problems.add(found[1], 0, f"expected one file {'*'.join(parts)}, found {files}")
        return found[0] if found else None

    def _read_emotions(self) -> None:
        name = self._one("emotion_dict.json")
        if name is None:
            message = "file is missing; the emotions keep their numbers as names"
            self._problems.warn("emotion_dict.json", 0, message)
            return
        pairs: dict[int, tuple[str, int]] = {}
        for line, key, value in self._source.members(name):
            # Both directions are in use: name -> number and number -> name.
            label, number = (value, key) if isinstance(value, str) else (key, value)
            if not str(number).isdecimal() or not label.strip() or not label.isprintable():
                message = f"expected a name and a number, found {short(key)}: {short(value)}"
                self._problems.add(name, line, message)
            elif int(number) in pairs:
                first = pairs[int(number)][1]
                self._problems.add(name, line, f"duplicate id {number}, first on line {first}")
            else:
                pairs[int(number)] = (label.strip().lower(), line)
        self._emotions = {str(number): pairs[number][0] for number in sorted(pairs)}
        self._labels = Labels(self._emotions.values(), stated=True)

    def _read_pictures(self) -> None:
        name = self._one("img2id.json")
        if name is None:
            self._problems.add("img2id.json", 0, f"file is missing in {self._source.root}")
            return
        pictures = [path for path in self._names if path.lower().endswith(IMAGE_SUFFIXES)]
        places = {path.split("/")[-1]: path for path in reversed(pictures)}
        for line, key, value in self._source.members(name):
            try:
                sticker = _sticker(value)
            except RowError as error:
                self._problems.add(name, line, str(error))
                continue
            path = self._source.root / places.get(key, key)
            if key not in places:
                self._problems.add(name, line, f"image {short(key)} is not in the directory")
            elif path.stat().st_size > images.MAX_BYTES:
                message = f"image {short(key)} has more than {images.MAX_BYTES:,} bytes"
                self._problems.add(name, line, message)
            else:
                self._staging.pictures.add(sticker, path.read_bytes(), name, line)

    def _read_dialogues(self, ending: str, split: str, halve: bool) -> None:
        name = self._one(ending)
        if name is None:
            self._problems.add(ending, 0, f"file is missing in {self._source.root}")
            return
        for line, key, value in self._source.members(name):
            to_test = halve and hashlib.sha256(key.encode()).digest()[0] % 2 == 0
            try:
                said = _turns(value)
            except RowError as error:
                self._problems.add(name, line, f"{short(key)}: {error}")
                continue
            for place, turn in enumerate(said):
                if turn.sticker is None:
                    continue
                if place == 0 or turn.emotion is None:
                    reason = "first turn" if place == 0 else "meme without an emotion"
                    self._staging.left_out[f"{split}: {reason}"] += 1
                    continue
                extra = {"dialogue": key, "turn": place}
                where = f"{name}-{key}-{place}"
                self._add("test" if to_test else split, where, said[: place + 1], extra, name, line)

    def _read_test(self, code: str, level: str) -> None:
        name = self._one(f"{code}_test_{level}", "task2", ".json")
        if name is None:
            self._problems.warn(f"{code}_test_{level}_task2.json", 0, "file is missing")
            return
        emotions = self._test_emotions(code, level)
        for line, key, value in self._source.members(name):
            try:
                candidates, said = _test_row(value)
            except RowError as error:
                self._problems.add(name, line, f"row {key}: {error}")
                continue
            answer = said[-1]
            if answer.emotion is None:
                emotion = emotions.get((key, tuple(turn.text for turn in said)))
                said[-1] = answer = _Said(answer.speaker, answer.text, answer.sticker, emotion)
            extra = {"candidates": candidates, "test_set": level, "row": key}
            if answer.sticker is None or answer.emotion is None:
                self._staging.left_out[f"test, {level}: without answer or emotion"] += 1
                turns = [turn.to_json() for turn in _context(said)]
                self._staging.keep(UNLABELLED, {"turns": turns, **extra})
                continue
            self._add("test", f"{level}-{key}", said, extra, name, line)

    def _test_emotions(self, code: str, level: str) -> dict[tuple[str, tuple[str, ...]], str]:
        """Emotions by row and texts; the two files are joined only where both agree."""
        name = self._one(f"{code}_test_{level}", "task3", ".json")
        found = {}
        for line, key, value in self._source.members(name) if name else ():
            try:
                said = _turns(value.get("history") if isinstance(value, dict) else None)
                emotion = _number(value.get("answer"), "emotion_id")
            except RowError as error:
                self._problems.add(str(name), line, f"row {key}: {error}")
                continue
            if emotion is not None:
                found[key, tuple(turn.text for turn in said)] = emotion
        return found

    def _add(
        self,
        split: str,
        where: str,
        said: list[_Said],
        extra: Mapping[str, Any],
        file: str,
        line: int,
    ) -> None:
        reply = said[-1]
        intention = self._emotions.get(str(reply.emotion), f"emotion_{str(reply.emotion).zfill(2)}")
        message = self._labels.message(intention)
        if message:
            self._problems.add(file, line, f"{message} (emotion_id {reply.emotion})")
            return
        turns = _context(said)
        if not any(turn.text for turn in turns):
            self._staging.left_out[f"{split}: no words before the meme"] += 1
            return
        # The digest keeps ids short and safe, whatever the dialogues are called.
        number = hashlib.sha256(where.encode()).hexdigest()[:16]
        self._staging.add(
            Conversation(
                id=f"{split}-{number}",
                split=split,
                turns=turns,
                reply_speaker=reply.speaker,
                sticker=str(reply.sticker),
                intention=intention,
                extra=extra,
            ),
            file,
            line,
        )


def _context(said: list[_Said]) -> tuple[Turn, ...]:
    """The turns before the meme, and the words that it supplements as the last one."""
    turns = [Turn(turn.speaker, turn.text, turn.sticker) for turn in said[:-1]]
    if said[-1].text:
        turns.append(Turn(said[-1].speaker, said[-1].text))
    return tuple(turns)


def _test_row(value: Any) -> tuple[list[str], list[_Said]]:
    """Candidates, and the history with the answer as its last turn."""
    if not isinstance(value, dict):
        raise RowError(f"expected an object, found {short(value)}")
    said = _turns(value.get("history"))
    answer, candidate = value.get("answer"), value.get("candidate")
    if not isinstance(candidate, dict) or not isinstance(candidate.get("set"), list):
        raise RowError(f"candidate is {short(candidate)}, expected an object with a list 'set'")
    candidates = [_sticker(one) for one in candidate["set"]]
    if not isinstance(answer, dict):
        raise RowError(f"answer is {short(answer)}, expected an object")
    speaker = answer.get("speaker_id") or candidate.get("speaker_id")
    if not isinstance(speaker, str):
        raise RowError(f"speaker_id of the answer is {short(speaker)}, expected a string")
    image = answer.get("img_id")
    sticker = None if image in (None, "") else _sticker(image)
    if sticker is not None and sticker not in candidates:
        raise RowError(f"answer {short(image)} is not among the candidates")
    # The words that the answer supplements end the history, said by the same speaker.
    own = said[-1].speaker == speaker and said[-1].sticker is None and bool(said[-1].text)
    text = said.pop().text if own else ""
    return candidates, [*said, _Said(speaker, text, sticker, _number(answer, "emotion_id"))]


def _turns(value: Any) -> list[_Said]:
    if not isinstance(value, list) or not value:
        raise RowError(f"expected a list of turns, found {short(value)}")
    return [turn for place, one in enumerate(value) for turn in _checked(place, one)]


def _checked(place: int, turn: Any) -> Iterator[_Said]:
    if not isinstance(turn, dict):
        raise RowError(f"turn {place} is {short(turn)}, expected an object")
    speaker, text, image = turn.get("speaker_id"), turn.get("txt", ""), turn.get("img_id")
    if not isinstance(speaker, str) or not speaker.strip():
        raise RowError(f"turn {place}: speaker_id is {short(speaker)}, expected a string")
    if not isinstance(text, str):
        raise RowError(f"turn {place}: txt is {short(text)}, expected a string")
    sticker = None if image in (None, "") else _sticker(image)
    yield _Said(speaker, text.strip(), sticker, _number(turn, "emotion_id"))


def _sticker(value: Any) -> str:
    """An image number, "30" and 30 alike, as the three digits that the dialogues use."""
    number = str(value)
    if isinstance(value, bool) or not number.isascii() or not number.isdigit() or len(number) > 9:
        raise RowError(f"img_id is {short(value)}, expected a number")
    return number.lstrip("0").zfill(3)


def _number(record: Any, key: str) -> str | None:
    """The emotion's number; None where it is absent or blank, as in the tests given out."""
    value = record.get(key) if isinstance(record, dict) else None
    if value is None or value == "":
        return None
    if isinstance(value, bool) or not str(value).isascii() or not str(value).isdigit():
        raise RowError(f"{key} is {short(value)}, expected a number")
    return str(value).lstrip("0") or "0"
