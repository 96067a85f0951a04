"""The mixture of angles: on bond angles of a lattice, beside k-means on the circle, and across the cut of the angle."""

from __future__ import annotations

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr
from scipy.stats import norm
from sklearn.cluster import KMeans

import bayesunmix as bu
from bayesunmix.calibrate import matched
from bayesunmix.data.lattices import off_centred_lattice
from bayesunmix.distributions.angles import WrappedNormal

FAST = bu.SVI(draws=200, steps=40)


def test_variants_of_a_lattice_by_the_angles_of_their_bonds() -> None:
    """Beside k-means on points of the unit circle, the limit that the classes tend to."""
    atoms, truth = off_centred_lattice((16, 16), "four-variant", position_error=0.1, scatter=0.1, seed=0)
    vectors = bu.descriptors.neighbour_vectors(atoms, 4, species=("centre", "cage"))
    angles = bu.descriptors.bond_angles(vectors)
    model = bu.models.VonMisesMixture(4, weights="equal", dispersion="tied")
    fit = bu.fit(model, angles, FAST, progress=False)
    assert fit.converged
    label = fit.latent()["membership"].sel(statistic="mean").values.argmax(1)
    y = angles["vector"].values
    peer = KMeans(4, n_init=10, random_state=0).fit(np.concatenate([np.cos(y), np.sin(y)], axis=1))
    for other in (peer.labels_, truth["label"].values[vectors["index"].values]):
        # Every class holds the atoms of one other class and none besides.
        pairs = np.unique(np.stack([label, other]), axis=1)
        assert pairs.shape[1] == 4


def test_a_class_across_the_cut_of_the_angle_is_one_class() -> None:
    """Angles around pi come as values near pi and near -pi: half a turn away on the line, neighbours on the circle."""
    rng = np.random.default_rng(0)
    label = rng.random(400) < 0.4
    y = np.where(label, np.pi, 0.5)[:, None] + 0.2 * rng.normal(size=(400, 2))
    y = (y + np.pi) % (2 * np.pi) - np.pi
    assert (np.ptp(y[label], axis=0) > 6.0).all()
    fit = bu.fit(bu.models.VonMisesMixture(2), y, FAST, progress=False)
    share = fit.latent()["membership"].sel(statistic="mean").values
    assert np.mean(share.argmax(1) == label) > 0.99
    draws = fit.posterior["means"].stack(sample=("chain", "draw")).transpose("sample", ...).values
    away = (draws - np.array([[0.5], [np.pi]]) + np.pi) % (2 * np.pi) - np.pi
    assert np.abs(away.mean(0) / away.std(0)).max() < 4


def test_the_prior_of_a_mean_has_a_period_and_one_turn_of_it_is_a_density() -> None:
    """Beside the sum over turns by SciPy; the integral by the trapezium rule, exact for periods."""
    with jax.enable_x64(True):
        prior = WrappedNormal(jnp.array([0.3, -2.0]), 1.5)
        angle = np.linspace(-np.pi, np.pi, 400, endpoint=False)[:, None]
        found = np.asarray(prior.log_prob(jnp.asarray(angle)))
        np.testing.assert_allclose(np.exp(found).mean(0) * 2 * np.pi, 1.0, rtol=1e-9)
        np.testing.assert_allclose(prior.log_prob(jnp.asarray(angle + 6 * np.pi)), found, rtol=1e-9)
    turns = 2 * np.pi * np.arange(-9, 10)
    expected = norm.pdf(angle[..., None] + turns, np.array([0.3, -2.0])[:, None], 1.5).sum(-1)
    np.testing.assert_allclose(np.exp(found), expected, rtol=1e-6)


def test_draws_of_several_turns_come_on_one() -> None:
    model = bu.models.VonMisesMixture(2).bind(np.random.default_rng(0).normal(3.0, 0.1, (50, 1)))
    near = np.array([[3.1], [0.0]]) + 0.1 * np.random.default_rng(1).normal(size=(4, 100, 2, 1))
    turned = near + 2 * np.pi * np.arange(-2, 2)[:, None, None, None]
    np.testing.assert_allclose(model.identified({"means": turned})["means"], near, atol=1e-6)


def test_a_truth_on_another_turn_is_matched_to_its_class() -> None:
    """Means of 3 and of -2.9 are neighbours: as numbers, the other class would be nearer."""
    rng = np.random.default_rng(0)
    drawn = np.array([[-2.9], [0.4]]) + 0.05 * rng.normal(size=(100, 2, 1))
    draws = xr.Dataset({"means": (("sample", "component", "channel"), drawn)})
    truth = xr.Dataset({"means": (("component", "channel"), [[0.4], [3.4]])}, {"component": [0, 1]})
    found = matched(SimpleNamespace(model=bu.models.VonMisesMixture(2)), draws, truth)
    np.testing.assert_array_equal(found["means"].values.ravel(), [3.4, 0.4])


def test_degrees_are_refused() -> None:
    with pytest.raises(ValueError, match="radians"):
        bu.fit(bu.models.VonMisesMixture(2), np.linspace(0, 180, 80).reshape(40, 2), FAST, progress=False)
