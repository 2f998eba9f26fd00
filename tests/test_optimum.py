"""The continuous optimum of the law against brute force, SciPy and the grid."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from delphi_jax.kernels.optimum import CHUNK, OptimalLaw, fit_optimal_laws
from delphi_jax.kernels.power_law import fit_free_laws
from delphi_jax.status import Status
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


# Against independent optima


def test_no_optimum_is_missed() -> None:
    many = [series(seed) for seed in range(600)]
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
    assert min(counts[[Status.FITTED, Status.BOUND_HIT, Status.LOSS_DOES_NOT_FALL, Status.TOO_FEW_POINTS]]) > 5


def test_optima_are_stationary_or_on_a_bound() -> None:
    """By central differences of the independent profile, and by the kernel's own word."""
    many = [series(seed) for seed in range(600)]
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
