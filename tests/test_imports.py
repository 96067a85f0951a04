"""Arrows only go right: what may import what, who may import ArviZ, and who may configure JAX (nobody)."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "bayesunmix"

# What stands in a row may be imported by every row below it and by no row above.
# A later row of the table is further right in the flow that the architecture draws.
ROWS = (
    ("_contents", "_keys", "_counts", "_arviz", "_threads", "_memory"),
    ("data", "distributions", "align", "spatial"),
    ("provenance", "misfit"),
    ("descriptors", "models", "inference"),
    ("_named", "_netcdf", "_model_units"),
    ("_latent_file",),
    ("fit",),
    ("predict", "subspace", "storage", "sweep"),
    ("_groups",),
    ("uncertainty", "check", "calibrate", "elpd", "dynamics"),
    ("compare", "heldout"),
    ("information", "interop"),
    ("plot",),
    ("report",),
    ("bayesunmix",),
    ("recipe",),
    ("folder",),
    ("cli",),
    ("__main__",),
)
RANK = {name: rank for rank, row in enumerate(ROWS) for name in row}
ENGINE = {
    "_named",
    "_netcdf",
    "_latent_file",
    "_model_units",
    "inference",
    "align",
    "spatial",
    "fit",
    "storage",
    "predict",
    "uncertainty",
    "check",
    "misfit",
    "elpd",
    "compare",
    "sweep",
    "heldout",
    "calibrate",
    "_arviz",
    "_groups",
}

# Methods of Fit that are shorthand for a function further right: (importer, imported), inside a function.
SHORTHANDS = {("fit", "_groups"), ("fit", "storage")}


def _sources() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def _module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _imports(tree: ast.Module, module: str, *, is_package: bool) -> Iterator[tuple[str, bool]]:
    """Every imported dotted name, and whether the import stands inside a function."""
    inside = {
        id(child)
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for child in ast.walk(node)
    }
    for node in ast.walk(tree):
        lazy = id(node) in inside
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, lazy
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                anchor = module.split(".")
                anchor = anchor[: len(anchor) - node.level + is_package]
                base = ".".join([*anchor, base] if base else anchor)
            for alias in node.names:
                yield f"{base}.{alias.name}", lazy


def _part(dotted: str) -> str | None:
    """The row entry a dotted name belongs to; None outside the package."""
    head, *rest = dotted.split(".")
    if head != "bayesunmix":
        return None
    return rest[0] if rest and rest[0] in RANK else "bayesunmix"


def _wrong_arrows(source: str, module: str, *, is_package: bool = False) -> list[str]:
    here = _part(module)
    assert here is not None
    wrong = []
    for dotted, lazy in _imports(ast.parse(source), module, is_package=is_package):
        there = _part(dotted)
        if there is None or there == here or dotted == "bayesunmix.__version__":
            continue
        if lazy and (here, there) in SHORTHANDS:
            continue
        if RANK[there] >= RANK[here] or (here in ENGINE and there == "models"):
            wrong.append(f"{module} imports {dotted}")
    return wrong


def test_every_part_of_the_package_has_its_row() -> None:
    parts = {_module_name(path).split(".")[1] for path in _sources() if path != PACKAGE / "__init__.py"}
    assert parts <= set(RANK)


@pytest.mark.parametrize("path", _sources(), ids=_module_name)
def test_imports_follow_the_order(path: Path) -> None:
    if path == PACKAGE / "__init__.py":
        pytest.skip("the table of contents names every part and imports none before it is used")
    wrong = _wrong_arrows(path.read_text(), _module_name(path), is_package=path.name == "__init__.py")
    assert not wrong


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("bayesunmix.fit", "import bayesunmix.models"),
        ("bayesunmix.fit", "from bayesunmix import models"),
        ("bayesunmix.fit", "from . import predict"),
        ("bayesunmix.fit", "def f():\n    from bayesunmix.compare import waic"),
        ("bayesunmix.fit", "from bayesunmix._groups import to_arviz"),
        ("bayesunmix.inference.svi", "from ..fit import Fit"),
        ("bayesunmix.predict", "import bayesunmix as bu"),
        ("bayesunmix.distributions.unmixing", "from bayesunmix.data.units import Units"),
        ("bayesunmix.data.simulators", "from bayesunmix.models import LinearUnmixing"),
    ],
)
def test_a_wrong_arrow_is_seen(module: str, source: str) -> None:
    assert _wrong_arrows(source, module)


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("bayesunmix.fit", "from bayesunmix.data.units import Units\nfrom . import inference"),
        ("bayesunmix.fit", "def f():\n    from bayesunmix._groups import to_arviz"),
        ("bayesunmix.fit", "from bayesunmix import __version__"),
        ("bayesunmix.cli", "import bayesunmix as bu"),
        ("bayesunmix.inference.svi", "from .settings import SVI\nimport jax"),
    ],
)
def test_a_right_arrow_is_let_through(module: str, source: str) -> None:
    assert not _wrong_arrows(source, module)


@pytest.mark.parametrize("path", _sources(), ids=_module_name)
def test_one_module_imports_arviz(path: Path) -> None:
    module = _module_name(path)
    names = _imports(ast.parse(path.read_text()), module, is_package=path.name == "__init__.py")
    users = any(dotted.split(".")[0].startswith("arviz") for dotted, _ in names)
    assert not users or module == "bayesunmix._arviz"


def _configures_jax(tree: ast.Module) -> list[int]:
    """Lines that change settings of JAX or NumPyro for the whole process."""
    switches = {"enable_x64", "set_platform", "set_host_device_count", "enable_validation"}
    lines = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            owner = ast.unparse(node.func.value)
            if owner.split(".")[-1] == "config" and node.func.attr == "update":
                lines.append(node.lineno)
            if owner == "numpyro" and node.func.attr in switches:
                lines.append(node.lineno)
        if isinstance(node, ast.ImportFrom) and node.module in {"numpyro", "numpyro.util"}:
            lines += [node.lineno for alias in node.names if alias.name in switches]
        if isinstance(node, ast.Assign):
            lines += [node.lineno for t in node.targets if ast.unparse(t).startswith("jax.config.")]
    return lines


@pytest.mark.parametrize("path", _sources(), ids=_module_name)
def test_nothing_configures_jax_for_the_whole_process(path: Path) -> None:
    assert _configures_jax(ast.parse(path.read_text())) == []


@pytest.mark.parametrize(
    "source",
    [
        "jax.config.update('jax_enable_x64', True)",
        "from jax import config\nconfig.update('jax_enable_x64', True)",
        "numpyro.enable_x64()",
        "from numpyro import set_host_device_count",
        "jax.config.jax_debug_nans = True",
    ],
)
def test_configuring_jax_is_seen(source: str) -> None:
    assert _configures_jax(ast.parse(source))
    assert not _configures_jax(ast.parse("with jax.enable_x64(True):\n    run()"))


def _seconds(code: str) -> float:
    """Processor time that Python code says it took: least of six processes, since other work slows them down."""
    command = [sys.executable, "-c", code]
    return min(float(subprocess.run(command, capture_output=True, text=True, check=True).stdout) for _ in range(6))


def test_importing_what_a_fit_needs_is_quick() -> None:
    """In 1.5 s beyond JAX, which takes as long as it takes."""
    code = """
import time
import jax
start = time.process_time()
import bayesunmix as bu
bu.load, bu.models.LinearUnmixing, bu.fit
print(time.process_time() - start)
"""
    assert _seconds(code) < 1.5


def test_help_is_quick() -> None:
    code = """
import contextlib, io, time
from bayesunmix.cli import main
with contextlib.redirect_stdout(io.StringIO()):
    main(["--help"], standalone_mode=False)
print(time.process_time())
"""
    assert _seconds(code) < 1.0
