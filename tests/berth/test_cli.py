"""The `berth` command: where export and service meet."""

import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import berth.cli
import service.__main__
import service.placement
from berth.cli import artifact_folder, export_to, main
from model_export.checkpoint import DEFAULT_ID
from service.inference.artifact import read_artifact
from service.inference.devices import Driver
from service.placement import Goal
from service.settings import DEFAULT_MODEL, Settings


def settings(model: Path | str, cache: Path) -> Settings:
    return Settings(model=str(model), cache_dir=cache)


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[Settings]:
    """Give a list of what would have been served."""
    calls: list[Settings] = []

    def serve(settings: Settings) -> int:
        calls.append(settings)
        return 0

    monkeypatch.setattr(service.__main__, "serve", serve)
    monkeypatch.setattr(service.__main__, "start_logging", lambda _: None)
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


def test_artifact_is_served_where_it_is(served: list[Settings], tiny_artifact: Path, tmp_path: Path) -> None:
    assert main(["serve", "--model", str(tiny_artifact), "--cache-dir", str(tmp_path)]) == 0
    assert [call.model for call in served] == [str(tiny_artifact)]
    assert list(tmp_path.iterdir()) == []


def test_checkpoint_is_exported_once_and_then_served(
    served: list[Settings], tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs: list[list[str]] = []
    start = subprocess.Popen

    def counting(command: list[str], **options: Any) -> Any:
        runs.append(command)
        return start(command, **options)

    monkeypatch.setattr(subprocess, "Popen", counting)
    arguments = ["serve", "--model", str(tiny_checkpoint), "--cache-dir", str(tmp_path), "--max-texts", "5"]
    assert main(arguments) == 0
    assert main(arguments) == 0
    assert len(runs) == 1
    assert len({call.model for call in served}) == 1
    assert {call.max_texts for call in served} == {5}
    assert read_artifact(Path(served[0].model)).manifest.hidden_size == 60


def test_failed_export_ends_the_command(
    served: list[Settings], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    assert main(["serve", "--model", str(empty), "--cache-dir", str(tmp_path / "cache")]) == 1
    assert served == []
    assert "error: " in capfd.readouterr().err
    assert not list((tmp_path / "cache").rglob("manifest.json"))


@pytest.mark.parametrize(("number", "reason"), [(signal.SIGKILL, ", as when memory runs out"), (signal.SIGABRT, "")])
def test_export_that_is_killed_ends_the_command_with_a_word(
    served: list[Settings],
    tiny_checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    number: signal.Signals,
    reason: str,
) -> None:
    start = subprocess.Popen

    def killing(command: list[str], **options: Any) -> Any:
        process = start(command, **options)
        process.send_signal(number)
        return process

    monkeypatch.setattr(subprocess, "Popen", killing)
    assert main(["serve", "--model", str(tiny_checkpoint), "--cache-dir", str(tmp_path)]) == 128 + number
    assert served == []
    line = f"berth: the export of {tiny_checkpoint} was ended by signal {number:d}{reason}\n"
    assert capfd.readouterr().err == line


def test_export_takes_no_code_from_the_folder_it_is_started_in(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for package in ("service", "model_export"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text("raise SystemExit('not the one that was meant')")
    monkeypatch.chdir(tmp_path)
    assert export_to(tmp_path / "out", str(tiny_checkpoint), Goal("cpu", "fp32")) == 0
    read_artifact(tmp_path / "out")


def test_home_of_nobody_is_no_folder(served: list[Settings], tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="berth: ~nosuch/x: there is no such folder"):
        main(["serve", "--model", "~nosuch/x", "--cache-dir", str(tmp_path)])


def test_export_command_exports(tiny_checkpoint: Path, tmp_path: Path) -> None:
    assert main(["export", str(tiny_checkpoint), str(tmp_path / "out")]) == 0
    assert read_artifact(tmp_path / "out").manifest.layers == 3


def test_hub_id_has_its_place_in_the_cache(tmp_path: Path) -> None:
    settings_ = settings("intfloat/e5-small", tmp_path)
    place = tmp_path / "intfloat" / "e5-small"
    assert artifact_folder(settings_, Goal("cpu", "fp32")) == place / "cpu-fp32"
    assert artifact_folder(settings_, Goal("cuda", "fp16")) == place / "cuda-fp16"


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """Give a folder that looks like a checkpoint from afar."""
    folder = tmp_path / "tug"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    return folder


@pytest.mark.parametrize("name", ["config.json", "vocab.txt", "shard.safetensors", "1_Pooling/config.json"])
def test_changed_checkpoint_has_another_place(checkpoint: Path, name: str) -> None:
    goal = Goal("cpu", "fp32")
    before = artifact_folder(settings(checkpoint, checkpoint.parent / "cache"), goal)
    assert before == artifact_folder(settings(checkpoint, checkpoint.parent / "cache"), goal)
    assert before.parent.name.startswith("tug-")
    (checkpoint / name).parent.mkdir(exist_ok=True)
    (checkpoint / name).write_text('{"a": 1}')
    assert artifact_folder(settings(checkpoint, checkpoint.parent / "cache"), goal) != before


def test_what_no_export_reads_changes_no_place(checkpoint: Path, tiny_artifact: Path) -> None:
    cache, goal = checkpoint / "cache", Goal("cpu", "fp32")
    before = artifact_folder(settings(checkpoint, cache), goal)
    (checkpoint / "README.md").touch()
    (checkpoint / "model.safetensors").symlink_to("nowhere")
    (checkpoint / ".git").mkdir()
    (checkpoint / ".git" / "config.json").touch()
    (cache / "calibration.json").parent.mkdir()
    (cache / "calibration.json").touch()
    shutil.copytree(tiny_artifact, before)
    assert artifact_folder(settings(checkpoint, cache), goal) == before


def test_model_that_is_served_by_default_is_the_one_of_the_wheel() -> None:
    """Neither side may import the other's name of it."""
    assert DEFAULT_MODEL == DEFAULT_ID


def test_module_is_the_command() -> None:
    result = subprocess.run([sys.executable, "-m", "berth", "--help"], capture_output=True, text=True, check=True)
    assert "usage: berth COMMAND" in result.stdout


@pytest.fixture
def exports(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Path, str, Goal]]:
    """Give a list of what would have been exported: the place, the model, and for what."""
    calls: list[tuple[Path, str, Goal]] = []

    def export_to(*call: Any) -> int:
        calls.append(call)
        return 0

    monkeypatch.setattr(berth.cli, "export_to", export_to)
    return calls


@pytest.mark.parametrize(
    ("flags", "goal"),
    [
        ([], Goal("cuda", "fp16")),
        (["--device", "cuda:1"], Goal("cuda", "fp16")),
        (["--device", "cuda", "--precision", "fp32"], Goal("cuda", "fp32")),
        (["--device", "cpu"], Goal("cpu", "fp32")),
        (["--precision", "int8"], Goal("cpu", "int8")),
    ],
    ids=str,
)
def test_export_is_for_the_device(
    served: list[Settings],
    exports: list[tuple[Path, str, Goal]],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    flags: list[str],
    goal: Goal,
) -> None:
    monkeypatch.setattr(service.placement, "require_gpus", lambda _: Driver((13, 0), ("NVIDIA H200",) * 2))
    assert main(["serve", "--model", "some/model", "--cache-dir", str(tmp_path), *flags]) == 0
    assert exports == [(tmp_path / "some" / "model" / f"{goal.target}-{goal.precision}", "some/model", goal)]
    assert [call.model for call in served] == [str(exports[0][0])]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--device", "cuda", "--precision", "int8"], "int8 is for the CPU"),
        (["--device", "cpu", "--precision", "fp16"], "fp16 is for a GPU"),
    ],
)
def test_impossible_wish_ends_before_the_export(
    served: list[Settings],
    exports: list[tuple[Path, str, Goal]],
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    flags: list[str],
    message: str,
) -> None:
    assert main(["serve", "--model", "some/model", "--cache-dir", str(tmp_path), *flags]) == 1
    assert (served, exports) == ([], [])
    [line] = capsys.readouterr().err.splitlines()
    assert message in line
