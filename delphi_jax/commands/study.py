"""``delphi-jax figures`` and ``delphi-jax summary``: the whole study."""

from __future__ import annotations

import argparse
import time
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from delphi_jax.commands.options import BAD_INPUT, OK, add_cache, add_draws, add_formats, add_input, add_json
from delphi_jax.commands.printing import print_json, print_reading, print_rows, print_writing, progress
from delphi_jax.commands.reading import keep_compiled_programs, load
from delphi_jax.labels import BROAD, FIGURE_TITLES, PROCESSES

if TYPE_CHECKING:
    from delphi_jax.results import StudyFit
    from delphi_jax.tables import Study

__all__ = ["add_parser"]


def add_parser(commands: Any) -> None:
    """Add both commands to the ``commands`` of the parser."""
    figures = commands.add_parser(
        "figures",
        help="turn a folder of study tables into the twelve figures",
        description="Turn a folder of study tables into the twelve figures. A figure whose data is missing is "
        "left out, and said.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="figures:\n" + "\n".join(f"  {name:24} {title}" for name, title in FIGURE_TITLES.items()),
    )
    add_input(figures)
    figures.add_argument(
        "--out",
        type=Path,
        default=Path("figures"),
        metavar="DIR",
        help="folder to write to (default: figures)",
    )
    add_formats(figures)
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
    add_input(summary)
    add_json(summary)
    _add_compute(summary)
    summary.set_defaults(run=_summary)


def _figures(args: argparse.Namespace) -> int:
    started = time.perf_counter()
    from delphi_jax.draw import draw_figures, parts_for, tables_for
    from delphi_jax.export import write_figures

    names = list(dict.fromkeys(args.only or FIGURE_TITLES))
    formats = list(dict.fromkeys(args.format or ["json"]))
    study = load(args, tables_for(names))
    with progress("fitting"):
        fit = _fit(args, study, parts_for(names))
    with progress("drawing and writing"):
        drawing = draw_figures(fit, names)
        report = write_figures(drawing.documents, args.out, formats)

    print_reading(args, study, fit, fit.notices())
    whole = print_writing(drawing, report, args.out, started)
    asked_in_vain = args.only and drawing.undrawn
    return OK if whole and not asked_in_vain and report.written else BAD_INPUT


def _summary(args: argparse.Namespace) -> int:
    from delphi_jax.fit.study import PARTS

    study = load(args, None)
    with progress("fitting"):
        fit = _fit(args, study, PARTS)
    if args.json:
        print_json(args, fit.to_dict(), fit.notices(), fit)
        return OK
    _print_tables(fit)
    print_reading(args, study, fit, fit.notices())
    return OK


def _add_compute(parser: argparse.ArgumentParser) -> None:
    add_draws(parser, 1000)
    parser.set_defaults(draws=1000, seed=0)
    parser.add_argument(
        "--gp",
        choices=PROCESSES,
        default=BROAD,
        help="process of the sweep that its curves follow: the published one in its broad mode (default), or in its "
        "likeliest, which may run through nearly every trial; or one with a level, an amplitude and a length scale per "
        "hyper-parameter, whose band leaves the noise out",
    )
    add_cache(parser)


def _fit(args: argparse.Namespace, study: Study, parts: Collection[str]) -> StudyFit:
    from delphi_jax.fit.study import fit_study

    if not args.no_cache:
        keep_compiled_programs(args.cache_dir)
    return fit_study(study, parts, draws=args.draws, seed=args.seed, process=args.gp)


def _print_tables(fit: StudyFit) -> None:
    """The rows of every part, one table per title."""
    tables: dict[str, list[dict[str, Any]]] = {}
    for title, part in fit.parts():
        tables.setdefault(title, []).extend(part.rows())
    for title, rows in tables.items():
        print_rows(title, rows)
