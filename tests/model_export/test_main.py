"""The command line."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from model_export import export as export_module
from model_export.__main__ import main


def test_a_summary_at_the_end(tmp_path: Path, tiny_checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tiny_checkpoint), str(tmp_path / "out")]) == 0
    shown = capsys.readouterr()
    for part in ("3 layers of 60", "40 tokens at most", "pooling mean", "weights.bin", "verified on 11 texts"):
        assert part in shown.out
    assert not shown.err


def test_outcome_is_json_where_that_is_asked_for(
    tmp_path: Path, tiny_checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(tiny_checkpoint), str(tmp_path / "out"), "--json"]) == 0
    shown = capsys.readouterr()
    assert json.loads(shown.out).keys() == {"summary"}
    assert "3 layers of 60" in json.loads(shown.out)["summary"]
    assert not shown.err


@pytest.mark.parametrize(
    ("flags", "line"),
    [(["--int8-weights", "8"], "  weights in 8 bits"), ([], "  weights in 7 bits: this processor has no VNNI")],
    ids=["asked for", "chosen"],
)
def test_bits_of_int8s_weights_are_said_and_why(
    tmp_path: Path,
    tiny_checkpoint: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    flags: list[str],
    line: str,
) -> None:
    monkeypatch.setattr(export_module, "weight_bits_here", lambda: (7, "this processor has no VNNI"))
    assert main([str(tiny_checkpoint), str(tmp_path / "out"), "--precision", "int8", *flags]) == 0
    assert line in capsys.readouterr().out.splitlines()


def test_bits_in_another_precision_are_one_line(
    tmp_path: Path, tiny_checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(tiny_checkpoint), str(tmp_path / "out"), "--int8-weights", "7"]) == 1
    line = "error: --int8-weights 7 is for precision int8, and the precision is fp32\n"
    assert capsys.readouterr().err == line
    assert not list(tmp_path.iterdir())


def test_heads_are_named(tmp_path: Path, tiny_copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stored = load_file(tiny_copy / "model.safetensors") | {"classifier.bias": np.zeros(2, np.float32)}
    save_file(stored, tiny_copy / "model.safetensors")
    assert main([str(tiny_copy), str(tmp_path / "out")]) == 0
    assert "left out, as parts of heads: classifier.bias" in capsys.readouterr().out


def test_an_error_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path), str(tmp_path / "out")]) == 1
    shown = capsys.readouterr()
    assert shown.err == f"error: {tmp_path}: there is no config.json, so this is not a checkpoint\n"
    assert not shown.out


def test_an_error_is_json_where_that_is_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path), str(tmp_path / "out"), "--json"]) == 1
    shown = capsys.readouterr()
    assert json.loads(shown.out) == {"error": f"{tmp_path}: there is no config.json, so this is not a checkpoint"}
    assert not shown.err


def test_what_the_system_refuses_is_one_line(
    tmp_path: Path, tiny_checkpoint: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(export_module, "write_graph", full)
    assert main([str(tiny_checkpoint), str(tmp_path / "out")]) == 1
    line = f"error: {tmp_path / 'out'} cannot be written: [Errno 28] No space left on device\n"
    assert capsys.readouterr().err == line
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_read_is_one_line(
    tmp_path: Path, tiny_copy: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    is_file = Path.is_file

    def denied(path: Path) -> bool:
        if path.name == "vocab.txt":
            raise PermissionError(13, "Permission denied", str(path))  # root, as in a container, may read everything
        return is_file(path)

    monkeypatch.setattr(Path, "is_file", denied)
    assert main([str(tiny_copy), str(tmp_path / "out")]) == 1
    line = f"error: {tiny_copy} cannot be read: [Errno 13] Permission denied: '{tiny_copy}/vocab.txt'\n"
    assert capsys.readouterr().err == line


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["a"],
        ["a", "b", "--target", "tpu"],
        ["a", "b", "--precision", "fp8"],
        ["a", "b", "--precision", "int8", "--int8-weights", "6"],
    ],
)
def test_wrong_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert "usage: python -m model_export" in capsys.readouterr().err


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    assert caught.value.code == 0
    assert "CHECKPOINT" in capsys.readouterr().out


def test_an_interrupt_leaves_nothing(
    tmp_path: Path, tiny_checkpoint: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(export_module, "forward", interrupt)
    assert main([str(tiny_checkpoint), str(tmp_path / "out")]) == 130
    assert capsys.readouterr().err == "error: interrupted, nothing was written\n"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_leaves_nothing(tmp_path: Path, tiny_checkpoint: Path, number: signal.Signals) -> None:
    code = (
        "import signal, sys, time; import model_export.export as module; from model_export.__main__ import main; "
        "signal.signal(signal.SIGINT, signal.default_int_handler); "  # which a job in the background begins without
        "module.forward = lambda *_: time.sleep(60); sys.exit(main(sys.argv[1:]))"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(tiny_checkpoint), str(tmp_path / "out")])
    while not list(tmp_path.glob(".out.*/weights.bin")):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(number)
    assert process.wait() == 128 + number
    assert not list(tmp_path.iterdir())
