"""The benchmark of the open gallery: contestants take turns, and ratios are to ours."""

from benchmarks import gallery


def test_contestants_take_turns_and_the_first_round_is_not_counted():
    asked = []
    seconds = gallery.rounds({name: lambda name=name: asked.append(name) for name in "ab"}, 2)
    assert asked == ["a", "b"] * 3
    assert {name: len(each) for name, each in seconds.items()} == {"a": 2, "b": 2}


def test_each_row_is_compared_with_ours_at_its_size():
    rows = gallery.rows_of({489: {"ours": [0.001] * 3, "numpy": [0.002, 0.002, 0.004]}})
    assert [row["/ ours"] for row in rows] == ["1.00", "2.00"]
    assert rows[1] | {"p99 ms": ""} == {
        "gallery": "489", "": "numpy", "p50 ms": "2.00", "p99 ms": "", "/ ours": "2.00"
    }  # fmt: skip


def test_no_two_drawn_stickers_are_the_same():
    assert len({*gallery.pictures(20)}) == 20
