"""The page, the summary and the command line for a model with components instead of endmembers."""

from __future__ import annotations

import json
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
import xarray as xr
from click.testing import CliRunner

import bayesunmix as bu
from bayesunmix.cli import main


@pytest.fixture(scope="module")
def image() -> xr.DataArray:
    rng = np.random.default_rng(0)
    energy = ("energy", np.linspace(100.0, 200.0, 12), {"units": "eV"})
    values = 4 + rng.normal(size=(8, 8, 1)) * np.sin(np.arange(12)) + 0.3 * rng.normal(size=(8, 8, 12))
    return xr.DataArray(values, {"energy": energy}, ("y", "x", "energy"), name="scan")


def test_the_command_line_fits_and_reports_components(image: xr.DataArray, tmp_path: Path) -> None:
    image.to_netcdf(tmp_path / "scan.nc", engine="h5netcdf")
    arguments = ["fit", "probabilistic-pca", str(tmp_path / "scan.nc"), "-n", "2", "-o", str(tmp_path / "out")]
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 0, done.output
    assert "by Gibbs in" in done.output and "1 of 2 components are above the noise" in done.output
    page = (tmp_path / "out" / "report.html").read_text()
    assert 'id="components"' in page and 'id="endmembers"' not in page and "component 1" in page
    found = json.loads((tmp_path / "out" / "summary.json").read_text())
    first, second = found["components"]
    assert first["above_noise"] == 1.0 and second["above_noise"] < 0.95 and "endmembers" not in found
    assert first["lower"] < first["mean"] < first["upper"]
    again = CliRunner().invoke(main, ["run", str(tmp_path / "out" / "recipe.toml"), "-o", str(tmp_path / "again")])
    assert again.exit_code == 0 and "bit for bit" in again.output, again.output


def test_loadings_are_drawn_beside_their_scores(image: xr.DataArray) -> None:
    fit = bu.fit(bu.models.ProbabilisticPCA(2), image, progress=False)
    figure = bu.plot.components(fit)
    left = figure.axes[0]
    drawn = left.lines[0].get_ydata()
    expected = fit.posterior["components"].sel(component=0).mean(("chain", "draw"))
    np.testing.assert_allclose(drawn, expected)
    assert left.get_ylabel() == "component 0" and figure.axes[2].get_xlabel() == "energy (eV)"
    plt.close(figure)
    line = bu.fit(bu.models.ProbabilisticPCA(1), image[0], progress=False)
    figure = bu.plot.components(line)
    assert figure.axes[1].lines[0].get_ydata().shape == (8,)
    plt.close(figure)
    with pytest.raises(TypeError, match="expected a fit with components"):
        bu.plot.components(bu.fit(bu.models.ProbabilisticPCA(0), image, progress=False))
