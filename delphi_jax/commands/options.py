"""Types and groups of arguments that commands share, and their exit codes."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Mapping, Sequence
from decimal import Decimal, InvalidOperation
from pathlib import Path

from delphi_jax.labels import FIGURE_FORMATS
from delphi_jax.plots.theme import BRAND, THEMES

__all__ = [
    "BAD_INPUT",
    "BAD_USAGE",
    "OK",
    "add_cache",
    "add_data",
    "add_draws",
    "add_figures",
    "add_formats",
    "add_input",
    "add_json",
    "add_level",
    "add_metric",
    "add_objective",
    "add_runs",
    "add_suites",
    "add_targets",
    "add_theme",
    "budget",
    "natural",
    "positive",
    "quantity",
]

OK, BAD_INPUT, BAD_USAGE = 0, 1, 2
"""Exit codes."""

_MOST_DIGITS = 30
"""Of a whole number: 1e999999999 is no number of anything."""


def natural(text: str) -> int:
    return _whole(text, least=0)


def positive(text: str) -> int:
    return _whole(text, least=1)


def _whole(text: str, least: int) -> int:
    """A whole number of at least ``least`` in any notation, such as 1e9."""
    with contextlib.suppress(InvalidOperation):
        number = Decimal(text.strip())
        if number.is_finite() and number.adjusted() < _MOST_DIGITS and number == int(number) >= least:
            return int(number)
    raise argparse.ArgumentTypeError(f"expected a whole number of at least {least}, got {text!r}")


def budget(text: str) -> float:
    return quantity(text, "a positive number of FLOPs")


def quantity(text: str, what: str = "a positive number") -> float:
    with contextlib.suppress(ValueError):
        if 0 < float(text) < float("inf"):
            return float(text)
    raise argparse.ArgumentTypeError(f"expected {what}, got {text!r}")


def add_input(parser: argparse.ArgumentParser) -> None:
    add_runs(parser)
    parser.add_argument(
        "--sweep-in",
        dest="sweep",
        type=Path,
        metavar="FILE",
        help="table of the hyper-parameter sweep, instead of DIR's",
    )


def add_data(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--data",
        type=Path,
        metavar="DIR",
        help="folder of the study's tables, .json, .csv or .parquet (default: that of the study file, else data)",
    )
    parser.add_argument(
        "--study",
        type=Path,
        metavar="FILE",
        help="study file, or the name of a shipped study: what the tables hold (default: DIR/study.toml, else the "
        "Delphi study); see init and check",
    )


def add_runs(parser: argparse.ArgumentParser) -> None:
    add_data(parser)
    parser.add_argument("--in", dest="runs", type=Path, metavar="FILE", help="table of training runs, instead of DIR's")


def add_suites(parser: argparse.ArgumentParser, default: str = "all that have a law") -> None:
    parser.add_argument(
        "--suite", nargs="+", action="extend", metavar="NAME", help=f"only these suites (default: {default})"
    )


def add_targets(parser: argparse.ArgumentParser, default: str = "those of the study") -> None:
    parser.add_argument(
        "--targets",
        nargs="+",
        type=budget,
        metavar="BUDGET",
        help=f"compute budgets of the forecasts, FLOPs (default: {default})",
    )


def add_metric(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--metric",
        metavar="NAME",
        help="metric that the pinned asymptote belongs to; another than the study's is refused (default: the study's)",
    )


def add_objective(
    parser: argparse.ArgumentParser, functions: Sequence[str], residuals: Mapping[str, str], of: str = "the"
) -> None:
    """What a fit minimises; the first of ``functions``, and of ``residuals`` with their words, is the default."""
    parser.add_argument(
        "--loss-function", choices=functions, default=functions[0], help=f"of {of} residuals (default: {functions[0]})"
    )
    (first, words), *rest = residuals.items()
    others = "".join(f", or {other}" for _, other in rest)
    parser.add_argument(
        "--residual", choices=tuple(residuals), default=first, help=f"{of} residuals: {words} (default){others}"
    )
    parser.add_argument(
        "--delta", type=quantity, default=1e-3, metavar="X", help="where Huber's function turns linear (default: 0.001)"
    )


def add_json(parser: argparse.ArgumentParser, what: str = "print one JSON object, every array included") -> None:
    parser.add_argument("--json", action="store_true", help=what)


def add_level(parser: argparse.ArgumentParser, what: str) -> None:
    """``what`` says what the level is of."""
    parser.add_argument("--level", type=_share, default=0.95, metavar="P", help=f"{what} (default: 0.95)")


def _share(text: str) -> float:
    with contextlib.suppress(ValueError):
        if 0 < float(text) < 1:
            return float(text)
    raise argparse.ArgumentTypeError(f"expected a share between 0 and 1, such as 0.95, got {text!r}")


def add_formats(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--format",
        nargs="+",
        action="extend",
        choices=FIGURE_FORMATS,
        metavar="FORMAT",
        help="json (default), html, png, svg, pdf; several may be given. Images need the extra [images] and a browser",
    )
    add_theme(parser)


def add_theme(parser: argparse.ArgumentParser, otherwise: str = BRAND.name) -> None:
    """``otherwise`` is the theme where neither this option nor the study file names one."""
    parser.add_argument(
        "--theme",
        choices=tuple(THEMES),
        metavar="NAME",
        help=f"colours of the figures: {', '.join(THEMES)} (default: the study file's, else {otherwise})",
    )


def add_figures(parser: argparse.ArgumentParser) -> None:
    """The figures of a command that prints tables."""
    parser.add_argument("--out", type=Path, metavar="DIR", help="write the figures here too (default: tables only)")
    add_formats(parser)


def add_draws(parser: argparse.ArgumentParser, draws: int) -> None:
    """Both are None where they are not given, so that a bootstrap without draws can refuse them."""
    parser.add_argument("--draws", type=positive, metavar="N", help=f"bootstrap draws (default: {draws})")
    parser.add_argument("--seed", type=natural, metavar="N", help="seed of the bootstrap (default: 0)")


def add_cache(parser: argparse.ArgumentParser, kept: str = "compiled programs") -> None:
    cache = parser.add_mutually_exclusive_group()
    cache.add_argument(
        "--cache-dir",
        type=Path,
        metavar="DIR",
        help=f"keep {kept} here (default: the user's cache folder)",
    )
    cache.add_argument("--no-cache", action="store_true", help=f"neither read nor keep {kept}")
