"""The words of the report follow from the numbers."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import xarray as xr

from bayesunmix.report import words
from bayesunmix.report.facts import Facts


def make_facts(**change: Any) -> Facts:
    """A 20 x 20 image of 2 endmembers and 50 channels that the model describes; `change` spoils something."""
    rng = np.random.default_rng(0)
    share = np.linspace(0.01, 0.99, 400).reshape(20, 20)
    mean = np.stack([share, 1 - share], -1)
    names = ["mean", "sd", "lower", "upper"]
    sd = np.full_like(mean, 0.02)
    abundance = np.stack([mean, sd, mean - 0.04, mean + 0.04], -1)
    residual = xr.DataArray(rng.normal(size=(20, 20, 50)), {"energy": np.arange(50.0)}, ("y", "x", "energy"))
    residual.coords["energy"].attrs["units"] = "eV"
    parts: dict[str, Any] = {
        "abundance": abundance,
        "residual": residual,
        "p_value": rng.permutation(400).reshape(20, 20) / 400,
        "passed": 1,
        "concentration": None,
        "converged": True,
        "finished": True,
        "inferred": True,
        "brightness": False,
        "truth": None,
    } | change
    residual = parts["residual"]
    checked = xr.Dataset(
        {"residual": residual, "chi2": (residual**2).sum("energy"), "p_value": (("y", "x"), parts["p_value"])}
    )
    share = float(np.mean(parts["p_value"] < 0.01))
    checked.attrs = {"verdict": "What the check found.", "small_p_share": share, "passed": parts["passed"]}
    latent = xr.Dataset(
        {"abundance": (("y", "x", "endmember", "statistic"), parts["abundance"])},
        {"endmember": [0, 1], "statistic": names},
    )
    ones = xr.ones_like(residual)
    fit = SimpleNamespace(
        converged=parts["converged"],
        finished=parts["finished"],
        diagnostics=xr.Dataset(attrs={"verdict": "Usable.", "converged": int(parts["converged"])}),
        posterior=xr.Dataset({"endmembers": 0} if parts["inferred"] else {}),
        model=SimpleNamespace(
            brightness=parts["brightness"], likelihood="normal", concentration=parts["concentration"], noise="isotropic"
        ),
        data=xr.zeros_like(residual) + residual["energy"],
    )
    split = xr.Dataset({"epistemic": 3 * ones, "total": 5 * ones})
    return Facts(fit=fit, latent=latent, checked=checked, split=split, truth=parts["truth"])


def test_a_model_that_is_right_is_called_so() -> None:
    facts = make_facts()
    assert facts.accounts_for_data
    assert words.headline(facts).level == "good"
    assert all(finding.level == "good" for finding in words.verdict(facts))


def test_too_many_small_p_values_are_a_misfit() -> None:
    p = np.random.default_rng(0).uniform(size=(20, 20))
    p[0] = 0.001
    assert words.headline(make_facts(p_value=p, passed=0)).level == "look"
    p[:6] = 0.001
    assert "bad" in [finding.level for finding in words.verdict(make_facts(p_value=p, passed=0))]
    assert words.headline(make_facts(passed=0)).level == "look"


def test_large_areas_of_one_phase_are_a_doubt_about_the_prior() -> None:
    abundance = make_facts().latent["abundance"].values.copy()
    assert not any("almost one phase" in doubt for doubt in words.doubts(make_facts()))
    abundance[:12, :, 0, 0], abundance[:12, :, 1, 0] = 1, 0
    for concentration, seen in ((None, True), (1.0, True), (0.3, False), ("learned", False)):
        doubts = words.doubts(make_facts(abundance=abundance, concentration=concentration))
        assert any("almost one phase" in doubt for doubt in doubts) is seen


def test_the_channel_that_fails_is_named() -> None:
    residual = make_facts().checked["residual"].copy()
    residual[..., 31] *= 2
    facts = make_facts(residual=residual)
    place, rms = facts.worst_channel
    assert place == "31 eV"
    assert rms == pytest.approx(2, abs=0.3)
    assert any("31 eV" in doubt for doubt in words.doubts(facts))


def test_misfit_shared_by_neighbours_is_seen() -> None:
    assert abs(make_facts().neighbours_alike) < 0.15
    residual = make_facts().checked["residual"].copy()
    residual[5:10, 5:10] *= 3
    facts = make_facts(residual=residual)
    assert facts.neighbours_alike > 0.5
    assert any("neighbouring pixels" in doubt for doubt in words.doubts(facts))


def test_an_endmember_without_pure_pixels_is_a_doubt_only_where_it_was_inferred() -> None:
    abundance = make_facts().latent["abundance"].values.copy()
    abundance[..., 1, 0] *= 0.6
    text = "No pixel is nearly pure in endmember 1 (0.59"
    seen = [any(text in d for d in words.doubts(make_facts(abundance=abundance, inferred=i))) for i in (1, 0)]
    assert seen == [True, False]


def test_noise_that_grows_with_the_signal_is_seen() -> None:
    assert not any("grows with the signal." in doubt for doubt in words.doubts(make_facts()))
    residual = make_facts().checked["residual"] * (0.5 + make_facts().checked["energy"] / 50)
    dark, bright = make_facts(residual=residual).residual_by_signal
    assert (dark, bright) == pytest.approx((0.5 + 8 / 50, 0.5 + 41 / 50), rel=0.1)
    assert any("grows with the signal." in doubt for doubt in words.doubts(make_facts(residual=residual)))


def test_brightness_lifts_the_doubt_about_thickness() -> None:
    about = [any("thickness" in d for d in words.doubts(make_facts(brightness=b))) for b in (False, True)]
    assert about == [True, False]


def test_epistemic_share_is_of_variance() -> None:
    assert make_facts().epistemic_share == pytest.approx(9 / 25)


@pytest.mark.parametrize(("shift", "expected"), [(0.0, 1.0), (0.05, 0.0)])
def test_coverage_counts_true_abundances_in_their_intervals(shift: float, expected: float) -> None:
    true = make_facts().latent["abundance"].values[..., 0] + shift
    truth = xr.Dataset({"abundance": (("y", "x", "endmember"), true)})
    facts = make_facts(truth=truth, inferred=False)
    assert facts.abundance_coverage == expected
    assert facts.endmember_coverage is None


@pytest.mark.parametrize(
    ("share", "text"), [(0.0, "0\u00a0%"), (0.0123, "1.2\u00a0%"), (0.5, "50\u00a0%"), (1.0, "100\u00a0%")]
)
def test_percent(share: float, text: str) -> None:
    assert words.percent(share) == text


def test_provenance_is_flat() -> None:
    rows = words.provenance_rows({"data_hash": "ab", "versions": {"jax": "1"}, "wall_s": 1.23456})
    assert rows == [("data hash", "ab"), ("versions jax", "1"), ("seconds", "1.235")]


def test_scale_and_shape_of_spectra_under_a_brightness() -> None:
    """Two spectra of known scale, the first with an uncertain scale and an exact shape, the second the other way."""
    rng = np.random.default_rng(0)
    shape = np.array([0.5, 1.0, 1.5])
    one = 4.0 * shape * rng.uniform(0.9, 1.1, (2, 500, 1))
    two = 2.0 * (shape + 0.1 * rng.choice([-1.0, 1.0], (2, 500, 1)) * np.array([1.0, -2.0, 1.0]))
    posterior = xr.Dataset({"endmembers": (("chain", "draw", "endmember", "energy"), np.stack([one, two], axis=2))})
    facts: Any = SimpleNamespace(
        endmembers_inferred=True, latent={"brightness": 0}, fit=SimpleNamespace(posterior=posterior)
    )
    first, second = Facts.scales.fget(facts)  # type: ignore[attr-defined]
    assert first["shape"] == pytest.approx(0.0, abs=1e-12) and second["mean"] == pytest.approx(2.0)
    # A uniform scale between 3.6 and 4.4, of 1000 draws: quantiles at .05 and .95 to 4.5 standard errors of .0055.
    assert first["lower"] == pytest.approx(3.64, abs=0.025) and first["upper"] == pytest.approx(4.36, abs=0.025)
    # Standard deviations .1, .2, .1 on a shape of rms 1.08.
    assert second["shape"] == pytest.approx(np.sqrt(0.06 / 3.5), rel=0.01)
    assert second["upper"] - second["lower"] == pytest.approx(0.0, abs=1e-12)
    facts.latent = {}
    assert Facts.scales.fget(facts) == []  # type: ignore[attr-defined]
