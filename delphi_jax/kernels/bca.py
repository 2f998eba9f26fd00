"""Percentiles of the bias-corrected and accelerated bootstrap (Efron 1987, section 4; Efron & Tibshirani 1993, ch. 14).

Axes: B estimates, J leave-one-out estimates.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.special import ndtr, ndtri

from delphi_jax.kernels.precision import jit64

__all__ = ["BcaLevels", "bca_levels"]


class BcaLevels(NamedTuple):
    """Fields [B]."""

    low: jax.Array
    """Share of the draws below the lower end."""
    high: jax.Array
    bias: jax.Array
    """Bias correction z0; infinite where all draws lie on one side of the estimate."""
    acceleration: jax.Array
    defined: jax.Array
    """Whether the two shares exist; they are NaN where not."""


@jit64()
def bca_levels(below: jax.Array, jackknife: jax.Array, mask: jax.Array, level: jax.Array) -> BcaLevels:
    """``below`` [B]: share of the draws below the estimate, ties half; ``jackknife``, ``mask``: [B, J]; ``level`` [].

    z0 is the normal quantile of ``below``; the acceleration is a sixth of the skewness of the leave-one-out
    estimates, 0 where these are all the same.
    """
    n = jnp.maximum(jnp.sum(mask, axis=1), 1)
    jackknife = jnp.where(mask, jackknife, 0.0)
    gap = jnp.where(mask, (jnp.sum(jackknife, axis=1) / n)[:, None] - jackknife, 0.0)
    squares = jnp.sum(gap**2, axis=1)
    skew = jnp.sum(gap**3, axis=1) / jnp.where(squares > 0, squares, 1.0) ** 1.5
    acceleration = skew / 6
    bias = ndtri(below)
    z = ndtri((1 + level) / 2)
    shifted = jnp.stack([bias - z, bias + z])
    slope = 1 - acceleration * shifted
    defined = (below > 0) & (below < 1) & jnp.all(slope > 0, axis=0)
    low, high = jnp.where(defined, ndtr(bias + shifted / jnp.where(slope > 0, slope, 1.0)), jnp.nan)
    return BcaLevels(low, high, bias, acceleration, defined)
