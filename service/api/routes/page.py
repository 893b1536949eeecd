"""GET / and what it loads: the page, a few static files out of this package."""

from pathlib import Path, PurePath

from fastapi import APIRouter, Request, Response
from starlette.exceptions import HTTPException
from starlette.staticfiles import StaticFiles

FOLDER = Path(__file__).parents[2] / "page"
MEDIA = {".css": "text/css", ".html": "text/html", ".js": "text/javascript", ".svg": "image/svg+xml"}
"""What is sent; a licence that lies beside is not."""

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)
"""What the page may do: load from here, call here, and never make markup or code of a text."""

router = APIRouter(include_in_schema=False)
files = StaticFiles(directory=FOLDER)


@router.head("/")
@router.get("/")
async def page(request: Request) -> Response:
    """Give the page."""
    return await page_file("index.html", request)


@router.head("/page/{name:path}")
@router.get("/page/{name:path}")
async def page_file(name: str, request: Request) -> Response:
    """Give a file that the page loads; a browser asks each time whether its copy is the newest."""
    media = MEDIA.get(PurePath(name).suffix)
    if media is None:
        raise HTTPException(404)
    headers = [header for header in request.scope["headers"] if header[0] != b"range"]  # a part is never asked for
    request.scope["headers"] = headers
    response = await files.get_response(name, request.scope)
    response.headers.update({"cache-control": "no-cache", "content-security-policy": POLICY})
    if response.status_code == 200:
        response.headers["content-type"] = media if media.startswith("image/") else f"{media}; charset=utf-8"
    return response
