"""Knowledge that is retrieved: the nearest head's generations, and the control."""

import json

import pytest
from fixtures.prepared import make_prepared_directory

from data_prep import command
from data_prep.extraction.__main__ import parser
from data_prep.extraction.retrieved import read_heads
from data_prep.problems import BadInputError
from int_ra_jax.common.types import RELATIONS
from int_ra_jax.data.validation import read_prepared, validate

HEADS = {
    "PersonX loses PersonX's keys": "sad",
    "PersonX wins the match": "happy",
    "PersonX hears a noise at night": "afraid",
}


def heads(path):
    rows = [
        {"head": head, "relation": relation, "generations": [f"{relation} {said}", "none"]}
        for head, said in HEADS.items()
        for relation in (*RELATIONS, "oReact")
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in [*rows, rows[0]]))
    return path


def extracted(tmp_path, *more, name="out"):
    if not (tmp_path / "in").exists():
        make_prepared_directory(tmp_path / "in", num_conversations=132, knowledge=False)
    out = tmp_path / name
    line = ["knowledge", tmp_path / "in", f"--out={out}", "--generator=retrieved", *more]
    command.run(parser(), [*map(str, line), f"--heads={heads(tmp_path / 'heads.jsonl')}"])
    assert validate(out) == []
    prepared = read_prepared(out)
    rows = [row for split in prepared.conversations.values() for row in split]
    return rows, prepared.info["extraction"]["knowledge"]


def test_each_conversation_gets_what_is_said_of_its_nearest_head(tmp_path):
    rows, record = extracted(tmp_path)
    told = {"lost my keys": "sad", "won the match": "happy", "hear that noise": "afraid"}
    for words, said in told.items():
        found = [row for row in rows if words in row.turns[-1].text]
        assert found or words == "hear that noise"
        for row in found:
            assert row.knowledge == {relation: (f"{relation} {said}",) for relation in RELATIONS}
    assert record["heads_ledger"] == {
        "records_in": 19,
        "kept": 15,
        "left_out": {
            "relation is none of the five": {"count": 3, "first": "heads.jsonl:6"},
            "the head has this relation already": {"count": 1, "first": "heads.jsonl:19"},
        },
    }
    assert record["generator"] == "retrieved" and record["shuffled"] is False
    assert record["similarity"]["xReact"] == sorted(record["similarity"]["xReact"])
    assert 0 <= record["similarity"]["xReact"][0] < record["similarity"]["xReact"][-1] <= 1


def test_the_control_has_the_same_phrases_at_other_conversations(tmp_path):
    rows, _ = extracted(tmp_path)
    shuffled, record = extracted(tmp_path, "--shuffled", name="control")
    assert record["shuffled"] is True
    before, after = ([row.knowledge["xReact"] for row in side] for side in (rows, shuffled))
    # Identical texts share an answer, so that shares may move a little.
    assert set(before) == set(after)
    assert before != after


def test_a_file_of_another_form_is_refused_with_every_line_that_is(tmp_path):
    path = heads(tmp_path / "heads.jsonl")
    path.write_text(path.read_text() + 'nonsense\n{"head": 5, "relation": "xNeed"}\n')
    with pytest.raises(BadInputError) as error:
        read_heads(path)
    assert ":20:" in str(error.value) and ":21:" in str(error.value)
    path.write_text(json.dumps({"head": "a", "relation": "oReact", "generations": []}))
    with pytest.raises(BadInputError, match="no head has the relation xIntent, xNeed"):
        read_heads(path)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--generator=retrieved"], "needs --heads"),
        (["--generator=comet", "--heads=x"], "--heads goes with --generator=retrieved"),
        (["--generator=retrieved", "--heads=x", "--model=y"], "--model is not read"),
    ],
)
def test_flags_that_do_not_fit_are_refused(more, message, tmp_path, capsys):
    directory = make_prepared_directory(tmp_path / "in")
    with pytest.raises(SystemExit):
        command.run(parser(), ["knowledge", str(directory), *more])
    assert message in capsys.readouterr().err
