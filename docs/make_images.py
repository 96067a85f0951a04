"""Draw the picture of the README: `python docs/make_images.py`, from the root of a checkout."""

from __future__ import annotations

from pathlib import Path

import matplotlib

import bayesunmix as bu
from bayesunmix.data.simulators import core_shell

matplotlib.use("Agg")
image, truth = core_shell(shape=(32, 32), n_channels=96)
fit = bu.fit(bu.models.LinearUnmixing(n_endmembers=3), image, seed=0)
figure = bu.plot.maps(fit, truth=truth)
figure.savefig(Path(__file__).parent / "images" / "demo.png", dpi=220)
