"""The whole of it against the tiny model: no figure is asserted, only that there are some and that wrong ones show."""

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest

from bench.__main__ import main
from bench.dialects import DIALECTS
from bench.model import load_model
from bench.options import parse
from bench.overload import arrivals
from bench.pair import other_checkout
from bench.path import moves_of, record
from bench.processes import cores as cores_of_all
from bench.processes import pin
from bench.rig import Rig
from bench.server import berth_command, free_port, running
from bench.table import cell

ROOT = Path(__file__).parents[2]
QUICK = ("--seconds", "0.2", "--warmup", "0.1")


@pytest.fixture(autouse=True)
def cores() -> Iterator[None]:
    """Undo what a run does to this process: it moves from core to core."""
    before = os.sched_getaffinity(0)
    yield
    pin(before)


def run(tmp_path: Path, artifact: Path, *arguments: str) -> tuple[int, list[dict[str, object]]]:
    out = tmp_path / "out.jsonl"
    status = main([arguments[0], "--model", str(artifact), *QUICK, "--out", str(out), *arguments[1:]])
    return status, [json.loads(line) for line in out.read_text().splitlines()]


def test_a_run_is_measured_checked_and_told(
    tmp_path: Path, tiny_artifact: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = tmp_path / "bench.svg"
    status, lines = run(tmp_path, tiny_artifact, "run", "--workloads", "w3", "--picture", str(picture))
    assert status == 0
    texts = [element.text for element in ElementTree.parse(picture).iter("{http://www.w3.org/2000/svg}text")]
    assert texts == ["w3, bulk 64, 4 at once, texts/s", "berth", cell(float(str(lines[0]["texts_per_second"])))]
    assert [line["workload"] for line in lines] == ["w3", "w3"]
    assert all(line["commit"] and line["command"] for line in lines)
    served, limits = lines
    assert served["valid"]
    assert float(str(served["texts_per_second"])) > 0
    assert float(str(limits["floor_ms_per_text"])) > 0
    assert "| w3       |" in capsys.readouterr().out


def test_wrong_vectors_fail_the_run(tmp_path: Path, tiny_artifact: Path) -> None:
    """No vector has a cosine above 1 to another, so all of them are wrong."""
    status, lines = run(tmp_path, tiny_artifact, "run", "--workloads", "w1", "--no-ceiling", "--min-cos", "1.1")
    assert status == 1
    assert not lines[0]["valid"]


def test_overload_is_told(tmp_path: Path, tiny_artifact: Path) -> None:
    room = str(32 * 40 * 4)  # ample for the closed loop that finds the peak, all of whose requests must be answered
    status, (line,) = run(tmp_path, tiny_artifact, "overload", "--factor", "4", "--", "--max-queue-tokens", room)
    assert status == 0
    assert int(str(line["accepted"])) > 0
    assert int(str(line["checked_texts"])) > 0


def test_wrong_vectors_fail_the_overload(
    tmp_path: Path, tiny_artifact: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, (line,) = run(tmp_path, tiny_artifact, "overload", "--factor", "2", "--min-cos", "1.1")
    assert status == 1
    assert f"NOT VALID: {line['checked_texts']} of {line['checked_texts']} vectors are wrong" in capsys.readouterr().out


def test_fairness_is_told_beside_a_peer(
    tmp_path: Path, tiny_artifact: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bench.fairness.LARGE", 256)
    port = free_port()
    command = berth_command(tiny_artifact, port, [])
    with running(
        command, port, DIALECTS["openai"], cores=cores_of_all()[1], model=None, log=tmp_path / "peer.log"
    ) as peer:
        status, lines = run(tmp_path, tiny_artifact, "fairness", "--rounds", "2", "--peer", peer.base)
    assert status == 0
    assert [line["server"] for line in lines] == ["berth", peer.base, peer.base, "berth"]
    assert all(float(str(line["batch_ms"])) > 0 for line in lines)
    assert all(float(str(line["closed_bulk_rate"])) > 0 for line in lines)
    seconds = [(line["large_alone_seconds"], line["large_seconds"]) for line in lines]
    assert all(float(str(each)) > 0 for pair in seconds[:2] for each in pair)
    assert seconds[2:] == [(None, None)] * 2, "the large request is of the first round alone"
    assert f"| crowded p99, ÷ berth's | {peer.base} |" in capsys.readouterr().out


def test_the_dial_is_drawn(
    tmp_path: Path, tiny_artifact: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bench.fairness.LARGE", 256)
    picture = tmp_path / "dial.svg"
    status, lines = run(tmp_path, tiny_artifact, "fairness", "--shares", "0,0.5", "--picture", str(picture))
    assert status == 0
    assert [line["server"] for line in lines] == ["--bulk-share 0", "--bulk-share 0.5"]
    heads = ElementTree.parse(picture).iterfind(".//{http://www.w3.org/2000/svg}text[@class='head']")
    assert [head.text for head in heads] == ["0", "0.5"]
    assert "| --bulk-share 0.5 |" in capsys.readouterr().out


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="it needs two cores")
def test_scaling_is_told(tmp_path: Path, tiny_artifact: Path) -> None:
    status, lines = run(tmp_path, tiny_artifact, "scaling", "--workloads", "w1", "--rounds", "2")
    assert status == 0
    assert len(lines) == 2
    for line in lines:
        assert float(str(line["one_texts_per_second"])) > 0
        assert float(str(line["two_cpu_ms"])) > 0


def test_memory_is_told(tmp_path: Path, tiny_artifact: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, (line,) = run(tmp_path, tiny_artifact, "memory", "--minutes", "0.02", "--workloads", "w1,w2")
    assert status == 0
    assert 10 < float(str(line["anonymous_first_mib"])) < float(str(line["peak_rss_mib"]))
    assert int(str(line["texts"])) > 0
    assert "| anonymous_growth_percent |" in capsys.readouterr().out


def test_capacity_is_told(tmp_path: Path, tiny_artifact: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, lines = run(tmp_path, tiny_artifact, "capacity", "--threads", "2")
    assert status == 0
    assert [(line["encoder"], line["workload"], line["threads"]) for line in lines] == [
        ("fp32", "bulk", 2),
        ("fp32", "single", 2),
        ("int8", "bulk", 2),
        ("int8", "single", 2),
    ]
    for line in lines:
        assert float(str(line["texts_per_second"])) > 0
        assert float(str(line["server_cores"])) > 0
        assert not line["errors"]
    assert "| fp32    |" in capsys.readouterr().out


def test_pair_is_told(tmp_path: Path, tiny_artifact: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The other checkout is this one; both serve the artifact that is given."""
    other = ("--other", str(ROOT), "--other-python", sys.executable)
    status, lines = run(tmp_path, tiny_artifact, "pair", *other, "--rounds", "2", "--workloads", "w1,w3")
    assert status == 0
    assert [(line["workload"], line["round"]) for line in lines] == [("w1", 0), ("w3", 0), ("w1", 1), ("w3", 1)]
    assert all(line["valid"] and float(str(line["other_rate"])) > 0 for line in lines)
    assert "| w3       |" in capsys.readouterr().out


def test_other_checkout_that_cannot_export_ends_the_pair(tmp_path: Path, tiny_artifact: Path) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\nexit 1\n")
    python.chmod(0o755)
    options = parse(["pair", "--other", str(tmp_path), "--other-python", str(python)])
    with (
        pytest.raises(SystemExit, match="cannot export"),
        other_checkout(Rig(load_model(tiny_artifact), options), options),
    ):
        pass


def test_a_request_goes_from_the_connection_through_the_queue(tiny_artifact: Path) -> None:
    events = record(tiny_artifact)
    assert {"service/connection.py", "service/api/routes/embeddings.py", "berth/batching/queue.py"} <= set(events)
    assert moves_of(events) < len(events)
    assert all((ROOT / name).is_file() for name in events)


def test_arrivals_are_as_many_as_the_rate_says() -> None:
    times = list(arrivals(100, 20))
    assert times == sorted(times)
    assert 1850 < len(times) < 2150
    assert times == list(arrivals(100, 20))
