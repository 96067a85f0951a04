"""The table of contents: every public name is there, is what it says, and costs nothing until it is used."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import bayesunmix as bu

HEAVY = ("jax", "numpyro", "arviz", "matplotlib", "rsciio", "dask", "jinja2", "click", "pandas", "xarray")


def _run(code: str, *path: Path) -> str:
    """Run ``code`` in a fresh interpreter, with ``path`` before everything else; what it printed."""
    paths = [f"sys.path.insert(0, {str(folder)!r})" for folder in path]
    program = "\n".join(["import sys", *paths, textwrap.dedent(code)])
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("name", sorted(bu._HOMES))
def test_every_public_function_is_callable_and_documented(name: str) -> None:
    value = getattr(bu, name)
    assert callable(value)
    assert not inspect.ismodule(value)
    assert inspect.getdoc(value)
    assert value.__module__.startswith("bayesunmix")


@pytest.mark.parametrize("name", sorted(bu._MODULES))
def test_every_public_module_is_a_module(name: str) -> None:
    assert getattr(bu, name) is sys.modules[f"bayesunmix.{name}"]


def test_names_for_the_type_checker_are_the_names_at_run_time() -> None:
    tree = ast.parse(Path(bu.__file__).read_text())
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    static = {
        alias.asname: node.module for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    assert static == {**bu._HOMES, **dict.fromkeys(bu._MODULES, "bayesunmix")}


def test_dir_lists_what_is_public() -> None:
    assert {*bu._HOMES, *bu._MODULES, "__version__"} <= set(dir(bu))


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'unmix_everything'"):
        getattr(bu, "unmix_everything")  # noqa: B009


def test_import_is_light() -> None:
    loaded = _run(f"import bayesunmix; print([name for name in {HEAVY} if name in sys.modules])")
    assert loaded == "[]"


def test_importing_everything_leaves_jax_configured_as_it_was() -> None:
    code = """
        import jax
        before = dict(jax.config.values)
        import bayesunmix
        names = [*bayesunmix._HOMES, *bayesunmix._MODULES]
        for name in names:
            getattr(bayesunmix, name)
        after = dict(jax.config.values)
        print({key for key in before if before[key] != after[key]})
    """
    assert _run(code) == "set()"


def test_importing_the_files_does_not_hide_the_functions() -> None:
    code = """
        import importlib, inspect, pkgutil
        import bayesunmix
        files = {info.name for info in pkgutil.iter_modules(bayesunmix.__path__)}
        same = sorted(files & set(bayesunmix._HOMES))
        for name in same:
            importlib.import_module(f"bayesunmix.{name}")
        print([name for name in same if inspect.ismodule(getattr(bayesunmix, name))])
    """
    assert _run(code) == "[]"


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A tiny package with one function named like its file, one that is not, and one submodule."""
    folder = tmp_path / "tiny"
    folder.mkdir()
    (folder / "fit.py").write_text("def fit():\n    return 'fitted'\n\nclass Fit:\n    pass\n")
    (folder / "plot.py").write_text("from tiny.fit import Fit\n")
    (folder / "__init__.py").write_text(
        "from bayesunmix._contents import attach\n"
        "attach(__name__, homes={'fit': 'tiny.fit', 'Fit': 'tiny.fit'}, modules=('plot',))\n"
    )
    return tmp_path


@pytest.mark.parametrize(
    "imports",
    [
        "import tiny",
        "import tiny.fit",
        "import tiny.plot",
        "from tiny.fit import Fit; import tiny",
        "import tiny; tiny.Fit; import tiny.fit",
        "import tiny; tiny.fit; import tiny.fit",
        "from tiny import fit; import tiny.plot",
    ],
)
def test_the_function_wins_in_any_order_of_imports(imports: str, package: Path) -> None:
    code = f"{imports}\nprint(tiny.fit(), tiny.Fit.__name__, tiny.plot.__name__)"
    assert _run(code, package) == "fitted Fit tiny.plot"
