"""Importers on spoilt releases: a valid directory or one report, never anything else."""

import json

import pytest
from fuzz import releases
from fuzz.spoil import FORMATS, import_or_report, originals
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

BUDGET = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.mark.parametrize("form", FORMATS)
@BUDGET
@given(data=st.data())
def test_a_spoilt_release_is_imported_whole_or_reported(form, data, tmp_path):
    files = originals(form)
    name = data.draw(st.sampled_from(sorted(files)))
    content = files[name]
    start = data.draw(st.integers(0, len(content)))
    end = data.draw(st.integers(start, min(start + 20, len(content))))
    inserted = data.draw(
        st.binary(max_size=8)
        | st.sampled_from([b"\n", b"\t", b'"', b"null", b"[SEP]", b"-1", b"\0"])
    )
    spoilt = content[:start] + inserted + content[end:]
    import_or_report(form, files | {name: spoilt}, tmp_path / "work")


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=3,
)


@BUDGET
@given(st.dictionaries(st.sampled_from(sorted(releases.row("train", 0))) | st.text(), VALUES))
def test_a_row_with_foreign_values_is_imported_whole_or_reported(tmp_path, changes):
    files = originals("stickerint")
    name = "train_contexts_total_key.jsonl"
    row = json.dumps(releases.row("train", 9) | changes) + "\n"
    import_or_report("stickerint", files | {name: files[name] + row.encode()}, tmp_path / "work")


def test_nothing_remains_of_the_work(tmp_path):
    assert import_or_report("stickerint", originals("stickerint"), tmp_path / "work")
    assert not (tmp_path / "work").exists()
