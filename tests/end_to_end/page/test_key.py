"""A service that wants a key: the page asks for it, sends it, keeps it for the tab and shows it nowhere."""

from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import Page, Route, expect

if TYPE_CHECKING:
    from tests.end_to_end.page.conftest import OpenPage, Visit

KEY = "s3cret-key"
REFUSAL = '{"error": {"message": "an API key is needed", "type": "x", "param": null, "code": "unauthorized"}}'


def lock(page: Page, *patterns: str) -> None:
    """Have a key asked for, as a proxy before the service would."""

    def answer(route: Route) -> None:
        if route.request.headers.get("authorization") == f"Bearer {KEY}":
            route.continue_()
        else:
            route.fulfill(status=401, content_type="application/json", body=REFUSAL)

    for pattern in patterns:
        page.route(pattern, answer)


@pytest.fixture
def locked(open_page: "OpenPage") -> "Visit":
    """Give a page whose service wants a key for everything but the page."""
    visit = open_page(expects=("401",))
    lock(visit.page, "**/v1/**", "**/info", "**/metrics")
    return visit


def test_the_key_is_asked_for_sent_and_kept(locked: "Visit") -> None:
    page = locked.go()
    dialog = page.locator("#key-dialog")
    expect(dialog).to_be_visible()
    expect(page.locator("#key-refused")).to_be_hidden()
    page.locator("#key-input").fill("wrong")
    page.keyboard.press("Enter")
    expect(page.locator("#key-refused")).to_be_visible()
    page.locator("#key-input").fill(KEY)
    page.keyboard.press("Enter")
    expect(dialog).to_be_hidden()
    expect(page.locator("#sentences-map tbody tr")).to_have_count(7)
    expect(page.locator("#sentences-error")).to_be_hidden()
    expect(page.locator("#state-text")).to_have_text("ready")
    expect(page.locator("#sentences-curl")).to_contain_text('-H "Authorization: Bearer $API_KEY"')
    assert KEY not in page.content()
    assert KEY not in page.evaluate("JSON.stringify(localStorage) + document.cookie")

    page.reload()
    expect(page.locator("#sentences-map tbody tr")).to_have_count(7)
    expect(dialog).to_be_hidden()

    page.locator("#key-open").click()
    page.locator("#key-forget").click()
    expect(dialog).to_be_visible()
    assert page.evaluate("sessionStorage.length") == 0


def test_without_a_key_each_view_says_so(locked: "Visit") -> None:
    page = locked.go()
    page.locator("#key-cancel").click()
    page.locator("#sentences-run").click()
    expect(page.locator("#sentences-error")).to_have_text("an API key is needed")
    page.keyboard.press("Escape")
    expect(page.locator("#key-dialog")).to_be_hidden()
    page.locator("#tab-live").click()
    expect(page.locator("#live-problem")).to_contain_text("The metrics need an API key.")
    expect(page.locator("#state-text")).to_have_text("no metrics")
    page.locator("#live-key").click()
    page.locator("#key-input").fill(KEY)
    page.keyboard.press("Enter")
    expect(page.locator("#live-problem")).to_be_hidden()
    expect(page.locator("#live-info dt").first).to_be_visible()


def test_metrics_alone_may_want_a_key(open_page: "OpenPage") -> None:
    visit = open_page(expects=("401",))
    lock(visit.page, "**/metrics")
    page = visit.go()
    expect(page.locator("#sentences-map tbody tr")).to_have_count(7)
    expect(page.locator("#key-dialog")).to_be_hidden()
    expect(page.locator("#state-text")).to_have_text("no metrics")
