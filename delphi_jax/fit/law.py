"""Asymptotic power laws of series of (compute, loss), and their bootstrap."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import jax
import numpy as np
from numpy.typing import ArrayLike, NDArray

from delphi_jax.batch import asymptote_grid, pad
from delphi_jax.formulas import law_loss
from delphi_jax.kernels.bootstrap import bootstrap_laws, counts_from_key
from delphi_jax.kernels.power_law import PowerLaw, fit_free_laws, fit_pinned_laws, fit_shared_law
from delphi_jax.results import BootstrapFit, Floats, Interval, LawFit
from delphi_jax.status import Status

__all__ = ["TARGETS", "bootstrap_law", "fit_law", "fit_laws", "fit_shared_laws", "resampling_indices"]

TARGETS = (1e21, 1e22, 1e23)
"""Budgets of the forecasts, FLOPs."""

_BOOTSTRAP_GRID = 100
_LAW_GRID = 400

Series = Mapping[str, tuple[ArrayLike, ArrayLike]]


def fit_law(
    compute: ArrayLike,
    loss: ArrayLike,
    *,
    L_inf: float | None = None,
    n_grid: int = _LAW_GRID,
    series: str = "series",
) -> LawFit:
    """Fit L(C) = L_inf + A*C**-alpha to one series (methods, section 3).

    ``compute`` in FLOPs and ``loss``: [n], finite and positive. The asymptote is free, on a grid of ``n_grid``
    values, or pinned to ``L_inf``. Raises ValueError for arrays that do not match or are not positive.
    """
    return fit_laws({series: (compute, loss)}, L_inf=None if L_inf is None else {series: L_inf}, n_grid=n_grid)[series]


def fit_laws(series: Series, *, L_inf: Mapping[str, float] | None = None, n_grid: int = _LAW_GRID) -> dict[str, LawFit]:
    """Fit many series at once, each with its own asymptote; arguments as in :func:`fit_law`, by series name."""
    arrays = {name: _checked(name, compute, loss) for name, (compute, loss) in series.items()}
    if not arrays:
        return {}
    log_compute, losses, mask = _padded(arrays)
    if L_inf is None:
        grid = asymptote_grid(_smallest(losses, mask), n_grid)
        laws = fit_free_laws(log_compute, losses, mask, grid)
        return _results(arrays, "free", jax.device_get(laws))
    if missing := [name for name in arrays if name not in L_inf]:
        raise ValueError(f"no asymptote given for {missing}")
    pinned = np.array([L_inf[name] for name in arrays], dtype=np.float64)
    return _results(arrays, "pinned", jax.device_get(fit_pinned_laws(log_compute, losses, mask, pinned)))


def fit_shared_laws(series: Series, *, n_grid: int = _LAW_GRID) -> dict[str, LawFit]:
    """Fit several series with one asymptote for all of them (methods, section 3)."""
    arrays = {name: _checked(name, compute, loss) for name, (compute, loss) in series.items()}
    if not arrays:
        return {}
    log_compute, losses, mask = _padded(arrays)
    grid = asymptote_grid(np.min(losses, where=mask, initial=np.inf) if mask.any() else 0.0, n_grid)
    return _results(arrays, "shared", jax.device_get(fit_shared_law(log_compute, losses, mask, grid)))


def resampling_indices(n: int, draws: int, seed: int) -> NDArray[np.int64]:
    """The reference's resampling indices [draws, n]: one generator, draw after draw."""
    return np.random.default_rng(seed).integers(0, n, size=(draws, n))


def bootstrap_law(
    compute: ArrayLike,
    loss: ArrayLike,
    targets: Sequence[float] = TARGETS,
    *,
    draws: int = 1000,
    seed: int = 0,
    indices: ArrayLike | None = None,
    key: jax.Array | None = None,
    n_grid: int = _BOOTSTRAP_GRID,
    percentiles: tuple[float, float, float] = (2.5, 50.0, 97.5),
    series: str = "series",
) -> BootstrapFit:
    """Bootstrap the forecast of a free-asymptote law over its optima (methods, section 4).

    ``compute`` (FLOPs) and ``loss``: [n]. Draws come from NumPy's generator with ``seed``, or from ``indices``
    [draws, n], or from a JAX random ``key``. Draws with fewer than three distinct budgets, and draws whose fit
    fails, are skipped and counted. Raises ValueError for arrays that do not match, no draw, or indices out of range.
    """
    arrays = _checked(series, compute, loss)
    n = len(arrays[0])
    if n == 0:
        raise ValueError(f"{series}: no points to resample")
    if (draws if indices is None else len(np.atleast_1d(indices))) < 1:
        raise ValueError(f"{series}: the bootstrap needs at least one draw")
    log_compute, mask = (field[0] for field in pad([np.log(arrays[0])]))
    losses = pad([arrays[1]])[0][0]
    targets = np.asarray(targets, dtype=np.float64)
    if key is not None:
        counts = counts_from_key(key, n_draws=draws, n_points=n, n_padded=len(mask))
        seed_used = None
    else:
        drawn = resampling_indices(n, draws, seed) if indices is None else np.asarray(indices)
        integers = drawn.ndim == 2 and drawn.shape[1] == n and np.issubdtype(drawn.dtype, np.integer)
        if not integers or np.any((drawn < 0) | (drawn >= n)):
            raise ValueError(f"indices must be integers in [0, {n}) of shape [draws, {n}], got shape {drawn.shape}")
        counts = np.sum(drawn[:, :, None] == np.arange(len(mask)), axis=1, dtype=np.float64)
        seed_used = seed if indices is None else None
    fits = jax.device_get(bootstrap_laws(log_compute, losses, mask, counts, asymptote_grid(losses, n_grid)))
    fitted = fits.status == Status.FITTED
    L_inf, A, alpha, score = (np.where(fitted, field, np.nan) for field in fits[:4])
    forecasts = law_loss(targets, L_inf[:, None], A[:, None], alpha[:, None])
    enough = bool(np.any(fitted))
    bands = np.percentile(forecasts[fitted], percentiles, axis=0).T if enough else np.full((len(targets), 3), np.nan)
    return BootstrapFit(
        series=series,
        targets=targets,
        status=Status(int(np.min(fits.status))),
        draw_status=fits.status,
        L_inf=L_inf,
        A=A,
        alpha=alpha,
        score=score,
        forecasts=forecasts,
        intervals=tuple(Interval(*map(float, band)) for band in bands),
        percentiles=percentiles,
        n_grid=n_grid,
        seed=seed_used,
    )


def _checked(name: str, compute: ArrayLike, loss: ArrayLike) -> tuple[Floats, Floats]:
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


def _results(arrays: Mapping[str, tuple[Floats, Floats]], asymptote: str, laws: PowerLaw) -> dict[str, LawFit]:
    results = {}
    for i, (name, (compute, loss)) in enumerate(arrays.items()):
        law = PowerLaw(*(field[i] for field in laws))
        status = Status(int(law.status)) if len(compute) else Status.NO_DATA
        given = float(law.L_inf) if asymptote == "pinned" else np.nan
        results[name] = LawFit(
            name, asymptote, compute, loss, status, L_inf=given, n_grid=len(law.profile), profile=law.profile
        )
        if status.usable:
            results[name] = LawFit(
                name,
                asymptote,
                compute,
                loss,
                status,
                L_inf=float(law.L_inf),
                A=float(law.A),
                alpha=float(law.alpha),
                score=float(law.score),
                grid_index=int(law.index),
                n_grid=len(law.profile),
                profile=law.profile,
            )
    return results
