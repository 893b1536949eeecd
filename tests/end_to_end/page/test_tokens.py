"""Two sentences token by token."""

from typing import TYPE_CHECKING

import httpx
import numpy as np
import pytest
from playwright.sync_api import expect

if TYPE_CHECKING:
    from tests.end_to_end.page.conftest import OpenPage, Visit

MAP = "#tokens-map"
SOURCE, TARGET = "Where can I moor my boat?", "Ships tie up at the berth in the harbour."
HEAT = "chips => chips.map(chip => parseFloat(chip.style.getPropertyValue('--heat')) / 100)"


def test_scores_are_the_services(visit: "Visit", http: httpx.Client) -> None:
    page = visit.go("tokens")
    body = {"source": SOURCE, "target": TARGET, "granularity": "token"}
    answer = http.post("/v1/similarity", json=body).json()
    tokens = [[token["text"] for token in answer[side]] for side in ("source_tokens", "target_tokens")]
    expect(page.locator(f"{MAP} tbody th")).to_have_text(tokens[0])
    expect(page.locator(f"{MAP} thead th")).to_have_text(tokens[1])
    expect(page.locator("#tokens-first button")).to_have_text(tokens[0])
    expect(page.locator("#tokens-second button")).to_have_text(tokens[1])
    assert np.array(visit.figures(MAP)) == pytest.approx(np.array(answer["scores"]), abs=0.0051)
    assert float(page.locator("#tokens-max-sim").inner_text()) == pytest.approx(answer["max_sim"], abs=1e-4)
    framed = page.locator(f"{MAP} td.best").all_inner_texts()
    assert [float(text) for text in framed] == pytest.approx([max(row) for row in answer["scores"]], abs=0.0051)


def test_a_token_shows_how_near_the_others_are(visit: "Visit", http: httpx.Client) -> None:
    page = visit.go("tokens")
    body = {"source": SOURCE, "target": TARGET, "granularity": "token"}
    scores = np.array(http.post("/v1/similarity", json=body).json()["scores"])
    boat = page.locator("#tokens-first button", has_text="boat")
    boat.hover()
    row = page.locator("#tokens-first button").all_inner_texts().index("boat")
    second = page.locator("#tokens-second button")
    assert second.evaluate_all(HEAT) == pytest.approx(scores[row], abs=0.001)
    expect(boat).to_have_attribute("aria-label", f"boat: nearest is ships, {scores[row].max():.4f}")
    page.mouse.move(0, 0)
    assert second.evaluate_all(HEAT) == pytest.approx(scores.max(0), abs=0.001)


def test_what_does_not_go_with_tokens_is_not_offered(visit: "Visit") -> None:
    page = visit.go("sentences")
    expect(page.locator("#layers input")).to_have_count(7)
    page.locator("#pooling").select_option("cls")
    page.locator("#truncate").select_option("window")
    page.locator("#tab-tokens").click()
    expect(page.locator("#pooling")).to_be_hidden()
    expect(page.locator("#truncate")).to_have_value("")
    page.locator("#layers input[value='0']").check()
    page.locator("#exclude-special").check()
    expect(page.locator("#tokens-curl")).to_contain_text('"granularity":"token","layers":[0,6],"exclude_special":true}')
    expect(page.locator("#tokens-first button")).to_have_text(["where", "can", "i", "moor", "my", "boat", "?"])


def test_one_empty_sentence_asks_nothing(open_page: "OpenPage") -> None:
    visit = open_page()
    page = visit.go("tokens")
    expect(page.locator(f"{MAP} tbody th")).to_have_count(9)
    page.locator("#tokens-target").fill(" ")
    expect(page.locator("#tokens-copy")).to_be_disabled()
    expect(page.locator("#tokens-curl")).to_have_text("")
