"""``delphi-jax fetch``: runs from W&B, Hugging Face, files and URLs, as a snapshot in a data folder."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from delphi_jax.commands.options import OK, positive, quantity
from delphi_jax.commands.printing import count, print_list, progress_bar
from delphi_jax.status import InputError

if TYPE_CHECKING:
    from delphi_jax.fetch.columns import ColumnMap
    from delphi_jax.fetch.snapshot import Check, Snapshot

__all__ = ["MOVED_ON", "add_parser"]

MOVED_ON = 3
"""Exit code of ``--check`` where the source has moved on."""

_CREDENTIALS = {
    "wandb": "Credentials are the W&B client's: `wandb login`, WANDB_API_KEY or ~/.netrc; WANDB_BASE_URL names another "
    "server.",
    "hf": "Credentials are the Hugging Face client's: `hf auth login` or HF_TOKEN; HF_ENDPOINT names another server.",
    "file": "Credentials of a URL are those in ~/.netrc, or in the URL; they are nowhere kept.",
}


_TABLE_COLUMN = re.compile(r"(?P<table>.+?\.(?:json|csv|parquet)|[^.]+)\.(?P<column>.+)", re.IGNORECASE)
"""A column with its table, whose name may have a suffix."""


def add_parser(commands: Any) -> None:
    """Add the command to the ``commands`` of the parser."""
    fetch = commands.add_parser(
        "fetch",
        help="take runs from W&B, Hugging Face, a file or a URL, and say later whether they have moved on",
        description="Take a study's tables from where they live into a data folder, with their provenance. Everything "
        "after works offline from there. A fetch that fails or is interrupted leaves the folder as it was.",
        epilog=f"The exit code of --check is 0 where nothing has changed, {MOVED_ON} where the source has moved on, 1 "
        "where that cannot be said.",
    )
    sources = fetch.add_subparsers(title="sources", required=True, metavar="SOURCE")

    wandb = _add_source(sources, "wandb", "the runs of a W&B project", _CREDENTIALS["wandb"])
    wandb.add_argument("project", metavar="ENTITY/PROJECT", help="the project")
    _add_table(wandb)
    wandb.add_argument(
        "--filter",
        action="append",
        metavar="FILTER",
        help="only these runs: KEY=VALUE, or W&B's filter as JSON, such as "
        '\'{"config.batch_size": {"$gt": 8}}\'; may be repeated',
    )
    _add_columns(wandb, "the key of a column: NAME=summary:KEY, NAME=config:KEY or NAME=run:name")
    wandb.add_argument("--per-page", type=positive, default=100, metavar="N", help="runs per request (default: 100)")
    wandb.set_defaults(run=_wandb)

    hf = _add_source(sources, "hf", "the tables in a Hugging Face dataset", _CREDENTIALS["hf"])
    hf.add_argument("dataset", metavar="OWNER/DATASET", help="the dataset, such as marin-community/delphi-blog-data")
    hf.add_argument("--revision", metavar="REV", help="branch, tag or commit (default: main)")
    hf.add_argument(
        "--table",
        action="append",
        metavar="TABLE=PATH",
        help="file of a table in the dataset; may be repeated (default: the file of that name, in any folder; a table "
        "that the study names with folders or a suffix has them here too)",
    )
    _add_columns(hf, "the name of a column in the dataset: [TABLE.]NAME=SOURCE; without TABLE, of runs")
    _add_all_columns(hf)
    hf.set_defaults(run=_hf)

    for file_type, what in (("csv", "CSV"), ("parquet", "Parquet"), ("json", "JSON")):
        file = _add_source(sources, file_type, f"a table from a {what} file or URL", _CREDENTIALS["file"])
        file.add_argument("where", metavar="PATH|URL", help="the file, or its http or https URL")
        _add_table(file)
        _add_columns(file, "the name of a column in the file: NAME=SOURCE")
        _add_all_columns(file)
        file.set_defaults(run=_file, file_type=file_type)


def _add_source(sources: Any, name: str, what: str, credentials: str) -> argparse.ArgumentParser:
    parser = sources.add_parser(name, help=what, description=f"Fetch {what}.", epilog=credentials)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="data folder to write to")
    parser.add_argument(
        "--study",
        type=Path,
        metavar="FILE",
        help="study file, or the name of a shipped study: what its tables are (default: DIR/study.toml, else the "
        "Delphi study); hf puts it into DIR",
    )
    parser.add_argument(
        "--check",
        action="store_true",
        help=f"fetch nothing: say whether the source has moved on since DIR was fetched (exit code {MOVED_ON})",
    )
    parser.add_argument(
        "--timeout", type=quantity, default=30.0, metavar="S", help="seconds to wait for an answer (default: 30)"
    )
    return parser


def _add_table(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--table", default="runs", metavar="TABLE", help="table that they make (default: runs)")


def _add_columns(parser: argparse.ArgumentParser, what: str) -> None:
    parser.add_argument("--column", action="append", metavar="NAME=SOURCE", help=f"{what}; may be repeated")


def _add_all_columns(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--all-columns", action="store_true", help="keep files as they are, not just the columns that are read"
    )


def _wandb(args: argparse.Namespace) -> int:
    from delphi_jax.fetch.wandb import check_wandb, fetch_wandb

    if args.check:
        _refuse_query(args, ("--filter", args.filter), ("--column", args.column))
        return _print_check(_done(lambda: check_wandb(args.project, args.out, timeout=args.timeout)))
    with progress_bar("fetching", "runs") as report:
        snapshot = _done(
            lambda: fetch_wandb(
                args.project,
                args.out,
                filters=_filters(args.filter or []),
                columns=_columns(args.column, args.table)[0],
                per_page=args.per_page,
                study=args.study,
                timeout=args.timeout,
                progress=report,
            )
        )
    return _print_snapshot(snapshot)


def _hf(args: argparse.Namespace) -> int:
    from delphi_jax.fetch.hf import check_hf, fetch_hf

    if args.check:
        _refuse_query(args, ("--revision", args.revision), ("--table", args.table), ("--column", args.column))
        return _print_check(_done(lambda: check_hf(args.dataset, args.out, study=args.study, timeout=args.timeout)))
    with progress_bar("fetching", "bytes") as report:
        snapshot = _done(
            lambda: fetch_hf(
                args.dataset,
                args.out,
                revision=args.revision,
                files=dict(_pair(text, "TABLE=PATH") for text in args.table or []),
                columns=_columns(args.column, None),
                all_columns=args.all_columns,
                study=args.study,
                timeout=args.timeout,
                progress=report,
            )
        )
    return _print_snapshot(snapshot)


def _file(args: argparse.Namespace) -> int:
    from delphi_jax.fetch.files import check_file, fetch_file

    if args.check:
        _refuse_query(args, ("--column", args.column))
        with progress_bar("fetching", "bytes") as report:
            check = _done(lambda: check_file(args.where, args.out, timeout=args.timeout, progress=report))
        return _print_check(check)
    with progress_bar("fetching", "bytes") as report:
        snapshot = _done(
            lambda: fetch_file(
                args.where,
                args.out,
                _file_type(args),
                columns=_columns(args.column, args.table)[0],
                all_columns=args.all_columns,
                study=args.study,
                timeout=args.timeout,
                progress=report,
            )
        )
    return _print_snapshot(snapshot)


def _file_type(args: argparse.Namespace) -> str:
    """JSON Lines are JSON to those who name the command."""
    from delphi_jax.fetch.columns import table_type

    named = table_type(args.where.partition("?")[0])
    return "jsonl" if args.file_type == "json" and named == "jsonl" else args.file_type


def _done(fetch: Callable[[], Any]) -> Any:
    """What ``fetch`` returns; a wrong argument or an interrupt is said as the command says it."""
    try:
        return fetch()
    except ValueError as error:
        raise InputError(str(error)) from None
    except KeyboardInterrupt:
        raise KeyboardInterrupt("nothing was fetched, the folder is as it was") from None


def _refuse_query(args: argparse.Namespace, *options: tuple[str, object]) -> None:
    for option, value in options:
        if value:
            raise InputError(f"--check asks for what {args.out} was made of: leave out {option}")


def _pair(text: str, form: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals and value):
        raise InputError(f"{text!r}: expected {form}")
    return name, value


def _columns(texts: list[str] | None, table: str | None) -> list[ColumnMap]:
    """The columns by table; where ``table`` is None, each may name its own."""
    from delphi_jax.fetch.columns import ColumnMap

    sources: dict[str, dict[str, str]] = {} if table is None else {table: {}}
    for text in texts or []:
        name, source = _pair(text, "NAME=SOURCE")
        found = _TABLE_COLUMN.fullmatch(name) if table is None else None
        own, column = (found["table"], found["column"]) if found else (table or "runs", name)
        sources.setdefault(own, {})[column] = source
    return [ColumnMap(name, columns) for name, columns in sources.items()]


def _filters(texts: list[str]) -> Mapping[str, Any]:
    """All of the filters at once."""
    filters: list[Mapping[str, Any]] = []
    for text in texts:
        if not text.lstrip().startswith("{"):
            key, value = _pair(text, "KEY=VALUE, or a JSON object")
            filters.append({key: _plain_value(value)})
            continue
        try:
            filters.append(json.loads(text))
        except ValueError as error:
            raise InputError(f"--filter {text!r} is not valid JSON ({error})") from None
    return filters[0] if len(filters) == 1 else {"$and": filters} if filters else {}


def _plain_value(text: str) -> Any:
    """A number or true or false where it reads as one, else text."""
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return value if isinstance(value, (bool, int, float)) else text


def _print_snapshot(snapshot: Snapshot) -> int:
    tables = [part.table for part in snapshot.tables]
    at = f" at commit {snapshot.revision}" if snapshot.revision else ""
    print(f"Fetched {count(len(tables), 'table')} from {snapshot.source}{at} to {snapshot.folder}")
    print_list("Tables", [f"{table.file}: {count(table.rows, 'row')}" for table in tables])
    print_list("Study file", [f"study.toml: that of {snapshot.study}"] if snapshot.study else [])
    print_list("Not in the source", snapshot.absent)
    print_list(
        "Kept without a value",
        [
            f"{table.name}: {count(n, 'row')} without {column}"
            for table in tables
            for column, n in table.missing.items()
        ],
    )
    print_list("No longer in the source, removed", snapshot.removed)
    print_list("Replaced another source's", snapshot.displaced)
    return OK


def _print_check(check: Check) -> int:
    if check.moved_on:
        print(f"{check.source} has moved on since {check.folder} was fetched ({check.compared})")
        print_list("Changes", check.changes)
        return MOVED_ON
    print(f"{check.source} is as it was when {check.folder} was fetched ({check.compared}); the files are unchanged")
    return OK
