"""Tools of a language model, by the Model Context Protocol: reply with a sticker, search for one.

The model that calls sees the stickers themselves, as image content, with id and words. No tool
writes, and the limits are those of the HTTP service.
"""

import asyncio
import io
from collections.abc import Sequence
from typing import Annotated, Any, TypeVar

from mcp.server.mcpserver import Image, MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from pydantic import Field, ValidationError

from int_ra_jax.data import images
from int_ra_jax.serving import schemas
from int_ra_jax.serving.problems import Problem, of_fields
from int_ra_jax.serving.service import Service
from int_ra_jax.serving.viewers import Viewer

_WHOLE = 200_000  # bytes; a larger picture is shown by its first frame, made smaller
_EDGE = 256  # pixels of that
_Asked = TypeVar("_Asked", schemas.ReplyIn, schemas.SearchIn)
Answer = list[str | Image]


def build(service: Service) -> MCPServer:
    """Returns a server with both tools."""
    server: MCPServer = MCPServer(
        "int_ra_jax", description="Stickers that reply to a conversation.", log_level="ERROR"
    )

    @server.tool(structured_output=False)
    async def reply_with_sticker(
        turns: Annotated[
            list[dict[str, Any]],
            Field(description='Oldest first, each {"speaker": "ann", "text": "I passed!"}.'),
        ],
        reply_speaker: Annotated[str, Field(description="Who sends the sticker.")],
        top_k: Annotated[int, Field(description="How many stickers to choose from.")] = 3,
        packs: Annotated[list[str] | None, Field(description="Of these packs alone.")] = None,
    ) -> Answer:
        """Finds stickers that would reply to a conversation, the best first, with pictures."""
        asked = _asked(
            schemas.ReplyIn,
            {"turns": turns, "reply_speaker": reply_speaker, "top_k": top_k, "packs": packs},
        )
        try:
            found = await service.reply(asked)
        except Problem as problem:
            raise ToolError(problem.detail) from None
        meant = f"intention: {found.intention}" if found.intention else ""
        return await asyncio.to_thread(_answer, service, found.stickers, meant)

    @server.tool(structured_output=False)
    async def search_stickers(
        words: Annotated[str, Field(description="In English or Chinese: crying cat, 猫 挥手.")],
        top_k: Annotated[int, Field(description="How many stickers.")] = 3,
        packs: Annotated[list[str] | None, Field(description="Of these packs alone.")] = None,
    ) -> Answer:
        """Finds stickers that suit typed words, the best first, with pictures."""
        asked = _asked(schemas.SearchIn, {"words": words, "top_k": top_k, "packs": packs})
        try:
            found = await service.search(asked)
        except Problem as problem:
            raise ToolError(problem.detail) from None
        return await asyncio.to_thread(_answer, service, found.stickers, "")

    return server


def run(service: Service) -> None:
    """Serves on standard input and output until the other end closes them."""
    try:
        build(service).run("stdio")
    finally:
        service.close()


def _asked(form: type[_Asked], values: dict[str, Any]) -> _Asked:
    try:
        return form.model_validate(values)
    except ValidationError as error:
        told = of_fields([dict(one) for one in error.errors(include_url=False)]).errors
        raise ToolError("; ".join(f"{where}: {what}" for where, what in told)) from None


def _answer(service: Service, found: Sequence[schemas.Ranked], first: str) -> Answer:
    """Returns each sticker's words, followed by its picture; reads disks, and draws."""
    answer: Answer = [first] if first else []
    for one in found:
        sticker = one.sticker
        try:
            content = service.catalogue.picture(sticker.id, Viewer(adult=sticker.adult))
        except Problem:  # hidden or removed since
            continue
        said = [sticker.name, *sticker.attributes.values(), sticker.words, *sticker.tags]
        words = "; ".join(dict.fromkeys(filter(None, said)))
        answer.append(f"{one.rank}. {sticker.id} (pack {sticker.pack or '-'}): {words}")
        answer.append(_picture(*content))
    return answer or ["no sticker was found"]


def _picture(content: bytes, media_type: str) -> Image:
    if len(content) <= _WHOLE:
        return Image(data=content, format=media_type.removeprefix("image/"))
    frame = images.decode(content)
    frame.thumbnail((_EDGE, _EDGE))
    smaller = io.BytesIO()
    frame.save(smaller, "PNG")
    return Image(data=smaller.getvalue(), format="png")
