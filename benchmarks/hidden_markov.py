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
from numpyro.diagnostics import effective_sample_size
from scipy import stats

import bayesunmix as bu
from bayesunmix.distributions import emissions
from bayesunmix.distributions.hidden_markov import HiddenMarkov
from bayesunmix.models import _hidden_markov_gibbs

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


def _side_by_side(model, y: np.ndarray) -> dict[str, np.ndarray]:
    """Draws of the model's own sampler (data set, chain, draw, ...), all data sets at once."""
    with jax.enable_x64(True):
        samplers = [model.gibbs(one, {}) for one in y]
        starts = [s.start(np.random.default_rng(i), 4) for i, s in enumerate(samplers)]
        state = {name: jnp.stack([one[name] for one in starts]) for name in starts[0]}
        sweeps = jax.vmap(_hidden_markov_gibbs._sweeps, (None, 0, None, 0, 0, None))
        free = samplers[0]._model

        @jax.jit
        def run(seeds, state, y):
            def keep(state, seed):
                state = sweeps(free, seed + jnp.arange(len(y)), 8, state, y, None)
                return state, state

            return jax.lax.scan(keep, state, seeds)[1]

        found = run(len(y) * jnp.arange(600), state, jnp.asarray(y))
        kept = {name: np.moveaxis(np.asarray(v)[100:], 0, 2) for name, v in found.items()}
    done = [s.finished({name: v[i] for name, v in kept.items()}) for i, s in enumerate(samplers)]
    return {name: np.stack([one[name] for one in done]) for name in kept}


def _columns(draws: dict[str, np.ndarray]):
    """Single numbers, (data set, chain, draw)."""
    for values in draws.values():
        for where in np.ndindex(values.shape[3:]):
            yield values[(..., *where)]


def calibration(data_sets: int = 200) -> None:
    """Where the truth lies in its posterior: 5 sequences of 30 frames from the prior, states ordered or told apart.

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
    lines = ["| emission | parameter | uniform p (KS) | 90 % covers | 50 % covers | standard errors |",
             "|---|---|---|---|---|---|"]  # fmt: skip
    for emission, settings in cases.items():
        model = bu.models.HiddenMarkovModel(2, emission, **settings).bind(like)
        simulated = [bu.simulate(model, like=like, seed=seed) for seed in range(data_sets)]
        start = time.perf_counter()
        draws = _side_by_side(model, np.stack([data.values for data, _ in simulated]))
        size = min(np.median([effective_sample_size(one) for one in column]) for column in _columns(draws))
        print(f"{emission}: {data_sets} data sets in {time.perf_counter() - start:.0f} s, "
              f"median effective draws of the worst parameter {size:.0f}", flush=True)  # fmt: skip
        for name, values in draws.items():
            for where in np.ndindex(values.shape[3:]):
                if name in ("initial", "transition", "probabilities") and where[-1] == values.shape[-1] - 1:
                    continue  # what the others leave
                truth = np.array([float(t[name].values[where]) for _, t in simulated])
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
    for n_states in (1, 2, 3, 4):
        start = time.perf_counter()
        fit = bu.fit(bu.models.HiddenMarkovModel(n_states), data, bu.Gibbs(warmup=200, most_thin=16), progress=False)
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
        if len(fits) > 1:
            table = bu.compare(fits, n_blocks=20)
            print(table.to_string(), "\npreferred:", table.attrs["preferred"], table.attrs["verdict"], flush=True)
    lines += ["| model | elpd | p | difference | its error | warning |", "|---|---|---|---|---|---|"]
    lines += [f"| {name} | {row.elpd:.1f} | {row.p:.1f} | {row.elpd_diff:.1f} | {row.dse:.1f} | {row.warning} |"
              for name, row in table.iterrows()]  # fmt: skip
    lines += ["", f"Blocks given their past, 20 of them. {table.attrs['verdict']}"]
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
