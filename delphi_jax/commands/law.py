"""``delphi-jax law``: the law's optimum, and how well the data determine it."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from delphi_jax.commands.options import (
    add_cache,
    add_figures,
    add_json,
    add_level,
    add_metric,
    add_objective,
    add_runs,
    add_suites,
    add_targets,
)
from delphi_jax.commands.printing import print_json, print_reading, print_rows, progress, write_answer
from delphi_jax.commands.reading import input_errors, keep_compiled_programs, load, pinned
from delphi_jax.status import InputError

if TYPE_CHECKING:
    from delphi_jax.fit.law_intervals import Asymptote
    from delphi_jax.results.isoflop import IsoflopFit
    from delphi_jax.tables import Study

__all__ = ["add_parser"]


def add_parser(commands: Any) -> None:
    """Add the command to the ``commands`` of the parser."""
    parser = commands.add_parser(
        "law",
        help="the law's continuous optimum with profile intervals of L_inf, alpha and the forecasts",
        description="Fit the law of every suite's optima continuously in its asymptote, under the objective of your "
        "choice, with profile intervals of L_inf, alpha and the forecasts, beside the best of a grid of asymptotes.",
    )
    add_runs(parser)
    parser.set_defaults(sweep=None)
    add_suites(parser, default="all")
    add_targets(parser)
    parser.add_argument(
        "--asymptote",
        type=_asymptote,
        default="free",
        metavar="free|shared|LOSS",
        help="free (default), one shared by all suites, or pinned to a value",
    )
    add_metric(parser)
    add_objective(parser, ("squared", "huber"), {"log": "of log(L - L_inf)", "loss": "of the loss itself"})
    add_level(parser, "of the intervals")
    add_json(parser)
    add_figures(parser)
    add_cache(parser)
    parser.set_defaults(run=_law)


def _asymptote(text: str) -> str | float:
    if text in ("free", "shared"):
        return text
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected free, shared or a loss, got {text!r}") from None


def _law(args: argparse.Namespace) -> int:
    from delphi_jax.fit.law_intervals import law_study
    from delphi_jax.fit.study import fit_study
    from delphi_jax.results.law import Objective

    study = load(args, {"runs"})
    keep_compiled_programs(args)
    with progress("fitting"):
        fit = fit_study(study, ("isoflop",))
        optima = {suite: fit.isoflop.optima(suite)[:2] for suite in _suites(args, fit.isoflop)}
        with input_errors():
            found = law_study(
                optima,
                args.targets or study.definition.targets,
                level=args.level,
                asymptote=_given(args, study),
                objective=Objective(args.loss_function, args.residual, args.delta),
                metric=study.definition.metric.name,
            )
    notices = fit.notices() + found.notices()
    if args.json:
        print_json(args, {"law": found.to_dict()}, notices, fit)
    else:
        print_rows("Laws", found.law_rows())
        print_rows("Profile intervals", found.rows())
        print_reading(args, study, fit, notices)
    return write_answer(args, found, study.definition)


def _given(args: argparse.Namespace, study: Study) -> Asymptote:
    return args.asymptote if isinstance(args.asymptote, str) else pinned(args, args.asymptote, study)


def _suites(args: argparse.Namespace, isoflop: IsoflopFit) -> list[str]:
    """The suites asked for, or all; a series without a law says so in its status."""
    asked = list(dict.fromkeys(args.suite or isoflop.suites))
    if unknown := [suite for suite in asked if suite not in isoflop.suites]:
        raise InputError(f"there is no suite {unknown[0]!r}; the suites are {', '.join(isoflop.suites)}")
    if not asked:
        raise InputError("no suite has a law (there are no IsoFLOP runs)")
    return asked
