"""Endmembers unknown, sampled: effective draws a second of the worst endmember value."""

from __future__ import annotations

import numpy as np

from benchmarks.harness import Contender, Workload
from benchmarks.simulated import Cube, cube, held, matched


def ours(_):
    import bayesunmix as bu

    def run(problem: Cube, seed: int):
        model = bu.models.LinearUnmixing(len(problem.endmembers))
        fit = bu.fit(model, problem.image, bu.NUTS(draws=OURS), seed=seed, progress=False)
        return {name: fit.posterior[name].values for name in GLOBALS}

    return run


def pymc_nutpie(problem: Cube):
    import nutpie
    import pymc as pm

    n, (n_pixels, n_channels) = len(problem.endmembers), problem.pixels.shape
    with pm.Model() as model:
        y = pm.Data("data", problem.pixels.astype(np.float64))
        scale = pm.Data("scale", np.quantile(np.abs(problem.pixels), 0.999, axis=0).astype(np.float64))
        spectra = pm.HalfNormal("endmembers", sigma=scale, shape=(n, n_channels))
        shares = pm.Dirichlet("abundance", np.ones(n), shape=(n_pixels, n))
        noise = pm.LogNormal("noise_scale", np.log(0.05), 1.0)
        pm.Normal("y", shares @ spectra, noise, observed=y)
    compiled = nutpie.compile_pymc_model(model)

    def run(problem: Cube, seed: int):
        scale = np.quantile(np.abs(problem.pixels), 0.999, axis=0).astype(np.float64)
        bound = compiled.with_data(data=problem.pixels.astype(np.float64), scale=scale)
        found = nutpie.sample(
            bound, draws=DRAWS, tune=DRAWS, chains=2, cores=2, seed=seed, progress_bar=False, save_warmup=False
        )
        return {name: found.posterior[name].values for name in GLOBALS}

    return run


def joint_numpyro(problem: Cube):
    import jax
    import jax.numpy as jnp
    import numpyro
    import numpyro.distributions as dist

    n = len(problem.endmembers)

    def model(y, scale):
        spectra = numpyro.sample("endmembers", dist.HalfNormal(scale).expand((n, len(scale))).to_event(2))
        noise = numpyro.sample("noise_scale", dist.LogNormal(np.log(0.05), 1.0))
        with numpyro.plate("unit", len(y)):
            shares = numpyro.sample("abundance", dist.Dirichlet(jnp.ones(n)))
            numpyro.sample("y", dist.Normal(shares @ spectra, noise).to_event(1), obs=y)

    # Like this the program is compiled once.
    kernel = numpyro.infer.NUTS(model)
    sampler = numpyro.infer.MCMC(
        kernel, num_warmup=FEW, num_samples=FEW, num_chains=1, progress_bar=True, jit_model_args=True
    )
    sampler.progress_bar = False
    warm = [False]

    def run(problem: Cube, seed: int):
        if not warm[0]:  # a call that only compiles would take as long as a turn
            warm[0] = True
            return None
        y = jnp.asarray(problem.pixels)
        scale = jnp.asarray(np.quantile(np.abs(problem.pixels), 0.999, axis=0))
        sampler.run(jax.random.key(seed), y, scale)
        found = sampler.get_samples(group_by_chain=True)
        return {name: np.asarray(found[name]) for name in GLOBALS}

    return run


GLOBALS = "endmembers", "noise_scale"
OURS, DRAWS, FEW = 1000, 500, 100  # the first for an R-hat below 1.01 in every entry


def score(problem: Cube, found: dict[str, np.ndarray]) -> dict[str, float]:
    """Of draws (chain, draw, ...); labels of each chain are those of the spectra it is nearest to."""
    from numpyro.diagnostics import effective_sample_size, split_gelman_rubin

    true = problem.endmembers
    chains = np.stack([one[:, np.argsort(matched(one.mean(0), true))] for one in found["endmembers"]])
    noise = found["noise_scale"].reshape(len(chains), -1)
    size = effective_sample_size(chains) if len(chains) > 1 else effective_sample_size(chains, bias=True)
    return {
        "least effective draws": float(np.min(size)),
        "worst R-hat": float(max(np.max(split_gelman_rubin(one)) for one in (chains, noise))),
        "endmembers in 90 %": held(chains.reshape(-1, *true.shape), true),
    }


WORKLOAD = Workload(
    title="Unmixing sampled: effective draws of endmembers",
    problem=cube,
    contenders=(
        Contender("bayesunmix NUTS", ours, note=f"two chains of {OURS}; search for the mode and warm-up included"),
        Contender("PyMC + nutpie", pymc_nutpie, repeats=5, note=f"two chains of {DRAWS} and {DRAWS} warm-up"),
        Contender(
            "joint NumPyro NUTS",
            joint_numpyro,
            repeats=5,
            note=f"one chain of {FEW} and {FEW} warm-up, compiled once",
        ),
    ),
    score=score,
    sizes={
        "full": {"side": 32, "channels": 64, "n_endmembers": 4},
        "short": {"side": 8, "channels": 16, "n_endmembers": 3},
    },
    rate="least effective draws",
    why="Peers that take minutes a run had fewer turns.",
)
