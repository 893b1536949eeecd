"""What the service says of itself."""

from typing import TYPE_CHECKING

import pytest

from berth import __version__
from berth.artifact import Dense, Normalize
from berth.contract import FakeEncoder
from berth.errors import DeviceError
from berth.types import Pooling

if TYPE_CHECKING:
    from tests.service.api.conftest import Api, MakeApi

NAME = "sentence-transformers/all-MiniLM-L6-v2"
MODEL = {"id": NAME, "object": "model", "created": 0, "owned_by": "berth"}


def test_models_are_openais(api: "Api") -> None:
    assert api.get("/v1/models").json() == {"object": "list", "data": [MODEL]}
    assert api.get(f"/v1/models/{NAME}").json() == MODEL
    assert api.get("/v1/models/sentence-transformers%2Fall-MiniLM-L6-v2").json() == MODEL


@pytest.mark.parametrize("name", ["other", "sentence-transformers", f"{NAME}/x"])
def test_other_models_are_not_found(api: "Api", name: str) -> None:
    answer = api.get(f"/v1/models/{name}")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")


def test_info_has_teis_fields_and_ours(api: "Api") -> None:
    info = api.get("/info").json()
    expected = {
        "model_id": NAME,
        "model_dtype": "float32",
        "model_type": {"embedding": {"pooling": "mean"}},
        "max_input_length": 256,
        "max_batch_tokens": 256,
        "max_client_batch_size": 2048,
        "version": __version__,
        "hidden_size": 384,
        "width": 384,
        "further_poolings": [],
        "include_prompt": True,
        "projection": [],
        "truncate_dim": None,
        "layers": 6,
        "vocab_size": 30522,
        "truncation_side": "right",
        "has_pooler": True,
        "normalize": True,
        "similarity": "cosine",
        "prompts": [],
        "target": "cpu",
        "precision": "fp32",
        "weight_bits": None,
        "max_text_chars": 1_000_000,
        "max_body_bytes": 32_000_000,
        "request_timeout": 60,
    }
    assert expected.items() <= info.items()
    teis = {"model_sha", "max_concurrent_requests", "max_batch_requests", "tokenization_workers", "sha", "docker_label"}
    assert teis <= info.keys()


def test_info_tells_what_the_models_own_vector_passes_through(make_api: "MakeApi") -> None:
    layers = (Normalize(), Dense(inputs=768, outputs=24, activation="Tanh"))
    own = {"further_poolings": (Pooling.MAX,), "include_prompt": False, "projection": layers, "truncate_dim": 16}
    info = make_api(None, manifest=own).get("/info").json()
    assert {
        "width": 16,
        "further_poolings": ["max"],
        "include_prompt": False,
        "projection": [
            {"kind": "normalize"},
            {"kind": "dense", "inputs": 768, "outputs": 24, "activation": "Tanh"},
        ],
        "truncate_dim": 16,
    }.items() <= info.items()


@pytest.mark.parametrize("bits", [7, 8])
def test_info_says_the_bits_of_int8s_weights(make_api: "MakeApi", bits: int) -> None:
    info = make_api(FakeEncoder(), manifest={"precision": "int8", "weight_bits": bits}).get("/info").json()
    assert (info["precision"], info["weight_bits"]) == ("int8", bits)


def test_weights_that_were_asked_for_are_those_that_are_served(make_api: "MakeApi") -> None:
    int8 = {"precision": "int8", "weight_bits": 8}
    assert make_api(None, manifest=int8, int8_weights=8).state.settings.int8_weights == 8
    with pytest.raises(DeviceError, match="--int8-weights 7: the artifact is in int8 with weights in 8 bits"):
        make_api(None, manifest=int8, int8_weights=7)


def test_health_before_and_after_loading(make_api: "MakeApi") -> None:
    loading, loaded = make_api(None), make_api(FakeEncoder())
    assert loading.get("/health/live").json() == {"status": "live"}
    for path in ("/health", "/health/ready"):
        assert loading.get(path).status_code == 503
        assert loading.get(path).json()["error"]["code"] == "not_ready"
        assert loaded.get(path).json() == {"status": "ready"}
    assert loading.get("/metrics").status_code == 200
    assert "\nberth_ready 0.0\n" in loading.get("/metrics").text


def test_a_service_whose_encoder_hangs_is_to_be_restarted(make_api: "MakeApi") -> None:
    api = make_api(FakeEncoder())
    for hung, status in (True, 503), (False, 200):
        api.state.hung = hung
        for path in ("/health", "/health/ready", "/health/live"):
            answer = api.get(path)
            assert answer.status_code == status
            if hung:
                assert answer.json()["error"]["code"] == "not_ready"
                assert "the encoder hangs" in answer.json()["error"]["message"]
        assert api.post("/v1/embeddings", {"input": "a ship"}).status_code == 200, "whoever asks all the same is served"
