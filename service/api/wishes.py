"""From the fields of a request to a wish that the model can fulfil, or an error that names the field."""

from typing import Literal

from service.api.fields import FeatureFields, HeadCut, Weights, WindowCut
from service.errors import InvalidInputError
from service.inference.artifact import Manifest
from service.inference.truncation import Cut, Truncation
from service.inference.types import Feature, Merge, Pooling

FRAME = 2
"""[CLS] and [SEP]."""


def sentence_feature(manifest: Manifest) -> Feature:
    """Give the one vector a text that the model was trained to give."""
    return Feature(manifest.pooling, (manifest.layers,), normalize=manifest.normalize)


def feature_of(fields: FeatureFields, manifest: Manifest, *, place: str = "", normalize: bool = False) -> Feature:
    """Resolve a feature's fields; `place` stands before their names in errors, as in `features[0].`."""
    pooling = fields.pooling or manifest.pooling
    if pooling is Pooling.POOLER:
        _check_pooler(fields, manifest, place)
    if pooling is Pooling.CLS and fields.exclude_special:
        raise InvalidInputError(f"{place}exclude_special", "leaves out the [CLS] that `cls` gives")
    layers = tuple(
        _layer(layer, manifest, f"{place}layers[{index}]") for index, layer in enumerate(fields.layers or [-1])
    )
    if len(set(layers)) < len(layers):
        raise InvalidInputError(f"{place}layers", "names a layer twice")
    weights: tuple[float, ...] = ()
    if isinstance(fields.merge, Weights):
        weights = tuple(fields.merge.weights)
        if len(weights) != len(layers):
            raise InvalidInputError(f"{place}merge.weights", f"{len(weights)} weights for {len(layers)} layers")
    merge = Merge.WEIGHTS if isinstance(fields.merge, Weights) else Merge(fields.merge)
    return Feature(pooling, layers, merge, weights, normalize, fields.exclude_special)


def truncation_of(
    field: Literal["end", "start", "middle", "error"] | HeadCut | WindowCut, manifest: Manifest
) -> Truncation:
    """Resolve the field `truncate`."""
    match field:
        case HeadCut():
            _check_at_most("truncate.head", field.head, manifest.max_tokens - FRAME)
            return Truncation(Cut.MIDDLE, head=field.head)
        case WindowCut():
            window = field.window or manifest.max_tokens
            _check_at_most("truncate.window", window, manifest.max_tokens)
            if window <= FRAME:
                raise InvalidInputError("truncate.window", f"must be above {FRAME}, the special tokens of each window")
            stride = field.stride or window - FRAME
            _check_at_most("truncate.stride", stride, window - FRAME)
            return Truncation(Cut.WINDOW, window=window, stride=stride, combine=field.combine)
        case str():
            return Truncation(Cut(field))


def check_dimensions(dimensions: int | None, manifest: Manifest) -> None:
    """Raise where a vector is to keep more numbers than it has."""
    if dimensions is not None:
        _check_at_most("dimensions", dimensions, manifest.hidden_size)


def _check_pooler(fields: FeatureFields, manifest: Manifest, place: str) -> None:
    if not manifest.has_pooler:
        raise InvalidInputError(f"{place}pooling", "the model has no pooler")
    for name in ("layers", "merge", "exclude_special"):
        if getattr(fields, name) != type(fields).model_fields[name].default:
            raise InvalidInputError(f"{place}{name}", "does not go with `pooler`, which reads the last layer's [CLS]")


def _layer(layer: int, manifest: Manifest, place: str) -> int:
    count = manifest.layers + 1
    if not -count <= layer < count:
        raise InvalidInputError(place, f"layer {layer} is not there: 0 to {count - 1}, or {-count} to -1")
    return layer % count


def _check_at_most(place: str, value: int, limit: int) -> None:
    if value > limit:
        raise InvalidInputError(place, f"must be at most {limit}, not {value}")
