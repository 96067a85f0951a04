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
# # What uncertainty means
#
# An error bar answers one question, and there are several: how noisy is a measurement? How well is its expectation
# known? Would more pixels help, or a longer exposure? And why can a map look certain only because somebody else's
# spectra were taken for granted?

# %%
import os

import jax
import matplotlib.pyplot as plt
import numpy as np

import bayesunmix as bu
from bayesunmix.data.simulators import core_shell
from bayesunmix.plot.truth import matched

TINY = os.environ.get("BAYESUNMIX_NOTEBOOKS") == "tiny"  # a rehearsal: small data, the same cells
FILE = os.environ.get("BAYESUNMIX_FILE")  # or write the path of a spectrum image here
print(f"Runs on: {jax.devices()[0].device_kind} ({jax.default_backend()}), {'tiny' if TINY else 'full'} budget")

# %%
if FILE:
    image, truth = bu.load(FILE), None
else:
    image, truth = core_shell((10, 10), 24) if TINY else core_shell((32, 32), 96, snr_db=20)
method = bu.SVI(draws=200) if TINY else bu.SVI()
fit = bu.fit(bu.models.LinearUnmixing(3), image, method, seed=0)
print(fit.converged, fit.diagnostics.attrs["verdict"])

# %% [markdown]
# ## Aleatoric and epistemic: the law of total variance
#
# - **aleatoric**: the noise of one measurement. More data do not remove it.
# - **epistemic**: how badly the noise-free value is known. More pixels, or reference spectra, reduce it.
#
# They add in squares. By pixel above, by channel below.

# %%
split = bu.uncertainty(fit)
assert np.allclose(split["total"] ** 2, split["epistemic"] ** 2 + split["aleatoric"] ** 2, equal_nan=True)
bu.plot.uncertainty(fit, split=split)
plt.show()

# %% [markdown]
# ## More of which data?
#
# The same scene with more pixels, and the same pixels with less noise. Pixels sharpen the spectra, which all pixels
# share; only exposure sharpens a pixel's own abundance.

# %%
if not FILE:
    small = (10, 24, 14.0) if TINY else (16, 96, 14.0)
    settings = {"little data": small, "4 × the dose": (*small[:2], small[2] + 6)}
    if not TINY:
        settings["4 × the pixels"] = (2 * small[0], *small[1:])
    rows = []
    for name, (side, channels, snr) in settings.items():
        one = bu.fit(
            bu.models.LinearUnmixing(3), core_shell((side, side), channels, snr_db=snr)[0], method, progress=False
        )
        abundance = one.latent()["abundance"]
        spectra = one.posterior["endmembers"].std(("chain", "draw"))
        rows.append(
            (name, float(spectra.mean()), *(float(abundance.sel(statistic=s).mean()) for s in ("sd_noise", "sd_model")))
        )
    print(f"{'':16s} sd of spectra   sd of maps: from noise   from unknown spectra")
    for name, spectra, noise, model in rows:
        print(f"{name:16s} {spectra:13.4f} {noise:24.4f} {model:22.4f}")

# %% [markdown]
# ## The seesaw between certain spectra and certain maps
#
# Fix the spectra, and what they add to the error bars of the maps is gone. That is fair for the true spectra. Then
# one reference is wrong: the spectrum of the core was recorded through a shell and is one fifth shell. The error
# bars hardly notice.

# %%
if not FILE:
    true = truth["endmembers"].values
    wrong = true.copy()
    wrong[2] = 0.8 * true[2] + 0.2 * true[1]
    fits = {"unknown spectra": fit}
    for name, spectra in (("true spectra, fixed", true), ("a wrong one, fixed", wrong)):
        fits[name] = bu.fit(bu.models.LinearUnmixing(3, endmembers=spectra), image, method, progress=False)
    figure, panels = plt.subplots(1, 3, figsize=(7.2, 2.7), layout="constrained", sharey=True)
    for ax, (name, one) in zip(panels, fits.items(), strict=True):
        abundance = one.latent(prob=0.9)["abundance"]
        mean, low, high = (abundance.sel(statistic=s).values for s in ("mean", "lower", "upper"))
        expected = matched(one, truth)["abundance"].values
        covered = float(np.mean((low <= expected) & (expected <= high)))
        for k, phase in enumerate(matched(one, truth)["endmember"].values):
            ax.plot(expected[..., k].ravel(), mean[..., k].ravel(), ".", markersize=1.5, label=str(phase))
        ax.plot([0, 1], [0, 1], "k:", linewidth=0.8)
        ax.set(title=f"{name}\n90 % intervals hold {100 * covered:.0f} %", xlabel="true abundance", xticks=(0, 0.5, 1))
        sd, shared = (float(abundance.sel(statistic=s).mean()) for s in ("sd", "sd_model"))
        print(f"{name}: sd {sd:.4f}, of it from what pixels share {shared:.4f}; intervals hold {100 * covered:.0f} %")
        print(f"    {bu.check(one).attrs['verdict']}")
    panels[0].set_ylabel("mean abundance")
    panels[0].legend(frameon=False, markerscale=5)
    plt.show()

# %% [markdown]
# With the spectra unknown both ends of the seesaw move: the spectra have bands, and `sd_model` carries them into
# the maps. Fixing them takes their uncertainty out of the error bars, not out of the world: with the wrong reference
# every core comes out too rich, by several of its error bars. `bu.check` sees little of it: the wrong spectrum is a
# mixture of the true ones, and leaves a residual only where an abundance would have to be negative.

# %%
bu.plot.endmembers(fit, truth=truth)
plt.show()

# %% [markdown]
# ## What could be wrong
#
# - **All of it is conditional on the model.** A missing phase, drift or blur is in none of the numbers; `bu.check`
#   looks for them.
# - **Error bars of neighbouring pixels are not independent**: what the spectra add is shared by all. For sums and
#   ratios take draws of whole maps, `fit.sample_latent()`.
# - **No pixel is pure core in this scene.** How far the core's spectrum lies outside the data is settled by the
#   priors alone, and its band depends on them.
# - **An interval that starts just above zero does not prove presence.** Ask for the exceedance.
