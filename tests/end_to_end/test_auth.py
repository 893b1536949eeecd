"""Keys, rates, other origins and ports: who may ask for what, over real HTTP."""

import re
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import openai
import pytest
from huggingface_hub import InferenceClient
from huggingface_hub.errors import HfHubHTTPError

import berth

if TYPE_CHECKING:
    from tests.end_to_end.conftest import Launch, Service, Start

ALICE, BOB, STRANGER = "alices-key-of-24-letters", "bobs-key-is-as-long-as-hers", "a-strangers-key-of-any-length"
KEYS = {"BERTH_API_KEYS": f"alice: {ALICE}, bob: {BOB}"}
OPEN = {"/health/live", "/health/ready"}
TEI = {"/", "/embed", "/embed_all", "/similarity", "/tokenize", "/decode"}


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def embed(service: "Service", key: str, texts: Any = "a b") -> httpx.Response:
    with service.client() as http:
        return http.post("/v1/embeddings", json={"input": texts}, headers=bearer(key))


def test_every_route_wants_a_key_but_health_and_pages(start: "Start", tiny_artifact: Path) -> None:
    service = start(tiny_artifact, **KEYS)
    assert "API keys: alice, bob" in service.log
    with service.client() as http:
        document = http.get("/openapi.json").json()
        assert document["components"]["securitySchemes"]["HTTPBearer"] == {"type": "http", "scheme": "bearer"}
        assert "security" in document["paths"]["/info"]["get"]
        assert "security" not in document["paths"]["/health/ready"]["get"]
        operations = [
            (method.upper(), path.replace("{name}", "x"))
            for path, methods in document["paths"].items()
            for method in methods
        ]
        assert len(operations) > 15
        operations += [("GET", "/nowhere"), ("OPTIONS", "/v1/embeddings"), ("POST", "/docs")]
        for method, path in operations:
            for headers in ({}, bearer(STRANGER), bearer(ALICE[:-1]), {"api-key": STRANGER}, {"Authorization": ALICE}):
                answer = http.request(method, path, headers=headers, content=b"not read")
                if path in OPEN:
                    assert answer.status_code == 200
                    continue
                assert answer.status_code == 401, (method, path)
                assert answer.headers["www-authenticate"] == "Bearer"
                assert answer.headers["content-type"] == "application/json"
                assert answer.headers["x-request-id"]
                error = answer.json()
                if path in TEI:
                    assert (error.keys(), error["error_type"]) == ({"error", "error_type"}, "Validation")
                else:
                    assert (error["error"]["type"], error["error"]["code"]) == (
                        "invalid_request_error",
                        "invalid_api_key",
                    )
                assert STRANGER not in answer.text
            for headers in (bearer(ALICE), {"authorization": f"bearer {BOB}"}, {"api-key": BOB}):
                assert http.request(method, path, headers=headers).status_code != 401, (method, path)
        for path in ("/docs", "/openapi.json", "/static-offline-docs/swagger-ui.css", "/health", *OPEN):
            assert http.get(path).status_code == 200, path
        assert http.head("/health/ready").status_code == 200
        assert http.get("/static-offline-docs/../v1/models").status_code == 401
        refused = service.log.count("error=invalid_api_key")
        assert refused > 5 * 15
        told = [http.get(path, headers=bearer(ALICE)).text for path in ("/info", "/metrics", "/status/server")]
    for shown in (*told, service.log):
        assert not [key for key in (ALICE, BOB, STRANGER) if key in shown]
    assert 'berth_rejected_requests_total{reason="invalid_api_key"}' in told[1]
    assert "key=alice" in service.log
    assert service.stop() == 0


def test_body_of_a_stranger_is_not_read(start: "Start", tiny_artifact: Path) -> None:
    service = start(tiny_artifact, **KEYS)
    request = "POST /v1/embeddings HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 1000000"
    with socket.create_connection(("127.0.0.1", service.port), 20) as connection:
        connection.sendall(f"{request}\r\n\r\n".encode())
        assert connection.recv(65536).startswith(b"HTTP/1.1 401 ")


def test_client_libraries_show_their_keys(start: "Start", tiny_artifact: Path) -> None:
    service = start(tiny_artifact, **KEYS)
    with openai.OpenAI(base_url=f"{service.url}/v1", api_key=ALICE, max_retries=0) as client:
        assert len(client.embeddings.create(input="a b", model=client.models.list().data[0].id).data) == 1
        with pytest.raises(openai.AuthenticationError) as refused:
            client.with_options(api_key=STRANGER).embeddings.create(input="a b", model="x")
    assert refused.value.code == "invalid_api_key"
    azure = openai.AzureOpenAI(base_url=f"{service.url}/v1", api_key=BOB, api_version="x", max_retries=0)
    with azure:
        assert len(azure.embeddings.create(input="a b", model=None).data) == 1  # type: ignore[arg-type]
    assert InferenceClient(service.url, token=BOB).feature_extraction("a b").shape == (1, 60)
    with pytest.raises(HfHubHTTPError, match="401"):
        InferenceClient(service.url, token=STRANGER).feature_extraction("a b")
    with berth.Client(service.url, api_key=ALICE) as ours:
        assert ours.embed(["a b"]).shape == (1, 60)
    with berth.Client(service.url) as ours, pytest.raises(berth.ServiceError, match="API key"):
        ours.embed(["a b"])
    assert {"key=alice", "key=bob"} <= set(re.findall(r"key=\w+", service.log))


def test_keys_come_from_a_file_too(start: "Start", tiny_artifact: Path, tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(f"# the team\nalice: {ALICE}\n{BOB}\n")
    file.chmod(0o644)
    service = start(tiny_artifact, "--api-keys-file", str(file))
    assert f"{file} can be read by every user of this machine" in service.log
    assert "API keys: alice, key-2" in service.log
    assert embed(service, BOB).status_code == 200
    assert embed(service, STRANGER).status_code == 401
    assert "key=key-2" in service.log
    assert not [key for key in (ALICE, BOB, STRANGER) if key in service.log]


def test_key_that_is_none_stops_the_start_without_being_shown(launch: "Launch", tiny_artifact: Path) -> None:
    service = launch(tiny_artifact, BERTH_API_KEYS="a secret one")
    assert service.end() == 1
    [line] = service.log.splitlines()
    assert line.startswith("berth: --api-keys (BERTH_API_KEYS): key 1 of 1 must be printable ASCII")
    assert "secret" not in line


def test_key_has_its_tokens_a_minute(start: "Start", tiny_artifact: Path) -> None:
    service = start(tiny_artifact, "--key-tokens-per-minute", "40", **KEYS)
    hungry = [f"a b c d e f g {last}" for last in "hij"]  # 10 tokens each, with [CLS] and [SEP]
    assert embed(service, ALICE, hungry).json()["usage"]["total_tokens"] == 30
    refused = embed(service, ALICE, hungry)
    error = refused.json()["error"]
    assert (refused.status_code, error["type"], error["code"]) == (429, "rate_limit_error", "rate_limit_exceeded")
    assert 20 <= int(refused.headers["retry-after"]) <= 30
    with service.client() as http:
        tei = http.post("/embed", json={"inputs": hungry}, headers=bearer(ALICE))
    assert (tei.status_code, tei.json()["error_type"]) == (429, "Overloaded")
    assert embed(service, BOB, hungry).status_code == 200
    too_large = embed(service, BOB, [f"a b c d e f g {last}" for last in "hijklm"])
    assert (too_large.status_code, too_large.json()["error"]["code"]) == (413, "too_large")
    assert "60 tokens, the key may have 40 encoded in a minute" in too_large.text
    client = openai.OpenAI(base_url=f"{service.url}/v1", api_key=ALICE, max_retries=0)
    with client, pytest.raises(openai.RateLimitError) as limited:
        client.embeddings.create(input=hungry, model=client.models.list().data[0].id)
    assert limited.value.code == "rate_limit_exceeded"
    with service.client() as http:
        page = http.get("/metrics", headers=bearer(BOB)).text
    assert "berth_texts_total 6.0" in page, "nothing of what was refused came to the encoder"
    assert 'berth_rejected_requests_total{reason="rate_limit_exceeded"} 3.0' in page


def test_key_that_has_nothing_left_is_refused_before_its_body(start: "Start", tiny_artifact: Path) -> None:
    service = start(tiny_artifact, "--key-tokens-per-minute", "10", **KEYS)
    assert embed(service, ALICE, "a b c d e f g h").status_code == 200
    head = f"POST /v1/embeddings HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {ALICE}\r\nContent-Length: 1000000"
    with socket.create_connection(("127.0.0.1", service.port), 20) as connection:
        connection.sendall(f"{head}\r\nContent-Type: application/json\r\n\r\n".encode())
        assert connection.recv(65536).startswith(b"HTTP/1.1 429 ")


def test_text_that_comes_twice_in_a_request_is_charged_once(start: "Start", tiny_artifact: Path) -> None:
    service = start(tiny_artifact, "--key-tokens-per-minute", "10", **KEYS)
    answer = embed(service, ALICE, ["a b c d e f g h"] * 3)
    assert (answer.status_code, answer.json()["usage"]["total_tokens"]) == (200, 30)


def test_tokens_of_one_request_have_a_limit(start: "Start", tiny_artifact: Path) -> None:
    service = start(tiny_artifact, "--max-request-tokens", "25")
    with service.client() as http:
        assert http.post("/v1/embeddings", json={"input": ["a b c d e f g h"] * 2}).status_code == 200
        refused = http.post("/v1/embeddings", json={"input": ["a b c d e f g h"] * 3})
        tei = http.post("/embed", json={"inputs": ["a b c d e f g h"] * 3})
        windows = {"input": "a b c d e f g h", "truncate": {"window": 4, "stride": 1}}
        overlapping = http.post("/v1/embeddings", json=windows)
    error = {"message": "input: more than 25 tokens in one request", "type": "invalid_request_error"}
    assert refused.json() == {"error": error | {"param": "input", "code": "invalid_value"}}
    assert [answer.status_code for answer in (refused, tei, overlapping)] == [400, 413, 400]


def test_health_and_metrics_have_a_port_of_their_own(start: "Start", tiny_artifact: Path) -> None:
    service = start(tiny_artifact, "--metrics-port", "0", "--shutdown-grace", "1", **KEYS)
    [port] = set(re.findall(r"health and metrics are on http://127\.0\.0\.1:(\d+)", service.log))
    assert int(port) != service.port
    embed(service, ALICE)
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as http:
        assert 'berth_requests_total{route="/v1/embeddings",status="200"} 1.0' in http.get("/metrics").text
        for path in ("/health", "/health/live", "/health/ready"):
            assert http.get(path).status_code == 200
        for path in ("/", "/docs", "/info", "/openapi.json", "/v1/models", "/nowhere"):
            assert http.get(path).status_code == 404
        answer = http.post("/v1/embeddings", json={"input": "a"}, headers=bearer(ALICE))
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")
    with service.client() as http:
        assert http.get("/metrics", headers=bearer(ALICE)).status_code == 404
        assert http.get("/health/ready").status_code == 200
    assert service.stop() == 0
    assert "Traceback" not in service.log


def test_metrics_port_that_is_taken_is_said_in_one_line(launch: "Launch", tiny_artifact: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        service = launch(tiny_artifact, "--metrics-port", str(port))
        assert service.end() == 1
    [line] = service.log.splitlines()
    assert line.startswith(f"berth: cannot serve on 127.0.0.1:{port}: ")


def test_metrics_may_be_open(start: "Start", tiny_artifact: Path) -> None:
    service = start(tiny_artifact, "--metrics-access", "open", **KEYS)
    with service.client() as http:
        assert http.get("/metrics").status_code == 200
        assert http.get("/info").status_code == 401


def test_other_origins_may_not_call_unless_named(start: "Start", tiny_artifact: Path, http: httpx.Client) -> None:
    asked = {
        "Origin": "https://a.example",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,content-type",
    }
    off = [http.options("/v1/embeddings", headers=asked), http.get("/v1/models", headers=asked)]
    assert not [name for answer in off for name in answer.headers if name.startswith("access-control")]
    service = start(tiny_artifact, "--cors-origins", "https://a.example,https://b.example", **KEYS)
    with service.client() as client:
        allowed = client.options("/v1/embeddings", headers=asked)
        other = client.options("/v1/embeddings", headers=asked | {"Origin": "https://c.example"})
        answer = client.get("/v1/models", headers=bearer(ALICE) | {"Origin": "https://b.example"})
        refused = client.get("/v1/models", headers={"Origin": "https://a.example"})
        stranger = client.get("/v1/models", headers=bearer(ALICE) | {"Origin": "https://c.example"})
    assert allowed.status_code == 200
    assert allowed.headers["access-control-allow-origin"] == "https://a.example"
    assert "authorization" in allowed.headers["access-control-allow-headers"]
    assert "access-control-allow-credentials" not in allowed.headers
    assert (other.status_code, "access-control-allow-origin" in other.headers) == (400, False)
    assert answer.headers["access-control-allow-origin"] == "https://b.example"
    assert "x-request-id" in answer.headers["access-control-expose-headers"]
    assert (refused.status_code, refused.headers["access-control-allow-origin"]) == (401, "https://a.example")
    assert "access-control-allow-origin" not in stranger.headers


@pytest.mark.parametrize("path", ["/v1/models", "/nowhere", "/docs", "/health/live", "/metrics"])
def test_every_answer_tells_browsers_to_be_careful(http: httpx.Client, path: str) -> None:
    headers = http.get(path).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert "server" not in headers
    assert "x-powered-by" not in headers
