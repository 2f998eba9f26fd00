"""Profile intervals of the law against constrained optima by SciPy, closed forms and simulated coverage."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from scipy import stats
from scipy.optimize import minimize_scalar

from delphi_jax.kernels.law_profile import CHUNK, ProfiledLaw, profile_laws
from delphi_jax.quantiles import profile_limit
from delphi_jax.status import Bound, Status
from tests.tolerances import REFERENCE, TRUTH

C = np.geomspace(3e18, 3e20, 7)
X = np.log(C)
TARGETS = np.array([1e20, 1e22, 1e24])
LIMIT = float(profile_limit(7, 3, 0.95))


def studies(n: int, seed: int = 0, noise: float = 0.004) -> np.ndarray:
    """[n, 7] losses of laws with noise."""
    rng = np.random.default_rng(seed)
    L_inf, alpha, A = rng.uniform(0.5, 2, (n, 1)), rng.uniform(0.05, 0.3, (n, 1)), rng.uniform(1, 3, (n, 1))
    return (L_inf + A * (C / 1e20) ** -alpha) * np.exp(noise * rng.normal(size=(n, 7)))


def profile(losses: np.ndarray, pinned: float | np.ndarray = np.nan, limit: float | np.ndarray = LIMIT) -> ProfiledLaw:
    n = len(losses)
    return jax.device_get(
        profile_laws(
            np.tile(X, (n, 1)),
            losses,
            np.ones_like(losses),
            np.log(TARGETS),
            np.broadcast_to(limit, n).astype(float),
            np.broadcast_to(pinned, n).astype(float),
        )
    )


def constrained_score(
    L: np.ndarray, column: int, value: float, u: np.ndarray, targets: np.ndarray = TARGETS
) -> np.ndarray:
    """Least score of the laws with L_inf = min L - e^u whose quantity ``column`` has ``value``; [K] for ``u`` [K]."""
    L_inf = value if column == 0 else np.minimum(L.min(), np.maximum(L.min() - np.exp(u), 0))[:, None]
    y = np.log(L - L_inf + 0 * u[:, None])
    dx, dy = X - X.mean(), y - y.mean(axis=1, keepdims=True)
    if column < 2:
        alpha = value if column else np.maximum(-(dy @ dx) / np.sum(dx**2), 0)[:, None]
        return np.mean((dy + alpha * dx) ** 2, axis=1)
    # The line runs through the target's point, so the slope is all that is left.
    with np.errstate(invalid="ignore"):
        height = np.log(value - L_inf)
    z, v = X - np.log(targets[column - 2]), y - height
    alpha = np.maximum(-np.sum(z * v, axis=1) / np.sum(z**2), 0)[:, None]
    return np.nan_to_num(np.mean((v + alpha * z) ** 2, axis=1), nan=np.inf)


def least_score(L: np.ndarray, column: int, value: float) -> float:
    """The least score of a law whose quantity ``column`` has ``value``, by brute force and SciPy."""
    places = np.linspace(np.log(1e-6), np.log(L.min()), 4001)
    scores = constrained_score(L, column, value, places)
    best = int(np.argmin(scores))
    bounds = places[max(best - 1, 0)], places[min(best + 1, 4000)]
    found = minimize_scalar(
        lambda u: constrained_score(L, column, value, np.array([u]))[0],
        bounds=bounds,
        method="bounded",
        options={"xatol": 1e-13},
    )
    return min(found.fun, scores[best])


def test_ends_are_where_the_constrained_optimum_meets_the_limit() -> None:
    losses = studies(20)
    found = profile(losses)
    assert set(found.status) == {Status.FITTED, Status.BOUND_HIT}
    seen = set()
    for i, L in enumerate(losses):
        limit = LIMIT * found.law.score[i]
        for column in range(2 + len(TARGETS)):
            out = 0.02 * (found.high[i, column] - found.low[i, column])
            for end, bound, step in (
                (found.low[i, column], found.low_bound[i, column], -out),
                (found.high[i, column], found.high_bound[i, column], out),
            ):
                seen.add((min(column, 2), int(np.sign(step)), Bound(int(bound))))
                if column == 0 and bound == Bound.NO_ASYMPTOTE:
                    assert end == 0 and least_score(L, column, end) <= limit
                    continue
                assert least_score(L, column, end) == pytest.approx(limit, rel=1e-6)
                assert least_score(L, column, end + step) > limit * 1.001
    assert {(0, -1, Bound.NO_ASYMPTOTE), (0, -1, Bound.NONE), (2, -1, Bound.NO_ASYMPTOTE)} <= seen


def test_an_alpha_of_zero_bounds_what_nearly_does_not_fall() -> None:
    losses = np.array([[2.5, 2.6, 2.4, 2.55, 2.45, 2.5, 2.42]])
    found = profile(losses)
    assert (found.low[0, 1], Bound(int(found.low_bound[0, 1]))) == (0.0, Bound.NO_FALL)
    # The highest forecast: the flat law whose constant is as far above the mean as the limit allows.
    assert Bound.NO_FALL in Bound(int(found.high_bound[0, 2 + 2]))
    grid = np.linspace(2.3, 3.0, 701)
    limit = LIMIT * found.law.score[0]
    reached = [value for value in grid if least_score(losses[0], 4, value) <= limit]
    np.testing.assert_allclose(found.high[0, 4], max(reached), atol=2e-3)


def test_a_pinned_law_has_the_interval_of_a_regression() -> None:
    """Of the mean response (Seber & Wild 1989, or any text on regression), in log(L - L_inf)."""
    losses = studies(5)
    pinned = np.linspace(0, 0.9, 5) * losses.min(axis=1)
    found = profile(losses, pinned, float(profile_limit(7, 2, 0.95)))
    t = stats.t.ppf(0.975, 5)
    for i, L in enumerate(losses):
        line = stats.linregress(X, np.log(L - pinned[i]))
        np.testing.assert_allclose(
            [found.low[i, 1], found.high[i, 1]], -line.slope + t * line.stderr * np.array([-1, 1]), rtol=TRUTH
        )
        residual = np.log(L - pinned[i]) - line.intercept - line.slope * X
        x0 = np.log(TARGETS)
        error = np.sqrt(np.sum(residual**2) / 5 * (1 / 7 + (x0 - X.mean()) ** 2 / np.sum((X - X.mean()) ** 2)))
        centre = line.intercept + line.slope * x0
        for ends, sign in ((found.low, -1), (found.high, 1)):
            np.testing.assert_allclose(ends[i, 2:], pinned[i] + np.exp(centre + sign * t * error), rtol=TRUTH)
        assert found.low[i, 0] == found.high[i, 0] == pinned[i]
        assert not (found.low_bound[i].any() or found.high_bound[i].any())


def test_intervals_hold_the_fit_and_grow_with_the_level() -> None:
    losses = studies(200)
    narrow, wide = (profile(losses, limit=float(profile_limit(7, 3, level))) for level in (0.5, 0.95))
    law = narrow.law
    fitted = np.column_stack(
        [law.L_inf, law.alpha, law.L_inf[:, None] + np.exp(law.log_A[:, None] - law.alpha[:, None] * np.log(TARGETS))]
    )
    slack = 1e-9 * np.abs(fitted) + 1e-12
    assert np.all(narrow.low <= fitted + slack) and np.all(fitted <= narrow.high + slack)
    assert np.all(wide.low <= narrow.low + slack) and np.all(narrow.high <= wide.high + slack)
    assert np.all(wide.high - wide.low > 0)


def test_noiseless_laws_have_intervals_of_no_width() -> None:
    losses = 1.5 + 2.0 * (C / 1e20) ** -np.array([[0.1], [0.2]])
    found = profile(losses)
    for ends in (found.low, found.high):
        np.testing.assert_allclose(ends[:, 0], 1.5, rtol=TRUTH)
        np.testing.assert_allclose(ends[:, 1], [0.1, 0.2], rtol=TRUTH)
        np.testing.assert_allclose(ends[:, 2:], 1.5 + 2.0 * (TARGETS / 1e20) ** -np.array([[0.1], [0.2]]), rtol=TRUTH)


@pytest.mark.parametrize("scale", [0.1, 7.0])
def test_scaled_losses_scale_the_intervals(scale: float) -> None:
    losses = studies(30)
    before, after = profile(losses), profile(scale * losses)
    factor = np.array([scale, 1, scale, scale, scale])
    np.testing.assert_allclose(after.low, factor * before.low, rtol=TRUTH, atol=1e-12)
    np.testing.assert_allclose(after.high, factor * before.high, rtol=TRUTH)
    np.testing.assert_array_equal(after.low_bound, before.low_bound)


def test_batch_equals_one_by_one() -> None:
    losses = studies(2 * CHUNK + 3)
    together = profile(losses)
    for i in (0, CHUNK, 2 * CHUNK + 2):
        alone = profile(losses[i : i + 1])
        np.testing.assert_allclose(alone.low[0], together.low[i], rtol=REFERENCE, atol=1e-12)
        np.testing.assert_allclose(alone.high[0], together.high[i], rtol=REFERENCE)


def test_what_the_data_cannot_support_has_no_numbers() -> None:
    losses = np.stack([studies(1)[0], np.linspace(2, 3, 7), studies(1)[0], studies(1)[0]])
    found = profile(losses, [np.nan, np.nan, losses[2].min(), np.nan], [np.nan, LIMIT, LIMIT, LIMIT])
    statuses = [Status.TOO_FEW_POINTS, Status.LOSS_DOES_NOT_FALL, Status.ASYMPTOTE_ABOVE_LOSS]
    assert list(found.status[:3]) == statuses and found.status[3] in (Status.FITTED, Status.BOUND_HIT)
    for ends in (found.low, found.high):
        np.testing.assert_array_equal(np.isnan(ends), np.array([True, True, True, False])[:, None] & np.ones(5, bool))
    np.testing.assert_array_equal(np.isnan(profile_limit([2, 3, 4], 3, 0.95)), [True, True, False])
