"""A request's head read at a glance, for those that are to be turned away: a parser would make that half as dear again.

It sees only what leaves no room for another reading, by RFC 9112: a POST of HTTP/1.1 whose head is whole, with one
length, and with no header that says more of the message or the connection than to keep it. All else is the parser's.
"""

import re
from dataclasses import dataclass

HEAD = re.compile(rb"POST (/[!-~]*) HTTP/1\.1\r\n(?:[!#-'*+.0-9A-Z^-z|~-]+:[\t -~\x80-\xff]*\r\n)+\r\n")
"""The request line and the lines of headers, each a token (RFC 9110, 5.6.2), a colon and a value."""

HEADERS = re.compile(
    rb"\r\n(?:content-length:[ \t]*([0-9]{1,18})(?=\r\n)"
    rb"|x-request-id:[ \t]*([^\r]*)"
    rb"|((?:proxy-)?connection:(?![ \t]*keep-alive\r\n)|transfer-encoding:|expect:|upgrade:|content-length:))",
    re.IGNORECASE,
)
"""Those that matter: a length, an id, and what is not to be judged at a glance."""

END = len(b"\r\n")


@dataclass(frozen=True, slots=True)
class Glance:
    """What is seen of a request."""

    path: bytes
    """Without the query."""
    id: str
    """The id that it brings, "" where it has none."""
    head: int
    """Bytes of its head."""
    size: int
    """Bytes of all of it."""


def glance(data: bytes) -> Glance | None:
    """Read the request that begins with `data`; None where that takes a parser."""
    head = HEAD.match(data)
    if head is None:
        return None
    length = given = b""
    for found, name, special in HEADERS.findall(data, 0, head.end() - END):
        if special or (found and length):
            return None
        length, given = found or length, given or name
    if not length:
        return None
    return Glance(head[1].partition(b"?")[0], given.decode("latin-1"), head.end(), head.end() + int(length))
