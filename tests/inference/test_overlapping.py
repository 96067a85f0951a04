"""Guides of classes that overlap so far that no sample of the vectors has the shape of all."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bayesunmix.inference import diagnostics, overlapping
from bayesunmix.inference.guide import Guide
from bayesunmix.inference.guide_check import check_guide
from bayesunmix.inference.mode import Mode
from bayesunmix.inference.overlapping import Followed, guide_of_all
from bayesunmix.inference.program import Program, compile_model, unconstrain
from bayesunmix.inference.run import _matcher
from bayesunmix.inference.sampled import mode_of_all
from bayesunmix.inference.target import as_device_data, slopes_at
from bayesunmix.inference.whole import Whole
from bayesunmix.models import GaussianMixture


class Overlap(NamedTuple):
    model: GaussianMixture
    program: Program
    whole: Whole
    starts: list[np.ndarray]


def overlap(count: int, distance: float) -> Overlap:
    """Two round classes in the plane, in chunks of fifty; call in double precision."""
    rng = np.random.default_rng(0)
    y = distance * rng.integers(2, size=(count, 1)) * np.array([1.0, 0.0]) + rng.normal(size=(count, 2))
    model = GaussianMixture(2, covariance="spherical").bind(y)
    program, numbers = compile_model(model, jnp.asarray(y[:2]))
    first, second = (
        np.asarray(unconstrain(program, numbers, model.initial(part), jnp.asarray(y[:2]), {})) for part in (y, y[1::2])
    )
    return Overlap(model, program, Whole(program, numbers, y, {}, 50), [first, second])


@pytest.mark.parametrize(("count", "sampled"), [(8000, True), (800, False)])
def test_a_guide_of_classes_that_overlap_is_the_posterior_of_all_units(count: int, sampled: bool) -> None:
    """Its means and widths are those of draws that all units weight, whether a sample stands for these or they do."""
    key = jax.random.key(0)
    with jax.enable_x64(True):
        model, program, whole, starts = overlap(count, 2.5 if sampled else 3.0)
        assert mode_of_all(program, whole, starts[0], key)[0].contradicted == sampled
        found, best = guide_of_all(program, whole, starts, key, None, _matcher(program, model))
        assert found.alone and best.faults == []
        assert (found.data.rest is not None) == sampled
        every = whole.every()[0]
        white = np.random.default_rng(1).standard_normal((2000, program.size)) * 1.1
        heights = slopes_at(program, best.guide.place(white), every)[0] + 0.5 * (white**2).sum(1) / 1.1**2
    weight = np.exp(heights - heights.max())
    weight /= weight.sum()
    assert 1.0 / (weight**2).sum() > 500  # so that errors are about .05
    mean = weight @ white
    width = np.sqrt(weight @ (white - mean) ** 2)
    np.testing.assert_allclose(mean, 0.0, atol=0.3)
    np.testing.assert_allclose(width, 1.0, atol=0.2)


@pytest.mark.parametrize("away", [0.0, 1.0])
def test_two_starts_that_end_apart_are_told(away: float, monkeypatch: Any) -> None:
    """Whatever their labels; and the one of the higher evidence is taken, whichever start it is from."""
    key = jax.random.key(0)
    with jax.enable_x64(True):
        model, program, whole, (first, _) = overlap(800, 3.0)
        data = whole.every()[0]
        swapped = _swapped(program, model, first + 0.1 * away, data)
        guides = {at: Guide(z, np.ones_like(z), 0.05 * np.eye(len(z))) for at, z in enumerate((first, swapped))}
        seen = [check_guide(program, guides[at], data, key) for at in guides]
        heights = [one.elbo + 0.5 * one.excess for one in seen]
        for order in ((0, 1), (1, 0)):
            turns = iter(order)
            monkeypatch.setattr(
                overlapping,
                "_followed",
                lambda *_: Followed(guides[at := next(turns)], data, seen[at], True),  # noqa: B023
            )
            mode, best = guide_of_all(program, whole, [first, first], key, None, _matcher(program, model))
            assert mode.alone == (away == 0.0)
            if away:
                near = np.abs(best.guide.location - guides[int(np.argmax(heights))].location).max()
                assert near < np.abs(best.guide.location - guides[int(np.argmin(heights))].location).max()
            failures = diagnostics.of_guide(mode, np.zeros(1), True, best.checked, []).failures
            assert [text[:10] for text in failures] == ([] if mode.alone else ["two starts"])


def _swapped(program: Program, model: GaussianMixture, z: np.ndarray, data: Any) -> np.ndarray:
    values = program.evaluate(data.numbers, jnp.asarray(z), data.y, data.covariates).values
    other = {name: value[::-1] for name, value in values.items()}
    return np.asarray(unconstrain(program, data.numbers, other, data.y, data.covariates))


def test_labels_are_put_in_the_order_of_another_place() -> None:
    """Of three, so that an order and its inverse are told apart."""
    y = np.random.default_rng(0).normal(size=(9, 2))
    with jax.enable_x64(True):
        model = GaussianMixture(3, covariance="spherical").bind(y)
        program, numbers = compile_model(model, jnp.asarray(y))
        data = as_device_data(program, numbers, y, {})
        values = {"weights": [0.2, 0.3, 0.5], "means": [[0.0, 1.0], [2.0, 0.0], [0.0, -2.0]], "scales": [1.0, 0.5, 2.0]}

        def place(order: list[int]) -> np.ndarray:
            turned = {name: np.array(value)[order] for name, value in values.items()}
            return np.asarray(unconstrain(program, numbers, turned, data.y, {}))

        found = _matcher(program, model)(place([2, 0, 1]), place([0, 1, 2]), data)
        np.testing.assert_allclose(found, place([0, 1, 2]), atol=1e-9)


def test_guides_without_numbers_are_no_answer(monkeypatch: Any) -> None:
    """They come to an end, with draws that are numbers and a verdict."""
    key = jax.random.key(0)
    with jax.enable_x64(True):
        _, program, whole, (first, _) = overlap(800, 3.0)
        nothing = np.full((program.size,) * 2, np.nan)
        after = iter([False, *[True] * 100])
        real = overlapping.curvature
        monkeypatch.setattr(
            overlapping, "curvature", lambda *a: (np.zeros(program.size), nothing) if next(after) else real(*a)
        )
        mode, best = guide_of_all(program, whole, [first], key)
    assert isinstance(mode, Mode) and not best.settled
    assert np.isfinite(best.guide.place(np.ones(program.size))).all()
