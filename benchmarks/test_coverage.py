"""The coverage study against the bootstrap that one would first write. Nothing is asserted of times."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import baseline
from delphi_jax.fit.coverage import coverage_study
from delphi_jax.fit.isoflop import fit_isoflop
from delphi_jax.fit.law import fit_law, resampling_indices
from delphi_jax.io.study import load_study
from delphi_jax.labels import INTERVAL_METHODS
from tests.delphi import ADAMH_SUITE, TARGETS

DATA = Path(__file__).resolve().parents[1] / "data"
GRID = 100

STUDIES, DRAWS = 1000, 1000
BOOTSTRAPS = 10
"""Of so many draws: what the whole study is compared with."""

PART = 0.05
"""Share of the study that is timed, against the same share of the bootstraps: both are linear in their number."""


def test_coverage(compare: Callable[..., tuple[Any, Any]], benchmark: Any) -> None:
    runs = load_study(DATA, tables={"runs"}).runs
    isoflop = fit_isoflop(runs)
    compute, loss, _ = isoflop.optima(ADAMH_SUITE)
    law = fit_law(compute, loss, series=ADAMH_SUITE)
    studies, n_plain = round(PART * STUDIES), 100
    indices = resampling_indices(len(loss), n_plain, seed=0)
    found, plain = compare(
        "coverage",
        lambda: coverage_study(runs, law, studies=studies, draws=DRAWS),
        lambda: baseline.bootstrap(compute, loss, TARGETS, indices, GRID),
        size=f"{studies} studies of {len(loss)} budgets, {DRAWS} draws, {len(INTERVAL_METHODS)} methods, against "
        f"{BOOTSTRAPS * PART:g} bootstraps of {DRAWS} draws",
        target=1,
        share=n_plain / (BOOTSTRAPS * PART * DRAWS),
    )
    benchmark.extra_info.update(
        objective=float(np.mean(found.coverage)),
        compared=0,
        failures=int(np.sum(found.studies - found.with_interval)),
        baseline_failures=sum(draw["status"] != "ok" for draw in plain),
    )
