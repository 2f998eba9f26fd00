"""``delphi-jax validate``: would the law have been right?"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from delphi_jax.commands.options import add_cache, add_figures, add_json, add_metric, add_runs, add_suites
from delphi_jax.commands.printing import print_json, print_reading, print_rows, write_answer
from delphi_jax.commands.reading import input_errors, keep_compiled_programs, load, pinned, suites_with_law

if TYPE_CHECKING:
    from delphi_jax.results import StudyFit
    from delphi_jax.results.validation import ValidationFit
    from delphi_jax.tables import Study

__all__ = ["add_parser"]


def add_parser(commands: Any) -> None:
    """Add the command to the ``commands`` of the parser."""
    parser = commands.add_parser(
        "validate",
        help="refit on the first budgets, predict all later ones: would the law have been right?",
        description="Leave-future-out validation: refit every suite's law on its first budgets, for every number of "
        "them that supports a law, predict all later optima and held-out runs, and report the errors by how far ahead "
        "they look.",
    )
    add_runs(parser)
    parser.set_defaults(sweep=None)
    add_suites(parser)
    parser.add_argument(
        "--pin",
        type=float,
        metavar="VALUE",
        help="also refit with the asymptote pinned to this loss, which must have been known at the time: one that was "
        "fitted to the same runs knows the future",
    )
    add_metric(parser)
    parser.add_argument(
        "--method",
        choices=("grid", "optimum"),
        default="grid",
        help="how a free asymptote is found: the best of a grid (default), or the continuous optimum",
    )
    add_json(parser)
    add_figures(parser)
    add_cache(parser)
    parser.set_defaults(run=_validate)


def _validate(args: argparse.Namespace) -> int:
    study, fit, found = _run_validation(args)
    notices = fit.notices() + found.notices() + _diverged(fit, found)
    if args.json:
        print_json(args, {"validation": found.to_dict(), "summary": found.summary()}, notices, fit)
    else:
        print_rows("Refits", found.refit_rows())
        print_rows("Predictions", found.rows())
        print_rows("Errors by distance", found.summary())
        print_reading(args, study, fit, notices)
    return write_answer(args, found, study.definition)


def _run_validation(args: argparse.Namespace) -> tuple[Study, StudyFit, ValidationFit]:
    from delphi_jax.fit.study import fit_study
    from delphi_jax.fit.validation import leave_future_out

    study = load(args, {"runs"})
    keep_compiled_programs(args)
    fit = fit_study(study, ("laws", "held_out"))
    suites = suites_with_law(args, fit)
    optima = {suite: fit.isoflop.optima(suite)[:2] for suite in suites}
    means = {suite: fit.held_out.means(suite) for suite in suites}
    held_out = {suite: pair for suite, pair in means.items() if len(pair[0])}
    with input_errors("--pin: " if args.pin is not None else ""):
        pin = None if args.pin is None else pinned(args, args.pin, study).value
        return study, fit, leave_future_out(optima, held_out, L_inf=pin, method=args.method)


def _diverged(fit: StudyFit, found: ValidationFit) -> list[str]:
    """Held-out runs that are no measurement."""
    runs = {suite: fit.held_out.diverged(suite) for suite, _ in found.kinds}
    return [
        f"{suite}: held-out runs that did not finish, and are not predicted: {len(left_out)}"
        for suite, left_out in runs.items()
        if left_out
    ]
