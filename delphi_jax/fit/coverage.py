"""Are the intervals right? Studies simulated from a known truth, and how often each method's interval holds it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from delphi_jax.fit.intervals import study_intervals
from delphi_jax.fit.isoflop import fit_isoflop
from delphi_jax.fit.truth import FlopsFactor, StudySimulator, Truth, law_truth, pooled_deviation, surface_truth
from delphi_jax.formulas import residual_percent
from delphi_jax.labels import INTERVAL_KINDS, INTERVAL_METHODS, LAW_VALUE, NEW_OPTIMUM, NEW_RUN, NOISE_MODELS
from delphi_jax.results import Floats, LawFit, ParabolaFit
from delphi_jax.results.coverage import CoverageFit
from delphi_jax.results.surface import SurfaceFit
from delphi_jax.status import Status
from delphi_jax.tables import RunTable, fit_runs

__all__ = ["IntervalTally", "coverage_study", "default_targets", "tally_intervals"]

_AT_ONCE = 128
"""Studies simulated at once, which bounds memory."""

Integers = NDArray[np.int64]


class IntervalTally(NamedTuple):
    """What is counted of the intervals of S studies; all [M, Q], as in :class:`CoverageFit`."""

    study_status: Mapping[Status, Integers]
    with_interval: Integers
    holds: Mapping[str, Integers]
    width: Floats
    width_error: Floats
    mean_width: Floats
    mean_width_error: Floats
    bias: Floats
    bias_error: Floats
    median_bias: Floats
    median_bias_error: Floats


def coverage_study(
    runs: RunTable,
    truth: LawFit | SurfaceFit,
    targets: Sequence[float] | None = None,
    *,
    methods: Sequence[str] = INTERVAL_METHODS,
    studies: int = 1000,
    draws: int = 1000,
    noise: float | None = None,
    bucket_noise: float = 0.0,
    noise_model: str = "additive",
    seed: int = 0,
    level: float = 0.95,
    progress: Callable[[int, int], None] | None = None,
) -> CoverageFit:
    """Simulate ``studies`` like that of ``runs``, and count how often intervals hold the truth.

    Every study has the budgets of the suite ``truth.series``, and the (N, D) of its IsoFLOP runs. From a law, a
    bucket's losses are a parabola about the law at its budget (:func:`~delphi_jax.fit.truth.law_truth`), so that no
    optimum is biased. From a surface, losses are those of the runs' (N, D), so that the parabola's bias is a part of
    what is measured; the truth at a budget is then the lowest loss where C = k(N)*N*D, with the measured k
    (:func:`~delphi_jax.fit.truth.surface_truth`).

    ``noise`` is the standard deviation of every run's normal noise: in nats ("additive"), or as a share of loss - L_inf
    ("reducible"), as ``noise_model`` says. None takes the pooled deviation of the runs from their parabolas, with
    runs - 3 degrees of freedom per bucket. ``bucket_noise`` is that of a noise that all runs of a bucket share, in the
    same unit: by it optima scatter about the law more than their runs tell. Methods that pin an asymptote are given the
    truth's.

    What an interval should contain depends on its kind: the truth; or a new optimum, of the parabola through a new
    bucket of runs at the target, which lie about its optimum as those of the largest bucket do.

    ``targets`` in FLOPs, by default those of :func:`default_targets`; ``draws`` and ``level`` are those of each study's
    intervals. Study s is drawn from ``seed`` and s alone: numbers do not depend on devices or batches. ``progress`` is
    called with (studies done, studies). Memory grows by some 50 bytes per study, method and target, for medians.

    Raises ValueError for a truth that was not fitted or has no runs, and for arguments that do not fit.

    Examples:

    >>> import delphi_jax as dj
    >>> study = dj.load_study("data", tables=["runs"])
    >>> isoflop = dj.fit_isoflop(study.runs)
    >>> suite = isoflop.suites[0]
    >>> compute, loss, _ = isoflop.optima(suite)
    >>> law = dj.fit_law(compute, loss, series=suite)
    >>> found = dj.coverage_study(study.runs, law, [1e23], methods=["profile"], studies=4)
    >>> found.with_interval  # of 4 studies, [methods, targets]
    array([[4]])
    """
    if studies < 1:
        raise ValueError(f"studies must be at least 1, got {studies}")
    if noise_model not in NOISE_MODELS:
        raise ValueError(f"noise_model must be one of {', '.join(NOISE_MODELS)}, got {noise_model!r}")
    for name, deviation in (("noise", noise), ("bucket_noise", bucket_noise)):
        if deviation is not None and not 0 <= deviation < np.inf:
            raise ValueError(f"{name} must be a finite standard deviation of at least 0, got {deviation}")
    if not methods or not set(methods) <= set(INTERVAL_METHODS):
        raise ValueError(f"methods must be some of {', '.join(INTERVAL_METHODS)}, got {', '.join(methods) or 'none'}")
    parabolas = _parabolas(runs, truth)
    targets = (
        default_targets([fit.bucket for fit in parabolas], runs.definition.targets) if targets is None else targets
    )
    targets = np.atleast_1d(np.asarray(targets, dtype=np.float64))
    if not (targets.ndim == 1 and targets.size and np.all((targets > 0) & np.isfinite(targets))):
        raise ValueError(f"targets must be finite positive budgets in FLOPs, at least one, got {targets.tolist()}")
    known = _known(runs, parabolas, truth, targets)
    sd = pooled_deviation(parabolas, known.L_inf, noise_model) if noise is None else float(noise)
    simulator = StudySimulator(known, sd, bucket_noise, noise_model, seed)
    if progress is not None:
        progress(0, studies)
    parts, done = [], 0
    size = -(-studies // -(-studies // _AT_ONCE))
    while done < studies:
        # The last batch reaches back to be as long as the others, which saves compiling for another length.
        first = min(done, studies - size)
        batch, new_optima, new_runs = simulator.studies(first, size)
        found = study_intervals(
            batch, targets, methods=methods, draws=draws, seed=seed + first, level=level, pinned=known.L_inf
        )
        fields = (found.low, found.point, found.median, found.high, found.status, new_optima, new_runs)
        parts.append([field[done - first :] for field in fields])
        done = first + size
        if progress is not None:
            progress(done, studies)
    *intervals, new_optima, new_runs = (np.concatenate(field) for field in zip(*parts, strict=True))
    tally = tally_intervals(*intervals, known.target_losses, {NEW_OPTIMUM: new_optima, NEW_RUN: new_runs})
    return CoverageFit(
        series=truth.series,
        truth=known.kind,
        method=f"{truth.asymptote} asymptote" if isinstance(truth, LawFit) else truth.objective.label,
        truth_status=truth.status,
        parameters=known.parameters,
        status=_overall(tally),
        buckets=known.buckets,
        runs=np.array([len(fit.loss) for fit in parabolas]),
        completed=known.completed,
        targets=targets,
        losses=known.target_losses,
        inside=(known.buckets[0] <= targets) & (targets <= known.buckets[-1]),
        methods=tuple(methods),
        kinds=tuple(INTERVAL_KINDS[method] for method in methods),
        noise=sd,
        bucket_noise=float(bucket_noise),
        noise_model=noise_model,
        noise_given=noise is not None,
        pinned=known.L_inf,
        studies=studies,
        draws=draws,
        seed=seed,
        level=level,
        **tally._asdict(),
    )


def default_targets(buckets: ArrayLike, targets: Sequence[float]) -> tuple[float, ...]:
    """Budgets inside and beyond a fit of ``buckets`` [K]: its middle and largest one, and ``targets`` beyond."""
    ordered = np.sort(np.asarray(buckets, dtype=np.float64))
    inside = dict.fromkeys((float(ordered[len(ordered) // 2]), float(ordered[-1])))
    return (*inside, *(target for target in targets if target > ordered[-1]))


def tally_intervals(
    low: Floats,
    point: Floats,
    median: Floats,
    high: Floats,
    status: Integers,
    losses: Floats,
    new: Mapping[str, Floats],
) -> IntervalTally:
    """Count intervals of S studies: their ends ``low`` and ``high``, their ``point`` and ``median`` forecasts and
    ``status``, all [S, M, Q].

    An interval with a NaN end is none, an infinite end is no end. ``losses`` [Q] are the truth, ``new`` observations
    [S, Q] about it by name. Every mean has its standard error over studies, the median width half the distance between
    the order statistics that lie one standard error of their rank about it; NaN for one study.
    """
    given = ~(np.isnan(low) | np.isnan(high))
    width = np.where(given, 100 * (high - low) / losses, np.nan)

    def held(value: Floats) -> Integers:
        return np.sum(given & (low <= value) & (value <= high), axis=0)

    return IntervalTally(
        {each: np.sum(status == each, axis=0) for each in Status if np.any(status == each)},
        np.sum(given, axis=0),
        {LAW_VALUE: held(losses), **{name: held(values[:, None, :]) for name, values in new.items()}},
        *_over_studies(_median, width),
        *_over_studies(_mean, width),
        *_over_studies(_mean, residual_percent(point, losses)),
        *_over_studies(_mean, residual_percent(median, losses)),
    )


def _over_studies(statistic: Callable[[Floats], tuple[float, float]], values: Floats) -> Floats:
    """``statistic`` and its error, [2, M, Q], of the numbers among ``values`` [S, M, Q]; NaN where there is none."""
    found = np.full((2, *values.shape[1:]), np.nan)
    for place in np.ndindex(values.shape[1:]):
        column = values[(slice(None), *place)]
        column = column[~np.isnan(column)]
        if column.size:
            found[(slice(None), *place)] = statistic(column)
    return found


def _mean(values: Floats) -> tuple[float, float]:
    mean = float(np.mean(values))
    if len(values) == 1 or not np.isfinite(mean):
        return mean, np.nan
    return mean, float(np.std(values, ddof=1) / np.sqrt(len(values)))


def _median(values: Floats) -> tuple[float, float]:
    if len(values) == 1:
        return float(values[0]), np.nan
    # The rank of the median has a standard deviation of half the root of the number of values.
    ends = np.clip(50 + 50 / np.sqrt(len(values)) * np.array([-1, 1]), 0, 100)
    low, high = np.percentile(values, ends, method="inverted_cdf")
    return float(np.median(values)), float((high - low) / 2) if np.isfinite(high) else np.inf


def _parabolas(runs: RunTable, truth: LawFit | SurfaceFit) -> tuple[ParabolaFit, ...]:
    """The parabolas of the truth's suite, by ascending budget."""
    if not truth.fitted:
        raise ValueError(
            f"{truth.series}: nothing to simulate from, the truth was not fitted ({truth.status.label}); "
            f"{truth.status.remedy}"
        )
    parabolas = fit_isoflop(runs).of(truth.series)
    if not parabolas:
        raise ValueError(f"{truth.series}: there is no fitted IsoFLOP budget of that suite to simulate")
    return parabolas


def _known(runs: RunTable, parabolas: Sequence[ParabolaFit], truth: LawFit | SurfaceFit, targets: Floats) -> Truth:
    if isinstance(truth, LawFit):
        return law_truth(parabolas, truth, targets)
    used, _ = fit_runs(runs)
    return surface_truth(parabolas, truth, targets, FlopsFactor.of(used.where(used.suite == truth.series)))


def _overall(tally: IntervalTally) -> Status:
    """FITTED where every method gave an interval at every target, else the commonest status where one gave none."""
    never = tally.with_interval == 0
    if not never.any():
        return Status.FITTED
    return max(tally.study_status, key=lambda status: int(tally.study_status[status][never].sum()))
