"""The directory of an annotation: its settings, everybody's files, and who sees what when.

DIR/annotation.json          which data, which share is for everybody
DIR/annotators/NAME.jsonl    what NAME decided (``journal``)
DIR/adjudication.jsonl       what was decided where they disagree
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from absl import logging

from data_prep.annotation.journal import LABEL, SKIP, SUFFIX, Event, latest, read_events
from int_ra_jax.common.files import replace_text
from int_ra_jax.data import schema
from int_ra_jax.data.schema import Conversation, PreparedDirectory

SETTINGS_FILE = "annotation.json"
ANNOTATORS = "annotators"
ADJUDICATION_FILE = f"adjudication{SUFFIX}"
DEFAULT_OVERLAP = 0.2

SENT = ""  # a vote on the sticker: the one that was sent fits; no id is empty

Vote = str | None  # None: no intention fits, or no sticker
Votes = Mapping[str, Mapping[str, Vote]]  # annotator -> conversation -> vote


@dataclass(frozen=True)
class Settings:
    """What must stay the same while an annotation lasts.

    Attributes:
      files: SHA-256 of the conversations and of the intentions, by file name.
      intentions: names in class order.
      overlap: share of the conversations that everybody sees.
      split: the only split that is annotated, or None for all.
    """

    files: dict[str, str]
    intentions: list[str]
    overlap: float
    split: str | None


def file_hashes(prepared: PreparedDirectory) -> dict[str, str]:
    """Returns the SHA-256 of the two files that an annotation depends on."""
    names = (schema.CONVERSATIONS_FILE, schema.INTENTIONS_FILE)
    return {name: prepared.info["files"][name]["sha256"] for name in names}


def begin(
    workdir: Path,
    prepared: PreparedDirectory,
    overlap: float | None = None,
    split: str | None = None,
) -> Settings:
    """Begins an annotation, or continues one.

    Args:
      workdir: made where there is none.
      prepared: what is annotated.
      overlap: share for everybody; None takes what it was begun with, at first 0.2.
      split: the only split to annotate; None takes what it was begun with, at first all.

    Raises:
      ValueError: if ``overlap`` is no share, or the annotation was begun with something else.
    """
    if overlap is not None and not 0 <= overlap <= 1:
        raise ValueError(f"--overlap={overlap} is no share. Give one from 0 to 1.")
    if not (workdir / SETTINGS_FILE).exists():
        settings = Settings(
            files=file_hashes(prepared),
            intentions=list(prepared.intentions),
            overlap=DEFAULT_OVERLAP if overlap is None else overlap,
            split=split,
        )
        text = json.dumps(asdict(settings), ensure_ascii=False, indent=2)
        replace_text(workdir / SETTINGS_FILE, text + "\n")
        return settings
    settings = read_settings(workdir)
    check_same_data(workdir, settings, prepared)
    asked = (("overlap", overlap, settings.overlap), ("split", split, settings.split))
    for name, given, stored in asked:
        if given is not None and given != stored:
            raise ValueError(
                f"{workdir} was begun with {name} {stored!r}, not {given!r}. Leave --{name} out, "
                "or begin another directory."
            )
    return settings


def read_settings(workdir: Path) -> Settings:
    """Reads the settings of an annotation that was begun.

    Raises:
      FileNotFoundError: if none was begun there.
      ValueError: if the file is damaged.
    """
    path = workdir / SETTINGS_FILE
    if not path.is_file():
        raise FileNotFoundError(
            f"no annotation was begun in {workdir}. Begin one with launch.py --mode=annotate."
        )
    try:
        found = Settings(**json.loads(path.read_bytes()))
        sound = isinstance(found.files, dict) and 0 <= found.overlap <= 1
        sound = sound and all(isinstance(name, str) for name in found.intentions)
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"{path} is damaged: {error}") from None
    if not sound:
        raise ValueError(f"{path} is damaged: a value has another type or range.")
    return found


def check_same_data(workdir: Path, settings: Settings, prepared: PreparedDirectory) -> None:
    """Makes sure that an annotation is of this data.

    Raises:
      ValueError: if conversations or intentions have changed since it was begun.
    """
    found = file_hashes(prepared)
    changed = [name for name, digest in found.items() if settings.files.get(name) != digest]
    if changed:
        raise ValueError(
            f"{workdir} annotates other data: {' and '.join(changed)} of {prepared.path} have "
            "changed since it was begun. Name the directory it was begun with, or begin another."
        )


def conversations_of(prepared: PreparedDirectory, split: str | None) -> list[Conversation]:
    """Returns the conversations to annotate, in file order."""
    splits = schema.SPLITS if split is None else (split,)
    return [one for name in splits for one in prepared.conversations[name]]


def shared_ids(ids: Iterable[str], overlap: float) -> list[str]:
    """Returns the conversations that everybody sees, in the order in which all see them."""
    ordered = sorted(ids, key=lambda one: _digest("all", one))
    return ordered[: round(overlap * len(ordered))]


def order_for(annotator: str, ids: Sequence[str], overlap: float) -> list[str]:
    """Returns the order in which an annotator meets the conversations.

    The shared ones come in the same order for all. The others come in an order of each annotator's
    own, so that people who stop early have covered different ones. Both are mixed evenly:
    whenever somebody stops, the share of the overlap is about as asked for.
    """
    shared = shared_ids(ids, overlap)
    rest = sorted(set(ids) - set(shared), key=lambda one: _digest(f"of {annotator}", one))
    placed = [
        ((index + 0.5) / len(group), rank, one)
        for rank, group in enumerate((shared, rest))
        for index, one in enumerate(group)
    ]
    return [one for _, _, one in sorted(placed)]


def _digest(salt: str, identity: str) -> str:
    return hashlib.sha256(f"{salt}/{identity}".encode()).hexdigest()


def annotator_file(workdir: Path, name: str) -> Path:
    """Returns where an annotator's events are."""
    return workdir / ANNOTATORS / f"{name}{SUFFIX}"


def votes_in(current: Mapping[str, Event]) -> dict[str, Vote]:
    """Returns what was decided, by conversation; what was skipped is not."""
    return {
        one: event.intention if event.action == LABEL else None
        for one, event in current.items()
        if event.action != SKIP
    }


def sticker_votes_in(current: Mapping[str, Event]) -> dict[str, Vote]:
    """Returns which sticker was said to fit, by conversation, where that was asked.

    ``SENT`` for the one that was sent, the id of another, or None where none does.
    """
    return {
        one: SENT if event.fits else event.sticker
        for one, event in current.items()
        if event.action != SKIP and event.fits is not None
    }


@dataclass(frozen=True)
class Said:
    """What annotators, or the adjudication, decided.

    Attributes:
      intentions: annotator -> conversation -> the intention.
      stickers: annotator -> conversation -> the sticker; see ``sticker_votes_in``.
    """

    intentions: dict[str, dict[str, Vote]]
    stickers: dict[str, dict[str, Vote]]


def read_votes(workdir: Path, settings: Settings) -> Said:
    """Reads every annotator's decisions, by name.

    Raises:
      BadInputError: if a file has a line that is no event.
    """
    files = sorted((workdir / ANNOTATORS).glob(f"*{SUFFIX}"))
    read = {path.stem: _read(path, settings) for path in files}
    return Said(
        {name: votes_in(current) for name, current in read.items()},
        {name: sticker_votes_in(current) for name, current in read.items()},
    )


def read_adjudication(workdir: Path, settings: Settings) -> tuple[dict[str, Vote], dict[str, Vote]]:
    """Reads what was decided where annotators disagree: on the intention, and on the sticker.

    Raises:
      BadInputError: if the file has a line that is no event.
    """
    current = _read(workdir / ADJUDICATION_FILE, settings)
    return votes_in(current), sticker_votes_in(current)


def _read(path: Path, settings: Settings) -> dict[str, Event]:
    events, unfinished = read_events(path, settings.intentions)
    if unfinished:
        logging.warning("%s: an unfinished last line is left out: %r", path, unfinished[:200])
    return latest(events)
