"""What is exported gives what the library gives, to a reader that knows neither it nor JAX."""

import ast
import copy
import dataclasses
import importlib.util
import json
import random
from pathlib import Path

import jax
import numpy as np
import pytest
from fixtures.trained import tiny_config

from configs import clip, int_ra, lgur, mod, pcme
from int_ra_jax.common.types import RELATIONS, Sticker
from int_ra_jax.data.emoji_names import in_language
from int_ra_jax.data.schema import Conversation, Turn
from int_ra_jax.data.text import compose_context
from int_ra_jax.models import registry
from int_ra_jax.models.systems.srs import Regions
from int_ra_jax.retrieval.retriever import Retriever
from int_ra_jax.retrieval.stickers import GallerySticker
from int_ra_jax.run.workdir import open_run

pytest.importorskip("onnx", reason="the extra export is not installed")
onnxruntime = pytest.importorskip("onnxruntime", reason="the extra export is not installed")
parquet = pytest.importorskip("pyarrow.parquet", reason="the extra export is not installed")

from int_ra_jax.retrieval import export as exporting  # noqa: E402
from int_ra_jax.retrieval.gallery import Gallery  # noqa: E402
from int_ra_jax.retrieval.onnx_program import program  # noqa: E402

PATH = Path(__file__).resolve().parents[2] / "examples" / "rank_exported.py"
INPUTS = {"ids": np.int32, "mask": np.bool_, "type_ids": np.int32, "turn": np.int32}
SAID = (
    *("we won the match today", "what a day", "I'm so tired of it all ...", "REALLY?!", "ok"),
    *("我们今天赢了比赛", "你好呀，早上好", "累死了", "混 mixed 文字 text"),
    *("😂😂😂", "go 👍🏽 now 👍🏽 👍🏽", "🇩🇪🇫🇷 👨‍👩‍👧 1️⃣ ❤️", "☂☂", "😀 a 😀"),
    *("", "   ", "[SEP] and [CLS] </s> <s> [PAD]", "a\tb\nc", "ça va? naïve Straße", "x" * 300),
    *("never ending " * 60, "没完没了的话" * 40, "?" * 90, "don't", "A : B"),
)
PHRASES = (
    "to celebrate",
    "Happy.",
    "happy",
    "none",
    " proud ",
    "睡觉",
    "to go home at last " * 9,
    "",
)


def drawn(number):
    """Draws chats, most of them short: any language, empty turns, too long ones, many people."""
    draw = random.Random(number)
    people = ["ann", "bo", "安娜", "d"] if number % 25 else [f"p{n}" for n in range(40)]
    turns = [
        {"speaker": draw.choice(people), "text": draw.choice(SAID)}
        for _ in range(draw.choice((1, 2, 3, 5, 9, 40)))
    ]
    chat = {"turns": turns, "reply_speaker": draw.choice([*people, "someone else"])}
    if draw.random() < 0.5:
        some = {name: draw.choices(PHRASES, k=draw.randint(0, 3)) for name in RELATIONS}
        chat["knowledge"] = some
    return chat


CHATS = [drawn(number) for number in range(100)]


def conversation(chat):
    turns = tuple(Turn(one["speaker"], one["text"]) for one in chat["turns"])
    known = {name: tuple(said) for name, said in chat.get("knowledge", {}).items()} or None
    return Conversation("c", "test", turns, chat["reply_speaker"], "", "", knowledge=known)


@pytest.fixture(scope="module")
def reader():
    spec = importlib.util.spec_from_file_location("rank_exported", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def workdir(trained, tmp_path_factory):
    return trained.copy(tmp_path_factory.mktemp("exported") / "run")


@pytest.fixture(scope="module")
def exported(workdir):
    target = workdir.parent / "phone"
    lines = exporting.export(workdir, target)
    assert lines[-1] == f"written: {target}"
    assert [one.name for one in workdir.parent.iterdir() if "incomplete" in one.name] == []
    return target


def test_the_reader_knows_neither_jax_nor_this_project():
    tree = ast.parse(PATH.read_text("utf-8"))
    imports = [one for one in ast.walk(tree) if isinstance(one, ast.Import | ast.ImportFrom)]
    names = {getattr(one, "module", None) or one.names[0].name for one in imports}
    assert {"numpy", "onnxruntime", "pyarrow", "tokenizers"} <= names
    assert not {name for name in names if name.startswith(("jax", "int_ra", "transformers"))}


@pytest.mark.parametrize("how", ["as trained", "emoji as words", "turns alone", "no knowledge"])
def test_the_reader_makes_the_tokens_of_the_library(how, workdir, reader, tmp_path):
    run = open_run(workdir)
    config = copy.deepcopy(run.config)
    with config.unlocked():
        config.text.speakers = "off" if how == "turns alone" else "prefix"
        config.text.knowledge = "off" if how == "no knowledge" else "append"
    names = in_language("en") if how == "emoji as words" else None
    run = dataclasses.replace(run, config=config, tokenizer=run.tokenizer.with_emoji(names))
    about = {"text": exporting.write_text(run, tmp_path)}
    (tmp_path / "export.json").write_text(json.dumps(about), "utf-8")
    some = [conversation(one) for one in CHATS]
    tokens, unread = compose_context(run.tokenizer, some, config.text, run.dataset.has_knowledge)
    assert sum(one.newest_cut for one in unread) > 9 and sum(o.turns_dropped for o in unread) > 99
    for row, chat in enumerate(CHATS):
        found = reader.inputs_of(chat, tmp_path)
        for name in INPUTS:
            expected = getattr(tokens, name)[row][tokens.mask[row]]
            np.testing.assert_array_equal(found[name][0], expected, err_msg=f"{name} of {chat}")


def test_the_reader_ranks_as_the_library_does(workdir, exported, reader):
    retriever = Retriever.from_workdir(workdir)
    session = onnxruntime.InferenceSession(exported / "encoder.onnx")
    chats = CHATS[:30]  # each opens the export anew; that all give the same tokens is tested above
    ranked = retriever.reply_many([conversation(one) for one in chats], top_k=12)
    for chat, expected in zip(chats, ranked, strict=True):
        found = dict(reader.best(chat, exported, 12))
        scores = [found[one.sticker] for one in expected.stickers]
        np.testing.assert_allclose(scores, [s.score for s in expected.stickers], atol=1e-4)
        assert list(found.values()) == sorted(found.values(), reverse=True)
        (probable,) = session.run(["intentions"], reader.inputs_of(chat, exported))
        known = expected.intention_probabilities
        np.testing.assert_allclose(
            probable[0], [known[name] for name in retriever.run.dataset.intentions], atol=1e-4
        )


def test_the_export_says_what_it_holds(workdir, exported):
    about = json.loads((exported / "export.json").read_text("utf-8"))
    run = open_run(workdir)
    assert about["system"] == "int_ra" and about["encoder"]["largest_difference"] <= 1e-4
    assert about["encoder"]["intentions"] == list(run.dataset.intentions)
    assert set(about["files"]) == {"encoder.onnx", "tokenizer.json", "gallery.parquet"}
    for name, one in about["files"].items():
        assert exporting.hashed(exported / name) == one
    table = parquet.read_table(exported / "gallery.parquet")
    rows = {row["id"]: row for row in table.to_pylist()}
    assert set(rows) == set(run.dataset.sticker_rows) and about["gallery"]["stickers"] == 12
    for row, entry in enumerate(run.dataset.stickers):
        kept = rows[entry.id]
        assert kept["picture"] == run.dataset.image(row)
        assert (kept["tags"], kept["facial"]) == (list(entry.tags), entry.attributes["facial"])
        assert len(kept["embedding"]) == about["gallery"]["width"] == 16


def test_an_open_gallery_is_exported_with_its_flags(workdir, tmp_path):
    picture = open_run(workdir).dataset.image(0)
    gallery = Gallery.open(tmp_path / "gallery", workdir)
    new = [GallerySticker(f"cat_{n}", picture=picture, pack="猫", adult=n == 1) for n in range(3)]
    assert gallery.put(new).kept == 3
    gallery.hide(["cat_2"])
    assert exporting.write_gallery(open_run(workdir), gallery, tmp_path)["stickers"] == 3
    rows = parquet.read_table(tmp_path / "gallery.parquet").to_pylist()
    flags = {row["id"]: (row["adult"], row["hidden"], row["approved"]) for row in rows}
    assert flags == {
        "cat_0": (False, False, False),
        "cat_1": (True, False, False),
        "cat_2": (False, True, False),
    }
    vectors = gallery.vectors([row["id"] for row in rows])
    np.testing.assert_array_equal([row["embedding"] for row in rows], vectors)
    assert {row["pack"] for row in rows} == {"猫"} and rows[0]["picture"] == picture


@pytest.mark.parametrize(
    ("system", "changes"),
    [
        (int_ra, {"intention_match": 2.0, "newest_turn": True, "text_pool": "last"}),
        (clip, {"text_pool": "mean", "text__lora_rank": 2, "intention_match": 1.0, "remat": True}),
        (lgur, {"dtype": "bfloat16"}),
        (mod, {}),
        (pcme, {}),
    ],
)
def test_the_program_computes_what_jax_does_at_any_size(system, changes, workdir):
    run = open_run(workdir)
    changes = {f"model__{name}": value for name, value in changes.items()}
    config = tiny_config("none", system, **changes)
    run = dataclasses.replace(run, config=config)
    params = registry.initialise(config, run.facts, jax.random.key(0))
    encode, draw = exporting.encoder(run, params), np.random.default_rng(0)
    session = onnxruntime.InferenceSession(program(encode, INPUTS, 40).SerializeToString())
    encode = jax.jit(encode)
    names = [one.name for one in session.get_outputs()]
    for rows, width in ((1, 3), (5, 40), (7, 8)):
        lengths = draw.integers(1, width + 1, (rows, 1))
        mask = np.arange(width) < lengths
        given = {"ids": draw.integers(0, 200, mask.shape), "mask": mask}
        given["type_ids"] = draw.integers(0, 2, mask.shape)
        given["turn"] = np.where(np.arange(width) < 2, 1, 2) * mask
        expected = encode(**{name: one.astype(INPUTS[name]) for name, one in given.items()})
        found = session.run(None, {name: one.astype(np.int64) for name, one in given.items()})
        assert sorted(names) == sorted(expected)
        for name, value in zip(names, found, strict=True):
            np.testing.assert_allclose(value, expected[name], atol=1e-5, rtol=1e-5)


def test_what_onnx_has_no_operator_for_is_refused_by_name():
    with pytest.raises(ValueError, match="sort, a primitive of JAX's, has no operator"):
        program(lambda ids: {"query": jax.lax.sort(ids)}, {"ids": np.int32}, 8)


def test_a_system_that_compares_pairs_is_refused(workdir):
    run, some = open_run(workdir), np.zeros((2, 3, 4), np.float32)
    exporting.check_dot_product(run, Sticker(some[0]))
    with pytest.raises(ValueError, match=r"no dot product is its score.*--mode=serve"):
        exporting.check_dot_product(run, Regions(regions=some, summary=some[:, 0]))


def test_a_directory_with_anything_in_it_is_left_as_it_is(workdir, tmp_path):
    (tmp_path / "mine").write_text("here")
    with pytest.raises(FileExistsError, match="is not empty"):
        exporting.export(workdir, tmp_path)
    assert [one.name for one in tmp_path.iterdir()] == ["mine"]


def test_a_gallery_that_is_not_there_is_not_made(workdir, tmp_path):
    with pytest.raises(FileNotFoundError):
        exporting.export(workdir, tmp_path / "phone", str(tmp_path / "mistyped"))
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_left_where_what_is_computed_differs(workdir, tmp_path, monkeypatch):
    monkeypatch.setattr(exporting, "TOLERANCE", -1.0)
    monkeypatch.setattr(
        exporting, "program", lambda *_: program(lambda ids, **_: {"query": 1.0 * ids}, INPUTS, 40)
    )
    monkeypatch.setattr(exporting, "_compared", lambda *_: (1, float("nan")))
    with pytest.raises(ValueError, match="differs from JAX by nan"):
        exporting.export(workdir, tmp_path / "phone")
    assert list(tmp_path.iterdir()) == []
