"""Public measurements: nothing fails, every number has a status, and the slow twin agrees."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from benchmarks import baseline
from delphi_jax.fit.isoflop import fit_isoflop
from delphi_jax.fit.law import bootstrap_law, fit_law
from delphi_jax.fit.study import fit_study
from delphi_jax.io.study import load_study
from delphi_jax.results import IsoflopFit
from delphi_jax.status import Status
from delphi_jax.tables import run_table
from tests.delphi import ADAMC_SUITE
from tests.tolerances import REFERENCE, TRUTH

EXPERIMENTS = (
    "ml_scalefit__massivetext__chinchilla",
    "marin_202603__comma__llama_2",
    "marin_202603__dclm__llama_2",
    "marin_202603__nemotron__llama_2",
)
MARIN_COLUMNS = {
    "Name": "name",
    "parameter_count": "params",
    "throughput/total_tokens": "tokens",
    "throughput/total_gflops": "total_gflops",
    "eval/paloma/macro_loss": "loss",
}


@pytest.fixture(scope="module")
def rows(real_dir: Path) -> list[dict[str, str]]:
    with (real_dir / "isoflops.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def isoflop_of(rows: list[dict[str, str]]) -> IsoflopFit:
    columns = {name: np.array([float(row[name]) for row in rows]) for name in ("params", "tokens", "loss", "budget")}
    names = np.array([f"run {i}" for i in range(len(rows))], dtype=object)
    return fit_isoflop(run_table(names, compute=columns.pop("budget"), **columns)[0])


def test_every_experiment_is_known(rows: list[dict[str, str]]) -> None:
    assert {row["experiment"] for row in rows} == set(EXPERIMENTS)


@pytest.mark.parametrize("outliers", [True, False])
@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_each_experiment_fits(experiment: str, outliers: bool, rows: list[dict[str, str]]) -> None:
    chosen = [row for row in rows if row["experiment"] == experiment and (outliers or row["outlier"] == "False")]
    isoflop = isoflop_of(chosen)
    suite = isoflop.suites[0]
    assert sum(len(fit.loss) for fit in isoflop.parabolas) == len(chosen)
    for fit in isoflop.parabolas:
        numbers = [fit.a, fit.b, fit.c, fit.loss_star, fit.tokens_star, fit.params_star]
        if not fit.fitted:
            assert fit.status is Status.TOO_FEW_POINTS
            assert len(np.unique(fit.tokens)) < 3
            assert np.isnan(numbers).all()
            continue
        expected = baseline.fit_parabola(fit.tokens, fit.loss, fit.params)
        assert fit.loss_star == pytest.approx(expected["loss_star"], rel=REFERENCE)
        assert fit.tokens_star == pytest.approx(expected["T_star"], rel=1e-6)
        assert fit.a == pytest.approx(expected["a"], rel=TRUTH)
        clipped = Status.CLIPPED_TO_EDGE if expected["clipped"] else Status.FITTED
        assert fit.status is (clipped if expected["a"] > 0 else Status.CURVATURE_NOT_POSITIVE)
    compute, loss, _ = isoflop.optima(suite)
    law, expected_law = fit_law(compute, loss), baseline.fit_free(compute, loss)
    assert len(compute) >= 4
    assert law.grid_index == expected_law["index"]
    assert law.L_inf == pytest.approx(expected_law["L_inf"], rel=REFERENCE)
    assert law.alpha == pytest.approx(expected_law["alpha"], rel=REFERENCE)
    draws = bootstrap_law(compute, loss, draws=200)
    assert (
        draws.count(Status.FITTED) + draws.count(Status.TOO_FEW_POINTS) + draws.count(Status.NO_GRID_VALUE_FITS) == 200
    )
    for interval in draws.intervals:
        assert interval.low <= interval.median <= interval.high
    assert draws.intervals[-1].high < loss.min()


@pytest.mark.parametrize("corpus", ["nemotron", "dclm", "comma"])
def test_exported_runs_load_and_fit_alone(corpus: str, real_dir: Path, tmp_path: Path) -> None:
    with (real_dir / "marin" / f"isoflop-{corpus}.csv").open(newline="") as file:
        source = list(csv.DictReader(file))
    path = tmp_path / "runs.csv"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, MARIN_COLUMNS.values())
        writer.writeheader()
        writer.writerows({new: row[old] for old, new in MARIN_COLUMNS.items()} for row in source)
    study = load_study(None, runs=path)
    left_out = sum(part.count for part in study.skipped)
    assert len(study.runs) + left_out == len(source)
    fit = fit_study(study, draws=100)
    assert fit.sweep is None and fit.downstream == ()
    assert {part.table for part in fit.missing} >= {"hparam_sweep", "mmlu", "humaneval", "gsm8k"}
    suite = ADAMC_SUITE if corpus == "nemotron" else fit.isoflop.suites[0]
    assert suite in fit.isoflop.suites
    law = fit.laws[suite]
    assert law.fitted
    compute, loss, tokens = fit.isoflop.optima(suite)
    assert 0 <= law.L_inf < loss.min() and 0.02 < law.alpha < 1
    assert law.L_inf == pytest.approx(baseline.fit_free(compute, loss)["L_inf"], rel=REFERENCE)
    # The compute-optimal horizon grows roughly like the square root of compute (Hoffmann et al. 2022).
    slope = np.polyfit(np.log10(compute), np.log10(tokens), 1)[0]
    assert 0.3 < slope < 0.7
    assert fit.overtraining.token_slope == pytest.approx(slope, rel=REFERENCE)
    assert fit.bootstraps[suite].status is Status.FITTED
    assert {run.finished for run in fit.held_out.runs} <= {True}
    assert all("optimal" in run.name for run in fit.held_out.runs)
    residuals = fit.held_out.residuals(suite)
    assert residuals.size == 0 or np.abs(residuals).max() < 10
    for _, part in fit.parts():
        assert repr(part) and part.to_json()
        assert all(row.get("status", "fitted") for row in part.rows())
