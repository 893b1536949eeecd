"""README's table of the house says how large each room is, and CONTRIBUTING's map names each module."""

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


def modules_on_the_map() -> set[Path]:
    """List what CONTRIBUTING's map names, each in the folder under which it stands."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").partition("## The map of the house")[2]
    modules: set[Path] = set()
    folders: list[tuple[int, str]] = []
    for line in text.split("```")[1].splitlines():
        indent = len(line) - len(line.lstrip())
        while folders and folders[-1][0] >= indent:
            folders.pop()
        if match := re.match(r"(\w+)/ ", line.lstrip()):
            folders.append((indent, match[1]))
        modules |= {ROOT.joinpath(*(name for _, name in folders), module) for module in re.findall(r"\w+\.py", line)}
    return modules


def test_map_names_each_module() -> None:
    """Those of a folder that is told as a whole (`a file a …`) are not named, or by way of example."""
    named = modules_on_the_map()
    folders = ("berth", "model_export", "service", "service/api", "service/inference", "bench")
    there = {path for folder in folders for path in (ROOT / folder).glob("*.py") if not path.name.startswith("__")}
    assert not there - named
    assert not [path for path in named if not path.exists()]
