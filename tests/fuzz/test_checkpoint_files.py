"""Damaged JSON files of a checkpoint: an artifact or one line, never another error, a hang, or memory without end."""

import resource
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from berth.artifact import read_artifact
from tests.fuzz.conftest import COMMANDS, FILES, SEED
from tests.model_export.damage import DAMAGED, Checkpoints, check_line, read

ROOM = 512 << 20
"""Bytes that reading damaged files may take beyond what it takes to read the first."""
ADDRESSES = 12 << 30
"""Bytes of address space that an export may have; the libraries alone map some."""


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Checkpoints:
    """Give checkpoints to damage."""
    return Checkpoints(tmp_path_factory.mktemp("damaged"))


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("kind", DAMAGED)
def test_any_file_is_read_or_refused(checkpoints: Checkpoints, kind: str) -> None:
    lines: list[str | None] = []

    @seed(SEED)
    @settings(max_examples=FILES, deadline=None, suppress_health_check=list(HealthCheck))
    @given(drawn=DAMAGED[kind])
    def try_file(drawn: tuple[str, str, bytes]) -> None:
        with checkpoints.with_file(*drawn) as folder:
            lines.append(read(folder))
        if lines[-1] is not None:
            check_line(lines[-1])

    with checkpoints.with_file("bert", "config.json", b"{}") as folder:
        read(folder)
    read(folder)
    before = _most_memory()
    try_file()
    print(f"{kind}: {len(lines)} files, {lines.count(None)} of them read, {len({*lines})} different answers")
    assert lines.count(None) < len(lines)
    assert _most_memory() - before < ROOM


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("kind", DAMAGED)
def test_the_command_writes_an_artifact_or_one_line(tmp_path: Path, checkpoints: Checkpoints, kind: str) -> None:
    @seed(SEED)
    @settings(max_examples=COMMANDS, deadline=None, suppress_health_check=list(HealthCheck), phases=[Phase.generate])
    @given(data=st.data())
    def try_file(data: st.DataObject) -> None:
        out = tmp_path / "artifacts" / "out"
        with checkpoints.with_file(*data.draw(DAMAGED[kind])) as folder:
            export = subprocess.run(
                [sys.executable, "-m", "model_export", str(folder), str(out)],
                capture_output=True,
                text=True,
                check=False,
                timeout=300,
                preexec_fn=_bound_memory,
            )
        assert "Traceback" not in export.stderr, export.stderr
        if export.returncode == 0:
            read_artifact(out)
            return
        assert export.returncode == 1, (export.returncode, export.stderr)
        [line] = [line for line in export.stderr.splitlines() if line.startswith("error: ")]
        check_line(line)
        assert not out.parent.exists() or not {path.name for path in out.parent.iterdir()} - {"out"}

    try_file()


def _most_memory() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _bound_memory() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESSES, ADDRESSES))
