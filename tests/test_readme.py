"""README's table of the house says how large each room is."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROWS = re.findall(r"^\| `([\w/]+)/` \| (\d+) \|", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE)

SUFFIXES = {".py", ".js", ".css", ".html"}


def lines_of(folder: str) -> int:
    """Count the lines of a folder's modules, without those of the folders that have a row of their own."""
    others = [ROOT / other for other, _ in ROWS if other.startswith(f"{folder}/")]
    others.append(ROOT / "service" / "page" / "vendor")
    modules = [
        path
        for path in (ROOT / folder).rglob("*")
        if path.suffix in SUFFIXES and not any(path.is_relative_to(other) for other in others)
    ]
    return sum(len(path.read_text(encoding="utf-8").splitlines()) for path in modules)


def test_every_package_has_its_row() -> None:
    assert {folder for folder, _ in ROWS} == {
        "berth",
        "service/api",
        "service/inference",
        "service/page",
        "service",
        "model_export",
    }


@pytest.mark.parametrize(("folder", "lines"), ROWS)
def test_lines_are_nearly_right(folder: str, lines: str) -> None:
    assert lines_of(folder) == pytest.approx(int(lines), rel=0.15)
