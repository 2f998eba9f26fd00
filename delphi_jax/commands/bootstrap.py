"""``delphi-jax bootstrap``: any number of draws."""

from __future__ import annotations

import argparse
import contextlib
import gc
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from delphi_jax.commands.options import (
    OK,
    add_cache,
    add_draws,
    add_json,
    add_runs,
    add_suites,
    add_targets,
    natural,
    positive,
)
from delphi_jax.commands.printing import print_json, print_list, print_reading, print_rows, progress_bar
from delphi_jax.commands.reading import cache_folder, input_errors, keep_compiled_programs, load, suites_with_law
from delphi_jax.labels import BOOTSTRAP_METHODS
from delphi_jax.status import InputError

if TYPE_CHECKING:
    from delphi_jax.results import BootstrapStudy, StudyFit
    from delphi_jax.tables import Study

__all__ = ["add_parser"]

_STUDY_DRAWS = 100_000
"""Draws of a bootstrap study, where neither their number nor the exact bootstrap is asked for."""


def add_parser(commands: Any) -> None:
    """Add the command to the ``commands`` of the parser."""
    bootstrap = commands.add_parser(
        "bootstrap",
        help="bootstrap the forecasts with any number of draws",
        description="Bootstrap the forecasts of every suite's law with any number of draws, in constant memory, on all "
        "devices. The numbers do not depend on the devices. A run that was stopped goes on when the same command is "
        "given again.",
    )
    _add_bootstrap(bootstrap)
    bootstrap.set_defaults(run=_bootstrap)


def _add_bootstrap(parser: argparse.ArgumentParser) -> None:
    add_runs(parser)
    parser.set_defaults(sweep=None)
    add_suites(parser)
    add_targets(parser)
    add_draws(parser, _STUDY_DRAWS)
    parser.add_argument(
        "--method",
        choices=BOOTSTRAP_METHODS,
        help="table: every resample is fitted once, draws are counted over them (up to 12 budgets); stream: draws are "
        "fitted as they come, percentiles have a bound; exact: every resample with its probability, no draws "
        "(default: table or stream, whichever has fewer fits)",
    )
    add_json(parser, "print one JSON object")
    parser.add_argument(
        "--chunk",
        type=positive,
        metavar="N",
        help="draws that a device holds at once, in whole blocks of 8192 (default: as its memory allows); the numbers "
        "are the same",
    )
    parser.add_argument(
        "--state",
        type=Path,
        metavar="FILE",
        help="keep the state of one suite's stream here, and go on from it (default: a file in the cache folder that "
        "is removed at the end)",
    )
    cluster = parser.add_argument_group("several hosts")
    cluster.add_argument(
        "--distributed",
        action="store_true",
        help="share the draws with the other processes of this Slurm or Open MPI job, or of the cluster named by the "
        "next three",
    )
    cluster.add_argument("--coordinator", metavar="HOST:PORT", help="where process 0 can be reached")
    cluster.add_argument("--processes", type=positive, metavar="N", help="number of processes")
    cluster.add_argument("--process-id", type=natural, metavar="I", help="number of this process, from 0")
    add_cache(parser, "compiled programs and states")


def _bootstrap(args: argparse.Namespace) -> int:
    if args.method == "exact" and (args.draws is not None or args.seed is not None):
        raise InputError("--method exact takes every resample once: leave out --draws and --seed")
    # It may run for hours.
    gc.enable()
    with _stdout_to_stderr() if args.distributed else contextlib.nullcontext():
        _take_devices(args)
        study, fit, found = _run_bootstrap(args)
    from delphi_jax.devices import first_process

    if not first_process():
        return OK
    notices = fit.notices() + [notice for each in found.values() for notice in each.notices()]
    if args.json:
        print_json(args, {"bootstraps": {suite: each.to_dict() for suite, each in found.items()}}, notices, fit)
        return OK
    print_rows("Bootstrap", [row for each in found.values() for row in each.rows()])
    beyond = [suite for suite, each in found.items() if each.outside.any()]
    print_list("Forecasts outside the histogram, take --method table or exact, or other targets", beyond)
    print_reading(args, study, fit, notices)
    return OK


def _run_bootstrap(args: argparse.Namespace) -> tuple[Study, StudyFit, dict[str, BootstrapStudy]]:
    from delphi_jax.devices import first_process
    from delphi_jax.fit.stream import bootstrap_study, choose_method
    from delphi_jax.fit.study import fit_study

    study = load(args, {"runs"})
    keep_compiled_programs(args)
    fit = fit_study(study, ("laws",))
    draws = _STUDY_DRAWS if args.draws is None and args.method != "exact" else args.draws
    optima = {suite: fit.isoflop.optima(suite)[:2] for suite in suites_with_law(args, fit)}
    methods = {suite: args.method or choose_method(len(loss), draws) for suite, (_, loss) in optima.items()}
    state = _state(args, methods)
    found = {}
    for suite, (compute, loss) in optima.items():
        with _draw_progress(suite, shown=first_process()) as report, _warnings_in_a_line(), input_errors():
            found[suite] = bootstrap_study(
                compute,
                loss,
                args.targets or study.definition.targets,
                draws=draws,
                seed=args.seed,
                method=methods[suite],
                chunk=args.chunk,
                state=state if methods[suite] == "stream" else None,
                progress=report,
                series=suite,
            )
    return study, fit, found


@contextlib.contextmanager
def _warnings_in_a_line() -> Iterator[None]:
    """Warnings of the library as the command says things, each whenever it comes."""
    with warnings.catch_warnings():
        warnings.simplefilter("always", RuntimeWarning)
        warnings.showwarning = lambda message, *_, **__: print(f"delphi-jax: {message}", file=sys.stderr)
        yield


@contextlib.contextmanager
def _stdout_to_stderr() -> Iterator[None]:
    """What native libraries print (Gloo names its peers on standard output) goes to standard error instead."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)


def _take_devices(args: argparse.Namespace) -> None:
    """Every core, and every process of the cluster: before JAX is used for anything else."""
    cluster = (args.coordinator, args.processes, args.process_id)
    if not args.distributed and any(part is not None for part in cluster):
        raise InputError("--coordinator, --processes and --process-id are for --distributed: give that too")
    from delphi_jax.devices import join_cluster, use_all_cores

    use_all_cores()
    if args.distributed:
        if None not in cluster:
            print(f"delphi-jax: waiting for {args.processes} processes at {args.coordinator}", file=sys.stderr)
        try:
            join_cluster(*cluster)
        except (ValueError, RuntimeError) as error:
            raise InputError(f"--distributed: {error}") from error


def _state(args: argparse.Namespace, methods: Mapping[str, str]) -> Path | None:
    """Where the streams among the suites' ``methods`` keep their state: where it was asked for, else the cache folder.

    That one only helps a run that is stopped: where it cannot be used, this is said, and the run goes on.
    """
    if args.state is not None:
        if len(methods) > 1 and not args.state.is_dir():
            raise InputError(f"--state holds one suite: choose it with --suite, one of {', '.join(methods)}")
        for suite, method in methods.items():
            if method != "stream":
                chosen = "" if args.method else ", which was chosen because it needs fewer fits"
                raise InputError(
                    f"--state is for --method stream: {suite} has no state with method {method}{chosen}; "
                    "leave it out, or give --method stream"
                )
        return args.state
    from delphi_jax.devices import first_process

    # In a cluster the first process keeps the state of all.
    if args.no_cache or "stream" not in methods.values() or not first_process():
        return None
    from delphi_jax.checkpoint import check_writable
    from delphi_jax.whole import make_own_folder

    folder = cache_folder(args.cache_dir)
    try:
        make_own_folder(folder)
        check_writable(folder / "state")
    except OSError as error:
        print(f"delphi-jax: the state is not kept: {folder}: {error.strerror}", file=sys.stderr)
        return None
    except InputError as error:
        print(f"delphi-jax: the state is not kept: {error}", file=sys.stderr)
        return None
    return folder


@contextlib.contextmanager
def _draw_progress(suite: str, shown: bool) -> Iterator[Callable[[int, int], None] | None]:
    """A bar of draws on a terminal's standard error; elsewhere, only whether an earlier run goes on."""
    if not shown:
        yield None
        return
    with progress_bar(suite, "draws") as show:
        begun = False

        def report(done: int, total: int) -> None:
            nonlocal begun
            if done and not begun:
                print(f"delphi-jax: {suite}: {done} of {total} draws were made before", file=sys.stderr)
            begun = True
            show(done, total)

        yield report
