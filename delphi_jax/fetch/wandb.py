"""Runs of a W&B project as a table, by W&B's own client."""

from __future__ import annotations

import importlib.metadata
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from delphi_jax.checked import has_suffix
from delphi_jax.definition import Definition, RunSource, delphi
from delphi_jax.fetch.addresses import public_url
from delphi_jax.fetch.client import RETRIES, TIMEOUT, Progress, ask, no_progress, refuse, require
from delphi_jax.fetch.columns import ColumnMap, json_table, quoted, table_type
from delphi_jax.fetch.snapshot import Check, Fetched, Snapshot, Source, check_local, open_folder
from delphi_jax.io.study import find_definition
from delphi_jax.schema import LABEL, TEXT, VALUE, Range, Schema
from delphi_jax.status import InputError
from delphi_jax.text import shown

__all__ = ["DEFAULT_KEYS", "check_wandb", "fetch_wandb"]

DEFAULT_KEYS: Mapping[str, str] = {
    "name": "run:name",
    "params": "summary:parameter_count",
    "tokens": "summary:throughput/total_tokens",
    "loss": "summary:eval/paloma/macro_loss",
    "flops": "summary:throughput/total_gflops",
    "state": "run:state",
}
"""Where runs keep what a table of runs holds, by our names of its columns: as Marin's do; the loss is Delphi's."""

_UNIT = 1e9
"""FLOPs in one unit of that compute: it stands for no column in another unit."""
_PER_PAGE = 100
_KEYS_SHOWN = 12
_LONGEST_WAIT = 60
"""Seconds between two tries, at most."""
_ATTRIBUTES = ("created_at", "group", "heartbeat_at", "id", "job_type", "name", "state")
_TYPES: Mapping[str, tuple[tuple[type, ...], str]] = {
    "number": ((int, float), "a number"),
    TEXT: ((str,), "text"),
    LABEL: ((str,), "text"),
    VALUE: ((str, bool, int, float), "text, a number, true or false"),
}
_NUMBERS = {"NaN": float("nan"), "Infinity": float("inf"), "-Infinity": float("-inf")}
"""How W&B writes in JSON what JSON has no number for, such as the loss of a run that diverged."""


@dataclass(frozen=True)
class _Project:
    """What a project's filtered runs hold."""

    server: str
    rows: list[dict[str, Any]]
    state: dict[str, Any]
    """The number of runs and the last heartbeat: what tells later whether there is more."""
    keys: list[str]
    """Keys that its first runs have."""


def fetch_wandb(
    project: str,
    out: Path,
    *,
    filters: Mapping[str, Any] | None = None,
    columns: ColumnMap | None = None,
    study: Path | Definition | None = None,
    per_page: int = _PER_PAGE,
    timeout: float = TIMEOUT,
    progress: Progress = no_progress,
) -> Snapshot:
    """Fetch the runs of the project ``ENTITY/PROJECT`` as one table into the folder ``out``.

    ``filters`` are W&B's (as of MongoDB); ``columns`` names the key of each column as ``summary:KEY``,
    ``config:KEY`` or ``run:name``, over :data:`DEFAULT_KEYS` and over the names that the study gives its columns;
    ``study`` says what the study's tables are: by default ``study.toml`` of ``out``, else the Delphi study. Runs
    without a value keep null there, and are counted in ``Table.missing``. Raises ValueError for a name or key that
    is none, InputError where the runs cannot be had, not all of them came, or a value is of the wrong kind; ``out``
    is then as it was.
    """
    source = _source(project)
    definition = find_definition(Path(out), study)
    columns = _selectors(columns or ColumnMap(), definition)
    schema = _schema(columns, definition)
    require("wandb", "wandb", "from W&B")
    with open_folder(Path(out)) as folder:
        found = _project(source, columns, schema, dict(filters or {}), per_page, timeout, progress)
        _require_keys(source, columns, schema, found)
        table = json_table(found.rows, schema, str(source))
        query = {"server": found.server, "filters": dict(filters or {}), "columns": dict(columns.sources)}
        fetched = Fetched(table, "runs", query, found.state)
        return folder.replace(source, [fetched], f"wandb {importlib.metadata.version('wandb')}")


def check_wandb(project: str, out: Path, *, timeout: float = TIMEOUT) -> Check:
    """Whether the project has other runs now than the snapshot in ``out``: their number, and the last heartbeat.

    What was edited in a run that had ended shows in neither: only fetching again tells. Raises InputError where
    ``out`` holds no such snapshot, or not as it was fetched, and as :func:`fetch_wandb`.
    """
    source = _source(project)
    records = check_local(Path(out), source)
    require("wandb", "wandb", "from W&B")
    changes = []
    compared = ""
    for table, record in records.items():
        then = record["revision"]
        count, last = ask(
            source, _request(source, record["query"]["filters"], timeout, latest=True), _settings(timeout)
        )
        now = {"runs": count["runs"], "updated": last["updated"]}
        compared = f"{now['runs']} runs, the last heartbeat {quoted(now['updated'])}"
        if now != then:
            changes.append(
                f"{table}: {now['runs']} runs and last heartbeat {quoted(now['updated'])}, "
                f"{then['runs']} and {quoted(then['updated'])} then"
            )
    return Check(Path(out), source, tuple(changes), compared)


def _source(project: str) -> Source:
    if not re.fullmatch(r"[\w.-]+/[\w. -]+", project):
        raise ValueError(f"{project!r} is no project: expected ENTITY/PROJECT")
    return Source("wandb", project)


def _schema(columns: ColumnMap, definition: Definition) -> Schema:
    """Of a table that is read as one thing and can be kept as JSON; raises ValueError for another."""
    schema, *others = columns.schemas(definition)
    if others or (has_suffix(columns.table) and table_type(columns.table) != "json"):
        raise ValueError(
            f"{columns.table} is read as {len(others) + 1} tables: runs make one"
            if others
            else f"the study reads {columns.table}, and runs come as JSON: name the table there without its suffix"
        )
    return schema


def _selectors(columns: ColumnMap, definition: Definition) -> ColumnMap:
    """``columns`` over the defaults of its table, each checked."""
    schema = _schema(columns, definition)
    for column, selector in columns.sources.items():
        kind, _, key = selector.partition(":")
        if kind not in ("summary", "config", "run") or not key or (kind == "run" and key not in _ATTRIBUTES):
            attributes = ", ".join(f"run:{name}" for name in _ATTRIBUTES)
            raise ValueError(f"{selector!r} for {column}: expected summary:KEY, config:KEY or one of {attributes}")
    columns = replace(columns, sources={**_defaults(columns.table, schema, definition), **columns.sources})
    if absent := [column for column in schema.must_have if column not in columns.sources]:
        raise ValueError(f"the keys of {', '.join(absent)} are not named: give a summary:KEY, config:KEY or run:state")
    return columns


def _defaults(table: str, schema: Schema, definition: Definition) -> dict[str, str]:
    """The keys that need no naming, by the columns of a table of runs; none for another table."""
    for source in definition.runs:
        if table in source.files:
            keys = {source.columns.get(ours, ours): _default(ours, source, definition) for ours in DEFAULT_KEYS}
            return {column: key for column, key in keys.items() if key and column in schema.columns}
    return {}


def _default(ours: str, source: RunSource, definition: Definition) -> str:
    """The key of one of our columns: a study that calls it otherwise than Delphi means the key of that name.

    Nothing for a loss that may be another metric than Delphi's, and for FLOPs in another unit.
    """
    theirs = source.columns.get(ours, ours)
    if ours not in ("name", "state") and theirs not in (ours, delphi().runs[0].columns.get(ours, ours)):
        return f"summary:{theirs}"
    other_metric = ours == "loss" and definition.metric != delphi().metric
    other_unit = ours == "flops" and source.flops_unit != _UNIT
    return "" if other_metric or other_unit else DEFAULT_KEYS[ours]


def _request(source: Source, filters: Mapping[str, Any], timeout: float, **more: Any) -> dict[str, Any]:
    return {
        "client": "wandb",
        "project": source.name,
        "filters": dict(filters),
        "timeout": timeout,
        # The client's own tries and waits end before this does.
        "patience": (RETRIES + 1) * (timeout + _LONGEST_WAIT),
        "latest": False,
        **more,
    }


def _settings(timeout: float) -> dict[str, str]:
    return {
        "WANDB_SILENT": "true",
        "WANDB_CONSOLE": "off",
        "WANDB_ERROR_REPORTING": "false",
        "WANDB_DIR": "{scratch}",
        "WANDB_CACHE_DIR": "{scratch}",
        "WANDB_DATA_DIR": "{scratch}",
        "WANDB_HTTP_TIMEOUT": str(max(1, round(timeout))),
        "WANDB__GRAPHQL_RETRY_MAX": str(RETRIES),
        "WANDB__GRAPHQL_RETRY_WAIT_MAX_SECONDS": str(_LONGEST_WAIT),
    }


def _project(
    source: Source,
    columns: ColumnMap,
    schema: Schema,
    filters: Mapping[str, Any],
    per_page: int,
    timeout: float,
    progress: Progress,
) -> _Project:
    selectors = list(columns.sources.values())
    request = _request(source, filters, timeout, per_page=per_page, selectors=selectors)
    total, server = 0, ""
    keys: list[str] = []
    rows: dict[str, dict[str, Any]] = {}
    updates: list[str] = []
    for message in ask(source, request, _settings(timeout)):
        if "runs" in message:
            total, server = message["runs"], public_url(message["server"])
        elif "keys" in message:
            keys = message["keys"]
        elif message["id"] in rows:
            refuse(source, "half", f"run {message['id']} came twice")
        else:
            rows[message["id"]] = _row(source, columns, schema, message)
            updates += [message["updated"]] if message["updated"] else []
            progress(len(rows), total)
    if not total:
        raise InputError(f"{source}: no run passes the filter; check it" if filters else f"{source}: has no runs")
    if len(rows) != total:
        refuse(source, "half", f"{len(rows)} of {total} runs")
    state = {"runs": total, "updated": max(updates, default=None)}
    return _Project(server, list(rows.values()), state, keys)


def _require_keys(source: Source, columns: ColumnMap, schema: Schema, project: _Project) -> None:
    """Raise InputError where no run has a value for a column that must be there."""
    for column in schema.must_have:
        if all(row[column] is None for row in project.rows):
            there = ", ".join(quoted(key) for key in project.keys[:_KEYS_SHOWN])
            more = f" and {len(project.keys) - _KEYS_SHOWN} more" if len(project.keys) > _KEYS_SHOWN else ""
            raise InputError(
                f"{source}: no run has {columns.sources[column]} for {column}; runs have {there or 'no key'}{more}. "
                f"Name the key with --column {column}=summary:KEY"
            )


def _row(source: Source, columns: ColumnMap, schema: Schema, message: Mapping[str, Any]) -> dict[str, Any]:
    row = {}
    for column, selector in columns.sources.items():
        value = message["values"][selector]
        if selector == "run:name" and not (value or "").strip():
            value = message["id"]
        kind = schema.columns[column]
        if isinstance(kind, Range) and isinstance(value, str):
            value = _NUMBERS.get(value, value)
        types, expected = _TYPES["number" if isinstance(kind, Range) else kind]
        if value is not None and (not isinstance(value, types) or (isinstance(value, bool) and bool not in types)):
            raise InputError(
                f"{source}: run {quoted(message['name'])} ({quoted(message['id'])}) has {shown(value)} as {selector} "
                f"for {column}, expected {expected}; name another key with --column, or leave the run out with --filter"
            )
        row[column] = value
    return row
