"""Hidden Markov models side by side with hmmlearn and dynamax, and Gibbs beside NUTS.

    python benchmarks/hidden_markov.py likelihood      # needs hmmlearn and dynamax
    python benchmarks/hidden_markov.py samplers
    python benchmarks/hidden_markov.py short           # pooled posterior against averaged trajectories
    python benchmarks/hidden_markov.py calibration     # simulation-based calibration: 5 sequences of 30
    python benchmarks/hidden_markov.py trap            # optical-trap trace, number of states and dwell times

Likelihoods are timed on one thread, the contestants taking turns: the smallest wall time of many rounds.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1")

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

import bayesunmix as bu
from bayesunmix.distributions import emissions
from bayesunmix.distributions.hidden_markov import HiddenMarkov

ROUNDS = 60


def chain(rng: np.random.Generator, sequences: int, steps: int, transition: np.ndarray) -> np.ndarray:
    """Paths (sequence, time) that start anywhere."""
    path = np.zeros((sequences, steps), int)
    state = rng.integers(0, len(transition), sequences)
    for t in range(steps):
        path[:, t] = state
        state = (rng.random((sequences, 1)) > transition[state].cumsum(1)).sum(1)
    return path


def likelihood() -> None:
    """Log-likelihood of a batch and of one long chain, emissions included."""
    from dynamax.hidden_markov_model import hmm_filter
    from hmmlearn.hmm import GaussianHMM

    states = 4
    transition = 0.9 * np.eye(states) + 0.1 / states
    initial, means, scales = np.full(states, 1 / states), np.linspace(-2, 2, states), np.linspace(0.5, 1.2, states)
    for sequences, steps in ((100, 1000), (1, 100_000)):
        rng = np.random.default_rng(0)
        path = chain(rng, sequences, steps, transition)
        y = (means[path] + scales[path] * rng.normal(size=path.shape)).astype(np.float32).astype(np.float64)
        peer = GaussianHMM(states, covariance_type="diag", implementation="scaling")
        peer.startprob_, peer.transmat_, peer.means_ = initial, transition, means[:, None]
        peer.covars_ = scales[:, None] ** 2
        flat, lengths = y.reshape(-1, 1), [steps] * sequences
        contestants = {"hmmlearn (scaling)": lambda a=(peer, flat, lengths): a[0].score(*a[1:])}
        for name, dtype in (("float32", jnp.float32), ("float64", jnp.float64)):
            with jax.enable_x64(True):
                at = [jnp.asarray(v, dtype) for v in (initial, transition, means, scales, y)]

            @jax.jit
            def ours(initial, transition, means, scales, y, steps=steps):
                family = emissions.Normal(means[:, None], scales[:, None])
                return HiddenMarkov(initial, transition, (family,), (steps,)).log_prob(y).sum()

            @jax.jit
            def dynamax(initial, transition, means, scales, y):
                def one(y):
                    log_p = jax.scipy.stats.norm.logpdf(y[:, None], means, scales)
                    return hmm_filter(initial, transition, log_p).marginal_loglik

                return jax.vmap(one)(y).sum()

            def run(fn, at):
                with jax.enable_x64(True):
                    return float(fn(*at))

            contestants[f"bayesunmix {name}"] = lambda fn=ours, at=at: run(fn, at)
            contestants[f"dynamax {name}"] = lambda fn=dynamax, at=at: run(fn, at)
        found = {name: fn() for name, fn in contestants.items()}
        spent: dict[str, list[float]] = {name: [] for name in contestants}
        for _ in range(ROUNDS):
            for name, fn in contestants.items():
                start = time.perf_counter()
                fn()
                spent[name].append(time.perf_counter() - start)
        reference = found["hmmlearn (scaling)"]
        print(f"\n{sequences} x {steps} steps, {states} states: log-likelihood {reference:.3f}")
        for name, times in spent.items():
            ratio = min(spent["hmmlearn (scaling)"]) / min(times)
            error = found[name] - reference
            print(f"  {name:20s} {1e3 * min(times):8.2f} ms {ratio:5.2f} x hmmlearn, error {error:+.1e}")


def samplers() -> None:
    """Effective draws per second on one core, T = 1500, S = 3; warm-up is included, compilation is not."""
    from numpyro.diagnostics import effective_sample_size

    rng = np.random.default_rng(1)
    transition = np.array([[0.95, 0.04, 0.01], [0.03, 0.94, 0.03], [0.02, 0.04, 0.94]])
    path = chain(rng, 1, 1500, transition)
    y = np.array([-1.5, 0.0, 1.5])[path] + 0.5 * rng.normal(size=path.shape)
    methods = {
        "Gibbs": bu.Gibbs(draws=400, warmup=100, chains=4, most_thin=1),
        "NUTS": bu.NUTS(draws=400, warmup=200, chains=1),
    }
    rates = {}
    for name, method in methods.items():
        bu.fit(bu.models.HiddenMarkovModel(3), y, method, progress=False)  # compiles
        start = time.perf_counter()
        fit = bu.fit(bu.models.HiddenMarkovModel(3), y, method, progress=False, seed=1)
        spent = time.perf_counter() - start
        sizes = {str(n): effective_sample_size(v.values) for n, v in fit.posterior.data_vars.items()}
        worst, median = (
            min(s.min() for s in sizes.values()),
            np.median(np.concatenate([s.ravel() for s in sizes.values()])),
        )
        rates[name] = worst / spent
        print(f"{name:6s} {spent:6.1f} s, worst {worst:6.0f}, median {median:6.0f} effective draws: "
              f"{worst / spent:6.1f} and {median / spent:6.1f} a second; converged: {fit.converged}")  # fmt: skip
    print(f"Gibbs / NUTS, worst parameter, warm-up included: {rates['Gibbs'] / rates['NUTS']:.1f}")


def short(data_sets: int = 40) -> None:
    """Thirty trajectories of 3 frames and two of 60: coverage of the posterior, bias of averaged probabilities."""
    transition = np.array([[0.85, 0.12, 0.03], [0.1, 0.8, 0.1], [0.05, 0.25, 0.7]])
    covered, mean, averaged, pooled = [], [], [], []
    for seed in range(data_sets):
        rng = np.random.default_rng(seed)
        parts = [*chain(rng, 30, 3, transition).astype(float), *chain(rng, 2, 60, transition).astype(float)]
        fit = bu.fit(bu.models.MarkovChain(3), parts, bu.Gibbs(draws=500, warmup=1), progress=False, seed=seed)
        found = bu.transition_matrix(fit)
        covered.append((found.sel(statistic="lower") <= transition) & (transition <= found.sel(statistic="upper")))
        mean.append(found.sel(statistic="mean").values)
        single, counts = [], np.zeros((3, 3))
        for part in parts:
            own = np.zeros((3, 3))
            np.add.at(own, (part[:-1].astype(int), part[1:].astype(int)), 1)
            counts += own
            with np.errstate(invalid="ignore", divide="ignore"):
                single.append(own / own.sum(1, keepdims=True))
        averaged.append(np.nanmean(single, axis=0))
        pooled.append(counts / counts.sum(1, keepdims=True))
    share = np.mean(covered)
    print(f"{data_sets} data sets, 90 % intervals of 9 probabilities cover {share:.3f} "
          f"(standard error {np.std([np.mean(c) for c in covered]) / np.sqrt(data_sets):.3f})")  # fmt: skip
    for name, values in (("posterior mean", mean), ("pooled counts", pooled), ("averaged trajectories", averaged)):
        values = np.array(values)
        bias, error = values.mean(0) - transition, values.std(0) / np.sqrt(data_sets)
        print(f"  {name:22s} bias / standard error, largest: {np.abs(bias / error).max():5.1f}   "
              f"bias: {np.array2string(bias.ravel(), precision=3, suppress_small=True)}")  # fmt: skip


def calibration(data_sets: int = 100) -> None:
    """Ranks of the truth among posterior draws, 5 sequences of 30 frames; states are ordered or told apart."""
    like = np.zeros((5, 30))
    width = {"kind": "LogNormal", "loc": -0.7, "scale": 0.5}
    spread = {"means": {"kind": "Normal", "loc": 0.0, "scale": 2.0}, "scales": width}
    rates = {"rates": {"kind": "LogNormal", "loc": 1.0, "scale": 1.0}}
    for emission, priors in (("normal", spread), ("poisson", rates), ("categorical", None)):
        confusion = {"kind": "Dirichlet", "concentration": [[6, 2, 1], [1, 2, 6]]}
        more = {"n_symbols": 3, "priors": {"probabilities": confusion}}
        settings = {"priors": priors, "ordered": True} if priors else more
        model = bu.models.HiddenMarkovModel(2, emission, **settings).bind(like)
        draws, ranks = bu.Gibbs(draws=100, warmup=150, chains=2, most_thin=16), {}
        for seed in range(data_sets):
            data, truth = bu.simulate(model, like=like, seed=seed)
            fit = bu.fit(model, data.values, draws, progress=False, seed=1000 + seed)
            flat = fit.posterior.stack(sample=("chain", "draw")).transpose("sample", ...)
            rng = np.random.default_rng(seed)
            chosen = rng.choice(flat.sizes["sample"], 63, replace=False)
            for name in flat.data_vars:
                below = (flat[name].values[chosen] < truth[name].values).sum(0)
                for where, rank in np.ndenumerate(below):
                    ranks.setdefault((str(name), *where), []).append(rank)
        print(f"{emission}: {data_sets} data sets")
        for name, values in ranks.items():
            values = np.array(values)
            counts = np.bincount(values * 8 // 64, minlength=8)
            inside = np.mean((values >= 3) & (values < 61))
            print(f"  {'/'.join(map(str, name)):20s} uniform p {stats.chisquare(counts).pvalue:.3f}, "
                  f"90.6 % interval covers {inside:.3f}")  # fmt: skip


def trap(every: int = 50, frames: int = 2000) -> None:
    """Means of `every` consecutive 10 kHz samples of an optical-trap trace, the first `frames` of them."""
    folder = Path(os.environ.get("BAYESUNMIX_DATA", Path(__file__).parents[2] / "shared" / "data"))
    trace = np.load(folder / "optical_trap" / "mol3_8_ext_16.npz")["extension_nm"]
    import xarray as xr

    y = trace[: every * frames].reshape(-1, every).mean(1)
    step = every / 10.0
    data = xr.DataArray(y[None], {"time": ("time", step * np.arange(len(y)), {"units": "ms"})}, ("sequence", "time"))
    inner = y[1:] - y[:-1]
    alike = np.corrcoef(inner[1:], inner[:-1])[0, 1]
    print(f"{len(y)} frames of {step:g} ms, lag-1 correlation of differences {alike:.2f}")
    fits = {}
    for n_states in (2, 3, 4):
        model = bu.models.HiddenMarkovModel(n_states)
        start = time.perf_counter()
        fit = bu.fit(model, data, bu.NUTS(draws=500, warmup=400, chains=2), progress=False)
        fits[f"S={n_states}"] = fit
        check = bu.chapman_kolmogorov(fit, lags=(1, 2, 4, 8, 16), draws=50)
        print(f"\nS={n_states}: {time.perf_counter() - start:.0f} s, {fit.diagnostics.attrs['verdict']}")
        print("  means", fit.posterior["means"].mean(("chain", "draw")).values.round(2), "nm")
        for k, row in enumerate(bu.dwell_times(fit).values):
            print(f"  dwell {k}: {row[0]:.1f} ms, 90 % {row[2]:.1f} to {row[3]:.1f}")
        print(f"  Chapman-Kolmogorov: {check.attrs['outside']:.2f} of the entries beyond the 90 % band, "
              f"smallest p {float(check['p_value'].min()):.2f}")  # fmt: skip
    table = bu.compare(fits, n_blocks=20)
    print(table.to_string(), "\npreferred:", table.attrs["preferred"], table.attrs["verdict"])


if __name__ == "__main__":
    parts = {f.__name__: f for f in (likelihood, samplers, short, calibration, trap)}
    if len(sys.argv) < 2 or sys.argv[1] not in parts:
        raise SystemExit(__doc__)
    parts[sys.argv[1]](*map(int, sys.argv[2:]))
