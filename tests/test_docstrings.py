"""Every public callable says what goes in, by name, and what comes out."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import bayesunmix as bu


def _public() -> Iterator[tuple[str, Callable[..., Any]]]:
    for module in (bu, bu.plot, bu.descriptors, bu.models):
        for name in sorted(bu._homes) if module is bu else module.__all__:
            found = getattr(module, name)
            if callable(found):
                yield f"{module.__name__}.{name}", found


def _methods() -> Iterator[tuple[str, Callable[..., Any]]]:
    """Public methods of what users hold in their hands; those of models are the contract's, told there."""
    for cls in (bu.Fit, bu.Estimator, bu.Elpd):
        for name, found in vars(cls).items():
            if not name.startswith("_") and inspect.isfunction(found):
                yield f"{cls.__name__}.{name}", found


# Strict: whoever completes one of these takes its name off.
def _cases(named: Iterator[tuple[str, Callable[..., Any]]]) -> list[Any]:
    return [pytest.param(n, f, id=n) for n, f in named]


def _section(text: str, name: str) -> str:
    """The lines under a heading of the numpydoc style; empty without it."""
    found = re.search(rf"^{name}\n-+\n(.*?)(?=^\w[\w ]*\n-{{3,}}$|\Z)", text, re.DOTALL | re.MULTILINE)
    return found.group(1) if found else ""


def _parameters(found: Callable[..., Any]) -> set[str]:
    return {name for name in inspect.signature(found).parameters if name != "self"}


@pytest.mark.parametrize(("name", "found"), _cases(_public()))
def test_public_callables_name_their_parameters_and_their_result(name: str, found: Callable[..., Any]) -> None:
    text = inspect.getdoc(found) or ""
    told = _section(text, "Parameters") + _section(text, "Attributes")
    reference = re.search(r"Parameters are those of :func:`\w+`", text)
    missing = [p for p in _parameters(found) if not re.search(rf"\b{p}\b", told)] if not reference else []
    assert not missing, f"{name}: its docstring has no word about {missing}"
    assert inspect.isclass(found) or _section(text, "Returns"), f"{name}: its docstring has no Returns section"


@pytest.mark.parametrize(("name", "found"), _cases(_methods()))
def test_methods_are_told(name: str, found: Callable[..., Any]) -> None:
    text = inspect.getdoc(found) or ""
    missing = [p for p in _parameters(found) if not re.search(rf"\b{p}\b", text)]
    assert text, f"{name} has no docstring"
    assert not missing, f"{name}: its docstring has no word about {missing}"
