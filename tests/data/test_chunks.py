"""Pieces of a file, read in any order, are the file."""

import random

import pytest
from fixtures.prepared import make_prepared_directory
from hypothesis import given, settings
from hypothesis import strategies as st

from int_ra_jax.data import schema
from int_ra_jax.data.chunks import conversations, cut
from int_ra_jax.data.validation import inspect, read_outline


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    directory = tmp_path_factory.mktemp("chunks") / "d"
    return inspect(make_prepared_directory(directory, num_conversations=25)).prepared


@given(lines=st.integers(1, 30), blank=st.integers(0, 24), seed=st.integers(0, 9))
@settings(max_examples=30, deadline=None)
def test_chunks_of_any_length_hold_every_conversation_once_with_its_row(
    prepared, tmp_path_factory, lines, blank, seed
):
    # The splits mixed, and a blank line somewhere.
    text = (prepared.path / schema.CONVERSATIONS_FILE).read_text("utf-8").splitlines()
    random.Random(seed).shuffle(text)
    path = tmp_path_factory.mktemp("mixed") / "conversations.jsonl"
    path.write_text("\n".join([*text[:blank], "  ", *text[blank:]]) + "\n", "utf-8")
    pieces = list(cut(path, lines))
    random.Random(seed).shuffle(pieces)
    wanted = {one.id: one for split in prepared.conversations.values() for one in split}
    for split in schema.SPLITS:
        found = dict(pair for piece in pieces for pair in conversations(piece, split))
        in_file = [line for line in text if f'"split": "{split}"' in line]
        assert sorted(found) == list(range(len(in_file)))
        assert [f'"id": "{found[row].id}"' in line for row, line in enumerate(in_file)] == [
            True
        ] * len(in_file)
        assert all(wanted[one.id] == one for one in found.values())


def test_an_outline_counts_what_it_does_not_keep(prepared):
    outline = read_outline(prepared.path)
    assert outline.sizes == {name: len(kept) for name, kept in prepared.conversations.items()}
    assert not any(outline.prepared.conversations.values())
    assert outline.prepared.stickers == prepared.stickers
    assert outline.has_knowledge
