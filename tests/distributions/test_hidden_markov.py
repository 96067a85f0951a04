"""The likelihood of a hidden chain against a sum over every path, and against hmmlearn."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from bayesunmix.distributions import emissions, forward, paths
from bayesunmix.distributions.hidden_markov import HiddenMarkov

STATES, STEPS = 3, 6
INITIAL = np.array([0.5, 0.3, 0.2])
TRANSITION = np.array([[0.8, 0.15, 0.05], [0.1, 0.7, 0.2], [0.3, 0.1, 0.6]])
COVARIANCES = np.array([[[0.5, 0.2], [0.2, 0.4]], [[0.3, -0.1], [-0.1, 0.2]], [[1.0, 0.0], [0.0, 0.1]]])
MEANS = np.array([[-1.0, 0.0], [0.0, 1.0], [2.0, 0.5]])
RATES = np.array([0.7, 2.0, 5.0])
SYMBOLS = np.array([[0.7, 0.2, 0.1, 0.0], [0.1, 0.6, 0.2, 0.1], [0.05, 0.05, 0.1, 0.8]])


@pytest.fixture(autouse=True)
def double():
    with jax.enable_x64(True):
        yield


def a(value):
    return jnp.asarray(value, jnp.result_type(float))


def known(rng, n=2):
    root = rng.normal(size=(n, STEPS, 2, 2)) * 0.4
    return root @ np.swapaxes(root, -1, -2)


# Name: (families, data (2, STEPS, columns), density of a frame (sequence, time, state) by scipy).
def cases() -> dict:
    rng = np.random.default_rng(0)
    vectors, counts = rng.normal(size=(2, STEPS, 2)), rng.poisson(2.0, (2, STEPS, 1)).astype(float)
    waits, symbols = rng.exponential(1.0, (2, STEPS, 1)), rng.integers(0, 4, (2, STEPS, 1)).astype(float)
    soft, noise = rng.dirichlet(np.ones(4), (2, STEPS)), known(rng)
    gap = vectors.copy()
    gap[0, 2], gap[1, 3, 0] = np.nan, np.nan

    def full(n, t, k):
        return stats.multivariate_normal(MEANS[k], COVARIANCES[k]).logpdf(vectors[n, t])

    def noisy(n, t, k):
        return stats.multivariate_normal(MEANS[k], COVARIANCES[k] + noise[n, t]).logpdf(vectors[n, t])

    def gappy(n, t, k):
        seen = np.isfinite(gap[n, t])
        if not seen.any():
            return 0.0
        return stats.multivariate_normal(MEANS[k][seen], COVARIANCES[k][seen][:, seen]).logpdf(gap[n, t][seen])

    def wait(n, t, k):
        return stats.expon(scale=1.0 / RATES[k]).logpdf(waits[n, t, 0])

    def count(n, t, k):
        return stats.poisson(RATES[k]).logpmf(counts[n, t, 0])

    def symbol(n, t, k):
        return np.log(SYMBOLS[k][int(symbols[n, t, 0])] + 1e-300)

    def share(n, t, k):
        return np.log(soft[n, t] @ SYMBOLS[k])

    scales = np.sqrt(np.diagonal(COVARIANCES, axis1=1, axis2=2))
    normal = emissions.Normal(a(MEANS), covariances=a(COVARIANCES))
    poisson, exponential = emissions.Poisson(a(RATES)), emissions.Exponential(a(RATES))
    categorical, unsure = emissions.Categorical(a(SYMBOLS)), emissions.Categorical(a(SYMBOLS), soft=())
    return {
        "normal": ((normal,), vectors, full),
        "independent features": (
            (emissions.Normal(a(MEANS), scales=a(scales)),),
            vectors,
            lambda n, t, k: stats.norm(MEANS[k], scales[k]).logpdf(vectors[n, t]).sum(),
        ),
        "measurement noise": ((normal._replace(noise=a(noise)),), vectors, noisy),
        "missing": ((normal,), gap, gappy),
        "poisson": ((poisson,), counts, count),
        "exponential": ((exponential,), waits, wait),
        "categorical": ((categorical,), symbols, symbol),
        "soft": ((unsure,), soft, share),
        "product": (
            (poisson, normal, unsure, categorical),
            np.concatenate([counts, gap, soft, symbols], axis=-1),
            lambda n, t, k: count(n, t, k) + gappy(n, t, k) + share(n, t, k) + symbol(n, t, k),
        ),
    }


CASES = ("normal", "independent features", "measurement noise", "missing", "poisson", "exponential", "categorical",
         "soft", "product")  # fmt: skip


def enumerated(density, n, initial=INITIAL, transition=TRANSITION):
    """Log density of sequence n and weight of every path, by the sum over all of them."""
    frame = np.array([[density(n, t, k) for k in range(STATES)] for t in range(STEPS)])
    paths = np.array(list(itertools.product(range(STATES), repeat=STEPS)))
    with np.errstate(divide="ignore"):
        log_w = np.log(initial)[paths[:, 0]] + frame[0, paths[:, 0]]
        for t in range(1, STEPS):
            log_w = log_w + np.log(transition)[paths[:, t - 1], paths[:, t]] + frame[t, paths[:, t]]
    top = log_w.max()
    weight = np.exp(log_w - top)
    return top + np.log(weight.sum()), paths, weight / weight.sum()


def chain(families, y, **more):
    event = y.shape[1:] if y.shape[-1] > 1 else y.shape[1:2]
    return HiddenMarkov(a(INITIAL), a(TRANSITION), families, event, **more), a(y.reshape(len(y), *event))


@pytest.fixture(scope="module")
def answers() -> dict:
    """Density, smoothed probabilities and best path of two sequences of every case, in both forms of the recursion.

    The recursion runs once, over the frames of all cases side by side.
    """
    with jax.enable_x64(True):

        @jax.jit
        def everything():
            frames = []
            for name in CASES:
                families, y, _ = cases()[name]
                fn, y = chain(families, y)
                frames.append(fn.frames(y))
            frames = jnp.concatenate(frames, axis=-1)
            initial, transition = a(INITIAL), a(TRANSITION)
            found = {}
            for log_form in (False, True):
                density = forward.log_likelihood(initial, transition, frames, log_form=log_form)
                filter_ = paths.filtered(initial, transition, frames, log_form=log_form)
                found[log_form] = density, paths.smoothed(transition, filter_)
            return found, paths.most_probable_path(initial, transition, frames)

        return jax.tree.map(np.asarray, everything())


@pytest.mark.parametrize("name", CASES)
def test_density_and_paths_equal_enumeration(name: str, answers) -> None:
    by_form, best = answers
    _, _, density = cases()[name]
    for n in range(2):
        expected, all_paths, weight = enumerated(density, n)
        lane = 2 * CASES.index(name) + n
        share = np.array([[weight[all_paths[:, t] == k].sum() for k in range(STATES)] for t in range(STEPS)])
        for found, mean in by_form.values():
            assert found[lane] == pytest.approx(expected, abs=1e-9)
            np.testing.assert_allclose(mean[..., lane], share, atol=1e-9)
        np.testing.assert_array_equal(best[:, lane], all_paths[weight.argmax()])


@pytest.fixture(scope="module")
def gappy() -> dict:
    """What the distribution says of sequences with missing frames and features."""
    with jax.enable_x64(True):
        families, y, _ = cases()["missing"]
        fn, y = chain(families, y)

        @jax.jit
        def everything(y):
            posterior = fn.conditional(y)
            return {
                "density": fn.log_prob(y),
                "shorter": fn.log_prob(y.at[:, 4:].set(jnp.nan)),
                "blocks": fn.log_prob_blocks(y, 3),
                "mean": posterior.mean,
                "best": posterior.viterbi(),
                "draws": posterior.sample(jax.random.key(0), (4000,)).argmax(-1),
            }

        return jax.tree.map(np.asarray, everything(y))


def test_paths_are_drawn_with_their_probability(gappy) -> None:
    _, _, density = cases()["missing"]
    for n in range(2):
        _, all_paths, weight = enumerated(density, n)
        code = all_paths @ STATES ** np.arange(STEPS)
        seen = np.bincount(gappy["draws"][:, n] @ STATES ** np.arange(STEPS), minlength=STATES**STEPS)[code]
        often = weight > 5 / 4000
        expected = np.append(weight[often], weight[~often].sum()) * 4000
        assert stats.chisquare(np.append(seen[often], seen[~often].sum()), expected).pvalue > 1e-3


def test_blocks_of_a_chain_add_up_to_the_whole(gappy, answers) -> None:
    blocks = gappy["blocks"]
    assert blocks.shape == (2, 3)
    np.testing.assert_allclose(blocks.sum(1), gappy["density"], rtol=1e-12)
    # The distribution hands over what the recursion finds.
    lane = 2 * CASES.index("missing")
    (density, mean), best = answers[0][False], answers[1]
    np.testing.assert_allclose(gappy["density"], density[lane : lane + 2], rtol=1e-12)
    np.testing.assert_allclose(gappy["mean"], np.transpose(mean, (2, 0, 1))[lane : lane + 2], rtol=1e-9)
    np.testing.assert_array_equal(gappy["best"], best.T[lane : lane + 2])
    # The last block given the rest: what is left of the whole when its frames go missing.
    np.testing.assert_allclose(blocks[:, 2], gappy["density"] - gappy["shorter"], rtol=1e-10)


def test_forbidden_transitions_are_exact_in_logarithms() -> None:
    """A frame 2000 nats less probable in the only state that can be reached."""
    transition = np.array([[0.9, 0.1, 0.0], [0.0, 1.0, 0.0], [0.2, 0.3, 0.5]])
    means = np.array([[0.0], [3.0], [90.0]])
    y = np.array([[[0.0], [0.1], [65.0], [3.0], [3.0], [3.1]]])
    fn = HiddenMarkov(a(INITIAL), a(transition), (emissions.Normal(a(means), scales=a(np.ones((3, 1)))),), (6,),
                      log_form=True)  # fmt: skip
    expected, _, _ = enumerated(lambda n, t, k: stats.norm(means[k, 0]).logpdf(y[n, t, 0]), 0, transition=transition)
    assert float(jax.jit(fn.log_prob)(a(y[..., 0]))[0]) == pytest.approx(expected, rel=1e-12)


def test_simulated_data_have_the_moments_of_the_distribution() -> None:
    families, y, _ = cases()["product"]
    fn, _ = chain(families, y)
    simulate = jax.jit(lambda key: (fn.expand((8000,)).sample_with_latent(key), fn.mean, fn.variance))
    (drawn, path), mean, variance = jax.tree.map(np.asarray, simulate(jax.random.key(1)))
    z = (drawn.mean(0) - mean) / np.sqrt(variance / 8000)
    assert np.abs(z).max() < 4.5
    moved = path.argmax(-1)
    counts = np.zeros((STATES, STATES))
    np.add.at(counts, (moved[:, :-1], moved[:, 1:]), 1)
    for k in range(STATES):
        assert stats.chisquare(counts[k], TRANSITION[k] * counts[k].sum()).pvalue > 1e-3


def test_side_by_side_blocks_give_the_same_sum_and_slope() -> None:
    """4997 frames: some are left after the blocks, and after the last renormalisation inside them."""
    rng = np.random.default_rng(2)
    y, noise = a(rng.normal(size=(1, 4997))), a(rng.gamma(1.0, size=(1, 4997, 1, 1)))
    family = emissions.Normal(a(MEANS[:, :1]), scales=a(np.ones((3, 1))), noise=noise)
    whole = lambda A: HiddenMarkov(a(INITIAL), A, (family,), (4997,))  # noqa: E731
    plain = lambda A: forward.total(forward.log_steps(a(INITIAL), A, whole(A).frames(y)))[0]  # noqa: E731
    assert forward.blocks_that_pay(4997, STATES, 1) == 128
    in_blocks = jax.value_and_grad(lambda A: whole(A).log_prob(y)[0])
    both = jax.jit(lambda A: (in_blocks(A), jax.value_and_grad(plain)(A)))
    (found, slope), (expected, expected_slope) = both(a(TRANSITION))
    assert float(found) == pytest.approx(float(expected), rel=1e-12)
    # Rows add to one, so only what differs within a row is a slope.
    along = [np.asarray(s) - np.mean(s, axis=1, keepdims=True) for s in (slope, expected_slope)]
    np.testing.assert_allclose(*along, rtol=1e-9)


def test_blocks_hold_improbable_hops() -> None:
    """A path forced through the rarest hops for eight frames in a row, between two renormalisations."""
    transition = np.array([[1.0 - 1e-30, 1e-30], [1e-30, 1.0 - 1e-30]])
    y = np.tile([0.0, 100.0], 2500)
    family = emissions.Normal(a([[0.0], [100.0]]), scales=a([[1.0], [1.0]]))
    fn = HiddenMarkov(a([0.5, 0.5]), a(transition), (family,), (5000,))
    expected = stats.norm(0, 1).logpdf(0) * 5000 + np.log(0.5) + 4999 * np.log(1e-30)
    found = jax.jit(lambda y: (fn.log_prob(y[None])[0], fn.log_prob(y[:4000].reshape(2, 2000))))(a(y))
    assert float(found[0]) == pytest.approx(expected, rel=1e-10)
    expected = stats.norm(0, 1).logpdf(0) * 2000 + np.log(0.5) + 1999 * np.log(1e-30)
    np.testing.assert_allclose(found[1], expected, rtol=1e-10)


def test_single_precision_keeps_a_twentieth_of_a_nat_at_1e5_steps() -> None:
    """One chain, in blocks, and two of half the length."""
    rng = np.random.default_rng(3)
    y = rng.normal(size=100_000)
    means, scales = np.linspace(-2, 2, STATES)[:, None], np.array([[1.0], [0.3], [2.0]])

    @jax.jit
    def density(initial, transition, means, scales, y):
        family = emissions.Normal(means, scales=scales)
        shapes = ((1, 100_000), (30, 3333))
        return [
            HiddenMarkov(initial, transition, (family,), s[1:]).log_prob(y[: s[0] * s[1]].reshape(s)) for s in shapes
        ]

    found = []
    for dtype in (jnp.float64, jnp.float32):
        # The same rounded numbers for both: the error is that of the sum, not of the data.
        rounded = [jnp.asarray(v, dtype) for v in (INITIAL, TRANSITION, means, scales, jnp.asarray(y, jnp.float32))]
        values = density(*rounded)
        assert all(value.dtype == dtype for value in values)
        found.append([np.asarray(value, np.float64).sum() for value in values])
    assert np.abs(np.subtract(*found)).max() < 0.05


def test_it_equals_hmmlearn() -> None:
    hmm = pytest.importorskip("hmmlearn.hmm")
    rng = np.random.default_rng(4)
    y, lengths = rng.normal(size=(120, 2)), [40, 80]
    peer = hmm.GaussianHMM(STATES, covariance_type="full")
    peer.startprob_, peer.transmat_, peer.means_, peer.covars_ = INITIAL, TRANSITION, MEANS, COVARIANCES
    family = emissions.Normal(a(MEANS), covariances=a(COVARIANCES))
    padded = np.full((2, 80, 2), np.nan)
    padded[0, :40], padded[1] = y[:40], y[40:]
    fn = HiddenMarkov(a(INITIAL), a(TRANSITION), (family,), (80, 2))

    @jax.jit
    def everything(y):
        posterior = fn.conditional(y)
        return fn.log_prob(y).sum(), posterior.mean, posterior.viterbi()

    density, mean, path = everything(a(padded))
    assert float(density) == pytest.approx(peer.score(y, lengths), abs=1e-6)
    probability, best = peer.predict_proba(y, lengths), peer.predict(y, lengths)
    np.testing.assert_allclose(mean[0, :40], probability[:40], atol=1e-6)
    np.testing.assert_allclose(mean[1], probability[40:], atol=1e-6)
    np.testing.assert_array_equal(np.concatenate([path[0, :40], path[1]]), best)
