"""How a compute budget is best shared between parameters and tokens, by several approaches side by side."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from delphi_jax.labels import SURFACE
from delphi_jax.quantiles import least_draws
from delphi_jax.results.base import Floats, Interval, Result
from delphi_jax.results.isoflop import ParabolaFit
from delphi_jax.results.law import LawFit
from delphi_jax.results.surface import SurfaceBootstrap
from delphi_jax.status import Status
from delphi_jax.text import scientific

__all__ = [
    "ASYMMETRIC",
    "EDGE",
    "FEW_POINTS",
    "NO_MINIMUM",
    "OFF_CENTRE",
    "WIDE",
    "AllocationFit",
    "AllocationLine",
    "AllocationPath",
    "Band",
    "BucketFit",
    "CostOfChoice",
    "LackOfFit",
    "ParabolaBias",
    "SuiteAllocation",
]

ASYMMETRIC, WIDE, OFF_CENTRE = "asymmetric", "wide grid", "off centre"
FEW_POINTS, EDGE, NO_MINIMUM = "few points", "edge", "no minimum"
"""What is known to bias a bucket's parabola."""

_SOURCE = "Czech et al. 2026, arXiv 2603.22339"
"""Who studied how asymmetry, off-centre sampling and wide grids bias parabolas."""
_EVEN = 0.02
"""Share by which C/(N*D) may differ, and N*D may miss its budget, before a reader is told."""
_SCATTERED = 2
"""Scatter about a line, over that of resampled runs, above which a reader is told: by chance one line in twenty of
three buckets has it, fewer of more."""
_MANY = 0.1
"""Share of skipped draws, or of draws without an optimum, above which a reader is told."""
_SMALL_BIAS = 5.0
"""Percent of tokens by which the parabolas may miss the surface's optimum before a reader is told."""


@dataclass(frozen=True, eq=False)
class Band:
    """Estimates and their percentile intervals, [Q] each; NaN where there is none (see the status beside them)."""

    value: Floats
    low: Floats
    median: Floats
    high: Floats


@dataclass(frozen=True, eq=False)
class AllocationPath:
    """The best allocation along Q budgets."""

    compute: Floats
    """[Q] FLOPs"""
    params: Band
    tokens: Band
    ratio: Band
    """Tokens per parameter."""
    loss: Band

    def part(self, places: slice) -> AllocationPath:
        """The path at some of its budgets."""
        bands = (getattr(self, name) for name in ("params", "tokens", "ratio", "loss"))
        parts = (Band(*(getattr(band, field.name)[places] for field in fields(Band))) for band in bands)
        return AllocationPath(self.compute[places], *parts)


@dataclass(frozen=True, eq=False)
class AllocationLine:
    """What one approach says of the best allocation: N* and D* are powers of compute."""

    approach: str
    """One of :data:`delphi_jax.labels.APPROACHES`."""
    status: Status
    loss_status: Status
    """Of the forecast of the loss."""
    params_exponent: float
    params_exponent_interval: Interval
    tokens_exponent: float
    tokens_exponent_interval: Interval
    at: AllocationPath
    """At the budgets asked for."""
    curve: AllocationPath
    """On a grid from the smallest bucket to the largest budget."""
    draw_counts: Mapping[Status, int]
    """Draws that ended with each status; those that are neither FITTED nor BOUND_HIT were skipped."""
    loss_draws: int
    """Draws that forecast the loss."""
    scatter: float = np.nan
    """Standard deviation of the optima's log tokens about the line, over that of resampled runs alone; of a surface
    there is none."""

    @property
    def fitted(self) -> bool:
        return self.status.usable

    @property
    def draws(self) -> int:
        return sum(self.draw_counts.values())

    @property
    def used(self) -> int:
        """Draws that make the intervals of N* and D*."""
        return self.draw_counts.get(Status.FITTED, 0) + self.draw_counts.get(Status.BOUND_HIT, 0)


@dataclass(frozen=True)
class LackOfFit:
    """F test of a term beyond the parabola."""

    p_value: float
    """NaN where the runs cannot tell."""
    sign: float
    """Of the term: losses rise faster towards more tokens where a cubic one is positive."""
    freedom: int
    """Degrees of freedom of the residuals."""


@dataclass(frozen=True, eq=False)
class ParabolaBias:
    """What approach 2 would say of the fitted surface's own losses at the runs' tokens, without noise."""

    tokens_exponent: float
    """Exponent of D* that it would find."""
    tokens: Floats
    """[Q] percent by which it would miss the surface's D*."""


@dataclass(frozen=True, eq=False)
class BucketFit:
    """Both optima of one IsoFLOP bucket, and what is known to bias the parabola's."""

    parabola: ParabolaFit
    parabola_used: bool
    """Whether approach 2 takes its optimum: a minimum within the observed tokens."""
    parabola_compute: float
    """FLOPs of the optimum: the bucket's, or 6*N*D of the optimum; NaN where there is none."""
    spline_status: Status
    spline_compute: float
    spline_tokens: float
    spline_params: float
    spline_loss: float
    freedom: float
    """Degrees of freedom of the spline: 3 where it is the parabola."""
    distinct: int
    """Distinct token counts."""
    width: float
    """Range of the tokens in decades."""
    off_centre: float
    """Vertex from the middle of the tokens' logarithmic range, in half ranges: -1 and 1 are its ends."""
    cubic: LackOfFit
    quartic: LackOfFit
    bias: float
    """Percent by which the parabola would miss the optimal tokens on the fitted surface, without noise."""
    without_optimum: float
    """Share of the draws in which the parabola has no minimum within the observed tokens."""
    flags: tuple[str, ...]

    @property
    def asymmetry(self) -> float:
        """One-sided curvature towards more tokens over that towards fewer; NaN where one was not measured."""
        fit = self.parabola
        return fit.curvature_over / fit.curvature_under if all(fit.one_sided) else np.nan


@dataclass(frozen=True)
class CostOfChoice:
    """What choosing one approach's allocation costs where another one is right, at one budget."""

    budget: float
    chosen: str
    """The approach whose N* and D* are taken, with their ratio kept and their product moved onto the budget."""
    judge: str
    """The approach that is taken to be right."""
    status: Status
    """Of the judge's loss."""
    tokens_ratio: float
    """Chosen tokens over the judge's."""
    penalty: float
    """Loss above the judge's optimum, nats, at least 0."""
    penalty_interval: Interval
    """Over the judge's draws; NaN where the judge is the parabola."""
    waste: float
    """Percent of the budget that is wasted: the judge's optimum reaches the same loss with this much less."""
    waste_interval: Interval
    forecast: float
    """Loss that the chosen approach itself forecasts."""
    match_status: Status
    """Of ``match``: NOT_REACHED where the judge's loss falls to that forecast at no budget."""
    match: float
    """Budget with which the judge's optimum reaches that forecast, over this budget."""


@dataclass(frozen=True, eq=False, repr=False)
class SuiteAllocation(Result):
    """The allocation of one suite by every approach, side by side."""

    suite: str
    budgets: Floats
    """[Q] FLOPs"""
    flops: str
    """How FLOPs are counted, one of :data:`delphi_jax.labels.FLOPS`."""
    factor: float
    """k of C = k*N*D: the median of the runs' C/(N*D), or 6."""
    factor_range: tuple[float, float]
    """Smallest and largest C/(N*D) of the runs, C as measured."""
    lines: tuple[AllocationLine, ...]
    """By approach, in the order of :data:`delphi_jax.labels.APPROACHES`."""
    laws: Mapping[str, LawFit]
    """Through the optima, for the approaches that have some."""
    surface: SurfaceBootstrap
    buckets: tuple[BucketFit, ...]
    """By ascending budget."""
    cubic: LackOfFit
    """Of all buckets together."""
    quartic: LackOfFit
    drift: float
    """Decades of tokens per decade of compute by which the optimum moves off the middle of the sampled tokens."""
    bias: ParabolaBias
    costs: tuple[CostOfChoice, ...]
    level: float
    """Probability of the intervals; 1 - level is the size of the tests."""
    draws: int
    """Draws asked for; what became of them stands beside each approach."""
    seed: int
    method: str = "percentile bootstrap"

    @property
    def status(self) -> Status:
        """The first of the approaches' statuses that is not FITTED."""
        return next((line.status for line in self.lines if line.status is not Status.FITTED), Status.FITTED)

    def line(self, approach: str) -> AllocationLine:
        """The line of one approach; KeyError for an unknown one."""
        for line in self.lines:
            if line.approach == approach:
                return line
        raise KeyError(approach)

    def rows(self) -> list[dict[str, Any]]:
        rows = []
        for place, budget in enumerate(self.budgets.tolist()):
            for line in self.lines:
                row = {"suite": self.suite, "compute (FLOPs)": budget, "approach": line.approach}
                for name, short in (("params", "N*"), ("tokens", "D*"), ("ratio", "D*/N*"), ("loss", "loss")):
                    band: Band = getattr(line.at, name)
                    row |= {
                        short: float(band.value[place]),
                        f"{short} low": float(band.low[place]),
                        f"{short} high": float(band.high[place]),
                    }
                rows.append(row | {"status": _both(line)})
        return rows

    def exponent_rows(self) -> list[dict[str, Any]]:
        """A line per approach: exponents, and the draws behind the intervals."""
        return [
            {
                "suite": self.suite,
                "approach": line.approach,
                "of N*": line.params_exponent,
                "of N* low": line.params_exponent_interval.low,
                "of N* high": line.params_exponent_interval.high,
                "of D*": line.tokens_exponent,
                "of D* low": line.tokens_exponent_interval.low,
                "of D* high": line.tokens_exponent_interval.high,
                "draws": line.draws,
                "skipped": line.draws - line.used,
                "without a loss": line.used - line.loss_draws,
                "status": _both(line),
            }
            for line in self.lines
        ]

    def bucket_rows(self) -> list[dict[str, Any]]:
        """A line per bucket: both optima, and the parabola's known biases."""
        return [
            {
                "suite": self.suite,
                "bucket (FLOPs)": bucket.parabola.bucket,
                "runs": len(bucket.parabola.loss),
                "D* parabola": bucket.parabola.tokens_star,
                "D* spline": bucket.spline_tokens,
                "freedom": bucket.freedom,
                "width (decades)": bucket.width,
                "off centre": bucket.off_centre,
                "over/under": bucket.asymmetry,
                "p cubic": bucket.cubic.p_value,
                "p quartic": bucket.quartic.p_value,
                "bias of D* (%)": bucket.bias,
                "biases": ", ".join(bucket.flags),
                "status": bucket.parabola.status.label,
                "spline": bucket.spline_status.label,
            }
            for bucket in self.buckets
        ]

    def cost_rows(self) -> list[dict[str, Any]]:
        """A line per budget and choice: what it costs where the other approach is right."""
        return [
            {
                "suite": self.suite,
                "compute (FLOPs)": cost.budget,
                "chosen": cost.chosen,
                "if right": cost.judge,
                "D chosen/D*": cost.tokens_ratio,
                "loss penalty": cost.penalty,
                "loss penalty low": cost.penalty_interval.low,
                "loss penalty high": cost.penalty_interval.high,
                "compute wasted (%)": cost.waste,
                "compute wasted (%) low": cost.waste_interval.low,
                "compute wasted (%) high": cost.waste_interval.high,
                "loss forecast": cost.forecast,
                "compute for that forecast/C": cost.match,
                "status": _cost_status(cost),
            }
            for cost in self.costs
        ]

    def notices(self) -> list[str]:
        """What a reader should know beside the numbers, a sentence each."""
        return [
            *_line_notices(self),
            *_bucket_notices(self),
            *_bias_notices(self),
            *_flops_notices(self),
            # Its bootstrap says for itself how the surface was fitted.
            *(self.surface if self.surface.point.fitted else self.surface.point).notices(),
        ]


@dataclass(frozen=True, eq=False, repr=False)
class AllocationFit(Result):
    """The allocation of every suite asked for."""

    suites: tuple[SuiteAllocation, ...]

    def of(self, suite: str) -> SuiteAllocation:
        """The allocation of one suite; KeyError for one that was not asked for."""
        for each in self.suites:
            if each.suite == suite:
                return each
        raise KeyError(suite)

    def rows(self) -> list[dict[str, Any]]:
        return [row for each in self.suites for row in each.rows()]

    def notices(self) -> list[str]:
        return [sentence for each in self.suites for sentence in each.notices()]


def _both(line: AllocationLine) -> str:
    """The line's status, and that of its loss where it is another one."""
    if line.loss_status is line.status or not line.fitted:
        return line.status.label
    return f"{line.status.label}; loss: {line.loss_status.label}"


def _line_notices(fit: SuiteAllocation) -> list[str]:
    sentences = []
    for line in fit.lines:
        name = f"allocation of {fit.suite} by {line.approach}"
        # The surface says for itself how it was fitted.
        by_itself = line.approach == SURFACE and line.status is fit.surface.point.status
        if line.status is not Status.FITTED and not by_itself:
            sentences.append(f"{name}: {line.status.label}; {line.status.remedy}")
        elif line.fitted and line.loss_status is not line.status:
            sentences.append(f"{name}, loss: {line.loss_status.label}; {line.loss_status.remedy}")
        if line.approach != SURFACE and line.fitted and line.used < (1 - _MANY) * line.draws:
            sentences.append(
                f"{name}: {100 * (1 - line.used / line.draws):.3g} % of the draws were skipped; an interval of the "
                "rest may be too narrow"
            )
        if line.fitted and line.used < (least := least_draws(fit.level)):
            sentences.append(
                f"{name} has no interval: {line.used} of {line.draws} draws were fitted, at level {fit.level:g} it "
                f"takes {least}"
            )
        if line.scatter > _SCATTERED:
            sentences.append(
                f"{name}: the optimal tokens scatter about their line {line.scatter:.2g} times as much as those of "
                "resampled runs, and buckets are not resampled: its intervals are likely too narrow"
            )
    few = ", ".join(
        scientific(bucket.parabola.bucket) for bucket in fit.buckets if bucket.parabola_used and bucket.distinct == 3
    )
    if few:
        sentences.append(
            f"{fit.suite} has only three token counts at {few} FLOPs: the parabola passes through them, so that "
            "resampling them tells no error of it: intervals by parabola are likely too narrow"
        )
    return sentences


def _bucket_notices(fit: SuiteAllocation) -> list[str]:
    sentences = []
    for bucket in fit.buckets:
        name = f"IsoFLOP bucket of {fit.suite} at {scientific(bucket.parabola.bucket)} FLOPs"
        status = bucket.parabola.status
        if not bucket.parabola_used:
            side = "more" if bucket.off_centre > 0 else "fewer"
            where = f", towards {side} tokens" if status is Status.CLIPPED_TO_EDGE else ""
            sentences.append(f"{name}: left out of the allocation, {status.label}{where}; {status.remedy}")
        elif bucket.without_optimum > _MANY:
            sentences.append(
                f"{name}: in {100 * bucket.without_optimum:.3g} % of the draws its parabola has no minimum within the "
                "observed tokens, and the bucket is left out; the intervals may be too narrow"
            )
    return sentences


def _bias_notices(fit: SuiteAllocation) -> list[str]:
    """What is known to bias parabolas, and where it shows (Czech et al.)."""
    return [
        f"parabolas of {fit.suite}, {words}"
        for words in (_asymmetric(fit), _wide(fit), _off_centre(fit), _few_points(fit), _on_surface(fit))
        if words
    ]


def _asymmetric(fit: SuiteAllocation) -> str:
    if not fit.cubic.p_value < 1 - fit.level:
        return ""
    steeper, drawn = ("more", "fewer") if fit.cubic.sign > 0 else ("fewer", "more")
    return (
        f"asymmetric: losses rise faster towards {steeper} tokens ({_evidence(fit, fit.cubic, ASYMMETRIC)}); where the "
        f"tokens are centred on it, this draws the parabola's optimum towards {drawn} tokens ({_SOURCE})"
    )


def _wide(fit: SuiteAllocation) -> str:
    if not fit.quartic.p_value < 1 - fit.level:
        return ""
    flat = "at the bottom" if fit.quartic.sign > 0 else "at the ends"
    return (
        f"wide grid: the valleys are flatter {flat} than a parabola ({_evidence(fit, fit.quartic, WIDE)}); its "
        f"curvature, and off centre its optimum, depend on how wide the tokens are ({_SOURCE})"
    )


def _evidence(fit: SuiteAllocation, term: LackOfFit, flag: str) -> str:
    name = "cubic" if term is fit.cubic else "quartic"
    alone = _budgets(fit, flag)
    where = (
        f"alone below {1 - fit.level:.2g} at {alone} FLOPs"
        if alone
        else f"in no bucket alone below {1 - fit.level:.2g}"
    )
    return f"{name} term, p = {term.p_value:.2g} over all buckets, {where}"


def _off_centre(fit: SuiteAllocation) -> str:
    shares = ", ".join(
        f"{bucket.off_centre:+.2f} at {scientific(bucket.parabola.bucket)}"
        for bucket in fit.buckets
        if OFF_CENTRE in bucket.flags
    )
    if not shares:
        return ""
    return (
        f"off centre: optima outside the middle third of the tokens (in half ranges: {shares} FLOPs); the offset "
        f"moves by {fit.drift:+.2f} decades of tokens per decade of compute, and the bias with it, into the exponents "
        f"({_SOURCE})"
    )


def _few_points(fit: SuiteAllocation) -> str:
    budgets = _budgets(fit, FEW_POINTS)
    return (
        f"few points: too few to tell a bias, or for another spline than the parabola, at {budgets} FLOPs"
        if budgets
        else ""
    )


def _on_surface(fit: SuiteAllocation) -> str:
    bias, exponent = fit.bias, fit.line(SURFACE).tokens_exponent
    if not np.any(np.abs(bias.tokens) > _SMALL_BIAS):
        return ""
    worst = int(np.argmax(np.abs(bias.tokens)))
    more = "more" if bias.tokens[worst] > 0 else "fewer"
    return (
        f"how far off: on the fitted surface without noise, at these runs' tokens, they would give D* the exponent "
        f"{bias.tokens_exponent:.3f} instead of {exponent:.3f}, and at {scientific(float(fit.budgets[worst]))} FLOPs "
        f"{abs(bias.tokens[worst]):.3g} % {more} tokens than optimal"
    )


def _budgets(fit: SuiteAllocation, flag: str) -> str:
    return ", ".join(scientific(bucket.parabola.bucket) for bucket in fit.buckets if flag in bucket.flags)


def _flops_notices(fit: SuiteAllocation) -> list[str]:
    low, high = fit.factor_range
    spread = f"{fit.suite}: the runs' measured C/(N*D) ranges from {low:.3g} to {high:.3g}"
    uneven = max(high / fit.factor, fit.factor / low) > 1 + _EVEN
    sentences = []
    if uneven and fit.flops != "measured":
        sentences.append(
            f"{spread}: the optima are those at equal measured FLOPs, which are not quite those at equal 6*N*D; the "
            "surface's are"
        )
    elif uneven and fit.line(SURFACE).fitted:
        share = fit.surface.point.params_exponent
        least, most = (100 * ((fit.factor / end) ** share - 1) for end in (high, low))
        sentences.append(
            f"{spread}; the surface's budgets are counted with the median {fit.factor:.3g}, either end of the range "
            f"would change its N* by {least:+.2g} or {most:+.2g} %"
        )
    for line in fit.lines:
        product = fit.factor * line.at.params.value * line.at.tokens.value / line.at.compute
        if line.approach != SURFACE and np.any(np.abs(product - 1) > _EVEN):
            sentences.append(
                f"allocation of {fit.suite} by {line.approach}: its N* and D* are fitted apart, and "
                f"{fit.factor:.3g}*N*D is {product.min():.2f} to {product.max():.2f} of the budget; what the choice "
                "costs is of their ratio, on the budget"
            )
    return sentences


def _cost_status(cost: CostOfChoice) -> str:
    """The status, and that of the forecast: a loss below the judge's asymptote is reached by no budget."""
    if cost.match_status is Status.FITTED:
        return cost.status.label
    unreached = cost.match_status is Status.NOT_REACHED
    words = "not reachable at any budget" if unreached else cost.match_status.label
    return f"{cost.status.label}; forecast: {words}"
