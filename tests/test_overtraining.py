"""The overtraining forecast against the slow twin, a bisection on the curve and closed forms."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from benchmarks import baseline
from delphi_jax.definition import delphi
from delphi_jax.fit.overtraining import fit_overtraining
from delphi_jax.results import LawFit, OvertrainingFit, ParabolaFit, StudyFit
from delphi_jax.status import Status
from tests.tolerances import REFERENCE, ROUNDING, TRUTH

FORECAST = 1e23


def law_fit(L_inf: float = 1.2, A: float = 100.0, alpha: float = 0.09, status: Status = Status.FITTED) -> LawFit:
    return LawFit("suite", "free", np.empty(0), np.empty(0), status, L_inf=L_inf, A=A, alpha=alpha)


def buckets(
    curvature_under: Any, curvature_over: Any, law: LawFit, exponent: float = 0.52, noise: float = 0.0
) -> list[ParabolaFit]:
    """Fitted buckets at 5 budgets whose optima lie near the law."""
    C = np.geomspace(3e18, 3e20, 5)
    under, over = np.broadcast_to(curvature_under, 5), np.broadcast_to(curvature_over, 5)
    wobble = 1 + noise * np.random.default_rng(0).normal(size=5)
    tokens = 1e10 * (C / 1e20) ** exponent * wobble
    empty = np.empty(0)
    return [
        ParabolaFit(
            "suite",
            C[i],
            empty,
            empty,
            empty,
            Status.FITTED,
            log_tokens_star=np.log10(tokens[i]),
            tokens_star=tokens[i],
            loss_star=float(law.loss_at(C[i])),
            curvature_under=under[i],
            curvature_over=over[i],
        )
        for i in range(5)
    ]


def twin(parabolas: list[ParabolaFit], law: LawFit, scale: float) -> dict[str, Any]:
    columns = ("bucket", "tokens_star", "loss_star", "curvature_under", "curvature_over")
    arrays = ([getattr(fit, name) for fit in parabolas] for name in columns)
    return baseline.overtraining(*arrays, {"L_inf": law.L_inf, "A": law.A, "alpha": law.alpha}, FORECAST, scale)


def assert_like_twin(fit: OvertrainingFit, law: LawFit) -> None:
    for line in fit.scales:
        expected = twin(list(fit.parabolas), law, line.scale)
        side = "curvature_over" if line.scale > 1 else "curvature_under"
        np.testing.assert_allclose(fit.compute, expected["C"], rtol=REFERENCE)
        np.testing.assert_allclose(line.shifted_loss, expected["loss"], rtol=REFERENCE)
        if not all(getattr(parabola, side) > 0 for parabola in fit.parabolas):
            assert line.status is Status.CURVATURE_NOT_POSITIVE
            assert np.isnan([line.overhead, line.compute_equivalent, line.tokens_equivalent, *line.loss]).all()
            continue
        assert line.status is (Status.FITTED if expected["crossed"] else Status.NOT_REACHED)
        np.testing.assert_allclose(line.loss, expected["curve"], rtol=REFERENCE)
        assert line.compute_equivalent == pytest.approx(expected["C_equiv"], rel=REFERENCE)
        assert line.overhead == pytest.approx(expected["overhead"], rel=TRUTH, abs=TRUTH)
        tokens = np.interp(np.log10(expected["C_equiv"]), np.log10(expected["C"]), np.log10(expected["tokens"]))
        assert np.log10(line.tokens_equivalent) == pytest.approx(tokens, rel=REFERENCE)


@pytest.mark.parametrize(
    ("under", "over"),
    [
        (0.1, 0.2),
        (np.geomspace(0.1, 0.15, 5), np.geomspace(0.2, 0.15, 5)),
        (np.array([0.1, 0.12, 0.09, 0.13, 0.1]), np.array([0.2, 0.1, 0.15, 0.12, 0.3])),
        (np.array([0.1, 0.0, 0.1, 0.1, 0.1]), np.array([0.2, 0.2, 0.2, 0.2, 1e-12])),
        (np.array([0.1, -0.2, 0.1, 0.1, 0.1]), 3.0),
    ],
)
def test_matches_the_slow_twin(under: Any, over: Any) -> None:
    law = law_fit()
    fit = fit_overtraining(buckets(under, over, law, noise=0.02), law)
    assert tuple(line.scale for line in fit.scales) == delphi().overtraining.scales
    assert_like_twin(fit, law)


def test_study_matches_the_slow_twin(golden_fit: Any) -> None:
    fit = golden_fit.overtraining
    assert_like_twin(fit, fit.law)
    C = np.array([parabola.bucket for parabola in fit.parabolas])
    slope, intercept = np.polyfit(np.log10(C), [parabola.log_tokens_star for parabola in fit.parabolas], 1)
    assert fit.token_slope == pytest.approx(slope, rel=REFERENCE)
    assert fit.token_intercept == pytest.approx(intercept, rel=REFERENCE)
    assert float(fit.tokens_at(1e22)) == pytest.approx(10 ** (slope * 22 + intercept), rel=TRUTH)


@pytest.mark.parametrize("scale", [0.2, 0.5, 2.0, 10.0])
def test_crossing_is_where_a_bisection_finds_it(scale: float) -> None:
    """Continuous root of law + penalty = law(C_f): the 800 budgets with linear interpolation come close."""
    law, under, over = law_fit(), np.geomspace(0.06, 0.04, 5), np.geomspace(0.05, 0.07, 5)
    fit = fit_overtraining(buckets(under, over, law), law, scales=[scale])
    C = np.geomspace(3e18, 3e20, 5)
    slope, intercept = np.polyfit(np.log10(C), np.log10((over if scale > 1 else under) * np.log10(scale) ** 2), 1)

    def excess(log_C: float) -> float:
        return float(law.loss_at(10**log_C) - law.loss_at(FORECAST) + 10 ** (slope * log_C + intercept))

    low, high = np.log10(FORECAST), 26.0
    assert excess(low) > 0 > excess(high)
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if excess(middle) > 0 else (low, middle)
    assert fit.scales[0].status is Status.FITTED
    assert np.log10(fit.scales[0].compute_equivalent) == pytest.approx(low, abs=1e-4)


def test_first_crossing_counts_where_the_penalty_grows() -> None:
    """Law plus a growing penalty falls and rises again: the curve meets the target twice."""
    law = law_fit()
    parabolas = buckets(0.1, np.geomspace(2e-6, 1e-4, 5), law)
    fit = fit_overtraining(parabolas, law, scales=[2.0])
    line = fit.scales[0]
    target = float(law.loss_at(FORECAST))
    crossings = np.flatnonzero((line.loss[:-1] > target) != (line.loss[1:] > target))
    assert len(crossings) == 2
    assert fit.compute[crossings[0]] <= line.compute_equivalent <= fit.compute[crossings[0] + 1]
    assert line.status is Status.FITTED


def test_constant_penalty_has_a_closed_form() -> None:
    law = law_fit()
    fit = fit_overtraining(buckets(0.05, 0.1, law), law, scales=[0.5, 2.0])
    for line, curvature in zip(fit.scales, (0.05, 0.1), strict=True):
        penalty = curvature * np.log10(2) ** 2
        np.testing.assert_allclose(line.loss, law.loss_at(fit.compute) + penalty, rtol=REFERENCE)
        exact = ((law.A * FORECAST**-law.alpha - penalty) / law.A) ** (-1 / law.alpha)
        assert line.compute_equivalent == pytest.approx(exact, rel=1e-4)
        assert line.overhead == pytest.approx(100 * (exact / FORECAST - 1), rel=1e-3)
        assert line.tokens_equivalent == pytest.approx(line.scale * 1e10 * (exact / 1e20) ** 0.52, rel=1e-4)
        assert line.overhead > 0


def test_optimal_training_costs_nothing() -> None:
    law = law_fit()
    for under in (0.05, -0.1):
        line = fit_overtraining(buckets(under, 0.1, law), law, scales=[1.0]).scales[0]
        assert line.overhead == pytest.approx(0.0, abs=0.01)
        assert line.overhead >= 0
        assert line.status is Status.FITTED


def test_a_bucket_without_a_minimum_has_no_cost_on_that_side() -> None:
    law = law_fit()
    fit = fit_overtraining(buckets(0.05, [0.1, 0.1, -0.01, 0.1, 0.1], law), law, scales=[0.5, 2.0, 4.0])
    assert [line.status for line in fit.scales] == [Status.FITTED, *[Status.CURVATURE_NOT_POSITIVE] * 2]
    assert [np.isnan(row["extra compute (%)"]) for row in fit.rows()] == [False, True, True]
    notices = StudyFit("x", overtraining=fit).notices()
    (notice,) = [each for each in notices if "times the optimal tokens" in each]
    assert notice.startswith("2, 4 times the optimal tokens: curvature not positive; ")


def test_says_when_no_budget_makes_up_for_it() -> None:
    law = law_fit()
    fit = fit_overtraining(buckets(1.0, 1.0, law), law, scales=[100.0])
    line = fit.scales[0]
    assert line.status is Status.NOT_REACHED
    assert np.all(line.loss > law.loss_at(FORECAST))
    assert line.compute_equivalent == pytest.approx(1000 * FORECAST, rel=ROUNDING)
    assert fit.rows()[0]["status"] == Status.NOT_REACHED.label


def test_the_order_of_buckets_and_the_other_scales_do_not_matter() -> None:
    law = law_fit()
    parabolas = buckets(np.linspace(0.05, 0.06, 5), np.linspace(0.1, 0.08, 5), law, noise=0.02)
    fit = fit_overtraining(parabolas, law, scales=[0.5, 2.0, 3.0])
    alone = fit_overtraining(parabolas[::-1], law, scales=[2.0])
    assert alone.token_slope == pytest.approx(fit.token_slope, rel=ROUNDING)
    np.testing.assert_allclose(alone.scales[0].loss, fit.scales[1].loss, rtol=ROUNDING)
    np.testing.assert_allclose(alone.scales[0].shifted_loss[::-1], fit.scales[1].shifted_loss, rtol=ROUNDING)
    assert alone.scales[0].compute_equivalent == pytest.approx(fit.scales[1].compute_equivalent, rel=REFERENCE)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"law": law_fit(status=Status.NO_GRID_VALUE_FITS)}, "law of 'suite' was not fitted"),
        ({"parabolas": 1}, "needs at least 2 fitted buckets, got 1"),
        ({"scales": [2.0, 0.0]}, "scales must be positive"),
        ({"scales": [-1.0]}, "scales must be positive"),
        ({"forecast_budget": 1e18}, r"forecast_budget 1e\+18 lies below the smallest bucket 3e\+18"),
    ],
)
def test_refuses_wrong_arguments(change: dict[str, Any], message: str) -> None:
    law = change.get("law", law_fit())
    parabolas = buckets(0.1, 0.1, law)[: change.get("parabolas", 5)]
    arguments = {name: value for name, value in change.items() if name in ("scales", "forecast_budget")}
    with pytest.raises(ValueError, match=message):
        fit_overtraining(parabolas, law, **arguments)
