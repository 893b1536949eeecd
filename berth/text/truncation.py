"""Which tokens of a text beyond the model's maximum are kept, or in which windows all of them are read.

Counted here are a text's own tokens, without those of its frame and of a prompt; `room` is how many of them fit beside
these.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from numbers import Integral

import numpy as np

from berth.artifact import Manifest
from berth.errors import InvalidInputError
from berth.types import IntArray


class Cut(StrEnum):
    """Where a text is cut: at its end, at its start, in its middle; not at all; or into windows."""

    END = "end"
    START = "start"
    MIDDLE = "middle"
    ERROR = "error"
    WINDOW = "window"


class Combine(StrEnum):
    """How the vectors of a text's windows become one."""

    MEAN = "mean"
    MAX = "max"


@dataclass(frozen=True, slots=True)
class Truncation:
    """What to do with a long text.

    `head`: tokens that `middle` keeps of the text's beginning, the rest of the room is its end's; None is a quarter of
    the room, the 128 + 382 of Sun et al. 2019 (How to Fine-Tune BERT for Text Classification) where the room is 510.
    `window` and `stride` count tokens, a window's special tokens too; 0 is the largest that model and prompt allow.
    """

    cut: Cut = Cut.END
    head: int | None = None
    window: int = 0
    stride: int = 0
    combine: Combine = Combine.MEAN


CUTS = {cut.value: Truncation(cut) for cut in Cut if cut is not Cut.WINDOW}
"""The truncations that a name alone says."""


def usual_truncation(manifest: Manifest) -> Truncation:
    """Give the model's own way with long texts: cut at the end, or at the start where its tokenizer does so."""
    return CUTS["start" if manifest.tokenizer.truncation_side == "left" else "end"]


def truncation_of(value: str | Mapping[str, object] | None, manifest: Manifest) -> Truncation:
    """Read what a caller says of long texts; None is the model's own way.

    `end`, `start`, `middle` or `error`; `{"head": 64}`; or `{"window": 256, "stride": 192, "combine": "mean"}`, each of
    its fields optional. Raises `InvalidInputError`, which names the field and the limit.
    """
    max_tokens, special = manifest.max_tokens, manifest.frame.size()
    if value is None:
        return usual_truncation(manifest)
    if isinstance(value, str):
        if value not in CUTS:
            raise InvalidInputError("truncate", f"{value!r} is none of end, start, middle, error")
        return CUTS[value]
    if not isinstance(value, Mapping):  # a library's caller may hand over anything
        raise InvalidInputError("truncate", "must be a name, or a mapping with `head` or `window`")
    fields = dict(value)
    if "head" in fields:
        head = _count("truncate.head", fields.pop("head"), 0, max_tokens - special)
        for name in fields:
            raise InvalidInputError(f"truncate.{name}", "does not go with `head`")
        return Truncation(Cut.MIDDLE, head=head)
    given, step, combine = (fields.pop(name, None) for name in ("window", "stride", "combine"))
    for name in fields:
        raise InvalidInputError(f"truncate.{name}", "is not a field of truncate")
    window = max_tokens if given is None else _count("truncate.window", given, 1, max_tokens)
    if window <= special:
        raise InvalidInputError("truncate.window", f"must be above {special}, the special tokens of each window")
    stride = 0 if step is None else _count("truncate.stride", step, 1, window - special)
    try:
        how = Combine.MEAN if combine is None else Combine(str(combine))
    except ValueError:
        raise InvalidInputError("truncate.combine", f"{combine!r} is none of {', '.join(Combine)}") from None
    return Truncation(Cut.WINDOW, window=window, stride=stride, combine=how)


def _count(place: str, value: object, least: int, most: int) -> int:
    if not isinstance(value, Integral) or isinstance(value, bool) or int(value) < least:
        raise InvalidInputError(place, f"must be an integer of at least {least}")
    if int(value) > most:
        raise InvalidInputError(place, f"must be at most {most}, not {value}")
    return int(value)


def kept(count: int, room: int, truncation: Truncation) -> IntArray:
    """Give the places, of `count`, of the at most `room` tokens that a cut at end, start or middle keeps."""
    if count <= room:
        return np.arange(count)
    match truncation.cut:
        case Cut.START:
            return np.arange(count - room, count)
        case Cut.MIDDLE:
            head = -(-room // 4) if truncation.head is None else min(truncation.head, room)
            return np.concatenate([np.arange(head), np.arange(count - room + head, count)])
        case _:
            return np.arange(room)


def kept_of_pair(first: int, second: int, room: int, truncation: Truncation) -> tuple[IntArray, IntArray]:
    """Give the places kept of each text of a pair, the longer one cut first, as Hugging Face's tokenizers do."""
    shorter = min(first, second, room // 2)
    longer = room - shorter
    rooms = (shorter, longer) if first <= second else (longer, shorter)
    return kept(first, rooms[0], truncation), kept(second, rooms[1], truncation)


def windows(count: int, room: int, stride: int) -> list[tuple[int, int]]:
    """Give the first place and the place past the last of each window of `room` tokens, until one reaches the end."""
    starts = range(0, max(count - room, 0) + stride, stride)
    return [(start, min(start + room, count)) for start in starts]
