"""Maps on the atoms: the right atoms in the right colours, arrows that end where the displacement does."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import xarray as xr

import bayesunmix as bu
from bayesunmix.data.lattices import atom_image, off_centred_lattice
from bayesunmix.plot.style import colour


@pytest.fixture
def drawn() -> tuple[SimpleNamespace, xr.Dataset, xr.DataArray]:
    """Neighbour vectors with an image, and a stand-in for their fit: known shares, one atom incomplete."""
    atoms, truth = off_centred_lattice((5, 5), "two-phase", seed=1)
    vectors = bu.descriptors.neighbour_vectors(atoms, 4, species=("centre", "cage"))
    vectors["complete"][0] = False
    vectors["vector"][0, :2] = np.nan
    label = truth["label"].values[vectors["index"].values]
    share = np.where(np.eye(2)[label] > 0, 0.9, 0.1)
    share[0] = np.nan
    values = np.repeat(share[..., None], 2, axis=-1)
    entropy = -(share * np.log(share)).sum(1)
    latent = xr.Dataset(
        {
            "membership": (("atom", "component", "statistic"), values),
            **{n: ("atom", entropy) for n in ("entropy", "entropy_noise", "mutual_information")},
        },
        {"statistic": ["mean", "sd"]},
    )
    fit = SimpleNamespace(latent=lambda: latent, model=SimpleNamespace(latent="membership"))
    image = atom_image(atoms["position"].values, (112, 112), seed=1)
    return fit, vectors, image


def test_atoms_with_the_ellipses_of_their_errors(drawn) -> None:
    _, _, image = drawn
    atoms, _ = off_centred_lattice((5, 5), "two-phase", seed=1)
    ax = bu.plot.atoms(atoms, scale=2.0, image=image)
    marks, ellipses = ax.collections
    for drawn_at in (marks, ellipses):
        np.testing.assert_allclose(np.asarray(drawn_at.get_offsets()), atoms["position"].values[:, ::-1])
    area = np.pi / 4 * ellipses.get_widths()[3] * ellipses.get_heights()[3]
    cov = atoms["position_cov"].values[3]
    assert area == pytest.approx(np.pi * 4.605 * 4.0 * np.sqrt(np.linalg.det(cov)), rel=1e-6)
    assert ax.get_title(loc="left") == "90 % ellipses, 2 × enlarged"
    assert len(ax.images) == 1
    height = xr.DataArray(np.arange(atoms.sizes["atom"]), dims="atom", name="amplitude", attrs={"units": "counts"})
    coloured = bu.plot.atoms(atoms.drop_vars("position_cov"), values=height)
    np.testing.assert_array_equal(coloured.collections[0].get_array(), height)
    assert coloured.figure.axes[1].get_ylabel() == "amplitude (counts)"


def test_classes_in_their_colours_over_the_image(drawn) -> None:
    import matplotlib.colors as mcolors

    fit, vectors, image = drawn
    ax = bu.plot.classes(fit, vectors, image=image)
    ax.figure.canvas.draw()
    share = fit.latent()["membership"].sel(statistic="mean").values
    for k, marks in enumerate(ax.collections[:4:2]):
        here = share.argmax(1) == k
        here &= np.isfinite(share).all(1)
        np.testing.assert_allclose(np.asarray(marks.get_offsets()), vectors["position"].values[here][:, ::-1])
        assert marks.get_facecolors()[0, :3] == pytest.approx(mcolors.to_rgb(colour(k)))
    assert len(ax.images) == 1 and ax.get_ylim()[0] > ax.get_ylim()[1]
    left, right, bottom, top = ax.images[0].get_extent()
    assert (left, right, bottom, top) == (-0.5, 111.5, 111.5, -0.5)
    assert [t.get_text() for t in ax.get_legend().get_texts()][-1] == "incomplete"


def test_entropy_on_every_atom(drawn) -> None:
    fit, vectors, _ = drawn
    ax = bu.plot.membership_entropy(fit, vectors)
    found = np.ma.filled(ax.collections[0].get_array(), np.nan)
    np.testing.assert_allclose(found, fit.latent()["entropy"].values)
    with pytest.raises(ValueError, match="part"):
        bu.plot.membership_entropy(fit, vectors, part="all")


def test_arrows_and_ellipses_of_displacements(drawn) -> None:
    fit, vectors, _ = drawn
    ax = bu.plot.displacements(fit, vectors, scale=3.0)
    moved = bu.descriptors.off_centring(vectors)
    ellipses, arrows = ax.collections
    np.testing.assert_allclose(arrows.U, 3.0 * moved["displacement"].values[1:, 1])
    np.testing.assert_allclose(arrows.V, 3.0 * moved["displacement"].values[1:, 0])
    tip = vectors["position"].values[1:] + 3.0 * moved["displacement"].values[1:]
    np.testing.assert_allclose(np.asarray(ellipses.get_offsets()), tip[:, ::-1])
    # Area of the 90 % ellipse, and its long axis along the direction of the largest error.
    cov = moved["displacement_cov"].values[1]
    wide, high = ellipses.get_widths()[0], ellipses.get_heights()[0]
    assert np.pi / 4 * wide * high == pytest.approx(np.pi * 4.605 * 9.0 * np.sqrt(np.linalg.det(cov)), rel=1e-6)
    turn = np.deg2rad(ellipses.get_angles()[0])
    along = np.array([np.sin(turn), np.cos(turn)])
    assert along @ cov @ along == pytest.approx(np.linalg.eigvalsh(cov)[1], rel=1e-6)
    ax.figure.canvas.draw()


def test_other_vectors_are_refused(drawn) -> None:
    fit, vectors, _ = drawn
    with pytest.raises(ValueError, match="expected the 25 atoms"):
        bu.plot.classes(fit, vectors.isel(atom=slice(5)))
