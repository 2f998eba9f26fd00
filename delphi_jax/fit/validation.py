"""Would the law have been right? Refits to the smaller budgets, beside what came later."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Literal

import numpy as np

from delphi_jax.fit.law import LAW_GRID, Series, checked_series, fit_laws
from delphi_jax.formulas import residual_percent
from delphi_jax.results import Floats, LawFit
from delphi_jax.results.validation import HELD_OUT, OPTIMUM, Prediction, Refit, ValidationFit
from delphi_jax.status import Status

__all__ = ["leave_future_out"]

_LEAST = {"free": 3, "pinned": 2}
"""Budgets that support a law: as many as it has parameters."""

Arrays = Mapping[str, tuple[Floats, Floats]]


def leave_future_out(
    series: Series,
    held_out: Series | None = None,
    *,
    L_inf: float | Mapping[str, float] | None = None,
    method: Literal["grid", "optimum"] = "grid",
    n_grid: int = LAW_GRID,
) -> ValidationFit:
    """Refit the law to the first i budgets of every suite, for every i that supports it, and predict all later ones.

    ``series``: (compute FLOPs, loss) of the optima, [n] each, by suite; ``held_out``: the same of held-out runs, one
    mean a budget, for some or all of these suites. A refit knows nothing of what lies beyond its last budget: the grid
    of a free asymptote ends at the smallest loss that it was given. Free laws start from three budgets. With ``L_inf``,
    for all suites or by suite, pinned laws from two follow; a value that comes from the same suite's later budgets
    would know the future, so none is taken from the data. ``method``: a free asymptote is the best of a grid of
    ``n_grid`` values (methods, section 3), or the continuous optimum.

    All refits of a kind are one batch. A refit without a law is listed with its status and predicts nothing. Errors are
    100*(observed - predicted)/predicted, distances log10 of the target's budget over the last one fitted (rolling
    origin, Tashman 2000, International Journal of Forecasting 16, 437).

    Raises ValueError for arrays that do not match or are not positive, and for held-out runs or asymptotes of suites
    that are not in ``series``.

    Examples:

    >>> import numpy as np
    >>> import delphi_jax as dj
    >>> compute = np.logspace(18, 20, 7)
    >>> loss = 2 + 1000 * compute**-0.2
    >>> found = dj.leave_future_out({"one": (compute, loss)}, method="optimum")
    >>> [refit.budgets for refit in found.refits]
    [3, 4, 5, 6, 7]
    >>> max(abs(each.error) for each in found.predictions) < 1e-3  # percent
    True
    """
    arrays = {name: _ordered(name, *pair) for name, pair in series.items()}
    later = {name: _ordered(f"{name}, held out", *pair) for name, pair in (held_out or {}).items()}
    pinned = dict(L_inf) if isinstance(L_inf, Mapping) else {} if L_inf is None else dict.fromkeys(arrays, L_inf)
    if method not in ("grid", "optimum"):
        raise ValueError(f"method must be 'grid' or 'optimum', got {method!r}")
    if unknown := sorted({*later, *pinned} - set(arrays)):
        raise ValueError(f"no optima of {unknown}, only of {list(arrays)}")
    for name, value in pinned.items():
        if not 0 <= value < np.inf:
            raise ValueError(f"{name}: L_inf must be a finite number of at least 0, got {value}")
    fits = {
        "free": _refits(arrays, "free", None, method, n_grid),
        "pinned": _refits({name: arrays[name] for name in pinned}, "pinned", pinned, method, n_grid),
    }
    found = [each for name in arrays for kind in fits for each in fits[kind].get(name, ())]
    refits = [refit for refit, _ in found]
    others = Counter(refit.status for refit in refits if refit.status is not Status.FITTED)
    return ValidationFit(
        status=others.most_common(1)[0][0] if others else Status.FITTED if refits else Status.NO_DATA,
        refits=tuple(refits),
        predictions=tuple(
            prediction
            for place, (refit, law) in enumerate(found)
            for kind, known in ((OPTIMUM, arrays), (HELD_OUT, later))
            if refit.suite in known
            for prediction in _predictions(place, refit, law, kind, *known[refit.suite])
        ),
        pinned=pinned,
        method=method,
        n_grid=n_grid,
        unpredicted={
            name: int(np.sum(compute <= min(refit.last_budget for refit in refits if refit.suite == name)))
            for name, (compute, _) in later.items()
        },
    )


def _ordered(name: str, compute: object, loss: object) -> tuple[Floats, Floats]:
    """By ascending budget, equal ones by loss: so that the order of the input does not matter."""
    compute, loss = checked_series(name, compute, loss)
    if not len(compute):
        raise ValueError(f"{name}: no points")
    order = np.lexsort((loss, compute))
    return compute[order], loss[order]


def _refits(
    arrays: Arrays, asymptote: str, pinned: Mapping[str, float] | None, method: str, n_grid: int
) -> dict[str, list[tuple[Refit, LawFit]]]:
    """By suite, with their laws, for its first few budgets; where all of them are too few, one refit that says so."""
    parts: list[tuple[Floats, Floats]] = []
    places: list[tuple[str, int, float]] = []
    for name, (compute, loss) in arrays.items():
        budgets = np.unique(compute)
        for count in range(min(_LEAST[asymptote], len(budgets)), len(budgets) + 1):
            last = float(budgets[count - 1])
            known = compute <= last
            places.append((name, count, last))
            parts.append((compute[known], loss[known]))
    known = {str(place): part for place, part in enumerate(parts)}
    if pinned is None:
        by_grid = method == "grid"
        laws = fit_laws(known, method=method, n_grid=n_grid if by_grid else None)
    else:
        given = {str(place): pinned[name] for place, (name, _, _) in enumerate(places)}
        laws = fit_laws(known, L_inf=given, method="optimum")
    found: dict[str, list[tuple[Refit, LawFit]]] = {name: [] for name in arrays}
    for (name, count, last), law in zip(places, laws.values(), strict=True):
        enough = count >= _LEAST[asymptote]
        status = law.status if enough else Status.TOO_FEW_POINTS
        numbers = (law.L_inf, law.A, law.alpha, law.score) if status.usable else ()
        found[name].append((Refit(name, asymptote, count, last, status, *numbers), law))
    return found


def _predictions(place: int, refit: Refit, law: LawFit, kind: str, compute: Floats, loss: Floats) -> list[Prediction]:
    later = compute > refit.last_budget
    if not refit.status.usable or not later.any():
        return []
    compute, loss = compute[later], loss[later]
    distance = np.log10(compute) - np.log10(refit.last_budget)
    predicted = law.loss_at(compute)
    columns = np.stack([compute, distance, predicted, loss, residual_percent(loss, predicted)], axis=1)
    return [Prediction(place, kind, *row) for row in columns.tolist()]
