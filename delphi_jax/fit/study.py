"""Everything that a study's figures and summary need, or just the parts that are asked for."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import jax
import numpy as np

from delphi_jax.definition import Definition
from delphi_jax.fit.downstream import fit_downstream
from delphi_jax.fit.isoflop import fit_isoflop
from delphi_jax.fit.law import (
    bootstrap_law,
    fit_laws,
    fit_shared_laws,
    prepare_bootstrap,
    prepare_laws,
)
from delphi_jax.fit.overtraining import fit_overtraining
from delphi_jax.fit.sweep import fit_sweep
from delphi_jax.formulas import residual_percent
from delphi_jax.labels import BROAD
from delphi_jax.results import (
    BootstrapFit,
    HeldOutFit,
    Interval,
    IsoflopFit,
    LawFit,
    OvertrainingFit,
    SeedDeviation,
    SeedFit,
    StudyFit,
)
from delphi_jax.results.held_out import held_out_runs
from delphi_jax.tables import RunTable, Study, fit_runs

__all__ = ["PARTS", "fit_held_out", "fit_seeds", "fit_study"]

PARTS = (
    "isoflop",
    "laws",
    "shared_laws",
    "held_out",
    "bootstraps",
    "seeds",
    "overtraining",
    "downstream",
    "sweep",
)
"""What :func:`fit_study` can fit; names of the fields of :class:`~delphi_jax.results.StudyFit`."""

_THREADS = 6
"""Three kinds of fits, and programs that are made meanwhile."""

_NEEDS = {
    "laws": {"isoflop"},
    "shared_laws": {"isoflop"},
    "held_out": {"isoflop", "laws"},
    "bootstraps": {"isoflop", "laws"},
    "seeds": {"isoflop", "laws", "held_out"},
    "overtraining": {"isoflop", "laws"},
}


def fit_study(
    study: Study,
    parts: Collection[str] = PARTS,
    *,
    draws: int = 1000,
    seed: int = 0,
    process: str = BROAD,
) -> StudyFit:
    """Fit ``parts`` of a study, and what they build on.

    ``draws`` and ``seed`` are those of the bootstrap; ``process`` is that of :func:`fit_sweep`.

    The runs, the downstream evaluations and the sweep do not depend on one another: they are fitted side by
    side in threads, so that one compiles while another computes. Raises ValueError for an unknown part.

    Examples:

    >>> import delphi_jax as dj
    >>> study = dj.load_study("data", tables=["runs"])
    >>> fit = dj.fit_study(study, ["laws"])
    >>> [law.status.label for law in fit.laws.values()], fit.sweep is None
    (['fitted', 'fitted'], True)
    """
    if unknown := set(parts) - set(PARTS):
        raise ValueError(f"unknown parts {sorted(unknown)}, expected some of {list(PARTS)}")
    wanted = set(parts).union(*(_NEEDS.get(part, set()) for part in parts))
    device = jax.config.jax_default_device
    with ThreadPoolExecutor(_THREADS, initializer=_use_device, initargs=(device,)) as pool:
        fits = {}
        if "sweep" in wanted and study.sweep is not None:
            fits["sweep"] = pool.submit(fit_sweep, study.sweep, process=process)
        if "downstream" in wanted and study.evals:
            fits["downstream"] = pool.submit(fit_downstream, study.evals, study.externals, study.definition)
        if "isoflop" in wanted:
            fits["runs"] = pool.submit(_fit_runs, study.runs, wanted, draws, seed)
        ready = [pool.submit(prepare, *shape) for prepare, *shape in _preparations(study.runs, wanted, draws)]
        try:
            found = {name: fit.result() for name, fit in fits.items()}
            for program in ready:
                program.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    sweep = found.get("sweep")
    return StudyFit(
        source=study.source,
        downstream=found.get("downstream", ()),
        sweep=sweep,
        skipped=(*study.skipped, *_unfinished(study.runs, wanted), *(sweep.skipped if sweep is not None else ())),
        missing=study.missing,
        definition=study.definition,
        **found.get("runs", {}),
    )


def _use_device(device: jax.Device | None) -> None:
    """Take the default device of the thread that calls over into this one, for as long as it lives."""
    if device is not None:
        jax.default_device(device).__enter__()


def _unfinished(runs: RunTable, wanted: Collection[str]) -> list:
    left_out = fit_runs(runs)[1] if "isoflop" in wanted else None
    return [left_out] if left_out is not None else []


def _preparations(runs: RunTable, wanted: Collection[str], draws: int) -> list[tuple]:
    """Calls that get programs ready which :func:`_fit_runs` comes to one after the other, if every bucket is usable."""
    if "laws" not in wanted:
        return []
    used, _ = fit_runs(runs)
    buckets = {suite: len(np.unique(used.bucket[used.suite == suite])) for suite in np.unique(used.suite).tolist()}
    focus = _focus(buckets, runs.definition)
    if focus is None:
        return []
    calls: list[tuple] = [(prepare_laws, list(buckets.values()))]
    if wanted & {"bootstraps", "seeds"}:
        calls.append((prepare_bootstrap, buckets[focus], draws))
    return calls


def _fit_runs(runs: RunTable, wanted: Collection[str], draws: int, seed: int) -> dict:
    """The parts that rest on the table of runs, as fields of the study's fit."""
    isoflop = fit_isoflop(runs)
    found: dict = {"isoflop": isoflop}
    if "laws" not in wanted and "shared_laws" not in wanted:
        return found
    series = {suite: isoflop.optima(suite)[:2] for suite in isoflop.suites}
    if "shared_laws" in wanted:
        found["shared_laws"] = fit_shared_laws({name: optima for name, optima in series.items() if len(optima[0])})
    if "laws" not in wanted:
        return found
    laws = found["laws"] = fit_laws(series)
    focus = focus_suite(laws, runs.definition)
    targets = runs.definition.targets
    if wanted & {"bootstraps", "seeds"}:
        suites = [suite for suite, law in laws.items() if law.fitted and ("bootstraps" in wanted or suite == focus)]
        bootstraps = {
            suite: bootstrap_law(*series[suite], targets, draws=draws, seed=seed, series=suite) for suite in suites
        }
        if "bootstraps" in wanted:
            found["bootstraps"] = bootstraps
    if "held_out" in wanted:
        found["held_out"] = fit_held_out(runs, laws)
    if "seeds" in wanted and focus is not None:
        found["seeds"] = fit_seeds(found["held_out"], laws[focus], bootstraps[focus])
    if "overtraining" in wanted and focus is not None:
        found["overtraining"] = _overtraining(isoflop, laws[focus])
    return found


def focus_suite(laws: Mapping[str, LawFit], definition: Definition) -> str | None:
    """The suite of the single-suite figures: the study's focus where it has a law, else the first that has one."""
    return _focus([suite for suite, law in laws.items() if law.fitted], definition)


def _focus(suites: Collection[str], definition: Definition) -> str | None:
    return definition.focus_label if definition.focus_label in suites else min(suites, default=None)


def _overtraining(isoflop: IsoflopFit, law: LawFit) -> OvertrainingFit | None:
    """None where the buckets already lie beyond the forecast budget: nothing is extrapolated then."""
    if law.compute.min() > isoflop.definition.overtraining_budget:
        return None
    return fit_overtraining(isoflop.of(law.series), law, definition=isoflop.definition)


def fit_held_out(runs: RunTable, laws: Mapping[str, LawFit]) -> HeldOutFit:
    """Held-out runs of a table, diverged ones included, beside the laws of their suites.

    Examples:

    >>> import delphi_jax as dj
    >>> study = dj.load_study("data", tables=["runs"])
    >>> isoflop = dj.fit_isoflop(study.runs)
    >>> suite = isoflop.suites[0]
    >>> compute, loss, _ = isoflop.optima(suite)
    >>> held_out = dj.fit_held_out(study.runs, {suite: dj.fit_law(compute, loss, series=suite)})
    >>> held_out.means(suite)[0], held_out.residuals(suite).round(2)  # FLOPs, percent
    (array([1.e+21, 1.e+22, 1.e+23]), array([0.15, 0.25, 0.62]))
    """
    return HeldOutFit(held_out_runs(runs), laws)


def fit_seeds(
    held_out: HeldOutFit, law: LawFit, bootstrap: BootstrapFit, budgets: Sequence[float] | None = None
) -> SeedFit:
    """Finished held-out runs of ``law``'s suite beside the bootstrap interval, in percent of the point forecast.

    ``budgets`` are targets of the bootstrap, all of them by default; a budget without runs keeps its interval. Raises
    ValueError for a budget that the bootstrap did not forecast.

    Examples:

    >>> import delphi_jax as dj
    >>> study = dj.load_study("data", tables=["runs"])
    >>> isoflop = dj.fit_isoflop(study.runs)
    >>> suite = isoflop.suites[0]
    >>> compute, loss, _ = isoflop.optima(suite)
    >>> law = dj.fit_law(compute, loss, series=suite)
    >>> bootstrap = dj.bootstrap_law(compute, loss, [1e22], draws=100, series=suite)
    >>> seeds = dj.fit_seeds(dj.fit_held_out(study.runs, {suite: law}), law, bootstrap)
    >>> len(seeds.rows())  # three seeds at 1e22 FLOPs
    3
    """
    lines = []
    for budget in bootstrap.targets.tolist() if budgets is None else budgets:
        place = np.flatnonzero(bootstrap.targets == budget)
        if not place.size:
            raise ValueError(f"the bootstrap has no forecast at {budget:g} FLOPs, only at {bootstrap.targets.tolist()}")
        interval: Interval = bootstrap.intervals[place[0]]
        forecast = float(law.loss_at(budget))
        runs = sorted(
            (run for run in held_out.optimal if run.suite == law.series and run.finished and run.budget == budget),
            key=lambda run: run.seed,
        )
        lines.append(
            SeedDeviation(
                budget=float(budget),
                point_forecast=forecast,
                seeds=tuple(run.seed for run in runs),
                deviations=residual_percent(np.array([run.loss for run in runs], dtype=np.float64), forecast),
                low=float(residual_percent(interval.low, forecast)),
                high=float(residual_percent(interval.high, forecast)),
            )
        )
    return SeedFit(law.series, law, bootstrap, tuple(lines))
