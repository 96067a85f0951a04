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
# # Local crystallography of a ferroelectric
#
# In a ferroelectric perovskite the central column of each cell sits off its centre. In which direction, and where
# are the walls between domains? From an image to atoms with error ellipses, to neighbour vectors with the
# covariance those errors imply, to classes with probabilities.

# %%
import os

import jax
import matplotlib.pyplot as plt

import bayesunmix as bu
from bayesunmix.data.lattices import atom_image, off_centred_lattice

TINY = os.environ.get("BAYESUNMIX_NOTEBOOKS") == "tiny"  # a rehearsal: small data, the same cells
FILE = os.environ.get("BAYESUNMIX_FILE")  # or write the path of an image of atom columns, two species here
print(f"Runs on: {jax.devices()[0].device_kind} ({jax.default_backend()}), {'tiny' if TINY else 'full'} budget")

# %% [markdown]
# ## An image, and the atoms in it
#
# Simulated: four variants of off-centring, thermal and static scatter, and a dose at which positions are good to a
# fraction of a pixel. The two species differ in brightness.

# %%
cells = (7, 7) if TINY else (20, 20)
placed, truth = off_centred_lattice(cells, "four-variant", displacement=1.5, scatter=0.25, seed=3)
bright = (placed["species"] == "cage").values
shape = tuple(int(16 * (n + 2)) for n in cells)
if FILE:
    image = bu.load(FILE)
else:
    heights = 0.6 + 0.4 * bright
    image = atom_image(truth["position"].values, shape, amplitude=heights, width=2.0, dose=60.0, seed=4)
found = bu.descriptors.find_atoms(image, noise="normal" if FILE else "poisson")
height = found["amplitude"]
middle = (float(height.quantile(0.05)) + float(height.quantile(0.95))) / 2
atoms = found.assign(species=("atom", ["cage" if h > middle else "centre" for h in height.values]))
print(found.sizes["atom"], "atoms found;", placed.sizes["atom"], "were put there")
bu.plot.atoms(atoms, image=image)
plt.show()

# %% [markdown]
# ## Neighbour vectors and their classes
#
# Each central atom is described by the vectors to its four corners: eight numbers with a known 8 × 8 covariance,
# from the position errors. `covariance="positions"` says that every atom scatters around its place on its own,
# which leaves four numbers a class.

# %%
vectors = bu.descriptors.neighbour_vectors(atoms, 4, species=("centre", "cage"))
model = bu.models.GaussianMixture(4, covariance="tied-spherical" if TINY else "positions")
fit = bu.fit(model, vectors, seed=0)
print(fit.converged, fit.diagnostics.attrs["verdict"])

# %%
bu.plot.classes(fit, vectors, image=image)
plt.show()

# %% [markdown]
# ## Displacements, with ellipses of their errors
#
# The off-centring of every cell. An arrow shorter than its ellipse is no polarisation.

# %%
bu.plot.displacements(fit, vectors)
plt.show()

# %% [markdown]
# ## Where is the class uncertain, and why?
#
# Entropy in two parts: `entropy_noise` would shrink with better positions of this atom, `mutual_information` with
# more atoms. Uncertain cells along walls are what one expects; uncertain cells inside a domain are worth a look.

# %%
bu.plot.membership_entropy(fit, vectors)
plt.show()

# %% [markdown]
# ## Are there four classes?
#
# Neighbouring cells share atoms, so that only a part of them counts as independent evidence: of this crystal, 14 × 14
# cells would have been too few to tell four classes from three.

# %%
grid = (1, 4) if TINY else (1, 2, 3, 4, 5)
fits = {f"{n} classes": bu.fit(bu.models.GaussianMixture(n, covariance=model.covariance), vectors, progress=False)
        for n in grid if n != 4} | {"4 classes": fit}  # fmt: skip
table = bu.compare(fits)
print(table.attrs["verdict"])
bu.plot.comparison(table)
plt.show()

# %% [markdown]
# ## What could be wrong
#
# - **Atoms are shared.** Two neighbouring cells share corners, so their vectors are not independent. Parameters are
#   inferred from cells that share no atom, which costs precision on small images; classes are told for all.
# - **Scan distortion and drift** move rows of atoms together: a false strain that follows the fast or slow scan
#   axis.
# - **Tilt** of the specimen shifts the apparent columns of the two species apart, everywhere alike. It adds the
#   same vector to all classes: the classes stay, the polarisation does not.
# - **A mixture assumes classes.** A polarisation that turns continuously is cut into pieces by any number of them.
#   Look at the arrows first.
# - **Position errors come from the counts.** Overlapping columns and an uneven background add errors that are not
#   in the ellipses.
