"""Gaussian processes and partial dependence of the hyper-parameter sweep, all cells at once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from delphi_jax.batch import padded_length
from delphi_jax.fit.leave_one_out import Accuracy, accuracy, leave_one_out
from delphi_jax.heuristics import Cell, SweepDesign
from delphi_jax.kernels.ard import CHUNK as ARD_CHUNK
from delphi_jax.kernels.ard import fit_ard_processes
from delphi_jax.kernels.chunks import on_all_devices, prepare_on_all_devices
from delphi_jax.kernels.dependence import Dependence, ard_dependence, partial_dependence
from delphi_jax.kernels.process import CHUNK, JITTER, Process, fit_processes
from delphi_jax.labels import ARD, BROAD, LIKELIEST, PROCESSES
from delphi_jax.results import CellFit, Floats, LeaveOneOut, PartialDependence, SweepFit
from delphi_jax.status import Status
from delphi_jax.tables import Skipped, SweepTable

__all__ = ["fit_sweep"]

_TRIM_PERCENTILE = 95.0
_GRID_POINTS = 80
_SAME_MODE = 1e-4
"""Log likelihoods closer than this are taken for the same mode."""
_LENGTH_BOUND, _NOISE_BOUND = {-1: "shortest", 1: "no effect seen"}, {-1: "lowest", 1: "highest"}
"""What the lower and the upper bound of a length scale and of the noise mean."""


def fit_sweep(sweep: SweepTable, *, process: str = BROAD) -> SweepFit:
    """Fit the process of every (batch size, hidden dim, token horizon) cell (methods, section 8).

    ``process`` is one of :data:`~delphi_jax.labels.PROCESSES`. With "broad" the curves are those of the reference's
    process in the likelihood's broad mode, which the reference's starts reach; where a mode that runs through nearly
    every trial is likelier, ``CellFit.interpolating_gain`` says so, and "likeliest" follows it. With "ard" they are
    those of a process with a level, an amplitude and one length scale per hyper-parameter
    (:mod:`delphi_jax.kernels.ard`), whose band leaves the noise out. How well each process predicts left-out trials
    stands in ``CellFit.leave_one_out``; with "ard" that of the broad mode beside it.

    Hyper-parameters enter on the scales of the design's transforms. Trials of other cells than the design's are
    counted in ``SweepFit.skipped``. A cell without trials has status NO_DATA, one with fewer than three ("ard": four
    more than hyper-parameters) TOO_FEW_POINTS, one of equal losses with "ard" NO_SPREAD.
    Raises ValueError for an unknown process.

    Examples:

    >>> import delphi_jax as dj
    >>> fit = dj.fit_sweep(dj.load_study("data", tables=["sweep"]).sweep)
    >>> len(fit.cells), [cell.status.label for cell in fit.cells].count("no data")
    (24, 1)
    """
    if process not in PROCESSES:
        raise ValueError(f"unknown process {process!r}, expected one of {list(PROCESSES)}")
    batch = _batch(sweep)
    fits = _fit_ard(batch) if process == ARD else _fit_reference(batch, process)
    cells = tuple(_cell(batch, i, process, fits) for i in range(len(batch.keys)))
    outside = np.setdiff1d(np.arange(len(sweep)), np.concatenate(batch.rows))
    skipped = ()
    if outside.size:
        reason = "batch size, hidden dim or token horizon is not one of the sweep's cells"
        skipped = (Skipped(sweep.design.table, reason, tuple(f"trial {row}" for row in outside.tolist())),)
    return SweepFit(sweep.design, cells, skipped, process)


class _Batch(NamedTuple):
    """B cells: ragged, and standardised and padded to N trials."""

    design: SweepDesign
    keys: tuple[Cell, ...]
    rows: list[NDArray[np.intp]]
    """Trials of each cell in the table."""
    caps: list[float]
    features: list[Floats]
    losses: list[Floats]
    """Of the trials kept."""
    points: list[Floats]
    """[F] of the heuristic; NaN for a hyper-parameter without one."""
    standard: Floats
    """[B, N, F]"""
    loss: Floats
    """[B, N]"""
    mask: NDArray[np.bool_]
    grids: Floats
    """[B, F, G + 1] standardised values of the partial dependence, the heuristic's own at the end."""
    means: Floats
    scales: Floats


class _Fits(NamedTuple):
    """Processes of B cells."""

    status: NDArray[np.int_]
    numbers: list[dict[str, Any]]
    """Fields of each :class:`~delphi_jax.results.CellFit`."""
    dependence: Dependence
    accuracies: dict[str, Accuracy]


def _batch(sweep: SweepTable) -> _Batch:
    design, keys = sweep.design, sweep.design.cells
    features = design.forward(sweep.features)
    rows = [
        np.flatnonzero((sweep.batch_size == batch) & (sweep.hidden_dim == hidden) & (sweep.horizon == horizon))
        for batch, hidden, horizon in keys
    ]
    caps = [float(np.percentile(sweep.loss[cell], _TRIM_PERCENTILE)) if cell.size else np.nan for cell in rows]
    kept = [cell[sweep.loss[cell] <= cap] for cell, cap in zip(rows, caps, strict=True)]
    points = [design.forward(design.heuristic_point(cell)) for cell in keys]

    (n_cells, n_features), width = (len(keys), len(design.keys)), padded_length([len(cell) for cell in kept])
    standard = np.zeros((n_cells, width, n_features))
    loss, mask = np.zeros((n_cells, width)), np.zeros((n_cells, width), dtype=bool)
    grids = np.zeros((n_cells, n_features, _GRID_POINTS + 1))
    means, scales = np.zeros((n_cells, n_features)), np.ones((n_cells, n_features))
    for i, (cell, point) in enumerate(zip(kept, points, strict=True)):
        if cell.size:
            means[i], spread = features[cell].mean(axis=0), features[cell].std(axis=0)
            scales[i] = np.where(spread > 0, spread, 1.0)
            own = (features[cell] - means[i]) / scales[i]
            standard[i, : cell.size], loss[i, : cell.size], mask[i, : cell.size] = own, sweep.loss[cell], True
            # Where there is no heuristic, the mean stands in: it widens nothing, and what is found there is not used.
            heuristic = np.where(np.isnan(point), 0.0, (point - means[i]) / scales[i])
            low, high = np.minimum(own.min(axis=0), heuristic), np.maximum(own.max(axis=0), heuristic)
            # The heuristic's own value rides along as one more grid value.
            grids[i] = np.column_stack([np.linspace(low, high, _GRID_POINTS, axis=1), heuristic])
    own_features, own_losses = [features[cell] for cell in kept], [sweep.loss[cell] for cell in kept]
    return _Batch(
        design, keys, rows, caps, own_features, own_losses, points, standard, loss, mask, grids, means, scales
    )


def _fit_reference(batch: _Batch, process: str) -> _Fits:
    trials = (batch.standard, batch.loss, batch.mask)
    parameters = (np.empty(len(batch.keys)), np.empty(len(batch.keys)))
    with ThreadPoolExecutor(1) as pool:
        ready = pool.submit(prepare_on_all_devices, partial_dependence, CHUNK, *trials, *parameters, batch.grids)
        fits = on_all_devices(fit_processes, CHUNK, *trials, np.asarray(process == LIKELIEST))
        ready.result()
    dependence = on_all_devices(partial_dependence, CHUNK, *trials, fits.length_scale, fits.noise, batch.grids)
    numbers = [
        {
            "length_scale": float(length_scale),
            "length_scales": np.full(len(batch.design.keys), length_scale),
            "amplitude": 1.0,
            "mean": 0.0,
            "noise": float(noise),
            "log_likelihood": float(value),
            "bounds_hit": tuple(name for name, hit in zip(("length scale", "noise"), on_bound, strict=True) if hit),
            "interpolating_gain": float(gain) if gain > _SAME_MODE else 0.0,
        }
        for length_scale, noise, value, on_bound, gain in zip(
            fits.length_scale,
            fits.noise,
            fits.log_likelihood,
            fits.on_bound,
            fits.interpolating_log_likelihood - fits.log_likelihood,
            strict=True,
        )
    ]
    return _Fits(fits.status, numbers, dependence, {process: _reference_accuracy(batch, fits)})


def _fit_ard(batch: _Batch) -> _Fits:
    trials = (batch.standard, batch.loss, batch.mask)
    n_cells = len(batch.keys)
    names = batch.design.keys
    bound_words = [_LENGTH_BOUND] * len(names) + [_NOISE_BOUND]
    parameters = (np.ones((n_cells, len(names))), *np.ones((3, n_cells)))
    with ThreadPoolExecutor(2) as pool:
        made = [
            pool.submit(prepare_on_all_devices, fit_processes, CHUNK, *trials, np.asarray(False)),
            pool.submit(prepare_on_all_devices, ard_dependence, CHUNK, *trials, *parameters, batch.grids),
        ]
        fits = on_all_devices(fit_ard_processes, ARD_CHUNK, *trials)
        for program in made:
            program.result()
    reference = on_all_devices(fit_processes, CHUNK, *trials, np.asarray(False))
    parameters = (fits.length_scales, fits.mean, fits.amplitude, fits.noise)
    dependence = on_all_devices(ard_dependence, CHUNK, *trials, *parameters, batch.grids)
    numbers = [
        {
            "length_scales": length_scales,
            "amplitude": float(amplitude),
            "mean": float(mean),
            "noise": float(noise),
            "log_likelihood": float(value),
            "bounds_hit": tuple(
                f"{name} ({words[side]})"
                for name, words, side in zip((*names, "noise"), bound_words, bound.tolist(), strict=True)
                if side
            ),
        }
        for length_scales, mean, amplitude, noise, value, bound in zip(
            *parameters, fits.log_likelihood, fits.bound, strict=True
        )
    ]
    own = _accuracy(batch, fits.status, fits.length_scales, fits.amplitude, fits.noise, level_known=False)
    return _Fits(fits.status, numbers, dependence, {ARD: own, BROAD: _reference_accuracy(batch, reference)})


def _reference_accuracy(batch: _Batch, fits: Process) -> Accuracy:
    amplitude, noise = np.ones(len(batch.keys)), fits.noise + JITTER
    return _accuracy(batch, fits.status, fits.length_scale[:, None], amplitude, noise, level_known=True)


def _accuracy(
    batch: _Batch,
    status: NDArray[np.int_],
    length_scales: Floats,
    amplitude: Floats,
    noise: Floats,
    *,
    level_known: bool,
) -> Accuracy:
    """Of processes with ``length_scales`` [B, F] or [B, 1]; NaN for one that was not fitted."""
    usable = np.array([Status(code).usable for code in status.tolist()])
    mask = batch.mask & usable[:, None]
    amplitude, noise = np.where(usable, amplitude, 1.0), np.where(usable, noise, 1.0)
    scaled = batch.standard / np.where(usable[:, None], length_scales, 1.0)[:, None]
    left_out = leave_one_out(scaled, batch.loss, mask, amplitude, noise, level_known=level_known)
    return accuracy(left_out, batch.loss, mask)


def _cell(batch: _Batch, i: int, process: str, fits: _Fits) -> CellFit:
    """Cell ``i`` of ``batch``."""
    n_finished, features, point = batch.rows[i].size, batch.features[i], batch.points[i]
    status = Status(int(fits.status[i])) if n_finished else Status.NO_DATA
    known = (batch.design, *batch.keys[i], status, n_finished, batch.caps[i], features, batch.losses[i])
    if not status.usable:
        return CellFit(*known, process=process, length_scales=np.full(len(point), np.nan))
    low, high = features.min(axis=0), features.max(axis=0)
    mean, sd = (field[i] for field in fits.dependence)
    grid = batch.grids[i, :, :_GRID_POINTS] * batch.scales[i][:, None] + batch.means[i][:, None]
    return CellFit(
        *known,
        dependence=tuple(
            PartialDependence(
                grid=grid[j],
                mean=mean[j, :_GRID_POINTS],
                sd=sd[j, :_GRID_POINTS],
                heuristic=float(point[j]),
                heuristic_mean=float(np.where(np.isnan(point[j]), np.nan, mean[j, _GRID_POINTS])),
                heuristic_in_support=bool(low[j] <= point[j] <= high[j]),
            )
            for j in range(len(point))
        ),
        process=process,
        leave_one_out={
            name: LeaveOneOut(float(found.r2[i]), float(found.log_density[i]))
            for name, found in fits.accuracies.items()
            if np.isfinite(found.log_density[i])
        },
        **fits.numbers[i],
    )
