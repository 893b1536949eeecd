"""The CUDA encoder around a session that is on no GPU: what it feeds, what it fetches, what it makes of that."""

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from numpy.typing import NDArray

from berth.artifact import Artifact, Manifest
from berth.backends.cuda.encoder import CudaEncoder
from berth.backends.cuda.graph import INPUTS, POOLED, POOLED_MAX
from berth.backends.pooling import merge_layers, normalize, pool
from berth.errors import DeviceLostError, EncoderError, OutOfMemoryError
from berth.types import Encoding, Float32Array, Merge, Pooling, ResolvedFeature, TokenSequence

if TYPE_CHECKING:
    from tests.berth.backends.cuda.conftest import FakeSession, MakeSession

    Make = Callable[..., CudaEncoder]

Feeds = Mapping[str, NDArray[Any]]

LAYERS, HIDDEN, VOCABULARY = 3, 5, 50
TABLES = np.random.default_rng(3).standard_normal((LAYERS + 1, VOCABULARY, HIDDEN)).astype(np.float16)
SENTENCE = ResolvedFeature(Pooling.MEAN, (LAYERS,), normalize=True)
IN_GRAPH = [
    SENTENCE,
    ResolvedFeature(Pooling.CLS, (LAYERS,)),
    ResolvedFeature(Pooling.LAST, (LAYERS,), exclude_special=True),
    ResolvedFeature(Pooling.WEIGHTED_MEAN, (LAYERS,)),
    ResolvedFeature(Pooling.MAX, (LAYERS,), exclude_special=True),
    ResolvedFeature(Pooling.MEAN_MAX, (LAYERS,), normalize=True),
    ResolvedFeature(Pooling.MEAN_SQRT_LEN, (LAYERS,)),
    ResolvedFeature(Pooling.MAX, (LAYERS,), further=(Pooling.CLS, Pooling.MEAN_MAX), normalize=True, dimensions=9),
]
FETCHED = [
    ResolvedFeature(Pooling.NONE, (LAYERS,)),
    ResolvedFeature(Pooling.WORDS, (LAYERS,)),
    ResolvedFeature(Pooling.MEAN, (0, 2), Merge.SUM, exclude_special=True),
    ResolvedFeature(Pooling.MAX, (1, LAYERS)),
    ResolvedFeature(Pooling.CLS, (LAYERS,), Merge.WEIGHTS, (0.5,)),
    ResolvedFeature(Pooling.WEIGHTED_MEAN, (LAYERS,), include_prompt=False),
]
POOLER = ResolvedFeature(Pooling.POOLER, (LAYERS,))


def hidden(layer: int, ids: NDArray[Any], places: NDArray[Any]) -> Float32Array:
    """Give a token's state: of its id and its place in its text alone."""
    states: Float32Array = TABLES[layer][ids] * (1 + places[:, None] / 8)
    return states.astype(np.float16).astype(np.float32)


def compute(feeds: Feeds) -> Mapping[str, NDArray[Any]]:
    ends = feeds["cumulative_sequence_length"]
    assert ends[-1] == len(feeds["input_ids"]) == (feeds["token_offset"].ravel()[: ends[-1]] >= 0).sum()
    states = [hidden(layer, feeds["input_ids"], feeds["position_ids"]) for layer in range(LAYERS + 1)]
    gathered = states[-1][feeds["pool_rows"]]
    outputs = {f"hidden_state_{layer}": state for layer, state in enumerate(states)}
    outputs[POOLED] = np.einsum("rl,rlh->rh", feeds["pool_weights"], gathered)
    outputs[POOLED_MAX] = gathered.max(axis=1)
    outputs["pooler_output"] = np.tanh(states[-1][feeds["first_tokens"]])
    return outputs


def expected(sequence: TokenSequence, feature: ResolvedFeature) -> Float32Array:
    places = np.arange(len(sequence))
    states = {layer: hidden(layer, sequence.encoding.ids, places) for layer in range(LAYERS + 1)}
    if feature.pooling is Pooling.POOLER:
        return np.asarray(np.tanh(states[LAYERS][0]))
    return pool(feature, merge_layers(feature, states), [sequence.encoding])[0]


def sequence(length: int, features: Sequence[ResolvedFeature] = (SENTENCE,), seed: int = 0) -> TokenSequence:
    ids = np.random.default_rng([length, seed]).integers(0, VOCABULARY, size=length, dtype=np.int32)
    special = np.zeros(length, dtype=bool)
    special[[0, -1]] = True
    words = np.arange(-1, length - 1, dtype=np.int32) // 2
    words[[0, -1]] = -1
    return TokenSequence(Encoding(ids, np.zeros_like(ids), special, words, prompt=2), tuple(features))


@pytest.fixture
def manifest(artifact: Artifact) -> Manifest:
    return artifact.manifest.model_copy(update={"layers": LAYERS, "hidden_size": HIDDEN, "target": "cuda"})


@pytest.fixture(params=["tensor(float16)", "tensor(float)"])
def session(request: pytest.FixtureRequest, make_session: "MakeSession") -> "FakeSession":
    return make_session(compute, request.param)


@pytest.fixture
def encoder(manifest: Manifest, session: "FakeSession") -> CudaEncoder:
    return CudaEncoder(manifest, session)


@pytest.fixture
def make(manifest: Manifest, make_session: "MakeSession") -> "Make":
    """Give a function that makes an encoder around what a graph would compute."""

    def make(compute: Callable[[Feeds], Mapping[str, NDArray[Any]]]) -> CudaEncoder:
        return CudaEncoder(manifest, make_session(compute))

    return make


@pytest.mark.parametrize("feature", [*IN_GRAPH, *FETCHED, POOLER], ids=str)
def test_each_feature(encoder: CudaEncoder, feature: ResolvedFeature) -> None:
    batch = [sequence(length, [feature], seed) for seed, length in enumerate((5, 3, 40, 5))]
    for each, [vector] in zip(batch, encoder.encode(batch), strict=True):
        assert vector.dtype == np.float32
        np.testing.assert_allclose(vector, expected(each, feature), atol=2e-3)


@pytest.mark.parametrize("include_prompt", [True, False], ids=["in the graph", "fetched"])
def test_the_models_own_vector_is_projected(manifest: Manifest, session: "FakeSession", include_prompt: bool) -> None:
    matrix = np.random.default_rng(0).normal(size=(2 * HIDDEN, 3)).astype(np.float32)
    raw = ResolvedFeature(Pooling.MEAN, (LAYERS,), further=(Pooling.CLS,), include_prompt=include_prompt)
    own = replace(raw, projected=3, dimensions=2)
    batch = [sequence(length, [own, raw]) for length in (5, 3, 40)]
    for vector, pooled in CudaEncoder(manifest, session, project=lambda rows: rows @ matrix).encode(batch):
        np.testing.assert_allclose(vector, (pooled @ matrix)[:2], atol=1e-5)


def test_a_projection_that_overflows_is_an_error(manifest: Manifest, session: "FakeSession") -> None:
    own = ResolvedFeature(Pooling.MEAN, (LAYERS,), projected=HIDDEN)
    with pytest.raises(EncoderError, match="not finite"):
        CudaEncoder(manifest, session, project=lambda rows: rows + np.float32(np.inf)).encode([sequence(5, [own])])


def test_mixed_batch_gives_each_its_own_in_its_order(encoder: CudaEncoder) -> None:
    everything = [*FETCHED, *IN_GRAPH, POOLER]
    random = np.random.default_rng(0)
    batch = [
        sequence(
            int(random.integers(3, 30)),
            [everything[place] for place in random.permutation(len(everything))[:size]],
            seed,
        )
        for seed, size in enumerate(random.integers(1, 5, size=40))
    ]
    batch[7] = sequence(9, [SENTENCE, POOLER, SENTENCE])
    for each, vectors in zip(batch, encoder.encode(batch), strict=True):
        assert len(vectors) == len(each.features)
        for vector, feature in zip(vectors, each.features, strict=True):
            np.testing.assert_allclose(vector, expected(each, feature), atol=2e-3)


@pytest.mark.parametrize(
    ("features", "outputs"),
    [
        ([SENTENCE], {POOLED}),
        ([ResolvedFeature(Pooling.MAX, (LAYERS,))], {POOLED_MAX}),
        ([ResolvedFeature(Pooling.MEAN_MAX, (LAYERS,))], {POOLED, POOLED_MAX}),
        ([POOLER, SENTENCE], {POOLED, "pooler_output"}),
        ([ResolvedFeature(Pooling.NONE, (1,))], {"hidden_state_1"}),
        ([ResolvedFeature(Pooling.MEAN, (0, 2)), SENTENCE], {POOLED, "hidden_state_0", "hidden_state_2"}),
    ],
    ids=str,
)
def test_only_what_is_needed_is_fetched(
    encoder: CudaEncoder, session: "FakeSession", features: list[ResolvedFeature], outputs: set[str]
) -> None:
    encoder.encode([sequence(4, features), sequence(9, features[:1])])
    assert set().union(*(run.outputs for run in session.runs)) == outputs


def test_tokens_come_back_only_of_the_sequences_that_request_them(encoder: CudaEncoder, session: "FakeSession") -> None:
    encoder.encode([sequence(20), sequence(4, [FETCHED[0]]), sequence(30), sequence(6, [FETCHED[2], SENTENCE])])
    pooled, fetched = session.runs
    assert len(pooled.feeds["input_ids"]) == 50
    assert set(pooled.outputs) == {POOLED}
    assert fetched.outputs["hidden_state_0"].shape == (10, HIDDEN)


def test_graph_without_a_pooler_is_not_fed_what_only_that_reads(
    manifest: Manifest, make_session: "MakeSession"
) -> None:
    def zeros(feeds: Feeds) -> Mapping[str, NDArray[Any]]:
        return {POOLED: np.zeros((len(feeds["pool_rows"]), HIDDEN), np.float32)}

    session = make_session(zeros, inputs=INPUTS.keys() - {"first_tokens"})
    assert len(CudaEncoder(manifest, session).encode([sequence(5)])) == 1


def test_vectors_do_not_change_with_the_next_batch(encoder: CudaEncoder) -> None:
    batch = [sequence(5, [ResolvedFeature(Pooling.CLS, (LAYERS,))]), sequence(6, [FETCHED[0]])]
    kept = encoder.encode(batch)
    first = [vectors[0].copy() for vectors in kept]
    encoder.encode([sequence(5, [ResolvedFeature(Pooling.CLS, (LAYERS,))], seed=9), sequence(6, [FETCHED[0]], seed=9)])
    for [vector], before in zip(kept, first, strict=True):
        np.testing.assert_array_equal(vector, before)


def test_two_batches_are_in_flight_at_once(make: "Make") -> None:
    both_inside = threading.Barrier(2, timeout=20)

    def together(feeds: Feeds) -> Mapping[str, NDArray[Any]]:
        both_inside.wait()
        return compute(feeds)

    encoder = make(together)
    batches = [[sequence(7, seed=1), sequence(9, seed=1)], [sequence(30, seed=2)]]
    with ThreadPoolExecutor(2) as threads:
        for batch, results in zip(batches, threads.map(encoder.encode, batches), strict=True):
            for each, [vector] in zip(batch, results, strict=True):
                np.testing.assert_allclose(vector, expected(each, SENTENCE), atol=2e-3)


@pytest.mark.parametrize(("spoilt", "features"), [(POOLED, [SENTENCE]), ("hidden_state_3", [FETCHED[0]])])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_is_an_error(
    make: "Make", spoilt: str, features: list[ResolvedFeature], value: float
) -> None:
    def spoil(feeds: Feeds) -> Mapping[str, NDArray[Any]]:
        outputs = dict(compute(feeds))
        outputs[spoilt] = outputs[spoilt].copy()
        outputs[spoilt][-1, 0] = value
        return outputs

    encoder = make(spoil)
    with pytest.raises(EncoderError, match="not finite"):
        encoder.encode([sequence(5, features), sequence(6, features)])


@pytest.mark.parametrize(
    "words",
    [
        "bfc_arena.cc:342 void* onnxruntime::BFCArena::AllocateRawInternal Failed to allocate memory for requested "
        "buffer of size 564000000",
        "Available memory of 1024 is smaller than requested bytes of 564000000",
        "CUDA failure 2: out of memory ; GPU=0 ; hostname=pier ; expr=cudaMalloc((void**)&p, size);",
        "CUBLAS failure 3: CUBLAS_STATUS_ALLOC_FAILED ; GPU=0 ; expr=cublasCreate(&cublas_handle_);",
        "std::bad_alloc",
    ],
)
def test_lack_of_memory_is_told_from_other_failures(
    manifest: Manifest, make_session: "MakeSession", words: str
) -> None:
    """And what the arena then has in pieces is given back by the next run."""
    full = [True]

    def fail(feeds: Feeds) -> Mapping[str, NDArray[Any]]:
        if full.pop():
            raise RuntimeError(f"[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : {words}")
        full.append(False)
        return compute(feeds)

    session = make_session(fail)
    encoder = CudaEncoder(manifest, session, device=1)
    with pytest.raises(OutOfMemoryError, match="no memory for the batch"):
        encoder.encode([sequence(5)])
    full.append(False)
    for _ in range(2):
        encoder.encode([sequence(5)])
    assert session.options[0] is None
    assert session.options[1].get_run_config_entry("memory.enable_memory_arena_shrinkage") == "gpu:1"
    assert session.options[2] is None


@pytest.mark.parametrize(("works", "kind"), [(True, EncoderError), (False, DeviceLostError)])
def test_other_failures_are_not_lack_of_memory(make: "Make", works: bool, kind: type[EncoderError]) -> None:
    """A device on which not even one token is encoded any more is lost."""

    def fail(feeds: Feeds) -> Mapping[str, NDArray[Any]]:
        if works and len(feeds["input_ids"]) == 1:
            return compute(feeds)
        raise RuntimeError("CUDA failure 700: an illegal memory access was encountered")

    encoder = make(fail)
    with pytest.raises(EncoderError, match="failed: CUDA failure 700") as error:
        encoder.encode([sequence(5)])
    assert type(error.value) is kind


def test_device_without_memory_even_for_one_token_is_not_lost(make: "Make") -> None:
    def fail(feeds: Feeds) -> Mapping[str, NDArray[Any]]:
        raise RuntimeError("std::bad_alloc" if len(feeds["input_ids"]) == 1 else "CUDA failure 700")

    with pytest.raises(EncoderError, match="failed: CUDA failure 700") as error:
        make(fail).encode([sequence(5)])
    assert type(error.value) is EncoderError


def test_normalized_vectors_have_length_one(encoder: CudaEncoder) -> None:
    for [vector] in encoder.encode([sequence(length) for length in (3, 9, 27)]):
        np.testing.assert_allclose(vector, normalize(vector[None])[0], atol=1e-6)
