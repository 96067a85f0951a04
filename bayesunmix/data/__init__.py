"""Files to xarray and xarray to units: reading, conventions, checks at the door, simulators."""

from __future__ import annotations

from bayesunmix.data.entry import LoadError
from bayesunmix.data.files import DatasetInfo, info, load
from bayesunmix.data.units import Units, as_units, data_hash

__all__ = ["DatasetInfo", "LoadError", "Units", "as_units", "data_hash", "info", "load"]
