"""The page on which people give sticker replies their intention.

Texts, names and intentions come from third parties and reach the browser as text alone: through
labels, never as HTML. Pictures are served by their row in the gallery, so no request names a file.
"""

from mimetypes import guess_type
from pathlib import Path

from absl import logging
from nicegui import app, ui
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.responses import FileResponse, Response

from data_prep.annotation import workspace
from data_prep.annotation.board import Board
from data_prep.annotation.journal import check_name
from data_prep.annotation.sessions import Project, Session
from int_ra_jax.data import images
from int_ra_jax.data.validation import read_prepared

LOOPBACK = ("127.0.0.1", "localhost", "::1")
STYLE = (Path(__file__).parent / "page.css").read_text("utf-8")


def serve(
    prepared_dir: Path,
    workdir: Path,
    *,
    annotator: str | None = None,
    host: str = LOOPBACK[0],
    port: int = 8080,
    overlap: float | None = None,
    split: str | None = None,
) -> None:
    """Serves the page until it is interrupted.

    Args:
      prepared_dir: what is annotated; it is only read.
      workdir: where decisions go; an annotation that was begun there is continued.
      annotator: the only one served; None lets each visitor say who they are.
      host: address to listen on. Any but the loopback lets everybody who reaches it read all
        conversations and decide in any name: there are no passwords.
      port: to listen on.
      overlap: share of the conversations that everybody sees; see ``workspace.begin``.
      split: the only split to annotate.

    Raises:
      ValueError: if the data is invalid, the annotation is of other data, the name cannot be one,
        or another process writes the annotator's file.
    """
    prepared = read_prepared(prepared_dir)
    if annotator is not None:
        check_name(annotator)
    settings = workspace.begin(workdir, prepared, overlap, split)
    project = Project(prepared, workdir, settings, annotator)
    if annotator is not None:
        project.annotator(annotator)
    if host in LOOPBACK:
        # A foreign website must not reach the page by giving its own name this machine's address.
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=[*LOOPBACK, "[::1]"])
    else:
        logging.warning(
            "--host=%s: whoever reaches port %d of this machine can read all conversations and "
            "decide in any name. There are no passwords, and nothing is encrypted.",
            host,
            port,
        )
    build(project)
    logging.info("open http://%s:%d in a browser; Ctrl-C ends the server", host, port)
    try:
        ui.run(
            host=host,
            port=port,
            title="Which intention?",
            show=False,
            reload=False,
            show_welcome_message=False,
            on_air=None,
        )
    except KeyboardInterrupt:
        logging.info("stopped; every decision is in %s", workdir)
    finally:
        project.close()


def build(project: Project) -> None:
    """Declares the pages of one annotation; ``ui.run`` then serves them."""

    @app.get("/stickers/{number}")
    def picture(number: int) -> Response:
        stickers = project.prepared.stickers
        if not 0 <= number < len(stickers):
            return Response(status_code=404)
        path = project.prepared.path / stickers[number].image
        headers = {"X-Content-Type-Options": "nosniff"}
        content = path.read_bytes()
        # Browsers do not agree on which formats they turn upright.
        turned = images.as_upright(content)
        if turned is content:
            return FileResponse(path, headers=headers)
        return Response(turned, media_type=guess_type(path)[0], headers=headers)

    @ui.page("/")
    def start() -> None:
        if project.only is not None:
            _work(project, project.only, adjudicate=False)
        else:
            _ask_name(project)

    @ui.page("/annotate")
    def annotate(name: str = "") -> None:
        _work(project, project.only or name, adjudicate=False)

    @ui.page("/adjudicate")
    def adjudicate(name: str = "") -> None:
        _work(project, project.only or name, adjudicate=True)

    @ui.page("/agreement")
    def agreement(name: str = "") -> None:
        # statsmodels takes seconds to import, which only those who ask for figures should wait.
        from data_prep.annotation.agreement import summary_lines

        ui.add_css(STYLE)
        with ui.column().classes("sheet"):
            ui.label("Agreement").classes("title")
            for line in summary_lines(project.workdir):
                ui.label(line)
            ui.button("back", on_click=ui.navigate.back).props("flat no-caps")


def _ask_name(project: Project) -> None:
    ui.add_css(STYLE)

    def enter(name: str) -> None:
        try:
            check_name(name)
        except ValueError as error:
            ui.notify(str(error), type="negative")
            return
        ui.navigate.to(f"/annotate?name={name}")

    with ui.column().classes("sheet"):
        ui.label("Who are you?").classes("title")
        field = ui.input("name").props("outlined autofocus").mark("name")
        field.on("keydown.enter", lambda: enter(field.value))
        ui.button("begin", on_click=lambda: enter(field.value)).props("unelevated no-caps")
        for name in project.names():
            ui.button(name, on_click=lambda name=name: enter(name)).props("flat no-caps")


def _work(project: Project, name: str, adjudicate: bool) -> None:
    ui.add_css(STYLE)
    try:
        session: Session = project.adjudicator(name) if adjudicate else project.annotator(name)
    except ValueError as error:
        with ui.column().classes("sheet"):
            ui.label("This cannot be opened").classes("title")
            ui.label(str(error))
        return
    Board(project, session, adjudicate).show()
