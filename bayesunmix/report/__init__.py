"""One self-contained HTML page about a fit."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

__all__ = ["report"]


def report(
    fit: Any,
    path: str | Path = "report.html",
    *,
    truth: xr.Dataset | None = None,
    table: pd.DataFrame | None = None,
) -> Path:
    """Write what a fit found, how sure it is and where it fails as one HTML file that needs nothing else.

    Parameters
    ----------
    fit : Fit
        The fit.
    path : str or Path
        Where to write; missing folders are made.
    truth : xarray.Dataset, optional
        The truth of simulated data, shown beside the answer; ``fit.truth`` when left out.
    table : pandas.DataFrame, optional
        What ``bu.compare`` returned about this and other models of the same data.

    Returns
    -------
    Path
        The file: figures and styles inside with one small script, no network.

    Raises
    ------
    TypeError
        When ``fit`` is no fit.
    """
    from .facts import gather
    from .page import render

    if not hasattr(fit, "posterior") or not hasattr(fit, "diagnostics"):
        raise TypeError(f"fit: expected what bu.fit returned, got {fit!r}")
    facts = gather(fit, fit.truth if truth is None else truth)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(render(facts, table), encoding="utf-8")
    return path
