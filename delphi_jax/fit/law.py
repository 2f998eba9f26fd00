"""Asymptotic power laws of series of (compute, loss), and their bootstrap."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal

import jax
import numpy as np
from numpy.typing import ArrayLike, NDArray

from delphi_jax.batch import asymptote_grid, pad, padded_length
from delphi_jax.definition import delphi
from delphi_jax.devices import free_memory
from delphi_jax.formulas import law_loss
from delphi_jax.kernels.bootstrap import BootstrapDraws, bootstrap_laws, counts_from_key
from delphi_jax.kernels.chunks import on_all_devices, prepare_on_all_devices
from delphi_jax.kernels.law_objectives import fit_objective_laws
from delphi_jax.kernels.optimum import CHUNK as OPTIMUM_CHUNK
from delphi_jax.kernels.optimum import OptimalLaw, fit_optimal_laws
from delphi_jax.kernels.power_law import CHUNK, PowerLaw, fit_free_laws, fit_pinned_laws, fit_shared_law
from delphi_jax.quantiles import least_draws
from delphi_jax.resamples import (
    count_indices,
    n_resamples,
    resample_counts,
    resample_probabilities,
    resample_ranks,
    weighted_percentiles,
)
from delphi_jax.results import BootstrapFit, Floats, Interval, LawFit
from delphi_jax.results.law import Objective, PinnedAsymptote
from delphi_jax.status import Status

__all__ = [
    "BOOTSTRAP_GRID",
    "LAW_GRID",
    "PERCENTILES",
    "bootstrap_law",
    "checked_series",
    "fit_law",
    "fit_laws",
    "fit_shared_laws",
    "one_law",
    "prepare_bootstrap",
    "prepare_laws",
    "refuse_draws",
    "resampling_indices",
]

PERCENTILES = (2.5, 50.0, 97.5)
"""Low end, middle and high end of a bootstrap's intervals."""

LAW_GRID = 400
"""Candidate asymptotes of a law."""

BOOTSTRAP_GRID = 100
"""Candidate asymptotes of a bootstrap's draws."""

_DRAWS = 1000

Series = Mapping[str, tuple[ArrayLike, ArrayLike]]
LawMethod = Literal["grid", "optimum"]


@dataclass(frozen=True)
class _How:
    """How laws are fitted, as it is said on each."""

    method: str
    objective: Objective
    metric: str


def fit_law(
    compute: ArrayLike,
    loss: ArrayLike,
    *,
    L_inf: float | PinnedAsymptote | None = None,
    n_grid: int | None = None,
    method: LawMethod = "grid",
    objective: Objective | None = None,
    metric: str = "",
    series: str = "series",
) -> LawFit:
    """Fit L(C) = L_inf + A*C**-alpha to one series (methods, section 3).

    ``compute`` in FLOPs and ``loss``: [n], finite and positive. The asymptote is free or pinned to ``L_inf``. With
    ``method`` "grid" a free one is the best of ``n_grid`` (400) values up to 0.95 times the smallest loss, as in the
    reference; with "optimum" it is continuous, and ``objective`` may be another than the squared log residual
    (:mod:`~delphi_jax.kernels.law_objectives`). ``metric`` names what ``loss`` measures. Raises ValueError for arrays
    that do not match or are not positive, for a :class:`PinnedAsymptote` of another metric, and for arguments that the
    method does not take. A pinned asymptote that is not below every loss is a status, ASYMPTOTE_ABOVE_LOSS (of the
    grid, NO_GRID_VALUE_FITS).

    Examples:

    >>> import numpy as np
    >>> import delphi_jax as dj
    >>> compute = np.logspace(18, 20, 7)
    >>> loss = 2 + 1000 * compute**-0.2
    >>> law = dj.fit_law(compute, loss, method="optimum")
    >>> f"{law.L_inf:.3f} {law.A:.0f} {law.alpha:.3f} {law.status}"
    '2.000 1000 0.200 fitted'
    >>> round(float(law.loss_at(1e25)), 3)  # 2 + 1000/1e5
    2.01
    """
    pinned = None if L_inf is None else {series: L_inf}
    return fit_laws(
        {series: (compute, loss)}, L_inf=pinned, n_grid=n_grid, method=method, objective=objective, metric=metric
    )[series]


def fit_laws(
    series: Series,
    *,
    L_inf: Mapping[str, float | PinnedAsymptote] | PinnedAsymptote | None = None,
    n_grid: int | None = None,
    method: LawMethod = "grid",
    objective: Objective | None = None,
    metric: str = "",
) -> dict[str, LawFit]:
    """Fit many series at once, each with its own asymptote; arguments as in :func:`fit_law`, ``L_inf`` by series name.

    A single :class:`PinnedAsymptote` is that of all.

    Examples:

    >>> import numpy as np
    >>> import delphi_jax as dj
    >>> compute = np.logspace(18, 20, 7)
    >>> loss = 2 + 1000 * compute**-0.2
    >>> laws = dj.fit_laws({"one": (compute, loss), "other": (compute, loss + 1)}, method="optimum")
    >>> {name: round(law.L_inf, 3) for name, law in laws.items()}
    {'one': 2.0, 'other': 3.0}
    """
    n_grid, how = _settings(method, n_grid, objective, metric)
    arrays = {name: checked_series(name, compute, loss) for name, (compute, loss) in series.items()}
    if not arrays:
        return {}
    pinned = None if L_inf is None else _pinned(list(arrays), L_inf, metric)
    asymptote = "free" if pinned is None else "pinned"
    log_compute, losses, mask = _padded(arrays)
    if method == "optimum":
        given = np.full(len(arrays), np.nan) if pinned is None else pinned
        return _optima(arrays, asymptote, how, _optimal(log_compute, losses, mask, given, how.objective), given)
    if pinned is None:
        grid = asymptote_grid(_smallest(losses, mask), n_grid)
        laws = on_all_devices(fit_free_laws, CHUNK, log_compute, losses, mask, grid)
    else:
        laws = on_all_devices(fit_pinned_laws, CHUNK, log_compute, losses, mask, pinned)
    return _results(arrays, asymptote, how, laws)


def prepare_laws(lengths: Sequence[int], *, pinned: bool = False, n_grid: int = LAW_GRID) -> None:
    """Get the program of :func:`fit_laws` ready for series of ``lengths`` points, free or ``pinned``."""
    if not lengths:
        return
    values, mask = pad([np.empty(length) for length in lengths])
    if pinned:
        prepare_on_all_devices(fit_pinned_laws, CHUNK, values, values, mask, np.empty(len(lengths)))
    else:
        prepare_on_all_devices(fit_free_laws, CHUNK, values, values, mask, np.empty((len(lengths), n_grid)))


def fit_shared_laws(
    series: Series,
    *,
    n_grid: int | None = None,
    method: LawMethod = "grid",
    objective: Objective | None = None,
    metric: str = "",
) -> dict[str, LawFit]:
    """Fit several series with one asymptote for all of them (methods, section 3).

    The grid makes the sum of their scores least, as in the reference; the optimum the mean over all their points, which
    is the same where they are equally long. Other arguments as in :func:`fit_law`.

    Examples:

    >>> import numpy as np
    >>> import delphi_jax as dj
    >>> compute = np.logspace(18, 20, 7)
    >>> loss = 2 + 1000 * compute**-0.2
    >>> other = 2 + 700 * compute**-0.2
    >>> laws = dj.fit_shared_laws({"one": (compute, loss), "other": (compute, other)}, method="optimum")
    >>> [(round(law.L_inf, 3), round(law.A)) for law in laws.values()]
    [(2.0, 1000), (2.0, 700)]
    """
    n_grid, how = _settings(method, n_grid, objective, metric)
    arrays = {name: checked_series(name, compute, loss) for name, (compute, loss) in series.items()}
    if not arrays:
        return {}
    log_compute, losses, mask = _padded(arrays)
    if method == "optimum":
        free = np.array([np.nan])
        group = (log_compute[None], losses[None], mask.astype(np.float64)[None], free, how.objective.delta)
        laws = fit_objective_laws(*group, huber=how.objective.huber, of_loss=how.objective.of_loss)
        laws = OptimalLaw(*(field[0] for field in jax.device_get(laws)))
        return _optima(arrays, "shared", how, laws, np.full(len(arrays), np.nan))
    grid = asymptote_grid(np.min(losses, where=mask, initial=np.inf) if mask.any() else 0.0, n_grid)
    return _results(arrays, "shared", how, jax.device_get(fit_shared_law(log_compute, losses, mask, grid)))


def resampling_indices(n: int, draws: int, seed: int) -> NDArray[np.int64]:
    """The reference's resampling indices [draws, n]: one generator, draw after draw.

    Examples:

    >>> import delphi_jax as dj
    >>> dj.resampling_indices(7, draws=1000, seed=0).shape
    (1000, 7)
    """
    return np.random.default_rng(seed).integers(0, n, size=(draws, n))


def bootstrap_law(
    compute: ArrayLike,
    loss: ArrayLike,
    targets: Sequence[float] | None = None,
    *,
    method: Literal["monte-carlo", "exact"] = "monte-carlo",
    draws: int | None = None,
    seed: int | None = None,
    indices: ArrayLike | None = None,
    key: jax.Array | None = None,
    n_grid: int = BOOTSTRAP_GRID,
    percentiles: tuple[float, float, float] = PERCENTILES,
    series: str = "series",
) -> BootstrapFit:
    """Bootstrap the forecast of a free-asymptote law over its optima (methods, section 4).

    ``compute`` (FLOPs) and ``loss``: [n]. Monte Carlo: ``draws`` (1000) come from NumPy's generator with ``seed`` (0),
    or from ``indices`` [draws, n], or from a JAX random ``key``. Exact: all C(2n-1, n) distinct resamples, each with
    its probability; there is no Monte-Carlo error, and nothing to choose (Efron and Tibshirani 1993, section 6.6).
    Draws with fewer than three distinct budgets, and draws whose fit fails, are skipped and counted. Intervals are NaN
    where all other draws give one and the same law, and BEYOND_DRAWS where Monte Carlo left fewer of them than
    :func:`~delphi_jax.quantiles.least_draws`. Raises ValueError for arrays that do not match, no draw, indices
    out of range, arguments that the method does not take, and for more resamples than memory holds.

    Examples:

    >>> import numpy as np
    >>> import delphi_jax as dj
    >>> compute = np.logspace(18, 20, 7)
    >>> loss = 2 + 1000 * compute**-0.2
    >>> fit = dj.bootstrap_law(compute, loss, [1e21], draws=100)
    >>> round(fit.intervals[0].low, 2), round(fit.intervals[0].high, 2)  # 2.06, but for the grid of asymptotes
    (2.06, 2.07)
    """
    arrays = checked_series(series, compute, loss)
    n = len(arrays[0])
    if n == 0:
        raise ValueError(f"{series}: no points to resample")
    log_compute, mask = (field[0] for field in pad([np.log(arrays[0])]))
    losses = pad([arrays[1]])[0][0]
    targets = np.asarray(delphi().targets if targets is None else targets, dtype=np.float64)
    grid = asymptote_grid(losses, n_grid)
    if method == "exact":
        refuse_draws(series, draws=draws, seed=seed, indices=indices, key=key)
        _check_memory(series, n, len(targets))
        counts, place = resample_counts(n), slice(None)
        weights = resample_probabilities(counts)
    elif method == "monte-carlo":
        counts = _drawn_counts(series, n, len(mask), draws, seed, indices, key)
        weights = np.full(len(counts), 1 / len(counts))
        counts, place = _distinct(n, counts)
    else:
        raise ValueError(f"{series}: method must be 'monte-carlo' or 'exact', got {method!r}")
    fits = _fit_counts(log_compute, losses, mask, counts, grid)
    forecasts = law_loss(targets, fits.L_inf[:, None], fits.A[:, None], fits.alpha[:, None])
    fits, forecasts = BootstrapDraws(*(field[place] for field in fits)), forecasts[place]
    fitted = fits.status == Status.FITTED
    drawn = method == "monte-carlo"
    status = Status.TOO_FEW_POINTS if one_law(forecasts[fitted]) else Status(int(np.min(fits.status)))
    if drawn and status is Status.FITTED and not enough_draws(int(fitted.sum()), percentiles):
        status = Status.BEYOND_DRAWS
    return BootstrapFit(
        series=series,
        targets=targets,
        status=status,
        draw_status=fits.status,
        L_inf=fits.L_inf,
        A=fits.A,
        alpha=fits.alpha,
        score=fits.score,
        forecasts=forecasts,
        intervals=_intervals(status, forecasts[fitted], None if drawn else weights[fitted], percentiles),
        percentiles=percentiles,
        n_grid=n_grid,
        seed=(0 if seed is None else seed) if drawn and indices is None and key is None else None,
        method=method,
        weights=weights,
    )


def _intervals(
    status: Status, forecasts: Floats, weights: Floats | None, percentiles: tuple[float, float, float]
) -> tuple[Interval, ...]:
    """[Q] of the fitted ``forecasts`` [R, Q], by their ``weights`` [R] where not None; NaN unless all is FITTED."""
    if status is not Status.FITTED:
        return tuple(Interval(np.nan, np.nan, np.nan) for _ in range(forecasts.shape[1]))
    if weights is None:
        bands = np.percentile(forecasts, percentiles, axis=0)
    else:
        bands = weighted_percentiles(forecasts, weights, percentiles)
    return tuple(Interval(*map(float, band)) for band in bands.T)


def one_law(forecasts: Floats) -> bool:
    """Whether all of one or more ``forecasts`` [R, Q] are the same, so that they tell no interval."""
    return len(forecasts) > 0 and bool(np.all(forecasts == forecasts[0]))


def enough_draws(fitted: int, percentiles: Sequence[float]) -> bool:
    """Whether so many ``fitted`` draws tell the outer ``percentiles``; their own extremes any number does."""
    tail = min(percentiles[0], 100 - percentiles[-1]) / 100
    return tail <= 0 or fitted >= least_draws(1 - 2 * tail)


def refuse_draws(series: str, **given: object) -> None:
    """Raise ValueError for what is ``given`` (not None) to an exact bootstrap, which draws nothing."""
    if names := [name for name, value in given.items() if value is not None]:
        raise ValueError(f"{series}: the exact bootstrap takes every resample once, so no {', '.join(names)}")


def prepare_bootstrap(n: int, draws: int, *, n_grid: int = BOOTSTRAP_GRID) -> None:
    """Get the program of :func:`bootstrap_law` ready for ``n`` points."""
    values, mask = pad([np.empty(n)])
    width = mask.shape[1]
    counts = np.empty((min(draws, n_resamples(n)), width))
    bootstrap_laws.prepare(values[0], values[0], mask[0], counts, np.empty((width, n_grid)))


def _drawn_counts(
    series: str,
    n: int,
    width: int,
    draws: int | None,
    seed: int | None,
    indices: ArrayLike | None,
    key: jax.Array | None,
) -> ArrayLike:
    """Counts [R, width] of the Monte-Carlo draws."""
    draws = _DRAWS if draws is None else draws
    if (draws if indices is None else len(np.atleast_1d(indices))) < 1:
        raise ValueError(f"{series}: the bootstrap needs at least one draw")
    if key is not None:
        return counts_from_key(key, n_draws=draws, n_points=n, n_padded=width)
    drawn = resampling_indices(n, draws, 0 if seed is None else seed) if indices is None else np.asarray(indices)
    integers = drawn.ndim == 2 and drawn.shape[1] == n and np.issubdtype(drawn.dtype, np.integer)
    if not integers or drawn.min() < 0 or drawn.max() >= n:
        raise ValueError(f"indices must be integers in [0, {n}) of shape [draws, {n}], got shape {drawn.shape}")
    return count_indices(drawn, width)


def _distinct(n: int, counts: ArrayLike) -> tuple[ArrayLike, NDArray[np.int64] | slice]:
    """The count vectors to fit, and the place of every draw among them: all that exist where there are more draws."""
    if len(counts) <= n_resamples(n):
        return counts, slice(None)
    return resample_counts(n), resample_ranks(np.asarray(counts)[:, :n])


def _fit_counts(
    log_compute: Floats, losses: Floats, mask: NDArray[np.bool_], counts: ArrayLike, grid: Floats
) -> BootstrapDraws:
    """Laws of ``counts`` [R, n or more]; numbers of draws that were not fitted are NaN."""
    if isinstance(counts, np.ndarray):
        padded = np.zeros((len(counts), len(mask)))
        padded[:, : counts.shape[1]] = counts
        counts = padded
    fits = jax.device_get(bootstrap_laws(log_compute, losses, mask, counts, grid))
    fitted = fits.status == Status.FITTED
    return BootstrapDraws(*(np.where(fitted, field, np.nan) for field in fits[:-1]), fits.status)


def _resample_bytes(n: int, n_targets: int) -> int:
    """Bytes for all resamples of ``n`` points: at most so many numbers of 8 bytes are kept per resample and padded
    point (counts here and on the device), per field of a fit (with copies) and per target (with sorting).
    """
    return n_resamples(n) * (2 * n + 8 * (2 * padded_length([n]) + 16 + 4 * n_targets))


def _check_memory(series: str, n: int, n_targets: int) -> None:
    needed, memory = _resample_bytes(n, n_targets), free_memory()
    if needed <= memory:
        return
    largest = next(size for size in range(n - 1, -1, -1) if size == 0 or _resample_bytes(size, n_targets) <= memory)
    raise ValueError(
        f"{series}: the exact bootstrap of {n} points has {Decimal(n_resamples(n)):.3g} resamples and needs "
        f"{Decimal(needed) / 10**9:.3g} GB of memory, there are {memory / 10**9:.3g} GB: at most {largest} points fit; "
        "use method='monte-carlo'"
    )


def checked_series(name: str, compute: ArrayLike, loss: ArrayLike) -> tuple[Floats, Floats]:
    """``compute`` and ``loss`` as arrays [n]; ValueError where they do not match or are not finite and positive."""
    compute, loss = np.asarray(compute, dtype=np.float64), np.asarray(loss, dtype=np.float64)
    if compute.ndim != 1 or compute.shape != loss.shape:
        raise ValueError(
            f"{name}: compute and loss must be one-dimensional and of one length, got {compute.shape} and {loss.shape}"
        )
    for what, values in (("compute", compute), ("loss", loss)):
        bad = np.flatnonzero(~(np.isfinite(values) & (values > 0)))
        if bad.size:
            raise ValueError(f"{name}: {what}[{bad[0]}] is {values[bad[0]]}, expected a finite positive number")
    return compute, loss


def _padded(arrays: Mapping[str, tuple[Floats, Floats]]) -> tuple[Floats, Floats, NDArray[np.bool_]]:
    log_compute, mask = pad([np.log(compute) for compute, _ in arrays.values()])
    return log_compute, pad([loss for _, loss in arrays.values()])[0], mask


def _smallest(losses: Floats, mask: NDArray[np.bool_]) -> Floats:
    """[B] smallest loss of each series; 0 for an empty one, whose grid then holds nothing that fits."""
    return np.where(mask.any(axis=1), np.min(np.where(mask, losses, np.inf), axis=1), 0.0)


def _settings(method: str, n_grid: int | None, objective: Objective | None, metric: str) -> tuple[int, _How]:
    """The grid's size and how laws are fitted; ValueError for what does not go together."""
    if method not in ("grid", "optimum"):
        raise ValueError(f"method must be 'grid' or 'optimum', got {method!r}")
    objective = objective or Objective()
    if method == "grid" and not objective.of_reference:
        raise ValueError(f"the grid is for the squared error of log(L - L_inf), not {objective.label}: use the optimum")
    if method == "optimum" and n_grid is not None:
        raise ValueError("n_grid is of the grid: the optimum has none")
    return LAW_GRID if n_grid is None else n_grid, _How(method, objective, metric)


def _pinned(
    names: Sequence[str], given: Mapping[str, float | PinnedAsymptote] | PinnedAsymptote, metric: str
) -> Floats:
    """[B] asymptotes of the series ``names``; ValueError where one is missing or of another metric."""
    if isinstance(given, PinnedAsymptote):
        given = dict.fromkeys(names, given)
    if missing := [name for name in names if name not in given]:
        raise ValueError(f"no asymptote given for {missing}")
    for name in names:
        pinned = given[name]
        if isinstance(pinned, PinnedAsymptote) and pinned.metric != metric:
            measured = repr(metric) if metric else "an unnamed metric"
            raise ValueError(
                f"{name}: the asymptote {pinned.value:g} belongs to {pinned.metric!r}, the series to {measured}: "
                "pin one of the same metric"
            )
        if not isinstance(pinned, PinnedAsymptote) and not np.isfinite(pinned):
            raise ValueError(f"{name}: the asymptote must be a finite number, got {pinned}")
    values = (given[name] for name in names)
    return np.array([pinned.value if isinstance(pinned, PinnedAsymptote) else pinned for pinned in values], float)


def _optimal(log_compute: Floats, losses: Floats, mask: NDArray[np.bool_], pinned: Floats, objective: Objective) -> Any:
    """The optimum of every series, fields [B]."""
    weight = mask.astype(np.float64)
    if objective.of_reference:
        return on_all_devices(fit_optimal_laws, OPTIMUM_CHUNK, log_compute, losses, weight, pinned)
    groups = (field[:, None] for field in (log_compute, losses, weight))
    laws = fit_objective_laws(*groups, pinned, objective.delta, huber=objective.huber, of_loss=objective.of_loss)
    return OptimalLaw(*(field[:, 0] for field in jax.device_get(laws)))


def _optima(
    arrays: Mapping[str, tuple[Floats, Floats]], asymptote: str, how: _How, laws: OptimalLaw, pinned: Floats
) -> dict[str, LawFit]:
    results = {}
    for i, (name, (compute, loss)) in enumerate(arrays.items()):
        law = OptimalLaw(*(field[i] for field in laws))
        status = Status(int(law.status)) if len(compute) else Status.NO_DATA
        numbers: dict[str, float] = {"L_inf": float(pinned[i])}
        if status.usable:
            numbers = {
                "L_inf": float(law.L_inf),
                "A": _exp(law.log_A),
                "log_A": float(law.log_A),
                "alpha": float(law.alpha),
                "score": float(law.score),
            }
        results[name] = LawFit(name, asymptote, compute, loss, status, **numbers, **vars(how))
    return results


def _exp(log_A: Floats) -> float:
    """Beyond the largest float it is infinite: forecasts are made from the logarithm."""
    with np.errstate(over="ignore"):
        return float(np.exp(log_A))


def _results(
    arrays: Mapping[str, tuple[Floats, Floats]], asymptote: str, how: _How, laws: PowerLaw
) -> dict[str, LawFit]:
    results = {}
    for i, (name, (compute, loss)) in enumerate(arrays.items()):
        law = PowerLaw(*(field[i] for field in laws))
        status = Status(int(law.status)) if len(compute) else Status.NO_DATA
        given = float(law.L_inf) if asymptote == "pinned" else np.nan
        searched: dict[str, Any] = {"n_grid": len(law.profile), "profile": law.profile, **vars(how)}
        results[name] = LawFit(name, asymptote, compute, loss, status, L_inf=given, **searched)
        if status.usable:
            results[name] = LawFit(
                name,
                asymptote,
                compute,
                loss,
                status,
                L_inf=float(law.L_inf),
                A=float(law.A),
                log_A=float(law.log_A),
                alpha=float(law.alpha),
                score=float(law.score),
                grid_index=int(law.index),
                **searched,
            )
    return results
