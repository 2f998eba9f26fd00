"""Intervals of forecasts against SciPy, slow twins and closed forms, method by method."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scipy import optimize, stats

from benchmarks import baseline
from delphi_jax.fit import draws as drawing
from delphi_jax.fit import intervals
from delphi_jax.fit.draws import arrange, draw_runs
from delphi_jax.fit.forecasts import forecast_intervals
from delphi_jax.fit.intervals import StudyBatch, StudyIntervals, study_intervals
from delphi_jax.fit.law import resampling_indices
from delphi_jax.formulas import law_loss
from delphi_jax.kernels.bca import bca_levels
from delphi_jax.kernels.hierarchical import ResampledOptima, resampled_optima
from delphi_jax.labels import INTERVAL_METHODS
from delphi_jax.results import StudyFit
from delphi_jax.status import Status
from tests.tolerances import REFERENCE, ROUNDING, TRUTH

TRUE_LAW = (1.4, 300.0, 0.13)
BUDGETS = np.geomspace(3e18, 3e20, 6)
TARGETS = np.array([1e20, 1e21, 1e23])
DRAWS = 60
BUCKETS, RUNS = 8, 16
"""Of every batch, padding included."""
PINNED = 1.3
OPTIMUM = 1e-8
"""Relative, forecasts at two solvers' optima: next to no noise leaves the slope's root to rounding."""


def batch_of(
    seed: int = 0,
    *,
    studies: int = 1,
    budgets: np.ndarray = BUDGETS,
    runs: tuple[int, ...] = (7, 9, 12, 8, 11, 10),
    run_noise: float = 0.003,
    scatter: float = 0.0,
    optima: np.ndarray | None = None,
) -> StudyBatch:
    """Studies with runs on exact parabolas of minimum ``optima`` [S, K] (the true law's), noise on every run, and a
    scatter of the minima in log(L - L_inf). Padded to one shape, as every other one costs a second of compiling."""
    rng = np.random.default_rng(seed)
    real = np.arange(RUNS) < np.array(runs[: len(budgets)])[:, None]
    mask = np.zeros((studies, BUCKETS, RUNS), dtype=bool)
    mask[:, : len(budgets)] = real
    x, loss, log_compute = np.full(mask.shape, np.nan), np.full(mask.shape, np.nan), np.full(mask.shape[:2], np.nan)
    x_star = 0.52 * np.log10(budgets)[:, None]
    drawn = x_star + rng.uniform(-0.8, 0.8, (studies, *real.shape))
    if optima is None:
        gap = law_loss(budgets, *TRUE_LAW) - TRUE_LAW[0]
        optima = TRUE_LAW[0] + gap * np.exp(scatter * rng.normal(size=(studies, len(budgets))))
    noise = run_noise * rng.normal(size=drawn.shape)
    x[mask] = drawn[:, real].ravel()
    loss[mask] = (optima[:, :, None] + 0.15 * (drawn - x_star) ** 2 + noise)[:, real].ravel()
    log_compute[:, : len(budgets)] = np.log(budgets)
    return StudyBatch(x, loss, mask, log_compute)


def optima_of(batch: StudyBatch, study: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(compute FLOPs, loss) of the slow twin's parabolas."""
    real = batch.mask[study].any(axis=1)
    losses = []
    for x, loss, mask in zip(*(field[study, real] for field in batch[:3]), strict=True):
        tokens = 10.0 ** x[mask]
        losses.append(baseline.fit_parabola(tokens, loss[mask], tokens)["loss_star"])
    return np.exp(batch.log_compute[study, real]), np.array(losses)


def scipy_law(C: np.ndarray, L: np.ndarray) -> tuple[float, float, float] | None:
    """(L_inf, log A, alpha) where the slope of the mean squared log residual along u = log(min L - L_inf) vanishes, by
    SciPy's root finder, or at L_inf = 0; None where there is no law."""
    if len(np.unique(C)) < 3:
        return None
    x = np.log(C)
    dx = x - x.mean()

    def lines(u: np.ndarray) -> tuple[np.ndarray, ...]:
        gap = L - L.min() + np.exp(u)[:, None]
        y = np.log(gap)
        dy = y - y.mean(axis=1, keepdims=True)
        alpha = -dy @ dx / np.sum(dx**2)
        residual = dy + alpha[:, None] * dx
        slope = np.mean(residual * np.exp(u)[:, None] / gap, axis=1)
        return np.mean(residual**2, axis=1), slope, y.mean(axis=1) + alpha * x.mean(), alpha

    places = np.linspace(math.log(L.min()) - 12, math.log(L.min()), 200)
    best = int(np.argmin(lines(places)[0]))
    u = places[best]
    if 0 < best < len(places) - 1:
        u = optimize.brentq(lambda u: lines(np.array([u]))[1][0], places[best - 1], places[best + 1], xtol=1e-14)
    _, _, log_A, alpha = (float(field[0]) for field in lines(np.array([u])))
    return (L.min() - math.exp(u), log_A, alpha) if alpha > 0 else None


def scipy_forecast(C: np.ndarray, L: np.ndarray, targets: np.ndarray = TARGETS) -> np.ndarray:
    law = scipy_law(C, L)
    return np.full(len(targets), np.nan) if law is None else law[0] + np.exp(law[1] - law[2] * np.log(targets))


def scipy_draws(C: np.ndarray, L: np.ndarray, indices: np.ndarray) -> np.ndarray:
    return np.array([scipy_forecast(C[i], L[i]) for i in indices])


def one(found: StudyIntervals, method: str, methods: tuple[str, ...] = INTERVAL_METHODS) -> SimpleNamespace:
    """The first study's part of one method."""
    m = methods.index(method)
    return SimpleNamespace(**{name: getattr(found, name)[0, m] for name in found._fields[:6]})


def assert_same(left: StudyIntervals, right: StudyIntervals, rtol: float = ROUNDING) -> None:
    for name in StudyIntervals._fields:
        np.testing.assert_allclose(getattr(left, name), getattr(right, name), rtol=rtol, atol=rtol, err_msg=name)


# Optima resampled


@pytest.fixture(scope="module")
def resampled() -> dict[str, Any]:
    """Three methods on the same draws, and these draws by SciPy."""
    batch = batch_of(0)
    methods = ("percentile", "basic", "bca")
    C, L = optima_of(batch)
    draws = scipy_draws(C, L, resampling_indices(len(C), DRAWS, 7))
    found = study_intervals(batch, TARGETS, methods=methods, draws=DRAWS, seed=7, level=0.8)
    return {"found": found, "methods": methods, "draws": draws, "C": C, "L": L}


def test_the_point_forecast_is_that_of_the_law_over_the_optima(resampled: dict[str, Any]) -> None:
    expected = scipy_forecast(resampled["C"], resampled["L"])
    for method in resampled["methods"]:
        line = one(resampled["found"], method, resampled["methods"])
        np.testing.assert_allclose(line.point, expected, rtol=OPTIMUM)


def test_percentile_and_basic_are_percentiles_of_the_references_resamples(resampled: dict[str, Any]) -> None:
    draws, point = resampled["draws"], scipy_forecast(resampled["C"], resampled["L"])
    low, median, high = np.nanpercentile(draws, [10, 50, 90], axis=0)
    percentile = one(resampled["found"], "percentile", resampled["methods"])
    basic = one(resampled["found"], "basic", resampled["methods"])
    np.testing.assert_allclose([percentile.low, percentile.median, percentile.high], [low, median, high], rtol=OPTIMUM)
    np.testing.assert_allclose([basic.low, basic.high], [2 * point - high, 2 * point - low], rtol=OPTIMUM)
    skipped = np.isnan(draws[:, 0]).mean()
    assert 1 - percentile.draw_status[[Status.FITTED, Status.BOUND_HIT]].sum() == pytest.approx(skipped)


def test_bca_is_scipys(resampled: dict[str, Any]) -> None:
    """SciPy's BCa interval of the same bootstrap distribution, its own jackknife included."""
    C, L = resampled["C"], resampled["L"]
    bca = one(resampled["found"], "bca", resampled["methods"])
    fitted = resampled["draws"][~np.isnan(resampled["draws"][:, 0])]
    for q, target in enumerate(TARGETS):
        expected = stats.bootstrap(
            (np.arange(len(C)),),
            lambda i, target=target: scipy_forecast(C[i], L[i], np.array([target]))[0],
            n_resamples=0,
            bootstrap_result=SimpleNamespace(bootstrap_distribution=fitted[:, q]),
            confidence_level=0.8,
            method="BCa",
            vectorized=False,
        ).confidence_interval
        assert Status(int(bca.status[q])) is Status.FITTED
        np.testing.assert_allclose([bca.low[q], bca.high[q]], expected, rtol=OPTIMUM)


def weighted_draws(C: np.ndarray, L: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Forecasts and probabilities of every resample that has a law."""
    n = len(C)
    combinations = list(itertools.combinations_with_replacement(range(n), n))
    ways = [math.factorial(n) // math.prod(map(math.factorial, Counter(each).values())) for each in combinations]
    draws = scipy_draws(C, L, np.array(combinations))
    fitted = ~np.isnan(draws[:, 0])
    return draws[fitted], np.array(ways, dtype=float)[fitted] / n**n


def inverse_cdf(values: np.ndarray, weights: np.ndarray, share: float) -> float:
    order = np.argsort(values)
    reached = np.cumsum(weights[order]) >= share * weights.sum() * (1 - 1e-9)
    return float(values[order][np.argmax(reached)])


def test_the_exact_bootstrap_is_every_resample_with_its_probability() -> None:
    """Five optima: 126 resamples; BCa from the same distribution by the textbook's formulas."""
    batch = batch_of(5, budgets=BUDGETS[:5])
    C, L = optima_of(batch)
    draws, weights = weighted_draws(C, L)
    methods = ("percentile", "basic", "bca")
    found = study_intervals(batch, TARGETS, methods=methods, exact=True, level=0.8)
    point = scipy_forecast(C, L)
    jackknife = np.array([scipy_forecast(np.delete(C, i), np.delete(L, i)) for i in range(5)])
    for q in range(len(TARGETS)):
        percentile, basic, bca = (one(found, method, methods) for method in methods)
        low, high = (inverse_cdf(draws[:, q], weights, share) for share in (0.1, 0.9))
        np.testing.assert_allclose([percentile.low[q], percentile.high[q]], [low, high], rtol=OPTIMUM)
        np.testing.assert_allclose(
            [basic.low[q], basic.high[q]], [2 * point[q] - high, 2 * point[q] - low], rtol=OPTIMUM
        )
        tie = np.isclose(draws[:, q], point[q], rtol=OPTIMUM)
        below = weights @ np.where(tie, 0.5, draws[:, q] < point[q]) / weights.sum()
        away = jackknife[:, q].mean() - jackknife[:, q]
        acceleration = np.sum(away**3) / (6 * np.sum(away**2) ** 1.5)
        z0, z = stats.norm.ppf(below), stats.norm.ppf([0.1, 0.9])
        shares = stats.norm.cdf(z0 + (z0 + z) / (1 - acceleration * (z0 + z)))
        expected = [inverse_cdf(draws[:, q], weights, share) for share in shares]
        np.testing.assert_allclose([bca.low[q], bca.high[q]], expected, rtol=OPTIMUM)


def test_monte_carlo_converges_to_the_exact_bootstrap() -> None:
    """Every Monte-Carlo end stands in the exact distribution where the Dvoretzky-Kiefer-Wolfowitz inequality (Massart
    1990) puts it in all but one of 1e9 runs."""
    batch = batch_of(2, budgets=BUDGETS[:5])
    draws, weights = weighted_draws(*optima_of(batch))
    found = one(study_intervals(batch, TARGETS, methods=("percentile",), draws=20_000, seed=1), "percentile")
    off = math.sqrt(math.log(2e9) / 40_000) + 1e-4
    weights = weights / weights.sum()
    for q in range(len(TARGETS)):
        for share, value in ((0.025, found.low[q]), (0.5, found.median[q]), (0.975, found.high[q])):
            assert weights[draws[:, q] < value * (1 - OPTIMUM)].sum() <= share + off
            assert weights[draws[:, q] <= value * (1 + OPTIMUM)].sum() >= share - off


def test_more_draws_than_resamples_are_the_same_draws() -> None:
    """Four optima have 35 resamples: 60 draws are gathered from all of them, or are fitted as drawn."""
    small = batch_of(1, budgets=BUDGETS[:4])
    beside = batch_of(2, studies=2, budgets=BUDGETS[:4])
    beside.mask[1, 3] = False
    beside.x[0], beside.loss[0] = small.x[0], small.loss[0]
    gathered = study_intervals(small, TARGETS, methods=("percentile",), draws=DRAWS, level=0.9)
    drawn = study_intervals(beside, TARGETS, methods=("percentile",), draws=DRAWS, level=0.9)
    assert_same(gathered, StudyIntervals(*(field[:1] for field in drawn)))
    C, L = optima_of(small)
    expected = np.nanpercentile(scipy_draws(C, L, resampling_indices(4, DRAWS, 0)), [5, 95], axis=0)
    np.testing.assert_allclose([gathered.low[0, 0], gathered.high[0, 0]], expected, rtol=OPTIMUM)


@pytest.mark.parametrize("below", [0.0, 1.0, 0.999999])
def test_bca_levels_that_do_not_exist_are_told(below: float) -> None:
    """All draws on one side, and an acceleration that turns the percentiles around."""
    jackknife = np.append(np.ones(59), 0.0)
    away = jackknife.mean() - jackknife
    acceleration = np.sum(away**3) / (6 * np.sum(away**2) ** 1.5)
    z0 = stats.norm.ppf(below)
    assert not np.isfinite(z0) or 1 - acceleration * (z0 + stats.norm.ppf(0.95)) < 0
    levels = bca_levels(np.array([below]), jackknife[None], np.ones((1, 60), bool), 0.9)
    assert not levels.defined[0]
    assert np.isnan([levels.low[0], levels.high[0]]).all()


def test_equal_leave_one_out_estimates_have_no_acceleration() -> None:
    levels = bca_levels(np.array([0.5]), np.full((1, 4), 2.0), np.ones((1, 4), bool), 0.9)
    np.testing.assert_allclose([levels.low[0], levels.high[0]], [0.05, 0.95], rtol=ROUNDING)


def test_ends_that_the_draws_do_not_reach_are_no_bca_interval() -> None:
    batch = batch_of(0)
    few = one(study_intervals(batch, TARGETS, methods=("bca",), draws=20), "bca", ("bca",))
    assert set(few.status.tolist()) == {Status.BEYOND_DRAWS}
    assert np.isnan([few.low, few.high]).all()
    assert np.isfinite(few.point).all()


def test_too_few_draws_tell_no_interval() -> None:
    batch, methods = batch_of(0), ("percentile", "basic", "parametric", "runs", "hierarchical")
    # Of 60 draws: a tail of 2 % holds one, one of 1.5 % does not.
    for level, expected in ((0.96, Status.FITTED), (0.97, Status.BEYOND_DRAWS)):
        found = study_intervals(batch, TARGETS, methods=methods, draws=DRAWS, level=level)
        assert set(found.status.ravel().tolist()) == {expected}
        assert np.isfinite(found.low).all() == (expected is Status.FITTED)


# Optima redrawn


def test_the_parametric_bootstrap_has_the_spread_of_linear_theory() -> None:
    """With next to no noise the law is linear in its parameters: the forecast's variance is g' (J'J)^-1 g sigma^2."""
    batch = batch_of(4, run_noise=0.0, scatter=1e-6)
    C, L = optima_of(batch)
    L_inf, log_A, alpha = scipy_law(C, L)
    residual = np.log(L - L_inf) - log_A + alpha * np.log(C)
    sigma = math.sqrt(np.sum(residual**2) / (len(C) - 3))
    jacobian = np.stack([1 / (L - L_inf), np.ones_like(C), -np.log(C)], axis=1)
    gap = np.exp(log_A - alpha * np.log(TARGETS))
    slopes = np.stack([np.ones_like(gap), gap, -gap * np.log(TARGETS)], axis=1)
    sd = sigma * np.linalg.norm(slopes @ np.linalg.pinv(jacobian), axis=1)
    draws = 4000
    found = one(
        study_intervals(batch, TARGETS, methods=("parametric",), draws=draws, level=0.9), "parametric", ("parametric",)
    )
    z = stats.norm.ppf(0.95)
    # Standard error of the distance of two sample quantiles, which are nearly independent this far apart.
    error = math.sqrt(2 * 0.05 * 0.95 / draws) / stats.norm.pdf(z) / (2 * z)
    np.testing.assert_allclose(found.high - found.low, 2 * z * sd, rtol=5 * error)


# Runs resampled


def test_resampled_optima_are_those_of_one_refit_per_resample() -> None:
    """Also where too few token counts are left, where the optimum is clipped, and where there is no minimum."""
    rng = np.random.default_rng(0)
    n_runs, draws = [4, 6, 9], 80
    mask = np.arange(10) < np.array(n_runs)[:, None]
    x = np.where(mask, rng.uniform(9, 11, mask.shape), 0.0)
    x[0, 1] = x[0, 0]
    loss = np.where(mask, 3 + 0.05 * (x - 9.6) ** 2 + 0.02 * rng.normal(size=x.shape), 0.0)
    indices = np.zeros((3, draws, 10), dtype=np.uint8)
    for k, n in enumerate(n_runs):
        indices[k, :, :n] = rng.integers(0, n, (draws, n))
    found = resampled_optima(x, loss, mask, indices)
    seen = Counter()
    for k, n in enumerate(n_runs):
        for r, places in enumerate(indices[k, :, :n]):
            status = Status(int(found.status[k, r]))
            seen[status] += 1
            tokens = 10.0 ** x[k, places]
            if len(np.unique(tokens)) < 3:
                assert status is Status.TOO_FEW_POINTS
                continue
            expected = baseline.fit_parabola(tokens, loss[k, places], tokens)
            np.testing.assert_allclose(found.loss_star[k, r], expected["loss_star"], rtol=TRUTH)
            edge = Status.CLIPPED_TO_EDGE if expected["clipped"] else Status.FITTED
            assert status is (edge if expected["a"] > 0 else Status.CURVATURE_NOT_POSITIVE)
    assert set(seen) == {Status.FITTED, Status.CLIPPED_TO_EDGE, Status.CURVATURE_NOT_POSITIVE, Status.TOO_FEW_POINTS}


@pytest.mark.parametrize("buckets_too", [False, True])
def test_every_copy_of_a_bucket_takes_a_resample_of_its_own(buckets_too: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The points that laws are fitted to, with optima that are numbered by bucket and resample."""
    optima = arrange(batch_of(1))
    n, draws = 6, 50
    names = 1.0 + np.arange(BUCKETS)[:, None] + np.arange(draws + BUCKETS - 1) / 1000
    status = np.zeros((1, *names.shape), dtype=int)
    status[0, 2, ::7] = Status.TOO_FEW_POINTS
    points = {}
    monkeypatch.setattr(drawing, "fit_points", lambda *fields: points.update(zip("xyw", fields, strict=True)))
    _, ended = draw_runs(optima, ResampledOptima(names[None], status), draws, 3, buckets_too=buckets_too)
    expected = resampling_indices(n, draws, 3) if buckets_too else np.tile(np.arange(n), (draws, 1))
    weight, loss = (points[name][0, :, :n] for name in "wy")
    bucket = np.floor(loss - 1).astype(int)
    np.testing.assert_array_equal(points["x"][0, :, :n], optima.log_compute[0, expected])
    np.testing.assert_array_equal(bucket[weight > 0], expected[weight > 0])
    assert (expected[weight == 0] == 2).all()
    assert ended[0, Status.TOO_FEW_POINTS] == pytest.approx(np.mean(weight == 0))
    assert ended[0, Status.TOO_FEW_POINTS] > 0
    for row, taken in zip(loss, weight, strict=True):
        assert len(set(row[taken > 0])) == int(taken.sum())


def test_runs_on_exact_parabolas_add_nothing() -> None:
    """Then every resample has the bucket's own optimum: only buckets make a difference, and the same as alone."""
    batch = batch_of(4, run_noise=0.0, scatter=0.01, runs=(16,) * 6)
    found = study_intervals(batch, TARGETS, methods=("percentile", "runs", "hierarchical"), draws=DRAWS)
    assert found.refit_status[0, Status.FITTED] == 1
    optima, runs, both = (SimpleNamespace(low=found.low[0, m], high=found.high[0, m]) for m in range(3))
    np.testing.assert_allclose(both.low, optima.low, rtol=TRUTH)
    np.testing.assert_allclose(both.high, optima.high, rtol=TRUTH)
    np.testing.assert_allclose(runs.low, runs.high, rtol=TRUTH)


def test_a_bucket_whose_resample_has_no_parabola_takes_no_part() -> None:
    """Buckets of three runs: a resample has a parabola with probability 3!/3^3, and then it is the bucket's own."""
    batch = batch_of(1, runs=(3,) * 6)
    found = study_intervals(batch, TARGETS, methods=("runs",), draws=1000)
    share = 6 / 27
    error = math.sqrt(share * (1 - share) / 6000)
    assert 1 - found.refit_status[0, Status.TOO_FEW_POINTS] == pytest.approx(share, abs=5 * error)
    k = np.arange(3)
    skipped = np.sum(stats.binom.pmf(k, 6, share))
    expected = pytest.approx(skipped, abs=5 * math.sqrt(skipped / 1000))
    assert found.draw_status[0, 0, Status.TOO_FEW_POINTS] == expected


# Profile likelihood


def test_at_the_ends_of_the_profile_the_best_law_reaches_the_f_limit() -> None:
    """The best law that has the end as its forecast, by SciPy: a line through one point, for every asymptote."""
    batch = batch_of(2)
    C, L = optima_of(batch)
    found = one(study_intervals(batch, TARGETS, methods=("profile",), level=0.9), "profile", ("profile",))
    L_inf, log_A, alpha = scipy_law(C, L)
    least = np.mean((np.log(L - L_inf) - log_A + alpha * np.log(C)) ** 2)
    limit = 1 + stats.f.ppf(0.9, 1, len(C) - 3) / (len(C) - 3)

    def held(u: float, forecast: float, target: float) -> float:
        asymptote = L.min() - math.exp(u)
        if asymptote >= forecast:
            return math.inf
        dx = np.log(C / target)
        dy = np.log(L - asymptote) - math.log(forecast - asymptote)
        return float(np.mean((dy - dx * np.sum(dx * dy) / np.sum(dx**2)) ** 2))

    assert set(found.status.tolist()) == {Status.FITTED}
    places = np.linspace(math.log(L.min()) - 8, math.log(L.min()), 400)
    for q, target in enumerate(TARGETS):
        assert found.low[q] < found.point[q] < found.high[q]
        for end in (found.low[q], found.high[q]):
            best = int(np.argmin([held(u, end, target) for u in places]))
            bracket = (places[best - 1], places[best + 1])
            score = optimize.minimize_scalar(held, bounds=bracket, args=(end, target), method="bounded").fun
            assert score == pytest.approx(limit * least, rel=1e-6)


# Student-t


def prediction(C: np.ndarray, L: np.ndarray, pinned: float, level: float) -> np.ndarray:
    """[3, Q] low, point and high of the textbook's prediction interval, by SciPy."""
    x, y, n = np.log(C), np.log(L - pinned), len(C)
    line = stats.linregress(x, y)
    residual = y - line.intercept - line.slope * x
    s = math.sqrt(np.sum(residual**2) / (n - 2))
    at = np.log(TARGETS)
    half = stats.t.ppf((1 + level) / 2, n - 2) * s
    half = half * np.sqrt(1 + 1 / n + (at - x.mean()) ** 2 / np.sum((x - x.mean()) ** 2))
    middle = line.intercept + line.slope * at
    return pinned + np.exp([middle - half, middle, middle + half])


@pytest.mark.parametrize("level", [0.5, 0.95])
def test_the_prediction_interval_is_the_textbooks(level: float) -> None:
    batch = batch_of(2, studies=2)
    found = study_intervals(batch, TARGETS, methods=("student-t",), level=level, pinned=[PINNED, 0.0])
    for study, pinned in enumerate((PINNED, 0.0)):
        expected = prediction(*optima_of(batch, study), pinned, level)
        actual = [getattr(found, name)[study, 0] for name in ("low", "point", "high")]
        np.testing.assert_allclose(actual, expected, rtol=REFERENCE)


def test_the_prediction_interval_holds_new_optima_at_its_rate() -> None:
    """Its assumptions hold here, so its coverage is its level: within five binomial standard errors."""
    studies, noise = 2000, 0.01
    batch = batch_of(9, studies=studies, run_noise=0.0, scatter=noise, runs=(5,) * 6)
    found = study_intervals(batch, TARGETS, methods=("student-t",), level=0.9, pinned=TRUE_LAW[0])
    rng = np.random.default_rng(1)
    gap = law_loss(TARGETS, *TRUE_LAW) - TRUE_LAW[0]
    new = TRUE_LAW[0] + gap * np.exp(noise * rng.normal(size=(studies, len(TARGETS))))
    covered = np.mean((found.low[:, 0] <= new) & (new <= found.high[:, 0]), axis=0)
    np.testing.assert_allclose(covered, 0.9, atol=5 * math.sqrt(0.9 * 0.1 / studies))


def test_without_a_pinned_asymptote_there_is_no_prediction_interval() -> None:
    found = one(study_intervals(batch_of(), TARGETS, methods=("student-t",)), "student-t", ("student-t",))
    assert set(found.status.tolist()) == {Status.NOT_PINNED}
    assert np.isnan([found.low, found.point, found.high]).all()


# All methods


def test_noiseless_runs_give_the_truth() -> None:
    batch = batch_of(8, run_noise=0.0)
    methods = tuple(method for method in INTERVAL_METHODS if method not in ("runs", "hierarchical"))
    found = study_intervals(batch, TARGETS, methods=methods, draws=DRAWS, pinned=TRUE_LAW[0])
    truth = np.broadcast_to(law_loss(TARGETS, *TRUE_LAW), found.point.shape)
    np.testing.assert_allclose(found.point, truth, rtol=TRUTH)
    for ends in (found.low, found.high):
        given = np.isfinite(ends)
        np.testing.assert_allclose(ends[given], truth[given], rtol=1e-6)


def test_order_of_buckets_and_runs_does_not_matter() -> None:
    batch = batch_of(1)
    rng = np.random.default_rng(0)
    buckets, runs = rng.permutation(BUCKETS), rng.permutation(RUNS)
    shuffled = StudyBatch(*(field[:, buckets][:, :, runs] for field in batch[:3]), batch.log_compute[:, buckets])
    settings = {"draws": DRAWS, "pinned": PINNED}
    assert_same(study_intervals(batch, TARGETS, **settings), study_intervals(shuffled, TARGETS, **settings))


def test_a_batch_is_its_studies_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also in blocks, of which the last reaches back; with a bucket that lacks its runs, and with other padding."""
    batch = batch_of(2, studies=3)
    batch.mask[1, 2] = False
    settings = {"draws": DRAWS, "pinned": PINNED}
    apart = [
        study_intervals(
            StudyBatch(*(field[study : study + 1] for field in batch)), TARGETS, seed=10 + study, **settings
        )
        for study in range(3)
    ]
    padded = StudyBatch(
        *(np.pad(field, ((0, 0), (0, 3), (0, 300))) for field in batch[:3]),
        np.pad(batch.log_compute, ((0, 0), (0, 3))),
    )
    monkeypatch.setattr(intervals, "_LAWS_AT_ONCE", 2 * DRAWS)
    together = study_intervals(padded, TARGETS, seed=10, **settings)
    assert_same(together, StudyIntervals(*map(np.concatenate, zip(*apart, strict=True))))


def statuses(batch: StudyBatch, **settings: Any) -> dict[str, Status]:
    """Status of every method, which must be one for all targets, and no number where it is not usable."""
    found = study_intervals(batch, TARGETS, draws=DRAWS, **settings)
    ended = {}
    for method in INTERVAL_METHODS:
        line = one(found, method)
        (status,) = set(line.status.tolist())
        ended[method] = Status(status)
        assert np.isnan([line.low, line.high, line.median]).all() or ended[method].usable
    return ended


def test_fewer_points_than_parameters_are_too_few() -> None:
    free = set(INTERVAL_METHODS) - {"student-t"}
    for n in (1, 2):
        ended = statuses(batch_of(budgets=BUDGETS[:n]), pinned=PINNED)
        assert {ended[method] for method in free} == {Status.TOO_FEW_POINTS}
        assert ended["student-t"] is Status.TOO_FEW_POINTS
    three = statuses(batch_of(budgets=BUDGETS[:3], scatter=0.001), pinned=PINNED)
    without = ("percentile", "basic", "bca", "parametric", "hierarchical")
    assert {three[method] for method in without} == {Status.TOO_FEW_POINTS}
    # It passes through all three whatever their runs say: of their error alone.
    assert three["runs"] is Status.FITTED
    assert three["student-t"] is Status.FITTED


def test_budgets_that_are_the_same_are_too_few() -> None:
    ended = statuses(batch_of(budgets=np.full(6, 1e20)), pinned=PINNED)
    assert set(ended.values()) == {Status.TOO_FEW_POINTS}


def test_no_bucket_at_all_is_too_few() -> None:
    batch = batch_of()
    batch.mask[:] = False
    assert set(statuses(batch, pinned=PINNED).values()) == {Status.TOO_FEW_POINTS}


def test_losses_that_rise_have_no_law() -> None:
    rising = batch_of(optima=np.linspace(2, 3, 6)[None])
    assert set(statuses(rising, pinned=PINNED).values()) == {Status.LOSS_DOES_NOT_FALL}


def test_a_pinned_asymptote_above_a_loss_has_no_interval() -> None:
    ended = statuses(batch_of(), pinned=2.5)
    assert ended["student-t"] is Status.ASYMPTOTE_ABOVE_LOSS
    assert ended["percentile"] is Status.FITTED


def test_a_law_on_its_bound_says_so() -> None:
    straight = batch_of(
        1, run_noise=1e-4, optima=3.0 * (BUDGETS[None] / BUDGETS[0]) ** -0.05 + np.linspace(0, -0.05, 6)
    )
    found = study_intervals(straight, TARGETS, draws=DRAWS, methods=("percentile", "runs"))
    assert set(found.status.ravel().tolist()) == {Status.BOUND_HIT}
    assert np.isfinite(found.low).all()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"methods": ("percentile", "magic")}, "unknown methods"),
        ({"methods": ()}, "no method"),
        ({"draws": 0}, "draws"),
        ({"draws": 2**21}, "draws"),
        ({"level": 1.0}, "level"),
        ({"targets": [1e21, -1.0]}, "targets"),
        ({"targets": []}, "targets"),
        ({"pinned": -1.0}, "pinned"),
        ({"pinned": float("inf")}, "pinned"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(change: dict[str, Any], words: str) -> None:
    arguments = {"targets": TARGETS} | change
    with pytest.raises(ValueError, match=words):
        study_intervals(batch_of(), **arguments)


def test_batches_that_do_not_fit_are_refused() -> None:
    batch = batch_of()
    with pytest.raises(ValueError, match="log_compute"):
        study_intervals(batch._replace(log_compute=batch.log_compute[:, :2]), TARGETS)
    with pytest.raises(ValueError, match="not finite"):
        study_intervals(batch._replace(mask=np.ones_like(batch.mask)), TARGETS)
    twice = StudyBatch(*(np.concatenate([field, field], axis=1) for field in batch))
    with pytest.raises(ValueError, match="exact bootstrap of 12 optima"):
        study_intervals(twice, TARGETS, exact=True)


# A study's suites


def test_the_references_line_is_the_published_one(golden_fit: StudyFit, golden_numbers: dict[str, Any]) -> None:
    found = forecast_intervals(golden_fit.isoflop, methods=("percentile", "student-t"), pinned=1.2)
    for suite in found.suites:
        expected = golden_numbers["bootstrap_n1000_seed0"][suite.suite]["ci_low_med_high"]
        published = np.array(list(expected.values())).T
        np.testing.assert_allclose([suite.low[0], suite.median[0], suite.high[0]], published, rtol=REFERENCE)
        assert suite.methods == ("reference", "percentile", "student-t")
        assert suite.rows()[0]["width / reference"] == 1
        # The continuous optimum moves the interval by less than the step of the reference's grid.
        np.testing.assert_allclose([suite.low[1], suite.high[1]], [suite.low[0], suite.high[0]], rtol=5e-3)
        # Whose pinned law is another.
        assert suite.rows()[2]["interval for"] == "new optimum"
