"""What a model expects to see: before the data, after them, and how probable it finds them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial
from typing import Any

import jax
import numpy as np
import xarray as xr
from numpyro import handlers

from bayesunmix._keys import as_key
from bayesunmix._model_units import as_arrays, of_sequences, units_of
from bayesunmix._named import derived
from bayesunmix.data.axes import bare_dims
from bayesunmix.data.sequences import as_padded
from bayesunmix.data.units import Units
from bayesunmix.fit import Fit
from bayesunmix.inference.context import computing
from bayesunmix.inference.program import ONE_AT_A_TIME, Program, compile_model
from bayesunmix.inference.units import (
    POINT_SETS,
    Chunk,
    Draws,
    chunks,
    is_local,
    likelihood_pass,
    local_sites,
    replicate_pass,
)

_MAX_BYTES = 2**31
POINTS = 20240607  # seed of the integration points that criticism uses: not those of the fit


def simulate(model: Any, like: Any, seed: int | jax.Array = 0, **covariates: Any) -> tuple[xr.DataArray, xr.Dataset]:
    """One image from the prior, with the truth that made it.

    Parameters
    ----------
    model
        A model whose priors are not bound to data yet is bound to ``like``, once; a bound model is used as it
        is.
    like : xarray.DataArray or array
        Gives dims, sizes, coordinates and, where the model needs them, the scales of its priors. An image
        that is zero everywhere, or holds no finite pixel, serves as an empty template: priors of unit scale.
    seed : int or JAX key
    **covariates
        Handed to the model.

    Returns
    -------
    data : xarray.DataArray
        On the dims and coordinates of ``like``.
    truth : xarray.Dataset
        Globals with their named dims, latents on the pixel dims, of hidden chains the ``path`` (sequence, time);
        exchangeable labels are in the model's canonical order.

    Examples
    --------
    >>> image, truth = bu.simulate(bu.models.LinearUnmixing(2), like=np.zeros((4, 3, 10)), seed=1)
    >>> image.dims, truth["abundance"].dims
    (('y', 'x', 'channel'), ('y', 'x', 'endmember'))
    """
    image = _template(model, like)
    bound = _bind(model, image)
    like_units, covariates = _like_units(bound, image, covariates)
    n_units = len(like_units)
    with computing():
        key = as_key(seed)
        program, numbers = compile_model(bound, like_units, covariates)
        y, globals_, latents = _generate(program, numbers, {}, key, n_units, getattr(bound, "latent", None), covariates)
    data = image.copy(data=_with_gaps(bound, np.asarray(y).reshape(image.shape), image))
    return data, _truth(bound, globals_, latents, image)


def bound_to(model: Any, like: Any) -> Any:
    """A model bound to ``like`` as :func:`simulate` binds it; a bound one, or one that binds nothing, as it is."""
    return _bind(model, _template(model, like))


def prior_predictive(
    model: Any,
    like: Any,
    draws: int = 50,
    seed: int | jax.Array = 0,
    *,
    max_bytes: int = _MAX_BYTES,
    **covariates: Any,
) -> xr.DataArray:
    """Images that the model expects before it has seen any, each from its own draw of the priors.

    Parameters are those of :func:`simulate`, and ``draws``.

    Returns
    -------
    xarray.DataArray
        Dims (draw, dims of ``like``).

    Raises
    ------
    MemoryError
        When the images would take more than ``max_bytes``.
    """
    image = _template(model, like)
    bound = _bind(model, image)
    _check_size(draws * image.size * 8, max_bytes, draws)
    like_units, covariates = _like_units(bound, image, covariates)
    n_units = len(like_units)
    images = np.empty((draws, *image.shape))
    with computing():
        program, numbers = compile_model(bound, like_units, covariates)
        for i, key in enumerate(jax.random.split(as_key(seed), draws)):
            y, _, _ = _generate(program, numbers, {}, key, n_units, getattr(bound, "latent", None), covariates)
            images[i] = _with_gaps(bound, np.asarray(y).reshape(image.shape), image)
    return _images(images, image)


def posterior_predictive(
    fit: Fit, draws: int = 50, seed: int | jax.Array = 0, unit: str = "same", *, max_bytes: int = _MAX_BYTES
) -> xr.DataArray:
    """Images that the fitted model expects to see next.

    Parameters
    ----------
    fit : Fit
    draws : int
        Images, each from one posterior draw of the globals.
    seed : int or JAX key
    unit : "same" or "new"
        "same": every pixel measured again, its latent as inferred. "new": other pixels, their latents from
        the fitted population.
    max_bytes : int
        Most memory for the images.

    Returns
    -------
    xarray.DataArray
        Dims (draw, dims of the data), in the units and precision of the data, NaN where pixels were masked.

    Raises
    ------
    MemoryError
        When the images would take more than ``max_bytes``.
    """
    check_unit(unit)
    units = fit.units
    dtype = units.values.dtype
    _check_size(draws * int(np.prod(units.pixel_shape)) * units.values[0].size * dtype.itemsize, max_bytes, draws)
    with computing():
        key_points, key_draws = jax.random.split(as_key(seed))
        chosen = fit.draws(draws)
        found = np.empty((units.n_units, chosen.size, *units.values.shape[1:]), dtype)
        if unit == "same":
            parts = chunks(chosen, units.values, fit.covariates, key_points, held=chosen.size * units.values[0].size)
            for part, chunk in parts:
                again = replicate_pass(*chosen, chunk, jax.random.fold_in(key_draws, part.start))
                found[part] = np.moveaxis(np.asarray(again), 0, 1)
        else:
            known = set(chosen.values) - set(local_latents(fit))
            for i, key in enumerate(jax.random.split(key_draws, chosen.size)):
                values = {name: chosen.values[name][i] for name in known}
                y, _, _ = _generate(chosen.program, chosen.numbers, values, key, units.n_units, None, fit.covariates)
                found[:, i] = np.asarray(y)
    found = np.moveaxis(found, 1, -1)
    image = units.to_map(found, (*units.inner_dims, "draw")).transpose("draw", ...)
    image.attrs.update(units.attrs)
    image.name = units.name or None
    return image


def log_likelihood(
    fit: Fit,
    data: Any = None,
    *,
    mask: Any = None,
    seed: int | jax.Array = POINTS,
    max_bytes: int = _MAX_BYTES,
) -> xr.DataArray:
    """Log density of every pixel at every stored draw of the globals, the pixel's own latent integrated out.

    Parameters
    ----------
    fit : Fit
    data : xarray.DataArray or array, optional
        Fresh data with the channels of the fitted; the fitted data when left out.
    mask : optional
        Pixels of ``data`` to keep, as in :func:`bayesunmix.fit`.
    seed : int or JAX key
        Picks the integration points where the likelihood is sampled.
    max_bytes : int
        Most memory for the answer.

    Returns
    -------
    xarray.DataArray
        Dims (chain, draw, pixel dims), in nats for densities in the units of the data; NaN where pixels were
        masked. Of a model with latents that are sample sites it is the density given those latents, and
        ``attrs["conditional"]`` is 1.

    Raises
    ------
    ValueError
        When ``data`` have other channels, or the model is tied to the fitted pixels.
    MemoryError
        When the answer would take more than ``max_bytes``.
    """
    units = fit.units if data is None else fresh_units(fit, data, mask)
    sizes = tuple(fit.posterior.sizes[d] for d in ("chain", "draw"))
    _check_size(int(np.prod(sizes)) * units.n_units * 8, max_bytes, int(np.prod(sizes)))
    found = np.empty((units.n_units, int(np.prod(sizes))))
    with computing():
        chosen = fit.draws()
        for part, chunk, key in likelihood_chunks(chosen, units, fit.covariates, as_key(seed)):
            found[part] = np.asarray(likelihood_pass(*chosen, chunk, key).pointwise).T
        conditional = bool(local_latents(fit))
    coords = {dim: fit.posterior[dim] for dim in ("chain", "draw")}
    image = units.to_map(found.reshape(-1, *sizes), ("chain", "draw"), coords).transpose("chain", "draw", ...)
    image.name = "log_likelihood"
    return image.assign_attrs(units="nats", conditional=int(conditional))


def likelihood_chunks(
    draws: Draws, units: Units, covariates: dict[str, Any], key: jax.Array
) -> Iterator[tuple[slice, Chunk, jax.Array]]:
    """Chunks of units for ``likelihood_pass``, and keys for it: the same wherever they are asked for."""
    key_points, key_sets = jax.random.split(key)
    for part, chunk in chunks(draws, units.values, covariates, key_points, held=2 * draws.size + POINT_SETS):
        yield part, chunk, jax.random.fold_in(key_sets, part.start)


def fresh_units(fit: Fit, data: Any, mask: Any = None) -> Units:
    """Other data through the door of the fit, checked to be of the same kind.

    Raises
    ------
    ValueError
        When the channels differ, or the model holds latents or covariates of the fitted pixels.
    """
    units = units_of(fit.model, data, mask)
    if of_sequences(fit.model):
        ours = theirs = None
    elif units.n_channels != fit.units.n_channels:
        raise ValueError(f"data: expected the {fit.units.n_channels} channels of the fit, got {units.n_channels}")
    else:
        ours, theirs = (u.coords.get(u.channel_dim) for u in (fit.units, units))
    if ours is not None and theirs is not None and not np.array_equal(ours.values, theirs.values):
        raise ValueError(f"data: their {units.channel_dim} axis is not that of the fit: interpolate them onto it")
    if per_unit_covariates(fit) or local_latents(fit):
        raise ValueError("the model has latents or covariates of the fitted pixels: it says nothing about others")
    return units


def per_unit_covariates(fit: Fit) -> list[str]:
    """Names of the covariates with one entry per fitted pixel."""
    n_units = fit.units.n_units
    return [n for n, v in fit.covariates.items() if np.ndim(v) and len(v) == n_units]


def check_unit(unit: str) -> None:
    """Refuse anything but "same" and "new"."""
    if unit not in ("same", "new"):
        raise ValueError(f'unit: expected "same" (this pixel again) or "new" (another pixel), got {unit!r}')


def local_latents(fit: Fit) -> tuple[str, ...]:
    """Latents of the model that are sample sites, one per pixel."""
    with computing():
        chosen = fit.draws(1)
        return local_sites(chosen.program, chosen.numbers, fit.units.values, fit.covariates)


@partial(jax.jit, static_argnames=("program", "n_units", "latent"))
def _generate(program: Program, numbers, values, key, n_units: int, latent: str | None, covariates):
    """Run a program forward with the sites in ``values`` given: data, globals, and latents of the units."""
    key_program, key_data = jax.random.split(key)
    with (
        ONE_AT_A_TIME,
        handlers.trace() as trace,
        handlers.seed(rng_seed=key_program),
        handlers.substitute(data=values),
    ):
        program.model(numbers)(None, n_units=n_units, **covariates)
    found: dict[str, Any] = {}
    latents: dict[str, Any] = {}
    for name, site in trace.items():
        if name == "y" or site["type"] not in ("sample", "deterministic"):
            continue
        (latents if is_local(site) else found)[name] = site["value"]
    fn, y = trace["y"]["fn"], trace["y"]["value"]
    if latent is not None and hasattr(fn, "sample_with_latent"):
        y, latents[latent] = fn.sample_with_latent(key_data)
    return y, found, latents


def _template(model: Any, like: Any) -> xr.DataArray:
    """An image to imitate, or sequences with NaN beyond their ends, in float64."""
    if of_sequences(model):
        return as_padded(like)
    image = like if isinstance(like, xr.DataArray) else xr.DataArray(np.asarray(like), dims=_dims(np.ndim(like)))
    if image.ndim < 2 or image.dtype.kind not in "fiub":
        raise ValueError(
            f"like: expected an image of real numbers with the spectral axis last, got dims {image.dims} "
            f"of type {image.dtype}"
        )
    return image.astype(np.float64)


def _dims(ndim: int) -> tuple[str, ...]:
    return ("pixel", "channel") if ndim == 2 else bare_dims(ndim)


def _like_units(model: Any, image: xr.DataArray, covariates: dict[str, Any]) -> tuple[np.ndarray, dict[str, Any]]:
    """Zeros in place of the units of an image, (unit, channel) or (unit, time, ...), and covariates as arrays."""
    shape = _unit_shape(model, image)
    n_pixel_dims = image.ndim - len(shape)
    units = np.zeros((image.size // math.prod(shape), *shape))
    return units, as_arrays(covariates, image.dims[:n_pixel_dims], image.shape[:n_pixel_dims])


def _unit_shape(model: Any, image: xr.DataArray) -> tuple[int, ...]:
    """Sizes of one unit: the channels of a pixel, the frames and features of a sequence."""
    return image.shape[1:] if of_sequences(model) else image.shape[-1:]


def _with_gaps(model: Any, values: np.ndarray, image: xr.DataArray) -> np.ndarray:
    """Simulated sequences miss the frames that their template misses."""
    return np.where(np.isnan(image.values), np.nan, values) if of_sequences(model) else values


def _bind(model: Any, image: xr.DataArray) -> Any:
    if not hasattr(model, "bind") or getattr(model, "bound", False):
        return model
    if of_sequences(model):
        return model.bind(image.values)
    values = image.values.reshape(-1, image.shape[-1])
    values = values[np.isfinite(values).all(axis=1)]
    return model.bind(values if len(values) else np.zeros((1, image.shape[-1])))


def _truth(model: Any, found: dict[str, Any], latents: dict[str, Any], image: xr.DataArray) -> xr.Dataset:
    dims = getattr(model, "dims", {})
    inner = len(_unit_shape(model, image))
    pixel_dims, channel_dim = image.dims[: image.ndim - inner], image.dims[image.ndim - inner]
    arrays: dict[str, xr.DataArray] = {}
    latent = getattr(model, "latent", None)
    if latent in latents and hasattr(model, "latents"):
        latents = {**latents, **model.latents(latents[latent])}
    known = {**found, **latents}
    if hasattr(model, "identified"):
        known = model.identified(known)
    known = {**known, **derived(model, known)}
    for name, value in known.items():
        values = np.asarray(value)
        outer = pixel_dims if name in latents else ()
        values = values.reshape((*image.shape[: len(outer)], *values.shape[bool(outer) :]))
        own = dims.get(name) or tuple(f"{name}_dim_{i}" for i in range(values.ndim - len(outer)))
        own = tuple(channel_dim if d == "channel" else d for d in own)
        if name in own:
            # One-hot, under the name that its label's coordinate has: the label itself.
            name, values, own = "path", values.argmax(-1), own[:-1]
        labels = {d: np.arange(n) for d, n in zip(own, values.shape[len(outer) :], strict=True) if d != channel_dim}
        arrays[name] = xr.DataArray(values, dims=(*outer, *own), coords=labels)
    coords = {d: image.coords[d] for d in image.dims if d in image.coords}
    truth = xr.Dataset(arrays).assign_coords(coords)
    label = getattr(model, "label", None)
    if hasattr(model, "relabelled"):
        truth = model.relabelled(truth)
    elif label is not None and latent in truth:
        order = model.order({latent: truth[latent].mean(pixel_dims).values})
        truth = truth.isel({label: order}).assign_coords({label: truth[label]})
    return truth


def _images(values: np.ndarray, image: xr.DataArray) -> xr.DataArray:
    coords = {d: image.coords[d] for d in image.dims if d in image.coords}
    return xr.DataArray(values, dims=("draw", *image.dims), coords=coords, attrs=image.attrs, name=image.name)


def _check_size(n_bytes: int, most: int, draws: int) -> None:
    if n_bytes > most:
        raise MemoryError(
            f"{draws} draws need {n_bytes / 2**30:.2g} GiB, more than max_bytes={most / 2**30:.2g} GiB: "
            "ask for fewer draws or a larger limit"
        )
