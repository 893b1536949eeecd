"""Which representations of a text are asked for, and whether a model can give them."""

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import TypeVar

from berth.artifact import Manifest
from berth.errors import InvalidInputError
from berth.types import Merge, Pooling, ResolvedFeature

Kind = TypeVar("Kind", Pooling, Merge)

MAX_WEIGHT = 1e6
"""Of a layer, either way, so that a sum of hidden states cannot overflow."""


@dataclass(frozen=True, slots=True)
class Feature:
    """One representation of a text, as the encoder has it: the model's projection is of its own vector alone.

    `pooling` is the model's own where it is None. `layers` count from 0, the embeddings, or from the last, -1. `merge`
    says how several layers become one: `concat`, `mean`, `sum`, or a list of a weight for each layer. `exclude_special`
    leaves the special tokens out of the pooling, not out of the attention.
    """

    pooling: str | None = None
    layers: Sequence[int] | None = None
    merge: str | Sequence[float] = "concat"
    normalize: bool = False
    exclude_special: bool = False

    def resolve(self, manifest: Manifest, place: str = "") -> ResolvedFeature:
        """Make it what a model is asked for; `place` stands before the fields' names in errors, as in `features[0].`.

        Raises `InvalidInputError` where the model cannot give it.
        """
        pooling, further, include_prompt = manifest.pooling, manifest.further_poolings, manifest.include_prompt
        if self.pooling:
            pooling, further, include_prompt = _member(Pooling, self.pooling, f"{place}pooling"), (), True
        if pooling is Pooling.POOLER:
            self._check_pooler(manifest, place)
        if Pooling.CLS in (pooling, *further) and self.exclude_special:
            raise InvalidInputError(f"{place}exclude_special", "leaves out the [CLS] that `cls` gives")
        if self.pooling:
            pooling = _of_frame(pooling, manifest, f"{place}pooling")
        given = [-1] if self.layers is None else _listed(self.layers, f"{place}layers", "integers")
        layers = tuple(_layer(layer, manifest, f"{place}layers[{index}]") for index, layer in enumerate(given))
        if len(set(layers)) < len(layers):
            raise InvalidInputError(f"{place}layers", "names a layer twice")
        if not layers:
            raise InvalidInputError(f"{place}layers", "must not be empty")
        weights: tuple[float, ...] = ()
        if isinstance(self.merge, str):
            merge = _member(Merge, self.merge, f"{place}merge")
        else:
            given = _listed(self.merge, f"{place}merge", "weights, or concat, mean or sum")
            weights = tuple(_weight(each, f"{place}merge.weights[{index}]") for index, each in enumerate(given))
            merge = Merge.WEIGHTS
        if len(weights) != (len(layers) if merge is Merge.WEIGHTS else 0):
            raise InvalidInputError(f"{place}merge.weights", f"{len(weights)} weights for {len(layers)} layers")
        return ResolvedFeature(
            pooling, layers, merge, weights, self.normalize, self.exclude_special, further, include_prompt
        )

    def _check_pooler(self, manifest: Manifest, place: str) -> None:
        if not manifest.has_pooler:
            raise InvalidInputError(f"{place}pooling", "the model has no pooler")
        for name, default in (("layers", None), ("merge", "concat"), ("exclude_special", False)):
            if getattr(self, name) != default:
                message = "does not go with `pooler`, which reads the last layer's [CLS]"
                raise InvalidInputError(f"{place}{name}", message)


def sentence_feature(manifest: Manifest) -> ResolvedFeature:
    """Give the one vector a text that the model was trained to give.

    Its `cls` is the first token pooled, as in sentence-transformers, wherever the model has its [CLS].
    """
    return ResolvedFeature(
        manifest.pooling,
        (manifest.layers,),
        normalize=manifest.normalize,
        further=manifest.further_poolings,
        include_prompt=manifest.include_prompt,
        projected=manifest.projected,
        dimensions=manifest.truncate_dim or 0,
    )


def sentence_width(manifest: Manifest) -> int:
    """Count the numbers of the model's own vector."""
    return sentence_feature(manifest).width(manifest.hidden_size)


def check_dimensions(dimensions: object, manifest: Manifest) -> None:
    """Raise `InvalidInputError` where the model's own vector cannot keep so many numbers."""
    most = sentence_width(manifest)
    if not isinstance(dimensions, Integral) or isinstance(dimensions, bool) or not 1 <= int(dimensions) <= most:
        raise InvalidInputError("dimensions", f"must be an integer from 1 to {most}, not {dimensions!r}")


def _member(kind: type[Kind], value: str, place: str) -> Kind:
    try:
        return kind(value)
    except ValueError:
        raise InvalidInputError(place, f"{value!r} is none of {', '.join(kind)}") from None


def _of_frame(pooling: Pooling, manifest: Manifest, place: str) -> Pooling:
    """Give `last` for `cls` where [CLS] is a text's last token; raises `InvalidInputError` where there is none."""
    match manifest.frame.cls:
        case _ if pooling is not Pooling.CLS:
            return pooling
        case 0:
            return Pooling.CLS
        case -1:
            return Pooling.LAST
        case _:
            raise InvalidInputError(place, "the model has no [CLS]")


def _listed(values: object, place: str, noun: str) -> Sequence[object]:
    if isinstance(values, str) or not isinstance(values, Sequence):
        raise InvalidInputError(place, f"must be a list of {noun}")
    return values


def _layer(layer: object, manifest: Manifest, place: str) -> int:
    count = manifest.layers + 1
    if not isinstance(layer, Integral) or isinstance(layer, bool):
        raise InvalidInputError(place, f"must be an integer, not {layer!r}")
    number = int(layer)  # of NumPy's integers too
    if not -count <= number < count:
        raise InvalidInputError(place, f"layer {number} is not there: 0 to {count - 1}, or {-count} to -1")
    return number % count


def _weight(weight: object, place: str) -> float:
    if not isinstance(weight, Real) or isinstance(weight, bool) or not abs(float(weight)) <= MAX_WEIGHT:
        raise InvalidInputError(place, f"must be a number from {-MAX_WEIGHT:g} to {MAX_WEIGHT:g}, not {weight!r}")
    return float(weight)
