"""Richards curves and the two-step downstream forecast."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from delphi_jax.formulas import residual_percent, richards
from delphi_jax.results.base import Floats, Result
from delphi_jax.results.held_out import FIT_DIVIDE
from delphi_jax.results.law import LawFit
from delphi_jax.status import Status

__all__ = ["DownstreamFit", "RichardsFit"]


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

    task: str
    """Key of the task, see :mod:`delphi_jax.tasks`."""
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

    @property
    def train(self) -> NDArray[np.bool_]:
        """[n] True for rows that enter the law: budgets below the fit / extrapolation divide."""
        return self.budget < FIT_DIVIDE

    def held_out_residuals(self) -> tuple[Floats, Floats, Floats]:
        """(budget, mean soft metric over seeds, percent deviation from the law) of held-out budgets, each [m]."""
        held_out = ~self.train
        budgets = np.unique(self.budget[held_out])
        means = np.array([np.mean(self.soft[held_out & (self.budget == budget)]) for budget in budgets])
        return budgets, means, residual_percent(means, self.law.loss_at(budgets))

    def rows(self) -> list[dict[str, Any]]:
        return [
            {
                "task": self.task,
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
