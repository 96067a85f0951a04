"""Vectors that share atoms: all are fitted, and the posterior is as wide as what they share leaves it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import xarray as xr
from scipy.stats import chi2, kstest

import bayesunmix as bu
from bayesunmix.data import as_units
from bayesunmix.data.lattices import off_centred_lattice
from bayesunmix.data.sharing import independent
from bayesunmix.descriptors.vectors import as_vectors, read_vectors
from bayesunmix.misfit import fisher

FAST = bu.SVI(draws=200, steps=40)


@pytest.fixture(scope="module")
def crystal() -> tuple[xr.Dataset, np.ndarray, xr.Dataset]:
    atoms, truth = off_centred_lattice((16, 16), "two-phase", position_error=0.2, seed=5)
    vectors = bu.descriptors.neighbour_vectors(atoms, 4, species=("centre", "cage"))
    return vectors, truth["label"].values[vectors["index"].values], truth


@pytest.fixture(scope="module")
def fit(crystal) -> bu.Fit:
    return bu.fit(bu.models.GaussianMixture(2, covariance="tied-positions"), crystal[0], FAST, progress=False)


def told(vectors: xr.Dataset, truth: xr.Dataset) -> bu.Fit:
    """A fit whose every draw is the truth."""
    found = as_vectors(vectors)
    assert found.members is not None
    units = replace(as_units(found.data, mask=found.keep), members=found.members)
    ones = np.ones((1, 2))
    draws = {"weights": truth["weights"].values, "means": truth["means"].values, "scales": np.full((2, 2), 0.25)}
    dims = {"weights": ("component",), "means": ("component", "feature"), "scales": ("site", "axis")}
    return bu.Fit(
        model=bu.models.GaussianMixture(2, covariance="tied-positions").bind(units.values),
        method=bu.SVI(),
        units=units,
        posterior=xr.Dataset({n: (("chain", "draw", *dims[n]), np.multiply.outer(ones, v)) for n, v in draws.items()}),
        diagnostics=xr.Dataset(attrs={"converged": 1, "verdict": "made by hand"}),
        finished=True,
        provenance={},
        covariates={"measurement_cov": found.measurement_cov},
    )


def test_cages_of_a_lattice_are_packed_densely(crystal) -> None:
    """Every second cell in both directions is the most there is."""
    vectors, _, _ = crystal
    members = np.column_stack([vectors["index"].values, vectors["neighbour"].values])
    assert independent(members).sum() == 64


def test_classes_of_all_atoms_are_found(crystal, fit) -> None:
    _, label, truth = crystal
    assert fit.converged and fit.units.n_units == 256 and fit.units.independent.sum() == 64
    flat = fit.posterior.stack(sample=("chain", "draw"))
    mean, sd = flat["means"].mean("sample").values, flat["means"].std("sample").values
    match = ((mean[:, None] - truth["means"].values) ** 2).sum(-1).argmin(1)
    assert sorted(match) == [0, 1]
    assert np.abs((mean - truth["means"].values[match]) / sd).max() < 4
    found = fit.latent()
    share = found["membership"].sel(statistic="mean").values
    assert np.mean(match[share.argmax(1)] == label) > 0.9
    total, within = found["entropy"].values, found["entropy_noise"].values
    np.testing.assert_allclose(total, -(share * np.log(share)).sum(1), atol=1e-9)
    np.testing.assert_allclose(found["mutual_information"].values, total - within, atol=1e-6)
    assert (total >= 0).all() and total.max() <= np.log(2) + 1e-9


def test_what_atoms_share_widens_the_posterior(crystal, fit) -> None:
    """The mean of all four vectors of a class: cages share every corner, centres nothing.

    With a variance v of every atom it has the variance v (1 + 1/4) / n of n independent cells, in a domain nearly
    v (1 + 1) / n; the difference of opposite vectors telescopes to what the domain's edge leaves. One vector alone
    shares nothing with the same one of other cells.
    """
    plain = bu.fit(fit.model, crystal[0].drop_vars("neighbour"), FAST, progress=False)

    def ratio(combine) -> float:
        """Of standard deviations, mean of two classes and two axes."""
        both = [combine(f.posterior["means"].values.reshape(-1, 2, 4, 2)).std(0, ddof=1) for f in (fit, plain)]
        return float(np.mean(both[0] / both[1]))

    # The draws are those of one seed. A variance from 128 cells with eight rivals each is known to
    # sqrt(2 * 8 / 128) = .35, its root to .18, the mean of four to .09: 3 of them.
    assert abs(ratio(lambda m: m.mean(2)) - np.sqrt(1.6)) < 0.27
    assert ratio(lambda m: m[:, :, 0] - m[:, :, 2]) < 1.0
    assert abs(ratio(lambda m: m) - 1.0) < 0.27


def test_atoms_that_share_none_keep_their_posterior(crystal) -> None:
    few = crystal[0].isel(atom=np.flatnonzero(independent(as_vectors(crystal[0]).members)))
    model = bu.models.GaussianMixture(1, covariance="tied-spherical")
    both = [bu.fit(model, v, FAST, progress=False).posterior for v in (few, few.drop_vars("neighbour"))]
    xr.testing.assert_allclose(*both, rtol=1e-5)


def test_criteria_count_all_atoms_and_what_they_share(fit) -> None:
    found = bu.waic(fit)
    assert found.unit == "atom"
    terms = found.pointwise.values
    assert np.isfinite(terms).all() and found.elpd == pytest.approx(terms.sum())
    away, members = terms - terms.mean(), [set(m) for m in fit.units.members]
    products = [away[i] * away[j] for i in range(len(away)) for j in range(len(away)) if members[i] & members[j]]
    assert found.se == pytest.approx(np.sqrt(max(np.sum(products), (away**2).sum())))


def test_the_check_of_the_whole_takes_independent_atoms_only(fit) -> None:
    """Every atom has its p-value; the tests see the 64 that share none, whatever the others show."""
    found = bu.check(fit, draws=20)
    assert np.isfinite(found["p_value"].values).sum() == 256
    assert "of 64 units" in found.attrs["verdict"] and "of 256 these share no measurement" in found.attrs["verdict"]
    free = found["p_value"].values[fit.units.independent]
    assert found.attrs["small_p_share"] == pytest.approx(np.mean(free < 0.01))
    assert float(found["test_p"].sel(test="discrepancy")) == pytest.approx(fisher(free, 0.01))


@pytest.mark.slow
def test_a_right_model_is_accused_as_seldom_as_it_should() -> None:
    """Sixty lattices with the true parameters: p-values of the tests of the whole are uniform."""
    p_values, of_all = [], []
    for seed in range(60):
        atoms, truth = off_centred_lattice((14, 14), "two-phase", seed=seed)
        vectors = bu.descriptors.neighbour_vectors(atoms, 4, species=("centre", "cage"))
        found = bu.check(told(vectors, truth), draws=2, seed=seed)
        p_values.append(found["test_p"].values)
        p = found["p_value"].values
        of_all.append(chi2.sf(-2.0 * np.log(p).sum(), 2 * p.size))
    for column in np.array(p_values).T:
        assert kstest(column, "uniform").pvalue > 1e-3
    # What it would be with all atoms: more than twice as many alarms at .05.
    assert np.mean(np.array(of_all) < 0.05) + np.mean(np.array(of_all) > 0.95) > 0.2


def test_it_is_saved_with_what_atoms_share(fit, tmp_path) -> None:
    fit.save(tmp_path / "fit.nc")
    back = bu.load_fit(tmp_path / "fit.nc")
    np.testing.assert_array_equal(back.units.members, fit.units.members)
    xr.testing.assert_identical(back.latent(), fit.latent())
    assert bu.waic(back).elpd == bu.waic(fit).elpd


def test_vectors_come_back_from_a_file(crystal, tmp_path) -> None:
    vectors, _, _ = crystal
    vectors.to_netcdf(tmp_path / "vectors.nc", engine="h5netcdf")
    xr.testing.assert_identical(read_vectors(tmp_path / "vectors.nc"), vectors)
    vectors["vector"].to_netcdf(tmp_path / "array.nc", engine="h5netcdf")
    assert read_vectors(tmp_path / "array.nc") is None
    assert read_vectors(tmp_path / "absent.nc") is None


def test_incomplete_and_masked_atoms_are_left_out(crystal) -> None:
    vectors, _, _ = crystal
    holed = vectors.copy(deep=True)
    holed["complete"][:10] = False
    holed["vector"][:10, 2:4] = np.nan
    mask = np.ones(256, dtype=bool)
    mask[-20:] = False
    fit = bu.fit(bu.models.GaussianMixture(1, covariance="tied-spherical"), holed, FAST, mask=mask, progress=False)
    assert fit.units.n_units == 256 - 30
    share = fit.latent()["membership"].sel(statistic="mean").values
    np.testing.assert_array_equal(np.isnan(share[:, 0]), ~(mask & holed["complete"].values))


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        (lambda v: v.drop_vars("vector"), TypeError, "vector \\(atom, feature\\)"),
        (lambda v: v.assign(complete=("atom", np.zeros(256, dtype=bool))), ValueError, "no atom has all"),
    ],
)
def test_what_are_no_vectors(crystal, change, kind, message) -> None:
    with pytest.raises(kind, match=message):
        bu.fit(bu.models.GaussianMixture(2), change(crystal[0]), FAST, progress=False)


def test_off_centring_is_the_displacement_of_the_simulation() -> None:
    atoms, truth = off_centred_lattice((4, 4), scatter=0.0, position_error=1e-9, displacement=1.5)
    found = bu.descriptors.off_centring(bu.descriptors.neighbour_vectors(atoms, 4, species=("centre", "cage")))
    np.testing.assert_allclose(np.linalg.norm(found["displacement"].values, axis=1), 1.5, atol=1e-6)
    label = truth["label"].values[found["index"].values]
    expected = -truth["means"].values.reshape(4, 4, 2).mean(1)[label]
    np.testing.assert_allclose(found["displacement"].values, expected, atol=1e-6)
    # The centre's own covariance, and the mean of four neighbours'.
    cov = atoms["position_cov"].values
    vectors = bu.descriptors.neighbour_vectors(atoms, 4, species=("centre", "cage"))
    first = cov[vectors["index"].values[0]] + cov[vectors["neighbour"].values[0]].sum(0) / 16
    np.testing.assert_allclose(found["displacement_cov"].values[0], first, rtol=1e-9)
