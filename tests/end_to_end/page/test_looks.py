"""The page can be used with a keyboard, on a telephone, in the dark and behind a path."""

from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import Page, Route, expect

from tests.end_to_end.page.conftest import PHONE

if TYPE_CHECKING:
    from tests.end_to_end.conftest import Service
    from tests.end_to_end.page.conftest import OpenPage, Visit

VIEWS = ["sentences", "tokens", "map", "live"]
READY = {
    "sentences": "#sentences-map td[role=gridcell]",
    "tokens": "#tokens-map td[role=gridcell]",
    "map": "#map-plot circle",
    "live": "#live-work canvas",
}
FOCUS = """() => {
  const element = document.activeElement;
  const shown = element.matches(".chip input") ? element.nextElementSibling : element;
  const style = getComputedStyle(shown);
  const visible = (style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2) || element.matches(".dot");
  const name = element.getAttribute("aria-label") || element.labels?.[0]?.innerText || element.innerText;
  return [element.id || element.className.baseVal || element.className || element.tagName, visible, name.trim() !== ""];
}"""
UNLABELLED = """() => [...document.querySelectorAll("button, select, input, textarea, a")].filter((element) => {
  const name = element.getAttribute("aria-label") || element.labels?.[0]?.textContent || element.textContent;
  return !name.trim();
}).map((element) => element.outerHTML)"""
PAPER = "getComputedStyle(document.body).backgroundColor"
LIGHT, DARK = "rgb(244, 247, 248)", "rgb(13, 23, 28)"


def shown(visit: "Visit", view: str) -> Page:
    """Show a view and wait for what it draws."""
    page = visit.go(view)
    expect(page.locator(READY[view]).first).to_be_visible()
    return page


def tabbed(page: Page) -> list[tuple[str, bool, bool]]:
    """Press Tab through the page; gives each stop's id, whether it is seen to have the focus, and whether named."""
    stops: list[tuple[str, bool, bool]] = []
    page.evaluate("document.activeElement.blur()")
    while True:
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement === document.body"):
            return stops
        stops.append(tuple(page.evaluate(FOCUS)))
        assert len(stops) < 60


def test_tab_leads_through_the_page_in_order(visit: "Visit") -> None:
    stops = tabbed(shown(visit, "sentences"))
    names = [name for name, _, _ in stops]
    wanted = [
        *("theme", "tab-sentences", "sentences-text", "sentences-run", "pooling", "exclude-special", "truncate"),
        *("metric", "sentences-stretch", "sentences-copy"),
    ]
    assert [name for name in names if name in wanted] == wanted
    assert [name for name, visible, _ in stops if not visible] == []
    assert [name for name, _, named in stops if not named] == []


@pytest.mark.parametrize("view", VIEWS)
def test_every_stop_is_seen_and_named(visit: "Visit", view: str) -> None:
    page = shown(visit, view)
    stops = tabbed(page)
    assert len(stops) > 4
    assert [name for name, visible, named in stops if not (visible and named)] == []
    assert page.evaluate(UNLABELLED) == []


def test_arrow_keys_lead_through_the_tabs(visit: "Visit") -> None:
    page = shown(visit, "sentences")
    page.locator("#tab-sentences").focus()
    for view in VIEWS[1:]:
        page.keyboard.press("ArrowRight")
        expect(page.locator(f"#tab-{view}")).to_have_attribute("aria-selected", "true")
        expect(page.locator(f"#panel-{view}")).to_be_visible()
        assert page.url.endswith(f"#{view}")
    page.keyboard.press("Home")
    expect(page.locator("#panel-sentences")).to_be_visible()
    expect(page.locator("#panel-live")).to_be_hidden()


def test_arrow_keys_lead_through_cells_tokens_and_dots(visit: "Visit") -> None:
    page = shown(visit, "sentences")
    page.locator(READY["sentences"]).first.focus()
    for key in ("ArrowRight", "ArrowDown", "ArrowDown", "ArrowLeft", "ArrowLeft"):  # the last leads nowhere
        page.keyboard.press(key)
    spans = page.locator("#sentences-readout span")
    expect(spans).to_have_text(["3 Waves broke over the pier all night.", "1 A ship lies in the harbour."])
    page.keyboard.press("Control+End")
    expect(spans).to_have_text(["7 My flight left too late."] * 2)
    shown(visit, "tokens")
    page.locator("#tokens-first button").first.focus()
    page.keyboard.press("ArrowRight")
    expect(page.locator("#tokens-first .pointed")).to_have_text("where")
    shown(visit, "map")
    page.locator(READY["map"]).first.focus()
    page.keyboard.press("ArrowDown")
    expect(page.locator("#map-readout b")).to_have_text("a boat at its berth")


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_telephone_shows_all_without_scrolling_sideways(open_page: "OpenPage", view: str, scheme: str) -> None:
    visit = open_page(viewport=PHONE, color_scheme=scheme, has_touch=True, is_mobile=True, device_scale_factor=2)
    page = shown(visit, view)
    assert page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
    assert page.evaluate("visualViewport.width") == PHONE["width"]


def test_dark_is_the_systems_choice_or_the_readers(open_page: "OpenPage") -> None:
    visit = open_page(color_scheme="dark")
    page = shown(visit, "live")
    assert page.evaluate(PAPER) == DARK
    toggle = page.locator("#theme")
    expect(toggle).to_have_attribute("aria-pressed", "true")
    toggle.click()
    expect(toggle).to_have_attribute("aria-pressed", "false")
    assert page.evaluate(PAPER) == LIGHT
    page.reload()
    assert page.evaluate(PAPER) == LIGHT
    toggle.click()
    page.emulate_media(color_scheme="light")
    assert page.evaluate(PAPER) == DARK


def test_light_is_the_default(visit: "Visit") -> None:
    assert visit.go().evaluate(PAPER) == LIGHT


def test_a_proxy_may_put_it_behind_a_path(open_page: "OpenPage", service: "Service") -> None:
    visit = open_page(url=f"{service.url}/models/berth")

    def strip(route: Route) -> None:
        answer = route.fetch(url=route.request.url.replace("/models/berth/", "/"))
        route.fulfill(response=answer)

    visit.page.route("**/models/berth/**", strip)
    page = shown(visit, "sentences")
    expect(page.locator("#sentences-curl")).to_contain_text(f"{visit.url}/v1/similarity")
    assert all(url.startswith(f"{visit.url}/") for url in visit.asked)


def test_all_that_is_loaded_is_small(visit: "Visit") -> None:
    sizes: list[int] = []
    visit.page.on("response", lambda response: sizes.append(int(response.headers.get("content-length", 0))))
    shown(visit, "live")
    assert len(sizes) > 20
    assert sum(sizes) < 200_000


def test_a_violation_of_the_policy_would_be_seen(open_page: "OpenPage") -> None:
    """That the other tests saw none means something."""
    visit = open_page(expects=("TrustedHTML", "Content Security Policy"))
    page = visit.go()
    page.evaluate("setTimeout(() => { document.body.innerHTML = '<b>x</b>' })")
    page.evaluate("document.body.setAttribute('style', 'color: red')")
    expect(page.locator("#model")).not_to_have_text("…")
    assert any("TrustedHTML" in text for text in visit.problems)
    assert any("style" in text for text in visit.problems)
