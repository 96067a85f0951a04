"""The page of a model whose units are sequences of states."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

import bayesunmix as bu
from bayesunmix.report.facts import gather
from bayesunmix.report.words import doubts


@pytest.fixture
def fit(hidden_chain) -> bu.Fit:
    return hidden_chain[0]


def test_a_page_about_hidden_states(fit: bu.Fit, tmp_path: Path) -> None:
    page = bu.report(fit, tmp_path / "report.html").read_text()
    dwell, share = bu.dwell_times(fit).values, bu.stationary_distribution(fit).values
    assert 'id="chain"' in page and 'id="maps"' not in page and "Dwell time (s)" in page
    for k in range(2):
        assert f"{dwell[k, 0]:.3g}" in page and f"{share[k, 2]:.3g} to {share[k, 3]:.3g}" in page
    assert page.count("data:image/png") == 7
    assert "by sequence" in page and "pixel" not in page.split("<main>")[1]


def test_memory_beyond_one_step_is_said_to_be_a_doubt(fit: bu.Fit) -> None:
    facts = gather(fit, None)
    assert facts.memory is not None and list(facts.memory["lag"].values) == [1, 2, 4, 8, 16]
    assert not any("one step of memory" in line for line in doubts(facts))
    doubtful = dataclasses.replace(facts, memory=facts.memory.assign_attrs(outside=0.5))
    assert "50" in doubts(doubtful)[0] and "one step of memory" in doubts(doubtful)[0]


def test_a_page_without_anything_to_click_says_why(tmp_path: Path) -> None:
    states = np.random.default_rng(0).integers(0, 2, (2, 60)).astype(float)
    fit = bu.fit(bu.models.MarkovChain(2), states, bu.Gibbs(draws=100, warmup=1), progress=False)
    page = bu.report(fit, tmp_path / "report.html").read_text()
    assert "There is no sequence to click here: every frame is the name of a state" in page
    assert "<script" not in page
