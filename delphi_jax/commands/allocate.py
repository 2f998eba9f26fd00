"""``delphi-jax allocate``: how large a model on how many tokens?"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from delphi_jax.commands.options import (
    add_cache,
    add_draws,
    add_figures,
    add_json,
    add_level,
    add_objective,
    add_runs,
    add_suites,
    budget,
)
from delphi_jax.commands.printing import print_json, print_reading, print_rows, progress, write_answer
from delphi_jax.commands.reading import input_errors, keep_compiled_programs, load
from delphi_jax.labels import FLOPS
from delphi_jax.status import InputError

if TYPE_CHECKING:
    from delphi_jax.results import StudyFit
    from delphi_jax.results.allocation import AllocationFit
    from delphi_jax.tables import Study

__all__ = ["add_parser"]


def add_parser(commands: Any) -> None:
    """Add the command to the ``commands`` of the parser."""
    parser = commands.add_parser(
        "allocate",
        help="the best parameters and tokens for any compute budget, by several approaches",
        description="The best number of parameters N* and of tokens D* for any compute budget, their ratio and the "
        "loss there, with intervals: from the IsoFLOP optima (approach 2 of Hoffmann et al. 2022) by parabola and by "
        "spline, and from the loss surface (approach 3). Known biases of the parabolas are named where the data shows "
        "them, and so is what choosing one approach costs if the other is right.",
    )
    add_runs(parser)
    parser.set_defaults(sweep=None)
    add_suites(parser, "all that have IsoFLOP runs")
    parser.add_argument(
        "--budgets",
        nargs="+",
        type=budget,
        metavar="BUDGET",
        help="compute budgets, FLOPs (default: the targets of the study)",
    )
    parser.add_argument(
        "--flops",
        choices=FLOPS,
        default=FLOPS[0],
        help="how FLOPs are counted: as measured (default), a budget being k*N*D with the runs' median k, or as 6*N*D",
    )
    add_objective(
        parser,
        ("huber", "squared"),
        {"loss": "of the loss itself", "log": "of its logarithm (approach 3 of Hoffmann et al. 2022)"},
        of="the surface's",
    )
    add_draws(parser, 1000)
    parser.set_defaults(draws=1000, seed=0)
    add_level(parser, "of the intervals; 1 - P is the size of the tests for biases")
    add_json(parser)
    add_figures(parser)
    add_cache(parser)
    parser.set_defaults(run=_allocate)


def _allocate(args: argparse.Namespace) -> int:
    study, fit, found = _run_allocate(args)
    if args.json:
        print_json(args, {"allocation": found.to_dict()}, found.notices(), fit)
    else:
        _print_tables(found)
        print_reading(args, study, fit, found.notices())
    return write_answer(args, found, study.definition)


def _run_allocate(args: argparse.Namespace) -> tuple[Study, StudyFit, AllocationFit]:
    from delphi_jax.fit.allocation import allocate
    from delphi_jax.fit.study import fit_study
    from delphi_jax.results.surface import SurfaceObjective

    study = load(args, {"runs"})
    keep_compiled_programs(args)
    fit = fit_study(study, ("isoflop",))
    with progress("fitting and resampling"), input_errors():
        found = allocate(
            study.runs,
            args.budgets or study.definition.targets,
            suites=args.suite,
            flops=args.flops,
            objective=SurfaceObjective(args.loss_function, args.residual, args.delta),
            draws=args.draws,
            seed=args.seed,
            level=args.level,
        )
    if not found.suites:
        raise InputError("there are no IsoFLOP runs: the study needs finished runs that are not held out")
    return study, fit, found


def _print_tables(found: AllocationFit) -> None:
    for suite in found.suites:
        counted = "as measured" if suite.flops == "measured" else "as 6*N*D"
        interval = f"{100 * suite.level:g} % intervals"
        print_rows(f"{suite.suite}: allocation, FLOPs {counted}, {interval}", _compact(suite.rows()))
        print_rows(f"{suite.suite}: exponents of compute, {interval}", _compact(suite.exponent_rows()))
        print_rows(f"{suite.suite}: IsoFLOP buckets", _compact(suite.bucket_rows()))
        if costs := suite.cost_rows():
            print_rows(f"{suite.suite}: what choosing one approach costs if the other is right", _compact(costs))


def _compact(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """``rows`` without the suite, which the title names, and with every estimate and its interval in one cell."""
    return [
        {
            name: _estimate(value, row[f"{name} low"], row[f"{name} high"]) if f"{name} low" in row else value
            for name, value in row.items()
            if name != "suite" and name.rsplit(" ", 1)[-1] not in ("low", "high")
        }
        for row in rows
    ]


def _estimate(value: float, low: float, high: float) -> str:
    if math.isnan(value):
        return ""
    return f"{value:.4g}" if math.isnan(low) else f"{value:.4g} ({low:.4g} to {high:.4g})"
