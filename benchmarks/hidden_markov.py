"""Hidden Markov models side by side with hmmlearn and dynamax, and Gibbs beside NUTS.

    python benchmarks/hidden_markov.py likelihood      # needs hmmlearn and dynamax
    python benchmarks/hidden_markov.py samplers
    python benchmarks/hidden_markov.py short           # pooled posterior against averaged trajectories
    python benchmarks/hidden_markov.py calibration     # simulation-based calibration: 5 sequences of 30
    python benchmarks/hidden_markov.py trap            # optical-trap trace, number of states and dwell times

Likelihoods are timed on one thread, the contestants taking turns: the smallest wall time of many rounds, and their
mean time of the processor. Every part writes its table to benchmarks/results/.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1")

import jax
import jax.numpy as jnp
import numpy as np
from numpyro.diagnostics import effective_sample_size
from scipy import stats

import bayesunmix as bu
from bayesunmix.distributions import emissions
from bayesunmix.distributions.hidden_markov import HiddenMarkov
from bayesunmix.models import _hidden_markov_gibbs

ROUNDS = 200


def chain(rng: np.random.Generator, sequences: int, steps: int, transition: np.ndarray) -> np.ndarray:
    """Paths (sequence, time) that start anywhere."""
    path = np.zeros((sequences, steps), int)
    state = rng.integers(0, len(transition), sequences)
    for t in range(steps):
        path[:, t] = state
        state = (rng.random((sequences, 1)) > transition[state].cumsum(1)).sum(1)
    return path


class Chains(NamedTuple):
    """Parameters of a chain of four states, and sequences (sequence, time) of it."""

    initial: np.ndarray
    transition: np.ndarray
    means: np.ndarray
    scales: np.ndarray
    y: np.ndarray

    @classmethod
    def simulated(cls, seed: int, sequences: int, steps: int, states: int = 4) -> Chains:
        rng = np.random.default_rng(seed)
        transition = 0.9 * np.eye(states) + 0.1 / states
        means, scales = np.linspace(-2, 2, states), np.linspace(0.5, 1.2, states)
        path = chain(rng, sequences, steps, transition)
        y = (means[path] + scales[path] * rng.normal(size=path.shape)).astype(np.float32).astype(np.float64)
        return cls(np.full(states, 1 / states), transition, means, scales, y)


def by_hmmlearn(chains: Chains) -> Callable[[], float]:
    """Log-likelihood of all sequences, ready to be called."""
    from hmmlearn.hmm import GaussianHMM

    peer = GaussianHMM(len(chains.initial), covariance_type="diag", implementation="scaling")
    peer.startprob_, peer.transmat_, peer.means_ = chains.initial, chains.transition, chains.means[:, None]
    peer.covars_ = chains.scales[:, None] ** 2
    sequences, steps = chains.y.shape
    flat, lengths = chains.y.reshape(-1, 1), [steps] * sequences
    return lambda: peer.score(flat, lengths)


@jax.jit
def ours(initial, transition, means, scales, y):
    family = emissions.Normal(means[:, None], scales[:, None])
    return HiddenMarkov(initial, transition, (family,), (y.shape[1],)).log_prob(y).sum()


@jax.jit
def dynamax(initial, transition, means, scales, y):
    from dynamax.hidden_markov_model import hmm_filter

    def one(y):
        log_p = jax.scipy.stats.norm.logpdf(y[:, None], means, scales)
        return hmm_filter(initial, transition, log_p).marginal_loglik

    return jax.vmap(one)(y).sum()


def by_jax(fn, dtype, chains: Chains) -> Callable[[], float]:
    """The same by a compiled function, its data on the device already."""
    with jax.enable_x64(True):
        at = [jnp.asarray(v, dtype) for v in chains]

    def run() -> float:
        with jax.enable_x64(True):
            return float(fn(*at))

    return run


CONTESTANTS = {
    "hmmlearn (scaling)": by_hmmlearn,
    "bayesunmix float32": partial(by_jax, ours, jnp.float32),
    "dynamax float32": partial(by_jax, dynamax, jnp.float32),
    "bayesunmix float64": partial(by_jax, ours, jnp.float64),
    "dynamax float64": partial(by_jax, dynamax, jnp.float64),
}


def likelihood() -> None:
    """Log-likelihood of a batch and of one long chain, emissions included."""
    lines = []
    for sequences, steps in ((100, 1000), (1, 100_000)):
        chains = Chains.simulated(0, sequences, steps)
        states = len(chains.initial)
        contestants = {name: ready(chains) for name, ready in CONTESTANTS.items()}
        found = {name: fn() for name, fn in contestants.items()}
        spent: dict[str, list[tuple[float, float]]] = {name: [] for name in contestants}
        for _ in range(ROUNDS):
            for name, fn in contestants.items():
                start = time.perf_counter(), time.process_time()
                fn()
                spent[name].append((time.perf_counter() - start[0], time.process_time() - start[1]))
        reference = found["hmmlearn (scaling)"]
        # The clock of the processor is too coarse for one call, so it is that of all rounds.
        best = {name: 1e3 * np.array([np.min(t, axis=0)[0], np.mean(t, axis=0)[1]]) for name, t in spent.items()}
        lines += ["", f"{sequences} x {steps} steps, {states} states; log-likelihood {reference:.3f}", "",
                  "| | wall, best (ms) | processor, mean (ms) | hmmlearn takes, wall | processor | error (nats) |",
                  "|---|---|---|---|---|---|"]  # fmt: skip
        for name, (wall, cpu) in best.items():
            ratio = best["hmmlearn (scaling)"] / (wall, cpu)
            lines.append(f"| {name} | {wall:.2f} | {cpu:.2f} | {ratio[0]:.2f} x | {ratio[1]:.2f} x | "
                         f"{found[name] - reference:+.1e} |")  # fmt: skip
    print("\n".join(lines))
    title = f"Log-likelihoods, emissions included, on one thread: {ROUNDS} rounds in turns."
    _write("hidden_markov_likelihood", title, lines)


def samplers(rounds: int = 5) -> None:
    """Effective draws per second of the processor, T = 1500, S = 3; warm-up is included, compilation is not."""
    import arviz as az

    rng = np.random.default_rng(1)
    transition = np.array([[0.95, 0.04, 0.01], [0.03, 0.94, 0.03], [0.02, 0.04, 0.94]])
    path = chain(rng, 1, 1500, transition)
    y = np.array([-1.5, 0.0, 1.5])[path] + 0.5 * rng.normal(size=path.shape)
    methods = {
        "Gibbs, 8 chains": bu.Gibbs(draws=500, warmup=100, chains=8, most_thin=1),
        "Gibbs, 4 chains": bu.Gibbs(draws=1000, warmup=100, chains=4, most_thin=1),
        "NUTS": bu.NUTS(draws=1000, warmup=200, chains=1),
    }
    rates: dict[str, list[np.ndarray]] = {name: [] for name in methods}
    lines = ["| round | method | processor (s) | wall (s) | effective draws, worst | median | a second | median |",
             "|---|---|---|---|---|---|---|---|"]  # fmt: skip
    for method in methods.values():
        bu.fit(bu.models.HiddenMarkovModel(3), y, method, progress=False)  # compiles
    for turn in range(rounds):
        for name, method in methods.items():
            start = time.perf_counter(), time.process_time()
            fit = bu.fit(bu.models.HiddenMarkovModel(3), y, method, progress=False, seed=1 + turn)
            wall, cpu = time.perf_counter() - start[0], time.process_time() - start[1]
            sizes = az.ess(fit.posterior, method="bulk")
            sizes = np.concatenate([v.values.ravel() for v in sizes.data_vars.values()])
            rates[name].append(np.array([sizes.min(), np.median(sizes)]) / cpu)
            worst, median = rates[name][-1]
            lines.append(f"| {turn} | {name} | {cpu:.2f} | {wall:.2f} | {sizes.min():.0f} | {np.median(sizes):.0f} | "
                         f"{worst:.0f} | {median:.0f} |")  # fmt: skip
            print(lines[-1], flush=True)
    for name in list(methods)[:2]:
        worst, median = (np.array(rates[name]) / np.array(rates["NUTS"])).T
        lines += ["", f"{name}, over NUTS, median of the rounds: {np.median(worst):.1f} in the worst parameter "
                  f"({worst.min():.1f} to {worst.max():.1f}), {np.median(median):.1f} in the median one."]  # fmt: skip
        print(lines[-1])
    title = (f"One sequence of {y.size} frames, three states, on one thread; warm-up is included, compilation is not. "
             "Gibbs: 4000 draws, after 100 sweeps of every chain; NUTS: 1000 draws after 200. Effective draws are "
             "ArviZ' bulk.")  # fmt: skip
    _write("hidden_markov_samplers", title, lines)


def short(data_sets: int = 200) -> None:
    """Thirty trajectories of 3 frames and two of 60: coverage of the posterior, bias of averaged probabilities."""
    transition = np.array([[0.85, 0.12, 0.03], [0.1, 0.8, 0.1], [0.05, 0.25, 0.7]])
    covered, mean, averaged, pooled, covered_by_average = [], [], [], [], []
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
        error = np.nanstd(single, axis=0, ddof=1) / np.sqrt(np.isfinite(single).sum(0))
        covered_by_average.append(np.abs(averaged[-1] - transition) <= 1.645 * error)
        pooled.append(counts / counts.sum(1, keepdims=True))
    lines = ["| estimate | 90 % intervals cover | standard error | worst entry covered | bias of 9 probabilities |"
             " largest bias / its error |", "|---|---|---|---|---|---|"]  # fmt: skip
    rows = (("posterior", mean, covered), ("pooled counts", pooled, None),
            ("average of trajectories", averaged, covered_by_average))  # fmt: skip
    for name, values, within in rows:
        values = np.array(values)
        bias, error = values.mean(0) - transition, values.std(0) / np.sqrt(data_sets)
        shares = ("", "", "")
        if within is not None:
            own = np.array(within, float).reshape(data_sets, -1)
            spread = own.mean(1).std() / np.sqrt(data_sets)
            shares = tuple(f"{v:.3f}" for v in (own.mean(), spread, own.mean(0).min()))
        shown = ", ".join(f"{b:+.3f}" for b in bias.ravel())
        lines.append(f"| {name} | {' | '.join(shares)} | {shown} | {np.abs(bias / error).max():.1f} |")
    print("\n".join(lines))
    title = (f"{data_sets} data sets of thirty trajectories of 3 frames and two of 60. Intervals of the average: 1.645 "
             "standard errors between trajectories.")  # fmt: skip
    _write("hidden_markov_short", title, lines)


def _side_by_side(model, y: np.ndarray) -> dict[str, np.ndarray]:
    """Draws of the model's own sampler (data set, chain, draw, ...), all data sets at once."""
    with jax.enable_x64(True):
        samplers = [model.gibbs(one, {}) for one in y]
        starts = [s.start(np.random.default_rng(i), 4) for i, s in enumerate(samplers)]
        state = {name: jnp.stack([one[name] for one in starts]) for name in starts[0]}
        many = jax.vmap(partial(_hidden_markov_gibbs._sweeps, draws=600), (None, 0, None, 0, 0, None))
        found = many(samplers[0]._model, jnp.arange(len(y)), jnp.asarray(8), state, jnp.asarray(y), None)[1]
        kept = {name: np.moveaxis(np.asarray(v)[:, 100:], 1, 2) for name, v in found.items()}
    done = [s.finished({name: v[i] for name, v in kept.items()}) for i, s in enumerate(samplers)]
    return {name: np.stack([one[name] for one in done]) for name in kept}


def _live_sorted(values: dict[str, np.ndarray], leading: int) -> dict[str, np.ndarray]:
    """States 0 and 1 of three in the order of their means, everywhere along the ``leading`` axes."""
    order = np.concatenate(
        [np.argsort(values["means"][..., :2], axis=-1), np.full((*values["means"].shape[:-1], 1), 2)], -1
    )
    found = {}
    for name, value in values.items():
        for axis in range(leading, leading + (2 if name == "transition" else 1)):
            shape = [*order.shape[:-1], *[1] * (value.ndim - leading)]
            shape[axis] = 3
            value = np.take_along_axis(value, order.reshape(shape), axis)
        found[name] = value
    return found


def _columns(draws: dict[str, np.ndarray]):
    """Single numbers, (data set, chain, draw)."""
    for values in draws.values():
        for where in np.ndindex(values.shape[3:]):
            yield values[(..., *where)]


def calibration(data_sets: int = 200) -> None:
    """Where the truth lies in its posterior: 5 sequences of 30 frames from the prior, states ordered or told apart.

    "lost": two live states before an absorbing one. The live ones are sorted by their means, in the truth and in every
    draw.

    4800 sweeps of four chains, one in eight kept. Few dependent draws would fill the tails of the ranks, and
    intervals seem to cover less than they do.
    """
    like = np.zeros((5, 30))
    width = {"kind": "LogNormal", "loc": -0.7, "scale": 0.5}
    confusion = {"kind": "Dirichlet", "concentration": [[6, 2, 1], [1, 2, 6]]}
    cases = {
        "normal": {"priors": {"means": {"kind": "Normal", "loc": 0.0, "scale": 2.0}, "scales": width}, "ordered": True},
        "poisson": {"priors": {"rates": {"kind": "LogNormal", "loc": 1.0, "scale": 1.0}}, "ordered": True},
        "exponential": {"priors": {"rates": {"kind": "LogNormal", "loc": 0.0, "scale": 1.0}}, "ordered": True},
        "categorical": {"priors": {"probabilities": confusion}, "n_symbols": 3},
    }
    wide = {"kind": "Normal", "loc": 0.0, "scale": 2.0}
    cases["lost"] = {"emission": "normal", "priors": {"means": wide, "scales": width}, "absorbing": (2,)}
    lines = ["| emission | parameter | uniform p (KS) | 90 % covers | 50 % covers | standard errors |",
             "|---|---|---|---|---|---|"]  # fmt: skip
    for emission, settings in cases.items():
        states = 3 if emission == "lost" else 2
        model = bu.models.HiddenMarkovModel(states, **{"emission": emission, **settings}).bind(like)
        simulated = [bu.simulate(model, like=like, seed=seed) for seed in range(data_sets)]
        start = time.perf_counter()
        draws = _side_by_side(model, np.stack([data.values for data, _ in simulated]))
        truths = {name: np.stack([t[name].values for _, t in simulated]) for name in draws}
        if emission == "lost":
            draws, truths = _live_sorted(draws, 3), _live_sorted(truths, 1)
        size = min(np.median([effective_sample_size(one) for one in column]) for column in _columns(draws))
        print(f"{emission}: {data_sets} data sets in {time.perf_counter() - start:.0f} s, "
              f"median effective draws of the worst parameter {size:.0f}", flush=True)  # fmt: skip
        for name, values in draws.items():
            for where in np.ndindex(values.shape[3:]):
                if name in ("initial", "transition", "probabilities") and where[-1] == values.shape[-1] - 1:
                    continue  # what the others leave
                truth = truths[name][(..., *where)]
                if name == "transition" and np.ptp(truth) == 0:
                    continue  # never left
                u = (values[(..., *where)] < truth[:, None, None]).mean((1, 2))
                shares = [np.mean(np.abs(u - 0.5) < half) for half in (0.45, 0.25)]
                errors = [np.sqrt(p * (1 - p) / len(u)) for p in (0.9, 0.5)]
                lines.append(f"| {emission} | {'/'.join(map(str, (name, *where)))} | "
                             f"{stats.kstest(u, 'uniform').pvalue:.3f} | {shares[0]:.3f} | {shares[1]:.3f} | "
                             f"{errors[0]:.3f}, {errors[1]:.3f} |")  # fmt: skip
                print(lines[-1], flush=True)
    _write("hidden_markov_calibration", f"{data_sets} data sets of 5 sequences of 30 frames for each emission.", lines)


def trap(every: int = 50, frames: int = 4000) -> None:
    """Means of `every` consecutive 10 kHz samples of an optical-trap trace, `frames` of them.

    The instrument's filter correlates neighbouring samples: within a state the correlation falls below .02 after 16 of
    them, so that means of 50 are nearly independent given the state; dwell times are longer than that.
    """
    import xarray as xr

    folder = Path(os.environ.get("BAYESUNMIX_DATA", Path(__file__).parents[2] / "shared" / "data"))
    trace = np.load(folder / "optical_trap" / "mol3_8_ext_16.npz")["extension_nm"]
    y = trace[: every * frames].reshape(-1, every).mean(1)
    step = every / 10.0
    data = xr.DataArray(y[None], {"time": ("time", step * np.arange(len(y)), {"units": "ms"})}, ("sequence", "time"))
    lines = [f"{len(y)} frames of {step:g} ms, each the mean of {every} samples.", ""]
    fits = {}
    for n_states in (1, 2, 3, 4, 5):
        start = time.perf_counter()
        method = bu.Gibbs(draws=500, warmup=500, most_thin=64)
        fit = bu.fit(bu.models.HiddenMarkovModel(n_states), data, method, progress=False)
        fits[f"S={n_states}"] = fit
        spent, thinning = time.perf_counter() - start, float(fit.diagnostics["thinning"])
        lines += [f"S={n_states}: {spent:.0f} s, one in {thinning:.0f} sweeps; {fit.diagnostics.attrs['verdict']}", ""]
        average = fit.posterior.mean(("chain", "draw"))
        spread = fit.posterior.std(("chain", "draw"))
        dwell = bu.dwell_times(fit).values if n_states > 1 else np.full((1, 4), np.inf)
        lines += ["| state | mean (nm) | scale (nm) | dwell (ms) | 90 % |", "|---|---|---|---|---|"]
        for k in range(n_states):
            lines.append(
                f"| {k} | {average['means'].values[k]:.2f} +- {spread['means'].values[k]:.2f} | "
                f"{average['scales'].values[k]:.2f} +- {spread['scales'].values[k]:.2f} | "
                f"{dwell[k, 0]:.1f} | {dwell[k, 2]:.1f} to {dwell[k, 3]:.1f} |"
            )
        if n_states > 1:
            check = bu.chapman_kolmogorov(fit, lags=(1, 2, 4, 8, 16), draws=100)
            lines += ["", f"Chapman-Kolmogorov, lags 1 to 16: {check.attrs['outside']:.2f} of the entries beyond the "
                      f"90 % band, smallest p {float(check['p_value'].min()):.2f}"]  # fmt: skip
        lines.append("")
        print("\n".join(lines[-9 - n_states :]), flush=True)
    settled = {name: fit for name, fit in fits.items() if fit.converged}
    lines += [f"Fits that passed their own checks: {', '.join(settled)}. Blocks given their past, among them:"]
    for n_blocks in (20, 80):
        table = bu.compare(settled, n_blocks=n_blocks)
        lines += ["", f"{n_blocks} blocks of {len(y) // n_blocks * step / 1000:g} s: {table.attrs['verdict']}", "",
                  "| model | elpd | p | difference | its error | warning |", "|---|---|---|---|---|---|"]  # fmt: skip
        lines += [f"| {name} | {row.elpd:.1f} | {row.p:.1f} | {row.elpd_diff:.1f} | {row.dse:.1f} | {row.warning} |"
                  for name, row in table.iterrows()]  # fmt: skip
    print("\n".join(lines[-20:]), flush=True)
    _write("hidden_markov_trap", "Optical-trap trace of a riboswitch: number of states and dwell times.", lines)


def _write(name: str, title: str, lines: list[str]) -> None:
    path = Path(__file__).parent / "results" / f"{name}.md"
    path.parent.mkdir(exist_ok=True)
    path.write_text("\n".join([title, "", *lines, ""]), encoding="utf-8")


if __name__ == "__main__":
    parts = {f.__name__: f for f in (likelihood, samplers, short, calibration, trap)}
    if len(sys.argv) < 2 or sys.argv[1] not in parts:
        raise SystemExit(__doc__)
    parts[sys.argv[1]](*map(int, sys.argv[2:]))
