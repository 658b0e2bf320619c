"""The HTTP addresses of a service; ``/docs`` lists them."""

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator, Callable
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, File, Form, Path, Query, Request, UploadFile
from fastapi_offline import FastAPIOffline
from pydantic import Json
from starlette.responses import Response

from int_ra_jax.serving import metrics, problems, schemas
from int_ra_jax.serving.guards import Guard
from int_ra_jax.serving.problems import MEDIA_TYPE, SCHEMA, Problem
from int_ra_jax.serving.service import Service
from int_ra_jax.serving.settings import Settings
from int_ra_jax.serving.viewers import OWNER, Viewer

_PICTURE_HEADERS = {
    # Opened alone in a browser it is a picture and nothing else, whatever it holds.
    "Content-Security-Policy": "default-src 'none'; sandbox",
    "Cache-Control": "private, max-age=60",
    "Vary": "Authorization",
}
_TEXTS = {
    400: "The body cannot be read.",
    401: "The key is missing or wrong.",
    403: "Nobody may write, or not from there.",
    404: "There is none.",
    408: "The request took too long to arrive.",
    409: "The gallery only answers, or the model cannot tell.",
    413: "The body is too large.",
    415: "The body is of another kind.",
    422: "What the request holds is wrong; every problem is told.",
    429: "Too many requests; Retry-After says when to come again.",
    503: "Too many requests wait, or the service is not ready yet.",
}
StickerId = Annotated[schemas.Id, Path(description="Of the sticker.")]
Adult = Annotated[bool, Query(description="Indecent ones as well.")]
Ticket = Annotated[str, Query(max_length=100, description="The page's own: opens one picture.")]
PackName = Annotated[schemas.HeldName, Path(description="Of the pack.")]


def build(service: Service, settings: Settings) -> FastAPI:
    """Returns the application, without the page; it warms the service when it starts.

    Args:
      service: that answers.
      settings: who may ask and write.
    """

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        warming = asyncio.create_task(service.warm())
        yield
        warming.cancel()
        await asyncio.to_thread(service.close)

    app: FastAPI = FastAPIOffline(
        title="int_ra_jax",
        summary="Stickers that reply to a conversation.",
        version="1",
        lifespan=lifespan,
        redoc_url=None,
        openapi_url="/openapi.json",
    )
    app.add_middleware(Guard, settings=settings, seen=service.metrics.answered)
    problems.handle(app)
    for made in (_questions, _stickers, _packs):
        app.include_router(made(service, settings))
    app.include_router(_state(service))
    _refuse_others(app)
    return app


def _says(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Returns what OpenAPI says of the errors of an address."""
    every = sorted({*statuses, 408, 413, 422, 429})
    content = {MEDIA_TYPE: {"schema": SCHEMA}}
    return {status: {"description": _TEXTS[status], "content": content} for status in every}


def _viewer_of(settings: Settings) -> Callable[..., Viewer]:
    def viewer(request: Request, adult: Adult = False) -> Viewer:
        return Viewer(_has_key(request, settings), adult)

    return viewer


def _has_key(request: Request, settings: Settings) -> bool:
    sent = request.headers.get("authorization", "")
    return settings.key is not None and settings.key.sent_in(sent)


def _questions(service: Service, settings: Settings) -> APIRouter:
    router = APIRouter(prefix="/v1", tags=["questions"])

    @router.post("/reply", responses=_says(400, 415, 503))
    async def reply(asked: schemas.ReplyIn) -> schemas.ReplyOut:
        """Stickers that would reply to a conversation, the best first."""
        return await service.reply(asked)

    @router.post("/search", responses=_says(400, 415, 503))
    async def search(asked: schemas.SearchIn) -> schemas.FoundOut:
        """Stickers that suit typed words, in Chinese or English."""
        return await service.search(asked)

    @router.get("/similar/{id:path}", responses=_says(404, 409, 503))
    async def similar(
        request: Request, id: StickerId, filters: Annotated[schemas.FiltersQuery, Query()]
    ) -> schemas.FoundOut:
        """Stickers that are most like one."""
        viewer = Viewer(_has_key(request, settings), filters.adult)
        return await service.similar(id, filters, viewer)

    return router


def _stickers(service: Service, settings: Settings) -> APIRouter:
    router = APIRouter(prefix="/v1/stickers", tags=["stickers"])
    catalogue, looks = service.catalogue, Annotated[Viewer, Depends(_viewer_of(settings))]

    # An id may hold a slash, which arrives as one even if it was sent as %2F. So this is first.
    @router.get(
        "/{id:path}/picture",
        responses={**_says(404), 200: {"content": {"image/*": {}}}},
        response_class=Response,
    )
    def picture(id: StickerId, request: Request, viewer: looks, ticket: Ticket = "") -> Response:
        """A sticker's picture, as it was put; of a hidden one with the key alone."""
        admitted = settings.key is not None and settings.key.admits(id, ticket)
        content, media_type = catalogue.picture(id, OWNER if admitted else viewer)
        tag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
        headers = {**_PICTURE_HEADERS, "ETag": tag}
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers=headers)
        return Response(content, headers=headers, media_type=media_type)

    @router.get("/{id:path}", responses=_says(404))
    def sticker(id: StickerId, viewer: looks) -> schemas.StickerOut:
        """What is known of a sticker; of a hidden one with the key alone."""
        return catalogue.sticker(id, viewer)

    @router.put("/{id:path}", responses=_says(400, 401, 403, 409, 415))
    async def put(
        id: Annotated[schemas.NewId, Path(description="Of the sticker.")],
        picture: Annotated[UploadFile, File(description="PNG, JPEG, WebP or GIF.")],
        sticker: Annotated[
            Json[schemas.StickerIn] | None, Form(description="What is said of it, as JSON.")
        ] = None,
    ) -> schemas.StickerOut:
        """Puts a sticker into the gallery; of one that is there, what is not said stays."""
        return await service.put(id, sticker or schemas.StickerIn(), await picture.read())

    @router.patch("/{id:path}", responses=_says(400, 401, 403, 404, 409, 415))
    async def change(id: StickerId, change: schemas.StickerChange) -> schemas.StickerOut:
        """Changes what is said of a sticker, hides or approves it."""
        return await service.change(id, change)

    @router.delete("/{id:path}", status_code=204, responses=_says(401, 403, 404, 409))
    async def remove(id: StickerId) -> None:
        """Removes a sticker."""
        await service.remove(id)

    return router


def _packs(service: Service, settings: Settings) -> APIRouter:
    router = APIRouter(prefix="/v1/packs", tags=["packs"])
    catalogue, looks = service.catalogue, Annotated[Viewer, Depends(_viewer_of(settings))]

    @router.get("")
    def packs(viewer: looks) -> schemas.PacksOut:
        """All packs; hidden stickers count with the key alone."""
        return catalogue.packs(viewer)

    @router.get("/{name:path}", responses=_says(404))
    def pack(
        name: PackName, viewer: looks, offset: Annotated[int, Query(ge=0, le=2**31)] = 0
    ) -> schemas.PackOut:
        """A pack; its hidden stickers are told with the key alone."""
        return catalogue.pack(name, offset, viewer)

    @router.put("/{name:path}", responses=_says(400, 401, 403, 409, 415))
    async def put(
        name: Annotated[schemas.NewName, Path(description="Of the pack.")],
        files: Annotated[list[UploadFile], File(description="Pictures, .zip or .wastickers.")],
    ) -> schemas.LedgerOut:
        """Puts a pack into the gallery; what it had besides is removed."""
        most = service.limits.files
        if len(files) > most:
            raise Problem(413, f"{len(files)} files; at most {most} are taken")
        read = [(file.filename or "", await file.read()) for file in files]
        return await service.put_pack(name, read)

    @router.delete("/{name:path}", status_code=204, responses=_says(401, 403, 404, 409))
    async def remove(name: PackName) -> None:
        """Removes a pack with its stickers."""
        await service.remove_pack(name)

    return router


def _state(service: Service) -> APIRouter:
    router = APIRouter(tags=["state"])

    @router.get("/v1/model")
    def model() -> schemas.ModelOut:
        """What answers."""
        return service.model()

    @router.get("/healthz")
    def health() -> dict[str, str]:
        """Whether the process lives."""
        return {"status": "alive"}

    @router.get("/readyz", responses=_says(503))
    def ready() -> dict[str, str]:
        """Whether every program is compiled, so that no reply waits for one."""
        if not service.ready:
            raise Problem(503, "the programs are being compiled", headers={"Retry-After": "2"})
        return {"status": "ready"}

    @router.get("/metrics", response_class=Response)
    def counts() -> Response:
        """Counts and times, for Prometheus."""
        return Response(service.metrics.text(), media_type=metrics.MEDIA_TYPE)

    return router


def _refuse_others(app: FastAPI) -> None:
    """Lets what is not there be told as a problem, and not by a page that is mounted beside."""

    @app.api_route(
        "/v1/{rest:path}",
        methods=["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"],
        include_in_schema=False,
    )
    def nothing(rest: str) -> None:
        raise Problem(404, "there is nothing at this address, or not for this method; see /docs")
