"""The wheel, built and installed into empty environments: what a user has who types `pip install`."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from bench.server import free_port

ROOT = Path(__file__).parents[1]
START_BOUND = 60.0


def run(*command: str | Path, cwd: Path, status: int = 0) -> str:
    """Run a command without this tree on its path; gives all that it says."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("BERTH_", "PYTHON"))}
    result = subprocess.run(
        [*map(str, command)], cwd=cwd, env=environment, capture_output=True, text=True, check=False, timeout=280
    )
    assert result.returncode == status, result.stdout + result.stderr
    return result.stdout + result.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel of what git would clone."""
    folder = tmp_path_factory.mktemp("wheel")
    tree = Path(shutil.copytree(ROOT, folder / "tree", ignore=shutil.ignore_patterns(".*", "__pycache__", "build")))
    run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, tree, cwd=folder)
    [built] = folder.glob("berth_embeddings-*.whl")
    return built


@pytest.fixture(scope="module")
def users_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a folder with packages of the user's own, named as two of Berth's; each ends what imports it."""
    folder = tmp_path_factory.mktemp("user")
    for name in ("service", "model_export"):
        (folder / name).mkdir()
        (folder / name / "__init__.py").write_text("raise SystemExit('the user\\'s own package was imported')\n")
    return folder


def environment(folder: Path) -> Path:
    """Make an empty environment; gives its Python."""
    run(sys.executable, "-m", "venv", folder, cwd=folder.parent)
    return folder / "bin" / "python"


def install(python: Path, *what: str | Path) -> None:
    run(python, "-m", "pip", "install", "--quiet", *what, cwd=python.parent)


@pytest.fixture(scope="module")
def bare(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the Python of an environment with the wheel and what it cannot do without."""
    python = environment(tmp_path_factory.mktemp("bare") / "venv")
    install(python, wheel)
    return python


@pytest.fixture(scope="module")
def serving(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the Python of an environment that serves on the CPU."""
    python = environment(tmp_path_factory.mktemp("cpu") / "venv")
    install(python, f"{wheel}[cpu]")
    return python


def test_client_alone_needs_two_packages(bare: Path, users_folder: Path) -> None:
    assert "usage: berth COMMAND" in run(bare.parent / "berth", "--help", cwd=users_folder)
    run(bare, "-c", "import berth; berth.Client('http://127.0.0.1:1').close()", cwd=users_folder)


@pytest.mark.parametrize("command", ["serve", "export"])
def test_what_is_missing_is_one_line(bare: Path, users_folder: Path, command: str) -> None:
    said = run(bare.parent / "berth", command, "--help", cwd=users_folder, status=1)
    assert said.count("\n") == 1
    assert "pip install 'berth-embeddings[cpu]'" in said


@pytest.fixture
def served(serving: Path, users_folder: Path, tiny_checkpoint: Path, tmp_path: Path) -> Iterator[str]:
    """Serve a checkpoint's folder from the user's folder by `python -m berth serve`; gives the address."""
    port = free_port()
    command = [serving, "-m", "berth", "serve", "--model", tiny_checkpoint, "--port", port, "--cache-dir", tmp_path]
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen([*map(str, command)], cwd=users_folder, stdout=log, stderr=log)
    try:
        url, end = f"http://127.0.0.1:{port}", time.monotonic() + START_BOUND
        while not _ready(url):
            assert process.poll() is None, (tmp_path / "log").read_text()
            assert time.monotonic() < end, (tmp_path / "log").read_text()
            time.sleep(0.1)
        yield url
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()


def _ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health/ready", trust_env=False).status_code == 200
    except httpx.TransportError:
        return False


def test_folder_of_the_users_own_is_no_obstacle(served: str) -> None:
    answer = httpx.post(f"{served}/v1/embeddings", json={"input": "hello world"}, trust_env=False)
    assert answer.status_code == 200, answer.text
    assert len(answer.json()["data"][0]["embedding"]) == 60
    assert httpx.get(f"{served}/", trust_env=False).status_code == 200  # the page came along


def test_library_encodes_beside_the_users_own_folders(
    serving: Path, users_folder: Path, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    code = (
        "import berth, sys\n"
        f"with berth.Encoder({str(tiny_checkpoint)!r}, cache_dir={str(tmp_path)!r}) as encoder:\n"
        "    print(encoder.encode(['hello world', 'a text']).shape)\n"
        "assert not {'fastapi', 'service', 'model_export', 'transformers'} & sys.modules.keys()\n"
    )
    assert "(2, 60)" in run(serving, "-c", code, cwd=users_folder)


def test_export_brings_transformers_and_no_torch(serving: Path, users_folder: Path) -> None:
    code = "from importlib.util import find_spec as find; print(*[bool(find(n)) for n in ('transformers', 'torch')])"
    assert run(serving, "-c", code, cwd=users_folder) == "True False\n"


@pytest.mark.parametrize("command", [["serve", "--help"], ["export", "--help"]])
def test_command_is_berths_own(serving: Path, users_folder: Path, command: list[str]) -> None:
    assert "usage: berth" in run(serving.parent / "berth", *command, cwd=users_folder)
    assert "usage: berth" in run(serving, "-m", "berth", *command, cwd=users_folder)
