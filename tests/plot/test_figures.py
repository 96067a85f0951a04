"""Figures show the numbers they claim to show, where and in the units they claim."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from io import BytesIO
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from matplotlib.figure import Figure

import bayesunmix.plot
from bayesunmix.plot.images import _length
from bayesunmix.plot.truth import matched

plot: Any = bayesunmix.plot  # tests look inside figures, where matplotlib's types are wide unions

ALL = {
    "maps": lambda fit, **more: plot.maps(fit, **more),
    "brightness": lambda fit, **more: plot.brightness(fit, **more),
    "endmembers": lambda fit, **more: plot.endmembers(fit, **more),
    "residuals": lambda fit, **more: plot.residuals(fit, checked=fit.checked, **more),
    "uncertainty": lambda fit, **more: plot.uncertainty(fit, split=fit.split, **more),
    "trace": lambda fit, **more: plot.trace(fit, **more),
    "information": lambda fit, **more: plot.information(fit, found=_information(fit), **more),
}
ONE_PANEL: dict[str, dict[str, Any]] = {
    "maps": {"endmembers": [0], "show": ["mean"]},
    "residuals": {"show": ["chi2"]},
    "uncertainty": {"show": ["total"]},
}
FITS: dict[str, dict[str, Any]] = {
    "image": {},
    "line": {"select": {"y": 3}},
    "series": {"frames": 3},
    "fixed endmembers": {"inferred": False},
}


def _information(fit: Any) -> xr.Dataset:
    """As of ``bu.relative_entropy``: a number a pixel, NaN in the first, which is masked."""
    gain = fit.checked["p_value"] * 3.0 + np.arange(fit.checked["p_value"].size).reshape(fit.checked["p_value"].shape)
    return xr.Dataset({"information": gain}, attrs={"total": 2754.3, "se": 258.6, "per_count": 0.0885})


def _maps_of(figure: Any) -> list[Any]:
    return [ax for ax in figure.axes if ax.images]


@pytest.mark.parametrize("kind", FITS)
@pytest.mark.parametrize("name", ALL)
def test_every_figure_of_every_kind_of_data(name: str, kind: str, make_fit: Callable[..., Any]) -> None:
    before = dict(matplotlib.rcParams)
    figure = ALL[name](make_fit(**FITS[kind]))
    assert isinstance(figure, Figure)
    figure.savefig(BytesIO(), format="png")
    assert dict(matplotlib.rcParams) == before


@pytest.mark.parametrize("name", ALL)
def test_an_axes_given_is_the_one_drawn_on(name: str, handmade: Any) -> None:
    _, ax = plt.subplots()
    returned = ALL[name](handmade, ax=ax, **ONE_PANEL.get(name, {}))
    assert returned is ax
    assert ax.has_data()


def test_brightness_is_drawn_beside_its_sd(handmade: Any) -> None:
    found = handmade.latent()["brightness"]
    mean, sd = (panel.images[0].get_array() for panel in _maps_of(plot.brightness(handmade)))
    for shown, statistic in ((mean, "mean"), (sd, "sd")):
        np.testing.assert_array_equal(
            np.sort(shown.compressed()), np.sort(found.sel(statistic=statistic).values.ravel())[:-1]
        )
    with pytest.raises(ValueError, match="brightness=True"):
        plot.brightness(handmade, latent=handmade.latent().drop_vars("brightness"))


def test_information_is_drawn_in_nats_with_its_total(handmade: Any) -> None:
    found = _information(handmade)
    (ax,) = _maps_of(plot.information(handmade, found=found))
    np.testing.assert_array_equal(
        np.sort(ax.images[0].get_array().compressed()), np.sort(found["information"].values.ravel())[:-1]
    )
    assert ax.get_title(loc="left") == "2754 ± 259 nats in all, 0.088 a count"


@pytest.mark.parametrize("name", ONE_PANEL)
def test_one_axes_cannot_hold_several_panels(name: str, handmade: Any) -> None:
    _, ax = plt.subplots()
    with pytest.raises(ValueError, match="ax= holds one panel"):
        ALL[name](handmade, ax=ax)


@pytest.mark.parametrize("name", ONE_PANEL)
def test_an_unknown_quantity_lists_the_known_ones(name: str, handmade: Any) -> None:
    with pytest.raises(ValueError, match=r"show= may hold .*got"):
        ALL[name](handmade, show=["nonsense"])


def test_maps_put_each_mean_beside_its_sd(handmade: Any) -> None:
    panels = _maps_of(plot.maps(handmade))
    abundance = handmade.latent()["abundance"]
    assert len(panels) == 6
    for panel, (member, statistic) in zip(panels, [(k, s) for k in range(3) for s in ("mean", "sd")], strict=True):
        shown = np.ma.filled(panel.images[0].get_array(), np.nan)
        np.testing.assert_array_equal(shown, abundance.sel(statistic=statistic).values[..., member])
    means = {panels[i].images[0].get_clim() for i in (0, 2, 4)}
    assert means == {(0.0, 1.0)}
    assert len({panels[i].images[0].get_clim() for i in (1, 3, 5)}) == 1


def test_maps_are_calibrated(handmade: Any) -> None:
    image = _maps_of(plot.maps(handmade))[0].images[0]
    assert image.get_extent() == pytest.approx([-0.75, 9.5 * 1.5, 7.5 * 1.5, -0.75])


def test_scale_bar_is_as_long_as_it_says(handmade: Any) -> None:
    panel = _maps_of(plot.maps(handmade))[0]
    (text,) = [t.get_text() for t in panel.texts if "nm" in t.get_text()]
    assert float(text.removesuffix(" nm")) == panel.patches[0].get_width()
    assert not panel.get_xticks().size


def test_axes_without_a_length_keep_their_ticks(handmade: Any) -> None:
    latent = handmade.latent()
    for dim in ("y", "x"):
        latent["abundance"].coords[dim].attrs["units"] = "V"
    panels = _maps_of(plot.maps(handmade, latent=latent))
    assert panels[-1].get_xlabel() == "x (V)"
    assert not panels[0].patches


def test_masked_pixels_are_not_shown_as_zero(handmade: Any) -> None:
    for panel in _maps_of(plot.maps(handmade, show=("mean", "exceedance"))):
        shown = np.ma.filled(np.ma.masked_invalid(panel.images[0].get_array()), -1)
        assert shown[0, 0] == -1
        assert (shown.ravel()[1:] >= 0).all()


def test_one_quantity_stands_three_in_a_row(handmade: Any) -> None:
    figure = plot.maps(handmade, show=["mean"])
    assert [panel.axes.get_title(loc="left") for panel in _maps_of(figure)] == [f"endmember {k}" for k in range(3)]
    assert len({round(panel.axes.get_position().y0, 6) for panel in _maps_of(figure)}) == 1
    assert figure.get_suptitle() == "posterior mean"


def test_exceedance_is_the_share_of_draws_above_the_threshold(handmade: Any) -> None:
    panel = _maps_of(plot.maps(handmade, show=["exceedance"], endmembers=[1]))[0]
    expected = handmade.latent()["abundance"].sel(statistic="mean").values[..., 1] > 0.5
    np.testing.assert_array_equal(panel.images[0].get_array()[1:], expected[1:])


def test_truth_is_put_beside_its_own_endmember(handmade: Any) -> None:
    """The handmade fit has the true endmembers in reverse order."""
    assert matched(handmade, handmade.truth)["endmember"].values.tolist() == ["core", "shell", "film"]
    panels = _maps_of(plot.maps(handmade, truth=handmade.truth, show=["mean"]))
    for true, found in zip(panels[::2], panels[1::2], strict=True):
        a, b = (np.asarray(p.images[0].get_array()) for p in (true, found))
        np.testing.assert_allclose(a.ravel()[1:], b.ravel()[1:])


def test_a_truth_with_too_few_endmembers_says_so(handmade: Any) -> None:
    with pytest.raises(ValueError, match="truth has 2 endmembers but the fit 3"):
        plot.endmembers(handmade, truth=handmade.truth.isel(endmember=[0, 1]))


def test_a_line_scan_is_drawn_as_profiles(make_fit: Callable[..., Any]) -> None:
    fit = make_fit(select={"y": 3})
    ax = plot.maps(fit).axes[0]
    np.testing.assert_array_equal(ax.lines[1].get_xdata(), fit.data.coords["x"])
    expected = fit.latent()["abundance"].sel(statistic="mean")[:, 1]
    np.testing.assert_array_equal(ax.lines[1].get_ydata(), expected)
    assert ax.get_xlabel() == "x (nm)"


def test_frames_are_chosen_by_at(make_fit: Callable[..., Any]) -> None:
    fit = make_fit(frames=3)
    assert "time = 1.0 s" in plot.maps(fit)._suptitle.get_text()
    assert "time = 2.0 s" in plot.maps(fit, at={"time": 2})._suptitle.get_text()
    with pytest.raises(ValueError, match="position 3 of 'time', which has 3"):
        plot.maps(fit, at={"time": 3})
    with pytest.raises(ValueError, match=r"at= may name \['time'\]"):
        plot.maps(fit, at={"y": 0})


def test_endmembers_on_the_energy_axis_in_data_units(handmade: Any) -> None:
    figure = plot.endmembers(handmade, prob=0.5)
    top, below = figure.axes
    draws = handmade.posterior["endmembers"]
    np.testing.assert_array_equal(top.lines[0].get_xdata(), handmade.data.coords["energy"])
    np.testing.assert_allclose(top.lines[0].get_ydata(), draws.mean(("chain", "draw"))[0])
    band = top.collections[0].get_paths()[0].vertices[:, 1]
    low, high = draws[..., 0, :].quantile([0.25, 0.75], ("chain", "draw")).values
    assert set(low) | set(high) <= set(band)
    np.testing.assert_allclose(below.lines[2].get_ydata(), draws.std(("chain", "draw"))[2])
    assert below.get_xlabel() == "energy loss (eV)"
    assert top.get_ylabel() == "intensity (10³ counts)"


def test_uncertainty_shows_root_mean_squares(handmade: Any) -> None:
    figure = plot.uncertainty(handmade, split=handmade.split)
    for panel, value in zip(_maps_of(figure), (3, 4, 5), strict=True):
        np.testing.assert_allclose(panel.images[0].get_array(), value)
    share = next(ax for ax in figure.axes if "%" in ax.get_ylabel())
    np.testing.assert_allclose(share.lines[0].get_ydata(), 100 * 9 / 25)


def test_residual_by_channel(handmade: Any) -> None:
    figure = plot.residuals(handmade, checked=handmade.checked)
    ax = next(ax for ax in figure.axes if ax.get_xlabel() == "energy loss (eV)")
    expected = np.sqrt(np.nanmean(handmade.checked["residual"].values ** 2, axis=(0, 1)))
    np.testing.assert_allclose(ax.lines[0].get_ydata(), expected)


def test_trace_of_chains_takes_the_worst_element(handmade: Any) -> None:
    handmade.posterior["endmembers"][1, :, 2, 5] += 9
    ax = plot.trace(handmade, variable="endmembers").axes[0]
    np.testing.assert_array_equal(ax.lines[1].get_ydata(), handmade.posterior["endmembers"][1, :, 2, 5])
    assert "endmember 2" in ax.get_title(loc="left")
    with pytest.raises(ValueError, match="variable must be one of"):
        plot.trace(handmade, variable="nonsense")


def test_comparison_fills_the_preferred_model() -> None:
    table = pd.DataFrame({"elpd_diff": [0.0, 2.0, 90.0], "dse": [0.0, 1.5, 9.0]}, index=["n=4", "n=3", "n=2"])
    table.attrs["preferred"] = "n=3"
    ax = plot.comparison(table).axes[0]
    assert [c.lines[0].get_xdata()[0] for c in ax.containers] == [0, -2, -90]
    assert [t.get_text() for t in ax.get_yticklabels()] == ["n=4", "n=3\n(preferred)", "n=2"]
    filled = [c.lines[0].get_markerfacecolor() != "white" for c in ax.containers]
    assert filled == [False, True, False]


@pytest.mark.parametrize(
    ("value", "units", "expected"),
    [(20.0, "nm", "20 nm"), (2e-6, "m", "2 µm"), (5.0, "um", "5 µm"), (2000.0, "nm", "2 µm"), (0.05, "nm", "50 pm")],
)
def test_lengths_are_told_in_the_usual_unit(value: float, units: str, expected: str) -> None:
    assert _length(value, units) == expected


def test_formulae_in_units_are_set_as_such(handmade: Any) -> None:
    handmade.data.attrs["units"] = "$A/m^2$"
    assert plot.endmembers(handmade).axes[0].get_ylabel() == "intensity ($A/m^2$)"
    handmade.data.attrs["units"] = r"$\sqrt E$"
    assert plot.endmembers(handmade).axes[0].get_ylabel() == r"intensity ($\sqrt{E}$)"


def test_a_dollar_sign_in_a_unit_is_not_mathematics(handmade: Any) -> None:
    handmade.data.coords["energy"].attrs["units"] = r"$\frac{"
    plot.endmembers(handmade).savefig(BytesIO(), format="png")


def test_a_label_that_no_figure_holds_is_cut(handmade: Any) -> None:
    handmade.data.coords["energy"].attrs["units"] = "eV " + 50 * "as the spectrometer says, "
    label = plot.endmembers(handmade).axes[-1].get_xlabel()
    assert "(eV as the spectrometer" in label
    assert len(label) == 60 and label.endswith("…")


def test_importing_plot_leaves_matplotlib_alone() -> None:
    code = "import sys, bayesunmix.plot; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
