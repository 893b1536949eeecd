"""What OpenAPI cannot say of the service, for schemathesis, which loads this module (SCHEMATHESIS_HOOKS)."""

from typing import Any

import schemathesis

MALFORMED = {"invalid_request", "Tokenizer", "Empty"}
"""OpenAI's code, and text-embeddings-inference's types, of a body whose shape is wrong."""
TIMEOUT = "X-Request-Timeout"


@schemathesis.hook
def map_case(_: schemathesis.HookContext, case: schemathesis.Case) -> schemathesis.Case:
    """Spell whole numbers as integers: JSON Schema takes 3.0 for one, the service does not.

    And ask for no deadline that passes: a 504 would be right, and would hide what else is wrong.
    """
    case.body = _whole(case.body)
    if case.headers and (timeout := _number(case.headers.get(TIMEOUT))):
        case.headers[TIMEOUT] = str(max(60.0, timeout))
    return case


@schemathesis.hook
def filter_case(_: schemathesis.HookContext, case: schemathesis.Case) -> bool:
    """Leave out other methods than POST at the root: GET is the page, no part of the API and so of its description."""
    return bool(case.path != "/" or case.method == "POST")


def _whole(body: Any) -> Any:
    match body:
        case dict():
            return {name: _whole(value) for name, value in body.items()}
        case list():
            return [_whole(item) for item in body]
        case float() if body.is_integer():
            return int(body)
    return body


def _number(timeout: Any) -> float:
    """Read a number of seconds that the service would take; 0 where it would not."""
    try:
        seconds = float(timeout)
    except (TypeError, ValueError):
        return 0.0
    return seconds if seconds > 0 else 0.0


@schemathesis.check
def what_fits_the_schema_is_not_malformed(_: Any, response: schemathesis.Response, case: schemathesis.Case) -> None:
    """Refuse what fits the schema only for its values, never for its shape: else the schema does not tell the shape."""
    if not case.meta or not case.meta.generation.mode.is_positive or response.status_code < 400:
        return
    body = response.json()
    said = body["error_type"] if "error_type" in body else body["error"]["code"]
    assert said not in MALFORMED, body
