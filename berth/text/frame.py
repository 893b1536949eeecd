"""The frame of special tokens: whether ids are in it, and which places of a framed text or pair a cut keeps."""

from collections.abc import Sequence

import numpy as np

from berth.text.truncation import Truncation, kept, kept_of_pair
from berth.types import Frame, IntArray


def is_framed(ids: Sequence[int], frame: Frame) -> bool:
    """Say whether ids begin and end as the frame does."""
    end = len(ids) - len(frame.after)
    begins = tuple(ids[: len(frame.before)]) == frame.before
    return end >= len(frame.before) and begins and tuple(ids[end:]) == frame.after


def shown(frame: Frame) -> str:
    """Spell a text's frame for an error."""
    return " ".join(map(str, (*frame.before, "…", *frame.after)))


def places_of_text(total: int, front: int, frame: Frame, limit: int, truncation: Truncation) -> IntArray:
    """Give the places of the `limit` tokens that a cut keeps of a text's `total`, the first `front` in any case."""
    end, room = total - len(frame.after), limit - front - len(frame.after)
    return np.concatenate([np.arange(front), kept(end - front, room, truncation) + front, np.arange(end, total)])


def places_of_pair(total: int, first: int, frame: Frame, limit: int, truncation: Truncation) -> IntArray:
    """Give the places of the `limit` tokens that a cut keeps of a pair's `total`, the first text's being `first`."""
    around = frame.size(pair=True)
    ours, theirs = kept_of_pair(first, total - first - around, limit - around, truncation)
    begin, end = len(frame.before), total - len(frame.after)
    between = np.arange(begin + first, begin + first + len(frame.between))
    second = begin + first + len(frame.between)
    return np.concatenate([np.arange(begin), ours + begin, between, theirs + second, np.arange(end, total)])
