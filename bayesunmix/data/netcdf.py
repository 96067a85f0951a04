"""netCDF files, as xarray writes them: dims, coordinates and units are taken as they stand."""

from __future__ import annotations

from pathlib import Path

import h5py
import xarray as xr

from bayesunmix.data.entry import Entry, LoadError, without_ambiguity_of_vectors


def read(path: Path) -> list[Entry]:
    """The numeric variables of a netCDF file, version 3 or 4; values are read when they are used."""
    engine = "h5netcdf" if h5py.is_hdf5(path) else "scipy"
    # Times stay numbers with a unit, as in every other format.
    dataset = xr.open_dataset(path, engine=engine, decode_times=False)
    variables = {str(name): data for name, data in dataset.data_vars.items() if data.ndim}
    entries = []
    for name, data in variables.items():
        if data.dtype.kind in "biufc":
            data.attrs.setdefault("dataset", name)
            entries.append(Entry(name, data))
    if not entries:
        raise LoadError(
            f"{path}: expected variables with numbers at the top of the netCDF file, found "
            f"{sorted(variables)}. Save an image with image.to_netcdf(path); load_fit reads a fit."
        )
    return without_ambiguity_of_vectors(entries)
