"""The conversations that a report draws: which ones, and with which pictures."""

from collections.abc import Sequence
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int
from scipy.special import softmax

from int_ra_jax.common.types import Context
from int_ra_jax.data.schema import Conversation
from int_ra_jax.evaluation.judge import Judged
from int_ra_jax.evaluation.report_data import Example, Picture, RankedPicture, Turn
from int_ra_jax.models.interface import Params
from int_ra_jax.run.encode import Encoder
from int_ra_jax.run.ranking import top_k
from int_ra_jax.run.workdir import Run

_TOP = 5
_SHOWN_INTENTIONS = 3


def choose(queries: int, count: int) -> Int[np.ndarray, "E"]:
    """Picks conversations evenly over the split, whatever their result: nothing is cherry-picked.

    Args:
      queries: how many conversations the split has.
      count: how many to pick; fewer where the split has fewer.
    """
    return np.linspace(0, queries - 1, min(count, queries)).round().astype(int)


def draw(
    run: Run,
    encoder: Encoder,
    params: Params,
    judged: Judged,
    contexts: Context,
    queries: Int[np.ndarray, "E"],
    scores: Float[np.ndarray, "Q N"],
) -> list[Example]:
    """Returns the examples with their five best stickers and what each attribute attended to."""
    if not len(queries):
        return []
    _, best = jax.device_get(top_k(jnp.asarray(scores[queries]), min(_TOP, scores.shape[1])))
    rows = np.unique(np.concatenate([best.ravel(), judged.gold[queries]]))
    maps = jax.device_get(encoder.attention_maps(params, rows))
    pictures = {
        int(row): _picture(run, int(row), None if maps is None else maps[place])
        for place, row in enumerate(rows)
    }
    drawn = []
    for query, ranked in zip(queries, best, strict=True):
        gold = int(judged.gold[query])
        ahead = scores[query] > scores[query, gold]
        drawn.append(
            Example(
                id=judged.conversations[query].id,
                turns=_turns(judged.conversations[query]),
                case=_case(judged.conversations[query]),
                gold=pictures[gold],
                gold_rank=int(ahead.sum()) + 1,
                gold_intention=run.dataset.intentions[judged.intention[query]],
                probabilities=_probabilities(run, contexts, int(query)),
                # what the embedded data set's rule took out; no model reads it
                replaced=str(judged.conversations[query].extra.get("reaction", "")),
                ranked=[
                    RankedPicture(
                        picture=pictures[int(row)],
                        score=float(scores[query, row]),
                        relevant=bool(judged.relevant[query, row]),
                        is_gold=int(row) == gold,
                    )
                    for row in ranked
                ],
            )
        )
    return drawn


def _case(conversation: Conversation) -> Literal["alone", "supplement"]:
    own = conversation.turns[-1].speaker == conversation.reply_speaker
    return "supplement" if own else "alone"


def _turns(conversation: Conversation) -> Sequence[Turn]:
    return [
        Turn(turn.speaker, turn.text, turn.speaker == conversation.reply_speaker)
        for turn in conversation.turns
    ]


def _probabilities(run: Run, contexts: Context, query: int) -> dict[str, float]:
    if contexts.intention_logits is None:
        return {}
    probabilities = softmax(contexts.intention_logits[query])
    best = np.argsort(-probabilities)[:_SHOWN_INTENTIONS]
    return {run.dataset.intentions[row]: float(probabilities[row]) for row in best}


def _picture(run: Run, row: int, attention: Float[np.ndarray, "J P"] | None) -> Picture:
    sticker = run.dataset.stickers[row]
    return Picture(
        sticker=sticker.id,
        image=run.dataset.image(row),
        attributes=sticker.attributes,
        attention=None
        if attention is None
        else attention.reshape(len(attention), run.grid, run.grid),
    )
