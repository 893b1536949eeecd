"""The page's files: what is sent, under which headers, and what is never in them. What they do: end_to_end/page/."""

import re
from html.parser import HTMLParser
from typing import TYPE_CHECKING

import pytest

from service.api.routes.page import FOLDER, MEDIA

if TYPE_CHECKING:
    from tests.service.api.conftest import Api

FILES = {
    path.relative_to(FOLDER).as_posix(): path.read_bytes() for path in sorted(FOLDER.rglob("*")) if path.suffix in MEDIA
}
"""What is sent, by its path."""
OURS = sorted(name for name in FILES if not name.startswith("vendor/"))
MARKUP_SINKS = re.compile(
    r"\b(?:innerHTML|outerHTML|insertAdjacentHTML|document\.write|createContextualFragment|DOMParser|eval|Function\()"
)
TYPES = {"html": "text/html; charset=utf-8", "css": "text/css; charset=utf-8", "svg": "image/svg+xml"}


class Markup(HTMLParser):
    """Notes what a page's elements are and load."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.attributes: list[tuple[str, str, str]] = []
        self.inline = ""
        self._inside = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._inside = tag
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:  # noqa: ARG002  # HTMLParser's signature
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside in {"script", "style"}:
            self.inline += data


def test_root_is_the_page_and_still_teis_route(api: "Api") -> None:
    answer = api.get("/")
    assert answer.status_code == 200
    assert answer.content == (FOLDER / "index.html").read_bytes()
    assert len(api.post("/", {"inputs": "a ship in harbour"}).json()[0]) == 384
    assert api.run(api.client.put("/")).status_code == 405


@pytest.mark.parametrize("name", sorted(FILES))
def test_every_file_is_sent_under_the_policy(api: "Api", name: str) -> None:
    answer = api.get(f"/page/{name}")
    assert answer.status_code == 200
    assert answer.content == (FOLDER / name).read_bytes()
    assert answer.headers["content-type"] == TYPES.get(name.rpartition(".")[2], "text/javascript; charset=utf-8")
    policy = {part.split()[0]: part.split()[1:] for part in answer.headers["content-security-policy"].split("; ")}
    assert policy["default-src"] == ["'none'"]
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == ["'self'"]
    assert policy["require-trusted-types-for"] == ["'script'"]
    assert not {word for words in policy.values() for word in words if "unsafe" in word or "http" in word}


@pytest.mark.parametrize("path", ["/", "/page/js/main.js"])
def test_a_browser_asks_whether_its_copy_is_the_newest(api: "Api", path: str) -> None:
    first = api.get(path)
    assert first.headers["cache-control"] == "no-cache"
    etag = first.headers["etag"]
    for known in (etag, f"W/{etag}", f'"other", {etag}', "*"):
        again = api.get(path, headers={"if-none-match": known})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", etag)
    assert api.get(path, headers={"if-none-match": '"other"'}).content == first.content


def test_files_differ_in_their_tags(api: "Api") -> None:
    tags = [api.get(f"/page/{name}").headers["etag"] for name in FILES]
    assert len(set(tags)) == len(tags)


@pytest.mark.parametrize("path", ["/", "/page/js/main.js"])
def test_head_is_answered(api: "Api", path: str) -> None:
    answer = api.run(api.client.head(path))
    assert answer.status_code == 200
    assert answer.headers["etag"] == api.get(path).headers["etag"]


@pytest.mark.parametrize(
    "name",
    ["", "nothing", "js", "../metrics.py", "%2e%2e/metrics.py", "..%2fmetrics.py", "vendor/uplot/LICENSE", "/etc"],
)
def test_nothing_else_is_sent(api: "Api", name: str) -> None:
    answer = api.get(f"/page/{name}")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")


def test_the_page_stands_in_no_schema(api: "Api") -> None:
    paths = api.get("/openapi.json").json()["paths"]
    assert "get" not in paths["/"]
    assert not [path for path in paths if path.startswith("/page")]


def test_all_of_it_is_small() -> None:
    assert sum(map(len, FILES.values())) < 200_000


def test_the_library_keeps_its_licence() -> None:
    licence = (FOLDER / "vendor" / "uplot" / "LICENSE").read_text(encoding="utf-8")
    assert licence.startswith("The MIT License (MIT)")
    version = re.search(rb"uPlot \(v([\d.]+)\)", FILES["vendor/uplot/uPlot.iife.min.js"])
    assert version is not None
    notice = (FOLDER.parents[1] / "NOTICE").read_text(encoding="utf-8")
    assert f"uPlot {version[1].decode()}" in notice


def test_markup_loads_files_of_its_own_and_has_nothing_inline() -> None:
    markup = Markup(FILES["index.html"].decode())
    loaded = [value for tag, name, value in markup.attributes if name in {"src", "href"} and tag != "a"]
    assert loaded
    assert {value.removeprefix("page/") for value in loaded} <= FILES.keys()
    assert not markup.inline.strip()
    assert not [name for _, name, _ in markup.attributes if name == "style" or name.startswith("on")]


@pytest.mark.parametrize("name", OURS)
def test_no_file_names_another_host_or_makes_markup_of_text(name: str) -> None:
    text = FILES[name].decode()
    foreign = set(re.findall(r"https?://[^\s\"')]+", text)) - {"http://www.w3.org/2000/svg"}
    assert not foreign
    assert not re.search(r"[\"'(]//", text)
    assert not MARKUP_SINKS.search(text)


def test_modules_import_what_is_there_and_make_no_circle() -> None:
    modules = {name: FILES[name].decode() for name in OURS if name.startswith("js/")}
    arrows = {name: {f"js/{path}" for path in re.findall(r'from "\./([^"]+)"', text)} for name, text in modules.items()}
    assert arrows["js/main.js"]
    assert set().union(*arrows.values()) <= modules.keys()
    while arrows:
        free = {name for name, others in arrows.items() if not others & arrows.keys()}
        assert free, f"a circle among {sorted(arrows)}"
        arrows = {name: others for name, others in arrows.items() if name not in free}


@pytest.mark.parametrize("value", ["bytes=0-9", "bytes=9999999-", "abc"])
def test_part_of_a_file_is_the_whole(api: "Api", value: str) -> None:
    answer = api.get("/page/js/main.js", headers={"range": value})
    assert (answer.status_code, answer.content) == (200, FILES["js/main.js"])
