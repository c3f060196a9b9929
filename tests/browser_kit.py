"""Headless Chromium for the tests of the pages: found on this machine, and watched."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from playwright.sync_api import Browser, Dialog, Page, Request, ViewportSize, expect, sync_playwright
from playwright.sync_api import Error as PlaywrightError

PATIENCE_MS = 120_000
"""For whatever is waited for: the machine may be busy with other tests."""

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser of one's own. Tests fail, saying how to get one, where there is none.

    One for each file of tests and not one for all of them: as long as it is open, this thread has an event loop that
    runs, in which other tests could not start theirs.
    """
    expect.set_options(timeout=PATIENCE_MS)
    with sync_playwright() as started:
        found = next(filter(None, map(shutil.which, NAMES)), None)  # None: the one that playwright has, if any
        sandbox = [] if os.geteuid() else ["--no-sandbox"]
        try:
            browser = started.chromium.launch(
                executable_path=found, args=[*sandbox, "--disable-gpu"], timeout=PATIENCE_MS
            )
        except PlaywrightError as error:
            pytest.fail(f"no Chromium opens on this machine; `make browser` installs one ({error})", pytrace=False)
        yield browser
        browser.close()


@dataclass
class Seen:
    """What a page did that nobody asked for."""

    requests: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    dialogs: list[str] = field(default_factory=list)

    def dialog(self, dialog: Dialog) -> None:
        self.dialogs.append(dialog.message)
        dialog.dismiss()


@contextmanager
def opened(browser: Browser, url: str, allowed: str = "", **options: Any) -> Iterator[Page]:
    """A page in a profile of its own. Afterwards: no error, no violation of its policy, no dialog, and no request but
    for the page itself, what it carries, and what begins with ``allowed``."""
    with tab(browser, **options) as own, own.visit(url, allowed) as page:
        yield page


@dataclass
class Tab:
    """A page in a profile of its own, for one address after the other: to open a new one takes twice as long as to
    load a page."""

    page: Page
    size: ViewportSize

    @contextmanager
    def visit(self, url: str, allowed: str = "", size: ViewportSize | None = None) -> Iterator[Page]:
        """The page loaded anew and its window of this size; what holds afterwards says `opened`."""
        page, seen = self.page, Seen()

        def request(made: Request) -> None:
            if not made.url.startswith("data:") and made.url != url and not (allowed and made.url.startswith(allowed)):
                seen.requests.append(made.url)

        heard = {
            "request": request,
            "pageerror": lambda error: seen.errors.append(str(error)),
            "console": lambda message: message.type == "error" and seen.errors.append(message.text),
            "dialog": seen.dialog,
        }
        if page.url != "about:blank":
            page.goto("about:blank")  # else another fragment of the same address would not load it
            page.mouse.move(0, 0)
        if page.viewport_size != (size or self.size):
            page.set_viewport_size(size or self.size)
        for event, hear in heard.items():
            page.on(event, hear)
        try:
            page.goto(url)
            yield page
            assert seen == Seen(), seen
        finally:
            for event, hear in heard.items():
                page.remove_listener(event, hear)


@contextmanager
def tab(browser: Browser, **options: Any) -> Iterator[Tab]:
    """A tab that shows nothing yet."""
    size: ViewportSize = options.pop("viewport", {"width": 1280, "height": 900})
    context = browser.new_context(viewport=size, **options)
    context.set_default_timeout(PATIENCE_MS)
    try:
        yield Tab(context.new_page(), size)
    finally:
        context.close()
