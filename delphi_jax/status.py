"""Outcome codes of every fit, each with its remedy, and the package's exceptions.

Three kinds of trouble, three answers: what the data cannot support is a :class:`Status` on the result
(never a bare NaN), unreadable or malformed input raises :class:`InputError`, and a wrong argument from
the caller raises :class:`ValueError`.
"""

from __future__ import annotations

import enum

__all__ = ["MEASURED", "Bound", "InputError", "Status"]


class Status(enum.IntEnum):
    """How a fit ended. Kernels return the integer; results and tables show the words.

    Examples:

    >>> import delphi_jax as dj
    >>> law = dj.fit_law([1e18, 1e19, 1e20], [2.0, 2.5, 3.0])
    >>> law.status, law.L_inf
    (<Status.NO_GRID_VALUE_FITS: 1>, nan)
    >>> law.status.remedy
    'the loss does not fall with compute under any asymptote on the grid: check the series'
    """

    FITTED = 0
    NO_GRID_VALUE_FITS = 1
    TOO_FEW_POINTS = 2
    CURVATURE_NOT_POSITIVE = 3
    CLIPPED_TO_EDGE = 4
    BOUND_HIT = 5
    NOT_CONVERGED = 6
    NO_DATA = 7
    NOT_REACHED = 8
    UNDETERMINED = 9
    NO_CURVE = 10
    ASYMPTOTE_ABOVE_LOSS = 11
    LOSS_DOES_NOT_FALL = 12
    NOT_PINNED = 13
    BEYOND_DRAWS = 14
    NO_SHARED_BUDGET = 15
    NO_SPREAD = 16
    NO_OPTIMUM = 17
    ONE_LINE = 18
    TOO_FEW_WITHIN_DELTA = 19

    @property
    def label(self) -> str:
        """A few words for a table cell."""
        return _WORDS[self][0]

    @property
    def remedy(self) -> str:
        """What a reader should think of or do next."""
        return _WORDS[self][1]

    @property
    def usable(self) -> bool:
        """Whether the numbers beside this status were estimated from the data and may be drawn."""
        return self in (
            Status.FITTED,
            Status.CLIPPED_TO_EDGE,
            Status.BOUND_HIT,
            Status.CURVATURE_NOT_POSITIVE,
            Status.UNDETERMINED,
        )

    def __str__(self) -> str:
        return self.label


MEASURED = (Status.FITTED, Status.BOUND_HIT)
"""Statuses of fits that the data determine: of those of draws intervals are made."""

_WORDS: dict[Status, tuple[str, str]] = {
    Status.FITTED: ("fitted", "nothing to do"),
    Status.NO_GRID_VALUE_FITS: (
        "no grid value fits",
        "the loss does not fall with compute under any asymptote on the grid: check the series",
    ),
    Status.TOO_FEW_POINTS: (
        "too few points",
        "add runs or budgets: the model has more parameters than distinct points",
    ),
    Status.CURVATURE_NOT_POSITIVE: (
        "curvature not positive",
        "the parabola has no minimum, only an edge of the data was taken: add runs on both sides of the optimum",
    ),
    Status.CLIPPED_TO_EDGE: (
        "optimum clipped to the edge",
        "the minimum lies outside the observed tokens: extend the sweep on that side",
    ),
    Status.BOUND_HIT: (
        "bound hit",
        "an estimate lies on its bound: treat it as a limit, not as a measurement",
    ),
    Status.NOT_CONVERGED: ("not converged", "the optimiser stopped early: do not use the numbers"),
    Status.NO_DATA: ("no data", "the table holds no usable row for it"),
    Status.UNDETERMINED: (
        "asymptote not determined",
        "two budgets fit any asymptote equally well: add budgets, or pin the asymptote",
    ),
    Status.NO_CURVE: (
        "no curve",
        "the task's external table needs at least 4 models with both metrics, counting the study's own fitted runs",
    ),
    Status.NOT_REACHED: ("not reached", "no budget on the search grid reaches the target"),
    Status.ASYMPTOTE_ABOVE_LOSS: (
        "asymptote above a loss",
        "the pinned asymptote is not below every loss: pin a lower value, of the same metric, or leave it free",
    ),
    Status.LOSS_DOES_NOT_FALL: (
        "loss does not fall",
        "no law that falls with compute fits better than a constant loss: check the series",
    ),
    Status.NOT_PINNED: (
        "needs a pinned asymptote",
        "give the asymptote: an estimated one makes the interval too narrow",
    ),
    Status.BEYOND_DRAWS: (
        "beyond the draws",
        "the interval's percentiles lie outside the draws: take more draws, or another method",
    ),
    Status.NO_SHARED_BUDGET: (
        "no shared budget",
        "the suites have no compute budget in common: compare their laws, or run both at the same budgets",
    ),
    Status.NO_SPREAD: ("no spread", "all losses are equal, there is nothing to explain: check the column of losses"),
    Status.NO_OPTIMUM: (
        "no optimum",
        "the loss does not depend on both parameters and tokens: vary both, and more widely",
    ),
    Status.ONE_LINE: (
        "runs on one line",
        "the runs have one compute budget, or one ratio of tokens to parameters: add runs off that line",
    ),
    Status.TOO_FEW_WITHIN_DELTA: (
        "too few residuals within delta",
        "the noise cannot be told from so few: raise delta, or take squared errors, or a bootstrap",
    ),
}


class Bound(enum.IntFlag):
    """Bounds of the law that cut an end of an interval. Kernels return the integer; tables show the words."""

    NONE = 0
    NO_ASYMPTOTE = 1
    NO_FALL = 2
    SMALLEST_LOSS = 4
    STEEPEST = 8

    @property
    def label(self) -> str:
        """A few words for a table cell; nothing where no bound is active."""
        return " and ".join(_BOUNDS[bound] for bound in self)

    def __str__(self) -> str:
        return self.label


_BOUNDS = {
    Bound.NO_ASYMPTOTE: "L_inf = 0",
    Bound.NO_FALL: "alpha = 0",
    Bound.SMALLEST_LOSS: "L_inf = min L",
    Bound.STEEPEST: "alpha at its largest",
}


class InputError(Exception):
    """Input that cannot be used: the message names the file, the rows or columns, and the way out."""
