"""From a model's name to its artifact, which is exported where it is not there yet."""

import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from berth import models
from berth.artifact import MANIFEST, read_artifact
from berth.errors import ExportFailedError, ModelNotFoundError
from berth.models import artifact_folder, export, find_artifact, given_artifact
from berth.placement import ExportTarget
from tests.conftest import Amend

CPU = ExportTarget("cpu", "fp32")


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Give a list of the export processes that are started."""
    started: list[list[str]] = []
    start = subprocess.Popen

    def counting(command: list[str], **options: Any) -> Any:
        started.append(command)
        return start(command, **options)

    monkeypatch.setattr(subprocess, "Popen", counting)
    return started


def test_an_artifacts_folder_is_taken_as_it_is(tiny_artifact: Path, tmp_path: Path, commands: list[list[str]]) -> None:
    assert given_artifact(str(tiny_artifact)) == tiny_artifact
    assert find_artifact(str(tiny_artifact), CPU, tmp_path) == tiny_artifact
    assert find_artifact(str(tiny_artifact), ExportTarget("cuda", "fp16"), tmp_path) == tiny_artifact
    assert (commands, list(tmp_path.iterdir())) == ([], [])


@pytest.mark.parametrize("model", ["sentence-transformers/all-MiniLM-L6-v2", "no-such-model"])
def test_what_is_no_artifact_is_not_given(model: str, tiny_checkpoint: Path) -> None:
    assert given_artifact(model) is None
    assert given_artifact(str(tiny_checkpoint)) is None


def test_a_checkpoints_folder_is_exported_once(
    tiny_checkpoint: Path,
    tmp_path: Path,
    commands: list[list[str]],
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    folder = find_artifact(str(tiny_checkpoint), CPU, tmp_path)
    assert read_artifact(folder).manifest.hidden_size == 60
    assert folder.is_relative_to(tmp_path)
    assert folder.name == "cpu-fp32"
    assert caplog.text.count("verified on") == 1
    assert capfd.readouterr() == ("", ""), "stdout and stderr are the caller's"

    written = (folder / MANIFEST).stat().st_mtime_ns
    assert find_artifact(str(tiny_checkpoint), CPU, tmp_path) == folder
    assert (folder / MANIFEST).stat().st_mtime_ns == written
    assert len(commands) == 1
    assert capfd.readouterr() == ("", "")


def test_each_target_has_an_export_of_its_own(tiny_checkpoint: Path, tmp_path: Path, commands: list[list[str]]) -> None:
    targets = CPU, ExportTarget("cpu", "int8", 8), ExportTarget("cpu", "int8", 7)
    folders = [find_artifact(str(tiny_checkpoint), target, tmp_path) for target in targets]
    manifests = [read_artifact(folder).manifest for folder in folders]
    assert [manifest.precision for manifest in manifests] == ["fp32", "int8", "int8"]
    assert [manifest.weight_bits for manifest in manifests] == [None, 8, 7]
    assert [folder.name for folder in folders] == ["cpu-fp32", "cpu-int8", "cpu-int8w7"]
    assert len(commands) == 3


def test_what_another_version_left_in_the_cache_is_exported_again(
    tiny_checkpoint: Path, tiny_artifact: Path, tmp_path: Path, amend: Amend, commands: list[list[str]]
) -> None:
    folder = artifact_folder(str(tiny_checkpoint), CPU, tmp_path)
    shutil.copytree(tiny_artifact, folder)
    assert find_artifact(str(tiny_checkpoint), CPU, tmp_path) == folder
    assert not commands, "what this version reads is taken as it is"
    amend(folder, format_version=4)
    assert find_artifact(str(tiny_checkpoint), CPU, tmp_path) == folder
    assert len(commands) == 1
    assert read_artifact(folder).manifest.format_version == 5


@pytest.mark.parametrize(
    "name", ["/no/such/folder", "./no-such-folder", "../no-such-folder", "~/no-such-folder", "~nosuch/x"]
)
def test_a_folder_that_is_not_there_is_named(name: str, tmp_path: Path, commands: list[list[str]]) -> None:
    with pytest.raises(ModelNotFoundError, match=f"^{re.escape(name)}: there is no such folder$"):
        find_artifact(name, CPU, tmp_path)
    assert (commands, list(tmp_path.iterdir())) == ([], [])


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").touch()
    with pytest.raises(ModelNotFoundError):
        find_artifact(str(tmp_path / "model.onnx"), CPU, tmp_path / "cache")


def test_an_export_that_fails_says_why_in_its_own_words(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    empty, cache = tmp_path / "empty", tmp_path / "cache"
    empty.mkdir()
    with pytest.raises(ExportFailedError) as error:
        find_artifact(str(empty), CPU, cache)
    assert str(error.value) == f"{empty}: there is no config.json, so this is not a checkpoint"
    assert error.value.status == 1
    assert not list(cache.rglob(MANIFEST))
    assert capfd.readouterr() == ("", ""), "it is said once, by whoever catches it"


def test_an_export_that_ends_without_a_word_is_told_by_the_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", shutil.which("false"))
    with pytest.raises(ExportFailedError, match=r"^the export of some/model failed$") as error:
        export("some/model", tmp_path / "out", CPU)
    assert error.value.status == 1


@pytest.mark.parametrize(("number", "reason"), [(signal.SIGKILL, ", as when memory runs out"), (signal.SIGABRT, "")])
def test_an_export_that_is_killed_says_by_which_signal(
    tiny_checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: signal.Signals,
    reason: str,
) -> None:
    start = subprocess.Popen

    def killing(command: list[str], **options: Any) -> Any:
        process = start(command, **options)
        process.send_signal(number)
        return process

    monkeypatch.setattr(subprocess, "Popen", killing)
    with pytest.raises(ExportFailedError) as error:
        find_artifact(str(tiny_checkpoint), CPU, tmp_path)
    assert str(error.value) == f"the export of {tiny_checkpoint} was ended by signal {number:d}{reason}"
    assert error.value.status == 128 + number


def test_an_export_ends_with_whoever_waits_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C, or SIGTERM, which the command makes an exception of."""
    processes: list[Any] = []

    class Interrupted(subprocess.Popen[bytes]):
        def __init__(self, _: Sequence[str], **options: Any) -> None:
            super().__init__([sys.executable, "-c", "import time; time.sleep(600)"], **options)
            processes.append(self)

        def communicate(self, *_: Any, **__: Any) -> Any:
            raise KeyboardInterrupt

    monkeypatch.setattr(subprocess, "Popen", Interrupted)
    with pytest.raises(KeyboardInterrupt):
        export("some/model", tmp_path / "out", CPU)
    assert processes[0].returncode == -signal.SIGTERM


# Packages of ours have common names, and a user's own folders may have the same.


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """Give a folder to work in, with packages that are called as two of Berth's and cannot be imported."""
    for package in ("service", "model_export"):
        (tmp_path / package).mkdir()
        for module in ("__init__", "__main__", "settings", "export"):
            (tmp_path / package / f"{module}.py").write_text("raise SystemExit('not the one that was meant')")
    return tmp_path


def python(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], cwd=folder, capture_output=True, text=True, check=False)


def test_the_library_takes_no_code_from_the_folder_it_is_used_in(elsewhere: Path, tiny_checkpoint: Path) -> None:
    code = (
        "import sys, berth\n"
        "with berth.Encoder(sys.argv[1], device='cpu', cache_dir='cache') as encoder:\n"
        "    print(encoder.encode('hello').shape)"
    )
    result = python(elsewhere, "-c", code, str(tiny_checkpoint))
    assert (result.returncode, result.stdout) == (0, "(60,)\n"), result.stderr
    assert list(elsewhere.glob("cache/*/cpu-fp32/manifest.json"))


def test_the_command_exports_without_the_folders_code(elsewhere: Path, tiny_checkpoint: Path) -> None:
    result = python(elsewhere, "-m", "berth", "export", str(tiny_checkpoint), "out")
    assert (result.returncode, result.stderr) == (0, "")
    assert read_artifact(elsewhere / "out").manifest.hidden_size == 60


def test_the_command_serves_without_the_folders_code(elsewhere: Path) -> None:
    result = python(elsewhere, "-m", "berth", "serve", "--help")
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.startswith("usage: berth serve")


@pytest.mark.parametrize("path", ["elsewhere", ""], ids=["a path of the user's", "an empty one"])
def test_the_export_is_berths_own_whatever_the_users_path(
    elsewhere: Path, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    monkeypatch.setenv("PYTHONPATH", path and str(elsewhere))
    monkeypatch.chdir(elsewhere)
    export(str(tiny_checkpoint), elsewhere / "out", CPU)
    assert read_artifact(elsewhere / "out").manifest.hidden_size == 60


def test_a_model_id_has_its_place_in_the_cache(tmp_path: Path) -> None:
    place = tmp_path / "intfloat" / "e5-small"
    assert artifact_folder("intfloat/e5-small", CPU, tmp_path) == place / "cpu-fp32"
    assert artifact_folder("intfloat/e5-small", ExportTarget("cuda", "fp16"), tmp_path) == place / "cuda-fp16"


def test_the_cache_may_be_in_the_users_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert artifact_folder("some/model", CPU) == tmp_path / ".cache" / "berth" / "some" / "model" / "cpu-fp32"


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """Give a folder that looks like a checkpoint from afar."""
    folder = tmp_path / "tug"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    return folder


@pytest.mark.parametrize("name", ["config.json", "vocab.txt", "shard.safetensors", "1_Pooling/config.json"])
def test_a_checkpoint_that_changed_has_another_place(checkpoint: Path, name: str) -> None:
    cache = checkpoint.parent / "cache"
    before = artifact_folder(str(checkpoint), CPU, cache)
    assert before == artifact_folder(str(checkpoint), CPU, cache)
    assert before.parent.name.startswith("tug-")
    (checkpoint / name).parent.mkdir(exist_ok=True)
    (checkpoint / name).write_text('{"a": 1}')
    assert artifact_folder(str(checkpoint), CPU, cache) != before


def test_a_checkpoint_has_one_place_however_it_is_spelled(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = checkpoint.parent / "cache"
    place = artifact_folder(str(checkpoint), CPU, cache)
    monkeypatch.chdir(checkpoint.parent)
    monkeypatch.setenv("HOME", str(checkpoint.parent))
    assert [artifact_folder(name, CPU, cache) for name in ("tug", "./tug", "~/tug")] == [place] * 3


@pytest.mark.parametrize("place", ["", "snapshots/0123"], ids=["the model", "a snapshot"])
def test_a_folder_of_the_hubs_cache_has_the_models_place(tmp_path: Path, place: str) -> None:
    folder = tmp_path / "models--owner--name"
    for file, content in {"refs/main": "0123", "snapshots/0123/config.json": "{}", "blobs/ab": "a"}.items():
        (folder / file).parent.mkdir(parents=True)
        (folder / file).write_text(content)
    link = folder / "snapshots" / "0123" / "vocab.txt"
    link.symlink_to("../../blobs/ab")
    found = artifact_folder(str(folder / place), CPU, tmp_path / "cache")
    assert re.fullmatch(r"owner/name-[0-9a-f]{12}/cpu-fp32", found.relative_to(tmp_path / "cache").as_posix())
    (folder / "blobs" / "ab").write_text("another")
    assert artifact_folder(str(folder / place), CPU, tmp_path / "cache") != found
    (folder / "snapshots" / "0123").rename(folder / "snapshots" / "4567")
    (folder / "snapshots" / "89ab").mkdir()
    with pytest.raises(ModelNotFoundError, match="2 snapshots, and refs/main names none of them"):
        artifact_folder(str(folder), CPU, tmp_path / "cache")


def test_what_no_export_reads_changes_no_place(checkpoint: Path, tiny_artifact: Path) -> None:
    cache = checkpoint / "cache"
    before = artifact_folder(str(checkpoint), CPU, cache)
    (checkpoint / "README.md").touch()
    (checkpoint / "model.safetensors").symlink_to("nowhere")
    (checkpoint / ".git").mkdir()
    (checkpoint / ".git" / "config.json").touch()
    (cache / "calibration.json").parent.mkdir()
    (cache / "calibration.json").touch()
    shutil.copytree(tiny_artifact, before)
    assert artifact_folder(str(checkpoint), CPU, cache) == before


def test_the_default_model_is_the_one_of_the_wheel() -> None:
    assert models.DEFAULT_MODEL == "sentence-transformers/all-MiniLM-L6-v2"
