"""The lines that the command prints of an evaluation."""

from unittest.mock import Mock

from hypothesis import given
from hypothesis import strategies as st

from int_ra_jax.evaluation.report import table
from int_ra_jax.evaluation.report_data import Interval, Protocol, ReportData, System

SHOWN = ("hit@1", "hit@3", "hit@5", "mAP")


@given(st.dictionaries(st.text("abc_", min_size=1), st.floats(0, 1), min_size=1, max_size=4))
def test_each_system_has_a_line_with_its_figures_in_percent_and_in_the_papers_order(values):
    row = {name: Interval(0.5) for name in ("gold_rank_median", *SHOWN)}
    systems = {
        name: System(row | {one: Interval(value / (i + 1)) for i, one in enumerate(SHOWN)})
        for name, value in values.items()
    }
    data = Mock(spec=ReportData)
    data.systems = systems
    data.protocol = Protocol("multi", "", {})
    lines = table(data)
    assert [line.split()[0] for line in lines] == list(values)
    for line, value in zip(lines, values.values(), strict=True):
        words = line.split()[1:]
        assert tuple(words[::2]) == SHOWN
        assert [float(word) for word in words[1::2]] == [
            float(f"{100 * (value / (i + 1)):.1f}") for i in range(len(SHOWN))
        ]


def test_under_exact_the_lines_tell_ten_places_and_the_cross_entropy_in_nats():
    row = {name: Interval(0.25) for name in (*SHOWN, "hit@10", "mrr")}
    data = Mock(spec=ReportData)
    data.systems = {"popular": System(row | {"gold_cross_entropy": Interval(3.7266)})}
    data.protocol = Protocol("exact", "", {})
    (line,) = table(data)
    assert line.split() == [
        "popular", "hit@1", "25.0", "hit@5", "25.0", "hit@10", "25.0", "mrr", "25.0",
        "gold_cross_entropy", "3.727",
    ]  # fmt: skip
