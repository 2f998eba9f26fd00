"""overtraining-forecast: what training longer or shorter than optimal costs, with a slider over T/T*."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from delphi_jax.labels import TOKENS
from delphi_jax.plots.drawers import (
    Document,
    NothingToDraw,
    Trace,
    bucket_hover,
    compute_grid,
    document,
    horizontal_legend,
    line,
    marks,
    observed_log_tokens,
    optimum_mark,
    status_note,
)
from delphi_jax.plots.theme import BRAND_BLUE, BRAND_UMBER, INK, TRANSPARENT
from delphi_jax.results import OvertrainingFit, OvertrainingScale, ParabolaFit
from delphi_jax.status import Status
from delphi_jax.text import escape, overhead, overtraining_label, overtraining_tick, scientific

__all__ = ["build_overtraining_forecast"]

FIRST_SHOWN = 2.0
"""T/T* at which the slider starts."""

LARGEST_START = 8.5
"""log10 tokens: the axis starts here, or half a decade or more before, where a run has fewer."""
AXIS_ENDS = (1e13, 5e13)
"""Tokens: the axis ends at the first that holds the compute-to-match marker."""
SMALL_SHARE = 0.001
"""Of the end: a marker further left has an end of its own."""

OPEN_CIRCLE = {"size": 11, "symbol": "circle-open"}


def build_overtraining_forecast(fit: OvertrainingFit | None) -> Document:
    """The overtraining-forecast figure: a base picture at twice the optimal tokens and one frame per scale.

    Raises :class:`NothingToDraw` without a fitted law or without scales.
    """
    if fit is None or not fit.law.fitted or not fit.scales:
        raise NothingToDraw(
            "no scaling law to forecast from: the study needs IsoFLOP runs of one suite at 2 or more budgets, and a "
            "forecast budget beyond them"
        )
    still = [trace for bucket in fit.parabolas for trace in _bucket_traces(bucket)] + _forecast_traces(fit)
    scales = [line.scale for line in fit.scales]
    active = scales.index(FIRST_SHOWN) if FIRST_SHOWN in scales else 0
    moving = [_moving_parts(fit, scale) for scale in fit.scales]
    places = list(range(len(still), len(still) + len(moving[active])))
    frames = [
        {
            "name": str(scale.scale),
            "data": [{"type": "scatter"} | part for part in parts],
            "traces": places,
            "layout": {"annotations": [_label(fit, scale)], "xaxis": {"range": _token_range(fit, scale)}},
        }
        for scale, parts in zip(fit.scales, moving, strict=True)
    ]
    shown = [style | part for style, part in zip(_moving_styles(fit), moving[active], strict=True)]
    # Every stop draws the head of one grid, so the whole grid labels any of them.
    shown[len(fit.parabolas)]["customdata"] = fit.compute
    return document(
        still + shown,
        {
            "xaxis": {"title": {"text": TOKENS}, "type": "log", "range": _token_range(fit, fit.scales[active])},
            "yaxis": {"title": {"text": escape(fit.definition.metric.title)}, "type": "log"},
            "legend": horizontal_legend(x=1.0, y=1.02, xanchor="right", yanchor="bottom"),
            "margin": {"t": 60, "r": 30, "b": 100, "l": 60},
            "sliders": [_slider(scales, active)],
            "annotations": [_label(fit, fit.scales[active])],
        },
        frames,
    )


def _bucket_traces(fit: ParabolaFit) -> list[Trace]:
    """Runs, one-sided parabola and optimum of one bucket."""
    log_tokens = observed_log_tokens(fit, pad=0.02)
    distance = log_tokens - fit.log_tokens_star
    curvature = np.where(distance > 0, fit.curvature_over, fit.curvature_under)
    marker = {"color": BRAND_UMBER, "size": 6, "opacity": 0.55}
    stroke = {"color": BRAND_UMBER, "width": 1.5, "dash": "dash"}
    title = f"optimum<br>bucket={scientific(fit.bucket)}"
    return [
        marks(fit.tokens, fit.loss, marker, bucket_hover(fit.bucket), showlegend=False),
        line(10.0**log_tokens, fit.loss_star + curvature * distance**2, stroke, showlegend=False),
        optimum_mark(fit, BRAND_UMBER, title, showlegend=False),
    ]


def _forecast_traces(fit: OvertrainingFit) -> list[Trace]:
    """The law drawn against T*, and the forecast at its end."""
    compute = compute_grid(fit.law.compute.min(), fit.forecast_budget)
    note = status_note(fit.law.status, "law")
    hover = f"compute-optimal regression<br>C=%{{customdata:.2e}} FLOPs<br>T=%{{x:.3e}}<br>loss=%{{y:.4f}}{note}"
    stroke = {"color": BRAND_BLUE, "width": 2}
    curve = line(
        fit.tokens_at(compute),
        fit.law.loss_at(compute),
        stroke,
        hover,
        customdata=compute,
        name="Fit through optima",
    )
    tokens, loss = _forecast(fit)
    marker = {"color": BRAND_BLUE, "size": 12, "symbol": "x", "line": {"width": 2}}
    hover = f"forecast @ {scientific(fit.forecast_budget)} FLOPs<br>T=%{{x:.3e}}<br>loss=%{{y:.4f}}{note}"
    return [curve, marks([tokens], [loss], marker, hover, showlegend=False)]


def _forecast(fit: OvertrainingFit) -> tuple[float, float]:
    """(tokens, loss) of the compute-optimal run at the forecast budget."""
    return float(fit.tokens_at(fit.forecast_budget)), float(fit.law.loss_at(fit.forecast_budget))


def _moving_styles(fit: OvertrainingFit) -> list[Trace]:
    """What the slider moves, in the order of :func:`_moving_parts`, without the places."""
    circle = OPEN_CIRCLE | {"color": BRAND_UMBER, "line": {"color": BRAND_UMBER, "width": 2.5}}
    match = OPEN_CIRCLE | {"color": BRAND_BLUE, "line": {"color": BRAND_BLUE, "width": 2.5}}
    circles = [
        marks(
            None,
            None,
            circle,
            f"shifted<br>bucket={scientific(bucket.bucket)}<br>T=%{{x:.3e}}<br>loss=%{{y:.4f}}",
            showlegend=False,
        )
        for bucket in fit.parabolas
    ]
    curve = line(
        None,
        None,
        {"color": BRAND_BLUE, "width": 2, "dash": "dash"},
        "sub-optimal regression<br>C=%{customdata:.2e} FLOPs<br>T=%{x:.3e}<br>loss=%{y:.4f}",
        name="Sub-optimal fit",
    )
    marker = marks(
        None,
        None,
        match,
        "compute to match forecast loss<br>C=%{customdata[0]:.2e} FLOPs<br>T=%{x:.3e}",
        showlegend=False,
    )
    connector = line(None, None, {"color": BRAND_BLUE, "width": 1.5, "dash": "dot"}, showlegend=False)
    return [*circles, curve, marker, connector]


def _moving_parts(fit: OvertrainingFit, scale: OvertrainingScale) -> list[dict[str, Any]]:
    """Places at one slider stop; the curve brings the compute of its own points, for true hovers."""
    circles = [
        {"x": [scale.scale * bucket.tokens_star], "y": [float(loss)]}
        for bucket, loss in zip(fit.parabolas, scale.shifted_loss, strict=True)
    ]
    # The curve ends with the first grid budget that reaches the forecast loss, or with the grid.
    drawn = slice(int(np.searchsorted(fit.compute, scale.compute_equivalent)) + 1)
    compute = fit.compute[drawn]
    curve = {"x": scale.scale * fit.tokens_at(compute), "y": scale.loss[drawn], "customdata": compute}
    if scale.status != Status.FITTED:
        nowhere: dict[str, Any] = {"x": [], "y": []}
        known = curve if scale.status == Status.NOT_REACHED else nowhere | {"customdata": []}
        return [*circles, known, nowhere | {"customdata": []}, nowhere]
    tokens, loss = _forecast(fit)
    marker = {"x": [scale.tokens_equivalent], "y": [loss], "customdata": [[scale.compute_equivalent]]}
    connector = {"x": [tokens, scale.tokens_equivalent], "y": [loss, loss]}
    return [*circles, curve, marker, connector]


def _label(fit: OvertrainingFit, scale: OvertrainingScale) -> dict[str, Any]:
    """Scale and overhead in words: under the connector when overtrained, right of the forecast otherwise."""
    tokens, loss = _forecast(fit)
    fitted = scale.status == Status.FITTED
    x = math.log10(tokens)
    if fitted and scale.scale > 1:
        x = (x + math.log10(scale.tokens_equivalent)) / 2
    cost = f"{overhead(scale.overhead)} compute to match" if fitted else _no_match(fit, scale.status)
    notes = status_note(fit.law.status, "law")
    return {
        "text": f"{overtraining_label(scale.scale)}<br>{cost}{notes}",
        "x": x,
        "y": math.log10(loss),
        "xref": "x",
        "yref": "y",
        "xanchor": "left",
        "yanchor": "top",
        "xshift": 6,
        "yshift": -6,
        "align": "left",
        "showarrow": False,
        "bgcolor": TRANSPARENT,
        "borderwidth": 0,
        "font": {"color": INK, "size": 11},
    }


def _no_match(fit: OvertrainingFit, status: Status) -> str:
    if status == Status.CURVATURE_NOT_POSITIVE:
        return f"compute to match not known{status_note(status, 'parabolas')}"
    return f"forecast loss not reached by {scientific(float(fit.compute[-1]))} FLOPs"


def _token_range(fit: OvertrainingFit, scale: OvertrainingScale) -> list[float]:
    """Horizontal range, log10 tokens."""
    fewest = min(math.log10(bucket.tokens.min()) for bucket in fit.parabolas)
    reach = scale.tokens_equivalent if math.isfinite(scale.tokens_equivalent) else _forecast(fit)[0]
    end = next((end for end in AXIS_ENDS if reach <= end), 2 * reach)
    if reach < SMALL_SHARE * end:
        end = reach / SMALL_SHARE
    return [min(LARGEST_START, math.floor(2 * fewest) / 2), math.log10(end)]


def _slider(scales: list[float], active: int) -> dict[str, Any]:
    at_once = {"frame": {"duration": 0, "redraw": True}, "mode": "immediate", "transition": {"duration": 0}}
    return {
        "active": active,
        "currentvalue": {"prefix": "Overtraining: ", "font": {"size": 12}},
        "len": 0.9,
        "x": 0.05,
        "y": -0.12,
        "pad": {"l": 30, "r": 30, "t": 30},
        "steps": [
            {"method": "animate", "label": overtraining_tick(scale), "args": [[str(scale)], at_once]}
            for scale in scales
        ],
    }
