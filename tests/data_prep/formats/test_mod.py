"""MOD: examples of dialogues, candidate sets of the tests, and what its files leave open."""

import json

import pytest
from fuzz import releases

from data_prep.formats.importing import import_published
from data_prep.problems import BadInputError
from int_ra_jax.data.validation import read_prepared


def imported(tmp_path, source, **options):
    import_published("mod", source, tmp_path / "out", **options)
    return read_prepared(tmp_path / "out")


def edit(path, change):
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value, indent=1))


def test_the_own_words_of_a_meme_are_the_last_turn_and_earlier_memes_stay(tmp_path):
    prepared = imported(tmp_path, releases.mod(tmp_path / "in"))
    first, second = prepared.conversations["train"][:2]
    assert [(t.text, t.sticker) for t in first.turns] == [
        ("c_train 0", "003"),
        ("own words c_train 0", None),
    ]
    assert first.reply_speaker == first.turns[-1].speaker == "[speaker2]"
    assert (first.sticker, first.intention) == ("001", "anger")
    assert [t.sticker for t in second.turns] == ["003", "001"]
    assert second.reply_speaker == "[speaker1]"
    assert prepared.info["left_out"] == {"train: first turn": 3, "valid: first turn": 8}


def test_the_tests_keep_their_candidates_and_their_level(tmp_path):
    prepared = imported(tmp_path, releases.mod(tmp_path / "in"))
    tests = prepared.conversations["test"]
    assert [one.extra["test_set"] for one in tests] == ["easy", "hard"]
    for one in tests:
        assert one.extra["candidates"] == ["000", "001", "002"]
        assert (one.sticker, one.intention) == ("000", "joy")
        assert one.turns[-1].text == f"own {one.extra['test_set']}"
    assert not (tmp_path / "out" / "unlabelled_tests.jsonl").exists()


def test_tests_without_answers_are_kept_beside_and_half_of_valid_becomes_the_test(tmp_path):
    prepared = imported(tmp_path, releases.mod(tmp_path / "in", labelled_tests=False))
    lines = (tmp_path / "out" / "unlabelled_tests.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    assert [(row["test_set"], row["row"], row["candidates"][0]) for row in rows] == [
        ("easy", "0", "000"),
        ("hard", "0", "000"),
    ]
    shared = {
        split: {one.extra["dialogue"] for one in prepared.conversations[split]}
        for split in ("valid", "test")
    }
    assert shared["valid"] and shared["test"]
    assert not shared["valid"] & shared["test"]
    assert len(shared["valid"] | shared["test"]) == 8


def test_emotions_of_another_row_are_never_joined(tmp_path):
    source = releases.mod(tmp_path / "in")
    edit(source / "c_test_easy_task3.json", lambda rows: rows[0]["history"][0].update(txt="other"))
    prepared = imported(tmp_path, source)
    assert [one.extra["test_set"] for one in prepared.conversations["test"]] == ["hard"]


def test_two_languages_need_a_choice(tmp_path):
    source = releases.mod(tmp_path / "in")
    for name in ("train", "val"):
        (source / f"e_{name}.json").write_bytes((source / f"c_{name}.json").read_bytes())
    with pytest.raises(BadInputError, match="--language=c or --language=e"):
        imported(tmp_path, source)
    assert len(imported(tmp_path, source, language="c").conversations["train"]) == 6


BAD = {
    "unknown emotion": ("c_train.json", lambda v: v["dialogue 0"][1].update(emotion_id=77), 2),
    "image number": ("c_train.json", lambda v: v["dialogue 1"][1].update(img_id="../1"), 22),
    "unknown image": ("c_train.json", lambda v: v["dialogue 0"][1].update(img_id="099"), 2),
    "no speaker": ("c_val.json", lambda v: v["dialogue 0"][0].pop("speaker_id"), 2),
    "no list": ("c_val.json", lambda v: v.update({"dialogue 0": {}}), 2),
    "picture missing": ("img2id.json", lambda v: v.update({"../../etc/passwd": 9}), 6),
    "picture number": ("img2id.json", lambda v: v.update({"meme1.png": True}), 3),
    "emotion twice": ("emotion_dict.json", lambda v: v.update(glee=1), 5),
    "no candidates": ("c_test_easy_task2.json", lambda v: v[0].pop("candidate"), 2),
    "answer elsewhere": ("c_test_hard_task2.json", lambda v: v[0]["answer"].update(img_id="3"), 2),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_member_is_reported_with_the_line_where_it_begins(kind, tmp_path):
    name, change, line = BAD[kind]
    source = releases.mod(tmp_path / "in")
    edit(source / name, change)
    with pytest.raises(BadInputError) as error:
        imported(tmp_path, source)
    assert (error.value.problems[0].file, error.value.problems[0].line) == (name, line)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in"]


def test_a_test_file_that_is_an_object_is_reported(tmp_path):
    source = releases.mod(tmp_path / "in")
    (source / "c_test_easy_task2.json").write_text('{"a": 1}')
    with pytest.raises(BadInputError, match="row a: expected an object"):
        imported(tmp_path, source)
