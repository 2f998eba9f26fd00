"""``delphi-jax intervals``: how sure is the forecast, by every method side by side?"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from delphi_jax.commands.options import (
    add_cache,
    add_draws,
    add_figures,
    add_json,
    add_level,
    add_metric,
    add_runs,
    add_suites,
    add_targets,
)
from delphi_jax.commands.printing import print_json, print_list, print_reading, print_rows, progress, write_answer
from delphi_jax.commands.reading import input_errors, keep_compiled_programs, load, pinned, suites_with_law
from delphi_jax.labels import INTERVAL_METHODS

if TYPE_CHECKING:
    from delphi_jax.results import StudyFit
    from delphi_jax.results.intervals import IntervalsFit
    from delphi_jax.tables import Study

__all__ = ["add_parser"]


def add_parser(commands: Any) -> None:
    """Add the command to the ``commands`` of the parser."""
    parser = commands.add_parser(
        "intervals",
        help="intervals of the forecasts by every method, side by side",
        description="Intervals of the forecasts of every suite's law, with its asymptote free: percentile, basic and "
        "BCa bootstrap of the optima, parametric bootstrap, bootstrap of the runs within buckets and of both levels, "
        "profile likelihood, and the Student-t prediction interval of a pinned law; beside percentiles of laws on a "
        "grid, as the figures have them.",
    )
    add_runs(parser)
    parser.set_defaults(sweep=None)
    add_suites(parser)
    add_targets(parser)
    parser.add_argument(
        "--methods",
        nargs="+",
        action="extend",
        choices=INTERVAL_METHODS,
        metavar="NAME",
        help=f"only these of {', '.join(INTERVAL_METHODS)} (default: all)",
    )
    add_level(parser, "nominal coverage")
    add_draws(parser, 1000)
    parser.set_defaults(draws=1000, seed=0)
    parser.add_argument(
        "--exact",
        action="store_true",
        help="percentile, basic and bca from every resample of the optima with its probability, instead of draws",
    )
    parser.add_argument(
        "--pin",
        type=float,
        metavar="LOSS",
        help="asymptote of the Student-t prediction interval (default: no such interval)",
    )
    add_metric(parser)
    add_json(parser)
    add_figures(parser)
    add_cache(parser)
    parser.set_defaults(run=_intervals)


def _intervals(args: argparse.Namespace) -> int:
    study, fit, found = _run_intervals(args)
    notices = fit.notices() + found.notices()
    if args.json:
        print_json(args, {"intervals": found.to_dict()}, notices, fit)
    else:
        for suite in found.suites:
            rows = [{column: value for column, value in row.items() if column != "suite"} for row in suite.rows()]
            print_rows(f"{100 * suite.level:g} % intervals, {suite.suite}", rows)
        print_list("How", found.settings())
        print_reading(args, study, fit, notices)
    return write_answer(args, found, study.definition)


def _run_intervals(args: argparse.Namespace) -> tuple[Study, StudyFit, IntervalsFit]:
    from delphi_jax.fit.forecasts import forecast_intervals
    from delphi_jax.fit.study import fit_study

    study = load(args, {"runs"})
    keep_compiled_programs(args)
    with progress("fitting"):
        fit = fit_study(study, ("laws", "held_out"))
        with input_errors():
            found = forecast_intervals(
                fit.isoflop,
                args.targets or study.definition.targets,
                suites=suites_with_law(args, fit),
                methods=tuple(dict.fromkeys(args.methods or INTERVAL_METHODS)),
                draws=args.draws,
                seed=args.seed,
                level=args.level,
                exact=args.exact,
                pinned=None if args.pin is None else pinned(args, args.pin, study),
                held_out=fit.held_out,
            )
    return study, fit, found
