"""What choosing one approach's allocation costs where another one is right.

The judge's loss along its own best allocation is L_inf + A*C**-alpha: the law through the IsoFLOP optima, or the
surface's closed form. A choice with the loss L there wastes the share 1 - C'/C of its budget, C' being where that curve
reaches L. Where the judge is the surface, L is the surface at the chosen N and D, their ratio kept and their product
moved onto the budget. Where it is the parabolas, L lies above the law by curvature * log10(D/D*)**2, the one-sided
curvatures of the buckets extrapolated as a power of compute, as in the overtraining forecast (methods, section 7).

Axes: R draws, Q budgets, K buckets.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from delphi_jax.formulas import compute_multiplier, law_loss_at_log, optimal_law, speedup
from delphi_jax.labels import PARABOLA, SPLINE, SURFACE
from delphi_jax.quantiles import least_draws
from delphi_jax.results import Floats, Interval, LawFit, ParabolaFit
from delphi_jax.results.allocation import AllocationLine, AllocationPath, CostOfChoice
from delphi_jax.results.surface import COEFFICIENTS, SurfaceBootstrap, SurfaceFit
from delphi_jax.status import Status

__all__ = ["SurfaceOptimum", "costs_of_choice", "surface_optimum"]


class SurfaceOptimum(NamedTuple):
    """Losses L_inf + A*C**-alpha along the best allocation of R surfaces; [R] each, NaN where there is none."""

    L_inf: Floats
    log_A: Floats
    alpha: Floats

    @property
    def exists(self) -> NDArray[np.bool_]:
        return np.isfinite(self.alpha)


def surface_optimum(fit: SurfaceFit | SurfaceBootstrap, factor: float) -> SurfaceOptimum:
    """Along C = ``factor``*N*D, for the surface of a fit (R = 1) or those of all draws.

    There is none where the loss does not depend on both N and D.
    """
    E, A, B, a, b = (np.atleast_1d(getattr(fit, name)) for name in COEFFICIENTS)
    both = (A > 0) & (B > 0) & np.isfinite(a) & np.isfinite(b)
    A, B, a, b = (np.where(both, column, 1.0) for column in (A, B, a, b))
    amplitude, alpha = optimal_law(A, B, a, b)
    return SurfaceOptimum(
        *(np.where(both, column, np.nan) for column in (E, np.log(amplitude) + alpha * np.log(factor), alpha))
    )


def costs_of_choice(
    lines: Mapping[str, AllocationLine],
    laws: Mapping[str, LawFit],
    parabolas: Sequence[ParabolaFit],
    compute: Floats,
    bootstrap: SurfaceBootstrap,
    factor: float,
    percentiles: tuple[float, float, float],
) -> tuple[CostOfChoice, ...]:
    """Costs at every budget of the ``lines``, which are by approach, as are the ``laws`` through the optima.

    ``parabolas`` are those that the line goes through, at ``compute`` [K] FLOPs. None without both approaches.
    """
    if not lines[SURFACE].fitted:
        return ()
    best, draws = surface_optimum(bootstrap.point, factor), surface_optimum(bootstrap, factor)
    forecasts = {name: _law(law) for name, law in laws.items()} | {SURFACE: best}
    budgets = lines[SURFACE].at.compute
    costs = []
    for name in (PARABOLA, SPLINE):
        if lines[name].fitted:
            shares = _on_budget(lines[name].at, factor)
            penalty = bootstrap.point.loss_at(*shares) - law_loss_at_log(np.log(budgets), *best)
            drawn = bootstrap.loss_at(*shares) - law_loss_at_log(np.log(budgets), *_columns(draws))
            costs += _costs(name, SURFACE, lines, forecasts, penalty, (drawn, draws), percentiles)
    if lines[PARABOLA].fitted:
        penalty = _parabola_penalty(lines, parabolas, compute)
        costs += _costs(SURFACE, PARABOLA, lines, forecasts, penalty, None, percentiles)
    return tuple(sorted(costs, key=lambda cost: cost.budget))


def _law(law: LawFit) -> SurfaceOptimum:
    return SurfaceOptimum(*(np.atleast_1d(value) for value in (law.L_inf, law.log_A, law.alpha)))


def _columns(optimum: SurfaceOptimum) -> SurfaceOptimum:
    return SurfaceOptimum(*(field[:, None] for field in optimum))


def _on_budget(path: AllocationPath, factor: float) -> tuple[Floats, Floats]:
    """N and D of a path [Q] in their ratio, moved to where ``factor``*N*D is the budget."""
    ratio, product = path.tokens.value / path.params.value, path.compute / factor
    return np.sqrt(product / ratio), np.sqrt(product * ratio)


def _parabola_penalty(lines: Mapping[str, AllocationLine], parabolas: Sequence[ParabolaFit], compute: Floats) -> Floats:
    """[Q] loss of the surface's tokens above the parabolas' optimum."""
    here = lines[PARABOLA].at
    distance = np.log10(lines[SURFACE].at.tokens.value / here.tokens.value)
    curvatures = np.log10([(fit.curvature_under, fit.curvature_over) for fit in parabolas]).T
    under, over = (
        np.polynomial.Polynomial.fit(np.log10(compute), side, 1)(np.log10(here.compute)) for side in curvatures
    )
    return 10.0 ** np.where(distance > 0, over, under) * distance**2


def _costs(
    chosen: str,
    judge: str,
    lines: Mapping[str, AllocationLine],
    forecasts: Mapping[str, SurfaceOptimum],
    penalty: Floats,
    drawn: tuple[Floats, SurfaceOptimum] | None,
    percentiles: tuple[float, float, float],
) -> list[CostOfChoice]:
    """``penalty`` [Q], and ``drawn`` [R, Q] under other laws of the judge's."""
    budgets = lines[judge].at.compute
    waste = _waste(penalty, budgets, forecasts[judge])
    bands = [np.full((3, len(budgets)), np.nan)] * 2
    exists = drawn[1].exists if drawn is not None else np.array([], dtype=bool)
    if exists.sum() >= least_draws((percentiles[2] - percentiles[0]) / 100):
        draws = np.maximum(drawn[0][exists], 0.0)
        law = _columns(SurfaceOptimum(*(field[exists] for field in drawn[1])))
        bands = [np.percentile(each, percentiles, axis=0) for each in (draws, _waste(draws, budgets, law))]
    own, other = ([field[0] for field in forecasts[name]] for name in (chosen, judge))
    known = np.isfinite(own[0]) and np.isfinite(other[0])
    match = compute_multiplier(budgets, own, other) if known else np.full(len(budgets), np.nan)
    reached = np.isfinite(match)
    unknown = next(
        (lines[name].loss_status for name in (chosen, judge) if not np.isfinite(forecasts[name].alpha[0])),
        Status.NOT_REACHED,
    )
    tokens = lines[chosen].at.tokens.value / lines[judge].at.tokens.value
    return [
        CostOfChoice(
            budget=float(budgets[q]),
            chosen=chosen,
            judge=judge,
            status=lines[judge].loss_status,
            tokens_ratio=float(tokens[q]),
            penalty=max(float(penalty[q]), 0.0),
            penalty_interval=Interval(*map(float, bands[0][:, q])),
            waste=float(waste[q]),
            waste_interval=Interval(*map(float, bands[1][:, q])),
            forecast=float(lines[chosen].at.loss.value[q]),
            match_status=Status.FITTED if reached[q] else unknown,
            match=float(match[q]) if reached[q] else np.nan,
        )
        for q in range(len(budgets))
    ]


def _waste(penalty: Floats, budgets: Floats, law: SurfaceOptimum) -> Floats:
    """Percent of the budgets [Q] that a loss of ``penalty`` above the law wastes."""
    above = np.exp(law.log_A - law.alpha * np.log(budgets))
    return 100 * (1 - speedup(above, above + np.maximum(penalty, 0.0), law.alpha))
