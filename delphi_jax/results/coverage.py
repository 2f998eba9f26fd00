"""How often intervals of simulated studies held the truth."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from delphi_jax.labels import NEW_RUN, SIDES, budget_name
from delphi_jax.results.base import Floats, Result
from delphi_jax.status import Status
from delphi_jax.text import scientific

__all__ = ["MONTE_CARLO_LEVEL", "CoverageFit", "wilson_interval"]

MONTE_CARLO_LEVEL = 0.95
"""Of the range that a coverage lies in, given the number of simulated studies."""

_VERDICT_LEVEL = 0.999
"""Of the range of a coverage that a verdict rests on: a table of dozens of them then rarely accuses a good one."""

_EVEN = 0.05
"""By how much k in C = k(N)*N*D may vary before a reader is told."""

_MOST_MISSING = 0.01
"""Share of studies without an interval above which a reader is told."""

Integers = NDArray[np.int64]


def wilson_interval(hits: ArrayLike, trials: ArrayLike, level: float = MONTE_CARLO_LEVEL) -> tuple[Floats, Floats]:
    """Range of a probability of which ``hits`` of ``trials`` independent trials were seen, any shape; NaN for no trial.

    The score interval (Wilson 1927, Journal of the American Statistical Association 22, 209), which keeps its level
    near 0 and 1 too, where the binomial standard error vanishes.
    """
    hits, trials = np.asarray(hits, dtype=np.float64), np.asarray(trials, dtype=np.float64)
    z = NormalDist().inv_cdf((1 + level) / 2)
    n = np.where(trials > 0, trials, np.nan)
    share = hits / n
    middle = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    # At 0 and 1 the ends are these to the last bit, but for rounding.
    low, high = np.where(hits == 0, 0.0, middle - half), np.where(hits == trials, 1.0, middle + half)
    return np.where(trials > 0, low, np.nan), np.where(trials > 0, high, np.nan)


def _short(value: float) -> float:
    """``value`` to three digits, for tables: the rest is Monte-Carlo error."""
    return float(f"{value:.3g}")


@dataclass(frozen=True, eq=False, repr=False)
class CoverageFit(Result):
    """Coverage, width and bias of M interval methods at Q target budgets, over studies simulated from one truth.

    Widths and biases are in percent of the true loss. Their errors are Monte-Carlo standard errors.
    """

    series: str
    truth: str
    """What the studies were simulated from: "law" or "surface"."""
    method: str
    """How that was fitted: the law's asymptote, or the surface's objective."""
    truth_status: Status
    """Of the fit that the studies were simulated from."""
    parameters: Mapping[str, float]
    """Of the truth: L_inf, A, alpha; or E, A, B, a, b and the range of k in C = k(N)*N*D."""
    status: Status
    """FITTED where every method gave an interval at every target in some study, else the commonest reason."""
    buckets: Floats
    """[K] budgets of every simulated study, FLOPs."""
    runs: Integers
    """[K] runs of each."""
    completed: Floats
    """Budgets whose own parabola has no minimum within its runs, so that the truth took the other ones' regression."""
    targets: Floats
    """[Q] FLOPs"""
    losses: Floats
    """[Q] the true loss there."""
    inside: NDArray[np.bool_]
    """[Q] whether a target lies between the smallest and the largest budget of the fit."""
    methods: tuple[str, ...]
    kinds: tuple[str, ...]
    """[M] what each method's interval is for: one of the keys of :attr:`holds`."""
    noise: float
    """Standard deviation of a run's normal noise: nats, or a share of loss - L_inf, as ``noise_model`` says."""
    bucket_noise: float
    """That of the normal noise that all runs of a bucket share."""
    noise_model: str
    """"additive": the same everywhere, or "reducible": proportional to loss - L_inf."""
    noise_given: bool
    """Whether the noise was stated; else it is the pooled residual deviation of the study's parabolas."""
    pinned: float
    """The truth's irreducible loss: the asymptote of the methods that pin one."""
    studies: int
    draws: int
    seed: int
    level: float
    """Nominal coverage."""
    study_status: Mapping[Status, Integers]
    """[M, Q] number of studies in which a method ended with each status."""
    with_interval: Integers
    """[M, Q] studies in which a method gave an interval."""
    holds: Mapping[str, Integers]
    """[M, Q] studies whose interval contains: "law", the true loss; "new optimum", that of the parabola through a new
    bucket of runs there, about its optimum as those of the largest bucket are; "new run", a run at the true optimum."""
    width: Floats
    """[M, Q] median width of the intervals, %; inf where the median one has no end."""
    width_error: Floats
    mean_width: Floats
    mean_width_error: Floats
    bias: Floats
    """[M, Q] mean of (point forecast - truth), % of the truth."""
    bias_error: Floats
    median_bias: Floats
    """[M, Q] the same of the draws' median; NaN for methods without draws."""
    median_bias_error: Floats

    @property
    def hits(self) -> Integers:
        """[M, Q] studies whose interval contains what it is for."""
        return np.array([self.holds[kind][m] for m, kind in enumerate(self.kinds)])

    @property
    def coverage(self) -> Floats:
        """[M, Q] share of all studies whose interval contains what it is for; none given contains nothing."""
        return self.hits / self.studies

    @property
    def coverage_error(self) -> Floats:
        """[M, Q] binomial standard error of :attr:`coverage`; 0 at 0 and 1, see :attr:`coverage_range`."""
        return np.sqrt(self.coverage * (1 - self.coverage) / self.studies)

    @property
    def coverage_range(self) -> tuple[Floats, Floats]:
        """([M, Q], [M, Q]) ends of the Wilson interval of :attr:`coverage`."""
        return wilson_interval(self.hits, self.studies)

    @property
    def coverage_where_given(self) -> Floats:
        """[M, Q] share of the studies with an interval whose interval contains what it is for; NaN for none."""
        return self.hits / np.where(self.with_interval > 0, self.with_interval, np.nan)

    @property
    def verdicts(self) -> tuple[tuple[str, ...], ...]:
        """[M][Q] whether intervals, where given, hold their level within Monte-Carlo error; empty for none."""
        low, high = wilson_interval(self.hits, self.with_interval, _VERDICT_LEVEL)
        words = np.where(high < self.level, "too narrow", np.where(low > self.level, "too wide", "holds"))
        return tuple(map(tuple, np.where(self.with_interval > 0, words, "").tolist()))

    @property
    def truth_name(self) -> str:
        """The truth, with its status where that is not FITTED."""
        note = "" if self.truth_status is Status.FITTED else f" ({self.truth_status.label})"
        return f"{self.truth}{note}"

    def side(self, target: int) -> str:
        """Whether the target at this place lies inside or beyond the fit, in words."""
        return SIDES[0] if self.inside[target] else SIDES[1]

    def rows(self) -> list[dict[str, Any]]:
        low, high = self.coverage_range
        verdicts = self.verdicts
        return [
            {
                "method": method,
                "interval for": kind,
                "truth": self.truth_name,
                "compute budget (FLOPs)": float(budget),
                "side": self.side(q),
                "coverage (%)": _short(100 * self.coverage[m, q]),
                "from": _short(100 * low[m, q]),
                "to": _short(100 * high[m, q]),
                "no interval": self.studies - int(self.with_interval[m, q]),
                "where given (%)": _short(100 * self.coverage_where_given[m, q]),
                "verdict": verdicts[m][q],
                "of new runs (%)": _short(100 * self.holds[NEW_RUN][m, q] / self.studies),
                "width (%)": _short(self.width[m, q]),
                "width ±": _short(self.width_error[m, q]),
                "bias (%)": _short(self.bias[m, q]),
                "bias ±": _short(self.bias_error[m, q]),
                "median's bias (%)": _short(self.median_bias[m, q]),
            }
            for m, (method, kind) in enumerate(zip(self.methods, self.kinds, strict=True))
            for q, budget in enumerate(self.targets)
        ]

    def settings(self) -> list[str]:
        """What was simulated, and how to read the table: a sentence each."""
        parameters = ", ".join(f"{name} = {value:.6g}" for name, value in self.parameters.items())
        unit = "nats" if self.noise_model == "additive" else "of loss - L_inf"
        source = "as given" if self.noise_given else "the pooled deviation of the runs from their parabolas"
        return [
            f"{self.studies} studies of {len(self.buckets)} budgets with {int(self.runs.sum())} runs, simulated from "
            f"the {self.truth_name} of {self.series} ({self.method}: {parameters}), {self.draws} draws each, seed "
            f"{self.seed}",
            f"noise: normal, {self.noise_model}, standard deviation of a run {self.noise:.4g} {unit}, {source}; of the "
            f"part that all runs of a budget share {self.bucket_noise:.4g}",
            *self._surface_settings(),
            f"methods that pin an asymptote take that of the truth, {self.pinned:.6g}",
            f"coverage: share of all studies whose {100 * self.level:g} % interval holds what it is for; from, to: its "
            f"{100 * MONTE_CARLO_LEVEL:g} % Wilson interval",
            "of new runs: share of all studies whose interval holds one new run at the target's optimum",
            "width: median; widths and biases in percent of the true loss; ±: Monte-Carlo standard errors",
            f"verdict: of the intervals given, by a {100 * _VERDICT_LEVEL:g} % Wilson interval",
        ]

    def notices(self) -> list[str]:
        """What a reader should know beside the numbers, a sentence each."""
        sentences = [self._verdict_notice(word) for word in ("too narrow", "too wide")]
        sentences += [self._missing_notice(m) for m in range(len(self.methods))]
        if len(self.completed):
            budgets = ", ".join(map(scientific, self.completed))
            sentences.append(
                f"the parabola of {self.series} has no minimum within its runs at {budgets} FLOPs: there the truth has "
                "the other budgets' regression of optimal tokens, and their median curvature"
            )
        sentences.append(self._flops_notice())
        return [sentence for sentence in sentences if sentence]

    def _surface_settings(self) -> list[str]:
        if self.truth != "surface":
            return []
        return [
            "truth at a budget: the lowest loss where C = k(N)*N*D, k as measured, between and beyond the runs' N from "
            "the nearest"
        ]

    def _flops_notice(self) -> str:
        """Whether FLOPs per parameter and token vary so much that the lowest loss is no power law; empty if not."""
        low, high = (self.parameters.get(name, np.nan) for name in ("k_min", "k_max"))
        if not high > (1 + _EVEN) * low:
            return ""
        return (
            f"C/(N*D) of {self.series} goes from {low:.3g} to {high:.3g}: the lowest loss of its surface is no power "
            "law of C, and laws that are fitted to it are biased beyond the fit"
        )

    def _verdict_notice(self, word: str) -> str:
        """Which intervals the ``word`` is said of; empty for none."""
        found = {
            method: [budget_name(budget) for budget, said in zip(self.targets, line, strict=True) if said == word]
            for method, line in zip(self.methods, self.verdicts, strict=True)
        }
        lines = [f"{method} at {', '.join(budgets)}" for method, budgets in found.items() if budgets]
        return f"intervals that are {word}: {'; '.join(lines)}" if lines else ""

    def _missing_notice(self, m: int) -> str:
        """How often, and why, a method gave no interval, where that is often; empty where it is not."""
        missing = self.studies - self.with_interval[m]
        if missing.max() <= _MOST_MISSING * self.studies:
            return ""
        q = int(missing.argmax())
        reasons = ", ".join(
            f"{status.label}: {counts[m, q]}"
            for status, counts in self.study_status.items()
            if counts[m, q] and not status.usable
        )
        return (
            f"{self.methods[m]} gave no interval at {budget_name(self.targets[q])} FLOPs in {missing[q]} of "
            f"{self.studies} studies ({reasons}): they count as misses of its coverage"
        )
