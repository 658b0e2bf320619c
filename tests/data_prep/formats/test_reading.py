"""Reading files of third parties line by line."""

import base64
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep.formats import reading
from data_prep.formats.reading import InputDirectory, decode_base64, parse_record
from data_prep.problems import Problems, short

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def make_input(tmp_path, content, name="f"):
    (tmp_path / name).write_bytes(content)
    problems = Problems(tmp_path)
    return InputDirectory(tmp_path, problems), problems


def messages(problems):
    return [str(problem) for problem in problems._kept]


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(st.text(), JSON, max_size=4))
def test_an_object_is_read_as_json_and_as_the_literal_of_the_same_value(record):
    assert parse_record(json.dumps(record)) == record
    assert parse_record(repr(record)) == record


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="{}[]()\":,\\'ntu0e9-+*_ .#xbrf\ud800\n", max_size=40) | st.text())
def test_no_text_breaks_the_parser_in_another_way_than_a_value_error(text):
    try:
        parse_record(text)
    except ValueError as error:
        short(str(error)).encode("ascii")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 100_000, "nested too deeply"),
        ('{"a": ' * 100_000, "nested too deeply"),
        ("{'a': " + "(" * 5_000, "not JSON"),
        ("{'a': " + "-" * 50_000 + "1}", "not JSON"),
        ("{'a': " + "1+" * 50_000 + "1}", "not JSON"),
        ('{"a": "\\ud800"}', "not UTF-8"),
        ('{"a": 1, "a": 2}', "stands twice"),
        ('{"a": NaN}', "no number"),
        ('{"a": 1e999}', "not JSON compliant"),
        ('{"a": ' + "9" * 5_000 + "}", "4300"),
        ("__import__('os').system('true')", "not JSON"),
        ("{1, 2}", "not JSON"),
        ("[1]", "expected an object"),
    ],
)
def test_a_line_that_is_no_plain_object_says_what_it_is(text, message):
    with pytest.raises(ValueError, match=message):
        parse_record(text)


def test_broken_json_on_line_70000_is_reported_there_and_the_rest_is_read(tmp_path):
    lines = [b'{"a": 1}'] * 80_000
    lines[69_999] = b'{"a": 1'
    source, problems = make_input(tmp_path, b"\n".join(lines))
    assert sum(1 for _ in source.records("f")) == 79_999
    assert len(messages(problems)) == 1
    assert messages(problems)[0].startswith("f:70000: not JSON")


def test_a_line_without_end_is_reported_and_what_follows_is_read(tmp_path, monkeypatch):
    source, problems = make_input(tmp_path, b"a" * 10_000 + b"\nb\n" + b"c" * 101 + b"\nd")
    assert list(source.lines("f", limit=100)) == [(2, "b"), (4, "d")]
    assert messages(problems) == [f"f:{n}: line has more than 100 bytes" for n in (1, 3)]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "f:0: file is empty"),
        ("{}".encode("utf-16"), "f:1: file is UTF-16 or UTF-32"),
        ("{}\n".encode("utf-16-le"), "f:1: line holds a NUL byte"),
        ("ok\n表情包".encode("gb18030"), "f:2: text is not UTF-8"),
        (b"a\n\xff\xff\n", "f:2: text is not UTF-8: invalid start byte"),
        (b"\xed\xa0\x80", "f:1: text is not UTF-8"),
    ],
)
def test_other_encodings_are_reported_with_the_line(content, message, tmp_path):
    source, problems = make_input(tmp_path, content)
    list(source.lines("f"))
    assert messages(problems)[0].startswith(message)
    document, problems = make_input(tmp_path, content)
    list(document.members("f"))
    assert messages(problems)[0].startswith(message)


def test_gbk_is_named_with_the_command_that_converts_it(tmp_path):
    source, problems = make_input(tmp_path, "表情包".encode("gbk"))
    list(source.lines("f"))
    assert "iconv -f GB18030 -t UTF-8" in messages(problems)[0]


def test_a_byte_order_mark_is_passed_over_with_a_warning(tmp_path):
    source, problems = make_input(tmp_path, b'\xef\xbb\xbf{"a": 1}\r\n')
    assert list(source.records("f")) == [(1, {"a": 1})]
    assert (problems.total, problems.warnings) == (0, 1)


def test_a_link_that_leaves_the_directory_is_not_there(tmp_path):
    (tmp_path / "secret").write_text("x")
    inside = tmp_path / "in"
    inside.mkdir()
    (inside / "link").symlink_to(tmp_path / "secret")
    (inside / "own").write_text("x")
    source = InputDirectory(inside, Problems(inside))
    assert not source.has("link")
    assert not source.has("../secret")
    assert source.names() == ["own"]


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.text(), JSON, max_size=4) | st.lists(JSON, max_size=4), st.booleans())
def test_members_of_a_document_come_with_their_lines(tmp_path_factory, value, indent):
    written = json.dumps(value, indent=1 if indent else None)
    source, problems = make_input(tmp_path_factory.mktemp("d"), written.encode())
    found = list(source.members("f"))
    expected = list(value.items()) if isinstance(value, dict) else list(enumerate(value))
    assert [(key, member) for _, key, member in found] == [(str(k), v) for k, v in expected]
    for line, key, member in found:
        shown = json.dumps(key if isinstance(value, dict) else member)
        assert written.splitlines()[line - 1].strip().startswith(shown[:1]) or not indent
    assert problems.total == 0


@pytest.mark.parametrize(
    "text", ["", "{", "1", '{"a"', '{"a":1,}', "[1,]", "[1 2]", "[] x", "[" * 9999]
)
def test_a_damaged_document_is_one_problem(text, tmp_path):
    source, problems = make_input(tmp_path, text.encode())
    list(source.members("f"))
    assert problems.total == 1


def test_a_document_above_the_limit_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "MAX_DOCUMENT", 10)
    source, problems = make_input(tmp_path, b"[" + b" " * 10 + b"]")
    assert list(source.members("f")) == []
    assert messages(problems) == ["f:0: file has more than 10 bytes"]


@given(st.binary())
def test_both_alphabets_of_base64_decode(content):
    assert decode_base64(base64.b64encode(content).decode()) == content
    assert decode_base64(base64.urlsafe_b64encode(content).decode()) == content


@pytest.mark.parametrize("text", ["abc", "ab=c", "a b c d", "表情", "AA==AAAA", "A"])
def test_base64_with_a_wrong_character_is_an_error(text):
    with pytest.raises(ValueError, match="does not decode"):
        decode_base64(text)
