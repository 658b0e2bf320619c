"""What an evaluation report shows, as plain data: no model, no data set, no drawing.

``report.py`` turns a ReportData into a page and into files.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Int

from int_ra_jax.evaluation.plots import Curve


@dataclass(frozen=True)
class Interval:
    """A metric and its interval: a fraction, a rank (``gold_rank...``) or nats (``..._entropy``).

    ``low`` and ``high`` are None where there is no sampling, as for closed-form chance.
    """

    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class System:
    """One row of the table: metric name -> Interval, and a note that says what the system is."""

    metrics: Mapping[str, Interval]
    note: str = ""


@dataclass(frozen=True)
class Difference:
    """The main system minus ``baseline``, paired over queries; same unit as the metric."""

    metric: str
    baseline: str
    difference: float
    low: float
    high: float
    p_value: float


@dataclass(frozen=True)
class Case:
    """Some of the queries, and the figures of every row on them.

    Attributes:
      queries: how many there are.
      posts: how many posts they come from; intervals resample posts.
      headline: whether they count in the headline as well.
      systems: row -> metric -> Interval.
    """

    queries: int
    posts: int
    headline: bool
    systems: Mapping[str, Mapping[str, Interval]]


@dataclass(frozen=True)
class Agreement:
    """How often answers to a post agree with what people sent under it, over posts.

    Attributes:
      posts: how many posts have enough direct replies.
      minimum: how many are enough.
      people: ``two_agree``, ``best_one`` and ``best_five`` -> Interval.
      systems: row -> ``first``, ``five`` and ``ndcg`` -> Interval.
      over_people: the main system's ``first`` minus ``two_agree``.
      over_best: the main system's ``first`` minus ``best_one``.
      share_of_best: the main system's ``first`` divided by ``best_one``.
      answer: one sentence on both.
    """

    posts: int
    minimum: int
    people: Mapping[str, Interval]
    systems: Mapping[str, Mapping[str, Interval]]
    over_people: Difference
    over_best: Difference
    share_of_best: Interval
    answer: str


@dataclass(frozen=True)
class ColdStart:
    """Queries whose sticker was never used in train.

    Attributes:
      queries: how many there are.
      unseen: how many stickers of the gallery train never used.
      sent: how many of those were sent in these queries.
      systems: row -> "all" or "unseen", the stickers that are ranked -> metric -> Interval.
    """

    queries: int
    unseen: int
    sent: int
    systems: Mapping[str, Mapping[str, Mapping[str, Interval]]]


@dataclass(frozen=True)
class Credit:
    """A source that asks to be named, for example artist and licence, with an optional link."""

    text: str
    url: str = ""


@dataclass(frozen=True)
class DatasetCard:
    """What the reader must know of the data.

    Attributes:
      name: the data set and its version.
      description: what is real in it and what is derived.
      counts: what is counted -> how many, for example ``{"stickers": 341}``.
      credits: licences and attributions, shown with the pictures they cover.
      has_knowledge: whether conversations carry commonsense; if not, the page says so.
      language: BCP 47 tag of the conversations, so that a browser picks the right glyphs.
    """

    name: str
    description: str
    counts: Mapping[str, int]
    credits: Sequence[Credit]
    has_knowledge: bool
    language: str = "en"


@dataclass(frozen=True)
class Protocol:
    """Which stickers count as correct: the protocol's name, its meaning, and counts."""

    name: str
    explanation: str
    counts: Mapping[str, int]


@dataclass(frozen=True)
class Intentions:
    """The intention side of the data and of the main system.

    Attributes:
      names: K intention names in class-id order.
      counts: split -> conversations of each intention, i[K].
      confusion: conversations by gold (row) and predicted (column) intention; None where the
        system predicts none.
    """

    names: Sequence[str]
    counts: Mapping[str, Sequence[int]]
    confusion: Int[np.ndarray, "K K"] | None


@dataclass(frozen=True)
class Turn:
    """One message; ``replies`` marks the speaker who goes on to send the sticker."""

    speaker: str
    text: str
    replies: bool


@dataclass(frozen=True)
class Picture:
    """A sticker as the page shows it.

    Attributes:
      sticker: the sticker's id.
      image: encoded picture or its path, square as the image tower reads it.
      attributes: attribute name -> text; an absent attribute is missing or empty.
      attention: mass on each patch for every attribute in ATTRIBUTES order, or None.
    """

    sticker: str
    image: bytes | Path
    attributes: Mapping[str, str] = field(default_factory=dict)
    attention: Float[np.ndarray, "J g g"] | None = None


@dataclass(frozen=True)
class RankedPicture:
    """One of the best stickers: its cosine, whether it is relevant, whether it is the gold one."""

    picture: Picture
    score: float
    relevant: bool
    is_gold: bool


@dataclass(frozen=True)
class Example:
    """One conversation with the answer of the main system.

    Attributes:
      id: the conversation's id.
      turns: the context, oldest first.
      case: ``supplement`` if the replier's own words end the context, else ``alone``.
      gold: the sticker that the data gives as the reply.
      gold_rank: its rank in the whole gallery, 1 is the best.
      gold_intention: the annotated intention.
      probabilities: the likeliest intentions with their probabilities, best first; empty where
        the system predicts none.
      ranked: the best stickers, best first.
      replaced: the words that were sent where the data puts the sticker, if it knows them.
    """

    id: str
    turns: Sequence[Turn]
    case: Literal["alone", "supplement"]
    gold: Picture
    gold_rank: int
    gold_intention: str
    probabilities: Mapping[str, float]
    ranked: Sequence[RankedPicture]
    replaced: str = ""


@dataclass(frozen=True)
class RunFacts:
    """What ran: training step, parameter counts, seconds by phase, versions and devices.

    Attributes:
      step: training step of the checkpoint.
      parameters: role -> numbers.
      wall_time_s: phase -> seconds.
      versions: library -> version.
      devices: what it was evaluated on.
      trained: how many of the parameters are not frozen.
      ranking_ms: milliseconds a query to score the gallery, both sides encoded and compiled.
    """

    step: int
    parameters: Mapping[str, int]
    wall_time_s: Mapping[str, float]
    versions: Mapping[str, str]
    devices: Sequence[str]
    trained: int | None = None
    ranking_ms: float | None = None


@dataclass(frozen=True)
class ReportData:
    """Everything the report shows.

    Attributes:
      title: heading of the page.
      dataset: card of the data.
      protocol: relevance protocol.
      systems: name -> row, in the order of the table; metrics in the order of the columns.
      main_system: the row that the verdict, the differences and the examples are about.
      headline_metric: the metric of the verdict.
      differences: main system against the baselines.
      interval_note: how the intervals and p values were made, in words.
      pr_curves: system -> recall (x) and precision (y).
      prevalence: share of relevant pairs.
      intentions: names, counts and confusion.
      training: metric name ``split/area/name`` -> steps (x) and values (y); may be empty.
      examples: conversations to show.
      config: the settings worth reading.
      run: facts of the run.
      scales: row -> inverse temperature behind its cross-entropy, where that is told.
      cases: case -> its figures, where the data tells cases.
      agreement: agreement with people, where posts have enough replies.
      cold_start: figures on stickers that train never used, where there are any.
      remarks: what else must be said of the rows.
    """

    title: str
    dataset: DatasetCard
    protocol: Protocol
    systems: Mapping[str, System]
    main_system: str
    headline_metric: str
    differences: Sequence[Difference]
    interval_note: str
    pr_curves: Mapping[str, Curve]
    prevalence: float
    intentions: Intentions
    training: Mapping[str, Curve]
    examples: Sequence[Example]
    config: Mapping[str, Any]
    run: RunFacts
    scales: Mapping[str, float] = field(default_factory=dict)
    cases: Mapping[str, Case] = field(default_factory=dict)
    agreement: Agreement | None = None
    cold_start: ColdStart | None = None
    remarks: Sequence[str] = ()
