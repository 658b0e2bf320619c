"""Names of people in messages: English by lists and wording, Chinese by jieba's tags and titles.

The first names are Faker's lists. Many are words as well ("Will", "Hope", "Jordan"): those count
only where the sentence introduces a person. Chinese names are what jieba tags as a name and begins
with a family name, and family names with a title or a familiar prefix.
"""

import functools
import logging
import re
from collections.abc import Iterator
from typing import Any

from faker.providers.person import en_GB, en_IN, en_PK, en_US, es_ES, zh_CN

from data_prep.chats import word_lists

Found = Iterator[tuple[int, int]]
_WORD = re.compile(r"[A-Za-z\u00c0-\u024f]+(?:['\u2019-][A-Za-z]{2,})*")
_INTRODUCED = re.compile(
    r"(?:\b(?:my|her|his) name is|\bnamed|\bMr\.?|\bMrs\.?|\bMs\.?|\bMiss|\bDr\.?"
    r"|\bProf(?:essor)?\.?)\s+$",
    re.I,
)
_LIKELY = re.compile(
    r"(?:\bi'?\s?a?m|\bthis is|\bit'?s|\bhi|\bhey|\bhello|\bdear|\bthanks|\bthank you|\bask|\btell"
    r"|\b(?:sister|brother|uncle|aunt|auntie|grandma|grandpa|cousin|friend|boyfriend|girlfriend"
    r"|husband|wife|son|daughter|boss|roommate))\s+$",
    re.I,
)
_TITLES_ZH = "老师|先生|女士|小姐|医生|经理|总|教授|阿姨|叔叔|主任|师傅|同学|导|哥|姐"
# Family names that are everyday words too: alone before a title they mostly mean something else.
_NOT_ALONE = frozenset("于向时和常管连应成单盛安方高白段叶江许彭付路来全司费席史龙易")
_AFTER_ZH = "[^\u4e00-\u9fff]|$|[去来说又在也的你和跟把给今明昨不没是有都就要会到批啊吧呢吗了]"


@functools.cache
def _first_names() -> frozenset[str]:
    lists = (en_US.Provider, en_GB.Provider, en_IN.Provider, en_PK.Provider, es_ES.Provider)
    romanised = (*zh_CN.Provider.first_romanized_names, *zh_CN.Provider.last_romanized_names)
    names = {name.lower() for one in lists for name in one.first_names}
    names |= {name.lower() for name in romanised}
    names |= word_lists.words(word_lists.shipped("more_first_names.txt"))
    return frozenset(name for name in names if len(name) > 1 and name.isalpha())


@functools.cache
def _usual_first_names() -> frozenset[str]:
    """Returns those that count without a capital; other lists hold "said", "sad", "till"."""
    lists = (en_US.Provider, en_GB.Provider)
    more = word_lists.words(word_lists.shipped("more_first_names.txt"))
    return frozenset(name.lower() for one in lists for name in one.first_names) | more


@functools.cache
def _last_names() -> frozenset[str]:
    lists = (en_US.Provider, en_GB.Provider, en_IN.Provider)
    romanised = {name.lower() for name in zh_CN.Provider.last_romanized_names}
    return frozenset(name.lower() for one in lists for name in one.last_names) | romanised


@functools.cache
def doubtful() -> tuple[frozenset[str], frozenset[str]]:
    """Returns words of everyday language, and places and months, that are first names too."""
    common = word_lists.words(word_lists.shipped("common_words.txt"))
    places = word_lists.words(word_lists.shipped("places_and_months.txt"))
    return common, places


def english(text: str) -> Found:
    """Yields where English first names stand, with the family name that follows."""
    words = list(_WORD.finditer(text))
    taken = -1
    for place, word in enumerate(words):
        if word.start() < taken or not _is_name(text, words, place):
            continue
        end = word.end()
        for follower in words[place + 1 : place + 3]:
            if text[end : follower.start()] != " " or not _may_follow(follower[0]):
                break
            end = follower.end()
        taken = end
        yield word.start(), end


def _is_name(text: str, words: list[re.Match[str]], place: int) -> bool:
    word = words[place]
    before = text[max(0, word.start() - 24) : word.start()]
    lower, capital = word[0].lower(), word[0][0].isupper()
    common, places = doubtful()
    if capital and len(lower) > 1 and _INTRODUCED.search(before):
        return True
    known = lower in _first_names()
    if known and lower not in common | places and (capital or lower in _usual_first_names()):
        return True
    if not capital or not (known or lower in _last_names()):
        return False
    if _LIKELY.search(before) and len(lower) > 1:
        return True
    nearby = words[place + 1] if place + 1 < len(words) else None
    if nearby and text[word.end() : nearby.start()] == " " and known and nearby[0][0].isupper():
        return nearby[0].lower() in _last_names()
    starts = not before.strip() or before.rstrip()[-1] in ".!?:\n"
    return known and lower in common - places and not starts and word[0] != word[0].upper()


def _may_follow(word: str) -> bool:
    return word[0].isupper() and len(word) > 1 and word.lower() not in ("and", "or", "is", "the")


@functools.cache
def _families() -> tuple[frozenset[str], str]:
    """Chinese family names: all that may begin a name, and a class of the common ones."""
    names = list(zh_CN.Provider.last_names)
    compound = ("欧阳", "诸葛", "司马", "上官", "皇甫", "东方", "令狐", "司徒")
    usual = [name for name in names[:150] if len(name) == 1 and name not in _NOT_ALONE]
    return frozenset([*names[:150], *compound]), "[" + "".join(usual) + "]"


@functools.cache
def _patterns_zh() -> tuple[re.Pattern[str], ...]:
    families, common = _families()
    compound = "|".join(sorted(name for name in families if len(name) == 2))
    given = "[" + "".join(n for n in zh_CN.Provider.first_names if len(n) == 1) + "强芳珍英秀]"
    return (
        re.compile(rf"(?P<name>{common}(?:{_TITLES_ZH}))(?!是\u4e00)"),
        re.compile(rf"(?<![\u4e00-\u9fff])(?P<name>[小老]{common})(?={_AFTER_ZH})"),
        re.compile(rf"(?<![\u4e00-\u9fff])(?P<name>阿{given})(?={_AFTER_ZH})"),
        re.compile(
            rf"(?:我叫|名字叫|姓名|我是|联系人)[:\uff1a是]?"
            rf"(?P<name>(?:{compound}|{common})[\u4e00-\u9fff]{{1,2}})(?![\u4e00-\u9fff])"
        ),
        re.compile(rf"(?P<name>(?:{compound})[\u4e00-\u9fff]{{1,2}}?)(?={_AFTER_ZH}|也)"),
    )


@functools.cache
def _not_names() -> frozenset[str]:
    return word_lists.words(word_lists.shipped("not_names_zh.txt"))


def chinese(text: str) -> Found:
    """Yields where Chinese names stand."""
    for pattern in _patterns_zh():
        for match in pattern.finditer(text):
            if match["name"] not in _not_names():
                yield match.span("name")
    families, _ = _families()
    place = 0
    for word, flag in _tagger().cut(text):
        start, place = place, place + len(word)
        begins = word[:1] in families or word[:2] in families
        if flag.startswith("nr") and 2 <= len(word) <= 4 and begins and word not in _not_names():
            yield start, place


@functools.cache
def _tagger() -> Any:  # jieba has no types
    import jieba

    jieba.setLogLevel(logging.WARNING)  # it announces its cache on stderr
    import jieba.posseg

    return jieba.posseg.POSTokenizer(jieba.Tokenizer())
