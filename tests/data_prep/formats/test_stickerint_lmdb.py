"""Databases of third parties: pickles with code, damaged files, rows that are no rows."""

import collections
import os
import pickle
import sys

import pytest
from fuzz import releases
from hypothesis import given
from hypothesis import strategies as st

from data_prep.formats import stickerint_lmdb
from data_prep.formats.importing import import_published
from data_prep.formats.stickerint_lmdb import load_plain_pickle
from data_prep.problems import BadInputError

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.lists(inner, max_size=4).map(tuple),
    max_leaves=6,
)


class Runs:
    """Pickles as an instruction to run a command."""

    def __reduce__(self):
        return os.system, ("touch run_by_a_pickle",)


@given(PLAIN, st.integers(0, pickle.HIGHEST_PROTOCOL))
def test_plain_values_come_back_from_every_protocol(value, protocol):
    assert load_plain_pickle(pickle.dumps(value, protocol)) == value


@given(
    st.binary(max_size=60) | st.builds(lambda a, b: pickle.dumps(a)[:-1] + b, PLAIN, st.binary())
)
def test_no_bytes_break_the_loader_in_another_way_than_a_value_error(content):
    try:
        load_plain_pickle(content)
    except ValueError as error:
        str(error).encode("ascii")


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_with_code_is_refused_and_does_not_run(protocol, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"refused.*may run code"):
        load_plain_pickle(pickle.dumps(("a", Runs()), protocol))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("value", [{}, {1}, b"x", collections.OrderedDict(), print, 1j])
def test_other_types_are_refused(value):
    with pytest.raises(ValueError, match="refused"):
        load_plain_pickle(pickle.dumps(value, 4))


@pytest.mark.parametrize(
    "content",
    [
        b"\x80\x04r\xff\xff\xff\x7fN.",  # a memo of two thousand million places
        b"Nr\xff\xff\xff\x7f.",
        b"\x95\xff\xff\xff\xff\xff\xff\xff\x7fN.",  # a frame of eight exabytes
        b"\x8d\xff\xff\xff\xff\xff\xff\xff\x7fN.",  # a string of as many
        b"(" * 10_000 + b".",
        b"",
        b".",
        b"L" + b"9" * 5_000 + b"L\n.",
    ],
)
def test_a_pickle_that_asks_for_too_much_is_refused(content):
    with pytest.raises(ValueError, match=r"refused|damaged"):
        load_plain_pickle(content)


def import_pairs(tmp_path, changes):
    pytest.importorskip("lmdb")
    values = {str(n): releases.pickled(releases.row("train", n)) for n in range(4)}
    values |= {"num_samples": b"4"} | changes
    source = releases.stickerint_lmdb(tmp_path / "in", {"train": values})
    with pytest.raises(BadInputError) as error:
        import_published("stickerint-lmdb", source, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["in"]
    return [str(problem) for problem in error.value.problems]


def test_every_bad_row_of_a_database_is_reported_with_its_number(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shared: list = []
    for _ in range(60):
        shared = [shared, shared]  # 2**60 lists when they are walked
    row = releases.row("train", 1)
    problems = import_pairs(
        tmp_path,
        {
            "0": pickle.dumps(Runs()),
            "1": pickle.dumps(tuple([*list(row.values())[:10], shared])),
            "2": pickle.dumps(("too", "short")),
            "3": b"no pickle",
        },
    )
    assert [problem.split(":")[:2] for problem in problems] == [
        ["train/pairs", str(n)] for n in (1, 2, 3, 4)
    ] + [["train", "0"]]
    assert "may run code" in problems[0]
    assert "tuple of 11 fields" in problems[2]


def test_a_wrong_number_of_rows_is_reported(tmp_path):
    (problem,) = import_pairs(tmp_path, {"num_samples": b"7"})
    assert problem == "train/pairs:0: database states '7' rows and holds 4"


def test_each_damaged_database_is_reported_and_kills_nobody(tmp_path):
    pytest.importorskip("lmdb")
    source = releases.stickerint_lmdb(tmp_path / "in")
    paths = {split: source / split / "pairs" / "data.mdb" for split in releases.SPLITS}
    content = paths["train"].read_bytes()
    paths["train"].write_bytes(content[: len(content) // 2])
    paths["valid"].write_bytes(content[:8192] + b"\xff" * (len(content) - 8192))
    paths["test"].write_bytes(b"")
    with pytest.raises(BadInputError) as error:
        import_published("stickerint-lmdb", source, tmp_path / "out")
    found = [str(one) for one in error.value.problems if "damaged database" in one.message]
    assert sorted(one[: one.index(" ")] for one in found) == [
        f"{split}/pairs:0:" for split in sorted(releases.SPLITS)
    ]


def test_a_missing_package_is_named_and_not_taken_for_a_damaged_database(tmp_path, monkeypatch):
    pytest.importorskip("lmdb")
    source = releases.stickerint_lmdb(tmp_path / "in")
    monkeypatch.setitem(sys.modules, "lmdb", None)
    with pytest.raises(ImportError, match="pip install lmdb"):
        import_published("stickerint-lmdb", source, tmp_path / "out")
    assert stickerint_lmdb.FIELDS == releases.LMDB_FIELDS
