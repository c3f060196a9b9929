"""Headless Chromium for the tests of the pages: found on this machine, and watched."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from playwright.sync_api import Browser, Dialog, Page, Request, expect, sync_playwright
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
    context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
    context.set_default_timeout(PATIENCE_MS)
    page, seen = context.new_page(), Seen()

    def request(made: Request) -> None:
        if not made.url.startswith("data:") and made.url != url and not (allowed and made.url.startswith(allowed)):
            seen.requests.append(made.url)

    page.on("request", request)
    page.on("pageerror", lambda error: seen.errors.append(str(error)))
    page.on("console", lambda message: message.type == "error" and seen.errors.append(message.text))
    page.on("dialog", seen.dialog)
    try:
        page.goto(url)
        yield page
        assert seen == Seen(), seen
    finally:
        context.close()
