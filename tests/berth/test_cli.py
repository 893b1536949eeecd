"""The `berth` command: where export and service meet."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import berth.models
import berth.placement
import service.__main__
import service.server
from berth.artifact import read_artifact
from berth.backends.cuda.devices import Driver
from berth.cli import main
from berth.errors import ExportFailedError
from berth.placement import ExportTarget
from service.settings import Settings

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _sigterm_as_before() -> Iterator[None]:
    """Give SIGTERM its handler back, for which the command has one of its own."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[Settings]:
    """Give a list of what would have been served."""
    calls: list[Settings] = []

    def serve(settings: Settings) -> int:
        calls.append(settings)
        return 0

    monkeypatch.setattr(service.server, "serve", serve)
    monkeypatch.setattr(service.__main__, "start_logging", lambda _: None)
    return calls


Export = tuple[str, Path, ExportTarget]


@pytest.fixture
def exports(monkeypatch: pytest.MonkeyPatch) -> list[Export]:
    """Give a list of what would have been exported: the model, its place, and for what."""
    calls: list[Export] = []
    monkeypatch.setattr(berth.models, "export", lambda *call: calls.append(call))
    return calls


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], []], ids=str)
def test_help_lists_the_commands(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    assert main(arguments) == 0
    text = capsys.readouterr().out
    assert "berth serve" in text
    assert "berth export" in text


def test_unknown_command_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sail"]) == 2
    assert "there is no command 'sail'" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["serve", "export"])
def test_commands_have_help(capsys: pytest.CaptureFixture[str], command: str) -> None:
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    assert stop.value.code == 0
    shown = capsys.readouterr().out
    assert f"usage: berth {command}" in shown
    assert "python -m" not in shown


def test_artifact_is_served_where_it_is(
    served: list[Settings], exports: list[Export], tiny_artifact: Path, tmp_path: Path
) -> None:
    assert main(["serve", "--model", str(tiny_artifact), "--cache-dir", str(tmp_path)]) == 0
    assert [call.model for call in served] == [str(tiny_artifact)]
    assert list(tmp_path.iterdir()) == []
    assert not exports


def test_artifact_is_served_whatever_device_is_asked_for(
    served: list[Settings], exports: list[Export], tiny_artifact: Path
) -> None:
    """Whether it goes with the artifact is the service's to say: nothing is to be exported."""
    assert main(["serve", "--model", str(tiny_artifact), "--device", "cuda"]) == 0
    assert [call.device for call in served] == ["cuda"]
    assert not exports


def test_checkpoint_is_exported_and_then_served(served: list[Settings], tiny_checkpoint: Path, tmp_path: Path) -> None:
    arguments = ["--cache-dir", str(tmp_path), "--device", "cpu", "--max-texts", "5"]
    assert main(["serve", "--model", str(tiny_checkpoint), *arguments]) == 0
    [settings] = served
    assert settings.max_texts == 5
    assert Path(settings.model).is_relative_to(tmp_path)
    assert read_artifact(Path(settings.model)).manifest.hidden_size == 60


def test_failed_export_ends_the_command_in_one_line(
    served: list[Settings], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    assert main(["serve", "--model", str(empty), "--cache-dir", str(tmp_path / "cache"), "--device", "cpu"]) == 1
    assert served == []
    line = f"berth: {empty}: there is no config.json, so this is not a checkpoint\n"
    assert capfd.readouterr().err == line


def test_status_is_that_of_the_export(
    served: list[Settings], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> None:
        raise ExportFailedError("the export of some/model was ended by signal 9", 137)

    monkeypatch.setattr(berth.models, "export", fail)
    assert main(["serve", "--model", "some/model", "--cache-dir", str(tmp_path), "--device", "cpu"]) == 137
    assert served == []
    assert capsys.readouterr().err == "berth: the export of some/model was ended by signal 9\n"


def test_home_of_nobody_is_no_folder(
    served: list[Settings], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["serve", "--model", "~nosuch/x", "--cache-dir", str(tmp_path)]) == 1
    assert served == []
    assert capsys.readouterr().err == "berth: ~nosuch/x: there is no such folder\n"


def test_export_command_exports(tiny_checkpoint: Path, tmp_path: Path) -> None:
    assert main(["export", str(tiny_checkpoint), str(tmp_path / "out")]) == 0
    assert read_artifact(tmp_path / "out").manifest.layers == 3


def test_interrupt_ends_the_command(
    served: list[Settings], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(berth.models, "export", interrupted)
    assert main(["serve", "--model", "some/model", "--cache-dir", str(tmp_path), "--device", "cpu"]) == 130
    assert (served, capsys.readouterr().err) == ([], "")


@pytest.mark.parametrize(
    ("flags", "export_target"),
    [
        ([], ExportTarget("cuda", "fp16")),
        (["--device", "cuda:1"], ExportTarget("cuda", "fp16")),
        (["--device", "cuda", "--precision", "fp32"], ExportTarget("cuda", "fp32")),
        (["--device", "cpu"], ExportTarget("cpu", "fp32")),
        (["--precision", "int8", "--int8-weights", "8"], ExportTarget("cpu", "int8", 8)),
        (["--precision", "int8", "--int8-weights", "7"], ExportTarget("cpu", "int8", 7)),
    ],
    ids=str,
)
def test_export_is_for_the_device(
    served: list[Settings],
    exports: list[Export],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    flags: list[str],
    export_target: ExportTarget,
) -> None:
    monkeypatch.setattr(berth.placement, "require_gpus", lambda _: Driver((13, 0), ("NVIDIA H200",) * 2))
    assert main(["serve", "--model", "some/model", "--cache-dir", str(tmp_path), *flags]) == 0
    place = tmp_path / "some" / "model" / str(export_target)
    assert exports == [("some/model", place, export_target)]
    assert [call.model for call in served] == [str(place)]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--device", "cuda", "--precision", "int8"], "int8 is for the CPU"),
        (["--device", "cpu", "--precision", "fp16"], "fp16 is for a GPU"),
        (["--device", "cpu", "--int8-weights", "7"], "--int8-weights 7: is for --precision int8"),
    ],
)
def test_impossible_device_ends_before_the_export(
    served: list[Settings],
    exports: list[Export],
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    flags: list[str],
    message: str,
) -> None:
    assert main(["serve", "--model", "some/model", "--cache-dir", str(tmp_path), *flags]) == 1
    assert (served, exports) == ([], [])
    [line] = capsys.readouterr().err.splitlines()
    assert message in line


Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Give a function that runs a new Python with arguments, in an empty folder."""

    def python(*arguments: str) -> "subprocess.CompletedProcess[str]":
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        command = [sys.executable, *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, env=environment)

    return python


def test_module_is_the_command(run: Run) -> None:
    result = run("-m", "berth", "--help")
    assert (result.returncode, result.stderr) == (0, "")
    assert "usage: berth COMMAND" in result.stdout


@pytest.mark.parametrize("command", ["serve", "export"])
def test_commands_take_no_code_from_the_folder_they_are_started_in(run: Run, tmp_path: Path, command: str) -> None:
    for package in ("service", "model_export"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text("raise SystemExit('not the one that was meant')")
    result = run("-m", "berth", command, "--help")
    assert (result.returncode, result.stderr) == (0, "")
    assert f"usage: berth {command}" in result.stdout


def without(package: str, *arguments: str) -> str:
    """Write a program that runs the command where a package is not installed."""
    return f"import sys; sys.modules[{package!r}] = None; from berth.cli import main; sys.exit(main({arguments!r}))"


@pytest.mark.parametrize("package", ["pydantic_settings", "fastapi", "uvicorn", "onnxruntime"])
def test_package_that_serving_lacks_is_one_line_with_the_cure(run: Run, tiny_artifact: Path, package: str) -> None:
    result = run("-c", without(package, "serve", "--model", str(tiny_artifact), "--device", "cpu"))
    assert result.returncode == 1
    assert result.stderr == (
        f"berth: {package} is not installed; pip install 'berth-embeddings[cpu]' brings all that this needs, "
        "or '.[cpu]' in Berth's own folder\n"
    )


@pytest.mark.parametrize("package", ["onnx", "tokenizers"])
def test_package_that_the_export_lacks_is_one_line_with_the_cure(run: Run, package: str) -> None:
    result = run("-c", without(package, "export", "checkpoint", "out"))
    assert result.returncode == 1
    assert result.stderr.startswith(f"berth: {package} is not installed; pip install 'berth-embeddings[cpu]'")
    assert len(result.stderr.splitlines()) == 1


def test_part_of_berth_that_lacks_is_no_missing_package(run: Run) -> None:
    result = run("-c", without("service.settings", "serve"))
    assert "Traceback" in result.stderr
    assert "is not installed" not in result.stderr
