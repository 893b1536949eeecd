"""OpenTelemetry: a span a request and one for each of its stages, sent by OTLP over HTTP.

Where to, how often and under which name is said by OpenTelemetry's own OTEL_ variables. Spans hold counts and times,
never a text. This is the only file that imports OpenTelemetry, and it is loaded only where tracing is on.
"""

import os
import time
from functools import partial

from opentelemetry import propagate, trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span, SpanKind, Status, StatusCode
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from berth import __version__
from berth.embedder import Embedded
from service.api.auth import HEALTH, METRICS

UNTRACED = HEALTH | {METRICS}
"""What is asked every few seconds and tells nothing."""


class Tracing:
    """The spans' way out, and the middleware that makes them."""

    def __init__(self) -> None:
        resource = Resource({"service.name": "berth", "service.version": __version__, "process.pid": os.getpid()})
        self._provider = TracerProvider(
            resource=Resource.create().merge(resource).merge(OTELResourceDetector().detect())
        )
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        # Wraps an application.
        self.middleware = partial(Trace, tracer=self._provider.get_tracer("berth", __version__))

    def close(self) -> None:
        """Send what has not been sent."""
        self._provider.shutdown()


class Trace:
    """Makes a span of each request, in the trace that its `traceparent` names."""

    def __init__(self, app: ASGIApp, tracer: trace.Tracer) -> None:
        self._app = app
        self._tracer = tracer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http" or scope["path"] in UNTRACED:
            await self._app(scope, receive, send)
            return
        started, started_ns = time.perf_counter(), time.time_ns()
        context = propagate.extract(Headers(scope=scope))
        span = self._tracer.start_span(scope["method"], context, SpanKind.SERVER, start_time=started_ns)
        scope["state"]["exchange"].trace_id = format(span.get_span_context().trace_id, "032x")

        async def note(message: Message) -> None:
            if message["type"] == "http.response.start":
                _note_status(span, message["status"])
            await send(message)

        try:
            await self._app(scope, receive, note)
        finally:
            if span.is_recording():
                _describe(span, scope)
                if (embedded := scope["state"]["exchange"].embedded) is not None:
                    self._add_stages(span, embedded, started_ns - int(started * 1e9))
            span.end()

    def _add_stages(self, span: Span, embedded: Embedded, offset: int) -> None:
        """Add the stages, one after another; `offset`, in nanoseconds, is from the stages' clock to that of spans."""
        context = trace.set_span_in_context(span, Context())
        start = embedded.started
        for stage, seconds in embedded.stages.items():
            end = start + seconds
            child = self._tracer.start_span(stage, context, start_time=offset + int(start * 1e9))
            child.end(offset + int(end * 1e9))
            start = end


def _note_status(span: Span, status: int) -> None:
    span.set_attribute("http.response.status_code", status)
    if status >= 500:
        span.set_status(Status(StatusCode.ERROR))


def _describe(span: Span, scope: Scope) -> None:
    span.set_attribute("http.request.method", scope["method"])
    route = getattr(scope.get("route"), "path", None)
    if route is not None:
        span.update_name(f"{scope['method']} {route}")
        span.set_attribute("http.route", route)
    exchange = scope["state"]["exchange"]
    if exchange.error_code is not None:
        span.set_attribute("error.type", exchange.error_code)
    if exchange.api_key is not None:
        span.set_attribute("berth.key", exchange.api_key.label)
    if (embedded := exchange.embedded) is not None:
        span.set_attribute("berth.texts", len(embedded.items))
        span.set_attribute("berth.tokens", embedded.tokens)
        span.set_attribute("berth.truncated_texts", embedded.truncated)
        span.set_attribute("berth.cached_units", embedded.cached)
