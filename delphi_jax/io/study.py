"""One data folder, or single files, to a checked :class:`~delphi_jax.tables.Study`."""

from __future__ import annotations

import math
import os
from collections.abc import Collection, Iterator
from pathlib import Path

import numpy as np

from delphi_jax.heuristics import FEATURES
from delphi_jax.io.files import READERS, Fault, RawTable, read_table, refuse
from delphi_jax.model_names import model_name
from delphi_jax.schema import SCHEMAS, SWEEP_LOSS_COLUMN, Range, Schema
from delphi_jax.status import InputError
from delphi_jax.tables import (
    EvalTable,
    ExternalTable,
    Missing,
    RunTable,
    Skipped,
    Study,
    SweepTable,
    eval_table,
    is_finished,
    match_grids,
    run_table,
    sweep_table,
)
from delphi_jax.tasks import MMLU, TASKS, Task

__all__ = ["load_study"]


def load_study(
    data: Path | None = Path("data"),
    *,
    runs: Path | None = None,
    sweep: Path | None = None,
    tables: Collection[str] | None = None,
) -> Study:
    """Read the caches of a study (methods, section 1), check them and derive the tidy tables.

    ``data`` is the folder with ``runs``, ``hparam_sweep``, ``mmlu``, ... as ``.json``, ``.csv`` or
    ``.parquet``; ``runs`` and ``sweep`` are single files that stand in for those of the folder; ``tables``
    names the tables to read, all by default. Rows that a rule leaves out are counted in ``Study.skipped``,
    optional tables that are not there in ``Study.missing``.

    Raises InputError where ``runs`` is missing or a table that is there cannot be used, ValueError for an
    unknown name in ``tables``.
    """
    data, runs, sweep = (None if path is None else Path(path) for path in (data, runs, sweep))
    asked = set(SCHEMAS) if tables is None else set(tables)
    if unknown := asked - set(SCHEMAS):
        raise ValueError(f"unknown tables {sorted(unknown)}, expected some of {list(SCHEMAS)}")
    files = {"runs": runs, "hparam_sweep": sweep}
    if data is not None and not data.is_dir():
        if data.exists():
            raise InputError(f"{data}: is a file, expected a folder of caches; give a single runs file instead of it")
        if not any(files.values()):
            raise InputError(f"{data}: no such folder; give the folder that holds runs.json")

    found: dict[str, RawTable] = {}
    skipped: list[Skipped] = []
    missing: list[Missing] = []
    for name, schema in SCHEMAS.items():
        if name not in asked:
            continue
        path = files.get(name) or _find(data, name)
        if path is None:
            missing.append(Missing(name, schema.needed_for, _how(data, schema)))
            continue
        table, left_out = _usable(read_table(path, schema))
        skipped += left_out
        if len(table):
            found[name] = table
        elif name == "runs":
            reasons = "; ".join(f"{part.count} left out: {part.reason}" for part in left_out)
            raise InputError(f"{path}: holds no usable row ({reasons}); give runs with every needed value")
        else:
            how = f"{path} is there, but no row of it can be used: complete the rows that were skipped"
            missing.append(Missing(name, schema.needed_for, how))
    if "runs" in asked and "runs" not in found:
        raise InputError(f"{data or 'input'}: the table of training runs is missing; {_how(data, SCHEMAS['runs'])}")

    run_rows, off_grid = match_grids(_runs(found.get("runs")))
    if off_grid is not None:
        skipped.append(off_grid)
    given = [f"{name} from {path}" for name, path in files.items() if path is not None]
    return Study(
        runs=run_rows,
        sweep=_sweep(found["hparam_sweep"]) if "hparam_sweep" in found else None,
        evals={key: _evals(found[key], task) for key, task in TASKS.items() if key in found},
        externals={
            key: _externals(found[f"{key}_external"], task) for key, task in TASKS.items() if f"{key}_external" in found
        },
        skipped=tuple(skipped),
        missing=tuple(missing),
        source=", ".join([*([str(data)] if data is not None else []), *given]),
    )


def _find(data: Path | None, name: str) -> Path | None:
    """The one file of a table in the folder, or None."""
    if data is None:
        return None
    # lexists: a broken link is a file that cannot be read, not an absent one.
    paths = [path for suffix in READERS if os.path.lexists(path := data / f"{name}{suffix}")]
    if len(paths) > 1:
        names = ", ".join(path.name for path in paths)
        raise InputError(f"{data}: holds {names} for one table; keep the one that counts and move the others away")
    return paths[0] if paths else None


def _how(data: Path | None, schema: Schema) -> str:
    place = "a data folder" if data is None else str(data)
    columns = ", ".join(schema.must_have)
    return f"put {schema.table}.json, .csv or .parquet with the columns {columns} into {place}"


def _usable(raw: RawTable) -> tuple[RawTable, list[Skipped]]:
    """The rows that can be used, and those that a rule leaves out.

    Ranges are checked on what the rules keep: a crashed trial, say, needs no sound numbers.
    """
    skipped: list[Skipped] = []
    for rule in (_unfinished, _incomplete, _diverged, _in_house):
        raw = _leave_out(raw, rule(raw), skipped)
    _check_ranges(raw)
    return _leave_out(raw, _repeated(raw), skipped), skipped


def _leave_out(raw: RawTable, reasons: list[str | None], skipped: list[Skipped]) -> RawTable:
    """The rows without a reason to leave them out; the others go to ``skipped``, one entry per reason."""
    if not any(reasons):
        return raw
    names: dict[str, list[str]] = {}
    for name, reason in zip(raw.names(), reasons, strict=True):
        if reason:
            names.setdefault(reason, []).append(name)
    skipped += [Skipped(raw.schema.table, reason, tuple(rows)) for reason, rows in names.items()]
    return raw.where(np.array([reason is None for reason in reasons], dtype=np.bool_))


def _unfinished(raw: RawTable) -> list[str | None]:
    if not raw.schema.finished_only:
        return [None] * len(raw)
    return [None if is_finished(state) else "state is not finished" for state in raw.columns["state"]]


def _incomplete(raw: RawTable) -> list[str | None]:
    needed = [column for column, kind in raw.schema.needed.items() if isinstance(kind, Range)]
    absent = np.array([np.isnan(raw.columns[column]) for column in needed])
    return [
        f"missing {', '.join(column for column, is_absent in zip(needed, row, strict=True) if is_absent)}"
        if any(row)
        else None
        for row in absent.T.tolist()
    ]


def _diverged(raw: RawTable) -> list[str | None]:
    if raw.schema.loss is None:
        return [None] * len(raw)
    infinite = np.isposinf(raw.columns[raw.schema.loss])
    return ["infinite loss (a diverged run)" if is_infinite else None for is_infinite in infinite.tolist()]


def _in_house(raw: RawTable) -> list[str | None]:
    if raw.schema.table != f"{MMLU.key}_external":
        return [None] * len(raw)
    reason = "in-house comma-mix run, not an external model"
    return [reason if name and "comma" in name.lower() else None for name in raw.columns["run_name"]]


def _repeated(raw: RawTable) -> list[str | None]:
    columns = [[None if _is_nan(value) else value for value in values.tolist()] for values in raw.columns.values()]
    seen: set[tuple[object, ...]] = set()
    reasons: list[str | None] = []
    for row in zip(*columns, strict=True):
        reasons.append("duplicate of an earlier row" if row in seen else None)
        seen.add(row)
    return reasons


def _is_nan(value: object) -> bool:
    return isinstance(value, float) and math.isnan(value)


def _check_ranges(raw: RawTable) -> None:
    faults = []
    for column, kind in raw.schema.columns.items():
        if isinstance(kind, Range):
            values = raw.columns[column]
            wrong = ~(kind.holds(values) | np.isnan(values))
            faults += [
                (int(i), Fault(raw.places[i], column, float(values[i]), kind.words)) for i in np.flatnonzero(wrong)
            ]
    if faults:
        in_order = [fault for _, fault in sorted(faults, key=lambda entry: entry[0])]
        remedy = "The table is wrong there: correct these values, or set to null what was not measured."
        raise refuse(raw.path, in_order, remedy)


def _runs(raw: RawTable | None) -> RunTable:
    if raw is None:
        none = np.empty(0)
        return run_table(none.astype(object), none, none, none, none, none.astype(object))
    columns = ("name", "params", "tokens", "loss", "total_gflops", "state")
    return run_table(*(raw.columns[column] for column in columns))


def _sweep(raw: RawTable) -> SweepTable:
    return sweep_table(
        *(raw.columns[column] for column in ("batch_size", "hidden_dim", "tokens", SWEEP_LOSS_COLUMN)),
        features={feature: raw.columns[feature] for feature in FEATURES},
    )


def _evals(raw: RawTable, task: Task) -> EvalTable:
    soft, hard = raw.columns[task.soft_column], raw.columns[task.hard_column]
    return eval_table(task, raw.columns["budget"], soft, hard, raw.columns.get("shot"))


def _externals(raw: RawTable, task: Task) -> ExternalTable:
    return ExternalTable(
        name=np.array(list(_external_names(raw, task)), dtype=object),
        soft=task.soft_sign * raw.columns[task.soft_column],
        hard=raw.columns[task.hard_column],
    )


def _external_names(raw: RawTable, task: Task) -> Iterator[str]:
    """Display names; the MMLU cache knows its models by the evaluation run, the others by a display name."""
    for i, (run, display) in enumerate(zip(raw.columns["run_name"], raw.columns["display_name"], strict=True), 1):
        from_run = model_name(run) if run and run.strip() else None
        from_display = display if display and display.strip() else None
        names = (from_run, from_display) if task is MMLU else (from_display, from_run)
        yield names[0] or names[1] or f"external model {i}"
