"""`curate view`: look at the clips of a corpus in a browser."""

from __future__ import annotations

import os
import sys
import webbrowser
from typing import Annotated

import typer
from rich.markup import escape

from curate.cli.console import ending, out
from curate.cli.look import CorpusName, RunName


def view(
    corpus: CorpusName,
    run: RunName = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Port to listen on; default 8765, or any where that is taken.")
    ] = None,
    host: Annotated[
        str,
        typer.Option(help="Address to listen on. Beyond this machine a token is needed, which the printed URL has."),
    ] = "127.0.0.1",
    token: Annotated[
        str,
        typer.Option(help="Ask for this token (beyond this machine of 16 characters or more); default one made up."),
    ] = "",
    no_open: Annotated[bool, typer.Option("--no-open", help="Print the URL, open no browser.")] = False,
) -> None:
    """Play, filter, sort and search the clips of a corpus in a browser, and mark them keep or drop by hand.

    Example: `curate view corpus`
    """
    from curate.tables import Corpus
    from curate.viewer.serve import viewing

    with ending(), viewing(Corpus(corpus), run, host=host, port=port, token=token) as page:
        # Not by `plain`, which would blot out the token: it is there to be seen.
        out.print(f"Look at {escape(page.url)} (Ctrl-C ends it)", soft_wrap=True)
        if not no_open and page.is_local and _has_browser():
            webbrowser.open(page.url)
        try:
            page.serve()
        except KeyboardInterrupt:
            out.print("Ended. Marks are in the corpus.")


def _has_browser() -> bool:
    """Whether there is a desktop: in a terminal alone, a browser in it would be in the way."""
    return sys.platform in {"darwin", "win32"} or any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))
