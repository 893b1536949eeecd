"""The heat map of sentences shows what the model says."""

import subprocess
from typing import TYPE_CHECKING

import httpx
import numpy as np
import pytest
from playwright.sync_api import expect

if TYPE_CHECKING:
    from tests.end_to_end.conftest import Twin
    from tests.end_to_end.page.conftest import OpenPage, Visit

MAP = "#sentences-map"
NASTY = [
    "it's a 'ship'",
    '"$HOME" `id` $(id) \\ \\n !!',
    "<img src=x onerror=alert(1)><script>alert(1)</script>",
    "Ünïcödé 🚢 你好 \u2028 end",
    "@/etc/passwd & %s; #",
]


def show(visit: "Visit", lines: list[str]) -> None:
    """Type sentences and wait for their map."""
    visit.page.locator("#sentences-text").fill("\n".join(lines))
    visit.page.locator("#sentences-run").click()
    expect(visit.page.locator(f"{MAP} tbody th")).to_have_text([f"{i} {line}" for i, line in enumerate(lines, 1)])


def test_numbers_are_those_of_transformers(visit: "Visit", minilm_twice: "Twin") -> None:
    page = visit.go()
    lines = page.locator("#sentences-text").input_value().split("\n")
    expect(page.locator(f"{MAP} td[role=gridcell]")).to_have_count(len(lines) ** 2)
    reference = minilm_twice.torch
    pooled = np.stack([reference.states(reference.tokenizer(line)["input_ids"])[0][-1].mean(0) for line in lines])
    pooled /= np.linalg.norm(pooled, axis=1, keepdims=True)
    assert np.array(visit.figures(MAP)) == pytest.approx(pooled @ pooled.T, abs=0.0051)


@pytest.mark.parametrize(
    ("selects", "layers", "special", "fields"),
    [
        ({"pooling": "cls"}, [3, 6], False, {"pooling": "cls", "layers": [3]}),
        ({"pooling": "max", "metric": "euclidean"}, [], False, {"pooling": "max", "metric": "euclidean"}),
        ({}, [5], True, {"layers": [5, 6], "exclude_special": True}),
        ({"truncate": "start"}, [], False, {"truncate": "start"}),
        ({"truncate": "window"}, [], False, {"truncate": {"window": 256}}),
    ],
    ids=str,
)
def test_choices_are_sent(
    visit: "Visit",
    http: httpx.Client,
    selects: dict[str, str],
    layers: list[int],
    special: bool,
    fields: dict[str, object],
) -> None:
    lines = ["a ship in harbour", "bread and butter", ("late again " * 300).strip()]
    page = visit.go()
    expect(page.locator("#layers input")).to_have_count(7)
    for name, value in selects.items():
        page.locator(f"#{name}").select_option(value)
    for layer in layers:  # 6, the last, is chosen already
        page.locator(f"#layers input[value='{layer}']").click()
    page.locator("#exclude-special").set_checked(special)
    with page.expect_request(lambda request: "late again" in (request.post_data or "")) as asked:
        show(visit, lines)
    body = asked.value.post_data_json
    assert body == {"source": lines, "target": lines} | fields
    scores = http.post("/v1/similarity", json=body).json()["scores"]
    assert np.array(visit.figures(MAP)) == pytest.approx(np.array(scores), abs=0.0051, rel=0.005)


def test_layers_can_be_merged(visit: "Visit") -> None:
    page = visit.go()
    expect(page.locator("#merge")).to_be_hidden()
    page.locator("#layers input[value='5']").click()
    page.locator("#merge").select_option("mean")
    expect(page.locator("#sentences-curl")).to_contain_text('"layers":[5,6],"merge":"mean"')


def test_cut_texts_are_told(visit: "Visit") -> None:
    visit.go()
    show(visit, ["a ship", ("late again " * 300).strip()])
    expect(visit.page.locator("#sentences-status")).to_contain_text("texts were cut")


def test_texts_stay_texts_and_the_curl_line_runs(visit: "Visit") -> None:
    page = visit.go()
    show(visit, NASTY)
    assert page.locator(f"{MAP} img, {MAP} script").count() == 0
    line = page.locator("#sentences-curl").inner_text()
    result = subprocess.run(
        ["bash", "-c", line.replace("curl ", "curl --fail-with-body --noproxy '*' ", 1)],
        check=False,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    scores = httpx.Response(200, text=result.stdout).json()["scores"]
    assert np.array(visit.figures(MAP)) == pytest.approx(np.array(scores), abs=0.0051)


def test_copy_gives_the_curl_line(visit: "Visit") -> None:
    page = visit.go()
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    expect(page.locator("#sentences-curl")).to_contain_text("/v1/similarity")
    page.locator("#sentences-copy").click()
    expect(page.locator("#sentences-copy")).to_have_text("Copied")
    assert page.evaluate("navigator.clipboard.readText()") == page.locator("#sentences-curl").text_content()


def test_an_error_of_the_service_is_shown(open_page: "OpenPage") -> None:
    visit = open_page(expects=("400",))
    page = visit.go()
    expect(page.locator("#layers input")).to_have_count(7)
    page.locator("#pooling").select_option("cls")
    page.locator("#exclude-special").check()
    expect(page.locator("#sentences-error")).to_have_text("exclude_special: leaves out the [CLS] that `cls` gives")
    page.locator("#exclude-special").uncheck()
    expect(page.locator("#sentences-error")).to_be_hidden()


def test_typing_asks_by_itself(visit: "Visit") -> None:
    page = visit.go()
    page.locator("#sentences-text").fill("a ship\na boat")
    expect(page.locator(f"{MAP} tbody tr")).to_have_count(2)


def test_much_is_asked_only_when_told_to(visit: "Visit") -> None:
    page = visit.go()
    expect(page.locator(f"{MAP} tbody tr")).to_have_count(7)
    page.locator("#sentences-text").fill("\n".join(f"line {index} {'x' * 100}" for index in range(60)))
    expect(page.locator("#sentences-run")).to_have_class("main waiting")
    expect(page.locator("#sentences-note")).to_have_text("The first 50 lines are shown; 10 more are left out.")
    page.locator("#sentences-text").press("Control+Enter")
    expect(page.locator(f"{MAP} tbody tr")).to_have_count(50)


def test_colours_follow_the_scores_and_can_be_spread(visit: "Visit") -> None:
    page = visit.go()
    show(visit, ["a ship in harbour", "a boat at its berth", "a slice of bread"])
    cells = page.locator(f"{MAP} td[role=gridcell]")
    heat = "cell => parseFloat(cell.style.getPropertyValue('--heat'))"
    scores = [abs(score) for row in visit.figures(MAP) for score in row]
    assert [cell.evaluate(heat) / 100 for cell in cells.all()] == pytest.approx(scores, abs=0.006)
    page.locator("#sentences-stretch").check()
    assert cells.nth(1).evaluate(heat) == 100
    assert min(cell.evaluate(heat) for cell in cells.all()) == 0


def test_a_cell_is_spelled_out(visit: "Visit") -> None:
    page = visit.go()
    show(visit, ["a ship in harbour", "a boat at its berth"])
    page.locator(f"{MAP} td[role=gridcell]").nth(1).hover()
    readout = page.locator("#sentences-readout")
    expect(readout.locator("span")).to_have_text(["1 a ship in harbour", "2 a boat at its berth"])
    assert float(readout.locator("b").inner_text()) == pytest.approx(0.683, abs=0.001)
