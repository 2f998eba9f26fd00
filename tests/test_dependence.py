"""Partial dependence against the reference, scikit-learn's joint covariance and closed forms."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import Matern, WhiteKernel

from benchmarks import baseline
from delphi_jax.kernels.dependence import Dependence, partial_dependence
from delphi_jax.kernels.process import matern52
from delphi_jax.results import StudyFit
from tests.delphi import FEATURES
from tests.tolerances import REFERENCE, ROUNDING

CELLS, TRIALS, VALUES = 24, 48, 81
JITTER = 1e-6
CURVE = 1e-8
"""Relative: the reference forms a posterior covariance, whose small mean is a difference of numbers near 1."""


def dependence(
    cells: list[tuple[np.ndarray, np.ndarray, float, float, np.ndarray]], fill: float = np.nan
) -> Dependence:
    """The batched kernel for (X, y, length scale, noise, grid [5, Q]) per cell; padding set to ``fill``."""
    X, y = np.full((CELLS, TRIALS, 5), fill), np.full((CELLS, TRIALS), fill)
    mask, parameters = np.zeros((CELLS, TRIALS), dtype=bool), np.ones((2, CELLS))
    grids = np.zeros((CELLS, 5, VALUES))
    for i, (features, loss, length_scale, noise, grid) in enumerate(cells):
        n = len(loss)
        X[i, :n], y[i, :n], mask[i, :n] = features, loss, True
        parameters[:, i] = length_scale, noise
        grids[i, :, : grid.shape[1]] = grid
    fits = partial_dependence(X, y, mask, *parameters, grids)
    width = cells[0][4].shape[1]
    return Dependence(*(np.asarray(field)[: len(cells), :, :width] for field in fits))


def random_cell(seed: int, n_values: int = 9) -> tuple[np.ndarray, np.ndarray, float, float, np.ndarray]:
    rng = np.random.default_rng(seed)
    n = int(rng.integers(3, TRIALS + 1))
    X = rng.normal(size=(n, 5))
    y = 3 + 0.1 * X[:, 0] + 0.05 * X[:, 1] ** 2 + 0.01 * rng.normal(size=n)
    grid = np.tile(np.linspace(-3, 3, n_values), (5, 1))
    return X, y, 10 ** rng.uniform(-0.5, 2), 10 ** rng.uniform(-4, 0), grid


def scikit(X: np.ndarray, y: np.ndarray, length_scale: float, noise: float) -> GaussianProcessRegressor:
    covariance = Matern(length_scale, nu=2.5) + WhiteKernel(noise)
    return GaussianProcessRegressor(covariance, alpha=JITTER, optimizer=None).fit(X, y)


def test_matches_the_reference_at_its_parameters(golden_numbers: dict[str, Any]) -> None:
    expected = [cell for cell in golden_numbers["gp_cells"] if not cell["empty"]]
    cells = []
    for cell in expected:
        X, y = np.array(cell["X"]), np.array(cell["y"])
        grid = np.array([cell["hparams"][name]["x_grid"] for name in FEATURES])
        cells.append((X, y, cell["length_scale"], cell["noise_level"], grid))
    fits = dependence(cells)
    for i, cell in enumerate(expected):
        for j, name in enumerate(FEATURES):
            np.testing.assert_allclose(fits.mean[i, j], cell["hparams"][name]["pdp_mean"], rtol=CURVE)
            np.testing.assert_allclose(fits.sd[i, j], cell["hparams"][name]["pdp_std"], rtol=1e-6)


def test_a_whole_study_keeps_the_reference_curves(golden_fit: StudyFit, golden_numbers: dict[str, Any]) -> None:
    for expected in golden_numbers["gp_cells"]:
        if expected["empty"]:
            continue
        cell = golden_fit.sweep.cell(expected["batch_size"], expected["hidden_dim"], expected["token_bucket"])
        for j, (name, curve) in enumerate(zip(FEATURES, cell.dependence, strict=True)):
            theirs = expected["hparams"][name]
            grid = np.array(theirs["x_grid"]) * expected["scaler_scale"][j] + expected["scaler_mean"][j]
            np.testing.assert_allclose(curve.grid, grid, rtol=REFERENCE)
            np.testing.assert_allclose(curve.mean, theirs["pdp_mean"], rtol=1e-6)
            np.testing.assert_allclose(curve.sd, theirs["pdp_std"], rtol=1e-4)
            assert curve.heuristic == pytest.approx(theirs["theory_raw"], rel=REFERENCE)
            assert curve.heuristic_mean == pytest.approx(theirs["theory_pd"], rel=1e-6)
            assert curve.heuristic_in_support == theirs["theory_in_support"]


def test_matches_scikit_learns_joint_prediction() -> None:
    cells = [random_cell(seed) for seed in range(8)]
    fits = dependence(cells)
    for i, (X, y, length_scale, noise, grid) in enumerate(cells):
        gp = scikit(X, y, length_scale, noise)
        for j in range(5):
            mean, sd = baseline.partial_dependence(gp, X, j, grid[j])
            np.testing.assert_allclose(fits.mean[i, j], mean, rtol=CURVE)
            np.testing.assert_allclose(fits.sd[i, j], sd, rtol=1e-6)


def test_one_trial_has_a_closed_form() -> None:
    """One trial at distance d: mean k*y/(1 + noise + jitter), variance 1 + noise - k**2/(1 + noise + jitter)."""
    X, grid = np.zeros((1, 5)), np.tile(np.linspace(-2, 2, 9), (5, 1))
    fits = dependence([(X, np.array([3.0]), 0.7, 0.1, grid)])
    r = np.sqrt(5) * np.abs(grid) / 0.7
    k = (1 + r + r**2 / 3) * np.exp(-r)
    np.testing.assert_allclose(fits.mean[0], 3 * k / (1.1 + JITTER), rtol=ROUNDING)
    np.testing.assert_allclose(fits.sd[0], np.sqrt(1.1 - k**2 / (1.1 + JITTER)), rtol=ROUNDING)


def test_far_from_the_trials_the_prior_is_left() -> None:
    X, y, _, _, _ = random_cell(0)
    far = np.full((5, 1), 1e4)
    fits = dependence([(X, y, 1.0, 0.2, far)])
    np.testing.assert_allclose(fits.mean[0], 0, atol=1e-12)
    for j in range(5):
        rest = np.delete(X, j, axis=1)
        r = np.sqrt(5) * np.linalg.norm(rest[:, None] - rest, axis=2)
        prior = np.mean((1 + r + r**2 / 3) * np.exp(-r)) + 0.2 / len(y)
        assert fits.sd[0, j, 0] == pytest.approx(np.sqrt(prior), rel=1e-10)


@pytest.mark.parametrize("fill", [np.nan, np.inf, 5.0])
def test_padding_is_invisible(fill: float) -> None:
    cells = [random_cell(seed) for seed in range(4)]
    for left, right in zip(dependence(cells, fill), dependence(cells, 0.0), strict=True):
        np.testing.assert_array_equal(left, right)


def test_order_of_trials_and_neighbours_do_not_matter() -> None:
    cells = [random_cell(seed) for seed in range(4)]
    before = dependence(cells)
    shuffled = []
    for X, y, *rest in cells:
        order = np.random.default_rng(len(y)).permutation(len(y))
        shuffled.append((X[order], y[order], *rest))
    after = dependence(shuffled[::-1])
    np.testing.assert_allclose(after.mean[::-1], before.mean, rtol=CURVE)
    np.testing.assert_allclose(after.sd[::-1], before.sd, rtol=1e-6)


def test_alone_as_in_a_batch() -> None:
    X, y, length_scale, noise, grid = random_cell(1)
    batched = dependence([random_cell(0), (X, y, length_scale, noise, grid)])
    mask = np.ones((1, len(y)), dtype=bool)
    alone = partial_dependence(X[None], y[None], mask, np.array([length_scale]), np.array([noise]), grid[None])
    np.testing.assert_allclose(alone.mean[0], batched.mean[1], rtol=CURVE)
    np.testing.assert_allclose(alone.sd[0], batched.sd[1], rtol=1e-6)


def test_gradients_match_differences_and_vanish_on_padding() -> None:
    X, y, _, _, grid = random_cell(5, n_values=3)
    X, y = X[:6], y[:6]
    width = 8
    features, loss = np.full((1, width, 5), np.nan), np.full((1, width), np.nan)
    features[0, :6], loss[0, :6] = X, y
    mask = np.arange(width)[None] < 6

    def total(features: jax.Array, loss: jax.Array) -> jax.Array:
        fits = partial_dependence(features, loss, mask, jnp.array([1.5]), jnp.array([0.05]), grid[None])
        return jnp.sum(fits.mean) + jnp.sum(fits.sd)

    with jax.enable_x64(True):
        by_features, by_loss = (np.asarray(g[0]) for g in jax.jit(jax.grad(total, argnums=(0, 1)))(features, loss))
    np.testing.assert_array_equal(by_features[6:], 0.0)
    np.testing.assert_array_equal(by_loss[6:], 0.0)

    def twin(X: np.ndarray, y: np.ndarray) -> float:
        gp = scikit(X, y, 1.5, 0.05)
        return sum(np.sum(baseline.partial_dependence(gp, X, j, grid[j])) for j in range(5))

    step = 1e-5
    for i in range(6):
        nudge = step * (np.arange(6) == i)
        assert by_loss[i] == pytest.approx((twin(X, y + nudge) - twin(X, y - nudge)) / (2 * step), rel=1e-5)
        j = i % 5
        moved = np.zeros_like(X)
        moved[i, j] = step
        slope = (twin(X + moved, y) - twin(X - moved, y)) / (2 * step)
        assert by_features[i, j] == pytest.approx(slope, rel=1e-4, abs=1e-6)


def test_matern_and_its_slope_at_zero_distance() -> None:
    distance = np.array([0.0, 1e-8, 0.3, 4.0])
    with jax.enable_x64(True):
        values = matern52(jnp.asarray(distance**2), jnp.asarray(0.8))
        slopes = jax.vmap(jax.grad(lambda d: matern52(d**2, jnp.asarray(0.8))))(jnp.asarray(distance))
    expected = Matern(0.8, nu=2.5)(np.zeros((1, 1)), distance[:, None])[0]
    np.testing.assert_allclose(values, expected, rtol=ROUNDING)
    r = np.sqrt(5) * distance / 0.8
    np.testing.assert_allclose(slopes, -(np.sqrt(5) / 0.8) * r * (1 + r) / 3 * np.exp(-r), rtol=1e-6, atol=1e-12)
