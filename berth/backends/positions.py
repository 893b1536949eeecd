"""RoBERTa's rule for positions: tokens of the padding id, where a text holds the word for it, are not counted."""

from collections.abc import Sequence

import numpy as np

from berth.types import Encoding, Int32Array


def places_without_padding(encodings: Sequence[Encoding], ids: Int32Array, padding_id: int | None) -> Int32Array | None:
    """Give each token's place in its own text, [tokens of all], -1 for padding; None where there is none of it.

    `ids` are those of all encodings. This is `create_position_ids_from_input_ids` in transformers, counted from 0.
    """
    if padding_id is None or not (ids == padding_id).any():
        return None
    return np.concatenate([_places(encoding.ids != padding_id) for encoding in encodings])


def _places(counted: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> Int32Array:
    return np.where(counted, np.cumsum(counted, dtype=np.int32) - np.int32(1), np.int32(-1))
