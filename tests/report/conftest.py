"""One small real fit whose texts try to break out of the page."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

import bayesunmix as bu
from bayesunmix.data.simulators import core_shell

HOSTILE_NAME = "<script>alert(1)</script> & \"quoted\" 'name'"
HOSTILE_LABEL = "</script></figcaption><img src=http://example.org/x onerror=alert(2)>"


@pytest.fixture(scope="session")
def hostile_fit() -> Any:
    image, truth = core_shell((8, 8), 16)
    image = image.isel(y=slice(7), energy=slice(2, None))  # sizes of the other small fit
    truth = truth.isel(y=slice(7), energy=slice(2, None))
    image.name = HOSTILE_NAME
    image.coords["energy"].attrs["long_name"] = HOSTILE_LABEL
    image.coords["energy"].attrs["units"] = HOSTILE_LABEL
    fit = bu.fit(bu.models.LinearUnmixing(n_endmembers=2), image, progress=False)
    truth = truth.assign_coords(endmember=["film", "</script><b>shell</b>", "core"])
    return dataclasses.replace(fit, truth=truth)
