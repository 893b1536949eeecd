"""The CUDA encoder around a session that is on no GPU: what it feeds, what it fetches, what it makes of that."""

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from numpy.typing import NDArray

from service.errors import DeviceLostError, EncoderError, OutOfMemoryError
from service.inference.artifact import Artifact, Manifest
from service.inference.cuda_encoder import CudaEncoder
from service.inference.cuda_graph import INPUTS, POOLED, POOLED_MAX
from service.inference.pooling import merge_layers, normalize, pool
from service.inference.types import Encoding, Feature, Float32Array, Merge, Pooling, Unit

if TYPE_CHECKING:
    from tests.service.inference.conftest import FakeSession, MakeSession, PlainMemory

    Make = Callable[..., CudaEncoder]

Feeds = Mapping[str, NDArray[Any]]

LAYERS, HIDDEN, VOCABULARY = 3, 5, 50
TABLES = np.random.default_rng(3).standard_normal((LAYERS + 1, VOCABULARY, HIDDEN)).astype(np.float16)
SENTENCE = Feature(Pooling.MEAN, (LAYERS,), normalize=True)
IN_GRAPH = [
    SENTENCE,
    Feature(Pooling.CLS, (LAYERS,)),
    Feature(Pooling.LAST, (LAYERS,), exclude_special=True),
    Feature(Pooling.WEIGHTED_MEAN, (LAYERS,)),
    Feature(Pooling.MAX, (LAYERS,), exclude_special=True),
    Feature(Pooling.MEAN_MAX, (LAYERS,), normalize=True),
]
FETCHED = [
    Feature(Pooling.NONE, (LAYERS,)),
    Feature(Pooling.WORDS, (LAYERS,)),
    Feature(Pooling.MEAN, (0, 2), Merge.SUM, exclude_special=True),
    Feature(Pooling.MAX, (1, LAYERS)),
    Feature(Pooling.CLS, (LAYERS,), Merge.WEIGHTS, (0.5,)),
]
POOLER = Feature(Pooling.POOLER, (LAYERS,))


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


def expected(unit: Unit, feature: Feature) -> Float32Array:
    places = np.arange(len(unit))
    states = {layer: hidden(layer, unit.encoding.ids, places) for layer in range(LAYERS + 1)}
    if feature.pooling is Pooling.POOLER:
        return np.asarray(np.tanh(states[LAYERS][0]))
    return pool(feature, merge_layers(feature, states), [unit.encoding])[0]


def unit(length: int, features: Sequence[Feature] = (SENTENCE,), seed: int = 0) -> Unit:
    ids = np.random.default_rng([length, seed]).integers(0, VOCABULARY, size=length, dtype=np.int32)
    special = np.zeros(length, dtype=bool)
    special[[0, -1]] = True
    words = np.arange(-1, length - 1, dtype=np.int32) // 2
    words[[0, -1]] = -1
    return Unit(Encoding(ids, np.zeros_like(ids), special, words), tuple(features))


@pytest.fixture
def manifest(artifact: Artifact) -> Manifest:
    return artifact.manifest.model_copy(update={"layers": LAYERS, "hidden_size": HIDDEN, "target": "cuda"})


@pytest.fixture(params=["tensor(float16)", "tensor(float)"])
def session(request: pytest.FixtureRequest, make_session: "MakeSession") -> "FakeSession":
    return make_session(compute, request.param)


@pytest.fixture
def encoder(manifest: Manifest, session: "FakeSession", plain_memory: "PlainMemory") -> CudaEncoder:
    return CudaEncoder(manifest, session, plain_memory)


@pytest.fixture
def make(manifest: Manifest, make_session: "MakeSession", plain_memory: "PlainMemory") -> "Make":
    """Give a function that makes an encoder around what a graph would compute."""

    def make(compute: Callable[[Feeds], Mapping[str, NDArray[Any]]]) -> CudaEncoder:
        return CudaEncoder(manifest, make_session(compute), plain_memory)

    return make


@pytest.mark.parametrize("feature", [*IN_GRAPH, *FETCHED, POOLER], ids=str)
def test_each_feature(encoder: CudaEncoder, feature: Feature) -> None:
    batch = [unit(length, [feature], seed) for seed, length in enumerate((5, 3, 40, 5))]
    for each, [vector] in zip(batch, encoder(batch), strict=True):
        assert vector.dtype == np.float32
        np.testing.assert_allclose(vector, expected(each, feature), atol=2e-3)


def test_mixed_batch_gives_each_its_own_in_its_order(encoder: CudaEncoder) -> None:
    everything = [*FETCHED, *IN_GRAPH, POOLER]
    random = np.random.default_rng(0)
    batch = [
        unit(int(random.integers(3, 30)), [everything[place] for place in random.permutation(12)[:size]], seed)
        for seed, size in enumerate(random.integers(1, 5, size=40))
    ]
    batch[7] = unit(9, [SENTENCE, POOLER, SENTENCE])
    for each, vectors in zip(batch, encoder(batch), strict=True):
        assert len(vectors) == len(each.features)
        for vector, feature in zip(vectors, each.features, strict=True):
            np.testing.assert_allclose(vector, expected(each, feature), atol=2e-3)


@pytest.mark.parametrize(
    ("features", "outputs"),
    [
        ([SENTENCE], {POOLED}),
        ([Feature(Pooling.MAX, (LAYERS,))], {POOLED_MAX}),
        ([Feature(Pooling.MEAN_MAX, (LAYERS,))], {POOLED, POOLED_MAX}),
        ([POOLER, SENTENCE], {POOLED, "pooler_output"}),
        ([Feature(Pooling.NONE, (1,))], {"hidden_state_1"}),
        ([Feature(Pooling.MEAN, (0, 2)), SENTENCE], {POOLED, "hidden_state_0", "hidden_state_2"}),
    ],
    ids=str,
)
def test_only_what_is_needed_is_fetched(
    encoder: CudaEncoder, session: "FakeSession", features: list[Feature], outputs: set[str]
) -> None:
    encoder([unit(4, features), unit(9, features[:1])])
    assert set().union(*(run.outputs for run in session.runs)) == outputs


def test_tokens_come_back_only_of_the_units_that_want_them(encoder: CudaEncoder, session: "FakeSession") -> None:
    encoder([unit(20), unit(4, [FETCHED[0]]), unit(30), unit(6, [FETCHED[2], SENTENCE])])
    pooled, fetched = session.runs
    assert len(pooled.feeds["input_ids"]) == 50
    assert set(pooled.outputs) == {POOLED}
    assert fetched.outputs["hidden_state_0"].shape == (10, HIDDEN)


def test_graph_without_a_pooler_is_not_fed_what_only_that_reads(
    manifest: Manifest, make_session: "MakeSession", plain_memory: "PlainMemory"
) -> None:
    def zeros(feeds: Feeds) -> Mapping[str, NDArray[Any]]:
        return {POOLED: np.zeros((len(feeds["pool_rows"]), HIDDEN), np.float32)}

    session = make_session(zeros, inputs=INPUTS.keys() - {"first_tokens"})
    assert len(CudaEncoder(manifest, session, plain_memory)([unit(5)])) == 1


def test_vectors_do_not_change_with_the_next_batch(encoder: CudaEncoder) -> None:
    """What comes back through the block has been copied out of it."""
    batch = [unit(5, [Feature(Pooling.CLS, (LAYERS,))]), unit(6, [FETCHED[0]])]
    kept = encoder(batch)
    first = [vectors[0].copy() for vectors in kept]
    encoder([unit(5, [Feature(Pooling.CLS, (LAYERS,))], seed=9), unit(6, [FETCHED[0]], seed=9)])
    for [vector], before in zip(kept, first, strict=True):
        np.testing.assert_array_equal(vector, before)


def test_two_batches_are_in_flight_at_once(make: "Make") -> None:
    both_inside = threading.Barrier(2, timeout=20)

    def together(feeds: Feeds) -> Mapping[str, NDArray[Any]]:
        both_inside.wait()
        return compute(feeds)

    encoder = make(together)
    batches = [[unit(7, seed=1), unit(9, seed=1)], [unit(30, seed=2)]]
    with ThreadPoolExecutor(2) as threads:
        for batch, results in zip(batches, threads.map(encoder, batches), strict=True):
            for each, [vector] in zip(batch, results, strict=True):
                np.testing.assert_allclose(vector, expected(each, SENTENCE), atol=2e-3)


@pytest.mark.parametrize(("spoilt", "features"), [(POOLED, [SENTENCE]), ("hidden_state_3", [FETCHED[0]])])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_is_an_error(make: "Make", spoilt: str, features: list[Feature], value: float) -> None:
    def spoil(feeds: Feeds) -> Mapping[str, NDArray[Any]]:
        outputs = dict(compute(feeds))
        outputs[spoilt] = outputs[spoilt].copy()
        outputs[spoilt][-1, 0] = value
        return outputs

    encoder = make(spoil)
    with pytest.raises(EncoderError, match="not finite"):
        encoder([unit(5, features), unit(6, features)])


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
    manifest: Manifest, make_session: "MakeSession", plain_memory: "PlainMemory", words: str
) -> None:
    """And what the arena then has in pieces is given back by the next run."""
    full = [True]

    def fail(feeds: Feeds) -> Mapping[str, NDArray[Any]]:
        if full.pop():
            raise RuntimeError(f"[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : {words}")
        full.append(False)
        return compute(feeds)

    session = make_session(fail)
    encoder = CudaEncoder(manifest, session, plain_memory, device=1)
    with pytest.raises(OutOfMemoryError, match="no memory for the batch"):
        encoder([unit(5)])
    full.append(False)
    for _ in range(2):
        encoder([unit(5)])
    assert session.options[0] is None
    assert session.options[1].get_run_config_entry("memory.enable_memory_arena_shrinkage") == "gpu:1"
    assert session.options[2] is None


@pytest.mark.parametrize(("works", "kind"), [(True, EncoderError), (False, DeviceLostError)])
def test_other_failures_are_not_lack_of_memory(
    make: "Make", plain_memory: "PlainMemory", works: bool, kind: type[EncoderError]
) -> None:
    plain_memory.works = works

    def fail(_: Feeds) -> Mapping[str, NDArray[Any]]:
        raise RuntimeError("CUDA failure 700: an illegal memory access was encountered")

    encoder = make(fail)
    with pytest.raises(EncoderError, match="failed: CUDA failure 700") as error:
        encoder([unit(5)])
    assert type(error.value) is kind


def test_normalized_vectors_have_length_one(encoder: CudaEncoder) -> None:
    for [vector] in encoder([unit(length) for length in (3, 9, 27)]):
        np.testing.assert_allclose(vector, normalize(vector[None])[0], atol=1e-6)
