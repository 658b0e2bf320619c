"""How a comparison says its figures: fractions in per cent, cross-entropies in nats."""

from datetime import timedelta

from int_ra_jax.comparison.compare import LEVEL
from int_ra_jax.comparison.layout import COLUMNS
from int_ra_jax.comparison.results import Comparison, Row, Spread, Test
from int_ra_jax.evaluation import page

# Facts of a row -> their headings.
FACTS = {
    "parameters": "parameters",
    "trained": "of them trained",
    "training_seconds": "training",
    "ranking_ms": "ranking, ms/query",
}
_HEADINGS = {
    "gold_cross_entropy": "cross-entropy, nats",
    "first": "first answer",
    "five": "first five",
    "ndcg": "nDCG",
}
# Rows with fixed names -> what they are; other rows go by their own names.
ROWS = {
    "two_agree": "two people agree",
    "best_one": "best single answer",
    "best_five": "best five answers",
}


def heading(column: str) -> str:
    """Returns what stands above a column."""
    return _HEADINGS.get(column, column)


def row_name(name: str, compared: Comparison | None = None) -> str:
    """Returns what stands before a row, with what the system lacks where a comparison tells."""
    lacking = "" if compared is None else compared.lacks.get(name, "")
    return ROWS.get(name, name) + (f" (without {lacking})" if lacking else "")


def cell(column: str, spread: Spread) -> str:
    """Returns a mean and its standard deviation over seeds."""
    sd = "" if spread.sd is None else f" ± {number(column, spread.sd)}"
    return number(column, spread.mean) + sd


def number(column: str, value: float) -> str:
    """Returns a figure as it is printed, which is also how far figures are told apart."""
    return f"{value:.2f}" if COLUMNS[column].nats else f"{100 * value:.1f}"


def signed(column: str, value: float) -> str:
    """Returns a difference in points, or in nats."""
    text = f"{value:+.2f}" if COLUMNS[column].nats else f"{100 * value:+.1f}"
    return text.replace("-", page.MINUS)


def difference(test: Test) -> str:
    """Returns the difference of a test with its interval and its unit where that is not points."""
    unit = " nats" if COLUMNS[test.metric].nats else ""
    low, high = (signed(test.metric, end) for end in (test.low, test.high))
    return f"{signed(test.metric, test.difference)} [{low}, {high}]{unit}"


def ratio(test: Test) -> str:
    """Returns the ratio of a test with its interval, or nothing where there is none."""
    if test.ratio is None:
        return ""
    if test.ratio_low is None or test.ratio_high is None:
        return f"{test.ratio:.2f}"
    return f"{test.ratio:.2f} [{test.ratio_low:.2f}, {test.ratio_high:.2f}]".replace("inf", "∞")


def p_value(value: float | None) -> str:
    """Returns a p value with its sign of relation."""
    if value is None:
        return "undefined"
    return "< 0.001" if value < 0.001 else f"= {value:.3f}"


def outcome(test: Test) -> str:
    """Says what a corrected test allows to say, and no more."""
    if test.p_holm is None:
        return "undefined"
    if test.p_holm >= LEVEL:
        return "no significant difference"
    better = (test.difference > 0) != COLUMNS[test.metric].nats
    return "significantly better" if better else "significantly worse"


def fact(name: str, row: Row) -> str:
    """Returns a fact of a row under one of FACTS."""
    value = row.facts.get(name)
    if value is None:
        return "" if row.kind == "reference" else "not recorded"
    if name == "training_seconds":
        return str(timedelta(seconds=round(value)))
    return f"{value:.3f}" if name == "ranking_ms" else f"{value:,.0f}"


def seeds(row: Row) -> str:
    """Names the seeds that a row is the mean of."""
    if not row.seeds:
        return ""
    word = "seed" if len(row.seeds) == 1 else "seeds"
    return f"{word} {', '.join(map(str, row.seeds))}"


def sampled(compared: Comparison) -> str:
    """Says what intervals resample and tests pair."""
    if not compared.clusters:
        return "queries"
    return f"the {compared.clusters:,} clusters of queries that belong together"


def verdict(compared: Comparison) -> list[str]:
    """States how each tested system stands to the best other one, to the references, to people.

    Args:
      compared: the comparison; only corrected tests are read, nothing is assumed about who wins.

    Returns:
      One sentence each, the main system's first; one alone for a tested system without a complete
      run. No tested system counts as the best other one.
    """
    return [
        sentence
        for name in compared.tested_systems
        for sentence in _verdict_of(name, compared)
        if sentence
    ]


def _verdict_of(name: str, compared: Comparison) -> list[str]:
    system = compared.row(name)
    if system is None:
        return [f"{name} has no complete run, so it is not compared."]
    column = compared.primary
    said = [f"{name} reaches {cell(column, system.metrics[column])} {column} ({seeds(system)})."]
    others = [
        row for row in compared.rows
        if row.kind == "system" and row.name not in compared.tested_systems
    ]  # fmt: skip
    if others:
        best = max(others, key=lambda row: row.metrics[column].mean)
        said.append(_stands(compared, name, best, "the best other system"))
    for reference, what in (
        ("popular", "the most used stickers of train"),
        ("linear", "TF-IDF and logistic regression"),
    ):
        if row := compared.row(reference):
            said.append(_stands(compared, name, row, what))
    said.append(_among_people(compared, name))
    return said


def _stands(compared: Comparison, system: str, other: Row, what: str) -> str:
    column = compared.primary
    test = compared.test(system, other.name, column)
    if test is None:
        return ""
    times = f"{ratio(test)} times its {column}, " if test.ratio is not None else ""
    ends = [signed(column, end) for end in (test.difference, test.low, test.high)]
    return (
        f"Against {other.name}, {what} ({cell(column, other.metrics[column])} {column}): {times}"
        f"{ends[0]} points [{ends[1]}, {ends[2]}], "
        f"Holm-corrected p {p_value(test.p_holm)}: {outcome(test)}."
    )


def _among_people(compared: Comparison, name: str) -> str:
    """Says whether a system names a person's sticker more often than another person does."""
    test = compared.test(name, "two_agree", "first")
    rows = {row.name: row for row in compared.agreement}
    if test is None or name not in rows:
        return ""
    system, two, best = (rows[row].metrics["first"] for row in (name, "two_agree", "best_one"))
    return (
        f"Under {compared.posts} posts that many answered, its first answer is what a person sent "
        f"in {cell('first', system)}%, another person's in {cell('first', two)}%: "
        f"{signed('first', test.difference)} points [{signed('first', test.low)}, "
        f"{signed('first', test.high)}], Holm-corrected p {p_value(test.p_holm)}: {outcome(test)}. "
        f"The best single answer to each post, known afterwards, is in {cell('first', best)}%."
    )
