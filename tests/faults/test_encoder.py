"""The encoder raises, gives NaN or does not come back: who asked for something else is answered rightly, and soon."""

import signal
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.end_to_end.conftest import HANGING, RAISING, SPOILT, Faulty, Service
from tests.faults.conftest import Load, Readiness, Right, check, embed, text


@pytest.mark.parametrize("word", [RAISING, SPOILT])
def test_only_the_text_on_which_the_encoder_fails_has_an_error(faulty: Faulty, right: Right, word: str) -> None:
    service = faulty.start("--threads", "1")
    with Readiness(service) as ready, Load(service, right) as load:
        for _ in range(20):
            answer = embed(service, text(), f"{text()} {word}", text())
            assert (answer.status_code, answer.json()["error"]["code"]) == (500, "encoder_error")
        load.until_answered(20)
    assert load.outcomes.keys() == {200}
    assert not load.wrong
    assert set(ready.said) == {200}
    assert service.metric("berth_encoder_errors_total") == 20
    assert service.metric("berth_encoder_stalls_total") == 0


@pytest.mark.parametrize("word", [RAISING, SPOILT])
def test_neighbours_in_one_request_are_answered_where_errors_are_reported(
    faulty: Faulty, right: Right, word: str
) -> None:
    service = faulty.start()
    inputs = [text() for _ in range(16)]
    inputs[5] += f" {word}"
    with service.client() as http:
        fields = {"inputs": inputs, "features": [{"pooling": "mean"}], "on_error": "report"}
        items = http.post("/v1/features", json=fields).json()["data"]
    assert items[5]["error"]["code"] == "encoder_error"
    for place in {*range(16)} - {5}:
        right.check(inputs[place], items[place]["features"][0])


def stalls(service: Service) -> float:
    return service.metric("berth_encoder_stalls_total")


def test_batch_that_hangs_is_told_and_forgotten_when_it_ends(faulty: Faulty, right: Right) -> None:
    """One of two threads for short requests hangs: the probes say so, and the other answers what still comes, rightly.

    Each text has a batch of its own: one beside that which hangs would wait with it for its own deadline. The load's
    requests of several texts are bulk then, which has threads of its own.
    """
    service = faulty.start("--threads", "2", "--max-batch-tokens", "1", "--request-timeout", "5")
    with Readiness(service) as ready, ThreadPoolExecutor(1) as pool:
        with Load(service, right) as load:
            load.until_answered(20)
            assert set(ready.said) <= {200}
            answer = pool.submit(embed, service, f"{text()} {HANGING}")
            ready.turns(503)
            late = answer.result()
            assert (late.status_code, late.json()["error"]["code"]) == (504, "deadline_exceeded")
            load.until_answered(20)
        assert ready.said[-1] == 503
        with service.client() as http:
            for path in ("/health", "/health/ready", "/health/live"):
                told = http.get(path)
                assert (told.status_code, told.json()["error"]["code"]) == (503, "not_ready")
                assert "hangs" in told.json()["error"]["message"]
        check(right, embed(service, words := text()), words)
        assert (service.metric("berth_ready"), stalls(service)) == (0, 1)
        faulty.release.touch()
        ready.turns(200)
    with service.client() as http:
        assert http.get("/health/live").status_code == 200
    assert load.outcomes.keys() == {200}
    assert not load.wrong
    check(right, embed(service, words := f"{text()} {HANGING}"), words)
    assert (service.metric("berth_ready"), stalls(service)) == (1, 1)
    assert "the encoder hangs: a batch has run longer than a request may take" in service.log
    assert "ready again" in service.log


def test_every_thread_for_short_requests_hangs_and_every_request_has_its_answer(faulty: Faulty, right: Right) -> None:
    service = faulty.start("--threads", "1", "--request-timeout", "2")
    embed(service, text())
    with Readiness(service) as ready, ThreadPoolExecutor(8) as pool:
        hanging = pool.submit(embed, service, f"{text()} {HANGING}")
        ready.turns(503)
        answers = [pool.submit(embed, service, text(), timeout=1) for _ in range(8)]
        assert {answer.result().status_code for answer in [hanging, *answers]} == {504}
        assert service.metric("berth_queue_units") == 0
        faulty.release.touch()
        ready.turns(200)
    check(right, embed(service, words := text()), words)


def test_batch_that_is_long_within_a_requests_time_is_no_hang(faulty: Faulty, right: Right) -> None:
    """A client's own deadline is no measure of it."""
    service = faulty.start("--threads", "1", "--request-timeout", "300")
    with Readiness(service) as ready:
        assert embed(service, f"{text()} {HANGING}", timeout=4).status_code == 504
        assert set(ready.said) == {200}
    assert stalls(service) == 0
    faulty.release.touch()
    check(right, embed(service, words := text()), words)


def test_service_that_hangs_for_good_still_ends_when_told(faulty: Faulty) -> None:
    """The liveness probe is what has it replaced."""
    service = faulty.start("--threads", "1", "--request-timeout", "1", "--shutdown-grace", "0")
    with service.client() as http:
        assert embed(service, HANGING).status_code == 504
        service.until(lambda: http.get("/health/live").status_code == 503)
    assert "restart this process" in service.log
    assert service.stop(signal.SIGTERM) == 0
