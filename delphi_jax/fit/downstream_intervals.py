"""How sure the two-step downstream forecast is: both steps resampled together.

Axes: R draws, U runs of a task, S shot counts, M rows of a draw, Q budgets, G places of a band.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from delphi_jax.batch import padded_length
from delphi_jax.definition import Definition
from delphi_jax.fit.downstream import (
    TaskPoints,
    amplitude_bounds,
    fit_downstream,
    saturation_asymptote,
    search_richards,
    task_points,
)
from delphi_jax.formulas import law_loss_at_log, richards
from delphi_jax.kernels.chunks import on_all_devices
from delphi_jax.kernels.power_law import CHUNK, fit_pinned_laws
from delphi_jax.kernels.richards import MIN_POINTS
from delphi_jax.quantiles import least_draws
from delphi_jax.results import DownstreamFit, Floats
from delphi_jax.results.downstream import Band, DownstreamInterval, DownstreamIntervals
from delphi_jax.status import Status
from delphi_jax.tables import EvalTable, ExternalTable

__all__ = ["downstream_intervals"]

_BLOCK = 8192
"""Draws fitted at a time: their points are held in memory, of the others only the parameters are."""
_PLACES = 100
"""Of a band."""
_NUMBERS_IN_MEMORY = 2**22
"""Of a band's draws, held at a time."""
_LAW_PARAMETERS = 2
"""Of a pinned law: A and alpha."""
_PARAMETERS = ("k", "x0", "v", "ceiling")

Integers = NDArray[np.int64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class _Task:
    """What one task's draws are made from."""

    points: TaskPoints
    place: int
    """Among the tasks of the study."""
    shots: tuple[int, ...]
    log_compute: Floats
    """[n_own]"""
    runs: Integers
    """[U, S] row of each train run at each shot count, -1 where it was not evaluated."""
    kept: Integers
    """Rows that every draw holds: the held-out runs, which bound the asymptote and do nothing else."""
    models: Integers
    """Rows of the external models that are resampled."""
    asymptote: float | None
    """The asymptote, where nothing bounds it."""
    has_curve: bool
    own_curve: bool
    """Whether the study's own runs are among the points of the curve."""


class _Draws(NamedTuple):
    """R draws of one task; numbers that do not exist are NaN."""

    curve: Floats
    """[R, 4] k, x0, v and ceiling."""
    on_bound: Bools
    """[R, 4]"""
    curve_status: Integers
    """[R] FITTED where the task has no curve."""
    clamped: Bools
    """[R]"""
    L_inf: Floats
    """[R]"""
    A: Floats
    """[R, S]"""
    alpha: Floats
    """[R, S]"""
    law_status: Integers
    """[R, S]"""


def downstream_intervals(
    evals: Mapping[str, EvalTable],
    externals: Mapping[str, ExternalTable],
    definition: Definition,
    budgets: Sequence[float] = (),
    *,
    forecast_budget: float | None = None,
    draws: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> DownstreamIntervals:
    """Percentile intervals of the two-step forecasts (methods, section 6), for every task and shot count.

    ``evals`` and ``externals`` are tables by task key; of ``definition`` the tasks and the divide are used. The
    forecasts are those at the held-out budgets, at ``forecast_budget`` (by default each task's own) and at
    ``budgets``, in FLOPs. A draw resamples the task's own runs below the fit / extrapolation
    divide, and its external models, each with replacement and apart from the other. It refits both steps: the Richards
    curve, its saturation point and with it the asymptote, and the pinned law of every shot count, so that an error of
    the curve moves the law too. The j-th row of a budget is taken to be the same run at every shot count, and is
    resampled as one. Held-out runs are not resampled: they only bound the asymptote.

    The interval contains the sampling of runs and of models. It does not contain that law and curve may have another
    form, or the noise of a single new run: it is one of the forecast, not of the next measurement. With few points a
    percentile interval is too narrow (Efron and Tibshirani 1993, An Introduction to the Bootstrap, chapters 13, 14).

    A draw is skipped, and counted by its reason, where its curve has fewer distinct points than parameters or does not
    converge, or where its law is no fit. A task without a curve has a soft interval alone. There is no interval where
    law or curve have no more points than parameters, so that all draws would give the same, or where fewer draws are
    left than :func:`~delphi_jax.quantiles.least_draws`. Indices come from NumPy's generator, one stream per task and
    table, so that the draws of a task depend neither on other tasks nor on the devices. Raises ValueError for a
    negative seed, a level outside (0, 1), fewer draws than the tails need, and budgets that are not finite and
    positive.

    Examples:

    >>> import delphi_jax as dj
    >>> study = dj.load_study("data", tables=["runs", "tasks"])
    >>> found = dj.downstream_intervals(study.evals, study.externals, study.definition, draws=40)
    >>> sorted({row["task"] for row in found.rows()})
    ['gsm8k', 'humaneval', 'mmlu']
    """
    if seed < 0:
        raise ValueError(f"seed must be at least 0, got {seed}")
    if not 0.0 < level < 1.0:
        raise ValueError(f"level must lie strictly between 0 and 1, got {level}")
    if draws < least_draws(level):
        raise ValueError(f"an interval at level {level:g} needs at least {least_draws(level)} draws, got {draws}")
    targets = np.array([*budgets, *([] if forecast_budget is None else [forecast_budget])], dtype=np.float64)
    if not np.all(np.isfinite(targets) & (targets > 0)):
        raise ValueError(f"budgets must be finite positive numbers of FLOPs, got {targets.tolist()}")
    fits = fit_downstream(evals, externals, definition, forecast_budget=forecast_budget)
    by_task = {fit.task.key: fit for fit in fits}
    tasks = [_task(evals[key], externals.get(key), fit) for key, fit in by_task.items()]
    drawn = dict(zip(by_task, zip(tasks, _draw_all(tasks, draws, seed), strict=True), strict=True))
    views = tuple(_view(fit, *drawn[fit.task.key], targets, seed, level) for fit in fits)
    return DownstreamIntervals(views, definition.tasks)


# What is resampled


def _task(own: EvalTable, external: ExternalTable | None, fit: DownstreamFit) -> _Task:
    """``fit`` is of any shot count: all have one curve."""
    divide = fit.definition.divide
    points = task_points(own, external, divide)
    n_own, has_curve = len(own.soft), fit.richards is not None and fit.richards.fitted
    return _Task(
        points=points,
        place=[task.key for task in fit.definition.tasks].index(fit.task.key),
        shots=tuple(np.unique(own.shot).tolist()),
        log_compute=np.log(own.budget),
        runs=_runs(own, divide),
        kept=np.flatnonzero(points.bounding[:n_own] & (own.budget >= divide)),
        models=n_own + np.flatnonzero((points.bounding | points.on_curve)[n_own:]),
        asymptote=None if points.bounding.any() else fit.law.L_inf,
        has_curve=has_curve,
        own_curve=has_curve and bool(points.on_curve[:n_own].any()),
    )


def _runs(own: EvalTable, divide: float) -> Integers:
    """[U, S] rows of the train runs: the j-th row of a budget is the same run at every shot count."""
    shots = np.unique(own.shot)
    rows: dict[tuple[float, int], list[int]] = {}
    for place, shot in enumerate(shots):
        seen: Counter[float] = Counter()
        for row in np.flatnonzero((own.shot == shot) & (own.budget < divide)):
            budget = float(own.budget[row])
            rows.setdefault((budget, seen[budget]), [-1] * len(shots))[place] = int(row)
            seen[budget] += 1
    return np.array([rows[run] for run in sorted(rows)], dtype=np.int64).reshape(-1, len(shots))


def _resamples(task: _Task, draws: int, seed: int) -> Iterator[tuple[Integers, Integers]]:
    """Blocks of the rows (runs [r, U, S], models [r, M]) that draws hold."""
    streams = [np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(task.place, table))) for table in (0, 1)]
    for start in range(0, draws, _BLOCK):
        size = min(_BLOCK, draws - start)
        runs, models = (
            units[stream.integers(0, max(len(units), 1), size=(size, len(units)))]
            for stream, units in zip(streams, (task.runs, task.models), strict=True)
        )
        yield runs, models


# The draws


def _draw_all(tasks: Sequence[_Task], draws: int, seed: int) -> list[_Draws]:
    """The draws of every task, those of all tasks fitted together."""
    resamples = zip(*(_resamples(task, draws, seed) for task in tasks), strict=True)
    blocks = [_fit_block(tasks, *zip(*block, strict=True)) for block in resamples]
    return [_Draws(*map(np.concatenate, zip(*parts, strict=True))) for parts in zip(*blocks, strict=True)]


def _fit_block(tasks: Sequence[_Task], runs: Sequence[Integers], models: Sequence[Integers]) -> list[_Draws]:
    """Both steps of a block of draws; their rows as :func:`_resamples` gives them, by task."""
    curves = _curves(tasks, runs, models)
    asymptotes = [_asymptotes(*part, curve[0]) for *part, curve in zip(tasks, runs, models, curves, strict=True)]
    laws = _laws(tasks, runs, [L_inf for L_inf, _ in asymptotes])
    return [
        _Draws(*curve, clamped, L_inf, *law)
        for curve, (L_inf, clamped), law in zip(curves, asymptotes, laws, strict=True)
    ]


def _curves(
    tasks: Sequence[_Task], runs: Sequence[Integers], models: Sequence[Integers]
) -> list[tuple[Floats, Bools, Integers]]:
    """(parameters [r, 4], on_bound [r, 4], status [r]) of every draw's curve, by task."""
    r = len(models[0])
    no_curve = (np.full((r, 4), np.nan), np.zeros((r, 4), dtype=bool), np.full(r, int(Status.FITTED)))
    searched = [place for place, task in enumerate(tasks) if task.has_curve]
    found = [no_curve] * len(tasks)
    if not searched:
        return found
    rows = [
        np.concatenate([runs[place].reshape(r, -1), models[place]], axis=1) if tasks[place].own_curve else models[place]
        for place in searched
    ]
    width = padded_length([part.shape[1] for part in rows])
    points = [_curve_points(tasks[place], part, width) for place, part in zip(searched, rows, strict=True)]
    x, y, mask = map(np.concatenate, zip(*points, strict=True))
    limits = [(tasks[place].points.task.floor, tasks[place].points.task.ceiling) for place in searched]
    floor = np.repeat([floor for floor, _ in limits], r)
    amplitude = np.repeat([amplitude_bounds(*limit) for limit in limits], r, axis=0).T
    # Slow searches are few, and a chunk ends with its own slowest: no second round for them.
    curves = search_richards(x, y, mask, floor, amplitude, patient=True)
    status = np.where(_distinct(x, mask) < MIN_POINTS, Status.TOO_FEW_POINTS, curves.status)
    usable = np.isin(status, [status for status in Status if status.usable])
    parameters = np.stack([curves.k, curves.x0, curves.v, curves.amplitude + floor], axis=1)
    fields = (
        np.where(usable[:, None], parameters, np.nan),
        curves.on_bound & usable[:, None],
        np.where(usable, Status.FITTED, status),
    )
    for place, part in zip(
        searched, zip(*(np.split(field, len(searched)) for field in fields), strict=True), strict=True
    ):
        found[place] = part
    return found


def _curve_points(task: _Task, rows: Integers, width: int) -> tuple[Floats, Floats, Bools]:
    """(x, y, mask), [r, ``width``] each, of the points of the curve among ``rows``; -1 is no row."""
    rows = _widened(rows, width)
    mask = (rows >= 0) & task.points.on_curve[rows]
    return np.where(mask, -task.points.soft[rows], 0.0), np.where(mask, task.points.hard[rows], 0.0), mask


def _widened(rows: Integers, width: int) -> Integers:
    """``rows`` [r, M] with no rows, -1, behind."""
    return np.pad(rows, ((0, 0), (0, width - rows.shape[1])), constant_values=-1)


def _distinct(x: Floats, mask: Bools) -> Integers:
    """[B] number of distinct values of ``x`` [B, P] where ``mask``."""
    ordered = np.sort(np.where(mask, x, np.inf), axis=1)
    new = np.isfinite(ordered)
    new[:, 1:] &= ordered[:, 1:] != ordered[:, :-1]
    return np.count_nonzero(new, axis=1)


def _asymptotes(task: _Task, runs: Integers, models: Integers, curve: Floats) -> tuple[Floats, Bools]:
    """(L_inf [r], whether it is the smallest value seen though there is a curve [r])."""
    r = len(runs)
    if task.asymptote is not None:
        return np.full(r, task.asymptote), np.zeros(r, dtype=bool)
    kept = np.broadcast_to(task.kept, (r, len(task.kept)))
    rows = np.concatenate([runs.reshape(r, -1), models, kept], axis=1)
    bounding = (rows >= 0) & task.points.bounding[rows]
    smallest = np.min(task.points.soft[rows], axis=1, initial=np.inf, where=bounding)
    L_inf, saturation = saturation_asymptote(task.points.task, smallest, *curve.T)
    return L_inf, np.isfinite(saturation) & (L_inf != saturation)


def _laws(
    tasks: Sequence[_Task], runs: Sequence[Integers], L_inf: Sequence[Floats]
) -> list[tuple[Floats, Floats, Integers]]:
    """(log A, alpha, status), [r, S] each, of every draw's pinned laws, by task."""
    width = padded_length([part.shape[1] for part in runs])
    columns = []
    for task, part, pinned in zip(tasks, runs, L_inf, strict=True):
        for shot in range(len(task.shots)):
            rows = _widened(part[:, :, shot], width)
            columns.append((task.log_compute[rows], task.points.soft[rows], rows >= 0, pinned))
    laws = on_all_devices(fit_pinned_laws, CHUNK, *map(np.concatenate, zip(*columns, strict=True)))
    fitted = laws.status == Status.FITTED
    fields = (np.where(fitted, laws.log_A, np.nan), np.where(fitted, laws.alpha, np.nan), laws.status)
    by_shot = [field.reshape(len(columns), -1).T for field in fields]
    ends = np.cumsum([len(task.shots) for task in tasks])[:-1]
    return list(zip(*(np.split(field, ends, axis=1) for field in by_shot), strict=True))


# What they say


@dataclass(frozen=True, eq=False)
class _Refits:
    """The r draws of one shot count that were not skipped, as functions of Q places."""

    law: tuple[Floats, ...]
    """L_inf, log A and alpha, [r, 1] each."""
    curve: tuple[Floats, ...]
    """k, x0, v and ceiling, [r, 1] each; NaN without a curve."""
    floor: float

    def soft_at(self, compute: Floats) -> Floats:
        """[r, Q] soft metric at ``compute`` [Q]."""
        return law_loss_at_log(np.log(compute), *self.law)

    def hard_at(self, soft: Floats) -> Floats:
        """[r, Q] hard metric at ``soft`` [Q] or [r, Q]."""
        return richards(-soft, *self.curve, self.floor)

    def forecast_at(self, compute: Floats) -> Floats:
        """[r, Q] hard metric at ``compute`` [Q]."""
        return self.hard_at(self.soft_at(compute))


def _view(
    fit: DownstreamFit, task: _Task, drawn: _Draws, targets: Floats, seed: int, level: float
) -> DownstreamInterval:
    shot = task.shots.index(fit.shot)
    curve_status, law_status = drawn.curve_status, drawn.law_status[:, shot]
    draw_status = np.where(curve_status == Status.FITTED, law_status, curve_status)
    used = draw_status == Status.FITTED
    soft_status = _soft_status(fit, task.runs[:, shot], draw_status, level)
    hard_status = Status.NO_CURVE if fit.richards is None else fit.richards.status
    status = hard_status if soft_status is Status.FITTED else soft_status
    law = (field[used, None] for field in (drawn.L_inf, drawn.A[:, shot], drawn.alpha[:, shot]))
    refits = _Refits(tuple(law), tuple(drawn.curve[used].T[:, :, None]), task.points.task.floor)

    def band(evaluate: Callable[[Floats], Floats], places: Floats, exists: bool) -> Band:
        return _band(evaluate, places, level, int(np.count_nonzero(used)) if exists else 0)

    has_soft, has_hard = soft_status is Status.FITTED, status.usable
    budgets = np.unique(np.concatenate([fit.budget[~fit.train], targets, [fit.forecast_budget]]))
    forecast_soft = fit.law.loss_at(budgets)
    soft = band(refits.soft_at, budgets, has_soft)
    seen = np.concatenate([fit.soft, fit.external_soft])
    law_compute = np.geomspace(fit.budget.min(), budgets.max(), _PLACES)
    curve_soft = np.geomspace(seen.max(), np.nanmin([seen.min(), *soft.low]), _PLACES)
    return DownstreamInterval(
        fit=fit,
        status=status,
        budgets=budgets,
        observed_soft=_observed(fit, fit.soft, budgets),
        observed_hard=_observed(fit, fit.hard, budgets),
        forecast_soft=forecast_soft,
        forecast_hard=np.full(len(budgets), np.nan) if fit.richards is None else fit.richards.predict(-forecast_soft),
        soft=soft,
        hard=band(refits.forecast_at, budgets, has_hard),
        law_compute=law_compute,
        law_band=band(refits.soft_at, law_compute, has_soft),
        curve_soft=curve_soft,
        curve_band=band(refits.hard_at, curve_soft, has_hard),
        soft_draws=_of_all(refits.soft_at(budgets), used),
        hard_draws=_of_all(refits.forecast_at(budgets), used),
        skipped=_skipped(curve_status, law_status),
        on_bound=dict(zip(_PARAMETERS, np.count_nonzero(drawn.on_bound[used], axis=0).tolist(), strict=True)),
        bound_draws=int(np.count_nonzero(drawn.on_bound[used].any(axis=1))),
        clamped=int(np.count_nonzero(drawn.clamped[used])),
        runs=int(np.count_nonzero(task.runs[:, shot] >= 0)),
        models=len(task.models),
        seed=seed,
        level=level,
    )


def _soft_status(fit: DownstreamFit, rows: Integers, draw_status: Integers, level: float) -> Status:
    """Whether law, curve and enough draws are fitted, to more points than parameters; ``rows`` of train runs, or -1."""
    if not fit.law.fitted:
        return fit.law.status
    has_curve = fit.richards is not None and fit.richards.fitted
    # The asymptote rests on the curve: one curve in all draws would hide a part of the law's uncertainty too.
    one_curve = has_curve and len(np.unique(fit.richards.x)) <= MIN_POINTS
    if one_curve or np.count_nonzero(rows >= 0) <= _LAW_PARAMETERS:
        return Status.TOO_FEW_POINTS
    skipped = draw_status[draw_status != Status.FITTED]
    if len(draw_status) - len(skipped) < least_draws(level):
        return Status(int(np.argmax(np.bincount(skipped))))
    return Status.FITTED


def _skipped(curve_status: Integers, law_status: Integers) -> dict[str, int]:
    """Draws by the step that failed and its reason; a failed curve leaves no law to look at."""
    has_curve = curve_status == Status.FITTED
    reasons = {
        "curve, too few points": curve_status == Status.TOO_FEW_POINTS,
        "curve, not converged": curve_status == Status.NOT_CONVERGED,
        "law, too few points": has_curve & (law_status == Status.TOO_FEW_POINTS),
        "law, no fit": has_curve & (law_status == Status.NO_GRID_VALUE_FITS),
    }
    return {reason: int(np.count_nonzero(draws)) for reason, draws in reasons.items()}


def _observed(fit: DownstreamFit, values: Floats, budgets: Floats) -> Floats:
    """[Q] mean of the held-out ``values`` [n] measured at each of ``budgets``; NaN where none was."""
    known = ~fit.train & np.isfinite(values)
    at = [values[known & (fit.budget == budget)] for budget in budgets]
    return np.array([np.mean(measured) if measured.size else np.nan for measured in at])


def _of_all(values: Floats, used: Bools) -> Floats:
    """``values`` [r, Q] of the ``used`` [R] draws among all, [R, Q]."""
    filled = np.full((len(used), values.shape[1]), np.nan)
    filled[used] = values
    return filled


def _band(evaluate: Callable[[Floats], Floats], places: Floats, level: float, draws: int) -> Band:
    """Interval over ``draws`` of ``evaluate`` at ``places`` [Q], few of them at a time; NaN without a draw."""
    if not draws:
        return Band(*np.full((3, len(places)), np.nan))
    percentiles = (50 * (1 - level), 50.0, 50 * (1 + level))
    step = max(1, _NUMBERS_IN_MEMORY // draws)
    parts = [
        np.percentile(evaluate(places[start : start + step]), percentiles, axis=0)
        for start in range(0, len(places), step)
    ]
    return Band(*np.concatenate(parts, axis=1))
