"""Which rows stand beside a system, by protocol, and the scores of each.

Under ``multi`` and ``paper`` a sticker is right by its intention, and the rows rank intentions
(``reference``); under ``exact`` the sticker that was sent is the one right answer, and the rows
rank stickers (``sticker_reference``). Chance stands beside all of them (``metrics``).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float

from int_ra_jax.data.ngrams import Texts
from int_ra_jax.data.schema import Conversation
from int_ra_jax.evaluation import reference, sticker_reference
from int_ra_jax.evaluation.judge import Judged
from int_ra_jax.models.interface import Params
from int_ra_jax.run.encode import Encoder
from int_ra_jax.run.workdir import Run

Tables = Mapping[str, Float[np.ndarray, "Q N"]]

CHANCE = "a uniformly random ranking, in closed form"
_BY_INTENTION = {
    "linear": "TF-IDF and logistic regression on the context; stickers by the probability of "
    "their intentions",
    "prior": "the best fixed answer: stickers by how many train conversations they suit",
    "majority_intention": "stickers of the commonest train intention first, whatever is said",
}
_BY_STICKER = {
    "linear": "TF-IDF of characters and words, of the newest turn and of the whole conversation, "
    "and logistic regression onto the stickers",
    "zero_shot": "cosine of the frozen pretrained text tower between the conversation and the "
    "sticker's name and attributes; nothing trained",
    "popular": "the stickers that were sent most in train, whatever is said",
}


@dataclass(frozen=True)
class Beside:
    """The rows beside a system.

    Attributes:
      tables: split -> row -> scores.
      notes: row -> what it is.
      remarks: what else must be said of them.
    """

    tables: Mapping[str, Tables]
    notes: Mapping[str, str]
    remarks: Sequence[str] = field(default_factory=tuple)


def text_of(conversation: Conversation) -> str:
    """Returns a conversation as the linear row on intentions reads it: one turn a line."""
    return "\n".join(turn.text for turn in conversation.turns)


def by_intention(run: Run, judged: Judged, split: str) -> Beside:
    """Returns the rows that rank intentions; they see train only."""
    train = run.dataset.conversations("train")
    _, intentions = run.dataset.targets(train)
    texts = [text_of(conversation) for conversation in train]
    queries = [text_of(conversation) for conversation in judged.conversations]
    linear = run.shared.get(
        "linear",
        lambda: [reference.SETTINGS, *texts, "queries", *queries, intentions, judged.annotations],
        lambda: reference.linear_scores(texts, intentions, queries, judged.annotations)[0],
    )
    assert isinstance(linear, np.ndarray)
    annotated = (intentions, judged.annotations, len(judged.gold))
    tables = {
        "linear": linear,
        "prior": reference.prior_scores(*annotated),
        "majority_intention": reference.majority_scores(*annotated),
    }
    return Beside({split: tables}, _BY_INTENTION)


def by_sticker(run: Run, encoder: Encoder, params: Params, judged: Mapping[str, Judged]) -> Beside:
    """Returns the rows that rank stickers; they see train only.

    Args:
      run: the open workdir.
      encoder: of the run.
      params: parameters of the system; its frozen tower is read here.
      judged: split -> its queries; each gets its scores.
    """
    train = run.dataset.conversations("train")
    gold, _ = run.dataset.targets(train)
    stickers = len(run.dataset.stickers)
    linear = _linear(run, train, gold, judged)
    tables = {
        split: {
            "linear": linear[split],
            "popular": sticker_reference.popular_scores(gold, stickers, len(one.gold)),
        }
        for split, one in judged.items()
    }
    notes = dict(_BY_STICKER)
    if obstacle := _no_zero_shot(run):
        del notes["zero_shot"]
        return Beside(tables, notes, (f"There is no row zero_shot: {obstacle}.",))
    names = [sticker_reference.sticker_text(sticker) for sticker in run.dataset.stickers]
    known = encoder.text_means(params, names)
    for split, rows in tables.items():
        asked = encoder.conversation_means(params, split)
        rows["zero_shot"] = sticker_reference.cosines(asked, known)
    return Beside(tables, notes)


def _linear(
    run: Run, train: Sequence[Conversation], gold: np.ndarray, judged: Mapping[str, Judged]
) -> dict[str, Float[np.ndarray, "Q N"]]:
    stickers = len(run.dataset.stickers)
    known = Texts.of(train)
    asked = {split: Texts.of(one.conversations) for split, one in judged.items()}

    def compute() -> dict[str, np.ndarray]:
        found = sticker_reference.linear_scores(known, gold, list(asked.values()), stickers)
        return dict(zip(asked, found, strict=True))

    def sources() -> list[str | np.ndarray]:
        listed: list[str | np.ndarray] = [sticker_reference.SETTINGS, str(stickers), *known.whole]
        for split, texts in asked.items():
            listed += [split, *texts.whole]
        return [*listed, *known.newest, gold]

    kept = run.shared.get_all("linear-stickers", sources, compute)
    return {split: np.asarray(kept[split]) for split in asked}


def _no_zero_shot(run: Run) -> str:
    """Says why the text tower is not as it was pretrained; "" where it is."""
    text = run.config.model.text
    if not text.source:
        return "the text tower has no pretrained weights (model.text.source)"
    if text.frozen_layers not in (-1, run.facts.text.num_hidden_layers):
        return "the text tower trains (model.text.frozen_layers is not -1)"
    if run.system.frames:
        return "the system encodes a conversation in pieces, not as one text"
    if run.config.checkpoint.resume_from:
        return "the text tower comes from another run (checkpoint.resume_from)"
    return ""
