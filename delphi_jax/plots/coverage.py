"""interval-coverage: how often each method's interval holds the truth of simulated studies, and how wide it is."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from delphi_jax.labels import COMPUTE, INTERVAL_METHODS, INTERVAL_NAMES
from delphi_jax.plots.drawers import (
    Document,
    NothingToDraw,
    Trace,
    divider,
    document,
    horizontal_legend,
    line,
    on_panel,
    side_by_side,
    status_note,
    subplot_title,
)
from delphi_jax.plots.mobile import stacked
from delphi_jax.plots.theme import INK, cycle_color
from delphi_jax.results.base import Floats
from delphi_jax.results.coverage import CoverageFit
from delphi_jax.text import axis_value, scientific

__all__ = ["build_interval_coverage", "build_interval_coverage_mobile"]

APART = 0.05
"""Decades between neighbouring methods at a budget, so that their error bars can be told apart."""

MARGIN = 0.25
"""Decades beside the outermost budgets."""


def build_interval_coverage(coverage: CoverageFit) -> Document:
    """The interval-coverage figure: coverage against budget on the left, median width on the right, by method.

    Raises :class:`NothingToDraw` where no method gave an interval.
    """
    if not coverage.with_interval.any():
        raise NothingToDraw(f"no method gave an interval in any study ({coverage.status.label})")
    order = np.argsort(coverage.targets)
    data = [
        on_panel(trace, panel)
        for m in range(len(coverage.methods))
        for panel, trace in enumerate(_method_traces(coverage, m, order), 1)
    ]
    ends = np.log10(coverage.targets[order][[0, -1]]) + np.array([-MARGIN, MARGIN])
    nominal = 100 * coverage.level
    data.append(on_panel(_nominal_line(10**ends, nominal), 1))
    left, right = side_by_side(2, spacing=0.1)
    dividers, sides = _dividers(coverage)
    budgets = {"type": "log", "title": {"text": COMPUTE}, "range": ends.tolist()}
    return document(
        data,
        {
            "xaxis": {"anchor": "y", "domain": left, **budgets},
            "yaxis": {
                "anchor": "x",
                "domain": [0.0, 1.0],
                "title": {"text": f"Coverage of {nominal:g}% intervals"},
                "ticksuffix": "%",
            },
            "xaxis2": {"anchor": "y2", "domain": right, **budgets},
            "yaxis2": {
                "anchor": "x2",
                "domain": [0.0, 1.0],
                "type": "log",
                "title": {"text": "Median width (% of the true loss)"},
                **_width_ticks(coverage.width),
            },
            "annotations": [
                subplot_title("How often the truth is inside", left),
                subplot_title("How wide the intervals are", right),
                *sides,
            ],
            "shapes": dividers,
            "legend": horizontal_legend(x=0.5, y=-0.2, entrywidth=0.22, entrywidthmode="fraction"),
            "margin": {"t": 40, "r": 30, "b": 10, "l": 60},
        },
    )


def build_interval_coverage_mobile(wide: Document) -> Document:
    """A figure from :func:`build_interval_coverage`, stacked for narrow screens."""
    return stacked(
        wide,
        height=660,
        margin={"t": 24, "r": 24, "b": 32, "l": 56},
        legend={"tracegroupgap": 4, "entrywidth": 0.46, "y": -0.12},
    )


def _method_traces(coverage: CoverageFit, m: int, order: np.ndarray) -> tuple[Trace, Trace]:
    """Coverage and median width of method ``m``, each with its Monte-Carlo error."""
    method = coverage.methods[m]
    name = INTERVAL_NAMES[method]
    color = cycle_color(INTERVAL_METHODS.index(method))
    aside = APART * (m - (len(coverage.methods) - 1) / 2)
    # A method that never gave an interval has no place in the picture; the table says why.
    shown = name if coverage.with_interval[m].any() else f"{name}, no interval"
    given = np.where(coverage.with_interval[m] > 0, 1.0, np.nan)
    low, high = (100 * end[m] for end in coverage.coverage_range)
    share = 100 * coverage.coverage[m]
    common = {
        "mode": "lines+markers",
        "marker": {"color": color, "size": 7},
        "legendgroup": method,
        "text": [_hover(coverage, m, q) for q in order],
    }
    x, stroke = (coverage.targets * 10.0**aside)[order], {"color": color, "width": 1.5}
    hover = f"{name}<br>%{{text}}{status_note(coverage.truth_status, coverage.truth)}"
    return (
        line(
            x,
            (share * given)[order],
            stroke,
            hover,
            name=shown,
            error_y=_bars((high - share)[order], (share - low)[order], color),
            **common,
        ),
        line(
            x,
            coverage.width[m][order],
            stroke,
            hover,
            showlegend=False,
            error_y=_bars(coverage.width_error[m][order], coverage.width_error[m][order], color),
            **common,
        ),
    )


def _bars(above: Floats, below: Floats, color: str) -> dict[str, Any]:
    bars = {"type": "data", "symmetric": False, "array": above, "arrayminus": below}
    return bars | {"color": color, "thickness": 1.2, "width": 0}


def _hover(coverage: CoverageFit, m: int, q: int) -> str:
    """What is known of a method at a target."""
    low, high = coverage.coverage_range
    missing = coverage.studies - coverage.with_interval[m, q]
    lines = [
        f"for the {coverage.kinds[m]} at C={scientific(coverage.targets[q])} FLOPs, {coverage.side(q)} the fit",
        f"coverage {100 * coverage.coverage[m, q]:.1f}% ({100 * low[m, q]:.1f} to {100 * high[m, q]:.1f})",
        f"median width {coverage.width[m, q]:.3g}% ± {coverage.width_error[m, q]:.2g}",
        f"bias {coverage.bias[m, q]:+.2g}% ± {coverage.bias_error[m, q]:.2g}",
    ]
    if missing:
        given = 100 * coverage.coverage_where_given[m, q]
        lines.append(f"no interval in {missing} of {coverage.studies} studies; where given {given:.1f}%")
    return "<br>".join(lines)


def _dividers(coverage: CoverageFit) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The line between budgets of the fit and those beyond, on both panels, and its labels on the first."""
    largest = coverage.buckets.max()
    beyond = coverage.targets[coverage.targets > largest]
    if beyond.size in (0, coverage.targets.size):
        return [], []
    at = math.sqrt(largest * beyond.min())
    line_there, sides = divider("x", "y domain", at)
    labels = [side | {"y": 0.02, "yanchor": "bottom"} for side in sides]
    return [line_there, line_there | {"xref": "x2", "yref": "y2 domain"}], labels


def _nominal_line(ends: Floats, nominal: float) -> Trace:
    stroke = {"color": INK, "width": 1.5, "dash": "dash"}
    return line(ends, np.full(2, nominal), stroke, mode="lines", name=f"nominal {nominal:g}%")


def _width_ticks(width: Floats) -> dict[str, Any]:
    """Ticks at 1, 2 and 5 times powers of ten, about the widths; plotly's own where there is no width."""
    finite = width[np.isfinite(width) & (width > 0)]
    if not finite.size:
        return {}
    decades = np.arange(math.floor(math.log10(finite.min())), math.ceil(math.log10(finite.max())) + 1)
    ticks = (10.0 ** decades[:, None] * np.array([1.0, 2.0, 5.0])).ravel()
    return {"tickmode": "array", "tickvals": ticks, "ticktext": [f"{axis_value(tick)}%" for tick in ticks]}
