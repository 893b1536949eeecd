"""OpenTelemetry spans, taken in by a receiver of OTLP over HTTP on loopback."""

import gzip
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

if TYPE_CHECKING:
    from tests.end_to_end.conftest import Launch, Start

PARENT_TRACE, PARENT_SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACEPARENT = {"traceparent": f"00-{PARENT_TRACE}-{PARENT_SPAN}-01"}
KEY = "a-key-that-nobody-should-read"


class Receiver(ThreadingHTTPServer):
    """Takes spans in."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.bodies: list[bytes] = []
        self.paths: set[str] = set()

    def requests(self) -> list[ExportTraceServiceRequest]:
        return [ExportTraceServiceRequest.FromString(body) for body in self.bodies]

    def spans(self) -> list[Any]:
        return [
            span
            for request in self.requests()
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]


class Handler(BaseHTTPRequestHandler):
    """Takes one request."""

    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.bodies.append(gzip.decompress(body) if self.headers["content-encoding"] == "gzip" else body)
        self.server.paths.add(self.path)
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # its name in the base class
        pass


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def attributes(item: Any) -> dict[str, Any]:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in item.attributes}


def test_request_and_its_stages_are_spans_of_the_callers_trace(
    start: "Start", tiny_artifact: Path, receiver: Receiver
) -> None:
    service = start(
        tiny_artifact,
        "--tracing",
        "otlp",
        "--shutdown-grace",
        "0.2",
        OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{receiver.server_port}",
        OTEL_RESOURCE_ATTRIBUTES="deployment.environment.name=harbour",
        BERTH_API_KEYS=f"alice: {KEY}",
    )
    headers = {"api-key": KEY}
    with service.client() as http:
        good = http.post("/v1/embeddings", json={"input": ["zanzibar", "a b"]}, headers=headers | TRACEPARENT)
        assert good.status_code == 200
        assert http.post("/embed", json={"inputs": []}, headers=headers).status_code == 400
        assert http.get("/v1/models", headers=TRACEPARENT).status_code == 401
        http.get("/metrics", headers=headers)
    assert service.stop() == 0, "what is left is sent at the end"
    assert receiver.paths == {"/v1/traces"}
    spans = {(span.name, span.trace_id.hex()): span for span in receiver.spans()}
    request = spans["POST /v1/embeddings", PARENT_TRACE]
    assert request.parent_span_id.hex() == PARENT_SPAN
    assert request.kind == 2, "that of a server"
    told = attributes(request)
    assert told.pop("berth.truncated_texts") == 0
    assert told == {
        "http.request.method": "POST",
        "http.route": "/v1/embeddings",
        "http.response.status_code": 200,
        "berth.texts": 2,
        "berth.tokens": told["berth.tokens"],
        "berth.cached_units": 0,
        "berth.key": "alice",
    }
    stages = [spans[stage, PARENT_TRACE] for stage in ("tokenize", "queue", "encode")]
    assert {span.parent_span_id for span in stages} == {request.span_id}
    times = [request.start_time_unix_nano]
    for span in stages:
        times += [span.start_time_unix_nano, span.end_time_unix_nano]
    assert times == sorted(times), "one stage follows the other, within the request"
    assert times[-1] <= request.end_time_unix_nano + 1_000_000
    timing = dict(re.findall(r"(\w+);dur=([\d.]+)", good.headers["server-timing"]))
    for span in stages:
        milliseconds = (span.end_time_unix_nano - span.start_time_unix_nano) / 1e6
        assert milliseconds == pytest.approx(float(timing[span.name]), abs=0.02)
    [bad] = [span for (name, _), span in spans.items() if name == "POST /embed"]
    assert (attributes(bad)["error.type"], bad.parent_span_id) == ("invalid_request", b"")
    assert attributes(spans["GET", PARENT_TRACE])["error.type"] == "invalid_api_key"
    assert not [name for name, _ in spans if "metrics" in name or "health" in name]
    [resource, *_] = [each.resource for message in receiver.requests() for each in message.resource_spans]
    expected = {"service.name": "berth", "deployment.environment.name": "harbour"}
    assert expected.items() <= attributes(resource).items()
    for body in receiver.bodies:
        assert b"zanzibar" not in body
        assert KEY.encode() not in body
    assert f"trace_id={PARENT_TRACE}" in service.log
    assert "Traceback" not in service.log


def test_receiver_that_is_gone_hinders_nothing(start: "Start", tiny_artifact: Path) -> None:
    service = start(
        tiny_artifact,
        *("--tracing", "otlp", "--shutdown-grace", "0"),
        OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:9",
        OTEL_SERVICE_NAME="tug",
    )
    with service.client() as http:
        assert http.post("/v1/embeddings", json={"input": "a b"}).status_code == 200
    assert service.stop() == 0


def test_nothing_is_sent_unless_it_is_wanted(start: "Start", tiny_artifact: Path, receiver: Receiver) -> None:
    """FastAPI has telemetry of its own, which would send paths and query strings."""
    service = start(
        tiny_artifact,
        *("--shutdown-grace", "0"),
        OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{receiver.server_port}",
        FASTAPI_OTEL_AUTO_CONFIGURE="true",
    )
    with service.client() as http:
        answer = http.post("/v1/embeddings?q=zanzibar", json={"input": "a b"}, headers=TRACEPARENT)
    assert answer.status_code == 200
    assert service.stop() == 0
    assert receiver.bodies == []


def test_missing_packages_are_named_in_one_line(launch: "Launch", tiny_artifact: Path, tmp_path: Path) -> None:
    package = tmp_path / "opentelemetry" / "sdk"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise ModuleNotFoundError(name='opentelemetry.sdk')")
    repository = str(Path(__file__).parents[2])
    service = launch(tiny_artifact, "--tracing", "otlp", PYTHONPATH=f"{tmp_path}:{repository}")
    assert service.end() == 1
    assert service.log == (
        "berth: --tracing: needs OpenTelemetry (opentelemetry.sdk is missing): "
        "pip install '.[otel]' in Berth's folder\n"
    )
