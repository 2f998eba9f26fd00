"""What was understood of a study, before anything is fitted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from delphi_jax.definition import Definition
from delphi_jax.results.base import Result
from delphi_jax.results.held_out import HeldOutFit, held_out_runs
from delphi_jax.tables import Missing, RunTable, Skipped, Study, fit_runs
from delphi_jax.text import scientific

__all__ = ["StudyCheck", "check_study"]

_FEWEST_RUNS = 3
"""Distinct token counts that a parabola needs."""
_CLOSE = 1.12
"""Ratio of two budgets of one suite below which they may be meant to be one."""
_ODD = 3.0
"""Factor by which the runs' median C/(6*N*D) may differ from 1 before a unit is doubted."""

Rows = tuple[dict[str, Any], ...]


@dataclass(frozen=True, eq=False, repr=False)
class StudyCheck(Result):
    """Suites, budgets, held-out runs, tasks and sweep as they would be fitted."""

    source: str
    definition: Definition
    """With the suites, targets and divide that the tables decided."""
    rules: tuple[str, ...]
    """How runs were sorted, a sentence each."""
    suites: Rows
    budgets: Rows
    held_out: Rows
    tasks: Rows
    sweep: Rows
    figures: tuple[str, ...]
    targets: tuple[float, ...]
    """FLOPs"""
    divide: float | None
    """FLOPs"""
    skipped: tuple[Skipped, ...]
    missing: tuple[Missing, ...]
    conflicts: tuple[str, ...]
    """What contradicts itself, or is likely not meant, a sentence each."""
    fittable: bool
    """Whether anything can be fitted."""

    def rows(self) -> list[dict[str, Any]]:
        return list(self.budgets)


def check_study(study: Study) -> StudyCheck:
    """What a loaded study holds, counted.

    Examples:

    >>> import delphi_jax as dj
    >>> check = dj.check_study(dj.load_study("data", tables=["runs"]))
    >>> check.fittable, len(check.budgets)
    (True, 14)
    """
    runs, definition = study.runs, study.definition
    used, unfinished = fit_runs(runs)
    budgets = _budgets(used)
    tasks, sweep = _tasks(study), _sweep(study)
    return StudyCheck(
        source=study.source,
        definition=definition,
        rules=tuple(_rules(definition, runs)),
        suites=_suites(runs, used),
        budgets=budgets,
        held_out=_held_out(runs),
        tasks=tasks,
        sweep=sweep,
        figures=tuple(definition.figure_titles),
        targets=definition.targets,
        divide=definition.divide,
        skipped=(*study.skipped, *([unfinished] if unfinished is not None else [])),
        missing=study.missing,
        conflicts=tuple(_conflicts(definition, runs, used, budgets)),
        fittable=any(row["parabola"] == "yes" for row in budgets)
        or any(row["own runs"] for row in tasks)
        or study.sweep is not None,
    )


def _labels(runs: RunTable) -> list[str]:
    return sorted(set(runs.suite.tolist()) | {rule.label for rule in runs.definition.suites})


def _suites(runs: RunTable, used: RunTable) -> Rows:
    ladders = {rule.label: name for name, rule in runs.definition.ladders.items()}
    rows = []
    for label in _labels(runs):
        mine, fitted = runs.where(runs.suite == label), used.where(used.suite == label)
        rows.append(
            {
                "suite": label,
                "IsoFLOP runs": len(fitted),
                "budgets": len(np.unique(fitted.bucket)),
                "held-out runs": int(np.sum(mine.held_out & mine.finished)),
                "did not finish": int(np.sum(~mine.finished)),
                "colour": runs.definition.suite(label).color or "of the theme",
                "ladder": ladders.get(label, "none"),
            }
        )
    return tuple(rows)


def _budgets(used: RunTable) -> Rows:
    rows = []
    for suite, bucket in sorted(set(zip(used.suite.tolist(), used.bucket.tolist(), strict=True))):
        group = used.where((used.suite == suite) & (used.bucket == bucket))
        distinct = len(np.unique(group.tokens))
        rows.append(
            {
                "suite": suite,
                "compute budget (FLOPs)": bucket,
                "runs": len(group),
                "fewest tokens": float(group.tokens.min()),
                "most tokens": float(group.tokens.max()),
                "lowest loss": float(group.loss.min()),
                "parabola": "yes" if distinct >= _FEWEST_RUNS else f"no: {_FEWEST_RUNS} token counts needed",
            }
        )
    return tuple(rows)


def _held_out(runs: RunTable) -> Rows:
    held = runs.where(runs.held_out)
    rows = []
    for suite, budget in sorted(set(zip(held.suite.tolist(), held.bucket.tolist(), strict=True))):
        group = held.where((held.suite == suite) & (held.bucket == budget))
        rows.append(
            {
                "suite": suite,
                "compute budget (FLOPs)": budget,
                "runs": int(group.finished.sum()),
                "seeds": ", ".join(sorted(set(group.seed.tolist()))),
                "did not finish": int(np.sum(~group.finished)),
            }
        )
    return tuple(rows)


def _tasks(study: Study) -> Rows:
    rows = []
    for task in study.definition.tasks:
        own, external = study.evals.get(task.key), study.externals.get(task.key)
        shots = sorted(set(own.shot.tolist())) if own is not None else []
        rows.append(
            {
                "task": task.name,
                "soft metric": f"{task.soft_column} ({task.soft})",
                "hard metric": task.hard_column,
                "floor": task.floor,
                "ceiling": "fitted" if task.ceiling is None else f"{task.ceiling:g}",
                "problems": task.n_problems,
                "shots": ", ".join(map(str, shots)),
                "own runs": len(own.budget) if own is not None else 0,
                "external models": len(external.soft) if external is not None else 0,
            }
        )
    return tuple(rows)


def _sweep(study: Study) -> Rows:
    if study.definition.sweep is None:
        return ()
    design = study.definition.sweep
    trials = len(study.sweep) if study.sweep is not None else 0
    return tuple(
        {
            "hyper-parameter": parameter.key,
            "column": parameter.column,
            "transform": parameter.transform,
            "heuristic": "yes" if parameter.heuristic is not None else "none",
            "cells": len(design.cells),
            "trials": trials,
        }
        for parameter in design.hyper_parameters
    )


def _rules(definition: Definition, runs: RunTable) -> list[str]:
    metric, held, budgets = definition.metric, definition.held_out, definition.budgets
    lines = [f"metric: {metric.name}, {metric.unit}"]
    if budgets.values:
        values = ", ".join(map(scientific, budgets.values))
        lines.append(f"budgets: the nearest of {values}, within {100 * budgets.tolerance:g} %")
    else:
        lines.append(f"budgets: compute rounded to {_count(budgets.digits, 'significant digit')}")
    ways = [f"names with {' or '.join(map(repr, held.match))}"] if held.match else []
    if any("held_out" in source.columns for source in definition.runs):
        ways.append(f"the column that is mapped to held_out holds {' or '.join(map(str, held.values))}")
    ways += [f"budgets above {scientific(held.above)} FLOPs"] if held.above is not None else []
    lines.append(f"held out: {', '.join(ways) or 'nothing'}")
    divide = "none" if definition.divide is None else f"{scientific(definition.divide)} FLOPs"
    lines.append(f"divide between fit and held-out runs: {divide}")
    if definition.targets:
        lines.append(f"forecast targets: {', '.join(map(scientific, definition.targets))} FLOPs")
        scales = ", ".join(f"{scale:.3g}" for scale in definition.overtraining.scales)
        lines.append(f"overtraining forecast: at {scientific(definition.overtraining_budget)} FLOPs, {scales} times T*")
    lines.append(f"suite of figures that show one: {definition.focus_label or 'the first that has a law'}")
    seeds = definition.seeds
    behind = f" and before {seeds.suffix!r}" if seeds.suffix else ""
    lines.append(f"seeds: the digits behind {seeds.prefix!r}{behind} in a name: {_seeds(runs)}")
    return lines


def _seeds(runs: RunTable) -> str:
    seeds = sorted(set(runs.seed.tolist()))
    return f"{', '.join(seeds[:5])}{' ...' if len(seeds) > 5 else ''}" if seeds else "none"


def _conflicts(definition: Definition, runs: RunTable, used: RunTable, budgets: Rows) -> list[str]:
    if not len(runs):
        return []
    lines = [
        f"suite {rule.label!r} takes no run: correct its match or its values"
        for rule in definition.suites
        if not np.any(runs.suite == rule.label)
    ]
    unmatched = int(np.sum(runs.suite == definition.unmatched_suite))
    if unmatched and definition.suites:
        lines.append(f"{_count(unmatched, 'run')} of no suite: fitted as {definition.unmatched_suite!r}")
    for suite in _labels(used):
        own = sorted({row["compute budget (FLOPs)"] for row in budgets if row["suite"] == suite})
        close = [(one, other) for one, other in pairwise(own) if other / one < _CLOSE]
        if close:
            lines.append(_close(suite, close))
    factor = float(np.median(runs.compute / (6 * runs.params * runs.tokens)))
    if not 1 / _ODD < factor < _ODD:
        lines.append(
            f"the runs' FLOPs are {factor:.3g} times 6*N*D (median): check flops_unit, and the columns of params and "
            "tokens"
        )
    lines += HeldOutFit(held_out_runs(runs), {}).notices()
    lines += _beyond(definition, used)
    return lines + _of_several_suites(definition, runs)


def _close(suite: str, pairs: Sequence[tuple[float, float]]) -> str:
    """One sentence for all neighbouring budgets of a suite that are close to one another."""
    apart = [100 * (other / one - 1) for one, other in pairs]
    (one, other), remedy = pairs[0], "if they are one, list the budgets, or take fewer digits"
    both = f"{scientific(one)} and {scientific(other)} FLOPs"
    if len(pairs) == 1:
        return f"{suite}: the budgets {both} are {apart[0]:.2g} % apart: {remedy}"
    away = " to ".join(dict.fromkeys(f"{each:.2g}" for each in (min(apart), max(apart))))
    return f"{suite}: {len(pairs)} budgets are {away} % from the next, the first {both}: {remedy}"


def _beyond(definition: Definition, used: RunTable) -> list[str]:
    if not len(used):
        return ["no IsoFLOP run is left to be fitted: check what is held out, and the states"]
    largest, lines = float(used.bucket.max()), []
    if definition.divide is not None and definition.divide <= largest:
        count = len(np.unique(used.bucket[used.bucket >= definition.divide]))
        lines.append(f"the divide lies below {_count(count, 'IsoFLOP budget')}: raise held_out.divide, or leave it out")
    if definition.overtraining_budget < used.bucket.min():
        lines.append("the overtraining forecast lies below every IsoFLOP budget: raise overtraining.forecast_budget")
    return lines


def _of_several_suites(definition: Definition, runs: RunTable) -> list[str]:
    """Names that more than one suite matches."""
    if any("suite" in source.columns or source.suite for source in definition.runs):
        return []
    counts: dict[tuple[str, ...], int] = {}
    for name in runs.name.tolist():
        lower = name.lower()
        takers = tuple(rule.label for rule in definition.suites if any(part.lower() in lower for part in rule.match))
        if len(takers) > 1:
            counts[takers] = counts.get(takers, 0) + 1
    return [
        f"{_count(number, 'run')} would match {' and '.join(map(repr, takers))} by name: the first one takes them"
        for takers, number in counts.items()
    ]


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
