"""Batches in chunks that fit a processor's caches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

__all__ = ["in_chunks"]


def in_chunks(kernel: Callable[..., Any], size: int, *batches: Any) -> Any:
    """``vmap(kernel)(*batches)``; on CPU ``size`` problems at a time.

    A chunk's arrays stay in the caches, and its loops end with its own slowest problem instead of the slowest of all.
    Accelerators take the whole batch at once. The last chunk is filled up with copies of the last problem.
    """
    n = jax.tree.leaves(batches)[0].shape[0]
    if n <= size or jax.default_backend() != "cpu":
        return jax.vmap(kernel)(*batches)
    n_chunks = -(-n // size)

    def split(leaf: jax.Array) -> jax.Array:
        filled = jnp.pad(leaf, [(0, n_chunks * size - n)] + [(0, 0)] * (leaf.ndim - 1), mode="edge")
        return filled.reshape(n_chunks, size, *leaf.shape[1:])

    results = jax.lax.map(lambda chunk: jax.vmap(kernel)(*chunk), jax.tree.map(split, batches))
    return jax.tree.map(lambda leaf: leaf.reshape(n_chunks * size, *leaf.shape[2:])[:n], results)
