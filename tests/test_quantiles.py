"""Quantiles of Student's t against SciPy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from delphi_jax.quantiles import student_t_probability, student_t_quantile
from tests.tolerances import REFERENCE, ROUNDING

DOF = np.array([1, 2, 3, 4, 5, 7, 10, 11, 30, 100, 101, 1000])


@pytest.mark.parametrize("p", [1e-6, 0.025, 0.3, 0.5, 0.6, 0.9, 0.975, 0.999, 1 - 1e-6])
def test_matches_scipy(p: float) -> None:
    np.testing.assert_allclose(student_t_quantile(p, DOF), stats.t.ppf(p, DOF), rtol=REFERENCE, atol=ROUNDING)


@pytest.mark.parametrize("dof", DOF.tolist())
def test_probabilities_match_scipy(dof: int) -> None:
    t = np.array([-40.0, -2.5, -0.3, 0.0, 1e-4, 0.7, 3.0, 25.0])
    np.testing.assert_allclose(student_t_probability(t, dof), stats.t.cdf(t, dof), rtol=1e-9, atol=1e-14)


def test_its_square_is_the_quantile_of_f() -> None:
    expected = stats.f.ppf(0.95, 1, DOF)
    np.testing.assert_allclose(student_t_quantile(0.975, DOF) ** 2, expected, rtol=REFERENCE)


def test_shapes_broadcast() -> None:
    p = np.array([[0.1], [0.8]])
    found = student_t_quantile(p, DOF)
    assert found.shape == (2, len(DOF)) and student_t_quantile(0.975, 4).shape == ()
    np.testing.assert_allclose(found, stats.t.ppf(p, DOF), rtol=REFERENCE)
    assert student_t_quantile(0.5, 3) == 0.0


@pytest.mark.parametrize(("p", "dof"), [(0.0, 3), (1.0, 3), (np.nan, 3), (1.2, 3)])
def test_refuses_what_is_no_probability(p: float, dof: int) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        student_t_quantile(p, dof)


@pytest.mark.parametrize("dof", [0, -1, 2.5, np.nan, np.inf])
def test_refuses_what_are_no_degrees_of_freedom(dof: float) -> None:
    with pytest.raises(ValueError, match="whole numbers of at least 1"):
        student_t_quantile(0.975, dof)
