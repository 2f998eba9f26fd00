"""Small symmetric positive definite matrices, inverted and factored row by row, all at once.

A library call per small matrix does not batch; these loops do, on CPU and GPU alike, and their bodies are a few
operations to compile. Axes: N rows.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

__all__ = ["inverse_factor", "invert", "solve"]

_BLOCK = 8
"""Rows swept at once; padded lengths are multiples of it."""


def invert(matrix: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Inverse and log determinant of symmetric positive definite ``matrix`` [..., N, N], by sweeping every row.

    The sweep operator (Goodnight 1979), on a block of rows K at a time, with the pivot block D and the other columns C
    of these rows: the rest loses C' D^-1 C, rows K (and columns K likewise) become D^-1 C, and the block -D^-1. D^-1
    is W'W with the inverse W of its Cholesky factor: as a factor of its own it would square the condition number.
    Blocks are matrix products, which are fast however little the rest of a program is optimised; where N is no
    multiple of their size, rows are swept one by one.
    """
    n = matrix.shape[-1]
    size = _BLOCK if n > _BLOCK and n % _BLOCK == 0 else 1

    def sweep(k: jax.Array, carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        swept, log_det = carry
        start = k * size
        rows = jax.lax.dynamic_slice_in_dim(swept, start, size, axis=-2)
        pivot = jax.lax.dynamic_slice_in_dim(rows, start, size, axis=-1)
        others = jnp.where(jnp.arange(n) // size == k, 0.0, rows)
        if size == 1:
            inverse, log_pivot = 1.0 / pivot, jnp.log(pivot[..., 0, 0])
            rows = inverse * others
            swept = swept - jnp.swapaxes(others, -1, -2) * rows
        else:
            factor = inverse_factor(pivot)
            back = jnp.swapaxes(factor, -1, -2)
            shares = factor @ others
            inverse, rows = back @ factor, back @ shares
            log_pivot = -2.0 * jnp.sum(jnp.log(jnp.diagonal(factor, axis1=-2, axis2=-1)), axis=-1)
            swept = swept - jnp.swapaxes(shares, -1, -2) @ shares
        rows = jax.lax.dynamic_update_slice_in_dim(rows, -inverse, start, axis=-1)
        swept = jax.lax.dynamic_update_slice_in_dim(swept, rows, start, axis=-2)
        swept = jax.lax.dynamic_update_slice_in_dim(swept, jnp.swapaxes(rows, -1, -2), start, axis=-1)
        return swept, log_det + log_pivot

    swept, log_det = jax.lax.fori_loop(0, n // size, sweep, (matrix, jnp.zeros(matrix.shape[:-2], matrix.dtype)))
    return -swept, log_det


def solve(matrix: jax.Array, right: jax.Array) -> jax.Array:
    """The x of ``matrix`` [..., N, N] x = ``right`` [..., N], by elimination, scaled to a unit diagonal first."""
    n = matrix.shape[-1]
    scale = jax.lax.rsqrt(jnp.diagonal(matrix, axis1=-2, axis2=-1))
    scaled = matrix * scale[..., :, None] * scale[..., None, :]

    def eliminate(k: jax.Array, both: jax.Array) -> jax.Array:
        row = jax.lax.dynamic_index_in_dim(both, k, axis=-2, keepdims=False)
        pivot = jax.lax.dynamic_index_in_dim(row, k, axis=-1)
        column = jax.lax.dynamic_index_in_dim(both, k, axis=-1, keepdims=False)
        return both - (column - (jnp.arange(n) == k))[..., :, None] * (row / pivot)[..., None, :]

    both = jnp.concatenate([scaled, (scale * right)[..., None]], axis=-1)
    return scale * jax.lax.fori_loop(0, n, eliminate, both)[..., -1]


def inverse_factor(matrix: jax.Array) -> jax.Array:
    """The inverse W of the Cholesky factor of ``matrix`` [..., N, N], W matrix W' = I, by elimination."""
    n = matrix.shape[-1]

    def eliminate(k: jax.Array, both: jax.Array) -> jax.Array:
        """One row of ``both`` [..., N, 2N]: what is left of the matrix, beside what has become of the identity."""
        row = jax.lax.dynamic_index_in_dim(both, k, axis=-2, keepdims=False)
        pivot = jax.lax.dynamic_index_in_dim(row, k, axis=-1)
        factor = jnp.where(jnp.arange(n) > k, row[..., :n] / pivot, 0.0)
        return both - factor[..., :, None] * row[..., None, :]

    identity = jnp.broadcast_to(jnp.eye(n), matrix.shape)
    both = jax.lax.fori_loop(0, n, eliminate, jnp.concatenate([matrix, identity], axis=-1))
    pivots = jnp.diagonal(both, axis1=-2, axis2=-1)
    return both[..., n:] / jnp.sqrt(pivots)[..., :, None]
