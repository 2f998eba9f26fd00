"""The optima of one suite's IsoFLOP buckets by parabola and by spline, of their runs and of resamples of them.

Axes: K buckets, P runs (padded), R resamples.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from delphi_jax.batch import pad
from delphi_jax.formulas import parabola
from delphi_jax.kernels import lack_of_fit
from delphi_jax.kernels import parabola as parabolas
from delphi_jax.kernels import valley as valleys
from delphi_jax.kernels.chunks import on_all_devices
from delphi_jax.labels import PARABOLA, SPLINE
from delphi_jax.results import Floats, ParabolaFit
from delphi_jax.results.allocation import LackOfFit
from delphi_jax.status import Status

__all__ = [
    "Buckets",
    "Optima",
    "by_bucket",
    "fit_splines",
    "parabola_optima",
    "point_optima",
    "resampled_optima",
    "term_tests",
]

_BLOCK = 1024
"""Resamples whose runs are held in memory at once."""


class Buckets(NamedTuple):
    """The runs of one suite by bucket; [K, P] unless said."""

    x: Floats
    """log10 tokens"""
    loss: Floats
    log_params: Floats
    mask: NDArray[np.bool_]
    low: Floats
    """[K] smallest x"""
    high: Floats
    """[K] largest x"""
    slope: Floats
    """[K] of log10 params on x: at equal FLOPs that is no measurement, so resamples keep it."""
    intercept: Floats
    """[K]"""

    @property
    def distinct(self) -> NDArray[np.int64]:
        """[K] distinct token counts."""
        return np.array([len(np.unique(x[mask])) for x, mask in zip(self.x, self.mask, strict=True)], dtype=np.int64)


class Optima(NamedTuple):
    """Optima of the buckets, [R, K]; R is 1 for the runs as they are."""

    valid: NDArray[np.bool_]
    """Whether there is a minimum within the bucket's observed tokens; where not, the numbers mean nothing."""
    x: Floats
    """log10 tokens"""
    log_params: Floats
    loss: Floats


def by_bucket(fits: Sequence[ParabolaFit]) -> Buckets:
    """The runs of ``fits``, at least one."""
    x, mask = pad([np.log10(fit.tokens) for fit in fits])
    loss, _ = pad([fit.loss for fit in fits])
    log_params, _ = pad([np.log10(fit.params) for fit in fits])
    n = mask.sum(axis=1)
    mean_x, mean_params = x.sum(axis=1) / n, log_params.sum(axis=1) / n
    dx = np.where(mask, x - mean_x[:, None], 0.0)
    sxx = np.sum(dx**2, axis=1)
    slope = np.sum(dx * log_params, axis=1) / np.where(sxx > 0, sxx, 1.0)
    return Buckets(
        x,
        loss,
        log_params,
        mask,
        low=np.min(x, axis=1, initial=np.inf, where=mask),
        high=np.max(x, axis=1, initial=-np.inf, where=mask),
        slope=slope,
        intercept=mean_params - slope * mean_x,
    )


def fit_splines(buckets: Buckets) -> valleys.Valley:
    """The splines of the buckets; fields [K]."""
    return _splines(buckets, buckets.x[None], buckets.loss[None])


def _splines(buckets: Buckets, x: Floats, loss: Floats) -> valleys.Valley:
    """The splines of ``x`` and ``loss`` [R, K, P], within the buckets' observed tokens; fields [R*K]."""
    flat = (-1, x.shape[-1])
    weight = np.broadcast_to(buckets.mask, x.shape).reshape(flat).astype(np.float64)
    log_params = np.broadcast_to(buckets.log_params, x.shape).reshape(flat)
    ends = [np.broadcast_to(end, x.shape[:2]).ravel() for end in (buckets.low, buckets.high)]
    inflation = np.full(len(weight), valleys.INFLATION)
    runs = (x.reshape(flat), loss.reshape(flat), log_params, weight)
    return on_all_devices(valleys.fit_valleys, valleys.CHUNK, *runs, *ends, inflation)


def point_optima(buckets: Buckets, splines: valleys.Valley) -> dict[str, Optima]:
    """Optima by approach of the runs as they are, R = 1; ``splines`` are the :func:`fit_splines`."""
    parabola = parabola_optima(buckets, buckets.x[None], buckets.loss[None])
    return {PARABOLA: parabola, SPLINE: _spline_optima(buckets, splines, 1)}


def parabola_optima(buckets: Buckets, x: Floats, loss: Floats) -> Optima:
    """Optima of the parabolas of ``x`` and ``loss`` [R, K, P]: the buckets' runs, resamples of them, or model losses.

    The parabolas are those of methods, section 2, but for the edge: one whose vertex lies outside the bucket's observed
    tokens, or that has no minimum, gives no optimum.
    """
    shape, flat = x.shape[:2], (-1, x.shape[-1])
    mask = np.broadcast_to(buckets.mask, x.shape).reshape(flat)
    x, loss = x.reshape(flat), loss.reshape(flat)
    fits = on_all_devices(parabolas.fit_parabolas, parabolas.CHUNK, x, loss, np.zeros_like(x), mask)
    vertex = fits.vertex.reshape(shape)
    bowl = (fits.status != Status.TOO_FEW_POINTS) & (fits.a > 0)
    valid = bowl.reshape(shape) & (vertex >= buckets.low) & (vertex <= buckets.high)
    vertex = np.where(valid, vertex, np.nan)
    return _optima(buckets, valid, vertex, parabola(vertex, *(field.reshape(shape) for field in fits[:3])))


def _spline_optima(buckets: Buckets, splines: valleys.Valley, draws: int) -> Optima:
    """Optima of ``splines`` of R = ``draws`` resamples, or of the runs as they are."""
    fields = (splines.status == Status.FITTED, splines.x_star, splines.loss_star)
    return _optima(buckets, *(field.reshape(draws, -1) for field in fields))


def _optima(buckets: Buckets, valid: NDArray[np.bool_], x: Floats, loss: Floats) -> Optima:
    x = np.where(valid, x, np.nan)
    return Optima(valid, x, buckets.intercept + buckets.slope * x, np.where(valid, loss, np.nan))


def resampled_optima(buckets: Buckets, draws: int, seed: int) -> dict[str, Optima]:
    """Optima by approach of ``draws`` resamples of the runs within every bucket, from NumPy's generator.

    A resample's spline chooses its own smoothing: with that of all runs, intervals are too narrow.
    """
    generator = np.random.default_rng(seed)
    n_runs, rows = buckets.mask.sum(axis=1), np.arange(len(buckets.x))[:, None]
    blocks = []
    for start in range(0, draws, _BLOCK):
        size = min(_BLOCK, draws - start)
        places = generator.integers(0, n_runs[:, None], size=(size, *buckets.x.shape))
        drawn = buckets.x[rows, places], buckets.loss[rows, places]
        splines = _spline_optima(buckets, _splines(buckets, *drawn), size)
        blocks.append((parabola_optima(buckets, *drawn), splines))
    kinds = zip(*blocks, strict=True)
    whole = (Optima(*map(np.concatenate, zip(*parts, strict=True))) for parts in kinds)
    return dict(zip((PARABOLA, SPLINE), whole, strict=True))


def term_tests(buckets: Buckets) -> tuple[list[tuple[LackOfFit, ...]], tuple[LackOfFit, ...]]:
    """F tests of a cubic and a quartic term: of each bucket [K][2], and of all together [2]."""
    terms = on_all_devices(lack_of_fit.explain_terms, lack_of_fit.CHUNK, buckets.x, buckets.loss, buckets.mask)
    tested = terms.freedom > 0
    rows = [np.vstack([field, field.sum(axis=0)]) for field in (terms.explained, terms.left, tested, terms.freedom)]
    p_value = np.asarray(lack_of_fit.f_tail(*(row.astype(np.float64) for row in rows)))
    each = [
        tuple(LackOfFit(float(p), float(sign), int(freedom)) for p, sign, freedom in zip(*bucket, strict=True))
        for bucket in zip(p_value[:-1], terms.sign, terms.freedom, strict=True)
    ]
    sign = np.sign(np.sum(terms.sign * np.sqrt(terms.explained), axis=0))
    whole = zip(p_value[-1], sign, rows[3][-1], strict=True)
    return each, tuple(LackOfFit(float(p), float(s), int(freedom)) for p, s, freedom in whole)
