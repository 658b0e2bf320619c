"""A chat model behind an OpenAI-compatible endpoint: vLLM, SGLang, ``transformers serve``, others.

Requests run side by side up to a bound; the client repeats those that fail for a passing reason,
with growing pauses; a dialogue that still fails is given up and asked again by the next run.
"""

import asyncio
import base64
import io
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from logging import getLogger
from typing import Any

from absl import logging

from data_prep.extraction.answers import NoAnswer, reply_of, words_of
from data_prep.extraction.device import MISSING
from data_prep.extraction.dialogue import BackendError, Message, Patience, Session

MAX_BODY = 4 * 2**20  # bytes of a response; an answer has a few thousand
_PAUSE_S = 60.0  # before a request is repeated, at most, as the client has it
_NOT_TAKEN = re.compile(
    r"unsupported|not support|does ?n.t support|not permitted|not allowed|unrecognized|unknown"
    r"|unexpected|only the default|deprecated|extra inputs",
    re.IGNORECASE,
)
_UNPAID = re.compile(r"quota|billing|credit|balance", re.IGNORECASE)


@dataclass(frozen=True)
class Endpoint:
    """How to reach a server.

    Attributes:
      url: base of its API, such as http://localhost:8000/v1.
      model: the name that the server knows the model by.
      key_variable: environment variable with the key; a server without keys needs none.
      concurrency: requests at a time.
      retries: of one request.
      timeout_s: of one request.
      length: tokens of a reply, at most.
    """

    url: str
    model: str
    key_variable: str = "OPENAI_API_KEY"
    concurrency: int = 8
    retries: int = 5
    timeout_s: float = 120.0
    length: int = 256

    def __post_init__(self) -> None:
        """Checks the address.

        Raises:
          ValueError: if it is none.
        """
        if not self.url.startswith(("http://", "https://")):
            raise ValueError(f"--endpoint={self.url}: write http://HOST:PORT/v1 or https://...")


class EndpointChat:
    """Answers sessions by requests to an endpoint; several threads may run theirs at once."""

    def __init__(self, endpoint: Endpoint, proven: bool = False) -> None:
        """Prepares the client; connects with the first request.

        Args:
          endpoint: the server.
          proven: whether earlier runs have had answers; see ``Patience``.

        Raises:
          ImportError: if the openai package is not installed.
        """
        try:
            import openai
        except ImportError as error:
            raise ImportError(MISSING.format(name="openai")) from error
        self._openai, self._endpoint = openai, endpoint
        for name in ("httpx", "httpx2"):  # whichever the client uses, it tells of every request
            getLogger(name).setLevel("WARNING")
        self._patience = Patience(proven)
        self._options: dict[str, Any] = {"max_tokens": endpoint.length, "temperature": 0}

    def run(self, sessions: Iterable[Session], done: Callable[[Session], None]) -> None:
        """Answers sessions; see ``ChatBackend``.

        Raises:
          BackendError: if the server refuses the key or the model, or has gone.
        """
        try:
            asyncio.run(self._run(iter(sessions), done))
        except* BackendError as group:
            first: BaseException = group
            while isinstance(first, BaseExceptionGroup):
                first = first.exceptions[0]
            raise BackendError(str(first)) from None

    async def _run(self, sessions: Iterator[Session], done: Callable[[Session], None]) -> None:
        end = self._endpoint
        client = self._openai.AsyncOpenAI(
            base_url=end.url,
            api_key=os.environ.get(end.key_variable) or "none",
            max_retries=end.retries,
            timeout=end.timeout_s,
        )

        async def worker() -> None:
            # Sessions are made when a worker is free for them, so memory holds no more than those.
            for session in sessions:
                try:
                    await self._finish(client, session)
                finally:
                    done(session)

        async with client, asyncio.TaskGroup() as tasks:
            for _ in range(end.concurrency):
                tasks.create_task(worker())

    async def _finish(self, client: Any, session: Session) -> None:
        openai = self._openai
        try:
            while session.pending is not None:
                session.accept(reply_of(await self._completion(client, session.pending)))
                self._patience.answered()
        except NoAnswer as failure:
            self._patience.failed(session, failure, self._endpoint.url)
        except (openai.OpenAIError, ValueError) as error:
            self._patience.failed(session, self._failure(error), self._endpoint.url)

    def _failure(self, error: Exception) -> NoAnswer:
        """Returns why a request was not answered.

        Raises:
          BackendError: if no other one will be.
        """
        openai = self._openai
        if isinstance(error, openai.APIStatusError):
            if _is_final(error):
                said = words_of(error.response.content) or _line(error)
                raise BackendError(
                    f"{self._endpoint.url} refuses (HTTP {error.status_code}): {said}"
                ) from error
            # A request that is refused as it stands says nothing of the others.
            of_server = error.status_code not in (400, 413, 415, 422)
            said = words_of(error.response.content)
            return NoAnswer(f"HTTP {error.status_code}", said, of_server)
        if isinstance(error, openai.APITimeoutError):
            return NoAnswer("timed out", _line(error), of_server=True)
        if isinstance(error, openai.APIConnectionError):
            return NoAnswer("no connection", _line(error), of_server=True)
        return NoAnswer("not asked", _line(error))

    async def _completion(self, client: Any, messages: list[Message]) -> bytes:
        """Returns the body of the response, asking again without what the server does not take."""
        encoded = [_encode(message) for message in messages]
        openai = self._openai
        while True:
            options = dict(self._options)
            try:
                return await self._body(client, encoded, options)
            except (openai.BadRequestError, openai.UnprocessableEntityError) as error:
                self._adapt(options, error.response.text)
                if self._options == options:
                    raise

    def _adapt(self, sent: Mapping[str, Any], refusal: str) -> None:
        """Takes back what a server says that it does not take, for all requests to come."""
        if sent != self._options:
            return  # another request has been told before
        refuses = "max_tokens" in refusal and _NOT_TAKEN.search(refusal)
        if "max_tokens" in sent and (refuses or "max_completion_tokens" in refusal):
            # Without what is there alone: several threads may be told at once.
            self._options["max_completion_tokens"] = sent["max_tokens"]
            self._options.pop("max_tokens", None)
        elif "temperature" in sent and "temperature" in refusal and _NOT_TAKEN.search(refusal):
            self._options.pop("temperature", None)
            logging.warning(
                "%s takes no temperature: its answers are not the likeliest ones, and another run "
                "may get others",
                self._endpoint.url,
            )

    async def _body(
        self, client: Any, messages: list[dict[str, Any]], options: Mapping[str, Any]
    ) -> bytes:
        end = self._endpoint
        # The client would make something of any response, a web page too; so it is read here.
        create = client.chat.completions.with_raw_response.create
        try:
            async with asyncio.timeout((end.retries + 1) * (end.timeout_s + _PAUSE_S)):
                response = await create(model=end.model, messages=messages, **options)
        except (
            TimeoutError
        ) as error:  # of a response that never ends, though its pieces are in time
            raise NoAnswer("timed out", of_server=True) from error
        if len(response.content) > MAX_BODY:
            raise NoAnswer(f"a response of more than {MAX_BODY:,} bytes")
        return bytes(response.content)


def _is_final(error: Any) -> bool:
    """Tells whether a server will refuse all other questions, too: the key, the model, the bill."""
    unpaid = error.status_code == 429 and _UNPAID.search(error.response.text)
    return bool(error.status_code in (401, 402, 403, 404) or unpaid)


def _encode(message: Message) -> dict[str, Any]:
    if message.picture is None:
        return {"role": message.role, "content": message.text}
    parts: list[dict[str, Any]] = []
    for frame in message.picture.load():
        content = io.BytesIO()
        frame.save(content, "PNG")
        data = base64.b64encode(content.getvalue()).decode()
        parts.append({"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}})
    return {"role": message.role, "content": [*parts, {"type": "text", "text": message.text}]}


def _line(error: Exception) -> str:
    cause = str(error.__cause__ or "")
    text = " ".join(f"{error} {cause and f'({cause})'}".split()) or type(error).__name__
    return text[:300]
