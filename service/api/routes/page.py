"""GET / and what it loads: the page, a few static files out of this package."""

from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path

from fastapi import APIRouter, Request, Response
from starlette.exceptions import HTTPException

FOLDER = Path(__file__).parents[2] / "page"
MEDIA = {
    ".css": "text/css",
    ".html": "text/html",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
}
"""What is sent; a licence that lies beside is not."""

POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)
"""What the page may do: load from here, call here, and never make markup or code of a text."""

router = APIRouter(include_in_schema=False)


@dataclass(frozen=True, slots=True)
class PageFile:
    """One file, as it is sent."""

    content: bytes
    media_type: str
    etag: str


@cache
def page_files() -> dict[str, PageFile]:
    """Read all files of the page, by their path in its folder."""
    return {path.relative_to(FOLDER).as_posix(): _read(path) for path in FOLDER.rglob("*") if path.suffix in MEDIA}


@router.head("/")
@router.get("/")
async def page(request: Request) -> Response:
    """Give the page."""
    return _reply("index.html", request)


@router.head("/page/{name:path}")
@router.get("/page/{name:path}")
async def page_file(name: str, request: Request) -> Response:
    """Give a file that the page loads."""
    return _reply(name, request)


def _read(path: Path) -> PageFile:
    content = path.read_bytes()
    return PageFile(content, MEDIA[path.suffix], f'"{sha256(content).hexdigest()[:32]}"')


def _reply(name: str, request: Request) -> Response:
    """Send a file, or 304 where the browser has this very one; it asks each time, so that none outlives an update."""
    file = page_files().get(name)
    if file is None:
        raise HTTPException(404)
    headers = {
        "cache-control": "no-cache",
        "content-security-policy": POLICY,
        "etag": file.etag,
    }
    known = {tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")}
    if known & {file.etag, "*"}:
        return Response(status_code=304, headers=headers)
    return Response(file.content, media_type=file.media_type, headers=headers)
