"""Laws of resampled, or redrawn, IsoFLOP studies: what intervals are made of.

Axes: S studies, K buckets, R runs of a bucket (all padded), D draws. Study s draws from a seed of its own, so that its
numbers do not depend on the other studies, and each kind of draw from a stream of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from delphi_jax.fit.law import resampling_indices
from delphi_jax.kernels import parabola
from delphi_jax.kernels.chunks import on_all_devices
from delphi_jax.kernels.hierarchical import CHUNK as RESAMPLED_CHUNK
from delphi_jax.kernels.hierarchical import ResampledOptima, resampled_optima
from delphi_jax.kernels.optimum import CHUNK, OptimalLaw, fit_optimal_laws
from delphi_jax.kernels.parabola import fit_parabolas
from delphi_jax.resamples import count_indices, n_resamples, resample_counts, resample_probabilities, resample_ranks
from delphi_jax.results import Floats
from delphi_jax.status import Status

__all__ = [
    "FREE_PARAMETERS",
    "Draws",
    "Optima",
    "StudyBatch",
    "all_resamples",
    "arrange",
    "draw_optima",
    "draw_runs",
    "fit_points",
    "redraw_optima",
    "refit_runs",
    "usable",
]

FREE_PARAMETERS = 3
"""Of a law with a free asymptote."""

_RUNS_STREAM, _NOISE_STREAM = 1, 2
"""Streams of random numbers beside that of the optima, which is the reference's."""

Integers = NDArray[np.int64]
Bools = NDArray[np.bool_]


class StudyBatch(NamedTuple):
    """IsoFLOP runs of S studies; padded values may be anything.

    Examples:

    >>> import numpy as np
    >>> import delphi_jax as dj
    >>> x = np.linspace(9, 11, 5) + np.zeros((1, 7, 1))  # one study, seven budgets, five runs each
    >>> log_compute = np.log(np.logspace(18, 21, 7))[None]
    >>> loss = 2 + np.exp(-0.1 * (log_compute[..., None] - 40)) + 0.1 * (x - 10) ** 2
    >>> batch = dj.StudyBatch(x, loss, np.ones_like(x, dtype=bool), log_compute)
    >>> dj.study_intervals(batch, [1e22], methods=["profile"]).point.round(3)  # 2 + exp(-0.1 * (log(1e22) - 40))
    array([[[2.344]]])
    """

    x: Floats
    """[S, K, R] log10 tokens"""
    loss: Floats
    """[S, K, R]"""
    mask: Bools
    """[S, K, R] True for real runs; a bucket without any is padding."""
    log_compute: Floats
    """[S, K] log of the budget in FLOPs."""


class Optima(NamedTuple):
    """Optima of S studies by ascending budget, fitted ones in front, and their buckets' runs by ascending tokens."""

    log_compute: Floats
    """[S, K], as the next two."""
    loss: Floats
    weight: Floats
    """1 for an optimum, 0 for padding."""
    n: Integers
    """[S] optima of each study."""
    x: Floats
    """[S, K, R], as the next two."""
    run_loss: Floats
    mask: Bools


class Draws(NamedTuple):
    """Laws of D draws of S studies."""

    laws: OptimalLaw
    """Fields [S, D]; NaN where a draw has no law."""
    weight: Floats | None = None
    """[S, D] probability of each draw; None where all have the same."""

    def ended(self) -> Floats:
        """[S, statuses] share of the draws that ended with each status."""
        status, n_statuses = self.laws.status, len(Status)
        places = status + np.arange(len(status))[:, None] * n_statuses
        weight = np.full(status.shape, 1 / status.shape[1]) if self.weight is None else self.weight
        return np.bincount(places.ravel(), weight.ravel(), len(status) * n_statuses).reshape(-1, n_statuses)


def usable(status: ArrayLike) -> Bools:
    """Whether each of ``status`` is usable, any shape."""
    return np.isin(status, [each for each in Status if each.usable])


def arrange(batch: StudyBatch) -> Optima:
    """The optima of every study's parabolas (methods, section 2), in an order that does not come from a table."""
    x, loss, mask, log_compute = batch
    # Resamples are drawn by place.
    runs = np.lexsort((loss, x, ~mask), axis=2)
    x, loss, mask = (np.take_along_axis(field, runs, axis=2) for field in (x, loss, mask))
    flat = (field.reshape(-1, x.shape[2]) for field in (x, loss, np.zeros_like(x), mask))
    fits = on_all_devices(fit_parabolas, parabola.CHUNK, *flat)
    fitted = usable(fits.status).reshape(log_compute.shape)
    buckets = np.argsort(np.where(fitted, log_compute, np.inf), axis=1, kind="stable")
    optima = (log_compute, fits.loss_star.reshape(log_compute.shape), fitted.astype(np.float64))
    log_compute, best, weight = (np.take_along_axis(field, buckets, axis=1) for field in optima)
    x, loss, mask = (np.take_along_axis(field, buckets[:, :, None], axis=1) for field in (x, loss, mask))
    real = weight > 0
    return Optima(np.where(real, log_compute, 0.0), np.where(real, best, 1.0), weight, real.sum(axis=1), x, loss, mask)


def fit_points(log_compute: Floats, loss: Floats, weight: Floats, pinned: Floats | float = np.nan) -> OptimalLaw:
    """Laws of [..., K] points that broadcast against one another, free where ``pinned`` [...] is NaN; fields [...]."""
    log_compute, loss, weight = np.broadcast_arrays(log_compute, loss, weight)
    shape, flat = loss.shape[:-1], (-1, loss.shape[-1])
    arrays = (log_compute.reshape(flat), loss.reshape(flat), weight.reshape(flat))
    laws = on_all_devices(fit_optimal_laws, CHUNK, *arrays, np.broadcast_to(pinned, shape).ravel())
    return OptimalLaw(*(field.reshape(shape) for field in laws))


def draw_optima(optima: Optima, draws: int, seed: int) -> Draws:
    """The reference's resamples of every study's optima."""
    n_buckets = optima.loss.shape[1]
    counts = np.stack([count_indices(buckets, n_buckets) for buckets in _drawn_buckets(optima, draws, seed)])
    n = int(optima.n[0])
    if np.any(optima.n != n) or n == 0 or n_resamples(n) >= draws:
        return Draws(_fit_counts(optima, counts))
    # Fewer resamples than draws: each is fitted once.
    table = np.zeros((1, n_resamples(n), n_buckets))
    table[0, :, :n] = resample_counts(n)
    laws = _fit_counts(optima, table)
    places = np.stack([resample_ranks(each[:, :n]) for each in counts])
    return Draws(OptimalLaw(*(np.take_along_axis(field, places, axis=1) for field in laws)))


def all_resamples(optima: Optima) -> Draws:
    """Every resample of every study's optima with its probability; D is that of the study with most optima."""
    tables = {n: resample_counts(n) for n in np.unique(optima.n).tolist() if n > 0}
    longest = max(map(len, tables.values()), default=1)
    counts, weight = np.zeros((len(optima.n), longest, optima.loss.shape[1])), np.zeros((len(optima.n), longest))
    for n, table in tables.items():
        studies = np.flatnonzero(optima.n == n)
        counts[studies, : len(table), :n] = table
        weight[studies, : len(table)] = resample_probabilities(table)
    return Draws(_fit_counts(optima, counts), weight)


def _fit_counts(optima: Optima, counts: ArrayLike) -> OptimalLaw:
    """Laws [S, D] of resamples ``counts`` [S or 1, D, K]."""
    return fit_points(optima.log_compute[:, None], optima.loss[:, None], np.asarray(counts, dtype=np.float64))


def redraw_optima(optima: Optima, laws: OptimalLaw, draws: int, seed: int) -> Draws:
    """New optima from every study's law, with normal noise in log(L - L_inf).

    The noise's variance is the sum of squared log residuals over n - 3.
    """
    noise = np.sqrt(laws.score * optima.n / np.maximum(optima.n - FREE_PARAMETERS, 1))
    loss = np.ones((len(optima.n), draws, optima.loss.shape[1]))
    for s in np.flatnonzero(usable(laws.status)):
        n = optima.n[s]
        normal = _generator(seed + int(s), _NOISE_STREAM).standard_normal((draws, n))
        log_gap = laws.log_A[s] - laws.alpha[s] * optima.log_compute[s, :n] + noise[s] * normal
        loss[s, :, :n] = laws.L_inf[s] + np.exp(log_gap)
    return Draws(fit_points(optima.log_compute[:, None], loss, optima.weight[:, None]))


def refit_runs(optima: Optima, draws: int, seed: int) -> ResampledOptima:
    """Optima [S, K, D + K - 1] of resamples of every bucket's runs."""
    n_studies, n_buckets, n_runs = optima.x.shape
    size = draws + n_buckets - 1
    indices = np.zeros((n_studies, n_buckets, size, n_runs), dtype=np.min_scalar_type(n_runs))
    for s, n in enumerate(optima.n.tolist()):
        generator, own = _generator(seed + s, _RUNS_STREAM), draws + n - 1
        for k, runs in enumerate(optima.mask[s, :n].sum(axis=1).tolist()):
            indices[s, k, :own, :runs] = generator.integers(0, runs, size=(own, runs))
    flat = (field.reshape(-1, *field.shape[2:]) for field in (optima.x, optima.run_loss, optima.mask, indices))
    refits = on_all_devices(resampled_optima, RESAMPLED_CHUNK, *flat)
    return ResampledOptima(*(field.reshape(n_studies, n_buckets, size) for field in refits))


def draw_runs(
    optima: Optima, refits: ResampledOptima, draws: int, seed: int, *, buckets_too: bool
) -> tuple[Draws, Floats]:
    """Laws of resampled runs, of every bucket once or of resampled buckets; shares [S, statuses] of their parabolas."""
    shape = (len(optima.n), draws, optima.loss.shape[1])
    log_compute, loss, weight = np.zeros(shape), np.ones(shape), np.zeros(shape)
    ended = np.zeros((shape[0], len(Status)))
    drawn = _drawn_buckets(optima, draws, seed) if buckets_too else _every_bucket(optima, draws)
    for s, buckets in enumerate(drawn):
        n = buckets.shape[1]
        # Copies of a bucket in one draw stand in different columns, and so take different resamples of its runs.
        resample = np.arange(draws)[:, None] + np.arange(n)
        status = refits.status[s, buckets, resample]
        measured = usable(status)
        log_compute[s, :, :n] = optima.log_compute[s, buckets]
        loss[s, :, :n] = np.where(measured, refits.loss_star[s, buckets, resample], 1.0)
        weight[s, :, :n] = measured
        ended[s] = np.bincount(status.ravel(), minlength=len(Status)) / max(status.size, 1)
    return Draws(fit_points(log_compute, loss, weight)), ended


def _drawn_buckets(optima: Optima, draws: int, seed: int) -> Iterator[Integers]:
    """Places [D, n] of every study's resampled optima, study by study."""
    for s, n in enumerate(optima.n.tolist()):
        yield resampling_indices(n, draws, seed + s) if n else np.zeros((draws, 0), dtype=np.int64)


def _every_bucket(optima: Optima, draws: int) -> Iterator[Integers]:
    """Places [D, n] of every study's optima, each of them once, study by study."""
    for n in optima.n.tolist():
        yield np.broadcast_to(np.arange(n), (draws, n))


def _generator(seed: int, stream: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(stream,)))
