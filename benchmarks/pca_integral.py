"""Counts: the integral over the scores on points around the mode, beside quadrature, as loadings grow."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from pca_tables import table, write
from scipy.special import gammaln, logsumexp

from bayesunmix.distributions.poisson_factors import PoissonFactors

SHAPE = 10.0
LARGEST = (2, 5, 10, 25, 50, 100, 300)
COUNTS = (10, 100, 1000)


def exactly(y: np.ndarray, mean: np.ndarray, loading: np.ndarray) -> np.ndarray:
    """Log density of every pixel by the trapezoid rule, on a grid that is refined where the integrand is."""
    level, found = np.exp(mean).sum(), []
    for one in y:
        grid = np.linspace(-9.0, 9.0, 4001)
        for _ in range(4):
            logits = mean + grid[:, None] * loading
            height = logits @ one - one.sum() * logsumexp(logits, axis=1) - 0.5 * grid**2
            near = grid[height > height.max() - 40.0]
            step = grid[1] - grid[0]
            total = logsumexp(height) + np.log(step)
            grid = np.linspace(near[0] - step, near[-1] + step, 4001)
        n = one.sum()
        law = n * np.log(level) + SHAPE * np.log(SHAPE) - gammaln(SHAPE) + gammaln(n + SHAPE)
        law -= (n + SHAPE) * np.log(level + SHAPE)
        found.append(total - 0.5 * np.log(2.0 * np.pi) + law - gammaln(one + 1.0).sum())
    return np.array(found)


def integral(pixels: int, images: int = 4, n_channels: int = 12) -> None:
    """Error of the log density of an image, for one component whose largest loading is so large."""
    rows = []
    with jax.enable_x64(True):
        for largest in LARGEST:
            for counts in COUNTS:
                off = []
                for seed in range(images):
                    rng = np.random.default_rng([seed, largest, counts])
                    loading = rng.normal(size=n_channels)
                    loading *= largest / np.abs(loading).max()
                    mean = np.log(counts / n_channels) + 0.5 * rng.normal(size=n_channels)
                    law = PoissonFactors(jnp.asarray(loading[None]), jnp.asarray(mean), jnp.asarray(SHAPE))
                    y = np.asarray(law.expand((pixels,)).sample(jax.random.key(seed)))
                    rule = law.rule(jnp.asarray(y), jax.random.key(seed + 1), jnp.arange(pixels))
                    off.append(np.asarray(law.log_prob_on(rule)) - exactly(y, mean, loading))
                each = np.array(off)
                rows.append(
                    [
                        largest,
                        counts,
                        f"{np.abs(each).max():.2g}",
                        f"{np.sqrt((each**2).mean()):.2g}",
                        f"{np.abs(each.sum(1)).max():.2g}",
                    ]
                )
                print(*rows[-1], flush=True)
    write(
        "integral",
        f"integral --count {pixels}",
        [
            f"{images} images of {pixels} pixels and {n_channels} channels from the model with one component of normal "
            "loadings, scaled to the largest given. The log density on the 32 points that a fit takes, less that by "
            "quadrature, in nats.",
            "",
            *table(
                ["largest loading", "counts a pixel", "worst pixel", "rms of pixels", "worst image, all pixels"], rows
            ),
        ],
    )
