"""Intervals over chats: what they must be where the answer is known."""

import csv

import numpy as np
import pytest
from fixtures.compared import write_evaluation

from benchmarks import by_chat
from data_prep.embedded.chitchat import Chat, Message, examples_of


def test_chats_of_one_query_each_change_nothing():
    differences = np.random.default_rng(0).normal(0.1, 1, 400)
    found = by_chat.clustered(differences, np.arange(400), 2_000)
    assert found.by_chat == pytest.approx(found.by_query)
    assert found.design_effect == pytest.approx(1)
    assert found.difference == pytest.approx(differences.mean())
    assert found.by_query[0] < found.difference < found.by_query[1]


def test_copies_within_a_chat_add_nothing_to_what_is_known():
    """Five equal queries a chat: five times the variance of as many independent ones."""
    differences = np.repeat(np.random.default_rng(1).normal(0, 1, 300), 5)
    found = by_chat.clustered(differences, np.repeat(np.arange(300), 5), 4_000)
    assert found.design_effect == pytest.approx(5, rel=0.15)


def test_chats_of_unequal_size_count_by_their_queries():
    differences = np.array([1.0, 1.0, 1.0, 0.0])
    found = by_chat.clustered(differences, np.array([0, 0, 0, 1]), 2_000)
    assert found.difference == pytest.approx(0.75)
    assert found.by_chat == pytest.approx((0.0, 1.0))


def test_runs_are_averaged_over_seeds_and_linear_is_added(tmp_path):
    rows = [("int_ra", 0), ("int_ra", 1), ("clip", 0), ("clip", 1)]
    with (tmp_path / "runs.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["system", "seed", "workdir", "error", "command"])
        for name, seed in rows:
            workdir = write_evaluation(tmp_path / f"{name}-{seed}", name, seed, 1.0, 12)
            writer.writerow([name, seed, workdir, "", ""])
        writer.writerow(["srs", 0, "", "not done yet", ""])
    ids, values = by_chat.read(tmp_path)
    assert len(ids) == 12 and list(values) == ["int_ra", "clip", "linear"]
    each = [
        by_chat.evaluated.read_run(tmp_path / f"clip-{seed}", seed).values["clip"]["mAP"]
        for seed in (0, 1)
    ]
    np.testing.assert_allclose(values["clip"]["mAP"], np.mean(each, axis=0))


def test_runs_of_other_queries_are_refused(tmp_path):
    lines = ["system,seed,workdir,error,command"]
    for name, queries in (("int_ra", 12), ("clip", 11)):
        workdir = write_evaluation(tmp_path / name, name, 0, 1.0, queries)
        lines.append(f"{name},0,{workdir},,")
    (tmp_path / "runs.csv").write_text("\n".join(lines) + "\n")
    with pytest.raises(ValueError, match="runs over different queries cannot be compared"):
        by_chat.read(tmp_path)


def test_a_table_without_runs_is_refused(tmp_path):
    (tmp_path / "runs.csv").write_text("system,seed,workdir,error,command\nclip,0,,killed,\n")
    with pytest.raises(ValueError, match="no run is complete"):
        by_chat.read(tmp_path)


def test_each_query_leads_back_to_its_chat_and_one_of_other_data_to_none(monkeypatch):
    # Two chats of two reactions each; to find those of all chats takes half a minute.
    said = (("b", "I fell off my bike"), ("a", "Oh no!"), ("b", "and it broke"), ("a", "Oh no!"))
    messages = tuple(Message(*one) for one in (("a", "hi"), *said))
    chats = [Chat(name, messages) for name in ("first", "second")]
    monkeypatch.setattr(by_chat.chitchat, "load_chats", lambda: chats)
    ids = [[example.id for example in examples_of(chat)] for chat in chats]
    (one, two), (three, four) = ids
    assert by_chat.chats_of([one, three, two, four]).tolist() == [0, 1, 0, 1]
    with pytest.raises(ValueError, match="1 of 2 queries, such as 'elsewhere', are of no chat"):
        by_chat.chats_of([one, "elsewhere"])
