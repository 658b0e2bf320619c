"""One conversation on the screen: bubbles, the sticker, a button for each intention."""

from collections.abc import Callable
from functools import partial

from nicegui import ui
from nicegui.events import KeyEventArguments

from data_prep.annotation.journal import LABEL, NONE_FITS, SKIP
from data_prep.annotation.sessions import Project, Session
from data_prep.annotation.workspace import Vote
from int_ra_jax.data.schema import Conversation, Turn

KEYS = "1234567890qwertyuiopasdfghjklzxcvbnm"  # further intentions have a button only
NONE_KEY, SKIP_KEY, UNDO_KEY = "-", "ArrowRight", "ArrowLeft"
NONE_TEXT = "none fits"
_COLOURS = ("blue-1", "amber-1", "purple-1", "teal-1", "pink-1", "lime-2")
_REPLIER_COLOUR = "green-2"


class Board:
    """What one visitor sees and does; it redraws itself after each decision."""

    def __init__(self, project: Project, session: Session, adjudicate: bool) -> None:
        self._project, self._session, self._adjudicate = project, session, adjudicate
        self._current: str | None = None
        self._note = ""
        self._actions: dict[str, Callable[[], None]] = {UNDO_KEY: self._undo}
        self._next()

    def show(self) -> None:
        """Draws the page."""
        # Buttons keep the focus after a click, and keys must work then too.
        ui.keyboard(on_key=self._key, repeating=False, ignore=["input", "textarea"])
        self._content()

    @ui.refreshable_method
    def _content(self) -> None:
        self._actions = {UNDO_KEY: self._undo}
        self._header()
        if self._current is None:
            with ui.column().classes("sheet"):
                ui.label("Nothing left to decide").classes("title").mark("finished")
                ui.label("Thank you. Every decision is saved; ← takes the last one back.")
            return
        conversation = self._project.conversations[self._current]
        with ui.row().classes("work"):
            with ui.column().classes("chat"):
                self._chat(conversation)
            with ui.column().classes("choice"):
                self._choices(conversation)
        ui.run_javascript("document.querySelector('.chat').scrollTop = 1e6")

    def _header(self) -> None:
        session = self._session
        decided, skipped = session.decided(), session.skipped()
        total = decided + len(session.open())
        where, label = ("annotate", "annotate") if self._adjudicate else ("adjudicate", "disputes")
        with ui.row().classes("head"):
            ui.label("Disagreements" if self._adjudicate else session.by).classes("title")
            ui.linear_progress(decided / max(total, 1), show_value=False).classes("bar")
            ui.label(f"{decided} of {total}" + (f", {skipped} skipped" if skipped else "")).mark(
                "progress"
            )
            ui.space()
            self._button("undo", "←", self._undo).mark("undo")
            ui.button(label, on_click=lambda: ui.navigate.to(f"/{where}?name={session.by}")).props(
                "flat dense no-caps"
            )
            ui.button(
                "agreement", on_click=lambda: ui.navigate.to(f"/agreement?name={session.by}")
            ).props("flat dense no-caps")

    def _chat(self, conversation: Conversation) -> None:
        replier = conversation.reply_speaker
        others = dict.fromkeys(turn.speaker for turn in conversation.turns)
        others.pop(replier, None)
        colours = {name: _COLOURS[i % len(_COLOURS)] for i, name in enumerate(others)}
        before = None
        for turn in conversation.turns:
            sent = turn.speaker == replier
            name = None if turn.speaker == before else turn.speaker
            colour = _REPLIER_COLOUR if sent else colours[turn.speaker]
            self._bubble(turn, name, sent, colour)
            before = turn.speaker
        reply = Turn(replier, "", conversation.sticker)
        self._bubble(reply, f"{replier} replies", True, _REPLIER_COLOUR).classes("reply")

    def _bubble(self, turn: Turn, name: str | None, sent: bool, colour: str) -> ui.chat_message:
        with ui.chat_message(name=name, sent=sent) as bubble:
            bubble.props["bg-color"] = colour
            with ui.column().classes("said"):
                if turn.text:
                    ui.label(turn.text).classes("words")
                if turn.sticker is not None:
                    self._picture(turn.sticker).classes("small")
        return bubble

    def _picture(self, sticker: str) -> ui.element:
        picture = ui.element("img").classes("sticker")
        picture.props["src"] = f"/stickers/{self._project.pictures[sticker]}"
        picture.props["alt"] = "sticker"
        return picture

    def _choices(self, conversation: Conversation) -> None:
        with ui.row().classes("ask"):
            self._picture(conversation.sticker).classes("large")
            with ui.column().classes("question"):
                ui.label(f"What does {conversation.reply_speaker} mean by this sticker?").classes(
                    "title"
                )
                for text in self._said(conversation.id):
                    ui.label(text).classes("vote")
                if self._note:
                    ui.label(self._note).classes("note")
        voted = set(self._session.votes(conversation.id).values())
        with ui.element("div").classes("grid"):
            for index, name in enumerate(self._project.settings.intentions):
                key = KEYS[index] if index < len(KEYS) else ""
                act = partial(self._decide, LABEL, name)
                self._button(name, key, act, strong=name in voted)
        with ui.row():
            none = partial(self._decide, NONE_FITS)
            self._button(NONE_TEXT, NONE_KEY, none, strong=None in voted)
            self._button("skip for now", "→", partial(self._decide, SKIP), key=SKIP_KEY)

    def _said(self, conversation: str) -> list[str]:
        return [
            f"{annotator}: {_text(vote)}"
            for annotator, vote in self._session.votes(conversation).items()
        ]

    def _button(
        self,
        text: str,
        sign: str,
        act: Callable[[], None],
        strong: bool = False,
        key: str | None = None,
    ) -> ui.button:
        if sign:
            self._actions[key or sign] = act
        with ui.button(text, on_click=act).props("no-caps dense outline") as button:
            if strong:
                button.classes("strong")
            if sign:
                ui.label(sign).classes("key")
        return button

    def _key(self, event: KeyEventArguments) -> None:
        held = event.modifiers
        if not event.action.keydown or event.action.repeat or held.ctrl or held.alt or held.meta:
            return
        name = str(event.key.name)
        if act := self._actions.get(name if len(name) > 1 else name.lower()):
            act()

    def _decide(self, action: str, intention: str | None = None) -> None:
        if self._current is None:
            return
        try:
            self._session.act(action, self._current, intention)
        except OSError as error:
            ui.notify(f"Not saved: {error}. Nothing was changed.", type="negative", timeout=0)
            return
        self._note = ""
        self._next()
        self._content.refresh()

    def _undo(self) -> None:
        try:
            undone = self._session.undo()
        except OSError as error:
            ui.notify(f"Not saved: {error}. Nothing was changed.", type="negative", timeout=0)
            return
        if undone is None or undone.conversation not in self._project.conversations:
            ui.notify("There is nothing to take back.")
            return
        self._current = undone.conversation
        was = "skipped" if undone.action == SKIP else _text(undone.intention)
        self._note = f"taken back: {was}"
        self._content.refresh()

    def _next(self) -> None:
        waiting = self._session.open()
        self._current = waiting[0] if waiting else None


def _text(vote: Vote) -> str:
    return NONE_TEXT if vote is None else vote
