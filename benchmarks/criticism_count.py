"""Whether the number of endmembers that ``bu.compare`` prefers is the true one, and hidden entries say the same."""

from __future__ import annotations

import argparse
import time
from functools import partial

import numpy as np
import xarray as xr
from criticism_rows import Kept
from scipy.stats import spearmanr
from simulated import mixtures, noise_for

import bayesunmix as bu
from bayesunmix.compare import TIE, difference_error

COMPARED = bu.SVI(draws=400, sample_if_needed=False)


def image_of_size(number: int, args: argparse.Namespace) -> tuple[int, xr.DataArray]:
    """True number of endmembers, and the image."""
    true = 2 + number % 4
    rng = np.random.default_rng([number, true])
    clean, _ = mixtures(true, args.side, args.channels, rng)
    noisy = clean + rng.normal(0, noise_for(clean, args.decibel), clean.shape)
    return true, xr.DataArray(noisy, dims=("y", "x", "channel"))


def one_recovery(number: int, args: argparse.Namespace) -> dict:
    """What each criterion prefers for one image, endmembers added until one more is clearly worse."""
    true, image = image_of_size(number, args)
    start = time.perf_counter()
    fits, tables, comparing = {}, {}, 0.0
    for size in args.sizes:
        model = bu.models.LinearUnmixing(2)
        fits |= bu.sweep(model, image, COMPARED, n_endmembers=[size], seed=number, progress=False)
        if len(fits) > 1:
            fitted = time.perf_counter()
            tables = {criterion: bu.compare(fits, criterion) for criterion in args.criteria}
            comparing += time.perf_counter() - fitted
            newest = [table.loc[f"n_endmembers={size}"] for table in tables.values()]
            # One does not go on adding endmembers then.
            if all(clearly_behind(row["elpd_diff"], row["dse"]) for row in newest):
                break
    names = list(fits)
    picked = {criterion: table.attrs["preferred"] for criterion, table in tables.items()}
    columns = ("elpd", "p", "elpd_diff", "dse")
    return {
        "true": true,
        "sizes": args.sizes[: len(names)],
        "picked": {c: int(p.split("=")[1]) if p else None for c, p in picked.items()},
        **{column: {c: [float(x) for x in t.loc[names, column]] for c, t in tables.items()} for column in columns},
        "passed": [int(fits[name].converged) for name in names],
        "fit_seconds": [fits[name].provenance["wall_s"] for name in names],
        "seconds": [time.perf_counter() - start - comparing, comparing],
    }


def clearly_behind(difference: float, error: float) -> bool:
    """Whether a model is no longer tied with the best, by the rule of ``bu.compare``."""
    return not difference < max(TIE, 2 * error)


def one_heldout(number: int, sizes: list[int], args: argparse.Namespace) -> dict:
    """What hidden entries prefer of these sizes, by the rule of ``bu.compare``."""
    true, image = image_of_size(number, args)
    start = time.perf_counter()
    options = {"method": COMPARED, "seed": number, "progress": False}
    found = [bu.heldout(bu.models.LinearUnmixing(k), image, **options) for k in sizes]
    best = max(found, key=lambda one: one.elpd)
    error = [difference_error(best.pointwise - one.pointwise) for one in found]
    below = [best.elpd - one.elpd for one in found]
    tied = [k for k, d, e in zip(sizes, below, error, strict=True) if not clearly_behind(d, e)]
    elpd = [one.elpd for one in found]
    seconds = time.perf_counter() - start
    return {"true": true, "picked": min(tied), "elpd": elpd, "elpd_diff": below, "dse": error, "seconds": seconds}


def recovery(args: argparse.Namespace, kept: Kept) -> tuple[list[str], list[dict]]:
    """Preferred number of endmembers against the true one."""
    found = {n: kept.row(str(n), n, partial(one_recovery, n, args)) for n in range(args.count)}
    rows = {n: row for n, row in found.items() if row}
    lines = ["| criterion | true | sets | right | too few | too many | no verdict |", "|---" * 7 + "|"]
    for criterion in args.criteria:
        for true in (2, 3, 4, 5, None):
            own = [(row["true"], row["picked"][criterion]) for row in rows.values() if true in (None, row["true"])]
            counts = [
                sum(got == want for want, got in own),
                sum(got is not None and got < want for want, got in own),
                sum(got is not None and got > want for want, got in own),
                sum(got is None for _, got in own),
            ]
            label = "all" if true is None else str(true)
            lines.append(f"| {criterion} | {label} | {len(own)} | " + " | ".join(map(str, counts)) + " |")
    lines += how_fits_went(list(rows.values()), args.sizes)
    seen = [n for n in range(args.heldout) if n in rows]
    tried = {n: kept.row(f"heldout {n}", n, partial(one_heldout, n, rows[n]["sizes"], args)) for n in seen}
    hidden = {n: row for n, row in tried.items() if row}
    return lines + agreement(rows, hidden, args.criteria), [*rows.values(), *hidden.values()]


def how_fits_went(rows: list[dict], sizes: list[int]) -> list[str]:
    """Share of fits that passed their own diagnostics, and their seconds, by fitted less true endmembers."""
    lines = ["", "| fitted less true | fits | passed | median seconds | longest |", "|---" * 5 + "|"]
    for excess in range(min(sizes) - 5, max(sizes) - 1):
        own = [
            (passed, seconds)
            for row in rows
            for k, passed, seconds in zip(row["sizes"], row["passed"], row["fit_seconds"], strict=True)
            if k - row["true"] == excess
        ]
        if own:
            passed, seconds = np.transpose(own)
            lines.append(
                f"| {excess:+d} | {len(own)} | {passed.mean():.2f} | {np.median(seconds):.0f} | {seconds.max():.0f} |"
            )
    return lines


def agreement(rows: dict[int, dict], hidden: dict[int, dict], criteria: list[str]) -> list[str]:
    """How hidden entries rank the sizes of the same images."""
    both = [(rows[n], row) for n, row in hidden.items() if n in rows]
    if not both:
        return []
    right = sum(row["picked"] == row["true"] for _, row in both)
    lines = ["", f"Hidden entries (10 %): right in {right} of {len(both)}."]
    for criterion in criteria:
        same = sum(a["picked"][criterion] == b["picked"] for a, b in both)
        order = [spearmanr(a["elpd"][criterion], b["elpd"])[0] for a, b in both]
        lines.append(f"As {criterion} in {same} of {len(both)}; rank correlation over all sizes {np.mean(order):.2f}.")
    return lines
