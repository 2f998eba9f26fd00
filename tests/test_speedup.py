"""Effective speedup: closed-form identities, brute-force bootstraps, and no number where there is none."""

from __future__ import annotations

import json
import shutil
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from scipy.optimize import brentq

from benchmarks import baseline
from delphi_jax.answers import draw_answer
from delphi_jax.cli import main
from delphi_jax.export import document_json, to_plotly
from delphi_jax.fit.law import fit_laws
from delphi_jax.fit.speedup import effective_speedup
from delphi_jax.kernels.precision import run_kernels_with
from delphi_jax.plots.drawers import NothingToDraw
from delphi_jax.plots.speedup import build_effective_speedup, build_effective_speedup_mobile
from delphi_jax.results.speedup import SpeedupFit, SpeedupLine
from delphi_jax.status import Status
from tests.delphi import ADAMC_SUITE, ADAMH_SUITE
from tests.tolerances import REFERENCE, TRUTH

DATA = Path(__file__).resolve().parents[1] / "data"
BUDGETS = np.array([3e18, 9e18, 2e19, 3e19, 9e19, 2e20, 3e20])
FEW = BUDGETS[::2]
L_INF, A, ALPHA = 1.4, 90.0, 0.09
N_GRID = 40
LEVEL = 0.9
Points = tuple[np.ndarray, np.ndarray]


def exact(ratio: float = 1.0, budgets: np.ndarray = BUDGETS, L_inf: float = L_INF, alpha: float = ALPHA) -> Points:
    return budgets, L_inf + ratio * A * budgets**-alpha


def noisy(seed: int, ratio: float = 1.0, budgets: np.ndarray = BUDGETS, noise: float = 0.004) -> Points:
    compute, loss = exact(ratio, budgets)
    return compute, loss + noise * np.random.default_rng(seed).normal(size=len(compute))


def compare(first: Points, second: Points, **settings: object) -> SpeedupFit:
    settings = {"draws": 300, "n_grid": N_GRID, "level": LEVEL} | settings
    return effective_speedup({"x": first, "y": second}, **settings)


def values(lines: tuple[SpeedupLine, ...]) -> np.ndarray:
    return np.array([line.value for line in lines])


# Closed-form identities


@pytest.mark.parametrize("ratio", [1.02, 1.3, 0.9])
def test_exact_laws_have_one_speedup_at_every_budget(ratio: float) -> None:
    fit = compare(exact(), exact(ratio), L_inf=L_INF, budgets=[3e18, 1e21, 1e25])
    expected = ratio ** (1 / ALPHA)
    np.testing.assert_allclose(values(fit.matched.lines), expected, rtol=TRUTH)
    np.testing.assert_allclose(values(fit.multiplier.lines), expected, rtol=TRUTH)
    assert fit.matched.alpha == pytest.approx(ALPHA, rel=TRUTH)
    assert len(fit.matched.lines) == len(BUDGETS) + 1
    for line in (fit.matched.pooled, *fit.multiplier.lines):
        assert [line.low, line.high] == pytest.approx([expected, expected], rel=TRUTH)
        assert (line.probability > 0.9) == (ratio > 1)
    assert fit.notices() == []


def test_the_other_way_round_is_the_inverse() -> None:
    first, second = noisy(1), noisy(2, 1.05)
    there, back = compare(first, second, L_inf=1.3), compare(second, first, L_inf=1.3)
    np.testing.assert_allclose(values(there.matched.lines) * values(back.matched.lines), 1, rtol=REFERENCE)
    for line, other in zip(there.matched.lines, back.matched.lines, strict=True):
        assert line.low * other.high == pytest.approx(1, rel=1e-6)
        assert line.probability + other.probability == pytest.approx(1, rel=1e-6)
    # The multiplier's inverse holds along the curve: from C to m*C and back.
    budgets = [1e19, 1e21]
    forward = compare(first, second, budgets=budgets).multiplier
    matching = [budget * line.value for budget, line in zip(budgets, forward.lines, strict=True)]
    backward = compare(second, first, budgets=matching).multiplier
    np.testing.assert_allclose(values(forward.lines) * values(backward.lines), 1, rtol=TRUTH)


def test_speedups_of_exact_laws_multiply() -> None:
    suites = exact(), exact(1.04), exact(1.1)
    settings = {"L_inf": L_INF, "budgets": [1e20, 1e22]}
    xy, yz, xz = (compare(suites[i], suites[j], **settings) for i, j in ((0, 1), (1, 2), (0, 2)))
    for part in ("matched", "multiplier"):
        one, two, both = (values(getattr(fit, part).lines) for fit in (xy, yz, xz))
        np.testing.assert_allclose(one * two, both, rtol=TRUTH)


def test_the_multiplier_reaches_the_loss() -> None:
    first, second = noisy(1), noisy(2, 1.05)
    for settings in ({}, {"L_inf": 1.2}):
        multiplier = compare(first, second, **settings).multiplier
        law, other = multiplier.laws
        for line in (*multiplier.lines, *multiplier.curve):
            assert float(other.loss_at(line.value * line.budget)) == pytest.approx(
                float(law.loss_at(line.budget)), rel=REFERENCE
            )


@pytest.mark.parametrize("L_inf", [None, 1.2])
def test_identical_suites_are_equally_fast_exactly(L_inf: float | None) -> None:
    points = noisy(3)
    fit = compare(points, points, L_inf=L_inf)
    for line in fit.matched.lines:
        assert (line.value, line.low, line.high, line.probability) == (1.0, 1.0, 1.0, 0.0)
    assert set(values(fit.multiplier.lines)) == {1.0}
    for line in fit.multiplier.lines:
        assert line.low < 1 < line.high


def test_laws_too_steep_for_their_amplitude_have_a_multiplier() -> None:
    """A = 2e18**20 cannot be written down; the multiplier of exact laws can."""
    compute = 1e18 * np.array([1.0, 1.01, 1.03, 1.04, 1.06])
    first, second = ((compute, 1.5 + np.exp(-20 * np.log(compute / scale))) for scale in (6e17, 6.6e17))
    for settings in ({"L_inf": 1.5}, {}):
        multiplier = compare(first, second, budgets=[1.1e18], **settings).multiplier
        assert {law.A for law in multiplier.laws} == {np.inf}
        (line,) = multiplier.lines
        assert (line.value, line.low, line.high) == pytest.approx((1.1, 1.1, 1.1), rel=1e-7)


def test_free_laws_of_exact_series_have_the_exact_multiplier() -> None:
    """No asymptote of a grid is the laws' own."""
    multiplier = compare(exact(), exact(1.2), budgets=[1e20, 1e23]).multiplier
    assert {law.method for law in multiplier.laws} == {"optimum"}
    truth = 1.2 ** (1 / ALPHA)
    for line in multiplier.lines:
        assert (line.value, line.low, line.high) == pytest.approx((truth,) * 3, rel=1e-5)


@pytest.mark.parametrize(("asked", "end"), [([1e12], 1e12), ([3e10], 4e10)])
def test_the_curve_ends_with_the_budgets_of_its_own_study(asked: list[float], end: float) -> None:
    small = BUDGETS / BUDGETS[0] * 4e8
    drawn = [line.budget for line in compare(exact(budgets=small), exact(1.2, small), budgets=asked).multiplier.curve]
    assert (drawn[0], drawn[-1]) == pytest.approx((4e8, end), rel=1e-12)
    assert np.diff(np.log(drawn)) == pytest.approx(np.log(end / 4e8) / (len(drawn) - 1), rel=1e-9)


# The estimates, by other means


def test_the_shared_law_is_that_of_the_twin() -> None:
    first, second = noisy(4), noisy(5, 1.06)
    matched = compare(first, second).matched
    L_inf, _, laws = _twin_shared(first, second, N_GRID)
    assert {law.L_inf for law in matched.laws} == {L_inf}
    assert [law.alpha for law in matched.laws] == pytest.approx(laws, rel=REFERENCE)
    # One slope and two heights, by least squares.
    n = len(BUDGETS)
    design = np.zeros((2 * n, 3))
    design[:, 0] = np.tile(-np.log(BUDGETS), 2)
    design[:n, 1] = design[n:, 2] = 1
    alpha, *heights = np.linalg.lstsq(design, np.log(np.concatenate([first[1], second[1]]) - L_inf), rcond=None)[0]
    assert matched.alpha == pytest.approx(alpha, rel=REFERENCE)
    assert matched.pooled.value == pytest.approx(np.exp((heights[1] - heights[0]) / alpha), rel=REFERENCE)
    each = ((second[1] - L_inf) / (first[1] - L_inf)) ** (1 / alpha)
    np.testing.assert_allclose(values(matched.lines)[:-1], each, rtol=REFERENCE)


def _twin_shared(first: Points, second: Points, n_grid: int) -> tuple[float, float, list[float]] | None:
    """(L_inf, common exponent, both exponents) of two series with one asymptote, by the slow twin; None without."""
    shared = baseline.fit_shared([first, second], n_grid=n_grid)
    if shared is None:
        return None
    exponents = [fit["alpha"] for fit in shared["fits"]]
    return shared["L_inf"], float(np.mean(exponents)), exponents


def _every_resample(first: Points, second: Points, L_inf: float | None) -> dict[str, np.ndarray]:
    """L_inf, alpha and pooled log ratio of each of the n**n resamples of matched budgets that has a law."""
    found = []
    n = len(first[0])
    for chosen in product(range(n), repeat=n):
        if len(set(chosen)) < (3 if L_inf is None else 2):
            continue
        chosen = list(chosen)
        drawn = [(compute[chosen], loss[chosen]) for compute, loss in (first, second)]
        if L_inf is None:
            shared = _twin_shared(*drawn, N_GRID)
            if shared is None:
                continue
            asymptote, alpha, _ = shared
        else:
            asymptote = L_inf
            alpha = np.mean([baseline.fit_pinned(*points, L_inf)["alpha"] for points in drawn])
        found.append((asymptote, alpha, np.mean(np.log((drawn[1][1] - asymptote) / (drawn[0][1] - asymptote)))))
    return dict(zip(("L_inf", "alpha", "log_ratio"), np.array(found).T, strict=True))


@pytest.mark.parametrize(("L_inf", "level"), [(None, LEVEL), (1.2, LEVEL), (1.2, 0.5)])
def test_matched_intervals_by_brute_force(L_inf: float | None, level: float) -> None:
    """At the level of 0.9 both ends are the outermost draws, at 0.5 they are not."""
    first, second = noisy(6, budgets=FEW), noisy(7, budgets=FEW)
    matched = compare(first, second, L_inf=L_inf, level=level).matched
    shares = (1 - level) / 2, (1 + level) / 2
    draws = _every_resample(first, second, L_inf)
    n = len(FEW)
    assert (matched.method, matched.draws, matched.seed) == ("exact", 35, None)
    assert matched.skipped_probability == pytest.approx(1 - len(draws["alpha"]) / n**n, rel=REFERENCE)

    logs = draws["log_ratio"] / draws["alpha"]
    ends = stats.norm.cdf(np.sqrt(n / (n - 1)) * stats.t.ppf(shares, n - 1))
    low, high = np.exp(np.quantile(logs, ends, method="inverted_cdf"))
    assert (matched.pooled.low, matched.pooled.high) == pytest.approx((low, high), rel=1e-7)
    share = stats.norm.ppf(np.mean(logs > 0))
    assert np.isfinite(share)  # else the draws agree, which has a test of its own
    assert matched.pooled.probability == pytest.approx(stats.t.cdf(share * np.sqrt((n - 1) / n), n - 1), rel=1e-7)

    point = _twin_shared(first, second, N_GRID)[0] if L_inf is None else L_inf
    spread = np.std(np.log((second[1] - point) / (first[1] - point)), ddof=1)
    for k, line in enumerate(matched.lines[:-1]):
        # All drawn asymptotes lie below both losses here.
        centre = np.log((second[1][k] - draws["L_inf"]) / (first[1][k] - draws["L_inf"]))

        def below(x: float, centre: np.ndarray = centre) -> float:
            return float(np.mean(stats.t.cdf((x * draws["alpha"] - centre) / spread, n - 1)))

        ends = [brentq(lambda x, share=share: below(x) - share, -20, 20, xtol=1e-12) for share in shares]
        assert (line.low, line.high) == pytest.approx(tuple(np.exp(ends)), rel=1e-7)
        assert line.probability == pytest.approx(1 - below(0.0), rel=1e-7)


def test_suites_that_cross_and_rise() -> None:
    """The grid of a draw ends at the smallest loss of either suite, and some draws have no law."""
    first, second = (FEW, np.array([3.66, 3.28, 3.19, 3.13])), (FEW, np.array([3.54, 3.1, 2.95, 3.16]))
    fit = compare(first, second).matched
    draws = _every_resample(first, second, None)
    lost = 1 - len(draws["alpha"]) / 256
    few = 1 - sum(len(set(chosen)) > 2 for chosen in product(range(4), repeat=4)) / 256
    assert fit.skipped[Status.TOO_FEW_POINTS] == pytest.approx(few, rel=REFERENCE)
    assert 0 < fit.skipped[Status.NO_GRID_VALUE_FITS] == pytest.approx(lost - few, rel=REFERENCE)
    ends = stats.norm.cdf(np.sqrt(4 / 3) * stats.t.ppf([0.05, 0.95], 3))
    low, high = np.exp(np.quantile(draws["log_ratio"] / draws["alpha"], ends, method="inverted_cdf"))
    assert (fit.pooled.low, fit.pooled.high) == pytest.approx((low, high), rel=1e-7)
    assert any("of the draws were skipped" in sentence for sentence in fit.notices())


def test_draws_that_all_agree_are_not_certain() -> None:
    first, second = exact(budgets=FEW), noisy(7, 1.5, budgets=FEW)
    n, lightest = len(FEW), 4 / 256
    # Of four budgets the lightest resample with a law takes one of them three times.
    skipped = 4 / 256
    share = stats.norm.ppf(1 - lightest / (1 - skipped) / 2)
    expected = stats.t.cdf(share * np.sqrt((n - 1) / n), n - 1)
    there, back = compare(first, second, L_inf=L_INF), compare(second, first, L_inf=L_INF)
    assert there.matched.pooled.low > 1 > back.matched.pooled.high
    assert there.matched.pooled.probability == pytest.approx(expected, rel=1e-7)
    assert back.matched.pooled.probability == pytest.approx(1 - expected, rel=1e-7)


def test_drawn_resamples_agree_with_all_of_them() -> None:
    first, second = noisy(8), noisy(9, 1.02)
    all_of_them = compare(first, second, L_inf=1.3, draws=1716).matched.pooled
    drawn = compare(first, second, L_inf=1.3, draws=1715)
    assert (drawn.matched.method, drawn.matched.draws, drawn.matched.seed) == ("monte-carlo", 1715, 0)
    width = all_of_them.high - all_of_them.low
    # Standard error of a percentile of 1715 draws: a few percent of the width.
    assert drawn.matched.pooled.low == pytest.approx(all_of_them.low, abs=0.1 * width)
    assert drawn.matched.pooled.high == pytest.approx(all_of_them.high, abs=0.1 * width)
    assert drawn.matched.pooled.value == all_of_them.value


def test_the_multiplier_by_every_pair_of_resamples() -> None:
    first, second = noisy(10, budgets=FEW), noisy(11, 1.03, budgets=FEW)
    draws = 20_000
    fit = compare(first, second, L_inf=1.2, budgets=[1e20, 1e22], draws=draws).multiplier
    laws = []
    for compute, loss in (first, second):
        found = []
        for chosen in product(range(4), repeat=4):
            if len(set(chosen)) > 1:
                law = baseline.fit_pinned(compute[list(chosen)], loss[list(chosen)], 1.2)
                found.append((law["A"], law["alpha"]))
        laws.append(np.array(found))
    # A draw is skipped where either suite has a single budget.
    assert fit.skipped_probability == pytest.approx(1 - (252 / 256) ** 2, abs=4 * np.sqrt(0.03 / draws))
    for line in fit.lines:
        (A1, a1), (A2, a2) = laws[0].T, laws[1].T
        target = A1 * line.budget**-a1
        needed = (A2 / target[:, None]) ** (1 / a2) / line.budget
        for end, share in ((line.low, 0.05), (line.high, 0.95)):
            assert np.mean(needed <= end) == pytest.approx(share, abs=4 * np.sqrt(share * (1 - share) / draws))
        p = np.mean(needed > 1)
        assert line.probability == pytest.approx(p, abs=4 * np.sqrt(p * (1 - p) / draws) + 1 / draws)


def test_intervals_hold_the_truth_at_the_stated_rate() -> None:
    truth, studies = 1.02 ** (1 / ALPHA), 150
    held = []
    for seed in range(studies):
        fit = compare(
            noisy(2 * seed, budgets=BUDGETS[:5]),
            noisy(2 * seed + 1, 1.02, budgets=BUDGETS[:5]),
            L_inf=L_INF,
            budgets=[1e20],
        )
        lines = (fit.matched.pooled, fit.matched.lines[2], fit.multiplier.lines[0])
        held.append([line.low <= truth <= line.high for line in lines])
    # Four standard errors below the level of 0.9; a plain percentile of five matched budgets holds 0.75.
    assert np.all(np.mean(held, axis=0) > LEVEL - 4 * np.sqrt(LEVEL * (1 - LEVEL) / studies))


def test_too_few_draws_tell_no_interval() -> None:
    points = noisy(8), noisy(9, 1.02)
    few, enough = (compare(*points, L_inf=1.3, draws=draws) for draws in (19, 20))
    assert {line.interval_status for line in few.matched.lines + few.multiplier.lines} == {Status.BEYOND_DRAWS}
    assert np.isnan([(line.low, line.high) for line in few.matched.lines + few.multiplier.lines]).all()
    assert all(np.isfinite(line.value) for line in few.matched.lines)
    assert all("interval: beyond the draws" in row["status"] for row in few.rows())
    assert {line.interval_status for line in enough.matched.lines + enough.multiplier.lines} == {Status.FITTED}


def test_order_and_seed() -> None:
    first, second = noisy(12), noisy(13, 1.04)
    order = np.random.default_rng(0).permutation(len(BUDGETS))
    fit = compare(first, second)
    again = compare(tuple(column[order] for column in first), tuple(column[order[::-1]] for column in second))
    assert again.matched.lines == fit.matched.lines
    assert again.multiplier.lines == fit.multiplier.lines
    other = compare(first, second, seed=1)
    assert values(other.multiplier.lines).tolist() == values(fit.multiplier.lines).tolist()
    assert [line.low for line in other.multiplier.lines] != [line.low for line in fit.multiplier.lines]


# What cannot be told


def test_a_loss_that_no_budget_reaches_has_no_number() -> None:
    first = exact(L_inf=1.3)
    second = exact(0.3, L_inf=2.4)
    fit = compare(first, second, n_grid=400, budgets=[1e20, 1e27]).multiplier
    near, far = fit.lines
    law, other = fit.laws
    assert float(law.loss_at(1e27)) < other.L_inf
    assert near.status is Status.FITTED and np.isfinite(near.value)
    assert far.status is Status.NOT_REACHED
    assert np.isnan(far.value)
    assert far.unreached > 0.9 and far.probability > 0.9
    assert far.high == np.inf and far.infinite[1]
    assert far.interval_status is Status.NOT_REACHED
    assert any("not reachable at any budget of y is the loss at 1e+27 FLOPs" in sentence for sentence in fit.notices())
    row = fit.rows()[1]
    assert row["status"] == "not reached" and np.isnan(row["speedup"])
    numbers = json.loads(fit.to_json())["lines"][1]
    assert numbers["value"] is None and numbers["high"] is None and numbers["infinite"][1] is True


def test_draws_that_do_not_reach_the_loss_push_the_interval_up() -> None:
    first, second = noisy(16, noise=0.01), noisy(17, 1.05, noise=0.01)
    fit = compare(first, second, budgets=[1e20, 1e24]).multiplier
    near, far = fit.lines
    assert near.unreached == 0 and near.infinite == (False, False)
    assert np.isfinite(far.value) and 0.05 < far.unreached < 0.9
    assert far.infinite == (False, True) and far.high == np.inf and np.isfinite(far.low)
    assert far.probability > far.unreached
    assert any("of the draws the loss is not reachable at any budget of y" in s for s in fit.notices())
    assert "interval: not reached" in fit.rows()[1]["status"]


def test_suites_without_a_shared_budget() -> None:
    fit = compare(noisy(1), noisy(2, budgets=2 * BUDGETS))
    assert fit.matched.status is Status.NO_SHARED_BUDGET
    assert fit.matched.unmatched == (7, 7)
    (pooled,) = fit.matched.lines
    assert np.isnan([pooled.value, pooled.low, pooled.high, pooled.probability]).all()
    assert any("no shared budget" in sentence for sentence in fit.notices())
    assert np.isfinite(values(fit.multiplier.lines)).all()
    to_plotly(build_effective_speedup(fit))


def test_only_shared_budgets_take_part() -> None:
    first, second = noisy(1), noisy(2, 1.03)
    alone = compare(tuple(c[1:5] for c in first), tuple(c[1:5] for c in second)).matched
    # Nominal budgets that rounding has touched are the same.
    wider = compare(first, (second[0][1:5] * (1 + 1e-12), second[1][1:5])).matched
    assert wider.unmatched == (3, 0)
    np.testing.assert_allclose(values(wider.lines), values(alone.lines), rtol=REFERENCE)
    assert any("left out of the matched ones: 3 of x and 0 of y" in sentence for sentence in wider.notices())


def test_a_pinned_asymptote_above_a_loss() -> None:
    first, second = noisy(1), noisy(2, 1.03)
    fit = compare(first, second, L_inf=float(first[1].min()))
    for part in (fit.matched, fit.multiplier):
        assert part.status is Status.ASYMPTOTE_ABOVE_LOSS
        assert np.isnan(values(part.lines)).all()
        assert {row["status"] for row in part.rows()} == {Status.ASYMPTOTE_ABOVE_LOSS.label}
    assert any("asymptote above a loss" in sentence for sentence in fit.matched.notices())
    with pytest.raises(NothingToDraw, match="asymptote above a loss"):
        build_effective_speedup(fit)


@pytest.mark.parametrize(
    ("n", "L_inf", "estimated", "told"),
    [
        (1, 1.2, False, False),
        (2, None, False, False),
        (2, 1.2, True, False),
        (3, None, True, False),
        (3, 1.2, True, True),
    ],
)
def test_too_few_matched_budgets(n: int, L_inf: float | None, estimated: bool, told: bool) -> None:
    matched = compare(noisy(1, budgets=BUDGETS[:n]), noisy(2, 1.1, budgets=BUDGETS[:n]), L_inf=L_inf).matched
    assert np.isfinite(values(matched.lines)).all() == estimated
    assert np.isfinite(matched.pooled.low) == told
    if not estimated:
        assert matched.status is Status.TOO_FEW_POINTS
    elif not told:
        # A single resample has a law: it says nothing of how far off the estimate may be.
        assert {line.interval_status for line in matched.lines} == {Status.TOO_FEW_POINTS}
        assert any("has no interval: too few points" in sentence for sentence in matched.notices())


def test_two_budgets_do_not_tell_a_multiplier() -> None:
    fit = compare(noisy(1, budgets=BUDGETS[:2]), noisy(2)).multiplier
    assert not any(np.isfinite(values(fit.lines)))
    assert fit.status in (Status.UNDETERMINED, Status.TOO_FEW_POINTS)
    assert fit.curve == ()


def test_a_rising_series_has_no_speedup() -> None:
    fit = compare(noisy(1), (BUDGETS, np.linspace(2.5, 3.0, 7)))
    assert not fit.matched.status.usable and not fit.multiplier.status.usable
    assert np.isnan(values(fit.matched.lines + fit.multiplier.lines)).all()
    assert fit.notices()


def test_an_exponent_near_zero_makes_infinite_speedups() -> None:
    flat = BUDGETS, 3 - 1e-7 * np.log(BUDGETS)
    fit = compare(flat, (BUDGETS, 1.02 * flat[1]), L_inf=1.0)
    for line in fit.matched.lines:
        assert line.status is Status.NOT_REACHED and np.isnan(line.value)
        assert line.infinite == (True, True)
    json.loads(fit.to_json())


def test_a_bound_is_said_where_it_is_used() -> None:
    straight = [(BUDGETS, scale * BUDGETS**-0.05) for scale in (25.0, 26.0)]
    fit = compare(*straight, budgets=[1e20])
    assert fit.matched.status is fit.multiplier.status is Status.BOUND_HIT
    assert {row["status"] for row in fit.rows()} == {"bound hit"}
    assert fit.matched.at_zero == pytest.approx(1 - fit.matched.skipped_probability)
    names = [trace.get("name", "") for trace in build_effective_speedup(fit)["data"]]
    assert sum("bound hit" in name for name in names) == 2


def test_a_drift_is_named() -> None:
    wobble = 1e-3 * np.sin(np.arange(7))
    steep, flat = 1.6 * (BUDGETS / 1e20) ** -0.12, 1.7 * (BUDGETS / 1e20) ** -0.09 * np.exp(wobble)
    matched = compare((BUDGETS, L_INF + steep), (BUDGETS, L_INF + flat), L_inf=L_INF).matched
    line = stats.linregress(np.log10(BUDGETS), np.log(flat / steep) / matched.alpha)
    assert matched.drift == pytest.approx(100 * np.expm1(line.slope), rel=TRUTH)
    assert matched.drift_p_value == pytest.approx(line.pvalue, rel=1e-6)
    assert any("per decade of compute at matched budgets" in sentence for sentence in matched.notices())
    assert not any("per decade" in sentence for sentence in compare(exact(), exact(1.1), L_inf=L_INF).notices())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": None}, "compares two suites, got 1"),
        ({"z": (BUDGETS, BUDGETS)}, "compares two suites, got 3"),
        ({"x": (np.repeat(BUDGETS, 2), np.arange(1.0, 15.0))}, "x: 3e\\+18 FLOPs occurs twice"),
        ({"x": ([], [])}, "x: no points"),
        ({"y": (BUDGETS, -BUDGETS)}, "y: loss\\[0\\]"),
        ({"L_inf": np.nan}, "L_inf must be"),
        ({"L_inf": -1.0}, "L_inf must be"),
        ({"budgets": []}, "budgets must be"),
        ({"budgets": [0.0]}, "budgets must be"),
        ({"draws": 0}, "at least one draw"),
        ({"level": 1.0}, "level must be"),
    ],
)
def test_bad_arguments(change: dict, message: str) -> None:
    arguments = {"x": noisy(1), "y": noisy(2)} | change
    series = {name: arguments.pop(name) for name in tuple(arguments) if name in "xyz"}
    with pytest.raises(ValueError, match=message):
        effective_speedup({name: pair for name, pair in series.items() if pair is not None}, **arguments)


# Printed and drawn


def test_it_prints_and_becomes_json() -> None:
    fit = compare(noisy(1), noisy(2, 1.05))
    assert "all matched budgets" in repr(fit) and "free laws" in repr(fit)
    rows = fit.rows()
    assert len({tuple(row) for row in rows}) == 1
    assert {row["speedup of"] for row in rows} == {"x"} and {row["over"] for row in rows} == {"y"}
    numbers = json.loads(fit.to_json())
    assert len(numbers["multiplier"]["curve"]) == len(fit.multiplier.curve)
    assert len(fit.law_rows()) == 4


def test_the_figure_shows_what_is_known() -> None:
    fit = compare(noisy(1), noisy(2, 1.05))
    document = build_effective_speedup(fit)
    figure = to_plotly(document)
    by_name = {trace.name: trace for trace in figure.data if trace.name}
    points = next(trace for name, trace in by_name.items() if name.startswith("matched budget"))
    np.testing.assert_allclose(points.y, values(fit.matched.lines[:-1]))
    np.testing.assert_allclose(points.y + points.error_y.array, [line.high for line in fit.matched.lines[:-1]])
    np.testing.assert_allclose(points.y - points.error_y.arrayminus, [line.low for line in fit.matched.lines[:-1]])
    np.testing.assert_allclose(
        next(trace for name, trace in by_name.items() if name.startswith("between free laws")).y,
        values(fit.multiplier.curve),
    )
    labels = [note["text"] for note in document["layout"]["annotations"]]
    far = fit.multiplier.lines[-1]
    assert any(f"{far.value:.3g}×" in text and "P(>1)" in text for text in labels)
    low, high = 10 ** np.array(document["layout"]["yaxis"]["range"])
    assert low < min(line.low for line in fit.matched.lines) and high > max(line.high for line in fit.matched.lines)
    assert 1.0 in document["layout"]["yaxis"]["tickvals"]
    mobile = build_effective_speedup_mobile(document)
    assert mobile["data"] is document["data"]
    to_plotly(mobile)


def test_infinite_ends_are_drawn_beyond_the_picture() -> None:
    fit = compare(noisy(16, noise=0.01), noisy(17, 1.05, noise=0.01), budgets=[1e24])
    assert any(line.infinite == (False, True) for line in fit.multiplier.curve)
    document = build_effective_speedup(fit)
    band = next(trace for trace in document["data"] if trace.get("fill") and trace["legendgroup"] == "laws")
    assert np.isfinite(band["y"]).all() and band["y"].max() > 10 ** document["layout"]["yaxis"]["range"][1]


def test_a_loss_out_of_reach_is_labelled() -> None:
    fit = effective_speedup({"<i>x": exact(L_inf=1.3), "y": exact(0.3, L_inf=2.4)}, budgets=[1e20, 1e27], draws=300)
    drawing = draw_answer(fit)
    assert set(drawing.documents) == {"effective-speedup", "effective-speedup-mobile"}
    document = drawing.documents["effective-speedup"]
    assert b"Infinity" not in document_json(document)
    texts = [note["text"] for note in document["layout"]["annotations"]]
    assert any("not reachable" in text for text in texts)
    assert texts[0].startswith("&lt;i&gt;x")


class TestCommand:
    @pytest.fixture(autouse=True)
    def plain_kernels(self) -> object:
        yield
        run_kernels_with(None)

    def test_tables_and_figures(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        out = tmp_path / "out"
        arguments = ["speedup", "--data", str(DATA), "--draws", "300", "--no-cache", "--out", str(out)]
        assert main(arguments) == 0
        said = capsys.readouterr()
        assert said.err == ""
        for words in (f"Speedup of {ADAMH_SUITE} over {ADAMC_SUITE}", "all matched budgets", "free laws", "P(> 1)"):
            assert words in said.out
        assert {path.name for path in out.iterdir()} == {"effective-speedup.json", "effective-speedup-mobile.json"}

    def test_json_and_direction(self, capsys: pytest.CaptureFixture[str]) -> None:
        common = ["speedup", "--data", str(DATA), "--draws", "300", "--no-cache", "--json", "--pin", "1.4"]
        assert main(common) == 0
        said = json.loads(capsys.readouterr().out)
        assert {part["table"] for part in said["skipped"]} == {"runs"} and said["missing"] == []
        there = said["speedup"]
        assert main([*common, "--suites", ADAMC_SUITE, ADAMH_SUITE, "--budgets", "1e22"]) == 0
        back = json.loads(capsys.readouterr().out)["speedup"]
        assert there["suites"] == back["suites"][::-1] == [ADAMH_SUITE, ADAMC_SUITE]
        assert there["matched"]["pooled"]["value"] * back["matched"]["pooled"]["value"] == pytest.approx(1)
        assert [line["budget"] for line in back["multiplier"]["lines"]] == [1e22]

    def test_bad_input(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        common = ["speedup", "--data", str(DATA), "--no-cache"]
        assert main([*common, "--suites", ADAMH_SUITE, "nobody"]) == 1
        assert "no suite 'nobody'" in capsys.readouterr().err
        assert main([*common, "--suites", ADAMH_SUITE, ADAMH_SUITE]) == 1
        assert "two different suites" in capsys.readouterr().err
        assert main([*common, "--format", "html"]) == 1
        assert "--out" in capsys.readouterr().err
        rows = [row for row in json.loads((DATA / "runs.json").read_text()) if "adamh" in row["name"]]
        (tmp_path / "runs.json").write_text(json.dumps(rows))
        assert main(["speedup", "--data", str(tmp_path), "--no-cache"]) == 1
        assert "name them with --suites" in capsys.readouterr().err

    def test_a_pinned_asymptote_above_a_loss_is_said(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        shutil.copy(DATA / "runs.json", tmp_path)
        assert main(["speedup", "--data", str(tmp_path), "--no-cache", "--pin", "2.9"]) == 0
        assert "asymptote above a loss" in capsys.readouterr().out


def test_public_measurements(real_dir: Path) -> None:
    """Nemotron over DCLM, on the Marin project's sweeps."""
    import csv

    from delphi_jax.fit.isoflop import fit_isoflop
    from delphi_jax.tables import run_table

    with (real_dir / "isoflops.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["outlier"] == "False"]
    series = {}
    for corpus in ("nemotron", "dclm"):
        chosen = [row for row in rows if corpus in row["experiment"]]
        columns = {
            name: np.array([float(row[name]) for row in chosen]) for name in ("params", "tokens", "loss", "budget")
        }
        names = np.array([f"run {i}" for i in range(len(chosen))], dtype=object)
        isoflop = fit_isoflop(run_table(names, compute=columns.pop("budget"), **columns)[0])
        series[corpus] = isoflop.optima(isoflop.suites[0])[:2]
    fit = effective_speedup(series, draws=300)
    assert len(fit.matched.budgets) >= 5
    assert fit.matched.pooled.low < fit.matched.pooled.value < fit.matched.pooled.high
    shared = np.log10(fit.matched.budgets)
    assert set(fit.matched.budgets) <= {9e18, 1.8e19, 3e19, 9e19, 1.8e20, 3e20}
    # Inside the data, both ways of asking agree within what they know.
    middle = min(fit.multiplier.lines, key=lambda line: abs(np.log10(line.budget) - shared.mean()))
    assert max(middle.low, fit.matched.pooled.low) < min(middle.high, fit.matched.pooled.high)
    laws = fit_laws(series, method="optimum")
    assert [law.L_inf for law in fit.multiplier.laws] == [law.L_inf for law in laws.values()]
    for line in fit.multiplier.lines:
        assert line.status in (Status.FITTED, Status.BOUND_HIT, Status.NOT_REACHED)
