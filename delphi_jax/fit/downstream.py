"""Richards curves, and the two-step downstream forecast built on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import jax
import numpy as np
from numpy.typing import ArrayLike

from delphi_jax.batch import pad, padded_length
from delphi_jax.fit.law import fit_laws, prepare_laws
from delphi_jax.formulas import richards_inverse
from delphi_jax.kernels import richards as kernel
from delphi_jax.kernels.chunks import on_all_devices
from delphi_jax.labels import view_name
from delphi_jax.results import FIT_DIVIDE, DownstreamFit, Floats, LawFit, RichardsFit
from delphi_jax.status import Status
from delphi_jax.tables import EvalTable, ExternalTable
from delphi_jax.tasks import MMLU, TASKS, Task

__all__ = ["FORECAST_BUDGET", "RichardsProblem", "fit_downstream", "fit_richards", "fit_richards_curves"]

FORECAST_BUDGET = 1e25
"""FLOPs"""

_DEFAULT_ASYMPTOTE = 0.2
"""Bits per byte, where there are no external models to learn a saturation point from."""
_MIN_POINTS = 4
"""Points with both metrics that HumanEval and GSM8K ask for (methods, section 6)."""
_K_BOUNDS = (0.1, 50.0)
_V_BOUNDS = (0.1, 20.0)
_X0_MARGIN = 2.0
_LEAST_AMPLITUDE = 0.05
_HIGHEST = 1.0
_PATIENT = 20 * kernel.LONG
"""Evaluations for the few problems that do not converge in the usual number."""
_PARAMETERS = ("k", "x0", "v", "ceiling")


@dataclass(frozen=True, eq=False)
class RichardsProblem:
    """One curve to fit; ``x`` and ``y`` [n]."""

    series: str
    x: ArrayLike
    y: ArrayLike
    floor: float
    ceiling: float | None = None
    """Pinned ceiling; None to fit it within [floor + 0.05, 1]."""


def fit_richards(
    x: ArrayLike, y: ArrayLike, *, floor: float, ceiling: float | None = None, series: str = "series"
) -> RichardsFit:
    """Fit one Richards curve by bounded least squares (methods, section 5); see :class:`RichardsProblem`."""
    return fit_richards_curves([RichardsProblem(series, x, y, floor, ceiling)])[0]


def fit_richards_curves(problems: Sequence[RichardsProblem]) -> list[RichardsFit]:
    """Fit many Richards curves at once.

    A problem of fewer than four points comes back with status TOO_FEW_POINTS. Raises ValueError for arrays
    that do not match or are not finite, or a ceiling that is not above the floor.
    """
    if not problems:
        return []
    points = [_checked(problem) for problem in problems]
    x, mask = pad([x for x, _ in points])
    y, _ = pad([y for _, y in points])
    floor = np.array([problem.floor for problem in problems])
    ends = np.array([(x.min(), x.max()) if len(x) else (0.0, 0.0) for x, _ in points])
    amplitude = [
        (_LEAST_AMPLITUDE, _HIGHEST - problem.floor)
        if problem.ceiling is None
        else (problem.ceiling - problem.floor,) * 2
        for problem in problems
    ]
    full = np.ones(len(problems))
    bounds = kernel.RichardsBounds(
        k=(_K_BOUNDS[0] * full, _K_BOUNDS[1] * full),
        x0=(ends[:, 0] - _X0_MARGIN, ends[:, 1] + _X0_MARGIN),
        v=(_V_BOUNDS[0] * full, _V_BOUNDS[1] * full),
        amplitude=(np.array([low for low, _ in amplitude]), np.array([high for _, high in amplitude])),
    )
    inputs = (x, y, mask, floor, bounds)
    curves = on_all_devices(kernel.fit_richards, kernel.CHUNK, *inputs, np.asarray(kernel.LONG))
    slow = np.flatnonzero(curves.status == Status.NOT_CONVERGED)
    if slow.size:
        # A flat, bent valley can take thousands of steps: only these problems, padded to few shapes, go on.
        again = np.resize(slow, min(len(problems), padded_length([slow.size])))
        inputs = jax.tree.map(lambda field: field[again], inputs)
        longer = on_all_devices(kernel.fit_richards, kernel.CHUNK, *inputs, np.asarray(_PATIENT))
        curves = kernel.RichardsCurve(*(field.copy() for field in curves))
        for field, new in zip(curves, longer, strict=True):
            field[again] = new
    return [
        _curve(problem, *point, kernel.RichardsCurve(*(field[i] for field in curves)))
        for i, (problem, point) in enumerate(zip(problems, points, strict=True))
    ]


def _checked(problem: RichardsProblem) -> tuple[Floats, Floats]:
    x, y = np.asarray(problem.x, dtype=np.float64), np.asarray(problem.y, dtype=np.float64)
    if x.ndim != 1 or x.shape != y.shape:
        raise ValueError(f"{problem.series}: x and y must be of one length, got {x.shape} and {y.shape}")
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise ValueError(f"{problem.series}: x and y must be finite")
    if not 0.0 <= problem.floor < _HIGHEST - _LEAST_AMPLITUDE:
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
class _Inputs:
    """What one task's curve is fitted to, and which soft values bound its asymptote."""

    task: Task
    x: Floats | None
    """Points of the curve, or None where the rules ask for none."""
    y: Floats | None
    bounding: Floats | None
    """Soft values whose smallest bounds the asymptote; None where there are no external models."""


def _inputs(task: Task, own: EvalTable, external: ExternalTable | None) -> _Inputs:
    train = own.budget < FIT_DIVIDE
    has_external = external is not None and len(external.soft) > 0
    if task is MMLU:
        soft, hard = (external.soft, external.hard) if has_external else (own.soft[train], own.hard[train])
        seen = np.concatenate([own.soft, external.soft]) if has_external else own.soft
        return _Inputs(task, -soft, hard, seen)
    if not has_external:
        return _Inputs(task, None, None, None)
    soft = np.concatenate([own.soft[train], external.soft])
    hard = np.concatenate([own.hard[train], external.hard])
    both = np.isfinite(soft) & np.isfinite(hard)
    points = soft[both]
    bounding = points if points.size else soft
    if points.size < _MIN_POINTS:
        return _Inputs(task, None, None, bounding)
    return _Inputs(task, -points, hard[both], bounding)


def _asymptote(inputs: _Inputs, curve: RichardsFit | None) -> tuple[float, str, float]:
    """(L_inf, where it comes from, negated saturation point) of one task (methods, section 6)."""
    if inputs.bounding is None:
        return _DEFAULT_ASYMPTOTE, "constant", np.nan
    smallest = float(np.min(inputs.bounding))
    if curve is None or not curve.fitted:
        return smallest, "smallest", np.nan
    target = np.array([curve.ceiling - 1.0 / inputs.task.n_problems])
    saturation = -float(richards_inverse(target, curve.k, curve.x0, curve.v, curve.ceiling, curve.floor)[0])
    if 0.0 < saturation < smallest:
        return saturation, "inverted", saturation
    return smallest, "clamped", saturation


def fit_downstream(
    evals: Mapping[str, EvalTable],
    externals: Mapping[str, ExternalTable],
    *,
    forecast_budget: float = FORECAST_BUDGET,
) -> tuple[DownstreamFit, ...]:
    """The two-step forecast of every task and shot count (methods, section 6), in canonical order.

    ``evals`` and ``externals`` are tables by task key; ``forecast_budget`` in FLOPs. One Richards curve and one
    asymptote serve all shot counts of a task.
    """
    tasks = [task for key, task in TASKS.items() if key in evals and len(evals[key].soft)]
    inputs = {task.key: _inputs(task, evals[task.key], externals.get(task.key)) for task in tasks}
    problems = [
        RichardsProblem(task.key, inputs[task.key].x, inputs[task.key].y, task.floor)
        for task in tasks
        if inputs[task.key].x is not None
    ]
    views = [(task, int(shot)) for task in tasks for shot in np.unique(evals[task.key].shot)]
    series = {}
    for task, shot in views:
        own = evals[task.key]
        train = (own.shot == shot) & (own.budget < FIT_DIVIDE)
        series[view_name(task.key, shot)] = (own.budget[train], own.soft[train])
    with ThreadPoolExecutor(1) as pool:
        ready = pool.submit(prepare_laws, [len(budget) for budget, _ in series.values()], pinned=True)
        curves = {curve.series: curve for curve in fit_richards_curves(problems)}
        ready.result()
    asymptotes = {task.key: _asymptote(inputs[task.key], curves.get(task.key)) for task in tasks}
    laws = fit_laws(series, L_inf={view_name(task.key, shot): asymptotes[task.key][0] for task, shot in views})
    return tuple(
        _view(
            task,
            shot,
            evals[task.key],
            externals.get(task.key),
            curves.get(task.key),
            laws[view_name(task.key, shot)],
            asymptotes[task.key],
            forecast_budget,
        )
        for task, shot in views
    )


def _view(
    task: Task,
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
        task=task.key,
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
    )
