"""CED: posts of a Chinese microblog and all replies under them, as its repository is cloned.

    SRC/**/original-microblog/POST.json                  {"text", ...}
    SRC/**/{rumor,non-rumor}-repost/POST.json            [{"mid", "parent", "uid", "text", "date"}]

A reply counts if exactly one kind of sticker code stands in it, ``[code]`` of the pack, and no
other code. What it answers is the post and the chain of replies above it (at most
``MAX_PARENTS``). People are numbered; names, links and long numbers are masked. The same reply to
the same context counts once. Posts with near-identical text stay in one split. Posts that were
found to be rumours are read only where asked for.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components
from sklearn.feature_extraction.text import CountVectorizer

from data_prep.formats.choices import NOTES, Choice, Training, add
from data_prep.formats.labels import Labels
from data_prep.formats.packs import Pack, load
from data_prep.formats.reading import InputDirectory
from data_prep.formats.shares import FRACTION, assign
from data_prep.formats.staging import Description, Staging
from data_prep.problems import short
from int_ra_jax.common.ledger import LeftOut
from int_ra_jax.data.schema import Turn

DESCRIPTION = Description(
    name="ced-choices",
    licence="none stated by the source; research use, cite, do not redistribute (docs/data.md)",
    source="CED_Dataset of github.com/thunlp/Chinese_Rumor_Dataset (arXiv 1811.04175)",
    notes=NOTES,
)
MAX_PARENTS = 10
NEAR = 0.5  # Jaccard similarity of two posts' character 4-grams from which they share a split
AUTHOR = "author"
SOMEBODY = "@某人"
NUMBER = "某号码"
_POST = re.compile(r"(?:.*/)?original-microblog/([^/.][^/]*)\.json")
_CODE = re.compile(r"\[([^\[\]\s]{1,12})\]")
# Codes of stickers that the pack does not have are as short as those that it has; longer brackets
# are people's words.
_OTHER_CODE = re.compile(r"\[\w{1,5}\]")
_FIELDS = ("mid", "parent", "uid", "text", "date")


def read(
    source: InputDirectory,
    staging: Staging,
    stickers: str,
    rumours: bool = False,
    per_thread: int = 0,
    no_echoes: bool = False,
) -> Labels:
    """Reads a clone of the corpus into the staging.

    Args:
      source: the clone, or any directory above the folders.
      staging: takes conversations and pictures.
      stickers: the pack that replies name (packs.load).
      rumours: whether posts are read that were found to be rumours.
      per_thread: see choices.Training; a thread is a post with its replies.
      no_echoes: see choices.Training.

    Returns:
      The intentions.
    """
    pack, training = load(stickers, source.problems), Training(per_thread, not no_echoes)
    posts = dict(_posts(source, rumours))
    if not posts:
        source.problems.add(".", 0, "no original-microblog/*.json with a file of replies to it")
    splits = split_posts({name: text for name, (text, _) in posts.items()})
    for name, (text, file) in posts.items():
        thread = _Thread(name.split("_")[0], text, splits[name], pack)
        for place, record in training.shuffled(thread.records(source, file)):
            take = partial(_take, thread, record, pack, staging, training, file, place)
            staging.ledger.judge(f"{file}[{place}]", take)
    return pack.labels()


def split_posts(texts: Mapping[str, str]) -> dict[str, str]:
    """Returns post -> split: a tenth each for valid and test, near-identical posts together.

    Args:
      texts: name -> masked text of each post.
    """
    if not texts:
        return {}
    names = list(texts)
    squeezed = [re.sub(r"\W+", "", texts[name].casefold()) or name for name in names]
    groups = _near_identical(squeezed)
    first = {group: names[groups.index(group)] for group in set(groups)}
    of_post = {name: first[group] for name, group in zip(names, groups, strict=True)}
    splits = assign(Counter(of_post.values()), {"valid": FRACTION, "test": FRACTION})
    return {name: splits[group] for name, group in of_post.items()}


def _near_identical(texts: Sequence[str]) -> list[int]:
    """Returns a group's number for each text; texts with similar 4-grams share one."""
    vectorizer = CountVectorizer(analyzer="char", ngram_range=(4, 4), binary=True, dtype=np.int32)
    grams = vectorizer.fit_transform([f"{text:_<4}" for text in texts])
    sizes = np.asarray(grams.sum(axis=1)).ravel()
    shared = (grams @ grams.T).tocoo()
    similarity = shared.data / (sizes[shared.row] + sizes[shared.col] - shared.data)
    near = similarity >= NEAR
    edges = (np.ones(near.sum()), (shared.row[near], shared.col[near]))
    _, groups = connected_components(csr_matrix(edges, shape=shared.shape), directed=False)
    return [int(group) for group in groups]


def _posts(source: InputDirectory, rumours: bool) -> Iterator[tuple[str, tuple[str, str]]]:
    """Yields a post's name with its masked text and the file of its replies."""
    names = source.names()
    known = set(names)
    kinds = ("non-rumor-repost", "rumor-repost") if rumours else ("non-rumor-repost",)
    for name in names:
        found = _POST.fullmatch(name)
        if not found:
            continue
        root = name.removesuffix(f"original-microblog/{found[1]}.json")
        files = [f for kind in kinds if (f := f"{root}{kind}/{found[1]}.json") in known]
        post = {key: value for _, key, value in source.members(name)}
        if not isinstance(post.get("text"), str):
            source.problems.add(name, 0, f"text is {short(post.get('text'))}, expected a string")
        elif files:
            yield found[1], (mask(post["text"]), files[0])


class _Thread:
    """The replies under one post."""

    def __init__(self, name: str, post: str, split: str, pack: Pack) -> None:
        self._name, self._post, self._split, self._pack = name, post, split, pack
        self._replies: dict[str, Mapping[str, str]] = {}
        self._seen: set[tuple[str, ...]] = set()
        self._people: dict[str, str] = {}

    def records(self, source: InputDirectory, file: str) -> list[tuple[int, Any]]:
        """Reads the file of replies to its end, and returns each record with its place."""
        records = []
        for _, place, record in source.members(file):
            records.append((int(place), record))
            if _is_reply(record):
                self._replies[record["mid"]] = record
        return records

    def choice(self, record: Any) -> Choice:
        """Returns what a reply chose.

        Raises:
          LeftOut: for one that does not count.
        """
        if not _is_reply(record):
            raise LeftOut("reply without mid, parent, uid, text or date")
        text = record["text"]
        codes = [code for code in _CODE.findall(text) if code in self._pack.codes]
        kinds = {self._pack.codes[code] for code in codes}
        if not kinds:
            raise LeftOut("no sticker of the pack")
        if len(kinds) > 1:
            raise LeftOut("stickers of several kinds")
        own_words = mask(_CODE.sub(self._without_code, text))
        if _OTHER_CODE.search(own_words):
            raise LeftOut("beside a code that is not in the pack")
        above = self._above(record)
        said = [mask(reply["text"]) for reply in above]
        turns = [Turn(AUTHOR, self._post)] if self._post else []
        turns += [Turn(self._person(r["uid"]), t) for r, t in zip(above, said, strict=True) if t]
        if not turns and not own_words:
            raise LeftOut("nothing was said before the sticker")
        key = (*(turn.text for turn in turns), own_words, codes[0])
        if key in self._seen:
            raise LeftOut("the same reply to the same context")
        self._seen.add(key)
        (sticker,) = kinds
        standing = {self._pack.codes.get(c) for turn in turns for c in _CODE.findall(turn.text)}
        facts = {
            "month": record["date"][:7],
            "times": len(codes),
            "direct": len(turns) == 1,
            "echo": sticker in standing,
        }
        user = self._person(record["uid"])
        return Choice(self._name, user, tuple(turns), own_words, sticker, self._split, facts)

    def _above(self, record: Mapping[str, str]) -> list[Mapping[str, str]]:
        """The replies that a reply answers, oldest first; a circle of parents ends it as well."""
        above: list[Mapping[str, str]] = []
        while (record := self._replies.get(record["parent"], {})) and len(above) < MAX_PARENTS:
            above.insert(0, record)
        return above

    def _person(self, uid: str) -> str:
        """A writer's pseudonym, of this thread alone: a hash of a number could be reversed."""
        return self._people.setdefault(uid, f"u{len(self._people) + 1}")

    def _without_code(self, found: re.Match[str]) -> str:
        return "" if found[1] in self._pack.codes else found[0]


def _take(
    thread: _Thread,
    record: Any,
    pack: Pack,
    staging: Staging,
    training: Training,
    file: str,
    place: int,
) -> None:
    add(thread.choice(record), pack, staging, training, file, place)


def _is_reply(record: Any) -> bool:
    return isinstance(record, dict) and all(isinstance(record.get(k), str) for k in _FIELDS)


def mask(text: str) -> str:
    """Returns a post's or reply's text without names, links and long numbers."""
    text = re.sub(r"^回复\s*@[^:：]+?\s*[:：]\s*", "", text)
    text = re.sub(r"@[\w\-·]+", SOMEBODY, text)
    # A link ends where Chinese begins; a name does not.
    text = re.sub(r"https?://[\w./?=&%#-]*", "", text, flags=re.ASCII)
    text = re.sub(r"\d{7,}", NUMBER, text)
    return " ".join(text.split())
