"""Small symmetric positive definite matrices, inverted and factored in one rank-one update per row.

A library call per small matrix does not batch; these loops do, on CPU and GPU alike, and their bodies are a few
operations to compile. Axes: N rows.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

__all__ = ["inverse_factor", "invert", "solve"]


def invert(matrix: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Inverse and log determinant of a symmetric positive definite ``matrix`` [N, N], by sweeping every row.

    The sweep operator (Goodnight 1979): with u = column - e_k, subtracting u u'/pivot sweeps row and column k in one
    rank-one update, but for a 2 on the diagonal entry, which no later step reads: the twos are taken off at the end.
    """
    n = matrix.shape[0]

    def sweep(k: jax.Array, carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        swept, log_det = carry
        column = jax.lax.dynamic_index_in_dim(swept, k, axis=0, keepdims=False)
        pivot = jax.lax.dynamic_index_in_dim(column, k, keepdims=False)
        u = column - (jnp.arange(n) == k)
        # The quotient stands on the outer axis, where it is formed once per row.
        return swept - (u / pivot)[:, None] * u[None, :], log_det + jnp.log(pivot)

    swept, log_det = jax.lax.fori_loop(0, n, sweep, (matrix, jnp.zeros((), matrix.dtype)))
    return 2.0 * jnp.eye(n) - swept, log_det


def solve(matrix: jax.Array, right: jax.Array) -> jax.Array:
    """The solution of ``matrix`` [N, N] x = ``right`` [N], with the matrix scaled to a unit diagonal first."""
    scale = jax.lax.rsqrt(jnp.diagonal(matrix))
    return scale * (invert(matrix * scale[:, None] * scale)[0] @ (scale * right))


def inverse_factor(matrix: jax.Array) -> jax.Array:
    """The inverse W of the Cholesky factor of ``matrix`` [N, N], W matrix W' = I, by elimination."""
    n = matrix.shape[0]

    def eliminate(k: jax.Array, carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        left, right = carry
        row = jax.lax.dynamic_index_in_dim(left, k, axis=0, keepdims=False)
        inverse_row = jax.lax.dynamic_index_in_dim(right, k, axis=0, keepdims=False)
        pivot = jax.lax.dynamic_index_in_dim(row, k, keepdims=False)
        factor = jnp.where(jnp.arange(n) > k, row / pivot, 0.0)[:, None]
        return left - factor * row, right - factor * inverse_row

    left, right = jax.lax.fori_loop(0, n, eliminate, (matrix, jnp.eye(n)))
    return right / jnp.sqrt(jnp.diagonal(left))[:, None]
