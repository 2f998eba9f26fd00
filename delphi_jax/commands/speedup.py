"""``delphi-jax speedup``: which recipe, and by how much?"""

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
    budget,
)
from delphi_jax.commands.printing import print_json, print_reading, print_rows, write_answer
from delphi_jax.commands.reading import input_errors, keep_compiled_programs, load, pinned
from delphi_jax.status import InputError

if TYPE_CHECKING:
    from delphi_jax.results import StudyFit
    from delphi_jax.results.speedup import SpeedupFit
    from delphi_jax.tables import Study

__all__ = ["add_parser"]

_DRAWS = 10_000


def add_parser(commands: Any) -> None:
    """Add the command to the ``commands`` of the parser."""
    parser = commands.add_parser(
        "speedup",
        help="compare two suites: how many times the compute does one need for the loss of the other?",
        description="Effective speedup of one suite over another: at matched budgets, with one asymptote and one "
        "exponent for both, and as the compute multiplier between their laws against budget; each with an interval and "
        "the probability that it exceeds 1. Below 1 the second suite is the faster one.",
    )
    add_runs(parser)
    parser.set_defaults(sweep=None)
    parser.add_argument(
        "--suites",
        nargs=2,
        metavar="NAME",
        help="the speedup of the first over the second (default: the two suites of the study, in alphabetical order)",
    )
    parser.add_argument(
        "--pin",
        type=float,
        metavar="VALUE",
        help="pin the asymptote of both suites to this loss (default: at matched budgets a shared asymptote, refitted "
        "in every draw; between laws a free one for each suite)",
    )
    add_metric(parser)
    parser.add_argument(
        "--budgets",
        nargs="+",
        type=budget,
        metavar="BUDGET",
        help="compute budgets of the multiplier between the laws, FLOPs (default: those of both suites, and the "
        "study's targets)",
    )
    add_draws(parser, _DRAWS)
    add_level(parser, "of the intervals")
    parser.set_defaults(draws=_DRAWS, seed=0)
    add_json(parser)
    add_figures(parser)
    add_cache(parser)
    parser.set_defaults(run=_speedup)


def _speedup(args: argparse.Namespace) -> int:
    study, fit, found = _run_speedup(args)
    notices = fit.notices() + found.notices()
    if args.json:
        print_json(args, {"speedup": found.to_dict()}, notices, fit)
    else:
        first, second = found.suites
        print_rows("Laws", found.law_rows())
        # The title names the suites.
        rows = [{name: row[name] for name in row if name not in ("speedup of", "over")} for row in found.rows()]
        print_rows(f"Speedup of {first} over {second}", rows)
        print_reading(args, study, fit, notices)
    return write_answer(args, found, study.definition)


def _run_speedup(args: argparse.Namespace) -> tuple[Study, StudyFit, SpeedupFit]:
    from delphi_jax.fit.speedup import effective_speedup
    from delphi_jax.fit.study import fit_study

    study = load(args, {"runs"})
    keep_compiled_programs(args)
    fit = fit_study(study, ("isoflop",))
    first, second = _suites(args, fit)
    optima = {suite: fit.isoflop.optima(suite)[:2] for suite in (first, second)}
    settings = {"draws": args.draws, "seed": args.seed, "level": args.level, "definition": study.definition}
    pin = None if args.pin is None else pinned(args, args.pin, study).value
    with input_errors():
        return study, fit, effective_speedup(optima, L_inf=pin, budgets=args.budgets, **settings)


def _suites(args: argparse.Namespace, fit: StudyFit) -> tuple[str, str]:
    """The two suites to compare; InputError where they do not exist, or it is not clear which are meant."""
    known = [suite for suite in fit.isoflop.suites if fit.isoflop.of(suite)]
    names = ", ".join(known) or "none"
    if args.suites is None and len(known) != 2:
        raise InputError(f"a speedup compares two suites: name them with --suites; those with an optimum are {names}")
    first, second = args.suites or known
    for suite in (first, second):
        if suite not in known:
            raise InputError(f"there is no suite {suite!r} with an optimum; those that have one are {names}")
    if first == second:
        raise InputError(f"a speedup compares two different suites, got {first!r} twice")
    return first, second
