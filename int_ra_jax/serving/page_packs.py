"""The page's left side: packs to choose from, uploads, and what becomes of each sticker."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Literal

from nicegui import ui
from nicegui.events import MultiUploadEventArguments

from int_ra_jax.serving import schemas
from int_ra_jax.serving.answers import picture_address
from int_ra_jax.serving.problems import Problem
from int_ra_jax.serving.service import Service
from int_ra_jax.serving.settings import Settings
from int_ra_jax.serving.viewers import EVERYBODY, OWNER, Viewer

_PAGE = 48  # stickers of a pack that are shown at once
_TICK = 0.2  # seconds between two looks at an upload


class Packs:
    """What one visitor sees of the packs.

    Args:
      service: that holds them.
      settings: whose key lets people write.
      say: returns a text of the page.
      guarded: does something, and tells what is wrong with it.
      changed: is called when other stickers can be offered.
    """

    def __init__(
        self,
        service: Service,
        settings: Settings,
        say: Callable[..., str],
        guarded: Callable[[Callable[[], Awaitable[object]]], Awaitable[None]],
        changed: Callable[[], Awaitable[None]],
    ) -> None:
        self._service, self._settings = service, settings
        self._say, self._guarded, self._changed = say, guarded, changed
        self._known: dict[str, int] = {}
        self._without: set[str] = set()  # packs that are not wanted
        self._key, self._name = "", ""
        self._done, self._total = 0, 0
        self._open = ""

    @property
    def without(self) -> list[str]:
        """The packs that no sticker is taken from: few, however many packs there are."""
        return sorted(self._without)

    def show(self) -> None:
        """Draws the side."""
        # Not below the list: what is drawn anew would take an open pack along.
        self._dialog = ui.dialog()
        ui.label(self._say("packs")).classes("part")
        self._list()
        ui.timer(0, self._read, once=True)
        if self._settings.key is None or not self._service.gallery.writable:
            ui.label(self._say("read_only")).classes("soft")
            return
        key = ui.input(self._say("key"), value=self._key, password=True)
        key.props("dense outlined autocomplete=current-password").classes("w-full").mark("key")
        key.on_value_change(lambda event: self._unlock(event.value or ""))
        self._uploads()

    @ui.refreshable_method
    def _list(self) -> None:
        if not self._known:
            ui.label(self._say("no_packs")).classes("soft")
        for name, number in self._known.items():
            with ui.row().classes("pack"):
                box = ui.checkbox(name or "-", value=name not in self._without).props("dense")
                box.on_value_change(lambda event, name=name: self._want(name, bool(event.value)))
                count = ui.button(str(number), on_click=partial(self._look, name))
                count.props("flat dense no-caps").mark(f"pack-{name}")
                count.props["aria-label"] = f"{name}: {number}"

    @ui.refreshable_method
    def _uploads(self) -> None:
        if not self._may():
            return
        name = ui.input(self._say("pack_name"), value=self._name or self._say("my_stickers"))
        name.props("dense outlined maxlength=100").classes("w-full").mark("pack-name")
        name.on_value_change(lambda event: setattr(self, "_name", event.value or ""))
        limits = self._settings.limits
        upload = ui.upload(
            multiple=True, auto_upload=True, label=self._say("upload"),
            max_total_size=limits.upload, max_files=limits.files,
            on_multi_upload=lambda event: self._take(event, name.value or ""),
        ).props("flat batch").classes("drop")  # fmt: skip
        # Before a large body is read the guard asks for the key.
        upload.props["headers"] = [{"name": "Authorization", "value": f"Bearer {self._key}"}]
        ui.label(self._say("upload_hint")).classes("soft")
        bar = ui.linear_progress(show_value=False).classes("w-full").mark("progress")
        told = ui.label().classes("soft")

        def tick() -> None:
            bar.visible = told.visible = self._done < self._total
            bar.value = self._done / max(self._total, 1)
            told.text = self._say("taking", done=self._done, total=self._total)

        tick()
        ui.timer(_TICK, tick)

    def _viewer(self) -> Viewer:
        return OWNER if self._may() else EVERYBODY

    def _may(self) -> bool:
        key = self._settings.key
        return key is not None and bool(self._key) and key.opens(self._key)

    def _check(self) -> None:
        if not self._may():
            raise Problem(401, self._say("key_needed"))

    async def _unlock(self, given: str) -> None:
        could, self._key = self._may(), given.strip()
        if could != self._may():
            self._uploads.refresh()
            if not could:
                ui.notify(self._say("key_right"), type="positive", position="top")
            await self._read()  # hidden stickers count for their owner alone

    async def _read(self) -> None:
        read = partial(self._service.catalogue.packs, self._viewer())
        self._known = (await asyncio.to_thread(read)).packs
        self._list.refresh()

    async def _want(self, name: str, wanted: bool) -> None:
        (self._without.discard if wanted else self._without.add)(name)
        await self._changed()

    async def _take(self, event: MultiUploadEventArguments, name: str) -> None:
        async def put() -> None:
            self._check()
            read = [(file.name, await file.read()) for file in event.files]
            self._done, self._total = 0, max(len(read), 1)
            try:
                pack = schemas.no_path(name.strip()[:100])
                ledger = await self._service.put_pack(pack, read, self._note, whole=False)
            except ValueError as error:
                raise Problem(422, f"{self._say('pack_name')}: {error}") from None
            finally:
                self._done = self._total
            left_out = sum(ledger.left_out.values())
            lines = [self._say("taken", kept=ledger.kept, left_out=left_out)]
            for reason, number in list(ledger.left_out.items())[:3]:
                lines.append(self._say("left_out", number=number, reason=reason))
            how: Literal["warning", "positive"] = "warning" if left_out else "positive"
            ui.notify("\n".join(lines), type=how, position="top", multi_line=True, classes="lines")

        await self._guarded(put)
        if isinstance(event.sender, ui.upload):
            event.sender.reset()
        await self._read()
        await self._changed()

    def _note(self, done: int, total: int) -> None:
        self._done, self._total = done, total

    async def _look(self, name: str) -> None:
        """Opens a pack."""
        self._dialog.clear()
        with self._dialog, ui.card().classes("sheet"):
            with ui.row().classes("w-full items-center"):
                ui.label(name).classes("part")
                ui.space()
                ui.button(self._say("close"), on_click=self._dialog.close).props(
                    "flat dense no-caps"
                )
            await self._page(name, 0)
        self._dialog.open()

    async def _page(self, name: str, offset: int) -> None:
        read = partial(self._service.catalogue.listed, name, offset, _PAGE, self._viewer())
        listed = await asyncio.to_thread(read)
        with ui.element("div").classes("grid"):
            for one in listed:
                self._held(one)
        if len(listed) == _PAGE:
            more = ui.button(self._say("more")).props("flat no-caps")

            async def go_on() -> None:
                more.delete()
                await self._page(name, offset + _PAGE)

            more.on_click(go_on)

    def _held(self, sticker: schemas.StickerOut) -> None:
        @ui.refreshable
        def draw(one: schemas.StickerOut | None) -> None:
            if one is None:  # removed
                return
            with ui.column().classes("held off" if one.hidden else "held"):
                picture(self._address(one), called(one))
                ui.label(called(one)).classes("name")
                if self._may():
                    with ui.row().classes("gap-0 no-wrap"):
                        self._acts(one, draw.refresh)

        draw(sticker)

    def _address(self, sticker: schemas.StickerOut) -> str:
        """Returns where a picture is; the one of a hidden sticker opens for its owner's page."""
        if not sticker.hidden or self._settings.key is None or not self._may():
            return sticker.picture
        return f"{picture_address(sticker.id)}?ticket={self._settings.key.ticket(sticker.id)}"

    def _acts(
        self, sticker: schemas.StickerOut, redraw: Callable[[schemas.StickerOut | None], object]
    ) -> None:
        async def act(do: Callable[[], Awaitable[schemas.StickerOut | None]]) -> None:
            async def checked() -> None:
                self._check()
                redraw(await do())

            await self._guarded(checked)
            await self._read()
            await self._changed()

        def change(**fields: bool) -> Callable[[], Awaitable[schemas.StickerOut]]:
            asked = schemas.StickerChange.model_validate(fields)
            return partial(self._service.change, sticker.id, asked)

        choices = (
            ("visibility" if sticker.hidden else "visibility_off",
             "show" if sticker.hidden else "hide", change(hidden=not sticker.hidden)),
            ("verified" if sticker.approved else "task_alt",
             "approved" if sticker.approved else "approve", change(approved=not sticker.approved)),
            ("delete", "remove", partial(self._service.remove, sticker.id)),
        )  # fmt: skip
        for icon, name, do in choices:
            button = ui.button(icon=icon, on_click=partial(act, do)).props(
                "flat dense round size=sm"
            )
            button.props["aria-label"] = button.props["title"] = self._say(name)
            button.mark(f"{name}-{sticker.id}")


def picture(address: str, text: str) -> None:
    """Draws a sticker; a text of its makers stays a text."""
    image = ui.element("img")
    image.props["src"], image.props["alt"] = address, text
    image.props["loading"] = "lazy"


def called(sticker: schemas.StickerOut) -> str:
    """Returns what a sticker is called where it cannot be seen."""
    return sticker.name or next(iter(sticker.attributes.values()), "") or sticker.id
