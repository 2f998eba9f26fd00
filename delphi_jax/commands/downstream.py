"""``delphi-jax downstream``: how sure is the two-step forecast?"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from delphi_jax.commands.options import add_cache, add_data, add_draws, add_figures, add_json, add_level, budget
from delphi_jax.commands.printing import print_json, print_reading, print_rows, progress, write_answer
from delphi_jax.commands.reading import input_errors, keep_compiled_programs, load
from delphi_jax.status import InputError
from delphi_jax.tasks import no_evaluations

if TYPE_CHECKING:
    from delphi_jax.results.downstream import DownstreamIntervals
    from delphi_jax.tables import Study

__all__ = ["add_parser"]

_CONTAINS = (
    "Intervals contain the sampling of runs and of external models. They do not contain that law and curve may have "
    "another form, or the noise of a single new run."
)


def add_parser(commands: Any) -> None:
    """Add the command to the ``commands`` of the parser."""
    parser = commands.add_parser(
        "downstream",
        help="intervals of the downstream forecasts, both steps resampled together",
        description="Forecast the soft and the hard metric of every downstream task and shot count, at the held-out "
        f"budgets and beyond, with percentile intervals from resampling both steps together. {_CONTAINS}",
    )
    add_data(parser)
    parser.set_defaults(runs=None, sweep=None)
    parser.add_argument(
        "--budgets",
        nargs="+",
        type=budget,
        default=(),
        metavar="BUDGET",
        help="forecast at these compute budgets too, FLOPs (default: the tasks' own and the held-out ones)",
    )
    add_draws(parser, 1000)
    parser.set_defaults(draws=1000, seed=0)
    add_level(parser, "of the intervals")
    add_json(parser)
    add_figures(parser)
    add_cache(parser)
    parser.set_defaults(run=_downstream)


def _downstream(args: argparse.Namespace) -> int:
    from delphi_jax.results import StudyFit

    study, found = _run_downstream(args)
    fits = tuple(view.fit for view in found.views)
    fit = StudyFit(
        study.source, downstream=fits, skipped=study.skipped, missing=study.missing, definition=study.definition
    )
    notices = fit.notices() + found.notices()
    if args.json:
        print_json(args, {"downstream": found.to_dict()}, notices, fit)
    else:
        for view in found.views:
            print_rows(view.name, view.rows())
        print_rows("Draws", found.draw_rows())
        print(_CONTAINS)
        print_reading(args, study, fit, notices)
    return write_answer(args, found, study.definition)


def _run_downstream(args: argparse.Namespace) -> tuple[Study, DownstreamIntervals]:
    from delphi_jax.fit.downstream_intervals import downstream_intervals

    study = load(args, {"tasks"})
    if not study.evals:
        raise InputError(f"{args.data}: {no_evaluations(study.definition.tasks)}")
    keep_compiled_programs(args)
    with progress("resampling"), input_errors():
        found = downstream_intervals(
            study.evals,
            study.externals,
            study.definition,
            args.budgets,
            draws=args.draws,
            seed=args.seed,
            level=args.level,
        )
    return study, found
