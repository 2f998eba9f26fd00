"""The fit layer: tables in, results out, with every rule between the two."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from benchmarks import baseline
from delphi_jax.batch import asymptote_grid, pad, padded_length
from delphi_jax.definition import delphi
from delphi_jax.fit.downstream import fit_downstream
from delphi_jax.fit.isoflop import fit_isoflop
from delphi_jax.fit.study import PARTS, fit_held_out, fit_seeds, fit_study, focus_suite
from delphi_jax.fit.sweep import fit_sweep
from delphi_jax.results import StudyFit
from delphi_jax.status import Status
from delphi_jax.tables import EvalTable, ExternalTable, RunTable, Study, SweepTable, run_table
from delphi_jax.tasks import Task
from tests.delphi import ADAMC_SUITE, ADAMH_SUITE, HUMANEVAL, MMLU, SWEEP
from tests.tolerances import REFERENCE, TRUTH

FIELDS = {
    "isoflop": None,
    "laws": {},
    "shared_laws": {},
    "held_out": None,
    "bootstraps": {},
    "seeds": None,
    "overtraining": None,
    "downstream": (),
    "sweep": None,
}
NEEDS = {
    "laws": {"isoflop"},
    "shared_laws": {"isoflop"},
    "held_out": {"isoflop", "laws"},
    "bootstraps": {"isoflop", "laws"},
    "seeds": {"isoflop", "laws", "held_out"},
    "overtraining": {"isoflop", "laws"},
}


def objects(items: list[Any]) -> np.ndarray:
    out = np.empty(len(items), dtype=object)
    out[:] = items
    return out


def runs(rows: list[tuple[str, float, float, float, str | None]]) -> RunTable:
    """Runs from (name, tokens, loss, FLOPs, state); params follow from C = 6*N*T."""
    names, tokens, loss, compute, state = zip(*rows, strict=True)
    tokens, loss, compute = (np.array(column, dtype=float) for column in (tokens, loss, compute))
    columns = objects(list(names)), compute / (6 * tokens), tokens, loss, compute
    return run_table(*columns, labels={"state": objects(list(state))})[0]


def isoflop_rows(prefix: str = "nemo", budgets: tuple[float, ...] = (1e18, 1e19, 1e20), points: int = 5) -> list[Any]:
    rows = []
    for budget in budgets:
        best, lowest = np.log10(budget / 1e18) / 2 + 9, 1.5 + (budget / 1e18) ** -0.1
        for x in best + np.linspace(-0.4, 0.5, points):
            rows.append((f"{prefix}-{x:.2f}", 10**x, lowest + 0.2 * (x - best) ** 2, budget, "finished"))
    return rows


# Arrays


def test_padding_and_lengths() -> None:
    values, mask = pad([np.arange(3.0), np.empty(0), np.arange(9.0)])
    assert values.shape == mask.shape == (3, 16)
    assert mask.sum(axis=1).tolist() == [3, 0, 9]
    np.testing.assert_array_equal(values[mask], [*range(3), *range(9)])
    assert not values[~mask].any()
    assert [padded_length([n]) for n in (0, 1, 8, 9)] == [8, 8, 8, 16]
    assert padded_length([]) == 8


@pytest.mark.parametrize("smallest", [0.7, 1.0 / 3.0, 2.895485301, 1.05, 0.0])
def test_asymptote_grid_is_numpys_to_the_last_bit(smallest: float) -> None:
    for n in (2, 100, 400):
        np.testing.assert_array_equal(asymptote_grid(smallest, n), np.linspace(0, 0.95 * smallest, n))
        batch = asymptote_grid(np.array([smallest, 0.0, 5.1]), n)
        np.testing.assert_array_equal(batch[0], np.linspace(0, 0.95 * smallest, n))


# IsoFLOP


def test_unfinished_and_held_out_runs_take_no_part() -> None:
    rows = isoflop_rows()
    table = runs([*rows, ("nemo-crashed", 1e9, 99.0, 1e18, "crashed"), ("nemo-optimal", 1e9, 99.0, 1e18, "finished")])
    extended, plain = fit_isoflop(table), fit_isoflop(runs(rows))
    assert extended.rows() == plain.rows()
    assert [fit.bucket for fit in plain.parabolas] == [1e18, 1e19, 1e20]
    for fit in plain.parabolas:
        assert fit.status is Status.FITTED
        assert fit.a == pytest.approx(0.2, rel=1e-6)
        assert fit.tokens_star == pytest.approx(1e9 * np.sqrt(fit.bucket / 1e18), rel=1e-6)
        assert fit.params_star == pytest.approx(fit.bucket / (6 * fit.tokens_star), rel=1e-6)
        np.testing.assert_allclose(fit.loss_at(np.log10(fit.tokens)), fit.loss, rtol=TRUTH)


def test_a_group_that_is_too_small_is_kept_without_numbers() -> None:
    table = runs([*isoflop_rows(points=4), *isoflop_rows(budgets=(1e21,), points=2)])
    fit = fit_isoflop(table)
    last = fit.parabolas[-1]
    assert (last.bucket, last.status, len(last.loss)) == (1e21, Status.TOO_FEW_POINTS, 2)
    assert np.isnan([last.a, last.b, last.c, last.loss_star, last.tokens_star, last.params_star, last.score]).all()
    assert np.isnan([last.curvature_under, last.curvature_over]).all()
    assert fit.buckets[-1] == 1e21
    assert 1e21 not in fit.optima(ADAMC_SUITE)[0]


def test_one_side_without_runs_is_said() -> None:
    rows = [(f"nemo-{x}", 10**x, 3 + 0.2 * (x - 8.5) ** 2, 1e19, None) for x in (9.0, 9.4, 9.8, 10.0)]
    fit = fit_isoflop(runs(rows)).parabolas[0]
    assert fit.status is Status.CLIPPED_TO_EDGE
    assert fit.one_sided == (False, True)
    assert fit.curvature_under == fit.a
    assert fit.vertex_log_tokens == pytest.approx(8.5, rel=TRUTH)
    assert fit.tokens_star == pytest.approx(1e9, rel=TRUTH)


def test_no_runs_no_parabolas() -> None:
    table = runs([("nemo-optimal", 1e9, 3.0, 1e18, "finished")])
    assert fit_isoflop(table).parabolas == ()


# A whole study


def empty_study(table: RunTable) -> Study:
    return Study(table, None, {}, {}, (), (), "made up")


@pytest.mark.parametrize("part", PARTS)
def test_one_part_brings_what_it_needs_and_no_more(part: str, golden_study: Study, golden_fit: StudyFit) -> None:
    fit = fit_study(golden_study, parts=[part])
    wanted = {part} | NEEDS.get(part, set())
    assert set(PARTS) == set(FIELDS)
    for name, default in FIELDS.items():
        if name in wanted:
            alone, whole = getattr(fit, name), getattr(golden_fit, name)
            assert type(alone) is type(whole)
            if hasattr(alone, "to_json"):
                assert alone.to_json() == whole.to_json()
        else:
            assert getattr(fit, name) == default, name
    assert fit.missing == golden_study.missing


def test_unknown_parts_are_refused(golden_study: Study) -> None:
    with pytest.raises(ValueError, match=r"unknown parts \['parabolas'\], expected some of \['isoflop'"):
        fit_study(golden_study, parts=["laws", "parabolas"])


def test_study_counts_what_it_skips(golden_study: Study, golden_fit: StudyFit, golden_numbers: dict[str, Any]) -> None:
    used = sum(len(fit.loss) for fit in golden_fit.isoflop.parabolas)
    held_out = int(golden_study.runs.held_out.sum())
    unfinished = sum(part.count for part in golden_fit.skipped if "finish" in part.reason and part.table == "runs")
    assert used + held_out + unfinished == len(golden_study.runs) == golden_numbers["n_after_grid_match"]


def test_study_of_few_budgets_says_what_it_cannot() -> None:
    fit = fit_study(empty_study(runs(isoflop_rows(budgets=(1e19,)))), draws=10)
    assert fit.laws[ADAMC_SUITE].status is Status.TOO_FEW_POINTS
    assert fit.shared_laws[ADAMC_SUITE].status is Status.TOO_FEW_POINTS
    assert fit.bootstraps == {}
    assert fit.seeds is fit.overtraining is fit.sweep is None
    assert fit.downstream == ()
    two = fit_study(empty_study(runs(isoflop_rows(budgets=(1e19, 1e20)))), draws=10)
    assert two.laws[ADAMC_SUITE].fitted
    assert two.bootstraps[ADAMC_SUITE].status is Status.TOO_FEW_POINTS
    assert np.isnan(two.bootstraps[ADAMC_SUITE].intervals[0].median)
    assert two.overtraining is not None


def test_study_of_unfit_groups_says_so() -> None:
    small = fit_study(empty_study(runs(isoflop_rows(points=2))), draws=10)
    assert small.laws[ADAMC_SUITE].status is Status.NO_DATA
    assert small.shared_laws == {}
    rising = [
        (name, tokens, 8 - loss - 0.4 * (np.log10(tokens) - 9) ** 2, C, s)
        for name, tokens, loss, C, s in isoflop_rows()
    ]
    fit = fit_study(empty_study(runs(rising)), draws=10)
    assert {parabola.status for parabola in fit.isoflop.parabolas} == {Status.CURVATURE_NOT_POSITIVE}


def test_focus_is_adamh_where_it_has_a_law(golden_fit: StudyFit) -> None:
    assert focus_suite(golden_fit.laws, delphi()) == ADAMH_SUITE
    assert golden_fit.seeds.suite == golden_fit.overtraining.suite == ADAMH_SUITE
    others = {suite: law for suite, law in golden_fit.laws.items() if suite != ADAMH_SUITE}
    assert focus_suite(others, delphi()) == ADAMC_SUITE
    assert focus_suite({}, delphi()) is None


@pytest.mark.parametrize(("compute", "budget"), [(1.02e21, 1e21), (9.4e22, 1e23), (3.1e22, 1e22), (3.2e22, 1e23)])
def test_nominal_budget_is_the_nearest_power_of_ten(compute: float, budget: float) -> None:
    held_out = fit_held_out(runs([("nemo-optimal", 1e9, 3.0, compute, None)]), {})
    assert [run.budget for run in held_out.runs] == [budget]


def test_held_out_runs_beside_the_law(golden_study: Study, golden_fit: StudyFit) -> None:
    held_out = golden_fit.held_out
    table = golden_study.runs
    assert [run.name for run in held_out.runs] == table.name[table.held_out].tolist()
    for suite, law in golden_fit.laws.items():
        budgets, means = held_out.means(suite)
        assert (np.diff(budgets) > 0).all()
        for budget, mean, residual in zip(budgets, means, held_out.residuals(suite), strict=True):
            chosen = table.held_out & table.finished & (table.suite == suite)
            chosen &= np.round(np.log10(table.compute)) == np.log10(budget)
            assert mean == pytest.approx(table.loss[chosen].mean(), rel=REFERENCE)
            forecast = law.L_inf + law.A * budget**-law.alpha
            assert residual == pytest.approx(100 * (mean / forecast - 1), rel=1e-6)
        diverged = table.held_out & ~table.finished & (table.suite == suite)
        assert [run.name for run in held_out.diverged(suite)] == table.name[diverged].tolist()
    assert np.isnan(fit_held_out(table, {}).residuals(ADAMH_SUITE)).all()


def test_seeds_beside_the_interval(golden_fit: StudyFit) -> None:
    seeds = golden_fit.seeds
    assert [line.budget for line in seeds.budgets] == [1e21, 1e22, 1e23]
    for line, interval in zip(seeds.budgets, seeds.bootstrap.intervals, strict=True):
        runs = [run for run in golden_fit.held_out.runs if run.suite == seeds.suite and run.budget == line.budget]
        losses = {run.seed: run.loss for run in runs if run.finished}
        assert dict(zip(line.seeds, line.deviations, strict=True)) == pytest.approx(
            {seed: 100 * (loss / line.point_forecast - 1) for seed, loss in losses.items()}, rel=1e-6
        )
        assert line.low == pytest.approx(100 * (interval.low / line.point_forecast - 1), rel=1e-6)
        assert line.high == pytest.approx(100 * (interval.high / line.point_forecast - 1), rel=1e-6)
    with pytest.raises(ValueError, match=r"no forecast at 1e\+24 FLOPs"):
        fit_seeds(golden_fit.held_out, seeds.law, seeds.bootstrap, [1e24])


# Downstream


def evals(task: Task, n: int = 6, shots: tuple[int, ...] = (5,)) -> EvalTable:
    budget = np.tile(np.geomspace(1e18, 1e22, n), len(shots))
    soft = 0.3 + (budget / 1e18) ** -0.1
    hard = task.floor + 0.6 / (1 + np.exp(6 * (soft - 0.8)))
    return EvalTable(task, np.repeat(shots, n), budget, soft, hard)


def external(task: Task, n: int = 10, lowest: float = 0.35, steepness: float = 20.0) -> ExternalTable:
    soft = np.linspace(1.4, lowest, n)
    hard = task.floor + (0.85 - task.floor) / (1 + np.exp(steepness * (soft - 0.75)))
    return ExternalTable(task, objects([f"model {i}" for i in range(n)]), soft, hard)


def twin_asymptote(view: Any, task: Task, bounding: Any) -> dict[str, Any]:
    curve = view.richards
    parameters = {"k": curve.k, "x0": curve.x0, "v": curve.v, "K": curve.ceiling, "floor": curve.floor}
    return baseline.downstream_asymptote(parameters, task.n_problems, bounding)


@pytest.mark.parametrize(
    ("lowest", "steepness", "source"), [(0.35, 20, "inverted"), (0.01, 20, "clamped"), (0.35, 5, "clamped")]
)
def test_saturation_of_the_external_models_gives_the_asymptote(lowest: float, steepness: float, source: str) -> None:
    own, others = evals(MMLU, shots=(0, 5)), external(MMLU, lowest=lowest, steepness=steepness)
    views = fit_downstream({"mmlu": own}, {"mmlu": others}, delphi())
    assert [view.shot for view in views] == [0, 5]
    for view in views:
        expected = twin_asymptote(view, MMLU, np.concatenate([own.soft, others.soft]))
        assert view.asymptote_source == source == expected["branch"]
        assert view.law.L_inf == pytest.approx(expected["L_inf"], rel=REFERENCE)
        assert view.saturation == pytest.approx(-expected["saturation"], rel=REFERENCE)
        np.testing.assert_array_equal(view.richards.x, -others.soft)
        train = own.budget[own.shot == view.shot] < 5e20
        np.testing.assert_array_equal(view.train, train)
        expected_law = baseline.fit_pinned(view.budget[train], view.soft[train], view.law.L_inf)
        if expected_law is None:
            assert view.status is view.law.status is Status.NO_GRID_VALUE_FITS
            continue
        assert view.law.alpha == pytest.approx(expected_law["alpha"], rel=REFERENCE)
        assert view.forecast_soft == pytest.approx(float(baseline.predict_law(1e25, expected_law)), rel=REFERENCE)
        assert view.forecast_hard == pytest.approx(float(view.richards.predict(-view.forecast_soft)), rel=REFERENCE)


def test_mmlu_without_external_models_uses_its_own_train_rows() -> None:
    own = evals(MMLU, n=12)
    view = fit_downstream({"mmlu": own}, {}, delphi())[0]
    train = own.budget < 5e20
    np.testing.assert_array_equal(view.richards.x, -own.soft[train])
    assert view.external_names == ()
    assert view.law.L_inf <= own.soft.min()


def test_humaneval_pools_own_and_external_points_where_both_metrics_are_known() -> None:
    own, others = evals(HUMANEVAL), external(HUMANEVAL)
    own.hard[1], others.hard[2] = np.nan, np.nan
    view = fit_downstream({"humaneval": own}, {"humaneval": others}, delphi())[0]
    train = own.budget < 5e20
    soft, hard = np.concatenate([own.soft[train], others.soft]), np.concatenate([own.hard[train], others.hard])
    both = np.isfinite(hard)
    np.testing.assert_array_equal(view.richards.x, -soft[both])
    np.testing.assert_array_equal(view.richards.y, hard[both])
    expected = twin_asymptote(view, HUMANEVAL, soft[both])
    assert view.law.L_inf == pytest.approx(expected["L_inf"], rel=REFERENCE)


def test_humaneval_without_external_models_has_the_constant_asymptote() -> None:
    view = fit_downstream({"humaneval": evals(HUMANEVAL)}, {}, delphi())[0]
    assert (view.asymptote_source, view.law.L_inf, view.richards) == ("constant", 0.2, None)
    assert view.law.fitted
    assert view.status is Status.NO_CURVE
    assert np.isnan(view.forecast_hard) and np.isnan(view.saturation)


def test_humaneval_with_too_few_points_for_a_curve_takes_the_smallest_value() -> None:
    own, others = evals(HUMANEVAL), external(HUMANEVAL)
    own.hard[:], others.hard[:-3] = np.nan, np.nan
    view = fit_downstream({"humaneval": own}, {"humaneval": others}, delphi())[0]
    assert view.richards is None
    assert (view.asymptote_source, view.law.L_inf) == ("smallest", others.soft[-3:].min())
    assert not np.isfinite(view.forecast_hard)
    assert view.status is not Status.FITTED


def test_a_law_that_fails_leaves_a_status_and_no_forecast() -> None:
    own, others = evals(MMLU), external(MMLU)
    rising = dataclasses.replace(own, soft=own.soft[::-1].copy())
    view = fit_downstream({"mmlu": rising}, {"mmlu": others}, delphi())[0]
    assert view.status is view.law.status is Status.NO_GRID_VALUE_FITS
    assert np.isnan([view.forecast_soft, view.forecast_hard]).all()
    assert np.isnan(view.held_out_residuals()[2]).all()


def test_held_out_residuals_average_seeds() -> None:
    own = evals(HUMANEVAL, n=5)
    columns = {name: np.append(column, column[-1]) for name, column in vars(own).items() if name != "task"}
    doubled = dataclasses.replace(own, **columns)
    doubled.soft[-1] += 0.1
    view = fit_downstream({"humaneval": doubled}, {}, delphi(), forecast_budget=1e24)[0]
    budgets, means, residuals = view.held_out_residuals()
    assert budgets.tolist() == [1e21, 1e22]
    assert means[-1] == pytest.approx(own.soft[-1] + 0.05, rel=REFERENCE)
    law = view.law.L_inf + view.law.A * budgets**-view.law.alpha
    np.testing.assert_allclose(residuals, 100 * (means - law) / law, rtol=TRUTH)
    assert view.forecast_budget == 1e24
    assert view.forecast_soft == pytest.approx(view.law.L_inf + view.law.A * 1e24**-view.law.alpha, rel=REFERENCE)


def test_no_tables_no_views() -> None:
    assert fit_downstream({}, {}, delphi()) == ()


# Sweep


def test_sweep_cells_are_canonical_trimmed_and_gridded(golden_study: Study, golden_fit: StudyFit) -> None:
    sweep = golden_study.sweep
    cells = golden_fit.sweep.cells
    order = [(b, h, t) for b in (8, 16, 32, 64) for h in (256, 512) for t in ("1B", "2.5B", "5B")]
    assert [(cell.batch_size, cell.hidden_dim, cell.horizon) for cell in cells] == order
    assert sum(cell.n_finished for cell in cells) + sum(part.count for part in golden_fit.sweep.skipped) == len(sweep)
    for cell in cells:
        own = (sweep.batch_size == cell.batch_size) & (sweep.hidden_dim == cell.hidden_dim)
        own &= sweep.horizon == cell.horizon
        if not own.any():
            assert cell.status is Status.NO_DATA
            continue
        assert cell.loss_cap == pytest.approx(np.quantile(sweep.loss[own], 0.95), rel=REFERENCE)
        np.testing.assert_array_equal(cell.loss, sweep.loss[own][sweep.loss[own] <= cell.loss_cap])
        tokens = {"1B": 1e9, "2.5B": 2.5e9, "5B": 5e9}[cell.horizon]
        heuristic = baseline.heuristic_features(cell.batch_size, tokens)
        for j, curve in enumerate(cell.dependence):
            values = baseline.dependence_values(cell.features[:, j], heuristic[j])
            np.testing.assert_allclose(curve.grid, values, rtol=REFERENCE)
            assert curve.heuristic == pytest.approx(heuristic[j], rel=REFERENCE)
            column = cell.features[:, j]
            assert curve.heuristic_in_support == (column.min() <= heuristic[j] <= column.max())
            # The heuristic's own value lies on the curve, where the grid is fine enough to read it off.
            read = np.interp(curve.heuristic, curve.grid, curve.mean)
            assert curve.heuristic_mean == pytest.approx(read, rel=1e-4)


def test_trials_of_other_cells_are_counted() -> None:
    rng = np.random.default_rng(0)
    n = 12
    batch = np.array([8] * 9 + [128] * 2 + [8])
    hidden = np.array([256] * 11 + [1024])
    sweep = SweepTable(
        SWEEP, batch, hidden, objects(["1B"] * n), rng.uniform(0.1, 0.9, (n, 5)), loss=rng.normal(3, 0.1, n)
    )
    fit = fit_sweep(sweep)
    assert fit.cell(8, 256, "1B").n_finished == 9
    assert fit.cell(8, 256, "1B").fitted
    assert [(part.count, part.names) for part in fit.skipped] == [(3, ("trial 9", "trial 10", "trial 11"))]
    with pytest.raises(KeyError):
        fit.cell(128, 256, "1B")


def test_a_hyper_parameter_that_never_varies_is_no_trouble() -> None:
    rng = np.random.default_rng(0)
    features, eights = rng.uniform(0.1, 0.9, (20, 5)), np.full(20, 8)
    features[:, 3] = 0.9
    sweep = SweepTable(SWEEP, eights, 32 * eights, objects(["1B"] * 20), features, loss=rng.normal(3, 0.1, 20))
    cell = fit_sweep(sweep).cell(8, 256, "1B")
    assert cell.fitted
    for curve in cell.dependence:
        assert np.isfinite(curve.mean).all() and np.isfinite(curve.sd).all()
