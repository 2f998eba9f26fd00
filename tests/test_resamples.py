"""The resamples of a bootstrap and their probabilities against enumeration, SciPy and exact fractions."""

from __future__ import annotations

import itertools
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from scipy.stats import multinomial

from delphi_jax.resamples import (
    n_resamples,
    resample_counts,
    resample_probabilities,
    resample_ranks,
    weighted_percentiles,
)
from tests.tolerances import ROUNDING


def smallest_reaching(values: list[float], weights: list[Fraction], percentile: Fraction) -> float:
    """The definition, word by word: the smallest value at which the cumulative weight reaches the percentile."""
    for value in sorted(values):
        if sum(w for v, w in zip(values, weights, strict=True) if v <= value) >= percentile / 100 * sum(weights):
            return value
    raise AssertionError


@pytest.mark.parametrize("n", range(1, 8))
def test_every_resample_is_there_once_and_in_order(n: int) -> None:
    expected = [np.bincount(draw, minlength=n) for draw in itertools.combinations_with_replacement(range(n), n)]
    counts = resample_counts(n)
    assert counts.dtype == np.uint8
    assert n_resamples(n) == len(expected)
    np.testing.assert_array_equal(counts, expected)


@pytest.mark.parametrize("n", range(1, 6))
def test_probabilities_are_the_shares_of_all_draws(n: int) -> None:
    """n**n draws of equal probability, counted."""
    draws = np.array(list(itertools.product(range(n), repeat=n)))
    ranks = resample_ranks(np.sum(draws[:, :, None] == np.arange(n), axis=1))
    probabilities = resample_probabilities(resample_counts(n))
    np.testing.assert_allclose(probabilities, np.bincount(ranks) / n**n, rtol=ROUNDING)


@pytest.mark.parametrize("n", [1, 2, 7, 9])
def test_probabilities_match_scipy_and_sum_to_one(n: int) -> None:
    counts = resample_counts(n)
    probabilities = resample_probabilities(counts)
    np.testing.assert_allclose(probabilities, multinomial.pmf(counts, n, np.full(n, 1 / n)), rtol=ROUNDING)
    assert np.sum(probabilities) == pytest.approx(1, rel=1e-15 * n)


def test_probabilities_of_many_points_neither_overflow_nor_vanish() -> None:
    n = 150
    counts = np.array([np.ones(n, dtype=int), np.bincount(np.arange(n) // 2, minlength=n)])
    exact = [Fraction(1), Fraction(1, 2**75)]
    probabilities = resample_probabilities(counts)
    assert probabilities[1] / probabilities[0] == pytest.approx(float(exact[1]), rel=ROUNDING)
    assert probabilities[0] == pytest.approx(np.prod(np.arange(1, n + 1) / n), rel=ROUNDING)


@pytest.mark.parametrize("n", [1, 2, 5, 10])
def test_ranks_are_places_in_the_table(n: int) -> None:
    counts = resample_counts(n)
    order = np.random.default_rng(n).permutation(len(counts))
    np.testing.assert_array_equal(resample_ranks(counts[order]), order)
    np.testing.assert_array_equal(resample_ranks(counts[order].astype(float)), order)


def test_no_points_have_no_resample() -> None:
    for call in (n_resamples, resample_counts):
        with pytest.raises(ValueError, match="at least one point, got n = 0"):
            call(0)


@pytest.mark.parametrize("seed", range(5))
def test_percentiles_are_the_inverse_of_the_weighted_distribution(seed: int) -> None:
    """Integer weights, their doubles, and values that repeat, as exact fractions say."""
    rng = np.random.default_rng(seed)
    values = rng.integers(0, 12, 20).astype(float)
    weights = rng.integers(0, 6, 20)
    percentiles = [0, 2.5, 10, 25, 50, 75, 97.5, 100]
    held = [(float(v), Fraction(int(w))) for v, w in zip(values, weights, strict=True) if w > 0]
    expected = [smallest_reaching(*map(list, zip(*held, strict=True)), Fraction(p)) for p in percentiles]
    np.testing.assert_array_equal(weighted_percentiles(values, weights, percentiles), expected)
    np.testing.assert_array_equal(weighted_percentiles(values, weights / 7.0, percentiles), expected)
    plain = np.percentile(np.repeat(values, weights), percentiles, method="inverted_cdf")
    np.testing.assert_array_equal(expected, plain)


def test_a_cumulative_weight_that_misses_by_rounding_reaches() -> None:
    """Ten tenths: in floats, the first three sum to more than 0.3 and the first eight to less than 0.8."""
    values = np.arange(10.0)
    np.testing.assert_array_equal(weighted_percentiles(values, np.full(10, 0.1), [30, 80, 100]), [2, 7, 9])


def test_percentiles_go_along_the_first_axis() -> None:
    rng = np.random.default_rng(0)
    values, weights = rng.normal(size=(30, 2, 3)), rng.uniform(size=30)
    result = weighted_percentiles(values, weights, [10, 90])
    assert result.shape == (2, 2, 3)
    np.testing.assert_array_equal(result[:, 1, 2], weighted_percentiles(values[:, 1, 2], weights, [10, 90]))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([1.0, 2.0], [1.0], [50]), "one weight per value"),
        (([1.0, 2.0], [1.0, -1.0], [50]), "not negative"),
        (([1.0, 2.0], [0.0, 0.0], [50]), "one of them positive"),
        (([], [], [50]), "one of them positive"),
        (([1.0, 2.0], [1.0, np.nan], [50]), "finite"),
        (([1.0, np.nan], [1.0, 1.0], [50]), "must not be NaN"),
        (([1.0, 2.0], [1.0, 1.0], [101]), r"in \[0, 100\]"),
        (([1.0, 2.0], [1.0, 1.0], [np.nan]), r"in \[0, 100\]"),
    ],
)
def test_refuses_what_is_no_distribution(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        weighted_percentiles(*arguments)


def test_values_without_weight_do_not_count() -> None:
    np.testing.assert_array_equal(weighted_percentiles([np.nan, 1.0, 2.0], [0, 1, 1], [0, 100]), [1, 2])
