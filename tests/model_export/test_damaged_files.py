"""Damaged JSON files of a checkpoint: it is read, or refused in one line. `tests/fuzz` tries more of them."""

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.model_export.damage import DAMAGED, NETWORKS, TOKENIZER, Checkpoints, check_line, read
from tests.model_export.families.plain import plain_config


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Checkpoints:
    """Give checkpoints to damage."""
    return Checkpoints(tmp_path_factory.mktemp("damaged"))


@pytest.mark.parametrize("kind", DAMAGED)
@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_any_file_is_read_or_refused_in_one_line(checkpoints: Checkpoints, kind: str, data: st.DataObject) -> None:
    name, file, content = data.draw(DAMAGED[kind])
    with checkpoints.with_file(name, file, content) as folder:
        line = read(folder)
    if line is not None:
        check_line(line)


@pytest.mark.parametrize("name", NETWORKS)
def test_what_is_damaged_is_sound_before(checkpoints: Checkpoints, name: str) -> None:
    with checkpoints.with_file(name, "tokenizer_config.json", json.dumps(TOKENIZER).encode()) as folder:
        assert read(folder) is None
    assert read(folder) is None
    with checkpoints.with_file(name, "config.json", b"{}"):
        assert "there is no config.json" in str(read(folder))


@pytest.mark.parametrize("field", ["num_hidden_layers", "max_position_embeddings", "vocab_size", "intermediate_size"])
@pytest.mark.parametrize("name", ["bert", "modernbert"])
def test_sizes_beyond_reason_are_refused_at_once(checkpoints: Checkpoints, name: str, field: str) -> None:
    for size in (10**9, 10**18, 10**400, -1, 0):
        content = json.dumps(plain_config(name) | {field: size}).encode()
        with checkpoints.with_file(name, "config.json", content) as folder:
            line = read(folder)
        assert line is not None
        check_line(line)
