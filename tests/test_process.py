"""Gaussian processes against the reference and scikit-learn; derivatives are scikit-learn's own."""

from __future__ import annotations

import warnings
from functools import cache
from typing import Any

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import Matern, WhiteKernel

from benchmarks import baseline
from delphi_jax.fit import sweep as sweep_fit
from delphi_jax.fit.sweep import fit_sweep
from delphi_jax.kernels import process as kernel
from delphi_jax.kernels.precision import jit64
from delphi_jax.kernels.process import Process, fit_processes
from delphi_jax.results import StudyFit
from delphi_jax.simulate import simulate_study
from delphi_jax.status import Status
from delphi_jax.tables import Study, sweep_table
from tests.delphi import FEATURES, SWEEP
from tests.tolerances import LIKELIHOOD, REFERENCE

Cell = tuple[np.ndarray, np.ndarray]

CELLS, TRIALS = 24, 48
BOUNDS = (1e-5, 1e5)
JITTER = 1e-6
STATUS_NAMES = ("length scale", "noise")


def scikit(X: np.ndarray, y: np.ndarray) -> GaussianProcessRegressor:
    """scikit-learn's process on the data, with nothing optimised: it evaluates likelihoods and gradients."""
    matern = Matern(length_scale=1.0, length_scale_bounds=BOUNDS, nu=2.5)
    white = WhiteKernel(noise_level=0.01, noise_level_bounds=BOUNDS)
    return GaussianProcessRegressor(matern + white, alpha=JITTER, optimizer=None).fit(X, y)


def four_starts(X: np.ndarray, y: np.ndarray, seed: int) -> GaussianProcessRegressor:
    """The reference's fit: the first start and three more, drawn with ``seed``."""
    gp = scikit(X, y).set_params(optimizer="fmin_l_bfgs_b", n_restarts_optimizer=3, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return gp.fit(X, y)


def fit(cells: list[Cell], fill: float = np.nan) -> Process:
    """The batched kernel, every padded value set to ``fill``."""
    X, y = np.full((CELLS, TRIALS, 5), fill), np.full((CELLS, TRIALS), fill)
    mask = np.zeros((CELLS, TRIALS), dtype=bool)
    for i, (features, loss) in enumerate(cells):
        X[i, : len(loss)], y[i, : len(loss)], mask[i, : len(loss)] = features, loss, True
    return Process(*(np.asarray(field)[: len(cells)] for field in fit_processes(X, y, mask)))


def sweep_cells(rows: list[dict[str, Any]]) -> list[Cell]:
    """Standardised features and losses of each cell, by the slow twin's rules."""
    finished = [row for row in rows if row["state"] == "finished" and None not in row.values()]
    groups: dict[tuple[int, int, int], list[dict[str, Any]]] = {}
    for row in finished:
        horizon = np.digitize(row["tokens"], [1.75e9, 3e9])
        groups.setdefault((round(row["batch_size"]), round(row["hidden_dim"]), int(horizon)), []).append(row)
    cells = []
    for group in groups.values():
        columns = ([row[key] for row in group] for key in (*FEATURES, "eval/paloma/macro_loss"))
        features = baseline.sweep_features(*columns)
        cells.append((features["X"], features["y"]))
    return cells


@cache
def simulated_cells(seed: int) -> list[Cell]:
    return sweep_cells(simulate_study(seed)["hparam_sweep"])


def fitted_cells(study: StudyFit) -> list[tuple[Any, Cell]]:
    cells = [cell for cell in study.sweep.cells if cell.fitted]
    return [(cell, ((cell.features - cell.features.mean(0)) / cell.features.std(0), cell.loss)) for cell in cells]


def theta(fits: Process, i: int) -> np.ndarray:
    return np.log([fits.length_scale[i], fits.noise[i]])


def assert_stationary(gp: GaussianProcessRegressor, place: np.ndarray, on_bound: Any) -> None:
    """scikit-learn's gradient vanishes, or points out of the box at a bound."""
    _, gradient = gp.log_marginal_likelihood(place, eval_gradient=True)
    for value, slope, held in zip(place, gradient, on_bound, strict=True):
        low, high = abs(value - np.log(BOUNDS[0])) < 1e-9, abs(value - np.log(BOUNDS[1])) < 1e-9
        assert held == (low or high)
        assert (slope < 1e-5 if low else slope > -1e-5) if held else abs(slope) < 1e-5


# Against the reference


def test_reaches_the_reference_likelihoods(golden_fit: StudyFit, golden_numbers: dict[str, Any]) -> None:
    assert len(golden_numbers["gp_cells"]) == 24
    for expected in golden_numbers["gp_cells"]:
        cell = golden_fit.sweep.cell(expected["batch_size"], expected["hidden_dim"], expected["token_bucket"])
        if expected["empty"]:
            assert cell.status is Status.NO_DATA
            continue
        assert (cell.n_finished, len(cell.loss)) == (expected["n_finished"], expected["n_used"])
        assert cell.loss_cap == pytest.approx(expected["loss_cap"], rel=REFERENCE)
        np.testing.assert_allclose(cell.features.mean(axis=0), expected["scaler_mean"], rtol=REFERENCE)
        np.testing.assert_allclose(cell.features.std(axis=0), expected["scaler_scale"], rtol=REFERENCE)
        np.testing.assert_allclose(cell.loss, expected["y"], rtol=REFERENCE)
        assert cell.log_likelihood >= expected["log_marginal_likelihood"] - LIKELIHOOD
        # One mode, on whose flat top the reference stopped a little early.
        assert cell.length_scale == pytest.approx(expected["length_scale"], rel=1e-4)
        assert cell.noise == pytest.approx(expected["noise_level"], rel=1e-4)
        highest = cell.log_likelihood + cell.interpolating_gain
        assert highest >= expected["best_of_26_starts"]["log_marginal_likelihood"] - LIKELIHOOD
        if not expected["reference_found_best_mode"]:
            assert cell.interpolating_gain > 0.1


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_no_lower_than_scikit_learn_on_simulated_sweeps(seed: int) -> None:
    cells = simulated_cells(seed)
    fits = fit(cells)
    for i, (X, y) in enumerate(cells):
        expected = four_starts(X, y, seed=42).log_marginal_likelihood_value_
        assert fits.log_likelihood[i] >= expected - LIKELIHOOD


@pytest.mark.parametrize("seed", [0, 3])
def test_whatever_the_starts_scikit_learn_finds_no_third_mode(
    seed: int, golden_fit: StudyFit, bundled_fit: StudyFit
) -> None:
    """With other starts scikit-learn often ends in the interpolating mode: reported as a gain, to the digit."""
    followed = 0
    for study in (golden_fit, bundled_fit):
        for cell, (X, y) in fitted_cells(study):
            found = four_starts(X, y, seed).log_marginal_likelihood_value_
            assert found <= cell.log_likelihood + cell.interpolating_gain + LIKELIHOOD
            if found > cell.log_likelihood + LIKELIHOOD:
                assert cell.interpolating_gain == pytest.approx(found - cell.log_likelihood, abs=1e-4)
                followed += 1
    assert followed > 0


def test_the_likeliest_mode_is_no_lower_whatever_the_starts(golden_study: Study) -> None:
    swept = fit_sweep(golden_study.sweep, process="likeliest")
    broad = fit_sweep(golden_study.sweep)
    for cell, usual in zip(swept.cells, broad.cells, strict=True):
        if not cell.fitted:
            continue
        assert cell.interpolating_gain == 0.0
        assert cell.log_likelihood == pytest.approx(usual.log_likelihood + usual.interpolating_gain, abs=1e-4)
        X = (cell.features - cell.features.mean(axis=0)) / cell.features.std(axis=0)
        found = max(four_starts(X, cell.loss, seed).log_marginal_likelihood_value_ for seed in (0, 3))
        assert cell.log_likelihood >= found - LIKELIHOOD


@pytest.mark.parametrize("seed", range(2))
def test_no_lower_than_scikit_learn_on_random_sweeps(seed: int) -> None:
    """Losses with a level, as losses have, over features of any shape."""
    rng = np.random.default_rng(seed)
    cells = []
    for i in range(CELLS):
        n = int(rng.integers(10, 41))
        X = rng.normal(size=(n, 5)) if i % 2 else rng.uniform(-1, 1, size=(n, 5))
        X = (X - X.mean(axis=0)) / X.std(axis=0)
        y = (
            rng.uniform(2.5, 4.5)
            + 0.05 * (X**2) @ rng.uniform(0, 1, 5)
            + 10 ** rng.uniform(-3, -1) * rng.normal(size=n)
        )
        cells.append((X, y))
    fits = fit(cells)
    for i, (X, y) in enumerate(cells):
        found = four_starts(X, y, seed=42).log_marginal_likelihood_value_
        assert max(fits.log_likelihood[i], fits.interpolating_log_likelihood[i]) >= found - LIKELIHOOD
        assert fits.log_likelihood[i] == pytest.approx(scikit(X, y).log_marginal_likelihood(theta(fits, i)), abs=1e-7)


# The conditions of an optimum


def test_likelihood_and_gradient_are_scikit_learns() -> None:
    for seed in (0, 1, 2):
        cells = simulated_cells(seed)
        fits = fit(cells)
        assert set(fits.status) <= {Status.FITTED, Status.BOUND_HIT}
        for i, (X, y) in enumerate(cells):
            gp, place = scikit(X, y), theta(fits, i)
            assert fits.log_likelihood[i] == pytest.approx(gp.log_marginal_likelihood(place), abs=1e-7)
            assert_stationary(gp, place, fits.on_bound[i])
            assert fits.status[i] == (Status.BOUND_HIT if fits.on_bound[i].any() else Status.FITTED)
            other = np.log(fits.interpolating[i])
            found = gp.log_marginal_likelihood(other)
            assert fits.interpolating_log_likelihood[i] == pytest.approx(found, abs=1e-6)


def test_bounds_hit_are_named(bundled_fit: StudyFit) -> None:
    hit = 0
    for cell, (X, y) in fitted_cells(bundled_fit):
        place = np.log([cell.length_scale, cell.noise])
        assert_stationary(scikit(X, y), place, [name in cell.bounds_hit for name in STATUS_NAMES])
        assert cell.status is (Status.BOUND_HIT if cell.bounds_hit else Status.FITTED)
        hit += bool(cell.bounds_hit)
    assert hit > 0


def test_exact_trials_put_the_noise_on_its_bound() -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(30, 5))
    fits = fit([(X, 3.0 + 1e-6 * X[:, 0])])
    assert fits.status[0] == Status.BOUND_HIT
    assert fits.on_bound[0, 1]
    assert fits.noise[0] == pytest.approx(BOUNDS[0], rel=1e-9)


def test_independent_trials_have_a_closed_form() -> None:
    """Losses without level or shape and far beyond unit variance: length scale 0, the rest is noise."""
    rng = np.random.default_rng(1)
    X = rng.normal(size=(40, 5))
    y = np.where(np.arange(40) % 2, 30.0, -30.0)[rng.permutation(40)]
    fits = fit([(X, y)])
    variance = np.mean(y**2)
    independent = -0.5 * 40 * (1 + np.log(2 * np.pi * variance))
    assert fits.log_likelihood[0] >= independent - LIKELIHOOD
    assert fits.log_likelihood[0] == pytest.approx(scikit(X, y).log_marginal_likelihood(theta(fits, 0)), abs=1e-7)


def test_finds_the_independent_mode_where_it_is_the_best() -> None:
    """Every neighbour is of the other sign, so that any length scale only hurts."""
    X = np.zeros((40, 5))
    X[:, 0] = np.repeat(np.linspace(-2, 2, 20), 2) + np.tile([0, 1e-3], 20)
    y = np.tile([5.0, -5.0], 20)
    fits = fit([(X, y)])
    assert fits.length_scale[0] == pytest.approx(BOUNDS[0], rel=1e-9)
    assert fits.noise[0] == pytest.approx(24 - JITTER, rel=1e-9)
    assert fits.log_likelihood[0] == pytest.approx(-20 * (1 + np.log(2 * np.pi * 25)), abs=LIKELIHOOD)
    assert fits.on_bound[0].tolist() == [True, False]
    assert fits.status[0] == Status.BOUND_HIT


# Properties


@pytest.mark.parametrize("fill", [np.nan, np.inf, 1e9])
def test_padding_is_invisible(fill: float) -> None:
    cells = simulated_cells(0)
    for name, left, right in zip(Process._fields, fit(cells, fill), fit(cells, 0.0), strict=True):
        np.testing.assert_array_equal(left, right, err_msg=name)


def test_order_of_trials_and_neighbours_do_not_matter() -> None:
    cells = simulated_cells(1)
    before = fit(cells)
    rng = np.random.default_rng(0)
    orders = [rng.permutation(len(y)) for _, y in cells]
    shuffled = [(X[order], y[order]) for (X, y), order in zip(cells, orders, strict=True)]
    after = Process(*(field[::-1] for field in fit(shuffled[::-1])))
    np.testing.assert_allclose(after.log_likelihood, before.log_likelihood, atol=LIKELIHOOD)
    np.testing.assert_allclose(after.noise, before.noise, rtol=1e-3)
    np.testing.assert_array_equal(after.on_bound, before.on_bound)


def test_alone_as_in_a_batch() -> None:
    X, y = simulated_cells(2)[1]
    batched = fit(simulated_cells(2)[:2])
    alone = fit_processes(X[None], y[None], np.ones((1, len(y)), dtype=bool))
    assert alone.log_likelihood[0] == pytest.approx(batched.log_likelihood[1], abs=LIKELIHOOD)
    assert alone.noise[0] == pytest.approx(batched.noise[1], rel=1e-3)


def test_mirrored_features_and_losses_change_nothing() -> None:
    cells = simulated_cells(0)
    before, after = fit(cells), fit([(-X[:, ::-1], -y) for X, y in cells])
    np.testing.assert_allclose(after.log_likelihood, before.log_likelihood, atol=LIKELIHOOD)
    np.testing.assert_allclose(after.noise, before.noise, rtol=1e-3)


# What the data cannot support


def test_too_few_trials_and_no_trials() -> None:
    rng = np.random.default_rng(0)
    counts = [1, 2, 3]
    table = {name: [] for name in ("batch_size", "hidden_dim", "tokens", "loss", *FEATURES)}
    for batch, count in zip((8, 16, 32), counts, strict=True):
        for _ in range(count):
            values = {"batch_size": batch, "hidden_dim": 256, "tokens": 1e9, "loss": rng.normal(3, 0.1)}
            values |= {name: rng.uniform(0.1, 0.9) for name in FEATURES}
            for name, value in values.items():
                table[name].append(value)
    columns = {name: np.array(values, dtype=float) for name, values in table.items()}
    features = np.stack([columns.pop(name) for name in FEATURES], axis=-1)
    fits = fit_sweep(sweep_table(SWEEP, **columns, features=features))
    # The trim leaves two of three trials, and one of two.
    assert fits.cell(8, 256, "1B").status is Status.TOO_FEW_POINTS
    assert fits.cell(16, 256, "1B").status is Status.TOO_FEW_POINTS
    assert fits.cell(32, 256, "1B").status is Status.TOO_FEW_POINTS
    assert fits.cell(64, 512, "5B").status is Status.NO_DATA
    for cell in fits.cells:
        assert not cell.fitted
        assert np.isnan([cell.length_scale, cell.noise, cell.log_likelihood]).all()
        assert cell.dependence == cell.bounds_hit == ()


def test_says_when_it_did_not_converge(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel, "_BUDGET", 2)
    patient = fit_processes.__wrapped__
    monkeypatch.setattr(sweep_fit, "fit_processes", jit64()(lambda *arguments: patient(*arguments)))
    rows = simulate_study(0)["hparam_sweep"]
    finished = [row for row in rows if row["state"] == "finished" and None not in row.values()]
    columns = {key: np.array([row[key] for row in finished]) for key in ("batch_size", "hidden_dim", "tokens")}
    loss = np.array([row["eval/paloma/macro_loss"] for row in finished])
    features = np.array([[row[name] for name in FEATURES] for row in finished])
    fits = fit_sweep(sweep_table(SWEEP, **columns, loss=loss, features=features))
    cell = fits.cell(8, 256, "1B")
    assert cell.status is Status.NOT_CONVERGED
    assert np.isnan([cell.length_scale, cell.noise, cell.log_likelihood]).all()
    assert cell.dependence == ()
    assert len(cell.loss) > 30
