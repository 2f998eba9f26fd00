"""IsoFLOP parabolas of a table of runs."""

from __future__ import annotations

import numpy as np

from delphi_jax.batch import pad
from delphi_jax.kernels.chunks import on_all_devices
from delphi_jax.kernels.parabola import CHUNK, Parabola, fit_parabolas
from delphi_jax.results import IsoflopFit, ParabolaFit
from delphi_jax.status import Status
from delphi_jax.tables import RunTable, fit_runs

__all__ = ["fit_isoflop"]


def fit_isoflop(runs: RunTable) -> IsoflopFit:
    """Fit the IsoFLOP parabola of every (suite, compute budget) of ``runs`` (methods, section 2).

    Held-out runs and runs that did not finish take no part. A group of under three runs, or of under three
    distinct token counts, comes back with status TOO_FEW_POINTS and no numbers.

    Examples:

    >>> import delphi_jax as dj
    >>> study = dj.load_study("data", tables=["runs"])
    >>> isoflop = dj.fit_isoflop(study.runs)
    >>> compute, loss, tokens = isoflop.optima("Delphi Scaling Suite (AdamH)")
    >>> [f"{budget:.0e}" for budget in compute]
    ['3e+18', '9e+18', '2e+19', '3e+19', '9e+19', '2e+20', '3e+20']
    """
    used, _ = fit_runs(runs)
    keys = sorted(set(zip(used.suite.tolist(), used.bucket.tolist(), strict=True)))
    if not keys:
        return IsoflopFit((), runs.definition)
    groups = [used.where((used.suite == suite) & (used.bucket == bucket)) for suite, bucket in keys]
    x, mask = pad([np.log10(group.tokens) for group in groups])
    loss, _ = pad([group.loss for group in groups])
    log_params, _ = pad([np.log10(group.params) for group in groups])
    fits = on_all_devices(fit_parabolas, CHUNK, x, loss, log_params, mask)
    return IsoflopFit(
        tuple(
            _parabola(suite, bucket, group, Parabola(*(field[i] for field in fits)))
            for i, ((suite, bucket), group) in enumerate(zip(keys, groups, strict=True))
        ),
        runs.definition,
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
