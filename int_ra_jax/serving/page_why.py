"""Why a sticker is offered, on the page: what it means, what matched, where its attributes look."""

from collections.abc import Callable

from nicegui import ui

from int_ra_jax.serving import schemas
from int_ra_jax.serving.page_packs import called, picture

_BARS = 3  # intentions that are shown


def bars(shares: dict[str, float]) -> None:
    """Draws the likeliest intentions, the likeliest first."""
    for name, share in list(shares.items())[:_BARS]:
        with ui.row().classes("bar"):
            ui.label(name)
            with ui.element("div").classes("track"):
                ui.element("div").classes("fill").style(f"width: {100 * share:.0f}%")
            ui.label(f"{100 * share:.0f}%").classes("soft")


def explain(
    one: schemas.Ranked, attention: schemas.AttentionOut, say: Callable[..., str]
) -> ui.dialog:
    """Returns an open dialog that tells why a sticker is offered.

    Args:
      one: the answer.
      attention: where its attributes look.
      say: texts of the page.
    """
    sticker, over = one.sticker, "map middle" if attention.middle_square else "map"
    with ui.dialog() as dialog, ui.card().classes("sheet reasons").mark("reasons"):
        ui.label(called(sticker)).classes("part")
        with ui.row().classes("bars"):
            bars(sticker.intentions)
        if one.why.matched:
            ui.label(f"{say('because')} {', '.join(one.why.matched)}").classes("soft")
        ui.label(say("looked" if attention.attributes else "looked_nowhere")).classes("soft")
        with ui.element("div").classes("grid"):
            for name, look in attention.attributes.items():
                with ui.column().classes("held"):
                    with ui.element("div").classes(over).mark("overlaid"):
                        picture(sticker.picture, called(sticker))
                        picture(look.overlay, say("overlay", attribute=say(name), peak=look.peak))
                    ui.label(f"{say(name)} · {look.peak:.1f}×").classes("name")
                    ui.label(look.text).classes("soft")
        ui.button(say("close"), on_click=dialog.close).props("flat no-caps")
    dialog.open()
    return dialog
