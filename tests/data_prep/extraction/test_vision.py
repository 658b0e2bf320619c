"""Stickers described by tiny random models of the very classes, in this process."""

import json

import pytest
from fixtures.prepared import make_prepared_directory

from data_prep.extraction import dialogue, in_process
from data_prep.extraction import work as extraction_work
from data_prep.extraction.attributes import Describer, extract
from data_prep.extraction.dialogue import BackendError
from data_prep.extraction.frames import Picture
from data_prep.extraction.prompts import load_prompt
from data_prep.extraction.work import Chat, UnansweredError, Work
from int_ra_jax.common.types import ATTRIBUTES
from int_ra_jax.data.validation import read_prepared

PROMPT = load_prompt("attributes", {"questions": dict})


def work(directory, out, **changes):
    return Work(directory, out, out.parent / "cache", overwrite=True, **changes)


@pytest.mark.parametrize("name", ["Qwen2VL", "Qwen2_5_VL", "Qwen3VL", "llava"])
def test_a_model_of_the_family_is_asked_four_questions_about_each_sticker(
    name, vision_dir, tmp_path, monkeypatch
):
    directory = make_prepared_directory(tmp_path / "d", num_stickers=4)
    chat = Chat(str(vision_dir(name)), device="cpu", batch_size=2, length=3)
    extract(work(directory, tmp_path / "out"), Describer(chat, PROMPT, "model"), side=64)
    lines = (tmp_path / "cache/attributes.jsonl").read_text().splitlines()
    results = [json.loads(line) for line in lines]
    assert len(results) == 4 * len(ATTRIBUTES)
    assert {result["prompt"] for result in results} == {PROMPT.sha256}
    info = read_prepared(tmp_path / "out").info["extraction"]["attributes"]
    assert info["model"]["identity"] == results[0]["model"]

    def refuse(*_, **__):
        raise AssertionError("loaded a model although everything is answered")

    monkeypatch.setattr(in_process, "InProcessChat", refuse)
    monkeypatch.setattr(extraction_work, "InProcessChat", refuse)
    extract(work(directory, tmp_path / "again"), Describer(chat, PROMPT, "model"), side=64)
    first, second = ((tmp_path / out / "stickers.jsonl").read_bytes() for out in ("out", "again"))
    assert first == second


def test_a_model_that_brings_its_own_code_is_refused_with_what_takes_its_place(tmp_path):
    own = {"model_type": "qwen", "auto_map": {"AutoConfig": "configuration_qwen.QWenConfig"}}
    (tmp_path / "config.json").write_text(json.dumps(own))
    with pytest.raises(ValueError, match=r"code of its repository.* Qwen2-VL in place of Qwen-VL"):
        in_process.InProcessChat(tmp_path, sees=True, wanted_device="cpu", batch_size=1, length=3)


def test_a_picture_that_the_processor_refuses_harms_no_other_of_its_batch(
    vision_dir, tmp_path, monkeypatch, caplog
):
    directory = make_prepared_directory(tmp_path / "d", num_stickers=4)
    bad = directory / "images/sticker_002.png"
    load = Picture.load

    def refused(picture, *more):
        if picture.path == bad:
            raise ValueError("absolute aspect ratio must be smaller than 200")
        return load(picture, *more)

    monkeypatch.setattr(Picture, "load", refused)
    chat = Chat(str(vision_dir("Qwen2VL")), device="cpu", batch_size=4, length=3)
    describer = Describer(chat, PROMPT, "model")
    with pytest.raises(UnansweredError, match="1 of 4 stickers") as stopped:
        extract(work(directory, tmp_path / "out"), describer, side=64)
    assert f"sticker_002.png: {in_process.REFUSED}: absolute aspect ratio" in caplog.text
    assert "4 records in, 3 kept" in str(stopped.value)
    extract(work(directory, tmp_path / "out", leave_unanswered=True), describer, side=64)
    before, after = (read_prepared(one).stickers for one in (directory, tmp_path / "out"))
    assert after[2] == before[2] and after[1] != before[1]
    ledger = read_prepared(tmp_path / "out").info["extraction"]["attributes"]["ledger"]
    assert ledger["left_out"][in_process.REFUSED] == {"count": 1, "first": "sticker_002"}
    # Where every picture is refused, the run ends early and names one of them.
    monkeypatch.setattr(Picture, "load", lambda *_: {}["no"])
    monkeypatch.setattr(dialogue, "IN_A_ROW", 3)
    early = (
        r"(?s)3 dialogues in a row failed at .*sticker_\d+\.png.*3 \(the model's processor refused"
    )
    with pytest.raises(BackendError, match=early):
        extract(Work(directory, tmp_path / "none", tmp_path / "empty", overwrite=True), describer)
