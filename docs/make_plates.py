"""Draw the plate diagrams of the model pages, read off the programs: `python docs/make_plates.py` in a checkout.

Nodes and arrows are read off `joint()`, the textbook program of each model, so a diagram cannot say anything else.
"""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import Any

import numpy as np

import bayesunmix as bu

IMAGES = Path(__file__).parent / "images"
ROW, GAP, HEIGHT = 70, 16, 32
STYLE = (
    "text{font:13px sans-serif;fill:#222;text-anchor:middle}.plate{fill:none;stroke:#777}"
    ".node{fill:#fff;stroke:#222}.seen{fill:#cfcfcf}.arrow{stroke:#222;fill:none;marker-end:url(#tip)}"
)


def examples() -> dict[str, tuple[Any, np.ndarray, str]]:
    """A model of each kind, data as small as it can be bound to, and the word for its units."""
    rng = np.random.default_rng(0)
    spectra, levels = rng.normal(size=(8, 5)), rng.normal(size=(2, 3))
    unmixing = bu.models.LinearUnmixing(2, likelihood="poisson", brightness=True, concentration="learned")
    return {
        "linear-unmixing": (unmixing, rng.poisson(9, (8, 5)).astype(float), "pixel"),
        "probabilistic-pca": (bu.models.ProbabilisticPCA(2), spectra, "pixel"),
        "gaussian-mixture": (bu.models.GaussianMixture(2), spectra[:, :2], "atom"),
        "hidden-markov": (bu.models.HiddenMarkovModel(2), levels, "sequence"),
        "markov-chain": (bu.models.MarkovChain(2), np.array([[0.0, 1, 0], [1, 1, 0]]), "sequence"),
    }


def relations(model: Any, values: np.ndarray) -> tuple[dict[str, list[str]], set[str], set[str]]:
    """Parents of every site of ``joint()``, the sites inside the plate, and those that are observed."""
    from numpyro.infer.inspect import get_model_relations

    found = get_model_relations(model.bind(values).joint, model_kwargs={"y": values, "n_units": len(values)})
    parents = {n: p for n, p in found["sample_sample"].items() if found["sample_dist"][n] != "Deterministic"}
    return parents, {n for inside in found["plate_sample"].values() for n in inside}, set(found["observed"])


def diagram(model: Any, values: np.ndarray, unit: str) -> str:
    """The SVG of a model: the latents and the data of a unit in the plate, what governs the latents above it, what
    governs the data alone below."""
    parents, local, seen = relations(model, values)
    latents = [n for n in parents if n in local - seen]
    above = [n for n in parents if n not in local and (not latents or any(n in parents[k] for k in latents))]
    below = [n for n in parents if n not in local and n not in above]
    rows = [above, latents, sorted(seen), below]
    sizes = {name: 22 + 7.4 * len(name) for name in parents}
    if len(latents) == len(seen):
        sizes |= dict(zip(rows[2], (sizes[n] for n in latents), strict=True))
    widths = [sum(sizes[n] for n in row) + GAP * (len(row) - 1) for row in rows]
    width, place, level, ends = max(widths) + 180, {}, 34, []
    for i, row in enumerate(rows):
        x = (width - widths[i]) / 2
        for name in row:
            place[name] = (x + sizes[name] / 2, level)
            x += sizes[name] + GAP
        if row and i in (1, 2):
            ends.append(level)
        level += ROW if row else 0
    top, bottom = min(ends) - 27, max(ends) + 27
    body = [
        f'<rect x="14" y="{top}" width="{width - 28:.0f}" height="{bottom - top}" rx="8" class="plate"/>',
        f'<text x="{width - 24:.0f}" y="{bottom - 9}" style="text-anchor:end">every {unit}</text>',
    ]
    for child, names in parents.items():
        body += [_arrow(place[parent], place[child], sizes[parent], sizes[child]) for parent in names]
    for name, (x, y) in place.items():
        kind = "node seen" if name in seen else "node"
        body.append(f'<ellipse cx="{x:.1f}" cy="{y}" rx="{sizes[name] / 2:.1f}" ry="{HEIGHT / 2}" class="{kind}"/>')
        body.append(f'<text x="{x:.1f}" y="{y + 4}">{escape(name)}</text>')
    tip = '<marker id="tip" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {level - 26}" width="{width:.0f}">',
            f'<style>{STYLE}</style><defs>{tip}<path d="M0 0L8 4L0 8z" fill="#222"/></marker></defs>',
            f'<rect width="{width:.0f}" height="{level - 26}" fill="#fff"/>',
            *body,
            "</svg>\n",
        ]
    )


def _arrow(start: tuple[float, float], end: tuple[float, float], wide: float, wide_end: float) -> str:
    """From rim to rim of two ellipses."""
    step = np.subtract(end, start)

    def rim(width: float) -> np.ndarray:
        return step / np.hypot(step[0] / (width / 2), step[1] / (HEIGHT / 2))

    (x0, y0), (x1, y1) = start + rim(wide), end - rim(wide_end)
    return f'<path d="M{x0:.1f} {y0:.1f}L{x1:.1f} {y1:.1f}" class="arrow"/>'


if __name__ == "__main__":
    for name, example in examples().items():
        (IMAGES / f"plate-{name}.svg").write_text(diagram(*example))
