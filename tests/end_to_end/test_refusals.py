"""Bad requests for features are answered by name: the field and, where there is one, the limit."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from model_export.export import export

if TYPE_CHECKING:
    from tests.end_to_end.conftest import Service, Start

TEXT, VALUE = "invalid_request", "invalid_value"
ALL = [0, 1, 2, 3, 4, 5, 6]
POOLINGS = (
    "Input should be 'cls', 'mean', 'max', 'mean_max', 'last', 'weighted_mean', 'mean_sqrt_len', 'pooler', 'none' or "
    "'words'"
)
INPUT = 'item 0 must be a string, a pair of strings, or {"tokens": [strings]}'


def refusal(http: httpx.Client, path: str, fields: dict[str, Any]) -> tuple[str, str, str]:
    """Send a bad request; gives its error's param, code and message, without the param before it."""
    answer = http.post(path, json=fields)
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert error["type"] == "invalid_request_error"
    assert error["message"].startswith(f"{error['param']}: ")
    return error["param"], error["code"], error["message"].removeprefix(f"{error['param']}: ")


@pytest.mark.parametrize(
    ("feature", "field", "code", "message"),
    [
        ({"pooling": "median"}, "pooling", TEXT, POOLINGS),
        ({"pooling": 3}, "pooling", TEXT, POOLINGS),
        ({"layers": [7]}, "layers[0]", VALUE, "layer 7 is not there: 0 to 6, or -7 to -1"),
        ({"layers": [0, -8]}, "layers[1]", VALUE, "layer -8 is not there: 0 to 6, or -7 to -1"),
        ({"layers": []}, "layers", TEXT, "List should have at least 1 item after validation, not 0"),
        ({"layers": [1] * 129}, "layers", TEXT, "List should have at most 128 items after validation, not 129"),
        ({"layers": [True]}, "layers[0]", TEXT, "Input should be a valid integer"),
        ({"layers": [1.5]}, "layers[0]", TEXT, "Input should be a valid integer"),
        ({"layers": -1}, "layers", TEXT, "Input should be a valid list"),
        ({"layers": [1, 2], "merge": {"weights": [1]}}, "merge.weights", VALUE, "1 weights for 2 layers"),
        ({"merge": {"weights": [1, 2]}}, "merge.weights", VALUE, "2 weights for 1 layers"),
        ({"merge": {"weights": ["a"]}}, "merge.weights[0]", TEXT, None),
        ({"merge": {}}, "merge.weights", TEXT, "Field required"),
        ({"merge": "weights"}, "merge", TEXT, "Input should be 'concat', 'mean' or 'sum'"),
        ({"merge": "product"}, "merge", TEXT, "Input should be 'concat', 'mean' or 'sum'"),
        ({"merge": {"weights": [1], "bias": 1}}, "merge.bias", TEXT, "Extra inputs are not permitted"),
        ({"pooling": "pooler", "layers": [1]}, "layers", VALUE, None),
        ({"pooling": "pooler", "merge": "sum"}, "merge", VALUE, None),
        ({"pooling": "pooler", "exclude_special": True}, "exclude_special", VALUE, None),
        ({"pooling": "cls", "exclude_special": True}, "exclude_special", VALUE, None),
        ({"exclude_special": 1}, "exclude_special", TEXT, "Input should be a valid boolean"),
        ({"normalize": "yes"}, "normalize", TEXT, "Input should be a valid boolean"),
        ({"pool": "cls"}, "pool", TEXT, "Extra inputs are not permitted"),
    ],
    ids=lambda value: repr(value)[:60],
)
def test_feature_is_refused(
    http: httpx.Client, feature: dict[str, Any], field: str, code: str, message: str | None
) -> None:
    param, given_code, given = refusal(http, "/v1/features", {"inputs": ["a"], "features": [{}, feature]})
    assert (param, given_code) == (f"features[1].{field}", code)
    assert message is None or given == message


@pytest.mark.parametrize(
    ("truncate", "param", "code", "message"),
    [
        ({"window": 2}, "truncate.window", VALUE, "must be above 2, the special tokens of each window"),
        ({"window": 1}, "truncate.window", VALUE, "must be above 2, the special tokens of each window"),
        ({"window": 0}, "truncate.window", TEXT, "Input should be greater than or equal to 1"),
        ({"window": 257}, "truncate.window", VALUE, "must be at most 256, not 257"),
        ({"window": "64"}, "truncate.window", TEXT, "Input should be a valid integer"),
        ({"window": 64, "stride": 0}, "truncate.stride", TEXT, "Input should be greater than or equal to 1"),
        ({"window": 64, "stride": 63}, "truncate.stride", VALUE, "must be at most 62, not 63"),
        ({"stride": 255}, "truncate.stride", VALUE, "must be at most 254, not 255"),
        ({"window": 64, "combine": "sum"}, "truncate.combine", TEXT, "Input should be 'mean' or 'max'"),
        ({"window": 64, "step": 3}, "truncate.step", TEXT, "Extra inputs are not permitted"),
        ({"head": 255}, "truncate.head", VALUE, "must be at most 254, not 255"),
        ({"head": -1}, "truncate.head", TEXT, "Input should be greater than or equal to 0"),
        ({"head": True}, "truncate.head", TEXT, "Input should be a valid integer"),
        ({"head": 3, "window": 64}, "truncate.window", TEXT, "Extra inputs are not permitted"),
        ("left", "truncate", TEXT, "Input should be 'end', 'start', 'middle' or 'error'"),
        ([64, 32], "truncate", TEXT, "Input should be 'end', 'start', 'middle' or 'error'"),
    ],
    ids=lambda value: repr(value)[:60],
)
@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("/v1/features", {"inputs": ["a"]}),
        ("/v1/embeddings", {"input": ["a"]}),
        ("/v1/similarity", {"source": "a", "target": "b"}),
    ],
    ids=["features", "embeddings", "similarity"],
)
def test_truncation_is_refused_on_every_route(
    http: httpx.Client, path: str, fields: dict[str, Any], truncate: Any, param: str, code: str, message: str
) -> None:
    assert refusal(http, path, fields | {"truncate": truncate}) == (param, code, message)


@pytest.mark.parametrize(
    ("inputs", "param", "code", "message"),
    [
        ([], "inputs", TEXT, "must not be empty"),
        ("", "inputs[0]", VALUE, "must not be empty"),
        (["a", ""], "inputs[1]", VALUE, "must not be empty"),
        ([["", ""]], "inputs[0]", VALUE, "must not be empty"),
        ([["a"]], "inputs", TEXT, INPUT),
        ([["a", "b", "c"]], "inputs", TEXT, INPUT),
        ([["a", 1]], "inputs", TEXT, INPUT),
        ([3], "inputs", TEXT, INPUT),
        ([{}], "inputs", TEXT, INPUT),
        ([{"tokens": []}], "inputs", TEXT, INPUT),
        ([{"tokens": "a b"}], "inputs", TEXT, INPUT),
        ([{"tokens": ["a"], "words": 1}], "inputs", TEXT, INPUT),
        ({"tokens": ["a"]}, "inputs", TEXT, "must be a list of inputs"),
        ([{"tokens": [""]}], "inputs[0]", VALUE, "must not be empty"),
        ([{"tokens": ["a", ""]}], "inputs[0].tokens[1]", VALUE, "the tokenizer leaves nothing of this word"),
        ([{"tokens": ["a", "\u200b"]}], "inputs[0].tokens[1]", VALUE, "the tokenizer leaves nothing of this word"),
        ([["a" * 10_000, "b" * 10_001]], "inputs[0]", VALUE, "20001 characters, at most 20000"),
        (["a"] * 2049, "inputs", VALUE, "2049 inputs, at most 2048 in one request"),
        (
            ["a", ["ship " * 200, "boat " * 100]],
            "inputs[1]",
            VALUE,
            "303 tokens: a pair can be cut at `end` or `start` alone",
        ),
    ],
    ids=lambda value: repr(value)[:60],
)
def test_input_is_refused(http: httpx.Client, inputs: Any, param: str, code: str, message: str) -> None:
    fields = {"inputs": inputs, "features": [{"pooling": "words"}], "truncate": "middle"}
    assert refusal(http, "/v1/features", fields) == (param, code, message)


@pytest.mark.parametrize(
    ("fields", "numbers"),
    [
        ({"inputs": ["ship " * 300] * 18, "features": [{"pooling": "none", "layers": ALL}]}, 18 * 256 * 7 * 384),
        ({"inputs": ["a ship"] * 172, "features": [{"layers": ALL}] * 19}, 172 * 19 * 7 * 384),
        ({"inputs": ["a"] * 200, "features": [{"pooling": "mean_max", "layers": ALL}] * 8}, 200 * 8 * 2 * 7 * 384),
        ({"inputs": ["a ship"] * 1366, "features": [{"pooling": "pooler"}] * 16}, 1366 * 16 * 384),
        (
            {"inputs": ["ship " * 1500] * 15, "features": [{"pooling": "none"}], "truncate": {"window": 50}},
            15 * (1500 + 32 * 2) * 384,  # of 32 windows, each with [CLS] and [SEP]
        ),
    ],
    ids=["tokens", "concat", "mean and max", "features", "windows"],
)
def test_vectors_beyond_the_limit_are_refused_with_the_size_they_would_have(
    http: httpx.Client, fields: dict[str, Any], numbers: int
) -> None:
    message = f"the vectors would hold {numbers} numbers, at most 8388608"
    assert refusal(http, "/v1/features", fields) == ("features", VALUE, message)


@pytest.mark.parametrize("truncate", ["start", "middle"])
def test_words_that_were_cut_off_do_not_count_towards_the_limit(http: httpx.Client, truncate: str) -> None:
    fields = {"inputs": ["a " * 9_000] * 3, "features": [{"pooling": "words"}], "truncate": truncate}
    assert http.post("/v1/features", json=fields).status_code == 200


@pytest.mark.parametrize("weights", [[True], ["1"]], ids=str)
def test_weights_are_numbers(http: httpx.Client, weights: list[Any]) -> None:
    param, _, _ = refusal(http, "/v1/features", {"inputs": ["a"], "features": [{"merge": {"weights": weights}}]})
    assert param == "features[0].merge.weights[0]"


def test_weights_beyond_float32_are_the_callers_mistake(tiny_service: "Service") -> None:
    feature = {"layers": [1, 2], "merge": {"weights": [3e38, 3e38]}}
    with tiny_service.client() as http:
        answer = http.post("/v1/features", json={"inputs": ["a"], "features": [feature]})
    assert answer.status_code == 400


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"features": []}, "features"),
        ({"features": [{}] * 65}, "features"),
        ({"features": {}}, "features"),
        ({"include_tokens": 1}, "include_tokens"),
        ({"on_error": "ignore"}, "on_error"),
        ({"encoding_format": "hex"}, "encoding_format"),
        ({"inventd": 1}, "inventd"),
    ],
    ids=str,
)
def test_request_is_refused(http: httpx.Client, fields: dict[str, Any], param: str) -> None:
    given, code, _ = refusal(http, "/v1/features", {"inputs": ["a"]} | fields)
    assert (given, code) == (param, TEXT)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"pooling": "none"}, "pooling"),
        ({"pooling": "words"}, "pooling"),
        ({"pooling": "mean", "granularity": "token"}, "pooling"),
        ({"granularity": "token", "source": ["a"]}, "granularity"),
        ({"granularity": "token", "target": ["a"]}, "granularity"),
        ({"granularity": "token", "pairwise": True}, "granularity"),
        ({"granularity": "token", "top_k": 1}, "granularity"),
        ({"granularity": "character"}, "granularity"),
        ({"layers": [7]}, "layers[0]"),
        ({"layers": [1, 2], "merge": {"weights": [1]}}, "merge.weights"),
        ({"source": "a " * 300, "truncate": "error"}, "source"),
        ({"target": ["b", "a " * 300], "truncate": "error"}, "target[1]"),
        ({"normalize": True}, "normalize"),
    ],
    ids=str,
)
def test_similarity_is_refused(http: httpx.Client, fields: dict[str, Any], param: str) -> None:
    given, _, _ = refusal(http, "/v1/similarity", {"source": "a", "target": "b"} | fields)
    assert given == param


def test_model_with_one_segment_type_tells_pairs_by_what_is_between_them(
    tmp_path: Path, make_checkpoint: Callable[..., Path], start: "Start"
) -> None:
    checkpoint = make_checkpoint(tmp_path / "one", type_vocab_size=1)
    with start(export(str(checkpoint), tmp_path / "artifact").folder).client() as http:
        reply = http.post("/v1/features", json={"inputs": ["hello", ["hello", "world"]], "include_tokens": True})
    assert reply.status_code == 200, reply.text
    tokens = [[token["text"] for token in item["tokens"]] for item in reply.json()["data"]]
    assert tokens == [["[CLS]", "hello", "[SEP]"], ["[CLS]", "hello", "[SEP]", "world", "[SEP]"]]
