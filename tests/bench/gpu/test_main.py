"""The whole script in its dry run, on the CPU: that every section runs, and that what is wrong shows."""

import json
from pathlib import Path
from typing import Any

import pytest

from bench.gpu.__main__ import main
from bench.gpu.accuracy import Accuracy
from bench.gpu.summary import goals, write_tables


def dry_run(out: Path, *arguments: str) -> tuple[int, dict[str, Any]]:
    status = main(["--dry-run", "--out", str(out / "gpu.json"), "--folder", str(out), *arguments])
    return status, json.loads((out / "gpu.json").read_text())


def test_encoder_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, report = dry_run(tmp_path, "--only", "accuracy", "--only", "speed", "--only", "memory")
    assert status == 0
    assert report["failed"] == {}
    [accuracy] = report["accuracy"]
    assert accuracy["right"]
    assert accuracy["cosine_between_texts"] < 0.9, "texts that are all alike would prove nothing"
    assert [line["mean"] for line in report["speed"]["lines"]] == [8, 32]
    assert all(line["best"] > 0 and len(line["torch"]) == 2 for line in report["speed"]["lines"])
    assert report["memory"]["batches"] == 60
    table = capsys.readouterr().out.partition("| figure")[2]
    assert "tiny fp32: lowest cosine to torch fp32" in table
    assert "a dry run" in table


def test_served(tmp_path: Path) -> None:
    status, report = dry_run(tmp_path, "--only", "served")
    assert status == 0
    loads = report["served"]["loads"]
    assert {load["name"] for load in loads} == {"bulk, raw bytes", "bulk, base64", "single", "32 singles"}
    assert all(load["texts_per_second"] > 0 and not load["errors"] for load in loads)


def test_section_that_fails_leaves_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> Accuracy:
        raise RuntimeError("no kernel")

    monkeypatch.setattr("bench.gpu.__main__.measure_accuracy", fail)
    status, report = dry_run(tmp_path, "--only", "accuracy", "--only", "memory")
    assert status == 1
    assert "no kernel" in report["failed"]["accuracy"]
    assert report["memory"]["bounded"] in {True, False}
    assert "FAILED accuracy: RuntimeError: no kernel" in capsys.readouterr().out


def test_goals_tell_what_was_not_reached() -> None:
    line = {"mean": 128, "mixed": True, "best": 110.0, "share": 0.6, "torch": {"padded": 50.0, "sorted": 100.0}}
    served = {
        "alone_tokens_per_second": 100.0,
        "loads": [
            {"name": "bulk, base64", "tokens_per_second": 60.0, "p50_ms": 9.0, "errors": {}},
            {"name": "single", "tokens_per_second": 1.0, "p50_ms": 2.0, "errors": {"HTTP 500": 3}},
        ],
    }
    report = {"speed": {"lines": [line]}, "served": served, "memory": {"growth": float("nan")}}
    assert {goal.name: goal.reached for goal in goals(report)} == {
        "share of the matrix rate, mean 128, mixed": True,
        "berth ÷ torch padded, mean 128, mixed": True,
        "berth ÷ torch sorted, mean 128, mixed": False,
        "bulk, base64: ÷ encoder alone": False,
        "bulk, base64: failed requests": True,
        "single: p50 ms": True,
        "single: failed requests": False,
        "growth of memory after warm-up": False,
    }
    assert "NO" in write_tables({"memory": {"growth": 0.5}})


def test_goal_beside_a_torch_that_failed_is_not_reached() -> None:
    line = {"mean": 512, "mixed": False, "best": 110.0, "share": 0.6, "torch": {"padded": 50.0}}
    assert {goal.name: goal.reached for goal in goals({"speed": {"lines": [line]}})} == {
        "berth ÷ torch padded, all 512": True,
        "berth ÷ torch sorted, all 512": False,
    }
