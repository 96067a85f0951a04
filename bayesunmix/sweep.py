"""The same model at several sizes."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass, replace
from itertools import product
from typing import Any

import jax

from bayesunmix._keys import as_key
from bayesunmix.fit import Fit, fit
from bayesunmix.inference import NUTS, SVI, Gibbs
from bayesunmix.inference.gibbs import gibbs_settings
from bayesunmix.inference.progress import Progress


def sweep(
    model: Any,
    data: Any,
    method: SVI | NUTS | Gibbs | None = None,
    *,
    mask: Any = None,
    seed: int | jax.Array = 0,
    progress: bool = True,
    covariates: Mapping[str, Any] | None = None,
    **grid: Iterable[Any],
) -> dict[str, Fit]:
    """Fit a model with every combination of some of its hyper-parameters.

    Parameters
    ----------
    model
        A model whose hyper-parameters are the fields of a dataclass, as those of :mod:`bayesunmix.models`.
    data, mask
        As in :func:`bayesunmix.fit`.
    method : SVI, NUTS or Gibbs, optional
        Left out: the exact sampler of a model that has one, else ``SVI(sample_if_needed=False)``. A size that the data
        do not support leaves a posterior that no Gaussian fits; sampling it takes longer than all other fits together
        and rarely changes what is preferred. Such a fit says that it failed its diagnostics, and so does the
        comparison; fit the size you keep again with :func:`bayesunmix.fit` if it is one of them.
    seed : int or JAX key
        Every fit has a seed of its own made from it.
    progress : bool
        Show one bar over all fits.
    covariates : mapping, optional
        Handed to the model, as by :func:`bayesunmix.fit`; in a mapping because ``grid`` takes all other names.
    **grid : iterables
        Values of the hyper-parameters, such as ``n_endmembers=range(2, 7)``.

    Returns
    -------
    dict of name to Fit
        Named "n_endmembers=2", or "n_endmembers=2, noise=diagonal" for several; ready for :func:`bayesunmix.compare`.
        After Ctrl-C it holds the fits that are complete.

    Raises
    ------
    TypeError
        For a hyper-parameter that the model does not have.
    ValueError
        When there is nothing to vary.
    """
    known = [field.name for field in fields(model)] if is_dataclass(model) and not inspect.isclass(model) else []
    unknown = [name for name in grid if name not in known]
    if unknown:
        raise TypeError(f"{type(model).__name__} has no hyper-parameters {unknown}: expected some of {known}")
    values = {name: list(choices) for name, choices in grid.items()}
    if not values or not all(values.values()):
        raise ValueError("expected values of at least one hyper-parameter, such as n_endmembers=range(2, 7)")
    points = [dict(zip(values, point, strict=True)) for point in product(*values.values())]
    keys = jax.random.split(as_key(seed), len(points))
    if method is None and gibbs_settings(model, None) is None:
        method = SVI(sample_if_needed=False)
    found: dict[str, Fit] = {}
    with Progress(progress) as bar:
        for done, (point, key) in enumerate(zip(points, keys, strict=True)):
            name = ", ".join(f"{name}={value}" for name, value in point.items())
            bar.step(done, len(points), name)
            try:
                sized = replace(model, **point)
                one = fit(sized, data, method, mask=mask, seed=key, progress=False, **covariates or {})
            except KeyboardInterrupt:
                break
            if not one.finished:
                break
            found[name] = one
    return found
