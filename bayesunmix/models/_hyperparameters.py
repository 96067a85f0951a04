"""Frozen dataclasses of hyper-parameters as JAX pytrees."""

from __future__ import annotations

import dataclasses
from typing import TypeVar

import jax

T = TypeVar("T")


def hyperparameters(cls: type[T]) -> type[T]:
    """Register a frozen dataclass as a pytree: fields marked ``static`` shape the program, the others are numbers.

    A model can then be an argument of a compiled function, and a second fit with other numbers compiles nothing.
    Numbers come back unchecked, because under a trace they are not numbers.
    """
    fields = dataclasses.fields(cls)  # type: ignore[arg-type]
    static = [f.name for f in fields if f.metadata.get("static")]
    data = [f.name for f in fields if not f.metadata.get("static")]

    def flatten(model):
        return [getattr(model, n) for n in data], tuple(getattr(model, n) for n in static)

    def unflatten(aux, children):
        model = object.__new__(cls)
        for name, value in (*zip(static, aux, strict=True), *zip(data, children, strict=True)):
            object.__setattr__(model, name, value)
        return model

    jax.tree_util.register_pytree_node(cls, flatten, unflatten)
    return cls
