"""The loss surface L(N, D) = E + A/N**a + B/D**b over parameters and tokens, and its bootstrap."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from delphi_jax.formulas import surface_loss
from delphi_jax.results.base import MOST_SKIPPED, Floats, Interval, Result
from delphi_jax.status import MEASURED, Status

__all__ = ["COEFFICIENTS", "SurfaceBootstrap", "SurfaceFit", "SurfaceObjective", "SurfaceStudy", "surface_losses"]

COEFFICIENTS = ("E", "A", "B", "a", "b")
"""Names of the surface's coefficients, in the order of every table."""


def surface_losses(params: Any, tokens: Any, E: Any, A: Any, B: Any, a: Any, b: Any) -> Floats:
    """The losses of surfaces whose exponents are NaN where their term is 0; shapes broadcast."""
    params, tokens = np.asarray(params, dtype=np.float64), np.asarray(tokens, dtype=np.float64)
    a, b = np.where(np.equal(A, 0), 0.0, a), np.where(np.equal(B, 0), 0.0, b)
    return surface_loss(params, tokens, E, A, B, a, b)


@dataclass(frozen=True)
class SurfaceObjective:
    """What a fit of the surface minimises: the mean over its points of the loss function of the residuals.

    Raises ValueError for a loss function or residual that is not one of those named, and for a ``delta`` that is not a
    finite positive number.

    Examples:

    >>> import delphi_jax as dj
    >>> dj.SurfaceObjective("squared", "log").label
    'squared error of the log loss'
    """

    function: Literal["squared", "huber"] = "huber"
    """r**2, or r**2/2 within ``delta`` and delta*(\\|r\\| - delta/2) beyond (Huber 1964)."""
    residual: Literal["loss", "log"] = "loss"
    """r = L - model, or log L - log model (Hoffmann et al. 2022, approach 3)."""
    delta: float = 1e-3
    """In the units of the residual: nats, or the share of the loss. A squared error has no use for it."""

    def __post_init__(self) -> None:
        for field, known in (("function", ("squared", "huber")), ("residual", ("loss", "log"))):
            if (given := getattr(self, field)) not in known:
                raise ValueError(f"{field} must be one of {', '.join(known)}, got {given!r}")
        if not (np.isfinite(self.delta) and self.delta > 0):
            raise ValueError(f"delta must be a finite positive number, got {self.delta}")

    @property
    def label(self) -> str:
        """A few words for a table cell."""
        function = "squared error" if self.function == "squared" else f"Huber({self.delta:g})"
        return f"{function} of the {'log loss' if self.residual == 'log' else 'loss'}"


@dataclass(frozen=True, eq=False, repr=False)
class SurfaceFit(Result):
    """Loss surface L(N, D) = E + A/N**a + B/D**b of one series, N in parameters and D in tokens.

    Where A (or B) is 0 the loss does not depend on N (D): then a (b) does not exist and is NaN.
    """

    series: str
    params: Floats
    """[n]"""
    tokens: Floats
    """[n]"""
    loss: Floats
    """[n]"""
    objective: SurfaceObjective
    status: Status
    E: float = np.nan
    A: float = np.nan
    B: float = np.nan
    a: float = np.nan
    b: float = np.nan
    value: float = np.nan
    """The objective reached: a mean over points. The sum that Hoffmann et al. write is n times as large."""
    gradient: float = np.nan
    """How far from stationary: the largest cosine between the residuals, as the loss function clips them, and their
    derivatives by a coefficient on no bound; 0 where the surface passes through every run."""
    on_bound: tuple[str, ...] = ()
    """Coefficients that lie on a bound: E, A or B at 0, or an exponent at an end of its range."""
    method: str = "variable projection"

    @property
    def fitted(self) -> bool:
        return self.status.usable

    @property
    def params_exponent(self) -> float:
        """b/(a+b): compute-optimal N grows like C to this power."""
        return self.b / (self.a + self.b)

    @property
    def tokens_exponent(self) -> float:
        """a/(a+b): compute-optimal D grows like C to this power."""
        return self.a / (self.a + self.b)

    def loss_at(self, params: Any, tokens: Any) -> Floats:
        """The surface at ``params`` and ``tokens``, any shapes that broadcast; NaN where it was not fitted."""
        return surface_losses(params, tokens, self.E, self.A, self.B, self.a, self.b)

    def notices(self) -> list[str]:
        """What a reader should know beside the numbers, a sentence each."""
        if self.status is Status.FITTED:
            return []
        bounds = f" ({', '.join(self.on_bound)})" if self.on_bound else ""
        return [f"surface of {self.series}: {self.status.label}{bounds}; {self.status.remedy}"]

    def rows(self) -> list[dict[str, Any]]:
        return [
            {
                "series": self.series,
                "objective": self.objective.label,
                "points": len(self.loss),
                **{name: getattr(self, name) for name in COEFFICIENTS},
                "b/(a+b)": self.params_exponent,
                "mean objective": self.value,
                "gradient": self.gradient,
                "on bound": ", ".join(self.on_bound),
                "status": self.status.label,
            }
        ]


@dataclass(frozen=True, eq=False, repr=False)
class SurfaceBootstrap(Result):
    """Bootstrap of a loss surface over its runs; R draws, Q places (N, D) of forecasts.

    Draws that ended on a bound are fits like the others: leaving them out would narrow the intervals. All others that
    are not FITTED are skipped, their numbers NaN. Where all fitted draws are one and the same there is no interval: the
    status is TOO_FEW_POINTS; BEYOND_DRAWS where they are too few for the percentiles.
    """

    FITS: ClassVar[tuple[Status, ...]] = MEASURED
    """Statuses of the draws that intervals are made of."""

    point: SurfaceFit
    """The fit of all runs."""
    status: Status
    draw_status: NDArray[np.int64]
    """[R] Status of each draw."""
    E: Floats
    """[R]"""
    A: Floats
    """[R]"""
    B: Floats
    """[R]"""
    a: Floats
    """[R], NaN where A is 0."""
    b: Floats
    """[R], NaN where B is 0."""
    value: Floats
    """[R] the objective reached: the mean over the resampled points."""
    gradient: Floats
    """[R] as :attr:`SurfaceFit.gradient`."""
    intervals: Mapping[str, Interval]
    """Percentiles, linear interpolation, by name: the coefficients, "b/(a+b)" and "a/(a+b)"."""
    params: Floats
    """[Q]"""
    tokens: Floats
    """[Q]"""
    loss_intervals: tuple[Interval, ...]
    """[Q] percentiles of the loss there."""
    percentiles: tuple[float, float, float]
    seed: int | None
    """Seed of the NumPy resampling indices, or None where indices were given."""

    @property
    def n_draws(self) -> int:
        return len(self.draw_status)

    @property
    def used(self) -> NDArray[np.bool_]:
        """[R] whether a draw was fitted."""
        return np.isin(self.draw_status, self.FITS)

    def count(self, status: Status) -> int:
        """Number of draws that ended with ``status``."""
        return int(np.sum(self.draw_status == status))

    @property
    def skipped_probability(self) -> float:
        """Share of the draws that were skipped."""
        return float(np.mean(~self.used))

    @property
    def params_exponent(self) -> Floats:
        """[R] b/(a+b)"""
        return self.b / (self.a + self.b)

    @property
    def tokens_exponent(self) -> Floats:
        """[R] a/(a+b)"""
        return self.a / (self.a + self.b)

    def loss_at(self, params: Any, tokens: Any) -> Floats:
        """[R, ...] every draw's surface at ``params`` and ``tokens``, shapes that broadcast to [...]."""
        params, tokens = np.broadcast_arrays(np.asarray(params, dtype=float), np.asarray(tokens, dtype=float))
        draws = (getattr(self, name).reshape(-1, *(1,) * params.ndim) for name in COEFFICIENTS)
        return surface_losses(params, tokens, *draws)

    def notices(self) -> list[str]:
        """What a reader should know beside the numbers, a sentence each; the estimate's own among them."""
        name, sentences = f"bootstrap of the surface of {self.point.series}", self.point.notices()
        if self.status is not Status.FITTED and self.status is not self.point.status:
            same = self.used.any() and self.status is Status.TOO_FEW_POINTS
            remedy = "all fitted draws are one, which tells no interval: add runs, or draws"
            sentences.append(f"{name}: {self.status.label}; {remedy if same else self.status.remedy}")
        if self.used.any() and self.skipped_probability > MOST_SKIPPED:
            sentences.append(
                f"{name}: {100 * self.skipped_probability:.3g} % of the draws were skipped: no surface can be fitted "
                "to them; an interval of the rest may be too narrow"
            )
        shares = (
            (self.draw_status == Status.BOUND_HIT, "lie on a bound, which may be the end of an interval"),
            (self.used & np.isnan(self.a + self.b), "do not depend on both N and D, and lack an exponent"),
        )
        sentences += [
            f"{name}: {100 * np.mean(some):.3g} % of the draws {what}" for some, what in shares if np.any(some)
        ]
        return sentences

    def rows(self) -> list[dict[str, Any]]:
        estimates = {name: getattr(self.point, name) for name in COEFFICIENTS}
        estimates |= {"b/(a+b)": self.point.params_exponent, "a/(a+b)": self.point.tokens_exponent}
        lines = [(name, estimate, self.intervals[name]) for name, estimate in estimates.items()]
        points = self.point.loss_at(self.params, self.tokens).tolist()
        places = [f"loss at N={n:.4g}, D={d:.4g}" for n, d in zip(self.params, self.tokens, strict=True)]
        lines += zip(places, points, self.loss_intervals, strict=True)
        low, mid, high = self.percentiles
        status = self.status.label
        if self.point.status is not self.status:
            status += f"; estimate: {self.point.status.label}"
        return [
            {
                "series": self.point.series,
                "quantity": quantity,
                "estimate": estimate,
                f"{low:g} %": interval.low,
                f"{mid:g} %": interval.median,
                f"{high:g} %": interval.high,
                "draws": self.n_draws,
                "draws on a bound": self.count(Status.BOUND_HIT),
                "skipped: not converged": self.count(Status.NOT_CONVERGED),
                "skipped: too few points": self.n_draws - int(self.used.sum()) - self.count(Status.NOT_CONVERGED),
                "status": status,
            }
            for quantity, estimate, interval in lines
        ]


@dataclass(frozen=True, eq=False, repr=False)
class SurfaceStudy(Result):
    """The loss surfaces of a study's suites, by suite name, each with its bootstrap."""

    bootstraps: tuple[SurfaceBootstrap, ...]

    @property
    def fits(self) -> tuple[SurfaceFit, ...]:
        """The surfaces of all runs of each suite."""
        return tuple(each.point for each in self.bootstraps)

    def fit_rows(self) -> list[dict[str, Any]]:
        """One line per suite: the fit of all its runs."""
        return [row for fit in self.fits for row in fit.rows()]

    def rows(self) -> list[dict[str, Any]]:
        return [row for each in self.bootstraps for row in each.rows()]

    def notices(self) -> list[str]:
        """What a reader should know beside the numbers, a sentence each."""
        return [sentence for each in self.bootstraps for sentence in each.notices()]
