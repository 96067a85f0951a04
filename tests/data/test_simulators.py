"""The simulated image keeps its promises: sums, shapes, seeds, and noise of the size it states."""

from __future__ import annotations

import numpy as np
import pytest

from bayesunmix.data.simulators import core_shell


def test_shapes_dims_and_units() -> None:
    image, truth = core_shell((10, 14), 20)
    assert image.dims == ("y", "x", "energy")
    assert image.shape == (10, 14, 20)
    assert image.coords["x"].attrs["units"] == "nm"
    assert image.coords["energy"].attrs["units"] == "eV"
    assert image.attrs["units"]
    assert dict(truth["endmembers"].sizes) == {"endmember": 3, "energy": 20}
    assert truth["abundance"].dims == ("y", "x", "endmember")


@pytest.mark.parametrize("shape", [(48, 48), (12, 12), (9, 30), (40, 8)])
def test_abundances_lie_on_the_simplex(shape: tuple[int, int]) -> None:
    abundance = core_shell(shape, 8)[1]["abundance"].values
    assert abundance.min() >= 0
    np.testing.assert_allclose(abundance.sum(axis=-1), 1, atol=1e-12)


def test_no_pixel_is_pure_but_every_phase_has_nearly_pure_ones() -> None:
    purest = core_shell()[1]["abundance"].max(("y", "x"))
    assert (purest > 0.9).all()
    assert purest.sel(endmember="core") < 0.98


def test_shells_surround_cores() -> None:
    """Going out from the centre of the large particle: core, then shell, then film."""
    _, truth = core_shell((96, 96), 8)
    outward = truth["abundance"].isel(y=33).sel(x=slice(33 * 1.5, None))
    phases = outward.idxmax("endmember").values.tolist()
    assert list(dict.fromkeys(phases))[:3] == ["core", "shell", "film"]


def test_the_scene_is_the_same_at_every_resolution() -> None:
    coarse = core_shell((24, 24), 8)[1]["abundance"].values
    fine = core_shell((48, 48), 8)[1]["abundance"].values.reshape(24, 2, 24, 2, 3).mean(axis=(1, 3))
    assert np.abs(coarse - fine).mean() < 0.02


def test_spectra_are_positive_and_none_is_a_mixture_of_the_others() -> None:
    spectra = core_shell()[1]["endmembers"].values
    assert spectra.min() > 0
    scaled = spectra / np.linalg.norm(spectra, axis=1, keepdims=True)
    assert np.linalg.svd(scaled, compute_uv=False)[-1] > 0.1


def test_truth_and_noise_make_the_data() -> None:
    """Chi-square about the truth has mean N and variance 2N; 5 standard deviations are sure."""
    image, truth = core_shell((24, 24), 64, seed=3)
    residual = image - truth["abundance"] @ truth["endmembers"]
    z = (residual / truth["noise_scale"]).values.ravel()
    assert abs((z**2).sum() - z.size) < 5 * np.sqrt(2 * z.size)
    assert abs(z.mean()) < 5 / np.sqrt(z.size)


@pytest.mark.parametrize("snr_db", [15.0, 25.0])
def test_signal_to_noise_is_as_asked(snr_db: float) -> None:
    _, truth = core_shell((12, 12), 24, snr_db=snr_db)
    signal = (truth["abundance"] @ truth["endmembers"]).values
    found = 10 * np.log10(np.mean(signal**2) / float(truth["noise_scale"]) ** 2)
    assert found == pytest.approx(snr_db)


def test_the_seed_decides_the_noise_and_nothing_else() -> None:
    (a, truth_a), (b, _), (c, truth_c) = (core_shell((8, 8), 16, seed=s) for s in (1, 1, 2))
    assert a.identical(b)
    assert not np.any(a.values == c.values)
    assert truth_a["abundance"].identical(truth_c["abundance"])


@pytest.mark.parametrize(("shape", "n_channels"), [((3, 20), 32), ((20,), 32), ((20, 20), 4)])
def test_sizes_too_small_for_the_scene(shape: tuple[int, ...], n_channels: int) -> None:
    with pytest.raises(ValueError, match=r"at least|two sizes"):
        core_shell(shape, n_channels)  # type: ignore[arg-type]
