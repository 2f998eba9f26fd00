"""Optima of resampled IsoFLOP runs: the parabola of every resample of a bucket's runs.

A resample is fitted as the runs themselves are (:func:`~delphi_jax.kernels.parabola.fit_parabola`): its optimum is
clipped to its own range of tokens, and one of fewer than three distinct token counts has none.

Axes: B buckets, P runs (padded, real ones first), R resamples.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from delphi_jax.kernels.chunks import in_chunks
from delphi_jax.kernels.parabola import fit_parabola
from delphi_jax.kernels.precision import jit64

__all__ = ["CHUNK", "ResampledOptima", "resampled_optima"]

CHUNK = 4
"""Buckets computed at once."""


class ResampledOptima(NamedTuple):
    """Fields [B, R]."""

    loss_star: jax.Array
    status: jax.Array


def _one_bucket(x: jax.Array, loss: jax.Array, mask: jax.Array, indices: jax.Array) -> ResampledOptima:
    def fit(places: jax.Array) -> ResampledOptima:
        drawn = fit_parabola(x[places], loss[places], jnp.zeros_like(x), mask)
        return ResampledOptima(drawn.loss_star, drawn.status)

    return jax.vmap(fit)(indices)


@jit64()
def resampled_optima(x: jax.Array, loss: jax.Array, mask: jax.Array, indices: jax.Array) -> ResampledOptima:
    """``x`` = log10 tokens, ``loss``, ``mask``: [B, P]; ``indices`` [B, R, P]: the runs of each resample, as many as
    the bucket has, the rest of P anything in range. Numbers whose status is not usable mean nothing.
    """
    return in_chunks(jax.vmap(_one_bucket), CHUNK, x, loss, mask, indices)
