"""A start that must fail does so in one line; a stop loses nothing that was accepted."""

import json
import shutil
import signal
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import numpy as np
import pytest

from berth.artifact import GOLDEN_VECTORS, MANIFEST, sha256
from tests.end_to_end.conftest import HANGING

if TYPE_CHECKING:
    from tests.end_to_end.conftest import Faulty, Launch, Service, Start

NUMBERS = count()
LONG = 40
"""Tokens of a text of a bulk request, as many as the tiny model takes."""


def bulk(texts: int = 16, word: str = "world") -> list[str]:
    """Give long texts, more than a batch of them, that no other request has; at "hello" a faulty encoder hangs."""
    return [f"{next(NUMBERS)} " + f"{word} " * LONG for _ in range(texts)]


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
    amend(folder, format_version=4)


def drop_manifest(folder: Path) -> None:
    (folder / MANIFEST).unlink()


def turn_a_golden_vector(folder: Path) -> None:
    with np.load(folder / GOLDEN_VECTORS) as stored:
        arrays = dict(stored)
    arrays["vectors"] = arrays["vectors"].copy()
    arrays["vectors"][-1] *= -1
    np.savez(folder / GOLDEN_VECTORS, **arrays)
    amend(folder)


def spoil_golden_vectors(folder: Path) -> None:
    (folder / GOLDEN_VECTORS).write_bytes(b"no golden vectors")
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
        (turn_a_golden_vector, "differ from the golden vectors"),
        (spoil_golden_vectors, "probes.npz"),
        (spoil_graph, "model.onnx"),
        (spoil_tokenizer, "tokenizer.json"),
    ],
)
def test_what_cannot_be_served_ends_with_one_line_and_status_1(
    launch: "Launch", damaged: Path, damage: Callable[[Path], None], named: str
) -> None:
    damage(damaged)
    service = launch(damaged)
    assert service.end() == 1, service.tail
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
    assert service.end() != 0
    assert named in service.log
    assert "Traceback" not in service.log


@pytest.mark.parametrize(
    ("flags", "variables"),
    [(["--workers", "2"], {}), (["--workers=2"], {}), ([], {"BERTH_WORKERS": "2"})],
    ids=str,
)
@pytest.mark.parametrize("module", ["service", "berth"])
def test_setting_that_is_gone_ends_the_start_with_what_to_use(
    launch: "Launch", tiny_artifact: Path, flags: list[str], variables: dict[str, str], module: str
) -> None:
    service = launch(tiny_artifact, *flags, module=module, **variables)
    assert service.end() == 1
    [line] = service.log.splitlines()
    assert line.startswith("berth: --workers (BERTH_WORKERS): is gone: one process uses all cores")
    assert "deploy/compose.replicas.yml" in line


def test_folder_that_is_none_ends_with_one_line(launch: "Launch", tmp_path: Path) -> None:
    service = launch(tmp_path / "nowhere")
    assert service.end() == 1
    assert (
        service.log == f"berth: {tmp_path / 'nowhere'} is not an artifact: manifest.json: No such file or directory\n"
    )


def test_home_of_nobody_ends_with_one_line(launch: "Launch") -> None:
    service = launch(Path("~nobody-of-that-name/model"))
    assert service.end() == 1
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


def post(service: "Service", texts: str | list[str]) -> httpx.Response:
    with service.client() as http:
        return http.post("/v1/embeddings", json={"input": texts})


def in_flight(service: "Service") -> float:
    """Count the requests that are not answered, but that which asks."""
    return service.metric("berth_requests_in_flight") - 1


def listens(service: "Service") -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", service.port)) == 0


def test_sigterm_under_load_answers_everything(faulty: "Faulty") -> None:
    """Readiness goes 503 while requests are still accepted; then the port closes, and what was accepted is answered.

    The load is bulk that waits behind a batch until the test lets it go on; SIGINT ends the grace period.
    """
    service = faulty.start("--shutdown-grace", "300", "--threads", "1", "--request-timeout", "300")
    with ThreadPoolExecutor(12) as pool, service.client() as http:
        answers = [pool.submit(post, service, bulk(word=HANGING)) for _ in range(12)]
        service.until(lambda: in_flight(service) == 12)
        service.process.send_signal(signal.SIGTERM)
        service.until(lambda: http.get("/health/ready").status_code == 503)
        ready, health, live = (http.get(path) for path in ("/health/ready", "/health", "/health/live"))
        late = http.post("/v1/embeddings", json={"input": "late"})
        assert (ready.status_code, health.status_code, live.status_code, late.status_code) == (503, 503, 200, 200)
        assert ready.json()["error"]["code"] == "not_ready"
        assert {answer.headers["connection"] for answer in (ready, live, late)} == {"close"}
        service.process.send_signal(signal.SIGINT)
        service.until(lambda: not listens(service))
        assert not any(answer.done() for answer in answers)
        faulty.release.touch()
        replies = [answer.result() for answer in answers]
    assert [reply.status_code for reply in replies] == [200] * 12
    assert [len(reply.json()["data"]) for reply in replies] == [16] * 12
    assert service.end() == 0
    assert "Traceback" not in service.log


def test_what_is_left_after_the_bound_is_told_so(faulty: "Faulty") -> None:
    service = faulty.start("--shutdown-grace", "0", "--shutdown-timeout", "1", "--threads", "1")
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(post, service, bulk(word=HANGING))
        service.until(lambda: service.metric("berth_queue_units") > 0)
        service.process.send_signal(signal.SIGTERM)
        reply = answer.result()
    assert reply.status_code == 503
    assert reply.json()["error"]["code"] == "not_ready"
    faulty.release.touch()
    assert service.end() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_idle_service_ends_with_status_0(start: "Start", tiny_artifact: Path, number: signal.Signals) -> None:
    service = start(tiny_artifact, "--shutdown-grace", "0.2")
    with service.client() as kept_open:
        kept_open.get("/health/live")
        assert service.stop(number) == 0
    assert "Traceback" not in service.log


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_signal_before_it_is_ready_ends_with_status_0(launch: "Launch", minilm: Path, number: signal.Signals) -> None:
    """It listens while it loads the model."""
    service = launch(minilm, "--shutdown-grace", "0")
    service.until(lambda: "running on http" in service.written)
    assert service.stop(number) == 0
    assert "Traceback" not in service.log


def test_sigint_answers_what_was_accepted(faulty: "Faulty") -> None:
    """It leaves out the grace period."""
    service = faulty.start("--threads", "1", "--shutdown-grace", "300")
    with ThreadPoolExecutor(4) as pool:
        answers = [pool.submit(post, service, bulk(word=HANGING)) for _ in range(4)]
        service.until(lambda: in_flight(service) == 4)
        service.process.send_signal(signal.SIGINT)
        service.until(lambda: not listens(service))
        faulty.release.touch()
        assert [answer.result().status_code for answer in answers] == [200] * 4
    assert service.end() == 0


def test_full_queue_says_when_to_return(faulty: "Faulty") -> None:
    """Of bulk; short requests still come in."""
    service = faulty.start("--max-queue-tokens", "1000", "--threads", "1")
    with ThreadPoolExecutor(2) as pool:
        accepted = [pool.submit(post, service, bulk(word=HANGING))]
        service.until(lambda: service.metric("berth_batch_tokens_count") == 0 < service.metric("berth_queue_tokens"))
        accepted.append(pool.submit(post, service, bulk()))
        service.until(lambda: service.metric("berth_queue_tokens") >= 1000)
        refused = [post(service, bulk()) for _ in range(3)]
        assert post(service, "short").status_code == 200
        faulty.release.touch()
        assert [answer.result().status_code for answer in accepted] == [200, 200]
    for reply in refused:
        assert reply.status_code == 429
        assert reply.json()["error"]["code"] == "overloaded"
        assert int(reply.headers["retry-after"]) >= 1
    service.until(lambda: service.metric("berth_rejected_requests_total", reason="overloaded") == len(refused))
    too_large = post(service, bulk(32))
    assert (too_large.status_code, "retry-after" in too_large.headers) == (413, False)
    assert post(service, bulk()).status_code == 200


def test_queue_full_of_short_requests_turns_away_unread(faulty: "Faulty") -> None:
    service = faulty.start("--max-queue-tokens", "400", "--threads", "1")
    head = b"POST /v1/embeddings HTTP/1.1\r\nHost: berth\r\nContent-Type: application/json\r\n"
    with ThreadPoolExecutor(4) as pool:
        accepted = [pool.submit(post, service, HANGING)]
        service.until(lambda: in_flight(service) == 1)
        accepted += [pool.submit(post, service, bulk(5)) for _ in range(2)]
        service.until(lambda: service.metric("berth_queue_tokens") >= 400)
        with socket.create_connection(("127.0.0.1", service.port), 60) as connection:
            connection.sendall(head + b"Content-Length: 1000\r\n\r\n")
            assert connection.recv(65536).startswith(b"HTTP/1.1 429 ")
        faulty.release.touch()
        assert [answer.result().status_code for answer in accepted] == [200] * 3
    service.until(lambda: service.metric("berth_rejected_requests_total", reason="overloaded") == 1)
    assert "1 requests turned away unread in the last second: the queue is full" in service.log
