"""The ledger: what came in is what was kept and what was left out, whatever happens in between."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from int_ra_jax.common.ledger import Ledger, LeftOut


@given(st.lists(st.one_of(st.none(), st.integers(), st.sampled_from("abc"))))
def test_the_sum_is_exact_and_the_first_place_is_kept(records):
    ledger = Ledger()

    def make(record):
        if isinstance(record, str):
            raise LeftOut(record)
        return record

    for place, record in enumerate(records):
        ledger.judge(str(place), lambda record=record: make(record))
    written = ledger.to_json()
    assert written["records_in"] == len(records)
    assert written["kept"] + sum(r["count"] for r in written["left_out"].values()) == len(records)
    for reason, noted in written["left_out"].items():
        assert int(noted["first"]) == records.index(reason)


def test_a_fault_of_the_program_is_not_taken_for_a_reason():
    with pytest.raises(ZeroDivisionError):
        Ledger().judge("1", lambda: 1 // 0)


def test_the_printed_ledger_names_counts_and_places():
    ledger = Ledger()

    def refuse():
        raise LeftOut("too long")

    ledger.judge("chat.txt:3", refuse)
    assert str(ledger) == "1 records in, 0 kept\n  left out: 1 (too long; first chat.txt:3)"
