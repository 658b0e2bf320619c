"""MultiChat: its files are found, its literals read, its answers kept out of the context."""

import pytest
from fuzz import releases

from data_prep.formats.importing import import_published
from data_prep.problems import BadInputError
from int_ra_jax.data.validation import read_prepared


def imported(tmp_path, source):
    import_published("multichat", source, tmp_path / "out")
    return read_prepared(tmp_path / "out")


def test_a_row_becomes_a_conversation_and_its_text_stays_outside(tmp_path):
    prepared = imported(tmp_path, releases.multichat(tmp_path / "in"))
    conversation = prepared.conversations["valid"][1]
    assert [turn.text for turn in conversation.turns] == ["it's valid", "number 1"]
    assert conversation.id == "valid-1"
    assert conversation.intention == "joy"
    assert conversation.extra["legacy_text"] == "wave, smile"
    assert conversation.extra["related_history_session_ids"] == []


def test_one_group_is_read_where_it_stands_alone(tmp_path):
    prepared = imported(tmp_path, releases.multichat(tmp_path / "in", "boba"))
    assert len(prepared.conversations["train"]) == 4


def test_of_several_modes_all_is_read(tmp_path):
    source = releases.multichat(tmp_path / "in")
    releases.multichat(tmp_path / "more", "boba")
    (tmp_path / "more" / "boba").rename(source / "boba")
    prepared = imported(tmp_path, source)
    assert len(prepared.conversations["train"]) == 4


def test_several_groups_without_all_are_refused_by_name(tmp_path):
    source = releases.multichat(tmp_path / "in", "boba")
    releases.multichat(tmp_path / "more", "siban")
    (tmp_path / "more" / "siban").rename(source / "siban")
    with pytest.raises(BadInputError, match="modes: boba, siban"):
        imported(tmp_path, source)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("'Joy'", "'Jov'", "Did you mean 'joy'"),
        ("\\tit's train\\tnumber 1", "no TAB", "empty context"),
        ("'sample_id': 1", "'sample_id': None", "sample_id is None"),
        ("'boba_1'", "'boba_7'", "has no image"),
        ("'boba_1'", "['boba_1']", "image_ids is"),
        ("'sample_id': 1", "'sample_id': open('/etc/passwd')", "not JSON"),
    ],
)
def test_a_bad_row_is_reported_with_its_line(old, new, message, tmp_path):
    source = releases.multichat(tmp_path / "in")
    path = source / "all/intent_style_attribute/all_session_all_train_3.jsonl"
    lines = path.read_text().splitlines()
    changed = lines[1].replace(old, new)
    path.write_text("\n".join([lines[0], changed, *lines[2:]]))
    assert changed != lines[1]
    with pytest.raises(BadInputError, match=message) as error:
        imported(tmp_path, source)
    assert (error.value.problems[0].line, error.value.total) == (2, 1)
