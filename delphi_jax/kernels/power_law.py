"""Asymptotic power law L(C) = L_inf + A*C**-alpha: free, shared and pinned asymptote (methods, section 3).

At a fixed L_inf the law is a line, log(L - L_inf) = log A - alpha*log C, so a fit is a search over L_inf with
a closed form inside. Axes: B series, P points (padded, masked), G grid values of L_inf.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from delphi_jax.kernels.chunks import in_chunks
from delphi_jax.kernels.precision import jit64
from delphi_jax.status import Status

__all__ = [
    "CHUNK",
    "ROUNDING",
    "Line",
    "PowerLaw",
    "fit_free_laws",
    "fit_pinned_laws",
    "fit_shared_law",
    "log_line",
    "power_law_profile",
]

CHUNK = 64
"""Series computed at once."""
ROUNDING = 1e-13
"""Share of the logarithms that an exponent comes from, below which it is rounding: the loss does not fall."""


class Line(NamedTuple):
    """Regression of log(L - L_inf) on log C."""

    log_A: jax.Array
    alpha: jax.Array
    score: jax.Array
    """Mean squared residual; inf where the line is not a fit (L <= L_inf, alpha not finite, or not positive but
    for rounding)."""


class PowerLaw(NamedTuple):
    """Laws of B series; fields have shape [B], ``profile`` [B, G]."""

    L_inf: jax.Array
    A: jax.Array
    alpha: jax.Array
    score: jax.Array
    index: jax.Array
    """Chosen grid index."""
    profile: jax.Array
    """Score of every grid value, inf where it does not fit."""
    status: jax.Array
    log_A: jax.Array
    """A itself may be too large to be written down."""


def log_line(log_compute: jax.Array, loss: jax.Array, weight: jax.Array, L_inf: jax.Array) -> Line:
    """One series ([P] each, ``weight`` 0 for padding) at one L_inf []."""
    present = weight > 0
    below = jnp.any(present & (loss <= L_inf))
    gap = jnp.where(present & (loss > L_inf), loss - L_inf, 1.0)
    y = jnp.log(gap)
    n = jnp.maximum(jnp.sum(weight), 1.0)
    mean_x, mean_y = jnp.sum(weight * log_compute) / n, jnp.sum(weight * y) / n
    dx, dy = log_compute - mean_x, y - mean_y
    sxx = jnp.sum(weight * dx**2)
    alpha = -jnp.sum(weight * dx * dy) / jnp.where(sxx > 0, sxx, 1.0)
    # Rounding of the logarithms' mean, and of the smallest loss over what is left of it.
    least = jnp.min(jnp.where(present, loss, jnp.inf))
    size = jnp.abs(mean_y) + least / jnp.where(least > L_inf, least - L_inf, 1.0)
    falls = alpha * jnp.sqrt(sxx / n) > ROUNDING * size
    score = jnp.sum(weight * (dy + alpha * dx) ** 2) / n
    fits = ~below & (sxx > 0) & jnp.isfinite(alpha) & (alpha > 0) & falls
    return Line(mean_y + alpha * mean_x, alpha, jnp.where(fits, score, jnp.inf))


def power_law_profile(log_compute: jax.Array, loss: jax.Array, weight: jax.Array, grid: jax.Array) -> Line:
    """One series at every value of ``grid`` [G]; fields [G]."""
    return jax.vmap(log_line, in_axes=(None, None, None, 0))(log_compute, loss, weight, grid)


def _distinct_pair(log_compute: jax.Array, mask: jax.Array) -> jax.Array:
    """Whether a series has at least two distinct budgets."""
    return jnp.max(jnp.where(mask, log_compute, -jnp.inf)) > jnp.min(jnp.where(mask, log_compute, jnp.inf))


def _status(enough: jax.Array, score: jax.Array, on_edge: jax.Array | bool, determined: jax.Array | bool) -> jax.Array:
    """``on_edge``: the best asymptote is an end of its grid, so a better one may lie beyond."""
    fits = jnp.where(determined, jnp.where(on_edge, Status.BOUND_HIT, Status.FITTED), Status.UNDETERMINED)
    return jnp.where(~enough, Status.TOO_FEW_POINTS, jnp.where(jnp.isfinite(score), fits, Status.NO_GRID_VALUE_FITS))


def _distinct_triple(log_compute: jax.Array, mask: jax.Array) -> jax.Array:
    """Whether a series has at least three distinct budgets: as many as the law with a free asymptote has parameters."""
    low = jnp.min(jnp.where(mask, log_compute, jnp.inf))
    high = jnp.max(jnp.where(mask, log_compute, -jnp.inf))
    return jnp.any(mask & (log_compute > low) & (log_compute < high))


def _on_edge(index: jax.Array, grid: jax.Array) -> jax.Array:
    return (index == 0) | (index == grid.shape[-1] - 1)


def _clean(log_compute: jax.Array, loss: jax.Array, mask: jax.Array) -> tuple[jax.Array, jax.Array]:
    return jnp.where(mask, log_compute, 0.0), jnp.where(mask, loss, 1.0)


def _fit_free(log_compute: jax.Array, loss: jax.Array, mask: jax.Array, grid: jax.Array) -> PowerLaw:
    log_compute, loss = _clean(log_compute, loss, mask)
    weight = mask.astype(loss.dtype)
    # The search needs scores alone: one pass over the logarithms, and the chosen line once more.
    profile = power_law_profile(log_compute, loss, weight, grid).score
    best = jnp.argmin(profile)
    line = log_line(log_compute, loss, weight, grid[best])
    return PowerLaw(
        L_inf=grid[best],
        A=jnp.exp(line.log_A),
        alpha=line.alpha,
        score=profile[best],
        index=best,
        profile=profile,
        status=_status(
            _distinct_pair(log_compute, mask),
            profile[best],
            _on_edge(best, grid),
            _distinct_triple(log_compute, mask),
        ),
        log_A=line.log_A,
    )


@jit64()
def fit_free_laws(log_compute: jax.Array, loss: jax.Array, mask: jax.Array, grid: jax.Array) -> PowerLaw:
    """Free asymptote, one per series: the lowest score on the series' own grid, the first on a tie.

    ``log_compute`` = log C, ``loss``, ``mask``: [B, P]; ``grid``: [B, G] candidate asymptotes, ascending.
    """
    return in_chunks(jax.vmap(_fit_free), CHUNK, log_compute, loss, mask, grid)


@jit64()
def fit_shared_law(log_compute: jax.Array, loss: jax.Array, mask: jax.Array, grid: jax.Array) -> PowerLaw:
    """One asymptote for all series ([B, P] each), from ``grid`` [G]; empty series (mask all False) take no part.

    The sum of the series' scores is minimised over the values at which every series fits. ``L_inf``,
    ``index`` and ``profile`` (the summed scores) are repeated per series, ``score`` is the series' own.
    """
    log_compute, loss = _clean(log_compute, loss, mask)
    lines = jax.vmap(power_law_profile, in_axes=(0, 0, 0, None))(log_compute, loss, mask.astype(loss.dtype), grid)
    present = jnp.any(mask, axis=1)
    summed = jnp.sum(jnp.where(present[:, None], lines.score, 0.0), axis=0)
    best = jnp.argmin(summed)
    # One series of three budgets is enough to tell the asymptote of all.
    determined = jnp.any(jax.vmap(_distinct_triple)(log_compute, mask))
    n_series = loss.shape[0]
    enough = jnp.all(~present | jax.vmap(_distinct_pair)(log_compute, mask))
    return PowerLaw(
        L_inf=jnp.full(n_series, grid[best]),
        A=jnp.exp(lines.log_A[:, best]),
        alpha=lines.alpha[:, best],
        score=lines.score[:, best],
        index=jnp.full(n_series, best),
        profile=jnp.tile(summed, (n_series, 1)),
        status=jnp.full(n_series, _status(enough, summed[best], _on_edge(best, grid), determined)),
        log_A=lines.log_A[:, best],
    )


@jit64()
def fit_pinned_laws(log_compute: jax.Array, loss: jax.Array, mask: jax.Array, L_inf: jax.Array) -> PowerLaw:
    """Given asymptotes ``L_inf`` [B]; only A and alpha are fitted. ``profile`` has G = 0."""
    log_compute, loss = _clean(log_compute, loss, mask)
    lines = jax.vmap(log_line)(log_compute, loss, mask.astype(loss.dtype), L_inf)
    return PowerLaw(
        L_inf=L_inf,
        A=jnp.exp(lines.log_A),
        alpha=lines.alpha,
        score=lines.score,
        index=jnp.full(L_inf.shape, -1),
        profile=jnp.empty((*L_inf.shape, 0)),
        status=_status(jax.vmap(_distinct_pair)(log_compute, mask), lines.score, False, True),
        log_A=lines.log_A,
    )
