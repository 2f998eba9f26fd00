"""allocation: the best parameters and tokens against compute, by every approach."""

from __future__ import annotations

from typing import Any

import numpy as np

from delphi_jax.labels import (
    APPROACH_NAMES,
    COMPUTE,
    OPTIMAL_PARAMS,
    OPTIMAL_TOKENS,
    PARABOLA,
    SPLINE,
    SURFACE,
)
from delphi_jax.plots.drawers import (
    Document,
    NothingToDraw,
    Trace,
    divider,
    document,
    horizontal_legend,
    line,
    marks,
    on_panel,
    side_by_side,
    status_note,
    subplot_title,
)
from delphi_jax.plots.theme import BRAND_BLUE, BRAND_TERRACOTTA, BRAND_UMBER, INK, rgba
from delphi_jax.results.allocation import AllocationFit, AllocationLine, AllocationPath, Band, SuiteAllocation
from delphi_jax.text import escape, scientific

__all__ = ["build_allocation", "build_allocation_mobile"]

COLORS = {PARABOLA: BRAND_BLUE, SPLINE: BRAND_UMBER, SURFACE: BRAND_TERRACOTTA}
STROKES = {
    PARABOLA: {"width": 2, "dash": "dash"},
    SPLINE: {"width": 1.5, "dash": "dot"},
    SURFACE: {"width": 2},
}
BANDS = (SURFACE, PARABOLA)
"""Approaches whose intervals are drawn along all budgets; the spline's, as wide as the parabola's, would hide them."""

MARGIN = 0.15
"""Decades beside the outermost budgets."""

QUANTITIES = {"params": OPTIMAL_PARAMS, "tokens": OPTIMAL_TOKENS}
SIGNS = {"params": "N*", "tokens": "D*"}

ROW_HEIGHT = 450
"""Pixels of a row of panels, where there are several."""
MOBILE_ROW_HEIGHT, GAP_HEIGHT, LEGEND_HEIGHT = 330, 95, 220
"""Pixels of the mobile variant: a panel with the gap above it, that gap, and what is below the last panel."""


def build_allocation(allocation: AllocationFit) -> Document:
    """The allocation figure: per suite N* and D* by every approach, with intervals and the buckets' optima.

    Raises :class:`NothingToDraw` where no suite has an allocation.
    """
    suites = [suite for suite in allocation.suites if any(each.fitted for each in suite.lines)]
    if not suites:
        reasons = "; ".join(f"{suite.suite}: {suite.status.label}" for suite in allocation.suites)
        raise NothingToDraw(f"no suite has an allocation ({reasons or 'there are no IsoFLOP runs'})")
    columns = side_by_side(2, spacing=0.1)
    rows = side_by_side(len(suites), spacing=0.16)[::-1]
    data: list[Trace] = []
    layout: dict[str, Any] = {"annotations": [], "shapes": []}
    named: set[str] = set()
    for row, suite in enumerate(suites):
        for column, (quantity, title) in enumerate(QUANTITIES.items()):
            panel = 2 * row + column + 1
            data += [on_panel(trace, panel) for trace in _panel_traces(suite, quantity, named)]
            layout |= _axes(suite, panel, title, columns[column], rows[row])
            shape, sides = _divider(suite, panel)
            layout["shapes"].append(shape)
            layout["annotations"] += [*sides, *_reservations(suite, panel)]
    titles = [
        subplot_title(escape(suite.suite), column) | {"y": row[1]}
        for suite, row in zip(suites, rows, strict=True)
        for column in columns
    ]
    layout["annotations"] = titles + layout["annotations"]
    if len(suites) > 1:
        layout["height"] = ROW_HEIGHT * len(suites)
    return document(
        data,
        layout
        | {
            "legend": horizontal_legend(x=0.5, y=-0.2 / len(suites), entrywidth=0.3, entrywidthmode="fraction"),
            "margin": {"t": 40, "r": 30, "b": 10, "l": 60},
        },
    )


def build_allocation_mobile(wide: Document) -> Document:
    """A figure from :func:`build_allocation`, all panels under one another for narrow screens."""
    old = wide["layout"]
    n = sum(key.startswith("xaxis") for key in old)
    rows = side_by_side(n, spacing=GAP_HEIGHT / (n * MOBILE_ROW_HEIGHT))[::-1]
    layout: dict[str, Any] = {}
    for panel, row in enumerate(rows, 1):
        axis = _number(panel)
        layout[f"xaxis{axis}"] = old[f"xaxis{axis}"] | {"domain": [0.0, 1.0]}
        layout[f"yaxis{axis}"] = old[f"yaxis{axis}"] | {"domain": row}
    titles = [title | {"x": 0.5, "y": row[1]} for title, row in zip(old["annotations"][:n], rows, strict=True)]
    layout |= {
        "height": n * MOBILE_ROW_HEIGHT + LEGEND_HEIGHT,
        "margin": {"t": 30, "r": 20, "b": 20, "l": 56},
        "annotations": titles + old["annotations"][n:],
        "legend": old["legend"] | {"entrywidth": 0.9, "tracegroupgap": 4, "y": -0.21 / n},
    }
    return wide | {"layout": old | layout}


def _number(panel: int) -> str:
    return "" if panel == 1 else str(panel)


def _axes(suite: SuiteAllocation, panel: int, title: str, column: list[float], row: list[float]) -> dict[str, Any]:
    number = _number(panel)
    ends = np.log10(suite.lines[0].curve.compute[[0, -1]])
    return {
        f"xaxis{number}": {
            "anchor": f"y{number}",
            "domain": column,
            "type": "log",
            "title": {"text": COMPUTE},
            "range": [float(ends[0]) - MARGIN, float(ends[1]) + MARGIN],
        },
        f"yaxis{number}": {"anchor": f"x{number}", "domain": row, "type": "log", "title": {"text": title}, "nticks": 6},
    }


def _divider(suite: SuiteAllocation, panel: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The line behind the largest bucket, where extrapolation begins."""
    number = _number(panel)
    last = max(bucket.parabola.bucket for bucket in suite.buckets) * 10 ** (MARGIN / 2)
    shape, sides = divider(f"x{number}", f"y{number} domain", last)
    return shape, [side | {"y": 0.1} for side in sides]


def _reservations(suite: SuiteAllocation, panel: int) -> list[dict[str, Any]]:
    """Approaches that are missing, or drawn with a reservation, in the panel's upper corner."""
    words = [status_note(each.status, APPROACH_NAMES[each.approach], "") for each in suite.lines]
    number = _number(panel)
    return [
        {
            "text": "<br>".join(filter(None, words)),
            "x": 0.02,
            "y": 0.98,
            "xref": f"x{number} domain",
            "yref": f"y{number} domain",
            "xanchor": "left",
            "yanchor": "top",
            "align": "left",
            "showarrow": False,
            "font": {"color": INK, "size": 11},
        }
    ][: any(words)]


def _panel_traces(suite: SuiteAllocation, quantity: str, named: set[str]) -> list[Trace]:
    """Bands, lines, the buckets' optima and the budgets asked for; what is ``named`` has its entry in the legend."""
    lines = [each for each in suite.lines if each.fitted]
    traces = [trace for each in lines if each.approach in BANDS for trace in _band(each, quantity)]
    for each in lines:
        traces += [_curve(each, quantity, named), _asked(each, quantity)]
    return traces + [_optima(suite, approach, quantity, named) for approach in (PARABOLA, SPLINE)]


def _band(each: AllocationLine, quantity: str) -> list[Trace]:
    band: Band = getattr(each.curve, quantity)
    edge = {"color": rgba(COLORS[each.approach], 0), "width": 0}
    common = {"legendgroup": each.approach, "showlegend": False}
    return [
        line(each.curve.compute, band.low, edge, **common),
        line(
            each.curve.compute,
            band.high,
            edge,
            fill="tonexty",
            fillcolor=rgba(COLORS[each.approach], 0.16),
            **common,
        ),
    ]


def _curve(each: AllocationLine, quantity: str, named: set[str]) -> Trace:
    return line(
        each.curve.compute,
        getattr(each.curve, quantity).value,
        {"color": COLORS[each.approach]} | STROKES[each.approach],
        _hover(each, quantity),
        customdata=_ends(each.curve, quantity),
        **_entry(each.approach, APPROACH_NAMES[each.approach], named),
    )


def _asked(each: AllocationLine, quantity: str) -> Trace:
    """The budgets that were asked for."""
    marker = {"color": COLORS[each.approach], "size": 9, "symbol": "line-ew", "line": {"width": 3}}
    marker["line"]["color"] = COLORS[each.approach]
    return marks(
        each.at.compute,
        getattr(each.at, quantity).value,
        marker,
        _hover(each, quantity),
        customdata=_ends(each.at, quantity),
        legendgroup=each.approach,
        showlegend=False,
    )


def _ends(path: AllocationPath, quantity: str) -> np.ndarray:
    band: Band = getattr(path, quantity)
    return np.stack([band.low, band.high], axis=1)


def _hover(each: AllocationLine, quantity: str) -> str:
    sign = SIGNS[quantity]
    return (
        f"{APPROACH_NAMES[each.approach]}<br>C=%{{x:.3e}} FLOPs<br>{sign}=%{{y:.3e}}"
        f"<br>%{{customdata[0]:.3e}} to %{{customdata[1]:.3e}}{status_note(each.status)}"
    )


def _optima(suite: SuiteAllocation, approach: str, quantity: str, named: set[str]) -> Trace:
    """The optima of the buckets that ``approach`` takes."""
    points = []
    for bucket in suite.buckets:
        fit, biases = bucket.parabola, ", ".join(bucket.flags)
        if approach == PARABOLA and bucket.parabola_used:
            x, y = bucket.parabola_compute, {"params": fit.params_star, "tokens": fit.tokens_star}[quantity]
            points.append((x, y, f"{scientific(fit.bucket)}{f'<br>biases: {biases}' if biases else ''}"))
        elif approach == SPLINE and np.isfinite(bucket.spline_tokens):
            x, y = bucket.spline_compute, {"params": bucket.spline_params, "tokens": bucket.spline_tokens}[quantity]
            points.append((x, y, f"{scientific(fit.bucket)}<br>degrees of freedom: {bucket.freedom:.2f}"))
    symbol = {PARABOLA: "circle", SPLINE: "diamond-open"}[approach]
    marker = {"color": COLORS[approach], "size": 8, "symbol": symbol, "line": {"width": 1.5}}
    hover = f"optimum by {approach}<br>C=%{{x:.3e}} FLOPs<br>{SIGNS[quantity]}=%{{y:.3e}}<br>bucket=%{{text}}"
    x, y, text = ([point[place] for point in points] for place in range(3))
    return marks(x, y, marker, hover, text=text, **_entry(f"{approach} optima", f"bucket optimum, {approach}", named))


def _entry(group: str, name: str, named: set[str]) -> dict[str, Any]:
    """One entry in the legend for all panels."""
    shown = group not in named
    named.add(group)
    return {"name": name, "legendgroup": group, "showlegend": shown}
