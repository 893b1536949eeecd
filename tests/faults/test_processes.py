"""Processes end or stand still while requests are on the way: nobody gets a wrong vector; readiness tells the truth."""

import signal
from concurrent.futures import ThreadPoolExecutor

from tests.end_to_end.conftest import HANGING, Faulty, Start
from tests.faults.conftest import Load, Readiness, Right, check, embed, text


def test_sigterm_under_load_loses_no_request(start: Start, tiny_artifact: str, right: Right) -> None:
    """Clients go on sending until the port is closed, which SIGINT does, and what was accepted is answered rightly."""
    service = start(tiny_artifact, "--shutdown-grace", "300")
    with Readiness(service) as ready, Load(service, right, clients=8) as load:
        load.until_answered(50)
        service.process.send_signal(signal.SIGTERM)
        ready.turns(503)
        ready.said.clear()
        load.until_answered(50)
        service.process.send_signal(signal.SIGINT)
        assert service.end() == 0
    assert {said for said in ready.said if isinstance(said, int)} <= {503}
    assert load.outcomes.keys() <= {200, "ConnectError"}
    assert not load.wrong


def test_process_that_is_killed_gives_no_wrong_answer(start: Start, tiny_artifact: str, right: Right) -> None:
    service = start(tiny_artifact)
    with Load(service, right, clients=8) as load:
        load.until_answered(50)
        assert service.stop(signal.SIGKILL) == -signal.SIGKILL
    assert load.outcomes[200] >= 50
    lost = load.outcomes.total() - load.outcomes[200] - load.outcomes["ConnectError"]
    assert lost <= 8, "each client had one request on the way"
    assert not [outcome for outcome in load.outcomes if isinstance(outcome, int) and outcome != 200]
    assert not load.wrong


def test_process_that_is_paused_does_not_take_itself_for_hung(faulty: Faulty, right: Right) -> None:
    """After SIGCONT the batch that ran looks as old as the pause was long, and ends."""
    service = faulty.start("--threads", "1", "--request-timeout", "5")
    words = f"{text()} {HANGING}"
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(embed, service, words)
        service.until(lambda: service.metric("berth_requests_in_flight") == 2)
        service.process.send_signal(signal.SIGSTOP)
        try:
            answer.result(7)
        except TimeoutError:  # a pause longer than a request may take
            faulty.release.touch()
        service.process.send_signal(signal.SIGCONT)
        with Readiness(service) as ready:
            ready.turns(200)
            status = answer.result().status_code
            ready.turns(200)
    assert status in {200, 504}, "its own deadline has passed, or is about to"
    assert set(ready.said) == {200}
    assert service.metric("berth_encoder_stalls_total") == 0
    check(right, embed(service, words), words)
    assert "hangs" not in service.log
