"""One verb, one result: ``fit`` takes a model and data, and returns a ``Fit``."""

from __future__ import annotations

import time
from collections.abc import Generator
from contextlib import closing, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from bayesunmix._counts import as_count
from bayesunmix._keys import as_key
from bayesunmix._model_units import for_globals, name_of, received, sufficient, takes, words
from bayesunmix._named import named_diagnostics, named_posterior
from bayesunmix._threads import one_thread
from bayesunmix.data.units import Units
from bayesunmix.inference import NUTS, SVI, Gibbs
from bayesunmix.inference.composite import widened
from bayesunmix.inference.context import computing
from bayesunmix.inference.gibbs import gibbs_settings, infer_by_gibbs
from bayesunmix.inference.latents import STATISTICS, latent_statistics
from bayesunmix.inference.program import compile_model, on_device
from bayesunmix.inference.progress import Progress
from bayesunmix.inference.run import infer, settings_as_dict
from bayesunmix.inference.units import Draws, chunks, draw_pass, evenly
from bayesunmix.provenance import describe_run, hashed_aside

_LATENT_DRAWS = 100  # draws of the globals behind maps of the latent


def fit(
    model: Any,
    data: Any,
    method: SVI | NUTS | Gibbs | None = None,
    *,
    mask: Any = None,
    seed: int | jax.Array = 0,
    progress: bool = True,
    **covariates: Any,
) -> Fit:
    """Fit a model to an image.

    Parameters
    ----------
    model
        A model of :mod:`bayesunmix.models`, or any NumPyro program ``model(y=None, *, n_units)`` with an observed site
        "y" inside ``numpyro.plate("unit", n_units)``.
    data : xarray.DataArray, array, or xarray.Dataset of neighbour vectors
        Spectral axis last; see :func:`bayesunmix.data.units.as_units` for what is accepted. Of neighbour vectors
        (:func:`bayesunmix.descriptors.neighbour_vectors`) the complete ones are taken, with their covariance; the
        posterior is as wide as atoms that share neighbours leave it (:mod:`bayesunmix.inference.composite`).
    method : SVI, NUTS or Gibbs, optional
        Left out: the exact sampler of a model that has one (``Gibbs()``), else ``SVI()``.
    mask : boolean DataArray or array over the pixel dims, or "finite"
        True = keep.
    seed : int or JAX key
    progress : bool
        Show a bar on a terminal or in a notebook.
    **covariates
        Handed to the model. A DataArray over the pixel dims, or an array with as many entries as there are units, in
        the order of the pixels that are kept, is theirs, and cut with them where some are worked on at a time; any
        other is handed over whole.

    Returns
    -------
    Fit
        Check ``fit.converged`` and read ``fit.diagnostics.attrs["verdict"]`` before using it. After Ctrl-C during
        sampling it holds what there is and ``fit.finished`` is False.

    Raises
    ------
    TypeError, ValueError
        For data that cannot be fitted (NaN, complex, constant, ...), models without an observed site, and programs that
        say something else of a unit where it stands elsewhere.
    FloatingPointError
        When the curvature of the log posterior is not finite, as for extreme values.

    Examples
    --------
    >>> image, truth = bu.simulate(bu.models.ProbabilisticPCA(1), like=np.zeros((6, 5, 8)))
    >>> fit = bu.fit(bu.models.ProbabilisticPCA(1), image, progress=False)
    >>> fit.converged
    True
    >>> fit.posterior["components"].dims
    ('chain', 'draw', 'component', 'channel')
    >>> score = fit.latent(prob=0.9)["score"].sel(component=0)
    >>> score.sel(statistic="mean").dims
    ('y', 'x')
    """
    if not isinstance(method, SVI | NUTS | Gibbs | None):
        raise TypeError(f"method: expected bu.SVI(...), bu.NUTS(...) or bu.Gibbs(...), got {method!r}")
    own = gibbs_settings(model, method)
    method = method or own or SVI()
    if isinstance(model, type) or not callable(model):
        raise TypeError(
            "model: expected a model such as bu.models.LinearUnmixing(n_endmembers=4), or a NumPyro program, "
            f"got {model!r}"
        )
    units, covariates = received(model, data, mask, covariates)
    with nullcontext() if own else one_thread():  # samplers of models' own are large products and little else
        bound = model.bind(units.values) if hasattr(model, "bind") and not getattr(model, "bound", False) else model
    if same := sorted({*units.pixel_dims, *units.inner_dims} & set(getattr(bound, "dims", ()))):
        raise ValueError(
            f"expected dims that are no parameters of {name_of(model)}, got {same[0]!r}: rename it with "
            f"data.rename({{{same[0]!r}: ...}})"
        )
    hashed = hashed_aside(units)  # beside the inference: priors of large images may use every core
    unknown = [name for name in covariates if not takes(model, name)]
    if unknown:
        raise TypeError(f"{name_of(model)} takes no covariate {unknown[0]!r}, and bu.fit has no such argument")
    if hasattr(bound, "unit_covariates"):
        covariates = {**bound.unit_covariates(units.values), **covariates}
    started, lean = time.perf_counter(), None
    with computing(one=own is None), Progress(progress) as bar:
        if own is not None:
            result = infer_by_gibbs(bound, units.values, covariates, own, as_key(seed), bar)
        elif isinstance(method, Gibbs):
            raise TypeError(f"method: {name_of(model)} has no sampler of its own; use bu.SVI() or bu.NUTS()")
        else:
            lean = sufficient(bound, units)
            result = infer(*for_globals(*lean), covariates, method, as_key(seed), bar)
        values = result.values
        if units.shared is not None:
            values = widened(bound, values, units.values, covariates, units.shared)
    wall = time.perf_counter() - started
    if hasattr(bound, "identified") and (own is None or units.shared is not None):
        values = bound.identified(values)
    posterior = named_posterior(bound, values, units)
    judged = result.diagnostics if result.finished else result.diagnostics.stopped()
    for remark in bound.remarks(values) if hasattr(bound, "remarks") else ():
        judged = judged.remarked(remark)
    found = Fit(
        model=bound,
        method=method,
        units=units,
        posterior=posterior,
        diagnostics=named_diagnostics(judged, posterior),
        finished=result.finished,
        provenance=describe_run(units, settings_as_dict(method), seed, wall, name=name_of(model), hashed=hashed()),
        covariates=covariates,
    )
    with computing():
        program, _ = compile_model(bound, units.values, covariates)
    vars(found)["_seen"] = program.seen
    if lean is not None:
        vars(found)["_lean"] = lean  # known already; a cached property, so that copies with other data find their own
    return found


def as_fit(given: Any, name: str = "fit") -> Fit:
    """What was given, which must be a :class:`Fit`, and not its data or its model.

    Raises
    ------
    TypeError
    """
    if not isinstance(given, Fit):
        raise TypeError(f"{name}: expected what bu.fit returns, got {type(given).__name__}")
    return given


@dataclass(frozen=True, eq=False)
class Fit:
    """A model, the data it was fitted to, and the posterior.

    Attributes
    ----------
    model
        The bound model: every prior is a number.
    method : SVI, NUTS or Gibbs
    units : Units
        The fitted pixels.
    posterior : xarray.Dataset
        Globals, dims (chain, draw, ...), labels in canonical order.
    diagnostics : xarray.Dataset
        With ``attrs["converged"]`` and ``attrs["verdict"]``.
    finished : bool
        Ran to its end.
    provenance : dict
        Seed, versions, hash of the data, method, time.
    covariates : dict
        What was handed to the model beside the data.
    truth : xarray.Dataset or None
        Of simulated data, for the report.
    """

    model: Any
    method: SVI | NUTS | Gibbs
    units: Units
    posterior: xr.Dataset
    diagnostics: xr.Dataset
    finished: bool
    provenance: dict[str, Any]
    covariates: dict[str, Any] = field(default_factory=dict)
    truth: xr.Dataset | None = None

    @property
    def converged(self) -> bool:
        """Whether the fit passed its own diagnostics and ran to its end."""
        return bool(self.diagnostics.attrs["converged"]) and self.finished

    @cached_property
    def data(self) -> xr.DataArray:
        """The fitted data on their own coordinates, NaN where pixels were masked."""
        image = self.units.to_map(self.units.values, self.units.inner_dims)
        image.name = self.units.name or None
        image.attrs.update(self.units.attrs)
        return image

    def latent(self, prob: float = 0.9, *, draws: int = _LATENT_DRAWS, seed: int | jax.Array = 0) -> xr.Dataset:
        """Local latents of every pixel with their uncertainty.

        Parameters
        ----------
        prob : float
            Mass of the equal-tailed interval ``lower`` to ``upper``.
        draws : int
            Draws of the globals to average over; fewer where they make no difference.
        seed : int or JAX key

        Returns
        -------
        xarray.Dataset
            On the pixel dims plus the latent's own and ``statistic``: mean, sd, lower, upper, sd_noise (what noise
            leaves open, root of E Var(latent | y, globals)), sd_model (what unknown globals leave open, root of
            Var E(latent | y, globals)); sd_noise**2 + sd_model**2 = sd**2.

        Raises
        ------
        TypeError
            When the model's likelihood has no latent that it integrates out.
        """
        if not 0 < prob < 1:
            raise ValueError(f"prob: expected a number between 0 and 1, got {prob}")
        draws = as_count("draws", draws)
        with computing():
            values, within = latent_statistics(*self._for_latents(draws), prob, as_key(seed))
        maps = self._latent_dataset(values, ("statistic",), {"statistic": list(STATISTICS)}, prob=prob)
        if within is None:
            return maps
        # H[E p] = E[H p] + mutual information of label and globals.
        share = values[..., 0]
        whole = -(share * np.log(np.maximum(share, np.finfo(share.dtype).tiny))).sum(-1)
        dims = self._latent_dims()[:-1]
        nats = {"entropy": whole, "entropy_noise": within, "mutual_information": np.maximum(whole - within, 0.0)}
        return maps.assign({n: self.units.to_map(v, dims).assign_attrs(units="nats") for n, v in nats.items()})

    def sample_latent(
        self, draws: int = 100, seed: int | jax.Array = 0, *, path: Any = None, max_bytes: int = 2**31
    ) -> xr.Dataset:
        """Draws of the local latents from the posterior, globals and latents drawn together.

        Parameters
        ----------
        draws : int
            At most as many as the fit kept, for each goes with another one of the globals.
        seed : int or JAX key
        path : str or Path, optional
            Write the draws to this netCDF file, a chunk of pixels at a time, and read them from there when they are
            used: for more of them than memory holds. An older file of that name is replaced.
        max_bytes : int
            Of a result in memory.

        Returns
        -------
        xarray.Dataset
            Dims (draw, pixel dims, the latent's own). With ``path`` what is computed is read whole: take parts with
            ``isel`` before, or ``chunk()`` with dask; the file stays open until ``close()``.

        Raises
        ------
        MemoryError
            When the draws would take more than ``max_bytes``, without a ``path``.
        FileNotFoundError, IsADirectoryError
            When ``path`` lies in no folder, or is one.
        ValueError
            With a ``path``, for a dim whose name netCDF cannot hold.
        """
        parts, needed, draws = [], 0, as_count("draws", draws)
        with closing(self._latent_draws(draws, as_key(seed))) as found:
            if path is not None:
                from bayesunmix._latent_file import write_draws

                return write_draws(path, self.units, ((part, self._latents_of(values)) for part, values in found))
            for _, values in found:
                needed = needed or values[:1].nbytes * self.units.n_units
                if needed > max_bytes:
                    raise MemoryError(
                        f"{draws} draws of the latents need {needed / 2**30:.1f} GiB, more than "
                        f"max_bytes={max_bytes / 2**30:.1f} GiB: ask for fewer draws or a larger limit, or have them "
                        "written with path='draws.nc'"
                    )
                parts.append(values)
        return self._latent_dataset(np.concatenate(parts), ("draw",), {}).transpose("draw", ...)

    def _latent_draws(self, draws: int, key: jax.Array) -> Generator[tuple[slice, np.ndarray], None, None]:
        """A chunk of the units at a time: which they are, and (unit, *latent, draw)."""
        key_points, key_draws = jax.random.split(key)
        with computing():
            chosen, values, covariates = self._for_latents(draws)
            for part, chunk in chunks(chosen, values, covariates, key_points):
                found = draw_pass(*chosen, chunk, jax.random.fold_in(key_draws, part.start))
                yield part, np.moveaxis(np.asarray(found, dtype=np.float32), 0, -1)

    def to_arviz(self, *, log_likelihood: bool = False, predictive: int = 0) -> Any:
        """InferenceData (ArviZ 0.23) or DataTree (ArviZ 1.x) of the posterior, the data and the diagnostics.

        With ``log_likelihood`` the marginal log-likelihood of every pixel; with ``predictive`` so many draws of the
        pixels measured again ("data"), of what they should show ("expected", the epistemic part) and of its noise
        ("noise", the aleatoric part).
        """
        from bayesunmix._groups import to_arviz

        return to_arviz(self, log_likelihood=log_likelihood, predictive=predictive)

    def save(self, path: Any) -> None:
        """Write everything to one netCDF file, which :func:`load_fit` reads back.

        Parameters
        ----------
        path : str or Path
            A file in a folder that exists; a file of that name is replaced.

        Raises
        ------
        TypeError
            When a model of one's own or a covariate holds what is neither number, text nor array.
        FileNotFoundError, IsADirectoryError
            When ``path`` lies in no folder, or is one.
        """
        from bayesunmix.storage import save_fit

        save_fit(self, path)

    def draws(self, most: int | None = None) -> Draws:
        """Posterior draws of the globals for the engine, thinned evenly to ``most``; call in ``computing()``."""
        return self._draws_for(self.model, self.units.values, most)

    def _draws_for(self, model: Any, values: Any, most: int | None) -> Draws:
        """The same for a model with the same globals, and its data."""
        sizes = self.posterior.sizes
        take = evenly(sizes["chain"] * sizes["draw"], most)
        program, numbers = compile_model(model, values, self.covariates)
        if model is self.model:
            self.units.unchanged()
            if vars(self).get("_seen", program.seen) != program.seen:
                raise ValueError(
                    f"expected {name_of(model)} to do what it did when it was fitted, and it does something else: a "
                    "global or a variable that it closes over has changed. Set it back, or fit again"
                )
        dtype = jnp.result_type(float)
        by_chain = {str(n): v.transpose("chain", "draw", ...).values for n, v in self.posterior.data_vars.items()}
        chosen = {n: v.reshape(-1, *v.shape[2:])[take].astype(dtype) for n, v in by_chain.items()}
        return Draws(program, tuple(on_device(n, dtype) for n in numbers), jax.device_put(chosen))

    def _for_latents(self, draws: int) -> tuple[Draws, Any, dict[str, Any]]:
        if getattr(self.model, "latent", None) is None:
            raise TypeError(
                "this model has no latent that its likelihood integrates out; latents that are ordinary sample sites "
                "are in fit.posterior"
            )
        lean, values = self._lean
        return self._draws_for(lean, values, draws), values, self.covariates

    @cached_property
    def _lean(self) -> tuple[Any, Any]:
        """Model and values for latents, once for all that ask: an image in a file is not read again."""
        return sufficient(self.model, self.units)

    def _latent_dims(self, name: str | None = None) -> tuple[str, ...]:
        dims = self.model.dims[name or self.model.latent]
        return tuple(self.units.channel_dim if d == "channel" else d for d in dims)

    def _latents_of(self, values: np.ndarray) -> dict[str, tuple[np.ndarray, tuple[str, ...]]]:
        """Every latent's own values (unit, *own, extra) and own dims."""
        name, n_own = self.model.latent, len(self._latent_dims())
        if not hasattr(self.model, "latents"):
            return {name: (values, self._latent_dims())}
        # Several latents share the last of the latent's own axes.
        split = self.model.latents(np.moveaxis(values, n_own, -1))
        found = {n: np.moveaxis(v, -1, n_own) if v.ndim == values.ndim else v for n, v in split.items()}
        return {n: (v, self._latent_dims(n)) for n, v in found.items()}

    def _latent_dataset(self, values: np.ndarray, extra: tuple[str, ...], coords: dict[str, Any], **attrs: Any):
        arrays = {}
        for name, (array, own) in self._latents_of(values).items():
            sizes = zip(own, array.shape[1 : 1 + len(own)], strict=True)
            label = {dim: np.arange(size) for dim, size in sizes if dim != self.units.channel_dim}
            arrays[name] = self.units.to_map(array, (*own, *extra), {**label, **coords}, copy=False)
        return xr.Dataset(arrays, attrs=attrs)

    def __repr__(self) -> str:
        state = "" if self.finished else " (interrupted)"
        units, inside = words(self.model)
        sizes = dict(self.posterior.sizes)
        advice = "" if units == "vectors" else self.units.advice
        return (
            f"<Fit of {name_of(self.model)} by {type(self.method).__name__} to {self.units.n_units} {units} x "
            f"{self.units.n_channels} {inside}{state}: {self.diagnostics.attrs['verdict']} "
            f"Draws: {sizes.get('chain', 1)} x {sizes.get('draw', 0)}{advice}>"
        )

    def _repr_html_(self) -> str:
        from html import escape

        mark = "&#10003;" if self.converged else "&#9888;"
        summary = escape(repr(self)[1:-1])
        priors = escape(self.model.describe()).replace("\n", "<br>") if hasattr(self.model, "describe") else ""
        return f"<div><b>{mark} {summary}</b><p>{priors}</p>{self.posterior._repr_html_()}</div>"


def load_fit(path: Any, model: Any = None) -> Fit:
    """Read what :meth:`Fit.save` wrote.

    Parameters
    ----------
    path : str or Path
    model : optional
        Needed only for a model that is not part of the package: a file holds numbers and never code.

    Returns
    -------
    Fit

    Raises
    ------
    FileNotFoundError, IsADirectoryError
        When there is no file.
    TypeError
        When ``path`` is no path, or ``model`` no model.
    ValueError
        When the file is no fit, is damaged or of a later version, or when ``model`` is needed or does not fit.
    """
    from bayesunmix.storage import read_fit

    return read_fit(path, model)
