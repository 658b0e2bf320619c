"""Order, decisions, agreement and export of an annotation."""

import itertools
import json
import math
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from fixtures.prepared import make_prepared_directory
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score

from data_prep.annotation import workspace
from data_prep.annotation.agreement import cohen, fleiss, sticker_lines, summary_lines
from data_prep.annotation.decisions import (
    ADJUDICATED,
    AGREED,
    MAJORITY,
    TIE,
    decide,
    disagreements,
)
from data_prep.annotation.export import KEEP, LEAVE_OUT, export
from data_prep.annotation.journal import LABEL, NONE_FITS, SKIP
from data_prep.annotation.sessions import Project
from data_prep.annotation.similar import Similar
from data_prep.annotation.workspace import SENT
from int_ra_jax.data.schema import StickerEntry
from int_ra_jax.data.validation import read_prepared, validate

NAMES = ("joy", "sadness", "anger", "surprise")
VOTES = st.dictionaries(
    st.sampled_from(["ann", "bo", "cy"]),
    st.dictionaries(st.integers(0, 7).map(str), st.sampled_from([*NAMES, None]), max_size=8),
    min_size=2,
)
ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return make_prepared_directory(tmp_path_factory.mktemp("data") / "prepared")


@pytest.fixture
def project(directory, tmp_path):
    prepared = read_prepared(directory)
    opened = Project(prepared, tmp_path / "ann", workspace.begin(tmp_path / "ann", prepared))
    yield opened
    opened.close()


@given(
    ids=st.sets(st.text(max_size=4), max_size=60).map(sorted),
    overlap=st.floats(0, 1),
    name=st.sampled_from(["ann", "bo"]),
)
def test_everybody_meets_every_conversation_once_and_the_shared_ones_in_one_order(
    ids, overlap, name
):
    order = workspace.order_for(name, ids, overlap)
    assert Counter(order) == Counter(ids)
    assert order == workspace.order_for(name, list(reversed(ids)), overlap)
    shared = workspace.shared_ids(ids, overlap)
    assert len(shared) == round(overlap * len(ids))
    assert [one for one in order if one in set(shared)] == shared
    # Whoever stops early has seen about the share that was asked for.
    for stop in range(1, len(order)):
        met = sum(one in set(shared) for one in order[:stop])
        assert abs(met - stop * len(shared) / len(ids)) <= 1


@given(votes=VOTES, adjudicated=st.dictionaries(st.sampled_from("01"), st.sampled_from(NAMES)))
def test_a_decision_has_more_votes_than_any_other_answer(votes, adjudicated):
    decided = decide(votes, adjudicated)
    rated = {one for given in votes.values() for one in given}
    assert set(decided) == rated | set(adjudicated)
    for one, decision in decided.items():
        counts = Counter(given[one] for given in votes.values() if one in given)
        if one in adjudicated:
            assert (decision.how, decision.answer) == (ADJUDICATED, adjudicated[one])
            continue
        top = [vote for vote, count in counts.items() if count == max(counts.values())]
        expected = TIE if len(top) > 1 else AGREED if len(counts) == 1 else MAJORITY
        assert decision.how == expected
        assert decision.answer == (None if expected == TIE else top[0])
    disputed = disagreements(workspace.Said(votes, {}))
    hows = [decide(votes, {})[one].how for one in disputed]
    assert hows == sorted(hows, key=lambda how: how != TIE)
    assert set(hows) <= {TIE, MAJORITY}


@settings(max_examples=60, deadline=None)
@given(votes=VOTES)
def test_cohens_kappa_is_that_of_scikit_learn_over_what_both_rated(votes):
    for found in cohen(votes, NAMES):
        a, b = (votes[name] for name in found.annotators)
        common = sorted(a.keys() & b.keys())
        assert found.conversations == len(common)
        assert found.left_out == len(a.keys() | b.keys()) - len(common)
        answers = [[str(one[c]) for c in common] for one in (a, b)]
        if len(set(answers[0] + answers[1])) < 2:
            assert found.kappa is None
        else:
            assert found.kappa == pytest.approx(cohen_kappa_score(*answers))


@settings(max_examples=60, deadline=None)
@given(votes=VOTES)
def test_fleiss_kappa_is_its_definition_over_what_all_rated(votes):
    found = fleiss(votes, NAMES)
    raters = [votes[name] for name in sorted(votes) if votes[name]]
    if len(raters) < 2:
        assert found is None
        return
    common = sorted(set.intersection(*map(set, raters)))
    assert found.conversations == len(common)
    assert found.left_out == len(set.union(*map(set, raters))) - len(common)
    table = np.array([[[r[c] for r in raters].count(v) for v in [*NAMES, None]] for c in common])
    if not len(common) or (table.sum(0) > 0).sum() < 2:
        assert found.kappa is None
        return
    n = len(raters)
    observed = ((table**2).sum(1) - n).mean() / (n * (n - 1))
    chance = ((table.sum(0) / table.sum()) ** 2).sum()
    assert found.kappa == pytest.approx((observed - chance) / (1 - chance))


def test_an_interval_is_given_only_where_there_is_one():
    same = {str(i): NAMES[i % 2] for i in range(10)}
    (found,) = cohen({"ann": same, "bo": same}, NAMES)
    assert found.kappa == 1
    assert found.low is None or math.isfinite(found.low)


def test_what_another_has_decided_leaves_the_queue_unless_it_is_shared(project):
    ann, bo = project.annotator("ann"), project.annotator("bo")
    shared = workspace.shared_ids(list(project.conversations), project.settings.overlap)
    own = [one for one in project.conversations if one not in shared]
    ann.act(LABEL, shared[0], "joy")
    ann.act(LABEL, own[0], "joy")
    ann.act(SKIP, own[1])
    assert shared[0] in bo.open()
    assert own[0] not in bo.open()
    assert own[1] in bo.open()  # a skip decides nothing
    assert ann.open()[-1] == own[1]  # and comes again at the end
    ann.undo()
    assert ann.open()[-1] != own[1] or len(ann.open()) == 1
    project.close()
    again = Project(project.prepared, project.workdir, project.settings).annotator("bo")
    assert own[0] not in again.open()
    again.journal.close()


def test_disagreements_go_to_the_adjudicator_and_leave_when_settled(project):
    first, second = workspace.shared_ids(list(project.conversations), project.settings.overlap)[:2]
    for name, vote in (("ann", "joy"), ("bo", "anger")):
        project.annotator(name).act(LABEL, first, vote)
        project.annotator(name).act(LABEL, second, "joy")
    session = project.adjudicator("cy")
    assert session.open() == [first]
    assert session.votes(first) == {"ann": "joy", "bo": "anger"}
    session.act(LABEL, first, "anger")
    assert session.open() == []
    assert session.undo().conversation == first
    assert session.open() == [first]


def test_an_annotation_continues_only_on_the_data_and_settings_it_was_begun_with(
    directory, project, tmp_path
):
    prepared = project.prepared
    assert workspace.begin(project.workdir, prepared).overlap == workspace.DEFAULT_OVERLAP
    with pytest.raises(ValueError, match=r"begun with overlap 0\.2, not 0\.5"):
        workspace.begin(project.workdir, prepared, overlap=0.5)
    with pytest.raises(ValueError, match="begun with split None, not 'test'"):
        workspace.begin(project.workdir, prepared, split="test")
    with pytest.raises(ValueError, match=r"--overlap=1\.5 is no share"):
        workspace.begin(tmp_path / "new", prepared, overlap=1.5)
    other = read_prepared(make_prepared_directory(tmp_path / "other", seed=1))
    with pytest.raises(ValueError, match=r"conversations\.jsonl of .* changed"):
        workspace.begin(project.workdir, other)
    (project.workdir / "annotation.json").write_text('{"files": 1}')
    with pytest.raises(ValueError, match="is damaged"):
        workspace.begin(project.workdir, prepared)


def annotate_all(project, names=("ann", "bo")):
    """Everybody gives the first intention, but disagrees on the first conversation of train."""
    train = [c.id for c in project.prepared.conversations["train"]]
    for name in names:
        session = project.annotator(name)
        for one in project.conversations:
            session.act(LABEL, one, "anger")
        session.act(NONE_FITS, train[1])
        session.act(LABEL, train[0], "joy" if name == "ann" else "sadness")
    return train


def test_an_export_is_valid_and_carries_what_was_decided(directory, project, tmp_path):
    train = annotate_all(project)
    counts = export(directory, project.workdir, tmp_path / "out", LEAVE_OUT)
    assert counts == {AGREED: 22, "none fits": 1, TIE: 1}
    assert validate(tmp_path / "out") == []
    found = read_prepared(tmp_path / "out")
    assert [c.id for c in found.conversations["train"]] == train[2:]
    assert {c.intention for members in found.conversations.values() for c in members} == {"anger"}
    assert found.info["annotation"]["conversations"] == counts
    project.adjudicator("cy").act(LABEL, train[0], "surprise")
    counts = export(directory, project.workdir, tmp_path / "again", KEEP)
    assert counts == {ADJUDICATED: 1, AGREED: 22, "none fits": 1}
    kept = read_prepared(tmp_path / "again").conversations["train"]
    assert kept[0].intention == "surprise"
    assert kept[1] == project.prepared.conversations["train"][1]


def test_stickers_learn_nothing_from_valid_and_test(directory, project, tmp_path):
    annotate_all(project, ["ann"])
    test_only = project.prepared.conversations["test"][0]
    project.annotator("ann").act(LABEL, test_only.id, "surprise")
    export(directory, project.workdir, tmp_path / "out", KEEP)
    found = read_prepared(tmp_path / "out")
    served = {(c.sticker, c.intention) for c in found.conversations["train"]}
    carried = {(s.id, name) for s in found.stickers for name in s.intentions}
    assert carried == served
    assert "surprise" in {c.intention for c in found.conversations["test"]}


def test_a_gold_sticker_is_replaced_by_the_rule_of_the_intentions(directory, project, tmp_path):
    train = [c.id for c in project.prepared.conversations["train"]]
    sent = {c.id: c.sticker for c in project.prepared.conversations["train"]}
    others = {one: [s for s in project.pictures if s != sent[one]] for one in train}
    alike, most, tie, none, asked_nobody, settled = train[:6]
    people = [project.annotator(name) for name in ("ann", "bo", "cy")]
    for session in people:
        for one in project.conversations:
            session.act(LABEL, one, "anger", None if one == asked_nobody else True)
        session.act(LABEL, alike, "joy", False, others[alike][0])
        session.act(NONE_FITS, none, None, False)
    for number, session in enumerate(people[:2]):
        session.act(LABEL, most, "anger", False, others[most][1])
        session.act(LABEL, tie, "anger", False, others[tie][number])
        session.act(LABEL, settled, "anger", False, others[settled][number])
    adjudicator = project.adjudicator("dan")
    assert adjudicator.open() == [*sorted([tie, settled]), most]  # ties come first
    votes = {"ann": others[tie][0], "bo": others[tie][1], "cy": SENT}
    assert adjudicator.sticker_votes(tie) == votes
    adjudicator.act(LABEL, settled, "surprise", True)
    counts = export(directory, project.workdir, tmp_path / "out", LEAVE_OUT)
    assert counts == {
        ADJUDICATED: 1, AGREED: 21, "no sticker fits": 1, "tie on the sticker": 1,
        "with another sticker": 2,
    }  # fmt: skip
    assert validate(tmp_path / "out") == []
    found = read_prepared(tmp_path / "out")
    rows = {one.id: one for one in found.conversations["train"]}
    assert not {tie, none} & rows.keys()
    replaced = {alike: others[alike][0], most: others[most][1]}
    for one, row in rows.items():
        assert row.sticker == replaced.get(one, sent[one])
        assert row.extra.get("sent_sticker") == (sent[one] if one in replaced else None)
    assert rows[settled].intention == "surprise" and rows[alike].intention == "joy"
    assert found.info["annotation"]["replaced_stickers"] == [
        {"conversation": one, "sent": sent[one], "chosen": replaced[one]} for one in (alike, most)
    ]
    served = {s.id: s.intentions for s in found.stickers}
    assert "joy" in served[others[alike][0]]
    assert export(directory, project.workdir, tmp_path / "kept", KEEP) == counts
    rows = {c.id: c for c in read_prepared(tmp_path / "kept").conversations["train"]}
    assert (rows[tie].sticker, rows[none].sticker) == (sent[tie], sent[none])


def test_a_sticker_that_the_gallery_does_not_have_stops_the_export(directory, project, tmp_path):
    annotate_all(project, ["ann"])
    one = project.prepared.conversations["train"][0].id
    project.annotator("ann").act(LABEL, one, "joy", False, "gone")
    with pytest.raises(ValueError, match=rf"chose .* does not have: gone for {one}\. Put"):
        export(directory, project.workdir, tmp_path / "out", LEAVE_OUT)
    assert not (tmp_path / "out").exists()


@settings(max_examples=40, deadline=None)
@given(
    votes=st.dictionaries(
        st.sampled_from(["ann", "bo", "cy"]),
        st.dictionaries(st.sampled_from("012345"), st.sampled_from([SENT, SENT, "s1", "s2", None])),
    )
)
def test_agreement_on_stickers_is_counted_over_who_was_asked(votes):
    lines = sticker_lines(votes)
    asked = {name: given for name, given in votes.items() if given}
    assert bool(lines) == bool(asked)
    if not asked:
        return
    for name, answers in asked.items():
        assert f"{name} {list(answers.values()).count(SENT)} of {len(answers)}" in lines[0]
    chosen = [[g[c] for g in asked.values() if g.get(c)] for c in "012345"]
    several = [one for one in chosen if len(one) >= 2]
    wanted = (sum(map(bool, chosen)), len(several), sum(len({*one}) == 1 for one in several))
    told = re.findall(r"for (\d+)", lines[-1])
    assert [int(number) for number in told] == list(wanted)
    for pair, line in zip(itertools.combinations(sorted(asked), 2), lines[1:], strict=False):
        common = sorted(asked[pair[0]].keys() & asked[pair[1]].keys())
        both = [[asked[name][c] == SENT for c in common] for name in pair]
        if len({*both[0], *both[1]}) == 2:
            figure = re.search(rf"whether it fits, .* {', '.join(pair)}: (-?\d\.\d+)", line)
            assert float(figure[1]) == pytest.approx(cohen_kappa_score(*both), abs=6e-4)


def test_other_stickers_are_found_by_words_and_by_what_they_have_in_common():
    def entry(name, facial="", verbal="", tags=()):
        attributes = {"gesture": "", "posture": "", "facial": facial, "verbal": verbal}
        return StickerEntry(name, f"images/{name}.png", attributes, tags=tags)

    similar = Similar(
        [
            entry("cat_07", "a grinning face", "Good Morning", ("cat",)),
            entry("dog_1", "a crying face", "", ("dog", "😭")),
            entry("cat_08", "a crying face", "早上好", ("cat",)),
            entry("blank"),
            entry("cat_09", "a grinning face", "", ("cat", "😂")),
        ]
    )
    assert similar.search("cat_07") == ["cat_09", "cat_08", "dog_1", "blank"]
    for words, found in (
        ("CRYING", {"cat_08", "dog_1"}),
        ("cat cry", {"cat_08"}),
        ("😭", {"dog_1"}),
        ("早上", {"cat_08"}),
        ("cat_09", {"cat_09"}),
        ("nothing", set()),
        ("  ", {"cat_09", "cat_08", "dog_1", "blank"}),
    ):
        assert {*similar.search("cat_07", words)} == found
    assert similar.search("blank") == ["cat_07", "dog_1", "cat_08", "cat_09"]  # in their order
    assert Similar([entry("alone")]).search("alone") == []


def test_a_split_without_a_decision_stops_the_export_before_it_writes(directory, project, tmp_path):
    project.annotator("ann").act(LABEL, project.prepared.conversations["train"][0].id, "joy")
    with pytest.raises(ValueError, match="no conversation of valid and test"):
        export(directory, project.workdir, tmp_path / "out", LEAVE_OUT)
    assert not (tmp_path / "out").exists()


def test_the_agreement_says_how_many_conversations_it_leaves_out(project):
    shared = workspace.shared_ids(list(project.conversations), project.settings.overlap)
    for name, intentions in (("ann", NAMES[:3]), ("bo", NAMES[1:3]), ("cy", NAMES[:1])):
        for one, intention in zip(shared, intentions, strict=False):
            project.annotator(name).act(LABEL, one, intention)
    lines = "\n".join(summary_lines(project.workdir))
    assert (
        "(2 conversations rated by all, 0.0% alike; 1 rated by some of them are left out)" in lines
    )
    assert "Fleiss' kappa ann, bo, cy: " in lines
    assert (
        "(1 conversations rated by all, 0.0% alike; 2 rated by some of them are left out)" in lines
    )
    for _ in range(3):
        project.annotator("cy").undo()
    project.annotator("cy").act(LABEL, shared[-1], "joy")
    lines = "\n".join(summary_lines(project.workdir))
    undefined = (
        "undefined, no conversation rated by all of them (4 rated by some of them are left out)"
    )
    assert f"Fleiss' kappa ann, bo, cy: {undefined}" in lines


def test_the_commands_print_and_fail_in_one_message(directory, project, tmp_path):
    annotate_all(project)
    lines = "\n".join(summary_lines(project.workdir))
    assert "rated: ann 24, bo 24" in lines
    assert "1 ties to adjudicate" in lines
    assert "Cohen's kappa ann, bo: " in lines
    assert (
        "24 conversations rated by all, 95.8% alike; 0 rated by some of them are left out" in lines
    )
    counts = export(directory, project.workdir, tmp_path / "o", LEAVE_OUT)
    assert counts == {AGREED: 22, "none fits": 1, TIE: 1}
    command = [sys.executable, "-m", "data_prep.annotation", "export", directory, project.workdir]
    done = subprocess.run([*command, tmp_path / "o"], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
    assert "is not empty" in done.stderr
    text = (tmp_path / "o" / "dataset.json").read_text()
    assert json.loads(text)["annotated_from"]["name"] == "tiny"
