"""What every step of the construction has in common: a directory in, a directory out.

A step's directory holds JSON lines, the stickers' files and ``step.json``: which step made it, with
which settings, from which input, and what it counted. It is built beside its place and renamed when
it is complete, so a killed step leaves nothing behind that the next one could take for finished.
Run again, a finished step sees from ``step.json`` that there is nothing to do.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from absl import logging
from tqdm import tqdm

from data_prep.chats.message import Message
from int_ra_jax.common.ledger import Ledger
from int_ra_jax.data import schema

ORDER = ("collect", "anonymise", "filter_offensive", "segment", "deduplicate", "split")
UNLABELLED = "unlabelled"  # the intention of a sticker that nobody has annotated yet
MESSAGES_FILE = "messages.jsonl"
PEOPLE_FILE = "people.jsonl"
CONTEXTS_FILE = "contexts.jsonl"
STICKERS = "stickers"
STEP_FILE = "step.json"
REPORT_FILE = "report.json"
VERSION = 3  # of what the steps write; another one makes every step run again

Counts = dict[str, Any]


def run_step(
    name: str,
    source_identity: str,
    out: Path,
    settings: Mapping[str, Any],
    work: Callable[[Path], Counts],
) -> Counts:
    """Runs one step, unless ``out`` holds its result already.

    Args:
      name: of the step.
      source_identity: changes whenever the input does.
      out: the step's directory; must not exist, or be empty, or be this step's finished result.
      settings: what else decides the result.
      work: writes into the directory it is given, and returns what it counted.

    Returns:
      What the step counted; never a text of the chats.

    Raises:
      FileExistsError: if ``out`` holds anything else.
    """
    made_from = {
        "step": name,
        "version": VERSION,
        "settings": dict(settings),
        "source": source_identity,
    }
    if out.exists() and any(out.iterdir()):
        finished = _read_step(out)
        if finished is None or {key: finished.get(key) for key in made_from} != made_from:
            raise FileExistsError(
                f"{out} holds something else than this step's result from this input with these "
                "settings. Choose a new directory or remove it."
            )
        logging.info("%s: %s is finished already", name, out)
        return dict(finished["counts"])
    building = out.with_name(f"{out.name}.incomplete")
    shutil.rmtree(building, ignore_errors=True)
    (building / STICKERS).mkdir(parents=True)
    counts = work(building)
    record = made_from | {"counts": counts, "files": _digests(building)}
    (building / STEP_FILE).write_text(json.dumps(record, ensure_ascii=False, indent=2) + "\n")
    if out.exists():
        out.rmdir()
    building.rename(out)
    logging.info("%s: %s", name, json.dumps(counts, ensure_ascii=False))
    return counts


def identity(directory: Path, name: str) -> str:
    """Returns what names the content of the directory that a step reads.

    Args:
      directory: the result of the step before.
      name: of the step that reads it.

    Raises:
      ValueError: if the directory was not written by the step before.
    """
    record, before = _read_step(directory), ORDER[ORDER.index(name) - 1]
    if record is None or record.get("step") != before:
        found = "no finished step" if record is None else f"the step {record.get('step')!r}"
        raise ValueError(
            f"{directory} holds {found}; expected the result of {before}. "
            "Run that step first (docs/construction.md)."
        )
    return hashlib.sha256((directory / STEP_FILE).read_bytes()).hexdigest()


def construction_of(directory: Path) -> Any:
    """Returns what a prepared directory says of its construction, or None."""
    try:
        return json.loads((directory / schema.INFO_FILE).read_bytes()).get("construction")
    except (OSError, ValueError, AttributeError):
        return None


def read_lines(directory: Path, file: str, what: str) -> Iterator[dict[str, Any]]:
    """Yields the JSON objects of a step's file one by one, with progress."""
    path = directory / file
    with (
        path.open("rb") as lines,
        tqdm(total=path.stat().st_size, desc=what, unit="B", unit_scale=True, mininterval=1) as bar,
    ):
        for line in lines:
            yield json.loads(line)
            bar.update(len(line))


def read_messages(directory: Path, what: str) -> Iterator[Message]:
    """Yields a step's messages: chat after chat, each in the order of time."""
    for record in read_lines(directory, MESSAGES_FILE, what):
        yield Message.from_json(record)


def write_lines(directory: Path, file: str, records: Iterable[Mapping[str, Any]]) -> int:
    """Writes JSON lines as they come; returns how many."""
    count = 0
    with (directory / file).open("w", encoding="utf-8", newline="\n") as lines:
        for record in records:
            lines.write(json.dumps(record, ensure_ascii=False) + "\n")
            count += 1
    return count


def write_report(building: Path, ledger: Ledger | Mapping[str, Any]) -> None:
    """Writes what became of each record of the export, as ``Ledger.to_json`` gives it."""
    report = ledger.to_json() if isinstance(ledger, Ledger) else ledger
    text = json.dumps(report, ensure_ascii=False, indent=2)
    (building / REPORT_FILE).write_text(text + "\n", "utf-8")


def read_report(directory: Path) -> dict[str, Any]:
    """Reads what ``write_report`` wrote."""
    report: dict[str, Any] = json.loads((directory / REPORT_FILE).read_bytes())
    return report


def pass_on(source: Path, building: Path, names: Iterable[str] | None = None) -> None:
    """Hands on what a step leaves as it is: the report, and stickers.

    Args:
      source: the finished step.
      building: the step that is being built.
      names: which stickers; None passes all on.
    """
    write_report(building, read_report(source))
    pass_on_stickers(source, building, names)


def pass_on_stickers(source: Path, building: Path, names: Iterable[str] | None = None) -> None:
    """Links or copies stickers from one step's directory into the next.

    Args:
      source: the finished step.
      building: the step that is being built.
      names: which; None passes all on.
    """
    folder = source / STICKERS
    for name in sorted(path.name for path in folder.iterdir()) if names is None else names:
        target = building / STICKERS / name
        if target.exists():
            continue
        try:
            os.link(folder / name, target)
        except OSError:  # another file system, or one without links
            shutil.copyfile(folder / name, target)


def _read_step(directory: Path) -> dict[str, Any] | None:
    try:
        record = json.loads((directory / STEP_FILE).read_bytes())
    except (OSError, ValueError):
        return None
    return record if isinstance(record, dict) else None


def _digests(directory: Path) -> dict[str, str]:
    digests = {}
    for path in sorted(directory.glob("*.jsonl")):
        with path.open("rb") as file:
            digests[path.name] = hashlib.file_digest(file, "sha256").hexdigest()
    names = "\n".join(sorted(path.name for path in (directory / STICKERS).iterdir()))
    digests[STICKERS] = hashlib.sha256(names.encode()).hexdigest()
    return digests
