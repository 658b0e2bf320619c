"""Right answers, scores and the few figures that training watches."""

from collections.abc import Sequence
from dataclasses import dataclass

import jax
import numpy as np
from jaxtyping import Bool, Float, Int

from int_ra_jax.common.types import Context
from int_ra_jax.data.gallery import relevance_annotations
from int_ra_jax.data.schema import Conversation
from int_ra_jax.evaluation import metrics, relevance
from int_ra_jax.evaluation.cases import Cases, cases
from int_ra_jax.models.interface import Params
from int_ra_jax.run.encode import Encoder
from int_ra_jax.run.workdir import Run


@dataclass(frozen=True)
class Judged:
    """A split with its right answers.

    Attributes:
      conversations: the queries, in split order.
      gold: gallery row of each query's sticker.
      intention: class id of each query's intention.
      relevant: which stickers count.
      annotations: intentions of each sticker in train.
      train_uses: how often each sticker was sent in train.
      cases: their posts and cases, where the data tells them.
    """

    conversations: Sequence[Conversation]
    gold: Int[np.ndarray, "Q"]
    intention: Int[np.ndarray, "Q"]
    relevant: Bool[np.ndarray, "Q N"]
    annotations: Bool[np.ndarray, "N K"]
    train_uses: Int[np.ndarray, "N"]
    cases: Cases

    @property
    def headline(self) -> Bool[np.ndarray, " Q"]:
        """Which queries count in the headline."""
        return self.cases.headline

    @property
    def clusters(self) -> np.ndarray | None:
        """What intervals resample together, [Q]; None where each query stands for itself."""
        return np.asarray(self.cases.clusters) if self.cases.threads else None


def judge(run: Run, split: str, protocol: str) -> Judged:
    """Says which stickers are right for each conversation of a split.

    Under ``multi`` test is judged by the annotations of train and valid, valid by train's alone.

    Args:
      run: the open workdir.
      split: its name.
      protocol: one of ``relevance.PROTOCOLS``. ``paper`` reads test labels, so model selection on
        valid must not use it.
    """
    dataset = run.dataset
    conversations = dataset.conversations(split)
    gold, intention = dataset.targets_of(split)
    known = known_splits(split)
    last_written = None
    if protocol == "paper":  # which alone reads every split
        written = {name: dataset.targets_of(name) for name in dataset.splits}
        last_written = relevance.last_written_intention(written, len(dataset.stickers))
    relevant = relevance.relevance(
        protocol,
        query_intention=intention,
        gold=gold,
        annotations=relevance_annotations(dataset, known),
        last_written=last_written,
    )
    train_uses = np.bincount(dataset.targets_of("train")[0], minlength=len(dataset.stickers))
    found = cases(conversations, train_uses[gold] == 0)
    return Judged(conversations, gold, intention, relevant, run.bank.intentions, train_uses, found)


def known_splits(split: str) -> tuple[str, ...]:
    """Returns the splits whose annotations say what is right for another one under ``multi``.

    Model selection must not see test labels, nor may valid be judged by its own annotations.
    """
    return ("train", "valid") if split == "test" else ("train",)


def validate(
    encoder: Encoder, params: Params, judged: Judged, split: str, hidden: jax.Array | None
) -> dict[str, float]:
    """Returns the figures that training watches: mAP, hit@1 and, if predicted, the intention's.

    They are those of headline queries, as an evaluation tells them.
    """
    contexts = encoder.contexts(params, split, hidden)
    scores = score_table(encoder, params, contexts)
    told = judged.headline
    result = metrics.evaluate_rankings(scores[told], judged.relevant[told], on_empty="exclude")
    figures = {"mAP": result["mAP"], "hit@1": result["hit@1"]}
    if contexts.intention_logits is not None:
        predicted = np.argmax(contexts.intention_logits, axis=1)
        figures["intention_accuracy"] = float(np.mean((predicted == judged.intention)[told]))
    return figures


def score_table(encoder: Encoder, params: Params, contexts: Context) -> Float[np.ndarray, "Q N"]:
    """Returns the scores of encoded conversations against the whole gallery."""
    return np.asarray(encoder.score_all(params, contexts, encoder.gallery(params)))
