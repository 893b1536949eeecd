"""A start that must fail does so in one line; a stop loses nothing that was accepted."""

import json
import shutil
import signal
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import numpy as np
import pytest

from service.inference.artifact import MANIFEST, PROBES, sha256

if TYPE_CHECKING:
    from tests.end_to_end.conftest import Launch, Service, Start

NUMBERS = count()


def bulk() -> list[str]:
    """Give sixteen long texts that no other request has: what several ask for is encoded once."""
    return [f"{next(NUMBERS)} " + "tide " * 250 for _ in range(16)]


@pytest.fixture
def damaged(tiny_artifact: Path, tmp_path: Path) -> Path:
    """Give a copy of the tiny artifact, to be damaged."""
    return Path(shutil.copytree(tiny_artifact, tmp_path / "artifact"))


def amend(folder: Path, **fields: object) -> None:
    """Change the manifest's fields, its hashes brought up to date."""
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["files"] = {name: sha256(folder / name) for name in manifest["files"]}
    (folder / MANIFEST).write_text(json.dumps(manifest | fields))


def alter_weights(folder: Path) -> None:
    content = bytearray((folder / "weights.bin").read_bytes())
    content[1000] ^= 1
    (folder / "weights.bin").write_bytes(content)


def drop_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()


def raise_version(folder: Path) -> None:
    amend(folder, format_version=5)


def drop_manifest(folder: Path) -> None:
    (folder / MANIFEST).unlink()


def turn_a_probe(folder: Path) -> None:
    with np.load(folder / PROBES) as stored:
        arrays = dict(stored)
    arrays["vectors"] = arrays["vectors"].copy()
    arrays["vectors"][-1] *= -1
    np.savez(folder / PROBES, **arrays)
    amend(folder)


def spoil_probes(folder: Path) -> None:
    (folder / PROBES).write_bytes(b"no probes")
    amend(folder)


def spoil_graph(folder: Path) -> None:
    (folder / "model.onnx").write_bytes(b"no graph")
    amend(folder)


def spoil_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").write_text("{}")
    amend(folder)


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (alter_weights, "weights.bin"),
        (drop_tokenizer, "tokenizer.json"),
        (raise_version, "format_version"),
        (drop_manifest, "is not an artifact"),
        (turn_a_probe, "differ from the probes"),
        (spoil_probes, "probes"),
        (spoil_graph, "model.onnx"),
        (spoil_tokenizer, "tokenizer.json"),
    ],
)
def test_what_cannot_be_served_ends_with_one_line_and_status_1(
    launch: "Launch", damaged: Path, damage: Callable[[Path], None], named: str
) -> None:
    damage(damaged)
    service = launch(damaged)
    assert service.process.wait(15) == 1, service.tail
    assert len([line for line in service.log.splitlines() if named in line]) == 1, service.log
    assert "Traceback" not in service.log


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (["--max-texts", "none"], "--max-texts"),
        (["--max-texts", "0"], "--max-texts"),
        (["--request-timeout", "0"], "--request-timeout"),
        (["--request-timeout", "nan"], "--request-timeout"),
        (["--threads", "-1"], "--threads"),
        (["--device", "abacus"], "--device"),
        (["--invented", "1"], "--invented"),
    ],
    ids=str,
)
def test_bad_flag_stops_the_start(launch: "Launch", tiny_artifact: Path, flags: list[str], named: str) -> None:
    service = launch(tiny_artifact, *flags)
    assert service.process.wait(20) != 0
    assert named in service.log
    assert "Traceback" not in service.log


def test_folder_that_is_none_ends_with_one_line(launch: "Launch", tmp_path: Path) -> None:
    service = launch(tmp_path / "nowhere")
    assert service.process.wait(20) == 1
    assert (
        service.log == f"berth: {tmp_path / 'nowhere'} is not an artifact: manifest.json: No such file or directory\n"
    )


def test_home_of_nobody_ends_with_one_line(launch: "Launch") -> None:
    service = launch(Path("~nobody-of-that-name/model"))
    assert service.process.wait(20) == 1
    assert service.log == "berth: ~nobody-of-that-name/model: there is no such folder\n"


def test_berth_serve_takes_an_artifact(launch: "Launch", tiny_artifact: Path) -> None:
    service = launch(tiny_artifact, module="berth")
    service.until(lambda: "ready:" in service.written)
    with service.client() as http:
        assert len(http.post("/v1/embeddings", json={"input": "a"}).json()["data"][0]["embedding"]) == 60
    assert service.stop() == 0


def test_variables_and_flags_reach_the_service(start: "Start", tiny_artifact: Path) -> None:
    service = start(
        tiny_artifact, "--max-texts", "5", BERTH_SERVED_MODEL_NAME="tug", BERTH_MAX_TEXTS="7", BERTH_TYPO="1"
    )
    with service.client() as http:
        info = http.get("/info").json()
        assert http.post("/v1/embeddings", json={"input": "a", "model": "tug"}).json()["model"] == "tug"
    assert (info["max_client_batch_size"], info["model_id"]) == (5, "tug")
    assert "BERTH_TYPO" in service.log


def post(service: "Service", texts: list[str]) -> httpx.Response:
    with service.client() as http:
        return http.post("/v1/embeddings", json={"input": texts})


def post_bulk(service: "Service") -> httpx.Response:
    return post(service, bulk())


def test_sigterm_under_load_answers_everything(start: "Start", minilm: Path) -> None:
    """Readiness goes 503 while requests are still accepted; then the port closes, and what was accepted is answered."""
    service = start(minilm, "--shutdown-grace", "1.5", "--threads", "1", "--request-timeout", "300")
    with ThreadPoolExecutor(16) as pool, service.client() as http:
        answers = [pool.submit(post_bulk, service) for _ in range(12)]
        service.until(lambda: service.metric("berth_requests_in_flight") == 13)
        service.process.send_signal(signal.SIGTERM)
        service.until(lambda: http.get("/health/ready").status_code == 503)
        ready, health, live = (http.get(path) for path in ("/health/ready", "/health", "/health/live"))
        late = http.post("/v1/embeddings", json={"input": "late"})
        assert (ready.status_code, health.status_code, live.status_code, late.status_code) == (503, 503, 200, 200)
        assert ready.json()["error"]["code"] == "not_ready"
        assert {answer.headers["connection"] for answer in (ready, live, late)} == {"close"}
        replies = [answer.result() for answer in answers]
    assert [reply.status_code for reply in replies] == [200] * 12
    assert [len(reply.json()["data"]) for reply in replies] == [16] * 12
    assert service.process.wait(30) == 0
    assert "Traceback" not in service.log


def test_what_is_left_after_the_bound_is_told_so(start: "Start", minilm: Path) -> None:
    service = start(minilm, "--shutdown-grace", "0", "--shutdown-timeout", "1", "--threads", "1")
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(post, service, [f"{number} " + "tide " * 250 for number in range(2048)])
        service.until(lambda: service.metric("berth_queue_units") > 1500)
        service.process.send_signal(signal.SIGTERM)
        reply = answer.result()
    assert reply.status_code == 503
    assert reply.json()["error"]["code"] == "not_ready"
    assert service.process.wait(30) == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_idle_service_ends_with_status_0(start: "Start", tiny_artifact: Path, number: signal.Signals) -> None:
    service = start(tiny_artifact, "--shutdown-grace", "0.2")
    with service.client() as kept_open:
        kept_open.get("/health/live")
        assert service.stop(number) == 0
    assert "Traceback" not in service.log


def test_sigint_answers_what_was_accepted(start: "Start", minilm: Path) -> None:
    service = start(minilm, "--threads", "1", "--shutdown-grace", "60")
    with ThreadPoolExecutor(4) as pool:
        answers = [pool.submit(post_bulk, service) for _ in range(4)]
        service.until(lambda: service.metric("berth_requests_in_flight") == 5)
        assert service.stop(signal.SIGINT) == 0
        assert [answer.result().status_code for answer in answers] == [200] * 4


def test_full_queue_says_when_to_return(start: "Start", minilm: Path) -> None:
    service = start(minilm, "--max-queue-tokens", "5000", "--threads", "1")
    started = threading.Barrier(12)

    def post_together() -> httpx.Response:
        started.wait()
        return post_bulk(service)

    with ThreadPoolExecutor(12) as pool:
        replies = [answer.result() for answer in [pool.submit(post_together) for _ in range(12)]]
    refused = [reply for reply in replies if reply.status_code != 200]
    assert 1 <= len(refused) < 12
    for reply in refused:
        assert reply.status_code == 429
        assert reply.json()["error"]["code"] == "overloaded"
        assert int(reply.headers["retry-after"]) >= 1
    service.until(lambda: service.metric("berth_rejected_requests_total", reason="overloaded") == len(refused), 10)
    too_large = post(service, bulk() + bulk())
    assert (too_large.status_code, "retry-after" in too_large.headers) == (413, False)
    assert post_bulk(service).status_code == 200
