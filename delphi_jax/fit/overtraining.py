"""The overtraining forecast that rests on a suite's parabolas and law (methods, section 7).

Plain NumPy: a few thousand closed-form evaluations take less time than starting a compiled program.
Axes: P bucket optima, G budgets of the search grid, S scales.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from delphi_jax.definition import Definition, delphi
from delphi_jax.formulas import overhead_percent
from delphi_jax.results import Floats, LawFit, OvertrainingFit, OvertrainingScale, ParabolaFit
from delphi_jax.status import Status

__all__ = ["fit_overtraining"]

_GRID_REACH = 1000.0
"""The search for the matching budget ends at this multiple of the forecast budget."""
_GRID_POINTS = 800
_LEAST_PENALTY = 1e-9
"""Penalties must all exceed this to be extrapolated as a power law; else the penalty is 0."""


class _Curve(NamedTuple):
    """Training at one scale."""

    penalty: Floats
    """[P] loss above that of the optimum."""
    loss: Floats
    """[G] law plus extrapolated penalty."""
    log_equivalent: float
    """log10 FLOPs at which the forecast's loss is reached; the end of the grid where it is not, NaN without a curve."""
    status: Status


def fit_overtraining(
    parabolas: Sequence[ParabolaFit],
    law: LawFit,
    *,
    definition: Definition | None = None,
    forecast_budget: float | None = None,
    scales: Sequence[float] | None = None,
) -> OvertrainingFit:
    """The overtraining forecast of one suite (methods, section 7).

    ``parabolas`` are the suite's fitted buckets, ``law`` its law over their optima; ``forecast_budget`` in FLOPs and
    ``scales``, which are positive T/T*, are by default those of the study, ``definition``. Raises ValueError for a law
    that was not fitted, fewer than two buckets, a scale that is not positive, or a forecast budget below the smallest
    bucket.

    Examples:

    >>> import delphi_jax as dj
    >>> study = dj.load_study("data", tables=["runs"])
    >>> isoflop = dj.fit_isoflop(study.runs)
    >>> suite = isoflop.suites[0]
    >>> compute, loss, _ = isoflop.optima(suite)
    >>> law = dj.fit_law(compute, loss, series=suite)
    >>> fit = dj.fit_overtraining(isoflop.of(suite), law, forecast_budget=1e23, scales=[2.0, 5.0])
    >>> twice, five = fit.scales
    >>> 0 < twice.overhead < five.overhead  # percent
    True
    """
    definition = definition or delphi()
    forecast_budget = definition.overtraining_budget if forecast_budget is None else forecast_budget
    scales = definition.overtraining.scales if scales is None else scales
    if not law.fitted:
        raise ValueError(f"the law of {law.series!r} was not fitted ({law.status.label}): nothing to forecast from")
    if len(parabolas) < 2:
        raise ValueError(f"the overtraining forecast needs at least 2 fitted buckets, got {len(parabolas)}")
    if not all(scale > 0 for scale in scales):
        raise ValueError(f"scales must be positive, got {list(scales)}")
    buckets = np.array([fit.bucket for fit in parabolas])
    if forecast_budget < buckets.min():
        raise ValueError(f"forecast_budget {forecast_budget:g} lies below the smallest bucket {buckets.min():g}")
    log_forecast = np.log10(forecast_budget)
    log_grid = np.linspace(np.log10(buckets.min()), np.log10(_GRID_REACH * forecast_budget), _GRID_POINTS)
    log_tokens, loss_star = (np.array([getattr(fit, name) for fit in parabolas]) for name in _OPTIMUM_FIELDS)
    token_slope, token_intercept = _line(np.log10(buckets), log_tokens)
    optimal = law.loss_at(10.0**log_grid)
    target = law.loss_at(10.0**log_forecast)
    lines = []
    for scale in scales:
        curve = _curve(float(scale), parabolas, optimal, target, log_grid, log_forecast)
        equivalent = float(10.0**curve.log_equivalent)
        lines.append(
            OvertrainingScale(
                scale=float(scale),
                status=curve.status,
                shifted_loss=loss_star + curve.penalty,
                loss=curve.loss,
                compute_equivalent=equivalent,
                tokens_equivalent=float(scale * 10.0 ** (token_slope * curve.log_equivalent + token_intercept)),
                overhead=float(overhead_percent(equivalent, forecast_budget)),
            )
        )
    return OvertrainingFit(
        suite=law.series,
        forecast_budget=float(forecast_budget),
        parabolas=tuple(parabolas),
        law=law,
        token_slope=float(token_slope),
        token_intercept=float(token_intercept),
        compute=10.0**log_grid,
        scales=tuple(lines),
        definition=definition,
    )


_OPTIMUM_FIELDS = ("log_tokens_star", "loss_star")


def _curve(
    scale: float,
    parabolas: Sequence[ParabolaFit],
    optimal: Floats,
    target: float,
    log_grid: Floats,
    log_forecast: float,
) -> _Curve:
    """``optimal`` [G] is the law on the ascending ``log_grid`` [G], which passes ``log_forecast``; logs to base 10."""
    log_buckets = np.log10([fit.bucket for fit in parabolas])
    curvature = np.array([fit.curvature_over if scale > 1 else fit.curvature_under for fit in parabolas])
    penalty = curvature * np.log10(scale) ** 2
    if scale != 1 and not np.all(curvature > 0):
        # No penalty, or a gain, is what a bucket without a minimum shows: nothing to extrapolate.
        return _Curve(penalty, np.full_like(optimal, np.nan), np.nan, Status.CURVATURE_NOT_POSITIVE)
    loss = optimal
    if np.all(penalty > _LEAST_PENALTY):
        slope, intercept = _line(log_buckets, np.log10(penalty))
        loss = optimal + 10.0 ** (slope * log_grid + intercept)
    reached = np.flatnonzero((log_grid >= log_forecast) & (loss <= target))
    if not reached.size:
        return _Curve(penalty, loss, log_grid[-1], Status.NOT_REACHED)
    after = max(reached[0], 1)
    fall = loss[after - 1] - loss[after]
    share = np.clip((loss[after - 1] - target) / fall, 0.0, 1.0) if fall > 0 else 0.0
    crossing = log_grid[after - 1] + share * (log_grid[after] - log_grid[after - 1])
    return _Curve(penalty, loss, max(crossing, log_forecast), Status.FITTED)


def _line(x: Floats, y: Floats) -> tuple[float, float]:
    """Slope and intercept of the least-squares line of ``y`` on ``x``, each [P]; a level one at a single x."""
    dx = x - x.mean()
    sxx = np.sum(dx**2)
    slope = np.sum(dx * (y - y.mean())) / sxx if sxx > 0 else 0.0
    return slope, y.mean() - slope * x.mean()
