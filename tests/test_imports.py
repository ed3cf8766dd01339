"""The dependency direction of ARCHITECTURE.md, read from the source: nothing is imported here."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# What each package may import of this project besides itself.
ALLOWED: dict[str, set[str]] = {
    "attribution": set(),
    "app": {"attribution"},
    "precompute": {"attribution"},
    "evaluation": {"attribution", "precompute"},
    "benchmarks": {"attribution", "precompute", "evaluation"},
}

# The middle of the library: no disk formats, no hub, no FAISS, nothing that opens an index.
PURE = (
    *("types", "numbers", "noise", "weights", "layers", "gradients", "projection"),
    *("fisher", "ekfac", "kfac", "ridge", "datainf"),
    *("stepsize", "delta", "unlearning", "cells", "reduce", "scoring", "heatmaps", "racing"),
)
EDGES = {"faiss", "pyarrow", "huggingface_hub", "gradio", "urllib", "requests", "httpx"}


def _dotted(path: Path) -> str:
    """attribution/noise.py -> attribution.noise; a package's __init__.py -> the package."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {_dotted(path): path for name in ALLOWED for path in sorted((ROOT / name).rglob("*.py"))}
TREES = {name: ast.parse(path.read_text("utf-8")) for name, path in MODULES.items()}


def _imports(name: str, tree: ast.AST | None = None) -> Iterator[str]:
    """Dotted names of all that module `name` imports, at any depth; relative ones made absolute."""
    package = MODULES[name].relative_to(ROOT).parent.parts
    for node in ast.walk(tree or TREES[name]):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)


def _tops(name: str) -> set[str]:
    return {imported.split(".")[0] for imported in _imports(name)}


def _of(package: str) -> list[str]:
    return [name for name in MODULES if name.split(".")[0] == package]


def test_there_is_something_to_check() -> None:
    assert all(_of(package) for package in ("app", "attribution", "precompute"))


@pytest.mark.parametrize("package", ALLOWED)
def test_packages_import_only_what_lies_below_them(package: str) -> None:
    outside = {*ALLOWED, "tests"} - {package} - ALLOWED[package]
    assert {name: bad for name in _of(package) if (bad := _tops(name) & outside)} == {}


@pytest.mark.parametrize("package", sorted(ALLOWED.keys() - {"app"}))
def test_only_the_page_imports_gradio(package: str) -> None:
    page_only = {"gradio", "spaces", "starlette", "fastapi"}
    assert {name: bad for name in _of(package) if (bad := _tops(name) & page_only)} == {}


def test_nothing_uses_torchvision_or_pickle() -> None:
    unwanted = {"torchvision", "pickle", "cloudpickle", "dill"}
    assert {name: bad for name in MODULES if (bad := _tops(name) & unwanted)} == {}


def test_the_library_never_prints() -> None:
    """Only its command line does: that is a program."""
    printing = [
        f"{name}:{node.lineno}"
        for name in _of("attribution")
        if name != "attribution.__main__"
        for node in ast.walk(TREES[name])
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("print", "sys.stdout.write")
    ]
    assert not printing


@pytest.mark.parametrize("name", PURE)
def test_the_middle_of_the_library_stays_pure(name: str) -> None:
    imported = set(_imports(f"attribution.{name}"))
    assert not {module.split(".")[0] for module in imported} & EDGES
    assert not imported & {"attribution.index", "attribution.engine", "attribution.methods"}


def test_the_page_imports_nothing_of_itself_lazily() -> None:
    """`app.py` and the package `app` share a name: `import app` in a handler may find either."""
    lazy = [
        f"{name}:{function.lineno}"
        for name in _of("app")
        for function in ast.walk(TREES[name])
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        and any(imported.split(".")[0] == "app" for imported in _imports(name, function))
    ]
    assert not lazy


def test_the_library_has_no_import_cycle() -> None:
    library = _of("attribution")
    graph = {name: set(_imports(name)) & set(library) - {"attribution", name} for name in library}
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, " -> ".join((*trail, name))
        if name not in done:
            for imported in sorted(graph[name]):
                visit(imported, (*trail, name))
            done.add(name)

    for name in library:
        visit(name, ())
