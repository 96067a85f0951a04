"""What is known of endmembers before the fit: exactly, roughly, or nothing, for each of them."""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple

import numpy as np
from scipy.optimize import linear_sum_assignment, nnls

_MISFIT = 0.5  # of the length of the mean spectrum
_SAME = 1e-6
_BEYOND, _MOST_NEGATIVE = 5.0, 0.25  # standard errors, and share of the mean spectrum below zero
_OUTSIZE = 30.0  # times the largest pixel
_SAME_UNITS = "give both in the same units, or let the brightness of pixels vary with brightness=True"


class Knowledge(NamedTuple):
    """Arrays (endmember, channel), and per endmember what kind they are."""

    location: np.ndarray  # known or expected spectra, 0 where free
    spread: np.ndarray  # standard deviations, 1 where they have no meaning
    fixed: tuple[bool, ...]
    free: tuple[bool, ...]


def parsed(endmembers: Any, n_endmembers: int, support: str) -> Any:
    """Endmembers as a model keeps them: an array where all are known, else a tuple with an entry for each.

    An entry is ``None`` (free), an array (channel,) (known), or a pair of arrays (expected, standard deviation).

    Raises
    ------
    TypeError
        When they are not real numbers.
    ValueError
        For another shape, what is not finite, negative values under "nonnegative" support, and standard deviations
        that are not positive.
    """
    if endmembers is None:
        return None
    if isinstance(endmembers, list | tuple) and any(e is None or _is_pair(e) for e in endmembers):
        if len(endmembers) != n_endmembers:
            raise ValueError(f"endmembers: expected {n_endmembers} entries, one for each, got {len(endmembers)}")
        return _entries(endmembers, support)
    try:
        known = np.asarray(endmembers)
    except ValueError as error:
        raise ValueError(
            f"endmembers: expected one array (endmember, channel), got rows that differ: {error}"
        ) from error
    known = _real(known)
    if known.ndim != 2 or len(known) != n_endmembers:
        raise ValueError(f"endmembers: expected finite numbers of shape ({n_endmembers}, channel), got {known.shape}")
    if gaps := int((~np.isfinite(known)).sum()):
        raise ValueError(
            f"endmembers: expected finite numbers, got {gaps} NaN or infinite ones of {known.size}: leave out the "
            "channels where a spectrum has none, of the data too"
        )
    if not known.any():
        raise ValueError("endmembers: every one of them is zero in every channel")
    return _of_support(known, support)


def _is_pair(entry: Any) -> bool:
    return isinstance(entry, list | tuple) and len(entry) == 2 and np.ndim(entry[0]) == 1


def _entries(endmembers: Any, support: str) -> Any:
    entries: list[Any] = []
    for k, entry in enumerate(endmembers):
        if entry is None:
            entries.append(None)
            continue
        pair = entry if _is_pair(entry) else (entry, None)
        value = _of_support(_real(np.asarray(pair[0])), support)
        if value.ndim != 1 or not np.isfinite(value).all():
            raise ValueError(f"endmembers[{k}]: expected finite numbers of shape (channel,), got shape {value.shape}")
        if pair[1] is None:
            entries.append(value)
            continue
        spread = _real(np.asarray(pair[1]))
        if spread.shape not in ((), value.shape) or not (np.isfinite(spread) & (spread > 0)).all():
            raise ValueError(
                f"endmembers[{k}]: expected positive standard deviations, one number or {value.shape}, got shape "
                f"{spread.shape} from {spread.min(initial=np.inf):.3g}; give a spectrum that is known exactly alone"
            )
        entries.append((value, np.broadcast_to(spread, value.shape).copy()))
    if all(entry is None for entry in entries):
        return None
    sizes = {len(e[0] if isinstance(e, tuple) else e) for e in entries if e is not None}
    if len(sizes) > 1:
        raise ValueError(f"endmembers: expected spectra of one length, got {sorted(sizes)} channels")
    return tuple(entries)


def knowledge(endmembers: Any, n_endmembers: int, n_channels: int, xp: Any = np) -> Knowledge:
    """What :func:`parsed` keeps, as arrays of ``xp``, NumPy or its likeness in JAX."""
    entries = (None,) * n_endmembers if endmembers is None else tuple(endmembers)
    blank, ones = xp.zeros(n_channels), xp.ones(n_channels)
    pairs = [e if isinstance(e, tuple) else (blank if e is None else e, ones) for e in entries]
    return Knowledge(
        xp.stack([p[0] for p in pairs]),
        xp.stack([p[1] for p in pairs]),
        tuple(e is not None and not isinstance(e, tuple) for e in entries),
        tuple(e is None for e in entries),
    )


def placed(found: np.ndarray, known: Knowledge) -> np.ndarray:
    """Spectra found in the data with the known ones put in, each in the place of its likest; expected ones are moved
    towards that by a standard deviation at most."""
    given = np.flatnonzero(~np.asarray(known.free))
    spectra = known.location.copy()
    precision = known.spread[given] ** -2.0
    precision /= precision.mean(1, keepdims=True)
    distance = (precision * (found[:, None] - spectra[given]) ** 2).sum(-1)
    taken, places = linear_sum_assignment(distance)
    reach = np.where(np.asarray(known.fixed)[:, None], 0.0, known.spread)[given][places]
    spectra[given[places]] += np.clip(found[taken] - spectra[given[places]], -reach, reach)
    spectra[np.flatnonzero(known.free)] = np.delete(found, taken, axis=0)
    return spectra


def in_words(endmembers: tuple) -> str:
    """Which endmembers are known, and how well."""
    kinds = {"known exactly": [], "known up to a standard deviation": [], "free": []}  # type: dict[str, list[str]]
    for k, entry in enumerate(endmembers):
        kind = "free" if entry is None else "known up to a standard deviation" if isinstance(entry, tuple) else None
        kinds[kind or "known exactly"].append(str(k))
    return "; ".join(f"{', '.join(which)} {kind}" for kind, which in kinds.items() if which)


def channels_of(endmembers: Any) -> int | None:
    """Number of channels of what is known, if anything is."""
    for entry in () if endmembers is None else endmembers:
        if entry is not None:
            return len(entry[0] if isinstance(entry, tuple) else entry)
    return None


def _real(values: np.ndarray) -> np.ndarray:
    if values.dtype.kind not in "iuf":
        raise TypeError(f"endmembers: expected real numbers, got type {values.dtype}")
    return values.astype(np.float64)


def _of_support(known: np.ndarray, support: str) -> np.ndarray:
    if support == "nonnegative" and known.min(initial=0.0) < 0:
        raise ValueError(
            f"endmembers: expected no negative values, got {known.min():.3g}; allow them with "
            'endmember_support="real", or clip them with np.maximum(endmembers, 0)'
        )
    return known


def refuse_negative(values: np.ndarray) -> None:
    """Data (unit, channel) of which spectra that are nowhere negative explain little.

    Raises
    ------
    ValueError
        Where a quarter of what the mean spectrum is away from zero is below it, beyond the noise of the mean.
    """
    mean = values.mean(0)
    negative = np.flatnonzero(mean < 0.0)
    error = values[:, negative].std(0) / np.sqrt(len(values))
    below = -mean[negative[mean[negative] < -_BEYOND * error]]
    if below.sum() > _MOST_NEGATIVE * np.abs(mean).sum():
        raise ValueError(
            "expected signals that are zero or more, as mixtures of endmembers with "
            f'endmember_support="nonnegative" are, got negative means in {below.size} of {mean.size} '
            f'channels, down to {mean.min():.4g}: use endmember_support="real", or add the offset that was taken off'
        )


def warn_of_twins(known: np.ndarray, *, any_scale: bool) -> None:
    """Warn where mixtures of some endmembers equal mixtures of others, of any brightness if ``any_scale``, so that no
    data tell them apart.

    Raises
    ------
    ValueError
        Where all are the same.
    """
    size = np.linalg.norm(known, axis=1, keepdims=True)
    edges = known[1:] - known[0]
    if len(edges) and np.linalg.norm(edges, axis=1).max() <= _SAME * size.max():
        raise ValueError(f"endmembers: expected spectra that differ, got the same one {len(known)} times")
    if any_scale:  # mixtures need no shares that sum to one
        edges = known = known / np.where(size > 0, size, 1.0)
    near = _SAME * np.linalg.norm(known, axis=1).max()
    if not len(edges) or np.linalg.matrix_rank(edges, tol=near) == len(edges):
        return
    which = "some of the endmembers are mixtures of others"
    twins = np.argwhere(np.tril(np.linalg.norm(known[:, None] - known, axis=-1) <= near, -1))
    if len(twins):
        which = f"endmembers {twins[0][1]} and {twins[0][0]} are the same spectrum" + " of any brightness" * any_scale
    warnings.warn(
        f"{which}: the data cannot tell their abundances apart, only the prior does; leave one out",
        UserWarning,
        stacklevel=2,
    )


def compare_with_data(known: np.ndarray, values: np.ndarray, *, any_scale: bool) -> None:
    """Compare the mean spectrum of ``values`` (unit, channel) with the mixtures of known endmembers.

    Raises
    ------
    ValueError
        When another unit of the endmembers would explain it and this one does not.

    Warns
    -----
    UserWarning
        When no unit would.
    """
    mean = values.mean(0)
    size = np.linalg.norm(mean)
    if size**2 < 10 * values.var(0).sum() / len(values):  # nothing but noise
        return
    unit = np.linalg.norm(known, axis=1).max()
    weights, scaled_misfit = nnls(known.T / unit, mean)
    misfit = scaled_misfit if any_scale else _simplex_misfit(known, mean)
    if misfit < _MISFIT * size:
        return
    factor = weights.sum() / unit
    if not any_scale and scaled_misfit < _MISFIT * misfit and factor > 0:
        raise ValueError(
            f"endmembers: their best mixture misses the mean spectrum of the data by {misfit / size:.3g} times its "
            f"length, and by {scaled_misfit / size:.2g} when all of them are multiplied by {factor:.3g}: {_SAME_UNITS}"
        )
    warnings.warn(
        f"the best mixture of the known endmembers misses the mean spectrum of the data by {misfit / size:.0%} of its "
        "length: check their channel axis and units, and look at bu.check(fit)",
        UserWarning,
        stacklevel=2,
    )


def compare_sizes(known: np.ndarray, values: np.ndarray) -> None:
    """Refuse known spectra (endmember, channel) of which no pixel of ``values`` (unit, channel) can hold a share.

    Free ones are zero.

    Raises
    ------
    ValueError
    """
    longest = np.linalg.norm(values, axis=1).max()
    for k, size in enumerate(np.linalg.norm(known, axis=1)):
        if size > _OUTSIZE * longest:
            raise ValueError(
                f"endmembers[{k}] is {size / longest:.3g} times as long as the largest pixel, which so holds at most "
                f"{longest / size:.2g} of it: {_SAME_UNITS}"
            )


def _simplex_misfit(known: np.ndarray, mean: np.ndarray) -> float:
    """Distance of a spectrum from the mixtures with weights that sum to one."""
    unit = max(np.linalg.norm(known, axis=1).max(), np.linalg.norm(mean))
    # A heavy row holds the sum at one.
    heavy = 1e4
    design = np.vstack([known.T / unit, np.full(len(known), heavy)])
    weights, _ = nnls(design, np.append(mean / unit, heavy))
    return float(np.linalg.norm(weights / weights.sum() @ known - mean))
