"""Coverage of intervals: the counting, the simulated studies, and methods that are known to hold or to fail."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy import optimize, stats

import delphi_jax.fit.coverage as coverage_module
from delphi_jax.answers import draw_answer
from delphi_jax.export import document_json, to_plotly
from delphi_jax.fit.coverage import coverage_study, default_targets, tally_intervals
from delphi_jax.fit.intervals import StudyBatch, StudyIntervals, study_intervals
from delphi_jax.fit.isoflop import fit_isoflop
from delphi_jax.fit.law import fit_law
from delphi_jax.fit.truth import FlopsFactor, StudySimulator, law_truth, pooled_deviation, surface_truth
from delphi_jax.formulas import law_loss
from delphi_jax.labels import INTERVAL_KINDS, INTERVAL_METHODS, INTERVAL_NAMES
from delphi_jax.results import LawFit, ParabolaFit
from delphi_jax.results.coverage import CoverageFit, wilson_interval
from delphi_jax.results.surface import SurfaceFit, SurfaceObjective
from delphi_jax.status import Status
from delphi_jax.tables import RunTable, run_table
from tests.tolerances import REFERENCE, TRUTH

SUITE = "Unknown"
BUDGETS = np.array([3e18, 1e19, 3e19, 1e20, 3e20])
OFFSETS = np.linspace(-0.6, 0.6, 6)
L_INF, A, ALPHA = 1.5, 60.0, 0.085
CURVATURE = 0.15
SURFACE = {"E": 1.8, "A": 400.0, "B": 1500.0, "a": 0.34, "b": 0.37}
TARGETS = (1e20, 1e22)

SMALL = {"studies": 30, "draws": 40}
"""One size, so that programs are compiled once."""
QUICK = SMALL | {"methods": ["percentile", "student-t"]}
PINNED = SMALL | {"methods": ["student-t"]}


def optimal_x(compute: Any) -> Any:
    return 1.0 + 0.45 * np.log10(compute)


def runs_of(
    loss_of: Callable[..., np.ndarray], offsets: np.ndarray = OFFSETS, k_of: Callable[..., Any] = lambda params: 6.0
) -> RunTable:
    """Runs at ``offsets`` about the optimum of every budget, with C = k*N*D and a loss of (budget, N, D)."""
    budget = BUDGETS.repeat(len(offsets))
    tokens = 10 ** (optimal_x(budget) + np.tile(offsets, len(BUDGETS)))
    params = budget / (6 * tokens)
    tokens = budget / (k_of(params) * params)
    names = np.empty(len(budget), dtype=object)
    names[:] = [f"run {i}" for i in range(len(budget))]
    return run_table(names, params, tokens, loss_of(budget, params, tokens), budget)[0]


def bowl(budget: np.ndarray, params: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    return law_loss(budget, L_INF, A, ALPHA) + CURVATURE * (np.log10(tokens) - optimal_x(budget)) ** 2


@pytest.fixture(scope="module")
def runs() -> RunTable:
    return runs_of(bowl)


@pytest.fixture(scope="module")
def parabolas(runs: RunTable) -> tuple[ParabolaFit, ...]:
    return fit_isoflop(runs).of(SUITE)


@pytest.fixture(scope="module")
def law() -> LawFit:
    return LawFit(SUITE, "free", BUDGETS, law_loss(BUDGETS, L_INF, A, ALPHA), Status.FITTED, L_INF, A, ALPHA)


@pytest.fixture(scope="module")
def surface() -> SurfaceFit:
    empty = np.empty(0)
    return SurfaceFit(SUITE, empty, empty, empty, SurfaceObjective(), Status.FITTED, **SURFACE)


# Counting


def test_wilson_is_that_of_scipy() -> None:
    for trials in (1, 7, 1000):
        for hits in {0, 1, trials // 2, trials - 1, trials}:
            low, high = wilson_interval(hits, trials)
            expected = stats.binomtest(hits, trials).proportion_ci(0.95, method="wilson")
            np.testing.assert_allclose([low, high], expected, rtol=REFERENCE, atol=1e-15)
    assert np.isnan(wilson_interval(0, 0)).all()
    assert wilson_interval(0, 5)[0] == 0.0 and wilson_interval(5, 5)[1] == 1.0


def test_intervals_are_counted_by_hand() -> None:
    nan, inf = np.nan, np.inf
    # Four studies, one method, one target where the truth is 2; the third study has no interval, the fourth no end.
    low = np.array([1.9, 2.1, nan, 1.0]).reshape(4, 1, 1)
    high = np.array([2.1, 2.3, nan, inf]).reshape(4, 1, 1)
    point = np.array([2.0, 2.2, 1.8, 2.4]).reshape(4, 1, 1)
    status = np.array([Status.FITTED, Status.FITTED, Status.TOO_FEW_POINTS, Status.BOUND_HIT]).reshape(4, 1, 1)
    new = np.array([2.2, 2.2, 2.0, 0.5]).reshape(4, 1)
    tally = tally_intervals(low, point, point * nan, high, status, np.array([2.0]), {"new run": new})
    assert tally.with_interval.item() == 3
    assert {name: held.item() for name, held in tally.holds.items()} == {"law": 2, "new run": 1}
    counts = {status: count.item() for status, count in tally.study_status.items()}
    assert counts == {Status.FITTED: 2, Status.TOO_FEW_POINTS: 1, Status.BOUND_HIT: 1}
    # Widths are 10 %, 10 % and no end; biases 0, 10, -10 and 20 %.
    assert tally.width.item() == pytest.approx(10)
    assert tally.mean_width.item() == inf
    assert tally.bias.item() == pytest.approx(5)
    assert tally.bias_error.item() == pytest.approx(np.std([0, 10, -10, 20], ddof=1) / 2)
    assert np.isnan(tally.median_bias).all() and np.isnan(tally.median_bias_error).all()


def test_ends_count_as_inside() -> None:
    one = np.ones((1, 1, 1))
    tally = tally_intervals(
        2 * one, 2 * one, 2 * one, 2 * one, 0 * one, np.array([2.0]), {"new run": np.array([[2.0]])}
    )
    assert tally.holds["law"].item() == tally.holds["new run"].item() == 1
    assert np.isnan(tally.width_error).all() and np.isnan(tally.bias_error).all(), "one study tells no error"


def test_errors_of_widths_are_those_of_their_distribution() -> None:
    rng = np.random.default_rng(0)
    n, repeats = 400, 200
    widths = np.exp(rng.normal(0.0, 0.5, (repeats, n)))
    tallies = [tally_of_widths(each) for each in widths]
    medians, means = np.median(widths, axis=1), widths.mean(axis=1)
    np.testing.assert_allclose([tally.width.item() for tally in tallies], medians)
    np.testing.assert_allclose([tally.mean_width.item() for tally in tallies], means)
    # What the errors say on average, against how much medians and means vary from repeat to repeat.
    for name, values in (("width_error", medians), ("mean_width_error", means)):
        said = np.mean([getattr(tally, name).item() for tally in tallies])
        assert said == pytest.approx(np.std(values), rel=3 / np.sqrt(2 * repeats)), name


def tally_of_widths(widths: np.ndarray) -> Any:
    """Of a truth of 100, so that widths are percent."""
    low = np.full((len(widths), 1, 1), 100.0)
    high = low + widths[:, None, None]
    return tally_intervals(low, low, low, high, np.zeros_like(low), np.array([100.0]), {})


def coverage_of(hits: int, given: int, studies: int = 1000, level: float = 0.95) -> CoverageFit:
    """One method at one target."""
    one, number = np.ones((1, 1)), np.ones((1, 1), dtype=np.int64)
    return CoverageFit(
        series=SUITE,
        truth="law",
        method="free asymptote",
        truth_status=Status.FITTED,
        parameters={"L_inf": L_INF, "A": A, "alpha": ALPHA},
        status=Status.FITTED,
        buckets=BUDGETS,
        runs=np.full(5, 6),
        completed=np.empty(0),
        targets=np.array([1e22]),
        losses=np.array([2.0]),
        inside=np.array([False]),
        methods=("percentile",),
        kinds=("law",),
        noise=0.01,
        bucket_noise=0.0,
        noise_model="additive",
        noise_given=True,
        pinned=L_INF,
        studies=studies,
        draws=1000,
        seed=0,
        level=level,
        study_status={Status.FITTED: given * number, Status.TOO_FEW_POINTS: (studies - given) * number},
        with_interval=given * number,
        holds={"law": hits * number, "new optimum": 0 * number, "new run": 0 * number},
        width=one,
        width_error=one,
        mean_width=one,
        mean_width_error=one,
        bias=one,
        bias_error=one,
        median_bias=one,
        median_bias_error=one,
    )


def test_coverage_counts_all_studies_and_says_what_is_missing() -> None:
    fit = coverage_of(hits=760, given=800)
    assert fit.coverage.item() == 0.76 and fit.coverage_where_given.item() == 0.95
    assert fit.coverage_error.item() == pytest.approx(stats.binom(1000, 0.76).std() / 1000)
    (row,) = fit.rows()
    assert (row["coverage (%)"], row["where given (%)"], row["no interval"], row["verdict"]) == (76, 95, 200, "holds")
    (notice,) = fit.notices()
    assert "no interval at 1e22 FLOPs in 200 of 1000 studies (too few points: 200)" in notice
    none = coverage_of(hits=0, given=0)
    assert np.isnan(none.coverage_where_given).all() and none.coverage.item() == 0
    assert none.verdicts == (("",),)


def test_a_verdict_needs_more_than_monte_carlo_error() -> None:
    # The least and the most hits of 1000 that a 99.9 % Wilson interval still reconciles with 950, by SciPy's.
    def reconciled(hits: int) -> bool:
        ends = stats.binomtest(hits, 1000).proportion_ci(0.999, method="wilson")
        return ends.low <= 0.95 <= ends.high

    for hits in range(900, 1001):
        expected = "holds" if reconciled(hits) else "too narrow" if hits < 950 else "too wide"
        assert coverage_of(hits, 1000).verdicts == ((expected,),), hits


def test_json_holds_every_count() -> None:
    fit = coverage_of(hits=760, given=800)
    numbers = json.loads(fit.to_json())
    assert numbers["holds"] == {"law": [[760]], "new optimum": [[0]], "new run": [[0]]}
    assert numbers["study_status"] == {"fitted": [[800]], "too few points": [[200]]}
    assert (numbers["studies"], numbers["draws"], numbers["seed"], numbers["level"]) == (1000, 1000, 0, 0.95)


# Truths


def test_a_law_is_simulated_by_parabolas_about_it(parabolas: tuple[ParabolaFit, ...], law: LawFit) -> None:
    truth = law_truth(parabolas, law, np.array(TARGETS))
    for budget, x, losses in zip(BUDGETS, truth.x, truth.losses, strict=True):
        coefficients = np.polyfit(x, losses, 2)
        assert coefficients[0] == pytest.approx(CURVATURE, rel=TRUTH)
        vertex = -coefficients[1] / (2 * coefficients[0])
        assert vertex == pytest.approx(optimal_x(budget), rel=TRUTH)
        assert np.polyval(coefficients, vertex) == pytest.approx(law_loss(budget, L_INF, A, ALPHA), rel=TRUTH)
    np.testing.assert_allclose(truth.target_losses, law_loss(np.array(TARGETS), L_INF, A, ALPHA))
    np.testing.assert_allclose(truth.new_x, [OFFSETS] * 2, atol=TRUTH)
    np.testing.assert_allclose(
        truth.new_losses - truth.target_losses[:, None], [CURVATURE * OFFSETS**2] * 2, atol=TRUTH
    )
    assert not len(truth.completed)


def test_a_bucket_without_a_minimum_takes_the_other_ones(law: LawFit) -> None:
    def tilted(budget: np.ndarray, params: np.ndarray, tokens: np.ndarray) -> np.ndarray:
        curvature = np.array([0.1, np.nan, 0.15, 0.2, 0.4])[np.searchsorted(BUDGETS, budget)]
        aside = np.log10(tokens) - optimal_x(budget)
        return law_loss(budget, L_INF, A, ALPHA) + np.where(budget == BUDGETS[1], aside, curvature * aside**2)

    parabolas = fit_isoflop(runs_of(tilted)).of(SUITE)
    truth = law_truth(parabolas, law, np.array(TARGETS))
    np.testing.assert_array_equal(truth.completed, BUDGETS[[1]])
    expected = law_loss(BUDGETS[1], L_INF, A, ALPHA) + np.median([0.1, 0.15, 0.2, 0.4]) * OFFSETS**2
    np.testing.assert_allclose(truth.losses[1], expected, rtol=TRUTH)
    said = coverage_study(runs_of(tilted), law, TARGETS, noise=1e-3, **PINNED).notices()
    assert any("no minimum within its runs at 1e+19 FLOPs" in sentence for sentence in said)
    with pytest.raises(ValueError, match="fewer than 2 parabolas have their minimum within their runs"):
        law_truth([replace(fit, status=Status.CLIPPED_TO_EDGE) for fit in parabolas], law, np.array(TARGETS))


def surface_at(params: Any, tokens: Any) -> Any:
    return SURFACE["E"] + SURFACE["A"] / params ** SURFACE["a"] + SURFACE["B"] / tokens ** SURFACE["b"]


def rising_k(params: Any) -> Any:
    """FLOPs per parameter and token that grow with the model, as where embeddings cost nothing."""
    return 6.5 * (1 - 0.3 * (params / 6e7) ** -0.5)


@pytest.mark.parametrize("k_of", [lambda params: 6 + 0 * params, rising_k])
def test_the_truth_of_a_surface_is_its_lowest_loss(surface: SurfaceFit, k_of: Callable[..., Any]) -> None:
    runs = runs_of(bowl, k_of=k_of)
    parabolas = fit_isoflop(runs).of(SUITE)
    targets = np.array([*TARGETS, BUDGETS[-1]])
    truth = surface_truth(parabolas, surface, targets, FlopsFactor.of(runs))
    assert truth.parameters["k_min"] == pytest.approx(k_of(runs.params).min())
    assert truth.parameters["k_max"] == pytest.approx(k_of(runs.params).max())
    known = np.unique(runs.params)

    def loss_of(log_params: float, target: float) -> float:
        """Along C = k(N)*N*D, k between the runs' as log k goes with log N, and beyond the largest model as there."""
        log_k = np.interp(log_params, np.log(known), np.log(k_of(known)))
        return surface_at(np.exp(log_params), target / np.exp(log_k + log_params))

    for target, loss in zip(targets, truth.target_losses, strict=True):
        places = np.linspace(np.log(1e6), np.log(1e14), 20_001)
        best = places[np.argmin([loss_of(place, target) for place in places])]
        lowest = optimize.minimize_scalar(
            loss_of, bounds=(best - 2e-3, best + 2e-3), args=(target,), method="bounded", options={"xatol": 1e-10}
        )
        assert loss == pytest.approx(lowest.fun, rel=1e-12)
    for fit, losses in zip(parabolas, truth.losses, strict=True):
        np.testing.assert_allclose(losses, surface_at(fit.params, fit.tokens), rtol=REFERENCE)
    # A new bucket at the largest budget of the fit is that bucket.
    np.testing.assert_allclose(truth.new_losses[-1], truth.losses[-1], rtol=REFERENCE)
    np.testing.assert_allclose(np.diff(truth.new_x[-1]), np.diff(truth.x[-1]), rtol=REFERENCE)


def test_the_lowest_loss_of_one_k_is_the_closed_form(runs: RunTable, surface: SurfaceFit) -> None:
    truth = surface_truth(fit_isoflop(runs).of(SUITE), surface, np.array(TARGETS), FlopsFactor.of(runs))
    # Hoffmann et al. 2022, equation 4.
    E, A, B, a, b = SURFACE.values()
    G = (a * A / (b * B)) ** (1 / (a + b))
    N, D = G * (np.array(TARGETS) / 6) ** (b / (a + b)), (np.array(TARGETS) / 6) ** (a / (a + b)) / G
    np.testing.assert_allclose(truth.target_losses, E + A / N**a + B / D**b, rtol=1e-12)


def test_models_of_one_size_have_the_median_of_their_flops() -> None:
    runs = runs_of(bowl)
    same = np.full(len(runs), 1e9)
    k = np.where(np.arange(len(runs)) < 3, 60.0, 6.0)
    flops = FlopsFactor.of(replace(runs, params=same, compute=k * same * runs.tokens))
    np.testing.assert_allclose(flops.tokens(np.array([6e20]), np.array([1e8, 1e9])), [1e12, 1e11])


def test_a_surface_without_a_lowest_loss_is_refused(
    runs: RunTable, parabolas: tuple[ParabolaFit, ...], surface: SurfaceFit
) -> None:
    flat = replace(surface, A=0.0, a=np.nan)
    with pytest.raises(ValueError, match=r"does not depend on both parameters and tokens \(A = 0, B = 1500\)"):
        surface_truth(parabolas, flat, np.array(TARGETS), FlopsFactor.of(runs))


def test_the_noise_of_a_study_is_that_of_its_parabolas() -> None:
    rng = np.random.default_rng(3)
    noisy = runs_of(lambda *run: bowl(*run) + 0.004 * rng.standard_normal(len(run[0])))
    parabolas = fit_isoflop(noisy).of(SUITE)
    squares = {"additive": 0.0, "reducible": 0.0}
    for fit in parabolas:
        model = np.polyval(np.polyfit(np.log10(fit.tokens), fit.loss, 2), np.log10(fit.tokens))
        squares["additive"] += np.sum((fit.loss - model) ** 2)
        squares["reducible"] += np.sum(((fit.loss - model) / (model - L_INF)) ** 2)
    for noise_model, total in squares.items():
        expected = np.sqrt(total / (len(BUDGETS) * (len(OFFSETS) - 3)))
        assert pooled_deviation(parabolas, L_INF, noise_model) == pytest.approx(expected, rel=1e-7)
    three = fit_isoflop(runs_of(bowl, OFFSETS[[0, 2, 5]]))
    with pytest.raises(ValueError, match="no budget has more than 3 runs"):
        pooled_deviation(three.of(SUITE), L_INF, "additive")


# Simulated studies


@pytest.mark.parametrize("noise_model", ["additive", "reducible"])
def test_noise_is_normal_and_of_the_stated_size(
    parabolas: tuple[ParabolaFit, ...], law: LawFit, noise_model: str
) -> None:
    truth = law_truth(parabolas, law, np.array(TARGETS))
    simulator = StudySimulator(truth, noise=0.01, bucket_noise=0.0, noise_model=noise_model, seed=5)
    batch, optima, runs = simulator.studies(0, 2000)
    expected = np.stack(truth.losses)
    unit = expected - L_INF if noise_model == "reducible" else 1.0
    errors = (batch.loss[batch.mask].reshape(2000, *expected.shape) - expected) / (0.01 * unit)
    assert stats.kstest(errors.ravel(), "norm").pvalue > 0.01
    unit = truth.target_losses - L_INF if noise_model == "reducible" else 1.0
    assert stats.kstest(((runs - truth.target_losses) / (0.01 * unit)).ravel(), "norm").pvalue > 0.01
    # Errors of a study's runs, and of its targets, have nothing to do with one another.
    together = np.column_stack([errors.reshape(2000, -1), runs])
    correlation = np.corrcoef(together.T) - np.eye(together.shape[1])
    assert np.abs(correlation).max() < 5 / np.sqrt(2000)
    assert optima.shape == runs.shape == (2000, 2)


def test_runs_of_a_bucket_share_the_bucket_noise(parabolas: tuple[ParabolaFit, ...], law: LawFit) -> None:
    truth = law_truth(parabolas, law, np.array(TARGETS))
    simulator = StudySimulator(truth, noise=0.0, bucket_noise=0.02, noise_model="additive", seed=5)
    batch, optima, runs = simulator.studies(0, 500)
    errors = batch.loss[batch.mask].reshape(500, *np.stack(truth.losses).shape) - np.stack(truth.losses)
    np.testing.assert_allclose(errors - errors[:, :, :1], 0, atol=1e-14)
    # A new bucket's optimum and its run at the optimum are off by the same.
    np.testing.assert_allclose(optima, runs, rtol=TRUTH)
    shared = np.column_stack([errors[:, :, 0], runs - truth.target_losses]) / 0.02
    assert stats.kstest(shared.ravel(), "norm").pvalue > 0.01
    assert np.abs(np.corrcoef(shared.T) - np.eye(shared.shape[1])).max() < 5 / np.sqrt(500)


def test_a_study_depends_on_the_seed_and_its_number_alone(parabolas: tuple[ParabolaFit, ...], law: LawFit) -> None:
    def simulator(seed: int, targets: tuple[float, ...] = TARGETS) -> StudySimulator:
        return StudySimulator(law_truth(parabolas, law, np.array(targets)), 0.01, 0.005, "additive", seed)

    batch, optima, runs = simulator(7).studies(0, 10)
    part, part_optima, part_runs = simulator(7).studies(3, 4)
    np.testing.assert_array_equal(part.loss, batch.loss[3:7])
    np.testing.assert_allclose(part_optima, optima[3:7], rtol=1e-12)
    np.testing.assert_array_equal(part_runs, runs[3:7])
    np.testing.assert_array_equal(simulator(7, (1e23,)).studies(0, 10)[0].loss, batch.loss)
    assert not np.any(simulator(8).studies(0, 10)[0].loss[batch.mask] == batch.loss[batch.mask])


def test_noise_shares_no_numbers_with_the_draws(parabolas: tuple[ParabolaFit, ...], law: LawFit) -> None:
    """Of study 0 the draws' streams have the keys (1,) and (2,), and none."""
    truth = law_truth(parabolas, law, np.array(TARGETS))
    unit = StudySimulator(truth, 1.0, 0.0, "additive", 7).studies(0, 4)[0]
    noise = unit.loss[unit.mask] - np.tile(np.concatenate(truth.losses), 4)
    for key in ((), (0,), (1,), (2,), (3,)):
        drawn = np.random.default_rng(np.random.SeedSequence(7, spawn_key=key)).standard_normal(20)
        assert np.abs(noise - drawn[:, None]).min() > 1e-9


def test_a_new_optimum_is_that_of_a_parabola_through_new_runs(parabolas: tuple[ParabolaFit, ...], law: LawFit) -> None:
    truth = law_truth(parabolas, law, np.array(TARGETS))
    _, optima, _ = StudySimulator(truth, 0.01, 0.0, "additive", 0).studies(0, 4000)
    # Twin of its own noise: the spread of such optima, by NumPy.
    rng = np.random.default_rng(1)
    twins = []
    for _ in range(4000):
        a, b, c = np.polyfit(OFFSETS, CURVATURE * OFFSETS**2 + 0.01 * rng.standard_normal(len(OFFSETS)), 2)
        twins.append(np.polyval([a, b, c], np.clip(-b / (2 * a), OFFSETS.min(), OFFSETS.max())))
    for column in (optima - truth.target_losses).T:
        assert stats.ks_2samp(column, twins).pvalue > 0.01


# Whole coverage studies


def test_a_study_does_not_depend_on_batches(runs: RunTable, law: LawFit, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = coverage_study(runs, law, TARGETS, noise=0.01, **QUICK)
    monkeypatch.setattr(coverage_module, "_AT_ONCE", 7)
    done: list[tuple[int, int]] = []
    parts = coverage_study(runs, law, TARGETS, noise=0.01, progress=lambda *each: done.append(each), **QUICK)
    assert done == [(0, 30), (6, 30), (12, 30), (18, 30), (24, 30), (30, 30)]
    np.testing.assert_equal(_rounded(parts), _rounded(whole))
    other = coverage_study(runs, law, TARGETS, noise=0.01, seed=1, **QUICK)
    assert not np.any(other.bias == whole.bias)


def _rounded(fit: CoverageFit) -> Any:
    """All fields, but for the last digits of sums."""
    return json.loads(fit.to_json(), parse_float=lambda text: float(f"{float(text):.9e}"))


def test_studies_without_noise_are_without_error(runs: RunTable, law: LawFit) -> None:
    fit = coverage_study(runs, law, TARGETS, noise=0.0, **SMALL)
    assert np.all(np.abs(fit.bias) < 100 * TRUTH)
    assert fit.noise == 0 and fit.noise_given
    np.testing.assert_allclose(fit.losses, law_loss(np.array(TARGETS), L_INF, A, ALPHA))


def test_the_bias_of_the_parabola_shows_where_the_truth_is_a_surface(
    runs: RunTable, parabolas: tuple[ParabolaFit, ...], surface: SurfaceFit
) -> None:
    fit = coverage_study(runs, surface, TARGETS, noise=0.0, **PINNED)
    # By NumPy and SciPy: optima of the parabolas, and the pinned line through them.
    optima = []
    for bucket in parabolas:
        x = np.log10(bucket.tokens)
        a, b, c = np.polyfit(x, surface_at(bucket.params, bucket.tokens), 2)
        optima.append(np.polyval([a, b, c], np.clip(-b / (2 * a), x.min(), x.max())))
    line = stats.linregress(np.log(BUDGETS), np.log(np.array(optima) - SURFACE["E"]))
    forecast = SURFACE["E"] + np.exp(line.intercept + line.slope * np.log(TARGETS))
    expected = 100 * (forecast - fit.losses) / fit.losses
    assert np.all(np.abs(expected) > 0.005)
    np.testing.assert_allclose(fit.bias[0], expected, rtol=1e-6)
    assert fit.truth == "surface" and fit.pinned == SURFACE["E"]
    assert not any("C/(N*D)" in sentence for sentence in fit.notices())
    uneven = replace(fit, parameters=fit.parameters | {"k_min": 5.0})
    assert any("goes from 5 to 6: the lowest loss of its surface is no power law" in said for said in uneven.notices())


def exact_optima(n: int, seed: int, deviation: float = 0.01) -> StudyBatch:
    """Studies whose optima are a law with normal noise in log(L - L_inf): three runs on a parabola about each."""
    rng = np.random.default_rng(seed)
    log_gap = np.log(A) - ALPHA * np.log(BUDGETS) + deviation * rng.standard_normal((n, len(BUDGETS)))
    x = optimal_x(BUDGETS)[:, None] + np.array([-0.5, 0.0, 0.5])
    loss = (L_INF + np.exp(log_gap))[:, :, None] + CURVATURE * np.array([0.25, 0.0, 0.25])
    shape = loss.shape
    return StudyBatch(np.broadcast_to(x, shape), loss, np.ones(shape, bool), np.tile(np.log(BUDGETS), (n, 1)))


def test_student_t_holds_its_level_where_its_theory_does() -> None:
    n, targets = 2000, np.array([3e19, 1e22])
    found = study_intervals(exact_optima(n, 0), targets, methods=["student-t"], draws=1, pinned=L_INF)
    rng = np.random.default_rng(1)
    losses = law_loss(targets, L_INF, A, ALPHA)
    new = L_INF + (losses - L_INF) * np.exp(0.01 * rng.standard_normal((n, 2)))
    middle = found.point
    for share, holds in ((1.0, True), (0.5, False)):
        low, high = middle + share * (found.low - middle), middle + share * (found.high - middle)
        tally = tally_intervals(low, middle, middle, high, found.status, losses, {"new optimum": new})
        for hits in tally.holds["new optimum"].ravel():
            # Half a width is found out, the whole one is not: p-values of SciPy's exact binomial test.
            p = stats.binomtest(int(hits), n, 0.95).pvalue
            assert p > 0.001 if holds else p < 1e-6


def test_an_interval_that_is_too_narrow_is_found_out(
    runs: RunTable, law: LawFit, monkeypatch: pytest.MonkeyPatch
) -> None:
    def halved(*arguments: Any, **settings: Any) -> StudyIntervals:
        found = study_intervals(*arguments, **settings)
        ends = {name: found.point + (getattr(found, name) - found.point) / 2 for name in ("low", "high")}
        return found._replace(**ends)

    # Noise in proportion to loss - L_inf is what the method assumes.
    settings = {"methods": ["student-t"], "studies": 512, "noise": 0.003, "noise_model": "reducible"}
    honest = coverage_study(runs, law, TARGETS, **settings)
    assert honest.verdicts == (("holds", "holds"),)
    monkeypatch.setattr(coverage_module, "study_intervals", halved)
    narrow = coverage_study(runs, law, TARGETS, **settings)
    assert narrow.verdicts == (("too narrow", "too narrow"),)
    assert "intervals that are too narrow: student-t at 1e20, 1e22" in narrow.notices()
    np.testing.assert_allclose(narrow.width, honest.width / 2)


def test_what_has_no_interval_is_counted(runs: RunTable, law: LawFit, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing_every(number: int) -> Callable[..., StudyIntervals]:
        def intervals(*arguments: Any, **settings: Any) -> StudyIntervals:
            found = study_intervals(*arguments, **settings)
            failed = (np.arange(len(found.low)) % number == 0)[:, None, None]
            status = np.where(failed, Status.NOT_CONVERGED, found.status)
            return found._replace(low=np.where(failed, np.nan, found.low), status=status)

        return intervals

    settings = PINNED | {"noise": 0.01}
    monkeypatch.setattr(coverage_module, "study_intervals", failing_every(2))
    fit = coverage_study(runs, law, TARGETS, **settings)
    np.testing.assert_array_equal(fit.study_status[Status.NOT_CONVERGED], [[15, 15]])
    np.testing.assert_array_equal(fit.with_interval, [[15, 15]])
    assert np.all(fit.coverage <= 0.5) and fit.status is Status.FITTED
    monkeypatch.setattr(coverage_module, "study_intervals", failing_every(1))
    never = coverage_study(runs, law, TARGETS, **settings)
    assert never.status is Status.NOT_CONVERGED and not never.coverage.any()


def test_targets_lie_inside_and_beyond() -> None:
    targets = (1e21, 1e22, 1e23)
    assert default_targets(BUDGETS[::-1], targets) == (3e19, 3e20, *targets)
    assert default_targets([3e21], targets) == (3e21, 1e22, 1e23)
    assert default_targets([1e24, 1e25], targets) == (1e25,)


def test_every_method_is_tested_on_what_it_is_for(runs: RunTable, law: LawFit) -> None:
    fit = coverage_study(runs, law, TARGETS, noise=0.005, **SMALL)
    assert fit.methods == INTERVAL_METHODS
    assert fit.kinds == tuple(INTERVAL_KINDS.values())
    assert set(fit.kinds) <= set(fit.holds)
    assert len(fit.rows()) == len(INTERVAL_METHODS) * len(TARGETS)
    np.testing.assert_array_equal(fit.inside, [True, False])
    below = coverage_study(runs, law, [1e18, 3e18], noise=0.005, **PINNED)
    assert [row["side"] for row in below.rows()] == ["beyond", "inside"]
    total = sum(counts for counts in fit.study_status.values())
    np.testing.assert_array_equal(total, np.full(total.shape, 30))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"studies": 0}, "studies must be at least 1, got 0"),
        ({"draws": 0}, "draws must be .*, got 0"),
        ({"noise": -0.1}, "noise must be a finite standard deviation of at least 0, got -0.1"),
        ({"noise": np.nan}, "noise must be a finite standard deviation"),
        ({"bucket_noise": np.inf}, "bucket_noise must be a finite standard deviation"),
        ({"noise_model": "multiplicative"}, "noise_model must be one of additive, reducible, got 'multiplicative'"),
        ({"methods": ["percentile", "jackknife"]}, "methods must be some of .*, got percentile, jackknife"),
        ({"methods": []}, "methods must be some of .*, got none"),
        ({"level": 1.0}, "level must be between 0 and 1"),
        ({"targets": [1e20, 0.0]}, "targets must be finite positive budgets"),
        ({"targets": []}, "targets must be .* at least one"),
    ],
)
def test_bad_arguments_are_named(runs: RunTable, law: LawFit, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        coverage_study(runs, law, **SMALL | {"noise": 0.01, "targets": TARGETS} | settings)


def test_a_truth_must_be_fitted_and_of_the_study(runs: RunTable, law: LawFit) -> None:
    with pytest.raises(ValueError, match=r"Unknown: nothing to simulate from, .*\(too few points\)"):
        coverage_study(runs, fit_law(BUDGETS[:1], [3.0], series=SUITE))
    with pytest.raises(ValueError, match="elsewhere: there is no fitted IsoFLOP budget of that suite"):
        coverage_study(runs, replace(law, series="elsewhere"))


# Figures


@pytest.fixture(scope="module")
def drawn(runs: RunTable, law: LawFit) -> CoverageFit:
    return coverage_study(runs, replace(law, status=Status.BOUND_HIT), (3e19, 1e22), noise=0.01, **QUICK)


def test_the_figure_shows_what_was_counted(drawn: CoverageFit) -> None:
    drawing = draw_answer(drawn)
    assert not drawing.failed and not drawing.undrawn
    assert set(drawing.documents) == {"interval-coverage", "interval-coverage-mobile"}
    document = drawing.documents["interval-coverage"]
    *data, nominal = document["data"]
    left, right = data[::2], data[1::2]
    assert [trace["name"] for trace in left] == [INTERVAL_NAMES[method] for method in drawn.methods]
    low, high = drawn.coverage_range
    for m, (coverage, width) in enumerate(zip(left, right, strict=True)):
        np.testing.assert_allclose(coverage["y"], 100 * drawn.coverage[m])
        np.testing.assert_allclose(coverage["y"] + coverage["error_y"]["array"], 100 * high[m])
        np.testing.assert_allclose(coverage["y"] - coverage["error_y"]["arrayminus"], 100 * low[m])
        np.testing.assert_allclose(width["y"], drawn.width[m])
        # Beside its budget, but nearer to it than to any other.
        assert np.all(np.abs(np.log10(coverage["x"] / drawn.targets)) < 0.1)
        assert "bound hit" in coverage["hovertemplate"] and "%{text}" in coverage["hovertemplate"]
        assert f"for the {drawn.kinds[m]} at C=3e+19 FLOPs, inside the fit" in coverage["text"][0]
    assert nominal["name"] == "nominal 95%" and nominal["y"].tolist() == [95, 95]
    assert [3e20 < shape["x0"] < 1e22 for shape in document["layout"]["shapes"]] == [True, True]
    ticks = document["layout"]["yaxis2"]["tickvals"]
    assert ticks.min() <= drawn.width.min() and ticks.max() >= drawn.width.max()
    for each in drawing.documents.values():
        to_plotly(each)
        document_json(each)


def test_a_figure_of_nothing_says_why(drawn: CoverageFit) -> None:
    empty = replace(drawn, with_interval=0 * drawn.with_interval, status=Status.NOT_CONVERGED)
    drawing = draw_answer(empty)
    assert drawing.undrawn["interval-coverage"] == "no method gave an interval in any study (not converged)"
    inside = replace(drawn, targets=drawn.targets / 1e2)
    assert not draw_answer(inside).documents["interval-coverage"]["layout"]["shapes"]
    half = drawn.with_interval * np.array([[0], [1]])
    document = draw_answer(replace(drawn, with_interval=half)).documents["interval-coverage"]
    assert document["data"][0]["name"] == f"{INTERVAL_NAMES['percentile']}, no interval"
    assert np.isnan(document["data"][0]["y"]).all() and not np.isnan(document["data"][2]["y"]).any()
