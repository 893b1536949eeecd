"""What is seen of a request at a glance is what the parser would see, or nothing."""

import random

import httptools
import pytest

from service.glance import Glance, glance

LINE = b"POST /v1/embeddings?user=me HTTP/1.1\r\n"
FIELDS = b"Host: berth\r\nContent-Type: application/json\r\nX-Request-Id: mine\r\nConnection: keep-alive\r\n"
SOUND = LINE + FIELDS + b"Content-Length: 4\r\n\r\nbody"
CASES = 20_000


class Parsed:
    """What httptools reads."""

    def __init__(self, data: bytes) -> None:
        self.url = b""
        self.headers: list[tuple[bytes, bytes]] = []
        self.body = b""
        self.complete = 0
        self.parser = httptools.HttpRequestParser(self)
        self.parser.feed_data(data)

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value))

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.complete += 1
        self.kept = self.parser.should_keep_alive()
        self.method = self.parser.get_method()
        self.version = self.parser.get_http_version()
        self.upgraded = self.parser.should_upgrade()


def test_a_plain_request_is_seen() -> None:
    assert glance(SOUND) == Glance(b"/v1/embeddings", "mine", len(SOUND) - 4, len(SOUND))


def test_a_body_need_not_have_come() -> None:
    seen = glance(LINE + b"content-length:70000\r\n\r\n")
    assert seen is not None
    assert (seen.id, seen.size - seen.head) == ("", 70_000)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        LINE,
        LINE + b"\r\n",
        LINE + FIELDS + b"\r\n",
        SOUND.replace(b"\r\n\r\nbody", b"\r\n"),
        SOUND.replace(b"POST", b"PUT"),
        SOUND.replace(b"POST", b"post"),
        SOUND.replace(b"HTTP/1.1", b"HTTP/1.0"),
        SOUND.replace(b"/v1", b"http://berth/v1"),
        SOUND.replace(b" /v1", b"  /v1"),
        SOUND.replace(b"\r\n", b"\n"),
        SOUND.replace(b"Host: berth", b"Host : berth"),
        SOUND.replace(b"Host: berth", b"Host: berth\r\n folded"),
        SOUND.replace(b"berth", b"be\0rth"),
        SOUND.replace(b"berth", b"be\rrth"),
        SOUND.replace(b"keep-alive", b"close"),
        SOUND.replace(b"keep-alive", b"keep-alive, upgrade"),
        SOUND.replace(b"Connection: keep-alive", b"Proxy-Connection: close"),
        SOUND.replace(b"Host: berth", b"Transfer-Encoding: chunked"),
        SOUND.replace(b"Host: berth", b"EXPECT: 100-continue"),
        SOUND.replace(b"Host: berth", b"Upgrade: h2c"),
        SOUND.replace(b"Host: berth", b"Content-Length: 4"),
        SOUND.replace(b": 4", b": -4"),
        SOUND.replace(b": 4", b": +4"),
        SOUND.replace(b": 4", b": 4, 4"),
        SOUND.replace(b": 4", b": 0x4"),
        SOUND.replace(b": 4", b": " + b"9" * 19),
        SOUND.replace(b": 4", b":"),
        b"\r\n" + SOUND,
    ],
    ids=lambda data: repr(data[:40]),
)
def test_what_takes_a_parser_is_not_seen(data: bytes) -> None:
    assert glance(data) is None


def test_what_is_seen_is_what_the_parser_reads() -> None:
    """Of requests damaged at random, with what may confuse a reader put into them."""
    chance = random.Random(0)  # no secret
    pieces = [b"\r\n", b"\n", b"\r", b" ", b"\t", b":", b"\0", b"\xff", b"0", b"7", b"POST / HTTP/1.1\r\n", b"chunked"]
    pieces += [b"Content-Length: 4\r\n", b"Transfer-Encoding: x\r\n", b"Connection: close\r\n", b"Upgrade: a\r\n"]
    pieces += [b"X-Request-Id: other\r\n", b"?"]
    seen_of_damaged = 0
    for _ in range(CASES):
        data = bytearray(SOUND)
        for _ in range(chance.randint(1, 3)):
            start = chance.randrange(len(SOUND) - 4)
            end = start + chance.choice([0, 0, 1, 2, 9])
            data[start:end] = chance.choice([*pieces, data[start:end].swapcase(), b""])
        seen = glance(bytes(data))
        if seen is None:
            continue
        seen_of_damaged += 1
        whole = bytes(data[: seen.size]).ljust(seen.size, b"b")
        parsed = Parsed(whole)
        assert (parsed.complete, parsed.method, parsed.version) == (1, b"POST", "1.1"), whole
        assert (parsed.kept, parsed.upgraded, len(parsed.body)) == (True, False, seen.size - seen.head), whole
        assert parsed.url.partition(b"?")[0] == seen.path, whole
        assert dict(parsed.headers[::-1]).get(b"x-request-id", b"").decode("latin-1") == seen.id, whole
    assert seen_of_damaged > CASES / 10
