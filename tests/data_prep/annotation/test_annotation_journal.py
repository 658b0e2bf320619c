"""Files of events: what is said to be saved survives, whatever happens to the process."""

import errno
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep.annotation.journal import (
    ACTIONS,
    LABEL,
    NONE_FITS,
    SKIP,
    UNDO,
    Journal,
    LockedError,
    check_name,
    latest,
    read_events,
    remaining,
)
from data_prep.annotation.workspace import SENT, sticker_votes_in
from data_prep.problems import BadInputError

INTENTIONS = ("joy", "悲伤")
IDS = st.sampled_from(["c1", "c2", "c3"])
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just(LABEL), IDS, st.sampled_from(INTENTIONS)),
        st.tuples(st.sampled_from([NONE_FITS, SKIP]), IDS, st.none()),
        st.tuples(st.just(UNDO), st.just(""), st.none()),
    ),
    max_size=12,
)


def written(path, steps):
    """Applies steps as a page would; returns what holds, worked out without the journal."""
    journal = Journal(path, INTENTIONS)
    history = []
    for action, conversation, intention in steps:
        if action == UNDO:
            undone = journal.undo("ann")
            assert (undone is None) == (not history)
            history = history[:-1]
        else:
            journal.record("ann", action, conversation, intention)
            history.append((action, conversation, intention))
    shown = {one: (e.action, e.intention) for one, e in journal.current.items()}
    journal.close()
    expected = {}
    for action, conversation, intention in history:
        expected.pop(conversation, None)
        expected[conversation] = (action, intention)
    assert list(shown.items()) == list(expected.items())
    return expected


@settings(max_examples=40, deadline=None)
@given(steps=STEPS)
def test_a_file_read_again_says_what_held_when_it_was_closed(steps):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ann.jsonl"
        expected = written(path, steps)
        events, unfinished = read_events(path, INTENTIONS)
    assert unfinished == b""
    found = {one: (event.action, event.intention) for one, event in latest(events).items()}
    assert found == expected


@settings(max_examples=40, deadline=None)
@given(steps=STEPS, data=st.data())
def test_a_file_cut_at_any_byte_keeps_every_finished_line(steps, data):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ann.jsonl"
        written(path, steps)
        content = path.read_bytes()
        cut = data.draw(st.integers(0, len(content)))
        path.write_bytes(content[:cut])
        whole = content[:cut].count(b"\n")
        assert len(read_events(path, INTENTIONS)[0]) == whole
        journal = Journal(path, INTENTIONS)
        journal.record("ann", LABEL, "c9", "joy")
        journal.close()
        events, unfinished = read_events(path, INTENTIONS)
        assert (len(events), unfinished) == (whole + 1, b"")
        assert path.read_bytes().startswith(content[: content.rfind(b"\n", 0, cut) + 1])


def test_an_unfinished_last_line_is_reported(tmp_path, caplog):
    path = tmp_path / "ann.jsonl"
    path.write_bytes(b'{"time": "t", "by"')
    Journal(path, INTENTIONS).close()
    assert "unfinished line" in caplog.text
    assert path.read_bytes() == b""


@pytest.mark.parametrize(
    "line",
    [
        "no json",
        "[1]",
        '{"time": "t", "by": "a", "action": "label", "conversation": "c", "intention": "rage"}',
        '{"time": "t", "by": "a", "action": "delete", "conversation": "c"}',
        '{"time": "t", "by": "a", "action": "skip"}',
        '{"time": "t", "by": "a", "action": ["skip"], "conversation": "c"}',
        "[" * 100_000,
        "\udcff",
    ],
)
def test_a_finished_line_that_is_no_event_is_reported_with_its_line(line, tmp_path):
    path = tmp_path / "ann.jsonl"
    good = '{"time": "t", "by": "a", "action": "skip", "conversation": "c"}'
    path.write_bytes(f"{good}\n{line}\n{good}\n".encode(errors="surrogateescape"))
    with pytest.raises(BadInputError, match=r"ann\.jsonl:2: not an event"):
        Journal(path, INTENTIONS)
    assert path.read_bytes().count(b"\n") == 3  # nothing was repaired behind anybody's back
    with pytest.raises(BadInputError):  # and the lock is free again
        Journal(path, INTENTIONS)


def test_what_an_editor_leaves_is_read_and_never_mixed_with_another_encoding(tmp_path):
    path = tmp_path / "ann.jsonl"
    good = '{"time": "t", "by": "a", "action": "skip", "conversation": "c"}'
    path.write_bytes(f"\ufeff{good}\r\n\r\n{good}\n \n".encode())
    assert len(read_events(path, INTENTIONS)[0]) == 2
    for encoding in ("utf-16", "utf-16-le"):
        path.write_bytes(f"{good}\n".encode(encoding))
        with pytest.raises(BadInputError, match=r"ann\.jsonl:1: not an event"):
            Journal(path, INTENTIONS)


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        ('"fits": 1', "fits is 1, neither true nor false"),
        ('"fits": "yes"', "fits is 'yes', neither true nor false"),
        ('"fits": true, "sticker": "s1"', "where another one needs fits: false"),
        ('"sticker": "s1"', "where another one needs fits: false"),
        ('"fits": false, "sticker": ""', "sticker is '', no sticker's id"),
        ('"fits": false, "sticker": ["s1"]', "no sticker's id"),
    ],
)
def test_what_is_said_of_a_sticker_is_checked(fields, wrong, tmp_path):
    path = tmp_path / "ann.jsonl"
    path.write_text(
        f'{{"time": "t", "by": "a", "action": "skip", "conversation": "c", {fields}}}\n'
    )
    with pytest.raises(BadInputError, match=wrong):
        read_events(path, INTENTIONS)


def test_another_sticker_is_kept_and_taken_back_with_its_decision(tmp_path):
    path = tmp_path / "ann.jsonl"
    old = '{"time": "t", "by": "a", "action": "label", "conversation": "c0", "intention": "joy"}\n'
    path.write_text(old)
    journal = Journal(path, INTENTIONS)
    journal.record("ann", LABEL, "c1", "joy", True)
    journal.record("ann", LABEL, "c2", "悲伤", False, "猫 1")
    journal.record("ann", NONE_FITS, "c3", None, False)
    journal.record("ann", SKIP, "c4")
    journal.close()
    lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    assert [(one.get("fits"), one.get("sticker")) for one in lines] == [
        (None, None), (True, None), (False, "猫 1"), (False, None), (None, None),
    ]  # fmt: skip
    # Nobody was asked in files from before.
    votes = sticker_votes_in(latest(read_events(path, INTENTIONS)[0]))
    assert votes == {"c1": SENT, "c2": "猫 1", "c3": None}
    journal = Journal(path, INTENTIONS)
    journal.undo("ann")
    journal.undo("ann")
    assert journal.undo("ann").sticker == "猫 1"
    assert sticker_votes_in(journal.current) == {"c1": SENT}
    journal.close()


def test_a_second_process_is_refused_while_the_first_writes(tmp_path):
    path = tmp_path / "ann.jsonl"
    script = (
        "import sys; from pathlib import Path; from data_prep.annotation.journal import Journal\n"
        f"j = Journal(Path(sys.argv[1]), {INTENTIONS!r}); j.record('ann', 'label', 'c1', 'joy')\n"
        "print('ready', flush=True); sys.stdin.read()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(path)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        cwd=Path(__file__).parents[3],
    )  # fmt: skip
    try:
        assert process.stdout.readline() == "ready\n"
        with pytest.raises(LockedError, match="open in another process"):
            Journal(path, INTENTIONS)
    finally:
        process.kill()
        process.communicate()
    journal = Journal(path, INTENTIONS)  # a killed process holds no lock, and its event is there
    assert journal.current["c1"].intention == "joy"
    journal.close()


def test_a_write_that_fails_half_way_leaves_nothing_of_it(tmp_path, monkeypatch):
    path = tmp_path / "ann.jsonl"
    journal = Journal(path, INTENTIONS)
    journal.record("ann", LABEL, "c1", "joy")
    before = path.read_bytes()
    write = os.write

    def full_disk(file, content):
        if len(content) < 40:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(file, content[:30])

    monkeypatch.setattr(os, "write", full_disk)
    with pytest.raises(OSError, match="No space"):
        journal.record("ann", LABEL, "c2", "joy")
    monkeypatch.undo()
    assert path.read_bytes() == before
    assert list(journal.current) == ["c1"]
    journal.record("ann", SKIP, "c2")
    journal.close()
    assert [json.loads(line)["action"] for line in path.read_text().splitlines()] == [LABEL, SKIP]


def test_each_event_is_on_the_disk_before_the_call_returns(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(os, "fsync", lambda file: synced.append(os.fstat(file).st_size))
    journal = Journal(tmp_path / "ann.jsonl", INTENTIONS)
    for conversation in "ab":
        journal.record("ann", SKIP, conversation)
        assert synced[-1] == (tmp_path / "ann.jsonl").stat().st_size
    journal.close()
    assert len(synced) == 2


@pytest.mark.parametrize("name", ["", "../ann", "a/b", ".hidden", "a b", "a" * 41, "a\n", "<b>"])
def test_a_name_that_is_no_file_name_is_refused(name):
    with pytest.raises(ValueError, match="cannot be an annotator's name"):
        check_name(name)


@pytest.mark.parametrize("name", ["ann", "李雷", "a.b-c_9"])
def test_names_of_any_script_are_taken(name):
    assert check_name(name) == name


def test_undo_without_events_takes_nothing_back():
    assert remaining([]) == []
    assert set(ACTIONS) == {LABEL, NONE_FITS, SKIP, UNDO}
