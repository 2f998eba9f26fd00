"""Processes with a length scale per feature, against scikit-learn, brute force and known valleys."""

from __future__ import annotations

import dataclasses
import json
import warnings
from functools import cache
from pathlib import Path

import jax
import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel

from delphi_jax.cli import main
from delphi_jax.fit import sweep as sweep_fit
from delphi_jax.fit.leave_one_out import accuracy, leave_one_out
from delphi_jax.fit.sweep import fit_sweep
from delphi_jax.kernels import ard as kernel
from delphi_jax.kernels.ard import LENGTH_BOUNDS, NOISE_BOUNDS, ArdProcess, fit_ard_processes
from delphi_jax.kernels.dependence import ard_dependence
from delphi_jax.kernels.precision import jit64
from delphi_jax.results import LeaveOneOut, StudyFit, SweepFit
from delphi_jax.status import Status
from delphi_jax.tables import Study, SweepTable, sweep_table
from tests.delphi import FEATURES, SWEEP
from tests.tolerances import LIKELIHOOD, ROUNDING

Cell = tuple[np.ndarray, np.ndarray]

CELLS, TRIALS = 4, 48
BOWL = np.array([0.4, -0.6, 0.2])
"""Where the simulated valleys have their floor; two more features have no effect."""


def bowl(seed: int, n: int = 36, noise: float = 0.002) -> Cell:
    """Standardised features and losses of a bowl with a level, as losses have."""
    rng = np.random.default_rng(seed)
    X = rng.uniform(-1.7, 1.7, (n, 5))
    X = (X - X.mean(axis=0)) / X.std(axis=0)
    return X, 3.9 + (X[:, :3] - BOWL) ** 2 @ [0.03, 0.02, 0.01] + noise * rng.normal(size=n)


def padded(cells: list[Cell], fill: float = np.nan) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """[4, 48, 5], [4, 48] and the mask, every padded value set to ``fill``."""
    X, y = np.full((CELLS, TRIALS, 5), fill), np.full((CELLS, TRIALS), fill)
    mask = np.zeros((CELLS, TRIALS), dtype=bool)
    for i, (features, loss) in enumerate(cells):
        X[i, : len(loss)], y[i, : len(loss)], mask[i, : len(loss)] = features, loss, True
    return X, y, mask


def fit(cells: list[Cell], fill: float = np.nan) -> ArdProcess:
    return ArdProcess(*(np.asarray(field)[: len(cells)] for field in fit_ard_processes(*padded(cells, fill))))


@cache
def bowls() -> ArdProcess:
    """Of four bowls; the cells of most tests."""
    return fit([bowl(seed) for seed in range(CELLS)])


def scikit(X: np.ndarray, y: np.ndarray) -> GaussianProcessRegressor:
    """The same model of losses about 0, nothing optimised: theta is log (amplitude, length scales, noise ratio)."""
    matern = Matern(np.ones(5), LENGTH_BOUNDS, nu=2.5)
    covariance = ConstantKernel(1.0, (1e-12, 1e12)) * (matern + WhiteKernel(1.0, NOISE_BOUNDS))
    return GaussianProcessRegressor(covariance, alpha=0.0, optimizer=None).fit(X, y)


def many_starts(X: np.ndarray, y: np.ndarray, restarts: int) -> float:
    """The highest likelihood that scikit-learn finds, from its first start and ``restarts`` random ones."""
    gp = scikit(X, y).set_params(optimizer="fmin_l_bfgs_b", n_restarts_optimizer=restarts, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return gp.fit(X, y).log_marginal_likelihood_value_


def theta(fits: ArdProcess, i: int) -> np.ndarray:
    """As :func:`scikit` has it."""
    noise = fits.noise[i] / fits.amplitude[i]
    return np.log([fits.amplitude[i], *fits.length_scales[i], noise])


def covariance(X: np.ndarray, length_scales: np.ndarray, other: np.ndarray | None = None) -> np.ndarray:
    return Matern(length_scales, nu=2.5)(X, X if other is None else other)


def study_cells(study: StudyFit) -> list[Cell]:
    cells = [cell for cell in study.sweep.cells if cell.fitted]
    return [((cell.features - cell.features.mean(axis=0)) / cell.features.std(axis=0), cell.loss) for cell in cells]


def table(cells: list[Cell]) -> SweepTable:
    """A sweep of up to four cells (batch sizes 8, 16, 32, 64), its features anywhere but standardised."""
    columns: dict[str, list[np.ndarray]] = {name: [] for name in ("batch_size", "loss", *FEATURES)}
    for batch, (X, y) in zip((8, 16, 32, 64), cells, strict=False):
        columns["batch_size"].append(np.full(len(y), batch))
        columns["loss"].append(y)
        for j, name in enumerate(FEATURES):
            units = np.exp(0.7 * X[:, j] - 4)
            columns[name].append(1 - units if name.startswith("beta") else units)
    joined = {name: np.concatenate(parts) for name, parts in columns.items()}
    features = np.stack([joined.pop(name) for name in FEATURES], axis=-1)
    n = len(joined["loss"])
    return sweep_table(SWEEP, **joined, hidden_dim=np.full(n, 256), tokens=np.full(n, 1e9), features=features)


@pytest.fixture(scope="module")
def golden_ard(golden_study: Study) -> SweepFit:
    return fit_sweep(golden_study.sweep, process="ard")


@pytest.fixture(scope="module")
def valleys() -> SweepFit:
    return fit_sweep(table([bowl(seed, n=40) for seed in range(CELLS)]), process="ard")


# The likelihood


@pytest.mark.parametrize("seed", range(3))
def test_likelihood_and_gradient_are_scikit_learns(seed: int) -> None:
    """With mean and amplitude profiled out, theirs vanish there, and the others are those at these two."""
    rng = np.random.default_rng(seed)
    X, y = bowl(seed, n=20)
    lengths, ratio = 10 ** rng.uniform(-0.5, 1.5, 5), 10 ** rng.uniform(-4, 0)
    place = np.log([*lengths, ratio])
    squares = np.moveaxis((X[:, None] - X[None]) ** 2, -1, 0)[None]
    with jax.enable_x64(True):
        found = jax.jit(kernel._evaluate)(place[None], squares, y[None], np.ones((1, 20), dtype=bool))
    mean, amplitude = float(found.mean[0]), float(found.amplitude[0])
    gp = scikit(X, y - mean)
    value, gradient = gp.log_marginal_likelihood(np.log([amplitude, *lengths, ratio]), eval_gradient=True)
    assert found.value[0] == pytest.approx(value, abs=1e-8)
    assert gradient[0] == pytest.approx(0, abs=1e-6)
    np.testing.assert_allclose(found.gradient[0], gradient[1:], rtol=1e-7, atol=1e-6)
    for other in (mean + 1e-3, mean - 1e-3):
        assert scikit(X, y - other).log_marginal_likelihood(np.log([amplitude, *lengths, ratio])) < value


def test_the_hessian_matches_differences_of_the_gradient() -> None:
    X, y = bowl(3, n=20)
    squares, mask = np.moveaxis((X[:, None] - X[None]) ** 2, -1, 0)[None], np.ones((1, 20), dtype=bool)
    place, step = np.log([0.7, 2.0, 3.0, 1.0, 8.0, 0.05]), 1e-5
    nudges = step * np.concatenate([np.zeros((1, 6)), np.eye(6), -np.eye(6)])
    with jax.enable_x64(True):
        found = jax.jit(kernel._evaluate)(place + nudges, squares, y[None], mask)
    gradient = np.asarray(found.gradient)
    expected = (gradient[1:7] - gradient[7:]) / (2 * step)
    np.testing.assert_allclose(found.hessian[0], expected, rtol=1e-5, atol=1e-5)


def test_no_lower_than_scikit_learn_from_many_starts(golden_fit: StudyFit, bundled_fit: StudyFit) -> None:
    cells = [*study_cells(golden_fit)[1:22:10], *study_cells(bundled_fit)[4:22:11]]
    assert len(cells) == 5
    for chosen in (cells[:4], cells[4:]):
        fits = fit(chosen)
        for i, (X, y) in enumerate(chosen):
            own = scikit(X, y - fits.mean[i]).log_marginal_likelihood(theta(fits, i))
            assert fits.log_likelihood[i] == pytest.approx(own, abs=LIKELIHOOD)
            assert own >= many_starts(X, y - fits.mean[i], restarts=12) - LIKELIHOOD


def test_no_lower_than_scikit_learn_on_losses_without_a_valley() -> None:
    rng = np.random.default_rng(7)
    cells = []
    for n, shape in ((12, 0.0), (25, 0.0), (30, 0.05), (40, 0.05)):
        X = rng.normal(size=(n, 5))
        X = (X - X.mean(axis=0)) / X.std(axis=0)
        cells.append((X, 3 + shape * np.sin(2 * X[:, 0]) * X[:, 1] + 0.01 * rng.normal(size=n)))
    fits = fit(cells)
    for i, (X, y) in enumerate(cells):
        assert fits.log_likelihood[i] >= many_starts(X, y - fits.mean[i], restarts=12) - LIKELIHOOD


def test_the_gradient_vanishes_or_a_bound_is_active(golden_fit: StudyFit) -> None:
    cells = study_cells(golden_fit)[:CELLS]
    fits = fit(cells)
    bounds = np.log([LENGTH_BOUNDS] * 5 + [NOISE_BOUNDS])
    assert (fits.bound != 0).any()
    for i, (X, y) in enumerate(cells):
        place = theta(fits, i)
        _, gradient = scikit(X, y - fits.mean[i]).log_marginal_likelihood(place, eval_gradient=True)
        assert gradient[0] == pytest.approx(0, abs=1e-5)
        for value, slope, (low, high), bound in zip(place[1:], gradient[1:], bounds, fits.bound[i], strict=True):
            assert bound == int(abs(value - high) < 1e-9) - int(abs(value - low) < 1e-9)
            assert slope * bound >= -1e-5 if bound else abs(slope) < 1e-5
        assert fits.status[i] == (Status.BOUND_HIT if fits.bound[i].any() else Status.FITTED)


def test_mean_and_amplitude_are_those_of_generalised_least_squares() -> None:
    fits = bowls()
    for i in range(CELLS):
        X, y = bowl(i)
        V = covariance(X, fits.length_scales[i]) + fits.noise[i] / fits.amplitude[i] * np.eye(len(y))
        ones = np.linalg.solve(V, np.ones(len(y)))
        assert fits.mean[i] == pytest.approx(ones @ y / ones.sum(), rel=1e-9)
        off = y - fits.mean[i]
        assert fits.amplitude[i] == pytest.approx(off @ np.linalg.solve(V, off) / len(y), rel=1e-6)


# Properties


@pytest.mark.parametrize("fill", [np.inf, 1e9])
def test_padding_is_invisible(fill: float) -> None:
    for name, left, right in zip(
        ArdProcess._fields, fit([bowl(seed) for seed in range(CELLS)], fill), bowls(), strict=True
    ):
        np.testing.assert_array_equal(left, right, err_msg=name)


def test_order_of_trials_features_and_cells_does_not_matter() -> None:
    rng = np.random.default_rng(0)
    columns = rng.permutation(5)
    cells = []
    for seed in range(CELLS):
        X, y = bowl(seed)
        rows = rng.permutation(len(y))
        cells.append((X[rows][:, columns], y[rows]))
    after, before = ArdProcess(*(field[::-1] for field in fit(cells[::-1]))), bowls()
    np.testing.assert_allclose(after.log_likelihood, before.log_likelihood, atol=LIKELIHOOD)
    np.testing.assert_allclose(after.length_scales, before.length_scales[:, columns], rtol=1e-4)
    np.testing.assert_array_equal(after.bound[:, :5], before.bound[:, columns])


def test_alone_as_in_a_batch() -> None:
    X, y = bowl(2)
    alone = fit_ard_processes(X[None], y[None], np.ones((1, len(y)), dtype=bool))
    assert alone.log_likelihood[0] == pytest.approx(bowls().log_likelihood[2], abs=LIKELIHOOD)
    np.testing.assert_allclose(alone.length_scales[0], bowls().length_scales[2], rtol=1e-4)


def test_level_and_unit_of_the_loss_do_not_matter() -> None:
    after, before = fit([(X, 7 + 20 * y) for X, y in map(bowl, range(CELLS))]), bowls()
    n = len(bowl(0)[1])
    np.testing.assert_allclose(after.log_likelihood, before.log_likelihood - n * np.log(20), atol=LIKELIHOOD)
    np.testing.assert_allclose(after.length_scales, before.length_scales, rtol=1e-4)
    np.testing.assert_allclose(after.mean, 7 + 20 * before.mean, rtol=1e-6)
    np.testing.assert_allclose(after.amplitude, 400 * before.amplitude, rtol=1e-4)
    np.testing.assert_allclose(after.noise, 400 * before.noise, rtol=1e-4)


def test_the_unit_of_a_hyper_parameter_does_not_matter(valleys: SweepFit) -> None:
    sweep = table([bowl(seed, n=40) for seed in range(CELLS)])
    units = sweep.features.copy()
    units[:, 0], units[:, 2] = 1000 * units[:, 0], units[:, 2] ** 2
    scaled = fit_sweep(dataclasses.replace(sweep, features=units), process="ard")
    for cell, other in zip(valleys.cells, scaled.cells, strict=True):
        np.testing.assert_allclose(other.length_scales, cell.length_scales, rtol=1e-4)
        assert other.leave_one_out == cell.leave_one_out or cell.fitted
        if cell.fitted:
            assert other.r2 == pytest.approx(cell.r2, abs=1e-6)


# What the data cannot support


def test_equal_losses_and_few_trials_have_a_status() -> None:
    X, y = bowl(0)
    fits = fit([(X, np.full(len(y), 3.1)), (X[:8], y[:8]), (X[:9], y[:9])])
    assert fits.status[0] == Status.NO_SPREAD
    assert fits.status[1] == Status.TOO_FEW_POINTS
    assert Status(int(fits.status[2])).usable
    empty = fit_ard_processes(*padded([]))
    assert set(np.asarray(empty.status).tolist()) == {Status.TOO_FEW_POINTS}
    # The trim leaves 8 of 9 trials.
    swept = fit_sweep(table([(X, np.full(len(y), 3.1)), (X[:9], y[:9])]), process="ard")
    first, second = swept.cell(8, 256, "1B"), swept.cell(16, 256, "1B")
    assert (first.status, second.status) == (Status.NO_SPREAD, Status.TOO_FEW_POINTS)
    for cell in (first, second, swept.cell(64, 512, "5B")):
        assert not cell.fitted and cell.dependence == () and not cell.leave_one_out
        assert np.isnan(
            [cell.mean, cell.amplitude, cell.noise, cell.log_likelihood, cell.r2, *cell.length_scales]
        ).all()
    assert any("no spread" in sentence and "(B=8, H=256, T=1B)" in sentence for sentence in swept.notices())


def test_a_feature_without_spread_has_no_effect_to_be_seen() -> None:
    X, y = bowl(0)
    X = X.copy()
    X[:, 1] = 0.0
    fits = fit([(X, y)])
    assert fits.bound[0, 1] == 1
    assert fits.length_scales[0, 1] == pytest.approx(LENGTH_BOUNDS[1], rel=ROUNDING)
    assert fits.status[0] == Status.BOUND_HIT


def test_says_when_it_did_not_converge(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel, "_STAGES", ((0, 2),))
    impatient = jit64()(lambda *arguments: fit_ard_processes.__wrapped__(*arguments))
    monkeypatch.setattr(sweep_fit, "fit_ard_processes", impatient)
    cell = fit_sweep(table([bowl(0)]), process="ard").cell(8, 256, "1B")
    assert cell.status is Status.NOT_CONVERGED
    assert np.isnan(cell.log_likelihood) and cell.dependence == ()


# Partial dependence


def test_partial_dependence_is_that_of_the_averaged_posterior_mean() -> None:
    """By the kriging system with its border of ones, every covariance formed, the noise left out."""
    X, y = bowl(5, n=15)
    lengths, level_scale, noise = np.array([0.8, 2.0, 1.5, 30.0, 1e3]), 0.02, 3e-4
    grid = np.tile(np.linspace(-2, 2, 7), (5, 1))
    V = level_scale * covariance(X, lengths) + noise * np.eye(15)
    border = np.block([[V, np.ones((15, 1))], [np.ones((1, 15)), np.zeros((1, 1))]])
    ones = np.linalg.solve(V, np.ones(15))
    level = ones @ y / ones.sum()
    wide = [np.concatenate([field, np.full((1, 3, *field.shape[2:]), np.nan)], axis=1) for field in (X[None], y[None])]
    found = ard_dependence(
        *wide,
        np.arange(18)[None] < 15,
        lengths[None],
        *(np.array([value]) for value in (level, level_scale, noise)),
        grid[None],
    )
    for j in range(5):
        for q, value in enumerate(grid[j]):
            replaced = X.copy()
            replaced[:, j] = value
            cross = np.vstack([level_scale * covariance(X, lengths, replaced), np.ones((1, 15))])
            weights = np.linalg.solve(border, cross)
            mean = weights[:15].T @ y
            joint = level_scale * covariance(replaced, lengths) - cross.T @ weights
            assert found.mean[0, j, q] == pytest.approx(mean.mean(), rel=1e-9)
            assert found.sd[0, j, q] == pytest.approx(np.sqrt(joint.mean()), rel=1e-6)


def test_curves_of_a_sweep_are_those_of_its_processes(golden_ard: SweepFit) -> None:
    cell = golden_ard.cell(64, 512, "2.5B")
    center, scale = cell.features.mean(axis=0), cell.features.std(axis=0)
    X = (cell.features - center) / scale
    K = cell.amplitude * covariance(X, cell.length_scales) + cell.noise * np.eye(len(X))
    weights = np.linalg.solve(K, cell.loss - cell.mean)
    for j, curve in enumerate(cell.dependence):
        values = [*curve.grid[::20], curve.heuristic]
        for value, found in zip(values, [*curve.mean[::20], curve.heuristic_mean], strict=True):
            replaced = X.copy()
            replaced[:, j] = (value - center[j]) / scale[j]
            cross = cell.amplitude * covariance(replaced, cell.length_scales, X)
            assert found == pytest.approx(np.mean(cell.mean + cross @ weights), rel=1e-8)


# Leave one out


def test_left_out_predictions_match_refits_with_held_hyper_parameters() -> None:
    X, y = bowl(1, n=14)
    lengths, amplitude, noise = np.array([0.9, 2.0, 1.5, 30.0, 1e3]), 0.02, 3e-4
    wide = np.full((2, 16, 5), np.nan), np.full((2, 16), np.nan)
    wide[0][:, :14], wide[1][:, :14] = X / lengths, y
    mask = np.arange(16)[None].repeat(2, axis=0) < 14
    numbers = np.full(2, amplitude), np.full(2, noise)
    level, zero = (leave_one_out(*wide, mask, *numbers, level_known=known) for known in (False, True))
    assert np.isnan(level.variance[:, 14:]).all()
    for i in range(14):
        rest = np.arange(14) != i
        V = amplitude * covariance(X[rest], lengths) + noise * np.eye(13)
        cross = amplitude * covariance(X[i : i + 1], lengths, X[rest])[0]
        prior = amplitude + noise
        assert zero.mean[0, i] == pytest.approx(cross @ np.linalg.solve(V, y[rest]), rel=1e-9)
        assert zero.variance[1, i] == pytest.approx(prior - cross @ np.linalg.solve(V, cross), rel=1e-9)
        border = np.block([[V, np.ones((13, 1))], [np.ones((1, 13)), np.zeros((1, 1))]])
        weights = np.linalg.solve(border, np.append(cross, 1.0))
        assert level.mean[1, i] == pytest.approx(weights[:13] @ y[rest], rel=1e-9)
        assert level.variance[0, i] == pytest.approx(prior - weights @ np.append(cross, 1.0), rel=1e-9)


def test_accuracy_of_the_reference_matches_scikit_learn_refitted_without_each_trial(golden_fit: StudyFit) -> None:
    cell = golden_fit.sweep.cell(8, 512, "2.5B")
    X = (cell.features - cell.features.mean(axis=0)) / cell.features.std(axis=0)
    process = GaussianProcessRegressor(
        Matern(cell.length_scale, nu=2.5) + WhiteKernel(cell.noise), alpha=1e-6, optimizer=None
    )
    errors, baseline, densities = [], [], []
    for i, loss in enumerate(cell.loss):
        rest = np.arange(len(X)) != i
        mean, sd = process.fit(X[rest], cell.loss[rest]).predict(X[i : i + 1], return_std=True)
        # scikit-learn predicts with the white noise, but without what it adds to the diagonal of the trials.
        variance = sd[0] ** 2 + 1e-6
        errors.append(loss - mean[0])
        baseline.append(loss - cell.loss[rest].mean())
        densities.append(-0.5 * (np.log(2 * np.pi * variance) + errors[-1] ** 2 / variance))
    found = cell.leave_one_out["broad"]
    assert found.r2 == pytest.approx(1 - np.sum(np.square(errors)) / np.sum(np.square(baseline)), abs=1e-6)
    assert found.log_density == pytest.approx(np.mean(densities), abs=1e-6)
    assert cell.r2 == found.r2


def test_accuracy_has_no_number_where_there_is_nothing_to_predict() -> None:
    y, mask = np.array([[1.0, 2.0], [3.0, 3.0], [3.0, 0.0]]), np.array([[True, True], [True, True], [True, False]])
    left_out = leave_one_out(np.zeros((3, 2, 1)), y, mask, np.ones(3), np.ones(3), level_known=True)
    found = accuracy(left_out, y, mask)
    assert np.isnan(found.r2).tolist() == [False, True, True]
    assert np.isnan(found.log_density).tolist() == [False, False, True]


# Known valleys


def test_finds_the_floor_of_a_bowl_and_what_has_no_effect(valleys: SweepFit) -> None:
    for seed, batch in enumerate((8, 16, 32, 64)):
        cell = valleys.cell(batch, 256, "1B")
        assert cell.r2 > 0.9 > cell.leave_one_out["broad"].r2
        assert cell.leave_one_out["ard"].log_density > cell.leave_one_out["broad"].log_density
        kept = bowl(seed, n=40)[1] <= cell.loss_cap
        X = bowl(seed, n=40)[0][kept]
        for j, floor in enumerate(BOWL):
            curve = cell.dependence[j]
            # Back from logarithms of the table's units.
            inside = np.abs(curve.grid - cell.features[:, j].mean()) < 1.5 * cell.features[:, j].std()
            lowest = (curve.grid[inside][np.argmin(curve.mean[inside])] + 4) / 0.7
            assert lowest == pytest.approx(floor, abs=0.15)
            truth = 3.9 + (X[:, :3] - BOWL) ** 2 @ [0.03, 0.02, 0.01]
            weight = (0.03, 0.02, 0.01)[j]
            values = (curve.grid + 4) / 0.7
            expected = truth.mean() + weight * ((values - floor) ** 2 - np.mean((X[:, j] - floor) ** 2))
            assert np.max(np.abs(curve.mean - expected)[inside]) < 0.005
        assert np.min(cell.length_scales[3:]) > 3 * np.max(cell.length_scales[:3])


def test_predicts_left_out_trials_of_every_golden_cell_better(golden_ard: SweepFit) -> None:
    fitted = [cell for cell in golden_ard.cells if cell.fitted]
    assert len(fitted) == 23
    for cell in fitted:
        assert cell.leave_one_out["ard"].r2 > cell.leave_one_out["broad"].r2
        assert cell.leave_one_out["ard"].log_density > cell.leave_one_out["broad"].log_density


# What a reader sees


def test_rows_json_and_notices_say_which_process_and_what_it_explains(
    golden_ard: SweepFit, golden_fit: StudyFit
) -> None:
    rows = golden_ard.rows()
    assert len({tuple(row) for row in rows}) == 1
    cell = golden_ard.cell(64, 512, "2.5B")
    (row,) = cell.rows()
    (lengths,) = [value for name, value in row.items() if name.startswith("length scales: lr, adam_lr")]
    np.testing.assert_allclose([float(length) for length in lengths.split()], cell.length_scales, rtol=6e-4)
    assert row["LOO R2"] == cell.r2 == cell.leave_one_out["ard"].r2
    assert row["LOO R2, reference"] == golden_fit.sweep.cell(64, 512, "2.5B").r2
    held = [cell for cell in golden_ard.cells if cell.bounds_hit]
    assert held and all(cell.status is Status.BOUND_HIT for cell in held)
    for cell in held:
        for name, length in zip(FEATURES, cell.length_scales, strict=True):
            assert (f"{name} (no effect seen)" in cell.rows()[0]["on a bound"]) == (length > 999.999)
    document = json.loads(golden_ard.to_json())
    assert document["process"] == "ard"
    assert set(document["cells"][0]["leave_one_out"]) == {"ard", "broad"}
    assert document["cells"][0]["length_scale"] is None
    assert any("median of 23 sweep cells" in sentence for sentence in golden_ard.notices())


def test_says_which_cells_the_reference_hardly_explains(bundled_fit: StudyFit, golden_fit: StudyFit) -> None:
    little = [cell for cell in bundled_fit.sweep.cells if cell.fitted and cell.r2 < 0.1]
    (said,) = [sentence for sentence in bundled_fit.sweep.notices() if "explains little" in sentence]
    assert f"{len(little)} of 23" in said and "--gp ard" in said
    assert all((cell.name in said) == (cell in little) for cell in bundled_fit.sweep.cells)
    assert not any("explains little" in sentence for sentence in golden_fit.sweep.notices())


def test_ard_says_where_it_explains_little_and_where_the_reference_predicts_better(valleys: SweepFit) -> None:
    ard, broad = LeaveOneOut(0.05, 1.0), LeaveOneOut(0.2, 1.1)
    poor = dataclasses.replace(valleys.cells[0], leave_one_out={"ard": ard, "broad": broad})
    said = dataclasses.replace(valleys, cells=(poor, *valleys.cells[1:])).notices()
    assert not any("explains little" in sentence or "worse" in sentence for sentence in valleys.notices())
    for words in ("ARD process explains little", "ARD process predicts left-out trials worse"):
        (sentence,) = [sentence for sentence in said if words in sentence]
        assert "1 of 4 sweep cells: (B=8, H=256, T=1B)" in sentence and "--gp" not in sentence


def test_the_command_draws_the_ard_process_and_says_so(
    golden_dir: Path, golden_ard: SweepFit, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--data", str(golden_dir / "data"), "--only", "hparam-scaling", "--out", str(tmp_path), "--no-cache"]
    assert main(["figures", "--gp", "ard", *arguments]) == 0
    said = capsys.readouterr().out
    assert all(sentence in said for sentence in golden_ard.notices())
    document = json.loads((tmp_path / "hparam-scaling.json").read_text())
    assert document["layout"]["legend"]["title"]["text"] == "ARD process"
    hovers = {trace["hovertemplate"] for trace in document["data"] if "length scale" in trace.get("hovertemplate", "")}
    assert any("epsilon (no effect seen)" in hover for hover in hovers)


def test_an_unknown_process_is_refused(golden_study: Study) -> None:
    with pytest.raises(ValueError, match="unknown process 'matern'"):
        fit_sweep(golden_study.sweep, process="matern")
