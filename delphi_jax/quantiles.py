"""Quantiles of Student's t, which make intervals of sums of squares, and the draws that a bootstrap's take."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["f_quantile", "least_draws", "profile_limit", "student_t_probability", "student_t_quantile"]


def student_t_quantile(p: ArrayLike, dof: ArrayLike) -> NDArray[np.float64]:
    """The value that Student's t with ``dof`` degrees of freedom stays below with probability ``p``; shapes broadcast.

    Its square at p = (1 + level)/2 is the ``level`` quantile of F with 1 and ``dof`` degrees of freedom. Raises
    ValueError where ``p`` is not between 0 and 1 or ``dof`` is not a whole number of at least 1.
    """
    p, dof = np.asarray(p, dtype=np.float64), np.asarray(dof, dtype=np.float64)
    if not np.all((p > 0) & (p < 1)):
        raise ValueError(f"probabilities must lie between 0 and 1, got {p}")
    if not np.all((dof >= 1) & np.isfinite(dof) & (dof == np.floor(dof))):
        raise ValueError(f"degrees of freedom must be whole numbers of at least 1, got {dof}")
    return np.asarray(np.vectorize(_quantile, otypes=[np.float64])(p, dof))


def student_t_probability(t: ArrayLike, dof: int) -> NDArray[np.float64]:
    """Probability that Student's t with ``dof`` degrees of freedom, a whole number of at least 1, is below ``t``."""
    return (1 + _inside(np.arctan(np.asarray(t, dtype=np.float64) / math.sqrt(dof)), dof)) / 2


def profile_limit(n_points: ArrayLike, n_params: ArrayLike, level: float) -> NDArray[np.float64]:
    """How many times the least sum of squares a value may reach that is in the profile interval; shapes broadcast.

    1 + F/(n - p) with the ``level`` quantile F of the F distribution with 1 and n - p degrees of freedom, for n points
    and p parameters (Seber & Wild 1989, section 5.4): of a linear model it gives the exact interval. NaN where n <= p.
    """
    dof = np.subtract(n_points, n_params, dtype=np.float64)
    return 1 + f_quantile(dof, level) / np.where(dof >= 1, dof, 1)


def f_quantile(dof: ArrayLike, level: float) -> NDArray[np.float64]:
    """The ``level`` quantile of the F distribution with 1 and ``dof`` degrees of freedom; NaN where there are none."""
    enough = np.asarray(dof) >= 1
    return np.where(enough, student_t_quantile((1 + level) / 2, np.where(enough, dof, 1)) ** 2, np.nan)


def least_draws(level: float) -> int:
    """Draws of which each tail of an interval at ``level`` holds one on average: of fewer there is no interval."""
    return math.ceil(round(2 / (1 - level), 6))


@functools.cache
def _quantile(p: float, dof: float) -> float:
    # With theta = atan(t/sqrt(dof)) the probability between -t and t is concave in theta and linear for one degree of
    # freedom, so Newton's method from 0 comes nearer with every step and never passes.
    inside = abs(2 * p - 1)
    scale = 2 / math.sqrt(math.pi) * math.exp(math.lgamma((dof + 1) / 2) - math.lgamma(dof / 2))
    theta = 0.0
    while True:
        missing = inside - _inside(theta, int(dof))
        following = theta + missing / (scale * math.cos(theta) ** (dof - 1))
        if not theta < following < math.pi / 2:
            return math.copysign(math.sqrt(dof) * math.tan(theta), p - 0.5)
        theta = following


def _inside(theta: Any, dof: int) -> Any:
    """Probability between -t and t (Abramowitz & Stegun 1964, equations 26.7.3, 26.7.4), negative for a negative t."""
    odd = dof % 2
    sine, cosine = np.sin(theta), np.cos(theta)
    series = np.zeros_like(theta)
    for k in range((dof - 1) // 2 if odd else dof // 2, 0, -1):
        series = 1 + series * cosine**2 * (2 * k - 1 + odd) / (2 * k + odd)
    return 2 / np.pi * (theta + sine * cosine * series) if odd else sine * series
