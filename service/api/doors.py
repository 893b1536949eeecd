"""Who may come in: a request must show a key, unless its path is open to all."""

import hashlib
import hmac
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from service.api.allowance import Allowance
from service.api.errors import Shape, openai_shape, refusal
from service.errors import UnauthorizedError
from service.keys import Key
from service.settings import Settings

HEALTH = frozenset({"/health", "/health/live", "/health/ready"})
PAGES = frozenset({"/", "/docs", "/docs/oauth2-redirect", "/openapi.json"})
FILES = ("/page/", "/static-offline-docs/")
"""What the pages load."""
METRICS = "/metrics"

BEARER = b"bearer "


@dataclass(frozen=True, slots=True)
class Holder:
    """Who shows a key, or one of several with the same label."""

    label: str
    allowance: Allowance | None

    @property
    def charge(self) -> Callable[[int], None] | None:
        """Give what takes a request's tokens out of the holder's allowance; None where it has none."""
        return None if self.allowance is None else self.allowance.take


def holder_of(request: Request) -> Holder | None:
    """Say who makes a request; None where no keys are wanted."""
    holder: Holder | None = request.scope["state"].get("holder")
    return holder


class Keyring:
    """The keys that open the service."""

    def __init__(self, keys: Sequence[Key], tokens_per_minute: float | None) -> None:
        holders = {
            key.label: Holder(key.label, None if tokens_per_minute is None else Allowance(tokens_per_minute))
            for key in keys
        }
        self._keys = [(bytes.fromhex(key.digest), holders[key.label]) for key in keys]

    def holder_of(self, given: bytes) -> Holder | None:
        """Find whose key this is, in a time that depends neither on the key nor on which it is."""
        digest = hashlib.sha256(given).digest()
        found = None
        for each, holder in self._keys:
            if hmac.compare_digest(digest, each):
                found = holder
        return found


class Doors:
    """Turns away what shows no key, before its route is looked for and a byte of its body read."""

    def __init__(self, app: ASGIApp, settings: Settings, shapes: Mapping[str, Shape]) -> None:
        self._app = app
        self._shapes = shapes
        rate = settings.key_tokens_per_minute
        self._keyring = Keyring(settings.api_keys, None if rate is None else rate / settings.workers)
        self._open = HEALTH | {METRICS} if settings.metrics_access == "open" else HEALTH

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] == "http" and not self._is_open(scope):
            given = shown_key(scope["headers"])
            holder = None if given is None else self._keyring.holder_of(given)
            if holder is None:
                scope["state"]["error_shape"] = self._shapes.get(scope["path"], openai_shape)
                await refusal(Request(scope), _reason(given))(scope, receive, send)
                return
            scope["state"]["holder"] = holder
        await self._app(scope, receive, send)

    def _is_open(self, scope: Scope) -> bool:
        path: str = scope["path"]
        return path in self._open or (scope["method"] in {"GET", "HEAD"} and (path in PAGES or path.startswith(FILES)))


def shown_key(headers: Sequence[tuple[bytes, bytes]]) -> bytes | None:
    """Find the key in `Authorization: Bearer`, or in `api-key`, as Azure's clients send it; the first one counts."""
    for name, value in headers:
        if name == b"authorization" and value[: len(BEARER)].lower() == BEARER:
            return value[len(BEARER) :].strip()
        if name == b"api-key":
            return value.strip()
    return None


def _reason(given: bytes | None) -> UnauthorizedError:
    if given is None:
        return UnauthorizedError("an API key is needed, in the header Authorization: Bearer KEY, or api-key: KEY")
    return UnauthorizedError("the API key is not one of this service's")
