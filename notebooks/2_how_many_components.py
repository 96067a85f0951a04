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
# # How many components?
#
# The question that every decomposition begs. A scree plot's elbow is in the eye of the beholder; here every size is
# fitted, each predicts the data, and the differences come with standard errors.

# %%
import os

import jax
import matplotlib.pyplot as plt

import bayesunmix as bu
from bayesunmix.data.simulators import core_shell

TINY = os.environ.get("BAYESUNMIX_NOTEBOOKS") == "tiny"  # a rehearsal: small data, the same cells
FILE = os.environ.get("BAYESUNMIX_FILE")  # or write the path of a spectrum image here
print(f"Runs on: {jax.devices()[0].device_kind} ({jax.default_backend()}), {'tiny' if TINY else 'full'} budget")

# %%
if FILE:
    image, truth = bu.load(FILE), None
else:
    image, truth = core_shell((10, 10), 24) if TINY else core_shell((32, 32), 96, snr_db=20)
sizes = (2, 3) if TINY else (1, 2, 3, 4)
fits = bu.sweep(bu.models.LinearUnmixing(2), image, n_endmembers=sizes, progress=False)
for name, fit in fits.items():
    print(name, "converged" if fit.converged else fit.diagnostics.attrs["verdict"])

# %% [markdown]
# The simulated scene has three phases. `bu.compare` estimates how well each model would predict a fresh measurement
# (WAIC: the log predictive density of every pixel, corrected for having seen it). The preferred model is the
# *smallest* whose distance to the best is within its error.

# %%
table = bu.compare(fits)
print(table[["elpd_diff", "dse", "weight", "warning"]].round(2))
print(table.attrs["verdict"])
bu.plot.comparison(table)
plt.show()

# %% [markdown]
# `warning` is raised when a fit did not converge, or when some pixels shape their own prediction so much that WAIC
# is doubtful there. Then leave-one-out by importance sampling is a second opinion on the two sizes that matter.

# %%
closest = {name: fits[name] for name in table.index[:2]}
again = bu.compare(closest, criterion="loo")
print(again[["elpd_diff", "dse", "weight", "warning"]].round(2))
print(again.attrs["verdict"])

# %% [markdown]
# ## A different question, the same answer?
#
# Probabilistic PCA asks how many directions of the spectra rise above the noise. Three phases whose abundances sum
# to one vary along *two* directions, so two components above the noise agree with three endmembers.

# %%
pca = bu.fit(bu.models.ProbabilisticPCA(3), image, bu.Gibbs(draws=100, warmup=30, chains=2) if TINY else None)
print(pca.diagnostics.attrs["verdict"])
bu.plot.scree(pca)
plt.show()

# %% [markdown]
# ## What is missed by a model that is too small?
#
# Its residuals have the shape of the phase that it lacks: look where it fails, in the image and in the spectrum.

# %%
small = fits["n_endmembers=2"]
misfit = bu.check(small)
print(misfit.attrs["verdict"])
bu.plot.residuals(small, checked=misfit)
plt.show()

# %% [markdown]
# ## What could be wrong
#
# - **Prediction is not truth.** A better prediction by one more component may be a second spectrum of the same
#   phase (orientation, thickness, a drift of energy): look at its map and its band before giving it a name.
# - **Neighbours are alike.** A detector's blur makes pixels share their errors; `dse` takes blocks of pixels into
#   account, and the verdict says where differences cluster.
# - **Rare phases.** A phase in five pixels of ten thousand changes the sum little. It shows in the map of p-values.
# - **A fit that did not converge** says nothing about its size: print every verdict, as above.
# - **The candidates were chosen by hand.** When the largest size wins, the answer is "at least".
