"""A picture of a comparison: bars of each server's rate by workload, as SVG that follows a page's light or dark."""

from collections.abc import Mapping
from html import escape

from bench.table import cell

WIDTH, LABEL, VALUE = 720, 190, 70
ROW, BAR, GAP = 22, 14, 34
"""Pixels: of the picture, of the names and figures beside the bars; of a line, a bar, and a group's heading."""

STYLE = (
    "text{font:13px system-ui,sans-serif;fill:#1c2b33}.head{font-weight:600}.ours{fill:#0b6478}.other{fill:#9db4bf}"
    "@media(prefers-color-scheme:dark){text{fill:#e6eef2}.ours{fill:#5cc5dd}.other{fill:#54707d}}"
)


def picture(rates: Mapping[str, Mapping[str, float]]) -> str:
    """Draw the rates, texts/s, by workload and server; the first server of a workload is ours."""
    parts: list[str] = []
    top = 0
    for title, servers in rates.items():
        top += GAP
        parts.append(f'<text class="head" x="0" y="{top - 10}">{escape(title)}, texts/s</text>')
        scale = (WIDTH - LABEL - VALUE) / max(*servers.values(), 1e-9)
        for place, (label, rate) in enumerate(servers.items()):
            kind, length = "other" if place else "ours", rate * scale
            parts.append(
                f'<text x="0" y="{top + BAR}">{escape(label)}</text>'
                f'<rect class="{kind}" x="{LABEL}" y="{top + 2}" width="{length:.1f}" height="{BAR}"/>'
                f'<text x="{LABEL + length + 6:.1f}" y="{top + BAR}">{cell(rate)}</text>'
            )
            top += ROW
    height = top + 4
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}">'
    return "\n".join([head, f"<style>{STYLE}</style>", *parts, "</svg>\n"])
