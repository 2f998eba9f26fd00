"""How compute is best shared between parameters and tokens: from IsoFLOP optima, and from the loss surface.

Approach 2 of Hoffmann et al. 2022: log10 of the optimal parameters, and tokens, of the buckets against log10 C is a
line, the loss there a power law with a free asymptote. The optima are those of the parabolas, or of the splines of
:mod:`delphi_jax.kernels.valley`. Approach 3: the surface L(N, D) has its lowest loss at C = k*N*D in closed form (their
equation 4).

FLOPs as measured: a bucket's budget is what its runs took, and k the median of their C/(N*D). FLOPs as 6*N*D: k is 6,
and a bucket's budget is 6*N*D of its parabola's, or spline's, optimum. Its runs still had equal measured FLOPs: where
C/(N*D) differs between them, that optimum is not quite the one at equal 6*N*D; the surface's is.

Axes: K buckets, R draws, Q budgets.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from delphi_jax.batch import asymptote_grid, padded_length
from delphi_jax.fit.choice import costs_of_choice, surface_optimum
from delphi_jax.fit.isoflop import fit_isoflop
from delphi_jax.fit.law import BOOTSTRAP_GRID, fit_law
from delphi_jax.fit.surface import bootstrap_surface
from delphi_jax.fit.valley import (
    Buckets,
    Optima,
    by_bucket,
    fit_splines,
    parabola_optima,
    point_optima,
    resampled_optima,
    term_tests,
)
from delphi_jax.formulas import FLOPS_PER_PARAM_TOKEN, law_loss_at_log, optimal_params, surface_loss
from delphi_jax.kernels.chunks import on_all_devices
from delphi_jax.kernels.power_law import CHUNK, fit_free_laws
from delphi_jax.kernels.valley import Valley
from delphi_jax.labels import FLOPS, PARABOLA, SPLINE, SURFACE
from delphi_jax.quantiles import least_draws
from delphi_jax.results import Floats, Interval, LawFit, ParabolaFit
from delphi_jax.results.allocation import (
    ASYMMETRIC,
    EDGE,
    FEW_POINTS,
    NO_MINIMUM,
    OFF_CENTRE,
    WIDE,
    AllocationFit,
    AllocationLine,
    AllocationPath,
    Band,
    BucketFit,
    LackOfFit,
    ParabolaBias,
    SuiteAllocation,
)
from delphi_jax.results.surface import COEFFICIENTS, SurfaceBootstrap, SurfaceFit, SurfaceObjective
from delphi_jax.status import Status
from delphi_jax.tables import RunTable, fit_runs

__all__ = ["LEAST_BUCKETS", "MIDDLE", "allocate"]

LEAST_BUCKETS = 3
"""Buckets with an optimum that approach 2 needs: through two there is a line that nothing could speak against."""
MIDDLE = 1 / 3
"""Share of half the range of the tokens, on a logarithmic scale, within which an optimum counts as centred."""

_CURVE_POINTS = 60
"""Budgets at which the figure's lines are known."""


class _Settings(NamedTuple):
    budgets: Floats
    """[Q]"""
    flops: str
    objective: SurfaceObjective
    draws: int
    seed: int
    level: float

    @property
    def percentiles(self) -> tuple[float, float, float]:
        tail = 50 * (1 - self.level)
        return tail, 50.0, 100 - tail


class _Lines(NamedTuple):
    """Lines of log10 N* and log10 D* on log10 C, and what they give at Q budgets; R draws."""

    status: NDArray[np.int64]
    """[R]"""
    params_slope: Floats
    """[R]"""
    tokens_slope: Floats
    """[R]"""
    log_params: Floats
    """[R, Q]"""
    log_tokens: Floats
    """[R, Q]"""


_Placed = tuple[Optima, Floats]
"""Optima, and the FLOPs of each."""

_Drawn = tuple[Floats, Floats]
"""An estimate, and its draws along the first axis."""


def allocate(
    runs: RunTable,
    budgets: Sequence[float],
    *,
    suites: Sequence[str] | None = None,
    flops: str = "measured",
    objective: SurfaceObjective | None = None,
    draws: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> AllocationFit:
    """The best N and D, their ratio and the loss there at ``budgets`` (FLOPs), with intervals, by every approach.

    ``runs`` as :class:`~delphi_jax.tables.Study` holds them; held-out runs and runs that did not finish take no part.
    ``suites`` are all by default. ``flops``: "measured" or "6nd", see the module. ``objective`` is the surface's.

    Intervals are percentiles of ``draws`` bootstrap draws. Approach 2 resamples the runs within every bucket and refits
    optima, lines and law; a bucket without a minimum within its observed tokens is left out, of a draw as of the fit.
    The surface resamples all runs. ``level`` is the intervals' probability, and 1 - ``level`` the size of the tests for
    the parabola's biases. An approach that the runs do not support has a status and no numbers. Raises ValueError for
    budgets that are not finite and positive, an unknown suite or way of counting, no draw, and a level outside (0, 1).

    Examples:

    >>> import delphi_jax as dj
    >>> study = dj.load_study("data", tables=["runs"])
    >>> isoflop = dj.fit_isoflop(study.runs)
    >>> found = dj.allocate(study.runs, [1e23], suites=isoflop.suites[:1], draws=20)
    >>> row = found.rows()[0]
    >>> row["approach"], f"{row['N*']:.1g}", f"{row['D*']:.1g}"  # 6*N*D is near 1e23
    ('parabola', '4e+10', '4e+11')
    """
    wanted = np.asarray(budgets, dtype=np.float64)
    if wanted.ndim != 1 or not wanted.size or not np.all(np.isfinite(wanted) & (wanted > 0)):
        raise ValueError(f"budgets must be one or more finite positive numbers of FLOPs, got {budgets}")
    if flops not in FLOPS:
        raise ValueError(f"flops must be one of {', '.join(FLOPS)}, got {flops!r}")
    if draws < 1:
        raise ValueError(f"the bootstrap needs at least one draw, got {draws}")
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, got {level}")
    used, _ = fit_runs(runs)
    known = sorted(set(used.suite.tolist()))
    if unknown := [suite for suite in suites or () if suite not in known]:
        raise ValueError(f"no IsoFLOP runs of {', '.join(unknown)}; the suites are {', '.join(known)}")
    settings = _Settings(wanted, flops, SurfaceObjective() if objective is None else objective, draws, seed, level)
    chosen = known if suites is None else list(dict.fromkeys(suites))
    return AllocationFit(tuple(_allocate_suite(suite, used.where(used.suite == suite), settings) for suite in chosen))


def _allocate_suite(suite: str, runs: RunTable, settings: _Settings) -> SuiteAllocation:
    # Draws within buckets are of places: in one order, the numbers do not depend on that of the table.
    order = np.lexsort((runs.loss, runs.params, runs.tokens, runs.bucket))
    runs = runs.where(order)
    fits = fit_isoflop(runs).parabolas
    measured = runs.compute / (runs.params * runs.tokens)
    factor = float(np.median(measured)) if settings.flops == "measured" else FLOPS_PER_PARAM_TOKEN
    budgets = np.array([fit.bucket for fit in fits])
    buckets = by_bucket(fits)
    splines = fit_splines(buckets)
    point = {
        name: (found, _compute(found, budgets, settings.flops))
        for name, found in point_optima(buckets, splines).items()
    }
    draws = {
        name: (found, _compute(found, budgets, settings.flops))
        for name, found in resampled_optima(buckets, settings.draws, settings.seed).items()
    }
    laws = {name: _law(suite, *found) for name, found in point.items()}
    grid = _grid(budgets, settings.budgets)
    lines = {name: _approach_2(name, point[name], draws[name], laws[name], grid, settings) for name in point}
    bootstrap = _surface(suite, runs, settings)
    surface = bootstrap.point
    lines[SURFACE] = _approach_3(bootstrap, factor, grid, settings)

    found, compute = point[PARABOLA]
    used = np.flatnonzero(found.valid[0])
    bias, bucket_bias = _bias(buckets, found, compute[0], lines[SURFACE], surface, factor, settings)
    tests, together = term_tests(buckets)
    off_centre = _off_centre(buckets, fits)
    without_optimum = np.mean(~draws[PARABOLA][0].valid, axis=0)
    return SuiteAllocation(
        suite=suite,
        budgets=settings.budgets,
        flops=settings.flops,
        factor=factor,
        factor_range=(float(measured.min()), float(measured.max())),
        lines=tuple(lines.values()),
        laws=laws,
        surface=bootstrap,
        buckets=_bucket_fits(
            fits, buckets, splines, point, tests, off_centre, bucket_bias, without_optimum, 1 - settings.level
        ),
        cubic=together[0],
        quartic=together[1],
        drift=_drift(buckets, found, compute),
        bias=bias,
        costs=costs_of_choice(
            lines,
            laws,
            [fits[k] for k in used],
            compute[0, used],
            bootstrap,
            factor,
            settings.percentiles,
        ),
        level=settings.level,
        draws=settings.draws,
        seed=settings.seed,
    )


def _surface(suite: str, runs: RunTable, settings: _Settings) -> SurfaceBootstrap:
    return bootstrap_surface(
        runs.params,
        runs.tokens,
        runs.loss,
        objective=settings.objective,
        draws=settings.draws,
        seed=settings.seed,
        percentiles=settings.percentiles,
        series=suite,
    )


def _bucket_fits(
    fits: Sequence[ParabolaFit],
    buckets: Buckets,
    splines: Valley,
    point: Mapping[str, _Placed],
    tests: Sequence[tuple[LackOfFit, ...]],
    off_centre: Floats,
    bias: Floats,
    without_optimum: Floats,
    size: float,
) -> tuple[BucketFit, ...]:
    (parabola, parabola_compute), (spline, spline_compute) = point[PARABOLA], point[SPLINE]
    distinct = buckets.distinct
    return tuple(
        BucketFit(
            parabola=fit,
            parabola_used=bool(parabola.valid[0, k]),
            parabola_compute=float(parabola_compute[0, k]),
            spline_status=Status(int(splines.status[k])),
            spline_compute=float(spline_compute[0, k]),
            spline_tokens=float(10.0 ** spline.x[0, k]),
            spline_params=float(10.0 ** spline.log_params[0, k]),
            spline_loss=float(spline.loss[0, k]),
            freedom=float(splines.freedom[k]) if spline.valid[0, k] else np.nan,
            distinct=int(distinct[k]),
            width=float(buckets.high[k] - buckets.low[k]),
            off_centre=float(off_centre[k]),
            cubic=tests[k][0],
            quartic=tests[k][1],
            bias=float(bias[k]),
            without_optimum=float(without_optimum[k]),
            flags=_flags(fit, tests[k], float(off_centre[k]), size),
        )
        for k, fit in enumerate(fits)
    )


def _flags(fit: ParabolaFit, tests: tuple[LackOfFit, ...], off_centre: float, size: float) -> tuple[str, ...]:
    cubic, quartic = tests
    shown = {
        NO_MINIMUM: fit.status is Status.CURVATURE_NOT_POSITIVE,
        EDGE: fit.status is Status.CLIPPED_TO_EDGE,
        FEW_POINTS: cubic.freedom < 1,
        OFF_CENTRE: fit.status is Status.FITTED and abs(off_centre) > MIDDLE,
        ASYMMETRIC: cubic.p_value < size,
        WIDE: quartic.p_value < size,
    }
    return tuple(name for name, there in shown.items() if there)


def _grid(buckets: Floats, budgets: Floats) -> Floats:
    """Budgets of the curve, over ``buckets`` and ``budgets`` alike."""
    ends = np.concatenate([buckets, budgets])
    return np.geomspace(ends.min(), ends.max(), _CURVE_POINTS)


def _compute(found: Optima, budgets: Floats, flops: str) -> Floats:
    """[R, K] FLOPs of the optima of buckets of ``budgets`` [K]; NaN where there is none."""
    if flops == "measured":
        return np.where(found.valid, budgets, np.nan)
    return FLOPS_PER_PARAM_TOKEN * 10.0 ** (found.log_params + found.x)


def _law(suite: str, found: Optima, compute: Floats) -> LawFit:
    """The law through the optima of the runs as they are."""
    valid = found.valid[0]
    return fit_law(compute[0, valid], found.loss[0, valid], series=suite)


def _lines(found: Optima, compute: Floats, budgets: Floats) -> _Lines:
    """The lines through the optima, each by least squares, at ``budgets`` [Q]."""
    log_budgets = np.log10(budgets)
    fits = [_line(np.log10(compute), y, found.valid) for y in (found.log_params, found.x)]
    (params_slope, params_level), (tokens_slope, tokens_level) = fits
    enough = found.valid.sum(axis=1) >= LEAST_BUCKETS
    return _Lines(
        np.where(enough, Status.FITTED, Status.TOO_FEW_POINTS),
        params_slope,
        tokens_slope,
        params_level[:, None] + params_slope[:, None] * log_budgets,
        tokens_level[:, None] + tokens_slope[:, None] * log_budgets,
    )


def _line(x: Floats, y: Floats, valid: NDArray[np.bool_]) -> tuple[Floats, Floats]:
    """Slopes and intercepts [R] of the least-squares lines of ``y`` on ``x`` [R, K]; a level one at a single x."""
    n = np.maximum(valid.sum(axis=1), 1)
    x, y = np.where(valid, x, 0.0), np.where(valid, y, 0.0)
    mean_x, mean_y = x.sum(axis=1) / n, y.sum(axis=1) / n
    dx = np.where(valid, x - mean_x[:, None], 0.0)
    sxx = np.sum(dx**2, axis=1)
    slope = np.sum(dx * y, axis=1) / np.where(sxx > 0, sxx, 1.0)
    return slope, mean_y - slope * mean_x


def _drawn_laws(found: Optima, compute: Floats) -> tuple[NDArray[np.bool_], Floats]:
    """Which draws' optima [R, K] have a law, and L_inf, log A and alpha of all, [3, R]."""
    width = padded_length([found.valid.shape[1]])
    missing = [(0, 0), (0, width - found.valid.shape[1])]
    mask = np.pad(found.valid, missing)
    log_c, loss = (np.where(mask, np.pad(y, missing), 0.0) for y in (np.log(compute), found.loss))
    smallest = np.min(loss, axis=1, initial=np.inf, where=mask)
    grid = asymptote_grid(np.where(mask.any(axis=1), smallest, 0.0), BOOTSTRAP_GRID)
    laws = on_all_devices(fit_free_laws, CHUNK, log_c, loss, mask, grid)
    used = np.isin(laws.status, SurfaceBootstrap.FITS) & (found.valid.sum(axis=1) >= LEAST_BUCKETS)
    return used, np.stack([laws.L_inf, laws.log_A, laws.alpha])


def _approach_2(
    name: str, point: _Placed, drawn: _Placed, law: LawFit, grid: Floats, settings: _Settings
) -> AllocationLine:
    """Lines through optima [1, K], with intervals from those of draws [R, K]."""
    budgets = np.concatenate([settings.budgets, grid])
    whole, draws = (_lines(*placed, budgets) for placed in (point, drawn))
    status = Status(int(whole.status[0]))
    if not status.usable:
        return _without_numbers(name, status, grid, settings)
    used = draws.status == Status.FITTED
    with_law, coefficients = _drawn_laws(*drawn)
    line = _approach(
        name,
        (status, law.status),
        budgets,
        (whole.params_slope[0], draws.params_slope[used]),
        (whole.tokens_slope[0], draws.tokens_slope[used]),
        (10.0 ** whole.log_params[0], 10.0 ** draws.log_params[used]),
        (10.0 ** whole.log_tokens[0], 10.0 ** draws.log_tokens[used]),
        (law.loss_at(budgets), law_loss_at_log(np.log(budgets), *coefficients[:, with_law, None])),
        draws.status,
        settings,
    )
    return replace(line, scatter=_scatter(*point, drawn[0]))


def _scatter(found: Optima, compute: Floats, drawn: Optima) -> float:
    """Standard deviation of the log optimal tokens about their line, over that of resampled runs alone."""
    valid, n = found.valid, int(found.valid.sum())
    with_draws = valid[0] & (drawn.valid.sum(axis=0) > 1)
    if n < LEAST_BUCKETS or not with_draws.any():
        return np.nan
    (slope,), (level,) = _line(np.log10(compute), found.x, valid)
    about = np.sum((found.x[valid] - level - slope * np.log10(compute[valid])) ** 2) / (n - 2)
    alone = np.mean(
        [np.var(x[there], ddof=1) for x, there in zip(drawn.x.T[with_draws], drawn.valid.T[with_draws], strict=True)]
    )
    return float(np.sqrt(about / alone)) if alone > 0 else np.nan


def _approach_3(bootstrap: SurfaceBootstrap, factor: float, grid: Floats, settings: _Settings) -> AllocationLine:
    """The surface's best allocation, with intervals from its bootstrap."""
    surface = bootstrap.point
    if not (surface.fitted and surface_optimum(surface, factor).exists[0]):
        status = Status.NO_OPTIMUM if surface.fitted else surface.status
        return _without_numbers(SURFACE, status, grid, settings)
    budgets = np.concatenate([settings.budgets, grid])
    there = surface_optimum(bootstrap, factor).exists & bootstrap.used

    def along(fit: SurfaceFit | SurfaceBootstrap, chosen: NDArray[np.bool_]) -> tuple[Floats, Floats, Floats]:
        E, A, B, a, b = (np.atleast_1d(getattr(fit, name))[chosen, None] for name in COEFFICIENTS)
        params = optimal_params(budgets / factor, A, B, a, b)
        tokens = budgets / factor / params
        return params, tokens, surface_loss(params, tokens, E, A, B, a, b)

    whole, draws = along(surface, np.array([True])), along(bootstrap, there)
    params, tokens, loss = ((one[0], many) for one, many in zip(whole, draws, strict=True))
    return _approach(
        SURFACE,
        (surface.status, surface.status),
        budgets,
        (surface.params_exponent, bootstrap.params_exponent[there]),
        (surface.tokens_exponent, bootstrap.tokens_exponent[there]),
        params,
        tokens,
        loss,
        np.where(bootstrap.used & ~there, Status.NO_OPTIMUM, bootstrap.draw_status),
        settings,
    )


def _approach(
    name: str,
    statuses: tuple[Status, Status],
    budgets: Floats,
    params_slope: _Drawn,
    tokens_slope: _Drawn,
    params: _Drawn,
    tokens: _Drawn,
    loss: _Drawn,
    draw_status: NDArray[np.int64],
    settings: _Settings,
) -> AllocationLine:
    """``statuses`` are those of N* and D*, and of the loss; ``budgets`` those asked for and then the curve's."""
    ratio = tokens[0] / params[0], tokens[1] / params[1]
    path = AllocationPath(budgets, *(_band(*drawn, settings) for drawn in (params, tokens, ratio, loss)))
    n = len(settings.budgets)
    ended, counts = np.unique(draw_status, return_counts=True)
    return AllocationLine(
        approach=name,
        status=statuses[0],
        loss_status=statuses[1],
        params_exponent=float(params_slope[0]),
        params_exponent_interval=_interval(params_slope[1], settings),
        tokens_exponent=float(tokens_slope[0]),
        tokens_exponent_interval=_interval(tokens_slope[1], settings),
        at=path.part(slice(None, n)),
        curve=path.part(slice(n, None)),
        draw_counts={Status(int(one)): int(count) for one, count in zip(ended, counts, strict=True)},
        loss_draws=len(loss[1]),
    )


def _without_numbers(name: str, status: Status, grid: Floats, settings: _Settings) -> AllocationLine:
    def nothing(budgets: Floats) -> AllocationPath:
        absent = np.full(len(budgets), np.nan)
        return AllocationPath(budgets, *[Band(absent, absent, absent, absent)] * 4)

    none = Interval(np.nan, np.nan, np.nan)
    curve = nothing(grid)
    return AllocationLine(name, status, status, np.nan, none, np.nan, none, nothing(settings.budgets), curve, {}, 0)


def _band(estimate: Floats, draws: Floats, settings: _Settings) -> Band:
    """``estimate`` [Q] with the percentiles of ``draws`` [R, Q]."""
    if len(draws) < least_draws(settings.level):
        return Band(estimate, *[np.full(len(estimate), np.nan)] * 3)
    return Band(estimate, *np.percentile(draws, settings.percentiles, axis=0))


def _interval(draws: Floats, settings: _Settings) -> Interval:
    if len(draws) < least_draws(settings.level):
        return Interval(np.nan, np.nan, np.nan)
    return Interval(*map(float, np.percentile(draws, settings.percentiles)))


def _bias(
    buckets: Buckets,
    point: Optima,
    compute: Floats,
    line: AllocationLine,
    surface: SurfaceFit,
    factor: float,
    settings: _Settings,
) -> tuple[ParabolaBias, Floats]:
    """What approach 2 would say of the surface's own losses at the runs' tokens, without noise.

    That of the buckets [K] is in percent of their optimal tokens; NaN where a bucket has no optimum on either.
    """
    if not line.fitted:
        absent = np.full(len(settings.budgets), np.nan)
        return ParabolaBias(np.nan, absent), np.full(len(compute), np.nan)
    # Tokens for parameters at one budget, as the closed form has it.
    budget = np.log10(np.where(point.valid[0], compute, factor) / factor)
    loss = surface.loss_at(10.0 ** (budget[:, None] - buckets.x), 10.0**buckets.x)
    found = parabola_optima(buckets, buckets.x[None], np.where(buckets.mask, loss, 0.0)[None])
    both = found._replace(valid=found.valid & point.valid)
    params = optimal_params(10.0**budget, surface.A, surface.B, surface.a, surface.b)
    best = budget - np.log10(params)
    lines = _lines(both, compute[None], settings.budgets)
    missed = 100 * (10.0 ** lines.log_tokens[0] / line.at.tokens.value - 1)
    if lines.status[0] != Status.FITTED:
        missed, slope = np.full(len(missed), np.nan), np.nan
    else:
        slope = float(lines.tokens_slope[0])
    return ParabolaBias(slope, missed), np.where(both.valid[0], 100 * (10.0 ** (found.x[0] - best) - 1), np.nan)


def _off_centre(buckets: Buckets, fits: Sequence[ParabolaFit]) -> Floats:
    """[K] vertices from the middle of the sampled tokens, in half ranges."""
    vertex = np.array([fit.vertex_log_tokens for fit in fits])
    half = (buckets.high - buckets.low) / 2
    return np.where(half > 0, (vertex - (buckets.high + buckets.low) / 2) / np.where(half > 0, half, 1.0), np.nan)


def _drift(buckets: Buckets, point: Optima, compute: Floats) -> float:
    """Decades per decade of compute by which the optima move away from the middle of the sampled tokens."""
    if point.valid.sum() < LEAST_BUCKETS:
        return np.nan
    return float(_line(np.log10(compute), point.x - (buckets.high + buckets.low) / 2, point.valid)[0][0])
