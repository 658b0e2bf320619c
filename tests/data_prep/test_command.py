"""The wrapper of every command of data_prep: what a line may say, and how a command ends."""

import importlib

import pytest

from data_prep import command

ROOMS = ("formats", "chats", "embedded", "extraction", "annotation", "describe")


def refuse(line):
    raise ValueError(f"{line.source} is wrong in two places")


def parser(act=refuse):
    """A room with one step, which takes a path and a number."""
    found = command.room("here", "What it does.")
    step = found.add_subparsers(required=True).add_parser("walk")
    step.takes(act, source="what is read")
    step.add_argument("--least_steps", type=command.at_least(1), default=3, help="Steps.")
    return found


def ended(line, capsys, act=refuse):
    with pytest.raises(SystemExit) as end:
        command.run(parser(act), line)
    return end.value.code, capsys.readouterr().err


def test_wrong_input_is_one_message_and_status_1(capsys):
    code, message = ended(["walk", "in"], capsys)
    assert code == 1
    assert message == "python -m data_prep.here: error: in is wrong in two places\n"


def test_memory_that_runs_out_in_torch_is_a_message_too(capsys):
    def fill(line):
        raise type("OutOfMemoryError", (RuntimeError,), {})("CUDA out of memory")

    code, message = ended(["walk", "in"], capsys, fill)
    assert (code, message) == (1, "python -m data_prep.here: error: CUDA out of memory\n")


@pytest.mark.parametrize("line", [["--traceback", "walk", "in"], ["walk", "in", "--traceback"]])
def test_traceback_shows_where_an_error_comes_from(line):
    with pytest.raises(ValueError, match="wrong in two places"):
        command.run(parser(), line)


def test_an_error_that_no_user_can_act_on_is_not_made_to_look_like_one():
    with pytest.raises(KeyError):
        command.run(parser(lambda line: {}["absent"]), ["walk", "in"])


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (["walk", "in", "--least_step=4"], "Did you mean --least_steps?"),
        (["walk", "in", "out"], "unrecognized arguments: out"),
        (["walk", "in", "--least_steps=0"], "0 is smaller than 1"),
        (["walk", "in", "--least_steps=x"], "invalid number value: 'x'"),
        (["walk"], "required: SOURCE"),
        (["run", "in"], "choose from 'walk'"),
    ],
)
def test_a_wrong_line_is_status_2_and_says_what_is_wrong(line, said, capsys):
    code, message = ended(line, capsys)
    assert code == 2 and said in message


def test_a_right_line_reaches_the_act():
    lines = []
    command.run(parser(lines.append), ["walk", "in", "--least_steps=5"])
    assert [(str(line.source), line.least_steps) for line in lines] == [("in", 5)]


@pytest.mark.parametrize("room", ROOMS)
def test_every_room_says_how_it_is_called(room):
    text = importlib.import_module(f"data_prep.{room}.__main__").parser().format_help()
    assert f"usage: python -m data_prep.{room} " in text
    assert f"    python -m data_prep.{room} " in text
