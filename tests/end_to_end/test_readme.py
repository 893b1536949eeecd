"""What README shows works as shown."""

import json
import re
import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.end_to_end.conftest import Service

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
HERE = "http://127.0.0.1:8080"
COMMANDS = re.findall(r"```sh\n(curl .*?)```(?:\n```json\n(.*?)```)?", README, re.DOTALL)
SNIPPETS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
MORE = "…"


def shown_json(text: str) -> Any:
    """Read an answer as README shows it: numbers with their digits, `…` where the rest is left out."""
    return json.loads(re.sub(f",?{MORE}", f',"{MORE}"', text), parse_float=Decimal)


def assert_as_shown(shown: Any, actual: Any) -> None:
    match shown:
        case dict():
            assert shown.keys() == actual.keys()
            for key, value in shown.items():
                assert_as_shown(value, actual[key])
        case [*first, last] if last == MORE:
            assert len(actual) > len(first)
            assert_as_shown(first, actual[: len(first)])
        case list():
            assert len(shown) == len(actual)
            for one, other in zip(shown, actual, strict=True):
                assert_as_shown(one, other)
        case Decimal():
            assert round(Decimal(actual), -int(shown.as_tuple().exponent)) == shown
        case _:
            assert shown == actual


def test_the_blocks_were_found() -> None:
    assert len(COMMANDS) == README.count("curl -s")
    assert [bool(shown) for _, shown in COMMANDS] == [True, True, False]
    assert [HERE in snippet for snippet in SNIPPETS] == [True, False]  # the client, and the library


@pytest.mark.parametrize(("command", "shown"), COMMANDS, ids=lambda text: text.partition(" -H")[0] or "no answer")
def test_curl_answers_as_shown(service: "Service", command: str, shown: str) -> None:
    assert HERE in command
    script = command.replace(HERE, service.url).replace("curl ", "curl --fail-with-body --noproxy '*' ")
    result = subprocess.run(["bash", "-c", script], check=False, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    actual = json.loads(result.stdout)
    if shown:
        assert_as_shown(shown_json(shown), actual)


@pytest.mark.parametrize("snippet", SNIPPETS)
def test_python_runs(service: "Service", snippet: str) -> None:
    script = snippet.replace(HERE, service.url) + "\nprint(vectors.shape, vectors.dtype)"
    result = subprocess.run([sys.executable, "-c", script], check=False, capture_output=True, text=True)
    assert result.stdout == "(2, 384) float32\n", result.stderr
