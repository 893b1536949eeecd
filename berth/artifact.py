"""The exported artifact: a folder with a manifest that vouches for every file in it."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from berth.errors import ArtifactError
from berth.types import Encoding, Float32Array, Frame, Layout, Metric, Pooling

MANIFEST = "manifest.json"
TOKENIZER = "tokenizer.json"
GRAPH = "model.onnx"
WEIGHTS = "weights.bin"
GOLDEN_VECTORS = "probes.npz"
PROJECTION = "projection.npz"
"""`weight_i` [outputs, inputs] and, where there is one, `bias_i` [outputs] of the projection's layer i, from 0."""

SLOW_FUSIONS = ["SkipLayerNormFusion", "BiasSkipLayerNormFusion", "BiasGeluFusion"]
"""Optimizers to disable where the graph runs: on the CPU, ONNX Runtime's fused residual + LayerNorm is several times
slower than the two operators it replaces, and its fused bias + GELU a tenth."""

EXACT_PRODUCTS = ("session.x64quantprecision", "1")
"""The entry of a session's configuration by which x86 adds products of int8 in 32 bits. Without VNNI the faster kernels
add two of them in 16 bits, which do not hold every sum of weights in 8 bits; with VNNI it would only choose kernels
that do without it. Where no weight is past 64 ONNX Runtime takes the faster kernels in any case."""

Target = Literal["cpu", "cuda"]
Activation = Literal["Identity", "Tanh", "ReLU", "LeakyReLU", "ELU", "Sigmoid", "SiLU", "GELU"]
"""The classes of torch.nn that a layer of the projection may end with; `Identity` does nothing."""
Precision = Literal["fp32", "fp16", "int8"]
WeightBits = Literal[7, 8]
"""Of int8's weights: codes of -127 to 127, or of -63 to 63. Of the latter every sum of two products, at most
2 * 255 * 63 = 32,130, is held by 16 bits, so that the fast kernels are exact without VNNI, too."""

DEFAULT_PRECISIONS: dict[Target, Precision] = {"cpu": "fp32", "cuda": "fp16"}
"""What is exported where no precision is asked for."""


class Source(BaseModel):
    """Where the checkpoint came from."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    files: dict[str, str]
    """sha256 of each file that was read, by its path inside the checkpoint."""


class Output(BaseModel):
    """An output of the graph: rows of `width` numbers, one a token or one a text, and what they have passed through."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    per: Literal["token", "text"]
    width: int
    transform: Literal["tanh"] | None = None


class TokenizerFacts(BaseModel):
    """What `tokenizer.json` does not say of the tokenizer."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: str
    """The class in transformers."""
    transformers_version: str
    truncation_side: Literal["right", "left"] = "right"
    """The end at which a text is cut where the request does not say it."""


class Dense(BaseModel):
    """A layer that pooled vectors pass through, sentence-transformers' Dense; its numbers are in `projection.npz`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["dense"] = "dense"
    inputs: int
    outputs: int
    activation: Activation


class Normalize(BaseModel):
    """Pooled vectors are scaled to length 1 before the layer that follows."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["normalize"] = "normalize"


ProjectionLayer = Annotated[Dense | Normalize, Field(discriminator="kind")]


class Manifest(BaseModel):
    """What the artifact holds and how its vectors are meant to be used."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format_version: Literal[5] = 5
    berth_version: str
    source: Source
    family: str
    adapter: str | None = None
    """Which of the checkpoint's adapters is merged into the weights."""
    task: Literal["embedding"] = "embedding"
    outputs: dict[str, Output]
    """Of the graph, by name."""
    frame: Frame
    tokenizer: TokenizerFacts
    hidden_size: int
    layers: int
    heads: int
    max_tokens: int
    """Of one text, special tokens counted."""
    vocab_size: int
    type_vocab_size: int
    """Of the type ids that the network tells apart; 1 where it knows no types."""
    window: int | None = None
    """The tokens to each side that a token attends to in the layers that do not attend to all."""
    padding_id: int | None = None
    """The id whose tokens have no place of their own among the positions: RoBERTa's rule."""
    pooling: Pooling
    further_poolings: tuple[Pooling, ...] = ()
    """Whose vectors are joined to the first's."""
    include_prompt: bool = True
    """Whether the tokens of a prompt, and the special ones before it, are pooled."""
    projection: tuple[ProjectionLayer, ...] = ()
    """What the pooled vector passes through, one after the other; the last is a `Dense`."""
    normalize: bool
    truncate_dim: int | None = None
    """The numbers that are kept of the vector at last, not normalized again."""
    prompts: dict[str, str]
    default_prompt_name: str | None
    similarity: Metric
    target: Target
    precision: Precision
    """Of the graph as it is, which is fp32 where fp16 was asked for and does not do for the model."""
    weight_bits: WeightBits | None = None
    """Of the weights' codes; None but for int8."""
    verification: dict[str, float]
    """How far the graph was from the float64 forward pass, as measured by the export: for the CPU by running it, for
    CUDA by computing it on the CPU, node by node."""
    probe_tolerance: float
    """The most that a device's vector may differ from a golden vector, as a share of the golden vector's length."""
    probe_layer: int | None = None
    """The layer whose states the golden vectors are; None is the last."""
    verified_against: str = "a float64 forward pass of the same weights"
    files: dict[str, str]
    """sha256 of each of the artifact's other files, by name."""

    @property
    def layout(self) -> Layout:
        return Layout(self.heads, self.window, self.padding_id)

    @property
    def has_pooler(self) -> bool:
        return "pooler_output" in self.outputs

    @property
    def projected(self) -> int:
        """The width of a projected vector; 0 where there is no projection."""
        return next((layer.outputs for layer in reversed(self.projection) if isinstance(layer, Dense)), 0)

    @property
    def dense_layers(self) -> dict[int, Dense]:
        """The layers of the projection that have weights, by their places in it."""
        return {place: layer for place, layer in enumerate(self.projection) if isinstance(layer, Dense)}


@dataclass(frozen=True, slots=True, eq=False)
class DenseWeights:
    """The numbers of a layer of the projection: `weight` [outputs, inputs] and `bias` [outputs], if it has one."""

    weight: Float32Array
    bias: Float32Array | None


@dataclass(frozen=True, slots=True, eq=False)
class GoldenVector:
    """A text and the mean of one layer's state by the float64 forward pass, [hidden]."""

    encoding: Encoding
    vector: Float32Array


@dataclass(frozen=True, slots=True)
class Artifact:
    """A folder whose files are what its manifest says."""

    folder: Path
    manifest: Manifest

    @property
    def tokenizer(self) -> Path:
        return self.folder / TOKENIZER

    @property
    def graph(self) -> Path:
        return self.folder / GRAPH

    @property
    def weights(self) -> Path:
        return self.folder / WEIGHTS

    def golden_vectors(self) -> list[GoldenVector]:
        """Read the golden vectors, from `ids` and `type_ids` [tokens], `lengths` [texts] and `vectors` [texts, hidden].

        Raises `ArtifactError` where the file cannot be read.
        """
        try:
            with np.load(self.folder / GOLDEN_VECTORS, allow_pickle=False) as stored:
                ends = np.cumsum(stored["lengths"])[:-1]
                ids, type_ids = (np.split(stored[name].astype(np.int32), ends) for name in ("ids", "type_ids"))
                vectors = stored["vectors"].astype(np.float32)
        except Exception as error:  # NumPy and zipfile raise many kinds
            raise ArtifactError(f"{self.folder / GOLDEN_VECTORS} cannot be read: {error}") from error
        golden = zip(ids, type_ids, vectors, strict=True)
        return [GoldenVector(Encoding(ids_, types), vector) for ids_, types, vector in golden]

    def projection(self) -> dict[int, DenseWeights]:
        """Read the weights of the projection's layers that have some, by their places in it.

        Raises `ArtifactError` where the file cannot be read or is not what the manifest says.
        """
        path, layers = self.folder / PROJECTION, self.manifest.dense_layers
        if not layers:
            return {}
        try:
            with np.load(path, allow_pickle=False) as stored:
                arrays = {name: stored[name].astype(np.float32) for name in stored.files}
            weights = {place: DenseWeights(arrays[f"weight_{place}"], arrays.get(f"bias_{place}")) for place in layers}
        except Exception as error:  # as above
            raise ArtifactError(f"{path} cannot be read: {error}") from error
        for place, layer in layers.items():
            weight, bias = weights[place].weight, weights[place].bias
            if weight.shape != (layer.outputs, layer.inputs) or (bias is not None and bias.shape != (layer.outputs,)):
                raise ArtifactError(f"{path}: weight_{place} {list(weight.shape)} is not the layer of {MANIFEST}")
        return weights


def write_golden_vectors(folder: Path, golden: list[GoldenVector]) -> None:
    """Write what `Artifact.golden_vectors` reads."""
    np.savez(
        folder / GOLDEN_VECTORS,
        ids=np.concatenate([each.encoding.ids for each in golden]),
        type_ids=np.concatenate([each.encoding.type_ids for each in golden]),
        lengths=np.array([len(each.encoding) for each in golden], dtype=np.int32),
        vectors=np.stack([each.vector for each in golden]),
    )


def write_projection(folder: Path, weights: Mapping[int, DenseWeights]) -> None:
    """Write what `Artifact.projection` reads."""
    arrays = {f"weight_{place}": layer.weight for place, layer in weights.items()}
    arrays |= {f"bias_{place}": layer.bias for place, layer in weights.items() if layer.bias is not None}
    np.savez(folder / PROJECTION, allow_pickle=False, **arrays)


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest alone; raises `ArtifactError` where there is none, or one of another version."""
    try:
        return Manifest.model_validate_json((folder / MANIFEST).read_bytes())
    except OSError as error:
        raise ArtifactError(f"{folder} is not an artifact: {MANIFEST}: {error.strerror}") from error
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"])) or "the file"
        raise ArtifactError(f"{folder / MANIFEST}: {field}: {first['msg']}; export the model again") from error


def read_artifact(folder: Path) -> Artifact:
    """Read the manifest and check every file against it.

    Raises `ArtifactError`, in one line, where a file is missing or altered or the manifest cannot be read.
    """
    manifest = read_manifest(folder)
    needed = {TOKENIZER, GRAPH, WEIGHTS, GOLDEN_VECTORS} | ({PROJECTION} if manifest.projection else set())
    for name in needed - manifest.files.keys():
        raise ArtifactError(f"{folder / MANIFEST} does not vouch for {name}; export the model again")
    for name, expected in manifest.files.items():
        try:
            actual = sha256(folder / name)
        except OSError as error:
            raise ArtifactError(f"{folder / name}: {error.strerror}; export the model again") from error
        if actual != expected:
            raise ArtifactError(f"{folder / name} is not the file that was exported (sha256 {actual}, not {expected})")
    return Artifact(folder, manifest)


def sha256(path: Path) -> str:
    """Hash a file's content, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
