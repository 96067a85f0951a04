"""Known endmembers: a few numbers a pixel say what the spectra say, and most pixels need no points."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import numpy as np
import pytest
from numpy.random import default_rng
from scipy.special import ndtri

import bayesunmix as bu
from bayesunmix.data.units import as_units
from bayesunmix.distributions.one_face import cut_off, drawn
from bayesunmix.distributions.unmixing import NormalUnmixing
from bayesunmix.inference import latents
from bayesunmix.inference.latents import latent_statistics
from bayesunmix.inference.program import compile_model
from bayesunmix.inference.units import Draws
from bayesunmix.models._pooled import pool
from bayesunmix.models._sufficient import KnownMixture, summarised

SIDE, CHANNELS, PARTS, NOISE = 20, 24, 3, 0.01


@pytest.fixture(scope="module")
def scene() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Endmembers, abundances (unit, part) of which some lie on faces, and spectra."""
    rng = default_rng(0)
    endmembers = rng.gamma(2.0, 0.3, (PARTS, CHANNELS))
    abundance = rng.dirichlet(np.ones(PARTS), SIDE**2)
    abundance[:10] = np.eye(PARTS)[rng.integers(0, PARTS, 10)]
    return endmembers, abundance, abundance @ endmembers + rng.normal(0, NOISE, (SIDE**2, CHANNELS))


@pytest.mark.parametrize("concentration", [None, 1.5])
def test_the_numbers_have_the_likelihood_of_the_spectra(scene: Any, concentration: float | None) -> None:
    """Density, and slope and curvature in the noise and the concentration, on one set of points."""
    endmembers, _, y = scene
    few, numbers = summarised(endmembers, y)
    alpha = None if concentration is None else concentration * np.ones(PARTS)

    @partial(jax.jit, static_argnames="pooled")
    def densities(spectra, values, pooled):
        fn = NormalUnmixing(spectra, alpha, 1.1 * NOISE, n_pooled=pooled)
        rule = fn.rule(values, jax.random.key(0), np.arange(len(values)))
        return fn.log_prob_on(rule), fn.curvature_on(rule, ())

    with jax.enable_x64(True):
        whole, lean = densities(endmembers, y, 1), densities(few, numbers, CHANNELS - PARTS)
    jax.tree_util.tree_map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-7), whole, lean)


def test_a_fit_takes_the_numbers(scene: Any) -> None:
    endmembers, _, y = scene
    model = bu.models.LinearUnmixing(PARTS, endmembers=endmembers).bind(y)
    lean, numbers = model.sufficient(y)
    assert isinstance(lean, KnownMixture) and numbers.shape == (len(y), PARTS + 1)
    for other in ({"noise": "diagonal"}, {"brightness": True}, {"missing": True}, {"likelihood": "scaled-poisson"}):
        bound = bu.models.LinearUnmixing(PARTS, endmembers=endmembers, **other).bind(y)
        assert bound.sufficient(y) == (bound, y)


def test_one_face_in_reach_has_a_closed_form(scene: Any) -> None:
    """Where that is said, mean, sd and draws given the data are those of the conditional on many points."""
    endmembers, _, y = scene
    with jax.enable_x64(True):
        fn = NormalUnmixing(endmembers, None, NOISE)
        normal = fn.without_faces(y)
        mean, variance, exact, free = (np.asarray(x) for x in cut_off(normal))
        found = fn.conditional(y, n_points=1024)
        at_face = exact & ~free
        assert not exact[:10].any() and at_face.sum() > 20 and free.sum() > 100
        sd = np.sqrt(variance)
        # 1024 points of a lattice: errors of a mean are below one in a hundred sds.
        off = (np.asarray(found.mean) - mean) / sd
        assert np.abs(off[exact]).max() < 0.01
        np.testing.assert_allclose(np.asarray(found.variance)[exact], variance[exact], rtol=0.05)
        share = ((np.arange(4096) + 0.5) / 4096)[:, None]
        score = ndtri((np.arange(4096) * 0.618034 + 0.3) % 1.0)[:, None]
        draws = np.asarray(drawn(normal, share, score))[:, at_face]
        np.testing.assert_allclose(draws.mean(0) / sd[at_face], mean[at_face] / sd[at_face], atol=0.01, rtol=0)
        np.testing.assert_allclose(draws.std(0), sd[at_face], rtol=0.02)
        assert draws.min() >= 0.0
        assert not cut_off(NormalUnmixing(endmembers, np.full(PARTS, 2.0), NOISE).without_faces(y)).exact.any()


@pytest.mark.parametrize("spread", [1e-4, 0.3])
def test_the_shorter_ways_lead_to_the_same_statistics(scene: Any, spread: float, monkeypatch: Any) -> None:
    """Against points everywhere and all draws, at a noise level known to a ``spread``, and so with each of the ways."""
    endmembers, _, y = scene
    units = as_units(y.reshape(SIDE, SIDE, CHANNELS))
    model = bu.models.LinearUnmixing(PARTS, endmembers=endmembers).bind(units.values)
    levels = NOISE * np.exp(spread * default_rng(1).standard_normal(100))
    with jax.enable_x64(True):
        draws = Draws(*compile_model(model, units.values[:1], {}), {"noise_scale": jax.numpy.asarray(levels)})
        short, _ = latent_statistics(draws, units.values, {}, 0.9, jax.random.key(0))
        monkeypatch.setattr(latents, "_plain", lambda *_: None)
        long, _ = latent_statistics(draws, units.values, {}, 0.9, jax.random.key(1))
    short, long = (dict(zip(latents.STATISTICS, np.moveaxis(x, -1, 0), strict=True)) for x in (short, long))
    sd = long["sd"]
    # 32 points a draw of the globals, and at least 32 of those.
    assert np.sqrt(np.mean(((short["mean"] - long["mean"]) / sd) ** 2)) < 0.03
    assert np.abs(np.log(short["sd"] / sd)).mean() < 0.03
    # The end of a 90 % interval from 400 draws of a normal is known to .106 sd; there are two such estimates at most.
    for end in ("lower", "upper"):
        assert np.sqrt(np.mean(((short[end] - long[end]) / sd) ** 2)) < 1.3 * 0.106 * np.sqrt(2)
    np.testing.assert_allclose(short["sd"] ** 2, short["sd_noise"] ** 2 + short["sd_model"] ** 2, rtol=1e-9)


@pytest.mark.parametrize("prob", [0.5, 0.9, 0.98])
def test_intervals_hold_what_they_say_given_the_globals(scene: Any, prob: float) -> None:
    """At a noise level that is known: mass below either end on 8192 points, of units near one face and near more."""
    endmembers, _, y = scene
    model = bu.models.LinearUnmixing(PARTS, endmembers=endmembers).bind(y)
    with jax.enable_x64(True):
        draws = Draws(*compile_model(model, y[:1], {}), {"noise_scale": jax.numpy.full(100, NOISE)})
        found, _ = latent_statistics(draws, y, {}, prob, jax.random.key(0))
        fn = NormalUnmixing(endmembers, None, NOISE)
        exact, free = (np.asarray(x) for x in cut_off(fn.without_faces(y))[2:])
        points = fn.conditional(y, n_points=8192)
    lower, upper = found[..., 2].T[:, None], found[..., 3].T[:, None]
    below = lambda end: (np.asarray(points.weights) * (np.asarray(points.points) <= end)).sum(1)  # noqa: E731
    for end, share in ((lower, (1 - prob) / 2), (upper, (1 + prob) / 2)):
        off = below(end) - share
        # Near an edge 256 points of a lattice are worth more than a thousand draws.
        assert np.sqrt(np.mean(off[:, ~exact] ** 2)) < np.sqrt(share * (1 - share) / 1000)
        assert np.abs(off[:, exact & ~free]).max() < 0.002
    assert found[..., 2].min() > -1e-9
    assert found[..., 5].max() < 1e-12  # nothing is left to the globals


def test_a_short_distance_from_the_plane_of_the_mixtures_is_not_lost(scene: Any) -> None:
    """A billionth of a spectrum's length, which a difference of squares in double precision does not see."""
    endmembers, abundance, _ = scene
    aside = np.linalg.svd(endmembers)[2][-1]
    distance = 1e-9 * np.arange(1, SIDE**2 + 1) / SIDE**2
    numbers = summarised(endmembers, abundance @ endmembers + distance[:, None] * aside)[1]
    # Rounding of a spectrum of length 5, in 24 channels.
    np.testing.assert_allclose(numbers[:, -1], distance, atol=24 * 5 * np.finfo(float).eps, rtol=0)


@pytest.fixture(scope="module")
def large() -> tuple[np.ndarray, np.ndarray]:
    """Endmembers, and spectra of as many pixels as are worth taking together."""
    rng = default_rng(3)
    endmembers = rng.gamma(2.0, 0.3, (PARTS, 8))
    abundance = rng.dirichlet(np.ones(PARTS), 96**2)
    return endmembers, abundance @ endmembers + rng.normal(0, 0.02, (96**2, 8))


def density_of(few: np.ndarray) -> Any:
    """Log density of pixels one by one, at a noise level, with the points of pixels of these numbers."""

    @jax.jit
    def density(level, values, index):
        fn = NormalUnmixing(few, None, level, n_pooled=8 - PARTS)
        return fn.log_prob_on(fn.rule(values, jax.random.key(0), index)).sum()

    return density


def test_pixels_taken_together_have_the_density_that_they_had(large: Any) -> None:
    """At noise levels thirty posterior standard deviations away."""
    endmembers, y = large
    few, numbers = summarised(endmembers, y)
    together, kept = pool(few, numbers, 8)
    assert together is not None and len(kept) < 0.3 * len(y)
    assert together.freedom == (len(y) - len(kept)) * (8 - PARTS + 1)
    density = density_of(few)
    with jax.enable_x64(True):
        for level in np.array([0.91, 0.98, 1.0, 1.02, 1.1]) * together.noise_scale:
            whole = density(level, numbers, np.arange(len(y)))
            parts = density(level, numbers[kept], kept) + together.law(level).log_prob(together.square)
            # Of one by one, closed forms are right to some 1e-7; five standard deviations from a face cut off 3e-7.
            assert abs(float(whole - parts)) < 1e-6 * len(y)


def test_a_noise_level_of_pixels_taken_together(large: Any) -> None:
    """Against its posterior on a grid, with all pixels one by one."""
    endmembers, y = large
    model = bu.models.LinearUnmixing(PARTS, endmembers=endmembers)
    fit = bu.fit(model, y.reshape(96, 96, 8), progress=False)
    assert fit.converged
    few, numbers = summarised(endmembers, y)
    density = density_of(few)
    draws = np.log(fit.posterior["noise_scale"].values.ravel())
    with jax.enable_x64(True):
        width = 1.0 / np.sqrt(2 * len(y) * (8 - PARTS + 1))
        grid = draws.mean() + width * np.linspace(-6, 6, 25)
        logs = np.array([float(density(np.exp(at), numbers, np.arange(len(y)))) for at in grid])
    logs -= 0.5 * ((grid - np.log(fit.model.noise_level)) / 0.5) ** 2
    weight = np.exp(logs - logs.max())
    mean = np.average(grid, weights=weight)
    sd = np.sqrt(np.average((grid - mean) ** 2, weights=weight))
    # Four standard errors of so many draws, and as much again for the points of pixels near an edge.
    assert abs(draws.mean() - mean) < (4 / np.sqrt(draws.size) + 0.05) * sd
    assert abs(np.log(draws.std() / sd)) < 4 / np.sqrt(2 * draws.size)


def test_what_is_not_taken_together(large: Any) -> None:
    """Few pixels, one endmember, twins, faces that are in reach of most, and a concentration."""
    endmembers, y = large

    def pooled(spectra: np.ndarray, values: np.ndarray) -> Any:
        return pool(*summarised(spectra, values), values.shape[1])[0]

    assert pooled(endmembers, y) is not None
    assert pooled(endmembers, y[:5000]) is None
    assert pooled(endmembers[:1], y) is None
    assert pooled(endmembers[[0, 0, 1]], y) is None
    assert pooled(endmembers, y + default_rng(0).normal(0, 1.0, y.shape)) is None
    lean = bu.models.LinearUnmixing(PARTS, endmembers=endmembers, concentration=2.0).bind(y).sufficient(y)
    assert lean[0].for_globals(lean[1]) == lean


@pytest.mark.parametrize("n_units", [1, 2])
def test_the_noise_of_a_pixel_or_two_is_what_known_spectra_leave(n_units: int) -> None:
    """90 % intervals of eight images hold the level in at least five: in 995 of 1000 runs."""
    energy = np.linspace(0.0, 1.0, 16)
    spectra = 0.2 + np.exp(-0.5 * ((energy - np.array([[0.25], [0.75]])) / 0.12) ** 2)
    held = 0
    for seed in range(8):
        rng = np.random.default_rng(seed)
        pixels = rng.dirichlet(np.ones(2), n_units) @ spectra + 0.05 * rng.normal(size=(n_units, 16))
        fit = bu.fit(bu.models.LinearUnmixing(2, endmembers=spectra), pixels, seed=seed, progress=False)
        low, high = np.quantile(fit.posterior["noise_scale"].values, [0.05, 0.95])
        held += low <= 0.05 <= high
    assert held >= 5


def test_abundances_of_twins_are_shared_as_the_prior_has_it() -> None:
    """Of the same spectrum twice only the sum is known, and any split of it is as likely."""
    rng = np.random.default_rng(3)
    one, two = rng.uniform(1.0, 3.0, (2, 8))
    spectra = np.stack([one, one, two])
    image = rng.dirichlet(np.ones(3), (12, 12)) @ spectra + 0.05 * rng.normal(size=(12, 12, 8))
    with pytest.warns(UserWarning, match="endmembers 0 and 1 are the same spectrum"):
        fit = bu.fit(bu.models.LinearUnmixing(3, endmembers=spectra), image, progress=False)
    assert fit.converged
    maps = fit.latent()["abundance"].transpose("statistic", "endmember", ...)
    mean, variance = maps.sel(statistic="mean").values, maps.sel(statistic="sd").values ** 2
    total = 1.0 - mean[2]
    expected = (total**2 + variance[2]) / 3 - (total / 2) ** 2
    # 144 pixels whose points are their own, at least 64 each.
    error = 4 / np.sqrt(64 * 144)
    assert abs(np.mean(mean[0] - mean[1])) < error * np.sqrt(expected.mean())
    assert variance[:2].mean() == pytest.approx(expected.mean(), rel=error)


def test_counts_of_which_only_abundances_are_unknown_are_refused() -> None:
    counts = np.random.default_rng(0).poisson(5.0, (4, 4, 8))
    model = bu.models.LinearUnmixing(2, endmembers=np.eye(2, 8) + 1.0, likelihood="poisson")
    with pytest.raises(ValueError, match="brightness=True"):
        bu.fit(model, counts, progress=False)
