"""What counts as a number of something."""

from __future__ import annotations

import numpy as np
import pytest

import bayesunmix as bu
from bayesunmix._counts import as_count


@pytest.mark.parametrize("value", [True, 0, -1, 2.0, "2", None, np.float64(3)])
def test_what_is_no_count_is_named(value: object) -> None:
    with pytest.raises(ValueError, match=r"states: expected an integer of at least 1, got"):
        as_count("states", value)


def test_integers_of_any_kind_are_counts() -> None:
    assert as_count("states", np.int32(3)) == 3
    assert as_count("states", 0, least=0) == 0


@pytest.mark.parametrize(
    "model",
    [
        bu.models.LinearUnmixing,
        bu.models.ProbabilisticPCA,
        bu.models.GaussianMixture,
        bu.models.VonMisesMixture,
        bu.models.HiddenMarkovModel,
        bu.models.MarkovChain,
    ],
)
def test_no_model_takes_true_for_one(model: type) -> None:
    with pytest.raises(ValueError, match=r"^n_\w+: expected an integer of at least \d, got True"):
        model(True)
