"""Every bootstrap resample of n points, with its probability: NumPy only.

A resample of n points, drawn with replacement and without regard to order, is a vector of n counts that sum to n.
There are C(2n-1, n) of them, few enough for the optima of a series to be enumerated: 1716 for n = 7, 1352078 for
n = 12 (Efron and Tibshirani 1993, An Introduction to the Bootstrap, section 6.6). Axes: M resamples, R draws.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = [
    "count_indices",
    "n_resamples",
    "resample_counts",
    "resample_probabilities",
    "resample_ranks",
    "weighted_percentiles",
]

_ROUNDING = 1e-11
"""Share of the total by which a cumulative weight may miss a percentile and still reach it."""


def n_resamples(n: int) -> int:
    """Number of distinct count vectors of a bootstrap of ``n`` points, n >= 1: C(2n-1, n)."""
    if n < 1:
        raise ValueError(f"a resample needs at least one point, got n = {n}")
    return math.comb(2 * n - 1, n)


def count_indices(indices: NDArray[np.int64], width: int) -> NDArray[np.int64]:
    """How often each of ``width`` points stands in every row of ``indices`` [R, n], as [R, width]."""
    places = indices + np.arange(len(indices))[:, None] * width
    return np.bincount(places.ravel(), minlength=len(indices) * width).reshape(-1, width)


def resample_counts(n: int) -> NDArray[np.uint8]:
    """All count vectors [M, n] of ``n`` points, in the order of ``itertools.combinations_with_replacement``.

    That is in descending lexicographic order: [n, 0, ...] first, [..., 0, n] last. Takes about 2*M*n bytes.
    """
    rows = n_resamples(n)
    # Vectors of the last few columns by total: those of total t start with t minus the rest, where the rest is any
    # vector of one column less and a total of at most t. These stand in front of the table, as it is sorted by total.
    totals, tails = np.zeros(1, dtype=np.uint8), np.zeros((1, 0), dtype=np.uint8)
    for width in range(1, n):
        sizes = [math.comb(total + width - 1, width - 1) for total in range(n + 1)]
        wider = np.empty((sum(sizes), width), dtype=np.uint8)
        start = 0
        for total, size in enumerate(sizes):
            # A table of no column has one row, of total 0.
            wider[start : start + size, 0] = total - totals[:size]
            wider[start : start + size, 1:] = tails[:size]
            start += size
        totals, tails = np.repeat(np.arange(n + 1, dtype=np.uint8), sizes), wider
    counts = np.empty((rows, n), dtype=np.uint8)
    counts[:, 0] = n - totals
    counts[:, 1:] = tails
    return counts


def resample_probabilities(counts: ArrayLike) -> NDArray[np.float64]:
    """Multinomial probability [M] of each row of ``counts`` [M, n], n counts that sum to n: n!/prod(c_i!) / n**n."""
    counts = np.asarray(counts)
    n = counts.shape[1]
    # Factors from exact integers: their product is right to n roundings, without logarithms.
    inverse_factorials = np.array([1 / math.factorial(c) for c in range(n + 1)])
    probabilities = np.full(len(counts), math.factorial(n) / n**n)
    for column in counts.T:
        probabilities *= inverse_factorials[column]
    return probabilities


def resample_ranks(counts: ArrayLike) -> NDArray[np.int64]:
    """Row of :func:`resample_counts` at which each of ``counts`` [R, n] stands, [R]."""
    counts = np.asarray(counts)
    n = counts.shape[1]
    ranks = np.zeros(len(counts), dtype=np.int64)
    left = np.full(len(counts), n, dtype=np.int64)
    for width, column in zip(range(n - 1, 0, -1), counts.T, strict=False):
        left -= column.astype(np.int64)
        # Vectors of the same beginning that stand before have a larger count here, and so less left for the rest.
        before = np.array([0, *(math.comb(total - 1 + width, width) for total in range(1, n + 1))])
        ranks += before[left]
    return ranks


def weighted_percentiles(values: ArrayLike, weights: ArrayLike, percentiles: Sequence[float]) -> NDArray[np.float64]:
    """Percentiles of the discrete distribution that puts ``weights`` [M] on ``values`` [M, ...], as [K, ...].

    The inverse of the cumulative distribution (definition 1 of Hyndman and Fan 1996, NumPy's "inverted_cdf"): the
    smallest value at which the cumulative weight reaches the percentile, so always one of the values. Weights are
    integers or floats of any total. Raises ValueError for shapes that do not match, NaN, negative weights, weights
    that are all zero, and percentiles outside [0, 100].
    """
    values, weights = np.asarray(values, dtype=np.float64), np.asarray(weights)
    shares = np.asarray(percentiles, dtype=np.float64) / 100
    if weights.ndim != 1 or values.shape[:1] != weights.shape:
        raise ValueError(f"one weight per value expected, got values {values.shape} and weights {weights.shape}")
    if not (np.all(np.isfinite(weights)) and np.all(weights >= 0) and np.any(weights > 0)):
        raise ValueError("weights must be finite and not negative, and one of them positive")
    if not np.all((shares >= 0) & (shares <= 1)):
        raise ValueError(f"percentiles must be in [0, 100], got {list(percentiles)}")
    values, weights = values[weights > 0], weights[weights > 0]
    if np.any(np.isnan(values)):
        raise ValueError("values with a positive weight must not be NaN")
    columns = values.reshape(len(values), -1)
    result = np.empty((len(shares), columns.shape[1]))
    for i, column in enumerate(columns.T):
        order = np.argsort(column)
        cumulative = np.cumsum(weights[order])
        reached = shares * cumulative[-1] - _ROUNDING * float(cumulative[-1])
        result[:, i] = column[order[np.searchsorted(cumulative, reached)]]
    return result.reshape(len(shares), *values.shape[1:])
