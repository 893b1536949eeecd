"""The OpenAPI page: every route documents itself, and every example on it works."""

import re
from typing import Any

import httpx
import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import validate

METHODS = {"get", "put", "post", "delete", "options", "head", "patch", "trace"}
POSTS = {
    *("/v1/embeddings", "/v1/features", "/v1/similarity", "/v1/tokenize", "/v1/detokenize"),
    *("/", "/embed", "/embed_all", "/similarity", "/tokenize", "/decode", "/encode"),
}
GETS = {"/v1/models", "/v1/models/{name}", "/info", "/health/live", "/health/ready", "/metrics", "/status/server"}
Document = dict[str, Any]


@pytest.fixture(scope="module")
def document(http: httpx.Client) -> Document:
    answer = http.get("/openapi.json")
    assert answer.status_code == 200
    found: Document = answer.json()
    return found


def operations(document: Document) -> dict[str, dict[str, Any]]:
    """Give each operation by its method and path."""
    return {
        f"{method} {path}": operation
        for path, item in document["paths"].items()
        for method, operation in item.items()
        if method in METHODS
    }


def resolved(document: Document, schema: Any) -> Any:
    """Follow a reference."""
    while "$ref" in schema:
        schema = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    return schema


def examples(document: Document, operation: Document) -> list[Any]:
    """Give the examples of an operation's body, as Swagger's page finds them: on body, schema or members."""
    content = operation["requestBody"]["content"]["application/json"]
    named = [example["value"] for example in content.get("examples", {}).values()]
    schema = resolved(document, content["schema"])
    members = [schema, *(resolved(document, member) for key in ("oneOf", "anyOf") for member in schema.get(key, []))]
    return named + [example for member in members for example in member.get("examples", [])]


def test_document_is_valid(document: Document) -> None:
    validate(document)
    assert document["info"]["title"] == "Berth"
    assert document["info"]["description"]


def test_every_route_is_there(document: Document) -> None:
    assert operations(document).keys() == {f"post {path}" for path in POSTS} | {f"get {path}" for path in GETS}


def test_every_route_says_what_it_does(document: Document) -> None:
    for name, operation in operations(document).items():
        for field in ("summary", "description"):
            assert operation.get(field), f"{name} has no {field}"
        assert operation.get("tags"), name
        assert operation["summary"] != re.sub(r"\W+", " ", operation["operationId"]).title(), f"{name}: FastAPI's own"


def test_operation_ids_are_one_each(document: Document) -> None:
    ids = [operation["operationId"] for operation in operations(document).values()]
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize("path", sorted(POSTS))
def test_every_example_works(http: httpx.Client, document: Document, path: str) -> None:
    found = examples(document, document["paths"][path]["post"])
    assert found, "no example"
    for example in found:
        answer = http.post(path, json=example)
        assert answer.status_code == 200, answer.text
        assert answer.json()


def test_the_page_at_the_root_shows_both_of_its_requests(document: Document) -> None:
    formats = [type(example["inputs"]) for example in examples(document, document["paths"]["/"]["post"])]
    assert {list, dict} <= set(formats)


def test_no_answer_is_promised_that_is_never_given(document: Document) -> None:
    """FastAPI documents its own 422 unless it is told otherwise; this service's errors have another shape."""
    for name, operation in operations(document).items():
        assert "HTTPValidationError" not in str(operation["responses"]), name
    assert "HTTPValidationError" not in document["components"]["schemas"]


@pytest.mark.parametrize("path", sorted(GETS))
def test_every_page_is_there(http: httpx.Client, path: str) -> None:
    name = "sentence-transformers/all-MiniLM-L6-v2"
    assert http.get(path.replace("{name}", name)).status_code == 200


def test_docs_work_without_another_host(http: httpx.Client) -> None:
    page = http.get("/docs")
    assert page.status_code == 200
    assert "text/html" in page.headers["content-type"]
    links = re.findall(r"""(?:src|href|url)\s*[=:]\s*["']([^"']+)["']""", page.text)
    assert links
    for link in links:
        assert re.match(r"/[^/]", link), link
        assert http.get(link).status_code == 200, link
    assert not re.search(r"https?://", page.text)


@pytest.mark.parametrize("path", sorted(POSTS | GETS))
def test_every_answer_has_a_schema(document: Document, path: str) -> None:
    for operation in document["paths"][path].values():
        for media_type, content in operation["responses"]["200"]["content"].items():
            assert content["schema"], f"{path}: nothing is said of {media_type}"


@pytest.mark.parametrize("path", sorted(POSTS))
def test_every_post_tells_its_deadline_header(document: Document, path: str) -> None:
    [header] = document["paths"][path]["post"]["parameters"]
    assert (header["name"], header["in"], header["schema"]["exclusiveMinimum"]) == ("X-Request-Timeout", "header", 0)


SENTENCES = {"source_sentence": "a", "sentences": ["b"]}


@pytest.mark.parametrize(
    ("path", "body", "fits"),
    [
        ("/encode", {"id": 2**53 - 1, "texts": ["a"]}, True),
        ("/encode", {"id": -(2**53), "texts": ["a"]}, False),
        ("/encode", {"id": 10**30, "texts": ["a"]}, False),
        ("/encode", {"texts": ["a"], "is_tokenized": True}, False),
        ("/encode", {"texts": [["a"]]}, False),
        ("/encode", {"texts": [[""]], "is_tokenized": True}, True),
        ("/v1/features", {"inputs": [["", "0"]]}, True),
        ("/v1/features", {"inputs": [{"tokens": ["a", "b"]}]}, True),
        ("/v1/features", {"inputs": ["a"], "features": [{"layers": [2**53]}]}, False),
        ("/v1/detokenize", {"ids": [[0]]}, True),
        ("/v1/detokenize", {"ids": [[]]}, False),
        ("/decode", {"ids": [7]}, True),
        ("/decode", {"ids": [10**30]}, False),
        ("/v1/embeddings", {"input": "a", "truncate": {"window": 3, "stride": 1}}, True),
        ("/v1/embeddings", {"input": "a", "truncate": {"window": 2}}, False),
        ("/v1/embeddings", {"input": "a", "dimensions": 10**30}, False),
        ("/v1/similarity", {"source": "a", "target": "b", "top_k": 2**53}, False),
        ("/similarity", {"inputs": SENTENCES}, True),
        ("/similarity", {"inputs": SENTENCES | {"sentences": [""]}}, False),
        ("/", {"inputs": SENTENCES | {"source_sentence": ""}}, False),
        ("/tokenize", {"inputs": [""]}, False),
    ],
    ids=str,
)
def test_schema_and_service_agree_on_what_fuzzing_found(
    http: httpx.Client, document: Document, path: str, body: Any, fits: bool
) -> None:
    schema = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]
    validator = Draft202012Validator(schema | {"components": document["components"]})
    assert validator.is_valid(body) == fits
    assert (http.post(path, json=body).status_code == 200) == fits
