"""Small inverses and factors against LAPACK, in blocks and row by row."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest
from scipy.linalg import solve_triangular

from delphi_jax.kernels.linalg import inverse_factor, invert, solve
from delphi_jax.kernels.loops import loop_lanes

SIZES = (1, 4, 7, 8, 9, 16, 40)
"""One row, less than a block, no multiple of it, and several of them."""


def covariances(n: int, batch: tuple[int, ...] = (2, 3), noise: float = 1e-3) -> np.ndarray:
    """Covariances of a smooth process at random places, with condition numbers of about n/noise."""
    x = np.random.default_rng(n).normal(size=(*batch, n, 2))
    distance2 = np.sum((x[..., :, None, :] - x[..., None, :, :]) ** 2, axis=-1)
    return np.exp(-distance2 / 8) + noise * np.eye(n)


def in_float64(kernel: Callable[..., Any], *arguments: np.ndarray) -> Any:
    with jax.enable_x64(True):
        return jax.device_get(jax.jit(kernel)(*arguments))


@pytest.mark.parametrize("n", SIZES)
def test_inverse_and_determinant(n: int) -> None:
    matrix = covariances(n)
    inverse, log_det = in_float64(invert, matrix)
    expected = np.linalg.inv(matrix)
    scale = np.abs(expected).max(axis=(-2, -1), keepdims=True)
    np.testing.assert_allclose(inverse / scale, expected / scale, rtol=0, atol=1e-11)
    np.testing.assert_allclose(log_det, np.linalg.slogdet(matrix)[1], rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("n", SIZES)
def test_inverse_of_the_factor(n: int) -> None:
    matrix = covariances(n)
    factor = in_float64(inverse_factor, matrix)
    for found, own in zip(factor.reshape(-1, n, n), matrix.reshape(-1, n, n), strict=True):
        expected = solve_triangular(np.linalg.cholesky(own), np.eye(n), lower=True)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-11 * np.abs(expected).max())


@pytest.mark.parametrize("n", (4, 16))
def test_solutions_where_the_scales_are_far_apart(n: int) -> None:
    scale = np.geomspace(1e-8, 1e8, n)
    matrix = covariances(n, (5,)) * scale[:, None] * scale
    right = np.random.default_rng(0).normal(size=(5, n)) * scale
    found = in_float64(solve, matrix, right)
    unscaled = np.linalg.solve(matrix / scale[:, None] / scale, (right / scale)[..., None])[..., 0]
    np.testing.assert_allclose(found * scale, unscaled, rtol=1e-9, atol=1e-9 * np.abs(unscaled).max())


def test_padding_as_identity_changes_nothing() -> None:
    matrix = np.eye(16)
    matrix[:11, :11] = covariances(11, ())
    inverse, log_det = in_float64(invert, matrix)
    np.testing.assert_array_equal(inverse[11:, 11:], np.eye(5))
    np.testing.assert_array_equal(inverse[:11, 11:], 0.0)
    np.testing.assert_allclose(inverse[:11, :11], np.linalg.inv(matrix[:11, :11]), rtol=1e-9)
    np.testing.assert_allclose(log_det, np.linalg.slogdet(matrix[:11, :11])[1], rtol=1e-11)


def test_lanes_end_apart_and_stay_where_they_ended() -> None:
    goals = np.array([0, 3, 7, 1])
    ends = in_float64(lambda start: loop_lanes(lambda at: at < goals, lambda at: at + 1, start), np.zeros(4, int))
    np.testing.assert_array_equal(ends, goals)
