"""Tidy tables of one study, and the rules that turn raw rows into them (suites, buckets, grid matching)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from delphi_jax.checked import Value
from delphi_jax.definition import Budgets, Definition, SeedRule, SuiteRule, delphi
from delphi_jax.heuristics import SweepDesign
from delphi_jax.tasks import Task
from delphi_jax.text import shown

__all__ = [
    "EvalTable",
    "ExternalTable",
    "Missing",
    "RunTable",
    "Skipped",
    "Study",
    "SweepTable",
    "eval_table",
    "fit_runs",
    "is_finished",
    "is_one_of",
    "match_grids",
    "nearest_budgets",
    "power_of_ten",
    "resolved",
    "rounded",
    "run_table",
    "seed_label",
    "suite_of",
    "sweep_table",
]

Floats = NDArray[np.float64]
Strings = NDArray[np.object_]


@dataclass(frozen=True)
class Skipped:
    """Rows of one table that a rule left out: which and why."""

    table: str
    reason: str
    names: tuple[str, ...]
    """The rows by name, or "row 12" where a table has no names."""

    @property
    def count(self) -> int:
        return len(self.names)


@dataclass(frozen=True)
class Missing:
    """An optional table that the data folder does not hold."""

    table: str
    needed_for: str
    how: str


@dataclass(frozen=True, eq=False)
class RunTable:
    """Training runs, one row each, in file order. All arrays have shape [n]."""

    name: Strings
    suite: Strings
    """Display name of the suite."""
    seed: Strings
    """Seed label: digits, or "default"."""
    held_out: NDArray[np.bool_]
    """True for a held-out compute-optimal run, False for a run of an IsoFLOP sweep."""
    finished: NDArray[np.bool_]
    params: Floats
    tokens: Floats
    loss: Floats
    """Of the study's metric."""
    compute: Floats
    """FLOPs as measured."""
    bucket: Floats
    """Compute budget in FLOPs, by the study's rule; a held-out run's nominal budget."""
    definition: Definition = field(default_factory=delphi)

    def __len__(self) -> int:
        return len(self.name)

    def where(self, keep: NDArray[np.bool_]) -> RunTable:
        """The rows where ``keep`` (bool [n]) is True."""
        columns = [column for column in self.__dataclass_fields__ if column != "definition"]
        return replace(self, **{column: getattr(self, column)[keep] for column in columns})


@dataclass(frozen=True, eq=False)
class SweepTable:
    """Finished trials of the hyper-parameter sweep, one row each. All arrays have shape [n], unless said."""

    design: SweepDesign
    batch_size: NDArray[np.int64]
    hidden_dim: NDArray[np.int64]
    horizon: Strings
    """Key of the token horizon; None for a trial beyond the last."""
    features: Floats
    """[n, F] hyper-parameters in the order of the design, original units."""
    loss: Floats

    def __len__(self) -> int:
        return len(self.loss)


@dataclass(frozen=True, eq=False)
class EvalTable:
    """Downstream evaluations of the study's own runs, in the order that the rules ask for. Shape [n]."""

    task: Task
    shot: NDArray[np.int64]
    """Number of in-context examples; for a task with one shot count, that count."""
    budget: Floats
    """Nominal compute budget, FLOPs."""
    soft: Floats
    """Soft metric as a loss, positive and falling with compute: say -log p(correct), or bits per byte."""
    hard: Floats
    """Share of problems solved, in [0, 1]; NaN where it was not measured."""


@dataclass(frozen=True, eq=False)
class ExternalTable:
    """Downstream evaluations of external models, in file order. Shape [n]."""

    task: Task
    name: Strings
    """Name as readers know it from the model card."""
    soft: Floats
    hard: Floats


@dataclass(frozen=True, eq=False, repr=False)
class Study:
    """Everything that one data folder holds, checked, derived and ready to be fitted."""

    runs: RunTable
    """After grid matching; crashed runs are still here, flagged by ``finished``."""
    sweep: SweepTable | None
    evals: dict[str, EvalTable]
    """By task key (see :mod:`delphi_jax.tasks`); a task without a cache has no entry."""
    externals: dict[str, ExternalTable]
    skipped: tuple[Skipped, ...]
    missing: tuple[Missing, ...]
    source: str
    """The folder or files that the study was read from."""
    definition: Definition = field(default_factory=delphi)
    """With its targets and its divide, and with the suites that the tables name."""

    def __repr__(self) -> str:
        trials = "no sweep" if self.sweep is None else f"{len(self.sweep)} trials of a sweep"
        tasks = ", ".join(self.evals) or "none"
        left_out = sum(part.count for part in self.skipped)
        return (
            f"Study {self.definition.name!r} from {self.source}: {len(self.runs)} runs, {trials}, tasks: {tasks}, "
            f"{left_out} rows left out"
        )


def suite_of(definition: Definition, name: str, value: str | None = None) -> str | None:
    """Label of the suite of a run, from ``value`` in its suite column, if it has one, and its name.

    None for a run that is to be left out.
    """
    if value is not None:
        for rule in definition.suites:
            if value == rule.label or value in rule.values:
                return rule.label
        if not definition.suites:
            return value
    if not definition.suites:
        return definition.name
    for rule in definition.suites:
        if _has_part(name, rule.match):
            return rule.label
    return definition.unmatched_suite or None


def seed_label(rule: SeedRule, name: str) -> str:
    """The digits between the rule's prefix and suffix in a run's name, else "default"."""
    place = name.find(rule.prefix)
    while place >= 0:
        start = end = place + len(rule.prefix)
        while end < len(name) and name[end] in "0123456789":
            end += 1
        if end > start and name.startswith(rule.suffix, end):
            return name[start:end]
        place = name.find(rule.prefix, place + 1)
    return "default"


def rounded(compute: float, digits: int) -> float:
    """``compute`` rounded to significant digits.

    By way of decimal text, which is correctly rounded; scaling by a power of ten and back is not.
    """
    return float(f"{compute:.{digits - 1}e}")


def is_one_of(cell: Value | None, values: Sequence[Value]) -> bool:
    """Whether a cell holds one of ``values``: text in any case, numbers and true or false also as text."""
    return any(_equal(cell, value) for value in values)


def _equal(cell: Value | None, value: Value) -> bool:
    if isinstance(cell, bool) or isinstance(value, bool):
        return _truth(cell) is not None and _truth(cell) == _truth(value)
    if isinstance(cell, str) and not isinstance(value, str):
        try:
            return float(cell) == value
        except ValueError:
            return False
    if isinstance(cell, str) and isinstance(value, str):
        return cell.strip().lower() == value.strip().lower()
    return cell is not None and cell == value


def _truth(cell: Value | None) -> bool | None:
    if isinstance(cell, str):
        return {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}.get(cell.strip().lower())
    return bool(cell) if cell in (0, 1) else None


def _has_part(name: str, parts: Sequence[str]) -> bool:
    lower = name.lower()
    return any(part.lower() in lower for part in parts)


def run_table(
    name: Strings,
    params: Floats,
    tokens: Floats,
    loss: Floats,
    compute: Floats,
    *,
    definition: Definition | None = None,
    budget: Floats | None = None,
    labels: Mapping[str, Strings] | None = None,
) -> tuple[RunTable, list[Skipped]]:
    """Raw columns [n] to tidy runs in the same order, by the rules of ``definition`` (Delphi's), and those left out.

    ``compute`` in FLOPs, ``budget`` where a table has its own. ``labels`` are the columns of text, each with None where
    nothing is known: "state" (no state is finished), "suite", "held_out" (True or False) and "seed".
    """
    definition = definition or delphi()
    n, held_rule = len(name), definition.held_out
    none = np.full(n, None, dtype=object)
    state, suite, flag, seed = ((labels or {}).get(key, none) for key in ("state", "suite", "held_out", "seed"))
    nominal = np.array(
        [rounded(value, definition.budgets.digits) for value in _given(budget, compute)], dtype=np.float64
    )
    by_name = np.array([_has_part(text, held_rule.match) for text in name], dtype=np.bool_)
    above = nominal > (held_rule.above or math.inf)
    held_out = by_name | above | np.array([value is True for value in flag], dtype=np.bool_)
    runs = RunTable(
        name=name,
        suite=_strings([suite_of(definition, text, value) for text, value in zip(name, suite, strict=True)]),
        seed=_strings([value or seed_label(definition.seeds, text) for text, value in zip(name, seed, strict=True)]),
        held_out=held_out,
        finished=np.array([text is None or is_finished(text) for text in state], dtype=np.bool_),
        params=params,
        tokens=tokens,
        loss=loss,
        compute=compute,
        bucket=np.where(held_out, _held_out_budgets(definition, nominal, compute), nominal),
        definition=definition,
    )
    listed = definition.budgets
    if listed.values:
        nearest = nearest_budgets(listed, _given(budget, compute))
        runs = replace(runs, bucket=np.where(held_out, runs.bucket, nearest))
    left_out = []
    for value in dict.fromkeys(suite[np.equal(runs.suite, None)].tolist()):
        unmatched = np.equal(runs.suite, None) & np.equal(suite, value)
        given = "" if value is None else f"the value {shown(value)} of its suite column, nor "
        suite = suite[~unmatched]
        runs, part = _leave_out(runs, unmatched, f"no suite takes {given}it by its name")
        left_out.append(part)
    away = f"compute not within {100 * listed.tolerance:g} % of a listed budget"
    runs, no_budget = _leave_out(runs, np.isnan(runs.bucket), away)
    return runs, [part for part in (*left_out, no_budget) if part is not None]


def _given(budget: Floats | None, compute: Floats) -> list[float]:
    return (compute if budget is None else np.where(np.isnan(budget), compute, budget)).tolist()


def nearest_budgets(budgets: Budgets, compute: Sequence[float]) -> Floats:
    """The listed budget nearest to each ``compute`` [n] by ratio; NaN where none lies within the tolerance."""
    values, compute = np.array(budgets.values), np.asarray(compute, dtype=np.float64)
    nearest = values[np.abs(np.log(compute[:, None] / values)).argmin(axis=1)]
    return np.where(np.abs(compute / nearest - 1) <= budgets.tolerance, nearest, np.nan)


def _held_out_budgets(definition: Definition, rounded_compute: Floats, compute: Floats) -> Floats:
    """Nominal budgets [n] of held-out runs, FLOPs."""
    if definition.held_out.nominal == "digits":
        return rounded_compute
    return np.array([power_of_ten(value) for value in compute.tolist()], dtype=np.float64)


def power_of_ten(compute: float) -> float:
    """The power of ten nearest to ``compute`` on a logarithmic scale, FLOPs."""
    return float(f"1e{round(math.log10(compute))}")


def resolved(definition: Definition, runs: RunTable) -> Definition:
    """``definition`` with what it leaves to the tables: suites that only these name, targets, the divide."""
    declared = {rule.label for rule in definition.suites} | {definition.unmatched_suite}
    named = sorted(set(runs.suite.tolist()) - declared)
    suites = (*definition.suites, *(SuiteRule(label) for label in named))
    swept, held = runs.bucket[~runs.held_out], runs.bucket[runs.held_out]
    targets, held_rule = definition.targets, definition.held_out
    if not targets and swept.size:
        first = math.floor(math.log10(swept.max())) + 1
        targets = tuple(float(f"1e{first + i}") for i in range(3))
    beyond = held[held > swept.max()] if swept.size else held
    if held_rule.divide is None and swept.size and beyond.size:
        held_rule = replace(held_rule, divide=math.sqrt(float(swept.max()) * float(beyond.min())))
    return replace(definition, suites=suites, targets=targets, held_out=held_rule)


def is_finished(state: str | None) -> bool:
    """Whether a state, in any case, is "finished"."""
    return state is not None and state.strip().lower() == "finished"


def match_grids(runs: RunTable) -> tuple[RunTable, list[Skipped]]:
    """Leave out IsoFLOP runs whose (params to the nearest 1e6, bucket) the suite of their suite's grid did not measure.

    Only where both suites have IsoFLOP runs: with one suite there is nothing to match. A crashed run is no
    measurement, so it does not put its cell on the grid. Held-out runs are untouched.
    """
    skipped = []
    for rule in runs.definition.suites:
        runs, left_out = _on_grid(runs, rule) if rule.grid_of else (runs, None)
        skipped += [left_out] if left_out is not None else []
    return runs, skipped


def _on_grid(runs: RunTable, rule: SuiteRule) -> tuple[RunTable, Skipped | None]:
    isoflop = ~runs.held_out
    reference = isoflop & runs.finished & (runs.suite == rule.grid_of)
    matched = isoflop & (runs.suite == rule.label)
    if not (reference.any() and matched.any()):
        return runs, None
    cells = list(zip(np.round(runs.params / 1e6).tolist(), runs.bucket.tolist(), strict=True))
    grid = {cells[i] for i in np.flatnonzero(reference)}
    off_grid = matched & np.array([cell not in grid for cell in cells], dtype=np.bool_)
    return _leave_out(runs, off_grid, f"(params, compute budget) not among the IsoFLOP runs of the {rule.grid_of}")


def fit_runs(runs: RunTable) -> tuple[RunTable, Skipped | None]:
    """The IsoFLOP runs that enter the parabolas, and those left out because they did not finish."""
    isoflop = runs.where(~runs.held_out)
    return _leave_out(isoflop, ~isoflop.finished, "did not finish: no measurement for the IsoFLOP fits")


def _leave_out(runs: RunTable, drop: NDArray[np.bool_], reason: str) -> tuple[RunTable, Skipped | None]:
    if not drop.any():
        return runs, None
    return runs.where(~drop), Skipped("runs", reason, tuple(runs.name[drop]))


def sweep_table(
    design: SweepDesign, batch_size: Floats, hidden_dim: Floats, tokens: Floats, loss: Floats, features: Floats
) -> SweepTable:
    """Raw columns [n] of finished trials to a tidy sweep; ``features`` [n, F] in the order of ``design``."""
    return SweepTable(
        design=design,
        batch_size=np.round(batch_size).astype(np.int64),
        hidden_dim=np.round(hidden_dim).astype(np.int64),
        horizon=_strings([design.horizon_of(value) for value in tokens.tolist()]),
        features=features,
        loss=loss,
    )


def eval_table(task: Task, budget: Floats, soft: Floats, hard: Floats, shot: Floats | None) -> EvalTable:
    """Raw columns [n] of one task to evaluations ordered by shot, then budget; ties keep their order.

    ``soft`` is as cached (see :class:`Task`); ``shot`` is None for a task with one shot count.
    """
    shots = np.full(len(budget), task.shots) if shot is None else shot
    order = np.lexsort((budget, shots))
    return EvalTable(
        task=task,
        shot=shots[order].astype(np.int64),
        budget=budget[order],
        soft=task.soft_sign * soft[order],
        hard=hard[order],
    )


def _strings(items: Sequence[str | None]) -> Strings:
    out = np.empty(len(items), dtype=object)
    out[:] = items
    return out
