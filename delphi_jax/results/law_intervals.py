"""The law's continuous optimum with profile intervals of its asymptote, exponent and forecasts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from delphi_jax.results.base import Floats, Result
from delphi_jax.results.law import LawFit
from delphi_jax.status import Bound, Status

__all__ = ["AsymptoteProfile", "LawIntervals", "LawStudy"]


@dataclass(frozen=True, eq=False, repr=False)
class LawIntervals(Result):
    """One series' law and profile intervals of its quantities: L_inf, alpha, then the loss at Q targets.

    Ends are NaN where ``status`` is not usable. An end at which a bound was active is a limit of the law, not of the
    data: ``low_bound`` and ``high_bound`` name it.
    """

    law: LawFit
    targets: Floats
    """[Q] FLOPs"""
    level: float
    status: Status
    low: Floats
    """[2 + Q]"""
    high: Floats
    """[2 + Q]"""
    low_bound: tuple[Bound, ...]
    """[2 + Q]"""
    high_bound: tuple[Bound, ...]
    """[2 + Q]"""
    method: str = "profile likelihood"

    @property
    def estimates(self) -> Floats:
        """[2 + Q] L_inf, alpha and the forecasts."""
        return np.array([self.law.L_inf, self.law.alpha, *self.law.loss_at(self.targets)])

    @property
    def quantities(self) -> tuple[str, ...]:
        """[2 + Q] names, in the same order."""
        return ("L_inf", "alpha", *(f"loss at {target:.3g} FLOPs" for target in self.targets))

    def rows(self) -> list[dict[str, Any]]:
        ends = zip(self.low, self.high, self.low_bound, self.high_bound, strict=True)
        return [
            {
                "series": self.law.series,
                "asymptote": self.law.asymptote,
                "objective": self.law.objective.label,
                "budgets": len(self.law.compute),
                "quantity": quantity,
                "estimate": float(estimate),
                f"{100 * self.level:g} % low": float(low),
                f"{100 * self.level:g} % high": float(high),
                "low end cut by": low_bound.label,
                "high end cut by": high_bound.label,
                "status": self.status.label,
            }
            for quantity, estimate, (low, high, low_bound, high_bound) in zip(
                self.quantities, self.estimates, ends, strict=True
            )
        ]

    def notices(self) -> list[str]:
        """What a reader should know beside the numbers, a sentence each."""
        law = self.law
        sentences = []
        if law.status is not Status.FITTED:
            sentences.append(f"law of {law.series}, {law.asymptote} asymptote: {law.status.label}; {law.status.remedy}")
        elif self.status is not Status.FITTED:
            sentences.append(f"profile intervals of {law.series}: {self.status.label}; {self.status.remedy}")
        if self.status.usable and law.objective.huber:
            sentences.append(
                f"profile intervals of {law.series} under Huber's function are approximate: with few points they may "
                "hold less often than their level says"
            )
        cut = [
            f"{quantity} by {(low | high).label}"
            for quantity, low, high in zip(self.quantities, self.low_bound, self.high_bound, strict=True)
            if low | high
        ]
        if cut:
            sentences.append(
                f"profile intervals of {law.series} are cut by bounds of the law ({'; '.join(cut)}): such an end is a "
                "limit of the law, not a measurement"
            )
        return sentences


@dataclass(frozen=True, eq=False)
class AsymptoteProfile:
    """How much worse a law with another asymptote fits; G asymptotes."""

    L_inf: Floats
    """[G]"""
    ratio: Floats
    """[G] least score at each asymptote over the least of all; NaN where no law has that asymptote."""
    limit: float
    """Ratio that bounds the interval; NaN where it is no single one (Huber's function), or there is no interval."""


@dataclass(frozen=True, eq=False, repr=False)
class LawStudy(Result):
    """The laws of a study's suites with their profile intervals, beside the reference's grid."""

    intervals: tuple[LawIntervals, ...]
    reference: Mapping[str, LawFit]
    """The grid's law of each series, its asymptote free."""
    profiles: Mapping[str, AsymptoteProfile]
    """By series; none where the asymptote is pinned or there is no law. A shared asymptote has one for all."""

    def law_rows(self) -> list[dict[str, Any]]:
        """One line per law: the optimum, and the reference's grid for comparison."""
        rows = []
        for each in self.intervals:
            for law in (each.law, self.reference.get(each.law.series)):
                if law is not None:
                    rows.append(
                        {
                            "series": law.series,
                            "method": law.method,
                            "asymptote": law.asymptote,
                            "objective": law.objective.label,
                            "metric": law.metric,
                            "budgets": len(law.compute),
                            "L_inf": law.L_inf,
                            "A": law.A,
                            "alpha": law.alpha,
                            "score": law.score,
                            "status": law.status.label,
                        }
                    )
        return rows

    def rows(self) -> list[dict[str, Any]]:
        return [row for each in self.intervals for row in each.rows()]

    def notices(self) -> list[str]:
        """What a reader should know beside the numbers, a sentence each."""
        return [sentence for each in self.intervals for sentence in each.notices()]
