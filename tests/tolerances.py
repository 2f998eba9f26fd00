"""Every tolerance of the numerical tests, each with its reason."""

from __future__ import annotations

import numpy as np

REFERENCE = 1e-9
"""Relative, closed-form fits against the reference's numbers and the slow twin: both round differently."""

ROUNDING = 1e-12
"""Relative, one algorithm on the same numbers in another order or place of a batch."""

TRUTH = 1e-8
"""Relative, a known truth recovered from noiseless data."""

DIFFERENCE = 1e-6
"""Relative, derivatives against central differences."""

LIKELIHOOD = 1e-6
"""Absolute, log likelihoods: what another optimiser may be ahead by."""

SUM_OF_SQUARES = 1e-9
"""Relative, sums of squares: what another optimiser may be ahead by."""

STATIONARY = 3e-5
"""Cosine between the residual and a free parameter's derivative at a least-squares optimum: its square is the
share of the sum of squares that a step along the parameter could still gain."""

_LOG_RESIDUAL = 5e-15
"""Absolute, one log residual: a few units in the last place of alpha*log C and log A, which are near 5."""


def score_allowance(score: np.ndarray) -> np.ndarray:
    """How far two roundings of a mean squared log residual may lie apart, for scores of any size.

    With every residual off by d, the mean of squares is off by at most 2*sqrt(score)*d + d**2 (Cauchy-Schwarz).
    """
    return REFERENCE * score + 2 * np.sqrt(score) * _LOG_RESIDUAL + _LOG_RESIDUAL**2


def assert_scores_match(actual: object, expected: object) -> None:
    actual, expected = np.asarray(actual, dtype=float), np.asarray(expected, dtype=float)
    np.testing.assert_array_equal(np.isfinite(actual), np.isfinite(expected))
    finite = np.isfinite(expected)
    assert np.all(np.abs(actual - expected)[finite] <= score_allowance(expected[finite]))
