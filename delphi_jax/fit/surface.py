"""The loss surface L(N, D) = E + A/N**a + B/D**b of series of runs, and its bootstrap."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import jax
import numpy as np
from numpy.typing import ArrayLike, NDArray

from delphi_jax.batch import pad, padded_length
from delphi_jax.fit.law import PERCENTILES
from delphi_jax.kernels import surface as kernel
from delphi_jax.kernels.chunks import on_all_devices
from delphi_jax.kernels.surface import Surface
from delphi_jax.quantiles import least_draws
from delphi_jax.resamples import count_indices
from delphi_jax.results.base import Floats, Interval
from delphi_jax.results.surface import (
    COEFFICIENTS,
    SurfaceBootstrap,
    SurfaceFit,
    SurfaceObjective,
    surface_losses,
)
from delphi_jax.status import Status

__all__ = ["SURFACE_DRAWS", "bootstrap_surface", "fit_surface", "fit_surfaces"]

SURFACE_DRAWS = 1000
"""Draws of a bootstrap of the surface."""

_RESTARTS = 8
"""Resamples whose optima are further starts of a fit."""
_BLOCK = 512
"""Problems of a call on CPU: as all calls have so many, filled up with empty ones, they share a compiled program."""
_SHARE = 20
"""A call is shared among threads and devices in multiples of so many problems."""
_AT_ONCE = 8192
"""Draws held at once."""
_PILOTS = 64
"""Of these, the draws that are searched first: the best of their optima is a start for each of the others."""
_POOL = 256
"""Draws whose optima are further starts, for draws of which descents ended in different optima,"""
_LOWER = 1e-12
"""and for draws where one of these lies lower than their own by this share:"""
_RANKS = (0, 1, 4, 16, 64)
"""the lowest ones there, and some that are further away."""
_SAME = 1e-8
"""Relative difference of coefficients that is none."""
_EXPONENT = 0.4
"""Exponent of a start, where nothing says another one."""
_LEAST_POINTS, _LEAST_PLACES = 5, 3
"""Different runs, and different N and D, that can tell the coefficients: a constant, and two for N and D each."""
_LEAST_WIDTH = 0.01
"""Spread of log N and log D across their main direction, as a share of that along it: below it the runs are a line."""

Series = Mapping[str, tuple[ArrayLike, ArrayLike, ArrayLike]]


class _Points(NamedTuple):
    """One series as the kernels take it; fields [n], and what was taken off the logarithms."""

    log_params: Floats
    log_tokens: Floats
    loss: Floats
    center: tuple[float, float]


def fit_surface(
    params: ArrayLike,
    tokens: ArrayLike,
    loss: ArrayLike,
    *,
    objective: SurfaceObjective | None = None,
    series: str = "series",
) -> SurfaceFit:
    """Fit L(N, D) = E + A/N**a + B/D**b with E, A, B >= 0 to runs of ``params`` N, ``tokens`` D and ``loss``: [n].

    ``objective`` is Huber(1e-3) of the loss by default. The lowest optimum is kept of searches from a grid of exponents
    and from the optima of resamples (bootstrap restarting, Wood 2001). Fewer than five different runs or three
    different N or D, runs on one line of log N and log D, and equal losses have no fit, but a status. Raises ValueError
    for arrays that do not match or are not finite and positive.

    Examples:

    >>> import numpy as np
    >>> import delphi_jax as dj
    >>> N, D = (each.ravel() for each in np.meshgrid(np.logspace(8, 10, 4), np.logspace(9, 11, 4)))
    >>> loss = 1.5 + 400 / N**0.3 + 500 / D**0.3
    >>> fit = dj.fit_surface(N, D, loss)
    >>> [round(value, 2) for value in (fit.E, fit.A, fit.B, fit.a, fit.b)]
    [1.5, 400.0, 500.0, 0.3, 0.3]
    """
    return fit_surfaces({series: (params, tokens, loss)}, objective=objective)[series]


def fit_surfaces(series: Series, *, objective: SurfaceObjective | None = None) -> dict[str, SurfaceFit]:
    """Fit many series at once, (params, tokens, loss) by name; see :func:`fit_surface`.

    Examples:

    >>> import numpy as np
    >>> import delphi_jax as dj
    >>> N, D = (each.ravel() for each in np.meshgrid(np.logspace(8, 10, 4), np.logspace(9, 11, 4)))
    >>> loss = 1.5 + 400 / N**0.3 + 500 / D**0.3
    >>> fits = dj.fit_surfaces({"one": (N, D, loss), "other": (N, D, loss + 0.5)})
    >>> {name: round(fit.E, 3) for name, fit in fits.items()}
    {'one': 1.5, 'other': 2.0}
    """
    objective = SurfaceObjective() if objective is None else objective
    arrays = {name: _checked(name, *columns) for name, columns in series.items()}
    found = {name: SurfaceFit(name, *columns, objective, _enough(*columns)) for name, columns in arrays.items()}
    usable = [name for name, fit in found.items() if fit.status is Status.FITTED]
    if usable:
        points = [_centered(*_sorted(*arrays[name])) for name in usable]
        best = _lowest(points, objective)
        for i, name in enumerate(usable):
            found[name] = _fit_of(found[name], points[i].center, Surface(*(field[i] for field in best)))
    return found


def bootstrap_surface(
    params: ArrayLike,
    tokens: ArrayLike,
    loss: ArrayLike,
    *,
    objective: SurfaceObjective | None = None,
    at: Sequence[tuple[float, float]] = (),
    draws: int = SURFACE_DRAWS,
    seed: int = 0,
    indices: ArrayLike | None = None,
    percentiles: tuple[float, float, float] = PERCENTILES,
    series: str = "series",
) -> SurfaceBootstrap:
    """Bootstrap the loss surface over its runs; arguments as in :func:`fit_surface`.

    A draw resamples the n runs with replacement: ``draws`` of them from NumPy's generator with ``seed``, which counts
    the runs by ascending params, tokens and loss, or from ``indices`` [draws, n], which count them as they are given.
    Each is searched from the best of other draws' optima (the first ones: from the optimum of all runs), with a Huber
    loss also from the grid of exponents, from both sides along the valley, and, where these descents end apart, from
    more of the others' optima. ``at`` are the (N, D) at which the loss is forecast. Draws to which no surface can be
    fitted are skipped and counted; BEYOND_DRAWS where fewer are left than :func:`~delphi_jax.quantiles.least_draws`.
    Raises ValueError as :func:`fit_surface`, for no draw, and for indices or places that are out of range.

    Examples:

    >>> import numpy as np
    >>> import delphi_jax as dj
    >>> N, D = (each.ravel() for each in np.meshgrid(np.logspace(8, 10, 4), np.logspace(9, 11, 4)))
    >>> loss = 1.5 + 400 / N**0.3 + 500 / D**0.3
    >>> noisy = loss + 1e-4 * (-1) ** np.arange(16)
    >>> fit = dj.bootstrap_surface(N, D, noisy, draws=100)
    >>> bool(fit.intervals["E"].low < 1.5 < fit.intervals["E"].high)
    True
    """
    point = fit_surface(params, tokens, loss, objective=objective, series=series)
    places = np.asarray(at, dtype=np.float64).reshape(-1, 2)
    if not np.all(np.isfinite(places) & (places > 0)):
        raise ValueError(f"{series}: a forecast needs finite positive params and tokens, got {places.tolist()}")
    columns = _sorted(point.params, point.tokens, point.loss)
    drawn = _drawn(series, len(point.loss), draws, seed, indices)
    if indices is not None:
        drawn = (counts[:, _order(point.params, point.tokens, point.loss)] for counts in drawn)
    status, theta, value, gradient = (
        np.concatenate(fields) for fields in zip(*(_draws(point, columns, counts) for counts in drawn), strict=True)
    )
    coefficients = dict(zip(COEFFICIENTS, theta.T, strict=True))
    a, b = coefficients["a"], coefficients["b"]
    quantities = coefficients | {"b/(a+b)": b / (a + b), "a/(a+b)": a / (a + b)}
    losses = surface_losses(*places.T, *theta.T[:, :, None])
    fitted = theta[np.isin(status, SurfaceBootstrap.FITS)]
    # Searches of the same resample end apart by rounding.
    apart = len(fitted) > 0 and not np.allclose(fitted, fitted[0], rtol=_SAME, atol=0, equal_nan=True)
    enough = len(fitted) >= least_draws((percentiles[2] - percentiles[0]) / 100)
    if not (apart and enough):
        quantities, losses = {name: values[:0] for name, values in quantities.items()}, losses[:0]
    return SurfaceBootstrap(
        point=point,
        status=_told(apart, enough) if len(fitted) else Status(int(status[0])),
        draw_status=status,
        **coefficients,
        value=value,
        gradient=gradient,
        intervals={name: _interval(values, percentiles) for name, values in quantities.items()},
        params=places[:, 0],
        tokens=places[:, 1],
        loss_intervals=tuple(_interval(values, percentiles) for values in losses.T),
        percentiles=percentiles,
        seed=seed if indices is None else None,
    )


def _told(apart: bool, enough: bool) -> Status:
    """Whether fitted draws tell an interval."""
    if not enough:
        return Status.BEYOND_DRAWS
    return Status.FITTED if apart else Status.TOO_FEW_POINTS


def _order(params: Floats, tokens: Floats, loss: Floats) -> NDArray[np.int64]:
    """[n] places by ascending params, tokens and loss: draws are of places, so a table's order is none of theirs."""
    return np.lexsort((loss, tokens, params))


def _sorted(params: Floats, tokens: Floats, loss: Floats) -> tuple[Floats, Floats, Floats]:
    order = _order(params, tokens, loss)
    return params[order], tokens[order], loss[order]


def _interval(values: Floats, percentiles: tuple[float, float, float]) -> Interval:
    """Of those of ``values`` [R] that exist."""
    values = values[~np.isnan(values)]
    return Interval(*map(float, np.percentile(values, percentiles))) if len(values) else Interval(*[np.nan] * 3)


def _draws(
    point: SurfaceFit, columns: tuple[Floats, Floats, Floats], counts: Floats
) -> tuple[NDArray[np.int64], Floats, Floats, Floats]:
    """Status [R], coefficients [R, 5], objective and gradient of ``counts`` [R, n]; NaN where a draw was not fitted.

    ``columns``: params, tokens and loss that are counted.
    """
    status = np.full(len(counts), point.status)
    theta, value, gradient = np.full((len(counts), 5), np.nan), *np.full((2, len(counts)), np.nan)
    if point.fitted:
        points = _centered(*columns)
        fits = _resampled(points, counts, _scaled(point, points.center), point.objective)
        status = _enough_drawn(*columns, counts)
        status = np.where(status == Status.FITTED, fits.status, status)
        fitted = np.isin(status, SurfaceBootstrap.FITS)
        theta[fitted] = _plain(fits.theta[fitted], points.center)
        value[fitted] = _as_written(fits.value[fitted], point.objective)
        gradient[fitted] = fits.gradient[fitted]
    return status, theta, value, gradient


def _resampled(points: _Points, counts: Floats, start: Floats, objective: SurfaceObjective) -> Surface:
    """Surfaces of the resamples ``counts`` [R, n], some from ``start`` [5], the others from the best of these."""
    columns = [np.broadcast_to(column, counts.shape) for column in points[:3]]

    def search(draws: NDArray[np.int64], begin: Floats, *, from_grid: bool) -> Surface:
        return _search([column[draws] for column in columns], counts[draws], begin, objective, from_grid)

    pilots, others = np.split(np.arange(len(counts)), [_PILOTS])
    fits = search(pilots, np.tile(start, (len(pilots), 1)), from_grid=True)
    if len(others):
        begin = fits.theta[np.argmin(_objectives(fits.theta, points, counts[others], objective), axis=1)]
        # A squared loss shows no second optimum: nothing is found from the grid.
        rest = search(others, begin, from_grid=objective.function == "huber")
        fits = Surface(*(np.concatenate(pair) for pair in zip(fits, rest, strict=True)))
    values = _objectives(fits.theta[:_POOL], points, counts, objective)
    again = np.flatnonzero(fits.rivals | (np.min(values, axis=1) < fits.value * (1 - _LOWER)))
    if len(again):
        ranks = [rank for rank in _RANKS if rank < values.shape[1]]
        begin = fits.theta[np.argpartition(values[again], ranks, axis=1)[:, ranks].ravel()]
        fits = _lower(fits, again, search(np.repeat(again, len(ranks)), begin, from_grid=False))
    return fits


def _objectives(theta: Floats, points: _Points, counts: Floats, objective: SurfaceObjective) -> Floats:
    """[R, S] the objective of the resamples ``counts`` [R, n] at the surfaces ``theta`` [S, 5]."""
    E, A, B, a, b = theta.T[:, :, None]
    model = E + A * np.exp(-a * points.log_params) + B * np.exp(-b * points.log_tokens)
    residual = np.abs(np.log(points.loss / model) if objective.residual == "log" else points.loss - model)
    clipped = np.minimum(residual, _scale(objective))
    return counts @ (clipped * (residual - clipped / 2)).T / counts.sum(axis=1, keepdims=True)


def _lower(fits: Surface, again: NDArray[np.int64], others: Surface) -> Surface:
    """``fits`` [R] with those of the ``others``, some for each of the problems ``again``, that lie lower."""
    values = others.value.reshape(len(again), -1)
    best = np.arange(0, values.size, values.shape[1]) + np.argmin(values, axis=1)
    lower = others.value[best] < fits.value[again]
    fields = [field.copy() for field in fits]
    for field, other in zip(fields, others, strict=True):
        field[again[lower]] = other[best[lower]]
    return Surface(*fields)


def _lowest(series: Sequence[_Points], objective: SurfaceObjective) -> Surface:
    """The lowest optimum found of each of the ``series``."""
    each = _RESTARTS + 1
    columns = [np.repeat(pad([points[i] for points in series])[0], each, axis=0) for i in range(3)]
    weight = pad([counts for points in series for counts in _with_resamples(len(points.loss))])[0]
    start = [[loss.min() / 2, *[np.ptp(loss)] * 2, *[_EXPONENT] * 2] for _, _, loss, _ in series]
    resampled = _search(columns, weight, np.repeat(start, each, axis=0), objective)
    fits = _search(columns, np.repeat(weight[::each], each, axis=0), resampled.theta, objective, from_grid=False)
    values = fits.value.reshape(-1, each)
    return Surface(*(field[np.arange(0, len(fits.value), each) + np.argmin(values, axis=1)] for field in fits))


def _with_resamples(n: int) -> Floats:
    """Counts of all ``n`` runs, and of a few resamples, [.., n]."""
    return np.concatenate([np.ones((1, n)), _counts(n, np.random.default_rng(0).integers(0, n, (_RESTARTS, n)))])


def _search(
    columns: Sequence[Floats], weight: Floats, start: Floats, objective: SurfaceObjective, from_grid: bool = True
) -> Surface:
    """Surfaces of problems whose ``columns`` and ``weight`` are [B, n], from ``start`` [B, 5] and from the grid."""
    n_problems, n = weight.shape
    block = _BLOCK if jax.default_backend() == "cpu" else n_problems
    settings = (np.float64(_scale(objective)), np.bool_(objective.residual == "log"), np.bool_(from_grid))
    found = []
    for first in range(0, n_problems, block):
        rows = [values[first : first + block] for values in (*columns, weight)]
        filled = [np.zeros((block, padded_length([n]))) for _ in rows]
        for values, part in zip(filled, rows, strict=True):
            values[: len(part), :n] = part
        starts = np.ones((block, 5))
        starts[: len(rows[0])] = start[first : first + block]
        fits = on_all_devices(kernel.fit_surfaces, _SHARE, *filled, starts, *settings)
        found.append([field[: len(rows[0])] for field in fits])
    return Surface(*map(np.concatenate, zip(*found, strict=True)))


def _scale(objective: SurfaceObjective) -> float:
    return objective.delta if objective.function == "huber" else np.inf


def _as_written(value: Floats, objective: SurfaceObjective) -> Floats:
    """The kernel's objective, in which r**2/2 stands for all small residuals, as ``objective`` is written."""
    return value if objective.function == "huber" else 2 * value


def _centered(params: Floats, tokens: Floats, loss: Floats) -> _Points:
    logs = np.log([params, tokens])
    center = logs.mean(axis=1)
    return _Points(*(logs - center[:, None]), loss, tuple(center.tolist()))


def _plain(theta: Floats, center: tuple[float, float]) -> Floats:
    """[R, 5] coefficients for N and D as they are; the exponent of a term that is 0 is NaN."""
    E, A, B, a, b = theta.T
    A, B = A * np.exp(a * center[0]), B * np.exp(b * center[1])
    return np.stack([E, A, B, np.where(A > 0, a, np.nan), np.where(B > 0, b, np.nan)], axis=1)


def _scaled(fit: SurfaceFit, center: tuple[float, float]) -> Floats:
    """[5] the reverse of :func:`_plain`."""
    a, b = np.nan_to_num([fit.a, fit.b], nan=_EXPONENT)
    return np.array([fit.E, fit.A * np.exp(-a * center[0]), fit.B * np.exp(-b * center[1]), a, b])


def _fit_of(empty: SurfaceFit, center: tuple[float, float], fit: Surface) -> SurfaceFit:
    """``empty`` with the numbers of ``fit``, fields []."""
    status = Status(int(fit.status))
    if not status.usable:
        return replace(empty, status=status)
    return replace(
        empty,
        status=status,
        **dict(zip(COEFFICIENTS, _plain(fit.theta[None], center)[0].tolist(), strict=True)),
        value=float(_as_written(fit.value, empty.objective)),
        gradient=float(fit.gradient),
        on_bound=tuple(name for name, hit in zip(COEFFICIENTS, fit.on_bound, strict=True) if hit),
    )


def _checked(name: str, params: ArrayLike, tokens: ArrayLike, loss: ArrayLike) -> tuple[Floats, Floats, Floats]:
    columns = [np.asarray(values, dtype=np.float64) for values in (params, tokens, loss)]
    shapes = [values.shape for values in columns]
    if len(set(shapes)) > 1 or len(shapes[0]) != 1:
        raise ValueError(f"{name}: params, tokens and loss must be one-dimensional and of one length, got {shapes}")
    for what, values in zip(("params", "tokens", "loss"), columns, strict=True):
        bad = np.flatnonzero(~(np.isfinite(values) & (values > 0)))
        if bad.size:
            raise ValueError(f"{name}: {what}[{bad[0]}] is {values[bad[0]]}, expected a finite positive number")
    return tuple(columns)


def _enough(params: Floats, tokens: Floats, loss: Floats) -> Status:
    """Whether runs can tell the five coefficients of a surface: FITTED, or why not."""
    if not len(loss):
        return Status.NO_DATA
    return Status(int(_enough_drawn(params, tokens, loss, np.ones((1, len(loss))))[0]))


def _enough_drawn(params: Floats, tokens: Floats, loss: Floats, counts: Floats) -> NDArray[np.int64]:
    """[R] the same for the runs in ``counts`` [R, n]: FITTED, TOO_FEW_POINTS, ONE_LINE or NO_SPREAD."""
    present = (counts > 0).astype(np.float64)
    both = np.stack([params, tokens], axis=1)
    needed = ((params, _LEAST_PLACES), (tokens, _LEAST_PLACES), (both, _LEAST_POINTS))
    few = np.any([_n_distinct(values, present) < least for values, least in needed], axis=0)
    x, y = (np.log(both) - np.mean(np.log(both), axis=0)).T
    powers = np.stack([x, y, x * x, x * y, y * y], axis=1)
    mean_x, mean_y, *squares = (present @ powers / np.maximum(present.sum(axis=1), 1)[:, None]).T
    xx, xy, yy = np.array(squares) - [mean_x**2, mean_x * mean_y, mean_y**2]
    across, along = np.linalg.eigvalsh(np.moveaxis(np.array([[xx, xy], [xy, yy]]), 2, 0)).T
    conditions = [few, across <= _LEAST_WIDTH**2 * along, _n_distinct(loss, present) < 2]
    return np.select(conditions, [Status.TOO_FEW_POINTS, Status.ONE_LINE, Status.NO_SPREAD], Status.FITTED)


def _n_distinct(values: Floats, present: Floats) -> NDArray[np.int64]:
    """[R] different rows of ``values`` [n, ...] among those ``present`` [R, n], 1 or 0."""
    place = np.unique(values, axis=0, return_inverse=True)[1].ravel()
    groups = place[:, None] == np.arange(place.max() + 1)
    return np.sum(present @ groups > 0, axis=1)


def _counts(n: int, indices: NDArray[np.int64]) -> Floats:
    """[R, n] how often each run stands in ``indices`` [R, n]."""
    return count_indices(indices, n).astype(np.float64)


def _drawn(series: str, n: int, draws: int, seed: int, indices: ArrayLike | None) -> Iterator[Floats]:
    """Counts [R, n] of the draws, some at a time: the generator's stream does not depend on how many."""
    if (draws if indices is None else len(np.atleast_1d(indices))) < 1:
        raise ValueError(f"{series}: the bootstrap needs at least one draw")
    if n == 0:
        raise ValueError(f"{series}: no runs to resample")
    if indices is None:
        rng = np.random.default_rng(seed)
        for first in range(0, draws, _AT_ONCE):
            yield _counts(n, rng.integers(0, n, size=(min(_AT_ONCE, draws - first), n)))
        return
    drawn = np.asarray(indices)
    integers = drawn.ndim == 2 and drawn.shape[1] == n and np.issubdtype(drawn.dtype, np.integer)
    if not integers or drawn.min() < 0 or drawn.max() >= n:
        raise ValueError(f"indices must be integers in [0, {n}) of shape [draws, {n}], got shape {drawn.shape}")
    for first in range(0, len(drawn), _AT_ONCE):
        yield _counts(n, drawn[first : first + _AT_ONCE])
