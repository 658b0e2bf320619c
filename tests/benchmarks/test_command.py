"""What all benchmarks share as commands: the table, the JSON file, and names that are known."""

import json
from pathlib import Path

import pytest

from benchmarks import command


def test_columns_of_a_table_are_aligned():
    table = command.table([{"": "ours", "ms": 7}, {"": "torch eager", "ms": "1234"}])
    assert table.splitlines() == [
        "|             |   ms |",
        "| ----------- | ---: |",
        "| ours        |    7 |",
        "| torch eager | 1234 |",
    ]


def test_rows_of_unequal_length_are_refused():
    with pytest.raises(ValueError, match="zip"):
        command.table([{"": "ours", "ms": 7}, {"": "torch eager"}])


def test_what_is_printed_is_also_written_where_the_command_says(tmp_path, capsys):
    parser = command.parser("One line.\n\nMore.")
    parser.add_argument("--table", type=Path)
    out = tmp_path / "new" / "figures.json"
    arguments = parser.parse_args([f"--out={out}", "--table=folder"])
    command.publish(arguments, "the table", ratio=1.5)
    assert capsys.readouterr().out == "\nthe table\n"
    assert json.loads(out.read_text()) == {
        "arguments": {"out": str(out), "table": "folder"}, "ratio": 1.5
    }  # fmt: skip
    command.publish(parser.parse_args([]), "the table")
    assert list(tmp_path.iterdir()) == [out.parent]


def test_names_that_are_not_known_are_refused_together(capsys):
    parser = command.parser("Two peers.")
    parser.add_argument("--peers", type=command.chosen_from(("eager", "compile")))
    assert parser.parse_args(["--peers=eager,compile"]).peers == ["eager", "compile"]
    assert parser.parse_args(["--peers="]).peers == []
    with pytest.raises(SystemExit):
        parser.parse_args(["--peers=lazy,eager,slow"])
    assert "['lazy', 'slow']: choose from eager, compile" in capsys.readouterr().err
