"""New stickers described one by one, by a model behind an endpoint: what an open gallery asks."""

import re
import tempfile
import threading
import time
from pathlib import Path

from absl import logging

from data_prep.extraction.attributes import KIND
from data_prep.extraction.dialogue import BackendError, Session
from data_prep.extraction.endpoint import Endpoint, EndpointChat
from data_prep.extraction.frames import Picture
from data_prep.extraction.keywords import attributes_of, describe
from data_prep.extraction.prompts import load_prompt
from data_prep.extraction.store import ResultStore
from data_prep.extraction.work import Chat
from int_ra_jax.common.types import ATTRIBUTES

FRAMES, SIDE = 4, 768  # as the command ``attributes`` shows stickers, where it is not told
TIMEOUT_S, RETRIES = 30.0, 1  # of a request: somebody waits for the put
PAUSE_S = 60.0  # for which a server that has gone is not asked
_NAMED = re.compile(r"(?P<model>.+?)@(?P<url>https?://.+)")


class StickerDescriber:
    """Describes pictures by the questions of ``python -m data_prep.extraction attributes``.

    Several threads may ask at once. The key is in the environment, as for that command.
    """

    def __init__(self, named: str, language: str = "", words: bool = True) -> None:
        """Prepares the client; connects with the first picture.

        Args:
          named: MODEL@URL, the server's name for a model that sees, and the base of its API.
          language: of the keywords, by name; "" for the prompt's own.
          words: whether it reads the words on stickers, too; what is not asked is empty.

        Raises:
          ValueError: if no model and URL are named, or the openai package is not installed.
        """
        found = _NAMED.fullmatch(named)
        if not found:
            raise ValueError(f"--describer={named}: write MODEL@http://HOST:PORT/v1")
        endpoint = Endpoint(found["url"], found["model"], timeout_s=TIMEOUT_S, retries=RETRIES)
        try:
            self._chat = EndpointChat(endpoint, proven=True)
        except ImportError as error:
            raise ValueError(f"--describer: {error}") from None
        self._url, self._language = endpoint.url, language
        self._prompt = load_prompt("attributes", {"questions": dict})
        self._asked = Chat(endpoint.model, endpoint).asked(self._prompt)
        self._names = ATTRIBUTES if words else ATTRIBUTES[:-1]
        self._slots = threading.BoundedSemaphore(endpoint.concurrency)
        self._paused_until = 0.0  # by the monotonic clock

    def __call__(self, content: bytes) -> dict[str, str]:
        """Returns what a sticker shows of each attribute; "" for nothing.

        Args:
          content: an encoded picture.

        Raises:
          BackendError: if the server refuses the key or the model, or has gone; for ``PAUSE_S``
            seconds nothing is asked then.
          NoAnswer: if this one is not described.
          ValueError: if the picture cannot be decoded.
        """
        with self._slots, tempfile.TemporaryDirectory() as folder:
            if time.monotonic() < self._paused_until:
                raise BackendError(f"{self._url} is not asked now")
            path = Path(folder, "sticker")
            path.write_bytes(content)
            picture = Picture.of(path, FRAMES, SIDE)
            dialogue = describe(self._prompt, picture, picture.shown, self._names, self._language)
            with ResultStore(Path(folder), KIND) as replies:
                session = Session("sticker", "a sticker", dialogue, replies, self._asked)
                try:
                    self._chat.run([session], lambda _: None)
                except BackendError as error:
                    self._paused_until = time.monotonic() + PAUSE_S
                    logging.warning("no sticker is described for %.0f s: %s", PAUSE_S, error)
                    raise
        if session.failure is not None:
            logging.warning("a sticker is not described: %s", session.failure.reason)
            raise session.failure
        return attributes_of(session.result)
