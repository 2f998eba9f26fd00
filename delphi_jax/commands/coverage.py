"""``delphi-jax coverage``: are the intervals right?"""

from __future__ import annotations

import argparse
import contextlib
from typing import TYPE_CHECKING, Any

from delphi_jax.commands.options import (
    add_cache,
    add_draws,
    add_figures,
    add_json,
    add_level,
    add_runs,
    add_targets,
    positive,
)
from delphi_jax.commands.printing import print_json, print_list, print_reading, print_rows, progress_bar, write_answer
from delphi_jax.commands.reading import input_errors, keep_compiled_programs, load, suites_with_law
from delphi_jax.labels import INTERVAL_METHODS, NOISE_MODELS

if TYPE_CHECKING:
    from delphi_jax.results import StudyFit
    from delphi_jax.results.coverage import CoverageFit
    from delphi_jax.results.surface import SurfaceFit
    from delphi_jax.tables import RunTable, Study

__all__ = ["add_parser"]


def add_parser(commands: Any) -> None:
    """Add the command to the ``commands`` of the parser."""
    parser = commands.add_parser(
        "coverage",
        help="simulate studies from a fit, and count how often each method's interval holds the truth",
        description="Simulate many studies with the budgets and runs of one suite from the law, or the loss surface, "
        "fitted to it, with a stated noise; run every interval method on each; and report how often the intervals hold "
        "the truth, how wide they are and how far off the forecasts, with Monte-Carlo errors.",
    )
    add_runs(parser)
    parser.set_defaults(sweep=None)
    parser.add_argument(
        "--suite", metavar="NAME", help="the suite to simulate (default: the study's focus, else the first with a law)"
    )
    parser.add_argument(
        "--truth",
        choices=("law", "surface"),
        default="law",
        help="law (default): no parabola is biased; surface: the runs' losses are those of L(N, D), so that the "
        "parabolas' bias is a part of what is measured",
    )
    parser.add_argument("--studies", type=positive, default=1000, metavar="N", help="simulated studies (default: 1000)")
    add_draws(parser, 1000)
    parser.set_defaults(draws=1000, seed=0)
    parser.add_argument(
        "--noise",
        type=_deviation,
        metavar="SD",
        help="standard deviation of a run's loss, in nats, or as a share of loss - L_inf with --noise-model reducible "
        "(default: the pooled deviation of the suite's runs from their parabolas)",
    )
    parser.add_argument(
        "--bucket-noise",
        type=_deviation,
        default=0.0,
        metavar="SD",
        help="standard deviation of a noise that all runs of a budget share, in the same unit (default: 0)",
    )
    parser.add_argument(
        "--noise-model",
        choices=NOISE_MODELS,
        default=NOISE_MODELS[0],
        help="additive (default): the same at every loss; reducible: proportional to loss - L_inf",
    )
    parser.add_argument(
        "--methods",
        nargs="+",
        action="extend",
        choices=INTERVAL_METHODS,
        metavar="NAME",
        help=f"only these of {', '.join(INTERVAL_METHODS)} (default: all)",
    )
    add_level(parser, "nominal coverage")
    add_targets(parser, "the middle and the largest budget of the fit, and the study's targets beyond it")
    add_json(parser)
    add_figures(parser)
    add_cache(parser)
    parser.set_defaults(run=_coverage)


def _deviation(text: str) -> float:
    with contextlib.suppress(ValueError):
        if 0 <= float(text) < float("inf"):
            return float(text)
    raise argparse.ArgumentTypeError(f"expected a standard deviation of at least 0, got {text!r}")


def _coverage(args: argparse.Namespace) -> int:
    study, fit, found = _run_coverage(args)
    notices = fit.notices() + found.notices()
    if args.json:
        print_json(args, {"coverage": found.to_dict()}, notices, fit)
    else:
        print_rows(f"Coverage of {100 * found.level:g} % intervals, {found.series}", found.rows())
        print_list("How", found.settings())
        print_reading(args, study, fit, notices)
    return write_answer(args, found, study.definition)


def _surface(runs: RunTable, suite: str) -> SurfaceFit:
    """The loss surface of the suite's IsoFLOP runs."""
    from delphi_jax.fit.surface import fit_surface
    from delphi_jax.tables import fit_runs

    used, _ = fit_runs(runs)
    used = used.where(used.suite == suite)
    return fit_surface(used.params, used.tokens, used.loss, series=suite)


def _run_coverage(args: argparse.Namespace) -> tuple[Study, StudyFit, CoverageFit]:
    from delphi_jax.fit.coverage import coverage_study
    from delphi_jax.fit.study import fit_study, focus_suite

    study = load(args, {"runs"})
    keep_compiled_programs(args)
    fit = fit_study(study, ("laws",))
    (suite,) = suites_with_law(argparse.Namespace(suite=[args.suite or focus_suite(fit.laws, study.definition)]), fit)
    with progress_bar(suite, "studies") as report, input_errors():
        found = coverage_study(
            study.runs,
            fit.laws[suite] if args.truth == "law" else _surface(study.runs, suite),
            args.targets,
            methods=tuple(dict.fromkeys(args.methods or INTERVAL_METHODS)),
            studies=args.studies,
            draws=args.draws,
            noise=args.noise,
            bucket_noise=args.bucket_noise,
            noise_model=args.noise_model,
            seed=args.seed,
            level=args.level,
            progress=report,
        )
    return study, fit, found
