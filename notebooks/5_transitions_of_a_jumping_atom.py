# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Transition matrices of a jumping atom
#
# A dopant under the beam hops between three sites. Each frame of the movie gives a noisy signal. How often does the
# atom hop, from where to where, and how long does it stay? Counting threshold crossings turns every noise spike
# into two hops; a hidden Markov model does not.

# %%
import os

import jax
import matplotlib.pyplot as plt
import numpy as np
import xarray as xr

import bayesunmix as bu

TINY = os.environ.get("BAYESUNMIX_NOTEBOOKS") == "tiny"  # a rehearsal: small data, the same cells
FILE = os.environ.get("BAYESUNMIX_FILE")  # or write the path of sequences (sequence, time), NaN where missing here
print(f"Runs on: {jax.devices()[0].device_kind} ({jax.default_backend()}), {'tiny' if TINY else 'full'} budget")

# %%
rng = np.random.default_rng(2)
TRUE = np.array([[0.94, 0.05, 0.01], [0.06, 0.90, 0.04], [0.02, 0.08, 0.90]])
LEVELS, NOISE = np.array([0.0, 1.0, 2.0]), 0.45


def movie(n_atoms: int, n_frames: int) -> tuple[xr.DataArray, np.ndarray]:
    """Signals (sequence, time) of atoms that hop by TRUE, and their sites."""
    site = np.zeros((n_atoms, n_frames), int)
    for t in range(1, n_frames):
        for k in range(n_atoms):
            site[k, t] = rng.choice(3, p=TRUE[site[k, t - 1]])
    time = ("time", 0.05 * np.arange(n_frames), {"units": "s"})
    signal = LEVELS[site] + NOISE * rng.normal(size=site.shape)
    return xr.DataArray(signal, {"time": time}, ("sequence", "time"), "dopant", {"long_name": "signal"}), site


if FILE:
    data, site = bu.load(FILE), None
else:
    data, site = movie(3, 80) if TINY else movie(6, 400)
fit = bu.fit(
    bu.models.HiddenMarkovModel(3, ordered=True),
    data,
    bu.Gibbs(draws=300, warmup=100, chains=2) if TINY else bu.Gibbs(draws=400, warmup=200, chains=4),
)
print(fit.converged, fit.diagnostics.attrs["verdict"])

# %% [markdown]
# ## The path of one atom
#
# Above the signal in the colours of the most probable sites, below the probability of every site in every frame.
# Between two levels the model hesitates, and says so.

# %%
bu.plot.states(fit, 0)
plt.show()

# %% [markdown]
# ## The transition matrix, with intervals
#
# Per frame of 50 ms. Rare hops have intervals as wide as they are: about ten events are all there is.

# %%
bu.plot.transition(fit)
plt.show()
if site is not None:
    crossed = np.digitize(data.values, [0.5, 1.5])
    pairs = np.zeros((3, 3))
    np.add.at(pairs, (crossed[:, :-1].ravel(), crossed[:, 1:].ravel()), 1)
    naive = pairs / pairs.sum(1, keepdims=True)
    inferred = bu.transition_matrix(fit).sel(statistic="mean").values
    print("probability to stay:  true", np.diag(TRUE), " inferred", np.diag(inferred).round(3),
          " by thresholds", np.diag(naive).round(3))  # fmt: skip

# %% [markdown]
# Thresholds see the atom leave far too often: every frame of noise beyond the threshold is counted as two hops.
#
# ## How long does it stay?

# %%
bu.plot.dwell(fit)
plt.show()
print(bu.dwell_times(fit).to_pandas().round(3))

# %% [markdown]
# ## Does the atom remember?
#
# A Markov chain forgets how long it has been where it is. Then hops over two, four, eight frames follow from hops
# over one: the dots (from the data's own paths) should lie in the bands (predicted).

# %%
memory = bu.chapman_kolmogorov(fit, [1, 2, 4] if TINY else [1, 2, 4, 8])
print(f"outside the band: {100 * memory.attrs['outside']:.0f} % of the entries")
bu.plot.memory(memory)
plt.show()

# %% [markdown]
# ## What could be wrong
#
# - **The beam moves the atom.** The rates are those under this beam. Repeat at half the dose rate: what scales with
#   it is not thermal.
# - **Hops faster than a frame** are invisible, and blur the levels. A dwell time near one frame is a lower bound of
#   the truth.
# - **Two sites with the same signal** look like one site with memory: that is what the last figure looks for.
# - **Drift of the signal** (focus, contamination) is taken for hops. Detrend against something that does not hop.
# - **Three sites were given.** Fit two and four, and compare (`bu.compare`).
