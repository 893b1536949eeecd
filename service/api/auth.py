"""Who may come in: a request must show a key, unless its path is open to all."""

import hashlib
import hmac
from collections.abc import Mapping, Sequence

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from berth.errors import UnauthorizedError
from service.api.errors import ErrorFormat, openai_format, refusal
from service.api.rate_limit import ApiKey, RateLimit
from service.keys import Key
from service.settings import Settings

HEALTH = frozenset({"/health", "/health/live", "/health/ready"})
PAGES = frozenset({"/", "/docs", "/docs/oauth2-redirect", "/openapi.json"})
FILES = ("/page/", "/static-offline-docs/")
"""What the pages load."""
METRICS = "/metrics"

BEARER = b"bearer "
NO_KEY = "an API key is needed, in the header Authorization: Bearer KEY, or api-key: KEY"


class Keyring:
    """The keys that open the service."""

    def __init__(self, keys: Sequence[Key], tokens_per_minute: float | None) -> None:
        api_keys = {
            key.label: ApiKey(key.label, None if tokens_per_minute is None else RateLimit(tokens_per_minute))
            for key in keys
        }
        self._keys = [(bytes.fromhex(key.digest), api_keys[key.label]) for key in keys]

    def api_key_of(self, given: bytes) -> ApiKey | None:
        """Find whose key this is, in a time that depends neither on the key nor on which it is."""
        digest = hashlib.sha256(given).digest()
        found = None
        for each, api_key in self._keys:
            if hmac.compare_digest(digest, each):
                found = api_key
        return found


class Auth:
    """Turns away what shows no key, before its route is looked for and a byte of its body read."""

    def __init__(self, app: ASGIApp, settings: Settings, formats: Mapping[str, ErrorFormat]) -> None:
        self._app = app
        self._formats = formats
        self._keyring = Keyring(settings.api_keys, settings.key_tokens_per_minute)
        self._open = HEALTH | {METRICS} if settings.metrics_access == "open" else HEALTH

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] == "http" and not self._is_open(scope):
            given = shown_key(scope["headers"])
            api_key = None if given is None else self._keyring.api_key_of(given)
            if api_key is None:
                scope["state"]["exchange"].error_format = self._formats.get(scope["path"], openai_format)
                reason = "the API key is not one of this service's" if given is not None else NO_KEY
                await refusal(Request(scope), UnauthorizedError(reason))(scope, receive, send)
                return
            scope["state"]["exchange"].api_key = api_key
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
