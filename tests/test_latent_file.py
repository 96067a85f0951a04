"""Draws written a slice of units at a time, beside the same draws put on the grid at once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import xarray as xr

from bayesunmix._latent_file import write_draws
from bayesunmix.data.sequences import as_sequences


def test_paths_end_where_their_sequences_end(tmp_path: Path) -> None:
    """The latent is called as the dim of its parts, which so has no labels of its own."""
    rng = np.random.default_rng(0)
    units = as_sequences([rng.normal(size=n) for n in (12, 9, 15)])
    draws = rng.normal(size=(3, 15, 2, 5)).astype(np.float32)  # sequence, time, state, draw
    own = (units.channel_dim, "state")
    slices = [slice(0, 2), slice(2, 3)]
    write_draws(tmp_path / "paths.nc", units, iter([(part, {"state": (draws[part], own)}) for part in slices]))
    expected = units.to_map(draws, (*own, "draw")).transpose("draw", ...)
    with xr.open_dataset(tmp_path / "paths.nc", engine="h5netcdf") as written:
        xr.testing.assert_equal(written["state"].reset_coords(drop=True).load(), expected)
    assert np.isnan(expected.values).any((0, 2, 3)).tolist() == [True, True, False]
