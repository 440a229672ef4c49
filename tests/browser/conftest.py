"""A real browser for the pages: Chromium as the machine has it, driven by Playwright, without a window."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")
ARGUMENTS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--autoplay-policy=no-user-gesture-required",
)
"""Nothing that the browser would ask of a network by itself; sound may start without a click."""


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """A playwright Browser for the whole run; tests that want one are skipped, visibly, where there is none."""
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install -e '.[dev]'")
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        pytest.skip(f"none of {', '.join(NAMES)} is on this machine: apt-get install chromium")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(ARGUMENTS))
        yield browser
        browser.close()


class Watched:
    """A page of a browser, and what went wrong in it: errors of script or policy, and requests that left the file."""

    def __init__(self, page: Any, allowed: tuple[str, ...]) -> None:
        self.page = page
        self.troubles: list[str] = []
        page.on("console", self._said)
        page.on("pageerror", lambda error: self.troubles.append(f"error: {error}"))
        page.on("request", lambda request: self._asked(request.url, allowed))

    def _said(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.troubles.append(f"{message.type}: {message.text}")

    def _asked(self, url: str, allowed: tuple[str, ...]) -> None:
        if not url.startswith(allowed):
            self.troubles.append(f"request: {url}")


@pytest.fixture
def open_page(browser: Any) -> Iterator[Any]:
    """open_page(path or URL, allowed=..., **context options) -> Watched; when the test ends, there was no trouble."""
    contexts, opened = [], []

    def opening(where: Path | str, allowed: tuple[str, ...] = ("file:", "blob:", "data:"), **options: Any) -> Watched:
        context = browser.new_context(**options)
        contexts.append(context)
        context.set_default_timeout(10_000)
        watched = Watched(context.new_page(), allowed)
        opened.append(watched)
        watched.page.goto(where.as_uri() if isinstance(where, Path) else where)
        return watched

    yield opening
    for context in contexts:
        context.close()
    assert [trouble for watched in opened for trouble in watched.troubles] == []
