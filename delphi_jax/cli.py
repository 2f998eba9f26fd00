"""The ``delphi-jax`` command: parse, call, print. The only module that prints.

Everything heavy is imported inside the command that needs it: ``--help`` and ``--version`` load nothing.
"""

from __future__ import annotations

import argparse
import atexit
import contextlib
import gc
import json
import os
import sys
import time
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import TYPE_CHECKING, Any

from delphi_jax import __version__
from delphi_jax.labels import BOOTSTRAP_METHODS, FIGURE_TITLES
from delphi_jax.status import InputError

if TYPE_CHECKING:
    from delphi_jax.results import BootstrapStudy, StudyFit
    from delphi_jax.tables import Study

__all__ = ["command", "main"]

_OK, _BAD_INPUT, _BAD_USAGE = 0, 1, 2
_NAMES_SHOWN = 3
"""Left-out rows that are named before "and n more"."""
_PLAIN_WIDTH = 200
"""Columns of a table that is not printed on a terminal."""
_MOST_DIGITS = 30
"""Of a whole number: 1e999999999 is no number of anything."""
_STUDY_DRAWS = 100_000
"""Draws of a bootstrap study, where neither their number nor the exact bootstrap is asked for."""


def command() -> None:
    """The process behind ``delphi-jax``: :func:`main`, and out.

    Without garbage collection, which a command is too short to need, and without taking the interpreter and JAX apart
    at the end, which takes longer than drawing and frees what the system frees anyway.
    """
    gc.disable()
    code = main()
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        pass
    except OSError as error:
        print(f"delphi-jax: standard output: {error.strerror}", file=sys.stderr)
        code = code or _BAD_INPUT
    if not sys.stderr.closed:
        sys.stderr.flush()
    atexit._run_exitfuncs()
    os._exit(code)


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
    except KeyboardInterrupt as stop:
        print(f"delphi-jax: interrupted; {str(stop) or 'every file that was written is whole'}", file=sys.stderr)
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

    bootstrap = commands.add_parser(
        "bootstrap",
        help="bootstrap the forecasts with any number of draws",
        description="Bootstrap the forecasts of every suite's law with any number of draws, in constant memory, on all "
        "devices. The numbers do not depend on the devices. A run that was stopped goes on when the same command is "
        "given again.",
    )
    _add_bootstrap(bootstrap)
    bootstrap.set_defaults(run=_bootstrap)

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
    """A whole number of at least ``least`` in any notation, such as 1e9."""
    with contextlib.suppress(InvalidOperation):
        number = Decimal(text.strip())
        if number.is_finite() and number.adjusted() < _MOST_DIGITS and number == int(number) >= least:
            return int(number)
    raise argparse.ArgumentTypeError(f"expected a whole number of at least {least}, got {text!r}")


def _budget(text: str) -> float:
    with contextlib.suppress(ValueError):
        if 0 < float(text) < float("inf"):
            return float(text)
    raise argparse.ArgumentTypeError(f"expected a positive number of FLOPs, got {text!r}")


def _add_input(parser: argparse.ArgumentParser) -> None:
    _add_runs(parser)
    parser.add_argument(
        "--sweep-in",
        dest="sweep",
        type=Path,
        metavar="FILE",
        help="table of the hyper-parameter sweep, instead of DIR's",
    )


def _add_runs(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--data",
        type=Path,
        metavar="DIR",
        help="folder of the study's tables, .json, .csv or .parquet (default: data)",
    )
    parser.add_argument("--in", dest="runs", type=Path, metavar="FILE", help="table of training runs, instead of DIR's")


def _add_draws(parser: argparse.ArgumentParser, draws: int) -> None:
    """Both are None where they are not given, so that a bootstrap without draws can refuse them."""
    parser.add_argument("--draws", type=_positive, metavar="N", help=f"bootstrap draws (default: {draws})")
    parser.add_argument("--seed", type=_natural, metavar="N", help="seed of the bootstrap (default: 0)")


def _add_compute(parser: argparse.ArgumentParser) -> None:
    _add_draws(parser, 1000)
    parser.set_defaults(draws=1000, seed=0)
    parser.add_argument(
        "--gp",
        choices=("broad", "likeliest"),
        default="broad",
        help="mode of the sweep's process that its curves follow: the published broad one (default), or the likeliest, "
        "which may run through nearly every trial",
    )
    _add_cache(parser)


def _add_cache(parser: argparse.ArgumentParser, kept: str = "compiled programs") -> None:
    cache = parser.add_mutually_exclusive_group()
    cache.add_argument(
        "--cache-dir",
        type=Path,
        metavar="DIR",
        help=f"keep {kept} here (default: the user's cache folder)",
    )
    cache.add_argument("--no-cache", action="store_true", help=f"neither read nor keep {kept}")


def _add_bootstrap(parser: argparse.ArgumentParser) -> None:
    _add_runs(parser)
    parser.set_defaults(sweep=None)
    parser.add_argument(
        "--suite", nargs="+", action="extend", metavar="NAME", help="only these suites (default: all that have a law)"
    )
    parser.add_argument(
        "--targets",
        nargs="+",
        type=_budget,
        metavar="BUDGET",
        help="compute budgets of the forecasts, FLOPs (default: 1e21 1e22 1e23)",
    )
    _add_draws(parser, _STUDY_DRAWS)
    parser.add_argument(
        "--method",
        choices=BOOTSTRAP_METHODS,
        help="table: every resample is fitted once, draws are counted over them (up to 12 budgets); stream: draws are "
        "fitted as they come, percentiles have a bound; exact: every resample with its probability, no draws "
        "(default: table or stream, whichever has fewer fits)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument(
        "--chunk",
        type=_positive,
        metavar="N",
        help="draws that a device holds at once, in whole blocks of 8192 (default: as its memory allows); the numbers "
        "are the same",
    )
    parser.add_argument(
        "--state",
        type=Path,
        metavar="FILE",
        help="keep the state of one suite's stream here, and go on from it (default: a file in the cache folder that "
        "is removed at the end)",
    )
    cluster = parser.add_argument_group("several hosts")
    cluster.add_argument(
        "--distributed",
        action="store_true",
        help="share the draws with the other processes of this Slurm or Open MPI job, or of the cluster named by the "
        "next three",
    )
    cluster.add_argument("--coordinator", metavar="HOST:PORT", help="where process 0 can be reached")
    cluster.add_argument("--processes", type=_positive, metavar="N", help="number of processes")
    cluster.add_argument("--process-id", type=_natural, metavar="I", help="number of this process, from 0")
    _add_cache(parser, "compiled programs and states")


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

    _print_reading(args, study, fit, fit.notices())
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
        _print_json(args, fit.to_dict(), fit.notices())
        return _OK
    _print_tables(fit)
    _print_reading(args, study, fit, fit.notices())
    return _OK


def _bootstrap(args: argparse.Namespace) -> int:
    if args.method == "exact" and (args.draws is not None or args.seed is not None):
        raise InputError("--method exact takes every resample once: leave out --draws and --seed")
    # It may run for hours.
    gc.enable()
    with _stdout_to_stderr() if args.distributed else contextlib.nullcontext():
        _take_devices(args)
        study, fit, found = _run_bootstrap(args)
    from delphi_jax.devices import first_process

    if not first_process():
        return _OK
    notices = fit.notices() + [notice for each in found.values() for notice in each.notices()]
    if args.json:
        _print_json(args, {"bootstraps": {suite: each.to_dict() for suite, each in found.items()}}, notices)
        return _OK
    _print_rows("Bootstrap", [row for each in found.values() for row in each.rows()])
    beyond = [suite for suite, each in found.items() if each.outside.any()]
    _print_list("Forecasts outside the histogram, take --method table or exact, or other targets", beyond)
    _print_reading(args, study, fit, notices)
    return _OK


def _run_bootstrap(args: argparse.Namespace) -> tuple[Study, StudyFit, dict[str, BootstrapStudy]]:
    from delphi_jax.devices import first_process
    from delphi_jax.fit.law import TARGETS
    from delphi_jax.fit.stream import bootstrap_study, choose_method
    from delphi_jax.fit.study import fit_study

    study = _load(args, {"runs"})
    if not args.no_cache:
        _keep_compiled_programs(args.cache_dir)
    fit = fit_study(study, ("laws",))
    draws = _STUDY_DRAWS if args.draws is None and args.method != "exact" else args.draws
    optima = {suite: fit.isoflop.optima(suite)[:2] for suite in _suites_with_law(args, fit)}
    methods = {suite: args.method or choose_method(len(loss), draws) for suite, (_, loss) in optima.items()}
    state = _state(args, methods)
    found = {}
    for suite, (compute, loss) in optima.items():
        with _draw_progress(suite, shown=first_process()) as report, _warnings_in_a_line():
            try:
                found[suite] = bootstrap_study(
                    compute,
                    loss,
                    args.targets or TARGETS,
                    draws=draws,
                    seed=args.seed,
                    method=methods[suite],
                    chunk=args.chunk,
                    state=state if methods[suite] == "stream" else None,
                    progress=report,
                    series=suite,
                )
            except ValueError as error:
                raise InputError(str(error)) from error
    return study, fit, found


@contextlib.contextmanager
def _warnings_in_a_line() -> Iterator[None]:
    """Warnings of the library as the command says things, each whenever it comes."""
    with warnings.catch_warnings():
        warnings.simplefilter("always", RuntimeWarning)
        warnings.showwarning = lambda message, *_, **__: print(f"delphi-jax: {message}", file=sys.stderr)
        yield


@contextlib.contextmanager
def _stdout_to_stderr() -> Iterator[None]:
    """What native libraries print (Gloo names its peers on standard output) goes to standard error instead."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)


def _take_devices(args: argparse.Namespace) -> None:
    """Every core, and every process of the cluster: before JAX is used for anything else."""
    cluster = (args.coordinator, args.processes, args.process_id)
    if not args.distributed and any(part is not None for part in cluster):
        raise InputError("--coordinator, --processes and --process-id are for --distributed: give that too")
    from delphi_jax.devices import join_cluster, use_all_cores

    use_all_cores()
    if args.distributed:
        if None not in cluster:
            print(f"delphi-jax: waiting for {args.processes} processes at {args.coordinator}", file=sys.stderr)
        try:
            join_cluster(*cluster)
        except (ValueError, RuntimeError) as error:
            raise InputError(f"--distributed: {error}") from error


def _suites_with_law(args: argparse.Namespace, fit: StudyFit) -> list[str]:
    fitted = [suite for suite, law in fit.laws.items() if law.fitted]
    if not fitted:
        reasons = [f"{suite}: {law.status.label}" for suite, law in fit.laws.items()]
        raise InputError(f"no suite has a law to bootstrap ({'; '.join(reasons) or 'there are no suites'})")
    asked = list(dict.fromkeys(args.suite or fitted))
    for suite in asked:
        if suite not in fit.laws:
            raise InputError(f"there is no suite {suite!r}; the suites are {', '.join(fit.laws)}")
        if suite not in fitted:
            status = fit.laws[suite].status
            raise InputError(f"suite {suite} has no law: {status.label}; those that have one are {', '.join(fitted)}")
    return asked


def _state(args: argparse.Namespace, methods: Mapping[str, str]) -> Path | None:
    """Where the streams among the suites' ``methods`` keep their state: where it was asked for, else the cache folder.

    That one only helps a run that is stopped: where it cannot be used, this is said, and the run goes on.
    """
    if args.state is not None:
        if len(methods) > 1 and not args.state.is_dir():
            raise InputError(f"--state holds one suite: choose it with --suite, one of {', '.join(methods)}")
        for suite, method in methods.items():
            if method != "stream":
                chosen = "" if args.method else ", which was chosen because it needs fewer fits"
                raise InputError(
                    f"--state is for --method stream: {suite} has no state with method {method}{chosen}; "
                    "leave it out, or give --method stream"
                )
        return args.state
    from delphi_jax.devices import first_process

    # In a cluster the first process keeps the state of all.
    if args.no_cache or "stream" not in methods.values() or not first_process():
        return None
    from delphi_jax.checkpoint import check_writable
    from delphi_jax.whole import make_own_folder

    folder = _cache_folder(args.cache_dir)
    try:
        make_own_folder(folder)
        check_writable(folder / "state")
    except OSError as error:
        print(f"delphi-jax: the state is not kept: {folder}: {error.strerror}", file=sys.stderr)
        return None
    except InputError as error:
        print(f"delphi-jax: the state is not kept: {error}", file=sys.stderr)
        return None
    return folder


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
    from delphi_jax.programs import keep_programs

    folder = _cache_folder(folder)
    try:
        keep_programs(folder)
    except OSError as error:
        print(f"delphi-jax: compiled programs are not kept: {folder}: {error.strerror}", file=sys.stderr)


def _cache_folder(asked: Path | None) -> Path:
    import platformdirs

    return asked or platformdirs.user_cache_path("delphi_jax")


@contextlib.contextmanager
def _draw_progress(suite: str, shown: bool) -> Iterator[Callable[[int, int], None] | None]:
    """A bar of draws on a terminal's standard error; elsewhere, only whether an earlier run goes on."""
    if not shown:
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as bar:
        task = None

        def report(done: int, total: int) -> None:
            nonlocal task
            if task is None:
                if done:
                    print(f"delphi-jax: {suite}: {done} of {total} draws were made before", file=sys.stderr)
                task = bar.add_task(f"{suite}, {total:.3g} draws", total=total, completed=done)
            bar.update(task, completed=done)

        yield report


@contextlib.contextmanager
def _progress(what: str) -> Iterator[None]:
    """A spinner on standard error while something long runs; nothing where it is not a terminal."""
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console

    with Console(stderr=True).status(what):
        yield


def _print_json(args: argparse.Namespace, numbers: dict[str, Any], notices: Sequence[str]) -> None:
    from delphi_jax.simulate import is_simulated

    said = {"simulated": any(map(is_simulated, _folders(args))), "notices": notices}
    print(json.dumps(numbers | said, ensure_ascii=False, allow_nan=False))


def _print_reading(args: argparse.Namespace, study: Study, fit: StudyFit, notices: Sequence[str]) -> None:
    """What was read, left out and missing, and which fits need a look."""
    _print_provenance(_folders(args))
    _print_list(
        "Left out",
        [f"{part.table}: {part.count}, {part.reason} ({_some(part.names)})" for part in fit.skipped],
    )
    _print_list("Missing", [f"{part.table}, for {part.needed_for}: {part.how}" for part in study.missing])
    _print_list("To look at", notices)


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
    tables: dict[str, list[dict[str, Any]]] = {}
    for title, part in fit.parts():
        tables.setdefault(title, []).extend(part.rows())
    for title, rows in tables.items():
        _print_rows(title, rows)


def _print_rows(title: str, rows: list[dict[str, Any]]) -> None:
    from rich.console import Console

    console = Console(highlight=False, width=None if sys.stdout.isatty() else _PLAIN_WIDTH)
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
