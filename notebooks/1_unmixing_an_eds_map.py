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
# # Unmixing an EDS map
#
# A section of core-shell particles was mapped with about a hundred X-rays a pixel. Which phase is where, what do
# the phases' spectra look like, and how sure can anyone be with so few counts? The classic tools answer the first
# two questions. A posterior answers the third as well.

# %%
import os

import jax
import matplotlib.pyplot as plt
import numpy as np
import xarray as xr

import bayesunmix as bu
from bayesunmix.data.simulators import core_shell

TINY = os.environ.get("BAYESUNMIX_NOTEBOOKS") == "tiny"  # a rehearsal: small data, the same cells
FILE = os.environ.get("BAYESUNMIX_FILE")  # or write the path of an EDS map of counts here
print(f"Runs on: {jax.devices()[0].device_kind} ({jax.default_backend()}), {'tiny' if TINY else 'full'} budget")

# %% [markdown]
# ## The map
#
# Without a file the map is simulated: silicon nitride with titanium oxide shells around iron cores, Poisson counts
# of characteristic lines on a falling bremsstrahlung background. A file must hold counts; other noise is another
# `likelihood`.


# %%
def eds_map(side: int, n_channels: int, counts: float, seed: int = 0) -> tuple[xr.DataArray, xr.Dataset]:
    """Counts (y, x, energy) of the phases of `core_shell`, and the truth."""
    _, scene = core_shell((side, side), 8)
    energy = np.linspace(0.2, 8.0, n_channels)
    lines = {
        "film": {0.392: 1.0, 1.740: 1.6},  # N K, Si K
        "shell": {0.525: 1.2, 4.511: 1.5, 4.932: 0.3},  # O K, Ti Ka, Ti Kb
        "core": {0.705: 0.8, 6.404: 1.6, 7.058: 0.3},  # Fe L, Fe Ka, Fe Kb
    }
    width = 0.025 + 0.004 * energy  # the detector's resolution
    spectra = np.stack(
        [
            sum(height * np.exp(-0.5 * ((energy - place) / width) ** 2) for place, height in lines[str(phase)].items())
            + 0.25 * np.exp(-energy / 2.5)
            for phase in scene["endmember"].values
        ]
    )
    signal = scene["abundance"].values @ spectra
    scale = counts / signal.sum(-1).mean()
    axis = ("energy", energy, {"units": "keV", "long_name": "energy"})
    coords = {"y": scene["y"], "x": scene["x"], "energy": axis}
    drawn = np.random.default_rng(seed).poisson(scale * signal)
    image = xr.DataArray(drawn, coords, ("y", "x", "energy"), "EDS map", {"units": "counts", "long_name": "X-rays"})
    endmembers = xr.DataArray(scale * spectra, {"energy": axis}, ("endmember", "energy"), attrs=image.attrs)
    return image, xr.Dataset({"abundance": scene["abundance"], "endmembers": endmembers})


if FILE:
    image, truth = bu.load(FILE), None
else:
    image, truth = eds_map(side=12, n_channels=40, counts=100) if TINY else eds_map(side=28, n_channels=80, counts=120)
y, x, channel = image.dims  # a file has names of its own
print(dict(image.sizes), f"{float(image.sum(channel).mean()):.0f} counts a pixel")

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(7.2, 2.6), layout="constrained")
image.sum(channel).plot.imshow(ax=left, yincrease=False, cmap="gray")
left.set(title="all X-rays", aspect="equal")
image.isel({y: 0, x: 0}).plot.step(ax=right, label="one pixel")
image.mean((y, x)).plot(ax=right, label="mean of all")
right.set(title="")
right.legend()
plt.show()

# %% [markdown]
# One pixel's spectrum is mostly single counts. What makes the maps below possible is that all pixels share the
# same three spectra.
#
# ## The fit
#
# The model: every pixel is a mixture of `n_endmembers` unknown non-negative spectra, its abundances are positive
# and sum to one, and counts follow Poisson's law. Abundances are integrated out, so inference runs over the spectra
# alone.

# %%
model = bu.models.LinearUnmixing(n_endmembers=3, likelihood="poisson")
fit = bu.fit(model, image, bu.SVI(draws=200) if TINY else bu.SVI(), seed=0)
print(fit.converged, fit.diagnostics.attrs["verdict"])

# %%
bu.plot.maps(fit, truth=truth)
plt.show()

# %%
bu.plot.endmembers(fit, truth=truth)
plt.show()

# %% [markdown]
# The standard deviation of an abundance is what a hundred X-rays can say. To mark the iron-rich pixels do not
# threshold the mean: ask how probable it is that the abundance exceeds a half, and say with which probability a
# pixel is marked.

# %%
bu.plot.maps(fit, show=["exceedance"], threshold=0.5)
plt.show()

# %% [markdown]
# ## Does it fit?
#
# Three pixels, described worst, typically and best, with the band where a repetition would fall. Then the whole
# image: with the right model the p-values fill the grey band evenly.

# %%
bu.plot.fitted(fit)
plt.show()

# %%
misfit = bu.check(fit)
print(misfit.attrs["verdict"])
bu.plot.residuals(fit, checked=misfit)
plt.show()

# %% [markdown]
# ## What could be wrong
#
# - **The number of phases was given.** The next notebook asks the data.
# - **No pixel is pure core**: shells cover cores. The iron spectrum is an extrapolation, held back by positivity
#   alone. A reference spectrum from a foil (`known endmembers`) would pin it.
# - **Counts that are not Poisson**: pile-up, dead-time correction, and spectra that were smoothed or scaled after
#   the measurement. `bu.check` then finds a scatter that is not the model's.
# - **Thickness.** Here abundances sum to one and the section is even. With `brightness=True` every pixel gets its
#   own intensity.
# - **Absorption and fluorescence** make a phase's spectrum depend on what lies above it: then mixing is not linear,
#   and an abundance is not a volume fraction.
