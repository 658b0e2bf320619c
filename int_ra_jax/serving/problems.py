"""Errors as problem details (RFC 9457): every problem of a request at once, and none of its text.

What a request holds is never repeated: neither in an answer, where another program may show it as
HTML, nor in a log.
"""

import json
import traceback
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from absl import logging
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

MEDIA_TYPE = "application/problem+json"
_SHOWN = 20  # problems that are told
_NAMED = 40  # characters of a field's name that are told
SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"where": {"type": "string"}, "detail": {"type": "string"}},
            },
        },
    },
}


class Problem(Exception):
    """What is wrong with a request, or keeps it from being answered.

    Args:
      status: of HTTP, 400 to 599.
      detail: what is wrong and what to do, in one sentence.
      errors: (where, what) for each single problem.
      headers: of the answer.
    """

    def __init__(
        self,
        status: int,
        detail: str,
        errors: Sequence[tuple[str, str]] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status, self.detail = status, detail
        self.errors, self.headers = tuple(errors), dict(headers or {})

    def body(self) -> dict[str, Any]:
        """Returns the fields of RFC 9457, ready for JSON."""
        title = HTTPStatus(self.status).phrase if self.status in set(HTTPStatus) else "Error"
        fields = {
            "type": "about:blank",
            "title": title,
            "status": self.status,
            "detail": self.detail,
        }
        if self.errors:
            shown = [{"where": where, "detail": what} for where, what in self.errors[:_SHOWN]]
            if len(self.errors) > _SHOWN:
                shown.append({"where": "", "detail": f"and {len(self.errors) - _SHOWN:,} more"})
            fields["errors"] = shown
        return fields

    def response(self) -> Response:
        """Returns the answer."""
        content = json.dumps(self.body())  # ASCII: half a character can be told as well
        return Response(content, self.status, self.headers, MEDIA_TYPE)


def handle(app: FastAPI) -> None:
    """Lets an application answer every error as a problem."""

    @app.exception_handler(Problem)
    def problem(request: Request, error: Exception) -> Response:
        assert isinstance(error, Problem)
        return error.response()

    @app.exception_handler(RequestValidationError)
    def invalid(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        return of_fields(error.errors()).response()

    @app.exception_handler(HTTPException)
    def http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        details = {
            400: "the body cannot be read; send JSON in UTF-8, or a multipart form",
            404: "there is nothing at this address; /docs lists all",
            405: "this address does not know the method; /docs lists all",
        }
        detail = details.get(error.status_code, HTTPStatus(error.status_code).phrase.lower())
        return Problem(error.status_code, detail, headers=error.headers).response()


def of_fields(errors: Sequence[Mapping[str, Any]]) -> Problem:
    """Returns pydantic's errors as one problem, without the input."""
    found = [(_where(error["loc"]), _what(error)) for error in errors]
    if any(
        error["type"] == "json_invalid" and isinstance(error["loc"][-1], int) for error in errors
    ):
        return Problem(400, "the body is not JSON", found)
    number = len(found)
    return Problem(422, f"{number} problem{'s' if number > 1 else ''} in the request", found)


def _where(location: Sequence[Any]) -> str:
    """Returns a path such as ``turns[3].text``; names that a request invents are cut short."""
    path = ""
    for part in location[1:] if location and location[0] in ("body", "path", "query") else location:
        if isinstance(part, int):
            path += f"[{part}]"
        else:
            name = ascii(str(part))[1:-1]
            path += "." + (name if len(name) <= _NAMED else f"{name[:_NAMED]}...")
    return path.lstrip(".") or "body"


def _what(error: Mapping[str, Any]) -> str:
    if error["type"] == "value_error":  # of our own validators, whose words repeat no input
        return str(error.get("ctx", {}).get("error", error["msg"]))
    if error["type"] == "string_unicode":
        return "holds half a character (a lone surrogate); write it whole or leave it out"
    message = str(error["msg"])
    return (message[0].lower() + message[1:]).encode("ascii", "replace").decode()


def log_failure(error: BaseException) -> None:
    """Logs where a request failed: files and lines, and no message, which may hold its text."""
    frames = traceback.extract_tb(error.__traceback__)[-6:]
    places = " <- ".join(f"{one.filename}:{one.lineno} {one.name}" for one in reversed(frames))
    logging.error("a request failed by %s at %s", type(error).__name__, places)
