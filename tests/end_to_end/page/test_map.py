"""The map of many lines, and the analysis behind it."""

import subprocess
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
import pytest
from playwright.sync_api import expect

if TYPE_CHECKING:
    from tests.end_to_end.page.conftest import Visit

DOTS = "#map-plot circle"
PLANE = """async rows => {
  const { plane } = await import("/page/js/pca.js");
  return plane(rows.map((row) => Float32Array.from(row)));
}"""


def principal(rows: Any) -> tuple[Any, Any]:
    """Project rows on their two principal axes; gives the absolute places, and each axis' share of the variance."""
    centred = rows - rows.mean(0)
    left, values, _ = np.linalg.svd(centred, full_matrices=False)
    return np.abs(left[:, :2] * values[:2]), values[:2] ** 2 / (values**2).sum()


@pytest.mark.parametrize(("count", "width"), [(3, 8), (40, 384), (60, 20), (500, 64)])
def test_axes_are_those_of_the_singular_value_decomposition(visit: "Visit", count: int, width: int) -> None:
    random = np.random.default_rng(count)
    rows = random.normal(size=(count, width)) * np.geomspace(4, 0.5, width) + 3
    found = visit.go().evaluate(PLANE, rows.tolist())
    points, shares = principal(rows.astype(np.float32).astype(float))
    assert np.abs(found["points"]) == pytest.approx(points, abs=1e-3 * points.max())
    assert found["shares"] == pytest.approx(shares, rel=1e-5)


@pytest.mark.parametrize(
    ("rows", "points"),
    [
        ([[1.0, 2.0]] * 3, [[0, 0]] * 3),
        ([[0.0, 0.0], [2.0, 0.0]], [[-1, 0], [1, 0]]),
        ([[0.0, 1.0], [0.0, 2.0], [0.0, 6.0]], [[-2, 0], [-1, 0], [3, 0]]),
    ],
)
def test_points_without_two_axes_are_placed(visit: "Visit", rows: Any, points: Any) -> None:
    found = visit.go().evaluate(PLANE, rows)["points"]
    if len(rows) == 2:  # which of the two is called the furthest is open
        found = sorted(found)
    assert np.array(found) == pytest.approx(np.array(points), abs=1e-6)


def test_dots_lie_where_the_services_vectors_do(visit: "Visit", http: httpx.Client) -> None:
    page = visit.go("map")
    text = page.locator("#map-text").input_value()
    lines = [line for line in text.split("\n") if line]
    expect(page.locator(DOTS)).to_have_count(len(lines))
    answer = http.post("/v1/embeddings", json={"input": lines}).json()
    vectors = np.array([item["embedding"] for item in answer["data"]])
    expected, shares = principal(vectors)
    places = page.locator(DOTS).evaluate_all("dots => dots.map(dot => [dot.cx.baseVal.value, dot.cy.baseVal.value])")
    distances = [np.linalg.norm(np.subtract(places[0], place)) for place in places[1:]]
    signed = np.linalg.svd(vectors - vectors.mean(0), full_matrices=False)
    flat = signed[0][:, :2] * signed[1][:2]
    truths = np.linalg.norm(flat[0] - flat[1:], axis=1)
    assert np.array(distances) / max(distances) == pytest.approx(truths / truths.max(), abs=1e-3)
    assert len(expected) == len(places)
    expect(page.locator("#map-shares")).to_have_text(
        f"Across: {100 * shares[0]:.0f} % of the vectors’ variance; up: {100 * shares[1]:.0f} %."  # noqa: RUF001
    )
    blocks = [block.split("\n") for block in text.split("\n\n")]
    colours = [f"dot colour-{number}" for number, block in enumerate(blocks) for _ in block]
    assert page.locator(DOTS).evaluate_all("dots => dots.map(dot => dot.getAttribute('class'))") == colours


def test_a_dot_tells_its_text_and_its_nearest(visit: "Visit", http: httpx.Client) -> None:
    page = visit.go("map")
    lines = ["a ship in harbour", "bread and butter", "a boat at its berth", "a slice of toast", "the ship's captain"]
    page.locator("#map-text").fill("\n".join(lines))
    expect(page.locator(DOTS)).to_have_count(5)
    page.locator(DOTS).first.hover()
    body = {"source": lines[0], "target": lines[1:], "top_k": 3}
    nearest = [lines[1 + match["index"]] for match in http.post("/v1/similarity", json=body).json()["matches"]]
    expect(page.locator("#map-plot .tip")).to_have_text(lines[0])
    expect(page.locator("#map-readout b")).to_have_text(lines[0])
    expect(page.locator("#map-readout li")).to_have_text(nearest)
    expect(page.locator("#map-plot line")).to_have_count(3)
    expect(page.locator("#map-plot .dot-label")).to_have_text(lines, use_inner_text=False)


def test_five_hundred_lines_are_drawn_and_more_are_told(visit: "Visit") -> None:
    page = visit.go("map")
    page.locator("#map-text").fill("\n".join(f"number {index} of many" for index in range(510)))
    expect(page.locator("#map-note")).to_have_text("The first 500 lines are shown; 10 more are left out.")
    page.locator("#map-run").click()
    expect(page.locator(DOTS)).to_have_count(500)


def test_a_body_beyond_a_shells_argument_is_fed_to_curl(visit: "Visit") -> None:
    page = visit.go("map")
    page.locator("#map-text").fill("\n".join(f"it's {index} {'x' * 300}" for index in range(500)))
    line = page.locator("#map-curl").text_content() or ""
    assert len(line) > 131_072
    script = line.replace("curl ", "curl --fail-with-body --noproxy '*' ", 1)
    result = subprocess.run(["bash"], input=script, check=False, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    assert len(httpx.Response(200, text=result.stdout).json()["data"]) == 500


def test_the_map_follows_the_windows_width(visit: "Visit") -> None:
    page = visit.go("map")
    expect(page.locator(DOTS)).to_have_count(35)
    page.set_viewport_size({"width": 700, "height": 900})
    expect(page.locator("#map-plot svg")).to_have_attribute("viewBox", "0 0 658 478")
