"""Marginal likelihood of a linear mixture with normal noise: abundances on the simplex, integrated out.

    a_n ~ Dirichlet(alpha)                        abundances of unit n, K parts
    y_np ~ Normal(sum_k a_nk W_kp, sigma_p)       channel p

The integral over ``a_n`` is taken by importance sampling around its mode with points of the unit's own
(:mod:`bayesunmix.distributions.simplex`).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from numpyro.distributions import constraints

from bayesunmix.distributions import simplex
from bayesunmix.distributions.curvature import curvature
from bayesunmix.distributions.information import information, layered
from bayesunmix.distributions.mixed_spectra import Curved, MixedSpectra
from bayesunmix.distributions.moments import moments
from bayesunmix.distributions.nodes import nodes, one_each
from bayesunmix.distributions.one_face import FreeNormal
from bayesunmix.distributions.unmixing_rule import Rule, with_channels
from bayesunmix.distributions.weighted import WeightedPoints

_LOG_2PI = 1.8378770664093453


class NormalUnmixing(MixedSpectra):
    """Normal linear mixture with the abundances integrated over the simplex.

    Parameters
    ----------
    endmembers : (K, channel)
    concentration : (K,), optional
        Dirichlet concentration of the abundances; uniform on the simplex when not given, which is cheaper than ones.
    noise_scale : scalar or (channel,)
        Standard deviation of the noise, in the units of the data.
    n_points : int, optional
        Integration points per unit; :func:`simplex.default_points` of K when not given.
    n_pooled : int, optional
        Channels that the last one stands for: it holds the root of their sum of squares, and no endmember.
    """

    arg_constraints = {  # noqa: RUF012 (the name and type are NumPyro's)
        "endmembers": constraints.independent(constraints.real, 2),
        "concentration": constraints.independent(constraints.positive, 1),
        "noise_scale": constraints.positive,
    }
    widens_data = True  # which may be of single precision beside parameters of double
    pytree_data_fields = ("endmembers", "concentration", "noise_scale")
    pytree_aux_fields = ("n_points", "n_pooled")

    def __init__(self, endmembers, concentration, noise_scale, *, n_points=None, n_pooled=1, validate_args=None):
        self.endmembers = jnp.asarray(endmembers)
        self.concentration = None if concentration is None else jnp.asarray(concentration)
        self.noise_scale = jnp.asarray(noise_scale)
        self.n_points = n_points or simplex.default_points(self.endmembers.shape[0], concentration is None)
        self.n_pooled = n_pooled
        super().__init__((), self.endmembers.shape[-1:], validate_args=False)

    def expand(self, batch_shape):
        """Same distribution for every unit of ``batch_shape``; the parameters stay shared."""
        points, pooled = self.n_points, self.n_pooled
        new = NormalUnmixing(self.endmembers, self.concentration, self.noise_scale, n_points=points, n_pooled=pooled)
        new._batch_shape = tuple(batch_shape)
        return new

    # ------------------------------------------------------------------ the marginal likelihood

    def rule(self, value, key, index, *, n_points=None) -> Rule:
        """Integration rule of every unit at these parameters.

        ``value`` (units, channel); ``key`` and ``index`` (units,) pick the unit's own points.
        """
        gram, linear = self._natural(value)
        n_parts = len(self.endmembers)
        centre = jnp.full_like(linear, 1.0 / n_parts)
        local = simplex.quadratic(gram, linear)
        frame = simplex.frame(local, centre, self.concentration, key, index, n_points or self.n_points, gram=gram)
        return jax.lax.stop_gradient(Rule.of(frame, value, self.endmembers))

    def log_prob_on(self, rule: Rule):
        """Log marginal density of the units of ``rule`` (made at nearby parameters), shape (units,)."""
        pull, gram, at_centre = self._about(rule)
        return at_centre + simplex.log_integral(rule.frame, pull, gram, self.concentration)

    def _shapes(self):
        """Endmembers about their mean, (K, channel): abundances sum to one, so that the integrand sees nothing else.

        What all endmembers share, such as a background, would cancel in its quadratic form only to rounding.
        """
        return self.endmembers - self.endmembers.mean(0)

    def _natural(self, value):
        """What the integrand takes from a unit: gram (K, K), and linear (K, units) about the mean endmember."""
        shapes = self._shapes()
        weighted = shapes / self.noise_scale**2
        return weighted @ shapes.T, with_channels(weighted, value, self.endmembers.mean(0))

    def _about(self, rule: Rule):
        """Linear (K, units) and quadratic (K, K) coefficients of the integrand at the centre, and its log there."""
        precision = jnp.broadcast_to(self.noise_scale**-2.0, self.event_shape)
        shapes = self._shapes()
        weighted = shapes * precision
        moved = self.endmembers - rule.reference
        centre = rule.frame.centre
        # The residual at these parameters is that of the rule less centre' moved; it enters through small products, two
        # of them at once.
        pull, cross = jnp.split(rule.pulled(jnp.concatenate([weighted, moved * precision])), 2)
        pull = pull - (weighted @ moved.T) @ centre
        by_channel = self.noise_scale.ndim > 0
        chi2 = rule.weighted_squares(precision) if by_channel else rule.squares * self.noise_scale**-2.0
        chi2 = chi2 - 2.0 * (centre * cross).sum(0)
        chi2 = chi2 + (centre * (((moved * precision) @ moved.T) @ centre)).sum(0)
        more = self.n_pooled - 1
        at_centre = (
            0.5 * (jnp.log(precision).sum() + more * jnp.log(precision[-1]))
            - 0.5 * (self.event_shape[0] + more) * _LOG_2PI
            - 0.5 * chi2
            + simplex.log_dirichlet_constant(self._exponents())
        )
        return pull, weighted @ shapes.T, at_centre

    # ------------------------------------------------------------------ the latent

    def conditional_on(self, rule: Rule) -> WeightedPoints:
        """Distribution of the abundances given the data, on the points of a rule made at nearby parameters."""
        pull, gram, _ = self._about(rule)
        found = nodes(rule.frame, pull, gram, self.concentration)
        return WeightedPoints(found.points, found.weights)

    def draw_on(self, rule: Rule, key):
        """One draw of every unit's abundances given the data, (units, K): from points only where those are needed."""
        if rule.frame.near is None:
            return self.conditional_on(rule).sample(key)
        pull, gram, _ = self._about(rule)
        return one_each(rule.frame, pull, gram, key).T

    def without_faces(self, value) -> FreeNormal:
        """The normal distribution of the abundances given the data ``value`` (units, channel) that faces cut off."""
        n_parts = len(self.endmembers)
        if n_parts == 1 or self.concentration is not None:
            middle = jnp.full((len(value), n_parts), 1.0 / n_parts)
            return FreeNormal(middle, jnp.zeros((n_parts, n_parts)), applies=False)
        gram, linear = self._natural(value)
        covariance = simplex.covariance(gram)
        mean = 1.0 / n_parts + covariance @ (linear - gram.mean(1)[:, None])
        return FreeNormal(mean.T, covariance, applies=True)

    def emission(self, latent):
        """p(y | abundances, parameters) for ``latent`` (..., K): a normal, channels as event."""
        return dist.Normal(latent @ self.endmembers, self.noise_scale).to_event(1)

    def latent_prior(self):
        """Prior of one unit's abundances."""
        return dist.Dirichlet(self._exponents())

    def sample_with_latent(self, key, sample_shape=()):
        """Data and the abundances that made them."""
        key_latent, key_data = jax.random.split(key)
        latent = self.latent_prior().sample(key_latent, tuple(sample_shape) + self.batch_shape)
        return self.emission(latent).sample(key_data), latent

    @property
    def variance(self):
        total = self._exponents().sum()
        share = self._exponents() / total
        spread = share @ self.endmembers**2 - (share @ self.endmembers) ** 2
        return jnp.broadcast_to(spread / (total + 1.0) + self.noise_scale**2, self.batch_shape + self.event_shape)

    def layers_on(self, rule: Rule):
        """Sums over units from which :meth:`layers` makes slope and curvature in the endmembers and one noise level."""
        pull, gram, _ = self._about(rule)
        found = moments(rule.frame, pull, gram, self.concentration)
        return information(self.endmembers, rule, found)

    @staticmethod
    def layers(parameters, sums):
        """See :func:`bayesunmix.distributions.information.layered`."""
        return layered(parameters["endmembers"], parameters["noise_scale"], sums)

    def curvature_on(self, rule: Rule, wanted=("endmembers",)) -> Curved:
        """Gradient and Hessian of ``log_prob_on(rule).sum()`` in noise_scale, a given concentration and, if among
        those ``wanted``, the endmembers; without what a second face takes of units in closed form that parameters far
        from the rule's own carried past it.

        See :func:`bayesunmix.distributions.curvature.curvature`.
        """
        pull, gram, _ = self._about(rule)
        found = moments(rule.frame, pull, gram, self.concentration)
        parameters = (self.endmembers, self.concentration, self.noise_scale)
        both = curvature(*parameters, rule.value, found, free="endmembers" in wanted, n_pooled=self.n_pooled)
        return Curved(*both, found.mean[: len(self.endmembers)].sum(1))
