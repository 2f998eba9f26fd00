"""The bootstrap of the forecast against the reference's draws and one refit per draw."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from fractions import Fraction
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import baseline
from delphi_jax.batch import asymptote_grid, pad
from delphi_jax.fit.law import bootstrap_law, resampling_indices
from delphi_jax.formulas import law_loss
from delphi_jax.kernels.bootstrap import bootstrap_laws, counts_from_key
from delphi_jax.results import BootstrapFit, StudyFit
from delphi_jax.status import Status
from tests.delphi import TARGETS
from tests.tolerances import REFERENCE, ROUNDING, assert_scores_match

DRAWS = 60
STATUS = {
    "ok": Status.FITTED,
    "skipped_lt3_unique": Status.TOO_FEW_POINTS,
    "lt3_unique": Status.TOO_FEW_POINTS,
    "fit_failed": Status.NO_GRID_VALUE_FITS,
}


def noisy_optima(seed: int, noise: float = 0.002) -> tuple[np.ndarray, np.ndarray]:
    """5 to 8 optima (compute FLOPs, loss): all of one padded length."""
    rng = np.random.default_rng(seed)
    C = np.geomspace(3e18, 3e20, rng.integers(5, 9))
    return C, (1.4 + 1.6 * (C / 1e20) ** -0.1) * np.exp(noise * rng.normal(size=C.size))


def draw_indices(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, n, size=(DRAWS, n))


def assert_draws(fit: BootstrapFit, draws: list[dict[str, Any]]) -> None:
    """Same draws skipped for the same reason, same numbers in all others."""
    assert [Status(int(status)) for status in fit.draw_status] == [STATUS[draw["status"]] for draw in draws]
    ok = fit.draw_status == Status.FITTED
    fitted = [draw for draw in draws if draw["status"] == "ok"]
    np.testing.assert_array_equal(fit.L_inf[ok], [draw["L_inf"] for draw in fitted])
    for name in ("A", "alpha"):
        np.testing.assert_allclose(getattr(fit, name)[ok], [draw[name] for draw in fitted], rtol=REFERENCE)
    assert_scores_match(fit.score[ok], [draw["score"] for draw in fitted])
    if fitted:
        np.testing.assert_allclose(fit.forecasts[ok], [draw["forecast"] for draw in fitted], rtol=REFERENCE)
    for values in (fit.L_inf, fit.A, fit.alpha, fit.score, fit.forecasts):
        assert np.isnan(values[~ok]).all()


@pytest.fixture(scope="module")
def golden_bootstraps(golden_numbers: dict[str, Any]) -> dict[str, BootstrapFit]:
    """The default bootstrap of the reference's own optima."""
    fits = {}
    for suite in golden_numbers["quantizers"]:
        rows = [row for row in golden_numbers["optima"] if row["quantizer"] == suite]
        compute, loss = ([row[key] for row in rows] for key in ("C_flops", "loss_star"))
        fits[suite] = bootstrap_law(compute, loss, series=suite)
    return fits


def test_every_draw_matches_the_reference(
    golden_bootstraps: dict[str, BootstrapFit], golden_numbers: dict[str, Any]
) -> None:
    for suite, fit in golden_bootstraps.items():
        expected = golden_numbers["bootstrap_n1000_seed0"][suite]
        draws = expected["draws"]
        np.testing.assert_array_equal(resampling_indices(7, 1000, 0), draws["idx"])
        ok = fit.draw_status == Status.FITTED
        assert [STATUS[status] for status in draws["status"]] == fit.draw_status.tolist()
        assert np.flatnonzero(~ok).tolist() == expected["skipped"]
        assert fit.count(Status.FITTED) == expected["n_ok"]
        assert fit.count(Status.TOO_FEW_POINTS) == expected["n_skipped_lt3_unique"]
        assert fit.count(Status.NO_GRID_VALUE_FITS) == expected["n_skipped_fit_failed"]
        assert np.sum(fit.L_inf == 0) == expected["n_L_inf_at_zero"]
        reference = {name: np.array(draws[name], dtype=float)[ok] for name in ("L_inf", "A", "alpha", "sse_log")}
        np.testing.assert_array_equal(fit.L_inf[ok], reference["L_inf"])
        np.testing.assert_allclose(fit.A[ok], reference["A"], rtol=REFERENCE)
        np.testing.assert_allclose(fit.alpha[ok], reference["alpha"], rtol=REFERENCE)
        assert_scores_match(fit.score[ok], reference["sse_log"])
        assert (fit.n_grid, fit.seed, fit.n_draws) == (expected["n_grid"], 0, 1000)


def test_percentiles_match_the_reference(
    golden_bootstraps: dict[str, BootstrapFit], golden_fit: StudyFit, golden_numbers: dict[str, Any]
) -> None:
    for suite, expected in golden_numbers["bootstrap_n1000_seed0"].items():
        for fit in (golden_bootstraps[suite], golden_fit.bootstraps[suite]):
            assert fit.status is Status.FITTED
            assert [float(target) for target in expected["ci_low_med_high"]] == fit.targets.tolist()
            intervals = [[line.low, line.median, line.high] for line in fit.intervals]
            np.testing.assert_allclose(intervals, list(expected["ci_low_med_high"].values()), rtol=REFERENCE)


@pytest.mark.parametrize("seed", range(6))
def test_matches_one_refit_per_draw(seed: int) -> None:
    C, L = noisy_optima(seed, noise=(0.0005, 0.003, 0.05)[seed % 3])
    indices = draw_indices(C.size, seed)
    fit = bootstrap_law(C, L, TARGETS, indices=indices)
    draws = baseline.bootstrap(C, L, TARGETS, indices)
    assert_draws(fit, draws)
    intervals = [[line.low, line.median, line.high] for line in fit.intervals]
    np.testing.assert_allclose(intervals, baseline.percentiles(draws), rtol=REFERENCE)
    assert fit.seed is None


def test_budgets_measured_twice_count_once() -> None:
    C = np.array([1e18, 1e18, 1e19, 1e19, 1e20, 1e21])
    L = np.array([3.0, 3.01, 2.6, 2.59, 2.3, 2.1])
    indices = np.concatenate([draw_indices(6)[:-2], [[0, 1, 2, 3, 0, 0], [4, 1, 0, 2, 3, 1]]])
    fit = bootstrap_law(C, L, indices=indices)
    assert_draws(fit, baseline.bootstrap(C, L, TARGETS, indices))
    assert fit.draw_status[-2:].tolist() == [Status.TOO_FEW_POINTS, Status.FITTED]


def test_draws_that_cannot_be_fitted_are_counted_not_used() -> None:
    """A rise at the end: draws that lean on it have no falling law under any asymptote."""
    C, L = np.geomspace(1e18, 1e21, 5), np.array([2.6, 2.5, 2.4, 2.55, 2.7])
    indices = draw_indices(5)
    fit = bootstrap_law(C, L, indices=indices)
    draws = baseline.bootstrap(C, L, TARGETS, indices)
    assert_draws(fit, draws)
    assert min(fit.count(status) for status in STATUS.values()) > 0
    row = fit.rows()[0]
    assert row["draws"] == DRAWS
    assert row["skipped: no fit"] == fit.count(Status.NO_GRID_VALUE_FITS)
    assert row["skipped: too few points"] == fit.count(Status.TOO_FEW_POINTS)


@pytest.mark.parametrize("seed", range(3))
def test_wild_losses_match_one_refit_per_draw(seed: int) -> None:
    """Losses that rise and fall: the exponent changes sign along the grid, and only positive ones count."""
    rng = np.random.default_rng(seed)
    C, L = np.geomspace(1e18, 1e21, 6), rng.uniform(1, 3, 6)
    indices = draw_indices(6, seed)
    fit = bootstrap_law(C, L, indices=indices)
    assert_draws(fit, baseline.bootstrap(C, L, TARGETS, indices))
    assert 0 < fit.count(Status.FITTED) < DRAWS


def test_a_bootstrap_without_a_single_fit_has_a_status_and_no_numbers() -> None:
    C = np.geomspace(1e18, 1e21, 5)
    for L, status in (
        (np.linspace(2, 3, 5), Status.NO_GRID_VALUE_FITS),
        (np.linspace(2, 3, 5)[:2], Status.TOO_FEW_POINTS),
    ):
        fit = bootstrap_law(C[: L.size], L, indices=draw_indices(L.size))
        assert fit.status is status
        assert fit.count(Status.FITTED) == 0
        assert np.isnan([[line.low, line.median, line.high] for line in fit.intervals]).all()


def test_intervals_are_percentiles_of_the_fitted_draws() -> None:
    C, L = noisy_optima(3, noise=0.05)
    fit = bootstrap_law(C, L, (1e22,), indices=draw_indices(C.size), percentiles=(10, 50, 90))
    fitted = np.sort(fit.forecasts[fit.draw_status == Status.FITTED, 0])
    place = 0.1 * (fitted.size - 1)
    low = fitted[int(place)] + (place % 1) * (fitted[int(place) + 1] - fitted[int(place)])
    assert fit.intervals[0].low == pytest.approx(low, rel=ROUNDING)
    assert fit.intervals[0].median == pytest.approx(np.median(fitted), rel=ROUNDING)


def test_order_of_points_and_of_a_draw_does_not_matter() -> None:
    C, L = noisy_optima(1)
    indices = draw_indices(C.size)
    rng = np.random.default_rng(1)
    order = rng.permutation(C.size)
    shuffled = rng.permuted(np.argsort(order)[indices], axis=1)
    left, right = bootstrap_law(C, L, indices=indices), bootstrap_law(C[order], L[order], indices=shuffled)
    np.testing.assert_array_equal(left.draw_status, right.draw_status)
    np.testing.assert_array_equal(left.L_inf, right.L_inf)
    np.testing.assert_allclose(left.forecasts, right.forecasts, rtol=100 * ROUNDING)


def test_draws_beyond_one_chunk_are_the_same_draws() -> None:
    """More draws than are at hand at once: chunks must not change a draw, nor lose or repeat the last ones."""
    C, L = noisy_optima(2)
    columns, mask = pad([np.log(C), L])
    grid = asymptote_grid(columns[1], 100)
    counts = np.array([np.bincount(row, minlength=mask.shape[1]) for row in draw_indices(C.size)], dtype=float)
    few = bootstrap_laws(*columns, mask[0], counts, grid)
    rows = np.random.default_rng(0).integers(0, DRAWS, 20_001)
    many = bootstrap_laws(*columns, mask[0], counts[rows], grid)
    fitted = np.asarray(few.status)[rows] == Status.FITTED
    np.testing.assert_array_equal(many.status, np.asarray(few.status)[rows])
    np.testing.assert_array_equal(np.asarray(many.L_inf)[fitted], np.asarray(few.L_inf)[rows][fitted])
    np.testing.assert_allclose(np.asarray(many.A)[fitted], np.asarray(few.A)[rows][fitted], rtol=ROUNDING)


def test_a_draw_of_nothing_has_too_few_points() -> None:
    C, L = noisy_optima(2)
    columns, mask = pad([np.log(C), L])
    counts = np.stack([np.zeros(mask.shape[1]), mask[0].astype(float)])
    fits = bootstrap_laws(*columns, mask[0], counts, asymptote_grid(columns[1], 100))
    assert np.asarray(fits.status).tolist() == [Status.TOO_FEW_POINTS, Status.FITTED]


def test_more_draws_than_resamples_are_the_same_draws() -> None:
    """4 points have 35 resamples: 60 draws at once are gathered from all of them, 20 at a time are fitted as drawn."""
    C, L = np.geomspace(1e18, 1e21, 4), np.array([3.0, 2.6, 2.3, 2.2])
    indices = draw_indices(4)
    gathered = bootstrap_law(C, L, indices=indices)
    fitted = [bootstrap_law(C, L, indices=part) for part in np.split(indices, 3)]
    for name in ("draw_status", "L_inf"):
        np.testing.assert_array_equal(getattr(gathered, name), np.concatenate([getattr(fit, name) for fit in fitted]))
    for name in ("A", "alpha", "forecasts"):
        together = np.concatenate([getattr(fit, name) for fit in fitted])
        np.testing.assert_allclose(getattr(gathered, name), together, rtol=ROUNDING)
    assert_draws(gathered, baseline.bootstrap(C, L, TARGETS, indices))


def test_equal_losses_match_one_refit_per_draw() -> None:
    C, L = np.geomspace(1e18, 1e21, 6), np.array([3.0, 2.6, 2.6, 2.3, 2.2, 2.2])
    indices = draw_indices(6)
    assert_draws(bootstrap_law(C, L, indices=indices), baseline.bootstrap(C, L, TARGETS, indices))


def exact_reference(C: np.ndarray, L: np.ndarray, percentiles: tuple[float, ...]) -> tuple[list[list[float]], Fraction]:
    """Percentiles [Q, 3] and skipped probability from one refit per distinct resample, weighted by exact fractions."""
    n = C.size
    combinations = list(itertools.combinations_with_replacement(range(n), n))
    draws = baseline.bootstrap(C, L, TARGETS, np.array(combinations))
    ways = [math.factorial(n) // math.prod(map(math.factorial, Counter(draw).values())) for draw in combinations]
    fitted = [(draw["forecast"], way) for draw, way in zip(draws, ways, strict=True) if draw["status"] == "ok"]
    total = sum(way for _, way in fitted)
    bands = []
    for q in range(len(TARGETS)):
        values = sorted((float(forecast[q]), way) for forecast, way in fitted)
        cumulative = list(itertools.accumulate(way for _, way in values))
        reached = [next(i for i, c in enumerate(cumulative) if c >= Fraction(p) / 100 * total) for p in percentiles]
        bands.append([values[i][0] for i in reached])
    return bands, 1 - Fraction(total, n**n)


@pytest.mark.parametrize("seed", range(3))
def test_the_exact_bootstrap_is_every_resample_with_its_probability(seed: int) -> None:
    """Also with a budget measured twice, and with losses of which no law can be made in some resamples."""
    rng = np.random.default_rng(seed)
    C = np.array([1e18, 1e19, 1e19, 1e20, 1e21]) if seed == 1 else np.geomspace(1e18, 1e21, 5)
    L = np.array([2.6, 2.5, 2.4, 2.55, 2.7]) if seed == 2 else law_loss(C, 1.4, 300.0, 0.13) + rng.normal(0, 0.01, 5)
    percentiles = (2.5, 50.0, 97.5)
    fit = bootstrap_law(C, L, method="exact", percentiles=percentiles)
    bands, skipped = exact_reference(C, L, percentiles)
    np.testing.assert_allclose([[b.low, b.median, b.high] for b in fit.intervals], bands, rtol=REFERENCE)
    assert fit.skipped_probability == pytest.approx(float(skipped), rel=ROUNDING)
    assert fit.rows()[0]["skipped (%)"] == pytest.approx(100 * float(skipped), rel=ROUNDING)
    assert (fit.n_draws, fit.method, fit.seed) == (126, "exact", None)
    assert np.sum(fit.weights) == pytest.approx(1, rel=ROUNDING)


@pytest.mark.parametrize("seed", range(4))
def test_monte_carlo_converges_to_the_exact_bootstrap(seed: int) -> None:
    """Every Monte-Carlo percentile stands in the exact distribution where the Dvoretzky-Kiefer-Wolfowitz inequality
    (Massart 1990) puts it in all but one of 1e9 runs; interpolation moves it by one draw at most."""
    C, L = noisy_optima(seed, noise=0.01)
    exact = bootstrap_law(C, L, method="exact")
    drawn = (
        bootstrap_law(C, L, draws=100_000, key=jax.random.key(seed))
        if seed % 2
        else bootstrap_law(C, L, draws=100_000, seed=seed)
    )
    n = drawn.count(Status.FITTED)
    off = np.sqrt(np.log(2e9) / (2 * n)) + 1 / n
    fitted = exact.draw_status == Status.FITTED
    weights = exact.weights[fitted] / np.sum(exact.weights[fitted])
    for q, interval in enumerate(drawn.intervals):
        forecasts = exact.forecasts[fitted, q]
        for percentile, value in zip(drawn.percentiles, (interval.low, interval.median, interval.high), strict=True):
            assert np.sum(weights[forecasts < value * (1 - ROUNDING)]) <= percentile / 100 + off
            assert np.sum(weights[forecasts <= value * (1 + ROUNDING)]) >= percentile / 100 - off
    spread = np.sqrt(exact.skipped_probability * (1 - exact.skipped_probability) / drawn.n_draws)
    assert abs(drawn.skipped_probability - exact.skipped_probability) < 6 * spread + 1 / drawn.n_draws


def test_the_exact_bootstrap_has_no_order() -> None:
    C, L = noisy_optima(1)
    order = np.random.default_rng(0).permutation(C.size)
    left, right = (bootstrap_law(C[way], L[way], method="exact") for way in (slice(None), order))
    for one, other in zip(left.intervals, right.intervals, strict=True):
        np.testing.assert_allclose(
            [one.low, one.median, one.high], [other.low, other.median, other.high], rtol=100 * ROUNDING
        )
    assert left.skipped_probability == pytest.approx(right.skipped_probability, rel=ROUNDING)


@pytest.mark.parametrize(("n", "resamples"), [(1, 1), (2, 3), (3, 10)])
def test_the_exact_bootstrap_of_few_points(n: int, resamples: int) -> None:
    """Three points have one resample with three distinct budgets, 3!/3**3 of the probability: a law, no interval."""
    C, L = np.geomspace(1e18, 1e20, 3)[:n], np.array([3.0, 2.5, 2.2])[:n]
    fit = bootstrap_law(C, L, method="exact")
    assert fit.n_draws == resamples
    assert fit.status is Status.TOO_FEW_POINTS
    assert np.isnan([[band.low, band.median, band.high] for band in fit.intervals]).all()
    assert fit.skipped_probability == pytest.approx(1 if n < 3 else 1 - 6 / 27, rel=ROUNDING)
    if n == 3:
        expected = baseline.bootstrap(C, L, TARGETS, np.array([[0, 1, 2]]))[0]["forecast"]
        (forecast,) = fit.forecasts[fit.draw_status == Status.FITTED]
        np.testing.assert_allclose(forecast, expected, rtol=REFERENCE)


@pytest.mark.parametrize("times", [1, 2])
def test_draws_of_one_and_the_same_law_are_no_interval(times: int) -> None:
    """As drawn (8 draws) and gathered from the 10 resamples of three points (16 draws)."""
    indices = np.array([*itertools.permutations(range(3)), [0, 0, 1], [2, 2, 2]] * times)
    fit = bootstrap_law(np.geomspace(1e18, 1e20, 3), [3.0, 2.5, 2.2], indices=indices)
    assert fit.count(Status.FITTED) == 6 * times
    assert fit.status is Status.TOO_FEW_POINTS
    assert np.isnan([[band.low, band.median, band.high] for band in fit.intervals]).all()
    assert "all fitted draws give one and the same law" in fit.notices()[0]


@pytest.mark.parametrize(("percentiles", "least"), [((2.5, 50, 97.5), 40), ((25, 50, 75), 4), ((10, 50, 99), 100)])
def test_too_few_draws_are_no_interval(percentiles: tuple[float, float, float], least: int) -> None:
    """Each tail of an interval holds one draw on average: of 40, a tail of 2.5 % does."""
    C, L = noisy_optima(0)
    # All but the first optimum, one of them twice: laws that differ. Then one such draw less, and some without a law.
    indices = np.array([[*range(1, C.size), 1 + i % (C.size - 1)] for i in range(least)])
    fewer = np.concatenate([indices[1:], np.zeros((5, C.size), dtype=int)])
    enough, few = (bootstrap_law(C, L, TARGETS, indices=each, percentiles=percentiles) for each in (indices, fewer))
    assert (enough.count(Status.FITTED), few.count(Status.FITTED)) == (least, least - 1)
    assert (enough.status, few.status) == (Status.FITTED, Status.BEYOND_DRAWS)
    assert all(band.low < band.high for band in enough.intervals)
    assert np.isnan([[band.low, band.median, band.high] for band in few.intervals]).all()
    assert few.notices()[0].startswith("bootstrap of series: beyond the draws; ")
    # The extremes of the draws are there, however few these are.
    ends = bootstrap_law(C, L, TARGETS, indices=fewer, percentiles=(0, 50, 100)).intervals
    assert [(band.low, band.high) for band in ends] == [
        (column.min(), column.max()) for column in few.forecasts[few.draw_status == Status.FITTED].T
    ]


def test_the_exact_bootstrap_needs_no_number_of_draws() -> None:
    """Of 4 points there are 35 resamples."""
    fit = bootstrap_law(np.geomspace(1e18, 1e21, 4), [3.0, 2.6, 2.3, 2.2], [1e22], method="exact")
    assert fit.count(Status.FITTED) < 40 and fit.status is Status.FITTED
    assert fit.intervals[0].low < fit.intervals[0].high


def test_many_skipped_draws_are_said() -> None:
    """Of 4 points, by counting all ordered resamples with fewer than three budgets."""
    C = np.geomspace(1e18, 1e21, 4)
    (said,) = bootstrap_law(C, [3.0, 2.6, 2.3, 2.2], method="exact", series="X").notices()
    few = sum(len(set(draw)) < 3 for draw in itertools.product(range(4), repeat=4)) / 4**4
    assert said.startswith(f"bootstrap of X: {100 * few:.3g} % of the draws were skipped")
    assert bootstrap_law(*noisy_optima(0), method="exact").notices() == []


@pytest.mark.parametrize("loss", [3.0, 2.7, 3.1415])
def test_losses_that_are_all_the_same_have_no_law(loss: float) -> None:
    fit = bootstrap_law(np.geomspace(1e18, 1e20, 4), np.full(4, loss))
    assert fit.status is Status.NO_GRID_VALUE_FITS
    assert fit.count(Status.FITTED) == 0 < fit.count(Status.NO_GRID_VALUE_FITS)


def test_draws_of_equal_losses_have_no_law() -> None:
    """Points 2 to 4 are flat, whatever their counts: as one refit per draw finds."""
    C, L = np.array([1e18, 3e18, 1e19, 3e19, 1e20, 1e21]), np.array([3.9, 3.3, 3.0, 3.0, 3.0, 3.05])
    flat = [[2, 3, 4, 2, 3, 4], [2, 2, 3, 3, 4, 4], [3, 4, 2, 2, 2, 2], [2, 3, 4, 4, 4, 4]]
    fit = bootstrap_law(C, L, indices=np.array([*flat, [0, 1, 2, 3, 4, 5]]))
    assert fit.draw_status.tolist() == [Status.NO_GRID_VALUE_FITS] * 4 + [Status.FITTED]


def test_an_exact_bootstrap_beyond_memory_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    C = np.geomspace(1e18, 1e21, 40)
    with pytest.raises(ValueError, match=r"of 40 points has 5\.38e\+22 resamples .* GB: at most \d+ points fit; use "):
        bootstrap_law(C, 1.4 + 300 * C**-0.13, method="exact")
    # 8 points have 6435 resamples, of a few hundred bytes each, 7 points a quarter of that.
    monkeypatch.setattr("delphi_jax.fit.law.free_memory", lambda: 10**6)
    with pytest.raises(ValueError, match=r"the exact bootstrap of 8 points .* at most 7 points fit"):
        bootstrap_law(C[:8], 1.4 + 300 * C[:8] ** -0.13, method="exact")
    assert bootstrap_law(C[:7], 1.4 + 300 * C[:7] ** -0.13, method="exact").status is Status.FITTED


@pytest.mark.parametrize("fill", [np.nan, 0.0, np.inf])
def test_padding_is_invisible(fill: float) -> None:
    C, L = noisy_optima(4)
    n, width = C.size, 16
    tight = bootstrap_law(C, L, indices=draw_indices(n))
    columns = np.full((2, width), fill)
    columns[:, :n] = np.log(C), L
    counts = np.array([np.bincount(row, minlength=width) for row in draw_indices(n)], dtype=float)
    counts[:, n:] = fill
    grid = asymptote_grid(np.where(np.arange(width) < n, columns[1], 0.0), 100)
    wide = bootstrap_laws(*columns, np.arange(width) < n, counts, grid)
    ok = tight.draw_status == Status.FITTED
    np.testing.assert_array_equal(wide.status, tight.draw_status)
    np.testing.assert_array_equal(np.asarray(wide.L_inf)[ok], tight.L_inf[ok])
    np.testing.assert_allclose(np.asarray(wide.A)[ok], tight.A[ok], rtol=100 * ROUNDING)


def test_gradient_of_the_forecast_is_finite_and_blind_to_padding() -> None:
    """At the chosen asymptotes, alpha is linear in log(L - L_inf): its derivative has a closed form."""
    C, L = noisy_optima(4)
    n, width = C.size, 8
    mask = np.arange(width) < n
    columns = np.full((2, width), np.nan)
    columns[:, :n] = np.log(C), L
    counts = np.zeros((1, width))
    counts[0, : n - 1] = 1.0
    counts[0, 0] = 3.0
    grid = asymptote_grid(np.where(mask, columns[1], 0.0), 100)
    L_inf = float(bootstrap_laws(*columns, mask, counts, grid).L_inf[0])

    def exponent(loss: jax.Array) -> jax.Array:
        return bootstrap_laws.__wrapped__(columns[0], loss, mask, counts, jnp.asarray(grid)).alpha[0]

    with jax.enable_x64(True):
        gradient = np.asarray(jax.jit(jax.grad(exponent))(columns[1]))
    weight = counts[0, :n]
    dx = np.log(C) - np.average(np.log(C), weights=weight)
    np.testing.assert_allclose(
        gradient[:n], -weight * dx / (np.sum(weight * dx**2) * (L - L_inf)), rtol=1e-8, atol=1e-15
    )
    np.testing.assert_array_equal(gradient[n:], 0.0)


def test_draws_from_a_key_are_fair_and_reproducible() -> None:
    key = jax.random.key(0)
    counts = np.asarray(counts_from_key(key, n_draws=4000, n_points=7, n_padded=8))
    np.testing.assert_array_equal(counts.sum(axis=1), 7)
    np.testing.assert_array_equal(counts[:, 7], 0)
    # Each count is binomial(7, 1/7): mean 1, variance 6/7; 5 standard errors on 4000 draws.
    np.testing.assert_allclose(counts[:, :7].mean(axis=0), 1, atol=5 * np.sqrt(6 / 7 / 4000))
    np.testing.assert_allclose(counts[:, :7].var(axis=0), 6 / 7, atol=0.1)
    C, L = noisy_optima(0)
    first, again, other = (bootstrap_law(C, L, draws=DRAWS, key=jax.random.key(seed)) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first.forecasts, again.forecasts)
    assert not np.array_equal(first.forecasts, other.forecasts, equal_nan=True)
    assert first.seed is None


def test_a_seed_gives_the_stream_of_one_draw_after_the_other() -> None:
    C, L = noisy_optima(0)
    indices = baseline.bootstrap_indices(C.size, DRAWS, 5)
    left, right = bootstrap_law(C, L, draws=DRAWS, seed=5), bootstrap_law(C, L, indices=indices)
    np.testing.assert_array_equal(left.forecasts, right.forecasts)
    assert left.seed == 5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"indices": [[0, 1, 5]]}, r"integers in \[0, 3\)"),
        ({"indices": [[0, 1, -1]]}, r"integers in \[0, 3\)"),
        ({"indices": [[0.0, 1.0, 2.0]]}, r"integers in \[0, 3\)"),
        ({"indices": [0, 1, 2]}, r"shape \[draws, 3\], got shape \(3,\)"),
        ({"indices": [[0, 1]]}, r"shape \[draws, 3\], got shape \(1, 2\)"),
        ({"indices": np.empty((0, 3), dtype=int)}, "at least one draw"),
        ({"draws": 0}, "at least one draw"),
        ({"draws": 0, "key": jax.random.key(0)}, "at least one draw"),
        ({"n_grid": 1}, "n_grid must be at least 2"),
        ({"method": "jackknife"}, "method must be 'monte-carlo' or 'exact', got 'jackknife'"),
        ({"method": "exact", "draws": 1000}, "takes every resample once, so no draws"),
        ({"method": "exact", "seed": 0, "indices": [[0, 1, 2]]}, "so no seed, indices"),
        ({"method": "exact", "key": jax.random.key(0)}, "so no key"),
    ],
)
def test_refuses_wrong_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        bootstrap_law([1e18, 1e19, 1e20], [3.0, 2.5, 2.2], **arguments)


def test_refuses_a_series_without_points() -> None:
    with pytest.raises(ValueError, match="no points to resample"):
        bootstrap_law([], [])
