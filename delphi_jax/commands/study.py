"""``delphi-jax figures`` and ``delphi-jax summary``: the whole study."""

from __future__ import annotations

import argparse
import difflib
import time
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from delphi_jax.commands.options import BAD_INPUT, OK, add_cache, add_draws, add_formats, add_input, add_json
from delphi_jax.commands.printing import print_json, print_reading, print_rows, print_writing, progress
from delphi_jax.commands.reading import chosen_theme, keep_compiled_programs, load, load_definition
from delphi_jax.labels import BROAD, FIGURE_TITLES, LADDER_TITLE, PROCESSES
from delphi_jax.text import shown

if TYPE_CHECKING:
    from delphi_jax.definition import Definition
    from delphi_jax.results import StudyFit
    from delphi_jax.tables import Study

__all__ = ["add_parser"]

_LADDERS = "first-ladder and delphi-ladder in the Delphi study"
_FIGURES = f"""figures:
{chr(10).join(f"  {name:24} {title}" for name, title in FIGURE_TITLES.items())}
  {"ladder-SUITE":24} {LADDER_TITLE.format("One suite")}
                           ({_LADDERS})
Ladders, mmlu-emergence and hparam-scaling have a variant for narrow screens, NAME-mobile."""


def add_parser(commands: Any) -> None:
    """Add both commands to the ``commands`` of the parser."""
    figures = commands.add_parser(
        "figures",
        help="turn a folder of study tables into the figures",
        description="Turn a folder of study tables into the figures of the study, twelve of the Delphi study. A figure "
        "whose data is missing is left out, and said.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=_FIGURES,
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
        metavar="NAME",
        help="draw just these figures, and compute just what they need (names below)",
    )
    _add_compute(figures)
    figures.set_defaults(run=_figures, refuse=figures.error)

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
    from delphi_jax.draw import draw_figures, parts_for
    from delphi_jax.export import write_figures

    formats = list(dict.fromkeys(args.format or ["json"]))
    definition = load_definition(args)
    study = load(args, _tables(args, definition), definition)
    definition = study.definition
    names = _names(args, definition)
    with progress("fitting"):
        fit = _fit(args, study, parts_for(names, definition))
    with progress("drawing and writing"):
        drawing = draw_figures(fit, names)
        report = write_figures(drawing.documents, args.out, formats, chosen_theme(args, definition), definition)

    print_reading(args, study, fit, fit.notices())
    whole = print_writing(drawing, report, args.out, started)
    asked_in_vain = args.only and drawing.undrawn
    return OK if whole and not asked_in_vain and report.written else BAD_INPUT


def _tables(args: argparse.Namespace, definition: Definition) -> set[str]:
    """The kinds of tables that the figures need; a ladder may be of a suite that only the tables name."""
    from delphi_jax.draw import tables_for

    titles = definition.figure_titles
    unread = [name for name in args.only or () if name.startswith("ladder-") and name not in titles]
    names = [name for name in _names(args, definition, unread) if name not in unread]
    return tables_for(names, definition) | ({"runs"} if unread else set())


def _names(args: argparse.Namespace, definition: Definition, unread: Collection[str] = ()) -> list[str]:
    """The figures that were asked for, or all of the study; bad usage where neither it nor ``unread`` holds one."""
    titles = definition.figure_titles
    names = list(dict.fromkeys(args.only or titles))
    if unknown := [name for name in names if name not in titles and name not in unread]:
        args.refuse(
            f"argument --only: there is no figure {unknown[0]!r} of the study {shown(definition.name)}; "
            f"{_near(unknown[0], titles)}"
        )
    return names


def _near(name: str, names: Collection[str]) -> str:
    near = difflib.get_close_matches(name, names, 1)
    return f"did you mean {near[0]!r}?" if near else f"the figures are {', '.join(names)}"


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

    keep_compiled_programs(args)
    return fit_study(study, parts, draws=args.draws, seed=args.seed, process=args.gp)


def _print_tables(fit: StudyFit) -> None:
    """The rows of every part, one table per title."""
    tables: dict[str, list[dict[str, Any]]] = {}
    for title, part in fit.parts():
        tables.setdefault(title, []).extend(part.rows())
    for title, rows in tables.items():
        print_rows(title, rows)
