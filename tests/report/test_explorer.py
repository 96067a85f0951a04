"""What a reader sees after a click: numbers that are those of the fit, in a page whose only script is known."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest
import xarray as xr
from scipy import stats

import bayesunmix as bu
from bayesunmix.data.lattices import off_centred_lattice
from bayesunmix.data.units import as_units
from bayesunmix.plot.fitted import band
from bayesunmix.report import explorer as module
from bayesunmix.report.explorer import explorer
from bayesunmix.report.facts import Facts


def decoded(text: str, kind: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), kind)


def make_facts(shape: tuple[int, ...] = (6, 5), channels: int = 12, masked: int = 3) -> Facts:
    """Facts of an image whose mean and sd are known."""
    rng = np.random.default_rng(0)
    dims = ("frame", "y", "x")[-len(shape) :]
    energy = ("energy", np.linspace(1.0, 2.0, channels), {"units": "keV"})
    mean = xr.DataArray(10 + rng.random((*shape, channels)), {"energy": energy}, (*dims, "energy"))
    mask = np.ones(shape, bool)
    mask.flat[:masked] = False
    keep = xr.DataArray(mask, dims=dims)
    units = as_units(mean + rng.normal(size=mean.shape), mask=keep)
    sd = xr.full_like(mean, 0.5) + mean.energy / 10
    chi2 = xr.DataArray(channels * rng.random(shape), dims=dims).where(keep)
    names = ["mean", "sd", "lower", "upper"]
    values = (("endmember", *dims, "statistic"), rng.random((2, *shape, 4)))
    latent = xr.Dataset({"abundance": values}, {"statistic": names, "endmember": [0, 1]})
    return Facts(
        fit=SimpleNamespace(units=units, model=SimpleNamespace(likelihood="normal"), data=mean),
        latent=latent.where(keep),
        checked=xr.Dataset({"chi2": chi2, "p_value": chi2 / channels}),
        split=xr.Dataset({"mean": mean, "total": sd}),
        truth=None,
    )


def unpacked(found: dict[str, Any]) -> dict[str, np.ndarray]:
    """Data, mean and band as the page draws them."""
    packed = found["spectra"]
    least, step, widest = (decoded(packed[k], "<f8") for k in ("least", "step", "widest"))
    codes = {k: decoded(packed[k], "<u2").reshape(-1, least.size) for k in ("data", "mean")}
    curves = {k: np.where(code == module.MISSING, np.nan, least + step * code) for k, code in codes.items()}
    below, above = (decoded(packed[k], "u1").reshape(-1, least.size) * widest / 255 for k in ("below", "above"))
    return curves | {"low": curves["mean"] - below, "high": curves["mean"] + above, "step": step, "widest": widest}


def test_the_page_holds_the_data_the_fit_and_its_band() -> None:
    facts = make_facts()
    found = explorer(facts)
    assert found is not None and found["note"] == ""
    seen = unpacked(found)
    keep = facts.fit.units.keep.values
    mean, sd = facts.split["mean"].values[keep], facts.split["total"].values[keep]
    half = stats.norm.ppf(0.95) * sd
    for name, expected in (("data", facts.fit.units.values), ("mean", mean)):
        assert np.all(np.abs(seen[name] - expected) <= 0.51 * seen["step"]), name
    for name, expected in (("low", mean - half), ("high", mean + half)):
        assert np.all(np.abs(seen[name] - expected) <= 0.51 * (seen["step"] + seen["widest"] / 255)), name
    np.testing.assert_allclose(decoded(found["p"], "<f4"), facts.checked["p_value"].values[keep], rtol=1e-6)
    np.testing.assert_allclose(
        decoded(found["latents"][1]["upper"], "<f4"),
        facts.latent["abundance"].sel(endmember=1, statistic="upper").values[keep],
        rtol=1e-6,
    )
    assert found["names"][0] == "y 0, x 3" and len(found["names"]) == 27


def test_a_click_lands_on_the_pixel_that_is_drawn_there() -> None:
    facts = make_facts()
    found = explorer(facts)
    assert found is not None
    layout, coloured = found["layout"], found["maps"][0]
    codes = decoded(coloured["codes"], "u1").reshape(coloured["rows"], coloured["columns"])
    assert (codes == 255).sum() == 3 and np.all((codes == 255) == ~facts.fit.units.keep.values)
    across, down = decoded(layout["across"], "<f4"), decoded(layout["down"], "<f4")
    shown = codes[(down * layout["rows"]).astype(int), (across * layout["columns"]).astype(int)]
    values = decoded(found["latents"][0]["mean"], "<f4")
    scale = np.clip((values - coloured["low"]) / (coloured["high"] - coloured["low"]), 0, 1)
    np.testing.assert_allclose(shown, scale * 254, atol=0.51)


def test_a_large_image_is_thinned_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_VALUES", 100)
    monkeypatch.setattr(module, "MOST_CHANNELS", 8)
    found = explorer(make_facts((3, 9, 10), 20, masked=0))
    assert found is not None
    assert decoded(found["spectra"]["data"], "<u2").size <= 100
    assert len(found["names"]) == 12 and all(name.startswith("frame 1") for name in found["names"])
    assert decoded(found["channel"], "<f4").size == 7
    for said in ("frame 1", "12 of 90 pixels", "Of 20 channels one in 3"):
        assert said in found["note"]


def test_missing_values_and_flat_channels_survive() -> None:
    values = np.array([[1.0, np.nan, 3.0], [1.0, np.nan, 5.0]])
    packed = module._packed(values, values, values - 1, values + 1)
    seen = unpacked({"spectra": packed})
    np.testing.assert_allclose(seen["data"], values, atol=1e-4)
    np.testing.assert_allclose(seen["high"][:, [0, 2]], values[:, [0, 2]] + 1, atol=1e-4)


@pytest.mark.parametrize(("mean", "sd"), [(0.3, 0.6), (4.0, 2.0), (50.0, 9.0)])
def test_bands_of_counts_hold_what_they_say(mean: float, sd: float) -> None:
    rng = np.random.default_rng(0)
    excess = sd**2 - mean
    rate = np.full(20_000, mean) if excess <= 0 else rng.gamma(mean**2 / excess, excess / mean, 20_000)
    again = rng.poisson(rate)
    (low,), (high,) = band(np.array([mean]), np.array([sd]), 0.9, "poisson")
    assert low >= 0 and low == int(low)
    assert np.mean(again < low) <= 0.05 + 0.007 and np.mean(again > high) <= 0.05 + 0.007
    assert np.mean((low <= again) & (again <= high)) >= 0.9 - 0.01


def test_only_the_known_script_may_run_and_no_text_ends_it(hostile_fit: Any, tmp_path: Path) -> None:
    page = bu.report(hostile_fit, tmp_path / "r.html").read_text()
    scripts = re.findall(r"<script([^>]*)>(.*?)</script>", page, re.DOTALL)
    assert len(scripts) == 2
    data = json.loads(scripts[0][1])
    assert "<b>shell</b>" not in scripts[0][1]
    assert "abundance of endmember 0 (</script><b>shell</b>)" in [one["name"] for one in data["maps"]]
    assert "onerror" in data["channelLabel"]
    digest = base64.b64encode(hashlib.sha256(scripts[1][1].encode()).digest()).decode()
    assert f"script-src &#39;sha256-{digest}&#39;" in page or f"script-src 'sha256-{digest}'" in page
    assert "unsafe-inline" not in page.split("script-src")[1].split('"')[0]


def test_vectors_of_atoms_lie_in_a_plane_with_their_classes(tmp_path: Path) -> None:
    atoms, _ = off_centred_lattice((6, 6), "two-phase", seed=1)
    vectors = bu.descriptors.neighbour_vectors(atoms, 4, species=("centre", "cage"))
    model = bu.models.GaussianMixture(2, covariance="tied-spherical", weights="free")
    fit = bu.fit(model, vectors, bu.SVI(), progress=False)
    page = bu.report(fit, tmp_path / "r.html").read_text()
    data = json.loads(re.findall(r'id="explorer-data">(.*?)</script>', page, re.DOTALL)[0])
    assert data["layout"]["kind"] == "points" and data["unit"] == "atom"
    across = decoded(data["layout"]["across"], "<f4")
    first = fit.units.values[:, 0]
    np.testing.assert_allclose(across, (first - first.min()) / np.ptp(first), atol=1e-6)
    assert 'id="classes"' in page and "class 1" in page and "pixel" not in page.split('id="fit"')[1].split("<h2>")[0]


def test_figures_of_single_pixels(hostile_fit: Any) -> None:
    figure = bu.plot.fitted(hostile_fit, [3, 5])
    for axes, place in zip(figure.axes, (3, 5), strict=True):
        np.testing.assert_allclose(axes.lines[1].get_ydata(), hostile_fit.units.values[place])
    assert figure.axes[0].get_title(loc="left") == "y = 0 nm, x = 4.5 nm"
    with pytest.raises(ValueError, match="positions from 0 to"):
        bu.plot.fitted(hostile_fit, [999])
    plt.close(figure)
