"""The blocking client."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, ThreadPoolExecutor, wait
from threading import Event
from typing import Any, Self, TypeVar, Unpack

import httpx

from berth.client import protocol
from berth.client.progress import progress_bar
from berth.client.protocol import (
    Array,
    Call,
    EmbedOptions,
    FeatureOptions,
    Features,
    Input,
    Plan,
    ServiceError,
    SimilarityOptions,
)

T = TypeVar("T")
R = TypeVar("R")


class Client:
    """A connection to a Berth service; safe to use from several threads, and closed by `close` or a `with` block.

    Long iterables go in requests of `batch_size` inputs, `concurrency` of them at a time. A service that is overloaded
    or starting is asked again, up to `retries` times, when it says so. `timeout` is in seconds. Every method raises
    `ServiceError` where the service answers with an error, httpx's errors where it cannot be reached, and `ValueError`
    where a text holds half a character. Of a long iterable's requests the first to fail ends the others.
    """

    def __init__(
        self,
        base_url: str = protocol.BASE_URL,
        *,
        api_key: str | None = None,
        timeout: float = protocol.TIMEOUT,
        batch_size: int = 64,
        concurrency: int = 4,
        retries: int = 5,
    ) -> None:
        protocol.check_counts(batch_size, concurrency, retries)
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._http = httpx.Client(base_url=base_url, headers=headers, timeout=timeout)
        self._batch_size = batch_size
        self._concurrency = concurrency
        self._retries = retries

    def embed(self, texts: str | Iterable[str], *, progress: bool = False, **options: Unpack[EmbedOptions]) -> Array:
        """Encode a text to [width], or texts to [texts, width], in float32 unless `embedding_type` says otherwise."""
        return self._carry_out(protocol.embed(texts, self._batch_size, options), progress)

    def features(
        self,
        inputs: Iterable[Input],
        features: Sequence[Mapping[str, Any]],
        *,
        progress: bool = False,
        **options: Unpack[FeatureOptions],
    ) -> list[Features | ServiceError]:
        """Give each input's features, as in `{"pooling": "cls"}`; errors stand among them where they are reported."""
        return self._carry_out(protocol.features(inputs, features, self._batch_size, options), progress)

    def similarity(
        self, source: str | Sequence[str], target: str | Sequence[str], **options: Unpack[SimilarityOptions]
    ) -> Any:
        """Compare texts: a number for two strings, else an array; with `top_k` each source's matches."""
        return self._send(protocol.similarity(source, target, options))

    def tokenize(self, texts: str | Sequence[str], *, add_special_tokens: bool = True) -> list[list[dict[str, Any]]]:
        """Give each text's tokens."""
        return self._send(protocol.tokenize(texts, add_special_tokens))

    def detokenize(self, ids: Sequence[Sequence[int]], *, skip_special_tokens: bool = True) -> list[str]:
        """Turn token ids back into texts."""
        return self._send(protocol.detokenize(ids, skip_special_tokens))

    def info(self) -> dict[str, Any]:
        """Describe the model and the limits."""
        return self._send(protocol.info())

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        """Give the client itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the connections."""
        self.close()

    def _carry_out(self, plan: Plan[T, R], progress: bool) -> R:
        with progress_bar(progress) as bar, ThreadPoolExecutor(self._concurrency) as threads:
            return plan.merge(list(self._answers(plan.calls, threads, bar)))

    def _answers(
        self, calls: Iterable[Call[T]], threads: ThreadPoolExecutor, bar: Callable[[int], object]
    ) -> Iterator[T]:
        """Give the answers in the calls' order, never with more calls under way than the client's concurrency."""
        under_way: deque[tuple[int, Future[T]]] = deque()
        over = Event()
        try:
            for call in calls:
                under_way.append((call.texts, threads.submit(self._send, call, over)))
                if len(under_way) == self._concurrency:
                    yield self._first(under_way, bar)
            while under_way:
                yield self._first(under_way, bar)
        finally:
            over.set()  # for those that wait to ask again: the threads' block ends when the last one does
            for _, future in under_way:
                future.cancel()

    @staticmethod
    def _first(under_way: deque[tuple[int, Future[T]]], bar: Callable[[int], object]) -> T:
        """Wait for the first answer; raises the error of any call under way as soon as there is one."""
        while not protocol.first_is_done([future for _, future in under_way]):
            wait([future for _, future in under_way if not future.done()], return_when=FIRST_COMPLETED)
        texts, future = under_way.popleft()
        bar(texts)
        return future.result()

    def _send(self, call: Call[T], over: Event | None = None) -> T:
        """Ask until there is an answer; raises `CancelledError` where `over` is set while it waits to ask again."""
        over = over or Event()
        for attempt in range(self._retries + 1):
            response = self._http.request(call.method, call.path, **protocol.arguments(call))
            if response.status_code not in protocol.RETRIED or attempt == self._retries:
                break
            if over.wait(protocol.delay(response, attempt)):
                raise CancelledError
        return protocol.answer(call, response)
