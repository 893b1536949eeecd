"""What the end of a worker means; tests/end_to_end/test_workers.py ends real ones."""

import asyncio
import errno
import json
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.settings import Settings
from service.sockets import bind
from service.supervisor import Supervisor, supervise


@pytest.fixture
def supervisor(tmp_path: Path) -> Iterator[Supervisor]:
    """Give a supervisor that has started nothing yet."""
    with socket.socket() as listener:
        yield Supervisor(Settings(workers=2), [listener], tmp_path)


@pytest.mark.parametrize("status", [0, 1, -signal.SIGKILL, -signal.SIGTERM])
def test_place_of_a_worker_that_was_ready_is_filled_again(supervisor: Supervisor, status: int) -> None:
    supervisor._opened.set()
    supervisor._judge(1, status, was_ready=True)
    assert (supervisor._ending.is_set(), supervisor._failed) == (False, False)


def test_kill_before_it_was_ready_is_no_failure_of_the_model(supervisor: Supervisor) -> None:
    supervisor._opened.set()
    supervisor._judge(1, -signal.SIGKILL, was_ready=False)
    assert (supervisor._ending.is_set(), supervisor._failed) == (False, False)


@pytest.mark.parametrize(("opened", "status"), [(False, 1), (False, -signal.SIGKILL), (True, 1)])
def test_model_that_cannot_be_loaded_ends_the_whole(supervisor: Supervisor, opened: bool, status: int) -> None:
    if opened:
        supervisor._opened.set()
    supervisor._judge(1, status, was_ready=False)
    assert (supervisor._ending.is_set(), supervisor._failed) == (True, True)


@pytest.mark.parametrize(
    ("was_ready", "status", "failed"),
    [(True, 0, False), (True, -signal.SIGKILL, True), (True, 1, True), (False, -signal.SIGTERM, False)],
)
def test_end_of_all_is_good_where_every_worker_ended_well(
    supervisor: Supervisor, was_ready: bool, status: int, failed: bool
) -> None:
    supervisor._end(signal.SIGTERM)
    supervisor._judge(1, status, was_ready=was_ready)
    assert supervisor._failed == failed


def test_worker_takes_no_code_from_the_folder_it_is_started_in(
    tiny_artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "service.py").write_text("raise SystemExit('not the one that was meant')")
    monkeypatch.chdir(tmp_path)

    async def is_ready(supervisor: Supervisor) -> bool:
        worker = await supervisor._start(0)
        try:
            return await supervisor._is_ready(worker, 0)
        finally:
            worker.kill()
            await worker.wait()

    with bind("127.0.0.1", 0) as listener:
        settings = Settings(model=str(tiny_artifact), device="cpu", max_batch_tokens=64, workers=2)
        assert asyncio.run(is_ready(Supervisor(settings, [listener], tmp_path)))


def test_address_that_cannot_be_bound_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert supervise(Settings(workers=2, host="no.such.host.invalid")) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("berth: cannot serve on no.such.host.invalid:8080: ")


def test_settings_reach_a_worker_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BERTH_SERVED_MODEL_NAME", "variable")
    settings = Settings(
        workers=2, encode_layers=[-1, -2], cache_dir=Path("/nowhere"), threads=3, served_model_name="tug"
    )
    assert Settings(**json.loads(settings.model_dump_json())) == settings


@pytest.mark.parametrize("opened", [False, True])
def test_worker_that_the_system_cannot_start_is_no_end_of_the_others(
    supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, opened: bool
) -> None:
    """It can happen where one was killed for want of memory; before the first was ready it ends the whole."""

    async def fail(*_: object, **__: object) -> None:
        raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")

    monkeypatch.setattr(asyncio, "create_subprocess_exec", fail)
    if opened:
        supervisor._opened.set()
    assert not asyncio.run(supervisor._fill(0))
    assert "no worker can be started: [Errno 11] Resource temporarily unavailable" in caplog.text
    assert (supervisor._ending.is_set(), supervisor._failed) == (not opened, not opened)
