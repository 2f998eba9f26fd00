"""Intervals of forecasts, method by method."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from delphi_jax.definition import Definition, delphi
from delphi_jax.labels import INTERVAL_KINDS, REFERENCE_METHOD, budget_name
from delphi_jax.results.base import MOST_SKIPPED, Floats, Result
from delphi_jax.results.held_out import HeldOutFit
from delphi_jax.results.law import LawFit
from delphi_jax.status import Status

__all__ = ["IntervalsFit", "SuiteIntervals"]

_FAR_ASIDE = 0.25
"""Share of an interval's width by which the middle of its draws may lie beside the forecast before a reader is told."""


@dataclass(frozen=True, eq=False, repr=False)
class SuiteIntervals(Result):
    """Intervals of one suite's forecasts by M methods, at Q targets and along F budgets of a fan.

    Ends are NaN where the status beside them is not usable.
    """

    law: LawFit
    """Free asymptote, at the continuous optimum: the point forecast of all methods but the next two."""
    reference_law: LawFit
    """The law of the published figures, on a grid of asymptotes."""
    methods: tuple[str, ...]
    """The reference's own bootstrap first, then those asked for."""
    targets: Floats
    """[Q] FLOPs"""
    low: Floats
    """[M, Q]"""
    point: Floats
    """[M, Q] of the method's own law: that on the grid for the reference, the pinned one for Student-t."""
    median: Floats
    """[M, Q] of the draws; NaN for methods without draws."""
    high: Floats
    """[M, Q]"""
    status: tuple[tuple[Status, ...], ...]
    """[M][Q]"""
    n_draws: tuple[int, ...]
    """[M] draws, or resamples of an exact bootstrap; 0 for methods without draws."""
    draw_status: tuple[Mapping[Status, float], ...]
    """[M] probability that a draw's law ends with each status."""
    refit_status: Mapping[Status, float]
    """The same of the parabolas of the hierarchical bootstrap, of every bucket drawn."""
    fan: Floats
    """[F] FLOPs"""
    fan_low: Floats
    """[M, F]"""
    fan_high: Floats
    """[M, F]"""
    few_tokens: Floats
    """Budgets, FLOPs, whose runs have just three token counts: their parabola passes through all of them."""
    level: float
    seed: int
    exact: bool
    """Whether the bootstraps of the optima (percentile, basic, bca) took every resample."""
    pinned: float
    """Asymptote of the Student-t method; NaN where none was given."""
    pin_rejected: bool
    """Whether that asymptote lies outside its own profile interval at ``level``."""

    @property
    def suite(self) -> str:
        return self.law.series

    def kind(self, method: str) -> str:
        """What the interval of a method is for: the law's value, or the optimum of a new bucket."""
        return INTERVAL_KINDS.get(method, "law")

    @property
    def width(self) -> Floats:
        """[M, Q] in percent of the point forecast of the law."""
        return 100 * (self.high - self.low) / self.law.loss_at(self.targets)

    @property
    def relative_width(self) -> Floats:
        """[M, Q] in widths of the reference's interval."""
        return self.width / self.width[self.methods.index(REFERENCE_METHOD)]

    def skipped(self, method: str) -> float:
        """Probability that a draw has no law."""
        ended = self.draw_status[self.methods.index(method)]
        return sum(share for status, share in ended.items() if not status.usable)

    def on_bound(self, method: str) -> float:
        """Probability that a draw's law has its asymptote on its bound."""
        return self.draw_status[self.methods.index(method)].get(Status.BOUND_HIT, 0.0)

    def rows(self) -> list[dict[str, Any]]:
        return [
            {
                "suite": self.suite,
                "compute budget (FLOPs)": float(target),
                "method": method,
                "interval for": self.kind(method),
                "low": self.low[m, q],
                "point": self.point[m, q],
                "high": self.high[m, q],
                "median": self.median[m, q],
                "width (%)": self.width[m, q],
                "width / reference": self.relative_width[m, q],
                "draws": self.n_draws[m],
                "skipped (%)": 100 * self.skipped(method),
                "on bound (%)": 100 * self.on_bound(method),
                "status": self.status[m][q].label,
            }
            for q, target in enumerate(self.targets)
            for m, method in enumerate(self.methods)
        ]

    def notices(self) -> list[str]:
        """What a reader should know beside the numbers, a sentence each."""
        sentences = [
            f"law of {self.suite}, {name}: {law.status.label}; {law.status.remedy}"
            for name, law in (
                ("continuous optimum", self.law),
                (f"grid of {self.reference_law.n_grid} values", self.reference_law),
            )
            if law.status is not Status.FITTED
        ]
        for m, method in enumerate(self.methods):
            sentences += self._method_notices(m, method)
        if self.pin_rejected and "student-t" in self.methods:
            sentences.append(
                f"student-t interval of {self.suite}: the pinned asymptote {self.pinned:g} is outside the "
                f"{_percent(self.level)} profile interval of L_inf ({self.law.L_inf:.4g} fits best): a law that does "
                "not fit has no right interval"
            )
        return [*sentences, *self._bound_notices(), *self._run_notices(), *self._differences()]

    def _method_notices(self, m: int, method: str) -> list[str]:
        said = {status: status.remedy for status in self.status[m] if not status.usable}
        sentences = [f"{method} interval of {self.suite}: {status.label}; {remedy}" for status, remedy in said.items()]
        skipped = self.skipped(method)
        if MOST_SKIPPED < skipped < 1:
            sentences.append(
                f"{method} interval of {self.suite}: {100 * skipped:.3g} % of the draws were skipped, as no law can be "
                "fitted to them; an interval of the rest may be too narrow"
            )
        q = int(np.argmax(self.targets))
        aside = self.median[m, q] - self.point[m, q]
        if abs(aside) > _FAR_ASIDE * (self.high[m, q] - self.low[m, q]):
            share, side = _percent(abs(aside) / self.point[m, q]), "below" if aside < 0 else "above"
            sentences.append(
                f"{method} interval of {self.suite}: the middle of its draws lies {share} {side} the forecast at "
                f"{budget_name(self.targets[q])} FLOPs: drawing moves the law, so the interval is off to that side"
            )
        return sentences

    def _bound_notices(self) -> list[str]:
        """Which methods' draws often have their asymptote on its bound."""
        shares = {method: self.on_bound(method) for method in self.methods}
        often = [f"{method} {_percent(share)}" for method, share in shares.items() if share > MOST_SKIPPED]
        if not often:
            return []
        return [
            f"draws of {self.suite} whose asymptote is on its bound ({', '.join(often)}): ends of intervals that rest "
            "on them are limits of the law, not measurements"
        ]

    def _run_notices(self) -> list[str]:
        """On parabolas of resampled runs."""
        if not {"runs", "hierarchical"} & set(self.methods):
            return []
        sentences = [
            f"parabolas of resampled runs of {self.suite}, {_percent(share)} of them: {status.label}; {words}"
            for status, words in (
                (Status.TOO_FEW_POINTS, "their buckets took no part in those draws"),
                (Status.CLIPPED_TO_EDGE, "the edge was taken, as for the study's own"),
                (Status.CURVATURE_NOT_POSITIVE, "an edge was taken, as for the study's own"),
            )
            if (share := self.refit_status.get(status, 0.0)) > MOST_SKIPPED
        ]
        if len(self.few_tokens):
            budgets = ", ".join(map(budget_name, self.few_tokens))
            sentences.append(
                f"{self.suite} has only three token counts at {budgets} FLOPs: that parabola passes through them, so "
                "that resampling them tells no error of it: intervals by runs or hierarchical are too narrow"
            )
        return sentences

    def _differences(self) -> list[str]:
        """How wide the interval is without and with resampled runs, at the largest target."""
        if not {"percentile", "hierarchical"} <= set(self.methods):
            return []
        q = int(np.argmax(self.targets))
        width = {method: self.width[m, q] / 100 for m, method in enumerate(self.methods)}
        optima, both, runs = (width.get(method, np.nan) for method in ("percentile", "hierarchical", "runs"))
        if not np.all(np.isfinite([optima, both])):
            return []
        alone = f", {_percent(runs)} where runs alone are, in every bucket" if np.isfinite(runs) else ""
        return [
            f"forecast of {self.suite} at {budget_name(self.targets[q])} FLOPs: its interval is {_percent(optima)} wide"
            f" where optima are resampled, {_percent(both)} ({both / optima:.3g} times) where "
            f"their buckets' runs are too{alone}"
        ]


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"


@dataclass(frozen=True, eq=False, repr=False)
class IntervalsFit(Result):
    """Intervals of the forecasts of one or more suites, and the held-out runs beside them."""

    suites: tuple[SuiteIntervals, ...]
    held_out: HeldOutFit | None = None
    definition: Definition = field(default_factory=delphi, metadata={"beside": True})

    def rows(self) -> list[dict[str, Any]]:
        return [row for suite in self.suites for row in suite.rows()]

    def notices(self) -> list[str]:
        """What a reader should know beside the numbers, a sentence each."""
        return [sentence for suite in self.suites for sentence in suite.notices()]

    def settings(self) -> list[str]:
        """How each method came to its interval, a line each."""
        suite = self.suites[0]
        drawn = f"{suite.n_draws[0]} draws, seed {suite.seed}"
        grid = f"laws on a grid of {suite.reference_law.n_grid} values"
        resampled = f"optima resampled, {'every resample with its probability' if suite.exact else drawn}"
        pins = sorted({f"{each.pinned:g}" for each in self.suites if np.isfinite(each.pinned)})
        pinned = f"asymptote pinned to {', '.join(pins)}" if pins else "no asymptote given"
        words = {
            REFERENCE_METHOD: f"optima resampled, {grid}, {drawn}; percentiles",
            "percentile": f"{resampled}; percentiles",
            "basic": f"{resampled}; percentiles reflected at the point forecast",
            "bca": f"{resampled}; percentiles corrected for bias and acceleration",
            "parametric": "optima drawn from the law with normal noise in log(L - L_inf), its variance the squared "
            f"residuals over n - 3, {drawn}; percentiles",
            "runs": f"runs resampled within every bucket, parabolas refitted, {drawn}; percentiles",
            "hierarchical": f"buckets resampled, and their runs, parabolas refitted, {drawn}; percentiles",
            "profile": "forecasts that the likelihood does not reject, by F with 1 and n - 3 degrees of freedom",
            "student-t": f"prediction interval of a pinned law, n - 2 degrees of freedom, {pinned}",
        }
        return [f"{method}: {words[method]}" for method in suite.methods]
