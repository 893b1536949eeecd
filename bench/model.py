"""The model under test, in this process: its tokenizer draws the texts, its encoder is reference and ceiling."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from bench.prose import sentences
from bench.workloads import Drawer, Shape, Workload
from berth.cli import artifact_folder, export_to, given_artifact, must_export
from service.inference.artifact import Artifact, read_artifact
from service.inference.calibration import short_graph_pays
from service.inference.encoder import CpuEncoder, open_cpu_encoder
from service.inference.tokenizer import Tokenizer
from service.inference.truncation import Truncation
from service.inference.types import Feature, Float32Array, Pooling, Text, Unit
from service.placement import Goal
from service.settings import read_settings


@dataclass(frozen=True, eq=False)
class Model:
    """An artifact, loaded."""

    artifact: Artifact
    encoder: CpuEncoder
    tokenizer: Tokenizer

    @property
    def feature(self) -> Feature:
        """Give the vector that a request for an embedding asks for."""
        manifest = self.artifact.manifest
        return Feature(Pooling(manifest.pooling), (manifest.layers,), normalize=manifest.normalize)

    def units(self, texts: Sequence[str]) -> list[Unit]:
        """Tokenize, cut at the model's maximum."""
        tokenized = self.tokenizer.encode([Text("input", text) for text in texts], Truncation())
        return [Unit(item.encoding, (self.feature,)) for item in tokenized if not isinstance(item, Exception)]

    def tokens(self, text: str) -> int:
        """Count a text's tokens, without [CLS] and [SEP]."""
        return len(self.tokenizer.tokens(Text("input", text), add_special_tokens=False))

    @cached_property
    def drawer(self) -> Drawer:
        """Give what cuts texts to length by this model's tokenizer."""
        return Drawer(sentences(), self.tokens, self.artifact.manifest.max_tokens)

    def draw(self, shape: Shape) -> Workload:
        """Draw a workload."""
        return self.drawer.workload(shape)


def find_model(name: str | None) -> Model:
    """Load an artifact, found or exported as `berth serve` does; None is what that serves by default."""
    settings = read_settings(None, **({} if name is None else {"model": name}))
    folder = given_artifact(settings)
    if folder is None:
        goal = Goal("cpu", settings.precision or "fp32")
        folder = artifact_folder(settings, goal)
        if must_export(folder) and export_to(folder, settings.model, goal):
            raise SystemExit(f"bench: {settings.model} could not be exported")
    return load_model(folder)


def load_model(folder: Path) -> Model:
    """Load an artifact."""
    artifact = read_artifact(folder)
    manifest = artifact.manifest
    tokenizer = Tokenizer(
        artifact.tokenizer,
        max_tokens=manifest.max_tokens,
        vocab_size=manifest.vocab_size,
        type_vocab_size=manifest.type_vocab_size,
    )
    encoder = open_cpu_encoder(artifact)
    if not short_graph_pays(encoder, manifest):
        encoder = encoder.without_short_graph()
    return Model(artifact, encoder, tokenizer)


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
        for place, unit in zip(
            missing, self._model.units([self._workload.texts[place] for place in missing]), strict=True
        ):
            self._known[place] = self._model.encoder([unit])[0][0]
        return np.stack([self._known[place] for place in places])
