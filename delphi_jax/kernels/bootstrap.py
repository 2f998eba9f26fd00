"""Bootstrap of the free-asymptote law over a series' optima (methods, section 4).

A draw of n points is a vector of n counts, and its L_inf grid depends only on which point is its smallest.
So the logarithms of all draws come from n precomputed tables, one per possible smallest point. The tables
hold residuals from the line through all points rather than the logarithms themselves: the sums of squares
that rank the grid values are then sums of small numbers, not small differences of large ones. The logarithms stand
as differences from the smallest point's, so that losses that are all the same give zeros.

All sums over a draw's points are matrix products of counts and tables. Draws are sorted by their smallest point, so
that one table serves a window of them, and stand on the minor axis, along which processors work in vectors.

Axes: P points, G grid values, R draws, W draws of a window.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from delphi_jax.kernels.power_law import ROUNDING
from delphi_jax.kernels.precision import OLD_EMITTERS, jit64
from delphi_jax.status import Status

__all__ = ["BootstrapDraws", "bootstrap_laws", "count_points", "counts_from_key"]

_SIZES = {"cpu": (8192, 256)}
"""Draws of a chunk, which bounds memory, and of a window, which stays in the caches, by kind of device."""

_SIZES_ELSEWHERE = (1 << 18, 1 << 15)
"""The same on accelerators, which want more work at a time."""

_SPREAD = 1e-8
"""Spread of log C, as a share of its mean square, that gives the tables' lines a slope."""


class BootstrapDraws(NamedTuple):
    """R draws of one series; ``profile`` axes are gone, only the chosen fit stays. Fields [R]."""

    L_inf: jax.Array
    A: jax.Array
    alpha: jax.Array
    score: jax.Array
    status: jax.Array


class _Tables(NamedTuple):
    """Per possible smallest point j: the grid's logarithms as a line over all points plus residuals r."""

    residual: jax.Array
    """[P, G, P]"""
    log_A: jax.Array
    """[P, G]"""
    alpha: jax.Array
    """[P, G]"""


@jit64("n_draws", "n_points", "n_padded")
def counts_from_key(key: jax.Array, *, n_draws: int, n_points: int, n_padded: int) -> jax.Array:
    """Counts [R, n_padded] of ``n_draws`` resamples of ``n_points`` points, from a JAX random ``key``."""
    return count_points(jax.random.randint(key, (n_draws, n_points), 0, n_points).T, n_padded)


def count_points(indices: jax.Array, n_padded: int) -> jax.Array:
    """Counts [R, n_padded] of resamples given as ``indices`` [n, R]."""
    # Small integers, the draws as last axis, point after point: a tenth of the time of one-hot vectors of floats.
    small = jnp.uint8 if n_padded < 256 else jnp.uint32
    indices, places = indices.astype(small), jnp.arange(n_padded, dtype=small)[:, None]
    counts = jax.lax.fori_loop(
        0,
        indices.shape[0],
        lambda i, counts: counts + (indices[i] == places).astype(small),
        jnp.zeros((n_padded, indices.shape[1]), small),
    )
    return counts.T.astype(jnp.float64)


def _sizes() -> tuple[int, int]:
    return _SIZES.get(jax.default_backend(), _SIZES_ELSEWHERE)


def _tables(log_compute: jax.Array, loss: jax.Array, mask: jax.Array, grid: jax.Array) -> _Tables:
    """``grid`` [P, G]: the candidate asymptotes of a draw whose smallest point is j."""
    present = mask & (loss >= loss[:, None])
    y = jnp.log(jnp.where(present[:, None], loss - grid[:, :, None], 1.0))
    y_smallest = jnp.log(loss[:, None] - grid)
    y = jnp.where(present[:, None], y - y_smallest[:, :, None], 0.0)
    powers = jnp.stack([jnp.ones_like(log_compute), log_compute, log_compute**2])
    n, sx, sxx = (present.astype(loss.dtype) @ powers.T).T[:, :, None]
    sy, sxy = jnp.moveaxis(y @ powers[:2].T, -1, 0)
    # Any line near the points does: what is taken off here is put back. So budgets too close for a slope get none.
    spread = n * sxx - sx**2
    alpha = (sx * sy - n * sxy) / jnp.where(spread > _SPREAD * n * sxx, spread, jnp.inf)
    log_A = (sy + alpha * sx) / jnp.maximum(n, 1.0)
    residual = y - log_A[:, :, None] + alpha[:, :, None] * log_compute
    return _Tables(jnp.where(present[:, None], residual, 0.0), log_A + y_smallest, alpha)


def _total(values: jax.Array) -> jax.Array:
    """Sum over the first axis, as a matrix product: XLA's sums of products over a few rows are slow on CPU."""
    return jnp.ones(values.shape[0], values.dtype) @ values


def _least(values: jax.Array, axis: int = 0) -> jax.Array:
    """The minimum along ``axis`` of values that are formed first: fused into the minimum, they lose their vectors."""
    return jnp.min(jax.lax.optimization_barrier(values), axis=axis)


def _first_least(values: jax.Array) -> jax.Array:
    """Index of the smallest of ``values`` [G, W] along G, the first on a tie.

    Values that the compiler forms twice may differ in the last place, so that equality would find none.
    """
    values = jax.lax.optimization_barrier(values)
    least = _least(values)
    reached = values <= least + 2 * jnp.finfo(values.dtype).eps * jnp.abs(least)
    # Places as floats: minima of integers are not vectorised.
    places = jnp.arange(values.shape[0], dtype=jnp.float32)[:, None]
    return _least(jnp.where(reached, places, places[-1])).astype(jnp.int32)


def _search(
    counts: jax.Array, log_compute: jax.Array, smallest: jax.Array, moments: jax.Array, tables: _Tables
) -> jax.Array:
    """Best grid index [R] of draws ``counts`` [R, P]; ``moments`` [4, R]: mean x, Sxx, and one over n and over Sxx."""
    n_draws, n_grid = counts.shape[0], tables.alpha.shape[1]
    window = min(_sizes()[1], n_draws)
    residual = tables.residual
    products = jnp.concatenate([residual**2, residual, residual * log_compute], axis=1)
    keys = jax.lax.sort(smallest * n_draws + jax.lax.iota(jnp.int32, n_draws), is_stable=False)
    keys = jnp.pad(keys, (0, window), constant_values=jnp.iinfo(jnp.int32).max)

    def search_window(carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        start, chosen = carry
        key = jax.lax.dynamic_slice_in_dim(keys, start, window)
        table = jax.lax.div(key[0], jnp.int32(n_draws))
        # Draws of the next table wait for the next window: their place is beyond the last draw.
        draw = jnp.minimum(key - table * n_draws, n_draws)
        sums = jnp.einsum("gp,wp->gw", products[table], counts.at[draw].get(mode="clip"))
        squares, height, cross = sums.reshape(3, n_grid, window)
        mean_x, sxx, over_n, over_sxx = jax.lax.optimization_barrier(moments.at[:, draw].get(mode="clip"))
        cross = cross - mean_x * height
        alpha = jax.lax.optimization_barrier(tables.alpha[table])[:, None]
        sse = squares - over_n * height**2 - over_sxx * cross**2
        best = _first_least(jnp.where(alpha * sxx > cross, sse, jnp.inf))
        searched = _total((draw < n_draws).astype(jnp.float32)).astype(jnp.int32)
        return start + searched, chosen.at[draw].set(best, mode="drop", unique_indices=True)

    # Made from the draws, so that it is spread over devices as they are.
    nothing = smallest[0] * 0, smallest * 0
    return jax.lax.while_loop(lambda carry: carry[0] < n_draws, search_window, nothing)[1]


def _fit_chunk(
    draws: jax.Array, log_compute: jax.Array, ranks: jax.Array, tables: _Tables, grid: jax.Array
) -> BootstrapDraws:
    """Draws [R, P]; ``ranks`` [2, P] of loss (no two equal) and of compute (equal for equal budgets)."""
    n_points, n_grid = grid.shape
    counts = jax.lax.optimization_barrier(draws.T)
    by_loss, by_compute = ranks
    by_rank = jnp.stack([by_loss, by_compute, -by_compute])[:, :, None]
    least = _least(jnp.where(counts > 0, by_rank, float(n_points**2)), axis=1)
    smallest = jax.lax.rem(least[0].astype(jnp.int32), jnp.int32(n_points))
    powers = jnp.stack([jnp.ones_like(log_compute), log_compute, by_compute, by_compute**2])
    n, sx, sum_rank, sum_squares = powers @ counts
    # The sum of (rank - lowest)(highest - rank), exact in integers: positive where a third budget lies between.
    between = (least[1] - least[2]) * sum_rank - sum_squares + least[1] * least[2] * n
    over_n = 1.0 / jnp.maximum(n, 1.0)
    mean_x = sx * over_n
    dx = log_compute[:, None] - mean_x
    counts_dx = counts * dx
    sxx = _total(counts_dx * dx)
    over_sxx = 1.0 / jnp.where(sxx > 0, sxx, 1.0)
    moments = jnp.stack([mean_x, sxx, over_n, over_sxx])
    chosen = _search(*jax.lax.stop_gradient((draws, log_compute, smallest, moments, tables)))

    columns = [*jnp.moveaxis(tables.residual, -1, 0), tables.log_A, tables.alpha, grid]
    line = jnp.stack(columns).reshape(len(columns), -1).at[:, smallest * n_grid + chosen].get(mode="promise_in_bounds")
    residual, (log_A, alpha, L_inf) = line[:-3], line[-3:]
    mean_residual = _total(counts * residual) * over_n
    residual = residual - mean_residual
    slope = _total(counts_dx * residual) * over_sxx
    score = _total(counts * (residual - slope * dx) ** 2) * over_n
    # Of both parts of the exponent, and of logarithms of order one.
    rounding = ROUNDING * (jnp.abs(alpha) + jnp.abs(slope) + jnp.sqrt(n * over_sxx))
    alpha = alpha - slope
    A = jnp.exp(log_A + mean_residual - slope * mean_x)
    # Without an A that can be written down there is no forecast: the draw is skipped, and counted.
    fits = (sxx > 0) & (alpha > rounding) & jnp.isfinite(alpha) & jnp.isfinite(A)
    status = jnp.where(between > 0, jnp.where(fits, Status.FITTED, Status.NO_GRID_VALUE_FITS), Status.TOO_FEW_POINTS)
    return BootstrapDraws(L_inf, A, alpha, jnp.where(fits, score, jnp.inf), status)


@jit64(cpu_options=OLD_EMITTERS)
def bootstrap_laws(
    log_compute: jax.Array, loss: jax.Array, mask: jax.Array, counts: jax.Array, grid: jax.Array
) -> BootstrapDraws:
    """Refit one series ([P]: ``log_compute`` = log C, ``loss``, ``mask``) for every row of ``counts`` [R, P].

    ``grid`` [P, G] holds, for each point, the candidate asymptotes of a draw whose smallest loss is that
    point's. Numbers of a draw whose ``status`` is not FITTED mean nothing.
    """
    log_compute, loss = jnp.where(mask, log_compute, 0.0), jnp.where(mask, loss, 1.0)
    tables = _tables(log_compute, loss, mask, grid)
    values = jnp.stack([loss, log_compute])
    ranks = jnp.sum((mask & (values[:, None] < values[:, :, None])).astype(loss.dtype), axis=2)
    ranks = ranks.at[0].set(ranks[0] * len(loss) + jnp.arange(len(loss)))
    n_draws = counts.shape[0]
    n_chunks = -(-n_draws // _sizes()[0])
    size = -(-n_draws // n_chunks)

    def fit(start: jax.Array | int) -> BootstrapDraws:
        draws = jnp.where(mask, jax.lax.dynamic_slice_in_dim(counts, start, size), 0.0)
        return _fit_chunk(draws, log_compute, ranks, tables, grid)

    if n_chunks == 1:
        return fit(0)
    # The last chunk reaches back to be as long as the others.
    chunks = jax.lax.map(fit, jnp.minimum(jnp.arange(n_chunks) * size, n_draws - size))
    last = n_chunks * size - n_draws
    return jax.tree.map(lambda field: jnp.concatenate([field[:-1].ravel(), field[-1, last:]]), chunks)
