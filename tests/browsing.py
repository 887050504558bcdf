"""A headless browser for the tests of pages; they are skipped where there is none."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
QUIET = [f"--disable-{what}" for what in ("gpu", "background-networking", "component-update", "sync")]


@contextmanager
def launched() -> Iterator[Any]:
    """The browser, for the length of a ``with`` block."""
    sync_api = pytest.importorskip("playwright.sync_api")
    if BROWSER is None:
        pytest.skip("no Chromium on this machine")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox", *QUIET])
        yield browser
        browser.close()


def opened(browser: Any, address: str, **options: Any) -> tuple[Any, list[str]]:
    """A page, and what it says to the console."""
    page = browser.new_context(**options).new_page()
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.goto(address)
    return page, said
