"""Whether to send a sticker: what is read, what is learnt, the file, and the policy."""

import gzip
import json

import numpy as np
import pytest

from benchmarks.whether import Judged
from int_ra_jax.data.schema import Conversation, Turn
from int_ra_jax.retrieval import fit_whether
from int_ra_jax.retrieval.fit_whether import Reply, fit, weights
from int_ra_jax.retrieval.whether import Moment, Policy, Whether, moment, width


def replies(number=160, seed=0):
    """Replies in threads: those to good news carry a sticker, as do own words with "haha"."""
    rng = np.random.default_rng(seed)
    found = []
    for row in range(number):
        glad, laughs = rng.random(2) < 0.5
        said = ("so it begins", "we won!!" if glad else "the bus is late again")
        moment = Moment(said, "haha yes" if laughs else "well, ok")
        split = "valid" if row % 4 == 0 else "train"
        found.append(Reply(moment, bool(glad or laughs), f"thread {row % 8}", split))
    return found


@pytest.fixture(scope="module")
def models():
    return {own_words: fit(replies(), own_words=own_words) for own_words in (False, True)}


def test_each_kind_learns_what_it_may_read(models):
    glad, late = (Moment(("so it begins", text)) for text in ("we won!!", "the bus is late again"))
    assert models[False].probability(glad) > 0.8 > 0.6 > models[False].probability(late)
    typed = [Moment(late.turns, words) for words in ("haha yes", "well, ok")]
    laughs, dry = models[True].probabilities(typed)
    assert laughs > 0.7 > 0.4 > dry


def test_words_that_come_after_the_decision_are_never_read(models):
    turns = ("so it begins", "we won!!")
    found = models[False].probabilities([Moment(turns), Moment(turns, "haha"), Moment(turns, "no")])
    assert len(set(found.tolist())) == 1


def test_a_message_that_was_not_typed_cannot_be_judged(models):
    with pytest.raises(ValueError, match="no own words"):
        models[True].probability(Moment(("hello",), " "))


@pytest.mark.parametrize("turns", [(), ("",), ("x" * 10**5,), ("好" * 500, "\ud83d")])
def test_odd_conversations_have_a_probability_too(models, turns):
    assert 0 < models[False].probability(Moment(turns)) < 1
    assert models[False].probabilities([]).shape == (0,)


def test_a_conversation_is_cut_where_the_replier_begins():
    turns = tuple(Turn(who, f"{who} {n}") for n, who in enumerate("BABB"))
    conversation = Conversation("c", "test", turns, "B", "", "")
    assert moment(conversation) == Moment(("B 0", "A 1"), "B 2\nB 3")
    other = Conversation("c", "test", turns, "C", "", "")
    assert moment(other) == Moment(("B 0", "A 1", "B 2", "B 3"))


@pytest.mark.parametrize("own_words", [False, True])
def test_a_file_answers_as_the_model_did(models, own_words, tmp_path):
    model, path = models[own_words], tmp_path / "whether.npz"
    model.save(path)
    assert path.stat().st_size < 2**20
    read = Whether.load(path)
    asked = [Moment(("we won!!",), "haha"), Moment(("no", "no"), "ok")]
    np.testing.assert_allclose(read.probabilities(asked), model.probabilities(asked), atol=2e-3)
    assert (read.threshold, read.base_rate) == (model.threshold, model.base_rate)


def test_files_that_are_no_model_are_refused(models, tmp_path):
    path = tmp_path / "whether.npz"
    with pytest.raises(FileNotFoundError, match="fit_whether writes one"):
        Whether.load(path)
    models[False].save(path)
    whole = path.read_bytes()
    for content in (b"", b"no zip", whole[:1000], whole.replace(b"PK", b"XX")):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="cannot be read"):
            Whether.load(path)
    with path.open("wb") as file:
        np.savez(file, weights=np.zeros(3, np.float16))
    with pytest.raises(ValueError, match="cannot be read"):
        Whether.load(path)
    head = {"form": 1, "own_words": True, "bias": 0.0, "threshold": 0.5, "base_rate": 0.3}
    for wrong in ({"form": 2}, {}):
        with path.open("wb") as file:
            np.savez(file, head=np.array(json.dumps(head | wrong)), weights=np.zeros(width(False)))
        with pytest.raises(ValueError, match="another version"):
            Whether.load(path)


def test_weights_give_every_thread_the_base_rate():
    kinds = {"a": (30, 4), "b": (1, 40), "one kind": (5, 0)}
    drawn = [
        Reply(Moment(("x",)), place < with_, thread, "train")
        for thread, (with_, without) in kinds.items()
        for place in range(with_ + without)
    ]
    weight = weights(drawn, 0.25)
    assert weight.max() == pytest.approx(1)
    for thread, (with_, _) in kinds.items():
        of = np.array([one.thread == thread for one in drawn])
        sent = np.array([one.sent for one in drawn])
        if thread == "one kind":
            assert weight[of].sum() == 0
        else:
            assert weight[of & sent].sum() / weight[of].sum() == pytest.approx(0.25)
            assert with_ and weight[of].max() == pytest.approx(1)
    assert (weights(drawn, None) == 1).all()


def test_probabilities_stand_for_the_base_rate_and_the_threshold_sends_as_often():
    drawn = replies(400)
    model = fit(drawn, own_words=True, base_rate=0.2)
    valid = fit_whether.judged(drawn, "valid", True)
    weight = weights(valid, 0.2)
    probability = model.probabilities([one.moment for one in valid])
    assert np.average(probability, weights=weight) == pytest.approx(0.2, abs=0.02)
    assert model.base_rate == pytest.approx(0.2)
    # Few messages differ, so that shares go in steps.
    assert np.average(probability >= model.threshold - 1e-6, weights=weight) >= 0.2


@pytest.mark.parametrize(
    ("policy", "probability", "since", "sends"),
    [
        (Policy(0.3), 0.3, None, True),
        (Policy(0.3), 0.29, None, False),
        (Policy(0.3), 0.9, 2, False),
        (Policy(0.3), 0.9, 3, True),
        (Policy(0.3, at_most_one_in=1), 0.9, 0, True),
    ],
)
def test_a_policy_sends_often_enough_and_not_too_often(policy, probability, since, sends):
    assert policy.sends(probability, since) == sends


def test_the_command_trains_on_files(tmp_path, capsys):
    lines = [
        {
            "turns": [{"text": text} for text in one.moment.turns],
            "own_words": one.moment.own_words,
            "sticker": "s" * one.sent,
            "split": one.split,
            "thread": one.thread,
        }
        for one in replies()
    ]
    path, out = tmp_path / "replies.jsonl.gz", tmp_path / "whether.npz"
    with gzip.open(path, "wt") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)
    fit_whether.main([str(path), f"--out={out}", "--base_rate=0.3"])
    assert "base rate 0.300" in capsys.readouterr().out
    assert Whether.load(out).own_words is False


GOOD = {"turns": [{"text": "hi"}], "own_words": "", "sticker": "s", "split": "train"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (json.dumps({"turns": []}), r"line 1: KeyError: 'own_words'"),
        ("\n\n{", "line 3: JSONDecodeError"),
        (json.dumps(GOOD | {"split": "validation"}), "split 'validation' is none of train, valid"),
        (json.dumps(GOOD | {"turns": ["hi"]}), "line 1: TypeError"),
        (json.dumps(GOOD | {"own_words": 5}), "must be strings"),
        ("[1, 2]", "line 1: TypeError"),
        ("[" * 10**5, "line 1: RecursionError"),
        ("x\n" * 30, "and 10 more"),
        (b"\xff\xfe\x00", "save it again, in UTF-8"),
    ],
)
def test_lines_that_are_no_replies_are_all_named(tmp_path, content, message):
    path = tmp_path / "replies.jsonl"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=message):
        fit_whether.read(path)


def test_files_that_cannot_be_read_are_all_named(tmp_path):
    whole = gzip.compress(json.dumps(GOOD).encode())
    for name, content in {"cut": whole[:-9], "none": b"plain"}.items():
        (tmp_path / f"{name}.gz").write_bytes(content)
    paths = [tmp_path / name for name in ("cut.gz", "none.gz", "absent.gz")]
    with pytest.raises(ValueError) as error:
        fit_whether.read_all(paths)
    assert all(path.name in str(error.value) for path in paths)


def test_a_mark_of_byte_order_blank_lines_and_null_for_nothing_are_read(tmp_path):
    path = tmp_path / "replies.jsonl"
    text = "\ufeff" + json.dumps(GOOD) + "\n\n" + json.dumps(GOOD | {"sticker": None}) + "\n"
    path.write_text(text, encoding="utf-8")
    assert [one.sent for one in fit_whether.read(path)] == [True, False]


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda: Policy(1.5, 0), r"threshold=1.5.*at_most_one_in=0"),
        (lambda: fit(replies(), own_words=False, base_rate=1.0), "base_rate=1.0"),
        (lambda: fit([], own_words=False), "train has 0 replies"),
        (lambda: fit(replies()[1:4], own_words=False), "with and without"),
    ],
)
def test_what_cannot_be_is_refused_in_clear_words(act, message):
    with pytest.raises(ValueError, match=message):
        act()


def test_figures_of_the_benchmark_are_those_of_scikit_learn():
    from sklearn.metrics import brier_score_loss, roc_auc_score

    rng = np.random.default_rng(0)
    probability = rng.choice(np.linspace(0.05, 0.95, 7), 300)
    sent, weight = rng.random(300) < probability, rng.random(300)
    found = Judged(probability, sent, weight, np.zeros(300, int)).figures(weight)
    assert found["AUC"] == pytest.approx(roc_auc_score(sent, probability, sample_weight=weight))
    brier = brier_score_loss(sent, probability, sample_weight=weight)
    assert found["Brier"] == pytest.approx(brier)
    assert found["ECE"] < 0.1
    worse = Judged(1 - probability, sent, weight, np.zeros(300, int)).figures(weight)
    assert worse["AUC"] == pytest.approx(1 - found["AUC"])
    assert worse["ECE"] > 0.3
