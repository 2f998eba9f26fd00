"""The continuous optimum of the law against brute force, SciPy and the grid."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from delphi_jax.fit.law import fit_law, fit_laws, fit_shared_laws
from delphi_jax.kernels.optimum import CHUNK, OptimalLaw, fit_optimal_laws
from delphi_jax.kernels.power_law import fit_free_laws
from delphi_jax.results.law import Objective, PinnedAsymptote
from delphi_jax.status import Status
from tests.delphi import LOSS
from tests.tolerances import DIFFERENCE, REFERENCE, ROUNDING, TRUTH, score_allowance

Points = tuple[np.ndarray, np.ndarray, np.ndarray]

WIDTH = 16


def series(seed: int) -> Points:
    """(log compute, loss, weight) of a law with noise, or of nothing; some with equal losses, some resampled."""
    rng = np.random.default_rng(seed)
    n = rng.integers(3, WIDTH + 1)
    C = np.geomspace(1e18, 10 ** rng.uniform(19, 22), n) if seed % 2 else np.sort(10 ** rng.uniform(18, 21, n))
    L = rng.uniform(0, 2) + rng.uniform(0.05, 3) * (C / 1e20) ** -rng.uniform(0.02, 0.5)
    L = L * np.exp(10 ** rng.uniform(-4, -0.5) * rng.normal(size=n))
    if seed % 5 == 1:
        L = rng.uniform(1, 3, n)
    if seed % 5 == 2:
        L = np.round(L, 2) + 0.01
    weight = rng.multinomial(n, np.ones(n) / n).astype(float) if seed % 3 == 1 else np.ones(n)
    return np.log(C), L, weight


def fit(
    many: list[Points], pinned: float | np.ndarray = np.nan, width: int = WIDTH, fill: float = np.nan
) -> OptimalLaw:
    columns = np.full((3, len(many), width), fill)
    columns[2] = 0.0
    for i, points in enumerate(many):
        columns[:, i, : len(points[0])] = points
    return jax.device_get(fit_optimal_laws(*columns, np.broadcast_to(pinned, len(many)).astype(float)))


def at(points: Points, gap: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean squared log residual and exponent with the smallest loss ``gap`` [K] above L_inf: normal equations."""
    x, L, weight = (part[points[2] > 0] for part in points)
    share = weight / weight.sum()
    y = np.log(L - L.min() + np.atleast_1d(gap)[:, None])
    dx, dy = x - share @ x, y - (y @ share)[:, None]
    alpha = -(dy * share) @ dx / (share @ dx**2)
    return (dy + np.maximum(alpha, 0)[:, None] * dx) ** 2 @ share, alpha


def brute_force(points: Points) -> tuple[float, float]:
    """(score, exponent) of the best of 20000 asymptotes, every minimum among them polished by SciPy."""
    smallest = points[1][points[2] > 0].min()
    even, geometric = np.linspace(1, 1e-5, 8000), np.geomspace(1e-10, 1, 12000)
    gaps = smallest * np.unique(np.concatenate([even, geometric]))
    scores, alphas = at(points, gaps)
    ends = np.concatenate([[np.inf], scores, [np.inf]])
    best = scores[-1], alphas[-1]
    for k in np.flatnonzero((scores <= ends[:-2]) & (scores <= ends[2:])):
        if 0 < k < len(gaps) - 1:
            found = minimize_scalar(
                lambda u: at(points, np.exp(u))[0][0],
                bounds=np.log(gaps[[k - 1, k + 1]]),
                method="bounded",
                options={"xatol": 1e-12},
            )
            best = min(best, (found.fun, at(points, np.exp(found.x))[1][0]))
    return best


HARD = (853, 976, 4062, 4210, 7239, 16478, 26438, 34694)
"""Seeds whose best minimum is the second deepest by the looks of it, or lies beside a maximum between two places."""


# Against independent optima


def test_no_optimum_is_missed() -> None:
    many = [series(seed) for seed in (*range(250), *HARD)]
    laws = fit(many)
    for i, points in enumerate(many):
        status = Status(laws.status[i])
        if len(np.unique(points[0][points[2] > 0])) < 3:
            assert status is Status.TOO_FEW_POINTS
            continue
        score, alpha = brute_force(points)
        if status is Status.LOSS_DOES_NOT_FALL:
            assert alpha < 1e-9
            continue
        assert status in (Status.FITTED, Status.BOUND_HIT)
        assert laws.score[i] <= score + score_allowance(score)
    counts = np.bincount(laws.status, minlength=len(Status))
    assert min(counts[[Status.FITTED, Status.BOUND_HIT, Status.LOSS_DOES_NOT_FALL, Status.TOO_FEW_POINTS]]) > 3


def test_optima_are_stationary_or_on_a_bound() -> None:
    """By central differences of the independent profile, and by the kernel's own word."""
    many = [series(seed) for seed in range(250)]
    laws = fit(many)
    step = 1e-4
    for i in np.flatnonzero(laws.status == Status.FITTED):
        gap = many[i][1][many[i][2] > 0].min() - laws.L_inf[i]
        assert gap > 0 and laws.L_inf[i] > 0 and laws.alpha[i] > 0
        left, middle, right = at(many[i], gap * np.exp([-step, 0.0, step]))[0]
        if laws.score[i] < 1e-20:  # through every point: rounding of L_inf is all there is
            continue
        np.testing.assert_allclose(middle, laws.score[i], rtol=REFERENCE, atol=score_allowance(middle))
        curvature = (left - 2 * middle + right) / step**2
        # A parabola's minimum lies half the difference over the curvature from the middle.
        assert abs(right - left) / (2 * step) <= max(DIFFERENCE * curvature, 2 * score_allowance(middle) / step)
        assert abs(laws.gradient[i]) <= 1e-9 or middle < 1e-8
    for i in np.flatnonzero(laws.status == Status.BOUND_HIT):
        assert laws.L_inf[i] == 0.0 and laws.gradient[i] >= 0


def test_never_above_the_grid() -> None:
    rng = np.random.default_rng(5)
    C = np.geomspace(3e18, 3e20, 7)
    x = np.tile(np.log(C), (500, 1))
    L = rng.uniform(0, 2, (500, 1)) + 2 * (C / 1e20) ** -rng.uniform(0.05, 0.3, (500, 1))
    L *= np.exp(0.01 * rng.normal(size=L.shape))
    grid = np.linspace(0, 0.95 * L.min(axis=1), 400, axis=1)
    on_grid = jax.device_get(fit_free_laws(x, L, np.ones(L.shape, bool), grid))
    laws = jax.device_get(fit_optimal_laws(x, L, np.ones_like(L), np.full(500, np.nan)))
    assert np.all(laws.score <= on_grid.score * (1 + ROUNDING))
    near = np.abs(laws.L_inf - on_grid.L_inf) <= grid[:, 1]
    assert np.mean(near) > 0.99


# Truth


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.7, 0.95, 0.999])
def test_recovers_a_noiseless_law(share: float) -> None:
    C = np.geomspace(1e18, 1e21, 8)
    many, truths = [], []
    for alpha in (0.02, 0.05, 0.12, 0.5):
        fall = 3.0 * (C / 1e20) ** -alpha
        L_inf = share / (1 - share) * fall[-1]
        many.append((np.log(C), L_inf + fall, np.ones(8)))
        truths.append((L_inf, np.log(3.0) + alpha * np.log(1e20), alpha))
    laws = fit(many)
    L_inf, log_A, alpha = np.array(truths).T
    smallest = np.array([points[1].min() for points in many])
    # The fall is known to the rounding of the losses, and the less of it they show the less it says.
    loose = np.maximum(1.0, smallest / (smallest - L_inf) / alpha / 100)
    assert np.all(np.abs(laws.L_inf - L_inf) <= TRUTH * loose * smallest)
    assert np.all(np.abs(laws.alpha / alpha - 1) <= TRUTH * loose)
    assert np.all(np.abs(laws.log_A / log_A - 1) <= TRUTH * loose)
    assert np.all(laws.score < 1e-24)
    assert set(laws.status) == ({Status.BOUND_HIT} if share == 0 else {Status.FITTED})


def test_pinned_laws_are_one_regression() -> None:
    many = [series(seed) for seed in range(60)]
    pinned = np.linspace(0, 0.99, 60) * [points[1][points[2] > 0].min() for points in many]
    laws = fit(many, pinned)
    for i, (x, L, weight) in enumerate(many):
        if laws.status[i] != Status.FITTED:
            assert laws.status[i] in (Status.LOSS_DOES_NOT_FALL, Status.TOO_FEW_POINTS)
            continue
        slope, height = np.polyfit(x, np.log(np.where(weight > 0, L, 99.0) - pinned[i]), 1, w=np.sqrt(weight))
        np.testing.assert_allclose([-laws.alpha[i], laws.log_A[i]], [slope, height], rtol=TRUTH)
        assert laws.L_inf[i] == pinned[i] and np.isnan(laws.gradient[i])


# Properties


@pytest.mark.parametrize("scale", [0.1, 7.0])
def test_scaled_losses_scale_the_asymptote(scale: float) -> None:
    many = [series(seed) for seed in range(50)]
    before, after = fit(many), fit([(x, scale * L, weight) for x, L, weight in many])
    np.testing.assert_array_equal(after.status, before.status)
    np.testing.assert_allclose(after.L_inf, scale * before.L_inf, rtol=TRUTH, atol=1e-12)
    np.testing.assert_allclose(after.alpha, before.alpha, rtol=TRUTH)
    np.testing.assert_allclose(after.score, before.score, rtol=REFERENCE, atol=1e-26)


def test_moved_budgets_move_the_amplitude_alone() -> None:
    many = [series(seed) for seed in range(50)]
    before, after = fit(many), fit([(x + 5.0, L, weight) for x, L, weight in many])
    np.testing.assert_array_equal(after.status, before.status)
    np.testing.assert_allclose(after.L_inf, before.L_inf, rtol=TRUTH, atol=1e-12)
    np.testing.assert_allclose(after.log_A, before.log_A + 5.0 * before.alpha, rtol=TRUTH)


def test_order_repetition_and_padding_do_not_matter() -> None:
    many = [series(seed) for seed in range(50)]
    before = fit(many)
    rng = np.random.default_rng(0)
    moved = []
    for x, L, weight in many:
        order = np.concatenate([rng.permutation(len(x)), [0]])
        moved.append((x[order], L[order], np.where((order == 0) & (weight[order] > 0), weight[0] / 2, weight[order])))
    for other in (fit(moved, width=24), fit(many, width=24, fill=-7.0)):
        np.testing.assert_array_equal(other.status, before.status)
        np.testing.assert_allclose(other.L_inf, before.L_inf, rtol=TRUTH, atol=1e-12)
        np.testing.assert_allclose(other.score, before.score, rtol=REFERENCE, atol=1e-26)


def test_batch_equals_one_by_one() -> None:
    many = [series(seed) for seed in range(2 * CHUNK + 3)]
    together = fit(many)
    for i in (0, 1, CHUNK, 2 * CHUNK + 2):
        alone = fit([many[i]])
        for name, left, right in zip(OptimalLaw._fields, alone, together, strict=True):
            if name != "gradient":
                np.testing.assert_allclose(left[0], right[i], rtol=10 * ROUNDING, err_msg=name)


# What the data cannot support


def test_statuses() -> None:
    x = np.log([1e18, 1e19, 1e20, 1e21])
    one = np.ones(4)
    cases = {
        "fitted": ((x, np.array([3.0, 2.5, 2.2, 2.05]), one), np.nan, Status.FITTED),
        "no asymptote": ((x, np.array([4.0, 2.0, 1.0, 0.4]), one), np.nan, Status.BOUND_HIT),
        "rising": ((x, np.array([2.0, 2.5, 2.7, 3.0]), one), np.nan, Status.LOSS_DOES_NOT_FALL),
        "flat": ((x, np.full(4, 2.5), one), np.nan, Status.LOSS_DOES_NOT_FALL),
        "two budgets": ((x[[0, 0, 1, 1]], np.array([3.0, 2.9, 2.2, 2.1]), one), np.nan, Status.TOO_FEW_POINTS),
        "two with weight": (
            (x, np.array([3.0, 2.5, 2.2, 2.1]), np.array([2.0, 0, 0, 2])),
            np.nan,
            Status.TOO_FEW_POINTS,
        ),
        "nothing": ((x, one, 0 * one), np.nan, Status.TOO_FEW_POINTS),
        "pinned": ((x[:2], np.array([3.0, 2.5]), one[:2]), 2.0, Status.FITTED),
        "pinned, one budget": ((x[[0, 0]], np.array([3.0, 2.5]), one[:2]), 2.0, Status.TOO_FEW_POINTS),
        "pinned at a loss": ((x, np.array([3.0, 2.5, 2.2, 2.1]), one), 2.1, Status.ASYMPTOTE_ABOVE_LOSS),
        "pinned above": ((x, np.array([3.0, 2.5, 2.2, 2.1]), one), 9.0, Status.ASYMPTOTE_ABOVE_LOSS),
        "pinned, rising": ((x, np.array([2.0, 2.5, 2.7, 3.0]), one), 0.0, Status.LOSS_DOES_NOT_FALL),
        "smallest loss first": ((x, np.array([2.0, 4.0, 3.0, 2.5]), one), np.nan, Status.LOSS_DOES_NOT_FALL),
    }
    points, pinned, statuses = zip(*cases.values(), strict=True)
    laws = fit(list(points), np.array(pinned))
    assert dict(zip(cases, map(Status, laws.status), strict=True)) == dict(zip(cases, statuses, strict=True))
    usable = np.isin(laws.status, [Status.FITTED, Status.BOUND_HIT])
    for numbers in laws[:4]:
        np.testing.assert_array_equal(np.isfinite(numbers), usable)


def test_an_asymptote_next_to_the_smallest_loss_is_found() -> None:
    x = np.log([1e18, 1e19, 1e20])
    laws = fit([(x, 2.0 + np.array([0.5, d, 0.0]), np.ones(3)) for d in (1e-2, 1e-4)])
    # Equal steps in log C: (d + g)**2 = (0.5 + g)*g with the gap g of the smallest loss.
    for d, L_inf in zip((1e-2, 1e-4), laws.L_inf, strict=True):
        assert 2 - L_inf == pytest.approx(d**2 / (0.5 - 2 * d), rel=1e-6)
    assert set(laws.status) == {Status.FITTED}


# Through the library


def test_the_optimum_is_never_above_the_reference(golden_numbers: dict[str, Any]) -> None:
    rows = golden_numbers["optima"]
    for suite in golden_numbers["quantizers"]:
        C, L = (np.array([row[key] for row in rows if row["quantizer"] == suite]) for key in ("C_flops", "loss_star"))
        expected = golden_numbers["asymptotic_per_suite_ngrid400"][suite]
        law = fit_law(C, L, method="optimum", metric=LOSS)
        assert law.score <= expected["sse_log"]
        assert law.L_inf == pytest.approx(expected["L_inf"], abs=0.95 * L.min() / 399)
        assert (law.method, law.objective, law.metric, law.n_grid) == ("optimum", Objective(), LOSS, 0)
        at_law = at((np.log(C), L, np.ones(len(C))), L.min() - law.L_inf)[0][0]
        assert law.score == pytest.approx(at_law, rel=REFERENCE)


def test_grid_and_optimum_say_what_they_are() -> None:
    C, L = np.geomspace(1e18, 1e21, 5), np.array([3.0, 2.6, 2.35, 2.2, 2.1])
    grid, optimum = (fit_law(C, L, method=method).rows()[0] for method in ("grid", "optimum"))
    assert "objective" not in grid and grid["mean squared log residual"] >= optimum["score"]
    assert (optimum["method"], optimum["objective"]) == ("optimum", "squared error of log(L - L_inf)")
    huber = fit_law(C, L, method="optimum", objective=Objective("huber", "loss"))
    assert huber.rows()[0]["objective"] == "Huber(0.001) of the loss"
    assert json.loads(huber.to_json())["objective"] == {"loss_function": "huber", "residual": "loss", "delta": 1e-3}
    shared = fit_shared_laws({"one": (C, L), "other": (C, L + 0.2)}, method="optimum")
    assert {law.asymptote for law in shared.values()} == {"shared"}
    assert shared["one"].L_inf == shared["other"].L_inf


def test_a_pinned_asymptote_belongs_to_its_metric() -> None:
    C, L = np.geomspace(1e18, 1e21, 5), np.array([3.0, 2.6, 2.35, 2.2, 2.1])
    pinned = PinnedAsymptote(1.6, LOSS)
    for method in ("grid", "optimum"):
        assert fit_law(C, L, L_inf=pinned, metric=LOSS, method=method).L_inf == 1.6
        with pytest.raises(ValueError, match=f"1.6 belongs to '{LOSS}', the series to 'bits per byte'"):
            fit_law(C, L, L_inf=pinned, metric="bits per byte", method=method)
        with pytest.raises(ValueError, match="an unnamed metric"):
            fit_laws({"one": (C, L)}, L_inf=pinned, method=method)
    laws = fit_laws({"one": (C, L), "other": (C, L + 1)}, L_inf=pinned, metric=LOSS, method="optimum")
    assert {law.L_inf for law in laws.values()} == {1.6}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": "newton"}, "method must be 'grid' or 'optimum', got 'newton'"),
        ({"objective": Objective("huber")}, "the grid is for the squared error"),
        ({"method": "optimum", "n_grid": 100}, "n_grid is of the grid"),
        ({"method": "optimum", "L_inf": np.nan}, "must be a finite number, got nan"),
    ],
)
def test_refuses_what_does_not_go_together(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fit_law([1e18, 1e19, 1e20], [3.0, 2.5, 2.2], **settings)


def test_refuses_objectives_and_asymptotes_that_are_none() -> None:
    for wrong, message in (
        ({"loss_function": "cauchy"}, "loss_function must be one of squared, huber, got 'cauchy'"),
        ({"residual": "ratio"}, "residual must be one of log, loss"),
        ({"delta": 0.0}, "delta must be a finite positive number, got 0.0"),
    ):
        with pytest.raises(ValueError, match=message):
            Objective(**wrong)
    for value, metric, message in ((-1.0, LOSS, "at least 0, got -1.0"), (np.nan, LOSS, "got nan"), (1.0, "", "which")):
        with pytest.raises(ValueError, match=message):
            PinnedAsymptote(value, metric)


def test_public_measurements(real_dir: Path) -> None:
    """The optimum of every published IsoFLOP sweep, against the grid and brute force."""
    with (real_dir / "isoflops.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["outlier"] == "False"]
    for experiment in {row["experiment"] for row in rows}:
        own = [row for row in rows if row["experiment"] == experiment]
        budgets = sorted({float(row["budget"]) for row in own})
        lowest = [min(float(row["loss"]) for row in own if float(row["budget"]) == budget) for budget in budgets]
        law, grid = (fit_law(budgets, lowest, method=method) for method in ("optimum", "grid"))
        assert law.fitted and law.score <= grid.score * (1 + ROUNDING)
        expected, _ = brute_force((np.log(budgets), np.array(lowest), np.ones(len(budgets))))
        assert law.score <= expected + score_allowance(expected)
