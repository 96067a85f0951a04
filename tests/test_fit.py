"""bu.fit on 8 x 8 pixels of 16 channels: oracles, and what must not change the answer.

All images have one shape and most fits one program, so that compiled functions are shared.
"""

from __future__ import annotations

import io
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import jax
import numpy as np
import numpyro
import numpyro.infer
import pytest
import xarray as xr
from scipy import stats
from scipy.special import logsumexp

import bayesunmix as bu
from bayesunmix.inference import sampler
from bayesunmix.inference.diagnostics import MC_SHIFT_LIMIT
from bayesunmix.models import LinearUnmixing

SVI = bu.SVI(draws=200, steps=20)
NUTS = bu.NUTS(draws=200, warmup=100, chains=2)
ENERGY = np.linspace(0.0, 1.0, 16)
SPECTRA = 0.2 + np.exp(-0.5 * ((ENERGY - np.array([[0.25], [0.75]])) / 0.15) ** 2)
NOISE = 0.05
# Two means of 200 draws differ by this many posterior sds, rms, and integration error may add its limit.
MONTE_CARLO = float(np.hypot(np.sqrt(2 / SVI.draws), MC_SHIFT_LIMIT))


def mixed(
    spectra: np.ndarray = SPECTRA, noise: Any = NOISE, shape: tuple[int, int] = (8, 8), seed: int = 0
) -> tuple[xr.DataArray, np.ndarray]:
    """An image, and its abundances: the second endmember is the abundant one."""
    rng = np.random.default_rng(seed)
    abundance = rng.dirichlet(np.linspace(0.7, 1.3, len(spectra)) if len(spectra) > 1 else [1.0], shape)
    clean = abundance @ spectra
    values = clean + noise * rng.normal(size=clean.shape)
    coords = {"x": 0.5 * np.arange(shape[1]), "energy": ENERGY}
    return xr.DataArray(values, coords, ("y", "x", "energy")), abundance


def run(data: Any, model: Any = None, method: Any = SVI, **options: Any) -> bu.Fit:
    return bu.fit(model or LinearUnmixing(2), data, method, progress=False, **options)


def moments(fit: bu.Fit, name: str = "endmembers") -> tuple[np.ndarray, np.ndarray]:
    draws = fit.posterior[name].stack(sample=("chain", "draw"))
    return draws.mean("sample").values, draws.std("sample").values


def rms_shift(one: bu.Fit, other: bu.Fit, name: str = "endmembers") -> float:
    """Distance of two posterior means in posterior sds, rms over the elements."""
    (mean, sd), (other_mean, _) = moments(one, name), moments(other, name)
    return float(np.sqrt(np.mean(((mean - other_mean) / sd) ** 2)))


def assert_same_posterior(sampled: bu.Fit, fitted: bu.Fit, name: str) -> None:
    """A guide may be wrong by its own limit, beyond Monte Carlo and integration error."""
    assert rms_shift(sampled, fitted, name) < np.hypot(MONTE_CARLO, 0.25)
    np.testing.assert_allclose(np.mean(moments(sampled, name)[1] / moments(fitted, name)[1]), 1.0, atol=0.2)


@pytest.fixture(scope="module")
def scene() -> tuple[xr.DataArray, np.ndarray]:
    return mixed()


@pytest.fixture(scope="module")
def fit(scene: tuple[xr.DataArray, np.ndarray]) -> bu.Fit:
    return run(scene[0])


# ---------------------------------------------------------------------- what comes back


def test_it_converges_and_finds_the_truth(fit: bu.Fit, scene: tuple[xr.DataArray, np.ndarray]) -> None:
    assert fit.converged and fit.finished
    assert fit.diagnostics.attrs["verdict"].startswith("Usable")
    mean, sd = moments(fit)
    z = (mean - SPECTRA[::-1]) / sd
    # 32 correlated elements: an rms of one is expected, two would be seen once in thousands.
    assert np.sqrt(np.mean(z**2)) < 2.0
    noise, noise_sd = moments(fit, "noise_scale")
    assert abs(noise - NOISE) < 4 * noise_sd
    latent = fit.latent()["abundance"]
    truth = scene[1][..., ::-1]
    z = (latent.sel(statistic="mean") - truth) / latent.sel(statistic="sd")
    # Nearly all of it is the position of two endmembers on their line: two degrees of freedom, not 128.
    assert 0.3 < float(np.sqrt((z**2).mean())) < 2.0


def test_endmembers_are_in_the_order_of_mean_abundance(fit: bu.Fit) -> None:
    mean = fit.latent()["abundance"].sel(statistic="mean").mean(("y", "x"))
    assert float(mean[0]) > float(mean[1])
    assert int(moments(fit)[0][0].argmax()) > 8  # the abundant one peaks at .75


def test_names_dims_and_coordinates(fit: bu.Fit, scene: tuple[xr.DataArray, np.ndarray]) -> None:
    assert fit.posterior["endmembers"].dims == ("chain", "draw", "endmember", "energy")
    np.testing.assert_array_equal(fit.posterior["energy"], ENERGY)
    assert fit.posterior["noise_scale"].dims == ("chain", "draw")
    latent = fit.latent()["abundance"]
    assert latent.dims == ("y", "x", "endmember", "statistic")
    assert list(latent["statistic"].values) == ["mean", "sd", "lower", "upper", "sd_noise", "sd_model"]
    np.testing.assert_array_equal(latent["x"], scene[0]["x"])
    np.testing.assert_array_equal(fit.data, scene[0])
    assert fit.model.bound
    assert "64 pixels x 16 channels" in repr(fit) and "<div>" in fit._repr_html_()


def test_variances_of_the_latent_add_up(fit: bu.Fit) -> None:
    latent = fit.latent(prob=0.5)["abundance"]
    sd, noise, model, mean, lower, upper = (
        latent.sel(statistic=s).values for s in ("sd", "sd_noise", "sd_model", "mean", "lower", "upper")
    )
    np.testing.assert_allclose(sd**2, noise**2 + model**2, rtol=1e-6)
    assert (model > 0).all() and (lower < upper).all()
    np.testing.assert_allclose(mean.sum(-1), 1.0, atol=1e-6)
    wide = fit.latent(prob=0.95)["abundance"]
    assert (wide.sel(statistic="upper").values > upper).all()


def test_draws_of_the_latent_have_its_moments(fit: bu.Fit) -> None:
    """200 draws, 128 means and sds: rms of their errors in standard errors is one, two is out of reach."""
    draws = fit.sample_latent(200, seed=3)["abundance"]
    assert draws.dims == ("draw", "y", "x", "endmember")
    np.testing.assert_allclose(draws.sum("endmember"), 1.0, atol=1e-5)
    latent = fit.latent()["abundance"]
    z = (draws.mean("draw") - latent.sel(statistic="mean")) / (latent.sel(statistic="sd") / np.sqrt(200))
    assert float(np.sqrt((z**2).mean())) < 2.0
    assert abs(float((draws.var("draw") / latent.sel(statistic="sd") ** 2).mean()) - 1) < 0.1


def test_too_many_draws_of_the_latent_are_refused(fit: bu.Fit) -> None:
    with pytest.raises(MemoryError, match="max_bytes"):
        fit.sample_latent(200, max_bytes=1000)


@pytest.mark.parametrize("prob", [0.0, 1.0, 90])
def test_prob_is_checked(fit: bu.Fit, prob: float) -> None:
    with pytest.raises(ValueError, match="prob: expected a number between 0 and 1"):
        fit.latent(prob=prob)


# ---------------------------------------------------------------------- what must not matter


def test_the_seed_does_not_matter_beyond_monte_carlo_error(fit: bu.Fit) -> None:
    other = run(fit.data, seed=1)
    assert 0 < rms_shift(fit, other) < MONTE_CARLO
    again = run(fit.data)
    np.testing.assert_array_equal(again.posterior["endmembers"], fit.posterior["endmembers"])


@pytest.mark.parametrize("factor", [1e-6, 1e6])
def test_the_unit_of_the_data_does_not_matter(fit: bu.Fit, factor: float) -> None:
    scaled = run(factor * fit.data)
    assert scaled.converged == fit.converged
    for name in ("endmembers", "noise_scale"):
        (mean, sd), (expected, expected_sd) = moments(scaled, name), moments(fit, name)
        np.testing.assert_allclose(mean / factor, expected, atol=1e-3 * expected_sd.max())
        np.testing.assert_allclose(sd / factor, expected_sd, rtol=1e-2)
    np.testing.assert_allclose(
        scaled.latent()["abundance"].sel(statistic="mean"),
        fit.latent()["abundance"].sel(statistic="mean"),
        atol=1e-4,
    )


def test_the_order_of_the_pixels_does_not_matter(fit: bu.Fit) -> None:
    turned = run(fit.data.isel(y=slice(None, None, -1)).transpose("x", "y", "energy"))
    assert rms_shift(fit, turned) < MONTE_CARLO
    one, other = (f.latent()["abundance"].transpose("y", "x", ...).values for f in (fit, turned))
    error = one[::-1, ..., 1]  # in the turned image's order
    assert np.sqrt(np.mean(((one[::-1, ..., 0] - other[..., 0]) / error) ** 2)) < MONTE_CARLO


def test_masked_pixels_do_not_matter(fit: bu.Fit) -> None:
    """A ninth row of nonsense that is masked: the same numbers, and NaN in the row."""
    nonsense = xr.full_like(fit.data[:1], np.nan)
    taller = xr.concat([nonsense, fit.data], "y")
    keep = xr.DataArray(np.arange(9) > 0, dims="y").broadcast_like(taller[..., 0])
    masked = run(taller, mask=keep)
    np.testing.assert_array_equal(masked.posterior["endmembers"], fit.posterior["endmembers"])
    latent = masked.latent()["abundance"].transpose("y", "x", ...)
    assert bool(np.isnan(latent[0]).all())
    np.testing.assert_array_equal(latent[1:], fit.latent()["abundance"])


# ---------------------------------------------------------------------- oracles


def test_one_endmember_agrees_with_its_closed_form() -> None:
    """Given sigma the channels are normal, their prior's edge at zero far away; sigma is summed over a grid."""
    image, _ = mixed(np.mean(SPECTRA, 0, keepdims=True))
    fitted = run(image, LinearUnmixing(1))
    y = image.values.reshape(-1, 16)
    scale, level = np.asarray(fitted.model.endmember_scale), fitted.model.noise_level
    sigma = np.geomspace(0.03, 0.08, 400)[:, None]
    precision = len(y) / sigma**2 + 1 / scale**2
    mean = y.sum(0) / sigma**2 / precision
    # log p(y | sigma), channel by channel, from p(y | W) p(W) / p(W | y) at W = mean.
    spread = ((y[:, None] - mean) ** 2).sum(0)
    log_y = -len(y) * np.log(sigma) - 0.5 * spread / sigma**2 - 0.5 * (mean / scale) ** 2 - 0.5 * np.log(precision)
    log_post = log_y.sum(1) + stats.norm(np.log(level), 1.0).logpdf(np.log(sigma[:, 0]))  # on a log grid
    weight = np.exp(log_post - logsumexp(log_post))
    expected = weight @ mean
    variance = weight @ (1 / precision + (mean - expected) ** 2)
    sigma_mean = weight @ sigma[:, 0]
    sigma_sd = np.sqrt(weight @ (sigma[:, 0] - sigma_mean) ** 2)
    found, sd = (m[0] for m in moments(fitted))
    # 4.5 Monte Carlo errors of 200 draws for 17 means and, at .05 relative each, sds: false alarm 2e-4.
    np.testing.assert_array_less(np.abs(found - expected), 4.5 * np.sqrt(variance / 200))
    np.testing.assert_allclose(sd, np.sqrt(variance), rtol=4.5 * 0.05)
    noise, noise_sd = moments(fitted, "noise_scale")
    assert abs(noise - sigma_mean) < 4.5 * sigma_sd / np.sqrt(200)
    assert noise_sd == pytest.approx(sigma_sd, rel=4.5 * 0.05)
    latent = fitted.latent()["abundance"]
    np.testing.assert_array_equal(latent.sel(statistic="mean"), 1.0)


def test_known_endmembers_agree_with_quadrature() -> None:
    """Two known endmembers leave a pixel's share and sigma: a grid over both gives every moment."""
    image, _ = mixed()
    fitted = run(image, LinearUnmixing(2, endmembers=SPECTRA))
    assert set(fitted.posterior.data_vars) == {"noise_scale"}
    y = image.values.reshape(-1, 16)
    share = (np.arange(500) + 0.5) / 500  # uniform on the simplex
    sigma = np.geomspace(0.035, 0.075, 60)
    misfit = ((y[:, None] - np.stack([share, 1 - share], 1) @ SPECTRA) ** 2).sum(-1)  # (unit, share)
    log_p = -16 * np.log(sigma)[:, None, None] - 0.5 * misfit / sigma[:, None, None] ** 2
    unit = logsumexp(log_p, axis=-1)
    log_post = unit.sum(1) + stats.norm(np.log(fitted.model.noise_level), 1.0).logpdf(np.log(sigma))
    weight = np.exp(log_post - logsumexp(log_post))
    given = np.exp(log_p - unit[..., None])
    first, second = given @ share, given @ share**2
    mean = weight @ first
    sd = np.sqrt(weight @ second - mean**2)
    sigma_mean = weight @ sigma
    sigma_sd = np.sqrt(weight @ (sigma - sigma_mean) ** 2)
    noise, noise_sd = moments(fitted, "noise_scale")
    assert abs(noise - sigma_mean) < 4.5 * sigma_sd / np.sqrt(200)
    assert noise_sd == pytest.approx(sigma_sd, rel=4.5 * 0.05)
    latent = fitted.latent()["abundance"].isel(endmember=0).stack(unit=("y", "x"))  # order as given
    z = (latent.sel(statistic="mean").values - mean) / sd
    # Integration error of a pixel, averaged over 200 draws of the globals on fresh points each.
    assert np.abs(z).max() < 0.05
    np.testing.assert_allclose(latent.sel(statistic="sd"), sd, rtol=0.05)


def test_noise_of_each_channel() -> None:
    truth = np.geomspace(0.02, 0.1, 16)
    model = LinearUnmixing(2, noise="diagonal")
    fitted = run(mixed(noise=truth)[0], model)
    assert fitted.posterior["noise_scale"].dims == ("chain", "draw", "energy")
    mean, sd = moments(fitted, "noise_scale")
    assert np.abs((mean - truth) / sd).max() < 4.5
    sampled = run(fitted.data, model, NUTS, seed=2)
    assert_same_posterior(sampled, fitted, "noise_scale")


def test_signed_endmembers() -> None:
    signed = SPECTRA - 0.6
    image, _ = mixed(signed)
    fitted = run(image, LinearUnmixing(2, endmember_support="real"))
    mean, sd = moments(fitted)
    assert mean.min() < -0.2
    assert np.sqrt(np.mean(((mean - signed[::-1]) / sd) ** 2)) < 2.0


def test_nuts_and_svi_agree(fit: bu.Fit) -> None:
    sampled = run(fit.data, method=NUTS, seed=2)
    assert sampled.posterior.sizes["chain"] == 2
    assert {"rhat", "ess_bulk", "divergences"} <= set(sampled.diagnostics)
    assert float(sampled.diagnostics["rhat"].max()) < 1.05
    assert_same_posterior(sampled, fit, "endmembers")


@pytest.mark.slow
def test_float32_and_float64_give_the_same_posterior(fit: bu.Fit, monkeypatch: pytest.MonkeyPatch) -> None:
    """A whole fit as an accelerator computes it, on a CPU: no double precision anywhere."""
    for module in (sys.modules[bu.fit.__module__], sampler):
        monkeypatch.setattr(module, "computing", lambda **_: nullcontext())
    single = run(fit.data)
    assert single.posterior["endmembers"].dtype == np.float32
    assert single.converged, single.diagnostics.attrs["verdict"]
    for name in ("endmembers", "noise_scale"):
        # One number alone may be off by three Monte Carlo errors; 32 correlated ones are off by about one, rms.
        assert rms_shift(single, fit, name) < (1 if name == "endmembers" else 3) * MONTE_CARLO
        np.testing.assert_allclose(np.mean(moments(single, name)[1] / moments(fit, name)[1]), 1.0, atol=0.2)
    one, other = (f.latent()["abundance"] for f in (single, fit))
    away = (one - other).sel(statistic="mean") / other.sel(statistic="sd")
    assert float(np.sqrt((away**2).mean())) < MONTE_CARLO


# ---------------------------------------------------------------------- progress


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_sees_the_elbo_and_a_pipe_nothing(fit: bu.Fit, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal, pipe = _Terminal(), io.StringIO()
    for stream in (terminal, pipe):
        monkeypatch.setattr(sys, "stderr", stream)
        bu.fit(LinearUnmixing(2), fit.data, SVI)
    assert "ELBO" in terminal.getvalue()
    assert pipe.getvalue() == ""


# ---------------------------------------------------------------------- Ctrl-C


class _Interrupting:
    """Presses Ctrl-C when the sampler reports that ``after`` steps are done."""

    after = 0

    def __init__(self, shown: bool):
        self.pressed = False

    def __enter__(self) -> _Interrupting:
        return self

    def __exit__(self, *_: Any) -> None:
        pass

    def note(self, text: str) -> None:
        pass

    def step(self, done: int, total: int, text: str) -> None:
        if not self.pressed and done >= self.after:
            self.pressed = True
            raise KeyboardInterrupt


def test_ctrl_c_keeps_the_draws_that_there_are(fit: bu.Fit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[bu.fit.__module__], "Progress", _Interrupting)
    monkeypatch.setattr(_Interrupting, "after", 150)
    broken = run(fit.data, method=bu.NUTS(draws=100_000, warmup=50, chains=1))
    assert not broken.finished and not broken.converged
    assert "stopped before its end" in broken.diagnostics.attrs["verdict"]
    assert 25 <= broken.posterior.sizes["draw"] < 100_000
    assert "interrupted" in repr(broken)


def test_ctrl_c_before_the_first_draw_is_ctrl_c(fit: bu.Fit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[bu.fit.__module__], "Progress", _Interrupting)
    with pytest.raises(KeyboardInterrupt):
        run(fit.data, method=bu.NUTS(draws=100, warmup=100_000, chains=1))


# ---------------------------------------------------------------------- arguments


@pytest.mark.parametrize("method", ["svi", bu.SVI, 3], ids=repr)
def test_a_wrong_method_is_refused(method: Any) -> None:
    with pytest.raises(TypeError, match=r"method: expected bu\.SVI\(\.\.\.\), bu\.NUTS\(\.\.\.\) or bu\.Gibbs"):
        bu.fit(LinearUnmixing(2), mixed()[0], method)


@pytest.mark.parametrize("seed", ["0", 1.5, None, True])
def test_a_wrong_seed_is_refused(seed: Any) -> None:
    with pytest.raises(TypeError, match="seed: expected an integer or a JAX key"):
        run(mixed()[0], seed=seed)


@pytest.mark.parametrize(("dim", "message"), [("noise_scale", "no parameters of LinearUnmixing"), ("parameter", "own")])
def test_dims_called_as_a_parameter_are_refused_before_a_fit(dim: str, message: str) -> None:
    image = xr.DataArray(np.random.default_rng(0).random((4, 4, 6)), dims=("y", "x", dim))
    with pytest.raises(ValueError, match=message):
        bu.fit(bu.models.LinearUnmixing(2), image, progress=False)


def test_fits_at_once_are_those_of_one_after_the_other() -> None:
    """Of shapes that are new, so that all threads make programs."""

    def fitted(channels: int) -> np.ndarray:
        rng = np.random.default_rng(channels)
        spectra = 0.2 + np.abs(np.sin(np.linspace(0.1, 3.0, channels) * np.array([[1.0], [2.3]])))
        image = rng.dirichlet(np.ones(2), (9, 9)) @ spectra + 0.05 * rng.normal(size=(9, 9, channels))
        found = bu.fit(bu.models.LinearUnmixing(2), image, progress=False)
        return np.append(found.posterior["endmembers"].values.ravel(), found.latent()["abundance"].values.ravel())

    shapes = (13, 17, 19)
    with ThreadPoolExecutor(len(shapes)) as pool:
        at_once = list(pool.map(fitted, shapes))
    for together, channels in zip(at_once, shapes, strict=True):
        np.testing.assert_allclose(together, fitted(channels), rtol=1e-6, atol=1e-8)


def test_a_seed_of_too_many_bits_is_refused() -> None:
    with pytest.raises(ValueError, match=r"seed: expected an integer from .* got 9223372036854775808"):
        run(mixed()[0], seed=2**63)


def test_maps_of_no_draws_are_refused(fit: bu.Fit) -> None:
    with pytest.raises(ValueError, match="draws: expected an integer of at least 1, got 0"):
        fit.latent(draws=0)


def test_one_draw_has_no_variance(fit: bu.Fit) -> None:
    one = replace(fit, posterior=fit.posterior.isel(chain=[0], draw=[0]))
    with pytest.raises(ValueError, match="fit: expected at least 2 draws"):
        bu.uncertainty(one)


def test_a_model_without_prior_scales_is_bound_once(fit: bu.Fit) -> None:
    """A bound model keeps its priors, whatever data it then meets."""
    again = run(2.0 * fit.data, fit.model)
    assert again.model is fit.model


# ---------------------------------------------------------------------- slow


def monte_carlo_error(draws: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of the mean of (chain, draw, ...), in sds, and of the sd, relative: of what moves slowest, should all move at
    once."""
    squares = (draws - draws.mean((0, 1))) ** 2
    of_mean, of_squares = map(numpyro.diagnostics.effective_sample_size, (draws, squares))
    assert min(of_mean.min(), of_squares.min()) > 100
    return of_mean**-0.5, 0.5 * squares.std((0, 1)) / squares.mean((0, 1)) / np.sqrt(of_squares)


@pytest.mark.slow
def test_nuts_on_the_textbook_program_and_on_the_marginal_agree(fit: bu.Fit) -> None:
    """Means and spreads of 33 globals within 4.5 joint standard errors (false alarm 5e-4), and those of the abundances,
    which move together, on average (1e-5 each)."""
    marginal = run(fit.data, method=bu.NUTS(draws=2000, warmup=500, chains=2))
    y = fit.data.values.reshape(-1, 16)
    with jax.enable_x64(True):
        # Endmember labels are free in the program: start where the marginal is.
        start = {name: jax.numpy.asarray(moments(marginal, name)[0]) for name in ("endmembers", "noise_scale")}
        kernel = numpyro.infer.NUTS(
            fit.model.joint,
            target_accept_prob=0.9,
            dense_mass=[("endmembers", "noise_scale")],
            init_strategy=numpyro.infer.init_to_value(values=start),
        )
        sampler = numpyro.infer.MCMC(kernel, num_warmup=1500, num_samples=20_000, progress_bar=False)
        sampler.run(jax.random.key(0), y, n_units=len(y))
        joint = {name: np.asarray(v)[None] for name, v in sampler.get_samples().items()}
    errors = []
    for name in ("endmembers", "noise_scale"):
        ours, theirs = marginal.posterior[name].values, joint[name]
        error, spread_error = np.hypot(monte_carlo_error(ours), monte_carlo_error(theirs))
        shift = (ours.mean((0, 1)) - theirs.mean((0, 1))) / theirs.std((0, 1))
        assert np.abs(shift / error).max() < 4.5
        assert np.abs(np.log(ours.std((0, 1)) / theirs.std((0, 1))) / spread_error).max() < 4.5
        errors.append(monte_carlo_error(ours))
    shares = joint["abundance"].reshape(1, -1, 8, 8, 2)
    latent = marginal.latent()["abundance"]
    shift = (latent.sel(statistic="mean").values - shares.mean((0, 1))) / shares.std((0, 1))
    ratio = latent.sel(statistic="sd").values / shares.std((0, 1))
    # What is given of the abundances has no error but that of the endmembers.
    error, spread_error = (
        np.hypot(own.mean(), its.mean()) for own, its in zip(errors[0], monte_carlo_error(shares), strict=True)
    )
    assert np.sqrt(np.mean(shift**2)) < 4.5 * error
    assert abs(np.log(np.mean(ratio))) < 4.5 * spread_error


def test_an_image_that_is_changed_behind_a_fit_is_not_taken_for_its_data(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it is too large to be copied."""
    monkeypatch.setattr("bayesunmix.data.units._SHARED_BYTES", 0)
    image, _ = mixed()
    fit = run(image)
    fit.latent()
    image.values[:] -= image.values.mean()
    for look in (fit.latent, lambda: bu.check(fit), lambda: bu.uncertainty(fit), lambda: bu.waic(fit)):
        with pytest.raises(ValueError, match="changed in place since"):
            look()
