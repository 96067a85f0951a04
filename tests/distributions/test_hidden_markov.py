"""The likelihood of a hidden chain against a sum over every path, and against hmmlearn."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from bayesunmix.distributions import emissions, forward
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

    scales = np.sqrt(np.diagonal(COVARIANCES, axis1=1, axis2=2))
    normal = emissions.Normal(a(MEANS), covariances=a(COVARIANCES))
    poisson, exponential = emissions.Poisson(a(RATES)), emissions.Exponential(a(RATES))
    categorical = emissions.Categorical(a(SYMBOLS))
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
        "soft": (
            (emissions.Categorical(a(SYMBOLS), soft=()),),
            soft,
            lambda n, t, k: np.log(soft[n, t] @ SYMBOLS[k]),
        ),
        "product": (
            (poisson, normal, categorical),
            np.concatenate([counts, gap, symbols], axis=-1),
            lambda n, t, k: count(n, t, k) + gappy(n, t, k) + symbol(n, t, k),
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


@pytest.mark.parametrize("log_form", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_density_and_paths_equal_enumeration(name: str, log_form: bool) -> None:
    families, y, density = cases()[name]
    fn, y = chain(families, y, log_form=log_form)
    found, posterior = fn.log_prob(y), fn.conditional(y)
    best, mean = np.asarray(posterior.viterbi()), np.asarray(posterior.mean)
    for n in range(2):
        expected, paths, weight = enumerated(density, n)
        assert float(found[n]) == pytest.approx(expected, abs=1e-9)
        share = np.array([[weight[paths[:, t] == k].sum() for k in range(STATES)] for t in range(STEPS)])
        np.testing.assert_allclose(mean[n], share, atol=1e-9)
        np.testing.assert_array_equal(best[n], paths[weight.argmax()])


def test_forbidden_transitions_are_exact_in_logarithms() -> None:
    """A frame 2000 nats less probable in the only state that can be reached."""
    transition = np.array([[0.9, 0.1, 0.0], [0.0, 1.0, 0.0], [0.2, 0.3, 0.5]])
    means = np.array([[0.0], [3.0], [90.0]])
    y = np.array([[[0.0], [0.1], [65.0], [3.0], [3.0], [3.1]]])
    fn = HiddenMarkov(a(INITIAL), a(transition), (emissions.Normal(a(means), scales=a(np.ones((3, 1)))),), (6,),
                      log_form=True)  # fmt: skip
    expected, _, _ = enumerated(lambda n, t, k: stats.norm(means[k, 0]).logpdf(y[n, t, 0]), 0, transition=transition)
    assert float(fn.log_prob(a(y[..., 0]))[0]) == pytest.approx(expected, rel=1e-12)


def test_paths_are_drawn_with_their_probability() -> None:
    families, y, density = cases()["missing"]
    fn, y = chain(families, y)
    draws = np.asarray(fn.conditional(y).sample(jax.random.key(0), (4000,))).argmax(-1)
    for n in range(2):
        _, paths, weight = enumerated(density, n)
        code = paths @ STATES ** np.arange(STEPS)
        seen = np.bincount(draws[:, n] @ STATES ** np.arange(STEPS), minlength=STATES**STEPS)[code]
        often = weight > 5 / 4000
        expected = np.append(weight[often], weight[~often].sum()) * 4000
        assert stats.chisquare(np.append(seen[often], seen[~often].sum()), expected).pvalue > 1e-3


def test_simulated_data_have_the_moments_of_the_distribution() -> None:
    families, y, _ = cases()["product"]
    fn, _ = chain(families, y)
    drawn, path = fn.expand((8000,)).sample_with_latent(jax.random.key(1))
    z = (np.asarray(drawn).mean(0) - np.asarray(fn.mean)) / np.sqrt(np.asarray(fn.variance) / 8000)
    assert np.abs(z).max() < 4.5
    moved = np.asarray(path).argmax(-1)
    counts = np.zeros((STATES, STATES))
    np.add.at(counts, (moved[:, :-1], moved[:, 1:]), 1)
    for k in range(STATES):
        assert stats.chisquare(counts[k], TRANSITION[k] * counts[k].sum()).pvalue > 1e-3


def test_blocks_of_a_chain_add_up_to_the_whole() -> None:
    families, y, density = cases()["missing"]
    fn, y = chain(families, y)
    blocks = np.asarray(fn.log_prob_blocks(y, 3))
    assert blocks.shape == (2, 3)
    np.testing.assert_allclose(blocks.sum(1), fn.log_prob(y), rtol=1e-12)
    whole = [np.nan_to_num(enumerated(density, n)[0]) for n in range(2)]
    np.testing.assert_allclose(blocks.sum(1), whole, rtol=1e-10)
    # The last block given the rest: what is left of the whole when its frames go missing.
    shorter = fn.log_prob(y.at[:, 4:].set(jnp.nan))
    np.testing.assert_allclose(blocks[:, 2], fn.log_prob(y) - shorter, rtol=1e-10)


def test_side_by_side_blocks_give_the_same_sum_and_slope() -> None:
    """4997 frames: some are left after the blocks, and after the last renormalisation inside them."""
    rng = np.random.default_rng(2)
    y, noise = a(rng.normal(size=(1, 4997))), a(rng.gamma(1.0, size=(1, 4997, 1, 1)))
    family = emissions.Normal(a(MEANS[:, :1]), scales=a(np.ones((3, 1))), noise=noise)
    whole = lambda A: HiddenMarkov(a(INITIAL), A, (family,), (4997,))  # noqa: E731
    plain = lambda A: forward.total(forward.log_steps(a(INITIAL), A, whole(A).frames(y)))[0]  # noqa: E731
    assert forward.blocks_that_pay(4997, STATES, 1) == 128
    found, slope = jax.jit(jax.value_and_grad(lambda A: whole(A).log_prob(y)[0]))(a(TRANSITION))
    expected, expected_slope = jax.jit(jax.value_and_grad(plain))(a(TRANSITION))
    assert float(found) == pytest.approx(float(expected), rel=1e-12)
    np.testing.assert_allclose(slope, expected_slope, rtol=1e-9)


def test_blocks_hold_improbable_hops() -> None:
    """A path forced through the rarest hops for eight frames in a row, between two renormalisations."""
    transition = np.array([[1.0 - 1e-30, 1e-30], [1e-30, 1.0 - 1e-30]])
    y = np.tile([0.0, 100.0], 2500)
    family = emissions.Normal(a([[0.0], [100.0]]), scales=a([[1.0], [1.0]]))
    fn = HiddenMarkov(a([0.5, 0.5]), a(transition), (family,), (5000,))
    expected = stats.norm(0, 1).logpdf(0) * 5000 + np.log(0.5) + 4999 * np.log(1e-30)
    assert float(fn.log_prob(a(y[None]))[0]) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("sequences", [1, 2])
def test_single_precision_keeps_a_twentieth_of_a_nat_at_1e5_steps(sequences: int) -> None:
    rng = np.random.default_rng(3)
    steps = 100_000 // sequences
    y = rng.normal(size=(sequences, steps))
    means, scales = np.linspace(-2, 2, STATES)[:, None], np.array([[1.0], [0.3], [2.0]])
    found = []
    for dtype in (jnp.float64, jnp.float32):
        family = emissions.Normal(jnp.asarray(means, dtype), scales=jnp.asarray(scales, dtype))
        fn = HiddenMarkov(jnp.asarray(INITIAL, dtype), jnp.asarray(TRANSITION, dtype), (family,), (steps,))
        # The same rounded numbers for both: the error is that of the sum, not of the data.
        value = fn.log_prob(jnp.asarray(y, jnp.float32).astype(dtype))
        assert value.dtype == dtype
        found.append(np.asarray(value, np.float64).sum())
    assert abs(found[1] - found[0]) < 0.05


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
    assert float(fn.log_prob(a(padded)).sum()) == pytest.approx(peer.score(y, lengths), abs=1e-6)
    posterior = fn.conditional(a(padded))
    probability, best = peer.predict_proba(y, lengths), peer.predict(y, lengths)
    np.testing.assert_allclose(posterior.mean[0, :40], probability[:40], atol=1e-6)
    np.testing.assert_allclose(posterior.mean[1], probability[40:], atol=1e-6)
    found = np.concatenate([np.asarray(posterior.viterbi())[0, :40], np.asarray(posterior.viterbi())[1]])
    np.testing.assert_array_equal(found, best)
