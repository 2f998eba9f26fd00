"""The law's continuous optimum of series, with profile intervals and the profile over the asymptote."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import jax
import numpy as np
from numpy.typing import ArrayLike

from delphi_jax.batch import pad
from delphi_jax.definition import delphi
from delphi_jax.fit.law import Series, fit_laws, fit_shared_laws
from delphi_jax.kernels.law_profile import ProfiledLaw, profile_laws
from delphi_jax.kernels.objective_profile import profile_objective_laws
from delphi_jax.quantiles import f_quantile, profile_limit
from delphi_jax.results.base import Floats
from delphi_jax.results.law import LawFit, Objective, PinnedAsymptote
from delphi_jax.results.law_intervals import AsymptoteProfile, LawIntervals, LawStudy
from delphi_jax.status import Bound, Status

__all__ = ["law_study", "profile_intervals"]

_PROFILE = 200
"""Asymptotes of a profile."""
_NEAREST = 1e-3
"""Share of the smallest loss by which the last of them stays below it."""

Asymptote = Literal["free", "shared"] | PinnedAsymptote


def profile_intervals(
    series: Series,
    targets: ArrayLike | None = None,
    *,
    level: float = 0.95,
    asymptote: Asymptote = "free",
    objective: Objective | None = None,
    metric: str = "",
) -> dict[str, LawIntervals]:
    """Fit the law's continuous optimum to series (compute, loss), by name, with profile intervals at ``level``.

    Of L_inf, alpha and the loss at every one of ``targets`` [Q], FLOPs, by default those of the Delphi study. An
    interval holds the values that some law has whose sum of squares is at most 1 + F/(n - p) times the least one, F the
    ``level`` quantile of the F distribution with 1 and n - p degrees of freedom (Seber and Wild 1989, section 5.4).
    With residuals of the loss this is the profile likelihood of normal noise; with those of log(L - L_inf) it is the
    profile of the fit's own criterion, which leaves out the Jacobian of the logarithm. Huber's function has its robust
    likeness (:mod:`~delphi_jax.kernels.objective_profile`). ``asymptote`` is free, shared by all series, or pinned to a
    value of the same ``metric``. Raises ValueError as :func:`~delphi_jax.fit.law.fit_law`, for a level that is not
    between 0 and 1, for targets that are not positive, and for a shared asymptote with residuals of the loss, which has
    no interval.

    Examples:

    >>> import numpy as np
    >>> import delphi_jax as dj
    >>> compute = np.logspace(18, 20, 7)
    >>> loss = 2 + 1000 * compute**-0.2
    >>> noisy = loss + 1e-5 * np.array([1, -1, 0, 1, 0, -1, 1])
    >>> fit = dj.profile_intervals({"one": (compute, noisy)}, [1e25])["one"]
    >>> [bool(low < truth < high) for low, truth, high in zip(fit.low, (2, 0.2, 2.01), fit.high)]
    [True, True, True]
    """
    objective = objective or Objective()
    targets = np.asarray(delphi().targets if targets is None else targets, dtype=np.float64)
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, got {level}")
    if targets.ndim != 1 or not np.all(np.isfinite(targets) & (targets > 0)):
        raise ValueError(f"targets must be finite positive budgets in FLOPs, got {targets.tolist()}")
    shared = asymptote == "shared"
    if shared and objective.of_loss:
        raise ValueError("a shared asymptote has profile intervals with residuals of log(L - L_inf) only")
    laws = _laws(series, asymptote, objective, metric)
    if not laws:
        return {}
    ends = _profile(list(laws.values()), np.log(targets), level, shared, objective)
    return {
        name: LawIntervals(
            law,
            targets,
            level,
            Status(int(ends.status[i])) if len(law.compute) else Status.NO_DATA,
            ends.low[i],
            ends.high[i],
            _bounds(ends.low_bound[i]),
            _bounds(ends.high_bound[i]),
        )
        for i, (name, law) in enumerate(laws.items())
    }


def law_study(
    series: Series,
    targets: ArrayLike | None = None,
    *,
    level: float = 0.95,
    asymptote: Asymptote = "free",
    objective: Objective | None = None,
    metric: str = "",
) -> LawStudy:
    """:func:`profile_intervals` of every series beside the reference's grid, and the profile over the asymptote.

    Examples:

    >>> import numpy as np
    >>> import delphi_jax as dj
    >>> compute = np.logspace(18, 20, 7)
    >>> loss = 2 + 1000 * compute**-0.2
    >>> found = dj.law_study({"one": (compute, loss)}, [1e25])
    >>> found.intervals[0].quantities
    ('L_inf', 'alpha', 'loss at 1e+25 FLOPs')
    >>> found.intervals[0].estimates.round(3)
    array([2.  , 0.2 , 2.01])
    """
    intervals = profile_intervals(series, targets, level=level, asymptote=asymptote, objective=objective, metric=metric)
    laws = [each.law for each in intervals.values() if each.law.fitted]
    free = not isinstance(asymptote, PinnedAsymptote)
    groups = [laws] if asymptote == "shared" and laws else [[law] for law in laws]
    profiles = {law.series: profile for group in groups for profile in [_asymptotes(group, level)] for law in group}
    return LawStudy(tuple(intervals.values()), fit_laws(series, metric=metric), profiles if free else {})


def _laws(series: Series, asymptote: Asymptote, objective: Objective, metric: str) -> dict[str, LawFit]:
    if asymptote == "shared":
        return fit_shared_laws(series, method="optimum", objective=objective, metric=metric)
    pinned = None if asymptote == "free" else asymptote
    return fit_laws(series, L_inf=pinned, method="optimum", objective=objective, metric=metric)


def _profile(
    laws: Sequence[LawFit], log_targets: Floats, level: float, shared: bool, objective: Objective
) -> ProfiledLaw:
    """Ends [B, 2 + Q] and statuses [B] of the laws."""
    log_compute, mask = pad([np.log(law.compute) for law in laws])
    losses, weight = pad([law.loss for law in laws])[0], mask.astype(np.float64)
    given = np.array([law.L_inf if law.asymptote == "pinned" else np.nan for law in laws])
    free = np.isnan(given)
    n, n_params = mask.sum(axis=1), np.where(free, 3, 2)
    if objective.of_reference and not shared:
        limit = profile_limit(n, n_params, level)
        return jax.device_get(profile_laws(log_compute, losses, weight, log_targets, limit, given))
    if shared:
        # One asymptote for all series that have points, and a line for each.
        present = int(np.sum(n > 0))
        n, n_params, given = np.array([n.sum()]), np.array([1 + 2 * present]), np.array([np.nan])
    shape = (1, len(laws), -1) if shared else (len(laws), 1, -1)
    groups = (field.reshape(shape) for field in (log_compute, losses, weight))
    settings = {"huber": objective.huber, "of_loss": objective.of_loss}
    found = profile_objective_laws(
        *groups, log_targets, f_quantile(n - n_params, level), n_params, given, objective.delta, **settings
    )
    # [1, B] or [B, 1] in front: one series after the other.
    flat = (field.reshape(len(laws), *field.shape[2:]) for field in jax.device_get(found)[1:])
    return ProfiledLaw(found.law, *flat)


def _bounds(values: ArrayLike) -> tuple[Bound, ...]:
    return tuple(Bound(int(value)) for value in np.asarray(values))


def _asymptotes(laws: Sequence[LawFit], level: float) -> AsymptoteProfile:
    """The profile over the one asymptote of ``laws``."""
    smallest = min(float(law.loss.min()) for law in laws)
    values = np.linspace(0, (1 - _NEAREST) * smallest, _PROFILE)
    copies = {f"{law.series} {i}": (law, value) for law in laws for i, value in enumerate(values)}
    pinned: Mapping[str, float] = {name: float(value) for name, (_, value) in copies.items()}
    series = {name: (law.compute, law.loss) for name, (law, _) in copies.items()}
    fits = fit_laws(series, L_inf=pinned, method="optimum", objective=laws[0].objective)
    scores = np.array([fit.score if fit.fitted else np.nan for fit in fits.values()])
    n = np.array([len(law.loss) for law in laws])
    summed = n @ scores.reshape(len(laws), -1)
    best = n @ np.array([law.score for law in laws])
    limit = np.nan if laws[0].objective.huber else float(profile_limit(n.sum(), 1 + 2 * len(laws), level))
    return AsymptoteProfile(values, summed / best if best > 0 else np.full_like(values, np.nan), limit)
