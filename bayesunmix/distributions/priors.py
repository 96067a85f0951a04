"""Priors whose unconstrained coordinate suits a Gaussian guide."""

from __future__ import annotations

import jax.numpy as jnp
import numpyro.distributions as dist
from numpyro.distributions import constraints
from numpyro.distributions.transforms import (
    AffineTransform,
    ComposeTransform,
    PowerTransform,
    SoftplusTransform,
    biject_to,
)


class _NonNegative(constraints.Constraint):
    """Positive numbers that are resolved to about ``width``."""

    def __init__(self, width):
        self.width = width

    def __call__(self, x):
        return x > 0

    def feasible_like(self, prototype):
        return jnp.ones_like(prototype) * self.width

    def tree_flatten(self):
        return (self.width,), (("width",), {})


@biject_to.register(_NonNegative)
def _softplus_of_width(constraint):
    # Linear well above `width`, logarithmic well below: a posterior of that width is near-Gaussian in it, at the
    # boundary too.
    return ComposeTransform([SoftplusTransform(), AffineTransform(0.0, constraint.width, domain=constraints.positive)])


class _Counted(_NonNegative):
    """Positive numbers of which counts tell about ``width`` from zero."""


@biject_to.register(_Counted)
def _cube_of_softplus(constraint):
    # The cube root of a gamma variable is nearly normal (Wilson and Hilferty), whatever its shape: dark channels, whose
    # posterior is an exponential, and bright ones alike.
    cube = PowerTransform(3.0)
    return ComposeTransform(
        [SoftplusTransform(), cube, AffineTransform(0.0, constraint.width, domain=constraints.positive)]
    )


class HalfNormal(dist.HalfNormal):
    """Half-normal of scale ``scale``; ``width`` is the resolution at which values are told from zero.

    ``width`` changes the coordinate that inference uses, not the distribution: a softplus, or where ``counted`` (the
    data are counts, of which a value of ``width`` gives about one) the cube of one.
    """

    pytree_data_fields = ("width",)
    pytree_aux_fields = ("counted",)

    def __init__(self, scale, width, *, counted=False, validate_args=None):
        self.width, self.counted = width, counted
        super().__init__(scale, validate_args=validate_args)

    @constraints.dependent_property(is_discrete=False, event_dim=0)
    def support(self):
        return _Counted(self.width) if self.counted else _NonNegative(self.width)
