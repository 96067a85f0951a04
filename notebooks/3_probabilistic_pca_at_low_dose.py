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
# # Probabilistic PCA against SVD at low dose
#
# Denoising by SVD keeps the first few components of the data and trusts each of them fully. At low dose the last
# ones kept are part noise. Probabilistic PCA infers the noise level, shrinks every component by what the noise put
# into it, and says how probable it is that a component is there at all.

# %%
import os

import jax
import matplotlib.pyplot as plt
import numpy as np

import bayesunmix as bu
from bayesunmix.data.simulators import core_shell

TINY = os.environ.get("BAYESUNMIX_NOTEBOOKS") == "tiny"  # a rehearsal: small data, the same cells
FILE = os.environ.get("BAYESUNMIX_FILE")  # or write the path of a spectrum image to denoise here
print(f"Runs on: {jax.devices()[0].device_kind} ({jax.default_backend()}), {'tiny' if TINY else 'full'} budget")

# %%
side, channels = (12, 24) if TINY else (32, 96)
KEPT = 4  # components kept by both; the simulated scene has two


def measured(snr_db: float):
    """The scene at a dose, and without noise."""
    image, truth = core_shell((side, side), channels, snr_db=snr_db)
    return image, truth["abundance"].dot(truth["endmembers"], "endmember").transpose(*image.dims)


def by_svd(image, kept: int):
    """Mean spectrum and the first `kept` components of the data."""
    flat = image.values.reshape(-1, image.shape[-1])
    mean = flat.mean(0)
    u, s, v = np.linalg.svd(flat - mean, full_matrices=False)
    return image.copy(data=(mean + (u[:, :kept] * s[:kept]) @ v[:kept]).reshape(image.shape)), s


method = bu.Gibbs(draws=100, warmup=30, chains=2) if TINY else None
doses = (0, 10) if TINY else (-5, 0, 5, 10, 20)  # signal to noise in dB
found = {}
for dose in doses:
    image, clean = measured(dose)
    fit = bu.fit(bu.models.ProbabilisticPCA(KEPT), image, method, progress=False)
    split = bu.uncertainty(fit)
    svd, values = by_svd(image, KEPT)
    found[dose] = {
        "fit": fit,
        "image": image,
        "clean": clean,
        "mean": split["mean"],
        "split": split,
        "svd": svd,
        "svd of two": by_svd(image, 2)[0],
        "values": values,
    }

# %% [markdown]
# ## Who comes closer to the truth?
#
# The error of the denoised image, as a share of the noise that was there. The scene has two components; SVD is
# asked for four, as one does who does not know, and once for the right two.

# %%
rms = lambda values: float(np.sqrt((values**2).mean()))  # noqa: E731
error = {
    name: [rms(f[name] - f["clean"]) / rms(f["image"] - f["clean"]) for f in found.values()]
    for name in ("svd", "svd of two", "mean")
}
figure, ax = plt.subplots(figsize=(3.5, 2.6), layout="constrained")
ax.plot(doses, error["svd"], "s-", label=f"SVD, {KEPT} kept")
ax.plot(doses, error["svd of two"], "^--", label="SVD, the right 2 kept")
ax.plot(doses, error["mean"], "o-", label=f"probabilistic PCA, {KEPT}")
ax.set(xlabel="signal to noise (dB)", ylabel="error / noise", ylim=(0, 0.4))
ax.legend(frameon=False)
plt.show()
for dose, svd, two, mean in zip(doses, *error.values(), strict=True):
    print(
        f"{dose:4d} dB: SVD leaves {svd:.3f} of the noise ({two:.3f} if told to keep 2), probabilistic PCA {mean:.3f}"
    )

# %% [markdown]
# ## Which components are there?
#
# First what SVD shows: singular values without an error bar, and an elbow that at the lowest dose drowns in the
# noise. Then the variance that each component explains once the noise is taken off, with its interval. In the grey
# area noise hides a component: there the model claims nothing. SVD keeps four all the same.

# %%
figure, panels = plt.subplots(1, 2, figsize=(6, 2.4), layout="constrained")
for ax, dose in zip(panels, doses[:2], strict=True):
    ax.plot(np.arange(1, 13), found[dose]["values"][:12] ** 2 / (side**2 - 1), "s")
    ax.set(xlabel="component", ylabel="variance", title=f"SVD at {dose} dB", xticks=range(1, 13, 2))
    ax.set_ylim(0, 1.1 * ax.get_ylim()[1])
plt.show()
for dose in doses[:2]:
    bu.plot.scree(found[dose]["fit"]).suptitle(f"probabilistic PCA at {dose} dB", fontsize=8)
    plt.show()

# %% [markdown]
# ## One pixel, with the error bar of its denoised spectrum
#
# `epistemic` is the standard deviation of what the pixel would show without noise.

# %%
one_dose = found[doses[1]]
y = x = side // 3
one = {name: one_dose[name].isel(y=y, x=x) for name in ("image", "clean", "mean", "svd")}
sd = one_dose["split"]["epistemic"].isel(y=y, x=x)
energy = one["image"]["energy"]
figure, ax = plt.subplots(figsize=(5, 3), layout="constrained")
ax.plot(energy, one["image"], ".", color="0.7", markersize=3, label="data")
ax.fill_between(energy, one["mean"] - 2 * sd, one["mean"] + 2 * sd, alpha=0.3, label="mean ± 2 sd")
ax.plot(energy, one["svd"], color="C1", linewidth=0.8, label="SVD")
ax.plot(energy, one["clean"], "k:", label="truth")
ax.set(xlabel="energy loss (eV)", ylabel="10³ counts", title=f"one pixel at {doses[1]} dB")
ax.legend(frameon=False)
plt.show()
for dose, f in found.items():
    covered = float((abs(f["mean"] - f["clean"]) < 2 * f["split"]["epistemic"]).mean())
    print(
        f"{dose:4d} dB: truth within two standard deviations in {100 * covered:.1f} % of all entries (95 % are right)"
    )

# %% [markdown]
# The error bars hold at every dose. At the lowest ones components hide in the noise, and the band is as wide as they
# may be: each that cannot be seen is expected to have a third of the variance that just stays hidden. That is a prior,
# and nothing in the data can tell: where the scree plot has components in the grey area, the band is as good as what
# `component_floor` expects of them, and two components to spare are part of it.

# %% [markdown]
# ## With a file
#
# Set the path above: the same with data whose truth nobody knows.

# %%
if FILE:
    fit = bu.fit(bu.models.ProbabilisticPCA(8), bu.load(FILE), mask="finite")
    print(fit.diagnostics.attrs["verdict"], bu.check(fit).attrs["verdict"], sep="\n")
    bu.plot.components(fit)
    plt.show()

# %% [markdown]
# ## What could be wrong
#
# - **Noise that is not even.** One level for all channels is assumed; `noise="diagonal"` gives each its own, and
#   `noise="two-way"` is for counts. With the wrong choice a bright line's shot noise passes for a component.
# - **Components are not phases.** They are orthogonal and change sign. Only the subspace means something where two
#   of them explain about the same variance.
# - **Fine structure that is in few pixels** is shrunk towards the mean, because it is not distinguishable from
#   noise in so small a share of the variance. The error bars say so; a denoised picture alone would not.
# - **The truth here is a mixture**, so a low rank is right. With shifts of the energy axis no low rank is.
