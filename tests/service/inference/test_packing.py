"""The packed form and the way between it and the padded one."""

import numpy as np

from service.inference.packing import INPUTS, pack
from service.inference.types import Encoding


def encoding(*ids: int) -> Encoding:
    array = np.array(ids, dtype=np.int32)
    return Encoding(array, array % 2)


def test_texts_lie_end_to_end() -> None:
    feeds = pack([encoding(5, 6, 7), encoding(8), encoding(9, 10)])
    assert {name: array.tolist() for name, array in feeds.items()} == {
        "input_ids": [5, 6, 7, 8, 9, 10],
        "token_type_ids": [1, 0, 1, 0, 1, 0],
        "position_ids": [0, 1, 2, 0, 0, 1],
        "padded_index": [[0, 1, 2], [3, 3, 3], [4, 5, 4]],
        "packed_index": [0, 1, 2, 3, 6, 7],
        "lengths": [3, 1, 2],
        "first_tokens": [0, 3, 4],
    }


def test_inputs_are_the_graphs_in_name_and_type() -> None:
    feeds = pack([encoding(1, 2)])
    assert tuple(feeds) == INPUTS
    assert {array.dtype for array in feeds.values()} == {np.dtype(np.int32)}


def test_padding_and_unpadding_gives_every_row_back() -> None:
    random = np.random.default_rng(0)
    encodings = [encoding(*random.integers(1, 99, size=length)) for length in random.integers(1, 40, size=30)]
    feeds = pack(encodings)
    padded = feeds["input_ids"][feeds["padded_index"]]
    assert padded.reshape(-1)[feeds["packed_index"]].tolist() == feeds["input_ids"].tolist()
    assert padded[:, 0].tolist() == [each.ids[0] for each in encodings]
