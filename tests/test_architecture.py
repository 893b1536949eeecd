"""Imports point one way, as docs/architecture.md draws them: a case a rule."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("berth", "service", "model_export")
REACH_UP = ("berth.cli",)
"""The modules of the library that may reach the service and the export, late, inside functions."""
PURE = ("berth.batching.queue", "berth.batching.admission", "berth.batching.share")
EXPORT_MAY_TAKE = {
    *("berth", "berth.artifact", "berth.errors", "berth.models", "berth.processor", "berth.types"),
    *("berth.backends.cpu.packing", "berth.backends.cuda.graph"),
}
"""Of the library: what an artifact is, how its graphs are fed, and what this processor is fast at."""
GROUND = ("berth.errors", "berth.types")
HTTP = ("fastapi", "starlette", "uvicorn", "pydantic_settings", "prometheus_client")
TORCH = ("torch", "sentence_transformers")
HEAVY = (*TORCH, "transformers", "sentencepiece")


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))}


def imports_of(module: str, *, late: bool = True) -> set[str]:
    """List what a module imports: modules of ours by their full name, else `package.name`; in functions if `late`."""
    found: set[str] = set()
    tree = ast.parse(MODULES[module].read_text(encoding="utf-8"))
    for node in ast.walk(tree) if late else outside_functions(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{module} has a relative import"
            source = node.module or ""
            if source in MODULES and MODULES[source].name == "__init__.py":
                found |= {name if (name := f"{source}.{alias.name}") in MODULES else source for alias in node.names}
            else:
                found.add(source)
    return found


def outside_functions(node: ast.AST) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            yield child
            yield from outside_functions(child)


def within(name: str, *packages: str) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def below(*packages: str) -> list[str]:
    return [module for module in MODULES if within(module, *packages)]


def arrows(sources: list[str], *targets: str, late: bool = True) -> dict[str, set[str]]:
    """Give the imports of some modules that lead into some packages."""
    found = {module: {name for name in imports_of(module, late=late) if within(name, *targets)} for module in sources}
    return {module: names for module, names in found.items() if names}


def test_modules_and_imports_are_found() -> None:
    assert {"berth.cli", "service.api.app", "berth.batching.queue", "model_export.export"} <= MODULES.keys()
    assert "berth.batching.queue" in imports_of("berth.batching.worker")
    assert "service.__main__" in imports_of("berth.cli")
    assert "service.__main__" not in imports_of("berth.cli", late=False)


def test_library_knows_neither_service_nor_export() -> None:
    assert not arrows([module for module in below("berth") if module not in REACH_UP], "service", "model_export")


def test_command_reaches_up_late() -> None:
    assert not arrows(list(REACH_UP), "service", "model_export", late=False)


def test_service_and_export_do_not_know_each_other() -> None:
    assert not arrows(below("service"), "model_export", "onnx", "safetensors")
    assert not arrows(below("model_export"), "service")


def test_export_takes_little_of_the_library() -> None:
    assert set().union(*arrows(below("model_export"), "berth").values()) <= EXPORT_MAY_TAKE


def test_library_knows_no_http_framework() -> None:
    assert not arrows(below("berth"), *HTTP)


def test_queue_admission_and_share_have_no_clock_lock_or_thread() -> None:
    assert not arrows(list(PURE), "asyncio", "threading", "time", "concurrent", "berth.backends", "onnxruntime")


def test_errors_and_types_are_the_ground() -> None:
    assert not arrows(list(GROUND), *PACKAGES)


def test_backends_alone_know_onnx_runtime() -> None:
    """For what has to be set before it is loaded is set in their package."""
    assert not arrows(
        [module for module in below("berth", "service") if not within(module, "berth.backends")], "onnxruntime"
    )


def test_tracing_alone_knows_opentelemetry() -> None:
    assert arrows(list(MODULES), "opentelemetry").keys() == {"service.api.tracing"}
    assert not loaded_modules("import service.server") & {"service.api.tracing", "opentelemetry.sdk"}


def test_nobody_imports_torch() -> None:
    assert not arrows(list(MODULES), *TORCH)


def test_export_alone_knows_transformers_and_loads_it_late() -> None:
    assert arrows(list(MODULES), "transformers", "sentencepiece").keys() == {"model_export.auto_tokenizer"}
    assert not arrows(list(MODULES), "transformers", late=False)
    assert not loaded_by("import model_export.export") & {*HEAVY}


def test_the_arrows_make_no_circle() -> None:
    left = {module: {name for name in imports_of(module) if name in MODULES} for module in MODULES}
    while left:
        free = {module for module, names in left.items() if not names & left.keys()}
        assert free, f"a circle among {sorted(left)}"
        left = {module: names for module, names in left.items() if module not in free}


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
        "from berth.artifact import read_artifact\n"
        "from service.settings import Settings\n"
        f"app = create_app(Settings(), read_artifact(Path({str(tiny_artifact)!r})), on_failure=lambda: None)\n"
        "async def main():\n"
        "    async with app.router.lifespan_context(app):\n"
        "        while not app.state.berth.ready: await asyncio.sleep(0.01)\n"
        "asyncio.run(main())"
    )
    assert {"onnxruntime", "tokenizers", "fastapi"} <= loaded
    assert not loaded & {*HEAVY, "onnx", "safetensors", "huggingface_hub", "model_export", "scipy", "requests"}


def test_command_loads_nothing_heavy_to_serve() -> None:
    assert not loaded_by("import berth.cli") & {*HEAVY, *HTTP, "onnx", "onnxruntime", "pydantic", "model_export"}


def test_importing_berth_needs_httpx_and_numpy_only() -> None:
    loaded = loaded_by("import berth")
    assert {"berth", "httpx", "numpy"} <= loaded
    assert not loaded & {*HEAVY, *HTTP, "onnx", "onnxruntime", "orjson", "pydantic", "tokenizers", "tqdm"}
    assert not loaded & {"service", "model_export"}


@pytest.mark.parametrize("name", ["Encoder", "Feature"])
def test_encoder_loads_no_http_framework(name: str) -> None:
    assert not loaded_by(f"import berth; berth.{name}") & {*HEAVY, *HTTP, "onnx", "service", "model_export"}
