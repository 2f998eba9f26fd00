"""Loops over lanes that end apart.

What ``vmap`` makes of a ``while_loop``, written out: JAX's batching rule traces a loop several times over, which takes
longer than compiling it. Axis: L lanes, first in every array.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp

__all__ = ["keep_where", "loop_lanes"]

S = TypeVar("S")


def keep_where(better: jax.Array, new: S, old: S) -> S:
    """Trees of arrays [L, ...]: lanes of ``new`` where ``better`` [L], else of ``old``."""

    def choose(new: jax.Array, old: jax.Array) -> jax.Array:
        return jax.lax.select(jax.lax.broadcast_in_dim(better, new.shape, (0,)), new, old)

    return jax.tree.map(choose, new, old)


def loop_lanes(unfinished: Callable[[S], jax.Array], step: Callable[[S], S], state: S) -> S:
    """``step`` the lanes of ``state`` until none is ``unfinished`` [L]; a finished lane stays as it is."""
    return jax.lax.while_loop(
        lambda state: jnp.any(unfinished(state)),
        lambda state: keep_where(unfinished(state), step(state), state),
        state,
    )
