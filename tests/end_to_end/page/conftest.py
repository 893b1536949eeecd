"""The page in a real Chromium; every test also holds that nothing went wrong and nobody else was asked."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

if TYPE_CHECKING:
    from tests.end_to_end.conftest import Service

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--no-proxy-server",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
DESK = {"width": 1280, "height": 900}
PHONE = {"width": 390, "height": 844}
BOUND = 30_000
"""Milliseconds that anything may take to appear."""


@dataclass(slots=True)
class Visit:
    """A page that is open, and what it did."""

    page: Page
    url: str
    problems: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    def go(self, view: str = "sentences") -> Page:
        """Load the page and show a view."""
        self.page.goto(f"{self.url}/#{view}")
        return self.page

    def figures(self, selector: str) -> list[list[float]]:
        """Read a table's numbers."""
        rows = self.page.locator(f"{selector} tbody tr").all()
        return [[number(text) for text in row.locator("td").all_inner_texts()] for row in rows]


OpenPage = Callable[..., Visit]


def number(text: str) -> float:
    """Read a number as the page spells it, with a real minus sign."""
    return float(text.replace("\N{MINUS SIGN}", "-"))


@pytest.fixture(scope="module")  # no longer: while Playwright runs, no other event loop runs in this thread
def browser() -> Iterator[Browser]:
    """Give the system's Chromium."""
    executable = shutil.which("chromium")
    if executable is None:
        reason = "there is no Chromium: apt-get install chromium"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    expect.set_options(timeout=BOUND)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser: Browser, service: "Service") -> Iterator[OpenPage]:
    """Give a function that opens a page; `expects` are words of console errors that belong to the test."""
    opened: list[tuple[BrowserContext, Visit, tuple[str, ...]]] = []

    def open_one(expects: tuple[str, ...] = (), url: str = "", **options: Any) -> Visit:
        context = browser.new_context(**{"viewport": DESK, "reduced_motion": "reduce"} | options)
        context.set_default_timeout(BOUND)
        visit = Visit(context.new_page(), url or service.url)
        note = visit.problems.append
        visit.page.on("console", lambda message: note(message.text) if message.type in {"error", "warning"} else None)
        visit.page.on("pageerror", lambda error: note(str(error)))
        visit.page.on("request", lambda request: visit.asked.append(request.url))
        opened.append((context, visit, expects))
        return visit

    yield open_one
    for context, visit, expects in opened:
        with closing(context):
            problems = [text for text in visit.problems if not any(word in text for word in expects)]
            assert not problems, problems
            assert visit.asked
            foreign = [url for url in visit.asked if urlsplit(url).netloc != urlsplit(visit.url).netloc]
            assert not foreign, foreign


@contextmanager
def closing(context: BrowserContext) -> Iterator[None]:
    try:
        yield
    finally:
        context.close()


@pytest.fixture
def visit(open_page: OpenPage) -> Visit:
    """Give a page at a desk."""
    return open_page()
