"""What a hidden state shows in one frame: families of emission densities, one vector of parameters per state.

Every family has ``columns`` (features it describes), ``log_prob(y)`` (..., time, columns) -> (..., time, state) with
NaN integrated out, and, for a path given as one-hot ``path`` (..., time, state): ``mean``, ``variance``, ``sample``
and ``discrepancy``.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist

from bayesunmix.distributions import cholesky, lanes
from bayesunmix.distributions.normal_vectors import NormalVectors

_LOG_2PI = 1.8378770664093453


class Normal(NamedTuple):
    """Normal emissions of one or more features.

    ``means`` (state, feature); either ``scales`` (state, feature), features independent, or ``covariances`` (state,
    feature, feature); ``noise`` (..., time, feature, feature), known covariance of the measurement, is added.
    """

    means: jax.Array
    scales: jax.Array | None = None
    covariances: jax.Array | None = None
    noise: jax.Array | None = None

    @property
    def columns(self) -> int:
        return self.means.shape[1]

    def log_prob(self, y):
        seen = jnp.isfinite(y)
        away = jnp.where(seen, y, 0.0)[..., None, :] - self.means
        if self.covariances is None and self.noise is None:
            terms = -0.5 * (away / self.scales) ** 2 - jnp.log(self.scales) - 0.5 * _LOG_2PI
            return jnp.where(seen[..., None, :], terms, 0.0).sum(-1)
        return self._joint(seen, jnp.where(seen[..., None, :], away, 0.0))

    def _joint(self, seen, away):
        """Correlated features; those missing from a frame become independent of unit variance, and cost nothing."""
        size = self.columns
        full = self._covariance()
        known = [seen[..., None, i] for i in range(size)]
        matrix = [
            [jnp.where(known[i] & known[j], full[..., i, j], float(i == j)) for j in range(i + 1)] for i in range(size)
        ]
        factor = lanes.cholesky([[matrix[max(i, j)][min(i, j)] for j in range(size)] for i in range(size)])
        white = lanes.solve_lower(factor, [away[..., i] for i in range(size)])
        log_p = sum(-0.5 * white[i] ** 2 - jnp.log(factor[i][i]) for i in range(size))
        return log_p - 0.5 * _LOG_2PI * seen.sum(-1)[..., None]

    def _covariance(self):
        """(..., [time,] state, feature, feature)"""
        if self.covariances is None:
            full = self.scales[..., None] ** 2 * jnp.eye(self.columns, dtype=self.means.dtype)
        else:
            full = self.covariances
        return full if self.noise is None else full + self.noise[..., None, :, :]

    def mean(self, path):
        return path @ self.means

    def _of_path(self, path):
        full = self._covariance()
        return jnp.einsum("...s,...sij->...ij", path, full)

    def variance(self, path):
        if self.covariances is None and self.noise is None:
            return path @ self.scales**2
        return jnp.einsum("...s,...sii->...i", path, self._covariance())

    def sample(self, key, path):
        white = jax.random.normal(key, (*path.shape[:-1], self.columns), self.means.dtype)
        if self.covariances is None and self.noise is None:
            return self.mean(path) + white * (path @ self.scales)
        factor = cholesky.factor(self._of_path(path))
        return self.mean(path) + jnp.einsum("...ij,...j->...i", factor, white)

    def observe(self, name, state, y):
        """Sample site of a frame in known states (sequence,)."""
        if self.covariances is None:
            fn = dist.Normal(self.means[state], self.scales[state]).to_event(1)
        else:
            fn = NormalVectors(self.means[state], scale_tril=cholesky.factor(self.covariances[state]))
        numpyro.sample(name, fn, obs=y)

    def discrepancy(self, y, path):
        """Squared deviations in standard deviations, (..., time); 0 for a missing value."""
        if self.covariances is None and self.noise is None:
            return jnp.nan_to_num((y - self.mean(path)) ** 2 / self.variance(path)).sum(-1)
        away, seen = y - self.mean(path), jnp.isfinite(y)
        both = seen[..., :, None] & seen[..., None, :]
        matrix = jnp.where(both, self._of_path(path), jnp.eye(self.columns))
        away = jnp.where(seen, away, 0.0)
        return (away * cholesky.solve(cholesky.factor(matrix), away)).sum(-1)


class Categorical(NamedTuple):
    """One of several symbols, ``probabilities`` (state, symbol); NaN where nothing was seen.

    With ``soft``, a frame holds the probabilities that a classifier gave to the symbols, one column each, and its
    density is the sum over symbols of that weight times the state's probability.
    """

    probabilities: jax.Array
    soft: Any = None  # a flag: None or an empty tuple, so that it stays out of compiled code

    @property
    def columns(self) -> int:
        return 1 if self.soft is None else self.probabilities.shape[1]

    def log_prob(self, y):
        seen = jnp.isfinite(y).all(-1)
        tiny = jnp.finfo(self.probabilities.dtype).tiny
        if self.soft is None:
            symbol = jnp.where(seen, y[..., 0], 0).astype(jnp.int32)
            log_p = jnp.log(jnp.maximum(self.probabilities, tiny)).T[symbol]
        else:
            weight = jnp.where(seen[..., None], y, 1.0)
            log_p = jnp.log(jnp.maximum(weight @ self.probabilities.T, tiny))
        return jnp.where(seen[..., None], log_p, 0.0)

    def _codes(self):
        count = self.probabilities.shape[1]
        return jnp.arange(count, dtype=self.probabilities.dtype)[:, None] if self.soft is None else jnp.eye(count)

    def mean(self, path):
        return path @ self.probabilities @ self._codes()

    def variance(self, path):
        return path @ self.probabilities @ self._codes() ** 2 - self.mean(path) ** 2

    def sample(self, key, path):
        symbol = jax.random.categorical(key, jnp.log(path @ self.probabilities))
        return self._codes()[symbol]

    def observe(self, name, state, y):
        """Sample site of a frame in known states (sequence,)."""
        if self.soft is not None and y is not None:
            numpyro.factor(name, jnp.take_along_axis(self.log_prob(y), state[..., None], axis=-1)[..., 0])
            return
        symbol = None if y is None else y[..., 0].astype(jnp.int32)
        numpyro.sample(name, dist.Categorical(self.probabilities[state]), obs=symbol)

    def discrepancy(self, y, path):
        """-2 log density of the symbol, (..., time)."""
        return -2.0 * (self.log_prob(y) * path).sum(-1)


class Poisson(NamedTuple):
    """Counts of mean ``rates`` (state,)."""

    rates: jax.Array

    @property
    def columns(self) -> int:
        return 1

    def log_prob(self, y):
        seen = jnp.isfinite(y)
        count = jnp.where(seen, y, 0.0)
        log_p = count * jnp.log(self.rates) - self.rates - jax.scipy.special.gammaln(count + 1.0)
        return jnp.where(seen, log_p, 0.0)

    def mean(self, path):
        return (path @ self.rates)[..., None]

    def variance(self, path):
        return self.mean(path)

    def sample(self, key, path):
        return jax.random.poisson(key, self.mean(path)).astype(self.rates.dtype)

    def observe(self, name, state, y):
        """Sample site of a frame in known states (sequence,)."""
        numpyro.sample(name, dist.Poisson(self.rates[state]), obs=None if y is None else y[..., 0])

    def discrepancy(self, y, path):
        mean = self.mean(path)
        return jnp.nan_to_num((y - mean) ** 2 / mean)[..., 0]


class Exponential(NamedTuple):
    """Positive numbers with density ``rate exp(-rate y)``, ``rates`` (state,)."""

    rates: jax.Array

    @property
    def columns(self) -> int:
        return 1

    def log_prob(self, y):
        seen = jnp.isfinite(y)
        return jnp.where(seen, jnp.log(self.rates) - self.rates * jnp.where(seen, y, 0.0), 0.0)

    def mean(self, path):
        return (path @ (1.0 / self.rates))[..., None]

    def variance(self, path):
        return self.mean(path) ** 2

    def sample(self, key, path):
        return self.mean(path) * jax.random.exponential(key, (*path.shape[:-1], 1), self.rates.dtype)

    def observe(self, name, state, y):
        """Sample site of a frame in known states (sequence,)."""
        numpyro.sample(name, dist.Exponential(self.rates[state]), obs=None if y is None else y[..., 0])

    def discrepancy(self, y, path):
        """-2 log density, (..., time)."""
        return -2.0 * (self.log_prob(y) * path).sum(-1)
