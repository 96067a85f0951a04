"""The folder a fit leaves behind: ``fit.nc``, ``report.html``, ``summary.json``, ``recipe.toml``."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bayesunmix import recipe as recipes

if TYPE_CHECKING:
    import pandas as pd

    from bayesunmix.report.facts import Facts

FIT, REPORT, SUMMARY, RECIPE = "fit.nc", "report.html", "summary.json", "recipe.toml"


def keep(folder: Path, fit: Any, data: dict[str, Any]) -> None:
    """Write the fit and its recipe: all that cannot be made again from the folder.

    `data` says where the data came from, as :class:`bayesunmix.recipe.Recipe` keeps it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    fit.save(folder / FIT)
    recipe = recipes.Recipe(
        data={**data, "hash": fit.provenance["data_hash"]},
        model=recipes.section(fit.model),
        method=recipes.section(fit.method),
        seed=fit.provenance["seed"],
        versions=dict(fit.provenance["versions"]),
        result={"posterior_hash": recipes.posterior_hash(fit.posterior), "converged": bool(fit.converged)},
    )
    recipes.write(recipe, folder / RECIPE)


def write_report(folder: Path, fit: Any, table: pd.DataFrame | None = None) -> Facts:
    """Write the report and the summary; what they say is computed once."""
    from bayesunmix.report.facts import gather
    from bayesunmix.report.page import render

    facts = gather(fit, fit.truth)
    (folder / REPORT).write_text(render(facts, table), encoding="utf-8")
    text = json.dumps(_clean(summary(facts, table)), indent=2, ensure_ascii=False)
    (folder / SUMMARY).write_text(text + "\n", encoding="utf-8")
    return facts


def read(folder: Path) -> Any:
    """The fit in a folder.

    Raises
    ------
    ValueError
        When the folder holds no fit.
    """
    from bayesunmix.fit import load_fit

    path = folder / FIT if folder.is_dir() else folder
    if not path.is_file():
        raise ValueError(f"{folder}: expected a folder that `bayesunmix fit -o` wrote, found no {FIT}")
    return load_fit(path)


def summary(facts: Facts, table: pd.DataFrame | None = None) -> dict[str, Any]:
    """The numbers of a fit that a script would want, as plain values."""
    from bayesunmix.report.words import headline

    fit = facts.fit
    found: dict[str, Any] = {
        "headline": headline(facts).text,
        "converged": bool(fit.converged),
        "finished": bool(fit.finished),
        "verdict": str(fit.diagnostics.attrs["verdict"]),
        "model": type(fit.model).__name__,
        "method": type(fit.method).__name__,
        "seed": fit.provenance["seed"],
        "seconds": fit.provenance.get("wall_s"),
        "pixels": int(np.isfinite(facts.checked["p_value"].values).sum()),
        "channels": int(facts.checked["residual"].shape[-1]),
        "noise_scale": float(fit.posterior["noise_scale"].mean()) if "noise_scale" in fit.posterior else None,
        "check": dict(facts.checked.attrs),
        "epistemic_share": facts.epistemic_share,
        **({"endmembers": _members(facts)} if facts.mixes else {}),
        **({"components": facts.components} if facts.components else {}),
        "data_hash": fit.provenance["data_hash"],
    }
    if facts.truth is not None and facts.mixes:
        found["truth"] = {
            "abundance_coverage_90": facts.abundance_coverage,
            "endmember_coverage_90": facts.endmember_coverage,
        }
    if table is not None:
        found["comparison"] = {
            "preferred": table.attrs["preferred"],
            "verdict": table.attrs["verdict"],
            "models": json.loads(table.to_json(orient="index")),
        }
    return found


def _members(facts: Facts) -> list[dict[str, Any]]:
    mean = facts.abundance.sel(statistic="mean")
    sd = facts.abundance.sel(statistic="sd")
    return [
        {
            "name": str(name),
            "mean_abundance": float(mean.sel(endmember=name).mean()),
            "largest_abundance": float(mean.sel(endmember=name).max()),
            "median_sd": float(sd.sel(endmember=name).median()),
        }
        for name in mean.coords["endmember"].values
    ]


def _clean(value: Any) -> Any:
    """JSON has no NaN: what is not a number becomes null."""
    if isinstance(value, dict):
        return {key: _clean(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_clean(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
