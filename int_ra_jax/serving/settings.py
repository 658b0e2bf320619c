"""How a service is run: where it listens, who may write, and what it takes at most."""

import hashlib
import hmac
import os
import re
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from absl import logging

LOOPBACK = ("127.0.0.1", "localhost", "::1")
KEY_VARIABLE = "INT_RA_JAX_KEY"
_HOST = re.compile(r"([a-zA-Z0-9._-]+|\[[0-9a-fA-F:.]+\])(:\d{1,5})?")
_PORT = re.compile(r":\d+$")
_SHORTEST_KEY = 16  # characters: fewer can be guessed


@dataclass(frozen=True)
class Limits:
    """What one request may hold, and how many may come.

    Attributes:
      body: bytes of a JSON body.
      upload: bytes of a body with pictures.
      picture: bytes of one picture.
      pixels: of one picture, width times height.
      frames: of one animation.
      all_pixels: of all frames of an animation together.
      files: pictures of one upload.
      turns: of a conversation; a model reads the newest few dozen at most.
      text: characters of a turn.
      words: characters of a search.
      names: entries of a list of packs, tags, languages or stickers.
      recent: stickers that were just sent; whoever answers remembers no more of them.
      habits: uses of a person's habits; half as much counts every twentieth, so the last of so
        many counts a thousandth of the first (``retrieval.habits``).
      top_k: stickers of an answer.
      waiting: requests that wait for the model; more are sent away.
      seconds: in which a request must have arrived.
      per_second: requests of one address to the API, lasting.
      burst: requests of one address to the API at once, after a pause.
      page_per_second: likewise to all else: the page with its files, health, counts.
      page_burst: likewise at once; a page that is opened asks for a few dozen files.
      connections: open at one time.
    """

    body: int = 2**20
    upload: int = 64 * 2**20
    picture: int = 8 * 2**20
    pixels: int = 16_000_000
    frames: int = 500
    all_pixels: int = 100_000_000
    files: int = 500
    turns: int = 200
    text: int = 4_000
    words: int = 500
    names: int = 1_000
    recent: int = 20
    habits: int = 200
    top_k: int = 50
    waiting: int = 512
    seconds: float = 30.0
    per_second: float = 50.0
    burst: int = 200
    page_per_second: float = 100.0
    page_burst: int = 1_000
    connections: int = 1_000


LIMITS = Limits()


class Key:
    """A secret that is compared in constant time and that nothing prints.

    Args:
      secret: at least 16 characters of ASCII, without blanks.

    Raises:
      ValueError: if it can be guessed, or no header can carry it.
    """

    def __init__(self, secret: str) -> None:
        if len(secret) < _SHORTEST_KEY:
            raise ValueError(
                f"the key has {len(secret)} characters; take {_SHORTEST_KEY} or more, such as "
                'python -c "import secrets; print(secrets.token_urlsafe(32))" prints'
            )
        if not secret.isascii() or not secret.isprintable() or " " in secret:
            raise ValueError(
                "the key has blanks, or characters that are not ASCII; no header can carry it"
            )
        self._digest = hashlib.sha256(secret.encode()).digest()

    def opens(self, given: str) -> bool:
        """Tells whether a text is the key; how long that takes does not depend on the text."""
        digest = hashlib.sha256(given.encode("utf-8", "replace")).digest()
        return hmac.compare_digest(digest, self._digest)

    def sent_in(self, authorization: str) -> bool:
        """Tells whether an Authorization header is "Bearer" and the key."""
        scheme, _, secret = authorization.partition(" ")
        return scheme.lower() == "bearer" and self.opens(secret.strip())

    def ticket(self, sticker: str) -> str:
        """Returns what opens one sticker's picture, for a page, whose pictures bring no header."""
        said = sticker.encode("utf-8", "replace")
        return hmac.new(self._digest, said, hashlib.sha256).hexdigest()

    def admits(self, sticker: str, ticket: str) -> bool:
        """Tells whether a text is the ``ticket`` of the sticker of an id."""
        given = ticket.encode("utf-8", "replace")
        return hmac.compare_digest(self.ticket(sticker).encode(), given)


@dataclass(frozen=True)
class Settings:
    """How a service is run.

    Attributes:
      host: address to listen on.
      port: to listen on.
      key: who has it may write; without one nobody may.
      limits: of requests.
      names: names and addresses under which the service is asked for, without ports; none for
        any.
      shown_as: what proxies show the service as, a name or name:port: pages there may ask.
    """

    host: str = LOOPBACK[0]
    port: int = 8080
    key: Key | None = None
    limits: Limits = field(default_factory=Limits)
    names: tuple[str, ...] = (*LOOPBACK, "[::1]")
    shown_as: tuple[str, ...] = ()


def settings_of(
    host: str,
    port: int,
    key_file: Path | None = None,
    open_without_key: bool = False,
    names: Sequence[str] = (),
    environment: Mapping[str, str] = os.environ,
) -> Settings:
    """Returns settings that are safe, or says what is not.

    Args:
      host: address to listen on; any but the loopback opens the service to others.
      port: to listen on.
      key_file: of the key; None for the environment variable ``INT_RA_JAX_KEY``, or no key.
      open_without_key: whether others may read from a service that has no key.
      names: what proxies show the service as, HOST or HOST:PORT. With any, it answers to these,
        to ``host`` and to the loopback's names alone.
      environment: where the variable is looked up.

    Raises:
      ValueError: if the key or a name cannot be one, or others would reach a service without a key.
      FileNotFoundError: if there is no such file.
    """
    shown_as = tuple(map(str.lower, names))
    if wrong := [name for name in names if not _HOST.fullmatch(name)]:
        raise ValueError(
            f"--name={', --name='.join(wrong)}: give what a browser's address line shows between "
            "// and the next /, in ASCII: stickers.example, stickers.example:8443."
        )
    key = _key(key_file, environment)
    inside = host in LOOPBACK
    if not inside and key is None and not open_without_key:
        raise ValueError(
            f"--host={host} opens the service to whoever reaches this machine, and there is no "
            f"key. Name one with --key_file=FILE or {KEY_VARIABLE}, or say --open_without_key: "
            "then everybody may read, and nobody may write."
        )
    if not inside:
        logging.warning(
            "--host=%s: whoever reaches port %d of this machine can ask for stickers and see "
            "them. Nothing is encrypted; put a proxy with TLS before it (docs/serving.md).",
            host,
            port,
        )
    own = f"[{host}]" if ":" in host else host
    known = (*Settings.names, own.lower(), *(_PORT.sub("", name) for name in shown_as))
    return Settings(host, port, key, names=known if inside or names else (), shown_as=shown_as)


def _key(path: Path | None, environment: Mapping[str, str]) -> Key | None:
    if path is None:
        secret = environment.get(KEY_VARIABLE, "")
        source = KEY_VARIABLE
    elif not path.is_file():
        raise FileNotFoundError(
            f"--key_file={path}: no such file. Write one: (umask 077; python -c "
            f'"import secrets; print(secrets.token_urlsafe(32))" > {path})'
        )
    else:
        secret, source = path.read_text("utf-8", errors="replace").strip(), f"--key_file={path}"
        if path.stat().st_mode & (stat.S_IRGRP | stat.S_IROTH):
            logging.warning("%s can be read by others on this machine: chmod 600", path)
        if not secret:
            raise ValueError(f"{source} is empty; it must hold the key.")
    if not secret:
        return None
    try:
        return Key(secret)
    except ValueError as error:
        raise ValueError(f"{source}: {error}.") from None
