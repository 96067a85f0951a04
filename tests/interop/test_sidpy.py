"""Against the real sidpy: dimensions, units, types, both ways."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import xarray as xr
from two_lines import bare, imported

import bayesunmix as bu

sidpy = imported("sidpy")


def test_there_and_back(image: xr.DataArray) -> None:
    dataset = bu.to_sidpy(image)
    assert dataset.data_type.name == "SPECTRAL_IMAGE"
    assert (dataset.units, dataset.quantity, dataset.title) == ("counts", "intensity", "lines")
    kinds = [(d.name, d.units, d.dimension_type.name) for d in (dataset.y, dataset.x, dataset.energy)]
    assert kinds == [("y", "nm", "SPATIAL"), ("x", "nm", "SPATIAL"), ("energy", "eV", "SPECTRAL")]
    back = bu.from_sidpy(dataset)
    xr.testing.assert_identical(bare(back.compute()), bare(image))
    assert back.attrs == {"units": "counts", "long_name": "intensity"}


def test_the_spectral_dimension_comes_last_and_nothing_is_computed() -> None:
    """sidpy keeps x first and lets the spectral dimension stand anywhere."""
    dataset = sidpy.Dataset.from_array(np.arange(24.0).reshape(4, 2, 3), title="I-V")
    dataset.units, dataset.quantity, dataset.modality = "nA", "current", "STM"
    for i, (name, units, kind) in enumerate(
        [("bias", "V", "spectral"), ("x", "nm", "spatial"), ("y", "nm", "spatial")]
    ):
        values = np.linspace(-1, 1, dataset.shape[i])
        dataset.set_dimension(i, sidpy.Dimension(values, name, "voltage" if i == 0 else "generic", units, kind))
    image = bu.from_sidpy(dataset)
    assert image.dims == ("x", "y", "bias")
    assert image.chunks is not None
    assert type(image.data) is type(image.data.__dask_graph__) or type(image.data).__module__.startswith("dask")
    np.testing.assert_array_equal(image.transpose("bias", "x", "y"), np.arange(24.0).reshape(4, 2, 3))
    assert image["bias"].attrs == {"units": "V", "long_name": "voltage"}
    assert image.attrs == {"units": "nA", "long_name": "current", "modality": "STM"}


def test_results_become_datasets(fitted: Any) -> None:
    maps = fitted.latent()["score"].sel(statistic="mean")
    dataset = bu.to_sidpy(maps)
    np.testing.assert_array_equal(np.asarray(dataset), maps)
    assert dataset.x.units == "nm"


@pytest.mark.parametrize("wrong", [np.zeros((2, 3)), None])
def test_what_is_no_dataset_says_so(wrong: Any) -> None:
    with pytest.raises(TypeError, match=r"expected a sidpy\.Dataset, got"):
        bu.from_sidpy(wrong)
    with pytest.raises(TypeError, match=r"expected an xarray\.DataArray, got .* fit\.data"):
        bu.to_sidpy(wrong)
