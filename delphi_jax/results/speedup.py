"""Effective speedup of one suite over another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from delphi_jax.definition import Definition, delphi
from delphi_jax.results.base import MOST_SKIPPED, Floats, Result
from delphi_jax.results.law import LawFit
from delphi_jax.status import Status
from delphi_jax.text import scientific

__all__ = ["ComputeMultiplier", "MatchedSpeedup", "SpeedupFit", "SpeedupLine"]

_LEAST_DRIFT = 0.1
"""Percent per decade below which a drift is nothing to tell."""

_MOST_UNREACHED = 0.001
"""Share of draws in which the loss is not reachable above which a reader is told."""


@dataclass(frozen=True)
class SpeedupLine:
    """One speedup with its interval; numbers that do not exist are NaN."""

    budget: float
    """FLOPs; NaN for the estimate from all matched budgets."""
    value: float
    """NaN where the status is not usable, and where it is NOT_REACHED."""
    low: float
    high: float
    probability: float
    """That it exceeds 1."""
    unreached: float
    """Share of the draws in which the loss is not reachable at any budget: they count as infinite."""
    status: Status
    interval_status: Status
    """Why there is no interval, where it is not FITTED; NOT_REACHED where an end is infinite."""
    infinite: tuple[bool, bool] = (False, False)
    """Whether ``low`` and ``high`` are infinite, which JSON cannot say."""


@dataclass(frozen=True, eq=False, repr=False)
class _Comparison(Result):
    """What both ways of comparing the first of two suites with the second share."""

    suites: tuple[str, str]
    """The speedup is that of the first over the second."""
    laws: tuple[LawFit, LawFit]
    """Their laws, with the asymptotes that the comparison takes."""
    status: Status
    lines: tuple[SpeedupLine, ...]
    level: float
    method: str
    """How the intervals' draws were made: "exact" (every resample with its probability) or "monte-carlo"."""
    draws: int
    seed: int | None
    """None where nothing was drawn."""
    skipped: Mapping[Status, float]
    """Share of the draws that were skipped, by reason."""

    @property
    def name(self) -> str:
        return f"speedup of {self.suites[0]} over {self.suites[1]}"

    @property
    def skipped_probability(self) -> float:
        return float(sum(self.skipped.values()))

    def rows(self) -> list[dict[str, Any]]:
        first, second = self.suites
        percent = f"{100 * self.level:g} %"
        return [
            {
                "speedup of": first,
                "over": second,
                "from": self.source(line),
                "compute budget (FLOPs)": line.budget,
                "speedup": line.value,
                f"{percent} low": line.low,
                f"{percent} high": line.high,
                "P(> 1)": line.probability,
                "not reached (%)": 100 * line.unreached,
                "draws": self.draws,
                "skipped (%)": 100 * self.skipped_probability,
                "status": self._words(line),
            }
            for line in self.lines
        ]

    def _words(self, line: SpeedupLine) -> str:
        words = [line.status.label]
        if self.status not in (Status.FITTED, line.status):
            words.append(f"law: {self.status.label}")
        if line.interval_status not in (Status.FITTED, line.status):
            words.append(f"interval: {line.interval_status.label}")
        return "; ".join(words)

    def source(self, line: SpeedupLine) -> str:
        """Where a line comes from, in a few words."""
        raise NotImplementedError

    def _skip_notices(self) -> list[str]:
        if self.skipped_probability <= MOST_SKIPPED:
            return []
        return [
            f"{self.name}: {100 * self.skipped_probability:.3g} % of the draws were skipped, as no law can be fitted "
            "to them; an interval of the rest may be too narrow"
        ]


@dataclass(frozen=True, eq=False, repr=False)
class MatchedSpeedup(_Comparison):
    """At the budgets that both suites have, by one asymptote and one exponent; K budgets."""

    budgets: Floats = field(default_factory=lambda: np.empty(0))
    """[K] FLOPs, ascending"""
    loss: Floats = field(default_factory=lambda: np.empty((2, 0)))
    """[2, K] of both suites"""
    unmatched: tuple[int, int] = (0, 0)
    """Budgets of each suite that the other does not have: they take no part."""
    alpha: float = np.nan
    """The common exponent, the average of both laws'."""
    pooled: SpeedupLine | None = None
    """From all matched budgets together; also the last of ``lines``."""
    at_zero: float = 0.0
    """Share of the draws whose fitted asymptote is 0."""
    drift: float = np.nan
    """Change of the speedup from budget to budget, in percent per decade of compute; NaN of fewer than three."""
    drift_p_value: float = np.nan
    """How likely a drift of this size is to come from scatter alone, two-sided."""

    def source(self, line: SpeedupLine) -> str:
        return "all matched budgets" if line is self.pooled else "matched budget"

    def notices(self) -> list[str]:
        sentences = []
        if self.status is not Status.FITTED:
            sentences.append(f"{self.name} at matched budgets: {self.status.label}; {self.status.remedy}")
        if any(self.unmatched):
            counts = " and ".join(f"{n} of {suite}" for n, suite in zip(self.unmatched, self.suites, strict=True))
            sentences.append(f"{self.name}: budgets that the other suite lacks, left out of the matched ones: {counts}")
        if self.pooled is not None and self.pooled.interval_status is not Status.FITTED:
            status = self.pooled.interval_status
            sentences.append(f"{self.name} at matched budgets has no interval: {status.label}; {status.remedy}")
        if abs(self.drift) > _LEAST_DRIFT and self.drift_p_value < 1 - self.level:
            sentences.append(
                f"{self.name} changes by {self.drift:+.2g} % per decade of compute at matched budgets "
                f"(p = {self.drift_p_value:.2g}): one number for all budgets does not describe it, look at the laws"
            )
        return sentences + self._skip_notices()


@dataclass(frozen=True, eq=False, repr=False)
class ComputeMultiplier(_Comparison):
    """Compute that the second suite's law needs, in times of a budget, for the first one's loss there."""

    curve: tuple[SpeedupLine, ...] = ()
    """The same at evenly spaced log budgets, to be drawn."""

    def source(self, line: SpeedupLine) -> str:
        return f"{self.laws[0].asymptote} laws"

    def notices(self) -> list[str]:
        sentences = [
            f"{law.asymptote} law of {law.series}: {law.status.label}; {law.status.remedy}"
            for law in self.laws
            if law.status is not Status.FITTED
        ]
        second = self.suites[1]
        if missed := [line.budget for line in self.lines if line.status is Status.NOT_REACHED]:
            budgets = ", ".join(map(scientific, missed))
            sentences.append(
                f"{self.name}: not reachable at any budget of {second} is the loss at {budgets} FLOPs: "
                "it is not above the asymptote of its law"
            )
        if (share := max((line.unreached for line in self.lines), default=0.0)) > _MOST_UNREACHED:
            sentences.append(
                f"{self.name}: in up to {100 * share:.3g} % of the draws the loss is not reachable at any budget of "
                f"{second}; they count as infinite"
            )
        return sentences + self._skip_notices()


@dataclass(frozen=True, eq=False, repr=False)
class SpeedupFit(Result):
    """Both ways of asking how much faster the first of two suites is than the second."""

    suites: tuple[str, str]
    matched: MatchedSpeedup
    multiplier: ComputeMultiplier
    definition: Definition = field(default_factory=delphi, metadata={"beside": True})

    def rows(self) -> list[dict[str, Any]]:
        return self.matched.rows() + self.multiplier.rows()

    def law_rows(self) -> list[dict[str, Any]]:
        """The laws that the speedups rest on, a row each."""
        laws = {
            (law.asymptote, law.series, len(law.compute)): law
            for part in (self.matched, self.multiplier)
            for law in part.laws
        }
        return [row for law in laws.values() for row in law.rows()]

    def notices(self) -> list[str]:
        return self.matched.notices() + self.multiplier.notices()
