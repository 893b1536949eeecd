"""API keys: how they are written down and told from one another. What is kept of a key is its label and its digest."""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

SPELLING = re.compile(r"[!-~]+")
"""Printable ASCII, which is what fits into a header; a comma or a colon can be no part of it, see `read_key`."""
LABEL = re.compile(r"[A-Za-z0-9._@-]{1,64}")
MADE_UP = re.compile(r"key-\d+")
"""A label that a key is given which has none."""
SHORT = 16
"""Characters under which a key can be guessed, if it is no better than a password."""


@dataclass(frozen=True, slots=True)
class Key:
    """A key that opens the service."""

    label: str
    """What it is called in logs; several keys may share one, as an old and a new one do for a while."""
    digest: str
    """Its SHA-256, in hexadecimal digits."""
    short: bool


def read_keys(entries: Sequence[str], known: Sequence[Key] = ()) -> tuple[Key, ...]:
    """Read keys, each written as `key` or as `label: key`, that come after those known already.

    Raises `ValueError`, which names an entry by its place and never shows what is in it.
    """
    keys = list(known)
    for place, entry in enumerate(entries, start=1):
        try:
            keys.append(_read_key(entry, keys))
        except ValueError as error:
            raise ValueError(f"key {place} of {len(entries)} {error}") from None
    return tuple(keys[len(known) :])


def read_key_file(path: Path, known: Sequence[Key]) -> tuple[Key, ...]:
    """Read a file of one key a line, its blank lines and those that begin with # left out.

    Raises `ValueError` where it cannot be read or has no key in it.
    """
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not text") from None
    entries = [line for line in lines if line and not line.startswith("#")]
    if not entries:
        raise ValueError(f"{path} has no key in it")
    return read_keys(entries, known)


def digest(key: bytes) -> str:
    """Give the digest of a key, or of what somebody says is one."""
    return hashlib.sha256(key).hexdigest()


def _read_key(entry: str, others: Sequence[Key]) -> Key:
    label, colon, key = (part.strip() for part in entry.rpartition(":"))
    if not key:
        raise ValueError("is empty")
    if not SPELLING.fullmatch(key) or "," in key:
        raise ValueError("must be printable ASCII without spaces, commas and colons")
    if colon and not LABEL.fullmatch(label):
        raise ValueError("must have a label of at most 64 letters, digits and . _ @ -")
    if MADE_UP.fullmatch(label):
        raise ValueError("must have another label: key- and a number is what those without one are called")
    made = Key(label or f"key-{len(others) + 1}", digest(key.encode()), len(key) < SHORT)
    if any(other.digest == made.digest for other in others):
        raise ValueError("is there twice")
    return made
