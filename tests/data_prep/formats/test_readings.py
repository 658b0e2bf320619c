"""The readings of stickers: complete, of known names, and agreeing as docs/data.md says."""

import json
from collections import Counter
from pathlib import Path

import pytest
from sklearn.metrics import cohen_kappa_score

from data_prep.embedded.reaction_lexicon import GOEMOTIONS
from int_ra_jax.common.types import ATTRIBUTES

FOLDER = Path(__file__).parents[3] / "data_prep" / "formats" / "readings"
DOCS = Path(__file__).parents[3] / "docs" / "data.md"
NAMES = {"weibo": "microblog", "openmoji": "emoji"}


def rows(name):
    return [json.loads(line) for line in (FOLDER / f"{name}.jsonl").read_text("utf-8").splitlines()]


@pytest.mark.parametrize("name", NAMES)
def test_every_sticker_has_one_to_three_known_intentions_and_four_attributes(name):
    found = rows(name)
    assert max(Counter(row["id"] for row in found).values()) == 1
    for row in found:
        for given in (row["intentions"], *row["readings"]):
            assert 1 <= len(given) <= 3
            assert len(set(given)) == len(given)
            assert set(given) <= set(GOEMOTIONS)
        assert set(row["attributes"]) == set(ATTRIBUTES)
        assert all(isinstance(text, str) for text in row["attributes"].values())


@pytest.mark.parametrize("name", NAMES)
def test_where_both_readings_give_the_same_set_it_stands(name):
    for row in rows(name):
        first, second = map(set, row["readings"])
        assert first != second or set(row["intentions"]) == first


@pytest.mark.parametrize("name", NAMES)
def test_where_only_the_order_differs_a_third_reading_decides_the_first(name):
    for row in rows(name):
        first, second = row["readings"]
        ordered = set(first) == set(second) and first[0] != second[0]
        assert ordered == ("third" in row)
        if ordered:
            place = [row["third"].index(i) for i in row["intentions"] if i in row["third"]]
            assert place == sorted(place) and row["intentions"][0] == row["third"][0]


@pytest.mark.parametrize("name", NAMES)
def test_the_agreement_in_the_documents_is_that_of_the_readings(name):
    readings = [row["readings"] for row in rows(name)]
    first, second = ([pair[which][0] for pair in readings] for which in (0, 1))
    marks = [[label in pair[w] for pair in readings for label in GOEMOTIONS] for w in (0, 1)]
    same = sum(set(a) == set(b) for a, b in readings)
    agree = sum(a == b for a, b in zip(first, second, strict=True)) / len(readings)
    row = (
        f"| {NAMES[name]} | {len(readings)} | {100 * agree:.1f}% | "
        f"{cohen_kappa_score(first, second):.3f} | {same} | {cohen_kappa_score(*marks):.3f} | "
        f"{len(readings) - same} |"
    )
    assert row in DOCS.read_text("utf-8")
