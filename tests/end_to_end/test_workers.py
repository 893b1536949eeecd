"""Several processes behind one port: they count together, the dead are replaced, a stop loses nothing."""

import os
import re
import shutil
import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

if TYPE_CHECKING:
    from tests.end_to_end.conftest import Launch, Service, Start

NUMBERS = count()
TWO = ("--workers", "2", "--shutdown-grace", "0.2")


def bulk() -> list[str]:
    """Give sixteen long texts that no other request has: what several ask for is encoded once."""
    return [f"{next(NUMBERS)} " + "tide " * 250 for _ in range(16)]


def post(service: "Service", texts: list[str]) -> httpx.Response:
    """Send a request by a connection of its own, which any worker may take."""
    with service.client() as http:
        return http.post("/v1/embeddings", json={"input": texts})


def workers(service: "Service") -> list[int]:
    """List the process ids of the workers that are ready, those that are no more left out."""
    started = [int(number) for number in re.findall(r"berth\[(\d+)\]: ready:", service.log)]
    ended = [int(number) for number in re.findall(r"worker (\d+) ended", service.log)]
    return [number for number in started if number not in ended]


def answering(service: "Service") -> set[str]:
    """Give the process ids of the workers that have answered /v1/embeddings."""
    return set(re.findall(r"berth\.requests\[(\d+)\]: POST /v1/embeddings", service.log))


def wait_for_two(service: "Service") -> None:
    service.until(lambda: len(workers(service)) == 2 and service.metric("berth_ready") == 2)


def families(service: "Service") -> dict[str, str]:
    """Give each metric's type by its name, the time of its making left out."""
    with service.client() as http:
        found = {family.name: family.type for family in text_string_to_metric_families(http.get("/metrics").text)}
    return {name: kind for name, kind in found.items() if not name.endswith("_created")}


def refuses(port: int) -> bool:
    with socket.socket() as connection:
        return connection.connect_ex(("127.0.0.1", port)) != 0


def test_two_workers_answer_and_any_of_them_shows_the_sum(start: "Start", tiny_artifact: Path) -> None:
    service = start(tiny_artifact, *TWO)
    wait_for_two(service)
    sent = 0

    def both_have_answered() -> bool:
        nonlocal sent
        assert post(service, ["a", "b c"]).status_code == 200
        sent += 1
        return len(answering(service)) == 2

    service.until(both_have_answered)
    shown: dict[str, float] = {}

    def both_have_shown() -> bool:
        answer = service.metric("berth_requests_total", route="/v1/embeddings", status="200")
        if answer != sent:  # the last one is counted after its answer
            return False
        [*_, page] = re.findall(r"requests\[(\d+)\]: GET /metrics", service.log)
        shown[page] = answer
        return len(shown) == 2

    service.until(both_have_shown)
    assert service.metric("berth_texts_total") == 2 * sent
    assert service.metric("berth_stage_seconds_count", stage="encode") == sent
    assert service.metric("berth_stage_seconds_bucket", stage="encode", le="+Inf") == sent
    assert service.metric("berth_requests_in_flight") == 1
    assert service.metric("berth_model_info", family="bert", layers="3") == 1
    assert service.metric("process_cpu_seconds_total") > 0
    resident = [int(Path(f"/proc/{number}/statm").read_text().split()[1]) for number in workers(service)]
    assert service.metric("process_resident_memory_bytes") > max(resident) * os.sysconf("SC_PAGE_SIZE") * 1.3
    assert service.stop() == 0
    assert "Traceback" not in service.log


def test_page_is_that_of_one_process(start: "Start", tiny_artifact: Path) -> None:
    one, two = start(tiny_artifact), start(tiny_artifact, *TWO)
    for service in (one, two):
        assert post(service, ["a"]).status_code == 200
        assert post(service, []).status_code == 400
        service.metric("berth_ready")
    assert families(two) == families(one)
    assert "[" not in one.log.split("berth.requests")[1].split(":")[0]


def test_killed_worker_is_replaced_while_others_answer(start: "Start", tiny_artifact: Path) -> None:
    service = start(tiny_artifact, *TWO)
    wait_for_two(service)
    enough = threading.Event()
    outcomes: list[int | httpx.TransportError] = []

    def post_on() -> None:
        while not enough.is_set():
            try:
                outcomes.append(post(service, ["a b c"]).status_code)
            except httpx.TransportError as error:
                outcomes.append(error)

    with ThreadPoolExecutor(4) as pool:
        clients = [pool.submit(post_on) for _ in range(4)]
        try:
            service.until(lambda: len(answering(service)) == 2)
            [killed, kept] = workers(service)
            os.kill(killed, signal.SIGKILL)
            service.until(lambda: f"worker {killed} ended with signal 9" in service.written)
            at_kill = len(outcomes)
            service.until(lambda: len(workers(service)) == 2)
            [replacement] = set(workers(service)) - {kept}
            service.until(lambda: str(replacement) in answering(service))
        finally:
            enough.set()
        for client in clients:
            client.result()
    assert len(outcomes) > at_kill
    lost = [outcome for outcome in outcomes if outcome != 200]
    assert len(lost) <= 4, "each client had one request under way"
    assert all(isinstance(outcome, httpx.TransportError) for outcome in lost), lost
    service.until(lambda: service.metric("berth_requests_in_flight") == 1)
    assert service.metric("berth_ready") == 2
    assert service.stop() == 0


def test_what_the_dead_counted_stays(start: "Start", tiny_artifact: Path) -> None:
    service = start(tiny_artifact, *TWO)
    wait_for_two(service)
    for _ in range(10):
        post(service, ["a"])
    service.until(lambda: service.metric("berth_texts_total") == 10)
    for number in workers(service):
        os.kill(number, signal.SIGKILL)
    assert post(service, ["waits for a worker"]).status_code == 200
    wait_for_two(service)
    assert service.metric("berth_texts_total") == 11
    assert service.metric("berth_requests_total", route="/v1/embeddings", status="200") == 11
    assert service.metric("berth_requests_in_flight") == 1


def test_worker_that_is_told_to_end_is_replaced(start: "Start", tiny_artifact: Path) -> None:
    service = start(tiny_artifact, *TWO)
    wait_for_two(service)
    told = workers(service)[0]
    os.kill(told, signal.SIGTERM)
    service.until(lambda: f"worker {told} ended with status 0" in service.written)
    wait_for_two(service)


def test_sigterm_under_load_answers_everything(start: "Start", minilm: Path) -> None:
    service = start(minilm, "--workers", "2", "--shutdown-grace", "1.5", "--threads", "1")
    wait_for_two(service)
    with ThreadPoolExecutor(16) as pool:
        answers = [pool.submit(post, service, bulk()) for _ in range(12)]
        service.until(lambda: service.metric("berth_requests_in_flight") == 13)
        service.process.send_signal(signal.SIGTERM)
        service.until(lambda: service.metric("berth_ready") == 0)
        with service.client() as http:
            ready, live = http.get("/health/ready"), http.get("/health/live")
            late = http.post("/v1/embeddings", json={"input": "late"})
        assert (ready.status_code, live.status_code, late.status_code) == (503, 200, 200)
        assert {answer.headers["connection"] for answer in (ready, live, late)} == {"close"}
        replies = [answer.result() for answer in answers]
    assert [reply.status_code for reply in replies] == [200] * 12
    assert [len(reply.json()["data"]) for reply in replies] == [16] * 12
    assert service.process.wait(30) == 0
    assert refuses(service.port)
    assert "Traceback" not in service.log


def test_sigint_answers_what_was_accepted(start: "Start", minilm: Path) -> None:
    service = start(minilm, "--workers", "2", "--threads", "1", "--shutdown-grace", "60")
    with ThreadPoolExecutor(4) as pool:
        answers = [pool.submit(post, service, bulk()) for _ in range(4)]
        service.until(lambda: service.metric("berth_requests_in_flight") == 5)
        assert service.stop(signal.SIGINT) == 0
        assert [answer.result().status_code for answer in answers] == [200] * 4
    assert "Traceback" not in service.log


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_signal_before_anything_is_ready_ends_with_status_0(
    launch: "Launch", minilm: Path, number: signal.Signals
) -> None:
    service = launch(minilm, "--workers", "2", "--shutdown-grace", "60")
    children = Path(f"/proc/{service.process.pid}/task/{service.process.pid}/children")
    service.until(lambda: bool(children.read_text()))
    assert service.stop(number) == 0
    assert "Traceback" not in service.log


def test_what_cannot_be_served_ends_with_one_line_and_status_1(launch: "Launch", tmp_path: Path) -> None:
    service = launch(tmp_path / "nowhere", "--workers", "3")
    assert service.process.wait(20) == 1
    assert (
        service.log == f"berth: {tmp_path / 'nowhere'} is not an artifact: manifest.json: No such file or directory\n"
    )


def test_model_that_is_gone_at_a_restart_ends_the_whole(start: "Start", tiny_artifact: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_artifact, tmp_path / "artifact"))
    service = start(folder, *TWO)
    wait_for_two(service)
    (folder / "tokenizer.json").unlink()
    os.kill(workers(service)[0], signal.SIGKILL)
    assert service.process.wait(30) == 1
    assert len([line for line in service.log.splitlines() if "tokenizer.json" in line]) == 1, service.log
    assert refuses(service.port)


def test_port_that_is_taken_is_said_in_one_line(launch: "Launch", tiny_artifact: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        service = launch(tiny_artifact, "--workers", "2", "--port", str(port))
        assert service.process.wait(20) == 1
    [line] = service.log.splitlines()
    assert f"berth: cannot serve on 127.0.0.1:{port}: " in line


def test_workers_end_with_a_supervisor_that_was_killed(start: "Start", tiny_artifact: Path) -> None:
    service = start(tiny_artifact, *TWO)
    wait_for_two(service)
    port = service.port
    service.process.kill()
    service.process.wait()
    end = time.monotonic() + 30
    while not refuses(port):
        assert time.monotonic() < end, service.tail
        time.sleep(0.02)
