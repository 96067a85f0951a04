"""A large image with endmembers unknown: the default fit, its memory, and its calibration."""

from __future__ import annotations

from benchmarks.harness import Contender, Workload
from benchmarks.simulated import cube
from benchmarks.workloads import unmixing

WORKLOAD = Workload(
    title="Unmixing of a large image",
    problem=cube,
    contenders=(
        Contender("bayesunmix", unmixing.ours, note="`bu.fit` with its defaults, and `fit.latent`"),
        Contender("bayesunmix, fit alone", unmixing.ours_without_maps, headline=False),
        Contender("HyperSpy NMF", unmixing.hyperspy_nmf, note="points, without uncertainty"),
    ),
    score=unmixing.score,
    sizes={
        "full": {"side": 256, "channels": 1024, "n_endmembers": 6},
        "short": {"side": 32, "channels": 128, "n_endmembers": 3},
    },
)
