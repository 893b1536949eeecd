"""The model under test, in this process: its tokenizer draws the texts, its encoder is reference and ceiling."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from bench.prose import sentences
from bench.workloads import Drawer, Shape, Workload
from berth import model, models
from berth.artifact import Artifact, Precision, read_artifact
from berth.errors import BerthError
from berth.features import sentence_feature
from berth.placement import choose
from berth.text.truncation import Truncation
from berth.types import Float32Array, ResolvedFeature, Text, TokenSequence, Vectors


@dataclass(frozen=True, eq=False)
class Model:
    """An artifact and what the library has loaded of it."""

    artifact: Artifact
    loaded: model.Model

    @cached_property
    def feature(self) -> ResolvedFeature:
        """The vector that a request for an embedding asks for."""
        return sentence_feature(self.artifact.manifest)

    def encode(self, sequences: Sequence[TokenSequence]) -> list[Vectors]:
        """Encode a batch in the thread that calls it."""
        return self.loaded.backends[0].encode(sequences)

    def sequences(self, texts: Sequence[str], feature: ResolvedFeature | None = None) -> list[TokenSequence]:
        """Tokenize, cut at the model's maximum; without a feature an embedding is wanted."""
        tokenized = self.loaded.tokenizer.encode([Text("input", text) for text in texts], Truncation())
        wanted = (feature or self.feature,)
        return [TokenSequence(item.encoding, wanted) for item in tokenized if not isinstance(item, Exception)]

    def tokens(self, text: str) -> int:
        """Count a text's tokens, without [CLS] and [SEP]."""
        return len(self.loaded.tokenizer.tokens(Text("input", text), add_special_tokens=False))

    @cached_property
    def drawer(self) -> Drawer:
        """What cuts texts to length by this model's tokenizer."""
        return Drawer(sentences(), self.tokens, self.artifact.manifest.max_tokens)

    def draw(self, shape: Shape) -> Workload:
        """Draw a workload."""
        return self.drawer.workload(shape)


def find_model(name: str | None, precision: Precision = "fp32") -> Model:
    """Load an artifact, found or exported as `berth serve` does; None is what that serves by default."""
    try:
        return load_model(models.find_artifact(name or models.DEFAULT_MODEL, choose("cpu", precision)))
    except BerthError as error:
        raise SystemExit(f"bench: {error}") from error


def load_model(folder: Path) -> Model:
    """Load an artifact; raises `ArtifactError`."""
    artifact = read_artifact(folder)
    return Model(artifact, model.Model.load(artifact))


class OwnReference:
    """The vectors the model gives in this process, one text at a time; each is computed once."""

    def __init__(self, model: Model, workload: Workload) -> None:
        self._model = model
        self._workload = workload
        self._known: dict[int, Float32Array] = {}

    def __call__(self, places: Sequence[int]) -> Float32Array:
        """Give the vectors of some of the workload's texts; the data's own where it came with them."""
        if self._workload.vectors is not None:
            return np.asarray(self._workload.vectors[list(places)])
        missing = [place for place in places if place not in self._known]
        sequences = self._model.sequences([self._workload.texts[place] for place in missing])
        for place, sequence in zip(missing, sequences, strict=True):
            self._known[place] = self._model.encode([sequence])[0][0]
        return np.stack([self._known[place] for place in places])
