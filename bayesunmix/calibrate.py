"""Simulation-based calibration: whether 90 % intervals hold the truth in 90 % of the images a model can make."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Sequence
from numbers import Number
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import xarray as xr

from bayesunmix._keys import as_key, generator
from bayesunmix.align import assigned
from bayesunmix.distributions.angles import nearest_turn
from bayesunmix.fit import Fit, fit
from bayesunmix.inference import NUTS, SVI, Gibbs
from bayesunmix.inference.progress import Progress
from bayesunmix.inference.units import evenly
from bayesunmix.predict import bound_to, simulate

_LEVELS = (0.5, 0.8, 0.9, 0.95)
_KNOWN = -1
_MOST_LATENTS = 512  # pixels' latents that are ranked in every image


def calibrate(
    model: Any,
    like: Any,
    n: int = 100,
    seed: int | jax.Array = 0,
    *,
    method: SVI | NUTS | Gibbs | None = None,
    draws: int = 99,
    levels: Sequence[float] = _LEVELS,
    path: Any = None,
    progress: bool = True,
    **covariates: Any,
) -> xr.Dataset:
    """Draw parameters from the prior and an image from them, fit the image, rank the truth; ``n`` times.

    The model is bound to ``like`` once and never again. For a right posterior the rank of the truth among posterior
    draws is uniform.

    Parameters
    ----------
    model, like
        As in :func:`bayesunmix.simulate`; an image that is zero everywhere is an empty template.
    n : int
        Simulated images.
    seed : int or JAX key
    method
        Of the fits, as in :func:`bayesunmix.fit`.
    draws : int
        Posterior draws that the truth is ranked among.
    levels : sequence of float
        Mass of the central intervals whose coverage is counted.
    path : path, optional
        File (.npz) that is written after every image. When it is there already the run goes on where it stopped, also
        towards a larger ``n``.
    progress : bool
    **covariates
        Handed to the model.

    Returns
    -------
    xarray.Dataset
        ``ranks`` (simulation, quantity), from 0 to ``draws``, where ``parameter`` and ``element`` say what a quantity
        is: globals, and the latents of up to 512 pixels. ``coverage`` and its standard error across images
        ``coverage_se`` (parameter, level). ``location`` and ``spread`` (parameter): mean of the ranks above one half,
        and mean square about it over its expectation, so that above 1 intervals are too narrow.
        ``attrs["uniform_p"]``: for every parameter the probability of location and spread this far from uniform
        (Hotelling's test of means over its elements, which are not independent, across images, which are); a dict,
        which comes back from a file as an array in the order of ``name``.
        ``converged`` and ``mc_shift`` (simulation): verdict of every fit, and the largest of its integration errors in
        posterior sd (NaN where the likelihood is exact). After Ctrl-C it holds the images that are complete, and
        ``attrs["finished"]`` is 0.

    Raises
    ------
    ValueError
        For sizes that make no sense, or when ``path`` holds another calibration.
    FileNotFoundError
        When the folder of ``path`` is not there, before anything is fitted.

    References
    ----------
    Cook, Gelman & Rubin, J. Comput. Graph. Stat. 15, 675 (2006); Talts et al., "Validating Bayesian inference
    algorithms with simulation-based calibration", arXiv:1804.06788 (2018).
    """
    if n < 1 or draws < 9 or not all(0 < level < 1 for level in levels):
        raise ValueError(f"expected n >= 1, draws >= 9 and levels inside (0, 1), got {n}, {draws} and {list(levels)}")
    if path is not None and not Path(path).absolute().parent.is_dir():
        raise FileNotFoundError(f"path: no folder {Path(path).absolute().parent} to write {Path(path).name} into")
    bound = bound_to(model, like)
    identity = _identity(bound, like, seed, method, draws, covariates)
    images = _read(path, identity)
    finished = True
    with Progress(progress) as bar:
        for number in range(len(images), n):
            bar.step(number, n, "simulate and fit")
            try:
                image = _one(bound, like, jax.random.fold_in(as_key(seed), number), method, draws, covariates)
            except KeyboardInterrupt:
                image = None
            if image is None:
                finished = False
                break
            images.append(image)
            _write(path, identity, images)
    if not images:
        raise KeyboardInterrupt
    return _summary(images[:n], draws, tuple(levels), finished)


class _ByName(dict, Number):  # type: ignore[misc]  # two ways to say that it has no hash
    """Numbers by name that netCDF can hold: files get them as an array, in the order of the coordinate "name".

    A number for xarray, which refuses to write any other mapping.
    """

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(list(self.values()), dtype or float)


class _Image(NamedTuple):
    """What one simulated image has shown; every image of a calibration has the same quantities."""

    ranks: np.ndarray  # (quantity,), _KNOWN where all draws are the truth
    names: np.ndarray  # (quantity,) its parameter
    elements: np.ndarray  # (quantity,) its place in the parameter
    converged: bool
    mc_shift: float  # largest of its parameters; NaN where the likelihood is exact


def _one(model: Any, like: Any, key: jax.Array, method: Any, draws: int, covariates: dict[str, Any]) -> _Image | None:
    """Ranks of one image's truth; None when its fit was interrupted."""
    key_image, key_fit, key_latent, key_ties = jax.random.split(key, 4)
    image, truth = simulate(model, like, key_image, **covariates)
    fitted = fit(model, image, method, mask=None, seed=key_fit, progress=False, **covariates)
    if not fitted.finished:
        return None
    flat = fitted.posterior.stack(sample=("chain", "draw"), create_index=False).transpose("sample", ...)
    if flat.sizes["sample"] < draws:
        raise ValueError(
            f"draws: expected at most the {flat.sizes['sample']} that {method or 'the default method'} keeps, got "
            f"{draws}: ask for fewer, or the method for more"
        )
    flat = flat.isel(sample=np.linspace(0, flat.sizes["sample"] - 1, draws).round().astype(int))
    truth = matched(fitted, flat, truth)
    for name in getattr(model, "turning", ()):
        truth = truth.assign({name: nearest_turn(truth[name], flat[name].mean("sample"))})
    pairs = {str(name): (flat[name].values, _like(truth, flat[name])) for name in flat.data_vars if name in truth}
    latent = getattr(model, "latent", None)
    if latent is not None and latent in truth.data_vars:
        drawn = fitted.sample_latent(draws, key_latent)[latent]
        pixels = fitted.units.pixel_dims
        found = drawn.stack(unit=pixels, create_index=False).transpose("draw", "unit", ...).values
        true = truth[latent].stack(unit=pixels, create_index=False).transpose("unit", ...).values
        some = evenly(len(true), _MOST_LATENTS)
        pairs[latent] = found[:, some], true[some]
    rng = generator(key_ties)
    ranks, names, elements = [], [], []
    for name, (found, true) in pairs.items():
        # A truth that equals draws, as whole numbers do, stands at random among them.
        rank = (found < true).sum(0) + rng.integers(0, (found == true).sum(0) + 1)
        known = (found == found[0]).all(0) & np.isclose(true, found[0], rtol=1e-5, atol=0)
        ranks.append(np.where(known, _KNOWN, rank).ravel())
        names.append(np.full(rank.size, name))
        elements.append(np.arange(rank.size))
    shift = float(fitted.diagnostics["mc_shift"].max()) if "mc_shift" in fitted.diagnostics else float("nan")
    return _Image(np.concatenate(ranks), np.concatenate(names), np.concatenate(elements), fitted.converged, shift)


def _like(truth: xr.Dataset, draws: xr.DataArray) -> np.ndarray:
    return truth[draws.name].transpose(*draws.dims[1:]).values


def matched(fitted: Fit, draws: xr.Dataset, truth: xr.Dataset) -> xr.Dataset:
    """The truth with its exchangeable labels in the order of the fit: those that differ least, in posterior sd.

    ``draws`` has the dim "sample" and every global.
    """
    label = getattr(fitted.model, "label", None)
    axes = tuple(getattr(fitted.model, "label_dims", ())) or ((label,) if label else ())
    if not axes:
        return truth
    cost = np.zeros(())
    for name, values in draws.data_vars.items():
        own = [axis for axis in axes if axis in values.dims]
        if len(own) != 1 or name not in truth:
            continue
        order = ("sample", own[0], ...)
        found = values.transpose(*order).values
        found = found.reshape(*found.shape[:2], -1)
        true = truth[name].transpose(own[0], *[d for d in values.transpose(*order).dims[2:]]).values
        sd = np.sqrt(found.var(0).mean(0)) + 1e-12
        away = found.mean(0)[:, None] - true.reshape(len(true), -1)[None]
        if name in getattr(fitted.model, "turning", ()):
            away = nearest_turn(away, 0.0)
        cost = cost + ((away / sd) ** 2).sum(-1)
    if cost.ndim == 0:
        return truth
    moved = assigned(cost, getattr(fitted.model, "label_groups", [range(len(cost))]))
    here = [axis for axis in axes if axis in truth.dims]
    return truth.isel({axis: moved for axis in here}).assign_coords({axis: truth[axis] for axis in here})


def _summary(images: list[_Image], draws: int, levels: tuple[float, ...], finished: bool) -> xr.Dataset:
    ranks = np.stack([image.ranks for image in images])
    # What draws and truth agree on in every image, such as a known global, is no question. What they agree on in some,
    # such as the class of an atom that is beyond doubt, stands at random among its equals there.
    asked = (ranks != _KNOWN).any(0)
    ranks, names, elements = ranks[:, asked], images[0].names[asked], images[0].elements[asked]
    ranks = np.where(ranks == _KNOWN, np.random.default_rng(1).integers(0, draws + 1, ranks.shape), ranks)
    parameters = list(dict.fromkeys(names.tolist()))
    # The step between ranks is filled at random, so that a level between two ranks is exact.
    fraction = (ranks + np.random.default_rng(0).uniform(size=ranks.shape)) / (draws + 1.0)
    centred = fraction - 0.5
    covered, location, spread, uniform_p = [], [], [], {}
    for name in parameters:
        own = centred[:, names == name]
        covered.append([(np.abs(own) < level / 2).mean(1) for level in levels])
        mean, square = own.mean(1), (own**2).mean(1) * 12.0
        location.append(mean.mean())
        spread.append(square.mean())
        uniform_p[name] = hotelling(np.stack([mean, square - 1.0], axis=1))
    by_image = np.array(covered)
    count = len(ranks)
    coords = {
        "parameter": ("quantity", names),
        "element": ("quantity", elements),
        "level": list(levels),
        "name": parameters,
    }
    error = by_image.std(-1, ddof=1) / np.sqrt(count) if count > 1 else np.full(by_image.shape[:2], np.nan)
    return xr.Dataset(
        {
            "ranks": (("simulation", "quantity"), ranks),
            "coverage": (("name", "level"), by_image.mean(-1)),
            "coverage_se": (("name", "level"), error),
            "location": ("name", np.array(location)),
            "spread": ("name", np.array(spread)),
            "converged": ("simulation", np.array([image.converged for image in images])),
            "mc_shift": ("simulation", np.array([image.mc_shift for image in images])),
        },
        coords,
        {"uniform_p": _ByName(uniform_p), "draws": draws, "finished": int(finished)},
    )


def hotelling(values: np.ndarray) -> float:
    """p-value that the mean of rows (row, number) is zero; NaN with too few rows."""
    from scipy.stats import f

    count, size = values.shape
    if count < size + 2:
        return float("nan")
    mean, covariance = values.mean(0), np.cov(values.T)
    square = count * mean @ np.linalg.solve(covariance + 1e-300 * np.eye(size), mean)
    return float(f.sf(square * (count - size) / (size * (count - 1)), size, count - size))


def _identity(model: Any, like: Any, seed: Any, method: Any, draws: int, covariates: dict[str, Any]) -> str:
    """What must be the same for a run to be continued: of a model its settings, of a function its code."""
    code = getattr(model, "__code__", None)
    own = repr(model) if dataclasses.is_dataclass(model) else "" if code is None else code.co_code.hex()
    numbers = [np.asarray(leaf) for leaf in jax.tree_util.tree_leaves((model, covariates)) if not callable(leaf)]
    parts = [type(model).__name__, getattr(model, "__qualname__", ""), own, *sorted(covariates)]
    parts += [str(np.shape(like)), str(as_key(seed)), str(method), str(draws), *(str(n.tolist()) for n in numbers)]
    if code is not None:
        parts += [str(code.co_names), *(str(c) for c in code.co_consts if not hasattr(c, "co_code"))]
    return hashlib.sha256("|".join(parts).encode()).hexdigest()


def _read(path: Any, identity: str) -> list[_Image]:
    if path is None or not Path(path).exists():
        return []
    with np.load(path) as held:
        if str(held["identity"]) != identity:
            raise ValueError(f"{path} holds another calibration (model, data, seed, method or draws differ): remove it")
        names, elements = held["names"], held["elements"]
        by_image = zip(held["ranks"], held["converged"], held["mc_shift"], strict=True)
        return [_Image(ranks, names, elements, bool(good), float(shift)) for ranks, good, shift in by_image]


def _write(path: Any, identity: str, images: list[_Image]) -> None:
    if path is None:
        return
    part = Path(f"{path}.part.npz")
    ranks, names, elements, converged, shift = zip(*images, strict=True)
    by_image: dict[str, Any] = {"ranks": np.stack(ranks), "converged": converged, "mc_shift": shift}
    np.savez(part, identity=identity, names=names[0], elements=elements[0], **by_image)
    os.replace(part, path)
