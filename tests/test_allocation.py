"""The best allocation of compute: closed forms, biases of parabolas, costs of a choice, and intervals."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from delphi_jax.fit.allocation import LEAST_BUCKETS, allocate
from delphi_jax.fit.choice import costs_of_choice, surface_optimum
from delphi_jax.fit.isoflop import fit_isoflop
from delphi_jax.fit.valley import by_bucket, resampled_optima
from delphi_jax.formulas import law_loss, optimal_law, optimal_params, surface_loss
from delphi_jax.labels import APPROACHES, PARABOLA, SPLINE, SURFACE
from delphi_jax.results.allocation import (
    ASYMMETRIC,
    EDGE,
    FEW_POINTS,
    NO_MINIMUM,
    OFF_CENTRE,
    WIDE,
    AllocationFit,
    SuiteAllocation,
)
from delphi_jax.results.surface import SurfaceBootstrap, SurfaceFit, SurfaceObjective
from delphi_jax.status import Status
from delphi_jax.tables import RunTable, run_table
from tests.tolerances import REFERENCE, ROUNDING

BUCKETS = (3e18, 1e19, 3e19, 1e20, 3e20)
TARGETS = (1e20, 1e22, 1e24)
SQUARED = SurfaceObjective("squared")
Coefficients = tuple[float, float, float, float, float]

LOPSIDED: Coefficients = (2.3, 26.0 * 1e6**0.65, 0.95 * 1e9**0.42, 0.65, 0.42)
"""E, A, B, a, b much like those of a published sweep: losses rise faster towards more tokens."""
EVEN: Coefficients = (1.9, 480.0, 480.0, 0.35, 0.35)

RECOVERED = 1e-6
"""Relative, an allocation from losses without noise: as far as the surface's coefficients are recovered, times their
leverage far beyond the data."""


def best_tokens(truth: Coefficients, compute: float, factor: float = 6.0) -> float:
    """By numerical minimisation along C = factor*N*D."""
    found = minimize_scalar(
        lambda x: surface_loss(compute / factor / 10**x, 10**x, *truth), bounds=(5, 18), options={"xatol": 1e-12}
    )
    return 10.0**found.x


def sweep(
    truth: Coefficients,
    *,
    buckets: tuple[float, ...] = BUCKETS,
    n_runs: int = 11,
    half_width: float = 0.6,
    offset: Callable[[float], float] = lambda _: 0.0,
    factor: float = 6.0,
    noise: float = 0.0,
    seed: int = 0,
) -> RunTable:
    """IsoFLOP runs on tokens evenly spaced around the true optimum, ``offset`` (of the budget) decades beside it."""
    rng = np.random.default_rng(seed)
    tokens, params, compute = [], [], []
    for budget in buckets:
        centre = np.log10(best_tokens(truth, budget, factor)) + offset(budget)
        x = centre + np.linspace(-half_width, half_width, n_runs)
        tokens.append(10.0**x)
        params.append(budget / factor / 10.0**x)
        compute.append(np.full(n_runs, budget))
    tokens, params, compute = (np.concatenate(parts) for parts in (tokens, params, compute))
    loss = surface_loss(params, tokens, *truth) + noise * rng.normal(size=tokens.size)
    return table_of(params, tokens, loss, compute)


def table_of(params: np.ndarray, tokens: np.ndarray, loss: np.ndarray, compute: np.ndarray) -> RunTable:
    names = np.empty(len(loss), dtype=object)
    names[:] = [f"isoflop-{i}-nemo" for i in range(len(loss))]
    return run_table(names, params, tokens, loss, compute)[0]


def allocation(runs: RunTable, targets: tuple[float, ...] = TARGETS, **settings: object) -> SuiteAllocation:
    """Of the only suite."""
    found = allocate(runs, targets, **({"objective": SQUARED, "draws": 40} | settings))
    assert len(found.suites) == 1
    sentences = found.notices()
    assert not any(brace in sentence for sentence in sentences for brace in "{}")
    assert len(set(sentences)) == len(sentences)
    return found.suites[0]


@pytest.fixture
def no_surface(monkeypatch: pytest.MonkeyPatch) -> None:
    """Approach 2 alone: a program for every number of runs takes longer to compile than the test needs."""

    def unfitted(
        params: np.ndarray, tokens: np.ndarray, loss: np.ndarray, *, draws: int, percentiles: object, **_: object
    ) -> SurfaceBootstrap:
        few, none = Status.TOO_FEW_POINTS, np.full(draws, np.nan)
        point = SurfaceFit("", params, tokens, loss, SQUARED, few)
        statuses = np.full(draws, few)
        return SurfaceBootstrap(point, few, statuses, *[none] * 7, {}, none[:0], none[:0], (), percentiles, 0)

    monkeypatch.setattr("delphi_jax.fit.allocation.bootstrap_surface", unfitted)


@cache
def lopsided() -> SuiteAllocation:
    return allocation(sweep(LOPSIDED))


@cache
def noisy() -> SuiteAllocation:
    return allocation(sweep(LOPSIDED, noise=0.004, seed=3), draws=200)


def test_the_closed_form_is_the_numerical_minimum() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        a, b = rng.uniform(0.2, 0.8, 2)
        truth = (rng.uniform(0, 2), rng.uniform(1, 30) * 1e6**a, rng.uniform(1, 30) * 1e9**b, a, b)
        factor, compute = rng.uniform(4, 8), 10 ** rng.uniform(18, 25)
        params = optimal_params(compute / factor, *truth[1:])
        tokens = compute / factor / params
        assert tokens == pytest.approx(best_tokens(truth, compute, factor), rel=1e-5)
        least = surface_loss(
            compute / factor / best_tokens(truth, compute, factor), best_tokens(truth, compute, factor), *truth
        )
        assert surface_loss(params, tokens, *truth) == pytest.approx(least, rel=ROUNDING)
        amplitude, alpha = optimal_law(*truth[1:])
        assert law_loss(compute / factor, truth[0], amplitude, alpha) == pytest.approx(least, rel=ROUNDING)
        # Equation 4 of Hoffmann et al. 2022, as printed.
        G = (a * truth[1] / (b * truth[2])) ** (1 / (a + b))
        assert params == pytest.approx(G * (compute / factor) ** (b / (a + b)), rel=ROUNDING)
        assert tokens == pytest.approx((compute / factor) ** (a / (a + b)) / G, rel=ROUNDING)


def test_the_surface_recovers_the_truth() -> None:
    line = lopsided().line(SURFACE)
    *_, a, b = LOPSIDED
    assert line.status is Status.FITTED
    assert line.params_exponent == pytest.approx(b / (a + b), rel=RECOVERED)
    assert line.tokens_exponent == pytest.approx(a / (a + b), rel=RECOVERED)
    for q, compute in enumerate(TARGETS):
        tokens = best_tokens(LOPSIDED, compute)
        params = compute / 6 / tokens
        assert line.at.tokens.value[q] == pytest.approx(tokens, rel=1e-5)
        assert line.at.params.value[q] == pytest.approx(params, rel=1e-5)
        assert line.at.ratio.value[q] == pytest.approx(tokens / params, rel=2e-5)
        assert line.at.loss.value[q] == pytest.approx(surface_loss(params, tokens, *LOPSIDED), rel=RECOVERED)


def test_parabolas_find_an_even_surface() -> None:
    """With a = b and centred tokens valleys are even: the vertex is the optimum, N* and D* grow alike."""
    found = allocation(sweep(EVEN))
    line = found.line(PARABOLA)
    assert line.tokens_exponent == pytest.approx(0.5, rel=REFERENCE)
    np.testing.assert_allclose(line.at.tokens.value, [best_tokens(EVEN, c) for c in TARGETS], rtol=1e-5)
    np.testing.assert_allclose(found.bias.tokens, 0.0, atol=1e-3)
    assert found.bias.tokens_exponent == pytest.approx(0.5, rel=RECOVERED)
    assert not any(ASYMMETRIC in bucket.flags for bucket in found.buckets)
    # A sum of two exponentials is flatter at the bottom than a parabola.
    assert found.quartic.sign > 0
    assert any("wide grid" in sentence and "flatter at the bottom" in sentence for sentence in found.notices())


@pytest.mark.parametrize("half_width", [0.15, 0.3])
def test_asymmetry_draws_centred_parabolas_to_the_flat_side(half_width: float) -> None:
    """By -(a - b)/6 times the ratio of fourth to second moment of ln D, where the width is small.

    Along a budget L = E + P exp(a u) + Q exp(-b u), u = ln(D/D*), a P = b Q: f''' / f'' = a - b at the optimum, and the
    least-squares parabola takes up the part t m4/m2 of t^3. The offset is the same in all buckets: exponents are right.
    """
    runs = sweep(LOPSIDED, half_width=half_width)
    found = allocation(runs)
    *_, a, b = LOPSIDED
    u = np.linspace(-half_width, half_width, 11) * np.log(10)
    expected = -(a - b) / 6 * np.mean(u**4) / np.mean(u**2)
    missed = [
        np.log(bucket.parabola.tokens_star / best_tokens(LOPSIDED, bucket.parabola.bucket)) for bucket in found.buckets
    ]
    np.testing.assert_allclose(missed, expected, rtol=0.6 * half_width)
    line = found.line(PARABOLA)
    assert line.tokens_exponent == pytest.approx(a / (a + b), rel=REFERENCE)
    assert line.params_exponent == pytest.approx(b / (a + b), rel=REFERENCE)


def test_a_drift_off_the_centre_bends_the_exponent() -> None:
    *_, a, b = LOPSIDED
    exponents = []
    for drift in (-0.2, 0.0, 0.2):
        found = allocation(sweep(LOPSIDED, offset=lambda c, d=drift: d * np.log10(c / 3e18)))
        exponents.append(found.line(PARABOLA).tokens_exponent)
        # Where the tokens move to the right, the optimum moves to the left of their middle.
        assert found.drift == pytest.approx(-drift, abs=0.05)
        assert found.bias.tokens_exponent == pytest.approx(exponents[-1], rel=1e-5)
    assert exponents[1] == pytest.approx(a / (a + b), rel=REFERENCE)
    assert abs(exponents[0] - exponents[1]) > 0.003 and abs(exponents[2] - exponents[1]) > 0.003


def test_the_predicted_bias_is_what_parabolas_miss_without_noise() -> None:
    found = lopsided()
    missed = 100 * (found.line(PARABOLA).at.tokens.value / found.line(SURFACE).at.tokens.value - 1)
    np.testing.assert_allclose(found.bias.tokens, missed, rtol=1e-4)
    assert (missed < -5).all()
    for bucket in found.buckets:
        true = best_tokens(LOPSIDED, bucket.parabola.bucket)
        assert bucket.bias == pytest.approx(100 * (bucket.parabola.tokens_star / true - 1), rel=1e-3)
        assert ASYMMETRIC in bucket.flags
        assert bucket.asymmetry > 1
    (sentence,) = [each for each in found.notices() if "asymmetric" in each]
    assert "rise faster towards more tokens" in sentence and "towards fewer tokens" in sentence
    assert "arXiv 2603.22339" in sentence
    (sentence,) = [each for each in found.notices() if "how far off" in each]
    assert "fewer tokens than optimal" in sentence


def test_splines_are_nearer_to_the_truth_than_parabolas() -> None:
    found = lopsided()
    for bucket in found.buckets:
        true = np.log(best_tokens(LOPSIDED, bucket.parabola.bucket))
        missed = [abs(np.log(tokens) - true) for tokens in (bucket.parabola.tokens_star, bucket.spline_tokens)]
        assert bucket.spline_status is Status.FITTED
        assert missed[1] < 0.1 * missed[0]
    true = np.log([best_tokens(LOPSIDED, c) for c in TARGETS])
    missed = [np.abs(np.log(found.line(name).at.tokens.value) - true) for name in (PARABOLA, SPLINE)]
    assert (missed[1] < missed[0]).all()


@pytest.mark.usefixtures("no_surface")
def test_biases_are_flagged_where_they_are() -> None:
    """Buckets: centred; off centre; without a minimum inside; of four points; a hill."""
    runs = sweep(EVEN, noise=0.0005)
    place = np.repeat(np.arange(5), 11)
    tokens, params, loss, keep = runs.tokens.copy(), runs.params.copy(), runs.loss.copy(), np.ones(55, dtype=bool)
    for bucket, shift in ((1, 0.4), (2, 1.0)):
        here = place == bucket
        tokens[here] *= 10**shift
        params[here] /= 10**shift
    loss = surface_loss(params, tokens, *EVEN) + runs.loss - surface_loss(runs.params, runs.tokens, *EVEN)
    keep[np.flatnonzero(place == 3)[[0, 1, 2, 4, 6, 8, 10]]] = False
    hill = place == 4
    loss[hill] = 2 * loss[hill].max() - loss[hill]
    fits = {
        bucket.parabola.bucket: bucket
        for bucket in allocation(table_of(params, tokens, loss, runs.compute).where(keep)).buckets
    }
    flags = [fits[budget].flags for budget in BUCKETS]
    assert OFF_CENTRE not in flags[0] and OFF_CENTRE in flags[1]
    assert EDGE in flags[2] and not fits[BUCKETS[2]].parabola_used
    assert FEW_POINTS in flags[3] and fits[BUCKETS[3]].parabola_used
    assert fits[BUCKETS[3]].freedom == pytest.approx(3.0, abs=1e-5)
    assert NO_MINIMUM in flags[4] and not fits[BUCKETS[4]].parabola_used
    assert fits[BUCKETS[1]].off_centre == pytest.approx(-0.4 / 0.6, abs=0.1)
    assert fits[BUCKETS[2]].off_centre < -1
    assert WIDE not in flags[3]


@pytest.mark.usefixtures("no_surface")
def test_left_out_buckets_are_said() -> None:
    runs = sweep(EVEN, noise=0.0005, offset=lambda c: 1.0 if c == 3e20 else 0.0)
    found = allocation(runs)
    (sentence,) = [each for each in found.notices() if "left out" in each]
    assert "3e+20 FLOPs" in sentence and "edge, towards fewer tokens" in sentence
    tokens = [bucket.parabola.tokens_star for bucket in found.buckets[:4]]
    slope = np.polyfit(np.log10(BUCKETS[:4]), np.log10(tokens), 1)[0]
    assert found.line(PARABOLA).tokens_exponent == pytest.approx(slope, rel=REFERENCE)
    np.testing.assert_array_equal(found.laws[PARABOLA].compute, BUCKETS[:4])


def check_costs_on_the_surface(found: SuiteAllocation) -> None:
    """Against numerical minimisation: the penalty, and the budget with which the optimum reaches the same loss."""
    fit = found.surface.point
    coefficients = fit.E, fit.A, fit.B, fit.a, fit.b

    def least(compute: float) -> float:
        tokens = best_tokens(coefficients, compute, found.factor)
        return float(fit.loss_at(compute / found.factor / tokens, tokens))

    costs = [cost for cost in found.costs if cost.judge == SURFACE]
    assert len(costs) == 2 * len(TARGETS)
    for cost in costs:
        at = found.line(cost.chosen).at
        q = TARGETS.index(cost.budget)
        ratio = at.tokens.value[q] / at.params.value[q]
        params = np.sqrt(cost.budget / found.factor / ratio)
        loss = float(fit.loss_at(params, ratio * params))
        assert cost.status is Status.FITTED
        assert cost.penalty == pytest.approx(loss - least(cost.budget), abs=1e-12)
        assert least(cost.budget * (1 - cost.waste / 100)) == pytest.approx(loss, rel=REFERENCE)
        assert cost.penalty >= 0 and 0 <= cost.waste < 100
        assert 0 <= cost.penalty_interval.low <= cost.penalty_interval.high
        assert cost.forecast == at.loss.value[q]
        if cost.match_status is Status.FITTED:
            assert least(cost.budget * cost.match) == pytest.approx(cost.forecast, rel=REFERENCE)
        else:
            assert cost.match_status is Status.NOT_REACHED and cost.forecast <= fit.E


def test_costs_are_those_of_the_surface() -> None:
    check_costs_on_the_surface(noisy())


def test_costs_are_those_of_the_parabolas() -> None:
    """Curvatures a power of compute, the law its own inverse (methods, section 7)."""
    found = noisy()
    law = found.laws[PARABOLA]
    costs = [cost for cost in found.costs if cost.judge == PARABOLA]
    assert [cost.budget for cost in costs] == list(TARGETS)
    for cost in costs:
        q = TARGETS.index(cost.budget)
        distance = np.log10(found.line(SURFACE).at.tokens.value[q] / found.line(PARABOLA).at.tokens.value[q])
        side = "curvature_over" if distance > 0 else "curvature_under"
        curvatures = [getattr(bucket.parabola, side) for bucket in found.buckets]
        line = np.polyfit(np.log10(BUCKETS), np.log10(curvatures), 1)
        expected = 10 ** np.polyval(line, np.log10(cost.budget)) * distance**2
        assert cost.penalty == pytest.approx(expected, rel=1e-6)
        loss = float(law.loss_at(cost.budget)) + cost.penalty
        assert law.loss_at(cost.budget * (1 - cost.waste / 100)) == pytest.approx(loss, rel=REFERENCE)
        assert np.isnan(cost.penalty_interval.high)


def test_a_forecast_below_the_asymptote_is_reached_at_no_budget() -> None:
    found = noisy()
    lines = {line.approach: line for line in found.lines}
    law = replace(found.laws[PARABOLA], L_inf=0.5 * found.surface.point.E, A=1.0)
    used = [bucket.parabola for bucket in found.buckets]
    costs = costs_of_choice(
        lines,
        found.laws | {PARABOLA: law},
        used,
        np.array(BUCKETS),
        found.surface,
        found.factor,
        (2.5, 50.0, 97.5),
    )
    chosen = [cost for cost in costs if cost.chosen == PARABOLA]
    assert {cost.match_status for cost in chosen} == {Status.NOT_REACHED}
    assert np.isnan([cost.match for cost in chosen]).all()
    rows = replace(found, costs=costs).cost_rows()
    assert [row["status"] for row in rows if row["chosen"] == PARABOLA] == [
        "fitted; forecast: not reachable at any budget"
    ] * 3


def test_a_surface_without_both_terms_has_no_optimum() -> None:
    flat = replace(noisy().surface.point, B=0.0, b=np.nan)
    assert not surface_optimum(flat, 6.0).exists.any()
    assert surface_optimum(noisy().surface.point, 6.0).exists.all()
    drawn = noisy().surface
    some = replace(drawn, A=np.where(np.arange(len(drawn.A)) < 3, 0.0, drawn.A))
    np.testing.assert_array_equal(~surface_optimum(some, 6.0).exists, (some.A == 0) | ~drawn.used)


def test_intervals_hold_the_truth_that_each_approach_can_find() -> None:
    """Splines and the surface that of the lopsided valleys; parabolas, where they are not biased, that of even ones."""
    even = allocation(sweep(EVEN, noise=0.004, seed=1), draws=200)
    for found, approach, truth in (
        (noisy(), SURFACE, LOPSIDED),
        (noisy(), SPLINE, LOPSIDED),
        (even, PARABOLA, EVEN),
        (even, SURFACE, EVEN),
    ):
        line, (*_, a, b) = found.line(approach), truth
        interval = line.tokens_exponent_interval
        assert interval.low < a / (a + b) < interval.high
        tokens = np.array([best_tokens(truth, c) for c in TARGETS])
        params = np.array(TARGETS) / 6 / tokens
        for band, true in ((line.at.tokens, tokens), (line.at.params, params), (line.at.ratio, tokens / params)):
            assert np.all((band.low < true) & (true < band.high))
            assert np.all((band.low <= band.median) & (band.median <= band.high))
        # Uncertainty grows with the distance from the data.
        width = np.log(line.at.tokens.high / line.at.tokens.low)
        assert width[0] < width[1] < width[2]


def test_intervals_of_approach_2_hold_the_truth_at_about_their_rate() -> None:
    """100 studies of even valleys: the exponent lies in its 90 % interval in 80 to 98 of them (binomial, 3 errors)."""
    inside = dict.fromkeys((PARABOLA, SPLINE), 0)
    log_buckets = np.log10(BUCKETS)
    for seed in range(100):
        buckets = by_bucket(fit_isoflop(sweep(EVEN, noise=0.004, seed=seed)).parabolas)
        for name, drawn in resampled_optima(buckets, 100, seed).items():
            slopes = [
                np.polyfit(log_buckets[v], x[v], 1)[0] for v, x in zip(drawn.valid, drawn.x, strict=True) if v.sum() > 2
            ]
            low, high = np.percentile(slopes, [5, 95])
            inside[name] += low < 0.5 < high
    assert all(80 <= count <= 98 for count in inside.values()), inside


def test_flops_as_6nd() -> None:
    """Runs that took 7.2*N*D: their buckets are 1.2 times those of 6*N*D, at the same N and D."""
    runs = sweep(LOPSIDED, factor=7.2)
    measured, nominal = (allocation(runs, flops=flops) for flops in ("measured", "6nd"))
    assert measured.factor == pytest.approx(7.2, rel=REFERENCE)
    assert measured.factor_range == pytest.approx((7.2, 7.2), rel=REFERENCE)
    assert nominal.factor == 6.0
    for fit, other in zip(measured.buckets, nominal.buckets, strict=True):
        assert fit.parabola_compute == pytest.approx(fit.parabola.bucket, rel=ROUNDING)
        assert other.parabola_compute == pytest.approx(fit.parabola.bucket / 1.2, rel=1e-6)
        assert other.spline_tokens == fit.spline_tokens
    scaled = allocation(runs, tuple(1.2 * c for c in TARGETS))
    for approach in APPROACHES:
        for name in ("params", "tokens", "loss"):
            one, other = (getattr(found.line(approach).at, name).value for found in (nominal, scaled))
            np.testing.assert_allclose(one, other, rtol=1e-6, err_msg=f"{approach} {name}")
    assert not any("C/(N*D)" in sentence for sentence in measured.notices())
    assert any("equal measured FLOPs" in sentence for sentence in nominal.notices())


def test_flops_that_vary_are_said() -> None:
    runs = sweep(LOPSIDED, noise=0.001)
    # Larger models took more than 6*N*D.
    factor = 6 * (runs.params / 1e9) ** 0.03
    found = allocation(replace(runs, tokens=runs.compute / factor / runs.params))
    (sentence,) = [each for each in found.notices() if "C/(N*D)" in each]
    assert f"{factor.min():.3g} to {factor.max():.3g}" in sentence
    share = found.surface.point.params_exponent
    assert f"{100 * ((found.factor / factor.min()) ** share - 1):+.2g} %" in sentence
    # N* and D* that are fitted apart miss the budget: costs are of their ratio, on the budget.
    product = found.factor * found.line(PARABOLA).at.params.value * found.line(PARABOLA).at.tokens.value / TARGETS
    assert np.abs(product - 1).max() > 0.02
    assert sum("fitted apart" in sentence for sentence in found.notices()) == 2
    check_costs_on_the_surface(found)


def test_order_of_runs_and_other_suites_do_not_matter() -> None:
    runs = sweep(LOPSIDED, noise=0.004, seed=3)
    turned = runs.where(np.random.default_rng(0).permutation(len(runs)))
    assert allocation(turned).to_json() == allocation(runs).to_json()
    other = sweep(EVEN, noise=0.004)
    both = RunTable(
        **{
            name: np.concatenate([getattr(runs, name), getattr(other, name)])
            for name in RunTable.__dataclass_fields__
            if name not in ("suite", "definition")
        },
        suite=np.array(["one"] * len(runs) + ["two"] * len(other), dtype=object),
    )
    together = allocate(both, TARGETS, objective=SQUARED, draws=40)
    assert [each.suite for each in together.suites] == ["one", "two"]
    alone = allocate(both, TARGETS, suites=["two"], objective=SQUARED, draws=40)
    for approach in APPROACHES:
        one, other = (found.of("two").line(approach).at.tokens for found in (together, alone))
        np.testing.assert_allclose(one.value, other.value, rtol=REFERENCE)
        np.testing.assert_allclose(one.high, other.high, rtol=RECOVERED)
    with pytest.raises(KeyError):
        together.of("three")
    with pytest.raises(KeyError):
        alone.of("two").line("four")


@pytest.mark.usefixtures("no_surface")
@pytest.mark.parametrize("n", [1, 2, 3])
def test_approach_2_needs_three_buckets(n: int) -> None:
    runs = sweep(LOPSIDED, noise=0.002)
    hills = ~np.isin(runs.bucket, BUCKETS[:n])
    found = allocation(replace(runs, loss=np.where(hills, 8.0 - runs.loss, runs.loss)))
    assert [bucket.parabola_used for bucket in found.buckets] == [k < n for k in range(5)]
    for approach in (PARABOLA, SPLINE):
        line = found.line(approach)
        assert line.status is (Status.TOO_FEW_POINTS if n < LEAST_BUCKETS else Status.FITTED)
        for band in (line.at.params, line.at.tokens, line.at.ratio, line.at.loss):
            assert np.isfinite([band.value, band.low, band.high]).all() == (n >= LEAST_BUCKETS)
    assert found.status is Status.TOO_FEW_POINTS


def test_one_budget_has_a_status_and_no_numbers() -> None:
    runs = sweep(LOPSIDED, noise=0.002)
    found = allocation(runs.where(runs.bucket == BUCKETS[0]))
    assert not any(line.fitted for line in found.lines)
    assert found.status is Status.TOO_FEW_POINTS
    assert found.costs == ()
    assert np.isnan([line.tokens_exponent for line in found.lines]).all()
    numbers = [value for row in found.rows() for name, value in row.items() if name != "compute (FLOPs)"]
    assert all(np.isnan(value) for value in numbers if isinstance(value, float))
    assert sum("too few points" in sentence for sentence in found.notices()) == 2
    assert any(found.surface.point.status.label in sentence for sentence in found.notices())
    assert json.loads(found.to_json())["lines"][0]["status"] == "too few points"


@pytest.mark.parametrize("draws", [1, 39])
def test_too_few_draws_tell_no_interval(draws: int) -> None:
    found = allocation(sweep(LOPSIDED, noise=0.002), draws=draws)
    assert found.surface.status is Status.BEYOND_DRAWS
    assert sum("has no interval" in sentence for sentence in found.notices()) == 3
    for line in found.lines:
        assert np.isfinite(line.at.tokens.value).all() and line.used == draws
        assert np.isnan([line.at.tokens.low, line.at.loss.high]).all() and np.isnan(line.tokens_exponent_interval.low)
    assert all(cost.penalty >= 0 and np.isnan(cost.penalty_interval.high) for cost in found.costs)


def test_how_the_surface_was_fitted_is_said_once() -> None:
    found = lopsided()
    point = replace(found.surface.point, status=Status.BOUND_HIT, on_bound=("E",))
    sentences = replace(found, surface=replace(found.surface, point=point)).notices()
    assert sum("bound hit (E)" in sentence for sentence in sentences) == 1
    assert len(set(sentences)) == len(sentences)


@pytest.mark.usefixtures("no_surface")
def test_optima_that_scatter_more_than_their_runs_tell_are_said() -> None:
    """The optima jump by 0.1 decades from bucket to bucket, which resamples of the runs within them cannot show."""
    runs = sweep(LOPSIDED, noise=1e-4)
    apart = replace(runs, tokens=runs.tokens * 10 ** (0.1 * np.isin(runs.compute, BUCKETS[1::2])))
    for turned, said in ((runs, False), (apart, True)):
        found = allocation(turned, draws=60)
        assert any("buckets are not resampled" in sentence for sentence in found.notices()) is said
        line = found.line(PARABOLA)
        x = np.log10([bucket.parabola.tokens_star for bucket in found.buckets])
        about = np.polyfit(np.log10(BUCKETS), x, 1, full=True)[1][0] / (len(BUCKETS) - 2)
        buckets = by_bucket([bucket.parabola for bucket in found.buckets])
        alone = np.mean(np.var(resampled_optima(buckets, 60, 0)[PARABOLA].x, axis=0, ddof=1))
        assert line.scatter == pytest.approx(np.sqrt(about / alone), rel=1e-6)


@pytest.mark.usefixtures("no_surface")
def test_three_token_counts_are_said_to_tell_no_error() -> None:
    found = allocation(sweep(LOPSIDED, n_runs=3), draws=60)
    assert any("only three token counts at 3e+18" in sentence for sentence in found.notices())


@pytest.mark.usefixtures("no_surface")
def test_runs_that_are_no_measurement_take_no_part() -> None:
    runs = sweep(LOPSIDED, noise=0.002)
    spoiled = replace(runs, loss=runs.loss.copy(), finished=runs.finished.copy(), held_out=runs.held_out.copy())
    spoiled.loss[[5, 20]] = 50.0
    spoiled.finished[5], spoiled.held_out[20] = False, True
    keep = np.ones(len(runs), dtype=bool)
    keep[[5, 20]] = False
    assert allocation(spoiled).to_json() == allocation(runs.where(keep)).to_json()
    assert allocate(runs.where(np.zeros(len(runs), dtype=bool)), TARGETS).suites == ()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"budgets": []}, "one or more finite positive"),
        ({"budgets": [1e21, 0.0]}, "finite positive"),
        ({"budgets": [-1e21]}, "finite positive"),
        ({"budgets": [np.nan]}, "finite positive"),
        ({"budgets": [np.inf]}, "finite positive"),
        ({"budgets": [[1e21]]}, "one or more"),
        ({"flops": "6ND "}, "flops must be one of measured, 6nd"),
        ({"draws": 0}, "at least one draw"),
        ({"level": 1.0}, "between 0 and 1"),
        ({"level": 0.0}, "between 0 and 1"),
        ({"suites": ["nobody"]}, "no IsoFLOP runs of nobody"),
    ],
)
def test_bad_arguments_are_refused(settings: dict[str, object], words: str) -> None:
    arguments = {"budgets": TARGETS} | settings
    with pytest.raises(ValueError, match=words):
        allocate(sweep(EVEN), **arguments)


def test_results_are_tables_and_json() -> None:
    found = AllocationFit((noisy(),))
    rows = found.rows()
    assert len(rows) == len(TARGETS) * len(APPROACHES)
    assert [row["approach"] for row in rows[:3]] == list(APPROACHES)
    assert {"N*", "N* low", "N* high", "D*", "D*/N*", "loss", "status"} <= set(rows[0])
    frame = found.to_frame()
    assert (frame["N* low"] <= frame["N*"]).all() and (frame["N*"] <= frame["N* high"]).all()
    assert "parabola" in repr(found)
    data = json.loads(found.to_json())["suites"][0]
    assert (data["flops"], data["draws"], data["seed"], data["level"]) == ("measured", 200, 0, 0.95)
    assert data["lines"][0]["draw_counts"] == {"fitted": 200}
    assert [row["draws"] for row in found.suites[0].exponent_rows()] == [200] * 3


def real_runs(folder: Path, experiment: str) -> RunTable:
    with (folder / "isoflops.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["experiment"] == experiment]
    columns = [np.array([float(row[name]) for row in rows]) for name in ("params", "tokens", "loss", "budget")]
    return table_of(*columns)


def test_a_published_sweep(real_dir: Path) -> None:
    found = allocation(real_runs(real_dir, "marin_202603__nemotron__llama_2"), (1e20, 1e21), draws=200)
    surface, parabola, spline = (found.line(name) for name in (SURFACE, PARABOLA, SPLINE))
    # Published: b/(a+b) about 0.402, 95 % interval about [0.367, 0.438].
    assert surface.params_exponent == pytest.approx(0.402, abs=0.005)
    assert surface.params_exponent_interval.low == pytest.approx(0.367, abs=0.01)
    assert surface.params_exponent_interval.high == pytest.approx(0.438, abs=0.01)
    # The smallest bucket has three runs on a hill: without it the tokens' exponent is that of ordinary least squares.
    fits = [bucket.parabola for bucket in found.buckets]
    assert [bucket.parabola_used for bucket in found.buckets] == [False] + [True] * 7
    x, y = np.log10([(fit.bucket, fit.tokens_star) for fit in fits[1:]]).T
    assert parabola.tokens_exponent == pytest.approx(np.polyfit(x, y, 1)[0], rel=1e-6)
    assert 0.52 < parabola.tokens_exponent < spline.tokens_exponent < 0.62
    assert found.cubic.p_value < 1e-6 and found.cubic.sign > 0
    assert (found.bias.tokens < 0).all()
    assert found.factor == pytest.approx(6.03, abs=0.01)
    assert any("ranges from 4.45 to 6.43" in sentence for sentence in found.notices())
    assert any("1.8e+18 FLOPs: left out" in sentence for sentence in found.notices())
    assert all(cost.penalty >= 0 for cost in found.costs)


@pytest.mark.parametrize("flops", ["measured", "6nd"])
def test_another_published_sweep(flops: str, real_dir: Path) -> None:
    found = allocation(real_runs(real_dir, "ml_scalefit__massivetext__chinchilla"), (1e22,), draws=200, flops=flops)
    assert all(line.fitted for line in found.lines)
    for line in found.lines:
        assert line.at.params.low[0] < line.at.params.high[0]
        assert 0.3 < line.tokens_exponent < 0.7
    # One bucket's runs end before its optimum.
    assert sum(bucket.parabola_used for bucket in found.buckets) == len(found.buckets) - 1
    (sentence,) = [each for each in found.notices() if "left out of the allocation" in each]
    assert "1e+20 FLOPs" in sentence and "towards more tokens" in sentence
