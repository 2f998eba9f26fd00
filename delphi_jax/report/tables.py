"""Tables of a report: runs, every result's rows, and the data behind each figure."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields
from typing import Any

import numpy as np

from delphi_jax.formulas import residual_percent
from delphi_jax.plots.drawers import Document
from delphi_jax.report.model import Table, table_of
from delphi_jax.results import Result, StudyFit
from delphi_jax.tables import RunTable, Skipped, Study

__all__ = ["figure_table", "forecast_table", "result_tables", "run_rows", "skipped_table"]

Rows = list[dict[str, Any]]

_RUN_COLUMNS = {"compute": "compute (FLOPs)", "bucket": "budget (FLOPs)", "held_out": "held out"}
_MOST_POINTS = 5000
"""Rows of a table that is taken from a figure's traces."""


def run_rows(runs: RunTable) -> Rows:
    """A row per training run, every column."""
    values = {each.name: getattr(runs, each.name) for each in fields(runs)}
    columns = {_RUN_COLUMNS.get(name, name): each for name, each in values.items() if isinstance(each, np.ndarray)}
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def result_tables(study: Study, fit: StudyFit, answers: Mapping[str, Result]) -> tuple[Table, ...]:
    """The runs, and the rows of every fitted part and answer, a table per title."""
    titled: dict[str, Rows] = {"Training runs": run_rows(study.runs)}
    for title, part in fit.parts():
        titled.setdefault(title, []).extend(part.rows())
    titled |= {_ANSWERS.get(name, name): answer.rows() for name, answer in answers.items()}
    return tuple(table_of(_key(title), title, rows) for title, rows in titled.items())


_ANSWERS = {
    "law-profile": "Profile intervals of the laws",
    "forecast-fan": "Forecast intervals by every method",
    "leave-future-out": "Leave-future-out predictions",
    "allocation": "Allocation of compute",
    "loss-surface": "Loss surfaces",
    "effective-speedup": "Effective speedup",
    "downstream-intervals": "Intervals of the downstream forecasts",
}


def forecast_table(fit: StudyFit, profiles: Mapping[str, Mapping[float, tuple[float, float]]]) -> Table:
    """Forecasts of every law at the bootstrap's targets, both intervals, and what held-out runs showed.

    ``profiles`` holds the ends of the profile interval by suite and budget.
    """
    rows = []
    for suite, bootstrap in fit.bootstraps.items():
        law = fit.laws[suite]
        seen = {}
        if fit.held_out is not None:
            budgets, means = fit.held_out.means(suite)
            seen = dict(zip(budgets.tolist(), zip(means, fit.held_out.residuals(suite), strict=True), strict=True))
        for target, interval in zip(bootstrap.targets.tolist(), bootstrap.intervals, strict=True):
            low, high = profiles.get(suite, {}).get(target, (np.nan, np.nan))
            mean, residual = seen.get(target, (np.nan, np.nan))
            rows.append(
                {
                    "suite": suite,
                    "budget (FLOPs)": target,
                    "forecast": float(law.loss_at(target)),
                    "bootstrap low": interval.low,
                    "bootstrap high": interval.high,
                    "profile low": low,
                    "profile high": high,
                    "held-out mean": mean,
                    "residual (%)": residual,
                    "status": " / ".join(dict.fromkeys((law.status.label, bootstrap.status.label))),
                }
            )
    return table_of("forecasts-at-a-glance", "Forecasts at a glance", rows)


def skipped_table(skipped: Iterable[Skipped]) -> Table:
    """What was left out, a row per row of the data."""
    rows = [{"table": part.table, "row": name, "reason": part.reason} for part in skipped for name in part.names]
    return table_of("left-out", "Left out", rows)


def figure_table(name: str, title: str, document: Document, fit: StudyFit, answer: Result | None) -> Table:
    """The data behind a figure: the rows of its result where it has one, else the points of its traces."""
    if answer is not None:
        rows = answer.rows()
    else:
        rows = _FIGURES.get("ladder" if name in fit.definition.ladders else name, lambda fit: [])(fit)
    return table_of(f"{name}-data", f"{title}: data", rows or _points(document))


def _law_points(fit: StudyFit) -> Rows:
    """Optima and held-out runs of every suite beside its law."""
    rows = []
    for suite, law in fit.laws.items():
        compute, loss, _ = fit.isoflop.optima(suite)
        rows += [_law_point(suite, "IsoFLOP optimum", *pair, law) for pair in zip(compute, loss, strict=True)]
        if fit.held_out is not None:
            means = zip(*fit.held_out.means(suite), strict=True)
            rows += [_law_point(suite, "held-out mean", *pair, law) for pair in means]
            runs = fit.held_out.diverged(suite)
            rows += [_law_point(suite, "did not finish", run.budget, run.loss, law) for run in runs]
    return rows


def _law_point(suite: str, kind: str, budget: float, loss: float, law: Any) -> dict[str, Any]:
    predicted = float(law.loss_at(budget))
    return {
        "suite": suite,
        "kind": kind,
        "compute budget (FLOPs)": budget,
        "loss": loss,
        "law": predicted,
        "residual (%)": residual_percent(loss, predicted),
        "status of the law": law.status.label,
    }


def _downstream_points(fit: StudyFit) -> Rows:
    rows = []
    for view in fit.downstream:
        labels = {key: view.rows()[0][key] for key in ("task", "shots")}
        rows += [
            labels | {"model": "own run", "budget (FLOPs)": budget, "soft metric": soft, "hard metric": hard}
            for budget, soft, hard in zip(view.budget, view.soft, view.hard, strict=True)
        ]
        rows += [
            labels | {"model": name, "budget (FLOPs)": None, "soft metric": soft, "hard metric": hard}
            for name, soft, hard in zip(view.external_names, view.external_soft, view.external_hard, strict=True)
        ]
        forecast = {"soft metric": view.forecast_soft, "hard metric": view.forecast_hard}
        rows.append(labels | {"model": "forecast", "budget (FLOPs)": view.forecast_budget} | forecast)
    return rows


_FIGURES: dict[str, Callable[[StudyFit], Rows]] = {
    "isoflop-parabolas": lambda fit: fit.isoflop.rows(),
    "scaling-law-asymptote": _law_points,
    "ladder": _law_points,
    "lucky-seeds": lambda fit: fit.seeds.rows(),
    "overtraining-forecast": lambda fit: fit.overtraining.rows(),
    "mmlu-emergence": _downstream_points,
    "hparam-scaling": lambda fit: fit.sweep.rows(),
}


def _points(document: Document) -> Rows:
    rows = []
    for place, trace in enumerate(document["data"]):
        if "x" in trace and "y" in trace:
            name = str(trace.get("name") or f"trace {place + 1}")
            pairs = zip(np.ravel(trace["x"]).tolist(), np.ravel(trace["y"]).tolist(), strict=False)
            rows += [{"trace": name, "x": x, "y": y} for x, y in pairs]
    return rows[:_MOST_POINTS]


def _key(title: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")
