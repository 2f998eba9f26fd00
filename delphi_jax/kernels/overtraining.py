"""Overtraining penalty, sub-optimal curve and compute to match, all scales at once (methods, section 7).

Axes: P bucket optima (padded, masked), G budgets of the search grid, S scales.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from delphi_jax.formulas import law_loss
from delphi_jax.kernels.precision import jit64
from delphi_jax.status import Status

__all__ = ["Overtraining", "overtraining"]

_LEAST_PENALTY = 1e-9
"""Penalties must all exceed this to be extrapolated as a power law; else the penalty is 0."""


class Overtraining(NamedTuple):
    """What training at each scale costs."""

    token_slope: jax.Array
    """[] log10 T* by log10 C."""
    token_intercept: jax.Array
    penalty: jax.Array
    """[S, P]"""
    loss: jax.Array
    """[S, G] law plus extrapolated penalty."""
    log_compute_equivalent: jax.Array
    """[S] log10 FLOPs; the end of the grid where not reached."""
    status: jax.Array
    """[S]"""


def _line(x: jax.Array, y: jax.Array, mask: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Slope and intercept of the least-squares line of y on x, each [P]."""
    n = jnp.maximum(jnp.sum(mask), 1)
    mean_x = jnp.sum(jnp.where(mask, x, 0.0)) / n
    mean_y = jnp.sum(jnp.where(mask, y, 0.0)) / n
    dx = jnp.where(mask, x - mean_x, 0.0)
    sxx = jnp.sum(dx**2)
    slope = jnp.sum(dx * jnp.where(mask, y - mean_y, 0.0)) / jnp.where(sxx > 0, sxx, 1.0)
    return slope, mean_y - slope * mean_x


@jit64()
def overtraining(
    log_compute: jax.Array,
    log_tokens: jax.Array,
    curvature_under: jax.Array,
    curvature_over: jax.Array,
    mask: jax.Array,
    law: tuple[jax.Array, jax.Array, jax.Array],
    log_grid: jax.Array,
    log_forecast: jax.Array,
    scales: jax.Array,
) -> Overtraining:
    """All scales of one suite. Logarithms are to base 10.

    ``log_compute``, ``log_tokens`` (of the optima), curvatures and ``mask``: [P]; ``law`` = (L_inf, A, alpha);
    ``log_grid`` [G] ascending, passing ``log_forecast`` []; ``scales`` [S] = T/T*.
    """
    token_slope, token_intercept = _line(log_compute, log_tokens, mask)
    optimal = law_loss(10.0**log_grid, *law)
    target = law_loss(10.0**log_forecast, *law)

    def one(scale: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
        curvature = jnp.where(scale > 1, curvature_over, curvature_under)
        penalty = jnp.where(mask, curvature * jnp.log10(scale) ** 2, 0.0)
        positive = jnp.all(~mask | (penalty > _LEAST_PENALTY))
        slope, intercept = _line(log_compute, jnp.log10(jnp.where(penalty > 0, penalty, 1.0)), mask)
        loss = optimal + jnp.where(positive, 10.0 ** (slope * log_grid + intercept), 0.0)
        reached = (log_grid >= log_forecast) & (loss <= target)
        after = jnp.maximum(jnp.argmax(reached), 1)
        before = after - 1
        fall = loss[before] - loss[after]
        share = jnp.clip((loss[before] - target) / jnp.where(fall > 0, fall, 1.0), 0.0, 1.0)
        crossing = log_grid[before] + share * (log_grid[after] - log_grid[before])
        any_reached = jnp.any(reached)
        equivalent = jnp.where(any_reached, jnp.maximum(crossing, log_forecast), log_grid[-1])
        bowls = jnp.all(~mask | (curvature > 0))
        found = jnp.where(bowls, Status.FITTED, Status.CURVATURE_NOT_POSITIVE)
        return penalty, loss, equivalent, jnp.where(any_reached, found, Status.NOT_REACHED)

    return Overtraining(token_slope, token_intercept, *jax.vmap(one)(scales))
