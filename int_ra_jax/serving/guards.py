"""What stands before every address: the checks that need no word of a request's body.

An ASGI layer around the whole application, so that no address can forget one: who may ask and
write, how much and how long, how often; and whatever fails below is one clear answer and one line
in the log without a word of the request.
"""

import asyncio
import math
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from int_ra_jax.serving.problems import Problem, log_failure
from int_ra_jax.serving.settings import Settings

API = "/v1/"
_READS = ("GET", "HEAD", "OPTIONS")
_ASKS = ("/v1/reply", "/v1/search")  # POST, and nothing changes by them
_KINDS = {
    "POST": "application/json",
    "PATCH": "application/json",
    "PUT": "multipart/form-data",
}
# Where pictures are taken; the last is the page's own, of NiceGUI.
_UPLOADS = (("PUT", "/v1/stickers/"), ("PUT", "/v1/packs/"), ("POST", "/_nicegui/client/"))
_ADDRESSES = 10_000  # whose rate is remembered
_HEADERS = {
    b"x-content-type-options": b"nosniff",
    b"referrer-policy": b"no-referrer",
    b"cross-origin-resource-policy": b"same-origin",
    b"x-frame-options": b"DENY",
}


class Rate:
    """A bucket of tokens for each address: a request takes one, time puts them back.

    Attributes:
      per_second: tokens that come back.

    Args:
      per_second: tokens that come back.
      burst: tokens of a full bucket.
      clock: seconds.
    """

    def __init__(
        self, per_second: float, burst: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.per_second, self._burst, self._clock = per_second, burst, clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def wait(self, address: str) -> float:
        """Takes a token; returns 0, or the seconds until there is one."""
        now = self._clock()
        tokens, then = self._buckets.pop(address, (float(self._burst), now))
        tokens = min(self._burst, tokens + (now - then) * self.per_second)
        enough = tokens >= 1
        self._buckets[address] = (tokens - enough, now)
        if len(self._buckets) > _ADDRESSES:
            self._buckets.popitem(last=False)
        return 0.0 if enough else (1 - tokens) / self.per_second


class Guard:
    """Lets through what may be asked, with its whole body at hand.

    Args:
      app: what is guarded.
      settings: who may ask and write, and how much.
      seen: told (method, status, seconds) of every answer to the API.
    """

    def __init__(
        self,
        app: ASGIApp,
        settings: Settings,
        seen: Callable[[Scope, int, float], None] = lambda scope, status, seconds: None,
    ) -> None:
        self._app, self._settings, self._seen = app, settings, seen
        limits = settings.limits
        self._asked = Rate(limits.per_second, limits.burst)
        self._loaded = Rate(limits.page_per_second, limits.page_burst)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request; see ASGI."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        begun, status = time.monotonic(), 0

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                named = {name.lower() for name, _ in message.get("headers", ())}
                more = [one for one in _HEADERS.items() if one[0] not in named]
                message = {**message, "headers": [*message.get("headers", ()), *more]}
            await send(message)

        try:
            self._check(scope)
            if scope["type"] == "http":
                receive = await self._whole(scope, receive)
            await self._app(scope, receive, answer)
        except Problem as problem:
            # What is left of its body is not waited for, however long that would take.
            problem.headers["Connection"] = "close"
            await _refuse(problem, scope, receive, answer)
        except Exception as error:
            log_failure(error)
            if status:
                raise ConnectionError("the answer had begun") from None
            failed = Problem(500, "this should not have happened; the log says where it failed")
            await _refuse(failed, scope, receive, answer)
        finally:
            if scope["type"] == "http" and scope["path"].startswith(API):
                self._seen(scope, status, time.monotonic() - begun)

    def _check(self, scope: Scope) -> None:
        """Checks all that the head of a request tells."""
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if self._settings.names and _name(host) not in self._settings.names:
            # Another website must not reach this machine by giving its own name our address.
            raise Problem(
                421,
                "this service is not known by that name; ask for 127.0.0.1, or start it with "
                "--name=HOST behind a proxy",
            )
        if (origin := headers.get("origin")) is not None:
            page = urlsplit_netloc(origin)
            # A proxy may ask under a name of ours, for a page that it shows under its own.
            if page != host and (page or "").lower() not in self._settings.shown_as:
                raise Problem(403, "pages of other websites may not ask here")
        is_api = scope["type"] == "http" and scope["path"].startswith(API)
        self._check_rate(scope, self._asked if is_api else self._loaded)
        if not is_api:
            return
        if scope["method"] not in _READS and scope["path"] not in _ASKS:
            self._check_key(headers.get("authorization", ""))
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        expected = _KINDS.get(scope["method"], kind)
        if kind != expected:
            raise Problem(415, f"send {expected}, and say so in Content-Type")

    def _check_rate(self, scope: Scope, rate: Rate) -> None:
        if wait := rate.wait((scope.get("client") or ("",))[0]):
            raise Problem(
                429,
                f"more than {rate.per_second:g} requests a second; wait",
                headers={"Retry-After": str(math.ceil(wait))},
            )

    def _check_key(self, given: str) -> None:
        key = self._settings.key
        if key is None:
            raise Problem(403, "nobody may write: this service was started without a key")
        if not key.sent_in(given):
            raise Problem(
                401,
                "writing needs the key: send Authorization: Bearer KEY",
                headers={"WWW-Authenticate": "Bearer"},
            )

    async def _whole(self, scope: Scope, receive: Receive) -> Receive:
        """Reads the body, within its bounds of bytes and of time."""
        limits, headers = self._settings.limits, Headers(scope=scope)
        most = limits.upload if self._may_upload(scope, headers) else limits.body
        announced = headers.get("content-length", "0")
        if not (announced.isascii() and announced.isdigit()):
            raise Problem(400, "content-length is no number")
        too_large = Problem(413, f"the body has more than {most:,} bytes")
        if len(announced) > 15 or int(announced) > most:
            raise too_large
        body = bytearray()
        try:
            async with asyncio.timeout(limits.seconds):
                more = True
                while more:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise Problem(400, "the connection ended before the request did")
                    body += message.get("body", b"")
                    more = message.get("more_body", False)
                    if len(body) > most:
                        raise too_large
        except TimeoutError:
            raise Problem(
                408, f"the request did not arrive within {limits.seconds:g} seconds"
            ) from None
        return _replay(bytes(body), receive)

    def _may_upload(self, scope: Scope, headers: Headers) -> bool:
        """Tells whether a body may be as large as an upload: at few addresses, with the key."""
        key, path = self._settings.key, scope["path"]
        takes = any(scope["method"] == method and path.startswith(at) for method, at in _UPLOADS)
        is_form = headers.get("content-type", "").lower().startswith("multipart/form-data")
        return bool(takes and is_form and key and key.sent_in(headers.get("authorization", "")))


def _replay(body: bytes, receive: Receive) -> Receive:
    """Returns what gives a body that was read already, and then goes on."""
    given = False

    async def again() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again


async def _refuse(problem: Problem, scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.close", "code": 1008, "reason": ""})
        return
    await problem.response()(scope, receive, send)


def urlsplit_netloc(origin: str) -> str | None:
    """Returns host and port of an Origin header; None where it is none."""
    try:
        return urlsplit(origin).netloc or None
    except ValueError:
        return None


def _name(host: str) -> str:
    """Returns a Host header without its port, in small letters."""
    name, bracket, _ = host.partition("]")
    return (name + bracket if bracket else host.partition(":")[0]).lower()


def labels_of(scope: Scope) -> tuple[str, str]:
    """Returns method and route of a request, and of what no route matched a dash.

    The route and not the path: a path names stickers, and there is no end of paths.
    """
    route: Any = scope.get("route")
    method = scope["method"] if scope["method"] in _KNOWN else "other"
    return method, getattr(route, "path_format", getattr(route, "path", "-"))


_KNOWN = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
