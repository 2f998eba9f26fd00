"""One data folder, or single files, to a checked :class:`~delphi_jax.tables.Study`."""

from __future__ import annotations

import math
import os
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from delphi_jax.checked import TABLE_SUFFIXES, Value, has_suffix, table_file
from delphi_jax.definition import RUN_COLUMNS, Definition, HeldOutRule, RunSource, delphi
from delphi_jax.heuristics import SweepDesign
from delphi_jax.io.definition import STUDY_FILE, is_shipped, read_definition
from delphi_jax.io.files import Fault, RawTable, objects, read_table, refuse
from delphi_jax.model_names import model_name
from delphi_jax.schema import Range, Schema, evals_schema, externals_schema, runs_schema, sweep_schema
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
    is_one_of,
    match_grids,
    resolved,
    run_table,
    sweep_table,
)
from delphi_jax.tasks import Task
from delphi_jax.text import shown

__all__ = ["TABLES", "find_definition", "find_folder", "load_study"]

TABLES = ("runs", "sweep", "tasks")
"""Kinds of tables."""


def load_study(
    data: Path | None = None,
    *,
    study: Path | Definition | None = None,
    runs: Path | None = None,
    sweep: Path | None = None,
    tables: Collection[str] | None = None,
) -> Study:
    """Read the tables of a study (methods, section 1), check them and derive the tidy ones.

    ``data`` is the folder of the tables, ``.json``, ``.csv`` or ``.parquet``: by default that of the file ``study``,
    else, without a single file, ``data``. ``study`` says what the study is, as a study file or the name of a shipped
    study: by default ``study.toml`` of the folder, or of the single file's, else the Delphi study. ``runs`` and
    ``sweep`` are single files that stand in for those of the folder; ``tables`` names the kinds of tables to read, all
    of :data:`TABLES` by default. Rows that a rule leaves out are counted in ``Study.skipped``, optional tables that are
    not there in ``Study.missing``.

    Raises InputError where the study file or a table that is there cannot be used, or runs are missing, ValueError for
    an unknown kind in ``tables``.

    Examples:

    >>> import delphi_jax as dj
    >>> study = dj.load_study("data")
    >>> len(study.runs), sorted(study.evals)
    (235, ['gsm8k', 'humaneval', 'mmlu'])
    >>> [skipped.count for skipped in study.skipped]
    [3, 35, 3]
    """
    runs, sweep = (None if path is None else Path(path) for path in (runs, sweep))
    data = find_folder(data, study, alone=runs is not None or sweep is not None)
    definition = find_definition(data, study, runs or sweep)
    asked = set(TABLES) if tables is None else set(tables)
    if unknown := asked - set(TABLES):
        raise ValueError(f"unknown tables {sorted(unknown)}, expected some of {list(TABLES)}")
    if data is not None and not data.is_dir():
        if data.exists():
            raise InputError(f"{data}: is a file, expected a folder of tables; give a single runs file instead of it")
        if runs is None and sweep is None:
            raise InputError(
                f"{data}: no such folder; give the folder that holds {table_file(definition.runs[0].files[0])}"
            )

    skipped: list[Skipped] = []
    missing: list[Missing] = []
    run_rows = run_table(*[np.empty(0, dtype=object), *[np.empty(0)] * 4], definition=definition)[0]
    if "runs" in asked:
        run_rows, left_out = _runs(data, runs, definition)
        skipped += left_out
    found: dict[_Part, RawTable] = {}
    raws = {}
    for part, schema in _other_schemas(definition, asked).items():
        path = (sweep if part[0] == "sweep" else None) or _find(data, schema.table)
        if path is None:
            missing.append(Missing(schema.table, schema.needed_for, _how(data, schema, schema.table)))
        else:
            raws[part] = read_table(path, schema)
    for part, raw in raws.items():
        table, left_out = _usable(raw, _told(raw, [other for other in raws.values() if other.path == raw.path]))
        skipped += left_out
        if len(table):
            found[part] = table
        else:
            how = f"{raw.path} is there, but no row of it can be used: complete the rows that were skipped"
            missing.append(Missing(raw.schema.table, raw.schema.needed_for, how))
    definition = resolved(definition, run_rows)
    design = definition.sweep
    given = [f"{name} from {path}" for name, path in (("runs", runs), (design and design.table, sweep)) if path]
    return Study(
        runs=replace(run_rows, definition=definition),
        sweep=_sweep(found["sweep", ""], design) if design is not None and ("sweep", "") in found else None,
        evals={
            task.key: _evals(found["evals", task.key], task)
            for task in definition.tasks
            if ("evals", task.key) in found
        },
        externals={
            task.key: _externals(found["externals", task.key], task)
            for task in definition.tasks
            if ("externals", task.key) in found
        },
        skipped=tuple(skipped),
        missing=tuple(missing),
        source=", ".join([*([str(data)] if data is not None else []), *given]),
        definition=definition,
    )


def find_folder(data: Path | None, study: Path | Definition | None, *, alone: bool = False) -> Path | None:
    """The folder of a study's tables; None where single files stand ``alone``."""
    if data is not None:
        return Path(data)
    if isinstance(study, (str, Path)) and not is_shipped(study):
        return Path(study).parent
    return None if alone else Path("data")


def find_definition(data: Path | None, study: Path | Definition | None, single: Path | None = None) -> Definition:
    """What is said of the study: by ``study``, else by the study file of the folder ``data``, else Delphi's.

    Without ``data`` the folder is that of the file ``single``.
    """
    if isinstance(study, Definition):
        return study
    if study is not None:
        return read_definition(Path(study))
    folder = single.parent if data is None and single is not None else data
    if folder is not None and os.path.lexists(path := folder / STUDY_FILE):
        return read_definition(path)
    return delphi()


_Part = tuple[str, str]
"""Sweep, evaluations or externals, and the key of the task."""


def _other_schemas(definition: Definition, kinds: Collection[str]) -> dict[_Part, Schema]:
    """Of the tables of some ``kinds``, beside the runs."""
    schemas: dict[_Part, Schema] = {}
    if "sweep" in kinds and definition.sweep is not None:
        schemas["sweep", ""] = sweep_schema(definition.sweep)
    for task in definition.tasks if "tasks" in kinds else ():
        schemas["evals", task.key] = evals_schema(task)
        schemas["externals", task.key] = externals_schema(task)
    return schemas


def _told(raw: RawTable, sharing: Sequence[RawTable]) -> NDArray[np.bool_] | None:
    """Where [n] a row of a file that several tables are ``sharing`` is one of another, or said by the first of them.

    None for a file that is one table.
    """
    if len(sharing) == 1:
        return None
    if raw is not sharing[0]:
        return np.ones(len(raw), dtype=np.bool_)
    counted = [[reason is None for reason in table.unwanted()] for table in sharing]
    return np.any(counted, axis=0)


def _find(data: Path | None, name: str) -> Path | None:
    """The one file of a table in the folder, or None; ``name`` with a suffix is that file."""
    if data is None:
        return None
    names = [name] if has_suffix(name) else [f"{name}{suffix}" for suffix in TABLE_SUFFIXES]
    # lexists: a broken link is a file that cannot be read, not an absent one.
    paths = [path for each in names if os.path.lexists(path := data / each)]
    if len(paths) > 1:
        names = ", ".join(path.name for path in paths)
        raise InputError(f"{data}: holds {names} for one table; keep the one that counts and move the others away")
    return paths[0] if paths else None


def _how(data: Path | None, schema: Schema, name: str) -> str:
    place = "a data folder" if data is None else str(data)
    files = name if has_suffix(name) else f"{name}.json, .csv or .parquet"
    return f"put {files} with the columns {', '.join(schema.must_have)} into {place}"


def _usable(raw: RawTable, told: NDArray[np.bool_] | None = None) -> tuple[RawTable, list[Skipped]]:
    """The rows that can be used, and those that a rule leaves out.

    Ranges are checked on what the rules keep: a crashed trial, say, needs no sound numbers. Of the rows that the
    filter of ``raw`` leaves out, those where ``told`` (bool [n]) is True are said elsewhere.
    """
    skipped: list[Skipped] = []
    if told is not None:
        untold = raw.where(~told)
        _leave_out(untold, untold.unwanted(), skipped)
        raw = raw.counted()
    for rule in (RawTable.unwanted, _unfinished, _incomplete, _diverged, _in_house):
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
    column = raw.schema.finished
    if not column:
        return [None] * len(raw)
    return [
        None if is_finished(state) else f"{column} is {shown(state or None)}, not finished"
        for state in raw.columns[column]
    ]


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
    if not raw.schema.in_house:
        return [None] * len(raw)
    return [_in_house_reason(name, raw.schema.in_house) for name in raw.columns[raw.schema.names[0]]]


def _in_house_reason(name: str | None, parts: Collection[str]) -> str | None:
    found = next((part for part in parts if name and part.lower() in name.lower()), None)
    return None if found is None else f"in-house run by its name ({found}), not an external model"


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


def _runs(data: Path | None, single: Path | None, definition: Definition) -> tuple[RunTable, list[Skipped]]:
    """The runs of all files, or of ``single`` instead of them, after grid matching."""
    sources = [(source, file) for source in definition.runs for file in source.files]
    if single is not None:
        if len(definition.runs) > 1:
            raise InputError(
                f"{single}: the study {shown(definition.name)} has runs in {len(definition.runs)} layouts: one file "
                "cannot stand for them; give the folder of its tables"
            )
        sources = sources[:1]
    parts: list[_Runs] = []
    skipped: list[Skipped] = []
    seen: set[tuple[object, ...]] = set()
    places: set[tuple[int, Path]] = set()
    for source, file in sources:
        name = file.replace("\\", "/")
        schema = runs_schema(definition, source, str(PurePosixPath(name).with_suffix("")) if has_suffix(name) else name)
        path = single or _find(data, file)
        if path is None:
            raise InputError(f"{data or 'input'}: the table of training runs is missing; {_how(data, schema, file)}")
        if (id(source), path) in places:
            raise InputError(f"{definition.source}: runs.files names {shown(file)} twice; name each file once")
        places.add((id(source), path))
        table, left_out = _usable(read_table(path, schema))
        skipped += left_out
        if not len(table):
            reasons = "; ".join(f"{part.count} left out: {part.reason}" for part in left_out)
            raise InputError(f"{path}: holds no usable row ({reasons}); give runs with every needed value")
        rows = _as_rows(table, _run_columns(table, definition, source))
        again = ["duplicate of a row of an earlier file" if row in seen else None for row in rows]
        table = _leave_out(table, again, skipped)
        seen.update(rows)
        parts.append(_run_columns(table, definition, source))
    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    labels = {name: columns.pop(name) for name in ("state", "suite", "held_out", "seed")}
    runs, left_out = run_table(**columns, labels=labels, definition=definition)
    if not len(runs):
        reasons = "; ".join(f"{part.count} left out: {part.reason}" for part in left_out)
        raise InputError(f"{definition.source}: no run is left ({reasons}); correct the suites, or the budgets")
    runs, off_grid = match_grids(runs)
    return runs, [*skipped, *left_out, *off_grid]


_Runs = dict[str, NDArray[Any]]


def _run_columns(raw: RawTable, definition: Definition, source: RunSource) -> _Runs:
    """The columns of :func:`~delphi_jax.tables.run_table` from one file, [n] each."""
    theirs = {ours: raw.columns.get(source.columns.get(ours, ours)) for ours in RUN_COLUMNS}
    mapped = source.columns
    n, none = len(raw), np.full(len(raw), None, dtype=object)
    params, tokens = theirs["params"], theirs["tokens"]
    budget = theirs["budget"] * source.flops_unit if "budget" in mapped else None
    if source.derive == "flops":
        compute = 6 * params * tokens
    else:
        compute = budget if budget is not None and "flops" not in mapped else theirs["flops"] * source.flops_unit
    if source.derive == "tokens":
        tokens = compute / (6 * params)
    flags = _held_out(raw, mapped["held_out"], definition.held_out) if "held_out" in mapped else none
    return {
        "name": objects(_run_names(raw)),
        "params": params,
        "tokens": tokens,
        "loss": theirs["loss"],
        "compute": compute,
        "budget": np.full(n, np.nan) if budget is None else budget,
        "state": none if theirs["state"] is None else theirs["state"],
        "suite": np.full(n, source.suite, dtype=object) if source.suite else _texts(raw, mapped.get("suite")),
        "held_out": flags,
        "seed": _texts(raw, mapped.get("seed")),
    }


def _as_rows(raw: RawTable, runs: _Runs) -> list[tuple[object, ...]]:
    """What tells each of the ``runs`` of one file from others; a name that was made up for it does not."""
    given = [None if name == place else name for name, place in zip(raw.names(), raw.places.tolist(), strict=True)]
    columns = [column.tolist() for column in {**runs, "name": objects(given)}.values()]
    return [tuple(None if _is_nan(cell) else cell for cell in row) for row in zip(*columns, strict=True)]


def _run_names(raw: RawTable) -> list[str]:
    """Each run by its name, or by its table and place where it has none."""
    pairs = zip(raw.names(), raw.places.tolist(), strict=True)
    return [f"{raw.schema.table} {place}" if name == place else name for name, place in pairs]


def _texts(raw: RawTable, column: str | None) -> NDArray[np.object_]:
    """A column of values as text [n], None where it is not mapped or a cell is empty."""
    cells = [None] * len(raw) if column is None else raw.columns[column].tolist()
    return objects([cell if cell is None else _text(cell) for cell in cells])


def _text(cell: Value) -> str:
    """All digits, and a whole number without its point, as a JSON file and a Parquet file may differ in it."""
    return str(int(cell)) if isinstance(cell, float) and cell.is_integer() else str(cell)


def _held_out(raw: RawTable, column: str, rule: HeldOutRule) -> NDArray[np.object_]:
    """Whether each cell [n] says that its run is held out; None where it is empty."""
    cells = raw.columns[column].tolist()
    if rule.values == (True,):
        faults = [
            Fault(place, column, cell, "true or false; or name the values of held-out runs: held_out.values = [...]")
            for place, cell in zip(raw.places.tolist(), cells, strict=True)
            if cell is not None and not is_one_of(cell, (True, False))
        ]
        if faults:
            raise refuse(raw.path, faults, "Write true or false, or say in the study file what means held out.")
    return objects([None if cell is None else is_one_of(cell, rule.values) for cell in cells])


def _sweep(raw: RawTable, design: SweepDesign) -> SweepTable:
    columns = (design.batch_column, design.hidden_column, design.tokens_column, design.loss_column)
    features = [raw.columns[parameter.column] for parameter in design.hyper_parameters]
    return sweep_table(design, *(raw.columns[column] for column in columns), np.stack(features, axis=-1))


def _evals(raw: RawTable, task: Task) -> EvalTable:
    columns = (task.budget_column, task.soft_column, task.hard_column)
    return eval_table(task, *(raw.columns[column] for column in columns), raw.columns.get(task.shot_column))


def _externals(raw: RawTable, task: Task) -> ExternalTable:
    return ExternalTable(
        task=task,
        name=np.array(list(_external_names(raw, task)), dtype=object),
        soft=task.soft_sign * raw.columns[task.soft_column],
        hard=raw.columns[task.hard_column],
    )


def _external_names(raw: RawTable, task: Task) -> Iterator[str]:
    """Display names: of the display column, or of the evaluation run, the one first that the task says."""
    pairs = zip(raw.columns[task.run_column], raw.columns[task.display_column], strict=True)
    for i, (run, display) in enumerate(pairs, 1):
        from_run = model_name(run) if run and run.strip() else None
        from_display = display if display and display.strip() else None
        names = (from_run, from_display) if task.named_by == "run" else (from_display, from_run)
        yield names[0] or names[1] or f"external model {i}"
