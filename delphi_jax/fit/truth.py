"""Studies simulated from a known truth: a fitted law or loss surface, with normal noise on losses.

Axes: K buckets, R runs of a bucket (padded), Q targets, S studies.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from delphi_jax.batch import pad
from delphi_jax.fit.intervals import StudyBatch
from delphi_jax.formulas import optimal_params
from delphi_jax.kernels.chunks import on_all_devices
from delphi_jax.kernels.parabola import CHUNK, fit_parabolas
from delphi_jax.results import Floats, LawFit, ParabolaFit
from delphi_jax.results.surface import COEFFICIENTS, SurfaceFit
from delphi_jax.status import Status
from delphi_jax.tables import RunTable

__all__ = ["FlopsFactor", "StudySimulator", "Truth", "law_truth", "pooled_deviation", "surface_truth"]

_PARABOLA_TERMS = 3

_REACH = np.log(100.0)
"""How far from that of one k for all, in log N, an optimum is searched."""
_PLACES = 1001
_ROUNDS = 3
"""Each round searches between the neighbours of the best place: the last ones are 1e-7 apart."""
_STUDIES_STREAM = 3
"""Stream of random numbers beside those of :mod:`~delphi_jax.fit.draws`."""


@dataclass(frozen=True)
class Truth:
    """What studies with the buckets and runs of one suite are simulated from, without noise."""

    kind: str
    """"law" or "surface"."""
    parameters: dict[str, float]
    L_inf: float
    x: tuple[Floats, ...]
    """[K] of [runs]: log10 tokens of every bucket's runs."""
    losses: tuple[Floats, ...]
    """[K] of [runs]"""
    buckets: Floats
    """[K] FLOPs, ascending."""
    completed: Floats
    """Buckets whose optimum is not their own parabola's."""
    target_losses: Floats
    """[Q] the lowest loss at every target."""
    new_x: Floats
    """[Q, runs] of a new bucket at every target, like the largest one: log10 of tokens over the optimum's."""
    new_losses: Floats
    """[Q, runs]"""


@dataclass(frozen=True)
class FlopsFactor:
    """Measured k of C = k(N)*N*D: by how far FLOPs miss N*D depends on the model's shape, and so on its size."""

    params: Floats
    """[n] ascending"""
    k: Floats
    """[n]"""

    @classmethod
    def of(cls, runs: RunTable) -> FlopsFactor:
        """The median of the runs of each number of parameters."""
        params = np.unique(runs.params)
        k = runs.compute / (runs.params * runs.tokens)
        return cls(params, np.array([np.median(k[runs.params == each]) for each in params]))

    def tokens(self, compute: Floats, params: Floats) -> Floats:
        """D of models of ``params`` at ``compute`` FLOPs; log k linear in log N, constant beyond the measured ones."""
        log_k = np.interp(np.log(params), np.log(self.params), np.log(self.k))
        return compute / (np.exp(log_k) * params)


def law_truth(parabolas: Sequence[ParabolaFit], law: LawFit, targets: Floats) -> Truth:
    """The law at every bucket's budget, plus the bucket's own curvature times (x - x*)**2: no parabola is biased.

    A bucket whose parabola has no minimum within its runs takes x* from the regression of the other ones' on log C, and
    their median curvature. Raises ValueError where there are no two others.
    """
    buckets = np.array([fit.bucket for fit in parabolas])
    x = tuple(np.log10(fit.tokens) for fit in parabolas)
    x_star = np.array([fit.log_tokens_star for fit in parabolas])
    curvature = np.array([fit.a for fit in parabolas])
    whole = np.array([fit.status is Status.FITTED for fit in parabolas])
    if not whole.all():
        if whole.sum() < 2:
            raise ValueError(
                f"{law.series}: fewer than 2 parabolas have their minimum within their runs, which does not tell where "
                "those of the other budgets lie"
            )
        line = np.polyfit(np.log(buckets[whole]), x_star[whole], 1)
        x_star = np.where(whole, x_star, np.polyval(line, np.log(buckets)))
        curvature = np.where(whole, curvature, np.median(curvature[whole]))
    rises = [a * (each - star) ** 2 for a, each, star in zip(curvature, x, x_star, strict=True)]
    target_losses = law.loss_at(targets)
    return Truth(
        kind="law",
        parameters={"L_inf": law.L_inf, "A": law.A, "alpha": law.alpha},
        L_inf=law.L_inf,
        x=x,
        losses=tuple(loss + rise for loss, rise in zip(law.loss_at(buckets), rises, strict=True)),
        buckets=buckets,
        completed=buckets[~whole],
        target_losses=target_losses,
        new_x=np.tile(x[-1] - x_star[-1], (len(targets), 1)),
        new_losses=target_losses[:, None] + rises[-1],
    )


def surface_truth(parabolas: Sequence[ParabolaFit], surface: SurfaceFit, targets: Floats, flops: FlopsFactor) -> Truth:
    """The surface at every run's (N, D); at a target the lowest loss where C = k(N)*N*D, k being that of ``flops``.

    Raises ValueError for a surface without such a lowest loss.
    """
    coefficients = {name: getattr(surface, name) for name in COEFFICIENTS}
    if not (surface.A > 0 and surface.B > 0):
        raise ValueError(
            f"{surface.series}: the surface does not depend on both parameters and tokens (A = {surface.A:g}, "
            f"B = {surface.B:g}), so that no budget has an optimum"
        )
    last = parabolas[-1]
    params, (at_last,) = np.split(_optimal_params(surface, np.append(targets, last.bucket), flops), [len(targets)])
    tokens = flops.tokens(targets, params)
    # As many times the optimum's parameters as at the largest budget.
    new_params = params[:, None] * (last.params / at_last)
    new_tokens = flops.tokens(targets[:, None], new_params)
    return Truth(
        kind="surface",
        parameters={**coefficients, "k_min": float(flops.k.min()), "k_max": float(flops.k.max())},
        L_inf=surface.E,
        x=tuple(np.log10(fit.tokens) for fit in parabolas),
        losses=tuple(surface.loss_at(fit.params, fit.tokens) for fit in parabolas),
        buckets=np.array([fit.bucket for fit in parabolas]),
        completed=np.empty(0),
        target_losses=surface.loss_at(params, tokens),
        new_x=np.log10(new_tokens / tokens[:, None]),
        new_losses=surface.loss_at(new_params, new_tokens),
    )


def _optimal_params(surface: SurfaceFit, compute: Floats, flops: FlopsFactor) -> Floats:
    """N [Q] of the lowest loss at ``compute`` [Q] FLOPs, by a narrowing search: a varying k leaves no closed form."""
    middle = optimal_params(compute / np.median(flops.k), *(getattr(surface, name) for name in COEFFICIENTS[1:]))
    low, high = (np.log(middle) + side * _REACH for side in (-1, 1))
    for _ in range(_ROUNDS):
        log_params = np.linspace(low, high, _PLACES, axis=1)
        params = np.exp(log_params)
        best = np.argmin(surface.loss_at(params, flops.tokens(compute[:, None], params)), axis=1)[:, None]
        low, high = (
            np.take_along_axis(log_params, np.clip(best + side, 0, _PLACES - 1), axis=1)[:, 0] for side in (-1, 1)
        )
    return np.exp((low + high) / 2)


def pooled_deviation(parabolas: Sequence[ParabolaFit], L_inf: float, noise_model: str) -> float:
    """Standard deviation of the runs about their parabolas, with runs - 3 degrees of freedom per bucket.

    In nats where ``noise_model`` is "additive", else as a share of loss - ``L_inf``. Raises ValueError where no bucket
    has more than 3 runs.
    """
    squares, freedom = 0.0, 0
    for fit in parabolas:
        model = fit.loss_at(np.log10(fit.tokens))
        squares += float(np.sum(((fit.loss - model) / _unit(model, L_inf, noise_model)) ** 2))
        freedom += len(fit.loss) - _PARABOLA_TERMS
    if freedom == 0:
        raise ValueError(
            f"{parabolas[0].suite}: no budget has more than {_PARABOLA_TERMS} runs, which tells nothing of their "
            "noise: give noise"
        )
    return float(np.sqrt(squares / freedom))


def _unit(loss: Floats, L_inf: float, noise_model: str) -> Floats:
    """Nats per unit of noise of a run whose loss is ``loss``."""
    return loss - L_inf if noise_model == "reducible" else np.ones_like(loss)


class StudySimulator:
    """Studies by number: what one holds depends on the seed and its number alone.

    ``noise``, ``bucket_noise`` and ``noise_model`` as in :func:`~delphi_jax.fit.coverage.coverage_study`.
    """

    def __init__(self, truth: Truth, noise: float, bucket_noise: float, noise_model: str, seed: int) -> None:
        self._truth, self._noise, self._bucket_noise, self._seed = truth, noise, bucket_noise, seed
        self._x, self._mask = pad(truth.x)
        n_buckets, (n_targets, n_new) = len(truth.buckets), truth.new_losses.shape
        # A new bucket at every target: its runs, and one at the optimum.
        new = n_buckets + np.arange(n_targets)
        self._bucket = np.concatenate([np.nonzero(self._mask)[0], new.repeat(n_new), new])
        self._mean = np.concatenate([*truth.losses, truth.new_losses.ravel(), truth.target_losses])
        self._unit = _unit(self._mean, truth.L_inf, noise_model)

    def studies(self, first: int, n: int) -> tuple[StudyBatch, Floats, Floats]:
        """``n`` studies from number ``first`` on; a new optimum and a new run of each at every target, both [n, Q].

        The new optimum is that of the parabola through the runs of a new bucket, the new run is a run at the truth.
        """
        n_runs, (n_targets, n_new) = int(self._mask.sum()), self._truth.new_losses.shape
        drawn = np.empty((n, self._mean.size))
        for study, row in enumerate(drawn, first):
            row[:] = self._mean + self._unit * self._errors(study, n_runs, n_targets)
        loss = np.zeros((n, *self._mask.shape))
        loss[:, self._mask] = drawn[:, :n_runs]
        fields = (self._x, loss, self._mask, np.log(self._truth.buckets))
        shapes = (loss.shape, loss.shape, loss.shape, loss.shape[:2])
        batch = StudyBatch(*(np.broadcast_to(field, shape) for field, shape in zip(fields, shapes, strict=True)))
        new_optima = _optima(np.tile(self._truth.new_x, (n, 1)), drawn[:, n_runs:-n_targets].reshape(-1, n_new))
        return batch, new_optima.reshape(n, n_targets), drawn[:, -n_targets:]

    def _errors(self, study: int, n_runs: int, n_targets: int) -> Floats:
        """Noise of every run of a study and of its new buckets, in units."""
        # A key of two parts: those of the intervals' draws have one or none, so that no seed gives these numbers. What
        # belongs to the targets comes last, so that the rest does not depend on them.
        key = _STUDIES_STREAM, study
        generator = np.random.default_rng(np.random.SeedSequence(self._seed, spawn_key=key))
        sizes = (n_runs, len(self._truth.buckets), self._mean.size - n_runs, n_targets)
        runs, buckets, new_runs, new_buckets = (generator.standard_normal(size) for size in sizes)
        each, shared = np.concatenate([runs, new_runs]), np.concatenate([buckets, new_buckets])
        return self._noise * each + self._bucket_noise * shared[self._bucket]


def _optima(x: Floats, losses: Floats) -> Floats:
    """Loss [B] at the optimum of the parabola through each row of ``losses`` at ``x``, both [B, runs]."""
    padded, mask = pad(losses)
    return on_all_devices(fit_parabolas, CHUNK, pad(x)[0], padded, np.zeros_like(padded), mask).loss_star
