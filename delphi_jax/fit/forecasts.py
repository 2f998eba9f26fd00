"""Intervals of the forecasts of a study's suites, method by method, beside the reference's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from delphi_jax.batch import pad
from delphi_jax.fit.draws import FREE_PARAMETERS
from delphi_jax.fit.intervals import RESAMPLING_METHODS, StudyBatch, study_intervals
from delphi_jax.fit.law import bootstrap_law, fit_law
from delphi_jax.labels import INTERVAL_METHODS, REFERENCE_METHOD
from delphi_jax.quantiles import profile_limit
from delphi_jax.resamples import n_resamples
from delphi_jax.results import Floats, HeldOutFit, IsoflopFit
from delphi_jax.results.intervals import IntervalsFit, SuiteIntervals
from delphi_jax.results.law import PinnedAsymptote
from delphi_jax.status import Status

__all__ = ["forecast_intervals"]

_DRAWING_METHODS = ("parametric", "runs", "hierarchical")
"""Those that draw, whether or not resamples of optima are taken exactly."""

_FAN = 60
"""Budgets of a fan."""

_FEWEST_TOKENS = 4
"""Distinct token counts that leave a parabola a residual."""


def forecast_intervals(
    isoflop: IsoflopFit,
    targets: Sequence[float] | None = None,
    *,
    suites: Sequence[str] | None = None,
    methods: Sequence[str] = INTERVAL_METHODS,
    draws: int = 1000,
    seed: int = 0,
    level: float = 0.95,
    exact: bool = False,
    pinned: float | PinnedAsymptote | Mapping[str, float | PinnedAsymptote] | None = None,
    held_out: HeldOutFit | None = None,
) -> IntervalsFit:
    """Intervals of the forecasts of ``suites`` (all) at ``targets`` FLOPs (the study's), beside the reference's own.

    Methods and settings as in :func:`~delphi_jax.fit.intervals.study_intervals`; with 1000 draws, seed 0 and level 0.95
    the reference's are those of the published figures. ``pinned``: the asymptote of the Student-t method, one or by
    suite. ``held_out`` runs are for the figure. Raises ValueError for no suite, or one without fitted budgets, for a
    pinned asymptote of another metric or not below all of a suite's optima, and for arguments that do not fit.

    Examples:

    >>> import delphi_jax as dj
    >>> study = dj.load_study("data", tables=["runs"])
    >>> isoflop = dj.fit_isoflop(study.runs)
    >>> found = dj.forecast_intervals(isoflop, [1e23], methods=["percentile", "profile"], draws=200)
    >>> [(row["method"], row["status"]) for row in found.suites[0].rows()]
    [('reference', 'fitted'), ('percentile', 'fitted'), ('profile', 'fitted')]
    """
    pins = pinned if isinstance(pinned, Mapping) else dict.fromkeys(isoflop.suites, pinned)
    asked = list(isoflop.suites if suites is None else suites)
    if not asked:
        raise ValueError("there is no suite to forecast")
    settings = (methods, draws, seed, level, exact)
    targets = isoflop.definition.targets if targets is None else targets
    found = tuple(_suite(isoflop, suite, targets, pins.get(suite), settings) for suite in asked)
    return IntervalsFit(found, held_out, isoflop.definition)


def _suite(
    isoflop: IsoflopFit,
    suite: str,
    targets: Sequence[float],
    pinned: float | PinnedAsymptote | None,
    settings: tuple[Sequence[str], int, int, float, bool],
) -> SuiteIntervals:
    methods, draws, seed, level, exact = settings
    fits = isoflop.of(suite)
    if not fits:
        raise ValueError(f"{suite}: no fitted IsoFLOP budget; the suites are {', '.join(isoflop.suites)}")
    compute, loss, _ = isoflop.optima(suite)
    law, held = (
        fit_law(compute, loss, L_inf=L_inf, method="optimum", metric=isoflop.definition.metric.name, series=suite)
        for L_inf in (None, pinned)
    )
    pin = held.L_inf if pinned is not None else np.nan
    if pin >= loss.min():
        raise ValueError(
            f"{suite}: the pinned asymptote {pin:g} is not below the smallest optimum, {loss.min():g} at "
            f"{compute[loss.argmin()]:g} FLOPs: pin a lower value, of the same metric"
        )
    targets = np.atleast_1d(np.asarray(targets, dtype=np.float64))
    fan = np.geomspace(*(end([*compute, *targets]) for end in (min, max)), _FAN)
    x, mask = pad([np.log10(fit.tokens) for fit in fits])
    run_loss, _ = pad([fit.loss for fit in fits])
    batch = StudyBatch(x[None], run_loss[None], mask[None], np.log(compute)[None])
    budgets = np.concatenate([targets, fan])
    found = study_intervals(
        batch,
        budgets,
        methods=methods,
        draws=draws,
        seed=seed,
        level=level,
        exact=exact,
        pinned=None if pinned is None else pin,
    )
    tail = 50 * (1 - level)
    reference = bootstrap_law(
        compute, loss, budgets, draws=draws, seed=seed, percentiles=(tail, 50.0, 100 - tail), series=suite
    )
    reference_law = fit_law(compute, loss, series=suite)
    ends = np.array([[line.low, line.median, line.high] for line in reference.intervals]).T
    low, median, high = (
        np.vstack([first, rest[0]]) for first, rest in zip(ends, (found.low, found.median, found.high), strict=True)
    )
    point = np.vstack([reference_law.loss_at(budgets), found.point[0]])
    n = len(targets)
    # On the grid, too, an asymptote of 0 is a bound.
    drawn = np.where(reference.L_inf == 0, Status.BOUND_HIT, reference.draw_status)
    ended = np.vstack([np.bincount(drawn, minlength=len(Status)) / len(drawn), found.draw_status[0]])
    fitted = reference.status is Status.FITTED
    status = [
        [reference_law.status if fitted else reference.status] * n,
        *(map(Status, line[:n].tolist()) for line in found.status[0]),
    ]
    taken = n_resamples(len(loss)) if exact else draws
    return SuiteIntervals(
        law=law,
        reference_law=reference_law,
        methods=(REFERENCE_METHOD, *methods),
        targets=targets,
        low=low[:, :n],
        point=point[:, :n],
        median=median[:, :n],
        high=high[:, :n],
        status=tuple(map(tuple, status)),
        n_draws=(
            draws,
            *(taken if each in RESAMPLING_METHODS else draws * (each in _DRAWING_METHODS) for each in methods),
        ),
        draw_status=tuple(map(_named, ended)),
        refit_status=_named(found.refit_status[0]),
        fan=fan,
        fan_low=low[:, n:],
        fan_high=high[:, n:],
        few_tokens=np.array([fit.bucket for fit in fits if len(np.unique(fit.tokens)) < _FEWEST_TOKENS]),
        level=level,
        seed=seed,
        exact=exact,
        pinned=pin,
        pin_rejected=bool(held.score > profile_limit(len(loss), FREE_PARAMETERS, level) * law.score),
    )


def _named(shares: Floats) -> dict[Status, float]:
    """``shares`` [statuses] that are not 0."""
    return {status: float(shares[status]) for status in Status if shares[status] > 0}
