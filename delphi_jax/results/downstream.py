"""Richards curves and the two-step downstream forecast."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from delphi_jax.definition import Definition
from delphi_jax.formulas import residual_percent, richards
from delphi_jax.results.base import BESIDE, MOST_SKIPPED, Floats, Result
from delphi_jax.results.law import LawFit
from delphi_jax.status import Status
from delphi_jax.tasks import Task

__all__ = ["Band", "DownstreamFit", "DownstreamInterval", "DownstreamIntervals", "RichardsFit"]


@dataclass(frozen=True, eq=False, repr=False)
class RichardsFit(Result):
    """Richards curve from the soft to the hard metric; see :func:`delphi_jax.formulas.richards`."""

    series: str
    x: Floats
    """[n]"""
    y: Floats
    """[n]"""
    floor: float
    status: Status
    k: float = np.nan
    x0: float = np.nan
    v: float = np.nan
    ceiling: float = np.nan
    sse: float = np.nan
    bounds_hit: tuple[str, ...] = ()
    """Names of the parameters that lie on a bound."""
    ceiling_pinned: bool = False

    @property
    def fitted(self) -> bool:
        return self.status.usable

    def predict(self, x: Any) -> Floats:
        """The curve at ``x``, any shape; NaN where it was not fitted (see ``status``)."""
        x = np.asarray(x, dtype=np.float64)
        return richards(x, self.k, self.x0, self.v, self.ceiling, self.floor)

    def rows(self) -> list[dict[str, Any]]:
        return [
            {
                "series": self.series,
                "points": len(self.x),
                "k": self.k,
                "x0": self.x0,
                "v": self.v,
                "ceiling": self.ceiling,
                "floor": self.floor,
                "sum of squares": self.sse,
                "on a bound": ", ".join(self.bounds_hit),
                "status": self.status.label,
            }
        ]


@dataclass(frozen=True, eq=False, repr=False)
class DownstreamFit(Result):
    """Two-step downstream forecast of one task and shot count: compute -> soft metric -> hard metric.

    The soft metric is stored as a loss (-log p(correct), or bits per byte); the Richards curve takes its
    negative.
    """

    task: Task
    shot: int
    budget: Floats
    """[n] FLOPs, own runs in table order (train and held out)."""
    soft: Floats
    """[n]"""
    hard: Floats
    """[n], NaN where not measured."""
    external_names: tuple[str, ...]
    external_soft: Floats
    external_hard: Floats
    richards: RichardsFit | None
    """None where the rules ask for no curve; its ``status`` says when it could not be fitted."""
    law: LawFit
    """Pinned law of the soft metric over the train rows; ``law.status`` says whether it was fitted."""
    asymptote_source: str
    """One of: "inverted" from the curve, "clamped" to the smallest value seen, "smallest" (no curve), or "constant"."""
    saturation: float
    """Negated saturation point of the curve, the candidate asymptote; NaN without a curve."""
    forecast_budget: float
    forecast_soft: float
    forecast_hard: float
    status: Status
    definition: Definition = field(metadata=BESIDE)
    """Of the study: its divide, and the names of its runs."""

    @property
    def name(self) -> str:
        """The task and the shot count in words."""
        return self.task.view_name(self.shot)

    @property
    def train(self) -> NDArray[np.bool_]:
        """[n] True for rows that enter the law: budgets below the fit / extrapolation divide."""
        return self.budget < self.definition.divide

    def held_out_residuals(self) -> tuple[Floats, Floats, Floats]:
        """(budget, mean soft metric over seeds, percent deviation from the law) of held-out budgets, each [m]."""
        held_out = ~self.train
        budgets = np.unique(self.budget[held_out])
        means = np.array([np.mean(self.soft[held_out & (self.budget == budget)]) for budget in budgets])
        return budgets, means, residual_percent(means, self.law.loss_at(budgets))

    def rows(self) -> list[dict[str, Any]]:
        return [
            {
                "task": self.task.key,
                "shots": self.shot,
                "L_inf": self.law.L_inf,
                "L_inf from": self.asymptote_source,
                "alpha": self.law.alpha,
                "forecast budget (FLOPs)": self.forecast_budget,
                "soft metric": self.forecast_soft,
                "hard metric": self.forecast_hard,
                "status": self.status.label,
            }
        ]


@dataclass(frozen=True)
class Band:
    """A central percentile interval at each of Q places; NaN where there is none."""

    low: Floats
    """[Q]"""
    median: Floats
    """[Q]"""
    high: Floats
    """[Q]"""


@dataclass(frozen=True, eq=False, repr=False)
class DownstreamInterval(Result):
    """Interval of one task's two-step forecast at one shot count; Q budgets, R draws, G places of a band.

    See :func:`~delphi_jax.fit.downstream_intervals.downstream_intervals` for what it contains. Soft metrics are stored
    as losses, as in :class:`DownstreamFit`.
    """

    fit: DownstreamFit
    """The forecast from all points."""
    status: Status
    """Of the interval. One that is not usable, beside a soft interval, says why there is no hard one."""
    budgets: Floats
    """[Q] FLOPs, ascending: the held-out ones, and those of the forecasts."""
    observed_soft: Floats
    """[Q] mean over the held-out runs of the budget; NaN without any."""
    observed_hard: Floats
    """[Q]"""
    forecast_soft: Floats
    """[Q] from all points."""
    forecast_hard: Floats
    """[Q]"""
    soft: Band
    """[Q]"""
    hard: Band
    """[Q]"""
    law_compute: Floats
    """[G] FLOPs at which the band of the law is given."""
    law_band: Band
    """[G] of the soft metric."""
    curve_soft: Floats
    """[G] soft metric at which the band of the curve is given."""
    curve_band: Band
    """[G] of the hard metric."""
    soft_draws: Floats
    """[R, Q] forecasts of every draw; NaN where it was skipped."""
    hard_draws: Floats
    """[R, Q]"""
    skipped: Mapping[str, int]
    """Draws that were skipped, by reason."""
    on_bound: Mapping[str, int]
    """Draws, not skipped, whose curve has this parameter on a bound."""
    bound_draws: int
    """Draws, not skipped, whose curve has any parameter on a bound."""
    clamped: int
    """Draws, not skipped, whose asymptote is the smallest value seen, not the curve's saturation point."""
    runs: int
    """Runs that were resampled: those of the task below the fit / extrapolation divide."""
    models: int
    """External models that were resampled."""
    seed: int
    level: float
    method: str = "percentile"

    @property
    def name(self) -> str:
        return self.fit.name

    @property
    def draws(self) -> int:
        return len(self.soft_draws)

    @property
    def used(self) -> int:
        """Draws that were not skipped."""
        return self.draws - sum(self.skipped.values())

    @property
    def has_soft(self) -> bool:
        """Whether there is an interval of the soft metric."""
        return bool(np.isfinite(self.soft.low).any())

    @property
    def has_hard(self) -> bool:
        """Whether there is an interval of the hard metric."""
        return bool(np.isfinite(self.hard.low).any())

    @property
    def bound_share(self) -> float:
        """Share of the used draws whose curve lies on a bound; 0 without a curve."""
        return self.bound_draws / max(self.used, 1)

    def rows(self) -> list[dict[str, Any]]:
        """Per budget the soft metric, then the hard one."""
        words, negated = self.fit.task.words, self.fit.task.soft_sign < 0
        name = f"−{words.soft_hover}" if negated else words.soft_hover
        status = Status.FITTED if self.has_soft and not self.status.usable else self.status
        metrics = (
            (name, self.observed_soft, self.forecast_soft, self.soft, status),
            (words.hard, self.observed_hard, self.forecast_hard, self.hard, self.status),
        )
        low, high = percent_names(self.level)
        return [
            {
                "task": self.fit.task.key,
                "shots": self.fit.shot,
                "budget (FLOPs)": budget,
                "metric": metric,
                "observed": observed[place],
                "forecast": forecast[place],
                low: band.low[place],
                "median": band.median[place],
                high: band.high[place],
                "inside": _inside(observed[place], band.low[place], band.high[place]),
                "draws used": self.used,
                "curve on a bound (%)": 100 * self.bound_share,
                "status": status.label,
            }
            for place, budget in enumerate(self.budgets.tolist())
            for metric, observed, forecast, band, status in metrics
        ]

    def draw_rows(self) -> list[dict[str, Any]]:
        """What became of the draws."""
        return [
            {
                "task": self.fit.task.key,
                "shots": self.fit.shot,
                "runs": self.runs,
                "models": self.models,
                "draws": self.draws,
                "skipped": self.draws - self.used,
                "why skipped": _counted(self.skipped),
                "curve on a bound": _counted(self.on_bound),
                "asymptote clamped": self.clamped,
                "seed": self.seed,
                "status": self.status.label,
            }
        ]

    def notices(self) -> list[str]:
        """What a reader should know beside the numbers, a sentence each."""
        sentences, what = [], f"interval of the downstream forecast of {self.name}"
        if self.status is not Status.FITTED:
            lacks = f"{what}, hard metric" if self.has_soft else what
            sentences.append(f"{lacks}: {self.status.label}; {self._remedy()}")
        if not self.has_soft:
            return sentences
        if self.used < (1 - MOST_SKIPPED) * self.draws:
            sentences.append(
                f"{what}: {self.draws - self.used} of {self.draws} draws were skipped ({_counted(self.skipped)}); an "
                "interval of the rest may be too narrow"
            )
        if self.bound_share > MOST_SKIPPED:
            sentences.append(
                f"{what}: the curves of {100 * self.bound_share:.3g} % of the draws lie on a bound "
                f"({_counted(self.on_bound)}); treat its ends as limits"
            )
        if self.clamped > MOST_SKIPPED * max(self.used, 1):
            sentences.append(
                f"{what}: in {100 * self.clamped / self.used:.3g} % of the draws the asymptote is the smallest value "
                "seen, as the curve saturates beyond it: treat an end as the limit that this sets"
            )
        return sentences

    def _remedy(self) -> str:
        if self.status is Status.TOO_FEW_POINTS:
            return "law and curve need more points than parameters, and draws that hold them: add runs, or models"
        return self.status.remedy


@dataclass(frozen=True, eq=False, repr=False)
class DownstreamIntervals(Result):
    """Intervals of the two-step forecasts of every task and shot count, in the order of the study's tasks."""

    views: tuple[DownstreamInterval, ...]
    tasks: tuple[Task, ...] = field(metadata=BESIDE)
    """Of the study, evaluated or not."""

    def rows(self) -> list[dict[str, Any]]:
        return [row for view in self.views for row in view.rows()]

    def draw_rows(self) -> list[dict[str, Any]]:
        """What became of the draws, a line per view."""
        return [row for view in self.views for row in view.draw_rows()]

    def notices(self) -> list[str]:
        """What a reader should know beside the numbers, a sentence each."""
        return [sentence for view in self.views for sentence in view.notices()]


def percent_names(level: float) -> tuple[str, str]:
    """The ends of a central interval as columns: "2.5 %" and "97.5 %"."""
    return f"{50 * (1 - level):.4g} %", f"{50 * (1 + level):.4g} %"


def _counted(counts: Mapping[str, int]) -> str:
    """What was counted at all: "k 132, ceiling 94"."""
    return ", ".join(f"{name} {count}" for name, count in counts.items() if count)


def _inside(observed: float, low: float, high: float) -> str:
    if np.isnan([observed, low, high]).any():
        return ""
    return "yes" if low <= observed <= high else "no"
