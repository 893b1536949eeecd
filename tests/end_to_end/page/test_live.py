"""The live view moves with the service, and says plainly when it cannot."""

import re
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from playwright.sync_api import Locator, Page, expect

if TYPE_CHECKING:
    from tests.end_to_end.conftest import Service
    from tests.end_to_end.page.conftest import OpenPage, Visit

QUANTILE = """async ([before, now, q]) => {
  const { parse, quantile } = await import("/page/js/prometheus.js");
  return quantile(parse(before), parse(now), "t", q);
}"""
PARSE = """async text => {
  const { parse } = await import("/page/js/prometheus.js");
  return Object.fromEntries(parse(text));
}"""
NOTHING = re.compile(r"^(–|0|0\.00)$")  # noqa: RUF001


def card(page: Page, title: str, group: str) -> Locator:
    """Find a card by its title."""
    return page.locator(f"#live-{group} article", has=page.get_by_role("heading", name=title, exact=True))


def picture(card: Locator) -> Any:
    """Read the pixels of a card's chart."""
    return card.locator("canvas").evaluate("canvas => canvas.toDataURL()")


def test_charts_move_under_load(visit: "Visit", service: "Service") -> None:
    page = visit.go("live")
    cards = [card(page, title, "work") for title in ("Requests", "Texts", "Tokens")]
    cards += [card(page, title, "latency") for title in ("Total", "Tokenize", "Queue", "Encode")]
    cards += [card(page, title, "room") for title in ("Batch fill", "Memory")] + [card(page, "Turned away", "trouble")]
    for each in cards:
        expect(each.locator("canvas")).to_be_visible()
    still = [picture(each) for each in cards]

    def work(client: httpx.Client) -> None:
        client.post("/v1/embeddings", json={"input": ["a ship in harbour", "a boat"]})
        client.post("/v1/embeddings", json={"input": ""})

    with service.client() as client, ThreadPoolExecutor(2) as pool:
        while all(NOTHING.match(each.locator("b").first.inner_text()) for each in cards):
            list(pool.map(work, [client] * 20))
        for each in cards:
            while NOTHING.match(each.locator("b").first.inner_text()):
                list(pool.map(work, [client] * 20))
    moved = [picture(each) for each in cards]
    assert all(before != after for before, after in zip(still, moved, strict=True))
    route = page.locator("#live-routes tr", has_text="/v1/embeddings")
    expect(route.locator("td").first).not_to_have_text(NOTHING)
    expect(page.locator("#live-routes")).not_to_contain_text("/metrics")
    expect(page.locator("#live-rejections")).to_contain_text("invalid value")


def test_figures_are_those_of_the_metrics(open_page: "OpenPage") -> None:
    """Scrapes whose differences are known."""
    visit = open_page()
    scrapes = [
        "\n".join(
            [
                "berth_ready 1",
                f'berth_requests_total{{route="/v1/embeddings",status="200"}} {100 + 40 * n}',
                f'berth_requests_total{{route="/metrics",status="200"}} {1000 + n}',
                f'berth_requests_total{{route="/v1/features",status="500"}} {4 * n}',
                f'berth_requests_total{{route="/health/ready",status="503"}} {9 * n}',
                f"berth_tokens_total {n * 50_000}.0",
                *(f'berth_stage_seconds_bucket{{stage="encode",le="{le}"}} {n * c}' for le, c in BUCKETS),
                f"berth_batch_tokens_count {n * 10}",
                f"berth_batch_tokens_sum {n * 640}",
                "berth_queue_tokens 12345",
                f"berth_requests_in_flight {2 + n}",
                "process_resident_memory_bytes 2.5e+08",
                "process_start_time_seconds 1.7e9",
            ]
        )
        for n in range(50)
    ]
    numbers = iter(range(50))
    visit.page.route("**/metrics", lambda route: route.fulfill(body=scrapes[next(numbers)], content_type="text/plain"))
    visit.page.clock.install()
    page = visit.go("live")
    expect(page.locator("#state-text")).to_have_text("ready")
    # The clock is the test's, and a reading's time is its answer's: the first, while the page loads, takes longer.
    expect(page.locator("#live-info dt").first).to_be_visible()
    while sum(url.endswith("/metrics") for url in visit.asked) < 3:
        page.clock.run_for(50)
    expect(card(page, "In flight", "work").locator("b")).to_have_text("3")
    tokens = card(page, "Tokens", "work").locator("b")
    rate = float(tokens.inner_text().removesuffix(" k")) * 1000 / 50_000
    assert rate == pytest.approx(0.5, rel=0.1)
    requests = float(card(page, "Requests", "work").locator("b").inner_text())
    assert requests == pytest.approx(44 * rate, rel=0.02)
    failed = float(card(page, "Errors", "trouble").locator("b").first.inner_text())
    assert failed == pytest.approx(4 * rate, rel=0.02)
    assert card(page, "Encode", "latency").locator("b").all_inner_texts() == ["10.0 ms", "91.0 ms", "98.2 ms"]
    assert card(page, "Batch fill", "room").locator("b").inner_text() == "25 %"
    assert card(page, "Queue", "room").locator("b").first.inner_text() == "12.3 k"
    assert card(page, "Memory", "room").locator("b").inner_text() == "250 MB"


BUCKETS = [("0.005", 2), ("0.01", 10), ("0.1", 20), ("+Inf", 20)]
"""Of 20: half below 10 ms, the rest below 100."""


@pytest.mark.parametrize(
    ("q", "seconds"),
    [(0.05, 0.0025), (0.5, 0.01), (0.95, 0.01 + 0.09 * 9 / 10), (1.0, 0.1)],
)
def test_quantiles_are_those_of_prometheus(visit: "Visit", q: float, seconds: float) -> None:
    """As `histogram_quantile` gives them: straight between a bucket's bounds."""
    before = "\n".join(f'# HELP t x\nt_bucket{{le="{le}"}} {7 + count}' for le, count in BUCKETS)
    now = "\n".join(f't_bucket{{le="{le}"}} {7 + 2 * count}' for le, count in BUCKETS)
    assert visit.go().evaluate(QUANTILE, [before, now, q]) == pytest.approx(seconds)


def test_quantile_of_nothing_and_beyond_the_last_bound(visit: "Visit") -> None:
    page = visit.go()
    told = 't_bucket{le="1"} 1\nt_bucket{le="+Inf"} 3'
    assert page.evaluate(QUANTILE, [told, told, 0.5]) is None
    assert page.evaluate(QUANTILE, ["", told, 0.9]) == 1


def test_labels_are_read(visit: "Visit") -> None:
    text = '# TYPE a counter\na{x="1",y="a \\"b\\", {c}\\\\\\n"} 2.5\na 1e3\nb{le="+Inf"} NaN\n\nnonsense\n'
    found = visit.go().evaluate(PARSE, text)
    assert found["a"] == [
        {"labels": {"x": "1", "y": 'a "b", {c}\\\n'}, "value": 2.5},
        {"labels": {}, "value": 1000},
    ]
    assert found.keys() == {"a", "b"}


def test_pause_stops_the_reading(visit: "Visit") -> None:
    page = visit.go("live")
    expect(page.locator("#state-text")).to_have_text("ready")
    pause = page.locator("#live-pause")
    pause.click()
    expect(pause).to_have_attribute("aria-pressed", "true")
    page.wait_for_load_state("networkidle")
    visit.asked.clear()
    page.wait_for_timeout(5000)
    assert not [url for url in visit.asked if url.endswith("/metrics")]
    with page.expect_response("**/metrics"):
        pause.click()


def test_model_and_settings_are_shown(visit: "Visit", http: httpx.Client) -> None:
    page = visit.go("live")
    info = http.get("/info").json()
    facts = page.locator("#live-info")
    expect(facts).to_contain_text(info["model_id"])
    expect(facts).to_contain_text(f"{info['max_batch_tokens']} tokens")
    expect(facts).to_contain_text("fp32 on cpu")
    expect(page.locator("#model")).to_have_text(info["model_id"])


@pytest.mark.parametrize(
    ("status", "words", "state"),
    [
        (404, "may have a port of their own", "no metrics"),
        (403, "closed to this key", "no metrics"),
        (0, "does not answer", "no answer"),
        (503, "The service answered 503.", "no metrics"),
    ],
)
def test_metrics_that_are_not_there_are_told(open_page: "OpenPage", status: int, words: str, state: str) -> None:
    visit = open_page(expects=("Failed to load resource",))
    visit.page.route("**/metrics", lambda route: route.fulfill(status=status) if status else route.abort())
    page = visit.go("live")
    expect(page.locator("#live-problem")).to_contain_text(words)
    expect(page.locator("#state-text")).to_have_text(state)
    expect(page.locator("#live-key")).to_be_hidden()
    visit.asked.clear()
    page.wait_for_timeout(5000)
    refused = status in {403, 404}
    assert refused is not any(url.endswith("/metrics") for url in visit.asked)
    page.unroute("**/metrics")
    if refused:
        page.locator("#live-pause").click(click_count=2, delay=100)
    expect(page.locator("#live-problem")).to_be_hidden()
    expect(page.locator("#state-text")).to_have_text("ready")


def test_service_that_is_not_ready_is_asked_by_one_loop(open_page: "OpenPage") -> None:
    visit = open_page(expects=("503",))
    visit.page.route("**/health/ready", lambda route: route.fulfill(status=503))
    page = visit.go()
    expect(page.locator("#model")).not_to_be_empty()
    for view in ("tokens", "map", "live", "sentences") * 2:
        page.locator(f"#tab-{view}").click()
    page.wait_for_timeout(2500)
    visit.asked.clear()
    page.wait_for_timeout(5000)
    assert 1 <= sum(url.endswith("/health/ready") for url in visit.asked) <= 3
