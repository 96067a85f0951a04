"""Planted faults, one at a time, and whether ``bu.check`` finds and localises them."""

from __future__ import annotations

import argparse
import inspect
from collections.abc import Callable
from functools import partial

import numpy as np
import xarray as xr
from criticism_rows import Kept
from scipy.stats import kstest, mannwhitneyu
from simulated import mixtures, noise_for, random_spectra

import bayesunmix as bu

LEVEL = 0.01  # at which a test of the whole image raises an alarm
SPIKE = 8.0  # noise standard deviations
UNIFORM_SIDE = 36  # of images without a fault: more than 1000 p-values
METHOD = bu.SVI(sample_if_needed=False)


# ---------------------------------------------------------------------- planted failures


def corner(clean: np.ndarray, noise: float, rng: np.random.Generator) -> np.ndarray:
    """A fourth phase takes 30 % of the pixels' mixture in one corner, a quarter of the side wide."""
    size = len(clean) // 4
    image = clean.copy()
    image[:size, :size] = 0.7 * image[:size, :size] + 0.3 * random_spectra(1, clean.shape[-1], rng)[0]
    return image + rng.normal(0, noise, clean.shape)


def shift(clean: np.ndarray, noise: float, rng: np.random.Generator) -> np.ndarray:
    """The energy axis drifts by 1 channel from the first row to the last."""
    rows = np.linspace(0, 1.0, len(clean))[:, None, None]
    image = (1 - rows) * clean + rows * np.roll(clean, 1, axis=-1)
    return image + rng.normal(0, noise, clean.shape)


def dose(clean: np.ndarray, noise: float, rng: np.random.Generator) -> np.ndarray:
    """Two rows are measured with twice the dose: twice the signal, root two times the noise."""
    image, level = clean.copy(), np.full((len(clean), 1, 1), noise)
    rows = slice(len(clean) // 2, len(clean) // 2 + 2)
    image[rows] *= 2
    level[rows] *= np.sqrt(2)
    return image + level * rng.normal(size=clean.shape)


def spikes(clean: np.ndarray, noise: float, rng: np.random.Generator) -> np.ndarray:
    """0.1 % of the values are raised by 8 noise standard deviations."""
    hit = rng.uniform(size=clean.shape) < 1e-3
    return clean + rng.normal(0, noise, clean.shape) + SPIKE * noise * hit


def dead(clean: np.ndarray, noise: float, rng: np.random.Generator) -> np.ndarray:
    """One channel in the middle always reads zero."""
    image = clean + rng.normal(0, noise, clean.shape)
    image[..., clean.shape[-1] // 2] = 0.0
    return image


def nothing(clean: np.ndarray, noise: float, rng: np.random.Generator) -> np.ndarray:
    """The model is right."""
    return clean + rng.normal(0, noise, clean.shape)


FAILURES: dict[str, Callable[..., np.ndarray]] = {
    "nothing": nothing,
    "fourth phase in a corner": corner,
    "energy shift": shift,
    "doubled dose": dose,
    "spikes": spikes,
    "dead channel": dead,
}


# The map that points at a fault, chosen beforehand.
MAPS = {
    "fourth phase in a corner": "p_neighbours",
    "energy shift": "p_autocorrelation",
    "doubled dose": "p_value",
    "spikes": "p_largest",
}


def where_it_is(name: str, clean: np.ndarray, values: np.ndarray, noise: float) -> np.ndarray:
    """Pixels (y, x) that hold the fault; of a drift those near its ends."""
    side = len(clean)
    inside = np.zeros((side, side), bool)
    if name == "fourth phase in a corner":
        inside[: side // 4, : side // 4] = True
    elif name == "energy shift":
        inside[: side // 4] = inside[-(side // 4) :] = True
    elif name == "doubled dose":
        inside[side // 2 : side // 2 + 2] = True
    else:
        inside = (values - clean).max(-1) > 0.75 * SPIKE * noise
    return inside


def localised(name: str, found: xr.Dataset, inside: np.ndarray) -> dict[str, float]:
    """Whether the maps of ``bu.check`` point at the fault.

    ``area`` is the probability that a pixel with the fault has the smaller p of two (area under the ROC curve), and
    ``where`` is 1 when that is beyond chance at p < .001 (Mann and Whitney). Of a dead channel ``where`` says whether
    it has the smallest p of all.
    """
    if name == "dead channel":
        return {
            "area": np.nan,
            "where": float(int(found["p_channel"].argmin("channel")) == found.sizes["channel"] // 2),
        }
    if name not in MAPS:
        return {"area": np.nan, "where": np.nan}
    p = found[MAPS[name]].values
    test = mannwhitneyu(p[inside], p[~inside], alternative="less")
    pairs = inside.sum() * (~inside).sum()
    return {"area": float(1.0 - test.statistic / pairs), "where": float(test.pvalue < 1e-3)}


def one_failure(name: str, run: int, args: argparse.Namespace) -> dict:
    """p-values of the tests of one image."""
    rng = np.random.default_rng([run, list(FAILURES).index(name)])
    clean, _ = mixtures(3, UNIFORM_SIDE if name == "nothing" else args.side, args.channels, rng)
    noise = noise_for(clean, args.decibel)
    values = FAILURES[name](clean, noise, rng)
    image = xr.DataArray(values, dims=("y", "x", "channel"))
    fit = bu.fit(bu.models.LinearUnmixing(3), image, METHOD, seed=run, progress=False)
    found = bu.check(fit, draws=20, seed=run)
    p = {str(test): float(found["test_p"].sel(test=test)) for test in found["test"].values}
    where = localised(name, found, where_it_is(name, clean, values, noise))
    uniform = found.attrs["ks_p"]
    return {"fault": name, "run": run, "p": p, "uniform": uniform, "ok": int(fit.converged), **where}


def failures(args: argparse.Namespace, kept: Kept) -> tuple[list[str], list[dict]]:
    """Table of alarms by fault and test."""
    rows = [
        kept.row(f"{name} {run}", run, partial(one_failure, name, run, args))
        for name in args.faults
        for run in range(args.runs * (args.rights if name == "nothing" else 1))
    ]
    rows = [row for row in rows if row]
    tests = list(rows[0]["p"])
    lines = ["| planted | runs | fits that passed | any test | localised | area | " + " | ".join(tests) + " |"]
    lines.append("|---" * (6 + len(tests)) + "|")
    for name in args.faults:
        own = [row for row in rows if row["fault"] == name]
        p = np.array([[row["p"][test] for test in tests] for row in own])
        alarm = p < LEVEL
        # Of several tests the smallest p counts, times their number.
        some = p.min(1) * len(tests) < LEVEL
        where = np.array([row["where"] for row in own])
        area = np.array([row["area"] for row in own])
        told = ["" if np.isnan(x).all() else f"{np.nanmean(x):.2f}" for x in (where, area)]
        cells = " | ".join(f"{share:.2f}" for share in alarm.mean(0))
        passed = np.mean([row["ok"] for row in own])
        lines.append(f"| {name} | {len(own)} | {passed:.2f} | {some.mean():.2f} | {told[0]} | {told[1]} | {cells} |")
    lines += ["", *(f"- {name}: {inspect.getdoc(FAILURES[name])}" for name in args.faults)]
    uniform = np.array([row["uniform"] for row in rows if row["fault"] == "nothing"])
    if uniform.size:
        lines += [
            "",
            f"Without a fault (images of {UNIFORM_SIDE} x {UNIFORM_SIDE} pixels) the p-values of all pixels differ "
            f"from uniform at p < {LEVEL:g} (Kolmogorov and Smirnov) in {(uniform < LEVEL).sum()} of "
            f"{uniform.size} images; "
            f"these p are themselves uniform with p = {kstest(uniform, 'uniform').pvalue:.2f}.",
        ]
    return lines, rows
