"""What is known of one request and its answer: one object, from the first byte to the line of the log."""

from collections.abc import Callable
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

from berth.embedder import Embedded
from service.api.rate_limit import ApiKey


@dataclass(slots=True, eq=False)
class Exchange:
    """A request, as far as it is known; routes find it at `request.state.exchange`."""

    id: str
    """The client's `X-Request-Id`, or a new one."""
    started: float = field(default_factory=perf_counter)
    error_format: Callable[..., tuple[int, dict[str, Any]]] | None = None
    """The format of its route's errors; None is OpenAI's."""
    api_key: ApiKey | None = None
    """Whose API key it shows; None where the service has no keys."""
    deadline: float = float("inf")
    """When it has to be answered, by the event loop's clock."""
    embedded: Embedded | None = None
    error_code: str | None = None
    trace_id: str | None = None
    status: int | None = None  # of the answer, once it has begun
    hung_up: bool = False  # whether the client left before that
