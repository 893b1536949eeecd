"""text-embeddings-inference's routes: fields, defaults, statuses and error bodies as its source and its docs have them.

Compared with huggingface/text-embeddings-inference: router/src/http/server.rs and types.rs, core/src/tokenization.rs.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
import pytest

from berth.artifact import Artifact
from berth.backends.cpu.encoder import CpuEncoder
from berth.contract import FakeEncoder
from berth.errors import EncoderError
from berth.types import TokenSequence, Vectors
from tests.service.api.gate import Gate, fill_queue

if TYPE_CHECKING:
    from tests.service.api.conftest import Api, MakeApi

SHIP, BOAT, BREAD = "a ship in harbour", "a boat at its berth", "a slice of bread"
SHIP_IDS = [101, 1037, 2911, 1999, 7440, 102]
COMPARED = {"source_sentence": SHIP, "sentences": [BOAT, BREAD]}
LONG = "ship " * 255
"""Three tokens more than the model takes."""
ENCODER_BODIES: list[tuple[str, dict[str, Any]]] = [
    ("/embed", {"inputs": SHIP}),
    ("/embed_all", {"inputs": SHIP}),
    ("/similarity", {"inputs": COMPARED}),
    ("/", {"inputs": SHIP}),
    ("/", {"inputs": COMPARED}),
]
BODIES = [*ENCODER_BODIES, ("/tokenize", {"inputs": SHIP}), ("/decode", {"ids": SHIP_IDS})]
PROMPTS = {"query": "query: ", "passage": "passage: "}


def refusal(answer: httpx.Response, status: int, error_type: str) -> str:
    """Check an error's shape, TEI's; gives its text."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-request-id"]
    body = answer.json()
    assert body == {"error": body["error"], "error_type": error_type}
    error: str = body["error"]
    assert error
    return error


def openai(api: "Api", texts: str | list[str], **fields: object) -> np.ndarray[Any, Any]:
    """Give the vectors that `/v1/embeddings` gives."""
    data = api.post("/v1/embeddings", {"input": texts, **fields}).json()["data"]
    return np.array([item["embedding"] for item in data])


def feature(api: "Api", text: str, **fields: object) -> np.ndarray[Any, Any]:
    """Give a feature of a text."""
    [item] = api.post("/v1/features", {"inputs": text, "features": [fields]}).json()["data"]
    return np.array(item["features"][0])


# /embed


@pytest.mark.parametrize("path", ["/embed", "/"])
@pytest.mark.parametrize("inputs", [SHIP, [SHIP], SHIP_IDS, [SHIP_IDS]], ids=["text", "texts", "ids", "id lists"])
def test_embed_gives_a_list_of_vectors_whatever_the_input(api: "Api", path: str, inputs: object) -> None:
    answer = api.post(path, {"inputs": inputs})
    assert answer.headers["content-type"] == "application/json"
    np.testing.assert_allclose(answer.json(), openai(api, SHIP), atol=1e-6)


def test_embed_keeps_the_order(api: "Api") -> None:
    texts = [BREAD, LONG, SHIP, BOAT, SHIP]
    np.testing.assert_allclose(api.post("/embed", {"inputs": texts}).json(), openai(api, texts), atol=1e-6)


def test_normalize_can_be_left_out(api: "Api") -> None:
    raw = api.post("/embed", {"inputs": SHIP, "normalize": False}).json()
    np.testing.assert_allclose(raw[0], feature(api, SHIP, pooling="mean"), atol=1e-6)
    assert abs(np.linalg.norm(raw) - 1) > 0.1


def test_vectors_that_the_model_cuts_are_normalised_where_it_is_asked_for(
    make_api: "MakeApi", encoder: CpuEncoder
) -> None:
    api = make_api(encoder, manifest={"truncate_dim": 16})
    raw = feature(api, SHIP, pooling="mean")[:16]
    plain = api.post("/embed", {"inputs": SHIP, "normalize": False}).json()
    np.testing.assert_allclose(plain, [raw], atol=1e-5)
    normalised = api.post("/embed", {"inputs": SHIP}).json()
    np.testing.assert_allclose(normalised, [raw / np.linalg.norm(raw)], atol=1e-6)
    refusal(api.post("/embed", {"inputs": SHIP, "dimensions": 17}), 413, "Validation")


@pytest.mark.parametrize("dimensions", [1, 64, 384])
def test_dimensions_cut_and_normalise_only_what_is_to_be_normalised(api: "Api", dimensions: int) -> None:
    raw = feature(api, SHIP, pooling="mean")[:dimensions]
    plain = api.post("/embed", {"inputs": SHIP, "dimensions": dimensions, "normalize": False}).json()
    normalised = api.post("/embed", {"inputs": SHIP, "dimensions": dimensions}).json()
    np.testing.assert_allclose(plain, [raw], atol=1e-6)
    np.testing.assert_allclose(normalised, [raw / np.linalg.norm(raw)], atol=1e-5)


@pytest.mark.parametrize("fields", [{}, {"truncate": True}, {"truncate": None}, {"truncation_direction": "Right"}])
def test_a_long_text_is_cut_at_its_end_by_default(api: "Api", fields: dict[str, Any]) -> None:
    """`/info` says so: `auto_truncate` is true here; in TEI it is a flag that is off by default."""
    text = f"harbour {LONG} bread"
    answer = api.post("/embed", {"inputs": text, **fields})
    np.testing.assert_allclose(answer.json(), openai(api, text, truncate="end"), atol=1e-6)
    assert answer.headers["x-truncated-inputs"] == "1"


@pytest.mark.parametrize("direction", ["Left", "left"])
def test_direction_left_cuts_at_the_start(api: "Api", direction: str) -> None:
    """TEI's server takes `Left`, its OpenAPI page shows `left`."""
    text = f"harbour {LONG} bread"
    vector = api.post("/embed", {"inputs": text, "truncation_direction": direction}).json()
    np.testing.assert_allclose(vector, openai(api, text, truncate="start"), atol=1e-6)
    assert np.abs(vector - openai(api, text, truncate="end")).max() > 1e-3


def test_direction_is_the_models_own_where_it_is_left_out(
    make_api: "MakeApi", encoder: CpuEncoder, artifact: Artifact
) -> None:
    """So is the way of every other route with vectors."""
    facts = artifact.manifest.tokenizer.model_copy(update={"truncation_side": "left"})
    api, text = make_api(encoder, manifest={"tokenizer": facts}), f"harbour {LONG} bread"
    start, end = (openai(api, text, truncate=cut)[0] for cut in ("start", "end"))
    assert np.abs(start - end).max() > 1e-3
    for fields in ({}, {"truncate": True}, {"truncation_direction": None}, {"truncation_direction": "Left"}):
        np.testing.assert_allclose(api.post("/embed", {"inputs": text, **fields}).json(), [start], atol=1e-6)
    right = api.post("/embed", {"inputs": text, "truncation_direction": "Right"}).json()
    np.testing.assert_allclose(right, [end], atol=1e-6)
    for fields in ({}, {"truncate": None}):
        np.testing.assert_allclose(openai(api, text, **fields), [start], atol=1e-6)
        compared = api.post("/v1/similarity", {"source": text, "target": LONG + "bread", **fields}).json()
        assert compared["scores"] == pytest.approx(1, abs=1e-5)
    np.testing.assert_allclose(feature(api, text, normalize=True), start, atol=1e-6)
    ours, other = (api.post("/encode", {"texts": [each]}).json()["result"] for each in (text, LONG + "bread"))
    np.testing.assert_allclose(ours, other, atol=1e-6)


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("/embed", {"inputs": LONG, "truncate": False}),
        ("/embed", {"inputs": [SHIP, LONG], "truncate": False}),
        ("/embed_all", {"inputs": LONG, "truncate": False}),
        (
            "/similarity",
            {"inputs": {"source_sentence": LONG, "sentences": [SHIP]}, "parameters": {"truncate": False}},
        ),
        (
            "/similarity",
            {"inputs": {"source_sentence": SHIP, "sentences": [LONG]}, "parameters": {"truncate": False}},
        ),
    ],
)
def test_a_long_text_that_may_not_be_cut_is_413(api: "Api", path: str, fields: dict[str, Any]) -> None:
    assert "257 tokens, the model takes 256" in refusal(api.post(path, fields), 413, "Validation")


def test_prompts_are_the_models(make_api: "MakeApi", encoder: CpuEncoder) -> None:
    api = make_api(encoder, manifest={"prompts": PROMPTS, "default_prompt_name": "passage"})
    embed = api.post("/embed", {"inputs": [SHIP, BOAT], "prompt_name": "query"}).json()
    np.testing.assert_allclose(embed, openai(api, [SHIP, BOAT], prompt_name="query"), atol=1e-6)
    np.testing.assert_allclose(api.post("/embed", {"inputs": SHIP}).json(), openai(api, SHIP), atol=1e-6)
    [states] = api.post("/embed_all", {"inputs": SHIP, "prompt_name": "query"}).json()
    assert len(states) == len(SHIP_IDS) + len(["query", ":"])
    compared = api.post("/similarity", {"inputs": COMPARED, "parameters": {"prompt_name": "query"}}).json()
    vectors = openai(api, [SHIP, BOAT, BREAD], prompt_name="query")
    np.testing.assert_allclose(compared, vectors[1:] @ vectors[0], atol=1e-6)
    [tokens] = api.post("/tokenize", {"inputs": SHIP, "prompt_name": "query"}).json()
    assert [token["text"] for token in tokens] == ["[CLS]", "query", ":", "a", "ship", "in", "harbour", "[SEP]"]
    assert tokens[3]["start"] == len(PROMPTS["query"])


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("/embed", {"inputs": SHIP, "prompt_name": "title"}),
        ("/embed_all", {"inputs": SHIP, "prompt_name": "title"}),
        ("/similarity", {"inputs": COMPARED, "parameters": {"prompt_name": "title"}}),
        ("/tokenize", {"inputs": SHIP, "prompt_name": "title"}),
    ],
)
def test_an_unknown_prompt_is_413(api: "Api", path: str, fields: dict[str, Any]) -> None:
    assert "prompt_name" in refusal(api.post(path, fields), 413, "Validation")


# /embed_all, /similarity, /


@pytest.mark.parametrize("inputs", [SHIP, [SHIP], SHIP_IDS])
def test_embed_all_gives_the_last_hidden_states(api: "Api", inputs: object) -> None:
    [states] = api.post("/embed_all", {"inputs": inputs}).json()
    assert np.shape(states) == (len(SHIP_IDS), 384)
    np.testing.assert_allclose(states, feature(api, SHIP, pooling="none"), atol=1e-6)


def test_embed_all_takes_texts_of_different_lengths(api: "Api") -> None:
    answer = api.post("/embed_all", {"inputs": [LONG, SHIP, "a"]}).json()
    assert [len(states) for states in answer] == [256, 6, 3]


@pytest.mark.parametrize("path", ["/similarity", "/"])
@pytest.mark.parametrize("parameters", [{}, {"parameters": None}, {"parameters": {"truncate": True}}])
def test_similarity_gives_the_cosines(api: "Api", path: str, parameters: dict[str, Any]) -> None:
    answer = api.post(path, {"inputs": COMPARED, **parameters}).json()
    vectors = openai(api, [SHIP, BOAT, BREAD])
    np.testing.assert_allclose(answer, vectors[1:] @ vectors[0], atol=1e-6)
    assert answer[0] > answer[1]


def test_similarity_is_the_cosine_where_the_model_does_not_normalise(make_api: "MakeApi", encoder: CpuEncoder) -> None:
    expected = make_api(encoder).post("/similarity", {"inputs": COMPARED}).json()
    api = make_api(encoder, manifest={"normalize": False})
    np.testing.assert_allclose(api.post("/similarity", {"inputs": COMPARED}).json(), expected, atol=1e-6)


def test_root_with_neither_shape_says_what_is_missing(api: "Api") -> None:
    assert "inputs" in refusal(api.post("/", {}), 422, "Tokenizer")
    assert "source_sentence" in refusal(api.post("/", {"inputs": {"sentences": [SHIP]}}), 422, "Tokenizer")


# /tokenize, /decode, /info


def test_tokens_are_slices_of_the_text(api: "Api") -> None:
    text = "Straße, unbelievably\t😀 é"
    [tokens] = api.post("/tokenize", {"inputs": text}).json()
    assert [token["special"] for token in tokens] == [True, *[False] * (len(tokens) - 2), True]
    assert tokens[0] == {"id": 101, "text": "[CLS]", "special": True, "start": None, "stop": None}
    assert tokens[-1] == {"id": 102, "text": "[SEP]", "special": True, "start": None, "stop": None}
    for token in tokens[1:-1]:
        assert token["text"] == text[token["start"] : token["stop"]]
    assert [token["text"] for token in tokens[1:4]] == ["St", "raße", ","]
    assert "😀" in [token["text"] for token in tokens]


def test_tokenize_takes_one_text_or_several(api: "Api") -> None:
    one = api.post("/tokenize", {"inputs": SHIP}).json()
    assert api.post("/tokenize", {"inputs": [SHIP, SHIP]}).json() == one * 2
    assert [token["id"] for token in one[0]] == SHIP_IDS


def test_special_tokens_can_be_left_out(api: "Api") -> None:
    [tokens] = api.post("/tokenize", {"inputs": SHIP, "add_special_tokens": False}).json()
    assert [token["id"] for token in tokens] == SHIP_IDS[1:-1]
    assert not any(token["special"] for token in tokens)


def test_tokenize_does_not_cut(api: "Api") -> None:
    assert len(api.post("/tokenize", {"inputs": LONG}).json()[0]) == 257


def test_decode_takes_ids_or_lists_of_them(api: "Api") -> None:
    assert api.post("/decode", {"ids": SHIP_IDS}).json() == [SHIP]
    assert api.post("/decode", {"ids": [SHIP_IDS, [2911]]}).json() == [SHIP, "ship"]
    kept = api.post("/decode", {"ids": SHIP_IDS, "skip_special_tokens": False}).json()
    assert kept == [f"[CLS] {SHIP} [SEP]"]


def test_info_has_teis_fields(api: "Api") -> None:
    info = api.get("/info").json()
    assert info["model_type"] == {"embedding": {"pooling": "mean"}}
    assert info["model_dtype"] == "float32"
    assert info["auto_truncate"] is True
    integers = {"max_input_length", "max_batch_tokens", "max_client_batch_size", "tokenization_workers"}
    assert all(isinstance(info[name], int) for name in integers)
    optional = {"model_sha", "max_concurrent_requests", "max_batch_requests", "sha", "docker_label"}
    assert {"model_id", "version", *integers, *optional} <= info.keys()


# What is wrong, and how TEI's clients are told


@pytest.mark.parametrize(
    ("path", "fields", "named"),
    [
        ("/embed", {}, "inputs"),
        ("/embed", {"inputs": None}, "inputs"),
        ("/embed", {"inputs": 3}, "inputs"),
        ("/embed", {"inputs": [None]}, "inputs"),
        ("/embed", {"inputs": [SHIP, 3]}, "inputs"),
        ("/embed", {"inputs": [True]}, "inputs"),
        ("/embed", {"inputs": [101, 7.5, 102]}, "inputs"),
        ("/embed", {"inputs": SHIP, "truncate": "yes"}, "truncate"),
        ("/embed", {"inputs": SHIP, "truncation_direction": "up"}, "truncation_direction"),
        ("/embed", {"inputs": SHIP, "normalize": 1}, "normalize"),
        ("/embed", {"inputs": SHIP, "normalize": None}, "normalize"),
        ("/embed", {"inputs": SHIP, "dimensions": 0}, "dimensions"),
        ("/embed", {"inputs": SHIP, "dimensions": "64"}, "dimensions"),
        ("/embed", {"inputs": SHIP, "prompt_name": 3}, "prompt_name"),
        ("/embed_all", {"inputs": {"text": SHIP}}, "inputs"),
        ("/similarity", {"inputs": SHIP}, "inputs"),
        ("/similarity", {"inputs": {"source_sentence": SHIP}}, "inputs.sentences"),
        ("/similarity", {"inputs": {"source_sentence": SHIP, "sentences": SHIP}}, "inputs.sentences"),
        ("/similarity", {"inputs": {"source_sentence": [SHIP], "sentences": [BOAT]}}, "inputs.source_sentence"),
        ("/similarity", {"inputs": COMPARED, "parameters": {"truncate": "yes"}}, "parameters.truncate"),
        ("/", {"inputs": 3}, "inputs"),
        ("/", {"inputs": {"source_sentence": SHIP, "sentences": 3}}, "inputs.sentences"),
        ("/tokenize", {"inputs": [SHIP_IDS]}, "inputs"),
        ("/tokenize", {"inputs": SHIP, "add_special_tokens": "no"}, "add_special_tokens"),
        ("/decode", {"ids": "ship"}, "ids"),
        ("/decode", {"ids": [[101], 102]}, "ids"),
        ("/decode", {"ids": [2911], "skip_special_tokens": 0}, "skip_special_tokens"),
    ],
)
def test_wrong_types_are_422_and_named(api: "Api", path: str, fields: dict[str, Any], named: str) -> None:
    assert refusal(api.post(path, fields), 422, "Tokenizer").startswith(f"{named}: ")


@pytest.mark.parametrize("path", sorted({path for path, _ in BODIES}))
def test_what_is_no_json_is_422(api: "Api", path: str) -> None:
    json = {"content-type": "application/json"}
    assert "JSON" in refusal(api.post(path, content=b"{", headers=json), 422, "Tokenizer")
    assert "Content-Type" in refusal(
        api.post(path, content=b"a", headers={"content-type": "text/plain"}), 422, "Tokenizer"
    )


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("/embed", {"inputs": []}),
        ("/embed_all", {"inputs": []}),
        ("/", {"inputs": []}),
        ("/similarity", {"inputs": {"source_sentence": SHIP, "sentences": []}}),
        ("/tokenize", {"inputs": []}),
        ("/decode", {"ids": []}),
    ],
)
def test_an_empty_batch_is_400(api: "Api", path: str, fields: dict[str, Any]) -> None:
    """TEI: `ErrorType::Empty => StatusCode::BAD_REQUEST`."""
    refusal(api.post(path, fields), 400, "Empty")


@pytest.mark.parametrize(
    ("path", "fields", "named"),
    [
        ("/embed", {"inputs": ""}, "inputs"),
        ("/embed", {"inputs": [SHIP, ""]}, "inputs[1]"),
        ("/similarity", {"inputs": {"source_sentence": "", "sentences": [SHIP]}}, "inputs.source_sentence"),
        ("/similarity", {"inputs": {"source_sentence": SHIP, "sentences": [SHIP, ""]}}, "inputs.sentences[1]"),
        ("/tokenize", {"inputs": ""}, "inputs"),
        ("/embed", {"inputs": SHIP, "dimensions": 385}, "dimensions"),
        ("/embed", {"inputs": [101, 30522, 102]}, "inputs"),
        ("/embed", {"inputs": [2911]}, "inputs"),
        ("/decode", {"ids": [30522]}, "ids"),
        ("/decode", {"ids": [-1]}, "ids"),
    ],
)
def test_values_that_the_model_cannot_take_are_413(api: "Api", path: str, fields: dict[str, Any], named: str) -> None:
    assert refusal(api.post(path, fields), 413, "Validation").startswith(f"{named}: ")


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("/embed", {"inputs": [SHIP] * 3}),
        ("/embed_all", {"inputs": [SHIP] * 3}),
        ("/", {"inputs": [SHIP] * 3}),
        ("/similarity", {"inputs": COMPARED}),  # the source counts too, as in TEI
        ("/tokenize", {"inputs": [SHIP] * 3}),
        ("/decode", {"ids": [[2911]] * 3}),
    ],
)
def test_too_many_texts_are_413(make_api: "MakeApi", encoder: CpuEncoder, path: str, fields: dict[str, Any]) -> None:
    api = make_api(encoder, max_texts=2)
    assert api.get("/info").json()["max_client_batch_size"] == 2
    assert "at most 2" in refusal(api.post(path, fields), 413, "Validation")


def test_too_large_a_body_is_413(make_api: "MakeApi", encoder: CpuEncoder) -> None:
    answer = make_api(encoder, max_body_bytes=100).post("/embed", {"inputs": "ship " * 100})
    assert "100 bytes" in refusal(answer, 413, "Validation")


@pytest.mark.parametrize(("path", "fields"), ENCODER_BODIES)
def test_encoder_failure_is_424(make_api: "MakeApi", path: str, fields: dict[str, Any]) -> None:
    def broken(sequences: Sequence[TokenSequence]) -> list[Vectors]:
        raise EncoderError("the encoder is broken")

    assert "the encoder failed" in refusal(make_api(FakeEncoder(broken)).post(path, fields), 424, "Backend")


@pytest.mark.parametrize(("path", "fields"), BODIES)
def test_503_until_the_model_is_loaded(make_api: "MakeApi", path: str, fields: dict[str, Any]) -> None:
    refusal(make_api(None).post(path, fields), 503, "Unhealthy")


def test_429_while_the_queue_is_full(make_api: "MakeApi", gate: Gate) -> None:
    api = make_api(gate, max_queue_tokens=100)

    async def scenario() -> None:
        accepted = await fill_queue(api, gate, "/embed")
        for path, fields in ENCODER_BODIES:
            refused = await api.client.post(path, json=fields)
            refusal(refused, 429, "Overloaded")
            assert int(refused.headers["retry-after"]) >= 1
        assert (await api.client.post("/tokenize", json={"inputs": SHIP})).status_code == 200
        gate.open.set()
        assert [(await answer).status_code for answer in accepted] == [200, 200]

    api.run(scenario())


def test_deadline_is_504_in_teis_shape(make_api: "MakeApi", gate: Gate) -> None:
    answer = make_api(gate).post("/embed", {"inputs": SHIP}, headers={"X-Request-Timeout": "0.05"})
    refusal(answer, 504, "Backend")


@pytest.mark.parametrize(("path", "fields"), BODIES)
def test_unknown_fields_are_ignored(api: "Api", path: str, fields: dict[str, Any]) -> None:
    expected = api.post(path, fields)
    answer = api.post(path, {**fields, "raw_scores": True, "options": {"wait_for_model": True}})
    assert (answer.status_code, answer.json()) == (200, expected.json())
