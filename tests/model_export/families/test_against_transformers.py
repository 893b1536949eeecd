"""Every family against transformers: the vectors of every layer, texts and pairs, in fp32, in int8 and for CUDA."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from transformers import AutoModel, AutoTokenizer

from berth.artifact import Precision, Target, WeightBits, read_artifact
from berth.backends.cpu.encoder import CpuEncoder
from berth.encoder import Encoder, Input
from berth.features import Feature
from berth.model import open_tokenizer
from berth.text.tokenizer import Tokenized
from berth.text.truncation import Truncation
from berth.types import Encoding, Pooling, ResolvedFeature, Text, TextPair, TokenSequence
from model_export.export import Summary, export
from tests.model_export.families.checkpoints import KINDS, SENTENCES, Checkpoint, write_checkpoint
from tests.model_export.families.variants import FAMILIES, VARIANTS

Float64Array = NDArray[np.float64]

TOLERANCE = 2e-5
"""The largest difference, as a share of a layer's largest number."""
MIN_COSINE = 0.97
"""Of vectors in int8 with the same in fp32."""

LONG = " ".join(SENTENCES * 4)
TEXTS: list[Input] = [
    "a",
    *SENTENCES,
    LONG,
    "literally <pad> and <s> </s> <mask>, [PAD] [SEP] [CLS] [MASK] and <pad><pad>",
    "<pad>",
    ("a ship", "at the berth"),
    ("<pad> first", "second <pad>"),
    (LONG, "short"),
    ("short", LONG),
    (LONG, LONG[::-1]),
    (SENTENCES[0], LONG),
]


@dataclass(frozen=True, slots=True)
class Expected:
    """What transformers computes of a text alone, in float64: each layer's rows, and the pooler's row at last."""

    ids: list[int]
    types: list[int]
    states: list[Float64Array]


class Transformers:
    """A checkpoint in transformers, on one text or pair at a time."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        has_pooler = checkpoint.variant.has_pooler
        model, loading = AutoModel.from_pretrained(
            checkpoint.native, dtype=torch.float64, attn_implementation="eager", output_loading_info=True
        )
        assert not any(loading.values()), loading
        self._model = model.eval()
        self._has_pooler = has_pooler
        self._types = getattr(model.config, "type_vocab_size", 0)
        self.tokenizer: Any = AutoTokenizer.from_pretrained(checkpoint.native)

    def __call__(self, ids: Sequence[int], types: Sequence[int]) -> Expected:
        """Compute the states of tokens."""
        named = {"token_type_ids": torch.tensor([[*types]])} if self._types > 1 else {}
        with torch.no_grad():
            result = self._model(
                input_ids=torch.tensor([[*ids]]),
                attention_mask=torch.ones(1, len(ids), dtype=torch.long),
                output_hidden_states=True,
                **named,
            )
        states = [state[0].numpy() for state in result.hidden_states]
        np.testing.assert_array_equal(states[-1], result.last_hidden_state[0].numpy())
        return Expected([*ids], [*types], states + ([result.pooler_output[0].numpy()] if self._has_pooler else []))

    def tokenize(self, value: Input, limit: int) -> tuple[list[int], list[int]]:
        """Give ids and type ids, cut as transformers does; 0 where the model is told no types."""
        texts = [value] if isinstance(value, str) else [*value]
        found = self.tokenizer(*texts, truncation="longest_first", max_length=limit, return_token_type_ids=True)
        tells = "token_type_ids" in self.tokenizer.model_input_names and self._types > 1
        ids = found["input_ids"]
        return ids, found["token_type_ids"] if tells else [0] * len(ids)


@dataclass(frozen=True, slots=True)
class Exported:
    """A checkpoint, in transformers and as an artifact."""

    checkpoint: Checkpoint
    theirs: Transformers
    folder: Path

    def features(self) -> list[Feature]:
        """Ask for the tokens of every layer, and for the pooler where there is one."""
        manifest = read_artifact(self.folder).manifest
        assert manifest.has_pooler == self.checkpoint.variant.has_pooler
        layers = [Feature(pooling="none", layers=[layer]) for layer in range(manifest.layers + 1)]
        return [*layers, Feature(pooling="pooler")] if manifest.has_pooler else layers


def export_variant(
    checkpoint: Checkpoint,
    out: Path,
    target: Target = "cpu",
    precision: Precision = "fp32",
    bits: WeightBits | None = None,
) -> Summary:
    return export(str(checkpoint.folder), out, target, precision, bits, checkpoint.variant.adapter)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Have torch use one thread: matrices this small are slower on several."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Exported]:
    """Give a function that writes a variant's checkpoint and exports it, each once."""
    made: dict[tuple[str, str | None], Exported] = {}

    def exported(name: str, tokenizer: str | None = None) -> Exported:
        if (name, tokenizer) not in made:
            folder = tmp_path_factory.mktemp("family")
            checkpoint = write_checkpoint(folder, VARIANTS[name], tokenizer)
            artifact = export_variant(checkpoint, folder / "fp32").folder
            made[name, tokenizer] = Exported(checkpoint, Transformers(checkpoint), artifact)
        return made[name, tokenizer]

    return exported


@pytest.fixture(scope="module", params=VARIANTS)
def variant(request: pytest.FixtureRequest, make: Callable[..., Exported]) -> Exported:
    """Give each variant, exported."""
    return make(request.param)


@pytest.mark.parametrize("company", [False, True], ids=["alone", "in company"])
def test_every_layer_of_any_tokens(variant: Exported, company: bool) -> None:
    """Random ids, the padding's among them, of one token to the most that there can be."""
    artifact = read_artifact(variant.folder)
    manifest, most = artifact.manifest, artifact.manifest.max_tokens
    random = np.random.default_rng(5)
    lengths = [most, 1, 2, 3, most // 2, most - 1, 17, 1, 33, 64, 65, most, 5]
    texts = [
        Encoding(
            random.integers(manifest.vocab_size, size=length, dtype=np.int32),
            random.integers(manifest.type_vocab_size, size=length, dtype=np.int32),
        )
        for length in lengths
    ]
    features = [ResolvedFeature(Pooling.NONE, (layer,)) for layer in range(manifest.layers + 1)]
    features += [ResolvedFeature(Pooling.POOLER, (manifest.layers,))] if manifest.has_pooler else []
    sequences = [TokenSequence(text, tuple(features)) for text in texts]
    encoder = CpuEncoder(artifact)
    batches = [sequences] if company else [[sequence] for sequence in sequences]
    actual = [vectors for batch in batches for vectors in encoder.encode(batch)]
    _agree(actual, [variant.theirs(text.ids.tolist(), text.type_ids.tolist()) for text in texts])


def test_every_layer_of_texts_and_pairs(variant: Exported) -> None:
    _texts_agree(variant)


@pytest.mark.parametrize("tokenizer", KINDS)
@pytest.mark.parametrize("name", FAMILIES)
def test_every_kind_of_tokenizer(make: Callable[..., Exported], name: str, tokenizer: str) -> None:
    _texts_agree(make(name, tokenizer))


def test_pairs_of_all_lengths_have_the_ids_of_longest_first(variant: Exported) -> None:
    artifact = read_artifact(variant.folder)
    tokenizer, most = open_tokenizer(artifact), artifact.manifest.max_tokens
    words = LONG.split()
    counts = (1, 2, most // 3, most // 2 - 1, most // 2, most // 2 + 1, most)
    pairs = [(" ".join(words[:a]), " ".join(words[:b])) for a in counts for b in counts]
    results = tokenizer.encode([Text("pair", TextPair(*pair)) for pair in pairs], Truncation())
    for pair, result in zip(pairs, results, strict=True):
        ids, types = variant.theirs.tokenize(pair, most)
        assert isinstance(result, Tokenized), result
        assert result.encoding.ids.tolist() == ids
        assert result.encoding.type_ids.tolist() == types


@pytest.mark.parametrize("bits", [7, 8])
def test_int8_is_near(variant: Exported, bits: WeightBits) -> None:
    """The vectors of texts, layer by layer; of tokens, whose vectors are averaged in them, half may be farther off."""
    folder = export_variant(variant.checkpoint, variant.folder.with_name(f"int8-{bits}"), "cpu", "int8", bits).folder
    layers = range(read_artifact(folder).manifest.layers + 1)
    features = [Feature(pooling=pooling, layers=[layer]) for pooling in ("mean", "none") for layer in layers]
    of_texts, of_tokens = [], []
    with Encoder(variant.folder, threads=1) as exactly, Encoder(folder, threads=1) as rounding:
        exact, rounded = (encoder.features(TEXTS, features) for encoder in (exactly, rounding))
    for expected, actual in zip(exact, rounded, strict=True):
        cosines = [_cosines(*pair) for pair in zip(expected, actual, strict=True)]
        of_texts.append([float(each) for each in cosines[: len(layers)]])
        of_tokens.append(np.stack(cosines[len(layers) :]))
    assert np.min(of_texts) >= MIN_COSINE
    assert np.median(np.concatenate(of_tokens, axis=1), axis=1).min() >= MIN_COSINE


@pytest.mark.parametrize("precision", ["fp16", "fp32"])
def test_for_cuda_it_is_verified(variant: Exported, precision: Precision) -> None:
    out = variant.folder.with_name(f"cuda-{precision}")
    summary = export_variant(variant.checkpoint, out, "cuda", precision)
    assert summary.manifest.target == "cuda"
    assert summary.manifest.precision == ("fp32" if summary.note else precision)
    assert summary.manifest.verification["min_cosine"] > 0.9999


def _texts_agree(exported: Exported) -> None:
    """Compare through the public way in: what is served of texts, beside what transformers makes of them."""
    with Encoder(exported.folder, threads=1) as encoder:
        actual = encoder.features(TEXTS, exported.features())
        limit = encoder.manifest.max_tokens
    expected = [exported.theirs(*exported.theirs.tokenize(text, limit)) for text in TEXTS]
    assert max(len(each.ids) for each in expected) == limit
    _agree(actual, expected)


def _cosines(expected: NDArray[Any], actual: NDArray[Any]) -> NDArray[Any]:
    lengths = np.linalg.norm(expected, axis=-1) * np.linalg.norm(actual, axis=-1)
    return np.asarray((expected * actual).sum(axis=-1) / lengths)


def _agree(actual: Sequence[Sequence[NDArray[Any]]], expected: Sequence[Expected]) -> None:
    """Compare each layer of each text; the tolerance is a share of the layer's largest number."""
    layers: Iterator[tuple[Float64Array, ...]] = zip(*(each.states for each in expected), strict=True)
    for layer, states in enumerate(layers):
        largest = max(np.abs(state).max() for state in states)
        for text, state in enumerate(states):
            vectors = actual[text][layer]
            assert vectors.shape == state.shape, (text, layer)
            off = np.abs(vectors - state).max() / largest
            assert off <= TOLERANCE, f"layer {layer} of text {text} ({len(expected[text].ids)} tokens) is off {off:.1e}"
