"""What commands read, and the compiled programs that they keep."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from delphi_jax.status import InputError

if TYPE_CHECKING:
    from delphi_jax.definition import Definition
    from delphi_jax.plots.theme import Theme
    from delphi_jax.results import StudyFit
    from delphi_jax.results.law import PinnedAsymptote
    from delphi_jax.tables import Study

__all__ = [
    "cache_folder",
    "chosen_theme",
    "input_errors",
    "keep_compiled_programs",
    "load",
    "load_definition",
    "pinned",
    "study_theme",
    "suites_with_law",
]


def load(args: argparse.Namespace, tables: Collection[str] | None, definition: Definition | None = None) -> Study:
    """The study that the options name, its ``tables`` of some kinds; the default folder only where no file is given."""
    from delphi_jax.io import load_study

    _choose_folder(args, tables)
    if args.data is not None and (args.runs or args.sweep) and not args.data.is_dir():
        raise InputError(f"{args.data}: no such folder; give the folder that holds the study's tables")
    return load_study(args.data, study=definition or args.study, runs=args.runs, sweep=args.sweep, tables=tables)


def load_definition(args: argparse.Namespace) -> Definition:
    """What the study file that the options name says."""
    from delphi_jax.io.study import find_definition

    _choose_folder(args, None)
    return find_definition(args.data, args.study, args.runs or args.sweep)


def _choose_folder(args: argparse.Namespace, tables: Collection[str] | None) -> None:
    if args.data is None and args.runs is None and (args.sweep is None or (tables and "runs" in tables)):
        from delphi_jax.io.study import find_folder

        args.data = find_folder(None, args.study)


def chosen_theme(args: argparse.Namespace, definition: Definition, otherwise: str = "") -> Theme:
    """The theme that the options ask for, else the study file, else ``otherwise``, by default the brand's."""
    from delphi_jax.plots.theme import THEMES

    asked = args.theme or ("" if definition.theme else otherwise)
    return THEMES[asked] if asked else study_theme(definition)


def study_theme(definition: Definition) -> Theme:
    """The theme that a study file asks for; InputError where there is no such theme."""
    from delphi_jax.plots.theme import BRAND, THEMES, theme_from

    given = definition.theme
    if given and isinstance(given, str) and given not in THEMES:
        raise InputError(f"{definition.source}: theme: there is no theme {given!r}; the themes are {', '.join(THEMES)}")
    try:
        return (THEMES[given] if given else BRAND) if isinstance(given, str) else theme_from(given)
    except ValueError as error:
        raise InputError(f"{definition.source}: {error}") from None


def pinned(args: argparse.Namespace, value: float, study: Study) -> PinnedAsymptote:
    """An asymptote that was given, with its metric; InputError where that is not the study's."""
    from delphi_jax.results.law import PinnedAsymptote

    metric = study.definition.metric.name
    if args.metric not in (None, metric):
        raise InputError(
            f"the asymptote {value:g} belongs to {args.metric!r}, the series to {metric!r}: pin one of the same metric"
        )
    return PinnedAsymptote(value, metric)


def keep_compiled_programs(args: argparse.Namespace) -> None:
    """Keep compiled programs on disk, unless the options say not to. Only the command does this, not the library."""
    if args.no_cache:
        return
    from delphi_jax.programs import keep_programs

    folder = cache_folder(args.cache_dir)
    try:
        keep_programs(folder)
    except OSError as error:
        print(f"delphi-jax: compiled programs are not kept: {folder}: {error.strerror}", file=sys.stderr)


@contextlib.contextmanager
def input_errors(lead: str = "") -> Iterator[None]:
    """Say what the library finds wrong with its arguments as the command says it, behind ``lead``."""
    try:
        yield
    except ValueError as error:
        raise InputError(f"{lead}{error}") from error


def cache_folder(asked: Path | None) -> Path:
    import platformdirs

    return asked or platformdirs.user_cache_path("delphi_jax")


def suites_with_law(args: argparse.Namespace, fit: StudyFit) -> list[str]:
    """The suites asked for, or all that have a law; InputError where one has none, or none has."""
    fitted = [suite for suite, law in fit.laws.items() if law.fitted]
    if not fitted:
        reasons = [f"{suite}: {law.status.label}" for suite, law in fit.laws.items()]
        raise InputError(f"no suite has a law ({'; '.join(reasons) or 'there are no suites'})")
    asked = list(dict.fromkeys(args.suite or fitted))
    for suite in asked:
        if suite not in fit.laws:
            raise InputError(f"there is no suite {suite!r}; the suites are {', '.join(fit.laws)}")
        if suite not in fitted:
            status = fit.laws[suite].status
            raise InputError(f"suite {suite} has no law: {status.label}; those that have one are {', '.join(fitted)}")
    return asked
