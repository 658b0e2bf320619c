"""One conversation on the screen: bubbles, the sticker, a button for each intention.

Where the sticker does not fit, another one is picked first, and the intention is given to that.
"""

from collections.abc import Callable
from functools import partial

from nicegui import ui
from nicegui.events import KeyEventArguments

from data_prep.annotation.journal import LABEL, NONE_FITS, SKIP
from data_prep.annotation.sessions import Project, Session
from data_prep.annotation.workspace import SENT, Vote
from int_ra_jax.data.schema import Conversation, Turn

KEYS = "1234567890qwertyuiopasdfghjklzxcvbnm"  # further intentions have a button only
NONE_KEY, SKIP_KEY, UNDO_KEY, OTHER_KEY = "-", "ArrowRight", "ArrowLeft", "."
NONE_TEXT = "none fits"
_PAGE = 24  # stickers that are offered at once
_COLOURS = ("blue-1", "amber-1", "purple-1", "teal-1", "pink-1", "lime-2")
_REPLIER_COLOUR = "green-2"


class Board:
    """What one visitor sees and does; it redraws itself after each decision."""

    def __init__(self, project: Project, session: Session, adjudicate: bool) -> None:
        self._project, self._session, self._adjudicate = project, session, adjudicate
        self._current: str | None = None
        self._note = ""
        self._chosen: str | None = None  # in the place of the sticker that was sent
        self._picking, self._words, self._offered = False, "", _PAGE
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
                self._question(conversation)
                if self._picking:
                    self._picker()
                else:
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

    def _question(self, conversation: Conversation) -> None:
        others = [
            vote
            for vote in dict.fromkeys(self._session.sticker_votes(conversation.id).values())
            if vote in self._project.pictures and vote != self._chosen
        ]
        with ui.row().classes("ask"):
            self._picture(self._chosen or conversation.sticker).classes("large")
            with ui.column().classes("question"):
                ui.label(f"What does {conversation.reply_speaker} mean by this sticker?").classes(
                    "title"
                )
                for text in self._said(conversation.id):
                    ui.label(text).classes("vote")
                if self._chosen:
                    ui.label("in the place of the sticker that was sent").classes("note")
                if self._note:
                    ui.label(self._note).classes("note")
                with ui.row():
                    if self._picking or self._chosen:
                        self._button("the sent one fits", "", partial(self._pick, None))
                    if not self._picking:
                        self._button("another fits better", OTHER_KEY, self._open_picker)
                    for vote in others:
                        self._offer(vote)

    def _picker(self) -> None:
        """The gallery, the likest first, to pick another sticker from."""
        with ui.row().classes("ask"):
            field = ui.input("tag, word or name", value=self._words).mark("words")
            field.props("outlined dense clearable debounce=200").on_value_change(
                lambda event: self._search(event.value or "")
            )
            without = partial(self._decide, NONE_FITS, fits=False)
            self._button("no sticker fits", "", without)
        self._found()

    @ui.refreshable_method
    def _found(self) -> None:
        assert self._current is not None
        sent = self._project.conversations[self._current].sticker
        found = self._project.similar.search(sent, self._words)
        if not found:
            ui.label("No other sticker has these words.").classes("note")
        with ui.element("div").classes("gallery"):
            for sticker in found[: self._offered]:
                self._offer(sticker)
        if len(found) > self._offered:
            ui.button(f"more of {len(found)}", on_click=self._more).props("flat no-caps")

    def _offer(self, sticker: str) -> None:
        with ui.button(on_click=partial(self._pick, sticker)).props("flat dense") as button:
            self._picture(sticker).classes("small")
        button.mark(f"pick-{self._project.pictures[sticker]}")

    def _open_picker(self) -> None:
        self._picking, self._words, self._offered = True, "", _PAGE
        self._content.refresh()

    def _search(self, words: str) -> None:
        self._words, self._offered = words, _PAGE
        self._found.refresh()

    def _more(self) -> None:
        self._offered += _PAGE
        self._found.refresh()

    def _pick(self, sticker: str | None) -> None:
        self._chosen, self._picking = sticker, False
        self._content.refresh()

    def _choices(self, conversation: Conversation) -> None:
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
        stickers = self._session.sticker_votes(conversation)
        return [
            f"{annotator}: {_text(vote)}{_of_sticker(stickers.get(annotator, SENT))}"
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

    def _decide(self, action: str, intention: str | None = None, fits: bool | None = None) -> None:
        if self._current is None:
            return
        chosen = None if action == SKIP or fits is False else self._chosen
        if action != SKIP and fits is None:
            fits = chosen is None
        try:
            self._session.act(action, self._current, intention, fits, chosen)
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
        self._turn_to(undone.conversation)
        if undone.sticker in self._project.pictures:
            self._chosen = undone.sticker
        was = "skipped" if undone.action == SKIP else _text(undone.intention)
        self._note = f"taken back: {was}"
        self._content.refresh()

    def _next(self) -> None:
        waiting = self._session.open()
        self._turn_to(waiting[0] if waiting else None)

    def _turn_to(self, conversation: str | None) -> None:
        self._current, self._chosen, self._picking = conversation, None, False


def _text(vote: Vote) -> str:
    return NONE_TEXT if vote is None else vote


def _of_sticker(vote: Vote) -> str:
    if vote is None:
        return ", no sticker fits"
    return "" if vote == SENT else ", by another sticker"
