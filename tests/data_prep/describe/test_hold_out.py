"""A copy of a prepared directory whose training lacks some stickers."""

import itertools
from collections import Counter

import pytest
from fixtures.prepared import make_prepared_directory
from hypothesis import given
from hypothesis import strategies as st

from data_prep import command
from data_prep.describe.__main__ import parser
from data_prep.describe.hold_out import HELD_OUT, draw, hold_out
from int_ra_jax.data.schema import content_hash
from int_ra_jax.data.validation import read_prepared, validate

USES = st.dictionaries(st.text("abcdefgh", min_size=1), st.integers(1, 50), min_size=2)


@given(USES, st.floats(0.01, 0.99), st.integers(0, 99))
def test_one_of_each_run_of_equally_used_stickers_is_drawn(uses, share, seed):
    held = draw(uses, share, seed)
    assert held == draw(dict(reversed(uses.items())), share, seed)
    assert held < set(uses)
    wanted = min(max(1, round(share * len(uses))), len(uses) - 1)
    assert len(held) == wanted
    # With one held out in each run, none is further from the next than two runs are long.
    ordered = sorted(uses, key=lambda sticker: (-uses[sticker], sticker))
    longest = -(-len(ordered) // wanted)
    places = [-1, *(place for place, one in enumerate(ordered) if one in held), len(ordered)]
    assert max(b - a for a, b in itertools.pairwise(places)) <= 2 * longest


@given(st.integers(10, 40), st.integers(0, 9))
def test_as_many_seeds_in_a_row_as_a_run_is_long_hold_out_every_sticker(stickers, start):
    uses = {f"s{n}": n + 1 for n in range(5 * stickers)}
    draws = [draw(uses, 0.2, 5 * start + seed) for seed in range(5)]
    assert frozenset.union(*draws) == uses.keys()
    assert sum(map(len, draws)) == len(uses)


def test_train_and_valid_lose_what_they_answer_and_test_stays_whole(tmp_path):
    source = make_prepared_directory(tmp_path / "in", num_conversations=60)
    hold_out(source, tmp_path / "out", share=0.25, seed=3)
    assert validate(tmp_path / "out") == []
    before, after = read_prepared(source), read_prepared(tmp_path / "out")
    told = after.info["held_out"]
    held = set(told["stickers"])
    assert len(held) == round(0.25 * len({c.sticker for c in before.conversations["train"]}))
    assert after.conversations["test"] == before.conversations["test"]
    assert after.stickers == before.stickers
    for split in ("train", "valid"):
        expected = [c for c in before.conversations[split] if c.sticker not in held]
        assert list(after.conversations[split]) == expected
    lost = sum(map(len, before.conversations.values())) - sum(
        map(len, after.conversations.values())
    )
    ledger = told["ledger"]
    assert ledger["records_in"] == 60 and ledger["kept"] == 60 - lost
    assert ledger["left_out"][HELD_OUT]["count"] == lost > 0
    assert (told["share"], told["seed"]) == (0.25, 3)
    assert after.info["name"] == "tiny-held-out"


def test_the_command_gives_the_same_bytes_each_time_and_another_seed_others(tmp_path):
    source = make_prepared_directory(tmp_path / "in")
    hashes = []
    for number, seed in enumerate((0, 0, 1)):
        out = tmp_path / str(number)
        command.run(parser(), ["hold_out", str(source), str(out), f"--seed={seed}"])
        hashes.append(content_hash(out))
    assert hashes[0] == hashes[1] != hashes[2]


def test_wrong_shares_and_too_few_stickers_are_refused():
    for share in (0.0, 1.0, 20.0):
        with pytest.raises(ValueError, match="above 0 and below 1"):
            draw(Counter("aab"), share, 0)
    with pytest.raises(ValueError, match="train uses 1 stickers"):
        draw({"a": 4}, 0.2, 0)
