"""Studies of a size that takes seconds to minutes, each in a process of its own: ``python -m benchmarks.studies NAME``.

Prints one JSON object: sizes, seconds of the first call and of the rounds after it, the most memory that the process
held before and after (and the device's own, where it tells), the objective, and failures. Without NAME, the names.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from benchmarks.floors import Work, attainable, bootstrap, free_laws
from benchmarks.measure import machine, peak_memory, timed
from benchmarks.problems import CELL_TRIALS, budgets, noisy_laws, richards_curves, sweep_cells
from delphi_jax.batch import asymptote_grid, pad
from delphi_jax.fit.downstream import RichardsProblem, fit_richards_curves
from delphi_jax.fit.law import bootstrap_law
from delphi_jax.fit.stream import bootstrap_study
from delphi_jax.kernels.bootstrap import bootstrap_laws, counts_from_key
from delphi_jax.kernels.power_law import fit_free_laws
from delphi_jax.status import Status

__all__ = ["STUDIES", "Study", "main"]

LAW_GRID, DRAW_GRID = 400, 100
TARGET = 1e23
_LONG = 60.0
"""Seconds of a first call after which one more round has to do."""
_ROUNDS = 5


@dataclass(frozen=True)
class Study:
    """One study, its input made and ready to run."""

    size: str
    run: Callable[[], Any]
    summary: Callable[[Any], tuple[float, int]]
    """Of a result: the objective or the median forecast, and how many fits or draws failed or were skipped."""
    work: Work | None = None


def main() -> None:
    if len(sys.argv) < 2:
        print("\n".join(STUDIES))
        return
    name = sys.argv[1]
    if name not in STUDIES:
        raise SystemExit(f"no study {name!r}: choose from {', '.join(STUDIES)}")
    study = STUDIES[name]()
    jax.block_until_ready(jax.numpy.zeros(1) + 1)
    before = peak_memory()
    first, result = timed(lambda: jax.block_until_ready(study.run()))
    # NumPy arrays: outside the kernels JAX would sum them in 32 bits.
    objective, failures = study.summary(jax.device_get(result))
    del result
    rounds = [timed(lambda: jax.block_until_ready(study.run()))[0] for _ in range(1 if first > _LONG else _ROUNDS)]
    record = {
        "name": name.replace("_", " "),
        "size": study.size,
        "first_call_seconds": first,
        "rounds": rounds,
        "peak_bytes": peak_memory(),
        "peak_bytes_before": before,
        "objective": objective,
        "failures": failures,
        "machine": machine(),
    }
    device = jax.devices()[0].memory_stats() or {}
    if "peak_bytes_in_use" in device:
        record["device_peak_bytes"] = device["peak_bytes_in_use"]
    if study.work is not None:
        record["floor_seconds"] = study.work.seconds(attainable())
    print(json.dumps(record))


def _laws() -> Study:
    n = 100_000
    losses = noisy_laws(np.random.default_rng(1), n)
    padded, mask = pad(list(losses))
    log_compute = pad([np.log(budgets())] * n)[0]
    grid = asymptote_grid(losses.min(axis=1), LAW_GRID)

    def summary(laws: Any) -> tuple[float, int]:
        return float(np.sum(laws.score)), int(np.sum(~np.isfinite(laws.score)))

    size = f"{n} series of {losses.shape[1]}, {LAW_GRID} asymptotes"
    work = free_laws(n, losses.shape[1], LAW_GRID)
    return Study(size, lambda: fit_free_laws(log_compute, padded, mask, grid), summary, work)


def _optima(n: int) -> tuple[np.ndarray, np.ndarray]:
    return budgets(n), noisy_laws(np.random.default_rng(2), 1, n)[0]


def _draws() -> Study:
    n, draws = 7, 1_000_000
    compute, loss = _optima(n)
    log_compute, mask = (rows[0] for rows in pad([np.log(compute)]))
    padded = pad([loss])[0][0]
    grid = asymptote_grid(padded, DRAW_GRID)

    def run() -> Any:
        counts = counts_from_key(jax.random.key(0), n_draws=draws, n_points=n, n_padded=len(mask))
        return bootstrap_laws(log_compute, padded, mask, counts, grid)

    def summary(fits: Any) -> tuple[float, int]:
        fitted = fits.status == Status.FITTED
        return float(np.sum(fits.score[fitted])), int(np.sum(~fitted))

    return Study(f"{draws} draws of {n}, {DRAW_GRID} asymptotes", run, summary, bootstrap(draws, n, DRAW_GRID))


def _draws_public() -> Study:
    n, draws = 7, 1_000_000
    compute, loss = _optima(n)

    def summary(fit: Any) -> tuple[float, int]:
        return fit.intervals[0].median, draws - fit.count(Status.FITTED)

    return Study(
        f"{draws} draws of {n}, {DRAW_GRID} asymptotes",
        lambda: bootstrap_law(compute, loss, [TARGET], draws=draws, key=jax.random.key(0)),
        summary,
    )


def _exact(n: int) -> Study:
    compute, loss = _optima(n)

    def summary(fit: Any) -> tuple[float, int]:
        return fit.intervals[0].median, fit.n_draws - fit.count(Status.FITTED)

    return Study(
        f"every resample of {n}, {DRAW_GRID} asymptotes",
        lambda: bootstrap_law(compute, loss, [TARGET], method="exact"),
        summary,
    )


def _bootstrap_study(n: int, draws: int, method: str) -> Study:
    compute, loss = _optima(n)

    def summary(fit: Any) -> tuple[float, int]:
        return fit.intervals[0].median, fit.draws - fit.count(Status.FITTED)

    return Study(
        f"{draws} draws of {n}, {DRAW_GRID} asymptotes",
        lambda: bootstrap_study(compute, loss, [TARGET], draws=draws, method=method, n_grid=DRAW_GRID),
        summary,
    )


def _streamed() -> int:
    """Draws that a processor makes in a minute or so, and an accelerator too."""
    return 10**7 if jax.default_backend() == "cpu" else 10**9


def _curves() -> Study:
    n = 10_000
    curves = richards_curves(np.random.default_rng(3), n)
    rows = zip(curves.x, curves.y, curves.floor, strict=True)
    problems = [RichardsProblem(str(i), *row) for i, row in enumerate(rows)]

    def summary(fits: Any) -> tuple[float, int]:
        return float(np.nansum([fit.sse for fit in fits])), sum(not fit.fitted for fit in fits)

    return Study(f"{n} problems of {curves.x.shape[1]}", lambda: fit_richards_curves(problems), summary)


def _cells() -> Study:
    n = 500
    cells = sweep_cells(np.random.default_rng(7), n)

    def summary(result: Any) -> tuple[float, int]:
        fits, _ = result
        usable = np.isin(fits.status, (Status.FITTED, Status.BOUND_HIT))
        return float(np.sum(fits.log_likelihood)), int(np.sum(~usable))

    words = f"{n} cells of {CELL_TRIALS}, {cells.values.shape[1]} features, {cells.values.shape[2]} values"
    return Study(words, cells.fitter(), summary)


STUDIES: dict[str, Callable[[], Study]] = {
    "grid_search": _laws,
    "bootstrap_kernel": _draws,
    "bootstrap_law": _draws_public,
    "exact_bootstrap_7": lambda: _exact(7),
    "exact_bootstrap_10": lambda: _exact(10),
    "exact_bootstrap_12": lambda: _exact(12),
    "bootstrap_study_table": lambda: _bootstrap_study(7, 10**9, "table"),
    "bootstrap_study_stream": lambda: _bootstrap_study(20, _streamed(), "stream"),
    "Richards": _curves,
    "cells": _cells,
}


if __name__ == "__main__":
    main()
