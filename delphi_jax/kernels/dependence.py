"""Partial dependence of a Gaussian process, all cells x features x grid values at once (methods, section 8).

Setting column j of every trial to one value (Friedman 2001) and averaging the process over the trials gives
a mean and a variance (Moosbauer et al. 2021). Both follow from the averaged cross-covariance
kbar_i' = mean_i k(x_i with column j replaced, x_i'):

    mean     = kbar . K^-1 y
    variance = mean of K** - |L^-1 kbar|^2,   K = L L'

so that no posterior covariance is ever formed. K**, the prior covariance of the replaced trials, does not
depend on the value, since column j then cancels from every distance; white noise adds noise/n to its mean.

A process of :mod:`delphi_jax.kernels.ard`, with covariance amplitude*V, has its features and grid divided by their
length scales. Its level is estimated by generalised least squares, which adds the last term (universal kriging, Cressie
1993, section 3.4; averaged like the rest), and its band is that of the mean: white noise stays out of K**.

    mean     = level + kbar . V^-1 (y - level)
    variance = amplitude*(mean of K** - |L^-1 kbar|^2 + (1 - 1 . V^-1 kbar)^2 / (1 . V^-1 1)),   V = L L'

Axes: B cells, N trials (padded, masked), F features, Q grid values.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from delphi_jax.kernels.linalg import inverse_factor
from delphi_jax.kernels.precision import jit64
from delphi_jax.kernels.process import JITTER, matern52, squared_distances

__all__ = [
    "Dependence",
    "ard_dependence",
    "averaged_ard_process",
    "averaged_process",
    "partial_dependence",
    "summed_covariance",
]


class Dependence(NamedTuple):
    """Fields [B, F, Q]."""

    mean: jax.Array
    sd: jax.Array


def _without_own(features: jax.Array) -> jax.Array:
    """[B, F, N, N] squared distances between the trials, each feature left out in turn."""
    columns = jnp.swapaxes(features, 1, 2)
    own = (columns[:, :, :, None] - columns[:, :, None, :]) ** 2
    # Rounding may leave tiny negatives.
    return jnp.maximum(jnp.sum(own, axis=1, keepdims=True) - own, 0.0)


@jit64()
def summed_covariance(features: jax.Array, mask: jax.Array, length_scale: jax.Array, grid: jax.Array) -> jax.Array:
    """n*kbar [B, F, Q, N] of every feature and grid value with every trial; see :func:`partial_dependence`.

    Nearly all of the work, and a program of its own: this one is worth compiling for speed.
    """
    features = jnp.where(mask[:, :, None], features, 0.0)
    others, columns = _without_own(features), jnp.swapaxes(features, 1, 2)
    length = length_scale[:, None, None, None]

    def add(i: jax.Array, total: jax.Array) -> jax.Array:
        row = jax.lax.dynamic_index_in_dim(others, i, axis=2)
        present = jax.lax.dynamic_index_in_dim(mask, i, axis=1)[:, :, None, None]
        distance2 = row + (grid[:, :, :, None] - columns[:, :, None, :]) ** 2
        return total + jnp.where(present, matern52(distance2, length), 0.0)

    n_padded = mask.shape[1]
    return jax.lax.fori_loop(0, n_padded, add, jnp.zeros((*grid.shape, n_padded)))


@jit64()
def averaged_process(
    features: jax.Array,
    y: jax.Array,
    mask: jax.Array,
    length_scale: jax.Array,
    noise: jax.Array,
    summed: jax.Array,
) -> Dependence:
    """Mean and deviation from ``summed`` [B, F, Q, N] covariances; see :func:`partial_dependence`."""
    y = jnp.where(mask, y, 0.0)
    given = _condition(features, mask, length_scale, noise + JITTER, summed)
    prior = given.prior + noise[:, None] / jnp.maximum(jnp.sum(mask, axis=1), 1)[:, None]
    white_y = jnp.sum(given.factor * y[:, None, :], axis=2)
    mean = jnp.sum(given.whitened * white_y[:, None, :], axis=2).reshape(summed.shape[:3])
    variance = prior[:, :, None] - jnp.sum(given.whitened**2, axis=2).reshape(summed.shape[:3])
    return Dependence(mean, jnp.sqrt(jnp.maximum(variance, 0.0)))


@jit64()
def averaged_ard_process(
    features: jax.Array,
    y: jax.Array,
    mask: jax.Array,
    level: jax.Array,
    amplitude: jax.Array,
    noise: jax.Array,
    summed: jax.Array,
) -> Dependence:
    """As :func:`averaged_process`, see :func:`ard_dependence`; ``features`` in length scales."""
    y = jnp.where(mask, y - level[:, None], 0.0)
    given = _condition(features, mask, jnp.ones_like(level), noise / amplitude, summed)
    white_y, white_ones = (jnp.sum(given.factor * row[:, None, :], axis=2) for row in (y, mask))
    mean = jnp.sum(given.whitened * white_y[:, None, :], axis=2)
    gap = 1.0 - jnp.sum(given.whitened * white_ones[:, None, :], axis=2)
    of_level = gap**2 / jnp.sum(white_ones**2, axis=1)[:, None]
    variance = (of_level - jnp.sum(given.whitened**2, axis=2)).reshape(summed.shape[:3]) + given.prior[:, :, None]
    sd = jnp.sqrt(amplitude[:, None, None] * jnp.maximum(variance, 0.0))
    return Dependence(level[:, None, None] + mean.reshape(summed.shape[:3]), sd)


class _Given(NamedTuple):
    """The averaged process and the trials that it is conditioned on."""

    prior: jax.Array
    """[B, F] mean of K**, without noise."""
    factor: jax.Array
    """[B, N, N] L^-1"""
    whitened: jax.Array
    """[B, F*Q, N] L^-1 kbar."""


def _condition(
    features: jax.Array, mask: jax.Array, length_scale: jax.Array, diagonal: jax.Array, summed: jax.Array
) -> _Given:
    """``diagonal`` [B] is added to the covariance of the trials."""
    features = jnp.where(mask[:, :, None], features, 0.0)
    n = jnp.maximum(jnp.sum(mask, axis=1), 1)[:, None]
    pair = mask[:, None, :, None] & mask[:, None, None, :]
    length = length_scale[:, None, None, None]
    prior = jnp.sum(jnp.where(pair, matern52(_without_own(features), length), 0.0), axis=(2, 3)) / n**2
    distance2 = squared_distances(features)[:, None]
    covariance = jnp.where(pair, matern52(distance2, length), 0.0)[:, 0]
    on_diagonal = jnp.where(mask, diagonal[:, None], 1.0)
    factor = inverse_factor(covariance + jnp.eye(mask.shape[1]) * on_diagonal[:, :, None])
    cross = jnp.where(mask[:, None, None, :], summed / n[:, :, None, None], 0.0)
    # One product per cell serves all features.
    rows = cross.reshape(*cross.shape[:1], -1, cross.shape[-1])
    return _Given(prior, factor, rows @ jnp.swapaxes(factor, 1, 2))


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
    summed = summed_covariance(features, mask, length_scale, grid)
    return averaged_process(features, y, mask, length_scale, noise, summed)


def ard_dependence(
    features: jax.Array,
    y: jax.Array,
    mask: jax.Array,
    length_scales: jax.Array,
    level: jax.Array,
    amplitude: jax.Array,
    noise: jax.Array,
    grid: jax.Array,
) -> Dependence:
    """As :func:`partial_dependence`, of processes with ``length_scales`` [B, F] and [B] ``level``, ``amplitude`` and
    ``noise`` (both variances).

    ``sd`` is that of the averaged posterior mean: without the white noise, with the uncertainty of the level, at the
    given length scales, amplitude and noise.
    """
    features, grid = features / length_scales[:, None], grid / length_scales[:, :, None]
    summed = summed_covariance(features, mask, np.ones(level.shape), grid)
    return averaged_ard_process(features, y, mask, level, amplitude, noise, summed)


def _prepare(
    features: jax.Array, y: jax.Array, mask: jax.Array, length_scale: jax.Array, noise: jax.Array, grid: jax.Array
) -> None:
    last = (features, y, mask, length_scale, noise)
    _prepare_both((features, mask, length_scale, grid), averaged_process, last)


def _prepare_ard(
    features: jax.Array,
    y: jax.Array,
    mask: jax.Array,
    length_scales: jax.Array,
    level: jax.Array,
    amplitude: jax.Array,
    noise: jax.Array,
    grid: jax.Array,
) -> None:
    last = (features, y, mask, level, amplitude, noise)
    _prepare_both((features, mask, level, grid), averaged_ard_process, last)


def _prepare_both(first: tuple[Any, ...], program: Any, last: tuple[Any, ...]) -> None:
    """:func:`summed_covariance` and the ``program`` that takes its result, at once."""
    grid, mask = first[-1], first[1]
    summed = np.empty((*grid.shape, mask.shape[1]))
    with ThreadPoolExecutor(2) as pool:
        made = [pool.submit(summed_covariance.prepare, *first), pool.submit(program.prepare, *last, summed)]
    for ready in made:
        ready.result()


partial_dependence.prepare = _prepare
ard_dependence.prepare = _prepare_ard
