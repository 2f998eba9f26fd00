"""Effective speedup of one recipe over another: at matched budgets, and between two fitted laws."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import NormalDist
from typing import NamedTuple

import jax
import numpy as np
from numpy.typing import NDArray

from delphi_jax.batch import asymptote_grid, pad
from delphi_jax.definition import Definition, delphi
from delphi_jax.fit.law import LAW_GRID, Series, checked_series, fit_laws, fit_shared_laws, one_law
from delphi_jax.formulas import compute_multiplier
from delphi_jax.kernels.chunks import on_all_devices
from delphi_jax.kernels.optimum import CHUNK, fit_optimal_laws
from delphi_jax.kernels.shared import SharedDraws, fit_shared_draws
from delphi_jax.quantiles import least_draws, student_t_probability, student_t_quantile
from delphi_jax.resamples import (
    count_indices,
    n_resamples,
    resample_counts,
    resample_probabilities,
    weighted_percentiles,
)
from delphi_jax.results import Floats, LawFit
from delphi_jax.results.speedup import ComputeMultiplier, MatchedSpeedup, SpeedupFit, SpeedupLine
from delphi_jax.status import MEASURED, Status

__all__ = ["effective_speedup"]

_DRAWS = 10_000

_SAME_BUDGET = 1e-9
"""Relative: budgets that differ by less are the same."""

_CURVE_POINTS = 61
"""From the smallest budget of both suites to the largest, theirs or asked for."""

_STEPS = 40
"""Of a bisection, which leave 1e-12 of its bracket."""

_NORMAL = NormalDist()

Integers = NDArray[np.int64]
Arrays = dict[str, tuple[Floats, Floats]]


class _Settings(NamedTuple):
    L_inf: float | None
    draws: int
    seed: int
    level: float
    n_grid: int

    @property
    def shares(self) -> Floats:
        """Of the distribution below the low and the high end of an interval."""
        return np.array([1 - self.level, 1 + self.level]) / 2

    def above_any(self, *losses: Floats) -> bool:
        """Whether the given asymptote is not below every loss."""
        return self.L_inf is not None and any(self.L_inf >= loss.min() for loss in losses)

    def told(self, apart: bool, draws: float) -> Status:
        """Whether fitted ``draws`` tell an interval: some ``apart`` from others, and enough of them."""
        if not apart:
            return Status.TOO_FEW_POINTS
        return Status.FITTED if draws >= least_draws(self.level) else Status.BEYOND_DRAWS

    def laws(self, series: Series) -> tuple[LawFit, ...]:
        """With the given asymptote, else a free one each."""
        given = None if self.L_inf is None else dict.fromkeys(series, self.L_inf)
        return tuple(fit_laws(series, L_inf=given, method="optimum").values())


class _Draws(NamedTuple):
    """R draws; numbers of skipped ones mean nothing."""

    L_inf: Floats
    log_A: Floats
    alpha: Floats
    status: Integers

    def only(self, fitted: NDArray[np.bool_]) -> _Draws:
        return _Draws(*(field[fitted] for field in self))


def effective_speedup(
    series: Series,
    *,
    L_inf: float | None = None,
    budgets: Sequence[float] | None = None,
    draws: int = _DRAWS,
    seed: int = 0,
    level: float = 0.95,
    n_grid: int = LAW_GRID,
    definition: Definition | None = None,
) -> SpeedupFit:
    """How many times the compute the second of two suites needs for the loss of the first; below 1 where it needs less.

    ``series``: (compute FLOPs, loss) of the optima, [n] each, of two suites by name; no budget twice.

    *At matched budgets*: with L = L_inf + A*C**-alpha for both suites, s times the compute divides the reducible loss
    L - L_inf by s**alpha, so s = ((L_second - L_inf)/(L_first - L_inf))**(1/alpha) at any budget. Only the budgets that
    both suites have take part. The asymptote is ``L_inf``, or that of the shared-asymptote law (methods, section 3);
    alpha is the least-squares slope common to both suites, which at matched budgets is the average of the two; the
    estimate from all budgets is the geometric mean. Draws resample matched budgets, of both suites together, and refit
    alpha, and the asymptote unless it is given. They are all C(2n-1, n) resamples with their probabilities where these
    are no more than ``draws``. Percentiles are expanded (Hesterberg 2015, The American Statistician 69, 371): so few
    budgets scatter less about their own mean than about the truth. The probability is contracted likewise. The value
    at one budget scatters by more: its interval adds to every draw Student's t with the spread of the log ratios over
    the budgets, n - 1 degrees of freedom.

    *Between fitted laws*: m(C) = C_second(L_first(C))/C, with the inverse of the second suite's law, at ``budgets``
    (FLOPs; by default those of both suites and the targets of the study, ``definition``). Laws are continuous optima:
    asymptotes free, or ``L_inf`` where it is given. Where the loss is not above the second suite's asymptote, no budget
    reaches it: NOT_REACHED. Draws resample the optima of each suite by itself; those in which the loss is not reachable
    count as infinite, so that they push the interval up, to infinity if there are many. Percentiles of the draws.

    Of simulated studies with two suites of seven budgets, 95 % intervals held the truth in 97 % (all matched budgets),
    98 % and more (one budget), 92 to 93 % (pinned laws) and 93 to 100 % (free laws).

    Draws with too few distinct budgets, or without a law, are skipped and counted; there is no interval where fewer are
    left than :func:`~delphi_jax.quantiles.least_draws`. Status NO_SHARED_BUDGET without
    matched budgets, TOO_FEW_POINTS with fewer than three (two with ``L_inf``), ASYMPTOTE_ABOVE_LOSS where ``L_inf`` is
    not below every loss. Raises ValueError for arguments that do not fit.

    Examples:

    >>> import numpy as np
    >>> import delphi_jax as dj
    >>> compute = np.logspace(18, 20, 7)
    >>> loss = 2 + 1000 * compute**-0.2
    >>> better = 2 + 1000 * (2 * compute) ** -0.2  # the loss of twice the compute
    >>> found = dj.effective_speedup({"better": (compute, better), "plain": (compute, loss)}, L_inf=2)
    >>> round(found.matched.pooled.value, 3)
    2.0
    """
    definition = definition or delphi()
    arrays = _checked(series, L_inf, budgets, draws, level)
    settings = _Settings(L_inf, draws, seed, level, n_grid)
    pairs, *apart = (np.random.default_rng(stream) for stream in np.random.SeedSequence(seed).spawn(3))
    if budgets is None:
        budgets = sorted({*definition.targets, *(float(value) for compute, _ in arrays.values() for value in compute)})
    first, second = arrays
    return SpeedupFit(
        (first, second),
        _matched(arrays, settings, pairs),
        _multiplier(arrays, np.asarray(budgets, dtype=np.float64), settings, apart),
        definition,
    )


def _checked(series: Series, L_inf: float | None, budgets: Sequence[float] | None, draws: int, level: float) -> Arrays:
    """The two suites by ascending budget."""
    if len(series) != 2:
        raise ValueError(f"a speedup compares two suites, got {len(series)}: {list(series)}")
    arrays = {}
    for name, (compute, loss) in series.items():
        compute, loss = checked_series(name, compute, loss)
        if not len(compute):
            raise ValueError(f"{name}: no points to compare")
        order = np.argsort(compute)
        compute, loss = compute[order], loss[order]
        twice = np.flatnonzero(np.diff(compute) <= _SAME_BUDGET * compute[1:])
        if twice.size:
            raise ValueError(f"{name}: {compute[twice[0]]:g} FLOPs occurs twice, expected one optimum a budget")
        arrays[name] = compute, loss
    if L_inf is not None and not 0 <= L_inf < np.inf:
        raise ValueError(f"L_inf must be a finite number of at least 0, got {L_inf}")
    if budgets is not None and not (len(budgets) and all(0 < budget < np.inf for budget in budgets)):
        raise ValueError(f"budgets must be finite positive FLOPs, one at least, got {list(budgets)}")
    if draws < 1:
        raise ValueError(f"the bootstrap needs at least one draw, got {draws}")
    if not 0 < level < 1:
        raise ValueError(f"level must be between 0 and 1, got {level}")
    return arrays


def _matched(arrays: Arrays, settings: _Settings, rng: np.random.Generator) -> MatchedSpeedup:
    """Both suites at the budgets that they share."""
    (compute, loss), (other_compute, other_loss) = arrays.values()
    place, other_place = np.nonzero(np.abs(compute[:, None] - other_compute) <= _SAME_BUDGET * compute[:, None])
    n = len(place)
    budgets, losses = compute[place], np.stack([loss[place], other_loss[other_place]])
    series = {name: (budgets, row) for name, row in zip(arrays, losses, strict=True)}
    laws = tuple(fit_shared_laws(series, n_grid=settings.n_grid).values())
    if settings.L_inf is not None:
        laws = settings.laws(series)
    status = _matched_status(losses, laws, settings)
    exact = n > 0 and n_resamples(n) <= settings.draws
    alpha, drift, p_value, skipped, at_zero = np.nan, np.nan, np.nan, {}, 0.0
    lines = [_no_line(budget, status) for budget in (*budgets, np.nan)]
    if status in MEASURED:
        alpha = float(np.mean([law.alpha for law in laws]))
        drift, p_value = _drift(budgets, _log_ratio(losses, laws[0].L_inf) / alpha)
        counts, weights = _paired_resamples(n, settings, exact, rng)
        draws = _fit_pairs(budgets, losses, counts, settings)
        fitted = draws.status == Status.FITTED
        skipped, at_zero = _skipped(draws.status, weights), float(weights[fitted & (draws.L_inf == 0)].sum())
        apart = bool(np.any(counts[fitted] != counts[fitted][:1]))
        told = settings.told(apart, np.inf if exact else int(fitted.sum()))
        draws = SharedDraws(*(field[fitted] for field in draws))
        weights = weights[fitted] / weights[fitted].sum() if told is Status.FITTED else np.empty(0)
        lines = _matched_lines(budgets, losses, laws[0].L_inf, alpha, draws, weights, status, told, settings)
    return MatchedSpeedup(
        suites=tuple(arrays),
        laws=laws,
        status=status,
        lines=tuple(lines),
        level=settings.level,
        method="exact" if exact else "monte-carlo",
        draws=n_resamples(n) if exact else settings.draws,
        seed=None if exact else settings.seed,
        skipped=skipped,
        budgets=budgets,
        loss=losses,
        unmatched=(len(compute) - n, len(other_compute) - n),
        alpha=alpha,
        pooled=lines[-1],
        at_zero=at_zero,
        drift=drift,
        drift_p_value=p_value,
    )


def _matched_status(losses: Floats, laws: tuple[LawFit, ...], settings: _Settings) -> Status:
    n = losses.shape[1]
    if n == 0:
        return Status.NO_SHARED_BUDGET
    if settings.above_any(losses):
        return Status.ASYMPTOTE_ABOVE_LOSS
    if n < (3 if settings.L_inf is None else 2):
        return Status.TOO_FEW_POINTS
    return next((law.status for law in laws if law.status is not Status.FITTED), Status.FITTED)


def _paired_resamples(n: int, settings: _Settings, exact: bool, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Counts [R, n] of matched budgets, and their probabilities [R]."""
    if exact:
        counts = resample_counts(n)
        return counts.astype(np.float64), resample_probabilities(counts)
    return _drawn_counts(n, settings.draws, rng), np.full(settings.draws, 1 / settings.draws)


def _drawn_counts(n: int, draws: int, rng: np.random.Generator) -> Floats:
    """Counts [R, n] of resamples of n points."""
    return count_indices(rng.integers(0, n, size=(draws, n)), n).astype(np.float64)


def _fit_pairs(budgets: Floats, losses: Floats, counts: Floats, settings: _Settings) -> SharedDraws:
    """Both suites refitted to every resample of the matched budgets."""
    log_compute, mask = pad([np.log(budgets)])
    loss = np.ones((2, mask.shape[1]))
    loss[:, : len(budgets)] = losses
    weight = np.zeros((len(counts), mask.shape[1]))
    weight[:, : len(budgets)] = counts
    if settings.L_inf is None:
        grid = asymptote_grid(loss.min(axis=0), settings.n_grid)
    else:
        grid = np.full((mask.shape[1], 1), settings.L_inf)
    return jax.device_get(fit_shared_draws(log_compute[0], loss, weight, grid))


def _skipped(status: Integers, weights: Floats) -> dict[Status, float]:
    """Probability of the draws that have no law, by reason."""
    return {Status(int(s)): float(weights[status == s].sum()) for s in np.unique(status) if s != Status.FITTED}


def _matched_lines(
    budgets: Floats,
    losses: Floats,
    L_inf: float,
    alpha: float,
    draws: SharedDraws,
    weights: Floats,
    status: Status,
    told: Status,
    settings: _Settings,
) -> list[SpeedupLine]:
    """A line per matched budget, and that of all together; ``weights`` [R] are empty where no interval is ``told``."""
    n = len(budgets)
    log_ratio = _log_ratio(losses, L_inf)
    values, pooled = _exp(log_ratio / alpha), _exp(np.mean(log_ratio) / alpha)
    if not len(weights):
        both = zip((*budgets, np.nan), (*values, pooled), strict=True)
        return [_line(budget, value, told, status) for budget, value in both]
    spread = float(np.std(log_ratio, ddof=1))
    lines = []
    for budget, value, centre in zip(budgets, values, _log_ratio(losses[:, :, None], draws.L_inf), strict=True):
        # A draw whose asymptote lies above both losses tells nothing of this budget.
        told = ~np.isnan(centre)
        weight = weights[told] / weights[told].sum()
        mixture = _Mixture(centre[told], draws.alpha[told], weight, spread, n - 1)
        low, high = (_exp(mixture.quantile(share)) for share in settings.shares)
        unreached = float(weight[mixture.centre == np.inf].sum())
        lines.append(_line(budget, value, (low, high, mixture.above_zero(), unreached), status))
    logs = draws.log_ratio / draws.alpha
    low, high = map(_exp, weighted_percentiles(logs, weights, 100 * _expanded(settings.shares, n)))
    return [*lines, _line(np.nan, pooled, (low, high, _above_zero(logs, weights, n), 0.0), status)]


def _exp(logs: Floats | float) -> Floats | float:
    """Beyond the largest float is as good as infinite: an exponent near 0 makes such speedups."""
    with np.errstate(over="ignore"):
        return np.exp(logs)


def _drift(budgets: Floats, logs: Floats) -> tuple[float, float]:
    """Change of the log speedups [n] per decade, in percent of the speedup, and the p-value of none (Student's t)."""
    n = len(budgets)
    if n < 3:
        return np.nan, np.nan
    x, y = np.log10(budgets) - np.log10(budgets).mean(), logs - logs.mean()
    slope = x @ y / (x @ x)
    error = np.sqrt(np.sum((y - slope * x) ** 2) / (n - 2) / (x @ x))
    p_value = 2 * student_t_probability(-abs(slope) / error, n - 2) if error > 0 else float(slope == 0)
    return float(100 * np.expm1(slope)), float(p_value)


def _log_ratio(losses: Floats, L_inf: Floats | float) -> Floats:
    """Log of the second suite's reducible loss over the first's; infinite where only one is above ``L_inf``."""
    first, second = np.maximum(losses - L_inf, 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.log(second / first)


def _expanded(shares: Floats, n: int) -> Floats:
    """Percentiles whose distance in normal quantiles is that of Student's t for the mean of ``n`` points."""
    return np.array([_NORMAL.cdf(t * np.sqrt(n / (n - 1))) for t in student_t_quantile(shares, n - 1)])


def _above_zero(logs: Floats, weights: Floats, n: int) -> float:
    """Probability of more than 0, contracted as the interval is expanded, so that both say the same.

    Where all draws agree, half the lightest of them counts as if it did not: there is no more to be had from them.
    """
    if not np.any(logs):
        return 0.0
    half = float(weights.min()) / 2
    share = min(max(float(weights[logs > 0].sum()), half), 1 - half)
    return float(student_t_probability(np.float64(_NORMAL.inv_cdf(share) * np.sqrt((n - 1) / n)), n - 1))


class _Mixture(NamedTuple):
    """Draws [R] of a log speedup (centre + spread*t)/alpha, each a distribution, t Student's with ``df`` degrees."""

    centre: Floats
    """May be infinite."""
    alpha: Floats
    weight: Floats
    """Sums to 1."""
    spread: float
    df: int

    def above_zero(self) -> float:
        if self.spread == 0:
            return float(self.weight[self.centre > 0].sum())
        return float(self.weight @ student_t_probability(self.centre / self.spread, self.df))

    def quantile(self, share: float) -> float:
        if self.spread == 0:
            return float(weighted_percentiles(self.centre / self.alpha, self.weight, [100 * share])[0])
        finite = np.isfinite(self.centre)
        below = float(self.weight[self.centre == -np.inf].sum())
        inside = float(self.weight[finite].sum())
        if share <= below:
            return -np.inf
        if share >= below + inside:
            return np.inf
        share = (share - below) / inside
        centre, alpha, weight = (field[finite] for field in (self.centre, self.alpha, self.weight / inside))
        ends = (centre + self.spread * float(student_t_quantile(share, self.df))) / alpha
        low, high = float(ends.min()), float(ends.max())
        # The quantile lies between the smallest and the largest of the draws' own.
        for _ in range(_STEPS):
            middle = (low + high) / 2
            if weight @ student_t_probability((middle * alpha - centre) / self.spread, self.df) < share:
                low = middle
            else:
                high = middle
        return high


def _no_line(budget: float, status: Status) -> SpeedupLine:
    return SpeedupLine(float(budget), np.nan, np.nan, np.nan, np.nan, np.nan, status, status)


def _line(
    budget: float, value: float, interval: tuple[float, float, float, float] | Status, status: Status
) -> SpeedupLine:
    """``interval``: ends, probability of more than 1, draws without a reachable loss, as a share; or why none."""
    if not np.isfinite(value):
        value, status = np.nan, Status.NOT_REACHED
    if isinstance(interval, Status):
        return SpeedupLine(float(budget), float(value), np.nan, np.nan, np.nan, np.nan, status, interval)
    low, high, probability, unreached = map(float, interval)
    infinite = bool(np.isinf(low)), bool(np.isinf(high))
    told = Status.NOT_REACHED if any(infinite) else Status.FITTED
    return SpeedupLine(float(budget), float(value), low, high, probability, unreached, status, told, infinite)


def _multiplier(
    arrays: Arrays, budgets: Floats, settings: _Settings, streams: Sequence[np.random.Generator]
) -> ComputeMultiplier:
    """Between the laws of the two suites, each fitted to all of its optima."""
    laws = settings.laws(arrays)
    status = next((law.status for law in laws if law.status not in MEASURED), None)
    if settings.above_any(*(loss for _, loss in arrays.values())):
        status = Status.ASYMPTOTE_ABOVE_LOSS
    lines, curve, skipped = [_no_line(budget, status) for budget in budgets], [], {}
    if status is None:
        status = next((law.status for law in laws if law.status is not Status.FITTED), Status.FITTED)
        draws = [_law_draws(*arrays[law.series], settings, rng) for law, rng in zip(laws, streams, strict=True)]
        ended = np.where(draws[0].status == Status.FITTED, draws[1].status, draws[0].status)
        skipped = _skipped(ended, np.full(settings.draws, 1 / settings.draws))
        draws = [each.only(ended == Status.FITTED) for each in draws]
        own = np.concatenate([compute for compute, _ in arrays.values()])
        drawn = np.geomspace(own.min(), max(own.max(), budgets.max()), _CURVE_POINTS)
        lines, curve = (_multiplier_lines(each, laws, draws, status, settings) for each in (budgets, drawn))
    return ComputeMultiplier(
        suites=tuple(arrays),
        laws=laws,
        status=status,
        lines=tuple(lines),
        level=settings.level,
        method="monte-carlo",
        draws=settings.draws,
        seed=settings.seed,
        skipped=skipped,
        curve=tuple(curve),
    )


def _law_draws(compute: Floats, loss: Floats, settings: _Settings, rng: np.random.Generator) -> _Draws:
    """Laws of resamples of one suite's optima."""
    counts = _drawn_counts(len(compute), settings.draws, rng)
    log_compute, losses = (np.tile(row, (len(counts), 1)) for row in (np.log(compute), loss))
    given = np.full(len(counts), np.nan if settings.L_inf is None else settings.L_inf)
    fit = on_all_devices(fit_optimal_laws, CHUNK, log_compute, losses, counts, given)
    # A draw whose asymptote lies on a bound is one like the others.
    status = np.where(fit.status == Status.BOUND_HIT, Status.FITTED, fit.status)
    return _Draws(fit.L_inf, fit.log_A, fit.alpha, status)


def _multiplier_lines(
    budgets: Floats, laws: tuple[LawFit, ...], draws: Sequence[_Draws], status: Status, settings: _Settings
) -> list[SpeedupLine]:
    """``draws``: fitted laws of both suites."""
    apart = all(len(each.alpha) and not one_law(np.stack(each[:3], axis=1)) for each in draws)
    told = settings.told(apart, len(draws[0].alpha))
    own = [(law.L_inf, law.log_A, law.alpha) for law in laws]
    weights = np.ones(len(draws[0].alpha))
    lines = []
    for budget in budgets:
        # Beyond the largest float is as good as infinite.
        with np.errstate(over="ignore"):
            value = compute_multiplier(np.float64(budget), *own)
            drawn = compute_multiplier(np.full(len(weights), budget), *(each[:3] for each in draws))
        interval = told
        if told is Status.FITTED:
            ends = weighted_percentiles(drawn, weights, 100 * settings.shares)
            interval = (*ends, float(np.mean(drawn > 1)), float(np.mean(np.isinf(drawn))))
        lines.append(_line(budget, float(value), interval, status))
    return lines
