"""What a comparison's tables can hold: the columns of a protocol, and the rows with fixed names."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Column:
    """One figure of every row.

    Attributes:
      name: in the table.
      key: of the value of a query, or of a post, that it is the mean of.
      hit: 0 or 1 for each query of one run, so that wins and losses can be counted.
      nats: in nats, and the lower the better; otherwise a fraction, the higher the better.
      added_later: whether evaluations from before it was recorded are read without it.
    """

    name: str
    key: str
    hit: bool = False
    nats: bool = False
    added_later: bool = False


# Several stickers are right answers: what the paper's table has.
_BY_INTENTION = (
    *(Column(f"hit@{n}", f"hit@{n}", hit=True) for n in (1, 3, 5)),
    *(Column(f"precision@{n}", f"precision@{n}") for n in (1, 3, 5)),
    Column("mAP", "ap"),
    Column("gold MRR", "gold_reciprocal_rank"),
)
# The sticker that was sent is the one right answer: hit@n is recall, and mAP equals mrr.
_BY_STICKER = (
    *(Column(f"hit@{n}", f"hit@{n}", hit=True, added_later=n == 10) for n in (1, 5, 10)),
    Column("mrr", "reciprocal_rank"),
    Column("gold_cross_entropy", "gold_nll", nats=True, added_later=True),
)
# Of a post that many have answered: what people sent there, beside a system's answer to it.
AGREEMENT = (Column("first", "first"), Column("five", "five"), Column("ndcg", "ndcg"))
COLUMNS = {column.name: column for column in (*_BY_INTENTION, *_BY_STICKER, *AGREEMENT)}

# Rows that every evaluation has beside its system, in the order of the table; which of them
# depends on the protocol and the run.
REFERENCES = ("chance", "majority_intention", "prior", "popular", "linear", "zero_shot")
# How people agree on the sticker for one post -> the column that it is to be held against.
PEOPLE = {"two_agree": "first", "best_one": "first", "best_five": "five"}
# Names that no system can have.
RESERVED = (*REFERENCES, *PEOPLE)


def columns_of(protocol: str) -> tuple[Column, ...]:
    """Returns the columns of the table under a protocol (``evaluation.relevance``)."""
    return _BY_STICKER if protocol == "exact" else _BY_INTENTION


def primary(protocol: str) -> str:
    """Names the column by which systems are called better; checkpoints are selected by it."""
    return "mrr" if protocol == "exact" else "mAP"


def columns_tested(protocol: str) -> tuple[str, ...]:
    """Names the columns that are tested where a table's config names none."""
    if protocol == "exact":
        return tuple(column.name for column in _BY_STICKER)
    return ("hit@1", "hit@3", "hit@5", "mAP")


def references_tested(protocol: str) -> tuple[str, ...]:
    """Names the reference rows that systems are tested against: the best answers without a model.

    Under ``exact`` the most used sticker is one of them; elsewhere it is no answer of its own.
    """
    return ("popular", "linear") if protocol == "exact" else ("linear",)


def in_order(references: set[str]) -> tuple[str, ...]:
    """Sorts names of reference rows as the table has them, unknown ones last."""
    known = [name for name in REFERENCES if name in references]
    return (*known, *sorted(references - set(known)))
