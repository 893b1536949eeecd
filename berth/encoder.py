"""`berth.Encoder`: a model in your process, without HTTP and without an event loop."""

import threading
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path
from typing import Self

import numpy as np

from berth import models
from berth.artifact import Manifest, Precision, WeightBits, read_artifact
from berth.backends.pooling import shortened
from berth.batching.queue import Lane, Priority, Queue, QueueEntry, Request, entries_of
from berth.batching.run import BatchRun, Result
from berth.cores import available_cores
from berth.errors import EncoderError, InvalidInputError
from berth.features import Feature, check_dimensions, sentence_feature
from berth.model import Model
from berth.placement import THREADS_PER_GPU, check_precision, choose, gpus_for
from berth.text.prepared import EncodeOptions, Item, PreparedText, prepare
from berth.text.prompts import prompted
from berth.text.tokenizer import Token
from berth.text.truncation import truncation_of
from berth.types import Float32Array, SplitText, Text, TextPair

Input = str | tuple[str, str] | Mapping[str, Sequence[str]]
"""A text, a pair, or `{"tokens": [words already split]}`."""
Truncate = str | Mapping[str, object]
"""`end`, `start`, `middle` or `error`; `{"head": 64}`; or `{"window": 256, "stride": 192, "combine": "mean"}`."""

WINDOW_TEXTS = 2048
"""Texts that are tokenized and sorted by length at once; while they are encoded, the next are tokenized."""


@dataclass(frozen=True, slots=True)
class _Work:
    """A window of inputs that is being encoded."""

    prepared: list[PreparedText]
    batches: list[tuple[list[QueueEntry], Future[list[Result]]]]

    def items(self) -> Iterator[Item]:
        """Wait for the results and yield each input's; raises `EncoderError`, which names the input."""
        results: dict[int, Result] = {}
        for batch, future in self.batches:
            for entry, result in zip(batch, future.result(), strict=True):
                results |= dict.fromkeys(entry.indices, result)
        left = iter([results[index] for index in range(len(results))])
        for prepared in self.prepared:
            item = prepared.answer(left)
            if isinstance(item, EncoderError):
                raise item
            yield item

    def cancel(self) -> None:
        """Encode no more batches of it than have begun; nobody waits for them."""
        for _, future in self.batches:
            future.cancel()


class Encoder:
    """A model, loaded in this process; safe to use from several threads, and closed by `close` or a `with` block.

    `model` is a Hugging Face id, a checkpoint's folder or an exported artifact's; what is not exported yet is exported
    into `cache_dir`. `device`, `precision` and `int8_weights` are those of `berth serve`. `threads` is the number of
    batches that are encoded at once, by default the cores that this process may use, or two a GPU; `max_batch_tokens`
    bounds each one's memory, and `gpu_memory_limit`, in bytes, that of all on a GPU.

    Raises `ModelNotFoundError`, `ExportFailedError`, `ArtifactError` and `DeviceError`. Each method raises
    `InvalidInputError`, which names the input, and `EncoderError` where the model fails.
    """

    def __init__(
        self,
        model: str | Path = models.DEFAULT_MODEL,
        *,
        device: str = "auto",
        precision: Precision | None = None,
        int8_weights: WeightBits | None = None,
        threads: int | None = None,
        max_batch_tokens: int | None = None,
        gpu_memory_limit: int | None = None,
        cache_dir: str | Path = models.CACHE_DIR,
    ) -> None:
        name = _name_of(model)
        folder = models.given_artifact(name)
        if folder is None:
            folder = models.find_artifact(name, choose(device, precision, int8_weights), Path(cache_dir))
        artifact = read_artifact(folder)
        check_precision(precision, artifact.manifest, int8_weights)
        gpus = gpus_for(device, artifact.manifest)
        self._begin(Model.load(artifact, tuple(gpus), gpu_memory_limit), threads, max_batch_tokens)

    @classmethod
    def of(cls, model: Model, *, threads: int | None = None, max_batch_tokens: int | None = None) -> Self:
        """Make an encoder of a loaded model, which `close` closes, as of one with a `FakeEncoder`."""
        encoder = cls.__new__(cls)
        encoder._begin(model, threads, max_batch_tokens)
        return encoder

    def _begin(self, model: Model, threads: int | None, max_batch_tokens: int | None) -> None:
        self._model = model
        self._lane = Lane(max_batch_tokens or model.max_batch_tokens, self.manifest.max_tokens)
        usual = THREADS_PER_GPU * len(model.backends) if self.manifest.target == "cuda" else available_cores()
        self._pool = ThreadPoolExecutor(threads or usual, thread_name_prefix="encoder")
        self._lock = threading.Lock()
        self._closed = False
        self._turns = count()
        self._lost: set[int] = set()  # the devices that have failed for good

    @property
    def manifest(self) -> Manifest:
        """What the model is: its sizes, pooling, prompts and precision."""
        return self._model.manifest

    def encode(
        self,
        texts: str | Iterable[str],
        *,
        prompt_name: str | None = None,
        truncate: Truncate | None = None,
        dimensions: int | None = None,
    ) -> Float32Array:
        """Encode a text to [width], or texts to [texts, width], float32, as the model was trained to.

        `prompt_name` names a prompt of the model's, put before each text; `""` is none, None the model's default.
        `truncate` says what becomes of a text beyond the model's maximum; None cuts it at its end, or at its start
        where the model's tokenizer does so. `dimensions` keeps the first numbers of each vector and normalises again.
        """
        if isinstance(texts, str):
            vectors = self.encode([texts], prompt_name=prompt_name, truncate=truncate, dimensions=dimensions)
            return np.asarray(vectors[0])
        manifest = self.manifest
        if dimensions is not None:
            check_dimensions(dimensions, manifest)
        feature = sentence_feature(manifest)
        options = EncodeOptions((feature,), truncation_of(truncate, manifest))
        named = _texts(texts)
        vectors = np.empty((len(named), feature.width(manifest.hidden_size)), dtype=np.float32)
        for row, item in enumerate(self._items(named, options, prompt_name)):
            vectors[row] = item.vectors[0]
        return vectors if dimensions is None else shortened(vectors, dimensions)

    def features(
        self,
        inputs: Iterable[Input],
        features: Sequence[Feature] = (Feature(),),
        *,
        prompt_name: str | None = None,
        truncate: Truncate | None = None,
    ) -> list[list[Float32Array]]:
        """Give of each input one array a feature, in their order, all from one forward pass.

        An array is [width], or [tokens, width] for the pooling `none` and [words, width] for `words`.
        """
        if not features:
            raise InvalidInputError("features", "must not be empty")
        resolved = tuple(
            feature.resolve(self.manifest, f"features[{number}].") for number, feature in enumerate(features)
        )
        options = EncodeOptions(resolved, truncation_of(truncate, self.manifest))
        # Copied, because each is a part of its batch's array, which it would keep.
        items = self._items(_texts(inputs), options, prompt_name)
        return [[vector.copy() for vector in item.vectors] for item in items]

    def tokens(self, texts: Iterable[str], *, add_special_tokens: bool = True) -> list[list[Token]]:
        """Give each text's tokens with their places in it, uncut."""
        tokens, named = self._model.tokenizer.tokens, _texts(texts)
        for text in named:
            if not isinstance(text.value, str):
                raise InvalidInputError(text.name, "must be a string")
        return [tokens(text, add_special_tokens=add_special_tokens) for text in named]

    def close(self) -> None:
        """Let go of the threads and of the model's memory; what runs is finished first. Once is enough."""
        with self._lock:
            closed, self._closed = self._closed, True
        self._pool.shutdown()
        if not closed:
            self._model.close()

    def __enter__(self) -> Self:
        """Give the encoder itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()

    def _items(self, texts: Sequence[Text], options: EncodeOptions, prompt_name: str | None) -> Iterator[Item]:
        """Yield each input's answer, in order; the next window is tokenized while one is encoded."""
        if self._closed:
            raise EncoderError("the encoder is closed")
        texts = prompted(self.manifest, texts, prompt_name)
        begun: deque[_Work] = deque()
        try:
            for start in range(0, len(texts), WINDOW_TEXTS):
                begun.append(_Work(self._prepared(texts[start : start + WINDOW_TEXTS], options), []))
                for batch in self._batches(begun[-1].prepared):
                    begun[-1].batches.append((batch, self._submitted(batch)))
                if len(begun) > 1:
                    yield from begun[0].items()
                    begun.popleft()
            for work in begun:
                yield from work.items()
        finally:  # of an input that failed, or a caller who was interrupted, the rest is not encoded in vain
            for work in begun:
                work.cancel()

    def _prepared(self, texts: Sequence[Text], options: EncodeOptions) -> list[PreparedText]:
        tokenized = self._model.tokenizer.encode(texts, options.truncation, detailed=options.detailed)
        prepared = []
        for text, item in zip(texts, tokenized, strict=True):
            if isinstance(item, InvalidInputError):
                raise item
            prepared.append(prepare(text.name, options, item, self.manifest.max_tokens, self.manifest.frame))
        return prepared

    def _batches(self, prepared: Sequence[PreparedText]) -> list[list[QueueEntry]]:
        """Form batches of near length, the longest sequences first; what comes twice is encoded once."""
        queue, request = Queue(), Request(self._lane)
        request.entries.extend(entries_of(request, list(chain.from_iterable(text.sequences for text in prepared))))
        queue.add(request, Priority.BULK)
        batches = []
        while batch := queue.take_batch(Priority.BULK):
            batches.append(batch)
        request.entries.clear()  # which refer to it
        return batches[::-1]

    def _submitted(self, batch: Sequence[QueueEntry]) -> Future[list[Result]]:
        try:
            return self._pool.submit(self._run, batch)
        except RuntimeError as error:  # closed meanwhile, by another thread, or a thread cannot be started
            raise EncoderError("the encoder is closed" if self._closed else str(error)) from error

    def _run(self, batch: Sequence[QueueEntry]) -> list[Result]:
        """Encode a batch on the device whose turn it is."""
        devices = [device for device in range(len(self._model.backends)) if device not in self._lost] or [0]
        device, run = devices[next(self._turns) % len(devices)], BatchRun()
        sequences = [entry.sequence for entry in batch]
        results = run.encode(self._model.backends[device], sequences)
        with self._lock:
            self._lane.spare_memory(run.most_tokens)
            if run.lost:
                self._lost.add(device)
        return results


def _name_of(model: str | Path) -> str:
    """Spell a model; a relative path stays a folder's, and does not become a Hugging Face id."""
    name = str(model)
    return name if isinstance(model, str) or name.startswith("~") else str(model.absolute())


def _texts(inputs: object) -> list[Text]:
    """Name the inputs; raises `InvalidInputError` for what is none."""
    if isinstance(inputs, str | Mapping) or not isinstance(inputs, Iterable):
        raise InvalidInputError("inputs", f"must be a list of inputs, not {type(inputs).__name__}")
    return [_text(index, value) for index, value in enumerate(inputs)]


def _text(index: int, value: object) -> Text:
    name = f"inputs[{index}]"
    match value:
        case str() if value:
            return Text(name, _checked(name, value))
        case str():
            raise InvalidInputError(name, "must not be empty")
        case (str(first), str(second)) if first or second:
            return Text(name, TextPair(_checked(name, first), _checked(name, second)))
        case {"tokens": [*words], **others} if (
            not others and any(words) and all(isinstance(word, str) for word in words)
        ):
            checked = [_checked(f"{name}.tokens[{place}]", word) for place, word in enumerate(words)]
            return Text(name, SplitText(checked))
    raise InvalidInputError(name, 'must be a string, a pair of strings, or {"tokens": [strings]}, and not empty')


def _checked(name: str, text: str) -> str:
    """Give a text that can be tokenized; raises `InvalidInputError` for half of a surrogate pair, as of a cut emoji."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidInputError(name, f"character {error.start} is a lone surrogate, which is no Unicode") from None
    return text
