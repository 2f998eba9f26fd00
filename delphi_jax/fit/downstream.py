"""Richards curves, and the two-step downstream forecast built on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from delphi_jax.batch import pad, padded_length
from delphi_jax.definition import Definition
from delphi_jax.fit.law import fit_laws, prepare_laws
from delphi_jax.formulas import richards_inverse
from delphi_jax.kernels import richards as kernel
from delphi_jax.kernels.chunks import on_all_devices
from delphi_jax.results import DownstreamFit, Floats, LawFit, RichardsFit
from delphi_jax.status import Status
from delphi_jax.tables import EvalTable, ExternalTable
from delphi_jax.tasks import LEAST_AMPLITUDE, Task

__all__ = [
    "RichardsProblem",
    "TaskPoints",
    "amplitude_bounds",
    "fit_downstream",
    "fit_richards",
    "fit_richards_curves",
    "saturation_asymptote",
    "search_richards",
    "task_points",
]

_K_BOUNDS = (0.1, 50.0)
_V_BOUNDS = (0.1, 20.0)
_X0_MARGIN = 2.0
_HIGHEST = 1.0
_PATIENT = 20 * kernel.LONG
"""Evaluations for the few problems that do not converge in the usual number."""
_PARAMETERS = ("k", "x0", "v", "ceiling")


@dataclass(frozen=True, eq=False)
class RichardsProblem:
    """One curve to fit; ``x`` and ``y`` [n].

    Examples:

    >>> import numpy as np
    >>> import delphi_jax as dj
    >>> x = np.linspace(-3, 3, 13)
    >>> y = 0.25 + 0.6 / (1 + np.exp(-2 * (x - 1)))
    >>> problem = dj.RichardsProblem("accuracy", x, y, floor=0.25, ceiling=0.85)
    >>> dj.fit_richards_curves([problem])[0].status
    <Status.FITTED: 0>
    """

    series: str
    x: ArrayLike
    y: ArrayLike
    floor: float
    ceiling: float | None = None
    """Pinned ceiling; None to fit it within [floor + 0.05, 1]."""


def fit_richards(
    x: ArrayLike, y: ArrayLike, *, floor: float, ceiling: float | None = None, series: str = "series"
) -> RichardsFit:
    """Fit one Richards curve by bounded least squares (methods, section 5); see :class:`RichardsProblem`.

    Examples:

    >>> import numpy as np
    >>> import delphi_jax as dj
    >>> x = np.linspace(-3, 3, 13)
    >>> y = 0.25 + 0.6 / (1 + np.exp(-2 * (x - 1)))
    >>> curve = dj.fit_richards(x, y, floor=0.25)
    >>> [round(value, 2) for value in (curve.k, curve.x0, curve.v, curve.ceiling)]
    [2.0, 1.0, 1.0, 0.85]
    """
    return fit_richards_curves([RichardsProblem(series, x, y, floor, ceiling)])[0]


def fit_richards_curves(problems: Sequence[RichardsProblem]) -> list[RichardsFit]:
    """Fit many Richards curves at once.

    A problem of fewer than four points comes back with status TOO_FEW_POINTS. Raises ValueError for arrays
    that do not match or are not finite, or a ceiling that is not above the floor.

    Examples:

    >>> import numpy as np
    >>> import delphi_jax as dj
    >>> x = np.linspace(-3, 3, 13)
    >>> y = 0.25 + 0.6 / (1 + np.exp(-2 * (x - 1)))
    >>> problems = [dj.RichardsProblem("free", x, y, 0.25), dj.RichardsProblem("pinned", x, y, 0.25, ceiling=0.85)]
    >>> [(curve.series, round(curve.ceiling, 2)) for curve in dj.fit_richards_curves(problems)]
    [('free', 0.85), ('pinned', 0.85)]
    """
    if not problems:
        return []
    points = [_checked(problem) for problem in problems]
    x, mask = pad([x for x, _ in points])
    y, _ = pad([y for _, y in points])
    floor = np.array([problem.floor for problem in problems])
    amplitude = np.array([amplitude_bounds(problem.floor, problem.ceiling) for problem in problems]).T
    curves = search_richards(x, y, mask, floor, amplitude)
    slow = np.flatnonzero(curves.status == Status.NOT_CONVERGED)
    if slow.size:
        # A flat, bent valley can take thousands of steps: only these problems, padded to few shapes, go on.
        again = np.resize(slow, min(len(problems), padded_length([slow.size])))
        longer = search_richards(x[again], y[again], mask[again], floor[again], amplitude[:, again], patient=True)
        curves = kernel.RichardsCurve(*(field.copy() for field in curves))
        for field, new in zip(curves, longer, strict=True):
            field[again] = new
    return [
        _curve(problem, *point, kernel.RichardsCurve(*(field[i] for field in curves)))
        for i, (problem, point) in enumerate(zip(problems, points, strict=True))
    ]


def search_richards(
    x: Floats, y: Floats, mask: NDArray[np.bool_], floor: Floats, amplitude: Floats, *, patient: bool = False
) -> kernel.RichardsCurve:
    """Richards curves of B problems within the bounds of section 5; ``x``, ``y``, ``mask`` [B, P], ``floor`` [B].

    ``amplitude`` [2, B] holds the :func:`amplitude_bounds`; ``patient`` searches give up later. Numbers of curves whose
    status is not usable mean nothing.
    """
    full = np.ones(len(x))
    some = mask.any(axis=1)
    lowest = np.where(some, np.min(x, axis=1, initial=np.inf, where=mask), 0.0)
    highest = np.where(some, np.max(x, axis=1, initial=-np.inf, where=mask), 0.0)
    bounds = kernel.RichardsBounds(
        k=(_K_BOUNDS[0] * full, _K_BOUNDS[1] * full),
        x0=(lowest - _X0_MARGIN, highest + _X0_MARGIN),
        v=(_V_BOUNDS[0] * full, _V_BOUNDS[1] * full),
        amplitude=(amplitude[0], amplitude[1]),
    )
    evaluations = np.asarray(_PATIENT if patient else kernel.LONG)
    return on_all_devices(kernel.fit_richards, kernel.CHUNK, x, y, mask, floor, bounds, evaluations)


def amplitude_bounds(floor: float, ceiling: float | None = None) -> tuple[float, float]:
    """Bounds of K - f, the same value twice where the ceiling is pinned."""
    return (LEAST_AMPLITUDE, _HIGHEST - floor) if ceiling is None else (ceiling - floor, ceiling - floor)


def _checked(problem: RichardsProblem) -> tuple[Floats, Floats]:
    x, y = np.asarray(problem.x, dtype=np.float64), np.asarray(problem.y, dtype=np.float64)
    if x.ndim != 1 or x.shape != y.shape:
        raise ValueError(f"{problem.series}: x and y must be of one length, got {x.shape} and {y.shape}")
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise ValueError(f"{problem.series}: x and y must be finite")
    if not 0.0 <= problem.floor < _HIGHEST - LEAST_AMPLITUDE:
        raise ValueError(f"{problem.series}: floor must lie in [0, 0.95), got {problem.floor}")
    if problem.ceiling is not None and not problem.floor < problem.ceiling <= _HIGHEST:
        raise ValueError(f"{problem.series}: ceiling must lie in ({problem.floor}, 1], got {problem.ceiling}")
    return x, y


def _curve(problem: RichardsProblem, x: Floats, y: Floats, curve: kernel.RichardsCurve) -> RichardsFit:
    status = Status(int(curve.status)) if len(x) else Status.NO_DATA
    pinned = problem.ceiling is not None
    if not status.usable:
        return RichardsFit(problem.series, x, y, problem.floor, status, ceiling_pinned=pinned)
    return RichardsFit(
        problem.series,
        x,
        y,
        problem.floor,
        status,
        k=float(curve.k),
        x0=float(curve.x0),
        v=float(curve.v),
        ceiling=float(curve.amplitude + problem.floor) if problem.ceiling is None else float(problem.ceiling),
        sse=float(curve.sse),
        bounds_hit=tuple(name for name, hit in zip(_PARAMETERS, curve.on_bound, strict=True) if hit),
        ceiling_pinned=pinned,
    )


@dataclass(frozen=True, eq=False)
class TaskPoints:
    """All rows of one task, the study's own runs first, and what they are used for (methods, section 6); [n] each."""

    task: Task
    soft: Floats
    hard: Floats
    asks_curve: bool
    """Whether the task's rules ask for a curve of these rows."""
    on_curve: NDArray[np.bool_]
    """Rows that the curve is fitted to; none where the rules ask for no curve."""
    bounding: NDArray[np.bool_]
    """Rows whose smallest soft metric bounds the asymptote; none where the task's default stands in."""


def task_points(own: EvalTable, external: ExternalTable | None, divide: float) -> TaskPoints:
    """The rows of a task and their parts in its curve and its asymptote.

    ``divide`` in FLOPs: budgets below are fitted, the rest held out.
    """
    task = own.task
    has_external = external is not None and len(external.soft) > 0
    soft = np.concatenate([own.soft, external.soft]) if has_external else own.soft
    hard = np.concatenate([own.hard, external.hard]) if has_external else own.hard
    is_own = np.arange(len(soft)) < len(own.soft)
    train = np.concatenate([own.budget < divide, np.full(len(soft) - len(own.soft), False)])
    none, every = np.full(len(soft), False), np.full(len(soft), True)
    pool = ~is_own if has_external and task.curve_from == "externals" else train | ~is_own
    has_rows = has_external or task.curve_without_externals
    if not has_rows:
        pool = none
    both = pool & np.isfinite(soft) & np.isfinite(hard)
    asks_curve = bool(has_rows and np.count_nonzero(both) >= task.curve_least_points)
    bounding = every if task.asymptote_below == "every row" else both if both.any() else pool
    return TaskPoints(task, soft, hard, asks_curve, both if asks_curve else none, bounding)


def saturation_asymptote(
    task: Task, smallest: Floats, k: Floats, x0: Floats, v: Floats, ceiling: Floats
) -> tuple[Floats, Floats]:
    """(L_inf, negated saturation point) of curves [B] and the ``smallest`` [B] soft metric that bounds each.

    L_inf is the saturation point where that lies strictly between 0 and ``smallest``, else, and without a curve (NaN),
    ``smallest`` itself.
    """
    saturation = -richards_inverse(ceiling - 1.0 / task.n_problems, k, x0, v, ceiling, task.floor)
    return np.where((saturation > 0.0) & (saturation < smallest), saturation, smallest), saturation


def _asymptote(points: TaskPoints, curve: RichardsFit | None) -> tuple[float, str, float]:
    """(L_inf, where it comes from, negated saturation point) of one task (methods, section 6)."""
    if not points.bounding.any():
        return points.task.asymptote_default, "constant", np.nan
    smallest = np.min(points.soft[points.bounding], keepdims=True)
    if curve is None or not curve.fitted:
        return float(smallest[0]), "smallest", np.nan
    parameters = (np.array([value]) for value in (curve.k, curve.x0, curve.v, curve.ceiling))
    (L_inf,), (saturation,) = saturation_asymptote(points.task, smallest, *parameters)
    return float(L_inf), "inverted" if L_inf == saturation else "clamped", float(saturation)


def fit_downstream(
    evals: Mapping[str, EvalTable],
    externals: Mapping[str, ExternalTable],
    definition: Definition,
    *,
    forecast_budget: float | None = None,
) -> tuple[DownstreamFit, ...]:
    """The two-step forecast of every task and shot count (methods, section 6), in the order of the study's tasks.

    ``evals`` and ``externals`` are tables by task key; of ``definition`` the tasks and the divide between fitted and
    held-out budgets are used; ``forecast_budget`` in FLOPs, by default each task's own. One Richards curve and one
    asymptote serve all shot counts of a task.

    Examples:

    >>> import delphi_jax as dj
    >>> study = dj.load_study("data", tables=["runs", "tasks"])
    >>> views = dj.fit_downstream(study.evals, study.externals, study.definition)
    >>> views[0].name, views[0].status
    ('MMLU 0-Shot', <Status.FITTED: 0>)
    """
    tasks = [task for task in definition.tasks if task.key in evals and len(evals[task.key].soft)]
    points = {task.key: task_points(evals[task.key], externals.get(task.key), definition.divide) for task in tasks}
    problems = [
        RichardsProblem(key, -rows.soft[rows.on_curve], rows.hard[rows.on_curve], rows.task.floor, rows.task.ceiling)
        for key, rows in points.items()
        if rows.asks_curve
    ]
    views = [(task, int(shot)) for task in tasks for shot in np.unique(evals[task.key].shot)]
    series = {}
    for task, shot in views:
        own = evals[task.key]
        train = (own.shot == shot) & (own.budget < definition.divide)
        series[task.view_name(shot)] = (own.budget[train], own.soft[train])
    with ThreadPoolExecutor(1) as pool:
        ready = pool.submit(prepare_laws, [len(budget) for budget, _ in series.values()], pinned=True)
        curves = {curve.series: curve for curve in fit_richards_curves(problems)}
        ready.result()
    asymptotes = {task.key: _asymptote(points[task.key], curves.get(task.key)) for task in tasks}
    laws = fit_laws(series, L_inf={task.view_name(shot): asymptotes[task.key][0] for task, shot in views})
    return tuple(
        _view(
            definition,
            shot,
            evals[task.key],
            externals.get(task.key),
            curves.get(task.key),
            laws[task.view_name(shot)],
            asymptotes[task.key],
            task.forecast_budget if forecast_budget is None else forecast_budget,
        )
        for task, shot in views
    )


def _view(
    definition: Definition,
    shot: int,
    own: EvalTable,
    external: ExternalTable | None,
    curve: RichardsFit | None,
    law: LawFit,
    asymptote: tuple[float, str, float],
    forecast_budget: float,
) -> DownstreamFit:
    rows = own.shot == shot
    forecast_soft = float(law.loss_at(forecast_budget))
    both = law.fitted and curve is not None and curve.fitted
    forecast_hard = float(curve.predict(-forecast_soft)) if both else np.nan
    curve_status = Status.NO_CURVE if curve is None else curve.status
    status = curve_status if law.fitted else law.status
    return DownstreamFit(
        task=own.task,
        shot=shot,
        budget=own.budget[rows],
        soft=own.soft[rows],
        hard=own.hard[rows],
        external_names=tuple(external.name) if external is not None else (),
        external_soft=external.soft if external is not None else np.empty(0),
        external_hard=external.hard if external is not None else np.empty(0),
        richards=curve,
        law=law,
        asymptote_source=asymptote[1],
        saturation=asymptote[2],
        forecast_budget=float(forecast_budget),
        forecast_soft=forecast_soft,
        forecast_hard=forecast_hard,
        status=status,
        definition=definition,
    )
