"""Typed, immutable results of every fit: NumPy arrays and plain numbers, no JAX, no pandas.

Each result prints as a table, converts to pandas (``to_frame``) and to JSON (``to_json``); all three come
from ``rows()``, the one place that says what a reader should see.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from delphi_jax.formulas import law_loss, parabola, residual_percent, richards
from delphi_jax.labels import ADAMH_SUITE, UNKNOWN_SUITE, view_name
from delphi_jax.status import Status
from delphi_jax.tables import Missing, Skipped
from delphi_jax.text import scientific

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "FIT_DIVIDE",
    "BootstrapFit",
    "BootstrapStudy",
    "CellFit",
    "DownstreamFit",
    "HeldOutFit",
    "HeldOutRun",
    "Interval",
    "IsoflopFit",
    "LawFit",
    "OvertrainingFit",
    "OvertrainingScale",
    "ParabolaFit",
    "PartialDependence",
    "Result",
    "RichardsFit",
    "SeedDeviation",
    "SeedFit",
    "StudyFit",
    "SweepFit",
]

Floats = NDArray[np.float64]

FIT_DIVIDE = 5e20
"""FLOPs: budgets below are fitted, the rest held out."""


_CELLS_SHOWN = 6
"""Sweep cells that a sentence names before "and n more"."""

_MOST_SKIPPED = 0.1
"""Share of skipped bootstrap draws above which a reader is told."""


def plain(value: Any) -> Any:
    """``value`` as JSON holds it: arrays as lists, statuses as words, non-finite numbers as null."""
    if isinstance(value, Status):
        return value.label
    if isinstance(value, np.ndarray):
        return [plain(item) for item in value.tolist()]
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float):
        return value if np.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if is_dataclass(value):
        return {f.name: plain(getattr(value, f.name)) for f in fields(value)}
    return value


class Result:
    """What every result can do: print as a table, become a data frame or JSON."""

    def rows(self) -> list[dict[str, Any]]:
        """One mapping of column to value per line of the table that a reader should see."""
        raise NotImplementedError

    def to_dict(self) -> dict[str, Any]:
        """Every field, arrays included, as JSON holds it."""
        return plain(self)

    def to_json(self, indent: int | None = None) -> str:
        """Every field as a JSON text; numbers that do not exist are null, beside their status."""
        return json.dumps(self.to_dict(), indent=indent, ensure_ascii=False, allow_nan=False)

    def to_frame(self) -> pd.DataFrame:
        """The rows as a pandas data frame."""
        import pandas as pd

        return pd.DataFrame(self.rows())

    def __repr__(self) -> str:
        return f"{type(self).__name__}\n{self.to_frame().to_string(index=False)}"

    def _repr_html_(self) -> str:
        return self.to_frame().to_html(index=False)


@dataclass(frozen=True, eq=False, repr=False)
class ParabolaFit(Result):
    """IsoFLOP parabola of one suite and compute budget: loss against x = log10 tokens."""

    suite: str
    bucket: float
    """Compute budget, FLOPs."""
    tokens: Floats
    """[n] runs that entered the fit, in table order."""
    params: Floats
    """[n]"""
    loss: Floats
    """[n], nats per token."""
    status: Status
    a: float = np.nan
    b: float = np.nan
    c: float = np.nan
    vertex_log_tokens: float = np.nan
    """-b/(2a), before clipping."""
    log_tokens_star: float = np.nan
    tokens_star: float = np.nan
    loss_star: float = np.nan
    params_star: float = np.nan
    curvature_under: float = np.nan
    """One-sided curvature left of the optimum (fewer tokens)."""
    curvature_over: float = np.nan
    one_sided: tuple[bool, bool] = (False, False)
    """Whether each one-sided curvature was measured; where not, it is the two-sided ``a``."""
    score: float = np.nan
    """Mean squared residual."""

    @property
    def fitted(self) -> bool:
        return self.status.usable

    def loss_at(self, log_tokens: Floats) -> Floats:
        """The parabola at x = log10 tokens, any shape."""
        return parabola(log_tokens, self.a, self.b, self.c)

    def rows(self) -> list[dict[str, Any]]:
        return [
            {
                "suite": self.suite,
                "compute budget (FLOPs)": self.bucket,
                "runs": len(self.loss),
                "optimal tokens": self.tokens_star,
                "optimal params": self.params_star,
                "optimal loss": self.loss_star,
                "curvature": self.a,
                "status": self.status.label,
            }
        ]


@dataclass(frozen=True, eq=False, repr=False)
class IsoflopFit(Result):
    """All IsoFLOP parabolas of a study, ordered by suite name, then budget; unfitted groups included."""

    parabolas: tuple[ParabolaFit, ...]

    @property
    def suites(self) -> tuple[str, ...]:
        """Suites with at least one run, in alphabetical order: the order that gives them their colours."""
        return tuple(sorted({fit.suite for fit in self.parabolas}))

    @property
    def buckets(self) -> tuple[float, ...]:
        """Compute budgets in FLOPs over all suites, ascending: the order that gives them their colours."""
        return tuple(sorted({fit.bucket for fit in self.parabolas}))

    def of(self, suite: str) -> tuple[ParabolaFit, ...]:
        """The fitted parabolas of one suite, by ascending budget."""
        return tuple(fit for fit in self.parabolas if fit.suite == suite and fit.fitted)

    def optima(self, suite: str) -> tuple[Floats, Floats, Floats]:
        """(compute FLOPs, optimal loss, optimal tokens) of one suite's fitted buckets, each [n]."""
        fits = self.of(suite)
        columns = [(fit.bucket, fit.loss_star, fit.tokens_star) for fit in fits]
        compute, loss, tokens = np.array(columns, dtype=np.float64).reshape(len(fits), 3).T
        return compute, loss, tokens

    def rows(self) -> list[dict[str, Any]]:
        return [row for fit in self.parabolas for row in fit.rows()]


@dataclass(frozen=True, eq=False, repr=False)
class LawFit(Result):
    """Asymptotic power law L(C) = L_inf + A*C**-alpha of one series."""

    series: str
    asymptote: str
    """How L_inf came about: "free", "shared" or "pinned"."""
    compute: Floats
    """[n] FLOPs"""
    loss: Floats
    """[n] the fitted metric."""
    status: Status
    L_inf: float = np.nan
    A: float = np.nan
    alpha: float = np.nan
    score: float = np.nan
    """Mean squared log residual."""
    grid_index: int = -1
    """Index of the chosen L_inf on its grid; -1 where there was no grid or no fit."""
    n_grid: int = 0
    profile: Floats = field(default_factory=lambda: np.empty(0))
    """[n_grid] the score at every grid value, inf where it does not fit; empty for a pinned law."""

    @property
    def fitted(self) -> bool:
        return self.status.usable

    def loss_at(self, compute: Any) -> Floats:
        """The law at ``compute`` FLOPs, any shape; NaN where the law was not fitted (see ``status``)."""
        return law_loss(np.asarray(compute, dtype=np.float64), self.L_inf, self.A, self.alpha)

    def rows(self) -> list[dict[str, Any]]:
        return [
            {
                "series": self.series,
                "asymptote": self.asymptote,
                "budgets": len(self.compute),
                "L_inf": self.L_inf,
                "A": self.A,
                "alpha": self.alpha,
                "mean squared log residual": self.score,
                "status": self.status.label,
            }
        ]


@dataclass(frozen=True)
class Interval:
    """A central percentile interval."""

    low: float
    median: float
    high: float


def _bootstrap_notices(bootstrap: BootstrapFit | BootstrapStudy) -> list[str]:
    """A sentence for a status that is not FITTED, and one where many draws were skipped."""
    sentences, fitted = [], bootstrap.count(Status.FITTED) > 0
    if bootstrap.status is not Status.FITTED:
        remedy = (
            "all fitted draws give one and the same law, which tells no interval: add budgets, or draws"
            if fitted
            else bootstrap.status.remedy
        )
        sentences.append(f"bootstrap of {bootstrap.series}: {bootstrap.status.label}; {remedy}")
    if fitted and bootstrap.skipped_probability > _MOST_SKIPPED:
        sentences.append(
            f"bootstrap of {bootstrap.series}: {100 * bootstrap.skipped_probability:.3g} % of the draws were skipped, "
            "as no law can be fitted to them; an interval of the rest may be too narrow"
        )
    return sentences


def _forecast_columns(bootstrap: BootstrapFit | BootstrapStudy, target: float, interval: Interval) -> dict[str, Any]:
    low, mid, high = bootstrap.percentiles
    return {
        "series": bootstrap.series,
        "compute budget (FLOPs)": target,
        f"{low:g} %": interval.low,
        f"{mid:g} %": interval.median,
        f"{high:g} %": interval.high,
    }


def _skipped_columns(bootstrap: BootstrapFit | BootstrapStudy) -> dict[str, int]:
    return {
        "skipped: too few points": bootstrap.count(Status.TOO_FEW_POINTS),
        "skipped: no fit": bootstrap.count(Status.NO_GRID_VALUE_FITS),
    }


@dataclass(frozen=True, eq=False, repr=False)
class BootstrapFit(Result):
    """Bootstrap of one series' free-asymptote law over its optima; R draws, Q target budgets.

    Where all fitted draws give one and the same law there is no interval: the status is TOO_FEW_POINTS.
    """

    series: str
    targets: Floats
    """[Q] FLOPs"""
    status: Status
    draw_status: NDArray[np.int64]
    """[R] Status of each draw; the arrays below hold NaN where it is not FITTED."""
    L_inf: Floats
    """[R]"""
    A: Floats
    """[R]"""
    alpha: Floats
    """[R]"""
    score: Floats
    """[R]"""
    forecasts: Floats
    """[R, Q]"""
    intervals: tuple[Interval, ...]
    """[Q] percentiles of the fitted draws' forecasts, linear interpolation; of the exact bootstrap the smallest
    forecast at which the cumulative probability, given that a draw could be fitted, reaches the percentile."""
    percentiles: tuple[float, float, float]
    n_grid: int
    seed: int | None
    """Seed of the NumPy resampling indices, or None where indices or a key were given, or every resample taken."""
    method: str = "monte-carlo"
    """One of: "monte-carlo", or "exact": the draws are all distinct resamples."""
    weights: Floats | None = None
    """[R] probability of each draw; equal ones where not given, as in Monte Carlo."""

    def __post_init__(self) -> None:
        if self.weights is None:
            object.__setattr__(self, "weights", np.full(self.n_draws, 1 / max(self.n_draws, 1)))

    @property
    def n_draws(self) -> int:
        return len(self.draw_status)

    def count(self, status: Status) -> int:
        """Number of draws that ended with ``status``."""
        return int(np.sum(self.draw_status == status))

    @property
    def skipped_probability(self) -> float:
        """Probability that a resample is skipped: exact, or the share of the Monte-Carlo draws."""
        return float(np.sum(self.weights[self.draw_status != Status.FITTED]))

    def notices(self) -> list[str]:
        """What a reader should know beside the numbers, a sentence each."""
        return _bootstrap_notices(self)

    def rows(self) -> list[dict[str, Any]]:
        return [
            {
                **_forecast_columns(self, target, interval),
                "draws": self.n_draws,
                **_skipped_columns(self),
                "skipped (%)": 100 * self.skipped_probability,
                "draws with L_inf = 0": int(np.sum(self.L_inf == 0.0)),
                "status": self.status.label,
            }
            for target, interval in zip(self.targets, self.intervals, strict=True)
        ]


@dataclass(frozen=True, eq=False, repr=False)
class BootstrapStudy(Result):
    """Percentiles of a bootstrap whose draws were counted, not kept; Q target budgets.

    Where all fitted draws give one and the same law there is no interval: the status is TOO_FEW_POINTS.
    """

    series: str
    targets: Floats
    """[Q] FLOPs"""
    method: str
    """How: "table", "stream" or "exact", see :func:`~delphi_jax.fit.stream.bootstrap_study`."""
    status: Status
    draws: int
    """Draws made; of an exact bootstrap, the n**n resamples, each of them once."""
    draw_counts: Mapping[Status, int]
    """Draws that ended with each status; those that are not FITTED were skipped."""
    at_zero: int
    """Fitted draws with L_inf = 0."""
    intervals: tuple[Interval, ...]
    """[Q] percentiles of the fitted draws' forecasts."""
    bounds: Floats
    """[Q, 3] how far each percentile may be off by the histogram's bins, above or below; 0 where nothing was binned."""
    outside: NDArray[np.int64]
    """[Q] fitted draws whose forecast is not finite or beyond the histogram; a percentile among them is NaN."""
    percentiles: tuple[float, float, float]
    n_grid: int
    seed: int | None
    """None for an exact bootstrap, which draws nothing."""

    def count(self, status: Status) -> int:
        """Number of draws that ended with ``status``."""
        return self.draw_counts.get(status, 0)

    @property
    def skipped_probability(self) -> float:
        """Probability that a resample is skipped: exact, or the share of the draws."""
        return 1 - self.count(Status.FITTED) / self.draws

    def notices(self) -> list[str]:
        """What a reader should know beside the numbers, a sentence each."""
        return _bootstrap_notices(self)

    def rows(self) -> list[dict[str, Any]]:
        return [
            {
                **_forecast_columns(self, target, interval),
                "bound ±": float(np.max(bounds)),
                "method": self.method,
                "draws": self.draws,
                **_skipped_columns(self),
                "draws with L_inf = 0": self.at_zero,
                "outside the histogram": int(outside),
                "status": self.status.label,
            }
            for target, interval, bounds, outside in zip(
                self.targets, self.intervals, self.bounds, self.outside, strict=True
            )
        ]


@dataclass(frozen=True)
class HeldOutRun:
    """One held-out compute-optimal run."""

    name: str
    suite: str
    seed: str
    budget: float
    """Nominal compute budget, 10**round(log10 C), FLOPs."""
    loss: float
    finished: bool


@dataclass(frozen=True, eq=False, repr=False)
class HeldOutFit(Result):
    """Held-out runs beside the forecast of their suite's law."""

    runs: tuple[HeldOutRun, ...]
    """All held-out runs in table order, diverged ones included."""
    laws: Mapping[str, LawFit]

    def means(self, suite: str) -> tuple[Floats, Floats]:
        """(budget FLOPs, mean loss over seeds of the finished runs), each [n], by ascending budget."""
        finished = [run for run in self.runs if run.suite == suite and run.finished]
        budgets = sorted({run.budget for run in finished})
        means = [np.mean([run.loss for run in finished if run.budget == budget]) for budget in budgets]
        return np.array(budgets, dtype=np.float64), np.array(means, dtype=np.float64)

    def diverged(self, suite: str) -> tuple[HeldOutRun, ...]:
        """Runs of one suite that did not finish, in table order."""
        return tuple(run for run in self.runs if run.suite == suite and not run.finished)

    def residuals(self, suite: str) -> Floats:
        """Percent deviation of each mean from the law, [n] as in :meth:`means`; NaN without a law."""
        budgets, means = self.means(suite)
        law = self.laws.get(suite)
        predicted = law.loss_at(budgets) if law is not None else np.full_like(budgets, np.nan)
        return residual_percent(means, predicted)

    def rows(self) -> list[dict[str, Any]]:
        out = []
        for suite in sorted({run.suite for run in self.runs}):
            budgets, means = self.means(suite)
            law = self.laws.get(suite)
            for budget, mean, residual in zip(budgets, means, self.residuals(suite), strict=True):
                seeds = sum(run.suite == suite and run.finished and run.budget == budget for run in self.runs)
                forecast = float(law.loss_at(budget)) if law is not None else np.nan
                out.append(
                    {
                        "suite": suite,
                        "compute budget (FLOPs)": budget,
                        "runs": seeds,
                        "mean loss": mean,
                        "forecast": forecast,
                        "residual (%)": residual,
                        "status": (law.status if law is not None else Status.NO_DATA).label,
                    }
                )
        return out


@dataclass(frozen=True)
class SeedDeviation:
    """Held-out runs of one budget beside the bootstrap interval, all in percent of the point forecast."""

    budget: float
    point_forecast: float
    seeds: tuple[str, ...]
    deviations: Floats
    """[number of seeds]"""
    low: float
    high: float


@dataclass(frozen=True, eq=False, repr=False)
class SeedFit(Result):
    """The seed comparison of one suite: is the held-out residual luck?"""

    suite: str
    law: LawFit
    bootstrap: BootstrapFit
    budgets: tuple[SeedDeviation, ...]

    def rows(self) -> list[dict[str, Any]]:
        return [
            {
                "suite": self.suite,
                "compute budget (FLOPs)": line.budget,
                "seed": seed,
                "deviation (%)": deviation,
                "interval low (%)": line.low,
                "interval high (%)": line.high,
            }
            for line in self.budgets
            for seed, deviation in zip(line.seeds, line.deviations, strict=True)
        ]


@dataclass(frozen=True)
class OvertrainingScale:
    """What training at ``scale`` times the optimal tokens costs; G budgets on the search grid."""

    scale: float
    """T/T*"""
    status: Status
    """FITTED, or NOT_REACHED where the curve never falls to the target within the grid."""
    shifted_loss: Floats
    """[n buckets] loss of each bucket's one-sided parabola at scale * T*."""
    loss: Floats
    """[G] sub-optimal curve: law + penalty."""
    compute_equivalent: float
    """FLOPs needed to match the forecast; the end of the grid where not reached."""
    tokens_equivalent: float
    """Tokens of the run that matches: scale * T*(compute_equivalent)."""
    overhead: float
    """Percent of the forecast budget."""


@dataclass(frozen=True, eq=False, repr=False)
class OvertrainingFit(Result):
    """The overtraining forecast of one suite at one budget."""

    suite: str
    forecast_budget: float
    parabolas: tuple[ParabolaFit, ...]
    law: LawFit
    token_slope: float
    token_intercept: float
    """log10 T* = token_intercept + token_slope * log10 C."""
    compute: Floats
    """[G] the search grid, FLOPs."""
    scales: tuple[OvertrainingScale, ...]

    def tokens_at(self, compute: Any) -> Floats:
        """Compute-optimal tokens at ``compute`` FLOPs, any shape."""
        log_tokens = self.token_slope * np.log10(np.asarray(compute, dtype=np.float64)) + self.token_intercept
        return 10.0**log_tokens

    def rows(self) -> list[dict[str, Any]]:
        return [
            {
                "suite": self.suite,
                "tokens / optimal tokens": line.scale,
                "compute to match (FLOPs)": line.compute_equivalent,
                "extra compute (%)": line.overhead,
                "status": line.status.label,
            }
            for line in self.scales
        ]


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


@dataclass(frozen=True, eq=False)
class PartialDependence:
    """Partial dependence of the loss on one hyper-parameter within one sweep cell; G grid values."""

    grid: Floats
    """[G] in the feature's logarithmic units (log lr, ..., log(1 - beta))."""
    mean: Floats
    """[G]"""
    sd: Floats
    """[G]"""
    heuristic: float
    """The recipe's value, same units as the grid."""
    heuristic_mean: float
    heuristic_in_support: bool


@dataclass(frozen=True, eq=False, repr=False)
class CellFit(Result):
    """Gaussian process of one sweep cell (batch size, hidden dim, token horizon); n trials, F features."""

    batch_size: int
    hidden_dim: int
    horizon: str
    status: Status
    n_finished: int
    """Finished trials before the trim of the worst losses."""
    loss_cap: float
    """95th percentile of the loss: trials above are left out."""
    features: Floats
    """[n, F] trials kept, logarithmic units."""
    loss: Floats
    """[n]"""
    length_scale: float = np.nan
    noise: float = np.nan
    log_likelihood: float = np.nan
    bounds_hit: tuple[str, ...] = ()
    dependence: tuple[PartialDependence, ...] = ()
    """[F], in the canonical order of :data:`delphi_jax.heuristics.FEATURES`."""
    interpolating_gain: float = 0.0
    """How much higher the log likelihood of a second mode is, one that runs through nearly every trial; 0 where
    there is none. The curves follow the broad mode all the same: they are the study's published ones."""

    @property
    def fitted(self) -> bool:
        return self.status.usable

    @property
    def name(self) -> str:
        """The cell in words."""
        return f"(B={self.batch_size}, H={self.hidden_dim}, T={self.horizon})"

    def rows(self) -> list[dict[str, Any]]:
        return [
            {
                "batch size": self.batch_size,
                "hidden dim": self.hidden_dim,
                "horizon": self.horizon,
                "trials": self.n_finished,
                "used": len(self.loss),
                "length scale": self.length_scale,
                "noise": self.noise,
                "log likelihood": self.log_likelihood,
                "on a bound": ", ".join(self.bounds_hit),
                "higher, interpolating mode": self.interpolating_gain,
                "status": self.status.label,
            }
        ]


@dataclass(frozen=True, eq=False, repr=False)
class SweepFit(Result):
    """All cells of the hyper-parameter sweep in canonical order (batch size, hidden dim, horizon)."""

    cells: tuple[CellFit, ...]
    skipped: tuple[Skipped, ...] = ()

    def cell(self, batch_size: int, hidden_dim: int, horizon: str) -> CellFit:
        """One cell; KeyError where the sweep has no such cell."""
        for cell in self.cells:
            if (cell.batch_size, cell.hidden_dim, cell.horizon) == (batch_size, hidden_dim, horizon):
                return cell
        raise KeyError((batch_size, hidden_dim, horizon))

    def notices(self) -> list[str]:
        """A sentence for every status that is not FITTED, and for likelier second modes, with the cells."""
        sentences = []
        for status in Status:
            names = [cell.name for cell in self.cells if cell.status is status]
            if names and status is not Status.FITTED:
                shown = ", ".join(names[:_CELLS_SHOWN])
                more = f" and {len(names) - _CELLS_SHOWN} more" if len(names) > _CELLS_SHOWN else ""
                sentences.append(f"process of sweep cells {shown}{more}: {status.label}; {status.remedy}")
        likelier = [cell for cell in self.cells if cell.interpolating_gain > 0]
        if likelier:
            cells = ", ".join(f"{cell.name} by {cell.interpolating_gain:.2f}" for cell in likelier)
            sentences.append(
                "process of sweep cells with a likelier mode that runs through nearly every trial (log likelihood): "
                f"{cells}; the curves follow the broad mode"
            )
        return sentences

    def rows(self) -> list[dict[str, Any]]:
        return [row for cell in self.cells for row in cell.rows()]


@dataclass(frozen=True, eq=False, repr=False)
class StudyFit(Result):
    """Everything fitted for one study. A part that was not asked for, or has no data, is None."""

    source: str
    isoflop: IsoflopFit | None = None
    laws: Mapping[str, LawFit] = field(default_factory=dict)
    """Free-asymptote law per suite."""
    shared_laws: Mapping[str, LawFit] = field(default_factory=dict)
    held_out: HeldOutFit | None = None
    bootstraps: Mapping[str, BootstrapFit] = field(default_factory=dict)
    seeds: SeedFit | None = None
    overtraining: OvertrainingFit | None = None
    downstream: tuple[DownstreamFit, ...] = ()
    sweep: SweepFit | None = None
    skipped: tuple[Skipped, ...] = ()
    missing: tuple[Missing, ...] = ()

    def parts(self) -> Iterator[tuple[str, Result]]:
        """The fitted parts by title, in the order in which a reader wants them."""
        if self.isoflop is not None:
            yield "IsoFLOP optima", self.isoflop
        for law in self._laws():
            yield "Scaling laws", law
        for bootstrap in self.bootstraps.values():
            yield "Forecasts", bootstrap
        if self.held_out is not None:
            yield "Held-out runs", self.held_out
        if self.seeds is not None:
            yield "Seeds", self.seeds
        if self.overtraining is not None:
            yield "Overtraining", self.overtraining
        # One curve serves all shot counts of a task.
        for curve in {id(view.richards): view.richards for view in self.downstream}.values():
            if curve is not None:
                yield "Richards curves", curve
        for view in self.downstream:
            yield "Downstream forecasts", view
        if self.sweep is not None:
            yield "Hyper-parameter sweep", self.sweep

    def rows(self) -> list[dict[str, Any]]:
        return [{"part": title, "lines": len(part.rows())} for title, part in self.parts()]

    def notices(self) -> list[str]:
        """A sentence for every fit that did not end as FITTED, with its remedy."""
        isoflop = self.isoflop.parabolas if self.isoflop is not None else ()
        said: list[tuple[str, Status]] = [
            (
                f"IsoFLOP parabola of {fit.suite} at {scientific(fit.bucket)} FLOPs (runs: {len(fit.loss)})",
                fit.status,
            )
            for fit in isoflop
        ]
        said += [(f"scaling law of {law.series}, {law.asymptote} asymptote", law.status) for law in self._laws()]
        bootstraps = dict(self.bootstraps)
        if self.seeds is not None:
            bootstraps[self.seeds.suite] = self.seeds.bootstrap
        if self.overtraining is not None:
            said += [(f"{line.scale:.3g} times the optimal tokens", line.status) for line in self.overtraining.scales]
        for view in self.downstream:
            name = view_name(view.task, view.shot)
            said += [(f"soft-metric law of {name}", view.law.status)]
            if view.richards is None:
                said += [(f"Richards curve of {name}", Status.NO_CURVE)]
            elif view.richards.status is Status.BOUND_HIT:
                said += [
                    (
                        f"{' and '.join(view.richards.bounds_hit)} of the Richards curve of {name}",
                        Status.BOUND_HIT,
                    )
                ]
            else:
                said += [(f"Richards curve of {name}", view.richards.status)]
        sentences = [f"{what}: {status.label}; {status.remedy}" for what, status in said if status is not Status.FITTED]
        sentences += [sentence for fit in bootstraps.values() for sentence in fit.notices()]
        if self.isoflop is not None and UNKNOWN_SUITE in self.isoflop.suites:
            count = sum(len(fit.loss) for fit in isoflop if fit.suite == UNKNOWN_SUITE)
            sentences.append(
                f"{count} IsoFLOP runs belong to no known suite by their names: fitted as {UNKNOWN_SUITE!r}"
            )
        if self.overtraining is not None and self.overtraining.suite != ADAMH_SUITE:
            sentences.append(f"{ADAMH_SUITE} has no law: seeds and overtraining are those of {self.overtraining.suite}")
        return sentences + (self.sweep.notices() if self.sweep is not None else [])

    def _laws(self) -> tuple[LawFit, ...]:
        return (*self.laws.values(), *self.shared_laws.values())
