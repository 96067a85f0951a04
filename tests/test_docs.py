"""What the documents say is so: examples run, diagrams are those of the programs, names exist, models have pages."""

from __future__ import annotations

import doctest
import importlib
import importlib.util
import pkgutil
import re
from pathlib import Path
from typing import Any

import jax
import numpy as np
import numpyro
import pytest

import bayesunmix as bu

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = {
    "LinearUnmixing": "linear-unmixing.md",
    "ProbabilisticPCA": "probabilistic-pca.md",
    "GaussianMixture": "gaussian-mixture.md",
    "VonMisesMixture": "gaussian-mixture.md",
    "HiddenMarkovModel": "hidden-markov.md",
    "MarkovChain": "markov-chain.md",
}
SECTIONS = ("## The story", "## Priors", "## What the data can tell", "## When not to use it")


def _modules() -> list[str]:
    found = pkgutil.walk_packages(bu.__path__, "bayesunmix.")
    return [m.name for m in found if ">>>" in Path(importlib.util.find_spec(m.name).origin).read_text()]  # type: ignore[union-attr, arg-type]


@pytest.fixture(scope="module")
def names() -> dict[str, Any]:
    """What every example may use: ``bu``, ``np``, a small ``image`` and its ``fit``."""
    image, _ = bu.simulate(bu.models.ProbabilisticPCA(1), like=np.zeros((6, 5, 8)))
    return {"bu": bu, "np": np, "image": image, "fit": bu.fit(bu.models.ProbabilisticPCA(1), image, progress=False)}


@pytest.mark.parametrize("module", _modules())
def test_examples_of_docstrings(module: str, names: dict[str, Any]) -> None:
    if module.endswith("hyperspy_signals"):
        pytest.importorskip("hyperspy", reason="HyperSpy is not installed")
    found = [t for t in doctest.DocTestFinder(recurse=True).find(importlib.import_module(module)) if t.examples]
    assert found
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    report: list[str] = []
    for test in found:
        test.globs = dict(names)
        runner.run(test, out=report.append)
    assert not report, "".join(report)


def test_every_model_has_its_page() -> None:
    assert set(PAGES) == set(bu.models.__all__)
    for model, page in PAGES.items():
        text = (DOCS / page).read_text()
        assert f"bu.models.{model}" in text
        missing = [section for section in SECTIONS if section not in text]
        assert not missing, page


@pytest.fixture(scope="module")
def plates() -> Any:
    spec = importlib.util.spec_from_file_location("make_plates", DOCS / "make_plates.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_plate_diagrams_are_those_of_the_programs(plates: Any) -> None:
    for name, example in plates.examples().items():
        held = (DOCS / "images" / f"plate-{name}.svg").read_text()
        try:
            drawn = plates.diagram(*example)
        except AssertionError as error:
            if not str(error).startswith("length mismatch"):
                raise
            pytest.skip(f"NumPyro {numpyro.__version__} does not read programs under JAX {jax.__version__}: {error}")
        assert held == drawn, "run python docs/make_plates.py"
        assert f"images/plate-{name}.svg" in (DOCS / f"{name}.md").read_text()


@pytest.mark.parametrize("page", [*sorted(DOCS.glob("*.md")), ROOT / "README.md"], ids=lambda page: page.name)
def test_names_in_documents_exist(page: Path) -> None:
    for dotted in re.findall(r"\bbu\.([A-Za-z_][\w.]*\w)", page.read_text()):
        value: Any = bu
        for part in dotted.split("."):
            value = getattr(value, part)


@pytest.mark.parametrize("page", sorted(DOCS.glob("*.md")), ids=lambda page: page.name)
def test_python_in_documents_compiles(page: Path) -> None:
    for block in re.findall(r"^```python\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL):
        compile(block, page.name, "exec")
