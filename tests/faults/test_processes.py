"""Processes end while requests are on the way: nobody gets a wrong vector, and readiness is what it says."""

import os
import re
import signal

import httpx

from tests.end_to_end.conftest import Service, Start
from tests.faults.conftest import Load, Readiness, Right


def ready_workers(service: Service) -> list[int]:
    """List the process ids of the workers that are ready, those that are no more left out."""
    started = [int(number) for number in re.findall(r"berth\[(\d+)\]: ready:", service.log)]
    ended = [int(number) for number in re.findall(r"worker (\d+) ended", service.log)]
    return [number for number in started if number not in ended]


def test_killed_workers_are_replaced_and_every_answer_is_right(start: Start, tiny_artifact: str, right: Right) -> None:
    service = start(tiny_artifact, "--workers", "2", "--threads", "1")
    service.until(lambda: len(ready_workers(service)) == 2)
    with Readiness(service) as ready, Load(service, right, clients=8) as load:
        for _ in range(3):
            load.until_answered(50)
            os.kill(ready_workers(service)[0], signal.SIGKILL)
            ready.turns(200)
            service.until(lambda: len(ready_workers(service)) == 2)
    lost = load.outcomes.total() - load.outcomes[200]
    assert lost <= 3 * 8, "each client had one request on the way"
    assert all(isinstance(outcome, str) or outcome == 200 for outcome in load.outcomes), load.outcomes
    assert not load.wrong
    assert {said for said in ready.said if isinstance(said, int)} == {200}


def test_last_worker_that_is_killed_leaves_nobody_who_says_ready(
    start: Start, tiny_artifact: str, right: Right
) -> None:
    """Both at once: whoever asks waits for a worker that is ready, and is told nothing wrong meanwhile."""
    service = start(tiny_artifact, "--workers", "2", "--threads", "1")
    service.until(lambda: len(ready_workers(service)) == 2)
    killed = ready_workers(service)
    for number in killed:
        os.kill(number, signal.SIGKILL)
    answer = httpx.get(f"{service.url}/health/ready", timeout=60, trust_env=False)
    assert answer.status_code == 200
    assert not {*ready_workers(service)} & {*killed}
    with Load(service, right) as load:
        load.until_answered(20)
    assert load.outcomes.keys() == {200}
    assert not load.wrong


def test_sigterm_under_load_loses_no_request(start: Start, tiny_artifact: str, right: Right) -> None:
    """Clients go on sending until the port is closed, and what was accepted until then is answered rightly."""
    service = start(tiny_artifact, "--shutdown-grace", "5")
    with Readiness(service) as ready, Load(service, right, clients=8) as load:
        load.until_answered(50)
        service.process.send_signal(signal.SIGTERM)
        ready.turns(503)
        ready.said.clear()
        assert service.process.wait(30) == 0
    assert {said for said in ready.said if isinstance(said, int)} <= {503}
    assert load.outcomes.keys() <= {200, "ConnectError"}
    assert not load.wrong
