"""``delphi-jax surface``: the loss over parameters and tokens."""

from __future__ import annotations

import argparse
from typing import Any

from delphi_jax.commands.options import (
    add_cache,
    add_draws,
    add_figures,
    add_json,
    add_objective,
    add_runs,
    add_suites,
    quantity,
)
from delphi_jax.commands.printing import print_json, print_reading, print_rows, progress, write_answer
from delphi_jax.commands.reading import input_errors, keep_compiled_programs, load

__all__ = ["add_parser"]


def add_parser(commands: Any) -> None:
    """Add the command to the ``commands`` of the parser."""
    parser = commands.add_parser(
        "surface",
        help="fit L(N, D) = E + A/N^a + B/D^b to every suite's runs, with bootstrap intervals",
        description="Fit the loss surface L(N, D) = E + A/N^a + B/D^b to the IsoFLOP runs of every suite by variable "
        "projection, and bootstrap it over the runs.",
    )
    add_runs(parser)
    parser.set_defaults(sweep=None)
    add_suites(parser, default="all")
    add_objective(
        parser,
        ("huber", "squared"),
        {"loss": "of the loss itself", "log": "of its logarithm (approach 3 of Hoffmann et al. 2022)"},
    )
    parser.add_argument(
        "--at",
        nargs=2,
        type=quantity,
        action="append",
        default=[],
        metavar=("PARAMS", "TOKENS"),
        help="forecast the loss of such a run; may be given several times",
    )
    add_draws(parser, 1000)
    parser.set_defaults(draws=1000, seed=0)
    add_json(parser)
    add_figures(parser)
    add_cache(parser)
    parser.set_defaults(run=_surface)


def _surface(args: argparse.Namespace) -> int:
    from delphi_jax.fit.study import fit_study
    from delphi_jax.fit.surface_study import fit_study_surfaces
    from delphi_jax.results.surface import SurfaceObjective

    study = load(args, {"runs"})
    keep_compiled_programs(args)
    objective = SurfaceObjective(args.loss_function, args.residual, args.delta)
    fit = fit_study(study, ("isoflop",))
    with progress("fitting"), input_errors():
        found = fit_study_surfaces(
            study.runs, args.suite, objective=objective, at=args.at, draws=args.draws, seed=args.seed
        )
    if args.json:
        print_json(args, {"surfaces": [each.to_dict() for each in found.bootstraps]}, found.notices(), fit)
    else:
        print_rows("Loss surfaces", found.fit_rows())
        print_rows("Bootstrap over runs", found.rows())
        print_reading(args, study, fit, found.notices())
    return write_answer(args, found, study.definition)
