"""Profile intervals under other objectives against constrained optima by brute force, and simulated coverage."""

from __future__ import annotations

from collections.abc import Callable

import jax
import numpy as np
import pytest
from scipy import stats

from delphi_jax.kernels.law_profile import ProfiledLaw, profile_laws
from delphi_jax.kernels.objective_profile import CHUNK, profile_objective_laws
from delphi_jax.quantiles import profile_limit
from delphi_jax.results.law import Objective
from delphi_jax.status import Bound, Status
from tests.tolerances import REFERENCE, TRUTH

C = np.geomspace(3e18, 3e20, 8)
X = np.log(C)
TARGETS = np.array([1e20, 1e22, 1e24])
F = stats.f.ppf(0.95, 1, 5)
BATCH = CHUNK + 2


def studies(n: int = BATCH, seed: int = 0, noise: float = 0.006) -> np.ndarray:
    """[n, 8] losses of laws with noise."""
    rng = np.random.default_rng(seed)
    L_inf, alpha, A = rng.uniform(0.5, 2, (n, 1)), rng.uniform(0.1, 0.3, (n, 1)), rng.uniform(1, 3, (n, 1))
    return L_inf + A * (C / 1e20) ** -alpha + noise * rng.normal(size=(n, 8))


def profile(
    losses: np.ndarray,
    objective: Objective,
    pinned: float | np.ndarray = np.nan,
    F: float | np.ndarray = F,
    n_params: int = 3,
    present: np.ndarray | None = None,
    targets: np.ndarray = TARGETS,
) -> ProfiledLaw:
    """Of ``losses`` [B, S, 8], or those ``present`` [S, 8]."""
    n = len(losses)
    return jax.device_get(
        profile_objective_laws(
            np.broadcast_to(X, losses.shape),
            losses,
            np.broadcast_to(1.0 if present is None else present.astype(float), losses.shape),
            np.log(targets),
            np.broadcast_to(F, n).astype(float),
            np.full(n, n_params),
            np.broadcast_to(pinned, n).astype(float),
            objective.delta,
            huber=objective.huber,
            of_loss=objective.of_loss,
        )
    )


def some_points(short: int) -> np.ndarray:
    """Which points two series have [2, 8]: the first one ``short`` of them."""
    return np.stack([np.isin(np.arange(8), np.linspace(0, 7, short).astype(int)), np.ones(8, dtype=bool)])


def mean_value(r: np.ndarray, objective: Objective) -> np.ndarray:
    size, delta = np.abs(r), objective.delta
    return np.mean(np.where(size <= delta, r**2 / 2, delta * (size - delta / 2)) if objective.huber else r**2, axis=-1)


def ternary(function: Callable[[np.ndarray], np.ndarray], high: np.ndarray) -> np.ndarray:
    """The least values of convex functions between 0 and ``high``, all at once."""
    low = np.zeros_like(high)
    for _ in range(50):
        third = (high - low) / 3
        left = function(low + third) <= function(high - third)
        low, high = np.where(left, low, low + third), np.where(left, high - third, high)
    return function(low)


def least_value(L: np.ndarray, column: int, value: float, objective: Objective) -> float:
    """The least objective of a law of the loss whose quantity ``column`` has ``value``: every exponent is tried."""

    def at(alphas: np.ndarray) -> np.ndarray:
        w = np.exp(-alphas[:, None] * (X - (X.mean() if column < 2 else np.log(TARGETS[column - 2]))))
        if column == 0:
            return ternary(lambda A: mean_value(L - value - A[:, None] * w, objective), np.full(len(w), 20.0))
        if column > 1:
            # L_inf + (value - L_inf)*w
            held = L - value * w
            return ternary(lambda L_inf: mean_value(held - L_inf[:, None] * (1 - w), objective), np.full(len(w), value))
        return ternary(
            lambda A: ternary(
                lambda L_inf: mean_value(L - A[:, None] * w - L_inf[:, None], objective), np.full(len(w), L.max())
            ),
            np.full(len(w), 20.0),
        )

    if column == 1:
        return float(at(np.array([value]))[0])
    grid = np.geomspace(1e-3, 3, 121)
    for _ in range(4):
        values = at(grid)
        best = int(np.argmin(values))
        grid = np.linspace(grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)], 41)
    return float(values.min())


# Against independent optima


@pytest.mark.parametrize("objective", [Objective("squared", "loss"), Objective("huber", "loss", 0.008)])
def test_ends_of_losses_are_where_the_constrained_optimum_meets_the_limit(objective: Objective) -> None:
    losses = studies()
    found = profile(losses[:, None], objective)
    checked = 0
    for i in np.flatnonzero(found.status[:, 0] == Status.FITTED)[:2]:
        law = found.law
        r = losses[i] - law.L_inf[i, 0] - np.exp(law.log_A[i, 0] - law.alpha[i, 0] * X)
        psi = np.clip(r, -objective.delta, objective.delta) if objective.huber else 2 * r
        near = np.sum(np.abs(r) < objective.delta) - 3 if objective.huber else 2 * 5
        limit = law.score[i, 0] + F * np.mean(psi**2) / (2 * near)
        for column in range(5):
            for ends, sign in ((found.low, -1), (found.high, 1)):
                end = ends[i, 0, column]
                step = 0.02 * sign * (found.high[i, 0, column] - found.low[i, 0, column])
                assert least_value(losses[i], column, end, objective) == pytest.approx(limit, rel=1e-5)
                assert least_value(losses[i], column, end + step, objective) > limit * 1.001
                checked += 1
    assert checked == 20


def test_squared_log_residuals_are_those_of_the_other_kernel() -> None:
    losses = studies()
    found = profile(losses[:, None], Objective())
    n = len(losses)
    expected = jax.device_get(
        profile_laws(
            np.tile(X, (n, 1)),
            losses,
            np.ones_like(losses),
            np.log(TARGETS),
            np.full(n, float(profile_limit(8, 3, 0.95))),
            np.full(n, np.nan),
        )
    )
    np.testing.assert_array_equal(found.status[:, 0], expected.status)
    np.testing.assert_allclose(found.low[:, 0], expected.low, rtol=TRUTH, atol=1e-12)
    np.testing.assert_allclose(found.high[:, 0], expected.high, rtol=TRUTH)
    np.testing.assert_array_equal(found.low_bound[:, 0], expected.low_bound)
    np.testing.assert_array_equal(found.high_bound[:, 0], expected.high_bound)


@pytest.mark.parametrize("residual", ["log", "loss"])
def test_a_large_delta_gives_the_intervals_of_squares(residual: str) -> None:
    losses = studies()[:, None]
    squared, huber = (profile(losses, Objective(f, residual, 10.0)) for f in ("squared", "huber"))
    np.testing.assert_array_equal(huber.status, squared.status)
    np.testing.assert_allclose(huber.low, squared.low, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(huber.high, squared.high, rtol=1e-6)


@pytest.mark.parametrize("short", [8, 3])
def test_a_shared_asymptote_is_that_of_the_summed_profile(short: int) -> None:
    """Each end by brute force, every point alike: at every L_inf one series' line is held, that of the other free."""
    rng = np.random.default_rng(3)
    losses = 1.3 + np.array([[2.0], [1.5]]) * (C / 1e20) ** -np.array([[0.2], [0.15]])
    losses = losses * np.exp(0.004 * rng.normal(size=losses.shape))
    present = some_points(short)
    freedom = present.sum() - 5
    quantile = stats.f.ppf(0.95, 1, freedom)
    found = profile(np.stack([losses] * BATCH), Objective(), F=quantile, n_params=5, present=present)
    assert np.all(found.status == Status.FITTED)
    assert found.low[0, 0, 0] == found.low[0, 1, 0] and found.high[0, 0, 0] == found.high[0, 1, 0]
    L_inf = np.linspace(0, losses[present].min() * (1 - 1e-6), 200_001)
    x, y = (
        [X[there] for there in present],
        [np.log(row[there] - L_inf[:, None]) for row, there in zip(losses, present, strict=True)],
    )
    dx = [each - each.mean() for each in x]
    slopes = [-(y[j] @ dx[j]) / np.sum(dx[j] ** 2) for j in range(2)]
    residuals = [y[j] - y[j].mean(axis=1, keepdims=True) + slopes[j][:, None] * dx[j] for j in range(2)]
    rest = np.sum(np.concatenate(residuals, axis=1) ** 2, axis=1)
    assert rest.min() == pytest.approx(present.sum(axis=1) @ found.law.score[0], rel=1e-6)
    rest = rest.min() * (1 + quantile / freedom) - rest
    known = rest >= 0
    inside = L_inf[known]
    np.testing.assert_allclose([found.low[0, 0, 0], found.high[0, 0, 0]], [inside[0], inside[-1]], atol=2e-5)
    x0 = np.log(TARGETS)
    for j in range(2):
        centre = y[j].mean(axis=1)[:, None] - slopes[j][:, None] * (x0 - x[j].mean())
        power = np.sum(dx[j] ** 2)
        spread = np.sqrt(np.maximum(rest, 0)[:, None] * (1 / len(x[j]) + (x0 - x[j].mean()) ** 2 / power))
        for ends, sign, extreme in ((found.low, -1, np.min), (found.high, 1, np.max)):
            expected = extreme((L_inf[:, None] + np.exp(centre + sign * spread))[known], axis=0)
            np.testing.assert_allclose(ends[0, j, 2:], expected, rtol=2e-6)
            expected = extreme((slopes[j] + sign * np.sqrt(np.maximum(rest, 0) / power))[known])
            assert ends[0, j, 1] == pytest.approx(expected, rel=1e-6)


def test_a_pinned_law_of_the_loss() -> None:
    """One exponent and one amplitude: the ends of the exponent's interval by its own profile, a closed form inside."""
    losses = studies()
    pinned = 0.8 * losses.min(axis=1)
    quantile = stats.f.ppf(0.95, 1, 6)
    found = profile(losses[:, None], Objective("squared", "loss"), pinned, quantile, n_params=2)
    alphas = np.linspace(1e-4, 1.5, 100_001)[:, None]
    for i, L in enumerate(losses):
        w = np.exp(-alphas * (X - X.mean()))
        above = L - pinned[i]
        A = (w @ above) / np.sum(w**2, axis=1)
        score = np.mean((above - A[:, None] * w) ** 2, axis=1)
        rest = score.min() * (1 + quantile / 6) - score
        inside = rest >= 0
        ends = alphas[inside][[0, -1], 0]
        np.testing.assert_allclose([found.low[i, 0, 1], found.high[i, 0, 1]], ends, atol=4e-5)
        spread = np.sqrt(np.maximum(rest, 0) / np.mean(w**2, axis=1))
        at_targets = np.exp(-alphas * (np.log(TARGETS) - X.mean()))
        for side, sign, extreme in ((found.low, -1, np.min), (found.high, 1, np.max)):
            expected = pinned[i] + extreme(((A + sign * spread)[:, None] * at_targets)[inside], axis=0)
            np.testing.assert_allclose(side[i, 0, 2:], expected, rtol=1e-6)
            assert side[i, 0, 0] == pinned[i]
    assert not found.low_bound[..., 0].any() and not found.high_bound[..., 0].any()


# Rate


def test_intervals_of_losses_hold_the_truth_at_their_rate() -> None:
    n = 400
    rng = np.random.default_rng(1)
    truth = np.array([1.5, 0.2, *(1.5 + 2.0 * (TARGETS / 1e20) ** -0.2)])
    losses = 1.5 + 2.0 * (C / 1e20) ** -0.2 + 0.005 * rng.normal(size=(n, 8))
    found = profile(losses[:, None], Objective("squared", "loss"))
    assert set(found.status.ravel()) <= {Status.FITTED, Status.BOUND_HIT}
    held = np.mean((found.low[:, 0] <= truth) & (truth <= found.high[:, 0]), axis=0)
    assert np.all(np.abs(held - 0.95) <= 4 * np.sqrt(0.95 * 0.05 / n))


def test_intervals_of_a_short_and_a_long_series_hold_their_asymptote_at_their_rate() -> None:
    n, present = 300, some_points(3)
    rng = np.random.default_rng(5)
    fall = np.array([[2.0], [2.4]]) * (C / 1e20) ** -0.2
    losses = 1.5 + fall * np.exp(0.002 * rng.normal(size=(n, 2, 8)))
    found = profile(losses, Objective(), F=stats.f.ppf(0.95, 1, 6), n_params=5, present=present, targets=TARGETS[:0])
    held = np.mean((found.low[:, 0, 0] <= 1.5) & (found.high[:, 0, 0] >= 1.5))
    assert abs(held - 0.95) <= 4 * np.sqrt(0.95 * 0.05 / n)


# Properties and limits


def test_intervals_hold_the_fit() -> None:
    losses = studies()[:, None]
    for objective in (Objective("squared", "loss"), Objective("huber", "log", 0.005)):
        found = profile(losses, objective)
        law = found.law
        told = np.isin(found.status, [Status.FITTED, Status.BOUND_HIT])
        assert told.any()
        forecasts = law.L_inf[..., None] + np.exp(law.log_A[..., None] - law.alpha[..., None] * np.log(TARGETS))
        fitted = np.concatenate([law.L_inf[..., None], law.alpha[..., None], forecasts], axis=2)[told]
        slack = REFERENCE * np.abs(fitted) + 1e-12
        assert np.all(found.low[told] <= fitted + slack) and np.all(fitted <= found.high[told] + slack)


def test_an_asymptote_of_zero_cuts_the_interval() -> None:
    losses = 2.0 * (C / 1e20) ** -0.2 * np.exp(0.01 * np.random.default_rng(4).normal(size=(BATCH, 1, 8)))
    found = profile(losses, Objective("squared", "loss"))
    assert np.all(found.low[..., 0] == 0) and np.all(found.low_bound[..., 0] == Bound.NO_ASYMPTOTE)


def test_what_the_data_cannot_support_has_no_numbers() -> None:
    losses = studies()[:, None]
    losses[1] = np.linspace(2, 3, 8)
    few = profile(losses, Objective("squared", "loss"), F=np.where(np.arange(BATCH) == 0, np.nan, F))
    assert list(few.status[:2, 0]) == [Status.TOO_FEW_POINTS, Status.LOSS_DOES_NOT_FALL]
    assert np.isnan(few.low[:2]).all() and np.isfinite(few.low[2:]).all()
    tight = profile(losses, Objective("huber", "loss", 1e-5))
    assert tight.status[0, 0] == Status.TOO_FEW_WITHIN_DELTA
    assert np.isnan(tight.low[0]).all() and np.isfinite(tight.law.L_inf[0, 0])
