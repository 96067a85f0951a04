"""From facts to one HTML page with its figures inside."""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bayesunmix import __version__, plot
from bayesunmix.dynamics import dwell_times, stationary_distribution
from bayesunmix.plot.style import member_names

from . import words
from .explorer import explorer
from .facts import PROB, Facts, finite

if TYPE_CHECKING:
    import pandas as pd

DPI = 220  # of the pictures
ON_PAPER = 0.85  # of the size in a journal, so that two stand on a page
PIXELS_AN_INCH = 128  # on the page: figures of two journal columns fill it


@dataclass(frozen=True)
class Picture:
    """A figure as a data URI, with its words."""

    uri: str
    alt: str
    caption: str
    width: int  # on the screen, so that letters have one size in all figures
    mm: int  # on paper


def render(facts: Facts, table: pd.DataFrame | None = None) -> str:
    """The page as text. Every text from the data is escaped by the template engine."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    folder = FileSystemLoader(Path(__file__).parent)
    environment = Environment(loader=folder, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    fit = facts.fit
    found = explorer(facts)
    script = (Path(__file__).parent / "explorer.js").read_text(encoding="utf-8")
    return environment.get_template("template.html").render(
        title=str(fit.data.name or ("sequences" if facts.hops else "spectrum image")),
        subtitle=_subtitle(fit),
        headline=words.headline(facts),
        verdict=words.verdict(facts),
        members=_members(facts) if facts.mixes else None,
        maps=_maps(facts) if facts.mixes else None,
        endmembers=_endmembers(facts) if facts.mixes else None,
        brightness=_brightness(facts) if "brightness" in facts.latent else None,
        scales=_scale_rows(facts),
        scree=_scree(facts) if facts.components else None,
        components=_component_rows(facts),
        scores=_scores(facts) if facts.components else None,
        classes=_class_rows(facts) if facts.classes else [],
        chain=_chain(facts) if facts.hops else None,
        states=_state_rows(facts) if facts.hops else [],
        residuals=_residuals(facts),
        fitted=None if found is None else _fitted(facts),
        explorer=found,
        nothing_to_click=None if found else words.nothing_to_click(facts),
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        palette=_palette(),
        uncertainty=_uncertainty(facts),
        trace=_trace(facts),
        diagnostics=words.diagnostics_rows(fit.diagnostics),
        comparison=None if table is None else _comparison(table),
        priors=fit.model.describe().splitlines(),
        doubts=words.doubts(facts),
        provenance=words.provenance_rows(dict(fit.provenance)),
        version=__version__,
    )


def _subtitle(fit: Any) -> str:
    sizes = " × ".join(f"{n} {dim}" for dim, n in fit.data.sizes.items())
    return f"{type(fit.model).__name__} fitted by {type(fit.method).__name__} to {sizes}"


def _members(facts: Facts) -> list[tuple[str, ...]]:
    """Name, mean abundance over the image, largest abundance and median sd of each endmember."""
    abundance = facts.abundance.transpose("endmember", "statistic", ...)
    rows = []
    names = member_names(abundance.coords["endmember"].values, facts.truth)
    for name, member, purest in zip(names, abundance, facts.purest, strict=True):
        mean, sd = finite(member.sel(statistic="mean")), finite(member.sel(statistic="sd"))
        rows.append((name.replace("\\$", "$"), *map(words.size, (mean.mean(), purest, float(np.median(sd))))))
    return rows


def _maps(facts: Facts) -> Picture:
    truth = facts.truth
    beside = "mean and standard deviation" if truth is None else "truth, mean and standard deviation"
    return _picture(
        lambda: plot.maps(facts.fit, truth=truth, latent=facts.latent),
        f"Abundance maps of {facts.abundance.sizes['endmember']} endmembers: {beside} side by side.",
        f"Abundances: {beside}. Grey pixels were masked."
        if len(facts.pixel_dims) > 1
        else f"Abundances along the scan with {words.percent(PROB)} intervals.",
    )


def _brightness(facts: Facts) -> Picture:
    text = "Brightness of the pixels, mean and standard deviation."
    return _picture(
        lambda: plot.brightness(facts.fit, latent=facts.latent), text, f"{text} Its mean over pixels is one."
    )


def _scale_rows(facts: Facts) -> list[tuple[str, ...]]:
    """Name, scale with its interval, and relative standard deviation of the shape."""
    names = member_names(facts.abundance.coords["endmember"].values, facts.truth) if facts.scales else []
    return [
        (name.replace("\\$", "$"), words.size(one["mean"]), f"{words.size(one['lower'])} to {words.size(one['upper'])}",
         words.percent(one["shape"]))
        for name, one in zip(names, facts.scales, strict=True)
    ]  # fmt: skip


def _scree(facts: Facts) -> Picture:
    text = "Variance that each component explains, the noise taken off, beside the noise along any direction."
    return _picture(
        lambda: plot.scree(facts.fit, prob=PROB),
        text,
        f"{text} Bars are {words.percent(PROB)} intervals; in the grey area noise hides a component.",
    )


def _scores(facts: Facts) -> Picture:
    return _picture(
        lambda: plot.components(facts.fit, prob=PROB, latent=facts.latent),
        "Loadings of the components with credible bands, and maps of their scores.",
        f"Loadings, mean and {words.percent(PROB)} credible band, and the mean scores of the pixels.",
    )


def _component_rows(facts: Facts) -> list[tuple[str, ...]]:
    """Number, explained variance, its interval, and probability to be above the noise."""
    return [
        (f"component {k}", words.size(one["mean"]), f"{words.size(one['lower'])} to {words.size(one['upper'])}",
         f"{one['above_noise']:.2f}")
        for k, one in enumerate(facts.components)
    ]  # fmt: skip


def _class_rows(facts: Facts) -> list[tuple[str, ...]]:
    """Class, its weight with an interval, how many members it has, how sure they are, and its mean by feature."""
    posterior = facts.fit.posterior.stack(sample=("chain", "draw"))
    share = facts.latent["membership"].sel(statistic="mean").transpose("component", ...).values
    share = share.reshape(len(share), -1)
    share = share[:, np.isfinite(share).all(axis=0)]
    best = share.argmax(axis=0)
    means = posterior["means"].mean("sample").transpose("component", ...).values
    rows = []
    for k in range(len(share)):
        weight = "equal"
        if "weights" in posterior:
            draws = posterior["weights"].transpose("component", "sample").values[k]
            low, high = np.quantile(draws, [(1 - PROB) / 2, (1 + PROB) / 2])
            weight = f"{words.size(draws.mean())} ({words.size(low)} to {words.size(high)})"
        sure = words.size(share[k, best == k].mean()) if (best == k).any() else "none"
        place = ", ".join(words.size(float(v)) for v in means[k])
        rows.append((f"class {k}", weight, str(int((best == k).sum())), sure, place))
    unit = facts.fit.units.attrs.get("units")
    interval = f"Weight ({words.percent(PROB)} interval)"
    return [("Class", interval, "Members", "Their mean probability", f"Mean ({unit})" if unit else "Mean"), *rows]


def _endmembers(facts: Facts) -> Picture:
    known = "" if facts.truth is None else " Dotted lines are the truth; dots below are the actual errors."
    band = "as given, held fixed"
    if facts.endmembers_inferred:
        band = f"mean and {words.percent(PROB)} credible band"
    return _picture(
        lambda: plot.endmembers(facts.fit, prob=PROB, truth=facts.truth),
        f"Spectra of the endmembers, {band}, with the standard deviation by channel below.",
        f"Endmember spectra: {band}.{known}",
    )


def _chain(facts: Facts) -> list[Picture]:
    """Transitions, the states along the longest sequence, and the memory check."""
    fit, found, memory = facts.fit, [], facts.memory
    text = "Probabilities of hopping and of staying, per step."
    interval = f"{text} Below each, its {words.percent(PROB)} interval."
    found.append(_picture(lambda: plot.transition(fit, prob=PROB), text, interval))
    if "state" in facts.latent:
        longest = int(np.argmax(fit.units.lengths))
        text = "Data of the longest sequence coloured by state, and the probability of every state."
        place = int(fit.units.index[longest])
        found.append(_picture(lambda: plot.states(fit, place, latent=facts.latent), text, text))
    text = "Hops over several steps: what the data show, in the band that one step of memory predicts."
    return found if memory is None else [*found, _picture(lambda: plot.memory(memory), text, text)]


def _state_rows(facts: Facts) -> list[tuple[str, ...]]:
    """State, dwell time with its interval, long-run share with its interval."""
    dwell, share = dwell_times(facts.fit, PROB), stationary_distribution(facts.fit, PROB)
    unit = dwell.attrs["units"]
    shown = lambda a: (words.size(a[0]), f"{words.size(a[2])} to {words.size(a[3])}")  # noqa: E731
    rows = [
        (f"state {k}", *shown(a), *shown(b)) for k, (a, b) in enumerate(zip(dwell.values, share.values, strict=True))
    ]
    return [("State", f"Dwell time ({unit})", f"{words.percent(PROB)} interval", "Long-run share",
             f"{words.percent(PROB)} interval"), *rows]  # fmt: skip


def _residuals(facts: Facts) -> Picture:
    unit, inner = facts.parts
    return _picture(
        lambda: plot.residuals(facts.fit, checked=facts.checked),
        f"Residual, chi-square and p-value by {unit}. {facts.checked.attrs['verdict']}",
        f"Residuals in predictive standard deviations, chi-square and predictive p-value by {unit}; below, "
        f"residuals by {inner} (a little under one where the fit follows the noise) and the p-values, which "
        "fill the grey band evenly when the model is right.",
    )


def _fitted(facts: Facts) -> Picture:
    unit, inner = facts.parts
    text = f"Data and fit of the {unit}s that the model describes worst, typically and best."
    return _picture(
        lambda: plot.fitted(facts.fit, prob=PROB, split=facts.split),
        text,
        f"{text} The band holds {words.percent(PROB)} of repeated measurements of the same {unit}, {inner} by {inner}.",
    )


def _palette() -> str:
    """256 colours of the maps, red, green and blue, as base64."""
    import matplotlib

    colours = matplotlib.colormaps["viridis"](np.arange(256), bytes=True)[:, :3]
    return base64.b64encode(colours.tobytes()).decode()


def _uncertainty(facts: Facts) -> Picture:
    unit, inner = facts.parts
    return _picture(
        lambda: plot.uncertainty(facts.fit, split=facts.split),
        f"Epistemic, aleatoric and total sd; the epistemic part is {words.percent(facts.epistemic_share)} of variance.",
        f"Predictive standard deviation of one {unit} measured again: epistemic (not knowing the "
        f"parameters), aleatoric (noise) and total, by {unit} above and by {inner} below.",
    )


def _trace(facts: Facts) -> Picture:
    if "elbo" in facts.fit.diagnostics:
        text = "The evidence lower bound against the optimiser's step."
    else:
        text = "Draws of a parameter by chain; good chains overlap and do not wander."
    return _picture(lambda: plot.trace(facts.fit), text, text)


def _comparison(table: pd.DataFrame) -> Picture:
    text = "Expected log predictive density of each model against the best, with two standard errors."
    return _picture(lambda: plot.comparison(table), text, f"{text} {table.attrs['verdict']}")


def _picture(draw: Callable[[], Any], alt: str, caption: str) -> Picture:
    import matplotlib.pyplot as plt

    with plt.ioff():
        figure = draw()
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=DPI, facecolor="white")
        inches = figure.get_figwidth()
        plt.close(figure)
    return Picture(
        "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode(),
        alt,
        caption,
        round(PIXELS_AN_INCH * inches),
        round(25.4 * ON_PAPER * inches),
    )
