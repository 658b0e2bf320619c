"""Typed queries, "crying cat" or "猫 挥手": full text and embeddings, fused.

A sticker's texts become one text of terms (``terms_of``), which a LanceDB table keeps in a column
beside the sticker. So the index lies where the stickers lie: it follows every put and removal.
Terms are made here, the same way for stickers and queries: Chinese by jieba's search mode, with
each character as a term of its own, emoji as their names in English and Chinese. LanceDB stems
English words and weighs terms by BM25.

Embeddings find what has no word in common with the query; ``fused`` joins both rankings.

Source: reciprocal rank fusion, Cormack, Clarke and Büttcher 2009, "Reciprocal Rank Fusion
outperforms Condorcet and individual Rank Learning Methods".
"""

import logging
import re
import unicodedata
from collections.abc import Hashable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, TypeVar

from int_ra_jax.data import emoji_language, emoji_names
from int_ra_jax.data.tokenizer import Tokenizer

COLUMN = "terms"
"""The column of a table in which terms are searched."""
RANK_CONSTANT = 60  # of the paper
LANGUAGES = ("en", "zh")  # in which emoji are named

_Id = TypeVar("_Id", bound=Hashable)
_LONGEST = 200  # characters of a query that are read
_HAN = "\u2e80-\u2fdf\u3005\u3007\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_UNSPACED = (
    "\u3040-\u30ff\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"  # kana, Thai, Lao, Burmese, Khmer
)
_RUNS = re.compile(rf"([{_HAN}]+)|([{_UNSPACED}]+)|([^\W_{_HAN}{_UNSPACED}]+)")
# Words that every second text has; LanceDB leaves out the English ones.
_PARTICLES = frozenset(
    "的了着过啊呀吗呢吧嘛么哦噢啦我你他她它们是在有也就都和与又还把被给很这那个之"
)
_INSTALL = "is not installed: pip install -e '.[gallery]'"


def terms(text: str) -> list[str]:
    """Returns what is searched of a text, in order, repetitions too.

    Args:
      text: of any length and language; case, width and composition of letters do not matter.
    """
    found: list[str] = []
    for run in _RUNS.finditer(unicodedata.normalize("NFKC", _spelled(text)).casefold()):
        han, unspaced, word = run.groups()
        if han:
            found += _chinese(han)
        elif unspaced:
            found += [unspaced[i : i + 2] for i in range(max(1, len(unspaced) - 1))]
        else:
            found.append(word)
    return found


def terms_of(
    *,
    name: str = "",
    emoji: Iterable[str] = (),
    tags: Iterable[str] = (),
    attributes: Mapping[str, str] | None = None,
    words: str | None = None,
) -> str:
    """Returns a sticker's terms for the column ``COLUMN``, with blanks between them.

    What is said twice, as by a tag and an attribute, counts once: a sticker is no better an answer
    for having been described by more programs.

    Args:
      name: what its makers call it.
      emoji: what it stands for.
      tags: free words.
      attributes: attribute -> text.
      words: what is written on it.
    """
    texts = [name, *emoji, *tags, *(attributes or {}).values(), words or ""]
    return " ".join(dict.fromkeys(term for text in texts for term in terms(text)))


def described(
    *,
    name: str = "",
    emoji: Iterable[str] = (),
    tags: Iterable[str] = (),
    attributes: Mapping[str, str] | None = None,
    words: str | None = None,
    languages: Iterable[str] = LANGUAGES[:1],
) -> str:
    """Returns what a sticker is called, as one text for a text tower: "crying cat, sad cat".

    Args:
      name: see ``terms_of``, as are the next four.
      emoji: likewise.
      tags: likewise.
      attributes: likewise.
      words: likewise.
      languages: which the tower reads, of ``LANGUAGES``; emoji have their names in these.
    """
    tables = [_names()[LANGUAGES.index(language)] for language in languages]
    named = [table.get(_bare(one), "") for one in emoji for table in tables]
    texts = [name, *named, *(attributes or {}).values(), words or "", *tags]
    return ", ".join(dict.fromkeys(text.strip() for text in texts if text.strip()))


def index_terms(table: Any) -> None:
    """Makes LanceDB index a table's column ``COLUMN``, which may be empty still.

    Rows that are written later are found at once, by a scan over those that are not indexed yet;
    ``table.optimize()`` indexes them.

    Args:
      table: a LanceDB table.
    """
    from lancedb.index import FTS  # here, because an answer to a conversation needs none

    table.create_index(
        COLUMN, config=FTS(base_tokenizer="whitespace", stem=True, remove_stop_words=True)
    )


def in_memory(ids: Sequence[str], texts: Sequence[str]) -> Any:
    """Returns an indexed LanceDB table that is on no disk, for a gallery that never changes.

    Args:
      ids: of the stickers.
      texts: the terms of each; see ``terms_of``.

    Raises:
      ValueError: if lancedb is not installed, or there is not one text for each id.
    """
    if len(ids) != len(texts):
        raise ValueError(f"{len(ids)} ids and {len(texts)} texts; give one for each.")
    try:
        import lancedb
        import pyarrow
    except ImportError:
        raise ValueError(f"Searching words needs lancedb, which {_INSTALL}.") from None
    rows = pyarrow.table(
        {"id": pyarrow.array(ids, "string"), COLUMN: pyarrow.array(texts, "string")}
    )
    table = lancedb.connect("memory://").create_table("stickers", rows)
    index_terms(table)
    return table


def matches(table: Any, query: str, limit: int) -> list[str]:
    """Returns the ids of the stickers that have any of a query's words, the best first.

    Args:
      table: a LanceDB table with the columns "id" and ``COLUMN``, the latter indexed.
      query: what was typed; the first 200 characters are read.
      limit: how many at most.

    Returns:
      Ids by falling BM25; those of equal weight by name. None where nothing is left of the query
      but signs and particles.
    """
    asked = " ".join(dict.fromkeys(terms(query[:_LONGEST])))
    if not asked:
        return []
    search = table.search(asked, query_type="fts", fts_columns=COLUMN).select(["id", "_score"])
    rows = search.limit(limit).to_list()
    return [row["id"] for row in sorted(rows, key=lambda row: (-row["_score"], row["id"]))]


def fused(
    rankings: Sequence[Sequence[_Id]], constant: float = RANK_CONSTANT
) -> list[tuple[_Id, float]]:
    """Joins rankings by the sum of 1 / (constant + rank).

    Args:
      rankings: ids, the best first, none twice; what is in no ranking is in no answer.
      constant: the greater, the less the first places count.

    Returns:
      Ids with their sums, the best first; equal sums in order of the first ranking, then of the
      next.

    Raises:
      ValueError: if an id stands twice in a ranking, or the constant is negative.
    """
    if not constant >= 0:
        raise ValueError(f"constant={constant}; use 0 or more.")
    sums: dict[_Id, float] = {}
    for ranking in rankings:
        if len(set(ranking)) != len(ranking):
            raise ValueError("A ranking names an id twice; leave out all but the first.")
        for rank, one in enumerate(ranking, start=1):
            sums[one] = sums.get(one, 0.0) + 1 / (constant + rank)
    return sorted(sums.items(), key=lambda pair: -pair[1])


def languages_of(tokenizer: Tokenizer) -> tuple[str, ...]:
    """Returns those of ``LANGUAGES`` that a text tower was made for; English is always one."""
    return tuple(one for one in LANGUAGES if one == LANGUAGES[0] or _knows(tokenizer, one))


def reads(tokenizer: Tokenizer, query: str) -> bool:
    """Tells whether a text tower was made for a query's language, so that its means say something.

    A tower that cannot read the query ranks at random, and a fusion with it is worse than full text
    alone. The letters tell the language; English is taken to be read by every tower.

    Args:
      tokenizer: of the tower.
      query: what was typed.
    """
    language = emoji_language.of_letters([query[:_LONGEST]])
    return language == emoji_language.DEFAULT or _knows(tokenizer, language)


@lru_cache(maxsize=32)
def _knows(tokenizer: Tokenizer, language: str) -> bool:
    return emoji_language.reads(tokenizer, emoji_names.in_language(language))


def _spelled(text: str) -> str:
    """Writes the names of emoji in their places, in all languages."""
    if text.isascii():
        return text
    import emoji  # here, because texts without any need it not

    parts, end = [], 0
    for found in emoji.emoji_list(text):
        named = (table.get(_bare(found["emoji"]), "") for table in _names())
        parts += [text[end : found["match_start"]], " ", " ".join(named), " "]
        end = found["match_end"]
    return "".join([*parts, text[end:]])


def _bare(one: str) -> str:
    """Returns an emoji without variation selectors, as the tables have it."""
    return re.sub("[\ufe0e\ufe0f]", "", one)


@lru_cache(maxsize=1)
def _names() -> tuple[Mapping[str, str], ...]:
    return tuple(emoji_names.in_language(language).names for language in LANGUAGES)


def _chinese(text: str) -> list[str]:
    """Returns words, the shorter words in them, and single characters; without particles."""
    cut = [*_jieba().cut_for_search(text)]
    single = [sign for word in cut if len(word) > 1 for sign in word]
    return [one for one in (*cut, *dict.fromkeys(single)) if one not in _PARTICLES]


@lru_cache(maxsize=1)
def _jieba() -> Any:
    try:
        import jieba
    except ImportError:
        raise ValueError(f"Searching Chinese words needs jieba, which {_INSTALL}.") from None
    jieba.setLogLevel(logging.WARNING)  # it announces its cache on stderr
    return jieba.Tokenizer()
