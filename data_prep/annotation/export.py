"""Writes a prepared directory whose intentions and gold stickers are what annotators decided.

A conversation takes the adjudicated intention, else the one with more votes than any other, and by
the same rule the sticker that was sent or another one. Ties, "none fits" and what nobody rated have
no decision: they are left out, or keep what they had. Each is counted, on the terminal and in
dataset.json, which names the stickers that were replaced. ``intentions`` of a sticker are those of
its conversations in train; valid and test add none.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from data_prep.annotation import workspace
from data_prep.annotation.decisions import TIE, Decision, decide
from int_ra_jax.data import schema
from int_ra_jax.data.schema import Conversation, PreparedDirectory, StickerEntry
from int_ra_jax.data.validation import read_prepared

_SHOWN = 10  # of what is wrong, in a message
LEAVE_OUT, KEEP = "leave_out", "keep"
SENT_STICKER = "sent_sticker"  # key of a conversation's row: what ``sticker`` was before


def export(prepared_dir: Path, workdir: Path, out: Path, undecided: str) -> dict[str, int]:
    """Writes a prepared directory with the decided intentions and stickers.

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
    said = workspace.read_votes(workdir, settings)
    intentions, stickers = workspace.read_adjudication(workdir, settings)
    decided = Decided(decide(said.intentions, intentions), decide(said.stickers, stickers))
    _check_gallery(prepared, decided)
    counts = _counts(prepared, decided)
    conversations = [
        one
        for split in schema.SPLITS
        for one in _annotated(prepared.conversations[split], decided, undecided)
    ]
    _check_splits(conversations)
    replaced = [
        {"conversation": one.id, "sent": one.extra[SENT_STICKER], "chosen": one.sticker}
        for one in conversations
        if one.id in decided.chosen
    ]
    schema.write_prepared(
        out,
        conversations,
        stickers_of_train(prepared.stickers, conversations, prepared.intentions),
        prepared.intentions,
        _info(prepared, len(said.intentions), counts, replaced, undecided),
        {sticker.image: prepared_dir / sticker.image for sticker in prepared.stickers},
    )
    return counts | ({"with another sticker": len(replaced)} if replaced else {})


@dataclass(frozen=True)
class Decided:
    """What became of the conversations.

    Attributes:
      intentions: decisions on the intention.
      stickers: decisions on the sticker, of conversations for which anybody was asked.
    """

    intentions: Mapping[str, Decision]
    stickers: Mapping[str, Decision]

    @property
    def chosen(self) -> dict[str, str]:
        """Conversation -> the sticker that was chosen in the place of the one that was sent."""
        return {one: found.answer for one, found in self.stickers.items() if found.answer}

    def how(self, conversation: str) -> str:
        """Says how a conversation was decided, or why it was not."""
        sticker, intention = (found.get(conversation) for found in (self.stickers, self.intentions))
        if sticker is not None and sticker.answer is None:
            return "tie on the sticker" if sticker.how == TIE else "no sticker fits"
        if intention is None:
            return "not rated"
        if intention.answer is None and intention.how != TIE:
            return "none fits"
        return intention.how

    def is_decided(self, conversation: str) -> bool:
        """Whether a conversation has an intention, and a sticker where that was asked."""
        sticker, intention = self.stickers.get(conversation), self.intentions.get(conversation)
        fits = sticker is None or sticker.answer is not None
        return fits and intention is not None and intention.answer is not None


def _annotated(
    conversations: Iterable[Conversation], decided: Decided, undecided: str
) -> list[Conversation]:
    kept = []
    for one in conversations:
        if not decided.is_decided(one.id) and undecided != KEEP:
            continue
        decision, chosen = decided.intentions.get(one.id), decided.chosen.get(one.id)
        if decision is not None and decision.answer is not None:
            one = replace(one, intention=decision.answer)
        if chosen is not None:
            one = replace(one, sticker=chosen, extra={**one.extra, SENT_STICKER: one.sticker})
        kept.append(one)
    return kept


def _counts(prepared: PreparedDirectory, decided: Decided) -> dict[str, int]:
    members = (one for split in prepared.conversations.values() for one in split)
    return dict(sorted(Counter(decided.how(one.id) for one in members).items()))


def _check_gallery(prepared: PreparedDirectory, decided: Decided) -> None:
    gallery = {one.id for one in prepared.stickers}
    chosen = sorted((sticker, one) for one, sticker in decided.chosen.items())
    if unknown := [f"{sticker} for {one}" for sticker, one in chosen if sticker not in gallery]:
        more = f" and {len(unknown) - _SHOWN} more" if len(unknown) > _SHOWN else ""
        raise ValueError(
            f"annotators chose stickers that {prepared.path} does not have: "
            f"{', '.join(unknown[:_SHOWN])}{more}. Put the stickers back, or choose others for "
            "these conversations: by a later decision of the same annotators, or in adjudication."
        )


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
    prepared: PreparedDirectory,
    annotators: int,
    counts: Mapping[str, int],
    replaced: Sequence[Mapping[str, str]],
    undecided: str,
) -> dict[str, Any]:
    """The origin's own counts would be wrong here; they stay with the origin's description."""
    kept = ("name", "version", "licence", "source", "language", "attribution")
    return {key: prepared.info[key] for key in kept if key in prepared.info} | {
        "annotation": {
            "annotators": annotators,
            "conversations": dict(counts),
            "replaced_stickers": list(replaced),
            "undecided": undecided,
        },
        "annotated_from": {k: v for k, v in prepared.info.items() if k != "files"},
    }
