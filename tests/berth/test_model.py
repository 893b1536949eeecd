"""A model, loaded: tokenizer and backends put together, warmed up and closed."""

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from berth.artifact import Artifact, read_artifact
from berth.contract import FakeEncoder
from berth.errors import ArtifactError, EncoderError
from berth.features import sentence_feature
from berth.model import Model, open_tokenizer
from berth.text.tokenizer import Tokenized, Tokenizer
from berth.text.truncation import Truncation
from berth.types import Text, TokenSequence, Vectors
from tests.conftest import Amend


def test_an_artifact_is_loaded_and_encodes(artifact: Artifact) -> None:
    model = Model.load(artifact)
    [tokenized] = model.tokenizer.encode([Text("a", "hello world")], Truncation())
    assert isinstance(tokenized, Tokenized)
    [backend] = model.backends
    [[vector]] = backend.encode([TokenSequence(tokenized.encoding, (sentence_feature(model.manifest),))])
    assert vector.shape == (384,)
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-5)
    assert model.max_batch_tokens == backend.max_batch_tokens
    model.close()


def test_a_model_that_is_computed_wrongly_here_is_not_loaded(tiny_copy: Path, amend: Amend) -> None:
    """The golden vectors are replayed, here with a tolerance that float32 cannot keep."""
    amend(tiny_copy, probe_tolerance=1e-12)
    with pytest.raises(ArtifactError, match="this machine's vectors differ from the golden vectors"):
        Model.load(read_artifact(tiny_copy))


def test_batches_suit_every_device(artifact: Artifact, tokenizer: Tokenizer) -> None:
    backends = [FakeEncoder(max_batch_tokens=tokens) for tokens in (500, 300, 400)]
    assert Model(artifact.manifest, tokenizer, backends).max_batch_tokens == 300


def test_close_closes_every_backend(artifact: Artifact, tokenizer: Tokenizer) -> None:
    backends = [FakeEncoder(), FakeEncoder()]
    Model(artifact.manifest, tokenizer, backends).close()
    assert [backend.closed for backend in backends] == [True, True]


def test_warm_up_runs_the_largest_batches(artifact: Artifact, tokenizer: Tokenizer) -> None:
    batches: list[int] = []

    def note(sequences: Sequence[TokenSequence]) -> list[Vectors]:
        batches.append(sum(map(len, sequences)))
        return [[] for _ in sequences]

    Model(artifact.manifest, tokenizer, [FakeEncoder(note)]).warm_up(384, times=2)
    assert sorted(batches) == [256, 256, 384, 384]


def test_a_warm_up_that_fails_is_a_line_in_the_log(
    artifact: Artifact, tokenizer: Tokenizer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)

    def fail(sequences: Sequence[TokenSequence]) -> list[Vectors]:
        raise EncoderError("no memory")

    Model(artifact.manifest, tokenizer, [FakeEncoder(fail)]).warm_up(384, times=2)
    assert caplog.messages == ["the largest batches fail: no memory"]


def test_nothing_is_warmed_up_on_a_gpu(artifact: Artifact, tokenizer: Tokenizer) -> None:
    def never(sequences: Sequence[TokenSequence]) -> list[Vectors]:
        raise AssertionError("nothing is to be encoded")

    manifest = artifact.manifest.model_copy(update={"target": "cuda"})
    Model(manifest, tokenizer, [FakeEncoder(never)]).warm_up(384, times=2)


def test_a_tokenizer_that_cannot_be_read_is_an_artifact_error(tiny_copy: Path, amend: Amend) -> None:
    (tiny_copy / "tokenizer.json").write_text("{}")
    amend(tiny_copy)
    with pytest.raises(ArtifactError, match=r"tokenizer\.json cannot be read"):
        open_tokenizer(read_artifact(tiny_copy))
