"""A folder appears whole or not at all."""

import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from model_export.errors import ExportError
from model_export.folder import whole_folder


def _write(out: Path, content: str = "new") -> None:
    with whole_folder(out) as folder:
        (folder / "manifest.json").write_text('{"format_version": 1}')
        (folder / "content").write_text(content)


def test_it_appears_at_the_end(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "er" / "out"
    with whole_folder(out) as folder:
        (folder / "content").write_text("new")
        assert not out.exists()
    assert (out / "content").read_text() == "new"
    assert list(out.parent.iterdir()) == [out]


def test_others_may_read_it(tmp_path: Path) -> None:
    (tmp_path / "usual").mkdir()
    _write(tmp_path / "out")
    assert (tmp_path / "out").stat().st_mode == (tmp_path / "usual").stat().st_mode


@pytest.mark.parametrize("error", [ExportError, KeyboardInterrupt, SystemExit, OSError])
def test_it_vanishes_if_the_end_is_not_reached(tmp_path: Path, error: type[BaseException]) -> None:
    _write(tmp_path / "out", "old")

    def fail() -> None:
        with whole_folder(tmp_path / "out") as folder:
            (folder / "content").write_text("new")
            raise error

    with pytest.raises(error):
        fail()
    assert list(tmp_path.iterdir()) == [tmp_path / "out"]
    assert (tmp_path / "out" / "content").read_text() == "old"


def test_an_artifact_is_replaced(tmp_path: Path) -> None:
    _write(tmp_path / "out", "old")
    (tmp_path / "out" / "stale").touch()
    _write(tmp_path / "out", "new")
    assert list(tmp_path.iterdir()) == [tmp_path / "out"]
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"manifest.json", "content"}


def test_an_empty_folder_is_filled_and_a_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    for _ in range(2):
        _write(tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real" / "content").read_text() == "new"


@pytest.mark.parametrize("manifest", [None, "{", "[]", '{"name": "a web app"}'])
def test_anything_else_is_left_as_it_is(tmp_path: Path, manifest: str | None) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.txt").write_text("my only copy")
    if manifest is not None:
        (out / "manifest.json").write_text(manifest)
    with pytest.raises(ExportError, match="exists and is not an artifact; it is left as it is"):
        _write(out)
    assert (out / "thesis.txt").read_text() == "my only copy"


def test_a_file_is_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("my only copy")
    with pytest.raises(ExportError, match="exists and is not an artifact"):
        _write(tmp_path / "out")
    with pytest.raises(ExportError, match="cannot be made"):
        _write(tmp_path / "out" / "inside")


def test_the_home_of_nobody_cannot_be_made() -> None:
    with pytest.raises(ExportError, match="~nosuchuser/here cannot be made: "):
        _write(Path("~nosuchuser/here"))


def test_what_appears_meanwhile_is_left_as_it_is(tmp_path: Path) -> None:
    out = tmp_path / "out"

    def write() -> None:
        with whole_folder(out):
            out.mkdir()
            (out / "thesis.txt").write_text("my only copy")

    with pytest.raises(ExportError, match="exists and is not an artifact"):
        write()
    assert (out / "thesis.txt").read_text() == "my only copy"
    assert list(tmp_path.iterdir()) == [out]


def test_a_failed_move_brings_the_old_one_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _write(tmp_path / "out", "old")
    rename = Path.rename

    def fail(self: Path, target: Path) -> Path:
        if (self / "content").read_text() == "new":
            raise PermissionError
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(PermissionError):
        _write(tmp_path / "out", "new")
    assert list(tmp_path.iterdir()) == [tmp_path / "out"]
    assert (tmp_path / "out" / "content").read_text() == "old"


def _die(out: Path, when: str) -> None:
    """Export in a process that is killed: `within` the export, or `between` the two moves at its end."""
    code = (
        "import os, signal, sys; from pathlib import Path; from model_export.folder import whole_folder\n"
        "def die(*_): os.kill(os.getpid(), signal.SIGKILL)\n"
        "def move(self, to): os.rename(self, to); die()\n"
        "with whole_folder(Path(sys.argv[1])) as folder:\n"
        "    (folder / 'content').write_text('new')\n"
        "    die() if sys.argv[2] == 'within' else setattr(Path, 'rename', move)\n"
    )
    process = subprocess.run([sys.executable, "-c", code, str(out), when], check=False)
    assert process.returncode == -signal.SIGKILL


def test_what_a_killed_export_left_is_removed_by_the_next(tmp_path: Path) -> None:
    out = tmp_path / "out"
    for name in ("out", "out2"):
        _die(tmp_path / name, "within")
    [other] = tmp_path.glob(".out2.*")
    _write(out)
    assert set(tmp_path.iterdir()) == {out, other}


def test_what_a_killed_export_had_moved_aside_comes_back(tmp_path: Path) -> None:
    out = tmp_path / "out"
    _write(out, "old")
    _die(out, "between")
    assert not out.exists()
    with pytest.raises(KeyboardInterrupt), whole_folder(out):
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == [out]
    assert (out / "content").read_text() == "old"


def test_what_was_moved_aside_goes_where_there_is_another(tmp_path: Path) -> None:
    out = tmp_path / "out"
    _write(out, "old")
    _die(out, "between")
    [aside] = tmp_path.glob(".out.*.old")
    out.mkdir()
    _write(out, "new")
    assert not aside.exists()
    assert (out / "content").read_text() == "new"


def test_an_export_that_lives_is_left_alone(tmp_path: Path) -> None:
    with whole_folder(tmp_path / "out") as folder:
        (folder / "manifest.json").write_text('{"format_version": 1}')
        (folder / "content").write_text("slow")
        _write(tmp_path / "out", "quick")
    assert list(tmp_path.iterdir()) == [tmp_path / "out"]
    assert (tmp_path / "out" / "content").read_text() == "slow"


def test_many_at_once_all_end_well(tmp_path: Path) -> None:
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for _ in range(50):
                _write(tmp_path / "out", str(number))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert list(tmp_path.iterdir()) == [tmp_path / "out"]
    assert (tmp_path / "out" / "content").read_text() in map(str, range(8))
