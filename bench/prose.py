"""Running English prose without a download: the language reference that every Python carries (PSF licence)."""

import re
from functools import cache
from pydoc_data.topics import topics

_PROSE = re.compile(r"[A-Z][A-Za-z0-9 ,;:.'\"()-]+[.]")
MIN_WORDS = 12


@cache
def sentences() -> list[str]:
    """Give the reference's sentences in their order, without its code, grammar and tables."""
    found: dict[str, None] = {}
    for topic in sorted(topics):
        for paragraph in topics[topic].split("\n\n"):
            text = re.sub(r"[*`]|\[\d+\]", "", " ".join(paragraph.split()))
            if _PROSE.fullmatch(text) and len(text.split()) >= MIN_WORDS:
                found.update(dict.fromkeys(re.split(r"(?<=[.]) (?=[A-Z])", text)))
    return list(found)
