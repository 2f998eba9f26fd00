"""downstream-intervals: how sure the two-step forecast is, as bands on both panels of mmlu-emergence."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from delphi_jax.labels import budget_name
from delphi_jax.plots.drawers import Document, Trace, line, marks, on_panel
from delphi_jax.plots.emergence import EmergenceView, build_emergence, build_mmlu_emergence_mobile, escaped_words
from delphi_jax.plots.theme import BRAND_TERRACOTTA, rgba
from delphi_jax.results.downstream import Band, DownstreamInterval, DownstreamIntervals
from delphi_jax.status import Status
from delphi_jax.text import escape

__all__ = ["build_downstream_intervals", "build_downstream_intervals_mobile"]

Floats = NDArray[np.float64]

EDGE = {"color": rgba(BRAND_TERRACOTTA, 0.35), "width": 0.5}
FILL = rgba(BRAND_TERRACOTTA, 0.16)
FORECAST = {"color": BRAND_TERRACOTTA, "thickness": 2, "width": 4}
"""Bars of a forecast."""
HELD_OUT = {"color": rgba(BRAND_TERRACOTTA, 0.6), "thickness": 1.25, "width": 3}
"""Bars of the forecast at a held-out budget."""
NO_INTERVAL = "<br>(no interval: {})"

build_downstream_intervals_mobile = build_mmlu_emergence_mobile


def build_downstream_intervals(result: DownstreamIntervals) -> Document:
    """The figure of :func:`~delphi_jax.plots.emergence.build_mmlu_emergence` with the intervals of its forecasts.

    Bands of the law and of the curve; at every budget a bar of the soft metric on the left, and on the right a cross of
    both intervals, through the medians. A view without an interval says so behind its forecast. Raises
    :class:`~delphi_jax.plots.drawers.NothingToDraw` where no task was evaluated.
    """
    return build_emergence([_view(view) for view in result.views], result.tasks)


def _view(view: DownstreamInterval) -> EmergenceView:
    if not view.has_soft:
        reason = NO_INTERVAL.format(view.status.label)
        return EmergenceView(view.fit, note=reason, detail=reason)
    return EmergenceView(
        view.fit,
        under=_bands(view),
        over=_crosses(view),
        note=_note(view),
        detail="<br>" + _interval_hover(view, _labelled(view)),
        best_soft=float(view.soft.low.min()),
        last_compute=float(view.budgets.max()),
    )


def _labelled(view: DownstreamInterval) -> int:
    """Place of the labelled forecast among the budgets."""
    return view.budgets.tolist().index(view.fit.forecast_budget)


def _note(view: DownstreamInterval) -> str:
    """The interval of the labelled forecast."""
    if not view.has_hard:
        return NO_INTERVAL.format(view.status.label)
    place = _labelled(view)
    return f"<br>({100 * view.hard.low[place]:.1f}–{100 * view.hard.high[place]:.1f}%)"


def _bands(view: DownstreamInterval) -> list[Trace]:
    """The law's and the curve's band, an edge with its hover and an edge filled to it each."""
    words, sign, view_name = escaped_words(view.fit.task), view.fit.task.soft_sign, escape(view.name)
    name = f"{_level(view)} (runs and models resampled)"
    hover = (
        f"{view_name} law, {_level(view)}<br>C=%{{x:.3e}} FLOPs"
        f"<br>{words.soft_hover} %{{customdata[0]:.3f}} to %{{customdata[1]:.3f}}{_bound(view)}"
    )
    ends = np.column_stack(_shown(view, view.law_band))
    traces = [
        on_panel(edge | {"name": name, "showlegend": place == 1}, 1)
        for place, edge in enumerate(_edges(view.law_compute, view.law_band, ends, hover))
    ]
    if view.has_hard:
        band = view.curve_band
        values = np.column_stack([sign * view.curve_soft, band.low, band.high])
        hover = (
            f"{view_name} curve, {_level(view)}<br>{words.soft_hover}=%{{customdata[0]:.3f}}"
            f"<br>{words.hard_short} %{{customdata[1]:.3f}} to %{{customdata[2]:.3f}}{_bound(view)}"
        )
        edges = _edges(view.curve_soft, band, values, hover)
        traces += [on_panel(edge | {"name": name, "showlegend": False}, 2) for edge in edges]
    return [{"legendgroup": view_name} | trace for trace in traces]


def _edges(x: Floats, band: Band, values: Floats, hover: str) -> list[Trace]:
    """Both edges of a band, the second filled down to the first; ``values`` [G, n] are for their ``hover``."""
    low, high = (line(x, y, EDGE, hover, customdata=values) for y in (band.low, band.high))
    return [low, high | {"fill": "tonexty", "fillcolor": FILL}]


def _bound(view: DownstreamInterval) -> str:
    """What a hover says of curves on a bound, that of all points and those of the draws."""
    said = f"<br>{view.status.label}" if view.status is Status.BOUND_HIT else ""
    return said + (f"<br>curve on a bound in {100 * view.bound_share:.2g}% of the draws" if view.bound_share else "")


def _crosses(view: DownstreamInterval) -> list[Trace]:
    """At every budget the interval of the soft metric on the left, and of both metrics on the right."""
    held_out = np.isfinite(view.observed_soft)
    traces = []
    for places, bar in ((held_out, HELD_OUT), (~held_out, FORECAST)):
        if not places.any():
            continue
        soft, hover = view.soft.median[places], [[_interval_hover(view, place)] for place in np.flatnonzero(places)]
        bars = {"error_y": _bars(view.soft, places, bar)}
        traces.append(_middles(view, view.budgets[places], soft, hover, bars, panel=1))
        if view.has_hard:
            bars = {"error_x": _bars(view.soft, places, bar), "error_y": _bars(view.hard, places, bar)}
            traces.append(_middles(view, soft, view.hard.median[places], hover, bars, panel=2))
    return traces


def _middles(
    view: DownstreamInterval, x: Floats, y: Floats, hover: list[list[str]], bars: dict[str, Any], panel: int
) -> Trace:
    """Bars about the medians, which have no mark of their own."""
    name = escape(view.name)
    rest = {"name": f"{name} ({_level(view)})", "legendgroup": name, "showlegend": False}
    return on_panel(marks(x, y, {"opacity": 0}, "%{customdata[0]}", customdata=hover, **bars, **rest), panel)


def _bars(band: Band, places: NDArray[np.bool_], style: dict[str, Any]) -> dict[str, Any]:
    low, median, high = band.low[places], band.median[places], band.high[places]
    return {"type": "data", "symmetric": False, "array": high - median, "arrayminus": median - low} | style


def _interval_hover(view: DownstreamInterval, place: int) -> str:
    words = escaped_words(view.fit.task)
    low, high = _shown(view, view.soft, place)
    hover = f"{_level(view)} at {budget_name(float(view.budgets[place]))} FLOPs"
    hover += f"<br>{words.soft_hover} {low:.3f} to {high:.3f}"
    if view.has_hard:
        hover += f"<br>{words.hard_short} {view.hard.low[place]:.3f} to {view.hard.high[place]:.3f}"
    return hover + _bound(view)


def _shown(view: DownstreamInterval, band: Band, place: int | slice = slice(None)) -> tuple[Any, Any]:
    """Both ends of a ``band`` of the soft metric as figures show it, the lower first."""
    if view.fit.task.soft_sign < 0:
        return -band.high[place], -band.low[place]
    return band.low[place], band.high[place]


def _level(view: DownstreamInterval) -> str:
    return f"{100 * view.level:g}% interval"
