"""Settings of the two methods of inference."""

from __future__ import annotations

from dataclasses import dataclass, fields
from numbers import Integral, Real
from typing import Any

FEWEST_DRAWS = 4  # to be told anything from
_SMALLEST = 32  # sample of units


@dataclass(frozen=True)
class SVI:
    """Variational inference with a Gaussian guide that keeps every correlation of the globals.

    The guide starts at the mode and its curvature; its location and marginal widths then follow the gradient
    of the ELBO. Of few globals, draws are weighted to the posterior where the guide lacks its tails or its lean; of
    many, where it fails its check, along the few directions most at odds
    (:mod:`bayesunmix.inference.importance`).

    Parameters
    ----------
    draws : int
        Posterior draws to keep.
    steps : int
        Most gradient steps on the ELBO; it stops earlier when the ELBO no longer rises.
    samples : int
        Guide samples a step, taken in antithetic pairs (even).
    learning_rate : float
        Of gradient descent in whitened coordinates, where 1 would be Newton's step.
    sample_if_needed : bool
        Where the guide fails its own check (a posterior that is not Gaussian, as for nearly noise-free data whose
        simplex has sharp walls) and weights do not mend it, sample with NUTS in the guide's coordinates, as many
        draws. With False, where a chain takes more than 40 000 gradients, and where more than nine samples' units
        stand for themselves or classes overlap in so many (see ``batch``), the failed guide is returned as it is, and
        marked.
    batch : int
        An image of more than twice as many units is represented by a random sample of this size (up to four times as
        many where a unit is a few numbers), corrected to the value, slope and curvature that all units give at the
        mode (:mod:`bayesunmix.inference.whole`), and the guide is checked on another such sample. So a file larger
        than memory is read a handful of times. With normal noise pixels near a face of the simplex are added, each
        standing for itself. Where two samples do not agree on the posterior larger ones are taken, up to some 30 000
        units, or all units where they are few. Of a mixture in memory whose sample is too rough for that, as of classes
        that overlap, all units are climbed, and the sample is corrected wherever the guide then is
        (:mod:`bayesunmix.inference.overlapping`).
    """

    draws: int = 1000
    steps: int = 200
    samples: int = 4
    learning_rate: float = 0.3
    sample_if_needed: bool = True
    batch: int = 4096

    def __post_init__(self) -> None:
        _check(self)
        if self.samples % 2:
            raise ValueError(f"samples: expected an even number (antithetic pairs), got {self.samples}")
        if self.batch < _SMALLEST:
            raise ValueError(f"batch: expected at least {_SMALLEST} units, to stand for all of them, got {self.batch}")


@dataclass(frozen=True)
class NUTS:
    """No-U-turn sampling of the globals, whitened by the curvature at the mode.

    Parameters
    ----------
    draws, warmup : int
        Per chain.
    chains : int
    target_accept : float
        Acceptance the step size is tuned to.
    max_tree_depth : int
    """

    draws: int = 500
    warmup: int = 500
    chains: int = 2
    target_accept: float = 0.8
    max_tree_depth: int = 10

    def __post_init__(self) -> None:
        _check(self)
        if not self.target_accept < 1:
            raise ValueError(f"target_accept: expected a number between 0 and 1, got {self.target_accept}")


@dataclass(frozen=True)
class Gibbs:
    """The model's own exact sampler, for models that have one.

    Parameters
    ----------
    draws : int
        To keep, per chain.
    warmup : int
        Sweeps before the first of them.
    chains : int
        Run side by side.
    most_thin : int
        Where chains do not agree yet, sampling starts again from where they are and keeps every second, fourth,
        ... sweep, up to one in this many.
    """

    draws: int = 250
    warmup: int = 100
    chains: int = 4
    most_thin: int = 128

    def __post_init__(self) -> None:
        _check(self)


_KINDS: dict[str, tuple[Any, str]] = {"int": (Integral, "integer"), "float": (Real, "number")}


def _check(settings) -> None:
    """Numbers are positive, and draws enough to be told something from."""
    for entry in fields(settings):
        if entry.type not in _KINDS:
            continue
        kind, called = _KINDS[entry.type]
        value = getattr(settings, entry.name)
        if isinstance(value, bool) or not (isinstance(value, kind) and value > 0):
            raise ValueError(f"{entry.name}: expected a positive {called}, got {value!r}")
    if settings.draws < FEWEST_DRAWS:
        raise ValueError(
            f"draws: expected at least {FEWEST_DRAWS}, for a mean, intervals and two halves to compare, got "
            f"{settings.draws}"
        )
