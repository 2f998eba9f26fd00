"""The whole command as one would first write it: ``python -m benchmarks.baseline_command --data DIR --out DIR``.

The slow side of the whole-command benchmark. In one thread it

- reads the caches with ``json`` into pandas data frames and derives suites, budgets and cells there;
- fits everything that the figures show with :mod:`benchmarks.baseline`: parabolas, laws on 400 asymptotes,
  the 1000-draw bootstrap of the suite that is shown, the overtraining forecast at nine scales, Richards curves and
  pinned laws, and per sweep cell the Gaussian process with its partial dependence (five features, 80 values
  and the heuristic's own);
- lets the package's builders say what the twelve pictures hold, builds each as a validated
  ``plotly.graph_objects.Figure`` trace by trace, the mobile variants from deep copies, and writes indented JSON.

Nothing is done twice, and nothing that the figures do not need: no shared-asymptote laws, and no second
bootstrap. It checks no input: on files that break the rules of the study it fails somewhere or other.
"""

from __future__ import annotations

import argparse
import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from benchmarks import baseline
from delphi_jax import draw
from delphi_jax.definition import delphi
from delphi_jax.model_names import model_name
from delphi_jax.results import (
    BootstrapFit,
    CellFit,
    DownstreamFit,
    HeldOutFit,
    HeldOutRun,
    Interval,
    IsoflopFit,
    LawFit,
    OvertrainingFit,
    OvertrainingScale,
    ParabolaFit,
    PartialDependence,
    RichardsFit,
    SeedDeviation,
    SeedFit,
    StudyFit,
    SweepFit,
)
from delphi_jax.status import Status
from delphi_jax.tasks import Task
from tests.delphi import ADAMC_SUITE, ADAMH_SUITE, FEATURES, MMLU, SWEEP, TASKS, UNKNOWN_SUITE

__all__ = ["load_tables", "main"]

N_GRID, N_DRAWS, BOOTSTRAP_GRID = 400, 1000, 100
TARGETS = (1e21, 1e22, 1e23)
SCALES = (0.2, 1 / 3, 0.5, 2 / 3, 2.0, 3.0, 4.0, 5.0, 10.0)
OVERTRAINING_BUDGET, DOWNSTREAM_BUDGET, FIT_DIVIDE = 1e23, 1e25, 5e20
NOMINAL_TOKENS = {"1B": 1e9, "2.5B": 2.5e9, "5B": 5e9}


def main() -> None:
    parser = argparse.ArgumentParser(description="The study's figures from the plain baseline.")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    write_figures(fit_study(load_tables(args.data)), args.out)


# Reading


def load_tables(data: Path) -> dict[str, pd.DataFrame]:
    """Tables by name, as the fits need them."""
    raw = {path.stem: json.loads(path.read_text()) for path in data.glob("*.json")}
    tables = {name: pd.DataFrame(rows) for name, rows in raw.items() if isinstance(rows, list)}
    tables["runs"] = _runs(tables["runs"])
    tables["hparam_sweep"] = _sweep(tables["hparam_sweep"])
    for task in TASKS.values():
        tables[task.key], tables[f"{task.key}_external"] = _evals(task, tables)
    return tables


def _runs(runs: pd.DataFrame) -> pd.DataFrame:
    runs = runs.dropna(subset=["loss", "tokens", "total_gflops", "params"]).reset_index(drop=True)
    name = runs["name"].str.lower()
    adamh = name.str.contains("adamh_scaling_v6") | name.str.contains("adamh-scaling-ladder")
    runs["suite"] = np.select([adamh, name.str.contains("nemo")], [ADAMH_SUITE, ADAMC_SUITE], UNKNOWN_SUITE)
    runs["held_out"] = name.str.contains("optimal")
    runs["finished"] = runs["state"].fillna("finished") == "finished"
    runs["seed"] = runs["name"].str.extract(r"-seed(\d+)-", expand=False).fillna("default")
    runs["compute"] = runs["total_gflops"] * 1e9
    runs["bucket"] = runs["total_gflops"].map(lambda gflops: float(f"{gflops:.1e}")) * 1e9
    # Both suites are fitted on the grid of (params, budget) that AdamH measured.
    cell = pd.Series(list(zip((runs["params"] / 1e6).round(), runs["bucket"], strict=True)))
    grid = set(cell[(runs["suite"] == ADAMH_SUITE) & ~runs["held_out"] & runs["finished"]])
    off_grid = (runs["suite"] == ADAMC_SUITE) & ~runs["held_out"] & ~cell.isin(grid)
    return runs[~off_grid]


def _sweep(sweep: pd.DataFrame) -> pd.DataFrame:
    sweep = sweep.rename(columns={"eval/paloma/macro_loss": "loss"})
    sweep = sweep[sweep["state"] == "finished"].dropna(subset=["loss", "batch_size", "hidden_dim", "tokens", *FEATURES])
    horizon = np.select([sweep["tokens"] < 1.75e9, sweep["tokens"] < 3.0e9], ["1B", "2.5B"], "5B")
    return sweep.assign(horizon=horizon).round({"batch_size": 0, "hidden_dim": 0})


def _evals(task: Task, tables: dict[str, pd.DataFrame]) -> tuple[pd.DataFrame, pd.DataFrame]:
    columns = {task.soft_column: "soft", task.hard_column: "hard"}
    own, external = (tables[name].rename(columns=columns) for name in (task.key, f"{task.key}_external"))
    needed = ["soft", "hard"] if task is MMLU else ["soft"]
    own, external = own.dropna(subset=["budget", *needed]), external.dropna(subset=needed)
    if task is MMLU:
        external = external[~external["run_name"].str.lower().str.contains("comma")]
        external = external.assign(display_name=external["run_name"].map(model_name))
    else:
        own = own.assign(shot=task.shots)
    own, external = (table.assign(soft=task.soft_sign * table["soft"]) for table in (own, external))
    return own.sort_values(["shot", "budget"], kind="stable"), external


# Fitting


def fit_study(tables: dict[str, pd.DataFrame]) -> StudyFit:
    """What the twelve figures need."""
    runs = tables["runs"]
    isoflop = IsoflopFit(tuple(_parabolas(runs)))
    laws = {suite: _law(suite, *isoflop.optima(suite)[:2]) for suite in isoflop.suites}
    held_out = HeldOutFit(tuple(_held_out(runs)), laws)
    bootstrap = _bootstrap(ADAMH_SUITE, *isoflop.optima(ADAMH_SUITE)[:2])
    return StudyFit(
        source="baseline",
        isoflop=isoflop,
        laws=laws,
        held_out=held_out,
        bootstraps={ADAMH_SUITE: bootstrap},
        seeds=_seeds(held_out, laws[ADAMH_SUITE], bootstrap),
        overtraining=_overtraining(isoflop.of(ADAMH_SUITE), laws[ADAMH_SUITE]),
        downstream=tuple(view for task in TASKS.values() for view in _downstream(task, tables)),
        sweep=SweepFit(SWEEP, tuple(_cell(tables["hparam_sweep"], *key) for key in SWEEP.cells)),
    )


def _parabolas(runs: pd.DataFrame) -> list[ParabolaFit]:
    used = runs[~runs["held_out"] & runs["finished"]]
    fits = []
    for (suite, bucket), group in used.groupby(["suite", "bucket"]):
        points = [group[column].to_numpy() for column in ("tokens", "params", "loss")]
        if len(group) < 3:
            fits.append(ParabolaFit(suite, bucket, *points, Status.TOO_FEW_POINTS))
            continue
        fit = baseline.fit_parabola(points[0], points[2], points[1])
        fits.append(
            ParabolaFit(
                suite,
                bucket,
                *points,
                _parabola_status(fit),
                a=fit["a"],
                b=fit["b"],
                c=fit["c"],
                vertex_log_tokens=fit["vertex_logT"],
                log_tokens_star=fit["logT_star"],
                tokens_star=fit["T_star"],
                loss_star=fit["loss_star"],
                params_star=fit["P_star"],
                curvature_under=fit["a_under"],
                curvature_over=fit["a_over"],
            )
        )
    return fits


def _parabola_status(fit: dict[str, Any]) -> Status:
    if fit["a"] <= 0:
        return Status.CURVATURE_NOT_POSITIVE
    return Status.CLIPPED_TO_EDGE if fit["clipped"] else Status.FITTED


def _law(suite: str, compute: np.ndarray, loss: np.ndarray) -> LawFit:
    fit = baseline.fit_free(compute, loss, N_GRID)
    if fit is None:
        return LawFit(suite, "free", compute, loss, Status.NO_GRID_VALUE_FITS)
    index = fit.pop("index")
    return LawFit(suite, "free", compute, loss, Status.FITTED, **fit, grid_index=index, n_grid=N_GRID)


def _held_out(runs: pd.DataFrame) -> list[HeldOutRun]:
    return [
        HeldOutRun(run.name, run.suite, run.seed, float(f"1e{round(np.log10(run.compute))}"), run.loss, run.finished)
        for run in runs[runs["held_out"]].itertuples(index=False)
    ]


def _bootstrap(suite: str, compute: np.ndarray, loss: np.ndarray) -> BootstrapFit:
    indices = baseline.bootstrap_indices(len(loss), N_DRAWS, seed=0)
    draws = baseline.bootstrap(compute, loss, TARGETS, indices, BOOTSTRAP_GRID)
    fitted = [draw for draw in draws if draw["status"] == "ok"]
    nan = {
        "L_inf": np.nan,
        "A": np.nan,
        "alpha": np.nan,
        "score": np.nan,
        "forecast": np.full(len(TARGETS), np.nan),
    }
    columns = {name: np.array([draw.get(name, missing) for draw in draws]) for name, missing in nan.items()}
    statuses = {
        "ok": Status.FITTED,
        "lt3_unique": Status.TOO_FEW_POINTS,
        "fit_failed": Status.NO_GRID_VALUE_FITS,
    }
    return BootstrapFit(
        suite,
        np.array(TARGETS),
        Status.FITTED,
        np.array([statuses[draw["status"]] for draw in draws]),
        forecasts=columns.pop("forecast"),
        **columns,
        intervals=tuple(Interval(*map(float, row)) for row in baseline.percentiles(fitted)),
        percentiles=(2.5, 50.0, 97.5),
        n_grid=BOOTSTRAP_GRID,
        seed=0,
    )


def _seeds(held_out: HeldOutFit, law: LawFit, bootstrap: BootstrapFit) -> SeedFit:
    lines = []
    for budget, interval in zip(TARGETS, bootstrap.intervals, strict=True):
        forecast = float(law.loss_at(budget))
        runs = [run for run in held_out.runs if run.suite == law.series and run.budget == budget and run.finished]
        runs.sort(key=lambda run: run.seed)
        losses = [interval.low, interval.high, *(run.loss for run in runs)]
        low, high, *deviations = 100 * (np.array(losses) - forecast) / forecast
        seeds = tuple(run.seed for run in runs)
        lines.append(SeedDeviation(budget, forecast, seeds, np.array(deviations), float(low), float(high)))
    return SeedFit(law.series, law, bootstrap, tuple(lines))


def _overtraining(parabolas: tuple[ParabolaFit, ...], law: LawFit) -> OvertrainingFit:
    fields = ("bucket", "tokens_star", "loss_star", "curvature_under", "curvature_over")
    columns = [np.array([getattr(fit, name) for fit in parabolas]) for name in fields]
    parameters = {"L_inf": law.L_inf, "A": law.A, "alpha": law.alpha}
    token_slope, token_intercept = np.polyfit(np.log10(columns[0]), np.log10(columns[1]), 1)
    scales = []
    for scale in SCALES:
        fit = baseline.overtraining(*columns, parameters, OVERTRAINING_BUDGET, scale)
        tokens = scale * 10 ** (token_slope * np.log10(fit["C_equiv"]) + token_intercept)
        scales.append(
            OvertrainingScale(
                scale,
                Status.FITTED if fit["crossed"] else Status.NOT_REACHED,
                fit["loss"],
                fit["curve"],
                fit["C_equiv"],
                float(tokens),
                fit["overhead"],
            )
        )
    return OvertrainingFit(
        law.series,
        OVERTRAINING_BUDGET,
        parabolas,
        law,
        float(token_slope),
        float(token_intercept),
        fit["C"],
        tuple(scales),
    )


def _downstream(task: Task, tables: dict[str, pd.DataFrame]) -> list[DownstreamFit]:
    own, external = tables[task.key], tables[f"{task.key}_external"]
    columns = ["soft", "hard"]
    # MMLU's own runs stay below the curve's rise: its curve is that of the external models alone.
    points = (
        external[columns] if task is MMLU else pd.concat([own[own["budget"] < FIT_DIVIDE], external])[columns].dropna()
    )
    bounding = np.concatenate([own["soft"], external["soft"]]) if task is MMLU else points["soft"].to_numpy()
    x, y = -points["soft"].to_numpy(), points["hard"].to_numpy()
    fit = baseline.fit_richards(x, y, task.floor)
    asymptote = baseline.downstream_asymptote(fit, task.n_problems, bounding)
    curve = RichardsFit(task.key, x, y, task.floor, Status.FITTED, fit["k"], fit["x0"], fit["v"], fit["K"], fit["sse"])
    return [_view(task, int(shot), rows, external, curve, asymptote) for shot, rows in own.groupby("shot")]


def _view(
    task: Task,
    shot: int,
    own: pd.DataFrame,
    external: pd.DataFrame,
    curve: RichardsFit,
    asymptote: dict[str, Any],
) -> DownstreamFit:
    budget, soft, hard = (own[column].to_numpy() for column in ("budget", "soft", "hard"))
    train = budget < FIT_DIVIDE
    fit = baseline.fit_pinned(budget[train], soft[train], asymptote["L_inf"])
    law = LawFit(f"{task.name} {shot}-shot", "pinned", budget[train], soft[train], Status.FITTED, **fit)
    forecast = float(law.loss_at(DOWNSTREAM_BUDGET))
    return DownstreamFit(
        task,
        shot,
        budget,
        soft,
        hard,
        tuple(external["display_name"]),
        external["soft"].to_numpy(),
        external["hard"].to_numpy(),
        curve,
        law,
        asymptote["branch"],
        -asymptote["saturation"],
        DOWNSTREAM_BUDGET,
        forecast,
        float(curve.predict(-forecast)),
        Status.FITTED,
        delphi(),
    )


def _cell(sweep: pd.DataFrame, batch_size: int, hidden_dim: int, horizon: str) -> CellFit:
    key = (SWEEP, batch_size, hidden_dim, horizon)
    trials = sweep[
        (sweep["batch_size"] == batch_size) & (sweep["hidden_dim"] == hidden_dim) & (sweep["horizon"] == horizon)
    ]
    if trials.empty:
        return CellFit(*key, Status.NO_DATA, 0, np.nan, np.empty((0, len(FEATURES))), np.empty(0))
    cell = baseline.sweep_features(*(trials[column].to_numpy() for column in (*FEATURES, "loss")))
    process = baseline.fit_process(cell["X"], cell["y"])
    length_scale, noise = np.exp(process.kernel_.theta)
    point = baseline.heuristic_features(batch_size, NOMINAL_TOKENS[horizon])
    standard_point = (point - cell["mean"]) / cell["scale"]
    features = cell["X"] * cell["scale"] + cell["mean"]
    dependence = []
    for j, heuristic in enumerate(standard_point):
        values = baseline.dependence_values(cell["X"][:, j], heuristic)
        mean, sd = baseline.partial_dependence(process, cell["X"], j, np.append(values, heuristic))
        dependence.append(
            PartialDependence(
                values * cell["scale"][j] + cell["mean"][j],
                mean[:-1],
                sd[:-1],
                float(point[j]),
                float(mean[-1]),
                bool(cell["X"][:, j].min() <= heuristic <= cell["X"][:, j].max()),
            )
        )
    return CellFit(
        *key,
        Status.FITTED,
        len(trials),
        cell["loss_cap"],
        features,
        cell["y"],
        float(length_scale),
        float(noise),
        float(process.log_marginal_likelihood_value_),
        dependence=tuple(dependence),
    )


# Drawing and writing


def write_figures(fit: StudyFit, out: Path) -> None:
    """All figures as indented plotly JSON into the folder ``out``."""
    out.mkdir(parents=True, exist_ok=True)
    wide: dict[str, dict[str, Any]] = {}
    for name, figure in draw.study_figures(delphi()).items():
        if figure.mobile_of is None:
            document = wide[name] = figure.build(fit)
        else:
            document = figure.restack(copy.deepcopy(wide[figure.mobile_of]))
        _as_figure(document).write_json(out / f"{name}.json", pretty=True)


def _as_figure(document: dict[str, Any]) -> go.Figure:
    # The page that shows the figures supplies the template.
    figure = go.Figure(layout=document["layout"] | {"template": "none"}, frames=document.get("frames"))
    figure.add_traces([go.Scatter(trace) for trace in document["data"]])
    return figure


if __name__ == "__main__":
    main()
