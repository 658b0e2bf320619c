"""Writes a prepared directory whose intentions are what annotators decided.

A conversation takes the adjudicated intention, else the one with more votes than any other. Ties,
"none fits" and what nobody rated have none: they are left out, or keep the intention they had. Each
is counted, on the terminal and in dataset.json. ``intentions`` of a sticker are those of its
conversations in train; valid and test add none.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from data_prep.annotation import workspace
from data_prep.annotation.decisions import TIE, Decision, decide
from int_ra_jax.data import schema
from int_ra_jax.data.schema import Conversation, PreparedDirectory, StickerEntry
from int_ra_jax.data.validation import read_prepared

LEAVE_OUT, KEEP = "leave_out", "keep"


def export(prepared_dir: Path, workdir: Path, out: Path, undecided: str) -> dict[str, int]:
    """Writes a prepared directory with the decided intentions.

    Args:
      prepared_dir: the directory that was annotated.
      workdir: the annotation.
      out: must not exist yet, or be empty.
      undecided: ``LEAVE_OUT`` or ``KEEP``, for conversations without a decision.

    Returns:
      How many conversations were decided how, and how many were not.

    Raises:
      FileExistsError: if ``out`` holds anything.
      FileNotFoundError: if no annotation was begun in ``workdir``.
      ValueError: if the annotation is of other data, a file of it is damaged, or a split would
        have no conversation left.
    """
    settings = workspace.read_settings(workdir)
    prepared = read_prepared(prepared_dir)
    workspace.check_same_data(workdir, settings, prepared)
    votes = workspace.read_votes(workdir, settings)
    decided = decide(votes, workspace.read_adjudication(workdir, settings))
    counts = _counts(prepared, decided)
    conversations = [
        one
        for split in schema.SPLITS
        for one in _annotated(prepared.conversations[split], decided, undecided)
    ]
    _check_splits(conversations)
    schema.write_prepared(
        out,
        conversations,
        stickers_of_train(prepared.stickers, conversations, prepared.intentions),
        prepared.intentions,
        _info(prepared, votes, counts, undecided),
        {sticker.image: prepared_dir / sticker.image for sticker in prepared.stickers},
    )
    return counts


def _annotated(
    conversations: Iterable[Conversation], decided: Mapping[str, Decision], undecided: str
) -> list[Conversation]:
    kept = []
    for one in conversations:
        decision = decided.get(one.id)
        if decision is not None and decision.intention is not None:
            kept.append(replace(one, intention=decision.intention))
        elif undecided == KEEP:
            kept.append(one)
    return kept


def _counts(prepared: PreparedDirectory, decided: Mapping[str, Decision]) -> dict[str, int]:
    counts: Counter[str] = Counter()
    for members in prepared.conversations.values():
        for one in members:
            decision = decided.get(one.id)
            if decision is None:
                counts["not rated"] += 1
            elif decision.intention is None and decision.how != TIE:
                counts["none fits"] += 1
            else:
                counts[decision.how] += 1
    return dict(sorted(counts.items()))


def _check_splits(conversations: Sequence[Conversation]) -> None:
    found = {one.split for one in conversations}
    if missing := [split for split in schema.SPLITS if split not in found]:
        raise ValueError(
            f"no conversation of {' and '.join(missing)} has a decided intention. Annotate some, "
            f"or use --undecided={KEEP}."
        )


def stickers_of_train(
    stickers: Iterable[StickerEntry],
    conversations: Iterable[Conversation],
    intentions: Sequence[str],
) -> list[StickerEntry]:
    """Gives each sticker the intentions it serves in train, in class order, and no others.

    What people decided about valid and test is the answer that is measured there, so it must not
    reach the gallery.
    """
    served: dict[str, set[str]] = defaultdict(set)
    for one in conversations:
        if one.split == "train":
            served[one.sticker].add(one.intention)
    return [
        replace(one, intentions=tuple(name for name in intentions if name in served[one.id]))
        for one in stickers
    ]


def _info(
    prepared: PreparedDirectory, votes: workspace.Votes, counts: Mapping[str, int], undecided: str
) -> dict[str, Any]:
    """The origin's own counts would be wrong here; they stay with the origin's description."""
    kept = ("name", "version", "licence", "source", "language", "attribution")
    return {key: prepared.info[key] for key in kept if key in prepared.info} | {
        "annotation": {
            "annotators": len(votes),
            "conversations": dict(counts),
            "undecided": undecided,
        },
        "annotated_from": {k: v for k, v in prepared.info.items() if k != "files"},
    }
