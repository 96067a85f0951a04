"""Vectors that share atoms: the independent ones are picked, parameters rest on them, memberships are for all."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import xarray as xr
from scipy.stats import chi2, kstest

import bayesunmix as bu
from bayesunmix.data import as_units
from bayesunmix.data.lattices import off_centred_lattice
from bayesunmix.descriptors.sharing import as_vectors, independent, read_vectors, unlike_all

FAST = bu.SVI(draws=200, steps=40)


@pytest.fixture(scope="module")
def crystal() -> tuple[xr.Dataset, np.ndarray, xr.Dataset]:
    atoms, truth = off_centred_lattice((16, 16), "two-phase", position_error=0.2, seed=5)
    vectors = bu.descriptors.neighbour_vectors(atoms, 4, species=("centre", "cage"))
    return vectors, truth["label"].values[vectors["index"].values], truth


@pytest.fixture(scope="module")
def fit(crystal) -> bu.Fit:
    return bu.fit(bu.models.GaussianMixture(2, covariance="tied"), crystal[0], FAST, progress=False)


def told(vectors: xr.Dataset, truth: xr.Dataset) -> bu.Fit:
    """A fit whose every draw is the truth."""
    found = as_vectors(vectors)
    assert found.members is not None
    units = replace(as_units(found.data, mask=found.keep), independent=independent(found.members))
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


def test_no_two_share_an_atom_and_none_could_be_added() -> None:
    rng = np.random.default_rng(0)
    members = np.array([rng.choice(60, 4, replace=False) for _ in range(80)])
    chosen = independent(members)
    used, count = np.unique(members[chosen], return_counts=True)
    assert count.max() == 1
    for unit in np.flatnonzero(~chosen):
        assert np.isin(members[unit], used).any()


def test_cages_of_a_lattice_are_packed_densely(crystal) -> None:
    """Every second cell in both directions is the most there is."""
    vectors, _, _ = crystal
    members = np.column_stack([vectors["index"].values, vectors["neighbour"].values])
    assert independent(members).sum() == 64


def test_parameters_rest_on_independent_atoms_and_memberships_cover_all(crystal, fit) -> None:
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


def test_criteria_count_independent_atoms_only(fit) -> None:
    found = bu.waic(fit)
    assert found.unit == "atom (sharing none)"
    assert np.isfinite(found.pointwise.values).sum() == 64
    assert found.elpd == pytest.approx(float(np.nansum(found.pointwise.values)))


def test_the_check_of_the_whole_takes_independent_atoms_only(fit) -> None:
    """Every atom has its p-value; the tests see the 64 that share none, whatever the others show."""
    found = bu.check(fit, draws=20)
    assert np.isfinite(found["p_value"].values).sum() == 256
    assert "of 64 units" in found.attrs["verdict"] and "of 256 these share no measurement" in found.attrs["verdict"]
    free = found["p_value"].values[fit.units.independent]
    assert found.attrs["small_p_share"] == pytest.approx(np.mean(free < 0.01))
    assert float(found["test_p"].sel(test="discrepancy")) == pytest.approx(
        float(chi2.sf(-2.0 * np.log(free).sum(), 2 * free.size))
    )


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


def test_it_is_saved_with_its_independent_atoms(fit, tmp_path) -> None:
    fit.save(tmp_path / "fit.nc")
    back = bu.load_fit(tmp_path / "fit.nc")
    np.testing.assert_array_equal(back.units.independent, fit.units.independent)
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


def test_a_set_that_is_unlike_all_is_told() -> None:
    """Trimers of one kind and single atoms of another: of three that share, one is taken."""
    rng = np.random.default_rng(0)
    trimers = np.repeat(np.arange(40), 3)
    members = np.concatenate([np.stack([trimers, 1000 + np.arange(120)], 1), 2000 + np.arange(160).reshape(80, 2)])
    chosen = independent(members)
    assert chosen[:120].sum() == 40 and chosen[120:].all()
    kind = np.arange(200) < 120
    values = np.stack([rng.normal(size=200), 3.0 * kind + rng.normal(size=200)], axis=1)
    assert unlike_all(values, chosen)
    # The same set, of atoms whose kind has nothing to do with sharing; and no choice at all.
    assert not unlike_all(rng.permutation(values), chosen)
    assert not unlike_all(values, np.ones(200, dtype=bool))


def test_the_verdict_of_a_fit_tells_it(crystal) -> None:
    vectors, _, _ = crystal
    few = vectors.isel(atom=slice(0, 96)).copy(deep=True)
    kind = np.arange(96) < 72
    few["neighbour"] = (("atom", "neighbour"), np.arange(384).reshape(96, 4) + 1000)
    few["neighbour"][:72, 0] = 2000 + np.repeat(np.arange(24), 3)
    few["vector"][:, 0] = 10.0 * kind + np.random.default_rng(0).normal(size=96)
    model = bu.models.GaussianMixture(1, covariance="tied-spherical")
    fit = bu.fit(model, few.drop_vars("vector_cov"), bu.SVI(draws=50, steps=20), progress=False)
    assert fit.units.independent.sum() == 48
    assert "the 48 of 96 atoms that share none" in fit.diagnostics.attrs["verdict"]
    whole = bu.fit(model, few.drop_vars(["vector_cov", "neighbour"]), bu.SVI(draws=50, steps=20), progress=False)
    assert "share none" not in whole.diagnostics.attrs["verdict"]


def test_the_search_starts_from_all_atoms(crystal, monkeypatch) -> None:
    """Among the few that share none it may start near a mode that all would not fall for."""
    lengths, initial = [], bu.models.GaussianMixture.initial

    def recorded(model, data):
        lengths.append(len(data))
        return initial(model, data)

    monkeypatch.setattr(bu.models.GaussianMixture, "initial", recorded)
    model = bu.models.GaussianMixture(1, covariance="tied-spherical")
    vectors = crystal[0].drop_vars("vector_cov")
    fit = bu.fit(model, vectors, bu.SVI(draws=50, steps=20), progress=False)
    assert lengths == [256] and fit.units.independent.sum() == 64
