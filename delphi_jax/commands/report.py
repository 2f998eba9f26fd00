"""``delphi-jax report``: the whole study as one page."""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import hashlib
import json
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING, Any

from delphi_jax.commands.options import BAD_INPUT, OK, add_cache, add_draws, add_input, add_theme
from delphi_jax.commands.printing import folders_read, print_list, print_reading, progress
from delphi_jax.commands.reading import chosen_theme, keep_compiled_programs, load
from delphi_jax.status import InputError

if TYPE_CHECKING:
    from delphi_jax.definition import Definition
    from delphi_jax.report.model import File, Report
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
        sources = _files(args, study.definition)
        report = build_report(
            study,
            fit,
            answers,
            left_out=left_out,
            made=datetime.date.today().isoformat(),
            simulated=any(map(is_simulated, folders_read(args))),
            versions=_versions(),
            sources=sources,
            provenance=_provenance(args),
            origin=_origin(args),
        )
        page = page_bytes(_shared(args, report, _changed(args, sources)), chosen_theme(args, study.definition, "light"))
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


def _shared(args: argparse.Namespace, report: Report, changed: Iterable[str]) -> Report:
    """``report`` as others may see it: with the notices on files that ``changed``, without this machine's folders."""

    def public(texts: Iterable[str]) -> tuple[str, ...]:
        return tuple(_public(args, text) for text in texts)

    return dataclasses.replace(
        report,
        source=_public(args, report.source),
        missing=public(report.missing),
        notices=(*changed, *public(report.notices)),
        sections=tuple(dataclasses.replace(each, absent=public(each.absent)) for each in report.sections),
    )


def _check_out(out: Path) -> None:
    """Refuse at once what could not be written after minutes of fitting."""
    if out.is_dir():
        raise InputError(f"{out}: is a folder, expected a file to write the page to, such as {out / 'report.html'}")
    if not out.parent.is_dir():
        raise InputError(f"{out.parent}: no such folder; make it, or write the page elsewhere with --out FILE")


def _fit(args: argparse.Namespace, study: Study) -> tuple[StudyFit, dict[str, Result], dict[str, str]]:
    """The study's fit, the answers that were asked for, and why others are not there."""
    from delphi_jax.fit.study import fit_study

    keep_compiled_programs(args)
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


_DIFFERS = "differs from the record"


def _files(args: argparse.Namespace, definition: Definition) -> list[File]:
    """The files that were read, with their checksums, and whether their folder's provenance file says the same."""
    from delphi_jax.report.model import File

    found = []
    for path in _paths(args, definition):
        content = path.read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        folder = args.data if args.data is not None and args.data in path.parents else path.parent
        name = path.relative_to(folder).as_posix()
        known = _recorded(folder).get(name)
        words = "not recorded" if known is None else "as recorded" if known == digest else _DIFFERS
        found.append(File(name, len(content), digest, words))
    return found


def _recorded(folder: Path) -> dict[str, Any]:
    """Checksums by file, as the provenance of a simulated study, or of a snapshot, has them."""
    from delphi_jax.fetch.snapshot import recorded_files

    simulated = _told(folder).get("sha256", {})
    return recorded_files(folder) | (simulated if isinstance(simulated, dict) else {})


def _paths(args: argparse.Namespace, definition: Definition) -> list[Path]:
    """The study file, the tables that the study names and the folder holds, and the single files instead of them."""
    from delphi_jax.checked import TABLE_SUFFIXES, has_suffix
    from delphi_jax.io.definition import STUDY_FILE, is_shipped
    from delphi_jax.schema import evals_schema, externals_schema

    tables = [file for source in definition.runs for file in source.files] if args.runs is None else []
    if definition.sweep is not None and args.sweep is None:
        tables.append(definition.sweep.table)
    tables += [make(task).table for task in definition.tasks for make in (evals_schema, externals_schema)]
    files = [file for each in tables for file in ([each] if has_suffix(each) else map(each.__add__, TABLE_SUFFIXES))]
    if args.study is None:
        files = [STUDY_FILE, *files]
    # A shipped study has a name, no file of the user's.
    study = [] if args.study is None or is_shipped(args.study) else [args.study]
    folder = [] if args.data is None else [args.data / file for file in files]
    given = [path for path in (args.runs, args.sweep) if path is not None]
    return list(dict.fromkeys(path for path in (*study, *folder, *given) if path.is_file()))


def _changed(args: argparse.Namespace, sources: Iterable[File]) -> list[str]:
    """A notice on the files that are not what the provenance says of them."""
    from delphi_jax.fetch.snapshot import changed_files

    fetched = [file for folder in folders_read(args) for file in changed_files(folder)]
    files = dict.fromkeys([*(each.name for each in sources if each.recorded == _DIFFERS), *fetched])
    if not files:
        return []
    return [f"not what the provenance file tells of it: {', '.join(files)}; fetch again, or say what was changed"]


_PROVENANCE = "provenance.json"


def _provenance(args: argparse.Namespace) -> dict[str, str]:
    """What the folder's provenance file says, but for what stands in tables: checksums, and a snapshot's tables."""
    told = _told(args.data) if args.data is not None else {}
    tabled = {"sha256", "tables", "study"} if _origin(args) else {"sha256"}
    return {str(name): _words(value) for name, value in told.items() if name not in tabled}


def _origin(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Where each table of a snapshot, and its study file, came from; nothing for another folder."""
    from delphi_jax.fetch.snapshot import read_records

    try:
        records = read_records(args.data) if args.data is not None else {}
    except InputError:
        return []
    rows = [
        {
            "table": table,
            "file": record["file"],
            "source": f"{record['source']['kind']} {_without_folders(record['source']['name'])}",
            "item": _without_folders(str(record["item"])),
            "revision": _words(record["revision"]),
            "query": _words(record["query"]),
            "rows": record["rows"],
            "missing values": _words(record.get("missing", {})),
            "fetched": _words(record.get("fetched")),
            "client": _words(record.get("client")),
        }
        for table, record in records.items()
    ]
    study = _told(args.data).get("study") if rows else None
    if isinstance(study, dict):
        source = f"study {_without_folders(str(study.get('study')))}"
        row = {"table": "study file", "file": study.get("file"), "source": source}
        rows.append(row | {"fetched": _words(study.get("fetched"))})
    return rows


def _words(value: Any) -> str:
    """A value of a provenance file as a reader meets it; nothing for what is null or empty."""
    if isinstance(value, dict):
        said = {name: _words(each) for name, each in value.items()}
        return "; ".join(f"{name}: {words}" for name, words in said.items() if words)
    if isinstance(value, list):
        return ", ".join(map(_words, value))
    return "" if value is None else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _without_folders(text: str) -> str:
    """The name of a file that is given from the root on, whose folders say something of one machine alone."""
    kinds = (PurePosixPath, PureWindowsPath)
    return next((path.name for kind in kinds if (path := kind(text)).is_absolute()), text)


def _public(args: argparse.Namespace, text: str) -> str:
    """``text`` with the name alone of each folder and file that was given from the root on."""
    given = [path for path in (args.data, args.study, args.runs, args.sweep) if path is not None and path.is_absolute()]
    # The longest first: a folder may be the start of a file in it.
    for path in sorted(given, key=lambda path: -len(str(path))):
        text = text.replace(str(path), path.name)
    return text


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
