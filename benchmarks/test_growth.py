"""How cost grows with draws, series, points and cells; the baseline at sizes that it can do in a moment."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest

from benchmarks import baseline
from benchmarks.floors import Rates, Work, bootstrap, free_laws
from benchmarks.measure import machine
from benchmarks.problems import CELL_TRIALS, budgets, noisy_laws, sweep_cells
from delphi_jax.batch import asymptote_grid, pad
from delphi_jax.fit.law import resampling_indices
from delphi_jax.kernels.bootstrap import bootstrap_laws
from delphi_jax.kernels.power_law import fit_free_laws

# scikit-learn warns where an estimate lies on its bound, as some of these do.
pytestmark = pytest.mark.filterwarnings("ignore")

LAW_GRID, DRAW_GRID = 400, 100
SERIES_OF_POINTS = 20
TARGET = 1e23

SIZES = {
    "draws": ((100, 1000, 10_000), (100_000, 1_000_000)),
    "series": ((100, 1000, 10_000), (100_000,)),
    "points": ((8, 64, 512), (4096,)),
    "cells": ((4, 24, 80), (240, 500)),
}
"""Sizes of ours: at every scale, and at the large scale as well."""
BASELINE_SIZES = {
    "draws": ((10, 100), (1000,)),
    "series": ((2, 20), (200,)),
    "points": ((64, 512), (4096,)),
    "cells": ((1, 4), (24,)),
}
_ROUNDS, _BASELINE_ROUNDS = 5, 2

Run = tuple[Callable[[], Any], str, Work | None]
"""What to time, its size in words, and its floor."""


def _both_scales(sizes: dict[str, tuple[tuple[int, ...], tuple[int, ...]]]) -> list[Any]:
    return [
        pytest.param(axis, size, marks=[pytest.mark.large] if size in large else [])
        for axis, (small, large) in sizes.items()
        for size in (*small, *large)
    ]


@pytest.mark.parametrize(("axis", "size"), _both_scales(SIZES))
def test_ours(benchmark: Any, rates: Rates, axis: str, size: int) -> None:
    work, words, floor = _OURS[axis](size)
    result = benchmark.pedantic(lambda: jax.block_until_ready(work()), rounds=_ROUNDS, warmup_rounds=1)
    _record(benchmark, axis, "ours", size, words)
    benchmark.extra_info["failures"] = _nans(result)
    if floor is not None:
        benchmark.extra_info["floor_seconds"] = floor.seconds(rates)


@pytest.mark.parametrize(("axis", "size"), _both_scales(BASELINE_SIZES))
def test_baseline(benchmark: Any, axis: str, size: int) -> None:
    work, words, _ = _BASELINE[axis](size)
    benchmark.pedantic(work, rounds=_BASELINE_ROUNDS, warmup_rounds=0)
    _record(benchmark, axis, "baseline", size, words)


def _nans(result: Any) -> int:
    return int(sum(np.sum(np.isnan(leaf)) for leaf in jax.tree.leaves(jax.device_get(result))))


def _record(benchmark: Any, axis: str, side: str, amount: int, words: str) -> None:
    benchmark.group = f"growth with {axis}"
    benchmark.extra_info.update(
        kind="growth",
        name=f"growth with {axis}, {side}",
        size=words,
        axis=axis,
        side=side,
        amount=amount,
        machine=machine(),
    )


def _draws(n: int) -> Run:
    compute, loss = budgets(), noisy_laws(np.random.default_rng(2), 1)[0]
    log_compute, mask = (rows[0] for rows in pad([np.log(compute)]))
    padded = pad([loss])[0][0]
    indices = resampling_indices(len(loss), n, seed=0)
    counts = np.sum(indices[:, :, None] == np.arange(len(mask)), axis=1, dtype=np.float64)
    grid = asymptote_grid(padded, DRAW_GRID)
    words = f"{n} draws of {len(loss)}, {DRAW_GRID} asymptotes"
    return (
        lambda: bootstrap_laws(log_compute, padded, mask, counts, grid),
        words,
        bootstrap(n, len(loss), DRAW_GRID),
    )


def _baseline_draws(n: int) -> Run:
    loss = noisy_laws(np.random.default_rng(2), 1)[0]
    indices = resampling_indices(len(loss), n, seed=0)
    words = f"{n} draws of {len(loss)}, {DRAW_GRID} asymptotes"
    return lambda: baseline.bootstrap(budgets(), loss, [TARGET], indices, DRAW_GRID), words, None


def _laws(n: int, n_points: int) -> Run:
    losses = noisy_laws(np.random.default_rng(1), n, n_points)
    padded, mask = pad(list(losses))
    log_compute = pad([np.log(budgets(n_points))] * n)[0]
    grid = asymptote_grid(losses.min(axis=1), LAW_GRID)
    return (
        lambda: fit_free_laws(log_compute, padded, mask, grid),
        f"{n} series of {n_points}, {LAW_GRID} asymptotes",
        free_laws(n, n_points, LAW_GRID),
    )


def _baseline_laws(n: int, n_points: int) -> Run:
    losses, compute = noisy_laws(np.random.default_rng(1), n, n_points), budgets(n_points)
    words = f"{n} series of {n_points}, {LAW_GRID} asymptotes"
    return lambda: [baseline.fit_free(compute, loss, LAW_GRID) for loss in losses], words, None


def _cells(n: int) -> Run:
    # No floor: the evaluations of the processes are not counted here.
    return sweep_cells(np.random.default_rng(7), n).fitter(), f"{n} cells of {CELL_TRIALS}", None


def _baseline_cells(n: int) -> Run:
    cells = sweep_cells(np.random.default_rng(7), n)

    def work() -> None:
        for X, y, values in zip(cells.features, cells.loss, cells.values, strict=True):
            process = baseline.fit_process(X, y)
            for j, column in enumerate(values):
                baseline.partial_dependence(process, X, j, column)

    return work, f"{n} cells of {CELL_TRIALS}", None


_OURS: dict[str, Callable[[int], Run]] = {
    "draws": _draws,
    "series": lambda n: _laws(n, 7),
    "points": lambda n: _laws(SERIES_OF_POINTS, n),
    "cells": _cells,
}
_BASELINE: dict[str, Callable[[int], Run]] = {
    "draws": _baseline_draws,
    "series": lambda n: _baseline_laws(n, 7),
    "points": lambda n: _baseline_laws(SERIES_OF_POINTS, n),
    "cells": _baseline_cells,
}
