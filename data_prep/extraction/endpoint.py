"""A chat model behind an OpenAI-compatible endpoint: vLLM, SGLang, ``transformers serve``, others.

Requests run side by side up to a bound; the client repeats those that fail for a passing reason,
with growing pauses; a dialogue that still fails is given up and asked again by the next run.
"""

import asyncio
import base64
import io
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from data_prep.extraction.device import MISSING
from data_prep.extraction.dialogue import BackendError, Message, Session

IN_A_ROW = 5  # so many failures without an answer between them: the server is gone
MAX_REPLY = 20_000  # characters of a reply that are kept


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
    """Answers sessions by requests to an endpoint."""

    def __init__(self, endpoint: Endpoint) -> None:
        """Prepares the client; connects with the first request.

        Raises:
          ImportError: if the openai package is not installed.
        """
        try:
            import openai
        except ImportError as error:
            raise ImportError(MISSING.format(name="openai")) from error
        self._openai, self._endpoint = openai, endpoint
        self._failed_in_a_row = 0

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
                await self._finish(client, session)
                done(session)

        async with client, asyncio.TaskGroup() as tasks:
            for _ in range(end.concurrency):
                tasks.create_task(worker())

    async def _finish(self, client: Any, session: Session) -> None:
        openai = self._openai
        try:
            while session.pending is not None:
                session.accept(await self._request(client, session.pending))
                self._failed_in_a_row = 0
        except (
            openai.AuthenticationError,
            openai.PermissionDeniedError,
            openai.NotFoundError,
        ) as error:
            raise BackendError(f"{self._endpoint.url} refuses: {_line(error)}") from error
        except (openai.OpenAIError, ValueError) as error:
            session.failure = _line(error)
            self._failed_in_a_row += 1
            if self._failed_in_a_row >= IN_A_ROW:
                raise BackendError(
                    f"{self._failed_in_a_row} dialogues in a row failed at {self._endpoint.url}, "
                    f"the last with: {session.failure}"
                ) from error

    async def _request(self, client: Any, messages: list[Message]) -> str:
        completion = await client.chat.completions.create(
            model=self._endpoint.model,
            messages=[_encode(message) for message in messages],
            max_tokens=self._endpoint.length,
            temperature=0,
        )
        if not completion.choices:
            raise ValueError("the server answered without a choice")
        return (completion.choices[0].message.content or "").strip()[:MAX_REPLY]


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
    text = " ".join(str(error).split()) or type(error).__name__
    return f"{type(error).__name__}: {text[:300]}"
