"""Intervals of the two-step forecast: every draw against SciPy and the plain fit, the stated rate, and bad input."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from scipy.optimize import curve_fit

from benchmarks import baseline
from delphi_jax import load_study
from delphi_jax.answers import draw_answer
from delphi_jax.cli import main
from delphi_jax.definition import delphi
from delphi_jax.export import to_plotly
from delphi_jax.fit import downstream_intervals as part
from delphi_jax.fit.downstream import fit_downstream
from delphi_jax.fit.downstream_intervals import downstream_intervals
from delphi_jax.formulas import law_loss, richards, richards_inverse
from delphi_jax.kernels.precision import run_kernels_with
from delphi_jax.plots.downstream_intervals import build_downstream_intervals, build_downstream_intervals_mobile
from delphi_jax.plots.drawers import NothingToDraw
from delphi_jax.plots.emergence import build_mmlu_emergence
from delphi_jax.quantiles import least_draws
from delphi_jax.results.downstream import DownstreamFit, DownstreamInterval, DownstreamIntervals
from delphi_jax.status import Status
from delphi_jax.tables import EvalTable, ExternalTable
from delphi_jax.tasks import Task
from tests.delphi import GSM8K, HUMANEVAL, MMLU, TASKS
from tests.tolerances import REFERENCE

DATA = Path(__file__).resolve().parents[1] / "data"
CURVE = {"k": 20.0, "x0": -0.75, "v": 1.0, "ceiling": 0.9}
ALPHA = 0.1
TRAIN = np.array([3e18, 9e18, 2e19, 3e19, 9e19, 2e20, 3e20])
HELD_OUT = np.array([1e21, 1e22, 1e23])
FEW = 40
"""Draws: as many as level 0.95 needs."""
MANY = 200
VALLEY = {"rtol": 1e-5, "atol": 1e-6}
"""How far apart the ends of two searches of one flat valley may lie: their roundings differ."""

Tables = tuple[dict[str, EvalTable], dict[str, ExternalTable]]


def intervals(
    evals: dict[str, EvalTable], externals: dict[str, ExternalTable], *budgets: Any, **rest: Any
) -> DownstreamIntervals:
    return downstream_intervals(evals, externals, delphi(), *budgets, **rest)


def fits_of(evals: dict[str, EvalTable], externals: dict[str, ExternalTable]) -> tuple[DownstreamFit, ...]:
    return fit_downstream(evals, externals, delphi())


def saturation(task: Task) -> float:
    """The asymptote that the true curve implies."""
    return -float(richards_inverse(np.array(CURVE["ceiling"] - 1 / task.n_problems), floor=task.floor, **CURVE))


def truth(task: Task, compute: Any, alpha: float = ALPHA) -> tuple[np.ndarray, np.ndarray]:
    """Soft and hard metric without noise: 1.2 above the asymptote at 3e18 FLOPs."""
    soft = law_loss(np.asarray(compute, dtype=float), saturation(task), 1.2 * 3e18**alpha, alpha)
    return soft, richards(-soft, floor=task.floor, **CURVE)


def own_runs(
    task: Task,
    rng: np.random.Generator,
    train: np.ndarray = TRAIN,
    shots: tuple[int, ...] = (5,),
    alpha: float = ALPHA,
) -> EvalTable:
    budget = np.concatenate([train, HELD_OUT])
    n = len(budget)
    asymptote = saturation(task)
    soft = [asymptote + (truth(task, budget, alpha)[0] - asymptote) * np.exp(0.01 * rng.normal(size=n)) for _ in shots]
    hard = [richards(-values, floor=task.floor, **CURVE) + 0.003 * rng.normal(size=n) for values in soft]
    return EvalTable(task, np.repeat(shots, n), np.tile(budget, len(shots)), np.concatenate(soft), np.concatenate(hard))


def models(task: Task, rng: np.random.Generator, n: int = 14, noise: float = 0.01) -> ExternalTable:
    soft = rng.uniform(0.4, 1.1, n)
    hard = richards(-soft, floor=task.floor, **CURVE) + noise * rng.normal(size=n)
    return ExternalTable(task, np.array([f"Model {i}B" for i in range(n)], dtype=object), soft, hard)


def without_hard(table: EvalTable, *rows: int) -> EvalTable:
    hard = table.hard.copy()
    hard[list(rows) or slice(None)] = np.nan
    return dataclasses.replace(table, hard=hard)


def tables(seed: int = 0) -> Tables:
    """Every kind of task: curve from external models, from both, from own runs of two shot counts, and none."""
    rng = np.random.default_rng(seed)
    evals = {
        "mmlu": own_runs(MMLU, rng, shots=(0, 5)),
        "humaneval": without_hard(own_runs(HUMANEVAL, rng), 1, 4),
        "gsm8k": own_runs(GSM8K, rng),
    }
    return evals, {"mmlu": models(MMLU, rng), "humaneval": models(HUMANEVAL, rng)}


def indices(task: str, draws: int, sizes: tuple[int, int], seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The stated streams: one per task and table, runs first."""
    return tuple(
        np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(list(TASKS).index(task), table))).integers(
            0, size, size=(draws, size)
        )
        for table, size in enumerate(sizes)
    )


def resampled(own: EvalTable, external: ExternalTable | None, runs: Any, picked: Any) -> Tables:
    """The tables of one draw: run ``runs[i]`` at every shot count, the held-out runs, and the ``picked`` models."""
    rows = []
    for shot in np.unique(own.shot):
        of_shot = np.flatnonzero(own.shot == shot)
        train = of_shot[own.budget[of_shot] < 5e20]
        rows += [*train[runs], *of_shot[own.budget[of_shot] >= 5e20]]
    drawn = rows_of(own, rows)
    return {"task": drawn}, {} if external is None else {"task": rows_of(external, picked)}


def rows_of(table: Any, rows: Any) -> Any:
    """The same table with just these ``rows`` of every column."""
    columns = {name: column[rows] for name, column in vars(table).items() if name != "task"}
    return dataclasses.replace(table, **columns)


def fitted_curve(x: np.ndarray, y: np.ndarray, floor: float) -> dict[str, float]:
    """SciPy's bounded least squares from several starts: the best end."""
    lower, upper = [0.1, x.min() - 2, 0.1, floor + 0.05], [50.0, x.max() + 2, 20.0, 1.0]
    best: dict[str, float] = {"sse": np.inf}
    for k, v in ((5.0, 1.0), (20.0, 1.0), (20.0, 0.3), (10.0, 4.0)):
        try:
            ends, _ = curve_fit(
                lambda x, *theta: baseline.richards(x, *theta, floor),
                x,
                y,
                p0=[k, np.median(x), v, 0.9],
                bounds=(lower, upper),
                maxfev=20000,
                xtol=1e-14,
                ftol=1e-14,
                gtol=1e-14,
            )
        except RuntimeError:  # out of evaluations
            continue
        sse = float(np.sum((y - baseline.richards(x, *ends, floor)) ** 2))
        if sse < best["sse"]:
            best = {**dict(zip(("k", "x0", "v", "K"), ends.tolist(), strict=True)), "floor": floor, "sse": sse}
    return best


# Every draw


def test_draws_are_those_of_a_plain_loop() -> None:
    evals, externals = tables()
    found = intervals(evals, externals, [1e24], draws=FEW, seed=3)
    compared = 0
    for view in found.views:
        task, own = view.fit.task, evals[view.fit.task.key]
        external = externals.get(task.key)
        if external is None:
            continue
        n_runs = int(np.sum((own.shot == own.shot[0]) & (own.budget < 5e20)))
        runs, picked = indices(task.key, FEW, (n_runs, len(external.soft)), seed=3)
        for draw in range(3):
            (own_drawn,), (ext,) = (part.values() for part in resampled(own, external, runs[draw], picked[draw]))
            train = own_drawn.budget < 5e20
            soft, hard, seen = ext.soft, ext.hard, np.concatenate([own_drawn.soft, ext.soft])
            if task is not MMLU:
                known = train & np.isfinite(own_drawn.hard)
                soft = seen = np.concatenate([own_drawn.soft[known], ext.soft])
                hard = np.concatenate([own_drawn.hard[known], ext.hard])
            curve = fitted_curve(-soft, hard, task.floor)
            L_inf = baseline.downstream_asymptote(curve, task.n_problems, seen)["L_inf"]
            rows = train & (own_drawn.shot == view.fit.shot)
            law = baseline.fit_pinned(own_drawn.budget[rows], own_drawn.soft[rows], L_inf)
            expected = baseline.predict_law(view.budgets, law)
            np.testing.assert_allclose(view.soft_draws[draw], expected, rtol=1e-4)
            curve.pop("sse")
            # In the gaps of a resample a steep curve is free: SciPy stops on its way to the bounds.
            np.testing.assert_allclose(
                view.hard_draws[draw], baseline.richards(-expected, **curve), rtol=1e-4, atol=1e-4
            )
            compared += 1
    assert compared == 9


def scenarios() -> dict[str, tuple[str, EvalTable, ExternalTable | None]]:
    rng = np.random.default_rng(7)
    few = models(HUMANEVAL, rng, 5)
    few.hard[2:] = np.nan
    # It saturates beyond all that was seen, which a held-out run bounds.
    late = models(MMLU, rng)
    late.hard[:] = richards(-late.soft, floor=0.25, **(CURVE | {"k": 12.0})) + 0.003 * rng.normal(size=14)
    return {
        "held-out bound": ("mmlu", own_runs(MMLU, rng, shots=(0, 5), alpha=0.35), late),
        "models": ("mmlu", own_runs(MMLU, rng, shots=(0, 5)), models(MMLU, rng)),
        "own runs": ("mmlu", own_runs(MMLU, rng, np.geomspace(3e18, 4.9e20, 9), (0, 5), 0.35), None),
        "both": ("humaneval", without_hard(own_runs(HUMANEVAL, rng), 1, 4), models(HUMANEVAL, rng)),
        "too few for a curve": ("humaneval", without_hard(own_runs(HUMANEVAL, rng)), few),
        "no models": ("gsm8k", own_runs(GSM8K, rng), None),
    }


@pytest.mark.parametrize("name", list(scenarios()))
def test_a_draw_is_the_fit_of_its_tables(name: str) -> None:
    """By the rules of the published forecast, in each of their branches."""
    key, own, external = scenarios()[name]
    given = {} if external is None else {key: external}
    found = intervals({key: own}, given, draws=FEW)
    n_runs = int(np.sum((own.shot == own.shot[0]) & (own.budget < 5e20)))
    used = 0 if external is None else len(external.soft) if name != "too few for a curve" else 2
    runs, picked = indices(key, FEW, (n_runs, used), seed=0)
    for draw in range(8):
        evals, externals = resampled(own, external, runs[draw], picked[draw])
        fits = fits_of({key: evals["task"]}, {key: externals["task"]} if externals else {})
        for view, fit in zip(found.views, fits, strict=True):
            place = view.budgets.tolist().index(fit.forecast_budget)
            drawn = view.soft_draws[draw, place], view.hard_draws[draw, place]
            if view.fit.richards is not None and not fit.richards.fitted:
                assert np.isnan(drawn).all()
                continue
            np.testing.assert_allclose(drawn, (fit.forecast_soft, fit.forecast_hard), **VALLEY)
    assert found.views[0].has_soft


def test_every_row_once_is_the_forecast_of_all_points(monkeypatch: pytest.MonkeyPatch, golden_study: Any) -> None:
    def once(task: Any, draws: int, seed: int) -> Iterator[Any]:
        yield np.tile(task.runs, (draws, 1, 1)), np.tile(task.models, (draws, 1))

    monkeypatch.setattr(part, "_resamples", once)
    for evals, externals in (tables(), (golden_study.evals, golden_study.externals)):
        for view in intervals(evals, externals, draws=FEW).views:
            np.testing.assert_allclose(view.soft_draws, np.tile(view.forecast_soft, (FEW, 1)), **VALLEY)
            np.testing.assert_allclose(view.hard_draws, np.tile(view.forecast_hard, (FEW, 1)), **VALLEY)
            np.testing.assert_allclose(view.hard.median, view.forecast_hard, **VALLEY)


def test_the_order_of_rows_moves_no_forecast() -> None:
    evals, externals = tables()
    rng = np.random.default_rng(1)
    orders = {key: rng.permutation(len(table.soft)) for key, table in externals.items()}
    shuffled = {key: rows_of(table, orders[key]) for key, table in externals.items()}
    before, after = intervals(evals, externals, draws=FEW), intervals(evals, shuffled, draws=FEW)
    for one, other in zip(before.views, after.views, strict=True):
        np.testing.assert_allclose(other.forecast_soft, one.forecast_soft, **VALLEY)
        np.testing.assert_allclose(other.forecast_hard, one.forecast_hard, **VALLEY)
        assert (np.any(other.soft_draws != one.soft_draws)) is np.bool_(one.fit.task.key in externals)


def test_shot_counts_share_their_runs() -> None:
    """Two shot counts with the same numbers, two seeds a budget, have the same draws."""
    evals, externals = tables()
    five = evals["mmlu"]
    five = rows_of(five, five.shot == 5)
    seeds = rows_of(five, np.repeat(np.arange(len(five.soft)), 2))
    seeds.soft[::2] *= 1.01
    both = rows_of(seeds, np.tile(np.arange(len(seeds.soft)), 2))
    both.shot[: len(seeds.soft)] = 0
    zero, other = intervals({"mmlu": both}, externals, draws=FEW).views
    assert (zero.fit.shot, other.fit.shot, zero.runs) == (0, 5, 14)
    np.testing.assert_allclose(zero.soft_draws, other.soft_draws, rtol=1e-12)


def assert_same(one: DownstreamInterval, other: DownstreamInterval) -> None:
    for name in ("soft_draws", "hard_draws"):
        np.testing.assert_allclose(getattr(other, name), getattr(one, name), **VALLEY)
    for name in ("soft", "hard", "law_band", "curve_band"):
        bands = [dataclasses.astuple(getattr(view, name)) for view in (one, other)]
        np.testing.assert_allclose(*bands, **VALLEY)


def test_a_task_has_the_same_numbers_without_the_others() -> None:
    evals, externals = tables()
    together = intervals(evals, externals, draws=FEW, seed=5)
    apart = [view for key in evals for view in intervals({key: evals[key]}, externals, draws=FEW, seed=5).views]
    for one, other in zip(together.views, apart, strict=True):
        assert_same(one, other)


def test_blocks_of_draws_are_the_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = intervals(*tables(), draws=2 * FEW)
    monkeypatch.setattr(part, "_BLOCK", FEW)
    monkeypatch.setattr(part, "_NUMBERS_IN_MEMORY", 3 * FEW)
    for one, other in zip(whole.views, intervals(*tables(), draws=2 * FEW).views, strict=True):
        assert_same(one, other)


# What the intervals say


def test_percentiles_of_the_draws_that_were_not_skipped() -> None:
    evals, externals = tables()
    for view in intervals(evals, externals, draws=60, level=0.8).views:
        fitted = np.isfinite(view.soft_draws[:, 0])
        assert view.used == np.count_nonzero(fitted)
        np.testing.assert_allclose(
            dataclasses.astuple(view.soft), np.percentile(view.soft_draws[fitted], [10, 50, 90], axis=0), rtol=1e-12
        )
        if view.has_hard:
            np.testing.assert_allclose(
                dataclasses.astuple(view.hard), np.percentile(view.hard_draws[fitted], [10, 50, 90], axis=0), rtol=1e-12
            )
        # The band of the law passes through the intervals: its last place is the last budget.
        ends = [line[-1] for line in dataclasses.astuple(view.law_band)]
        np.testing.assert_allclose(ends, [line[-1] for line in dataclasses.astuple(view.soft)], rtol=1e-12)
        np.testing.assert_allclose(view.law_compute[[0, -1]], [3e18, 1e25], rtol=1e-12)


def test_the_truth_lies_inside_at_the_stated_rate() -> None:
    studies, draws = 50, 100
    inside = {0.9: np.zeros((studies, 2)), 0.5: np.zeros((studies, 2))}
    soft, hard = truth(MMLU, 1e25)
    for seed in range(studies):
        rng = np.random.default_rng(seed)
        own, external = own_runs(MMLU, rng, np.geomspace(3e18, 4e20, 14)), models(MMLU, rng, 16)
        (view,) = intervals({"mmlu": own}, {"mmlu": external}, draws=draws, seed=seed).views
        for level, hits in inside.items():
            ends = 50 * (1 - level), 50 * (1 + level)
            for place, (values, true) in enumerate(((view.soft_draws, soft), (view.hard_draws, hard))):
                low, high = np.nanpercentile(values[:, -1], ends)
                hits[seed, place] = low <= true <= high
    # Three binomial standard deviations of 50 studies about the nominal rate.
    for level, hits in inside.items():
        margin = 3 * np.sqrt(level * (1 - level) / studies)
        assert np.all(np.abs(hits.mean(axis=0) - level) <= margin), (level, hits.mean(axis=0))


def test_observations_are_means_over_held_out_runs() -> None:
    rng = np.random.default_rng(0)
    own = own_runs(HUMANEVAL, rng)
    twice = rows_of(own, [*range(len(own.soft)), -2, -1])
    twice.soft[-2:] += 0.1
    twice.hard[-1] = np.nan
    (view,) = intervals({"humaneval": twice}, {"humaneval": models(HUMANEVAL, rng)}, [1e24, 1e23], draws=FEW).views
    assert view.budgets.tolist() == [1e21, 1e22, 1e23, 1e24, 1e25]
    np.testing.assert_allclose(
        view.observed_soft, [own.soft[-3], own.soft[-2] + 0.05, own.soft[-1] + 0.05, np.nan, np.nan], rtol=REFERENCE
    )
    np.testing.assert_allclose(view.observed_hard, [*own.hard[-3:], np.nan, np.nan], rtol=REFERENCE)
    rows = view.rows()
    assert [row["metric"] for row in rows[:2]] == ["bits/byte", "pass@1"]
    for row, place in zip(rows, np.repeat(range(5), 2), strict=True):
        observed = row["observed"]
        assert row["budget (FLOPs)"] == view.budgets[place]
        if np.isnan(observed):
            assert row["inside"] == ""
        else:
            assert (row["inside"] == "yes") is bool(row["2.5 %"] <= observed <= row["97.5 %"])
    assert {row["inside"] for row in rows} == {"yes", "no", ""}


# What the data cannot support


def view_of(
    key: str, own: EvalTable, external: ExternalTable | None = None, draws: int = FEW, **rest: Any
) -> DownstreamInterval:
    found = intervals({key: own}, {} if external is None else {key: external}, draws=draws, **rest)
    json.loads(found.to_json())
    return found.views[0]


def test_a_task_without_a_curve_has_a_soft_interval_alone() -> None:
    rng = np.random.default_rng(0)
    few = models(HUMANEVAL, rng, 3)
    for own, external in ((own_runs(GSM8K, rng), None), (without_hard(own_runs(GSM8K, rng)), few)):
        view = view_of("gsm8k", own, external)
        assert view.status is Status.NO_CURVE
        assert view.has_soft and not view.has_hard
        assert np.isnan(view.hard.low).all() and np.isnan(view.curve_band.low).all() and np.isnan(view.hard_draws).all()
        assert [row["status"] for row in view.rows()[:2]] == ["fitted", "no curve"]
        assert "no curve" in view.notices()[0]
        assert view.used == FEW and view.bound_share == 0


@pytest.mark.parametrize("n", [1, 2])
def test_as_few_runs_as_parameters_tell_no_interval(n: int) -> None:
    """All resamples of two runs give one law: what is left would be the scatter of the models alone."""
    rng = np.random.default_rng(0)
    view = view_of("mmlu", own_runs(MMLU, rng, TRAIN[:n]), models(MMLU, rng, 8), MANY)
    assert n == 1 or view.used > FEW
    assert view.status is Status.TOO_FEW_POINTS
    assert not view.has_soft and not view.has_hard
    assert all(np.isnan([row["2.5 %"], row["97.5 %"]]).all() for row in view.rows())


def test_as_few_models_as_parameters_tell_no_interval() -> None:
    rng = np.random.default_rng(0)
    own = own_runs(MMLU, rng)
    four, five = (models(MMLU, np.random.default_rng(2), n) for n in (4, 5))
    view = view_of("mmlu", own, four, MANY, level=0.8)
    assert view.used > least_draws(0.8)
    assert view.fit.richards.fitted and view.status is Status.TOO_FEW_POINTS
    assert not view.has_soft and not view.has_hard and np.isfinite(view.forecast_hard).all()
    view = view_of("mmlu", own, five, draws=MANY)
    # Exactly: 1 - P(at least 4 distinct of 5) = 1 - 5!/5**5 - 10*5*4!/5**5.
    assert view.skipped["curve, too few points"] / MANY == pytest.approx(1 - 1320 / 3125, abs=0.1)
    assert view.has_hard and view.used == MANY - sum(view.skipped.values())
    assert any("draws were skipped (curve, too few points" in sentence for sentence in view.notices())
    view = view_of("mmlu", own, models(MMLU, rng, 3))
    assert not view.fit.richards.fitted and view.status is Status.TOO_FEW_POINTS and view.has_soft


def test_too_few_draws_left_for_the_tails() -> None:
    rng = np.random.default_rng(0)
    view = view_of("mmlu", own_runs(MMLU, rng), models(MMLU, np.random.default_rng(2), 5), MANY, level=0.985)
    assert view.used < least_draws(0.985) < MANY == view.draws
    assert view.status is Status.TOO_FEW_POINTS
    assert not view.has_soft


def test_a_law_that_is_no_fit_has_no_interval() -> None:
    rng = np.random.default_rng(0)
    own = own_runs(MMLU, rng)
    rising = dataclasses.replace(own, soft=own.soft[::-1].copy())
    view = view_of("mmlu", rising, models(MMLU, rng))
    assert view.status is view.fit.law.status is Status.NO_GRID_VALUE_FITS
    assert not view.has_soft and not view.has_hard
    assert view.skipped["law, no fit"] > FEW / 2
    empty = view_of("mmlu", own_runs(MMLU, rng, TRAIN[:0]), models(MMLU, rng))
    assert empty.status is Status.NO_DATA and not empty.has_soft


def test_curves_on_a_bound_are_counted_and_said() -> None:
    """The models end half-way up: many resamples leave the ceiling on its bound."""
    rng = np.random.default_rng(4)
    low = np.linspace(0.8, 1.1, 8)
    hard = richards(-low, floor=0.25, **CURVE) + 0.02 * rng.normal(size=8)
    external = ExternalTable(MMLU, np.array(["model"] * 8, dtype=object), low, hard)
    view = view_of("mmlu", own_runs(MMLU, rng), external, MANY)
    assert view.bound_share > 0.1
    assert max(view.on_bound.values()) <= view.bound_draws <= sum(view.on_bound.values())
    assert any("lie on a bound" in sentence for sentence in view.notices())
    assert view.rows()[0]["curve on a bound (%)"] == pytest.approx(100 * view.bound_draws / view.used)


def test_clamped_asymptotes_are_said_where_they_set_an_end() -> None:
    rng = np.random.default_rng(0)
    view = view_of("mmlu", own_runs(MMLU, rng), models(MMLU, rng))
    for share, said in ((0.1, False), (0.2, True)):
        clamped = int(share * view.used)
        sentences = dataclasses.replace(view, clamped=clamped).notices()
        words = f"in {100 * clamped / view.used:.3g} % of the draws the asymptote is the smallest value seen"
        assert any(words in sentence for sentence in sentences) is said


def test_no_tables_no_views() -> None:
    found = intervals({}, {})
    assert (found.views, found.rows(), found.notices()) == ((), [], [])
    with pytest.raises(NothingToDraw, match="no downstream evaluations"):
        build_downstream_intervals(found)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"draws": 39}, "at level 0.95 needs at least 40 draws, got 39"),
        ({"level": 0.99}, "at level 0.99 needs at least 200 draws"),
        ({"level": 1.0}, "level must lie strictly between 0 and 1"),
        ({"seed": -1}, "seed must be at least 0"),
        ({"budgets": [1e24, -1.0]}, "finite positive"),
        ({"forecast_budget": float("inf")}, "finite positive"),
    ],
)
def test_refuses_wrong_arguments(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        intervals({}, {}, **{"draws": 100} | change)
    assert [least_draws(level) for level in (0.5, 0.9, 0.95, 0.999)] == [4, 20, 40, 2000]


# The figure


@pytest.fixture(scope="module")
def found() -> DownstreamIntervals:
    return intervals(*tables(), [1e24], draws=60)


def buttons(document: dict[str, Any]) -> dict[str, list[Any]]:
    (menu,) = document["layout"]["updatemenus"]
    return {button["label"]: button["args"] for button in menu["buttons"]}


def assert_finite(document: dict[str, Any]) -> None:
    for trace in document["data"]:
        for values in (
            trace["x"],
            trace["y"],
            *(trace.get(bar, {}).get("array", []) for bar in ("error_x", "error_y")),
        ):
            assert all(value is None or np.isfinite(value) for value in values), trace["name"]


def test_the_published_traces_stand_unchanged_between_bands_and_bars(found: DownstreamIntervals) -> None:
    plain, document = (
        build_mmlu_emergence([view.fit for view in found.views], delphi().tasks),
        build_downstream_intervals(found),
    )
    assert list(buttons(document)) == list(buttons(plain))
    for label, (restyle, _) in buttons(document).items():
        drawn = [trace for trace, on in zip(document["data"], restyle["visible"], strict=True) if on]
        kept = [trace for trace, on in zip(plain["data"], buttons(plain)[label][0]["visible"], strict=True) if on]
        added = ["95% interval" in trace.get("name", "") for trace in drawn]
        names = [trace.get("name") for trace, new in zip(drawn, added, strict=True) if not new]
        assert names == [trace.get("name") for trace in kept]
        # Bands lie below all points, bars above.
        assert added == sorted(added[:4], reverse=True) + added[4:-4] + sorted(added[-4:])
        assert any(added[:4]) and any(added[-4:]) and not any(added[4:-4])
        assert {trace["legendgroup"] for trace in drawn} == {label, "external"} or label.startswith("GSM8K")


def test_bands_and_bars_are_the_intervals(found: DownstreamIntervals) -> None:
    document = build_downstream_intervals(found)
    for view in found.views:
        shown = [trace for trace in document["data"] if trace["legendgroup"] == view.name]
        low, high, *right = [trace for trace in shown if "(runs and models resampled)" in trace.get("name", "")]
        np.testing.assert_array_equal(low["y"], view.law_band.low)
        np.testing.assert_array_equal(high["y"], view.law_band.high)
        assert high["fill"] == "tonexty" and low["xaxis"] == high["xaxis"] == "x"
        assert len(right) == (2 if view.has_hard else 0)
        if right:
            np.testing.assert_array_equal(right[0]["y"], view.curve_band.low)
            np.testing.assert_array_equal(right[1]["y"], view.curve_band.high)
        bars = [trace for trace in shown if "error_y" in trace]
        assert len(bars) == (4 if view.has_hard else 2)
        for trace in bars:
            # A bar about each median, from end to end.
            band = view.soft if trace["xaxis"] == "x" else view.hard
            places = [np.flatnonzero(band.median == value)[0] for value in trace["y"]]
            np.testing.assert_allclose(
                trace["y"] + trace["error_y"]["array"], band.high[places], rtol=1e-12, atol=1e-12
            )
            np.testing.assert_allclose(
                trace["y"] - trace["error_y"]["arrayminus"], band.low[places], rtol=1e-12, atol=1e-12
            )
            if trace["xaxis"] == "x2":
                np.testing.assert_allclose(
                    trace["x"] + trace["error_x"]["array"], view.soft.high[places], rtol=1e-12, atol=1e-12
                )


def test_every_interval_lies_inside_its_axes(found: DownstreamIntervals) -> None:
    document = build_downstream_intervals(found)
    low_x, high_x = 10 ** np.array(document["layout"]["xaxis"]["range"])
    for view in found.views:
        update = buttons(document)[view.name][1]
        for key in ("yaxis.range", "xaxis2.range"):
            worst, best = 10 ** np.array(update[key])
            assert np.all((view.soft.low > best) & (view.soft.high < worst))
        assert np.all((view.budgets > low_x) & (view.budgets < high_x))


def test_labels_say_the_interval_or_why_there_is_none(found: DownstreamIntervals) -> None:
    rng = np.random.default_rng(0)
    own = own_runs(MMLU, rng)
    view = next(view for view in found.views if view.name == "MMLU 5-Shot")
    ends = f"({100 * view.hard.low[-1]:.1f}–{100 * view.hard.high[-1]:.1f}%)"
    few = intervals({"mmlu": own}, {"mmlu": models(MMLU, rng, 4)}, draws=MANY)
    for result, words in ((DownstreamIntervals((view,), delphi().tasks), ends), (few, "(no interval: too few points)")):
        document = build_downstream_intervals(result)
        (label,) = (trace["text"] for trace in document["data"] if trace["mode"] == "markers+text")
        assert label[0].endswith(words)
        assert_finite(document)


def test_documents_are_valid_and_stacked(found: DownstreamIntervals) -> None:
    drawing = draw_answer(found)
    assert list(drawing.documents) == ["downstream-intervals", "downstream-intervals-mobile"]
    assert not drawing.failed and not drawing.undrawn
    wide, mobile = drawing.documents.values()
    assert mobile["data"] is wide["data"]
    assert mobile["layout"] == build_downstream_intervals_mobile(wide)["layout"]
    for document in (wide, mobile):
        to_plotly(document)
        assert_finite(document)


# The command


@pytest.fixture
def command() -> Iterator[Any]:
    """The command keeps compiled programs for its own process: undo that between tests."""
    enabled = jax.config.jax_enable_compilation_cache
    yield lambda *options: main(["downstream", "--no-cache", *map(str, options)])
    run_kernels_with(None)
    jax.config.update("jax_enable_compilation_cache", enabled)


def test_command_prints_a_table_per_view(command: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert command("--data", DATA, "--draws", FEW, "--level", 0.9, "--budgets", "1e24", "--out", out) == 0
    said = capsys.readouterr().out
    for name in ("MMLU 0-Shot", "MMLU 5-Shot", "HumanEval 10-Shot", "GSM8K 5-Shot", "Draws", "5 %", "95 %", "1e+24"):
        assert name in said
    assert "Simulated data: no number" in said and "noise of a single new run" in said
    assert {path.name for path in out.iterdir()} == {
        "downstream-intervals.json",
        "downstream-intervals-mobile.json",
    }


def test_command_prints_json_with_the_numbers_of_the_library(command: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("--data", DATA, "--draws", FEW, "--seed", 2, "--json") == 0
    said = json.loads(capsys.readouterr().out)
    study = load_study(DATA)
    expected = intervals(study.evals, study.externals, draws=FEW, seed=2)
    assert said["simulated"] is True
    assert "in-house run by its name (comma), not an external model" in [part["reason"] for part in said["skipped"]]
    assert said["missing"] == []
    for printed, view in zip(said["downstream"]["views"], expected.views, strict=True):
        assert printed["budgets"] == view.budgets.tolist()
        np.testing.assert_allclose(printed["hard"]["high"], view.hard.high, rtol=1e-9)
        assert (printed["seed"], printed["level"], printed["method"]) == (2, 0.95, "percentile")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--draws", 10), "needs at least 40 draws, got 10"),
        (("--data", "nowhere"), "nowhere: no such folder"),
    ],
)
def test_command_refuses(
    command: Any, options: tuple[Any, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("--data", DATA, *options) == 1
    assert message in capsys.readouterr().err


def test_command_without_evaluations(command: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copy(DATA / "runs.json", tmp_path)
    assert command("--data", tmp_path) == 1
    assert "no downstream evaluations: put mmlu.json" in capsys.readouterr().err
