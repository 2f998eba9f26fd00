"""Gaussian processes and partial dependence of the hyper-parameter sweep, all cells at once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import product

import numpy as np

from delphi_jax.batch import padded_length
from delphi_jax.heuristics import BATCH_SIZES, FEATURES, HIDDEN_DIMS, HORIZONS, heuristic_point
from delphi_jax.kernels.chunks import on_all_devices, prepare_on_all_devices
from delphi_jax.kernels.dependence import Dependence, partial_dependence
from delphi_jax.kernels.process import CHUNK, Process, fit_processes
from delphi_jax.results import CellFit, Floats, PartialDependence, SweepFit
from delphi_jax.status import Status
from delphi_jax.tables import Skipped, SweepTable

__all__ = ["fit_sweep", "log_features"]

_TRIM_PERCENTILE = 95.0
_LEAST = 1e-20
"""Values are floored here before the logarithm."""
_GRID_POINTS = 80
_SAME_MODE = 1e-4
"""Log likelihoods closer than this are taken for the same mode."""


def log_features(values: dict[str, Floats]) -> Floats:
    """Hyper-parameters by name, each [n], as the features of the process [n, 5]: log x, and log(1 - beta)."""
    columns = [1.0 - values[name] if name.startswith("beta") else values[name] for name in FEATURES]
    return np.log(np.maximum(np.stack([np.asarray(column, dtype=np.float64) for column in columns], axis=-1), _LEAST))


def fit_sweep(sweep: SweepTable, *, likeliest: bool = False) -> SweepFit:
    """Fit the process of every (batch size, hidden dim, token horizon) cell (methods, section 8).

    The curves are those of the likelihood's broad mode, which the reference's starts reach; where a mode that runs
    through nearly every trial is likelier, ``CellFit.interpolating_gain`` says so, and ``likeliest`` follows it.

    Trials of other cells than the canonical ones are counted in ``SweepFit.skipped``. A cell without trials has
    status NO_DATA, one with fewer than three TOO_FEW_POINTS.
    """
    keys = list(product(BATCH_SIZES, HIDDEN_DIMS, (horizon.key for horizon in HORIZONS)))
    features = log_features({name: getattr(sweep, name) for name in FEATURES})
    rows = [
        np.flatnonzero((sweep.batch_size == batch) & (sweep.hidden_dim == hidden) & (sweep.horizon == horizon))
        for batch, hidden, horizon in keys
    ]
    caps = [float(np.percentile(sweep.loss[cell], _TRIM_PERCENTILE)) if cell.size else np.nan for cell in rows]
    kept = [cell[sweep.loss[cell] <= cap] for cell, cap in zip(rows, caps, strict=True)]
    tokens = {horizon.key: horizon.nominal_tokens for horizon in HORIZONS}
    points = [
        log_features({name: np.float64(v) for name, v in heuristic_point(batch, tokens[horizon]).items()})
        for batch, _, horizon in keys
    ]

    n_cells, width = len(keys), padded_length([len(cell) for cell in kept])
    standard = np.zeros((n_cells, width, len(FEATURES)))
    loss, mask = np.zeros((n_cells, width)), np.zeros((n_cells, width), dtype=bool)
    grids = np.zeros((n_cells, len(FEATURES), _GRID_POINTS + 1))
    means, scales = np.zeros((n_cells, len(FEATURES))), np.ones((n_cells, len(FEATURES)))
    for i, (cell, point) in enumerate(zip(kept, points, strict=True)):
        if cell.size:
            means[i], spread = features[cell].mean(axis=0), features[cell].std(axis=0)
            scales[i] = np.where(spread > 0, spread, 1.0)
            own = (features[cell] - means[i]) / scales[i]
            standard[i, : cell.size], loss[i, : cell.size], mask[i, : cell.size] = own, sweep.loss[cell], True
            heuristic = (point - means[i]) / scales[i]
            low, high = np.minimum(own.min(axis=0), heuristic), np.maximum(own.max(axis=0), heuristic)
            # The heuristic's own value rides along as one more grid value.
            grids[i] = np.column_stack([np.linspace(low, high, _GRID_POINTS, axis=1), heuristic])

    parameters = (np.empty(n_cells), np.empty(n_cells))
    with ThreadPoolExecutor(1) as pool:
        ready = pool.submit(prepare_on_all_devices, partial_dependence, CHUNK, standard, loss, mask, *parameters, grids)
        processes = on_all_devices(fit_processes, CHUNK, standard, loss, mask, np.asarray(likeliest))
        ready.result()
    parameters = (processes.length_scale, processes.noise)
    dependence = on_all_devices(partial_dependence, CHUNK, standard, loss, mask, *parameters, grids)
    cells = [
        _cell(
            key,
            features[kept[i]],
            sweep.loss[kept[i]],
            rows[i].size,
            caps[i],
            points[i],
            Process(*(field[i] for field in processes)),
            Dependence(*(field[i] for field in dependence)),
            grids[i, :, :_GRID_POINTS] * scales[i][:, None] + means[i][:, None],
        )
        for i, key in enumerate(keys)
    ]
    outside = np.setdiff1d(np.arange(len(sweep)), np.concatenate(rows))
    skipped = ()
    if outside.size:
        reason = "batch size or hidden dim is not one of the sweep's cells"
        skipped = (Skipped("hparam_sweep", reason, tuple(f"trial {row}" for row in outside.tolist())),)
    return SweepFit(tuple(cells), skipped)


def _cell(
    key: tuple[int, int, str],
    features: Floats,
    loss: Floats,
    n_finished: int,
    cap: float,
    point: Floats,
    process: Process,
    dependence: Dependence,
    grid: Floats,
) -> CellFit:
    status = Status(int(process.status)) if n_finished else Status.NO_DATA
    if not status.usable:
        return CellFit(*key, status, n_finished, cap, features, loss)
    low, high = features.min(axis=0), features.max(axis=0)
    higher = process.interpolating_log_likelihood > process.log_likelihood + _SAME_MODE
    return CellFit(
        *key,
        status,
        n_finished,
        cap,
        features,
        loss,
        length_scale=float(process.length_scale),
        noise=float(process.noise),
        log_likelihood=float(process.log_likelihood),
        bounds_hit=tuple(name for name, hit in zip(("length scale", "noise"), process.on_bound, strict=True) if hit),
        dependence=tuple(
            PartialDependence(
                grid=grid[j],
                mean=dependence.mean[j, :_GRID_POINTS],
                sd=dependence.sd[j, :_GRID_POINTS],
                heuristic=float(point[j]),
                heuristic_mean=float(dependence.mean[j, _GRID_POINTS]),
                heuristic_in_support=bool(low[j] <= point[j] <= high[j]),
            )
            for j in range(len(FEATURES))
        ),
        interpolating_gain=float(process.interpolating_log_likelihood - process.log_likelihood) if higher else 0.0,
    )
