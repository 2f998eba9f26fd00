"""What commands print: tables, JSON, what was left out, and progress."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from delphi_jax.commands.options import BAD_INPUT, OK
from delphi_jax.commands.reading import chosen_theme
from delphi_jax.status import InputError
from delphi_jax.text import one_line

if TYPE_CHECKING:
    from delphi_jax.definition import Definition
    from delphi_jax.draw import Drawing
    from delphi_jax.export import WriteReport
    from delphi_jax.results import Result, StudyFit
    from delphi_jax.results.check import StudyCheck
    from delphi_jax.tables import Missing, Skipped, Study

__all__ = [
    "count",
    "folders_read",
    "print_json",
    "print_left_out",
    "print_list",
    "print_provenance",
    "print_reading",
    "print_rows",
    "print_writing",
    "progress",
    "progress_bar",
    "some",
    "write_answer",
]

_NAMES_SHOWN = 3
"""Left-out rows that are named before "and n more"."""
_PLAIN_WIDTH = 200
"""Columns of a table that is not printed on a terminal."""


@contextlib.contextmanager
def progress(what: str) -> Iterator[None]:
    """A spinner on standard error while something long runs; nothing where it is not a terminal."""
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console

    with Console(stderr=True).status(what):
        yield


@contextlib.contextmanager
def progress_bar(what: str, unit: str) -> Iterator[Callable[[int, int], None]]:
    """A bar of ``unit`` on a terminal's standard error, moved by calls with (done, total); nothing elsewhere."""
    if not sys.stderr.isatty():
        yield lambda done, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = None

        def report(done: int, total: int) -> None:
            nonlocal task
            if task is None:
                task = bar.add_task(f"{what}, {total:,} {unit}", total=total, completed=done)
            bar.update(task, completed=done)

        yield report


def print_json(
    args: argparse.Namespace, numbers: dict[str, Any], notices: Sequence[str], rests_on: StudyFit | StudyCheck
) -> None:
    """``numbers`` with the notices and, of what they rest on, the rows left out and the tables missing."""
    from delphi_jax.results.base import plain
    from delphi_jax.simulate import is_simulated

    read = {
        "simulated": any(map(is_simulated, folders_read(args))),
        "skipped": rests_on.skipped,
        "missing": rests_on.missing,
    }
    print(json.dumps(plain(numbers | read | {"notices": notices}), ensure_ascii=False, allow_nan=False))


def print_reading(args: argparse.Namespace, study: Study, fit: StudyFit, notices: Sequence[str]) -> None:
    """What was read, and as what study where it is not the Delphi one, left out and missing, and which fits need a
    look."""
    from delphi_jax.definition import delphi

    definition = study.definition
    if (definition.name, definition.source) != (delphi().name, delphi().source):
        told = f", as {definition.source} says" if definition.source else ""
        print(one_line(f"Study: {definition.name}{told}"))
    print_provenance(folders_read(args))
    print_left_out(fit.skipped, study.missing)
    print_list("To look at", notices)


def print_left_out(skipped: Sequence[Skipped], missing: Sequence[Missing]) -> None:
    """Rows that rules left out, and tables that are not there."""
    print_list("Left out", [f"{part.table}: {part.count}, {part.reason} ({some(part.names)})" for part in skipped])
    print_list("Missing", [f"{part.table}, for {part.needed_for}: {part.how}" for part in missing])


def folders_read(args: argparse.Namespace) -> list[Path]:
    """The folders that something was read from."""
    files = [path.parent for path in (args.runs, args.sweep) if path is not None]
    return [*([args.data] if args.data is not None else []), *files]


def print_provenance(folders: Sequence[Path]) -> None:
    from delphi_jax.fetch.snapshot import PROVENANCE, changed_files
    from delphi_jax.simulate import is_simulated

    for folder in dict.fromkeys(folders):
        if changed := changed_files(folder):
            files = f"{', '.join(changed)} in {folder}"
            told = f"Not as fetched: {files}; fetch again, or move {PROVENANCE} away to keep what is there."
            print(one_line(told))
        if is_simulated(folder):
            print(f"Simulated data: no number in {folder} was measured, nothing here says anything of real models.")


def print_writing(drawing: Drawing, report: WriteReport, out: Path, started: float, stream: Any = None) -> bool:
    """What was drawn and written since ``started`` (time.perf_counter), and what not; whether nothing failed."""
    print_list("Not drawn", [f"{name}: {reason}" for name, reason in drawing.undrawn.items()], stream)
    failures = [f"{name}: {reason}" for name, reason in drawing.failed.items()]
    failures += [f"{miss.figure}.{miss.format}: {miss.reason}" for miss in report.unwritten]
    print_list("Failed", failures, sys.stderr)
    seconds = time.perf_counter() - started
    print(f"Wrote {count(len(report.written), 'file')} to {out} in {seconds:.1f} s", file=stream or sys.stdout)
    return not failures


def write_answer(args: argparse.Namespace, result: Result, definition: Definition) -> int:
    """Draw and write the figures of ``result`` where the options ask for them (``--out``); the exit code.

    ``definition`` is that of the study, which may ask for a theme.
    """
    if args.out is None:
        if args.format:
            raise InputError("--format is for figures: say with --out DIR where to write them")
        return OK
    started = time.perf_counter()
    from delphi_jax.answers import draw_answer
    from delphi_jax.export import write_figures

    theme = chosen_theme(args, definition)
    drawing = draw_answer(result)
    report = write_figures(drawing.documents, args.out, list(dict.fromkeys(args.format or ["json"])), theme)
    # Standard output holds the one JSON object, where that is asked for.
    whole = print_writing(drawing, report, args.out, started, sys.stderr if args.json else None)
    return OK if whole and report.written else BAD_INPUT


def print_list(title: str, lines: Sequence[str], stream: Any = None) -> None:
    if lines:
        print(f"{title}:", *map(one_line, lines), sep="\n  ", file=stream or sys.stdout)


def print_rows(title: str, rows: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False, width=None if sys.stdout.isatty() else _PLAIN_WIDTH)
    # Captured, because rich ends the process itself where a pipe is closed.
    with console.capture() as captured:
        console.print(_table(title, rows) if rows else Text(f"{one_line(title)}: none"))
    print(captured.get())


def _table(title: str, rows: list[dict[str, Any]]) -> Any:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    # As texts: a name with brackets is no markup.
    heading = Text(one_line(title))
    table = Table(title=heading, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    for column, value in rows[0].items():
        table.add_column(Text(one_line(column)), justify="left" if isinstance(value, str) else "right", overflow="fold")
    for row in rows:
        table.add_row(*(Text(_cell(value)) for value in row.values()))
    return table


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return "" if value != value else f"{value:.6g}"
    return one_line(str(value))


def some(names: Sequence[str]) -> str:
    """The first few names, and how many more there are."""
    shown = ", ".join(names[:_NAMES_SHOWN])
    more = len(names) - _NAMES_SHOWN
    return f"{shown} and {more} more" if more > 0 else shown


def count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
