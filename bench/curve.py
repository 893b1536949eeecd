"""A picture of a dial: a point for each of its values, as SVG that follows a page's light or dark."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from bench.picture import STYLE
from bench.table import cell

WIDTH, HEIGHT, LEFT, BOTTOM, TOP = 640, 360, 64, 48, 24
"""Pixels: of the picture, and of the margins for the axes' figures."""
LINES = 4
"""Lines across, each with its figure."""


@dataclass(frozen=True, slots=True)
class Point:
    """A value of the dial, bulk's part of its rate alone, and milliseconds of short requests."""

    label: str
    rate: float
    milliseconds: float


def curve(points: Sequence[Point]) -> str:
    """Draw milliseconds over bulk's rate, both from 0."""
    most_ms = max(*(point.milliseconds for point in points), 1e-9) * 1.1
    width, height = WIDTH - LEFT - TOP, HEIGHT - BOTTOM - TOP

    def x(rate: float) -> float:
        return LEFT + rate * width

    def y(milliseconds: float) -> float:
        return TOP + height * (1 - milliseconds / most_ms)

    parts = [
        f'<text x="{WIDTH - TOP}" y="{HEIGHT - 8}" text-anchor="end">bulk, ÷ its rate alone</text>',
        '<text x="4" y="14">p99 of short requests, ms; beside a point: --bulk-share</text>',
    ]
    for step in range(LINES + 1):
        rate, milliseconds = step / LINES, most_ms * step / LINES
        parts += [
            f'<path class="grid" d="M{LEFT} {y(milliseconds):.1f}H{WIDTH - TOP}"/>',
            f'<text x="{LEFT - 6}" y="{y(milliseconds) + 4:.1f}" text-anchor="end">{milliseconds:.0f}</text>',
            f'<text x="{x(rate):.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{cell(rate)[:4]}</text>',
        ]
    line = "L".join(f"{x(point.rate):.1f} {y(point.milliseconds):.1f}" for point in points)
    parts.append(f'<path class="line" d="M{line}"/>')
    for number, point in enumerate(points):
        aside = 18 if number % 2 else -8  # below and above in turns: two may be near each other
        place = x(point.rate), y(point.milliseconds)
        parts += [
            f'<circle class="ours" cx="{place[0]:.1f}" cy="{place[1]:.1f}" r="4"/>',
            f'<text class="head" x="{place[0] + 8:.1f}" y="{place[1] + aside:.1f}">{escape(point.label)}</text>',
        ]
    style = STYLE + ".grid{stroke:#9db4bf;stroke-opacity:.4}.line{stroke:#0b6478;fill:none;stroke-width:2}"
    size = f'viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}"'
    return "\n".join(
        [f'<svg xmlns="http://www.w3.org/2000/svg" {size}>', f"<style>{style}</style>", *parts, "</svg>\n"]
    )
