"""Stickers described by tiny random models of the very classes, in this process."""

import json

import pytest
from fixtures.prepared import make_prepared_directory

from data_prep.extraction import in_process
from data_prep.extraction import work as extraction_work
from data_prep.extraction.attributes import Describer, extract
from data_prep.extraction.prompts import load_prompt
from data_prep.extraction.work import Chat, Work
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
