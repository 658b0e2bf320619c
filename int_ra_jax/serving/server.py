"""The server process: uvicorn on a socket of ours, impatient with those who send slowly."""

import asyncio
import contextlib
import socket
from typing import Any

import uvicorn
from absl import logging
from fastapi import FastAPI
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from int_ra_jax.serving.problems import Problem
from int_ra_jax.serving.settings import Settings

_HEAD_SECONDS = 10.0  # in which the head of a request must have arrived
_HEAD_BYTES = 64 * 2**10  # that it may have
_QUEUE = 512  # connections that the kernel keeps until they are taken


_PROBLEM = Problem(431, f"the head of the request has more than {_HEAD_BYTES:,} bytes").response()
_TOO_LARGE = b"\r\n".join(
    (
        b"HTTP/1.1 431 Request Header Fields Too Large",
        *(name + b": " + value for name, value in _PROBLEM.raw_headers),
        b"connection: close",
        b"",
        bytes(_PROBLEM.body),
    )
)


class ImpatientProtocol(HttpToolsProtocol):
    """Ends a connection on which the head of a request does not come to its end.

    uvicorn limits how long a connection may be idle between two requests, and neither how long a
    head may take nor how large it may be: one that sends a byte a minute would be kept for ever.
    Bodies are timed by ``Guard``.
    """

    _head: asyncio.TimerHandle | None = None
    _bytes = 0

    def connection_made(self, transport: Any) -> None:
        """Begins to wait for the first head."""
        super().connection_made(transport)
        self._wait()

    def data_received(self, data: bytes) -> None:
        """Begins to wait for a head, where these bytes can be of none but the next."""
        if self.cycle is None or self.cycle.response_complete:
            self._wait()
        super().data_received(data)
        if self._head is not None:
            self._bytes += len(data)
            if self._bytes > _HEAD_BYTES and not self.transport.is_closing():
                self.transport.write(_TOO_LARGE)
                self.transport.close()

    def on_headers_complete(self) -> None:
        """Ends the wait."""
        self._stop()
        super().on_headers_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """Ends the wait."""
        self._stop()
        super().connection_lost(exc)

    def _wait(self) -> None:
        if self._head is None:
            self._bytes = 0
            self._head = self.loop.call_later(_HEAD_SECONDS, self.transport.abort)

    def _stop(self) -> None:
        if self._head is not None:
            self._head.cancel()
            self._head = None


def run(app: FastAPI, settings: Settings) -> None:
    """Serves until it is interrupted.

    Args:
      app: what answers.
      settings: where it listens, and how many it serves at a time.

    Raises:
      ValueError: if the address is not of this machine, or another program listens there.
    """
    configured = uvicorn.Config(
        app,
        http=ImpatientProtocol,
        log_level="warning",
        access_log=False,  # paths and addresses of people are nobody's business
        proxy_headers=False,  # what a request says of its sender is not believed
        server_header=False,
        limit_concurrency=settings.limits.connections,
        timeout_graceful_shutdown=5,
        ws_max_size=settings.limits.body,
    )
    listening = _listen(settings.host, settings.port)
    shown = f"[{settings.host}]" if ":" in settings.host else settings.host
    logging.info("open http://%s:%d in a browser; Ctrl-C ends the server", shown, settings.port)
    with listening, contextlib.suppress(KeyboardInterrupt):
        uvicorn.Server(configured).run(sockets=[listening])


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=_QUEUE)
    except (OSError, UnicodeError) as error:
        raise ValueError(
            f"--host={host} --port={port}: nothing can listen there: {error}. Name another."
        ) from None
