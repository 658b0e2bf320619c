"""Table 1, Figure 2 and the findings about leaks, on directories whose content is known."""

import csv
import html
import subprocess
import sys
import warnings
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fixtures.prepared import draw_sticker, make_prepared_directory
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep.describe import intention_plot, leakage, statistics
from data_prep.describe.statistics import ALL, describe, write_statistics
from int_ra_jax.data.schema import (
    SPLITS,
    Conversation,
    PreparedDirectory,
    StickerEntry,
    Turn,
    write_prepared,
)
from int_ra_jax.data.validation import PreparedDataError, Problem, inspect

ROOT = Path(__file__).parents[3]
WORDS = st.lists(st.sampled_from(["ab", "c", "déjà", "don't"]), min_size=1, max_size=5)
CONVERSATIONS = st.lists(
    st.tuples(
        st.sampled_from(SPLITS),
        st.lists(st.tuples(st.sampled_from("xyz"), WORDS), min_size=1, max_size=4),
        st.sampled_from("xyz"),
        st.sampled_from(["joy", "anger"]),
    ),
    max_size=12,
)


def prepared_of(rows, path=Path("."), stickers=("s0", "s1")):
    members = {split: [] for split in SPLITS}
    for number, (split, turns, replier, intention) in enumerate(rows):
        said = tuple(Turn(who, text if isinstance(text, str) else " ".join(text))
                     for who, text in turns)  # fmt: skip
        members[split].append(
            Conversation(f"c{number}", split, said, replier, f"s{number % 2}", intention)
        )
    gallery = tuple(StickerEntry(one, f"images/{one}.png", {}) for one in stickers)
    frozen = {split: tuple(found) for split, found in members.items()}
    return PreparedDirectory(path, frozen, gallery, ("joy", "anger"), {"name": "known"})


@given(rows=CONVERSATIONS)
def test_columns_add_up_and_means_are_quotients_of_sums(rows):
    table = {row.name: row.values for row in statistics.table_rows(prepared_of(rows), spaced=True)}
    for name in ("conversations", "turns", "turns, with the reply", "words", "characters"):
        assert sum(table[name][split] for split in SPLITS) == table[name][ALL]
    turns = [turn for _, turns, _, _ in rows for turn in turns]
    assert table["turns"][ALL] == len(turns)
    assert table["turns, with the reply"][ALL] == len(turns) + len(rows)
    assert table["words"][ALL] == sum(len(words) for _, words in turns)
    assert table["characters"][ALL] == sum(len("".join(words)) for _, words in turns)
    for column in (*SPLITS, ALL):
        conversations = max(table["conversations"][column], 1)
        quotient = table["turns"][column] / conversations
        assert table["turns per conversation"][column] == pytest.approx(quotient)
        plus = 1 if table["conversations"][column] else 0
        with_reply = table["turns per conversation, with the reply"][column]
        assert with_reply == pytest.approx(quotient + plus)


@given(rows=CONVERSATIONS)
def test_every_conversation_is_in_one_bar_of_figure_2(rows):
    counts = statistics.intention_counts(prepared_of(rows))
    for name, per in counts.items():
        for split in SPLITS:
            assert per[split] == sum(row[0] == split and row[3] == name for row in rows)
        assert per[ALL] == sum(per[split] for split in SPLITS)


@settings(deadline=None)
@given(rows=CONVERSATIONS)
def test_texts_are_the_same_whatever_their_case_and_spaces(rows):
    prepared = prepared_of(rows)
    shouted = {
        split: [
            Conversation(c.id, c.split, tuple(Turn("x", f" {t.text.upper()}  ") for t in c.turns),
                         c.reply_speaker, c.sticker, c.intention)
            for c in members
        ]
        for split, members in prepared.conversations.items()
    }  # fmt: skip
    plain = list(leakage.text_findings(prepared.conversations))
    assert plain == list(leakage.text_findings(shouted))
    texts = {s: {"\n".join(leakage.plain(t.text) for t in c.turns) for c in members}
             for s, members in prepared.conversations.items()}  # fmt: skip
    shared = any(texts[a] & texts[b] for a in SPLITS for b in SPLITS if a < b)
    assert shared == any(one.kind == "same text" for one in plain)


def test_chinese_counts_characters_and_has_no_row_of_words():
    rows = [("train", [("x", "你好 吗 ok")], "y", "joy")]
    prepared = prepared_of(rows)
    assert leakage.separates_no_words(prepared.conversations)
    table = {row.name: row.values for row in statistics.table_rows(prepared, spaced=False)}
    assert "words" not in table
    assert table["characters"]["train"] == 5
    assert table["characters per turn"]["train"] == 5
    english = prepared_of([("train", [("x", "hello 你")], "y", "joy")])
    assert not leakage.separates_no_words(english.conversations)


def test_speakers_whom_the_source_does_not_name_are_not_counted(tmp_path):
    rows = [("train", [("x", "hi"), ("y", "ho")], "x", "joy")]
    found = inspect(make_prepared_directory(tmp_path / "d"))
    told = describe(replace(found, prepared=prepared_of(rows, stickers=())))
    untold = describe(
        replace(
            found,
            prepared=prepared_of([*rows, ("test", [("unknown", "a")], "x", "joy")], stickers=()),
        )
    )
    assert {row.name: row.values[ALL] for row in told.table}["speakers per conversation"] == 2
    assert not any("speakers" in row.name for row in untold.table)
    assert [len(told.table) - len(untold.table), len(untold.notes)] == [2, len(told.notes)]
    assert any("does not tell who said each turn" in note for note in untold.notes)


LONG = "we met at the old harbour and talked about boats until the sun was gone"


def test_each_leak_is_found_and_named(tmp_path):
    rows = [
        ("train", [("x", LONG)], "y", "joy"),  # s0
        ("train", [("x", "something else"), ("y", "and a line that is long enough")], "x", "joy"),
        ("valid", [("x", LONG + "!")], "y", "joy"),  # near c0, s0
        ("test", [("y", LONG.upper())], "x", "anger"),  # same as c0, s1
        ("test", [("y", LONG.upper())], "x", "anger"),  # repeated, s0
        ("test", [("y", "hm"), ("x", "And a  line that is long enough")], "x", "anger"),  # s1
    ]
    prepared = prepared_of(rows, tmp_path, ("s0", "s1", "s2"))
    (tmp_path / "images").mkdir()
    rng = np.random.default_rng(0)
    for number in range(2):
        (tmp_path / f"images/s{number}.png").write_bytes(draw_sticker("gold", rng))
    (tmp_path / "images/s2.png").write_bytes((tmp_path / "images/s0.png").read_bytes())
    found = {(one.kind, one.first, one.second) for one in leakage.find(prepared)}
    assert found >= {
        ("same text", "test c3", "train c0"),
        ("near text", "valid c2", "train c0"),
        ("repeated text", "test c4", "test c3"),
        ("shared turn", "test c5", "train c1"),
        ("same sticker", "valid s0", ""),
        ("unused sticker", "s2", ""),
        ("intention not in train", "test anger", ""),
        ("same picture", "s0", "s2"),
    }
    kinds = Counter(one.kind for one in leakage.find(prepared))
    assert kinds["shared turn"] == 3  # c3 and c4 repeat the turn of c0; c2 differs by a sign
    assert kinds["sticker not in train"] == 0
    assert set(kinds) <= set(leakage.KINDS)


def test_chinese_leaks_are_found_at_the_length_that_chinese_has():
    said = "我们昨天晚上在老地方见面聊到天亮才回家"
    changed = said.replace("昨", "前")
    rows = [
        ("train", [("x", said), ("y", "今天一起去看那部电影吧")], "x", "joy"),
        ("valid", [("x", changed), ("y", "今天一起去看那部电影吧")], "x", "joy"),
        ("test", [("x", "你最近怎么样"), ("y", "还好")], "x", "joy"),
        ("train", [("x", "你最近怎么样")], "y", "joy"),
    ]
    conversations = prepared_of(rows).conversations
    near = [one for one in leakage.text_findings(conversations) if one.kind == "near text"]
    assert [(one.first, one.second) for one in near] == [("valid c1", "train c0")]
    shared = [(one.first, one.second) for one in leakage.turn_findings(conversations)]
    assert shared == [("valid c1", "train c0")]  # and not the greeting of six characters


def test_a_picture_saved_once_more_is_near_and_another_is_not(tmp_path):
    from PIL import Image

    (tmp_path / "images").mkdir()
    rng = np.random.default_rng(0)
    noise = Image.fromarray(rng.integers(0, 255, (12, 12, 3), dtype=np.uint8)).resize((120, 120))
    noise.save(tmp_path / "images/a.png")
    noise.save(tmp_path / "images/b.jpg", quality=80)
    other = rng.integers(0, 255, (12, 12, 3), dtype=np.uint8)
    Image.fromarray(other).resize((120, 120)).save(tmp_path / "images/c.png")
    files = {"a": "a.png", "b": "b.jpg", "c": "c.png"}
    gallery = [StickerEntry(one, f"images/{file}", {}) for one, file in files.items()]
    (found,) = leakage.picture_findings(tmp_path, gallery)
    assert (found.kind, found.first, found.second) == ("near picture", "a", "b")


def test_the_files_hold_what_the_terminal_shows(tmp_path):
    directory = make_prepared_directory(tmp_path / "d")
    lines = write_statistics(directory, tmp_path / "out")
    text = "\n".join(lines)
    assert "16          4          4         24" in text
    assert "without the sticker reply" in text
    with (tmp_path / "out/table1.csv").open(encoding="utf-8") as file:
        table = {row[0]: row[1:] for row in csv.reader(file)}
    assert table[""] == [*SPLITS, ALL]
    assert table["conversations"] == ["16", "4", "4", "24"]
    assert table["stickers in the gallery"] == ["12"] * 4
    with (tmp_path / "out/intentions.csv").open(encoding="utf-8") as file:
        assert sum(int(row["all"]) for row in csv.DictReader(file)) == 24
    assert (tmp_path / "out/figure2.png").read_bytes().startswith(b"\x89PNG")
    page = (tmp_path / "out/statistics.html").read_text("utf-8")
    assert "data:image/png;base64," in page
    assert "http" not in page.replace("data:", "")


def test_names_from_the_data_are_text_on_the_page(tmp_path):
    rng = np.random.default_rng(0)
    name = "<script>alert(1)</script>"
    conversations = [
        Conversation(f"c{split}{name}", split, (Turn("a", f"hi {LONG}"),), "b", "s", name)
        for split in SPLITS
    ]
    sticker = StickerEntry("s", "images/s.png", dict.fromkeys(
        ("gesture", "posture", "facial", "verbal"), ""
    ))  # fmt: skip
    info = {"name": name, "version": "1", "licence": "none", "source": "written"}
    write_prepared(tmp_path / "d", conversations, [sticker], [name], info,
                   {"images/s.png": draw_sticker("gold", rng)})  # fmt: skip
    lines = write_statistics(tmp_path / "d", tmp_path / "out")
    page = (tmp_path / "out/statistics.html").read_text("utf-8")
    assert "<script" not in page
    assert html.escape(name) in page
    # Validation refuses equal texts in two splits; here they are left out and counted.
    assert any("2 records are left out" in line for line in lines)


def test_characters_without_a_font_are_named_and_warn_nobody():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        counts = {"joy": dict.fromkeys(SPLITS, 1), "\U0001f9ff\ue000": dict.fromkeys(SPLITS, 2)}
        picture, missing = intention_plot.draw_intentions(counts, SPLITS)
    assert picture.startswith(b"\x89PNG")
    assert "\ue000" not in intention_plot.fonts_for("joy")[1]
    assert "\U0001f9ff" in missing


def test_chinese_names_are_drawn_where_a_font_has_them():
    fonts, missing = intention_plot.fonts_for("惊讶")
    if missing:
        pytest.skip("no font with Chinese signs on this machine")
    assert len(fonts) == 2
    intention_plot.draw_intentions({"惊讶": dict.fromkeys(SPLITS, 3)}, SPLITS)


def test_a_directory_of_which_nothing_can_be_read_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="Name a prepared directory"):
        write_statistics(tmp_path / "none", tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(PreparedDataError, match="file is missing"):
        write_statistics(tmp_path / "empty", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_mode_prints_its_table(tmp_path):
    directory = make_prepared_directory(tmp_path / "d")
    command = [sys.executable, "launch.py", "--mode=stats", f"--workdir={tmp_path / 'out'}"]
    command.append(f"--prepared_dir={directory}")
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Figure 2: conversations by intention" in done.stdout


def test_problems_of_the_directory_are_counted_in_the_notes(tmp_path):
    found = inspect(make_prepared_directory(tmp_path / "d"))
    assert not any("problems" in note for note in describe(found).notes)
    broken = replace(found, problems=[Problem("a", 1, "wrong")], left_out=["record"])
    assert describe(broken).notes[0].startswith("1 problems; 1 records are left out")
