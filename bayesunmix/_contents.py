"""A table of contents that is opened page by page: public names are imported when they are first used."""

from __future__ import annotations

import importlib
import sys
import types
from collections.abc import Mapping, Sequence
from typing import Any


class _Contents(types.ModuleType):
    """A package whose public functions may share their name with the file that holds them.

    Importing ``package.fit`` makes Python bind the module as attribute ``fit`` of its package. Where ``fit``
    is also the name of a public function, that binding is dropped here, so ``package.fit`` is the function in
    whichever order things are imported; the module stays reachable as ``from package.fit import ...``.
    """

    _homes: Mapping[str, str]
    _modules: Sequence[str]

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in self._homes and isinstance(value, types.ModuleType)):
            super().__setattr__(name, value)

    def __getattr__(self, name: str) -> Any:
        if name in self._homes:
            value = getattr(importlib.import_module(self._homes[name]), name)
        elif name in self._modules:
            value = importlib.import_module(f"{self.__name__}.{name}")
        else:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        setattr(self, name, value)
        return value

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *self._homes, *self._modules})


def attach(package: str, homes: Mapping[str, str], modules: Sequence[str]) -> None:
    """Give ``package`` its public names: ``homes`` (name to the module that defines it) and ``modules``."""
    module = sys.modules[package]
    vars(module).update(_homes=homes, _modules=modules)
    module.__class__ = _Contents
