"""HyperSpy signals to images with named axes, and fits to signals with learning results."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from bayesunmix.data.rosetta import signal_entry
from bayesunmix.fit import Fit
from bayesunmix.interop.decomposition import decomposition


def from_hyperspy(signal: Any) -> xr.DataArray:
    """A HyperSpy signal as an image with named, calibrated axes, the spectral axis last.

    Parameters
    ----------
    signal : hyperspy.api.signals.BaseSignal
        Of any type, eXSpy's included; the data of a lazy signal stay in their dask array. A *boolean* signal is a mask,
        whose meaning is turned round: HyperSpy marks with True what is left out, here True means keep.

    Returns
    -------
    xarray.DataArray
        What :func:`bayesunmix.load` returns for the file of the signal: names of axes in lower case with the name as it
        was in ``attrs["long_name"]``, units in ``attrs["units"]``. Values are shared with the signal, not copied.

    Raises
    ------
    TypeError
        When it is no signal, or a ragged one.

    Examples
    --------
    >>> from hyperspy.api import signals
    >>> s = signals.Signal1D(np.arange(24).reshape(2, 3, 4))
    >>> bu.from_hyperspy(s).dims
    ('y', 'x', 'channel')
    >>> dark = s.sum(-1) < 10  # a mask for s.decomposition(navigation_mask=...)
    >>> bu.from_hyperspy(dark).values  # its pixels to keep, for bu.fit(..., mask=...)
    array([[False,  True,  True],
           [ True,  True,  True]])
    """
    manager = getattr(signal, "axes_manager", None)
    if manager is None or not hasattr(signal, "metadata"):
        raise TypeError(f"expected a HyperSpy signal, got {type(signal).__name__}")
    if getattr(signal, "ragged", False):
        raise TypeError("expected numbers on a grid, got a ragged signal: convert it in HyperSpy first")
    axes = sorted((*manager.navigation_axes, *manager.signal_axes), key=lambda axis: axis.index_in_array)
    said = [{"axis": a.axis, "name": a.name, "units": a.units, "navigate": a.navigate} for a in axes]
    metadata = signal.metadata.as_dictionary()
    title = signal.metadata.get_item("General.title", "")
    image = signal_entry({"data": signal.data, "axes": said, "metadata": metadata}, title, title).data
    if image.dtype != bool:
        return image
    return (~image).assign_attrs(long_name="kept pixels")


def to_hyperspy(result: Fit | xr.DataArray, signal_dims: Sequence[str] | None = None) -> Any:
    """A fit as a HyperSpy signal that holds its decomposition, or any array of results as a signal.

    Parameters
    ----------
    result : Fit or xarray.DataArray
        Of a fit: its data, with ``learning_results`` as ``s.decomposition()`` leaves them. ``factors`` are posterior
        means of endmembers, components or class means, ``loadings`` of abundances, scores or memberships;
        ``factors_sd`` and ``loadings_sd`` beside them are the posterior standard deviations, in the same layout, and
        are saved with the signal. The mean spectrum of probabilistic PCA is the last component, with loadings of one,
        so ``s.get_decomposition_model()`` is the mean of the data under the model. A mask becomes HyperSpy's
        ``navigation_mask``, whose True means *left out*.
        Of an array: its values, axes and units; boolean arrays are masks, and are turned round.
    signal_dims : sequence of str, optional
        Of an array: the dims that HyperSpy is to show as the signal; left out, the last one (of a mask, none).

    Returns
    -------
    hyperspy.api.signals.BaseSignal
        ``Signal1D`` or ``Signal2D``, or the class of ``attrs["signal_type"]`` where the extension that has it (eXSpy)
        is installed; lazy for an array of dask.

    Raises
    ------
    ImportError
        When HyperSpy is not installed.
    TypeError, ValueError
        For a fit of sequences, anything that is no result, and dims that do not exist.

    Examples
    --------
    >>> s = bu.to_hyperspy(fit)
    >>> s.learning_results.loadings.shape  # a component, and the mean
    (30, 2)
    >>> sd = bu.to_hyperspy(fit.latent()["score"].sel(statistic="sd"), signal_dims=("y", "x"))
    >>> sd.axes_manager.signal_shape
    (5, 6)
    """
    if isinstance(result, Fit):
        return _decomposed(result)
    if isinstance(result, xr.DataArray):
        return _signal(result, signal_dims)
    raise TypeError(
        f"expected a Fit or an xarray.DataArray, got {type(result).__name__}; of a Dataset choose one variable"
    )


def _decomposed(fit: Fit) -> Any:
    found = decomposition(fit, append_mean=True)
    signal = _signal(fit.data, (fit.units.channel_dim,))
    n_pixels = int(np.prod(fit.units.pixel_shape))
    results = signal.learning_results
    results.factors, results.factors_sd = found.factors.T, found.factors_sd.T
    for name in ("loadings", "loadings_sd"):
        values = np.full((n_pixels, len(found.factors)), np.nan)
        values[fit.units.index] = getattr(found, name)
        setattr(results, name, values)
    results.decomposition_algorithm = f"bayesunmix {type(fit.model).__name__}"
    results.output_dimension = len(found.factors)
    results.poissonian_noise_normalized = results.unfolded = False
    if "explained_variance" in fit.posterior:
        variance = fit.posterior["explained_variance"].mean(("chain", "draw")).values
        results.explained_variance, results.explained_variance_ratio = variance, variance / variance.sum()
    keep = fit.units.keep.values
    if not keep.all():
        results.navigation_mask = ~keep
    return signal


def _signal(array: xr.DataArray, signal_dims: Sequence[str] | None) -> Any:
    try:
        from hyperspy.api import signals
    except ImportError as error:
        raise ImportError("bu.to_hyperspy needs HyperSpy: pip install hyperspy") from error
    mask = array.dtype == bool
    inner = tuple(signal_dims) if signal_dims is not None else (() if mask else array.dims[-1:])
    if any(dim not in array.dims for dim in inner):
        raise ValueError(f"signal_dims: expected some of {array.dims}, got {inner}")
    outer = [dim for dim in array.dims if dim not in inner]
    array = array.transpose(*outer, *inner)
    axes = [_axis(array, dim, navigate=dim in outer) for dim in array.dims]
    kind = {1: signals.Signal1D, 2: signals.Signal2D}.get(len(inner), signals.BaseSignal)
    signal = kind(~array.data if mask else array.data, axes=axes)
    if array.chunks is not None:
        signal = signal.as_lazy()
    quantity, units = (str(array.attrs.get(key, "")) for key in ("long_name", "units"))
    signal.metadata.set_item("General.title", str(array.name or ""))
    if quantity or units:
        signal.metadata.set_item("Signal.quantity", f"{quantity} ({units})".strip() if units else quantity)
    if array.attrs.get("signal_type"):
        signal.set_signal_type(str(array.attrs["signal_type"]))
    return signal


def _axis(array: xr.DataArray, dim: Any, *, navigate: bool) -> dict[str, Any]:
    """What HyperSpy is told of an axis; one without numbers for coordinates counts from zero."""
    said: dict[str, Any] = {"name": str(dim), "size": array.sizes[dim], "navigate": navigate}
    if dim not in array.coords or array.coords[dim].dtype.kind not in "iuf":
        return said
    coord = array.coords[dim]
    said |= {"name": coord.attrs.get("long_name", str(dim)), "units": coord.attrs.get("units")}
    values = np.asarray(coord.values, dtype=np.float64)
    steps = np.diff(values)
    if not len(steps):
        return said | {"offset": float(values[0])}
    scale = float(values[-1] - values[0]) / len(steps)
    if scale and np.allclose(steps, scale, rtol=1e-5, atol=0):
        return said | {"scale": scale, "offset": float(values[0])}
    del said["size"]
    return said | {"axis": values}
