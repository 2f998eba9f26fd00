"""The figures of the answers: which ones a kind of result has, and how each is drawn."""

from __future__ import annotations

from collections.abc import Callable

from delphi_jax.draw import Drawing, Figure, draw_each
from delphi_jax.plots.allocation import build_allocation, build_allocation_mobile
from delphi_jax.plots.coverage import build_interval_coverage, build_interval_coverage_mobile
from delphi_jax.plots.downstream_intervals import build_downstream_intervals, build_downstream_intervals_mobile
from delphi_jax.plots.drawers import Document
from delphi_jax.plots.fan import build_forecast_fan, build_forecast_fan_mobile
from delphi_jax.plots.law_profile import build_law_profile, build_law_profile_mobile
from delphi_jax.plots.speedup import build_effective_speedup, build_effective_speedup_mobile
from delphi_jax.plots.surface import build_loss_surface, build_loss_surface_mobile
from delphi_jax.plots.validation import build_leave_future_out, build_leave_future_out_mobile
from delphi_jax.results import Result
from delphi_jax.results.allocation import AllocationFit
from delphi_jax.results.coverage import CoverageFit
from delphi_jax.results.downstream import DownstreamIntervals
from delphi_jax.results.intervals import IntervalsFit
from delphi_jax.results.law_intervals import LawStudy
from delphi_jax.results.speedup import SpeedupFit
from delphi_jax.results.surface import SurfaceStudy
from delphi_jax.results.validation import ValidationFit

__all__ = ["ANSWER_FIGURES", "draw_answer"]


def _pair(name: str, build: Callable[..., Document], restack: Callable[[Document], Document]) -> dict[str, Figure]:
    """A figure and its mobile variant."""
    return {name: Figure(build=build), f"{name}-mobile": Figure(mobile_of=name, restack=restack)}


ANSWER_FIGURES: dict[type[Result], dict[str, Figure]] = {
    AllocationFit: _pair("allocation", build_allocation, build_allocation_mobile),
    IntervalsFit: _pair("forecast-fan", build_forecast_fan, build_forecast_fan_mobile),
    DownstreamIntervals: _pair("downstream-intervals", build_downstream_intervals, build_downstream_intervals_mobile),
    CoverageFit: _pair("interval-coverage", build_interval_coverage, build_interval_coverage_mobile),
    LawStudy: _pair("law-profile", build_law_profile, build_law_profile_mobile),
    SurfaceStudy: _pair("loss-surface", build_loss_surface, build_loss_surface_mobile),
    ValidationFit: _pair("leave-future-out", build_leave_future_out, build_leave_future_out_mobile),
    SpeedupFit: _pair("effective-speedup", build_effective_speedup, build_effective_speedup_mobile),
}
"""Figures by name, for every kind of result that has some; their titles stand in :mod:`delphi_jax.labels`."""


def draw_answer(result: Result) -> Drawing:
    """Draw the figures of ``result`` as plotly documents; ValueError where results of its kind have none.

    Examples:

    >>> import numpy as np
    >>> import delphi_jax as dj
    >>> compute = np.logspace(18, 20, 7)
    >>> loss = 2 + 1000 * compute**-0.2
    >>> drawing = dj.draw_answer(dj.leave_future_out({"one": (compute, loss)}))
    >>> list(drawing.documents)
    ['leave-future-out', 'leave-future-out-mobile']
    """
    figures = ANSWER_FIGURES.get(type(result))
    if figures is None:
        known = ", ".join(sorted(kind.__name__ for kind in ANSWER_FIGURES))
        raise ValueError(f"{type(result).__name__} has no figures, these have some: {known}")
    return draw_each(figures, figures, result)
