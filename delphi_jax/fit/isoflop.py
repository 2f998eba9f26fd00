"""IsoFLOP parabolas of a table of runs, and the overtraining forecast that rests on them."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import numpy as np

from delphi_jax.batch import pad
from delphi_jax.formulas import overhead_percent
from delphi_jax.kernels.overtraining import overtraining
from delphi_jax.kernels.parabola import Parabola, fit_parabolas
from delphi_jax.results import IsoflopFit, LawFit, OvertrainingFit, OvertrainingScale, ParabolaFit
from delphi_jax.status import Status
from delphi_jax.tables import RunTable, fit_runs

__all__ = ["FORECAST_BUDGET", "OVERTRAINING_SCALES", "fit_isoflop", "fit_overtraining"]

FORECAST_BUDGET = 1e23
"""Budget of the overtraining forecast, FLOPs."""

OVERTRAINING_SCALES = (0.2, 1 / 3, 0.5, 2 / 3, 2.0, 3.0, 4.0, 5.0, 10.0)
"""T/T* of the overtraining forecast."""

_GRID_REACH = 1000.0
"""The search for the matching budget ends at this multiple of the forecast budget."""
_GRID_POINTS = 800


def fit_isoflop(runs: RunTable) -> IsoflopFit:
    """Fit the IsoFLOP parabola of every (suite, compute budget) of ``runs`` (methods, section 2).

    Held-out runs and runs that did not finish take no part. A group of under three runs, or of under three
    distinct token counts, comes back with status TOO_FEW_POINTS and no numbers.
    """
    used, _ = fit_runs(runs)
    keys = sorted(set(zip(used.suite.tolist(), used.bucket.tolist(), strict=True)))
    if not keys:
        return IsoflopFit(())
    groups = [used.where((used.suite == suite) & (used.bucket == bucket)) for suite, bucket in keys]
    x, mask = pad([np.log10(group.tokens) for group in groups])
    loss, _ = pad([group.loss for group in groups])
    log_params, _ = pad([np.log10(group.params) for group in groups])
    fits = jax.device_get(fit_parabolas(x, loss, log_params, mask))
    return IsoflopFit(
        tuple(
            _parabola(suite, bucket, group, Parabola(*(field[i] for field in fits)))
            for i, ((suite, bucket), group) in enumerate(zip(keys, groups, strict=True))
        )
    )


def _parabola(suite: str, bucket: float, runs: RunTable, fit: Parabola) -> ParabolaFit:
    status = Status(int(fit.status))
    if not status.usable:
        return ParabolaFit(suite, bucket, runs.tokens, runs.params, runs.loss, status)
    return ParabolaFit(
        suite,
        bucket,
        runs.tokens,
        runs.params,
        runs.loss,
        status,
        a=float(fit.a),
        b=float(fit.b),
        c=float(fit.c),
        vertex_log_tokens=float(fit.vertex),
        log_tokens_star=float(fit.x_star),
        tokens_star=float(10.0**fit.x_star),
        loss_star=float(fit.loss_star),
        params_star=float(10.0**fit.log_params_star),
        curvature_under=float(fit.curvature_under),
        curvature_over=float(fit.curvature_over),
        one_sided=(bool(fit.under_measured), bool(fit.over_measured)),
        score=float(fit.score),
    )


def fit_overtraining(
    parabolas: Sequence[ParabolaFit],
    law: LawFit,
    *,
    forecast_budget: float = FORECAST_BUDGET,
    scales: Sequence[float] = OVERTRAINING_SCALES,
) -> OvertrainingFit:
    """The overtraining forecast of one suite (methods, section 7).

    ``parabolas`` are the suite's fitted buckets, ``law`` its law over their optima; ``forecast_budget`` in FLOPs;
    ``scales`` are T/T*, positive. Raises ValueError for a law that was not fitted, fewer than two buckets, a
    scale that is not positive, or a forecast budget below the smallest bucket.
    """
    if not law.fitted:
        raise ValueError(f"the law of {law.series!r} was not fitted ({law.status.label}): nothing to forecast from")
    if len(parabolas) < 2:
        raise ValueError(f"the overtraining forecast needs at least 2 fitted buckets, got {len(parabolas)}")
    if not all(scale > 0 for scale in scales):
        raise ValueError(f"scales must be positive, got {list(scales)}")
    buckets = np.array([fit.bucket for fit in parabolas])
    if forecast_budget < buckets.min():
        raise ValueError(f"forecast_budget {forecast_budget:g} lies below the smallest bucket {buckets.min():g}")
    log_grid = np.linspace(np.log10(buckets.min()), np.log10(_GRID_REACH * forecast_budget), _GRID_POINTS)
    log_compute, mask = pad([np.log10(buckets)])
    optima = [pad([np.array([getattr(fit, name) for fit in parabolas])])[0][0] for name in _OPTIMUM_FIELDS]
    fit = jax.device_get(
        overtraining(
            log_compute[0],
            *optima,
            mask[0],
            (law.L_inf, law.A, law.alpha),
            log_grid,
            np.log10(forecast_budget),
            np.asarray(scales, dtype=np.float64),
        )
    )
    loss_star = np.array([parabola.loss_star for parabola in parabolas])
    lines = []
    for i, scale in enumerate(scales):
        equivalent = float(10.0 ** fit.log_compute_equivalent[i])
        log_tokens = fit.token_slope * fit.log_compute_equivalent[i] + fit.token_intercept
        lines.append(
            OvertrainingScale(
                scale=float(scale),
                status=Status(int(fit.status[i])),
                shifted_loss=loss_star + fit.penalty[i, : len(parabolas)],
                loss=fit.loss[i],
                compute_equivalent=equivalent,
                tokens_equivalent=float(scale * 10.0**log_tokens),
                overhead=float(overhead_percent(equivalent, forecast_budget)),
            )
        )
    return OvertrainingFit(
        suite=law.series,
        forecast_budget=float(forecast_budget),
        parabolas=tuple(parabolas),
        law=law,
        token_slope=float(fit.token_slope),
        token_intercept=float(fit.token_intercept),
        compute=10.0**log_grid,
        scales=tuple(lines),
    )


_OPTIMUM_FIELDS = ("log_tokens_star", "curvature_under", "curvature_over")
