"""Asymptotic power laws and their bootstrap."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from delphi_jax.formulas import law_loss_at_log
from delphi_jax.results.base import MOST_SKIPPED, Floats, Interval, Result
from delphi_jax.status import Status

__all__ = ["BootstrapFit", "BootstrapStudy", "LawFit", "Objective", "PinnedAsymptote"]


@dataclass(frozen=True)
class Objective:
    """What a fit of the law minimises: the mean over a series' points of a function of their residuals.

    Raises ValueError for a loss function or residual that is not one of those named, and for a ``delta`` that is not a
    finite positive number.

    Examples:

    >>> import delphi_jax as dj
    >>> dj.Objective("huber").label
    'Huber(0.001) of log(L - L_inf)'
    """

    loss_function: Literal["squared", "huber"] = "squared"
    """r**2, or r**2/2 within ``delta`` and delta*(\\|r\\| - delta/2) beyond (Huber 1964)."""
    residual: Literal["log", "loss"] = "log"
    """r = log(L - L_inf) - log(A*C**-alpha), the reference's, or L - L_inf - A*C**-alpha."""
    delta: float = 1e-3
    """In the units of the residual (1e-3: Hoffmann et al. 2022). The square has no use for it."""

    def __post_init__(self) -> None:
        for name, known in (("loss_function", ("squared", "huber")), ("residual", ("log", "loss"))):
            if (given := getattr(self, name)) not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}, got {given!r}")
        if not (np.isfinite(self.delta) and self.delta > 0):
            raise ValueError(f"delta must be a finite positive number, got {self.delta}")

    @property
    def huber(self) -> bool:
        return self.loss_function == "huber"

    @property
    def of_loss(self) -> bool:
        return self.residual == "loss"

    @property
    def of_reference(self) -> bool:
        """Whether it is the mean squared log residual, the reference's."""
        return not self.huber and not self.of_loss

    @property
    def label(self) -> str:
        """A few words for a table cell."""
        function = f"Huber({self.delta:g})" if self.huber else "squared error"
        return f"{function} of {'the loss' if self.of_loss else 'log(L - L_inf)'}"


@dataclass(frozen=True)
class PinnedAsymptote:
    """An asymptote that is known from elsewhere, with the metric that it belongs to: of another it says nothing.

    Examples:

    >>> import numpy as np
    >>> import delphi_jax as dj
    >>> compute = np.logspace(18, 20, 7)
    >>> loss = 2 + 1000 * compute**-0.2
    >>> pinned = dj.PinnedAsymptote(2.0, metric="loss")
    >>> round(dj.fit_law(compute, loss, L_inf=pinned, metric="loss").alpha, 3)
    0.2
    """

    value: float
    metric: str
    """Name of the fitted quantity, such as that of a study, see :class:`~delphi_jax.definition.Metric`."""

    def __post_init__(self) -> None:
        if not (np.isfinite(self.value) and self.value >= 0):
            raise ValueError(f"an asymptote must be a finite number of at least 0, got {self.value}")
        if not self.metric:
            raise ValueError("say which metric the asymptote belongs to")


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
    """The objective reached: the mean squared log residual unless ``objective`` says otherwise."""
    grid_index: int = -1
    """Index of the chosen L_inf on its grid; -1 where there was no grid or no fit."""
    n_grid: int = 0
    profile: Floats = field(default_factory=lambda: np.empty(0))
    """[n_grid] the score at every grid value, inf where it does not fit; empty where there was no grid."""
    method: str = "grid"
    """How: "grid" as the reference does, or "optimum", continuous in L_inf."""
    objective: Objective = Objective()
    metric: str = ""
    """Name of the fitted metric, where it was given."""
    log_A: float = np.nan
    """Finite where A is too large to be written down: what forecasts are made from. That of A where not given."""

    def __post_init__(self) -> None:
        if np.isnan(self.log_A) and self.A > 0:
            object.__setattr__(self, "log_A", float(np.log(self.A)))

    @property
    def fitted(self) -> bool:
        return self.status.usable

    def loss_at(self, compute: Any) -> Floats:
        """The law at ``compute`` FLOPs, any shape; NaN where the law was not fitted (see ``status``)."""
        return law_loss_at_log(np.log(np.asarray(compute, dtype=np.float64)), self.L_inf, self.log_A, self.alpha)

    def rows(self) -> list[dict[str, Any]]:
        by_grid = self.method == "grid"
        how = {} if by_grid else {"method": self.method, "objective": self.objective.label}
        return [
            {
                "series": self.series,
                "asymptote": self.asymptote,
                **how,
                "budgets": len(self.compute),
                "L_inf": self.L_inf,
                "A": self.A,
                "alpha": self.alpha,
                "mean squared log residual" if by_grid else "score": self.score,
                "status": self.status.label,
            }
        ]


def _bootstrap_notices(bootstrap: BootstrapFit | BootstrapStudy) -> list[str]:
    """A sentence for a status that is not FITTED, and one where many draws were skipped."""
    sentences, fitted = [], bootstrap.count(Status.FITTED) > 0
    if bootstrap.status is not Status.FITTED:
        remedy = (
            "all fitted draws give one and the same law, which tells no interval: add budgets, or draws"
            if fitted and bootstrap.status is Status.TOO_FEW_POINTS
            else bootstrap.status.remedy
        )
        sentences.append(f"bootstrap of {bootstrap.series}: {bootstrap.status.label}; {remedy}")
    if fitted and bootstrap.skipped_probability > MOST_SKIPPED:
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

    Where all fitted draws give one and the same law there is no interval: the status is TOO_FEW_POINTS. Of fewer fitted
    Monte-Carlo draws than :func:`~delphi_jax.quantiles.least_draws` there is none either: BEYOND_DRAWS.
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

    Where all fitted draws give one and the same law there is no interval: the status is TOO_FEW_POINTS. Of fewer fitted
    draws than :func:`~delphi_jax.quantiles.least_draws` there is none either, but for "exact": BEYOND_DRAWS.
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
