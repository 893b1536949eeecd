"""The same client for asyncio."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
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


class AsyncClient:
    """`Client` with methods to await; closed by `close` or an `async with` block."""

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
        self._http = httpx.AsyncClient(base_url=base_url, headers=headers, timeout=timeout)
        self._batch_size = batch_size
        self._concurrency = concurrency
        self._retries = retries

    async def embed(
        self, texts: str | Iterable[str], *, progress: bool = False, **options: Unpack[EmbedOptions]
    ) -> Array:
        """Encode a text to [width], or texts to [texts, width], in float32 unless `embedding_type` says otherwise."""
        return await self._carry_out(protocol.embed(texts, self._batch_size, options), progress)

    async def features(
        self,
        inputs: Iterable[Input],
        features: Sequence[Mapping[str, Any]],
        *,
        progress: bool = False,
        **options: Unpack[FeatureOptions],
    ) -> list[Features | ServiceError]:
        """Give each input's features, as in `{"pooling": "cls"}`; errors stand among them where they are reported."""
        return await self._carry_out(protocol.features(inputs, features, self._batch_size, options), progress)

    async def similarity(
        self, source: str | Sequence[str], target: str | Sequence[str], **options: Unpack[SimilarityOptions]
    ) -> Any:
        """Compare texts: a number for two strings, else an array; with `top_k` each source's matches."""
        return await self._send(protocol.similarity(source, target, options))

    async def tokenize(
        self, texts: str | Sequence[str], *, add_special_tokens: bool = True
    ) -> list[list[dict[str, Any]]]:
        """Give each text's tokens."""
        return await self._send(protocol.tokenize(texts, add_special_tokens))

    async def detokenize(self, ids: Sequence[Sequence[int]], *, skip_special_tokens: bool = True) -> list[str]:
        """Turn token ids back into texts."""
        return await self._send(protocol.detokenize(ids, skip_special_tokens))

    async def info(self) -> dict[str, Any]:
        """Describe the model and the limits."""
        return await self._send(protocol.info())

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        """Give the client itself."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close the connections."""
        await self.close()

    async def _carry_out(self, plan: Plan[T, R], progress: bool) -> R:
        with progress_bar(progress) as bar:
            return plan.merge([answer async for answer in self._answers(plan.calls, bar)])

    async def _answers(self, calls: Iterable[Call[T]], bar: Callable[[int], object]) -> AsyncIterator[T]:
        """Give the answers in the calls' order, never with more calls under way than the client's concurrency."""
        under_way: deque[tuple[int, asyncio.Task[T]]] = deque()
        try:
            for call in calls:
                under_way.append((call.texts, asyncio.create_task(self._send(call))))
                if len(under_way) == self._concurrency:
                    yield await self._first(under_way, bar)
            while under_way:
                yield await self._first(under_way, bar)
        finally:
            for _, task in under_way:
                task.cancel()

    @staticmethod
    async def _first(under_way: deque[tuple[int, asyncio.Task[T]]], bar: Callable[[int], object]) -> T:
        """Wait for the first answer; raises the error of any call under way as soon as there is one."""
        while not protocol.first_is_done([task for _, task in under_way]):
            await asyncio.wait([task for _, task in under_way if not task.done()], return_when=asyncio.FIRST_COMPLETED)
        texts, task = under_way.popleft()
        bar(texts)
        return task.result()

    async def _send(self, call: Call[T]) -> T:
        for attempt in range(self._retries + 1):
            response = await self._http.request(call.method, call.path, **protocol.arguments(call))
            if response.status_code not in protocol.RETRIED or attempt == self._retries:
                break
            await asyncio.sleep(protocol.delay(response, attempt))
        return protocol.answer(call, response)
