"""Log likelihood of one long sequence under a hidden Markov model, in float64, on one thread."""

from __future__ import annotations

import dataclasses

from benchmarks.workloads import chains_batch

WORKLOAD = dataclasses.replace(
    chains_batch.WORKLOAD,
    title=f"Hidden Markov likelihood, one long sequence ({chains_batch.CALLS} calls)",
    sizes={"full": {"sequences": 1, "steps": 100_000}, "short": {"sequences": 1, "steps": 10_000}},
)
