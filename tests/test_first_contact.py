"""What a new user meets first: the command without arguments, a fit of a bare array."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from click.testing import CliRunner
from two_lines import mixture

import bayesunmix as bu
from bayesunmix.cli import main


def test_the_command_without_arguments_helps() -> None:
    answer = CliRunner().invoke(main, [])
    assert answer.exit_code == 0
    for command in ("demo", "info", "fit", "compare", "report", "run"):
        assert f"\n  {command} " in answer.output
    assert "Try it without a file:   bayesunmix demo" in answer.output


@pytest.fixture(scope="module")
def bare() -> bu.Fit:
    return bu.fit(bu.models.ProbabilisticPCA(1), mixture(), progress=False)


def test_a_bare_array_is_fitted_with_a_hint_about_units(bare: bu.Fit) -> None:
    assert bare.converged
    assert bare.data.dims == ("y", "x", "channel")
    for shown in (repr(bare), bare._repr_html_()):
        assert "no axis has units" in shown
        assert "bu.load" in shown


def test_calibrated_data_get_no_hint(bare: bu.Fit) -> None:
    energy = xr.DataArray(np.arange(12.0), dims="energy", attrs={"units": "eV"})
    image = xr.DataArray(mixture(), {"energy": energy}, ("y", "x", "energy"))
    fit = bu.fit(bu.models.ProbabilisticPCA(1), image, progress=False)
    assert "units" not in repr(fit)
