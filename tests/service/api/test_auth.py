"""Which header shows a key, and whose it is."""

import hashlib
import hmac

import pytest

from service.api.auth import Keyring, shown_key
from service.keys import read_keys


@pytest.mark.parametrize(
    ("headers", "key"),
    [
        ([], None),
        ([(b"authorization", b"Bearer sesame")], b"sesame"),
        ([(b"authorization", b"bearer  sesame ")], b"sesame"),
        ([(b"api-key", b"sesame")], b"sesame"),
        ([(b"host", b"x"), (b"authorization", b"BEARER a"), (b"api-key", b"b")], b"a"),
        ([(b"api-key", b"b"), (b"authorization", b"Bearer a")], b"b"),
        ([(b"authorization", b"Basic c2VzYW1l"), (b"api-key", b"b")], b"b"),
        ([(b"authorization", b"Basic c2VzYW1l")], None),
        ([(b"authorization", b"sesame")], None),
        ([(b"authorization", b"Bearer")], None),
        ([(b"authorization", b"Bearer ")], b""),
    ],
    ids=repr,
)
def test_shown_key(headers: list[tuple[bytes, bytes]], key: bytes | None) -> None:
    assert shown_key(headers) == key


def test_each_key_is_its_holders() -> None:
    keyring = Keyring(read_keys(["alice: one", "bob: two", "alice: three"]), 600)
    api_keys = {key: keyring.api_key_of(key) for key in (b"one", b"two", b"three")}
    labels = {key: api_key.label for key, api_key in api_keys.items() if api_key}
    assert labels == {b"one": "alice", b"two": "bob", b"three": "alice"}
    assert api_keys[b"one"] is api_keys[b"three"], "they share one allowance"


@pytest.mark.parametrize("given", [b"", b"on", b"one ", b"One", b"onee", b"two one", b"\xff", b"one\x00"])
def test_what_is_not_a_key_is_nobodys(given: bytes) -> None:
    assert Keyring(read_keys(["one", "two"]), None).api_key_of(given) is None


def test_every_key_is_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[bytes, bytes]] = []
    real = hmac.compare_digest

    def compare(given: bytes, known: bytes) -> bool:
        compared.append((given, known))
        return real(given, known)

    monkeypatch.setattr(hmac, "compare_digest", compare)
    keyring = Keyring(read_keys(["one", "two", "three"]), None)
    assert keyring.api_key_of(b"one") is not None
    known = [hashlib.sha256(key).digest() for key in (b"one", b"two", b"three")]
    assert compared == [(known[0], digest) for digest in known], "the first that fits is not the last that is compared"
