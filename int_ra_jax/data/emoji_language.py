"""In which language the text tower of a run reads the names of emoji."""

import unicodedata
from collections import Counter
from collections.abc import Iterable
from itertools import islice

from absl import logging

from int_ra_jax.data import emoji_names
from int_ra_jax.data.dataset import Dataset
from int_ra_jax.data.emoji_names import EmojiNames
from int_ra_jax.data.gallery import training_texts
from int_ra_jax.data.tokenizer import Tokenizer

DEFAULT = "en"
_TEXTS = 2000  # looked at for their letters
# A tower spells what it was not trained on: MiniLM takes 1.7 to 5 times the pieces of the English
# names for those of other languages, or does not know the characters.
_MOST_PIECES, _MOST_UNKNOWN = 1.6, 0.1
_SCRIPTS = {  # first word of a letter's Unicode name -> language
    "CJK": "zh",
    "HIRAGANA": "ja",
    "KATAKANA": "ja",
    "HANGUL": "ko",
    "CYRILLIC": "ru",
    "ARABIC": "ar",
}
_KANA = 0.1  # of Chinese and Japanese characters: so many and it is Japanese


def names_for(dataset: Dataset, tokenizer: Tokenizer | None) -> EmojiNames:
    """Returns the names of emoji in the data's language, or in English where the tower reads that.

    Args:
      dataset: dataset.json may state the ``language``; else the letters of train's texts tell.
      tokenizer: of the text tower; None for one whose vocabulary is still to be learnt.
    """
    language = _stated(dataset) or of_letters(training_texts(dataset))
    names = emoji_names.in_language(language)
    if tokenizer is not None and language != DEFAULT and not reads(tokenizer, names):
        language, names = DEFAULT, emoji_names.in_language(DEFAULT)
    logging.info("Data: emoji are read as their names in %r", language)
    return names


def reads(tokenizer: Tokenizer, names: EmojiNames) -> bool:
    """Tells whether a tower's vocabulary is made for names as it is for the English ones."""
    pieces, unknown = _cost(tokenizer, names)
    english, _ = _cost(tokenizer, emoji_names.in_language(DEFAULT))
    return pieces <= _MOST_PIECES * english and unknown <= _MOST_UNKNOWN * pieces


def of_letters(texts: Iterable[str]) -> str:
    """Guesses the language of texts from the script of most letters; English for any other."""
    scripts = Counter(
        unicodedata.name(letter, "").partition(" ")[0]
        for text in islice(texts, _TEXTS)
        for letter in text
        if letter.isalpha()
    )
    scripts["CJK"] += scripts.pop("IDEOGRAPHIC", 0)
    kana = scripts["HIRAGANA"] + scripts["KATAKANA"]
    if kana > _KANA * (kana + scripts["CJK"]):
        scripts["HIRAGANA"] += scripts.pop("CJK")
    most = max(scripts, key=lambda script: scripts[script])
    return _SCRIPTS.get(most, DEFAULT) if scripts[most] else DEFAULT


def _stated(dataset: Dataset) -> str:
    """The language of dataset.json, "zh" of "zh-Hant-TW"; "" where no names are in it."""
    language = str(dataset.info.get("language", "")).replace("_", "-").partition("-")[0].lower()
    return language if language in emoji_names.languages() else ""


def _cost(tokenizer: Tokenizer, names: EmojiNames) -> tuple[int, int]:
    """Pieces that the names of emoji of one character take, and how many of these are unknown."""
    single = [name for sequence, name in names.names.items() if len(sequence) == 1]
    ids = [one for code in tokenizer.encode(single) for one in code.ids]
    return len(ids), ids.count(tokenizer.unknown_id) if tokenizer.unknown_id is not None else 0
