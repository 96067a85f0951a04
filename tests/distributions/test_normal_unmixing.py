"""NormalUnmixing as a NumPyro distribution: derivatives, shapes, precision, points.

Everything goes through a few compiled functions on shapes that the tests share: compiling is what takes time.
"""

from __future__ import annotations

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pytest
from five_channels import CHANNELS, FEW, MANY, Parameters, draw, make_rule, parameters
from numpyro import handlers

from bayesunmix.distributions.unmixing import NormalUnmixing
from bayesunmix.distributions.unmixing_rule import Rule

# Integration error of a unit, nats rms: what test_simplex_integral allows.
ERROR = 0.2
SINGLE = 4e-6  # rounding of sums over points, which are in single precision


@jax.jit
def log_prob(own: Parameters, y: jax.Array) -> jax.Array:
    return NormalUnmixing(**own).log_prob(y)


@jax.jit
def log_prob_on(own: Parameters, rule: Any) -> jax.Array:
    return NormalUnmixing(**own).log_prob_on(rule)


def test_gradient_of_log_density_is_its_slope() -> None:
    """Central differences on a frozen rule of a uniform prior, whose points move with the parameters."""
    own = parameters(3, "diagonal")
    y, _ = draw(own, FEW)
    own = {**own, "concentration": None}
    rule = make_rule(own, y, jax.random.key(0), jnp.arange(FEW))
    value_and_slope = jax.jit(jax.value_and_grad(lambda p: log_prob_on(p, rule).sum()))
    _, gradient = value_and_slope(own)
    rng = np.random.default_rng(3)
    for name in ("endmembers", "noise_scale"):
        for _ in range(3):
            # Points are in single precision, which leaves 1e-6 of noise in the value: a wide step.
            step = 1e-3 * jnp.asarray(rng.normal(size=own[name].shape))
            ahead, behind = ({**own, name: own[name] + sign * step} for sign in (1, -1))
            rise = (value_and_slope(ahead)[0] - value_and_slope(behind)[0]) / 2
            size = float(jnp.abs(gradient[name] * step).sum())
            np.testing.assert_allclose(rise, (gradient[name] * step).sum(), atol=3e-4 * size + 1e-5)


@pytest.mark.parametrize(("n_parts", "noise"), [(1, "isotropic"), (2, "diagonal"), (3, "isotropic")])
def test_curvature_is_the_hessian_of_the_log_density_on_the_rule(n_parts: int, noise: str) -> None:
    """Moments of the points against derivatives through them: equal up to integration error, over sets of points."""
    own = parameters(n_parts, noise)
    y, _ = draw(own, FEW)
    own = {**own, "concentration": None}
    # Away from where the rule was made, so that terms that vanish there are seen too.
    moved = jax.tree.map(lambda v: 1.01 * v, own)

    @jax.jit
    def both(p: Parameters, key: jax.Array) -> Any:
        rule = NormalUnmixing(**own, n_points=512).rule(y, key, jnp.arange(FEW))

        def total(p: Parameters) -> jax.Array:
            return NormalUnmixing(**p).log_prob_on(rule).sum()

        return NormalUnmixing(**p).curvature_on(rule)[:2], (jax.grad(total)(p), jax.hessian(total)(p))

    found = [both(moved, key) for key in jax.random.split(jax.random.key(0), 8)]
    for row in ("endmembers", "noise_scale"):
        agrees([f[0][0][row] for f in found], [f[1][0][row] for f in found])
        for column in ("endmembers", "noise_scale"):
            agrees([f[0][1][row][column] for f in found], [f[1][1][row][column] for f in found])


@jax.jit
def nearby(own: Parameters, y: jax.Array, step: Parameters, key: jax.Array) -> Any:
    """Density, slope and curvature a step from where the rule was made."""
    rule = NormalUnmixing(**own, n_points=1024).rule(y, key, jnp.arange(FEW))
    here = NormalUnmixing(**jax.tree.map(jnp.add, own, step))
    return here.log_prob_on(rule).sum(), *here.curvature_on(rule)[:2]


@pytest.mark.parametrize("concentration", [0.4, 3.0])
def test_curvature_with_a_concentration(concentration: float) -> None:
    """Along random directions, of all parameters together and of each: differences of the value, and of the slope."""
    own = {**parameters(3, "diagonal"), "concentration": jnp.asarray([concentration, 1.2, 1.0])}
    y, _ = draw(own, FEW)
    rng = np.random.default_rng(0)
    directions = [
        {name: 0.005 * v * rng.normal(size=v.shape) * (moved in (name, "all")) for name, v in own.items()}
        for moved in ("all", *own)
    ]

    inner = lambda a, b: sum(float((a[name] * b[name]).sum()) for name in own)  # noqa: E731
    for step in directions:
        got, expected = [], []
        for key in jax.random.split(jax.random.key(0), 8):
            behind, (_, slope, bend), ahead = (
                nearby(own, y, jax.tree.map(lambda v, far=far: far * v, step), key) for far in (-1.0, 0.0, 1.0)
            )
            along = {
                row: sum(np.tensordot(bend[row][column], step[column], step[column].ndim) for column in own)
                for row in own
            }
            got.append([inner(slope, step), inner(along, step)])
            rise = inner(ahead[1], step) - inner(behind[1], step)
            expected.append([0.5 * float(ahead[0] - behind[0]), 0.5 * rise])
        difference = np.asarray(got) - np.asarray(expected)
        error = difference.std(0, ddof=1) / np.sqrt(len(difference))
        # The third derivative, which a central difference leaves in, is far below 1 % at steps of 0.5 %.
        assert (np.abs(difference.mean(0)) <= 6 * error + 0.01 * np.abs(expected).max(0)).all()
        assert (error <= 0.05 * np.abs(expected).max(0)).all()


def agrees(got: list[jax.Array], expected: list[jax.Array]) -> None:
    difference = np.asarray(got) - np.asarray(expected)
    error = difference.std(0, ddof=1) / np.sqrt(len(difference))
    # With 7 degrees of freedom 7.1 errors are passed once in 5000 entries; the blocks have about 600.
    limit = 9 * error + 2e-5 * np.abs(expected).max() + 1e-12
    assert (np.abs(difference.mean(0)) <= limit).all(), (difference.mean(0), limit)
    assert error.max() <= 0.02 * np.abs(expected).max() + 1e-12


def test_expected_score_is_zero() -> None:
    """E grad log p(y) = 0 over y drawn from the distribution itself: what is drawn is what is scored.

    14 components over 3000 units at each concentration, each within 4.5 standard errors: false alarm 3e-4. At .02 what
    the first parts leave underflows in single precision.
    """
    own = parameters(2, "diagonal")
    score = jax.grad(lambda p, unit: NormalUnmixing(**p).log_prob(unit[None])[0])
    scores = jax.jit(jax.vmap(score, in_axes=(None, 0)))
    for concentration in (own["concentration"], jnp.array([0.3, 0.1]), jnp.array([0.05, 0.02])):
        own["concentration"] = concentration
        y, _ = draw(own, 3000)
        for found in scores(own, y).values():
            flat = np.asarray(found).reshape(len(y), -1)
            z = flat.mean(0) / (flat.std(0) / np.sqrt(len(y)))
            assert np.abs(z).max() < 4.5


def test_tiny_concentrations_give_finite_slopes() -> None:
    own = {**parameters(3, "isotropic"), "concentration": jnp.full(3, 0.02)}
    y, _ = draw(own, MANY)
    rule = make_rule(own, y, jax.random.key(0), jnp.arange(MANY))
    value, slope = jax.jit(jax.value_and_grad(lambda p, rule: log_prob_on(p, rule).sum()))(own, rule)
    assert np.isfinite(value)
    assert all(np.isfinite(s).all() for s in slope.values())


def test_float32_sees_small_differences_of_a_large_signal() -> None:
    """A signal of a thousand with noise of one: NUTS needs differences of the log density to a tenth of a nat."""
    limit = 0.1
    rng = np.random.default_rng(0)
    # Numbers that both precisions hold exactly.
    endmembers = np.round(128 * (1e3 + 5.0 * rng.normal(size=(3, CHANNELS)))) / 128
    own = {
        "endmembers": jnp.asarray(endmembers),
        "concentration": jnp.ones(3),
        "noise_scale": jnp.asarray(1.0),
    }
    y, abundance = draw(own, MANY)
    rule = make_rule(own, y, jax.random.key(0), jnp.arange(MANY))
    moves = rng.integers(-3, 4, (20, *endmembers.shape)) / 128

    def differences(dtype: Any) -> np.ndarray:
        frame, base = jax.tree.map(
            lambda x: jnp.asarray(x, dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x, (rule.frame, own)
        )
        frozen = Rule.of(frame, jnp.asarray(y, dtype), base["endmembers"])
        at = lambda w: log_prob_on({**base, "endmembers": jnp.asarray(w, dtype)}, frozen).sum()  # noqa: E731
        return np.array([at(endmembers + m) - at(endmembers) for m in moves], dtype=np.float64)

    double = differences(jnp.float64)
    assert np.abs(double).max() > 1.0
    assert np.abs(differences(jnp.float32) - double).max() < limit

    def uncentred(w: np.ndarray, dtype: Any) -> float:
        data, parts, spectra = (np.asarray(v, dtype) for v in (y, abundance, w))
        linear, gram = data @ spectra.T, spectra @ spectra.T
        return float(((parts * linear).sum() - 0.5 * ((parts @ gram) * parts).sum()).astype(dtype))

    naive = [[uncentred(endmembers + m, t) - uncentred(endmembers, t) for m in moves] for t in (np.float32, np.float64)]
    assert np.abs(np.subtract(*naive)).max() > limit


def test_whole_likelihood_in_float32() -> None:
    own = parameters(3, "isotropic")
    y, _ = draw(own, MANY)
    double = np.asarray(log_prob(own, y))
    with jax.enable_x64(False):
        low = {name: jnp.asarray(np.asarray(v), jnp.float32) for name, v in own.items()}
        single = np.asarray(log_prob(low, jnp.asarray(np.asarray(y), jnp.float32)))
    assert single.dtype == np.float32
    # The points differ with the precision, so that a unit agrees within its integration error only; 4.5 errors.
    assert abs(np.mean(single - double)) < 4.5 * ERROR * np.sqrt(2 / MANY)


def test_vmap_over_globals() -> None:
    own = parameters(2, "isotropic")
    y, _ = draw(own, FEW)
    stack = jax.tree.map(lambda v: jnp.stack([v, 1.1 * v, 0.9 * v]), own)
    batched = jax.jit(jax.vmap(log_prob, in_axes=(0, None)))(stack, y)
    assert batched.shape == (3, FEW)
    for i, row in enumerate(batched):
        alone = log_prob(jax.tree.map(lambda v, i=i: v[i], stack), y)
        np.testing.assert_allclose(row, alone, rtol=SINGLE, atol=SINGLE)


def test_value_may_have_any_leading_axes() -> None:
    own = parameters(2, "isotropic")
    y, _ = draw(own, FEW)
    shaped = jax.jit(lambda v: NormalUnmixing(**own).log_prob(v))(y.reshape(2, 3, CHANNELS))
    np.testing.assert_allclose(shaped.reshape(-1), log_prob(own, y), rtol=SINGLE, atol=SINGLE)


def test_it_is_a_pytree() -> None:
    distribution = NormalUnmixing(**parameters(2, "diagonal"), n_points=32).expand((4,))
    leaves, tree = jax.tree.flatten(distribution)
    back = jax.tree.unflatten(tree, leaves)
    assert (back.n_points, back.batch_shape, back.event_shape) == (32, (4,), (CHANNELS,))
    np.testing.assert_array_equal(back.endmembers, distribution.endmembers)


def test_shapes_in_a_plate_and_expanded() -> None:
    plain = NormalUnmixing(**parameters(3, "isotropic"))
    wide = plain.expand((FEW,))
    assert (wide.batch_shape, wide.event_shape) == ((FEW,), (CHANNELS,))
    assert wide.sample(jax.random.key(0), (2,)).shape == (2, FEW, CHANNELS)
    assert wide.mean.shape == wide.variance.shape == (FEW, CHANNELS)
    y, abundance = wide.sample_with_latent(jax.random.key(0), (2,))
    assert (y.shape, abundance.shape) == ((2, FEW, CHANNELS), (2, FEW, 3))
    assert wide.emission(abundance).batch_shape == (2, FEW)

    def model() -> None:
        with numpyro.plate("unit", FEW):
            numpyro.sample("y", plain)

    site = handlers.trace(handlers.seed(model, 0)).get_trace()["y"]
    assert site["value"].shape == (FEW, CHANNELS)
    assert jax.eval_shape(site["fn"].log_prob, site["value"]).shape == (FEW,)


def test_a_unit_has_the_same_points_in_any_batch() -> None:
    own = parameters(3, "isotropic")
    y, _ = draw(own, MANY)
    key = jax.random.key(7)
    order = jnp.flip(jnp.arange(MANY))
    straight = log_prob_on(own, make_rule(own, y, key, jnp.arange(MANY)))
    flipped = log_prob_on(own, make_rule(own, y[order], key, order))
    np.testing.assert_allclose(flipped[order], straight, rtol=SINGLE, atol=SINGLE)


def test_redrawn_points_are_fresh_and_as_good() -> None:
    own = parameters(3, "isotropic")
    y, _ = draw(own, MANY)
    rule = make_rule(own, y, jax.random.key(0), jnp.arange(MANY))
    again = jax.jit(NormalUnmixing.redraw)(rule, jax.random.key(1), jnp.arange(MANY))
    assert again.frame.shift.shape == rule.frame.shift.shape
    assert not np.allclose(again.frame.shift, rule.frame.shift)
    difference = np.asarray(log_prob_on(own, again) - log_prob_on(own, rule))
    assert 0 < np.sqrt(np.mean(difference**2)) < ERROR * np.sqrt(2)


def test_mean_and_variance_are_those_of_the_draws() -> None:
    """20000 draws; 10 moments within 4.5 standard errors: false alarm 7e-5."""
    distribution = NormalUnmixing(**parameters(3, "diagonal"))
    y = np.asarray(distribution.sample(jax.random.key(4), (20000,)))
    mean = np.asarray(distribution.mean)
    for term, expected in ((y, mean), ((y - mean) ** 2, np.asarray(distribution.variance))):
        assert np.abs((term.mean(0) - expected) / (term.std(0) / np.sqrt(len(term)))).max() < 4.5


@pytest.mark.parametrize("noise", ["isotropic", "diagonal"])
def test_a_slope_writes_out_nothing_of_the_size_of_the_data(noise: str) -> None:
    """An array that large is new memory in every call."""
    n_units, n_channels = 128, 4096
    scale = jnp.full(() if noise == "isotropic" else (n_channels,), 0.1)
    endmembers = jnp.asarray(np.random.default_rng(0).gamma(2.0, 0.5, (2, n_channels)))

    def density(endmembers: jax.Array, scale: jax.Array, rule: Any) -> jax.Array:
        return NormalUnmixing(endmembers, None, scale).log_prob_on(rule).sum()

    y = jnp.zeros((n_units, n_channels))
    rule = NormalUnmixing(endmembers, None, scale).rule(y, jax.random.key(0), jnp.arange(n_units))
    slope = jax.jit(jax.grad(density, argnums=(0, 1))).lower(endmembers, scale, rule).compile()
    assert slope.memory_analysis().temp_size_in_bytes < y.nbytes / 2


def test_units_far_from_the_faces_need_no_points() -> None:
    """Closed forms agree with points on all units: value, slope, curvature, and moments of the abundances."""
    rng = np.random.default_rng(3)
    with jax.enable_x64(True):
        spectra = jnp.asarray(rng.uniform(0.2, 1.0, (4, 12)) + 2 * np.eye(4, 12))
        shares = rng.dirichlet(np.ones(4), 160)
        shares[:8] = np.eye(4)[np.arange(8) % 4]  # at corners
        noise = 0.02
        value = jnp.asarray(shares @ spectra + noise * rng.normal(size=(160, 12)))

        @jax.jit
        def found(near):
            fn = NormalUnmixing(spectra, None, noise)
            rule = fn.rule(value, jax.random.key(0), jnp.arange(160))
            rule = rule._replace(frame=rule.frame._replace(near=jnp.maximum(rule.frame.near, near)))
            latent = fn.conditional_on(rule)

            def total(e):
                each = NormalUnmixing(e, None, noise).log_prob_on(rule)
                return each.sum(), each

            slope, each = jax.grad(total, has_aux=True)(spectra)
            return rule.frame.near, each, slope, latent.mean, latent.variance

        near, *closed = found(0)
        _, *by_points = found(4)
    kinds = np.bincount(np.asarray(near).astype(int), minlength=4)
    assert (kinds[:3] >= 10).all()
    for mine, theirs in zip(closed[:2], by_points[:2], strict=True):
        np.testing.assert_allclose(mine, theirs, atol=2e-6 * np.abs(theirs).max())
    # The same points, by way of another quantile function in single precision.
    for mine, theirs in zip(closed[2:], by_points[2:], strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-4 * np.abs(theirs).max())


def test_curvature_at_one_face_is_what_points_tend_to() -> None:
    rng = np.random.default_rng(3)
    with jax.enable_x64(True):
        spectra = jnp.asarray(rng.uniform(0.2, 1.0, (3, 6)) + 2 * np.eye(3, 6))
        shares = rng.dirichlet(np.ones(3), 300)
        value = jnp.asarray(shares @ spectra + 0.02 * rng.normal(size=(300, 6)))
        fn = NormalUnmixing(spectra, None, 0.02)
        near = fn.rule(value, jax.random.key(0), jnp.arange(300)).frame.near
        value = value[np.asarray(near) <= 1][:200]

        @jax.jit
        def curved(near, key):
            rule = fn.rule(value, key, jnp.arange(200), n_points=512)
            rule = rule._replace(frame=rule.frame._replace(near=jnp.maximum(rule.frame.near, near)))
            return jnp.concatenate([x.ravel() for x in jax.tree_util.tree_leaves(fn.curvature_on(rule)[:2])])

        keys = jax.random.split(jax.random.key(1), 24)
        closed = np.asarray(curved(0, keys[0]))
        by_points = np.array([curved(2, key) for key in keys])
    assert (np.asarray(near) == 1).sum() > 20
    # Up to rounding in single precision. Of t with 23 degrees of freedom, one in 400 numbers in 500 runs.
    error = np.hypot(by_points.std(0, ddof=1) / np.sqrt(len(keys)), 2e-6 * np.abs(closed).max())
    assert np.abs((by_points.mean(0) - closed) / error).max() < 6.0


def constrained_least_squares(spectra: np.ndarray, pixel: np.ndarray) -> np.ndarray:
    """Best mixture with non-negative weights that sum to one: the best of all faces of the simplex that holds one."""
    n, best = len(spectra), (np.inf, np.zeros(0))
    for size in range(1, n + 1):
        for face in itertools.combinations(range(n), size):
            own = spectra[list(face)]
            edges = own[1:] - own[0]
            along = np.linalg.lstsq(edges.T, pixel - own[0], rcond=None)[0] if size > 1 else np.zeros(0)
            weights = np.zeros(n)
            weights[list(face)] = [1.0 - along.sum(), *along]
            if weights.min() >= 0:
                best = min(best, (float(((pixel - weights @ spectra) ** 2).sum()), weights), key=lambda x: x[0])
    return best[1]


def test_without_noise_the_mean_is_constrained_least_squares() -> None:
    """Of pixels inside the simplex, beyond its faces, its edges and its corners; to 1e-6 in float64."""
    rng = np.random.default_rng(11)
    spectra = rng.uniform(0.2, 1.0, (4, 12)) + 2 * np.eye(4, 12)
    pixels = rng.dirichlet(np.full(4, 0.7), 200) @ spectra + 0.2 * rng.normal(size=(200, 12))
    pixels[:4] = 1.5 * spectra - 0.5 * spectra.mean(0)
    expected = np.array([constrained_least_squares(spectra, pixel) for pixel in pixels])
    with jax.enable_x64(True):
        y, at = jnp.asarray(pixels), jnp.asarray(spectra)
        mean = jax.jit(lambda noise: NormalUnmixing(at, None, noise).conditional(y).mean)(1e-7)
    assert set((expected > 0).sum(1)) == {1, 2, 3, 4}
    np.testing.assert_allclose(mean, expected, rtol=0, atol=1e-6)
