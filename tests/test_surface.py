"""The loss surface against SciPy, brute force, simulated truth and published fits."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import least_squares, nnls

import delphi_jax.fit.surface as fit_module
from delphi_jax.fit.surface import bootstrap_surface, fit_surface, fit_surfaces
from delphi_jax.kernels.surface import EXPONENTS, linear_coefficients
from delphi_jax.kernels.surface import fit_surfaces as fit_problems
from delphi_jax.results.surface import COEFFICIENTS, SurfaceFit, SurfaceObjective
from delphi_jax.status import Status
from tests.tolerances import ROUNDING, SUM_OF_SQUARES, TRUTH

Runs = tuple[np.ndarray, np.ndarray, np.ndarray]

OBJECTIVES = [SurfaceObjective(function, residual) for function in ("squared", "huber") for residual in ("loss", "log")]
each_objective = pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda objective: objective.label)
TRUE = np.array([1.8, 420.0, 2100.0, 0.35, 0.37])
EXPERIMENTS = {
    "chinchilla": "ml_scalefit__massivetext__chinchilla",
    "nemotron": "marin_202603__nemotron__llama_2",
    "dclm": "marin_202603__dclm__llama_2",
    "comma": "marin_202603__comma__llama_2",
}


def model(theta: np.ndarray, params: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    E, A, B, a, b = theta
    return E + A / params**a + B / tokens**b


def places(seed: int, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Params and tokens of ``n`` runs, three decades each."""
    rng = np.random.default_rng(seed)
    return 10 ** rng.uniform(7.5, 10.5, n), 10 ** rng.uniform(9, 12, n)


def noisy_runs(seed: int, n: int = 32, noise: float = 0.01) -> Runs:
    params, tokens = places(seed, n)
    return params, tokens, model(TRUE, params, tokens) * np.exp(noise * np.random.default_rng(seed + 1).normal(size=n))


def theta_of(fit: SurfaceFit) -> np.ndarray:
    return np.array([getattr(fit, name) for name in COEFFICIENTS])


def residuals(theta: np.ndarray, runs: Runs, objective: SurfaceObjective) -> np.ndarray:
    *where, loss = runs
    predicted = model(theta, *where)
    return np.log(loss / predicted) if objective.residual == "log" else loss - predicted


def mean_loss(theta: np.ndarray, runs: Runs, objective: SurfaceObjective) -> float:
    """The objective as it is written, branch by branch."""
    size = np.abs(residuals(theta, runs, objective))
    if objective.function == "squared":
        return float(np.mean(size**2))
    delta = objective.delta
    return float(np.mean(np.where(size <= delta, size**2 / 2, delta * (size - delta / 2))))


def scipy_best(runs: Runs, objective: SurfaceObjective, starts: int = 12) -> float:
    """The lowest mean loss that SciPy's trust-region reflective method reaches from random starts."""
    rng = np.random.default_rng(0)
    unit = np.array([1.0, 1e9, 1e11])
    scaled = (runs[0] / unit[1], runs[1] / unit[2], runs[2])
    best = np.inf
    for _ in range(starts):
        start = np.r_[rng.uniform(0.3, 0.95) * runs[2].min(), rng.uniform(0.1, 0.6, 2), rng.uniform(0.15, 0.8, 2)]
        found = least_squares(
            residuals,
            start,
            bounds=([0, 0, 0, EXPONENTS[0], EXPONENTS[0]], [np.inf] * 3 + [EXPONENTS[1]] * 2),
            loss="huber" if objective.function == "huber" else "linear",
            f_scale=objective.delta,
            args=(scaled, objective),
            x_scale=[1.0, 0.3, 0.3, 0.3, 0.3],
            ftol=1e-14,
            xtol=1e-14,
            gtol=1e-14,
            max_nfev=400,
        )
        best = min(best, mean_loss(found.x, scaled, objective))
    return best


# Truth and independent optima


@each_objective
def test_noiseless_truths_are_recovered(objective: SurfaceObjective) -> None:
    rng = np.random.default_rng(3)
    series, truths = {}, {}
    for i in range(25):
        params, tokens = places(i, int(rng.integers(8, 33)))
        a, b = rng.uniform(0.1, 1.2, 2)
        truth = np.array([rng.uniform(0.2, 3), rng.uniform(0.1, 1) * 1e9**a, rng.uniform(0.1, 1) * 3e10**b, a, b])
        series[str(i)], truths[str(i)] = (params, tokens, model(truth, params, tokens)), truth
    for name, fit in fit_surfaces(series, objective=objective).items():
        assert fit.status is Status.FITTED
        assert theta_of(fit) == pytest.approx(truths[name], rel=TRUTH)
        assert fit.loss_at(1e11, 1e13) == pytest.approx(model(truths[name], 1e11, 1e13), rel=TRUTH)


@each_objective
def test_no_start_of_scipy_ends_lower(objective: SurfaceObjective) -> None:
    for seed, noise in ((10, 0.01), (20, 0.003)):
        runs = noisy_runs(seed, noise=noise)
        fit = fit_surface(*runs, objective=objective)
        assert fit.status is Status.FITTED
        reached = mean_loss(theta_of(fit), runs, objective)
        assert fit.value == pytest.approx(reached, rel=TRUTH)
        assert reached <= scipy_best(runs, objective) * (1 + SUM_OF_SQUARES)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_no_place_of_a_fine_grid_lies_lower(seed: int) -> None:
    """Exponents on a grid, linear coefficients by SciPy's non-negative least squares; noise enough to reach bounds."""
    params, tokens, loss = noisy_runs(seed, n=16, noise=0.15)
    fit = fit_surface(params, tokens, loss, objective=SurfaceObjective("squared"))
    exponents = np.geomspace(*EXPONENTS, 40)
    scaled = params / np.exp(np.mean(np.log(params))), tokens / np.exp(np.mean(np.log(tokens)))
    lowest = min(
        nnls(np.stack([np.ones_like(loss), scaled[0] ** -a, scaled[1] ** -b], axis=1), loss)[1] ** 2 / len(loss)
        for a in exponents
        for b in exponents
    )
    assert fit.value <= lowest * (1 + SUM_OF_SQUARES)


@each_objective
def test_no_small_step_goes_down(objective: SurfaceObjective) -> None:
    runs = noisy_runs(5)
    fit = fit_surface(*runs, objective=objective)
    assert fit.gradient < 1e-6
    for i in range(5):
        for step in (1 - 1e-5, 1 + 1e-5):
            aside = theta_of(fit)
            aside[i] *= step
            assert mean_loss(aside, runs, objective) >= fit.value


def test_least_squares_with_non_negative_coefficients_match_scipy() -> None:
    rng = np.random.default_rng(0)
    x, z, y = (rng.uniform(0.2, 3, (200, 15)), rng.uniform(0.2, 3, (200, 15)), rng.normal(0.5, 1.5, (200, 15)))
    weight = rng.integers(0, 4, (200, 15)).astype(float)
    found = jax.device_get(linear_coefficients(x, z, y, weight))
    active = set()
    for i, coefficients in enumerate(found):
        root = np.sqrt(weight[i])
        expected, _ = nnls(np.stack([root, root * x[i], root * z[i]], axis=1), root * y[i])
        np.testing.assert_allclose(coefficients, expected, rtol=1e-8, atol=1e-10)
        active.add(tuple(expected > 0))
    assert len(active) == 8


# Bounds


def test_an_optimum_on_a_bound_says_so() -> None:
    params, tokens = places(0, 32)
    wiggle = np.exp(1e-3 * np.random.default_rng(1).normal(size=32))
    free = fit_surface(params, tokens, (90 / params**0.25 + 900 / tokens**0.3) * wiggle)
    assert (free.status, free.on_bound, free.E) == (Status.BOUND_HIT, ("E",), 0.0)
    assert free.rows()[0]["on bound"] == "E" and "(E)" in free.notices()[0]
    flat = fit_surface(params, tokens, (2 + 900 / tokens**0.3) * wiggle, objective=SurfaceObjective("squared"))
    assert (flat.status, flat.on_bound, flat.A) == (Status.BOUND_HIT, ("A",), 0.0)
    assert np.isnan(flat.a) and np.isnan(flat.params_exponent)
    assert flat.loss_at(1e9, 1e11) == flat.loss_at(1e12, 1e11) == pytest.approx(2 + 900 / 1e11**0.3, rel=1e-3)


# Invariance


@settings(max_examples=12, deadline=None)
@given(
    objective=st.sampled_from(OBJECTIVES),
    units=st.tuples(*[st.floats(1e-9, 1e3)] * 2),
    loss_unit=st.floats(0.01, 100),
    seed=st.integers(0, 1000),
)
def test_units_and_order_do_not_matter(
    objective: SurfaceObjective, units: tuple[float, float], loss_unit: float, seed: int
) -> None:
    params, tokens, loss = noisy_runs(7)
    fit = fit_surface(params, tokens, loss, objective=objective)
    order = np.random.default_rng(seed).permutation(len(loss))
    scale = loss_unit if objective.residual == "loss" else 1.0
    other = fit_surface(
        params[order] * units[0],
        tokens[order] * units[1],
        loss[order] * loss_unit,
        objective=SurfaceObjective(objective.function, objective.residual, objective.delta * scale),
    )
    E, A, B, a, b = theta_of(fit)
    expected = [loss_unit * E, loss_unit * A * units[0] ** a, loss_unit * B * units[1] ** b, a, b]
    assert theta_of(other) == pytest.approx(expected, rel=1e-6)
    assert other.value == pytest.approx(fit.value * scale**2, rel=REACHED)


REACHED = 1e-11
"""Relative, values of one optimum by two descents."""


@each_objective
def test_a_draw_is_the_fit_of_its_own_rows(objective: SurfaceObjective) -> None:
    """Weights are repeated rows, and a batch is a loop."""
    runs = noisy_runs(9)
    indices = np.random.default_rng(4).integers(0, 32, (6, 32))
    bootstrap = bootstrap_surface(*runs, objective=objective, indices=indices)
    assert bootstrap.seed is None
    for i, rows in enumerate(indices):
        alone = fit_surface(*(column[rows] for column in runs), objective=objective)
        assert bootstrap.draw_status[i] == alone.status
        assert bootstrap.value[i] == pytest.approx(alone.value, rel=REACHED)
        assert [getattr(bootstrap, name)[i] for name in COEFFICIENTS] == pytest.approx(theta_of(alone), rel=1e-6)


def test_series_of_different_lengths_do_not_disturb_each_other() -> None:
    series = {str(n): noisy_runs(n, n=n) for n in (9, 17, 32)}
    together = fit_surfaces(series)
    assert list(together) == list(series)
    for name, runs in series.items():
        assert together[name].value == pytest.approx(fit_surface(*runs).value, rel=REACHED)
    assert fit_surfaces({}) == {}


def test_padding_is_invisible_and_the_caller_keeps_32_bits() -> None:
    params, tokens, loss = noisy_runs(2, n=16)
    columns = [np.log(params / 1e9), np.log(tokens / 1e11), loss]
    fitted = []
    for junk in (0.0, 7.0, np.nan):
        padded = [np.append(column, [junk] * 8)[None] for column in columns]
        weight = np.append(np.ones(16), np.zeros(8))[None]
        start = np.array([[1.5, 0.3, 0.3, 0.4, 0.4]])
        settings = (np.float64(1e-3), np.bool_(False), np.bool_(True))
        fitted.append(jax.device_get(fit_problems(*padded, weight, start, *settings)))
    np.testing.assert_array_equal(fitted[0].theta, fitted[1].theta)
    np.testing.assert_array_equal(fitted[0].theta, fitted[2].theta)
    assert fitted[0].theta.dtype == np.float64
    assert not jax.config.jax_enable_x64


# What the data cannot tell, and bad input


@pytest.mark.parametrize(
    ("change", "status"),
    [
        (lambda n, d, loss: (n[:4], d[:4], loss[:4]), Status.TOO_FEW_POINTS),
        (lambda n, d, loss: (n[[0, 1, 2, 3] * 5], d[[0, 1, 2, 3] * 5], loss[:20]), Status.TOO_FEW_POINTS),
        (lambda n, d, loss: (np.full_like(n, 1e9), d, loss), Status.TOO_FEW_POINTS),
        (lambda n, d, loss: (np.where(n > 1e9, 1e9, 1e8), d, loss), Status.TOO_FEW_POINTS),
        (lambda n, d, loss: (n, np.full_like(d, 1e11), loss), Status.TOO_FEW_POINTS),
        (lambda n, d, loss: (n, 1e20 / n, loss), Status.ONE_LINE),
        (lambda n, d, loss: (n, 20 * n, loss), Status.ONE_LINE),
        (lambda n, d, loss: (n, d, np.full_like(loss, 3.0)), Status.NO_SPREAD),
        (lambda n, d, loss: (n[:0], d[:0], loss[:0]), Status.NO_DATA),
    ],
)
def test_what_runs_cannot_tell_is_a_status(change: Callable[..., Runs], status: Status) -> None:
    runs = change(*noisy_runs(0))
    fit = fit_surface(*runs, series="mine")
    assert fit.status is status and not fit.fitted
    assert np.isnan([*theta_of(fit), fit.value, fit.loss_at(1e9, 1e11)]).all()
    assert fit.rows()[0]["status"] == status.label and status.remedy in fit.notices()[0]
    if len(runs[0]):
        draws = bootstrap_surface(*runs, draws=3)
        assert (draws.status, draws.count(status), draws.skipped_probability) == (status, 3, 1.0)
        assert np.isnan(draws.intervals["a"].low)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"loss": np.ones(3)}, "one length"),
        ({"params": np.array([[1.0] * 8])}, "one-dimensional"),
        ({"params": -np.ones(8)}, r"params\[0\] is -1"),
        ({"tokens": np.r_[np.ones(7), 0]}, r"tokens\[7\] is 0"),
        ({"loss": np.r_[np.nan, np.ones(7)]}, r"loss\[0\] is nan"),
    ],
)
def test_bad_columns_are_refused(change: dict[str, np.ndarray], message: str) -> None:
    columns = dict(zip(("params", "tokens", "loss"), noisy_runs(0, n=8), strict=True)) | change
    with pytest.raises(ValueError, match=message):
        fit_surface(**columns)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"draws": 0}, "at least one draw"),
        ({"indices": np.full((2, 32), 32)}, r"integers in \[0, 32\)"),
        ({"indices": np.zeros((2, 31), int)}, "shape"),
        ({"indices": np.zeros((2, 32))}, "integers"),
        ({"at": [(1e9, -1.0)]}, "positive params and tokens"),
    ],
)
def test_bad_arguments_of_the_bootstrap_are_refused(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        bootstrap_surface(*noisy_runs(0), **arguments)


@pytest.mark.parametrize("bad", [{"function": "cubic"}, {"residual": "root"}, {"delta": 0.0}, {"delta": np.nan}])
def test_bad_objectives_are_refused(bad: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(bad))):
        SurfaceObjective(**bad)


# Bootstrap


@each_objective
def test_every_draw_is_at_its_own_optimum(objective: SurfaceObjective) -> None:
    runs = noisy_runs(30)
    indices = np.random.default_rng(0).integers(0, 32, (4, 32))
    bootstrap = bootstrap_surface(*runs, objective=objective, indices=indices)
    for i, rows in enumerate(indices):
        drawn = tuple(column[rows] for column in runs)
        theta = np.array([getattr(bootstrap, name)[i] for name in COEFFICIENTS])
        reached = mean_loss(theta, drawn, objective)
        assert bootstrap.value[i] == pytest.approx(reached, rel=TRUTH)
        assert reached <= scipy_best(drawn, objective, starts=6) * (1 + SUM_OF_SQUARES)


def test_intervals_are_percentiles_of_the_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    runs = noisy_runs(12)
    where = [(1e10, 2e11), (1e9, 1e11)]
    bootstrap = bootstrap_surface(*runs, at=where, draws=60, seed=5)
    assert bootstrap.status is Status.FITTED and bootstrap.used.all() and bootstrap.n_draws == 60
    by_name = {name: getattr(bootstrap, name) for name in COEFFICIENTS}
    by_name["b/(a+b)"] = bootstrap.b / (bootstrap.a + bootstrap.b)
    by_name["a/(a+b)"] = bootstrap.a / (bootstrap.a + bootstrap.b)
    assert set(bootstrap.intervals) == set(by_name)
    for name, values in by_name.items():
        interval = bootstrap.intervals[name]
        assert [interval.low, interval.median, interval.high] == pytest.approx(np.percentile(values, [2.5, 50, 97.5]))
    thetas = np.stack([by_name[name] for name in COEFFICIENTS], axis=1)
    for (params, tokens), interval in zip(where, bootstrap.loss_intervals, strict=True):
        losses = [model(theta, params, tokens) for theta in thetas]
        assert [interval.low, interval.high] == pytest.approx(np.percentile(losses, [2.5, 97.5]))
        np.testing.assert_allclose(bootstrap.loss_at(params, tokens), losses, rtol=ROUNDING)
    assert len(bootstrap.rows()) == 9 and bootstrap.notices() == []
    assert bootstrap.loss_at(np.ones((2, 1)) * 1e9, np.ones(3) * 1e11).shape == (60, 2, 3)
    # The same draws, however many are held at once.
    monkeypatch.setattr(fit_module, "_AT_ONCE", 17)
    parts = bootstrap_surface(*runs, draws=60, seed=5)
    np.testing.assert_allclose(parts.value, bootstrap.value, rtol=REACHED)
    # Draws count the runs by ascending params, given ones as they are given.
    expected = np.argsort(runs[0])[np.random.default_rng(5).integers(0, 32, (60, 32))]
    given_indices = bootstrap_surface(*runs, indices=expected)
    np.testing.assert_allclose(given_indices.value, bootstrap.value, rtol=REACHED)


def test_draws_that_cannot_be_fitted_are_skipped_and_counted() -> None:
    params, tokens, loss = noisy_runs(3, n=7)
    bootstrap = bootstrap_surface(params, tokens, loss, objective=SurfaceObjective("squared"), draws=200)
    indices = np.random.default_rng(0).integers(0, 7, (200, 7))
    few = np.array([len(set(rows)) < 5 for rows in indices])
    assert few.any() and bootstrap.count(Status.TOO_FEW_POINTS) == few.sum()
    np.testing.assert_array_equal(bootstrap.used, ~few)
    assert np.isnan(bootstrap.value[few]).all() and np.isfinite(bootstrap.value[~few]).all()
    assert bootstrap.skipped_probability == pytest.approx(few.mean())
    assert any("were skipped" in sentence for sentence in bootstrap.notices())
    assert any("lie on a bound" in sentence for sentence in bootstrap.notices())


@pytest.mark.parametrize("objective", [SurfaceObjective(), SurfaceObjective("squared")])
def test_the_bootstrap_does_not_depend_on_the_order_of_the_runs(objective: SurfaceObjective) -> None:
    runs, order = noisy_runs(3), np.random.default_rng(0).permutation(32)
    settings = {"objective": objective, "draws": 60, "at": [(1e9, 1e11)]}
    straight, turned = (
        bootstrap_surface(*columns, **settings) for columns in (runs, [column[order] for column in runs])
    )
    assert (straight.intervals, straight.loss_intervals) == (turned.intervals, turned.loss_intervals)
    assert theta_of(straight.point).tolist() == theta_of(turned.point).tolist()
    assert straight.point.params.tolist() == runs[0].tolist()
    by_given = bootstrap_surface(*runs, **settings | {"indices": np.argsort(order)[np.arange(64).reshape(2, 32) % 32]})
    np.testing.assert_allclose(by_given.value, straight.point.value, rtol=REACHED)


def test_too_few_draws_tell_no_interval() -> None:
    runs = noisy_runs(3)
    few, enough = (bootstrap_surface(*runs, draws=draws, at=[(1e9, 1e11)]) for draws in (39, 40))
    assert few.status is Status.BEYOND_DRAWS and few.used.all()
    assert np.isnan([few.intervals["E"].low, few.loss_intervals[0].high]).all()
    assert "beyond the draws; the interval's percentiles lie outside" in few.notices()[0]
    assert enough.status is Status.FITTED and enough.intervals["E"].low < enough.intervals["E"].high
    # One and the same draw tells none either, however often.
    same = bootstrap_surface(*runs, indices=np.tile(np.random.default_rng(0).integers(0, 32, 32), (40, 1)))
    assert same.status is Status.TOO_FEW_POINTS and "tells no interval" in same.notices()[0]


def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    """60 studies: a 95 % interval that holds it in under 51 of them has a chance of about 2e-3 to be right."""
    place, held = (1e10, 3e11), 0
    for seed in range(60):
        bootstrap = bootstrap_surface(
            *noisy_runs(100 + 2 * seed, n=60), objective=SurfaceObjective("squared"), at=[place], draws=200, seed=seed
        )
        held += bootstrap.loss_intervals[0].low <= model(TRUE, *place) <= bootstrap.loss_intervals[0].high
    assert held >= 51


# Published fits


def real_runs(real_dir: Path, name: str, outliers: bool) -> Runs:
    with (real_dir / "isoflops.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["experiment"] == EXPERIMENTS[name]]
    kept = [row for row in rows if outliers or row["outlier"] == "False"]
    params, tokens, loss = (np.array([float(row[column]) for row in kept]) for column in ("params", "tokens", "loss"))
    return params, tokens, loss


def published_optima(real_dir: Path) -> list[dict[str, str]]:
    """The rows of the table of optima in the folder's README."""
    text = (real_dir / "README.md").read_text().splitlines()
    lines = [line.strip("| ").split(" | ") for line in text if line.startswith("| ")]
    head = next(i for i, cells in enumerate(lines) if cells[:3] == ["data", "points", "objective"])
    return [dict(zip(lines[head], cells, strict=True)) for cells in lines[head + 1 :] if len(cells) == len(lines[head])]


def test_published_optima_are_reached(real_dir: Path) -> None:
    rows = [row for row in published_optima(real_dir) if row["data"].split()[-1] in EXPERIMENTS]
    assert len(rows) == 12
    for row in rows:
        runs = real_runs(real_dir, row["data"].split()[-1], outliers=False)
        log = "log loss" in row["objective"]
        function = "huber" if "Huber" in row["objective"] else "squared"
        fit = fit_surface(*runs, objective=SurfaceObjective(function, "log" if log else "loss"))
        assert (fit.status, len(fit.loss)) == (Status.FITTED, int(row["points"]))
        value = fit.value * (len(fit.loss) if row["objective"].startswith("summed") else 1)
        assert value == pytest.approx(float(row["value"]), rel=SUM_OF_SQUARES)
        E, A, B, a, b = theta_of(fit)
        published = [float(row[name]) for name in COEFFICIENTS]
        assert [E, A / 1e6**a, B / 1e9**b, a, b] == pytest.approx(published, rel=1e-5)


def test_published_means_of_all_runs_are_reached(real_dir: Path) -> None:
    """Mean Huber(1e-3) of the loss, outliers kept: the optima beside those that vpnls prints."""
    for name, value in {"chinchilla": 13.0887, "comma": 22.9076, "dclm": 22.8369, "nemotron": 22.6085}.items():
        assert fit_surface(*real_runs(real_dir, name, outliers=True)).value * 1e6 == pytest.approx(value, abs=5.1e-5)


def epoch_runs(real_dir: Path) -> Runs:
    with (real_dir / "chinchilla_svg.csv").open(newline="") as file:
        rows = [[float(row[name]) for name in ("Model Size", "Training FLOP", "loss")] for row in csv.DictReader(file)]
    params, compute, loss = np.array(sorted(rows, key=lambda row: row[2])[:-5]).T
    return params, compute / (6 * params), loss


def test_chinchilla_by_epoch(real_dir: Path) -> None:
    """Besiroglu et al. 2024: the optimum of Huber(1e-3), and their fit, which is that of least absolute deviations."""
    runs = epoch_runs(real_dir)
    fit = fit_surface(*runs, objective=SurfaceObjective("huber", "log"))
    assert len(runs[0]) == 240
    assert fit.value * 240 == pytest.approx(1.0182740178e-03, rel=SUM_OF_SQUARES)
    assert theta_of(fit) == pytest.approx([1.8172181, 477.82587, 2143.41736, 0.3473105, 0.3671724], rel=1e-6)
    theirs = fit_surface(*runs, objective=SurfaceObjective("huber", "log", delta=1e-7))
    assert theta_of(theirs)[1:] == pytest.approx([482.01, 2085.43, 0.3478, 0.3658], rel=2e-4)
    assert 1.8168 <= theirs.E <= 1.8172
    draws = bootstrap_surface(*runs, objective=SurfaceObjective("huber", "log"), draws=1000)
    errors = [np.std(getattr(draws, name)) for name in COEFFICIENTS]
    # Theirs are of least absolute deviations and 4000 draws.
    assert draws.used.all() and errors == pytest.approx([0.0257, 124.52, 1293.28, 0.0154, 0.0206], rel=0.1)


@pytest.mark.parametrize(
    ("function", "low", "middle", "high"), [("squared", 0.367, 0.402, 0.438), ("huber", 0.352, 0.387, 0.446)]
)
def test_published_intervals_of_the_params_exponent(
    function: str, low: float, middle: float, high: float, real_dir: Path
) -> None:
    runs = real_runs(real_dir, "nemotron", outliers=True)
    # Their draws are of the table's rows.
    indices = np.random.default_rng(0).integers(0, 88, (1000, 88))
    found = bootstrap_surface(*runs, objective=SurfaceObjective(function), indices=indices)
    interval = found.intervals["b/(a+b)"]
    assert len(runs[0]) == 88 and found.used.all()
    assert [interval.low, interval.median, interval.high] == pytest.approx([low, middle, high], abs=1e-3)
