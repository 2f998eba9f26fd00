"""Bootstrap of the free-asymptote law over a series' optima (methods, section 4).

A draw of n points is a vector of n counts, and its L_inf grid depends only on which point is its smallest.
So the logarithms of all draws come from n precomputed tables, one per possible smallest point. The tables
hold residuals from the line through all points rather than the logarithms themselves: the sums of squares
that rank the grid values are then sums of small numbers, not small differences of large ones.

Axes: P points, G grid values, R draws.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from delphi_jax.kernels.power_law import log_line
from delphi_jax.kernels.precision import jit64
from delphi_jax.status import Status

__all__ = ["BootstrapDraws", "bootstrap_laws", "counts_from_key"]

_CHUNK = 1024
"""Draws whose gathered tables are alive at once: bounds memory, and stays near the caches."""

_MIN_DISTINCT = 3
"""A draw with fewer distinct budgets is skipped."""


class BootstrapDraws(NamedTuple):
    """R draws of one series; ``profile`` axes are gone, only the chosen fit stays. Fields [R]."""

    L_inf: jax.Array
    A: jax.Array
    alpha: jax.Array
    score: jax.Array
    status: jax.Array


class _Basis(NamedTuple):
    """Per possible smallest point j: the grid's logarithms as a line over all points plus residuals."""

    residual: jax.Array
    """[P, G, P]"""
    alpha: jax.Array
    """[P, G]"""


@jit64("n_draws", "n_points", "n_padded")
def counts_from_key(key: jax.Array, *, n_draws: int, n_points: int, n_padded: int) -> jax.Array:
    """Counts [R, n_padded] of ``n_draws`` resamples of ``n_points`` points, from a JAX random ``key``."""
    indices = jax.random.randint(key, (n_draws, n_points), 0, n_points)
    return jnp.sum(jax.nn.one_hot(indices, n_padded, dtype=jnp.float64), axis=1)


def _basis(log_compute: jax.Array, loss: jax.Array, mask: jax.Array, grid: jax.Array) -> _Basis:
    """``grid`` [P, G]: the candidate asymptotes of a draw whose smallest point is j. Fields [P, G, ...]."""

    def one(smallest: jax.Array, values: jax.Array) -> _Basis:
        weight = (mask & (loss >= smallest)).astype(loss.dtype)

        def at(L_inf: jax.Array) -> _Basis:
            line = log_line(log_compute, loss, weight, L_inf)
            y = jnp.log(jnp.where(loss > L_inf, loss - L_inf, 1.0))
            return _Basis((y - line.log_A + line.alpha * log_compute) * weight, line.alpha)

        return jax.vmap(at)(values)

    return jax.vmap(one)(loss, grid)


def _fit_draw(
    counts: jax.Array, log_compute: jax.Array, loss: jax.Array, basis: _Basis, grid: jax.Array
) -> BootstrapDraws:
    """One draw, ``counts`` [P]."""
    smallest = jnp.argmin(jnp.where(counts > 0, loss, jnp.inf))
    residual = basis.residual[smallest]
    n = jnp.maximum(jnp.sum(counts), 1.0)
    dx = log_compute - jnp.sum(counts * log_compute) / n
    sxx = jnp.sum(counts * dx**2)
    centred = residual - ((residual @ counts) / n)[:, None]
    slope = (centred @ (counts * dx)) / jnp.where(sxx > 0, sxx, 1.0)
    alpha = basis.alpha[smallest] - slope
    sse = jnp.sum(counts * (centred - slope[:, None] * dx) ** 2, axis=1)
    score = jnp.where(jnp.isfinite(alpha) & (alpha > 0) & (sxx > 0), sse, jnp.inf)
    L_inf = grid[smallest, jnp.argmin(score)]
    line = log_line(log_compute, loss, counts, L_inf)

    same = log_compute[:, None] == log_compute
    repeated = jnp.any(jnp.tril(same, -1) & (counts > 0), axis=1)
    distinct = jnp.sum((counts > 0) & ~repeated)
    status = jnp.where(
        distinct < _MIN_DISTINCT,
        Status.TOO_FEW_POINTS,
        jnp.where(jnp.isfinite(line.score), Status.FITTED, Status.NO_GRID_VALUE_FITS),
    )
    return BootstrapDraws(L_inf, jnp.exp(line.log_A), line.alpha, line.score, status)


@jit64()
def bootstrap_laws(
    log_compute: jax.Array, loss: jax.Array, mask: jax.Array, counts: jax.Array, grid: jax.Array
) -> BootstrapDraws:
    """Refit one series ([P]: ``log_compute`` = log C, ``loss``, ``mask``) for every row of ``counts`` [R, P].

    ``grid`` [P, G] holds, for each point, the candidate asymptotes of a draw whose smallest loss is that
    point's. Numbers of a draw whose ``status`` is not FITTED mean nothing.
    """
    log_compute, loss = jnp.where(mask, log_compute, 0.0), jnp.where(mask, loss, jnp.inf)
    counts = jnp.where(mask, counts, 0.0)
    filled = jnp.where(mask, loss, 1.0)
    basis = _basis(log_compute, filled, mask, grid)
    return jax.lax.map(
        lambda row: _fit_draw(row, log_compute, filled, basis, grid),
        counts,
        batch_size=min(_CHUNK, counts.shape[0]),
    )
