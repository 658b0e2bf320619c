"""COMET-BART's class, tiny and random: shards, killed runs, translators."""

import json
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest
from fixtures.prepared import make_prepared_directory

from data_prep.extraction.comet import FromComet, content_of, extract
from data_prep.extraction.prompts import load_prompt
from data_prep.extraction.seq2seq import Comet, Seq2Seq, Translator
from data_prep.extraction.store import Shard
from data_prep.extraction.work import UnansweredError, Work
from int_ra_jax.common.types import RELATIONS
from int_ra_jax.data.schema import write_prepared
from int_ra_jax.data.validation import read_prepared, validate

PROMPT = load_prompt("comet", {"template": str})


def source(directory, prompt=PROMPT, **changes):
    settings = {"beams": 2, "returned": 2, "length": 4, "batch_size": 60, "device": "cpu"}
    return FromComet(str(directory), prompt, **settings | changes)


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    return make_prepared_directory(
        tmp_path_factory.mktemp("bare") / "d", num_conversations=12, knowledge=False
    )


@pytest.fixture(scope="module")
def whole(bare, comet_dir):
    """The directory that one undisturbed run writes."""
    out = bare.parent / "whole"
    extract(Work(bare, out, bare.parent / "cache-whole"), source(comet_dir))
    return out


def renamed(conversation):
    """The same conversation between people of other names."""
    turns = tuple(replace(turn, speaker=turn.speaker + "x") for turn in conversation.turns)
    return replace(conversation, turns=turns, reply_speaker=conversation.reply_speaker + "x")


def lines_of(cache):
    content = b"".join(file.read_bytes() for file in cache.glob("*.jsonl"))
    return [json.loads(line) for line in content.splitlines()]


def test_every_conversation_gets_five_relations_and_dataset_json_says_how(bare, whole):
    assert validate(whole) == []
    prepared = read_prepared(whole)
    known = [one.knowledge for split in prepared.conversations.values() for one in split]
    assert all(tuple(knowledge) == RELATIONS for knowledge in known)
    assert any(knowledge[relation] for knowledge in known for relation in RELATIONS)
    record = prepared.info["extraction"]["knowledge"]
    assert record["prompt"]["sha256"] == PROMPT.sha256 and record["beams"] == 2
    assert {line["prompt"] for line in lines_of(bare.parent / "cache-whole")} == {PROMPT.sha256}


def test_shards_without_coordination_merge_to_what_one_run_writes(bare, whole, comet_dir, tmp_path):
    cache, merge = tmp_path / "cache", dict(merge=True)
    for index in (2, 1, 3):
        work = Work(bare, tmp_path / "out", cache, Shard(index, 3))
        extract(work, source(comet_dir))
        assert not work.out.exists()
        if index != 3:
            with pytest.raises(UnansweredError, match=r"\d+ of 12 conversations"):
                extract(Work(bare, tmp_path / "out", cache, **merge), source(comet_dir))
    assert len(list(cache.glob("knowledge-*-of-3.jsonl"))) == 3
    assert len(lines_of(cache)) == 12
    extract(Work(bare, tmp_path / "out", cache, **merge), source(comet_dir))
    for file in ("conversations.jsonl", "stickers.jsonl"):
        assert (tmp_path / "out" / file).read_bytes() == (whole / file).read_bytes()


def test_only_conversations_whose_text_is_new_are_asked(bare, whole, comet_dir, tmp_path):
    cache = bare.parent / "cache-whole"
    before = len(lines_of(cache))
    prepared = read_prepared(bare)
    rows = [one for split in prepared.conversations.values() for one in split]
    said = replace(rows[0].turns[-1], text=rows[0].turns[-1].text + " today")
    rows[0] = replace(rows[0], turns=(*rows[0].turns[:-1], said))
    rows[1] = renamed(rows[1])
    changed = tmp_path / "changed"
    images = {sticker.image: bare / sticker.image for sticker in prepared.stickers}
    write_prepared(
        changed, rows, prepared.stickers, prepared.intentions, dict(prepared.info), images
    )
    extract(Work(changed, tmp_path / "out", cache), source(comet_dir))
    assert len(lines_of(cache)) == before + 1


@pytest.mark.slow
def test_a_killed_run_goes_on_where_it_was(bare, whole, comet_dir, tmp_path, monkeypatch):
    # One conversation a group, so that the kill falls between two of them.
    script = (
        "import sys, pathlib\n"
        "from data_prep.extraction import comet\n"
        "from data_prep.extraction.work import Work\n"
        "from data_prep.extraction.prompts import load_prompt\n"
        "comet._GROUP = 0\n"
        "prompt = load_prompt('comet', {'template': str})\n"
        "source = comet.FromComet(sys.argv[1], prompt, beams=2, returned=2, length=4,\n"
        "    batch_size=60, device='cpu')\n"
        "paths = [pathlib.Path(path) for path in sys.argv[2:]]\n"
        "comet.extract(Work(*paths), source)\n"
    )
    cache = tmp_path / "cache"
    command = [sys.executable, "-c", script, comet_dir, bare, tmp_path / "out", cache]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    file = cache / "knowledge.jsonl"
    while process.poll() is None and not (file.exists() and file.read_bytes().count(b"\n") >= 3):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = file.read_bytes()
    file.write_bytes(kept + b'{"key": "torn')
    done = kept.count(b"\n")
    assert 3 <= done <= 12
    asked = []
    generate = Comet.__call__

    def counted(self, contexts, batch_size):
        asked.extend(contexts)
        return generate(self, contexts, batch_size)

    monkeypatch.setattr(Comet, "__call__", counted)
    extract(Work(bare, tmp_path / "out2", cache), source(comet_dir))
    assert len(asked) == 12 - done
    assert file.read_bytes().startswith(kept) and len(lines_of(cache)) == 12
    assert len({line["key"] for line in lines_of(cache)}) == 12


def test_other_settings_or_another_prompt_ask_anew(bare, comet_dir, tmp_path):
    cache = tmp_path / "cache"
    prompt = tmp_path / "comet.toml"
    prompt.write_text('version = 2\ntemplate = "{context} [SEP] {relation} [GEN]"\n')
    other = load_prompt("comet", {"template": str}, prompt)
    sources = (
        source(comet_dir),
        source(comet_dir, beams=3),
        source(comet_dir, context_tokens=9),
        source(comet_dir, other),
    )
    for number, one in enumerate(sources):
        extract(Work(bare, tmp_path / f"out{number}", cache), one)
        assert len(lines_of(cache)) == 12 * (number + 1)


def test_the_oldest_turns_leave_first_and_a_long_turn_keeps_its_end(comet_dir):
    model = Seq2Seq(comet_dir, "cpu", "BartForConditionalGeneration")

    def fit(budget, turns):
        settings = dict(beams=1, returned=1, length=2, context_tokens=budget)
        return Comet(model, PROMPT.parts["template"], RELATIONS, **settings).fit(turns)

    assert fit(8, ["old words", " new ", "", "now"]) == "new now"
    assert fit(4, ["old", "a long turn"]) == "turn"
    assert fit(4, ["", " "]) == ""


CODES = {"m2m_dir": "zh", "nllb_dir": "zho_Hans", "marian_dir": ""}


@pytest.mark.parametrize("kind", CODES)
def test_a_translator_stands_before_comet(kind, request, bare, comet_dir, tmp_path):
    directory, code = request.getfixturevalue(kind), CODES[kind]
    translator = Translator(directory, "cpu", code)
    first = translator(["你好 我的 朋友", "", "good night"], batch_size=2)
    assert len(first) == 3 and first[1] == ""
    one = source(comet_dir, translate=str(directory), source_language=code)
    extract(Work(bare, tmp_path / "out", tmp_path / "cache"), one)
    record = read_prepared(tmp_path / "out").info["extraction"]["knowledge"]
    assert record["translator"].startswith("sha256:") and record["source_language"] == code


@pytest.mark.parametrize(
    ("kind", "code", "english"), [("m2m_dir", "zh", "__en__"), ("nllb_dir", "zho_Hans", "eng_Latn")]
)
def test_a_text_is_marked_with_its_language_and_english_is_asked_for(
    kind, code, english, request, monkeypatch
):
    translator = Translator(request.getfixturevalue(kind), "cpu", code)
    model = translator._model
    given = []
    generate = model.model.generate

    def watched(**arguments):
        given.append(arguments)
        return generate(**arguments)

    monkeypatch.setattr(model.model, "generate", watched)
    translator(["你好 我的 朋友"], batch_size=1)
    (arguments,) = given
    tokens = model.tokenizer.convert_ids_to_tokens(arguments["input_ids"][0].tolist())
    assert tokens[0].strip("_") == code and tokens[-1] == "</s>"
    assert model.tokenizer.convert_ids_to_tokens(arguments["forced_bos_token_id"]) == english


@pytest.mark.parametrize(("kind", "code"), [("m2m_dir", "zho_Hans"), ("nllb_dir", "zh")])
def test_a_language_that_the_translator_lacks_is_refused_with_some_it_has(kind, code, request):
    with pytest.raises(ValueError, match=f"'{code}' is no language of .* such as "):
        Translator(request.getfixturevalue(kind), "cpu", code)


def test_names_do_not_count_and_roles_do(bare):
    one = read_prepared(bare).conversations["train"][2]
    assert content_of(renamed(one)) == content_of(one)
    other = replace(one, reply_speaker=one.turns[0].speaker)
    assert (content_of(other) == content_of(one)) == (other.reply_speaker == one.reply_speaker)


def run(*arguments):
    command = [sys.executable, "-m", "data_prep.extraction", "knowledge", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.mark.slow
def test_the_command_reports_what_a_user_can_repair_in_one_line(bare, tmp_path):
    result = run(bare, f"--model={tmp_path / 'nowhere'}", f"--out={tmp_path / 'out'}")
    assert result.returncode == 1 and not (tmp_path / "out").exists()
    assert "nowhere" in result.stderr and "Traceback" not in result.stderr
