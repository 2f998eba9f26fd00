"""Partial dependence of a Gaussian process, all cells x features x grid values at once (methods, section 8).

Setting column j of every trial to one value (Friedman 2001) and averaging the process over the trials gives
a mean and a variance (Moosbauer et al. 2021). Both follow from the averaged cross-covariance
kbar_i' = mean_i k(x_i with column j replaced, x_i'):

    mean     = kbar . K^-1 y
    variance = mean of K** - |L^-1 kbar|^2,   K = L L'

so that no posterior covariance is ever formed. K**, the prior covariance of the replaced trials, does not
depend on the value, since column j then cancels from every distance; white noise adds noise/n to its mean.

Axes: B cells, N trials (padded, masked), F features, Q grid values.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from delphi_jax.kernels.linalg import inverse_factor
from delphi_jax.kernels.precision import jit64
from delphi_jax.kernels.process import JITTER, matern52, squared_distances

__all__ = ["Dependence", "partial_dependence"]


class Dependence(NamedTuple):
    """Fields [B, F, Q]."""

    mean: jax.Array
    sd: jax.Array


def _cell(
    features: jax.Array,
    y: jax.Array,
    mask: jax.Array,
    length_scale: jax.Array,
    noise: jax.Array,
    grid: jax.Array,
) -> Dependence:
    """One cell: ``features`` [N, F], ``y`` and ``mask`` [N], ``grid`` [F, Q]."""
    n_padded, n_features = features.shape
    features, y = jnp.where(mask[:, None], features, 0.0), jnp.where(mask, y, 0.0)
    n = jnp.maximum(jnp.sum(mask), 1)
    pair = mask[:, None] & mask[None, :]
    distance2 = squared_distances(features)
    covariance = jnp.where(pair, matern52(distance2, length_scale), 0.0)
    factor = inverse_factor(covariance + jnp.diag(jnp.where(mask, noise + JITTER, 1.0)))
    weights = (factor @ y) @ factor

    # [F, N, N] squared distances without feature j; rounding may leave tiny negatives.
    own = (features.T[:, :, None] - features.T[:, None, :]) ** 2
    others = jnp.maximum(distance2 - own, 0.0)
    prior = jnp.sum(jnp.where(pair, matern52(others, length_scale), 0.0), axis=(1, 2)) / n**2 + noise / n

    shifted = (grid[:, :, None] - features.T[:, None, :]) ** 2

    def add(i: jax.Array, total: jax.Array) -> jax.Array:
        row = jax.lax.dynamic_index_in_dim(others, i, axis=1, keepdims=False)
        return total + jnp.where(mask[i], matern52(row[:, None, :] + shifted, length_scale), 0.0)

    zeros = jnp.zeros((n_features, grid.shape[1], n_padded))
    cross = jnp.where(mask, jax.lax.fori_loop(0, n_padded, add, zeros) / n, 0.0)
    whitened = cross @ factor.T
    variance = prior[:, None] - jnp.sum(whitened**2, axis=2)
    return Dependence(cross @ weights, jnp.sqrt(jnp.maximum(variance, 0.0)))


@jit64()
def partial_dependence(
    features: jax.Array,
    y: jax.Array,
    mask: jax.Array,
    length_scale: jax.Array,
    noise: jax.Array,
    grid: jax.Array,
) -> Dependence:
    """All cells at once: standardised ``features`` [B, N, F], raw loss ``y`` and ``mask`` [B, N], process
    parameters [B], standardised ``grid`` [B, F, Q]."""
    return jax.vmap(_cell)(features, y, mask, length_scale, noise, grid)
