"""Settings of the methods are checked when they are made."""

from __future__ import annotations

from typing import Any

import pytest

import bayesunmix as bu


@pytest.mark.parametrize(
    ("settings", "options", "message"),
    [
        (bu.SVI, {"draws": 0}, "draws: expected a positive integer, got 0"),
        (bu.SVI, {"samples": 3}, "samples: expected an even number"),
        (bu.NUTS, {"chains": -1}, "chains: expected a positive integer"),
        (bu.SVI, {"draws": 1e3}, "draws: expected a positive integer, got 1000.0"),
        (bu.SVI, {"draws": "100"}, "draws: expected a positive integer, got '100'"),
        (bu.SVI, {"learning_rate": None}, "learning_rate: expected a positive number, got None"),
        (bu.Gibbs, {"chains": True}, "chains: expected a positive integer, got True"),
        (bu.SVI, {"batch": 1}, "batch: expected at least 32 units"),
        (bu.Gibbs, {"draws": 3}, "draws: expected at least 4"),
        (bu.SVI, {"draws": 1}, "draws: expected at least 4"),
        (bu.NUTS, {"draws": 3}, "draws: expected at least 4"),
        (bu.NUTS, {"target_accept": 1.0}, "target_accept: expected a number between 0 and 1"),
    ],
)
def test_settings_out_of_range_are_refused(settings: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        settings(**options)


@pytest.mark.parametrize("settings", [bu.SVI, bu.NUTS])
def test_unknown_settings_are_refused(settings: Any) -> None:
    with pytest.raises(TypeError, match="iterations"):
        settings(iterations=10)
