"""Takes the pictures of page.md and README from a running service, with some load on it.

pip install '.[test]' pillow          # and a Chromium: apt-get install chromium
python docs/screenshots.py http://127.0.0.1:8080
"""

import argparse
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from random import Random
from typing import Any

import httpx
from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

OUT = Path(__file__).parent / "pictures"
FLAGS = ["--no-sandbox", "--disable-gpu", "--no-proxy-server", "--disable-background-networking", "--disable-sync"]
DESK: dict[str, Any] = {"viewport": {"width": 1200, "height": 860}}
PHONE: dict[str, Any] = {"viewport": {"width": 390, "height": 844}, "device_scale_factor": 2, "is_mobile": True}
LOAD_SECONDS = 60
WORDS = ("ship", "harbour", "berth", "boat", "bread", "toast", "train", "delay", "flight", "wave", "pier", "night")


def main() -> None:
    """Take all pictures."""
    parser = argparse.ArgumentParser(description="Take the pictures of the page from a running service.")
    parser.add_argument("url", help="address of the service, as in http://127.0.0.1:8080")
    url = parser.parse_args().url
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        for scheme in ("light", "dark"):
            for view in ("sentences", "tokens", "map"):
                with opened(browser, url, view, color_scheme=scheme, **DESK) as page:
                    point(page, view)
                    save(page, f"page-{view}-{scheme}")
            with opened(browser, url, "sentences", color_scheme=scheme, **PHONE) as page:
                page.locator("#sentences-map").scroll_into_view_if_needed()
                page.evaluate("scrollTo(0, 420)")
                save(page, f"page-phone-{scheme}")
        with opened(browser, url, "live", color_scheme="light", **DESK) as page, load(url):
            page.wait_for_timeout(LOAD_SECONDS * 1e3)
            save(page, "page-live-light")
            page.locator("#theme").click()
            save(page, "page-live-dark")
        browser.close()


@contextmanager
def opened(browser: Browser, url: str, view: str, **options: Any) -> Iterator[Page]:
    """Open a view and wait until nothing is asked any more."""
    context = browser.new_context(**options)
    page = context.new_page()
    page.goto(f"{url}/#{view}")
    page.locator(f"#panel-{view} :is(td[role=gridcell], circle, canvas)").first.wait_for()
    page.wait_for_timeout(500)
    yield page
    context.close()


def point(page: Page, view: str) -> None:
    """Point at what shows what the view can do."""
    match view:
        case "sentences":
            page.locator("#sentences-map td[role=gridcell]").nth(1).hover()
        case "tokens":
            page.locator("#tokens-map td.best").nth(6).hover()
        case "map":
            page.locator("#map-plot circle").nth(4).hover()
    page.wait_for_timeout(300)


def save(page: Page, name: str) -> None:
    """Write what is seen, in 256 colours so that it stays small."""
    picture = Image.open(BytesIO(page.screenshot())).convert("RGB")
    file = OUT / f"{name}.png"
    picture.quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(file, optimize=True)
    print(f"{file.name}: {file.stat().st_size:,} bytes")


@contextmanager
def load(url: str) -> Iterator[None]:
    """Have requests of mixed sizes sent, a bad one now and then."""
    end = threading.Event()

    def work(number: int) -> None:
        random = Random(number)  # noqa: S311  # no secret is made of it
        with httpx.Client(base_url=url, timeout=60, trust_env=False) as client:
            while not end.wait(random.random() * 0.1):
                count = random.choice([1, 1, 4, 16])
                texts = [" ".join(random.choices(WORDS, k=random.randint(4, 40))) for _ in range(count)]
                client.post("/v1/embeddings", json={"input": texts})
                client.post("/v1/similarity", json={"source": "a boat", "target": texts[:2]})
                if random.random() < 0.05:
                    client.post("/v1/embeddings", json={"input": ""})

    threads = [threading.Thread(target=work, args=[number]) for number in range(4)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        end.set()
        for thread in threads:
            thread.join()


if __name__ == "__main__":
    main()
