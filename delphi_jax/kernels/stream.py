"""Bootstrap draws counted as they are made: any number of them in constant memory.

Draws come in blocks of fixed size, block b from its own key, so that neither the size of a batch nor the number of
devices changes a draw. What is kept of them are whole numbers, which add up to the same in any order: a histogram
of the forecasts at each target, and counts of how the draws ended.

The bin of a forecast is the beginning of its float64 bit pattern, the exponent and the first BIN_BITS bits of
the mantissa, as in HdrHistogram (Tene, https://hdrhistogram.github.io/HdrHistogram): every bin is at most
2**-BIN_BITS wide in proportion to its values, and no pilot run is needed to place the bins.
Axes: P points, G grid values, R draws, Q targets.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from delphi_jax.formulas import law_loss
from delphi_jax.kernels.bootstrap import bootstrap_laws, count_points
from delphi_jax.status import Status

__all__ = [
    "BIN_BITS",
    "BLOCK",
    "MAX_DRAWS",
    "OCTAVES",
    "Forecasts",
    "Problem",
    "Tally",
    "add_draws",
    "bin_edges",
    "draw_counts",
    "empty_tally",
    "forecast_draws",
    "tally_blocks",
]

BLOCK = 2**13
"""Draws of one random key."""

MAX_DRAWS = BLOCK * 2**32
"""Keys are numbered in 32 bits."""

BIN_BITS = 15
"""Bits of the mantissa that tell bins apart: 2**BIN_BITS bins for each doubling of the forecast."""

OCTAVES = 16
"""Doublings that the histogram covers."""

_BINS = OCTAVES << BIN_BITS
_SHIFT = 52 - BIN_BITS
_BIAS = 1023


class Problem(NamedTuple):
    """One series and what is asked of it."""

    log_compute: jax.Array
    """[P]"""
    loss: jax.Array
    """[P]"""
    mask: jax.Array
    """[P] True for real points."""
    grid: jax.Array
    """[P, G] candidate asymptotes, see :func:`~delphi_jax.kernels.bootstrap.bootstrap_laws`."""
    targets: jax.Array
    """[Q] FLOPs"""


class Forecasts(NamedTuple):
    """R draws; where ``status`` is not FITTED, the rest means nothing."""

    loss: jax.Array
    """[R, Q]"""
    at_zero: jax.Array
    """[R] whether L_inf = 0."""
    status: jax.Array
    """[R]"""


class Tally(NamedTuple):
    """What is kept of draws. Tallies of different draws add up, ``lowest`` and ``highest`` by minimum and maximum."""

    histogram: jax.Array
    """[Q, below + bins + above + not a number] fitted draws."""
    status: jax.Array
    """[statuses] draws that ended so."""
    at_zero: jax.Array
    """[] fitted draws with L_inf = 0."""
    lowest: jax.Array
    """[Q] smallest forecast, inf where there is none."""
    highest: jax.Array
    """[Q]"""


def empty_tally(n_targets: int) -> Tally:
    """The tally of no draws, as NumPy arrays."""
    return Tally(
        histogram=np.zeros((n_targets, _BINS + 3), dtype=np.int64),
        status=np.zeros(len(Status), dtype=np.int64),
        at_zero=np.zeros((), dtype=np.int64),
        lowest=np.full(n_targets, np.inf),
        highest=np.full(n_targets, -np.inf),
    )


def bin_edges(lowest_exponent: int) -> NDArray[np.float64]:
    """The [bins + 1] edges of a histogram that covers 2**lowest_exponent to 2**(lowest_exponent + OCTAVES)."""
    return (_first_bin(lowest_exponent) + np.arange(_BINS + 1) << _SHIFT).view(np.float64)


def _first_bin(lowest_exponent: int | jax.Array) -> int | jax.Array:
    return (lowest_exponent + _BIAS) << BIN_BITS


def draw_counts(key: jax.Array, n_points: int, n_padded: int) -> jax.Array:
    """Counts [BLOCK, n_padded] of one block of resamples of ``n_points`` points.

    An index is the high half of 32 random bits times ``n_points``: its probability is off by less than 2**-32, which
    fewer than 10**18 draws cannot tell.
    """
    bits = jax.random.bits(key, (n_points, BLOCK), jnp.uint32)
    return count_points(bits.astype(jnp.uint64) * n_points >> 32, n_padded)


def forecast_draws(counts: jax.Array, problem: Problem) -> Forecasts:
    """Refit and forecast for every row of ``counts`` [R, P]."""
    laws = bootstrap_laws(problem.log_compute, problem.loss, problem.mask, counts, problem.grid)
    loss = law_loss(problem.targets, laws.L_inf[:, None], laws.A[:, None], laws.alpha[:, None])
    return Forecasts(loss, laws.L_inf == 0, laws.status)


def tally_blocks(
    tally: Tally,
    key: jax.Array,
    first_block: jax.Array,
    n_draws: jax.Array,
    lowest_exponent: jax.Array,
    problem: Problem,
    *,
    n_blocks: int,
    n_points: int,
) -> Tally:
    """``tally`` with the draws of blocks ``first_block`` to ``first_block + n_blocks - 1`` added, all at once.

    Draws of number ``n_draws`` and above are left out, so that the last block may be cut. The histogram covers
    2**``lowest_exponent`` to 2**(``lowest_exponent`` + OCTAVES).
    """
    blocks = first_block + jnp.arange(n_blocks)
    keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, blocks)
    width = problem.mask.shape[0]
    counts = jax.vmap(lambda key: draw_counts(key, n_points, width))(keys).reshape(-1, width)
    asked = (blocks[:, None] * BLOCK + jnp.arange(BLOCK)).ravel() < n_draws
    return add_draws(tally, forecast_draws(counts, problem), asked, lowest_exponent)


def add_draws(tally: Tally, draws: Forecasts, asked: jax.Array, lowest_exponent: jax.Array) -> Tally:
    """``tally`` with those of ``draws`` added that were ``asked`` [R] for."""
    fitted = asked & (draws.status == Status.FITTED)
    patterns = jax.lax.bitcast_convert_type(draws.loss, jnp.int64) >> _SHIFT
    # Bin 0 holds all below the range, zero and negative values included, whose patterns are smaller than any other.
    bins = jnp.clip(patterns - _first_bin(lowest_exponent), -1, _BINS) + 1
    bins = jnp.where(jnp.isnan(draws.loss), _BINS + 2, bins)
    target = jnp.arange(bins.shape[1])
    ordered = fitted[:, None] & ~jnp.isnan(draws.loss)
    return Tally(
        histogram=tally.histogram.at[target, bins].add(fitted[:, None].astype(jnp.int64)),
        status=tally.status
        + jnp.sum((draws.status[:, None] == jnp.arange(len(Status))) & asked[:, None], axis=0, dtype=jnp.int64),
        at_zero=tally.at_zero + jnp.sum(fitted & draws.at_zero, dtype=jnp.int64),
        lowest=jnp.minimum(tally.lowest, jnp.min(jnp.where(ordered, draws.loss, jnp.inf), axis=0)),
        highest=jnp.maximum(tally.highest, jnp.max(jnp.where(ordered, draws.loss, -jnp.inf), axis=0)),
    )
