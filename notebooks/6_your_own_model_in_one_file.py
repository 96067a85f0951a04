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
# # Your own model in one file
#
# A line on a flat background, a height that differs from pixel to pixel. Is it one line, or a line with a shoulder?
# No model of the package asks this question. A NumPyro program of ten lines does, and everything else (fit, check,
# comparison, uncertainty) works on it unchanged.

# %%
import os

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import numpyro
import numpyro.distributions as dist
import xarray as xr

import bayesunmix as bu

TINY = os.environ.get("BAYESUNMIX_NOTEBOOKS") == "tiny"  # a rehearsal: small data, the same cells
FILE = os.environ.get("BAYESUNMIX_FILE")  # or write the path of a spectrum image of one line on a flat background here
print(f"Runs on: {jax.devices()[0].device_kind} ({jax.default_backend()}), {'tiny' if TINY else 'full'} budget")

# %% [markdown]
# ## Data
#
# Simulated with a shoulder that the eye does not see in a single pixel.

# %%
energy = np.linspace(10.0, 30.0, 24 if TINY else 60)
side = 10 if TINY else 24
rng = np.random.default_rng(0)


def line(place, width):
    return jnp.exp(-0.5 * ((energy - place) / width) ** 2)


if FILE:
    image = bu.load(FILE)
    energy = image[image.dims[-1]].values
else:
    true_height = 2.0 + 0.8 * rng.normal(size=(side, side))
    shape = np.asarray(line(18.0, 1.5) + 0.18 * line(22.5, 1.5))
    values = 1.0 + true_height[..., None] * shape + 0.3 * rng.normal(size=(side, side, energy.size))
    axis = ("energy", energy, {"units": "eV", "long_name": "energy loss"})
    image = xr.DataArray(values, {"energy": axis}, ("y", "x", "energy"), "plasmon", {"units": "counts"})

figure, ax = plt.subplots(figsize=(4, 2.4), layout="constrained")
ax.plot(energy, image.isel({d: 0 for d in image.dims[:-1]}), ".", label="one pixel")
ax.plot(energy, image.mean(image.dims[:-1]), label="mean of all")
ax.set(xlabel="energy loss (eV)", ylabel="counts")
ax.legend(frameon=False)
plt.show()

# %% [markdown]
# ## The model
#
# A program takes `y` (or None, then it simulates) and the number of pixels, and observes a site called `"y"` inside
# `numpyro.plate("unit", n_units)`. Everything outside the plate is global. A pixel's height is normal, so it can be
# integrated out: the line then appears as a direction of covariance. That keeps inference at a handful of numbers
# however large the image is. Parameters that are sampled as numbers of size one (`shift`, `stretch`, `ratio`) let
# the search start near their prior; a line sought from the wrong end of the spectrum finds noise.


# %%
def spectrum(shoulder: bool):
    """The common shape of the spectrum, its parameters drawn from their priors."""
    place = numpyro.deterministic("place", 18.0 + numpyro.sample("shift", dist.Normal(0.0, 1.0)))
    width = numpyro.deterministic("width", 1.5 * numpyro.sample("stretch", dist.LogNormal(0.0, 0.2)))
    shape = line(place, width)
    if shoulder:
        distance = numpyro.deterministic("distance", 4.5 * numpyro.sample("ratio", dist.LogNormal(0.0, 0.15)))
        strength = numpyro.sample("strength", dist.HalfNormal(0.3))
        shape = shape + strength * line(place + distance, width)
    return shape


def lines(y=None, *, n_units: int, shoulder: bool) -> None:
    shape = spectrum(shoulder)
    background = numpyro.sample("background", dist.Normal(1.0, 1.0))
    mean_height = numpyro.sample("mean_height", dist.HalfNormal(4.0))
    spread = numpyro.sample("spread", dist.HalfNormal(1.0))
    noise = numpyro.sample("noise", dist.LogNormal(jnp.log(0.3), 0.5))
    law = dist.LowRankMultivariateNormal(
        background + mean_height * shape, spread * shape[:, None], noise**2 * jnp.ones(energy.size)
    )
    with numpyro.plate("unit", n_units):
        numpyro.sample("y", law, obs=y)


def one_line(y=None, *, n_units: int) -> None:
    lines(y, n_units=n_units, shoulder=False)


def with_shoulder(y=None, *, n_units: int) -> None:
    lines(y, n_units=n_units, shoulder=True)


# %% [markdown]
# ## Before the data: does the prior make sense?
#
# Ten images that the model expects; of each, one pixel. If these looked absurd, the priors would be.

# %%
prior = bu.prior_predictive(with_shoulder, image, draws=10)
figure, ax = plt.subplots(figsize=(4, 2.4), layout="constrained")
ax.plot(energy, prior.isel({d: 0 for d in prior.dims[1:-1]}).values.T, linewidth=0.7)
ax.set(xlabel="energy loss (eV)", ylabel="counts", title="drawn from the prior")
plt.show()

# %% [markdown]
# ## Fit, check, compare

# %%
method = bu.SVI(draws=200) if TINY else bu.SVI()
fits = {model.__name__: bu.fit(model, image, method, progress=False) for model in (one_line, with_shoulder)}
for name, fit in fits.items():
    print(f"{name}: {fit.diagnostics.attrs['verdict']}")
    print(f"    {bu.check(fit).attrs['verdict']}")
table = bu.compare(fits)
print(table.attrs["verdict"])
bu.plot.comparison(table)
plt.show()

# %%
strength = fits["with_shoulder"].posterior["strength"].values.ravel()
low, high = np.quantile(strength, [0.05, 0.95])
print(f"the shoulder has {strength.mean():.3f} of the line's height, 90 % interval {low:.3f} to {high:.3f}")

# %% [markdown]
# `bu.check` had named what the single line lacks before anybody compared: residuals of adjacent channels are alike.
#
# ## The map that was integrated out
#
# The height of every pixel given the rest is normal, with a formula of two lines. Draws of it, one for each of some
# posterior draws, give the map and its standard deviation.

# %%
draws = fits["with_shoulder"].posterior.stack(sample=("chain", "draw"))
maps = []
for k in np.linspace(0, draws.sizes["sample"] - 1, 200).astype(int):
    one = {name: float(draws[name][k]) for name in draws.data_vars}
    shape = np.asarray(line(one["place"], one["width"]))
    shape = shape + one["strength"] * np.asarray(line(one["place"] + one["distance"], one["width"]))
    precision = shape @ shape / one["noise"] ** 2 + 1 / one["spread"] ** 2
    mean = (image.values - one["background"]) @ shape / one["noise"] ** 2 + one["mean_height"] / one["spread"] ** 2
    maps.append(mean / precision + rng.normal(size=image.shape[:-1]) / np.sqrt(precision))
found, sd = np.mean(maps, 0), np.std(maps, 0)
figure, (left, right) = plt.subplots(1, 2, figsize=(6, 2.4), layout="constrained")
figure.colorbar(left.imshow(found), ax=left, shrink=0.8, label="height (counts)")
left.set(xticks=[], yticks=[])
if not FILE:
    right.errorbar(true_height.ravel(), found.ravel(), sd.ravel(), fmt=".", markersize=2, elinewidth=0.4)
    right.axline((2, 2), slope=1, color="k", linewidth=0.6)
    right.set(xlabel="true height (counts)", ylabel="inferred height ± sd")
    inside = float(np.mean(abs(found - true_height) < sd))
    print(f"the true height is within one standard deviation in {100 * inside:.0f} % of the pixels (68 % are right)")
print(f"sd of a height: {sd.mean():.3f} counts, about the same everywhere")
plt.show()

# %% [markdown]
# ## What could be wrong
#
# - **The shoulder may be the line's shape**: an asymmetric line is described by two symmetric ones. Write that
#   model too and let it compete.
# - **Heights can become negative** under a normal law. Where many pixels are near zero use a positive law, and keep
#   the height as a site of its own inside the plate.
# - **A prior that excludes the answer** cannot be overruled: `distance` has its mass between 3.3 and 6.1 eV.
# - **A program can be wrong in ways that no data reveal.** `bu.calibrate` simulates from it, fits, and looks
#   whether the intervals hold what they say.
