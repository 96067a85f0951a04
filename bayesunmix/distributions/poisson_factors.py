"""Marginal likelihood of the log-bilinear model of counts: scores and brightness integrated out.

    z_n ~ Normal(0, I)                       scores of unit n, K of them
    s_n ~ Gamma(c, c)                        brightness, of mean 1
    y_np ~ Poisson(s_n T pi_np)              channel p
    pi_n = softmax(m + z_n W),   T = sum_p exp(m_p)

The shares ``pi_n`` sum to one, so that the total of a unit is negative binomial and says nothing of the scores, and
given its total a unit is multinomial. The integral over the scores is taken on points around its mode; to first order
in W W' it is the correspondence analysis of the counts.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax.scipy.special import gammaln, logsumexp
from numpyro.distributions import constraints

from bayesunmix.distributions import normal_points
from bayesunmix.distributions.weighted import WeightedPoints

_LOG_2PI = 1.8378770664093453
_POPULATION_POINTS = 512  # behind mean and variance of a new unit
_CELLS = 2**21  # points times units times channels that are worked on together


class Rule(NamedTuple):
    """Units ready for evaluation: the frame of their integrals, and their data."""

    frame: normal_points.Frame
    value: jax.Array  # (units, channel)


class PoissonFactors(dist.Distribution):
    """Counts whose logarithm is a plane plus the brightness of the unit.

    Parameters
    ----------
    components : (K, channel)
        Loadings W of the logarithm, for scores of unit variance. K may be 0: rows and columns are then independent.
    mean : (channel,)
        Logarithm m of the counts at score 0 and brightness 1.
    brightness_shape : scalar
        Shape c of the brightness.
    n_points : int, optional
        Integration points per unit, even.
    """

    arg_constraints = {  # noqa: RUF012 (the name and type are NumPyro's)
        "components": constraints.independent(constraints.real, 2),
        "mean_": constraints.independent(constraints.real, 1),
        "brightness_shape": constraints.positive,
    }
    support = constraints.independent(constraints.nonnegative_integer, 1)
    pytree_data_fields = ("components", "mean_", "brightness_shape")
    pytree_aux_fields = ("n_points",)

    def __init__(self, components, mean, brightness_shape, *, n_points=None, validate_args=None):
        self.components, self.mean_ = jnp.asarray(components), jnp.asarray(mean)
        self.brightness_shape = jnp.asarray(brightness_shape)
        self.n_points = n_points or {0: 2, 1: 32, 2: 64}.get(len(self.components), 128)
        super().__init__((), self.components.shape[-1:], validate_args=False)

    def expand(self, batch_shape):
        """Same distribution for every unit of ``batch_shape``; the parameters stay shared."""
        new = PoissonFactors(self.components, self.mean_, self.brightness_shape, n_points=self.n_points)
        new._batch_shape = tuple(batch_shape)
        return new

    # ------------------------------------------------------------------ the marginal likelihood

    def log_prob(self, value, intermediates=None):
        """Log marginal density of every unit, ``value.shape[:-1]``."""
        units = jnp.asarray(value).reshape((-1, value.shape[-1]))
        rule = self.rule(units, jax.random.key(0), jnp.arange(len(units)))
        return self.log_prob_on(rule).reshape(value.shape[:-1])

    def rule(self, value, key, index, *, n_points=None) -> Rule:
        """Integration rule of every unit at these parameters; ``key`` and ``index`` pick the unit's own points."""
        value = jnp.asarray(value, self.mean_.dtype)
        size, count = len(self.components), n_points or self.n_points
        frame = normal_points.frame(
            lambda z: self._local(z, value), len(value), size, count, key, index, self.mean_.dtype
        )
        return jax.lax.stop_gradient(Rule(frame, value))

    @staticmethod
    def redraw(rule: Rule, key, index) -> Rule:
        """The same rule with fresh points, as many as before."""
        fresh = normal_points.shifts(key, index, rule.frame.shift.shape[1], rule.frame.shift.dtype)
        return rule._replace(frame=rule.frame._replace(shift=fresh))

    def log_prob_on(self, rule: Rule):
        """Log marginal density of the units of ``rule``, shape (units,); its points are moved to these parameters."""

        @jax.checkpoint
        def one(rule):
            _, log_weight, _ = self._weighted(rule)
            return logsumexp(log_weight, axis=0) - jnp.log(log_weight.shape[0])

        found = self._in_chunks(one, rule)
        total = rule.value.sum(1)
        constant = gammaln(rule.value + 1.0).sum(1)
        return found + self._log_total(total, jnp.exp(self.mean_).sum(), self.brightness_shape) - constant

    @staticmethod
    def _log_total(total, level, shape):
        """Log density of a unit's total, without its factorial."""
        return (
            total * jnp.log(level)
            + shape * jnp.log(shape)
            - gammaln(shape)
            + gammaln(total + shape)
            - (total + shape) * jnp.log(level + shape)
        )

    def _local(self, z, value) -> normal_points.Local:
        """Log density of shares and scores of every unit, and its derivatives in the scores."""
        size, total = len(self.components), value.sum(1)
        log_share = jax.nn.log_softmax(self.mean_ + z @ self.components)
        share = jnp.exp(log_share)
        middle = share @ self.components.T
        height = (value * log_share).sum(1) - 0.5 * (z**2).sum(1)
        slope = (value - total[:, None] * share) @ self.components.T - z
        rows = [
            [
                (1.0 if i == j else 0.0)
                + total * (share @ (self.components[i] * self.components[j]) - middle[:, i] * middle[:, j])
                for j in range(i + 1)
            ]
            for i in range(size)
        ]
        return normal_points.Local(height, slope, rows)

    def _weighted(self, rule: Rule):
        """Scores (points, units, K), their log weights (points, units), and the log shares there."""
        still = PoissonFactors(*jax.lax.stop_gradient((self.components, self.mean_, self.brightness_shape)))
        z, log_density = normal_points.points(
            rule.frame, lambda z: self._local(z, rule.value), lambda z: still._local(z, rule.value)
        )
        logits = self.mean_ + z @ self.components
        norm = logsumexp(logits, axis=-1)
        # Linear in the scores but for the norm: no product of points, units and channels.
        height = rule.value @ self.mean_ + (z * (rule.value @ self.components.T)).sum(-1) - rule.value.sum(1) * norm
        prior = -0.5 * ((z**2).sum(-1) + z.shape[-1] * _LOG_2PI)
        return z, height + prior - log_density, logits - norm[..., None]

    def _in_chunks(self, fn, rule: Rule):
        """``fn`` over some units of a rule at a time, so that what it holds does not grow with the image."""
        chunks = self._chunks(rule)
        if chunks is None:
            return fn(rule)
        found = jax.lax.map(lambda part: fn(_rule_of(rule, part)), chunks)
        return jax.tree_util.tree_map(lambda x: x.reshape(-1, *x.shape[2:])[: len(rule.value)], found)

    def _chunks(self, rule: Rule):
        """What a rule holds of every unit with a leading axis of chunks, the last one padded; None for one chunk."""
        n_units, n_points = len(rule.value), 2 * len(rule.frame.base)
        count = -(-n_units * n_points * rule.value.shape[1] // _CELLS)
        if count <= 1 or not len(self.components):
            return None
        size = -(-n_units // count)
        extra = -n_units % size

        def split(x):
            return jnp.pad(x, ((0, extra), *((0, 0),) * (x.ndim - 1)), mode="edge").reshape(-1, size, *x.shape[1:])

        frame = rule.frame
        return tuple(map(split, (frame.centre, frame.shift, frame.sides, rule.value)))

    def curvature_on(self, rule: Rule, wanted=()):
        """Gradient and Hessian of ``log_prob_on(rule).sum()`` in the ``wanted`` parameters, each a dict by their names.

        By Louis' identity (1982): the mean curvature given the scores, and the covariance of the slopes over them, on
        the points as they lie.
        """
        gradient, matrix = self._moments_of_slopes(rule)
        n_channels = self.event_shape[0]
        # The total's share, through its level T = sum exp(m) and its shape.
        total, level = rule.value.sum(1), jnp.exp(self.mean_).sum()
        law = lambda v: self._log_total(total, v[0], v[1]).sum()  # noqa: E731
        at = jnp.stack([level, self.brightness_shape])
        slope, bend = jax.grad(law)(at), jax.hessian(law)(at)
        up = jnp.exp(self.mean_)
        matrix = matrix.at[:n_channels, :n_channels].add(bend[0, 0] * up[:, None] * up + slope[0] * jnp.diag(up))
        gradients = {
            "mean_": gradient[0] + slope[0] * up,
            "components": gradient[1:],
            "brightness_shape": slope[1],
        }
        cross = jnp.concatenate([bend[0, 1] * up, jnp.zeros(matrix.shape[0] - n_channels, up.dtype)])
        places = {"mean_": slice(0, n_channels), "components": slice(n_channels, None)}
        names = wanted or tuple(self.arg_constraints)

        def block(p, q):
            if p == q == "brightness_shape":
                return bend[1, 1]
            if "brightness_shape" in (p, q):
                return cross[places[p if q == "brightness_shape" else q]]
            return matrix[places[p], places[q]]

        return {p: gradients[p] for p in names}, {p: {q: block(p, q) for q in names} for p in names}

    def _moments_of_slopes(self, rule: Rule):
        """Slope (1 + K, channel) and curvature of the shares' part, for intercept and loadings."""
        size, n_channels, n_units = len(self.components) + 1, self.event_shape[0], len(rule.value)
        pairs = [(k, j) for k in range(size) for j in range(k + 1)]

        def sums(rule, valid):
            z, log_weight, log_share = self._weighted(rule)
            weight, share = jax.nn.softmax(log_weight, axis=0) * valid, jnp.exp(log_share)
            total = rule.value.sum(1)
            left = rule.value - total[:, None] * share
            lifted = jnp.concatenate([jnp.ones((*z.shape[:-1], 1), z.dtype), z], axis=-1)
            mean = jnp.einsum("sn,snk,snp->nkp", weight, lifted, left)
            rows = []
            for k, j in pairs:
                heavy = weight * lifted[..., k] * lifted[..., j]
                block = jnp.einsum("snp,snq->pq", heavy[..., None] * left, left)
                heavy = heavy * total
                block = block + jnp.einsum("snp,snq->pq", heavy[..., None] * share, share)
                block = block - jnp.diag(jnp.einsum("sn,snp->p", heavy, share))
                rows.append(block - mean[:, k].T @ mean[:, j])
            return mean.sum(0), jnp.stack(rows)

        chunks = self._chunks(rule)
        if chunks is None:
            slope, rows = sums(rule, jnp.ones(n_units, self.mean_.dtype))
        else:
            there = jnp.arange(chunks[0].shape[0] * chunks[0].shape[1]).reshape(chunks[0].shape[:2]) < n_units

            def step(carry, part):
                found = sums(_rule_of(rule, part[0]), part[1].astype(self.mean_.dtype))
                return jax.tree_util.tree_map(jnp.add, carry, found), None

            zero = jnp.zeros((size, n_channels), self.mean_.dtype)
            none = jnp.zeros((len(pairs), n_channels, n_channels), self.mean_.dtype)
            slope, rows = jax.lax.scan(step, (zero, none), (chunks, there))[0]
        full = dict(zip(pairs, rows, strict=True))
        return slope, jnp.block([[full[k, j] if k >= j else full[j, k].T for j in range(size)] for k in range(size)])

    # ------------------------------------------------------------------ the latent

    def conditional_on(self, rule: Rule) -> ScoresAndBrightness:
        """Distribution of scores and brightness given the data, on the points of a rule, moved to these parameters."""
        z, log_weight, _ = self._weighted(rule)
        shape = rule.value.sum(1) + self.brightness_shape
        rate = jnp.exp(self.mean_).sum() + self.brightness_shape
        return ScoresAndBrightness(jnp.moveaxis(z, -1, 0), jax.nn.softmax(log_weight, axis=0), shape, rate)

    def conditional(self, value, key=None, index=None, *, n_points=None):
        """Distribution of scores and brightness given the data, p(latent | y, parameters), on points of its own."""
        key = jax.random.key(1) if key is None else key
        index = jnp.arange(value.shape[0]) if index is None else index
        return self.conditional_on(self.rule(value, key, index, n_points=n_points))

    def emission(self, latent):
        """p(y | latent, parameters) for ``latent`` (..., K + 1), the brightness last."""
        share = jax.nn.softmax(self.mean_ + latent[..., :-1] @ self.components)
        return dist.Poisson(latent[..., -1:] * jnp.exp(self.mean_).sum() * share).to_event(1)

    def sample(self, key, sample_shape=()):
        """Draw scores and brightness, then data."""
        return self.sample_with_latent(key, sample_shape)[0]

    def sample_with_latent(self, key, sample_shape=()):
        """Data, and the scores and brightness that made them."""
        key_score, key_brightness, key_data = jax.random.split(key, 3)
        shape = tuple(sample_shape) + self.batch_shape
        score = jax.random.normal(key_score, (*shape, len(self.components)), self.mean_.dtype)
        brightness = dist.Gamma(self.brightness_shape, self.brightness_shape).sample(key_brightness, shape)
        latent = jnp.concatenate([score, brightness[..., None]], axis=-1)
        return self.emission(latent).sample(key_data).astype(self.mean_.dtype), latent

    def _population(self):
        """Mean and mean square of a new unit's share of every channel, (channel,) each."""
        z = normal_points.standard(len(self.components), _POPULATION_POINTS, self.mean_.dtype)
        share = jax.nn.softmax(self.mean_ + z @ self.components)
        return share.mean(0), (share**2).mean(0)

    @property
    def mean(self):
        expected = jnp.exp(self.mean_).sum() * self._population()[0]
        return jnp.broadcast_to(expected, self.batch_shape + self.event_shape)

    @property
    def variance(self):
        share, square = self._population()
        level = jnp.exp(self.mean_).sum()
        spread = level**2 * ((1.0 + 1.0 / self.brightness_shape) * square - share**2)
        return jnp.broadcast_to(level * share + spread, self.batch_shape + self.event_shape)


def _rule_of(whole: Rule, part) -> Rule:
    """The rule of a chunk."""
    centre, shift, sides, value = part
    return Rule(normal_points.Frame(centre, whole.frame.base, shift, sides), value)


class ScoresAndBrightness(NamedTuple):
    """Scores on weighted points, (K, points, units) and (points, units), and a gamma law of the brightness."""

    points: jax.Array
    weights: jax.Array
    shape: jax.Array  # (units,)
    rate: jax.Array

    @property
    def _scores(self) -> WeightedPoints:
        return WeightedPoints(self.points, self.weights)

    @property
    def mean(self):
        """(units, K + 1)"""
        return jnp.concatenate([self._scores.mean, (self.shape / self.rate)[:, None]], axis=-1)

    @property
    def variance(self):
        """(units, K + 1)"""
        return jnp.concatenate([self._scores.variance, (self.shape / self.rate**2)[:, None]], axis=-1)

    def sample(self, key, sample_shape=()):
        """Draws, ``sample_shape + (units, K + 1)``."""
        key_score, key_brightness = jax.random.split(key)
        score = self._scores.sample(key_score, sample_shape)
        brightness = jax.random.gamma(key_brightness, self.shape, (*sample_shape, *self.shape.shape)) / self.rate
        return jnp.concatenate([score, brightness[..., None]], axis=-1)
