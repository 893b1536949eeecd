"""How keys are written down, and that none of them is ever repeated."""

import hashlib
import os
from pathlib import Path

import pytest

from service.keys import Key, read_key_file, read_keys
from service.settings import Settings, read_settings, warnings_of

LONG = "5pPq7qk-J2mC_0Zr.~+/=="


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("BERTH_")]:
        monkeypatch.delenv(name)


def sha256(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def test_keys_have_labels_or_numbers() -> None:
    assert read_keys([" alice:  sesame ", LONG, "bob@sea:x"]) == (
        Key("alice", sha256("sesame"), short=True),
        Key("key-2", sha256(LONG), short=False),
        Key("bob@sea", sha256("x"), short=True),
    )


def test_old_and_new_key_may_have_one_label() -> None:
    keys = read_keys(["alice: old", "alice: new"])
    assert len({key.digest for key in keys}) == 2
    assert {key.label for key in keys} == {"alice"}


@pytest.mark.parametrize(
    ("entries", "reason"),
    [
        (["fine", ""], "key 2 of 2 is empty"),
        (["alice:"], "key 1 of 1 is empty"),
        (["secret word"], "key 1 of 1 must be printable ASCII without spaces, commas and colons"),
        (["secr\tet"], "key 1 of 1 must be printable ASCII without spaces, commas and colons"),
        (["secret\u00e9"], "key 1 of 1 must be printable ASCII without spaces, commas and colons"),
        (["al ice: secret"], "key 1 of 1 must have a label of at most 64 letters, digits and . _ @ -"),
        ([": secret"], "key 1 of 1 must have a label of at most 64 letters, digits and . _ @ -"),
        (["a" * 65 + ": secret"], "key 1 of 1 must have a label of at most 64 letters, digits and . _ @ -"),
        (["a: secret", "b: secret"], "key 2 of 2 is there twice"),
        (
            ["first", "key-1: other"],
            "key 2 of 2 must have another label: key- and a number is what those without one are called",
        ),
    ],
    ids=repr,
)
def test_what_is_no_key_is_named_by_its_place(entries: list[str], reason: str) -> None:
    with pytest.raises(ValueError, match=r"^key ") as refused:
        read_keys(entries)
    assert str(refused.value) == reason


def test_file_has_a_key_a_line(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(f"# who may come in\n\nalice: sesame\r\n  {LONG}\n")
    assert [key.label for key in read_key_file(file, read_keys(["first"]))] == ["alice", "key-3"]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "No such file or directory"),
        (b"", "has no key in it"),
        (b"# none\n\n", "has no key in it"),
        (b"\xff\xfe", "is not text"),
        (b"sesame\na secret one\n", "key 2 of 2 must be printable ASCII without spaces, commas and colons"),
    ],
)
def test_file_that_is_wrong_stops_the_start(tmp_path: Path, content: bytes | None, reason: str) -> None:
    file = tmp_path / "keys"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(SystemExit) as stop:
        read_settings(["--api-keys-file", str(file)])
    message = str(stop.value)
    assert message.startswith("berth: --api-keys-file (BERTH_API_KEYS_FILE): ")
    assert message.endswith(reason)
    assert "secret" not in message
    assert "\n" not in message


def test_keys_come_from_variable_and_file_together(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("carol: third\n")
    monkeypatch.setenv("BERTH_API_KEYS", "alice: first, second")
    monkeypatch.setenv("BERTH_API_KEYS_FILE", str(tmp_path / "keys"))
    settings = read_settings([])
    assert list(dict.fromkeys(key.label for key in settings.api_keys)) == ["alice", "key-2", "carol"]
    handed_on = settings.model_dump_json()
    assert Settings.model_validate_json(handed_on) == settings
    for key in ("first", "second", "third"):
        assert key not in handed_on + repr(settings)


@pytest.mark.parametrize("given", ["a secret one", "secret,", "secret,secret", "x:y:secret", ","])
@pytest.mark.parametrize("way", ["flag", "variable"])
def test_bad_keys_are_refused_without_showing_them(monkeypatch: pytest.MonkeyPatch, way: str, given: str) -> None:
    if way == "variable":
        monkeypatch.setenv("BERTH_API_KEYS", given)
    with pytest.raises(SystemExit) as stop:
        read_settings([f"--api-keys={given}"] if way == "flag" else [])
    assert str(stop.value).startswith("berth: --api-keys (BERTH_API_KEYS): key ")
    assert "secret" not in str(stop.value)


def test_help_shows_no_key(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("BERTH_API_KEYS", "sesame-sesame-sesame")
    with pytest.raises(SystemExit):
        read_settings(["--help"])
    assert "sesame" not in capsys.readouterr().out


def test_rate_needs_keys() -> None:
    with pytest.raises(SystemExit) as stop:
        read_settings(["--key-tokens-per-minute", "1000"])
    assert str(stop.value) == (
        "berth: --key-tokens-per-minute (BERTH_KEY_TOKENS_PER_MINUTE): "
        "there are no keys; set --api-keys or --api-keys-file"
    )
    assert read_settings(["--key-tokens-per-minute", "1000", "--api-keys", "x"]).key_tokens_per_minute == 1000


def test_what_is_careless_is_warned_of(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(f"alice: {LONG}\nbob: sesame\n")
    file.chmod(0o604)
    settings = read_settings(["--api-keys-file", str(file)])
    assert warnings_of(settings, {}) == [
        f"{file} can be read by every user of this machine; it should be the service's alone",
        "short API keys can be guessed: bob",
    ]
    file.chmod(0o640)
    assert warnings_of(settings, {}) == ["short API keys can be guessed: bob"]
