"""Intervals of a law's forecasts, method by method, for many studies at once.

All methods but the Student-t rest on the free-asymptote law over a study's IsoFLOP optima, at its continuous optimum.
Axes: S studies, K buckets, R runs of a bucket (all padded), M methods, Q targets, D draws.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import numpy as np
from numpy.typing import ArrayLike, NDArray

from delphi_jax.fit.draws import (
    FREE_PARAMETERS,
    Draws,
    Optima,
    StudyBatch,
    all_resamples,
    arrange,
    draw_optima,
    draw_runs,
    fit_points,
    redraw_optima,
    refit_runs,
    usable,
)
from delphi_jax.formulas import law_loss_at_log
from delphi_jax.kernels.bca import bca_levels
from delphi_jax.kernels.law_profile import profile_laws
from delphi_jax.kernels.optimum import OptimalLaw
from delphi_jax.labels import INTERVAL_METHODS
from delphi_jax.quantiles import least_draws, profile_limit, student_t_quantile
from delphi_jax.resamples import n_resamples, weighted_percentiles
from delphi_jax.results import Floats
from delphi_jax.status import Status

__all__ = ["RESAMPLING_METHODS", "StudyBatch", "StudyIntervals", "study_intervals"]

RESAMPLING_METHODS = ("percentile", "basic", "bca")
"""Those that resample optima, or take every resample of them."""

_MOST_DRAWS = 2**20
_MOST_RESAMPLED = 11
"""Optima of a study of which every resample is taken: 352716."""

_LAWS_AT_ONCE = 2**17
"""Laws fitted at once, which bounds memory."""

_TIE = 1e-9
"""Relative distance below which a draw's forecast is that of the study itself: the law's optimum is no sharper."""

_PINNED_PARAMETERS = 2

_FORECASTS = 2
"""First column of a profiled law's forecasts."""

Integers = NDArray[np.int64]


class StudyIntervals(NamedTuple):
    """Intervals of S studies by M methods for Q targets; numbers are NaN where ``status`` is not usable."""

    low: Floats
    """[S, M, Q]"""
    point: Floats
    """[S, M, Q] forecast of the study's own law: with the asymptote free, but for the Student-t method."""
    high: Floats
    """[S, M, Q]"""
    status: Integers
    """[S, M, Q]; BOUND_HIT where the study's own law, or an end of its profile, lies on a bound."""
    median: Floats
    """[S, M, Q] of the draws' forecasts; NaN for methods without draws."""
    draw_status: Floats
    """[S, M, statuses] share of the draws whose law ended with each status; 0 for methods without draws."""
    refit_status: Floats
    """[S, statuses] share of the hierarchical bootstrap's parabolas, or else of those of "runs", likewise."""


class _Method(NamedTuple):
    """One method's part of :class:`StudyIntervals`: [S, Q], and ``draw_status`` [S, statuses]."""

    low: Floats
    point: Floats
    high: Floats
    status: Integers
    median: Floats
    draw_status: Floats


class _Settings(NamedTuple):
    log_targets: Floats
    methods: tuple[str, ...]
    draws: int
    level: float
    exact: bool


def study_intervals(
    batch: StudyBatch,
    targets: ArrayLike,
    *,
    methods: Sequence[str] = INTERVAL_METHODS,
    draws: int = 1000,
    seed: int = 0,
    level: float = 0.95,
    exact: bool = False,
    pinned: ArrayLike | None = None,
) -> StudyIntervals:
    """Central intervals at ``level`` of the forecasts at ``targets`` [Q] FLOPs, for every study of ``batch``.

    ``methods`` are some of :data:`~delphi_jax.labels.INTERVAL_METHODS`:

    - "percentile", "basic": optima are resampled (methods, section 4), and the law is fitted to each resample;
      percentiles of the forecasts, or these reflected at the point forecast (Davison and Hinkley 1997, chapter 5).
    - "bca": percentiles corrected for bias and acceleration, the latter from leaving out one bucket at a time (Efron
      1987). BEYOND_DRAWS where the corrected percentiles do not exist, or lie outside the draws.
    - "parametric": optima are drawn from the fitted law with normal noise in log(L - L_inf), the scale in which it is
      fitted; the noise's variance is the sum of squared log residuals over n - 3. Percentiles. The error of that
      variance is not allowed for, so with few budgets the interval is too narrow.
    - "runs": the runs of every bucket are resampled and its parabola refitted, each bucket taken once. Percentiles. It
      knows the error of the parabolas alone: too narrow where optima scatter about the law for any other reason. With
      three buckets, which every law passes through, there is no telling.
    - "hierarchical": buckets are resampled, and the runs of each drawn bucket, anew for every copy of it; their
      parabolas are refitted (Davison and Hinkley 1997, section 3.8). Percentiles. The scatter of the optima holds the
      error of their parabolas already, and resampling runs adds it again: too wide where that is all the error there
      is. So the reference resamples optima only. TOO_FEW_POINTS with three buckets: a law takes all of them, so that
      none could be resampled.
    - "profile": the forecasts that the profile likelihood of the log residuals does not reject, by the F distribution
      with 1 and n - 3 degrees of freedom (Seber and Wild 1989, section 5.4).
    - "student-t": prediction interval of a pinned law's line in log(L - L_inf), with n - 2 degrees of freedom.
      NOT_PINNED where no asymptote is given.

    Draws whose law cannot be fitted are left out (``draw_status``); BEYOND_DRAWS where fewer are left than
    :func:`~delphi_jax.quantiles.least_draws`. In "runs" and "hierarchical" a resample of fewer
    than three distinct token counts has no parabola: its bucket takes no part in that draw (``refit_status``); drawing
    until there is one would prefer resamples that resemble the runs. The interval of "student-t" is for the optimum of
    a new bucket, all others are for the law's value. ``pinned`` is the asymptote of "student-t", one for all or [S].

    Study s makes ``draws`` draws for each method, from ``seed`` + s; its numbers depend neither on devices nor on the
    other studies of the batch, nor on the order of buckets and runs. Optima are resampled as the reference does.
    ``exact`` takes all C(2n-1, n) resamples of a study's n optima with their probabilities: the first three methods.

    Raises ValueError for arguments that do not fit.

    Examples:

    >>> import numpy as np
    >>> import delphi_jax as dj
    >>> x = np.linspace(9, 11, 5) + np.zeros((1, 7, 1))  # one study, seven budgets, five runs each
    >>> log_compute = np.log(np.logspace(18, 21, 7))[None]
    >>> loss = 2 + np.exp(-0.1 * (log_compute[..., None] - 40)) + 0.1 * (x - 10) ** 2
    >>> batch = dj.StudyBatch(x, loss, np.ones_like(x, dtype=bool), log_compute)
    >>> found = dj.study_intervals(batch, [1e22], methods=["student-t"], pinned=2.0)
    >>> found.point.round(3), dj.Status(found.status.item())  # 2 + exp(-0.1 * (log(1e22) - 40))
    (array([[[2.344]]]), <Status.FITTED: 0>)
    """
    batch, targets, pinned = _checked(batch, targets, methods, draws, level, pinned)
    optima = arrange(batch)
    most = int(optima.n.max())
    if exact and most > _MOST_RESAMPLED:
        raise ValueError(
            f"the exact bootstrap of {most} optima has {n_resamples(most)} resamples, and takes at most "
            f"{_MOST_RESAMPLED} optima: give draws instead"
        )
    settings = _Settings(np.log(targets), tuple(methods), draws, level, exact)
    n_studies = len(optima.n)
    at_once = max(1, _LAWS_AT_ONCE // max(draws, n_resamples(max(most, 1)) if exact else 1))
    size = -(-n_studies // -(-n_studies // at_once))
    blocks = []
    for first in range(0, n_studies, size):
        # The last block reaches back to be as long as the others, which saves compiling for another length.
        start = min(first, n_studies - size)
        part = slice(start, start + size)
        found = _intervals(Optima(*(field[part] for field in optima)), settings, seed + start, pinned[part])
        blocks.append([field[first - start :] for field in found])
    return StudyIntervals(*map(np.concatenate, zip(*blocks, strict=True)))


def _checked(
    batch: StudyBatch,
    targets: ArrayLike,
    methods: Sequence[str],
    draws: int,
    level: float,
    pinned: ArrayLike | None,
) -> tuple[StudyBatch, Floats, Floats]:
    """The batch as arrays, targets [Q] and pinned asymptotes [S], NaN for none."""
    x, loss, log_compute = (np.asarray(field, dtype=np.float64) for field in (batch.x, batch.loss, batch.log_compute))
    mask = np.asarray(batch.mask, dtype=np.bool_)
    if not (
        x.ndim == 3 and x.shape == loss.shape == mask.shape and x.shape[:2] == log_compute.shape and x.shape[0] > 0
    ):
        raise ValueError(
            "a batch needs x, loss and mask [S, K, R] and log_compute [S, K] of at least one study, got "
            f"{x.shape}, {loss.shape}, {mask.shape} and {log_compute.shape}"
        )
    for name, values in (("x", x[mask]), ("loss", loss[mask]), ("log_compute", log_compute[mask.any(axis=2)])):
        if not np.all(np.isfinite(values)):
            raise ValueError(f"{name} of the batch holds numbers that are not finite")
    if not methods:
        raise ValueError(f"no method given, expected some of {list(INTERVAL_METHODS)}")
    if unknown := [method for method in methods if method not in INTERVAL_METHODS]:
        raise ValueError(f"unknown methods {unknown}, expected some of {list(INTERVAL_METHODS)}")
    targets = np.atleast_1d(np.asarray(targets, dtype=np.float64))
    if targets.ndim != 1 or not targets.size or not np.all((targets > 0) & np.isfinite(targets)):
        raise ValueError(f"targets must be one or more positive budgets in FLOPs, got {targets.tolist()}")
    if not 1 <= draws <= _MOST_DRAWS:
        raise ValueError(f"draws must be from 1 to {_MOST_DRAWS}, got {draws}")
    if not 0 < level < 1:
        raise ValueError(f"level must be between 0 and 1, got {level}")
    pins = np.broadcast_to(np.asarray(np.nan if pinned is None else pinned, dtype=np.float64), len(x))
    if pinned is not None and not np.all((pins >= 0) & np.isfinite(pins)):
        raise ValueError("a pinned asymptote must be finite and not negative")
    return StudyBatch(x, np.where(mask, loss, 0.0), mask, log_compute), targets, pins


def _at(log_targets: Floats, laws: OptimalLaw) -> Floats:
    """Forecasts [S, Q] of laws [S]; NaN where there is no law."""
    return law_loss_at_log(log_targets, laws.L_inf[:, None], laws.log_A[:, None], laws.alpha[:, None])


def _intervals(optima: Optima, settings: _Settings, seed: int, pinned: Floats) -> list[Floats]:
    """Fields of :class:`StudyIntervals` for the studies that draw from ``seed``, ``seed`` + 1 and so on."""
    log_targets, methods, draws, _, exact = settings
    laws = fit_points(optima.log_compute, optima.loss, optima.weight)
    point = _at(log_targets, laws)
    ended = np.zeros((len(point), len(Status)))
    # Through as many optima as the law has parameters it passes exactly: neither they nor draws of them scatter.
    several = np.where(optima.n > FREE_PARAMETERS, laws.status, Status.TOO_FEW_POINTS)
    more_than_fit = laws._replace(status=several)
    found: dict[str, _Method] = {}
    if set(methods) & set(RESAMPLING_METHODS):
        drawn = all_resamples(optima) if exact else draw_optima(optima, draws, seed)
        percentile = found["percentile"] = _percentiles(drawn, laws, point, settings)
        found["basic"] = percentile._replace(low=2 * point - percentile.high, high=2 * point - percentile.low)
        if "bca" in methods:
            found["bca"] = _bca(drawn, optima, percentile, settings)
    if "parametric" in methods:
        drawn = redraw_optima(optima, laws, draws, seed)
        found["parametric"] = _percentiles(drawn, more_than_fit, point, settings)
    if {"runs", "hierarchical"} & set(methods):
        refits = refit_runs(optima, draws, seed)
        for method in ("runs", "hierarchical"):
            if method in methods:
                drawn, ended = draw_runs(optima, refits, draws, seed, buckets_too=method == "hierarchical")
                found[method] = _percentiles(drawn, laws if method == "runs" else more_than_fit, point, settings)
    if "profile" in methods:
        found["profile"] = _profile(optima, settings)
    if "student-t" in methods:
        found["student-t"] = _student_t(optima, pinned, settings)
    fields = zip(*(found[method] for method in methods), strict=True)
    return [*(np.stack(field, axis=1) for field in fields), ended]


def _method(
    low: Floats,
    point: Floats,
    high: Floats,
    status: Integers,
    median: Floats | None = None,
    draw_status: Floats | None = None,
) -> _Method:
    """A method's numbers [S, Q], but for those whose ``status`` ([S, Q] or [S, 1]) says that there are none."""
    status = np.broadcast_to(status, point.shape)
    median = np.full_like(point, np.nan) if median is None else median
    low, median, high = (np.where(usable(status), field, np.nan) for field in (low, median, high))
    draw_status = np.zeros((len(point), len(Status))) if draw_status is None else draw_status
    return _Method(low, point, high, status, median, draw_status)


def _percentiles(drawn: Draws, laws: OptimalLaw, point: Floats, settings: _Settings) -> _Method:
    """The central percentiles of the draws, where these tell an interval."""
    ended = drawn.ended()
    fitted = usable(drawn.laws.status)
    first = np.argmax(fitted, axis=1)[:, None]
    same = [~fitted | (field == np.take_along_axis(field, first, axis=1)) for field in drawn.laws[:3]]
    few = (drawn.weight is None) & (fitted.sum(axis=1) < least_draws(settings.level))
    commonest = np.argmax(np.where(usable(list(Status)), -1.0, ended), axis=1)
    status = np.select(
        [~usable(laws.status), ~fitted.any(axis=1), np.all(same, axis=(0, 2)), few],
        [laws.status, commonest, Status.TOO_FEW_POINTS, Status.BEYOND_DRAWS],
        laws.status,
    )
    tail = (1 - settings.level) / 2
    shares = np.broadcast_to([tail, 0.5, 1 - tail], (*point.shape, 3))
    low, median, high = np.moveaxis(_quantiles(drawn, settings.log_targets, shares), -1, 0)
    return _method(low, point, high, status[:, None], median, ended)


def _quantiles(drawn: Draws, log_targets: Floats, shares: Floats) -> Floats:
    """The forecasts [S, Q, L] below which ``shares`` [S, Q, L] of the fitted draws lie; NaN where there is none.

    Of draws that count the same, as ``np.percentile`` interpolates; else as
    :func:`~delphi_jax.resamples.weighted_percentiles`.
    """
    quantiles = _equal_quantiles if drawn.weight is None else _weighted_quantiles
    return np.stack(_by_target(drawn, log_targets, lambda q, values: quantiles(drawn, values, shares[:, q])), axis=1)


def _by_target(drawn: Draws, log_targets: Floats, reduce: Callable[[int, Floats], Floats]) -> list[Floats]:
    """``reduce`` of every target's place and forecasts [S, D], NaN for no law: those of one target are held at once."""
    laws = drawn.laws
    return [
        reduce(q, law_loss_at_log(log_target, laws.L_inf, laws.log_A, laws.alpha))
        for q, log_target in enumerate(log_targets)
    ]


def _equal_quantiles(drawn: Draws, values: Floats, shares: Floats) -> Floats:
    ordered = np.sort(values, axis=1)
    last = np.maximum(np.sum(~np.isnan(values), axis=1, keepdims=True) - 1, 0)
    place = shares * last
    below = np.clip(np.floor(np.nan_to_num(place)).astype(np.int64), 0, last)
    low, high = (np.take_along_axis(ordered, each, axis=1) for each in (below, np.minimum(below + 1, last)))
    return low + (high - low) * (place - below)


def _weighted_quantiles(drawn: Draws, values: Floats, shares: Floats) -> Floats:
    found = np.full(shares.shape, np.nan)
    for s in np.flatnonzero(np.all(np.isfinite(shares), axis=1) & np.any(~np.isnan(values), axis=1)):
        fitted = ~np.isnan(values[s])
        found[s] = weighted_percentiles(values[s, fitted], drawn.weight[s, fitted], 100 * shares[s])
    return found


def _bca(drawn: Draws, optima: Optima, percentile: _Method, settings: _Settings) -> _Method:
    point, log_targets = percentile.point, settings.log_targets
    below = np.stack(_by_target(drawn, log_targets, lambda q, values: _share_below(drawn, values, point[:, q])), axis=1)
    n_buckets = optima.loss.shape[1]
    left_out = optima.weight[:, None] * (1 - np.eye(n_buckets))
    without = fit_points(optima.log_compute[:, None], optima.loss[:, None], left_out)
    failed = (optima.weight > 0) & ~usable(without.status)
    jackknife = np.stack(_by_target(Draws(without), log_targets, lambda _, values: values), axis=1)
    mask = np.broadcast_to(((optima.weight > 0) & ~failed)[:, None], jackknife.shape)
    found = jax.device_get(
        bca_levels(below.ravel(), *(field.reshape(-1, n_buckets) for field in (jackknife, mask)), settings.level)
    )
    low, high, defined = (field.reshape(point.shape) for field in (found.low, found.high, found.defined))
    if drawn.weight is None:
        # The k-th of m draws is their k/(m + 1) quantile: they do not tell what lies outside.
        rank = np.sum(usable(drawn.laws.status), axis=1, keepdims=True) + 1
        defined = defined & (low * rank >= 1) & (high * rank <= rank - 1)
    first_failure = np.take_along_axis(without.status, np.argmax(failed, axis=1)[:, None], axis=1)
    status = np.select(
        [~usable(percentile.status), failed.any(axis=1, keepdims=True), ~defined],
        [percentile.status, first_failure, Status.BEYOND_DRAWS],
        percentile.status,
    )
    low, high = np.moveaxis(_quantiles(drawn, log_targets, np.stack([low, high], axis=2)), -1, 0)
    return _method(low, point, high, status, percentile.median, percentile.draw_status)


def _share_below(drawn: Draws, values: Floats, point: Floats) -> Floats:
    """[S] share of the fitted draws' forecasts ``values`` [S, D] below ``point`` [S], ties counted half."""
    away = values - point[:, None]
    side = np.where(np.abs(away) <= _TIE * np.abs(point[:, None]), 0.0, np.sign(away))
    weight = ~np.isnan(values) * (1.0 if drawn.weight is None else drawn.weight)
    total = np.sum(weight, axis=1)
    return np.sum(weight * (1 - np.nan_to_num(side)) / 2, axis=1) / np.where(total > 0, total, 1.0)


def _profile(optima: Optima, settings: _Settings) -> _Method:
    """BOUND_HIT where a bound of the law cuts an end, too: it is a limit then."""
    limit = profile_limit(optima.n, FREE_PARAMETERS, settings.level)
    free = np.full(len(limit), np.nan)
    found = jax.device_get(
        profile_laws(optima.log_compute, optima.loss, optima.weight, settings.log_targets, limit, free)
    )
    low, high, low_bound, high_bound = (field[:, _FORECASTS:] for field in found[1:5])
    cut = usable(found.status)[:, None] & ((low_bound | high_bound) != 0)
    status = np.where(cut, Status.BOUND_HIT, found.status[:, None])
    return _method(low, _at(settings.log_targets, found.law), high, status)


def _student_t(optima: Optima, pinned: Floats, settings: _Settings) -> _Method:
    """Prediction interval of the regression of log(L - L_inf) on log C (Draper and Smith 1998, section 3.1)."""
    given = ~np.isnan(pinned)
    laws = fit_points(optima.log_compute, optima.loss, optima.weight, np.where(given, pinned, 0.0))
    n = np.maximum(optima.n, 1)[:, None]
    freedom = n - _PINNED_PARAMETERS
    mean = np.sum(optima.weight * optima.log_compute, axis=1, keepdims=True) / n
    spread = np.sum(optima.weight * (optima.log_compute - mean) ** 2, axis=1, keepdims=True)
    noise = np.sqrt(laws.score[:, None] * n / np.maximum(freedom, 1))
    leverage = 1 / n + (settings.log_targets - mean) ** 2 / np.where(spread > 0, spread, 1.0)
    quantile = student_t_quantile((1 + settings.level) / 2, np.maximum(freedom, 1))
    factor = np.exp(quantile * noise * np.sqrt(1 + leverage))
    point = np.where(given[:, None], _at(settings.log_targets, laws), np.nan)
    gap = point - pinned[:, None]
    status = np.select(
        [~given[:, None], ~usable(laws.status)[:, None], freedom < 1],
        [Status.NOT_PINNED, laws.status[:, None], Status.TOO_FEW_POINTS],
        laws.status[:, None],
    )
    return _method(pinned[:, None] + gap / factor, point, pinned[:, None] + gap * factor, status)
