"""The page: a chat in bubbles, and the stickers that would reply while one types.

Texts and names come from people and packs, and reach the browser as text alone: through labels,
never as HTML. Pictures come from the same addresses as everybody's. Whoever gives the key may
upload and change stickers; each change is checked here, and not in the browser.
"""

import tomllib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from nicegui import ui
from nicegui.events import KeyEventArguments

from int_ra_jax.serving import schemas
from int_ra_jax.serving.page_packs import Packs, called, picture
from int_ra_jax.serving.page_why import bars, explain
from int_ra_jax.serving.problems import Problem, log_failure
from int_ra_jax.serving.service import Service
from int_ra_jax.serving.settings import Settings
from int_ra_jax.serving.viewers import Viewer

_HERE = Path(__file__).parent
STYLE = (_HERE / "page.css").read_text("utf-8")
TEXTS: dict[str, dict[str, str]] = tomllib.loads((_HERE / "page_texts.toml").read_text("utf-8"))
_SHOWN = 12  # stickers that are offered
_PAUSE = 200  # ms without a key before stickers are looked for
_READ = 30  # turns that are asked about


@dataclass
class Said:
    """One bubble: a text, or a sticker.

    Attributes:
      own: whether the person at the page said it.
      text: what was said; of a sticker, what it is called.
      picture: of a sticker, where it is.
    """

    own: bool
    text: str
    picture: str = ""


@dataclass
class Chat:
    """What is said so far, and what is offered."""

    said: list[Said] = field(default_factory=list)
    sent: list[str] = field(default_factory=list)
    offered: list[schemas.Ranked] = field(default_factory=list)
    meant: dict[str, float] = field(default_factory=dict)
    asked: int = 0

    def turns(self, draft: str, own: bool) -> list[schemas.TurnIn]:
        """Returns the conversation with what is being written, as a question has it."""
        said = [*self.said, *([Said(own, draft)] if draft else [])]
        turns = [
            schemas.TurnIn(speaker="you" if one.own else "friend", text=one.text[:4_000])
            for one in said
        ]
        return turns[-_READ:]


def attach(app: FastAPI, service: Service, settings: Settings) -> None:
    """Puts the page at ``/`` of an application; call it last, since it takes all that is left.

    Args:
      app: of ``app.build``.
      service: that answers.
      settings: whose key lets people write.
    """
    declare(service, settings)
    ui.run_with(app, title="Stickers", dark=None, show_welcome_message=False, reconnect_timeout=30)


def declare(service: Service, settings: Settings) -> None:
    """Declares the page; ``attach`` serves it."""

    @ui.page("/")
    def start() -> None:
        Page(service, settings).show()


class Page:
    """What one visitor sees and does."""

    def __init__(self, service: Service, settings: Settings) -> None:
        self._service, self._chat = service, Chat()
        self._own, self._words = True, ""
        client = ui.context.client
        wanted = client.request.headers.get("accept-language", "") if client.request else ""
        self._language = "zh" if wanted.lower().startswith("zh") else "en"
        self.packs = Packs(service, settings, self.say, self.guarded, self._offer)
        self._dark = ui.dark_mode(None)

    def say(self, name: str, **values: object) -> str:
        """Returns a text of the page in the visitor's language."""
        return TEXTS[self._language][name].format(**values)

    def show(self) -> None:
        """Draws the page."""
        ui.add_css(STYLE)
        ui.keyboard(on_key=self._key, repeating=False, ignore=[])
        # On a phone its edge for swiping would lie above the buttons there.
        side = ui.left_drawer(value=False).classes("side")
        side.props("width=290 no-swipe-open show-if-above")
        with side:
            self._side()
        with ui.header().classes("head"):
            self._head(side.toggle)
        self._room()

    def _redraw(self) -> None:
        for part in (self._side, self._head, self._room):
            part.refresh()

    @ui.refreshable_method
    def _side(self) -> None:
        self.packs.show()

    @ui.refreshable_method
    def _head(self, open_side: Callable[[], object]) -> None:
        self._icon("menu", "menu", open_side)
        ui.label("int_ra_jax").classes("title")
        find = ui.input(placeholder=self.say("search"), value=self._words)
        find.props(f"dense outlined clearable debounce={_PAUSE}").classes("find").mark("find")
        find.on_value_change(lambda event: self._search(event.value or ""))
        ui.space()
        self._icon("add_comment", "clear", self._clear)
        ui.button(self.say("language"), on_click=self._switch).props("flat dense no-caps")
        self._icon("contrast", "dark", self._turn)

    @ui.refreshable_method
    def _room(self) -> None:
        with ui.column().classes("room"):
            with ui.column().classes("chat"):
                self._bubbles()
            with ui.column().classes("offer"):
                self._offers()
            with ui.row().classes("compose"):
                self._composer()

    def _icon(self, icon: str, name: str, act: Callable[[], object]) -> None:
        label = self.say(name)
        with ui.button(icon=icon, on_click=act).props("flat dense round") as button:
            button.props["aria-label"] = label
            ui.tooltip(label)

    def _composer(self) -> None:
        names = {True: self.say("as_you"), False: self.say("as_other")}
        who = ui.toggle(names, value=self._own).props("dense no-caps unelevated").mark("who")
        who.on_value_change(lambda event: self._write_as(bool(event.value)))
        self._draft = ui.input(placeholder=self.say("write"))
        self._draft.props(f"outlined dense autofocus debounce={_PAUSE} maxlength=4000")
        self._draft.mark("draft").on_value_change(self._offer)
        # What was typed in the last moment has not come yet: the key brings it along.
        self._draft.on("keydown.enter", lambda event: self._send(event.args), js_handler=_BRING)
        send = ui.button(icon="send", on_click=lambda: self._send(self._draft.value or ""))
        send.props("round unelevated dense").mark("send").props["aria-label"] = self.say("send")

    @ui.refreshable_method
    def _bubbles(self) -> None:
        if not self._chat.said:
            ui.label(self.say("start")).classes("start")
            if not self._service.ready:
                ui.label(self.say("not_ready")).classes("start")
        for one in self._chat.said:
            with ui.element("div").classes("bubble own" if one.own else "bubble") as bubble:
                if one.picture:
                    bubble.classes("picture")
                    picture(one.picture, one.text)
                else:
                    ui.label(one.text)
        ui.run_javascript("document.querySelector('.chat').scrollTop = 1e6")

    @ui.refreshable_method
    def _offers(self) -> None:
        with ui.row().classes("bars"):
            bars(self._chat.meant)
        with ui.row().classes("strip"):
            for number, one in enumerate(self._chat.offered, start=1):
                self._card(number, one)
            if not self._chat.offered and (self._words or self._chat.said):
                ui.label(self.say("found_none")).classes("soft")

    def _card(self, number: int, one: schemas.Ranked) -> None:
        why = reasons(one, self.say)
        with ui.element("div").classes("slot"):
            card = ui.element("button").classes("card").mark(f"offer-{number}")
            card.on("click", partial(self._pick, one))
            card.props["title"] = why
            with card:
                picture(one.sticker.picture, called(one.sticker))
                if number < 10:
                    ui.label(str(number)).classes("digit")
                ui.label(why).classes("why")
            more = ui.button(icon="info", on_click=partial(self._explain, one)).mark(
                f"why-{number}"
            )
            more.props("flat dense round size=sm").classes("more")
            more.props["aria-label"] = self.say("why")

    # What people do.

    async def guarded(self, act: Callable[[], Awaitable[object]]) -> None:
        """Does something; tells what is wrong with it, and logs no word of what was written."""
        try:
            await act()
        except Problem as problem:
            told = [what for _, what in problem.errors] or [problem.detail]
            ui.notify("; ".join(told[:3]), type="negative", position="top")
        except Exception as error:
            log_failure(error)
            ui.notify(self.say("failed"), type="negative", position="top")

    async def _offer(self) -> None:
        """Looks for stickers anew; of several questions the last one's answer is shown."""
        self._chat.asked += 1
        await self.guarded(partial(self._ask, self._chat.asked))

    async def _ask(self, asked: int) -> None:
        draft = (self._draft.value or "").strip()
        # The page's own list: it may be longer than that of a request.
        without: dict[str, Any] = {"without_packs": self.packs.without}
        meant: Mapping[str, float] = {}
        turns = self._chat.turns(draft, self._own)
        found: Sequence[schemas.Ranked] = []
        if self._words.strip():
            words = schemas.SearchIn(words=self._words.strip()[:500], top_k=_SHOWN)
            found = (await self._service.search(words.model_copy(update=without))).stickers
        elif turns:
            speaker = "you" if self._own else "friend"
            reply = schemas.ReplyIn(
                turns=turns, reply_speaker=speaker, top_k=_SHOWN, recent=self._chat.sent[:5]
            )
            answer = await self._service.reply(reply.model_copy(update=without))
            found, meant = answer.stickers, answer.intention_probabilities
        if asked == self._chat.asked:
            self._chat.offered, self._chat.meant = list(found), dict(meant)
            self._offers.refresh()

    async def _send(self, text: str) -> None:
        if text.strip():
            self._chat.said.append(Said(self._own, text.strip()[:4_000]))
            self._draft.value = ""
            self._bubbles.refresh()
            await self._offer()

    async def _pick(self, one: schemas.Ranked) -> None:
        draft = (self._draft.value or "").strip()
        if draft:
            self._chat.said.append(Said(self._own, draft))
            self._draft.value = ""
        self._chat.said.append(Said(self._own, called(one.sticker), one.sticker.picture))
        self._chat.sent.insert(0, one.sticker.id)
        self._words = ""
        self._redraw()
        await self._offer()

    async def _explain(self, one: schemas.Ranked) -> None:
        async def ask() -> None:
            viewer = Viewer(adult=one.sticker.adult)
            found = await self._service.attention(one.sticker.id, viewer)
            explain(one, found, self.say)

        await self.guarded(ask)

    async def _search(self, words: str) -> None:
        self._words = words
        await self._offer()

    async def _write_as(self, own: bool) -> None:
        self._own = own
        await self._offer()

    def _clear(self) -> None:
        self._chat, self._words = Chat(asked=self._chat.asked + 1), ""
        self._redraw()

    def _switch(self) -> None:
        self._language = "en" if self._language == "zh" else "zh"
        self._redraw()

    def _turn(self) -> None:
        self._dark.value = not self._dark.value

    async def _key(self, event: KeyEventArguments) -> None:
        if event.action.keydown and event.modifiers.alt and event.key.number:
            place = event.key.number - 1
            if place < len(self._chat.offered):
                await self._pick(self._chat.offered[place])


_BRING = "(event) => { if (!event.isComposing) emit(event.target.value) }"


def reasons(one: schemas.Ranked, say: Callable[..., str]) -> str:
    """Returns in few words why a sticker is offered."""
    told = [one.why.intention] if one.why.intention else []
    if one.why.matched:
        told.append(f"{say('because')} {one.why.matched[0]}")
    return " · ".join(told) or called(one.sticker)
