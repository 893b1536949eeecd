"""The packed form and the way between it and the padded one."""

import numpy as np
import pytest

from berth.backends.cpu.packing import INPUTS, MASKED, pack
from berth.backends.near import CHUNK
from berth.types import Encoding, Layout


def encoding(*ids: int) -> Encoding:
    array = np.array(ids, dtype=np.int32)
    return Encoding(array, array % 2)


def test_texts_lie_end_to_end() -> None:
    feeds = pack([encoding(5, 6, 7), encoding(8), encoding(9, 10)], Layout(2))
    assert {name: array.tolist() for name, array in feeds.items()} == {
        "input_ids": [5, 6, 7, 8, 9, 10],
        "token_type_ids": [1, 0, 1, 0, 1, 0],
        "position_ids": [0, 1, 2, 0, 0, 1],
        "attention_rows": [[[0, 2, 4], [1, 3, 5]], [[6, 6, 6], [7, 7, 7]], [[8, 10, 8], [9, 11, 9]]],
        "attention_bias": [[[[0, 0, 0]]], [[[0, MASKED, MASKED]]], [[[0, 0, MASKED]]]],
        "context_rows": [[0, 3], [1, 4], [2, 5], [6, 9], [12, 15], [13, 16]],
        "first_tokens": [0, 3, 4],
        "alone": False,
    }


def test_inputs_are_the_graphs_in_name_shape_and_type() -> None:
    feeds = pack([encoding(1, 2), encoding(3)], Layout(4))
    sizes = {"tokens": 3, "sequences": 2, "heads": 4, "longest": 2, "1": 1}
    assert {name: array.shape for name, array in feeds.items()} == {
        name: tuple(sizes[axis] for axis in axes) for name, axes in INPUTS.items()
    }
    types = {name: array.dtype for name, array in feeds.items()}
    assert types.pop("attention_bias") == np.float32
    assert types.pop("alone") == np.bool_
    assert set(types.values()) == {np.dtype(np.int32)}


def test_each_heads_rows_come_back_to_their_token() -> None:
    random = np.random.default_rng(0)
    heads, size = 3, 4
    encodings = [encoding(*random.integers(1, 99, size=length)) for length in random.integers(1, 40, size=30)]
    feeds = pack(encodings, Layout(heads))
    states = random.normal(size=(sum(map(len, encodings)), heads * size))
    padded = states.reshape(-1, size)[feeds["attention_rows"]]  # [sequences, heads, longest, size]
    assert (padded[:, :, 0].reshape(30, -1) == states[feeds["first_tokens"]]).all()
    assert (padded.reshape(-1, size)[feeds["context_rows"]].reshape(states.shape) == states).all()


def test_padding_alone_is_masked() -> None:
    lengths = [7, 1, 4]
    bias = pack([encoding(*range(length)) for length in lengths], Layout(2))["attention_bias"]
    assert (bias == 0).sum(axis=-1).ravel().tolist() == lengths


def test_a_lone_text_of_one_length_is_laid_out_as_the_first_was() -> None:
    first, second = pack([encoding(1, 2, 3)], Layout(2)), pack([encoding(4, 5, 6)], Layout(2))
    assert second.pop("input_ids").tolist() == [4, 5, 6]
    assert second["attention_rows"].tolist() == first["attention_rows"].tolist()
    assert second["alone"]


def test_what_is_masked_weighs_nothing_and_is_no_subnormal_number() -> None:
    """Beside the first token's key, of which what is past the end is a copy, however many of them there are."""
    weight = np.exp(np.float32(MASKED))
    assert np.float32(1) + 512 * weight == 1
    assert np.exp(np.float32(MASKED - 40)) > np.finfo(np.float32).tiny, "where the first token is far from the highest"


@pytest.mark.parametrize("lengths", [[5], [1, 3, 2], [64, 65, 1], [200], [129, 300, 7, 64]])
@pytest.mark.parametrize("window", [1, 3, 40, 64])
def test_chunks_attend_to_what_is_within_reach(lengths: list[int], window: int) -> None:
    feeds = pack([encoding(*range(length)) for length in lengths], Layout(heads=2, window=window))
    places = np.concatenate([np.arange(length) for length in lengths])
    texts = np.repeat(np.arange(len(lengths)), lengths)
    queries, keys = feeds["near_query_rows"][:, 1] // 2, feeds["near_key_rows"][:, 1] // 2
    attended: list[set[int]] = [set() for _ in places]
    chunks, heads, size = feeds["near_query_rows"].shape
    contexts = np.unravel_index(feeds["near_context_rows"][:, 0].astype(np.intp), (chunks, heads, size))
    assert not contexts[1].any()
    for chunk, row in zip(contexts[0], contexts[2], strict=True):
        inside = feeds["near_inside"][chunk, 0, row]
        attended[queries[chunk, row]] |= set(keys[chunk][inside].tolist())
    for token, found in enumerate(attended):
        within = (texts == texts[token]) & (abs(places - places[token]) <= window)
        assert found == set(np.flatnonzero(within).tolist())


def test_a_long_text_is_cut_into_chunks_whose_keys_do_not_grow_with_it() -> None:
    feeds = pack([encoding(*range(1000))], Layout(heads=1, window=64))
    assert feeds["near_inside"].shape == (16, 1, CHUNK, CHUNK + 128)


def test_padding_within_a_text_is_not_counted() -> None:
    feeds = pack([encoding(5, 1, 6, 1, 7), encoding(8, 9)], Layout(heads=1, padding_id=1))
    assert feeds["position_ids"].tolist() == [0, -1, 1, -1, 2, 0, 1]
    assert pack([encoding(5, 6)], Layout(heads=1, padding_id=1))["position_ids"].tolist() == [0, 1]
