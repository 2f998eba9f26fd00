"""Weighted refits of two series at the same budgets, with one asymptote and one slope for both.

A draw of a bootstrap is a vector of counts, the weights of its regressions (methods, sections 3 and 4).
Axes: R draws, P points (count 0 for padding), G grid values of L_inf.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from delphi_jax.kernels.chunks import in_chunks
from delphi_jax.kernels.power_law import power_law_profile
from delphi_jax.kernels.precision import jit64
from delphi_jax.status import Status

__all__ = ["SharedDraws", "fit_shared_draws"]

CHUNK = 64
"""Draws computed at once."""


class SharedDraws(NamedTuple):
    """Pairs of laws with one asymptote and one exponent; fields [R]. Where not FITTED they mean nothing."""

    L_inf: jax.Array
    index: jax.Array
    """Chosen grid index."""
    alpha: jax.Array
    """The common exponent: least squares with one slope for both series, each with its own amplitude."""
    log_ratio: jax.Array
    """Log of the second amplitude over the first."""
    status: jax.Array


def _fit_shared(log_compute: jax.Array, loss: jax.Array, grid: jax.Array, counts: jax.Array) -> SharedDraws:
    drawn = counts > 0
    candidates = grid[jnp.argmin(jnp.where(drawn, jnp.min(loss, axis=0), jnp.inf))]
    profiles = jax.vmap(power_law_profile, in_axes=(None, 0, None, None))(log_compute, loss, counts, candidates)
    scores = jnp.sum(profiles.score, axis=0)
    best = jnp.argmin(scores)
    L_inf = candidates[best]
    # At the same budgets, with the same weights, the common slope is the average of both.
    alpha = jnp.mean(profiles.alpha[:, best])
    first, second = jnp.where(drawn, loss - L_inf, 1.0)
    log_ratio = jnp.sum(counts * jnp.log(second / first)) / jnp.maximum(jnp.sum(counts), 1.0)
    enough = jnp.sum(drawn) >= (2 if len(candidates) == 1 else 3)
    status = jnp.where(jnp.isfinite(scores[best]), Status.FITTED, Status.NO_GRID_VALUE_FITS)
    return SharedDraws(L_inf, best, alpha, log_ratio, jnp.where(enough, status, Status.TOO_FEW_POINTS))


@jit64()
def fit_shared_draws(log_compute: jax.Array, loss: jax.Array, counts: jax.Array, grid: jax.Array) -> SharedDraws:
    """Refit two series to every row of ``counts`` [R, P]; the asymptote as in :func:`fit_shared_law`.

    ``log_compute`` = log C [P], no two equal; ``loss`` [2, P]; ``grid`` [P, G]: for each budget the candidate
    asymptotes of a draw whose smallest loss is there. With G = 1 the asymptote is pinned, and two budgets are enough.
    """

    def fit(counts: jax.Array) -> SharedDraws:
        return _fit_shared(log_compute, loss, grid, counts)

    return in_chunks(jax.vmap(fit), CHUNK, counts)
