"""From several people's votes to one answer, or to none where they are even.

Intentions and stickers follow the same rule.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from data_prep.annotation.workspace import Said, Vote, Votes

ADJUDICATED, AGREED, MAJORITY, TIE = "adjudicated", "agreed", "majority", "tie"


@dataclass(frozen=True)
class Decision:
    """What became of one conversation, as for its intention or its sticker.

    Attributes:
      how: ``ADJUDICATED``, ``AGREED`` (all who voted said the same, one person included),
        ``MAJORITY`` (one answer has more votes than any other) or ``TIE``.
      answer: what was decided; None for "none fits" and for a tie.
      votes: annotator -> vote.
    """

    how: str
    answer: Vote
    votes: Mapping[str, Vote]


def decide(votes: Votes, adjudicated: Mapping[str, Vote]) -> dict[str, Decision]:
    """Decides every conversation that has a vote or was adjudicated.

    Args:
      votes: annotator -> conversation -> vote.
      adjudicated: conversation -> what the adjudication says; it overrules all votes.

    Returns:
      Decisions by conversation, in the order of the ids.
    """
    given = by_conversation(votes)
    return {
        one: Decision(ADJUDICATED, adjudicated[one], given.get(one, {}))
        if one in adjudicated
        else _majority(given[one])
        for one in sorted({*given, *adjudicated})
    }


def by_conversation(votes: Votes) -> dict[str, dict[str, Vote]]:
    """Regroups votes: conversation -> annotator -> vote."""
    turned: dict[str, dict[str, Vote]] = defaultdict(dict)
    for annotator in sorted(votes):
        for one, vote in votes[annotator].items():
            turned[one][annotator] = vote
    return dict(turned)


def _majority(votes: Mapping[str, Vote]) -> Decision:
    (first, most), *others = Counter(votes.values()).most_common(2)
    if not others:
        return Decision(AGREED, first, votes)
    if others[0][1] == most:
        return Decision(TIE, None, votes)
    return Decision(MAJORITY, first, votes)


def disagreements(said: Said) -> list[str]:
    """Returns the conversations on which people disagree: ties first, then by id.

    A disagreement is one on the intention, or on whether the sticker fits and which one does.
    """
    hows: dict[str, set[str]] = defaultdict(set)
    for votes in (said.intentions, said.stickers):
        for one, decision in decide(votes, {}).items():
            hows[one].add(decision.how)
    split = [one for one, how in hows.items() if how & {TIE, MAJORITY}]
    return sorted(split, key=lambda one: (TIE not in hows[one], one))
