"""Which tokens of a text beyond the model's maximum are kept, or in which windows all of them are read.

Counted here are a text's own tokens, without [CLS] and [SEP]; `room` is how many of them fit between the two.
"""

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.intp]


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
    `window` and `stride` count tokens, a window's [CLS] and [SEP] too; 0 is the largest that the model allows.
    """

    cut: Cut = Cut.END
    head: int | None = None
    window: int = 0
    stride: int = 0
    combine: Combine = Combine.MEAN


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
