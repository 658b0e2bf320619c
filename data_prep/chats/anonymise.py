"""Step 2, anonymise: pseudonyms for people, chats and messages; personal data in texts masked.

Privacy: ids become keyed hashes (HMAC-SHA-256). Whoever has the salt can compute a person's
pseudonym again, so the salt stays outside every result; without it, nobody can. Times become
seconds since the chat's first message. What the search for personal data overlooks stays in the
texts.
"""

import hashlib
import hmac
import os
import secrets
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from data_prep.chats import pii, step
from data_prep.chats.message import Message

_SALT_BYTES = 32


def anonymise(
    source: Path, out: Path, salt_file: Path, regions: tuple[str, ...] = pii.REGIONS
) -> step.Counts:
    """Replaces people by pseudonyms and masks their personal data.

    Args:
      source: the result of the step collect.
      out: the step's directory.
      salt_file: holds the key of the hashes; made if it is not there.
      regions: countries whose telephone numbers are written without the country's code.

    Returns:
      What was counted: masks by kind.

    Raises:
      ValueError: if the salt's file lies in the result, is too short, or a region is unknown.
    """
    if salt_file.resolve().is_relative_to(out.resolve()):
        raise ValueError(f"the salt {salt_file} lies in the result {out}. Keep it elsewhere.")
    unknown = sorted(set(regions) - pii.KNOWN_REGIONS)
    if unknown:
        raise ValueError(f"unknown regions {', '.join(unknown)}. Write codes such as CN,US,GB.")
    salt = read_or_make_salt(salt_file)
    identity = step.identity(source, "anonymise")
    # Tells two salts apart without telling anything about either.
    settings = {"regions": list(regions), "salt": pseudonym(salt, "mark", "salt")}

    def work(building: Path) -> step.Counts:
        people = step.read_lines(source, step.PEOPLE_FILE, "names of senders")
        senders = pii.SenderNames({p["name"] for p in people if p["name"]})
        masked: Counter[str] = Counter()
        messages = _anonymised(source, salt, senders, regions, masked)
        count = step.write_lines(building, step.MESSAGES_FILE, messages)
        step.write_report(building, _unnamed(step.read_report(source), salt))
        step.pass_on_stickers(source, building)
        return {"messages": count, "masked": {kind: masked[kind] for kind in pii.KINDS}}

    return step.run_step("anonymise", identity, out, settings, work)


def read_or_make_salt(path: Path) -> bytes:
    """Reads the key of the hashes, or makes one that only its owner may read.

    Raises:
      ValueError: if the file is too short to be a key.
    """
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_name(f"{path.name}.{os.getpid()}.tmp")
        with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(secrets.token_hex(_SALT_BYTES) + "\n")
        os.replace(beside, path)
    salt = path.read_bytes().strip()
    if len(salt) < _SALT_BYTES:
        raise ValueError(f"the salt {path} has {len(salt)} bytes; at least {_SALT_BYTES} are safe")
    return salt


def pseudonym(salt: bytes, kind: str, identity: str) -> str:
    """Returns the keyed hash that stands for an id of a kind, such as "user"."""
    digest = hmac.new(salt, f"{kind}\0{identity}".encode(), hashlib.sha256).hexdigest()
    return f"{kind}_{digest[:16]}"


def _unnamed(report: dict[str, Any], salt: bytes) -> dict[str, Any]:
    """Returns the report with a pseudonym for each file, whose name may be a person's."""
    for reason in report["left_out"].values():
        file, _, line = reason["first"].rpartition(":")
        reason["first"] = f"{pseudonym(salt, 'file', file)}:{line}"
    return report


def _anonymised(
    source: Path,
    salt: bytes,
    senders: pii.SenderNames,
    regions: tuple[str, ...],
    masked: Counter[str],
) -> Iterator[dict[str, Any]]:
    chat, start = None, 0
    for message in step.read_messages(source, "anonymising"):
        if message.chat != chat:
            chat, start = message.chat, message.time
        spans = pii.find(message.text, senders, regions)
        masked.update(span.kind for span in spans)
        yield _renamed(message, salt, start, pii.mask(message.text, spans)).to_json()


def _renamed(message: Message, salt: bytes, start: int, text: str) -> Message:
    def number(identity: str | None) -> str | None:
        if identity is None:
            return None
        return pseudonym(salt, "message", f"{message.chat}\0{identity}")

    return replace(
        message,
        chat=pseudonym(salt, "chat", message.chat),
        id=number(message.id),
        reply_to=number(message.reply_to),
        sender=pseudonym(salt, "user", message.sender),
        time=message.time - start,
        text=text,
    )
