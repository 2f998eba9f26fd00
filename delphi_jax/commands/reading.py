"""What commands read, and the compiled programs that they keep."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from delphi_jax.status import InputError

if TYPE_CHECKING:
    from delphi_jax.results import StudyFit
    from delphi_jax.tables import Study

__all__ = ["cache_folder", "keep_compiled_programs", "load", "suites_with_law"]


def load(args: argparse.Namespace, tables: Collection[str] | None) -> Study:
    """The study that the options name; the default folder only where no file is given."""
    from delphi_jax.io import load_study

    if args.data is None and args.runs is None and (args.sweep is None or (tables and "runs" in tables)):
        args.data = Path("data")
    elif args.data is not None and (args.runs or args.sweep) and not args.data.is_dir():
        raise InputError(f"{args.data}: no such folder; give the folder that holds the study's tables")
    return load_study(args.data, runs=args.runs, sweep=args.sweep, tables=tables)


def keep_compiled_programs(folder: Path | None) -> None:
    """Keep compiled programs on disk. Only the command does this: the library leaves JAX as it is."""
    from delphi_jax.programs import keep_programs

    folder = cache_folder(folder)
    try:
        keep_programs(folder)
    except OSError as error:
        print(f"delphi-jax: compiled programs are not kept: {folder}: {error.strerror}", file=sys.stderr)


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
