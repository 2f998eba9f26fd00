"""``delphi-jax report``: the whole study as one page."""

from __future__ import annotations

import argparse
import datetime
import hashlib
import json
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from delphi_jax.commands.options import BAD_INPUT, OK, add_cache, add_draws, add_input, add_theme
from delphi_jax.commands.printing import folders_read, print_list, print_reading, progress
from delphi_jax.commands.reading import chosen_theme, keep_compiled_programs, load
from delphi_jax.status import InputError

if TYPE_CHECKING:
    from delphi_jax.definition import Definition
    from delphi_jax.report.model import File
    from delphi_jax.results import Result, StudyFit
    from delphi_jax.tables import Study

__all__ = ["add_parser"]

_ANSWERS = (
    "law-profile",
    "forecast-fan",
    "leave-future-out",
    "allocation",
    "loss-surface",
    "effective-speedup",
    "downstream-intervals",
)
"""In the order in which the page shows them; names of their figures."""
_QUICK = ("law-profile",)
_PACKAGES = ("delphi-jax", "jax", "jaxlib", "numpy", "plotly")
_READ = (".json", ".csv", ".parquet", ".toml")


def add_parser(commands: Any) -> None:
    """Add the command to the ``commands`` of the parser."""
    parser = commands.add_parser(
        "report",
        help="the whole study as one page that works offline: words, figures, tables, origin",
        description="Write one HTML page that holds the whole study and works offline: what it says in words with "
        "intervals, every figure, sortable tables with downloads, what was left out, methods, and the origin of the "
        "data.",
    )
    add_input(parser)
    parser.add_argument(
        "--out", type=Path, default=Path("report.html"), metavar="FILE", help="page to write (default: report.html)"
    )
    add_theme(parser, "light")
    only = parser.add_mutually_exclusive_group()
    only.add_argument(
        "--only",
        nargs="+",
        action="extend",
        choices=_ANSWERS,
        metavar="NAME",
        help=f"beside the study's figures only these answers: {', '.join(_ANSWERS)} (default: all)",
    )
    only.add_argument("--quick", action="store_true", help=f"the same as --only {' '.join(_QUICK)}")
    add_draws(parser, 1000)
    parser.set_defaults(draws=1000, seed=0)
    add_cache(parser)
    parser.set_defaults(run=_report)


def _report(args: argparse.Namespace) -> int:
    started = time.perf_counter()
    _check_out(args.out)
    from delphi_jax.report.build import build_report, page_bytes
    from delphi_jax.simulate import is_simulated
    from delphi_jax.whole import write_whole

    study = load(args, None)
    with progress("fitting"):
        fit, answers, left_out = _fit(args, study)
    with progress("drawing and writing"):
        report = build_report(
            study,
            fit,
            answers,
            left_out=left_out,
            made=datetime.date.today().isoformat(),
            simulated=any(map(is_simulated, folders_read(args))),
            versions=_versions(),
            sources=_files(args, study.definition),
            provenance=_provenance(args),
        )
        page = page_bytes(report, chosen_theme(args, study.definition, "light"))
        try:
            write_whole(args.out, page)
        except OSError as error:
            raise InputError(f"{args.out}: cannot be written: {error.strerror}; choose another file") from error

    print_reading(args, study, fit, report.notices)
    print_list("Not on the page", [reason for section in report.sections for reason in section.absent])
    failures = [error for section in report.sections for error in section.failed]
    print_list("Failed", failures, sys.stderr)
    seconds = time.perf_counter() - started
    print(f"Wrote {args.out}, {len(page) / 1e6:.1f} MB, in {seconds:.1f} s")
    return BAD_INPUT if failures else OK


def _check_out(out: Path) -> None:
    """Refuse at once what could not be written after minutes of fitting."""
    if out.is_dir():
        raise InputError(f"{out}: is a folder, expected a file to write the page to, such as {out / 'report.html'}")
    if not out.parent.is_dir():
        raise InputError(f"{out.parent}: no such folder; make it, or write the page elsewhere with --out FILE")


def _fit(args: argparse.Namespace, study: Study) -> tuple[StudyFit, dict[str, Result], dict[str, str]]:
    """The study's fit, the answers that were asked for, and why others are not there."""
    from delphi_jax.fit.study import fit_study

    if not args.no_cache:
        keep_compiled_programs(args.cache_dir)
    fit = fit_study(study, draws=args.draws, seed=args.seed)
    asked = _QUICK if args.quick else (args.only or _ANSWERS)
    answers, left_out = {}, {}
    for name in _ANSWERS:
        if name not in asked:
            left_out[name] = "not asked for"
            continue
        try:
            answers[name] = _COMPUTE[name](args, study, fit)
        except (InputError, ValueError) as error:
            left_out[name] = str(error)
    return fit, answers, left_out


def _suites(fit: StudyFit) -> list[str]:
    """The suites that have a law."""
    suites = [suite for suite, law in fit.laws.items() if law.fitted]
    if not suites:
        reasons = "; ".join(f"{suite}: {law.status.label}" for suite, law in fit.laws.items())
        raise InputError(f"no suite has a law ({reasons or 'there are no suites'})")
    return suites


def _optima(fit: StudyFit, suites: Iterable[str]) -> dict[str, Any]:
    return {suite: fit.isoflop.optima(suite)[:2] for suite in suites}


def _profiles(args: argparse.Namespace, study: Study, fit: StudyFit) -> Result:
    from delphi_jax.fit.law_intervals import law_study

    definition = study.definition
    return law_study(_optima(fit, _suites(fit)), definition.targets, metric=definition.metric.name)


def _intervals(args: argparse.Namespace, study: Study, fit: StudyFit) -> Result:
    from delphi_jax.fit.forecasts import forecast_intervals
    from delphi_jax.labels import INTERVAL_METHODS

    # Student's t needs an asymptote that is known from elsewhere.
    methods = tuple(method for method in INTERVAL_METHODS if method != "student-t")
    settings = {"methods": methods, "draws": args.draws, "seed": args.seed}
    targets = study.definition.targets
    return forecast_intervals(fit.isoflop, targets, suites=_suites(fit), held_out=fit.held_out, **settings)


def _validation(args: argparse.Namespace, study: Study, fit: StudyFit) -> Result:
    from delphi_jax.fit.validation import leave_future_out

    suites = _suites(fit)
    means = {suite: fit.held_out.means(suite) for suite in suites}
    return leave_future_out(_optima(fit, suites), {suite: pair for suite, pair in means.items() if len(pair[0])})


def _allocation(args: argparse.Namespace, study: Study, fit: StudyFit) -> Result:
    from delphi_jax.fit.allocation import allocate

    found = allocate(study.runs, study.definition.targets, draws=args.draws, seed=args.seed)
    if not found.suites:
        raise InputError("there are no IsoFLOP runs")
    return found


def _surfaces(args: argparse.Namespace, study: Study, fit: StudyFit) -> Result:
    from delphi_jax.fit.surface_study import fit_study_surfaces

    return fit_study_surfaces(study.runs, draws=args.draws, seed=args.seed)


def _speedup(args: argparse.Namespace, study: Study, fit: StudyFit) -> Result:
    from delphi_jax.fit.speedup import effective_speedup

    suites = [suite for suite in fit.isoflop.suites if fit.isoflop.of(suite)]
    if len(suites) != 2:
        raise InputError(f"a speedup compares two suites with an optimum, this study has {len(suites)}")
    settings = {"draws": args.draws, "seed": args.seed, "definition": study.definition}
    return effective_speedup(_optima(fit, suites), **settings)


def _downstream(args: argparse.Namespace, study: Study, fit: StudyFit) -> Result:
    from delphi_jax.fit.downstream_intervals import downstream_intervals
    from delphi_jax.tasks import no_evaluations

    if not study.evals:
        raise InputError(no_evaluations(study.definition.tasks))
    settings = {"draws": args.draws, "seed": args.seed}
    return downstream_intervals(study.evals, study.externals, study.definition, **settings)


_COMPUTE: dict[str, Callable[[argparse.Namespace, Any, Any], Any]] = {
    "law-profile": _profiles,
    "forecast-fan": _intervals,
    "leave-future-out": _validation,
    "allocation": _allocation,
    "loss-surface": _surfaces,
    "effective-speedup": _speedup,
    "downstream-intervals": _downstream,
}


def _versions() -> dict[str, str]:
    import platform
    from importlib.metadata import PackageNotFoundError, version

    found = {}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found | {"Python": platform.python_version()}


def _files(args: argparse.Namespace, definition: Definition) -> list[File]:
    """The files that were read, with their checksums, and whether their folder's provenance file says the same."""
    from delphi_jax.report.model import File

    found = []
    for path in _paths(args, definition):
        content = path.read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        folder = args.data if args.data in path.parents else path.parent
        name = path.relative_to(folder).as_posix()
        known = _recorded(folder).get(name)
        words = "not recorded" if known is None else "as recorded" if known == digest else "differs from the record"
        found.append(File(name, len(content), digest, words))
    return found


def _recorded(folder: Path) -> dict[str, Any]:
    """Checksums by file, as the provenance of a simulated study, or of a snapshot, has them."""
    from delphi_jax.fetch.snapshot import recorded_files

    simulated = _told(folder).get("sha256", {})
    return recorded_files(folder) | (simulated if isinstance(simulated, dict) else {})


def _paths(args: argparse.Namespace, definition: Definition) -> list[Path]:
    """The files of the data folder, and of the folders in it that the study names tables in, and single files."""
    from delphi_jax.fetch.columns import schemas

    folders = [] if args.data is None else [args.data, *((args.data / table).parent for table in schemas(definition))]
    folder = [path for each in dict.fromkeys(folders) if each.is_dir() for path in sorted(each.iterdir())]
    tables = [path for path in folder if path.suffix in _READ and path.is_file() and path.name != _PROVENANCE]
    # A shipped study has a name, no file of the user's.
    given = [path for path in (args.study, args.runs, args.sweep) if path is not None and path.is_file()]
    return list(dict.fromkeys([*tables, *given]))


_PROVENANCE = "provenance.json"


def _provenance(args: argparse.Namespace) -> dict[str, str]:
    """What the folder's provenance file says, but for checksums, which stand beside the files."""
    told = _told(args.data) if args.data is not None else {}
    plain = {name: value for name, value in told.items() if name != "sha256"}
    return {
        str(name): value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        for name, value in plain.items()
    }


def _told(folder: Path) -> dict[str, Any]:
    """The content of a folder's provenance file; what is wrong with it, where it cannot be read."""
    path = folder / _PROVENANCE
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        return {_PROVENANCE: f"cannot be read ({type(error).__name__})"}
    return told if isinstance(told, dict) else {_PROVENANCE: "cannot be read (expected an object)"}
