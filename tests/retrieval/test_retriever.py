"""A search is the evaluation of one conversation."""

import dataclasses
import json
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from fixtures.trained import tiny_config

from configs import clip
from int_ra_jax.common.types import Sticker
from int_ra_jax.data.schema import Turn
from int_ra_jax.evaluation.evaluate import evaluate
from int_ra_jax.retrieval import engine as engines
from int_ra_jax.retrieval.conversation_file import read_conversation
from int_ra_jax.retrieval.engine import Engine
from int_ra_jax.retrieval.retriever import Retriever
from int_ra_jax.run.workdir import open_run
from int_ra_jax.training.loop import train

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def retriever(evaluated):
    return Retriever.from_workdir(evaluated.workdir)


@pytest.fixture(scope="module")
def source(evaluated):
    return open_run(evaluated.workdir).dataset


def encoded(retriever):
    return retriever.gallery.shelf.encoded


def test_a_search_gives_the_scores_of_the_evaluation(retriever, source, evaluated):
    conversations = source.conversations("test")
    ranked = retriever.reply_many(conversations, top_k=len(source.stickers))
    for found, scores in zip(ranked, evaluated.scores, strict=True):
        assert [sticker.rank for sticker in found.stickers] == list(range(1, len(scores) + 1))
        rows = [source.sticker_rows[sticker.sticker] for sticker in found.stickers]
        assert sorted(rows) == list(range(len(scores)))
        given = np.array([sticker.score for sticker in found.stickers])
        np.testing.assert_allclose(given, scores[rows], atol=1e-5)
        assert np.all(np.diff(given) <= 0)


def test_a_conversation_alone_is_the_conversation_in_a_batch(retriever, source):
    conversations = source.conversations("test")[:6]
    together = retriever.reply_many(conversations, top_k=3)
    for conversation, expected in zip(conversations[:2], together, strict=False):
        alone = retriever.reply(conversation, top_k=3)
        assert [s.sticker for s in alone.stickers] == [s.sticker for s in expected.stickers]
        for one, other in zip(alone.stickers, expected.stickers, strict=True):
            assert one.score == pytest.approx(other.score, abs=1e-5)
        assert alone.intention == expected.intention


def test_a_system_without_intentions_is_trained_evaluated_and_searched(trained, tmp_path):
    workdir = tmp_path / "clip"
    config = tiny_config(
        trained.prepared, clip, train__max_steps=4, data__tfds_dir=str(trained.workdir / "tfds")
    )
    assert set(train(config, workdir)) == {"mAP", "hit@1"}
    run = open_run(workdir)
    data = evaluate(run, *run.restore_best())
    assert data.intentions.confusion is None and data.run.ranking_ms > 0
    assert data.run.trained == sum(data.run.parameters.values())
    lines = (workdir / "eval" / "per_query.jsonl").read_text(encoding="utf-8").splitlines()
    assert {json.loads(line)["predicted_intention"] for line in lines} == {None}
    found = Retriever.from_workdir(workdir).reply(run.dataset.conversations("test")[0], top_k=2)
    assert found.intention is None and found.intention_probabilities == {}
    assert len(found.to_lines()) == 2


def test_the_answer_of_a_conversation_is_never_read(retriever, source):
    conversation = source.conversations("test")[0]
    unknown = dataclasses.replace(conversation, sticker="", intention="", split="train")
    assert retriever.reply(unknown, top_k=3) == retriever.reply(conversation, top_k=3)


def test_intentions_are_a_distribution_with_the_predicted_one_first(retriever, source):
    found = retriever.reply(source.conversations("test")[0], top_k=1)
    values = list(found.intention_probabilities.values())
    assert sum(values) == pytest.approx(1, abs=1e-5)
    assert values == sorted(values, reverse=True)
    assert next(iter(found.intention_probabilities)) == found.intention
    assert set(found.intention_probabilities) == set(source.intentions)
    entry = source.stickers[source.sticker_rows[found.stickers[0].sticker]]
    assert found.stickers[0].attributes == entry.attributes
    assert json.loads(json.dumps(found.to_json()))["stickers"][0]["image"] == entry.image


@pytest.mark.parametrize("number", [0, -1])
def test_no_stickers_cannot_be_asked_for(retriever, source, number):
    conversations = source.conversations("test")[:1]
    with pytest.raises(ValueError, match=rf"top_k={number}: ask for at least 1"):
        retriever.reply(conversations[0], top_k=number)
    with pytest.raises(ValueError, match=rf"top_k={number} of a gallery of 16 stickers"):
        retriever.rank(conversations, encoded(retriever), number)


def test_more_stickers_than_there_are_is_all_of_them_and_said(retriever, source):
    found = retriever.reply(source.conversations("test")[0], top_k=13)
    assert len(found.stickers) == found.eligible == len(source.stickers) == 12
    assert found.to_lines()[-1] == "no other sticker of the gallery passes the filters"
    assert "no other" not in " ".join(
        retriever.reply(source.conversations("test")[0], top_k=11).to_lines()
    )
    with pytest.raises(ValueError, match="top_k=17 of a gallery of 16 stickers; use 1 to 16"):
        retriever.rank(source.conversations("test")[:1], encoded(retriever), 17)


def test_a_directory_without_a_run_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no run was started there"):
        Retriever.from_workdir(tmp_path / "nothing")


def write(directory, content, name="chat.json"):
    path = directory / name
    path.write_text(content if isinstance(content, str) else json.dumps(content), "utf-8")
    return path


def test_a_conversation_is_read_as_it_was_written(tmp_path, retriever):
    turns = [{"speaker": "安娜", "text": "我们赢了"}, {"speaker": "Ben", "text": "really"}]
    knowledge = {"xWant": ["to celebrate"], "xReact": ["happy", "proud"]}
    record = {"turns": turns, "reply_speaker": "Ben", "knowledge": knowledge, "mood": "?"}
    found = read_conversation(write(tmp_path, record))
    assert [{"speaker": turn.speaker, "text": turn.text} for turn in found.turns] == turns
    assert (found.id, found.reply_speaker) == ("chat", "Ben")
    assert found.knowledge == {"xWant": ("to celebrate",), "xReact": ("happy", "proud")}
    without = read_conversation(write(tmp_path, {"turns": turns, "reply_speaker": "Ben"}))
    assert without.knowledge is None
    assert len(retriever.reply(without, top_k=2).stickers) == 2


def test_every_problem_of_a_conversation_is_reported_at_once(tmp_path):
    record = {
        "turns": [{"speaker": "A", "text": 3}, "hello", {"text": "x"}],
        "knowledge": {"xIntend": ["to win"], "xWant": "to rest"},
    }
    path = write(tmp_path, record)
    with pytest.raises(ValueError) as raised:
        read_conversation(path)
    lines = str(raised.value).splitlines()
    assert lines[0] == f"--conversation={path}:"
    assert [line.strip() for line in lines[1:]] == [
        'turn 1: "text" must be a string',
        'turn 2: "speaker" must be a string',
        'turn 2: "text" must be a string',
        'turn 3: "speaker" must be a string',
        '"reply_speaker" must name who replies',
        'knowledge "xIntend": did you mean "xIntent"?',
        'knowledge "xWant" must be a list of strings',
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not JSON: .*One object is read"),
        ("", "is empty"),
        ("\n \n", "is empty"),
        ('{"turns": [{}], "reply_speaker": "b"}\n' * 2, "is not JSON: Extra data"),
        (json.dumps({"turns": [{}] * 5000, "reply_speaker": "b"}), "and 9,980 more$"),
        ('{"\\udc00": 1}', r"a key: '\\udc00' holds half a character"),
        ("[" * 100_000, "is not JSON"),
        (
            json.dumps({"turns": [{"speaker": "A", "text": "see \ud83d"}], "reply_speaker": "B"}),
            r"chat\.json: turns\[1\]\.text: 'see \\ud83d' holds half a character",
        ),
        ([], "a JSON object is expected, not list"),
        ({"turns": [], "reply_speaker": "A"}, '"turns" must be a list of at least one'),
        ({"turns": "hi", "reply_speaker": "A"}, '"turns" must be a list of at least one'),
        (
            {"turns": [{"speaker": "A", "text": "x"}], "reply_speaker": "B", "knowledge": ["y"]},
            '"knowledge" must be an object',
        ),
    ],
)
def test_a_file_that_is_no_conversation_is_refused(tmp_path, content, message):
    with pytest.raises(ValueError, match=message):
        read_conversation(write(tmp_path, content))


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_a_file_of_another_editor_is_read_all_the_same(encoding, tmp_path):
    record = {"turns": [{"speaker": "Åsa", "text": "哭 😭"}], "reply_speaker": "Bo"}
    path = tmp_path / "chat.json"
    path.write_bytes(json.dumps(record, ensure_ascii=False).encode(encoding))
    assert read_conversation(path).turns[0].text == "哭 😭"
    path.write_bytes(json.dumps(record, ensure_ascii=False).encode("cp932", "replace"))
    with pytest.raises(ValueError, match="is not in UTF-8, UTF-16 or UTF-32") as refused:
        read_conversation(path)
    assert len(str(refused.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"turns": (Turn("ann", "so"), Turn("bo", "half \ud83d of"))}, "turns[2].text"),
        ({"turns": (Turn("ann", "\udc00"),)}, "turns[1].text"),
        ({"turns": (Turn("a\ud83dn", "so"),)}, "turns[1].speaker"),
        ({"turns": (Turn("ann", "a whole one in two \ud83d\ude00"),)}, "turns[1].text"),
        ({"reply_speaker": "\ud800"}, "reply_speaker"),
        ({"knowledge": {"xWant": ("rest", "\ud83d")}}, "knowledge.xWant[2]"),
    ],
)
def test_half_a_character_is_refused_in_one_line_where_no_file_was_read(
    retriever, source, changes, where
):
    whole = source.conversations("test")[0]
    half = dataclasses.replace(whole, **changes)
    for search in (
        retriever.reply_many,
        partial(retriever.rank, gallery=encoded(retriever), top_k=1),
    ):
        with pytest.raises(ValueError, match=r"holds half a character .*leave it out$") as refused:
            search([whole, half])
        assert f"conversation {whole.id!r}: {where}: " in str(refused.value)
        assert len(str(refused.value).splitlines()) == 1


def test_an_answer_tells_which_words_the_text_tower_does_not_know(retriever, source):
    whole = source.conversations("test")[0]
    spoken = dataclasses.replace(
        whole, turns=(Turn("ann", "we won 😭 today 喵喵 😭"),), reply_speaker="bo", knowledge=None
    )
    found = retriever.reply(spoken, top_k=2)
    assert (found.tokens, found.unknown) == (7, {"😭": 2, "喵": 2})
    assert json.loads(json.dumps(found.to_json()))["unknown"] == {"😭": 2, "喵": 2}
    assert (
        found.to_lines()[-1]
        == "4 of 7 words or parts of words are unknown to the text tower: 😭 喵"
    )
    known = dataclasses.replace(spoken, turns=(Turn("ann", "we won"),))
    answers = retriever.reply_many([known, spoken], top_k=2)
    assert [one.unknown for one in answers] == [{}, {"😭": 2, "喵": 2}]
    assert "unknown" not in " ".join(answers[0].to_lines())


def test_a_missing_file_names_the_nearest(tmp_path):
    write(tmp_path, {}, "birthday.json")
    with pytest.raises(FileNotFoundError, match=r"no such file\. Did you mean .*birthday\.json\?"):
        read_conversation(tmp_path / "birthdya.json")


LEAN = """
import sys
from pathlib import Path
from int_ra_jax.retrieval.conversation_file import read_conversation
from int_ra_jax.retrieval.retriever import Retriever

retriever = Retriever.from_workdir(sys.argv[1])
print(len(retriever.reply(read_conversation(Path(sys.argv[2])), top_k=2).stickers))
heavy = {"tensorflow", "transformers", "torch", "sklearn", "matplotlib", "scipy.stats"}
ours = ("int_ra_jax.evaluation", "int_ra_jax.training", "int_ra_jax.comparison")
loaded = [name for name in sys.modules if name in heavy or name.startswith(ours)]
assert not loaded, loaded
"""


def test_a_search_loads_nothing_that_only_training_or_evaluation_needs(evaluated, tmp_path):
    turns = [{"speaker": "A", "text": "we won"}]
    chat = write(tmp_path, {"turns": turns, "reply_speaker": "B"})
    result = subprocess.run(
        [sys.executable, "-c", LEAN, str(evaluated.workdir), str(chat)],
        capture_output=True, text=True, cwd=ROOT,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr[-2000:]
    assert result.stdout.strip() == "2"


def test_more_conversations_than_a_batch_holds_come_back_in_their_order(retriever, source):
    conversations = source.conversations("train")[:70]
    together = retriever.reply_many(conversations, top_k=2)
    assert len(together) == 70
    for row in (0, 33, 69):
        alone = retriever.reply(conversations[row], top_k=2)
        assert [s.sticker for s in together[row].stickers] == [s.sticker for s in alone.stickers]
        assert together[row].stickers[0].score == pytest.approx(alone.stickers[0].score, abs=1e-5)


def test_no_conversations_have_no_answers(retriever):
    assert retriever.reply_many([]) == []


def test_any_encoded_gallery_is_ranked_exactly_however_few_scores_fit(
    retriever, source, monkeypatch
):
    conversations = source.conversations("test")[:5]
    rng = np.random.default_rng(0)
    gallery = Sticker(rng.normal(size=(300, retriever.width)).astype(np.float32))
    scores, rows, probable = retriever.rank(conversations, gallery, 7)
    everything, order, _ = retriever.rank(conversations, gallery, 300)
    assert scores.shape == rows.shape == (5, 7) and probable.shape == (5, len(source.intentions))
    assert np.all(np.diff(everything) <= 0)
    np.testing.assert_array_equal(rows, order[:, :7])
    np.testing.assert_allclose(scores, everything[:, :7], atol=1e-5)
    # The scores are dot products of one query each: a gallery twice as long gives them twice.
    twice = Sticker(np.repeat(gallery.embedding, 2, axis=0))
    doubled, both, _ = retriever.rank(conversations, twice, 14)
    np.testing.assert_array_equal(both[:, ::2] // 2, rows)
    np.testing.assert_allclose(doubled[:, ::2], scores, atol=1e-5)
    monkeypatch.setattr(engines, "_SCORES", 400)  # one conversation at a time
    alone, places, _ = retriever.rank(conversations, gallery, 7)
    np.testing.assert_array_equal(places, rows)
    np.testing.assert_allclose(alone, scores, atol=1e-5)


def test_a_second_start_traces_no_program_of_a_search(evaluated, source, monkeypatch):
    conversation = source.conversations("test")[0]
    first = Retriever.from_workdir(evaluated.workdir).reply(conversation)
    monkeypatch.setattr(Engine, "_best", lambda *_, **__: pytest.fail("traced again"))
    assert Retriever.from_workdir(evaluated.workdir).reply(conversation) == first
