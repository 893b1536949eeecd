"""Imports point down only, as section 4 of the design draws them."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("berth", "service", "model_export")
EXPORT_MAY_TAKE = {
    "service.errors",
    "service.inference.artifact",
    "service.inference.cuda_graph",
    "service.inference.packing",
    "service.inference.types",
    "service.__version__",
}
GROUND = {"service.errors", "service.inference.types", "service.inference.truncation"}
FIRST_FLOOR = [
    *("artifact", "cuda_graph", "cuda_pooling", "devices", "packing", "pooling", "quantization", "scheduler"),
    *("similarity", "staging", "tokenizer"),
]
MAY_TAKE = {"devices": {"service.inference.runtime"}}
"""What a module of the first floor needs besides the ground."""
HTTP = ("fastapi", "starlette", "uvicorn", "pydantic_settings", "prometheus_client")
HEAVY = ("torch", "transformers", "sentence_transformers")


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))}


def imports_of(module: str) -> set[str]:
    """List what a module imports, wherever in it: modules of ours by their full name, else `package.name`."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(MODULES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{module} has a relative import"
            source = node.module or ""
            if source in MODULES and MODULES[source].name == "__init__.py":
                found |= {f"{source}.{alias.name}" for alias in node.names}
            else:
                found.add(source)
    return found


def within(name: str, *packages: str) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def below(package: str) -> list[str]:
    return [module for module in MODULES if within(module, package)]


def test_the_modules_were_found() -> None:
    assert {"berth.cli", "service.api.app", "service.inference.scheduler", "model_export.export"} <= MODULES.keys()
    assert "service.inference.scheduler" in imports_of("service.inference.runner")
    assert "service.__version__" in imports_of("service.api.app")


@pytest.mark.parametrize("module", below("service.inference"))
def test_inference_knows_neither_http_nor_settings(module: str) -> None:
    names = imports_of(module)
    ours = {name for name in names if within(name, "service")}
    assert all(within(name, "service.inference", "service.errors", "service.cores") for name in ours), ours
    assert not {name for name in names if within(name, *HTTP)}


@pytest.mark.parametrize("module", below("service"))
def test_service_knows_neither_export_nor_command(module: str) -> None:
    assert not {name for name in imports_of(module) if within(name, "model_export", "berth", "onnx", "safetensors")}


@pytest.mark.parametrize("module", below("model_export"))
def test_export_takes_little_of_the_service(module: str) -> None:
    taken = {name for name in imports_of(module) if within(name, "service", "berth")}
    assert taken <= EXPORT_MAY_TAKE


def test_tracing_alone_knows_opentelemetry() -> None:
    assert [module for module in MODULES if any(within(name, "opentelemetry") for name in imports_of(module))] == [
        "service.api.tracing"
    ]
    assert "service.api.tracing" not in loaded_modules("import service.server")
    assert "opentelemetry.sdk" not in loaded_modules("import service.server")


@pytest.mark.parametrize("module", MODULES)
def test_nobody_imports_torch(module: str) -> None:
    assert not {name for name in imports_of(module) if within(name, *HEAVY)}


def test_errors_types_and_truncation_are_the_ground() -> None:
    for module in GROUND:
        assert not {name for name in imports_of(module) if within(name, *PACKAGES)}


def test_scheduler_decides_without_the_encoder() -> None:
    names = imports_of("service.inference.scheduler")
    assert {name for name in names if within(name, *PACKAGES)} == {"service.inference.types"}
    assert not names & {"asyncio", "threading", "time"}


@pytest.mark.parametrize("module", FIRST_FLOOR)
def test_first_floor_stands_on_the_ground(module: str) -> None:
    ours = {name for name in imports_of(f"service.inference.{module}") if within(name, *PACKAGES)}
    assert ours <= GROUND | MAY_TAKE.get(module, set())


def test_one_module_loads_onnx_runtime_for_the_service() -> None:
    """For how it is loaded decides which kernels it has."""
    assert [
        module for module in below("service") if any(within(name, "onnxruntime") for name in imports_of(module))
    ] == ["service.inference.runtime"]


def test_the_arrows_make_no_circle() -> None:
    arrows = {module: {name for name in imports_of(module) if name in MODULES} for module in MODULES}
    while arrows:
        free = {module for module, names in arrows.items() if not names & arrows.keys()}
        assert free, f"a circle among {sorted(arrows)}"
        arrows = {module: names for module, names in arrows.items() if module not in free}


def loaded_modules(statement: str) -> set[str]:
    """Run a statement in a new process; gives the modules it loads."""
    code = f"{statement}\nimport sys\nprint(*sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    return set(result.stdout.split())


def loaded_by(statement: str) -> set[str]:
    """Run a statement in a new process; gives the top-level modules it loads."""
    return {name.partition(".")[0] for name in loaded_modules(statement)}


def test_serving_loads_nothing_heavy(tiny_artifact: Path) -> None:
    """The whole of it: the application is made and the model loaded, as `python -m service` does."""
    loaded = loaded_by(
        "import asyncio, service.__main__\n"
        "from pathlib import Path\n"
        "from service.api.app import create_app\n"
        "from service.inference.artifact import read_artifact\n"
        "from service.settings import Settings\n"
        f"app = create_app(Settings(), read_artifact(Path({str(tiny_artifact)!r})), on_failure=lambda: None)\n"
        "async def main():\n"
        "    async with app.router.lifespan_context(app):\n"
        "        while not app.state.berth.ready: await asyncio.sleep(0.01)\n"
        "asyncio.run(main())"
    )
    assert {"onnxruntime", "tokenizers", "fastapi"} <= loaded
    assert not loaded & {*HEAVY, "onnx", "safetensors", "huggingface_hub", "model_export", "berth", "scipy", "requests"}


def test_command_loads_nothing_heavy_to_serve() -> None:
    assert not loaded_by("import berth.cli") & {*HEAVY, "onnx", "onnxruntime", "model_export", "fastapi"}


def test_importing_berth_needs_httpx_and_numpy_only() -> None:
    loaded = loaded_by("import berth")
    assert {"berth", "httpx", "numpy"} <= loaded
    assert not loaded & {*HEAVY, *HTTP, "onnx", "onnxruntime", "orjson", "pydantic", "tokenizers", "tqdm"}
    assert not loaded & {"service", "model_export"}
