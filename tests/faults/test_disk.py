"""The disk is full or read-only: a start that needs it says so in one line, and a service goes on without it."""

import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from berth.artifact import read_manifest
from berth.backends.cuda.calibration import CalibrationFile
from tests.end_to_end.conftest import Service, Start, environment
from tests.faults.conftest import Load, Readiness, Right

MakeDisk = Callable[[str], Path]


@pytest.fixture
def make_disk(tmp_path: Path) -> Iterator[MakeDisk]:
    """Give a function that mounts a small disk in memory."""
    mounted: list[Path] = []

    def make(options: str) -> Path:
        folder = tmp_path / f"disk-{len(mounted)}"
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", options, "none", str(folder)]
        if os.geteuid() or subprocess.run(command, capture_output=True, check=False).returncode:
            pytest.skip("this user may not mount a disk")
        mounted.append(folder)
        return folder

    yield make
    for folder in mounted:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(folder: Path) -> None:
    """Take what room there is."""
    with (folder / "full").open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(1024))


def check_service(service: Service, right: Right) -> None:
    """Have it answer for a while, rightly."""
    with Readiness(service) as ready, Load(service, right) as load:
        load.until_answered(50)
    assert load.outcomes.keys() == {200}
    assert not load.wrong
    assert set(ready.said) == {200}


@pytest.mark.parametrize("kind", ["full", "read-only"])
def test_calibration_that_cannot_be_kept_is_a_warning(
    make_disk: MakeDisk, tiny_artifact: Path, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    """A GPU's; on the CPU nothing is measured."""
    disk = make_disk("size=64k" if kind == "full" else "size=64k,ro")
    if kind == "full":
        fill(disk)
    file = CalibrationFile(disk / "cache", read_manifest(tiny_artifact), ["NVIDIA H200"])
    file.write(8192)
    [message] = caplog.messages
    assert message.startswith("the calibration cannot be kept: ")
    assert file.read() is None
    assert not list(disk.glob("cache/*")), "nothing half-written is left"


@pytest.mark.parametrize("kind", ["full", "read-only"])
def test_service_needs_no_room_for_itself(
    start: Start, make_disk: MakeDisk, tiny_artifact: Path, right: Right, kind: str
) -> None:
    disk = make_disk("size=64k" if kind == "full" else "size=64k,ro")
    if kind == "full":
        fill(disk)
    service = start(tiny_artifact, "--cache-dir", str(disk / "cache"), TMPDIR=str(disk))
    check_service(service, right)
    assert "Traceback" not in service.log
    assert "WARNING" not in service.log
    assert service.stop() == 0


@pytest.mark.parametrize("command", ["export", "serve"])
@pytest.mark.parametrize("options", ["size=64k", "size=400k", "size=64k,ro"])
def test_export_without_room_is_one_line_and_leaves_nothing(
    make_disk: MakeDisk, tiny_checkpoint: Path, options: str, command: str
) -> None:
    disk = make_disk(options)
    given = [str(tiny_checkpoint), str(disk / "out")] if command == "export" else ["--model", str(tiny_checkpoint)]
    run = subprocess.run(
        [sys.executable, "-m", "berth", command, *given],
        env=environment(BERTH_CACHE_DIR=str(disk / "cache"), BERTH_PORT="0"),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert run.returncode == 1
    *before, line = run.stderr.splitlines()
    assert all(" INFO berth: " in each for each in before)  # which device was chosen
    assert str(disk) in line
    assert re.search("No space left on device|Read-only file system", line)
    assert not [path for path in disk.rglob("*") if path.is_file()]


def test_log_that_cannot_be_written_stops_no_answer(tiny_artifact: Path, right: Right, tmp_path: Path) -> None:
    """Each write to /dev/full fails as on a full disk."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "service", "--model", str(tiny_artifact), "--port", str(port)]
    with Path("/dev/full").open("wb") as full:
        process = subprocess.Popen(command, stdout=full, stderr=full, env=environment())
    note = tmp_path / "log"
    note.write_text(f"running on http://127.0.0.1:{port}")
    service = Service(process, note)

    def answers() -> bool:
        try:
            return httpx.get(f"{service.url}/health/ready", trust_env=False).status_code == 200
        except httpx.TransportError:
            return False

    try:
        service.until(answers)
        check_service(service, right)
        assert service.stop() in {0, 120}  # 120 is Python's own, for a stream that it cannot flush at the end
    finally:
        process.kill()
        process.wait()
