"""The ``delphi-jax`` command: parse, call, print. The only module that prints.

Everything heavy is imported inside the command that needs it: ``--help`` and ``--version`` load nothing.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import sys
import time
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from delphi_jax import __version__
from delphi_jax.labels import FIGURE_TITLES
from delphi_jax.status import InputError

if TYPE_CHECKING:
    from delphi_jax.results import StudyFit
    from delphi_jax.tables import Study

__all__ = ["command", "main"]

_OK, _BAD_INPUT, _BAD_USAGE = 0, 1, 2
_NAMES_SHOWN = 3
"""Left-out rows that are named before "and n more"."""
_PLAIN_WIDTH = 200
"""Columns of a table that is not printed on a terminal."""


def command() -> int:
    """The process behind ``delphi-jax``: :func:`main` without garbage collection, which it is too short to need."""
    gc.disable()
    code = main()
    # What is frozen is not walked once more at exit.
    gc.freeze()
    return code


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns 0, 1 for bad input or a figure that failed, 2 for bad usage."""
    parser = _parser()
    try:
        args = parser.parse_args(argv)
    except SystemExit as stop:
        return int(stop.code or 0)
    try:
        return args.run(args)
    except InputError as error:
        print(f"delphi-jax: {error}", file=sys.stderr)
        return _BAD_INPUT
    except BrokenPipeError:
        # The reader of a pipe (head, less) has seen enough.
        sys.stderr.close()
        return _OK
    except KeyboardInterrupt:
        print("delphi-jax: interrupted; every file that was written is whole", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="delphi-jax", description="Fit scaling laws, say how sure they are, and draw the figures."
    )
    parser.add_argument("--version", action="version", version=f"delphi-jax {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    figures = commands.add_parser(
        "figures",
        help="turn a folder of study tables into the twelve figures",
        description="Turn a folder of study tables into the twelve figures. A figure whose data is missing is "
        "left out, and said.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="figures:\n" + "\n".join(f"  {name:24} {title}" for name, title in FIGURE_TITLES.items()),
    )
    _add_input(figures)
    figures.add_argument(
        "--out",
        type=Path,
        default=Path("figures"),
        metavar="DIR",
        help="folder to write to (default: figures)",
    )
    figures.add_argument(
        "--format",
        nargs="+",
        action="extend",
        choices=("json", "html", "png", "svg", "pdf"),
        metavar="FORMAT",
        help="json (default), html, png, svg, pdf; several may be given. Images need the extra [images] and a browser",
    )
    figures.add_argument(
        "--only",
        nargs="+",
        action="extend",
        choices=tuple(FIGURE_TITLES),
        metavar="NAME",
        help="draw just these figures, and compute just what they need (names below)",
    )
    _add_compute(figures)
    figures.set_defaults(run=_figures)

    summary = commands.add_parser(
        "summary",
        help="print fits, optima, forecasts with intervals and held-out residuals",
        description="Print fits, optima, forecasts with intervals and held-out residuals.",
    )
    _add_input(summary)
    summary.add_argument("--json", action="store_true", help="print one JSON object, every array included")
    _add_compute(summary)
    summary.set_defaults(run=_summary)

    simulate = commands.add_parser(
        "simulate",
        help="write a simulated study, labelled as such",
        description="Write a simulated study: the same bytes for a seed on every machine, labelled as simulated.",
    )
    simulate.add_argument("--seed", type=_natural, default=0, help="seed of the generator (default: 0)")
    simulate.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write to")
    simulate.set_defaults(run=_simulate)
    return parser


def _natural(text: str) -> int:
    return _whole(text, least=0)


def _positive(text: str) -> int:
    return _whole(text, least=1)


def _whole(text: str, least: int) -> int:
    if not text.strip().lstrip("+-").isdecimal() or int(text) < least:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least {least}, got {text!r}")
    return int(text)


def _add_input(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--data",
        type=Path,
        metavar="DIR",
        help="folder of the study's tables, .json, .csv or .parquet (default: data)",
    )
    parser.add_argument("--in", dest="runs", type=Path, metavar="FILE", help="table of training runs, instead of DIR's")
    parser.add_argument(
        "--sweep-in",
        dest="sweep",
        type=Path,
        metavar="FILE",
        help="table of the hyper-parameter sweep, instead of DIR's",
    )


def _add_compute(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--draws", type=_positive, default=1000, metavar="N", help="bootstrap draws (default: 1000)")
    parser.add_argument("--seed", type=_natural, default=0, metavar="N", help="seed of the bootstrap (default: 0)")
    parser.add_argument(
        "--gp",
        choices=("broad", "likeliest"),
        default="broad",
        help="mode of the sweep's process that its curves follow: the published broad one (default), or the likeliest, "
        "which may run through nearly every trial",
    )
    cache = parser.add_mutually_exclusive_group()
    cache.add_argument(
        "--cache-dir",
        type=Path,
        metavar="DIR",
        help="keep compiled programs here (default: the user's cache folder)",
    )
    cache.add_argument("--no-cache", action="store_true", help="neither read nor keep compiled programs")


def _figures(args: argparse.Namespace) -> int:
    started = time.perf_counter()
    from delphi_jax.draw import draw_figures, parts_for, tables_for
    from delphi_jax.export import write_figures

    names = list(dict.fromkeys(args.only or FIGURE_TITLES))
    formats = list(dict.fromkeys(args.format or ["json"]))
    study = _load(args, tables_for(names))
    with _progress("fitting"):
        fit = _fit(args, study, parts_for(names))
    with _progress("drawing and writing"):
        drawing = draw_figures(fit, names)
        report = write_figures(drawing.documents, args.out, formats)

    _print_reading(args, study, fit)
    _print_list("Not drawn", [f"{name}: {reason}" for name, reason in drawing.undrawn.items()])
    failures = [f"{name}: {reason}" for name, reason in drawing.failed.items()]
    failures += [f"{miss.figure}.{miss.format}: {miss.reason}" for miss in report.unwritten]
    _print_list("Failed", failures, sys.stderr)
    seconds = time.perf_counter() - started
    print(f"Wrote {_count(len(report.written), 'file')} to {args.out} in {seconds:.1f} s")
    asked_in_vain = args.only and drawing.undrawn
    return _BAD_INPUT if failures or asked_in_vain or not report.written else _OK


def _summary(args: argparse.Namespace) -> int:
    from delphi_jax.fit.study import PARTS

    study = _load(args, None)
    with _progress("fitting"):
        fit = _fit(args, study, PARTS)
    if args.json:
        from delphi_jax.simulate import is_simulated

        said = {"simulated": any(map(is_simulated, _folders(args))), "notices": fit.notices()}
        print(json.dumps(fit.to_dict() | said, ensure_ascii=False, allow_nan=False))
        return _OK
    _print_tables(fit)
    _print_reading(args, study, fit)
    return _OK


def _simulate(args: argparse.Namespace) -> int:
    from delphi_jax.simulate import write_study

    files = write_study(args.out, args.seed)
    print(f"Wrote a simulated study (seed {args.seed}, {_count(len(files), 'file')}) to {args.out}")
    print("No number in it was measured.")
    return _OK


def _load(args: argparse.Namespace, tables: Collection[str] | None) -> Study:
    """The study that the options name; the default folder only where no file is given."""
    from delphi_jax.io import load_study

    if args.data is None and args.runs is None and (args.sweep is None or (tables and "runs" in tables)):
        args.data = Path("data")
    elif args.data is not None and (args.runs or args.sweep) and not args.data.is_dir():
        raise InputError(f"{args.data}: no such folder; give the folder that holds the study's tables")
    return load_study(args.data, runs=args.runs, sweep=args.sweep, tables=tables)


def _fit(args: argparse.Namespace, study: Study, parts: Collection[str]) -> StudyFit:
    from delphi_jax.fit.study import fit_study

    if not args.no_cache:
        _keep_compiled_programs(args.cache_dir)
    return fit_study(study, parts, draws=args.draws, seed=args.seed, likeliest_process=args.gp == "likeliest")


def _keep_compiled_programs(folder: Path | None) -> None:
    """Keep compiled programs on disk. Only the command does this: the library leaves JAX as it is."""
    import platformdirs

    from delphi_jax.programs import keep_programs

    folder = folder or platformdirs.user_cache_path("delphi_jax")
    try:
        keep_programs(folder)
    except OSError as error:
        print(f"delphi-jax: compiled programs are not kept: {folder}: {error.strerror}", file=sys.stderr)


@contextlib.contextmanager
def _progress(what: str) -> Iterator[None]:
    """A spinner on standard error while something long runs; nothing where it is not a terminal."""
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console

    with Console(stderr=True).status(what):
        yield


def _print_reading(args: argparse.Namespace, study: Study, fit: StudyFit) -> None:
    """What was read, left out and missing, and which fits need a look."""
    _print_provenance(_folders(args))
    _print_list(
        "Left out",
        [f"{part.table}: {part.count}, {part.reason} ({_some(part.names)})" for part in fit.skipped],
    )
    _print_list("Missing", [f"{part.table}, for {part.needed_for}: {part.how}" for part in study.missing])
    _print_list("To look at", fit.notices())


def _folders(args: argparse.Namespace) -> list[Path]:
    """The folders that something was read from."""
    files = [path.parent for path in (args.runs, args.sweep) if path is not None]
    return [*([args.data] if args.data is not None else []), *files]


def _print_provenance(folders: Sequence[Path]) -> None:
    from delphi_jax.simulate import is_simulated

    for folder in dict.fromkeys(folders):
        if is_simulated(folder):
            print(f"Simulated data: no number in {folder} was measured, nothing here says anything of real models.")


def _print_list(title: str, lines: Sequence[str], stream: Any = None) -> None:
    if lines:
        print(f"{title}:", *lines, sep="\n  ", file=stream or sys.stdout)


def _print_tables(fit: StudyFit) -> None:
    """The rows of every part, one table per title."""
    from rich.console import Console

    tables: dict[str, list[dict[str, Any]]] = {}
    for title, part in fit.parts():
        tables.setdefault(title, []).extend(part.rows())
    console = Console(highlight=False, width=None if sys.stdout.isatty() else _PLAIN_WIDTH)
    for title, rows in tables.items():
        # Captured, because rich ends the process itself where a pipe is closed.
        with console.capture() as captured:
            console.print(_table(title, rows) if rows else f"{title}: none")
        print(captured.get())


def _table(title: str, rows: list[dict[str, Any]]) -> Any:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    for column, value in rows[0].items():
        table.add_column(column, justify="left" if isinstance(value, str) else "right", overflow="fold")
    for row in rows:
        table.add_row(*(Text(_cell(value)) for value in row.values()))
    return table


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return "" if value != value else f"{value:.6g}"
    return str(value)


def _some(names: Sequence[str]) -> str:
    """The first few names, and how many more there are."""
    shown = ", ".join(names[:_NAMES_SHOWN])
    more = len(names) - _NAMES_SHOWN
    return f"{shown} and {more} more" if more > 0 else shown


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
