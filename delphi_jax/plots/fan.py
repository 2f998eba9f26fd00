"""forecast-fan: every method's interval of a forecast, side by side, with the held-out runs on them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from delphi_jax.formulas import residual_percent
from delphi_jax.labels import (
    COMPUTE,
    DIVERGED,
    INTERVAL_METHODS,
    INTERVAL_NAMES,
    REFERENCE_METHOD,
)
from delphi_jax.plots.drawers import (
    Document,
    NothingToDraw,
    Trace,
    callout,
    compute_range,
    diverged_marks,
    divider,
    document,
    held_out_marks,
    horizontal_legend,
    law_line,
    line,
    marks,
    on_panel,
    optima_marks,
    side_by_side,
    status_note,
    subplot_title,
)
from delphi_jax.plots.theme import EXTERNAL_GREY, INK, TRANSPARENT, cycle_color, rgba
from delphi_jax.results import Floats, HeldOutRun
from delphi_jax.results.intervals import IntervalsFit, SuiteIntervals
from delphi_jax.text import escape, scientific

__all__ = ["build_forecast_fan", "build_forecast_fan_mobile"]

BANDS = ("hierarchical", "profile", REFERENCE_METHOD)
"""Methods that are drawn along all budgets, too: widest first, so that narrower ones lie on top."""

APART = 0.06
"""Decades between neighbouring methods at a target, at most."""

ROOM = 0.7
"""Share of the distance between two targets that their methods may take together."""

DEVIATION = "Loss − law's forecast (%)"

LAW_SHARE = 0.36
"""Share of a suite's height that the law itself takes; the rest is for deviations from it."""

TITLE_HEIGHT, LEGEND_HEIGHT, SUITE_HEIGHT = 34, 190, 470
"""Pixels of the mobile variant."""


def build_forecast_fan(intervals: IntervalsFit) -> Document:
    """The forecast-fan figure. Per suite: its law with the held-out runs, and below, in percent of the forecast, the
    interval of every method at every target, and of a few along all budgets.

    Raises :class:`NothingToDraw` where no suite has a law.
    """
    suites = [suite for suite in intervals.suites if suite.law.fitted]
    if not suites:
        reasons = "; ".join(f"{suite.suite}: {suite.law.status.label}" for suite in intervals.suites)
        raise NothingToDraw(f"no suite has a law ({reasons})")
    columns = side_by_side(len(suites), spacing=0.1)
    data: list[Trace] = []
    titles = [f"{escape(suite.suite)}{status_note(suite.law.status, 'law', ' · ')}" for suite in suites]
    layout: dict[str, Any] = {"annotations": list(map(subplot_title, titles, columns))}
    shapes: list[dict[str, Any]] = []
    named = {
        method for suite in suites for m, method in enumerate(suite.methods) if np.any(np.isfinite(suite.width[m]))
    }
    for column, suite in enumerate(suites):
        upper, lower = 2 * column + 1, 2 * column + 2
        runs = _runs(intervals, suite)
        data += [on_panel(trace, upper) for trace in _law_traces(suite, intervals, runs)]
        data += [
            on_panel(trace, lower)
            for trace in _deviation_traces(suite, intervals, runs, named if column == 0 else set())
        ]
        layout |= _axes(suite, runs, column, columns[column])
        sides = []
        if (divide := intervals.definition.divide) is not None:
            shape, sides = divider(f"x{_number(upper)}", f"y{_number(upper)} domain", divide)
            shapes += [shape, shape | {"xref": f"x{_number(lower)}", "yref": f"y{_number(lower)} domain"}]
        layout["annotations"] += [*sides, *_diverged_labels(suite, intervals, upper)]
    return document(
        data,
        layout
        | {
            "shapes": shapes,
            "legend": horizontal_legend(x=0.5, y=-0.14, entrywidth=0.19, entrywidthmode="fraction"),
            "margin": {"t": 40, "r": 30, "b": 10, "l": 60},
        },
    )


def build_forecast_fan_mobile(wide: Document) -> Document:
    """A figure from :func:`build_forecast_fan`, its suites under one another for narrow screens."""
    old = wide["layout"]
    n = sum(key.startswith("xaxis") for key in old) // 2
    height = n * SUITE_HEIGHT + LEGEND_HEIGHT
    spacing = TITLE_HEIGHT * 2.2 / (n * SUITE_HEIGHT)
    rows = side_by_side(n, spacing)[::-1]
    layout: dict[str, Any] = {}
    for column, row in enumerate(rows):
        for place, domain in enumerate(_split(row), 1):
            axis, title = _number(2 * column + place), old[f"yaxis{_number(place)}"]["title"]
            layout[f"xaxis{axis}"] = old[f"xaxis{axis}"] | {"domain": [0.0, 1.0]}
            layout[f"yaxis{axis}"] = old[f"yaxis{axis}"] | {"domain": domain, "title": title}
    titles = [title | {"x": 0.5, "y": row[1]} for title, row in zip(old["annotations"][:n], rows, strict=True)]
    layout |= {
        "height": height,
        "margin": {"t": 30, "r": 16, "b": 20, "l": 52},
        "annotations": titles + old["annotations"][n:],
        "legend": old["legend"] | {"entrywidth": 0.48, "tracegroupgap": 4, "y": -60 / (n * SUITE_HEIGHT)},
    }
    return wide | {"layout": old | layout}


def _number(panel: int) -> str:
    return "" if panel == 1 else str(panel)


def _split(row: Sequence[float]) -> tuple[list[float], list[float]]:
    """Vertical domains of a suite's two panels within ``row``."""
    low, high = row
    height = high - low
    return [high - LAW_SHARE * height, high], [low, high - (LAW_SHARE + 0.04) * height]


def _axes(suite: SuiteIntervals, runs: Sequence[HeldOutRun], column: int, domain: list[float]) -> dict[str, Any]:
    upper, lower = 2 * column + 1, 2 * column + 2
    top, bottom = _split([0.0, 1.0])
    end = max([suite.fan.max(), *(run.budget for run in runs)])
    right = max(end, suite.targets.max() * 10.0 ** _aside(suite, len(suite.methods) - 1))
    x = {"type": "log", "domain": domain, "range": compute_range(suite.fan.min(), right)}
    first = column == 0
    return {
        f"xaxis{_number(upper)}": x
        | {"anchor": f"y{_number(upper)}", "matches": f"x{_number(lower)}", "showticklabels": False},
        f"yaxis{_number(upper)}": {"anchor": f"x{_number(upper)}", "domain": top, "type": "log"}
        | ({"title": {"text": "Loss"}} if first else {}),
        f"xaxis{_number(lower)}": x | {"anchor": f"y{_number(lower)}", "title": {"text": COMPUTE}},
        f"yaxis{_number(lower)}": {
            "anchor": f"x{_number(lower)}",
            "domain": bottom,
            "ticksuffix": "%",
            "range": _deviation_range(suite, runs),
        }
        | ({"title": {"text": DEVIATION}} if first else {}),
    }


def _runs(intervals: IntervalsFit, suite: SuiteIntervals) -> list[HeldOutRun]:
    if intervals.held_out is None:
        return []
    return [run for run in intervals.held_out.optimal if run.suite == suite.suite]


def _percent(suite: SuiteIntervals, loss: Any, compute: Any) -> Floats:
    return residual_percent(np.asarray(loss, dtype=np.float64), suite.law.loss_at(compute))


def _deviation_range(suite: SuiteIntervals, runs: Sequence[HeldOutRun]) -> list[float]:
    """What the finished runs and all intervals take, in percent; runs that diverged may lie beyond."""
    finished = [run for run in runs if run.finished]
    ends = [
        *_percent(suite, suite.low, suite.targets).ravel(),
        *_percent(suite, suite.high, suite.targets).ravel(),
        *_percent(suite, [run.loss for run in finished], [run.budget for run in finished]),
        *_percent(suite, suite.law.loss, suite.law.compute),
    ]
    shown = [end for end in ends if math.isfinite(end)]
    low, high = min(shown), max(shown)
    margin = 0.06 * (high - low)
    return [low - margin, high + margin]


def _law_traces(suite: SuiteIntervals, intervals: IntervalsFit, runs: Sequence[HeldOutRun]) -> list[Trace]:
    """The law out to the last budget, its optima and the held-out runs."""
    end = max([suite.fan.max(), *(run.budget for run in runs)])
    traces = [
        law_line(suite.law, INK, "scaling-law fit", end),
        optima_marks(suite.law.compute, suite.law.loss, INK, "IsoFLOP optimum", showlegend=False),
    ]
    if intervals.held_out is not None and runs:
        compute, loss = intervals.held_out.means(suite.suite)
        if len(compute):
            traces.append(held_out_marks(compute, loss, INK, "held-out run"))
        if diverged := intervals.held_out.diverged(suite.suite):
            traces.append(diverged_marks(diverged, INK, "diverged mid-run"))
    return traces


def _deviation_traces(
    suite: SuiteIntervals, intervals: IntervalsFit, runs: Sequence[HeldOutRun], named: set[str]
) -> list[Trace]:
    """Bands, whiskers and runs in percent of the forecast; ``named`` methods, and runs if any are, have an entry."""
    first = bool(named)
    traces = [trace for method in BANDS for trace in _band(suite, method)]
    traces += [_whiskers(suite, m, named) for m in range(len(suite.methods))]
    zero = {"color": INK, "width": 2, "dash": "dash"}
    traces.append(
        line(suite.fan, np.zeros_like(suite.fan), zero, name="the law's forecast", showlegend=first, legendgroup="law")
    )
    optima = optima_marks(
        suite.law.compute,
        _percent(suite, suite.law.loss, suite.law.compute),
        INK,
        "IsoFLOP optimum",
        name="IsoFLOP optimum",
        showlegend=first,
        legendgroup="optima",
    )
    traces.append(optima | {"hovertemplate": "IsoFLOP optimum<br>C=%{x:.3e} FLOPs<br>%{y:.2f}%<extra></extra>"})
    if intervals.held_out is None:
        return traces
    finished = [run for run in runs if run.finished]
    budgets = [run.budget for run in finished]
    seeds = marks(
        budgets,
        _percent(suite, [run.loss for run in finished], budgets),
        {"color": INK, "size": 7, "symbol": "circle-open", "line": {"color": INK, "width": 1.5}},
        "held-out run<br>C=%{x:.3e} FLOPs<br>seed=%{text}<br>deviation=%{y:.2f}%",
        text=[escape(run.seed) for run in finished],
        name="held-out run, by seed",
        showlegend=first,
        legendgroup="seeds",
    )
    compute, loss = intervals.held_out.means(suite.suite)
    mean = marks(
        compute,
        _percent(suite, loss, compute),
        {"color": INK, "size": 14, "symbol": "line-ew", "line": {"color": INK, "width": 2.5}},
        "mean of held-out runs<br>C=%{x:.3e} FLOPs<br>deviation=%{y:.2f}%",
        name="mean of held-out runs",
        showlegend=first,
        legendgroup="means",
    )
    return [*traces, mean, seeds]


def _color(method: str) -> str:
    return EXTERNAL_GREY if method == REFERENCE_METHOD else cycle_color(INTERVAL_METHODS.index(method))


def _band(suite: SuiteIntervals, method: str) -> list[Trace]:
    """A method's interval along all budgets: two edges, filled between; nothing where it has none."""
    if method not in suite.methods:
        return []
    m = suite.methods.index(method)
    low, high = (_percent(suite, end[m], suite.fan) for end in (suite.fan_low, suite.fan_high))
    if not np.any(np.isfinite(low) & np.isfinite(high)):
        return []
    common = {"showlegend": False, "legendgroup": method}
    edge = {"color": rgba(_color(method), 0.5), "width": 1}
    return [
        line(suite.fan, low, edge, **common),
        line(suite.fan, high, edge, fill="tonexty", fillcolor=rgba(_color(method), 0.16), **common),
    ]


def _whiskers(suite: SuiteIntervals, m: int, named: set[str]) -> Trace:
    """A method's interval at every target, beside the others'; the runs keep the middle."""
    method, color = suite.methods[m], _color(suite.methods[m])
    point, low, high = (_percent(suite, end[m], suite.targets) for end in (suite.point, suite.low, suite.high))
    marker = {"color": color, "size": 6, "symbol": "diamond" if suite.kind(method) != "law" else "circle"}
    bars = {
        "type": "data",
        "symmetric": False,
        "array": high - point,
        "arrayminus": point - low,
        "color": color,
        "thickness": 2,
        "width": 3,
    }
    shown = np.isfinite(low) & np.isfinite(high)
    return marks(
        suite.targets * 10.0 ** _aside(suite, m),
        np.where(shown, point, np.nan),
        marker,
        f"{INTERVAL_NAMES[method]}<br>%{{text}}{status_note(suite.law.status, 'law')}",
        text=[_hover(suite, m, q) for q in range(len(suite.targets))],
        error_y=bars,
        name=INTERVAL_NAMES[method],
        legendgroup=method,
        showlegend=method in named,
    )


def _aside(suite: SuiteIntervals, m: int) -> float:
    """Decades to the right of a target at which method ``m`` stands; the target itself stays free."""
    n = len(suite.methods)
    gaps = np.diff(np.sort(np.log10(np.unique(suite.targets))))
    apart = min(APART, ROOM * gaps.min() / (n + 1)) if len(gaps) else APART
    place = m - n // 2
    return apart * (place + 1 if place >= 0 else place)


def _hover(suite: SuiteIntervals, m: int, q: int) -> str:
    low, high = (_percent(suite, end[m, q], suite.targets[q]) for end in (suite.low, suite.high))
    return (
        f"for the {suite.kind(suite.methods[m])} at C={scientific(suite.targets[q])} FLOPs"
        f"<br>{suite.low[m, q]:.4f} to {suite.high[m, q]:.4f} ({low:+.2f}% to {high:+.2f}%)"
        f"<br>{100 * suite.level:g} %, {suite.status[m][q].label}"
    )


def _diverged_labels(suite: SuiteIntervals, intervals: IntervalsFit, panel: int) -> list[dict[str, Any]]:
    """Beside every run that diverged: how far it is off, as it may lie beyond the other panel."""
    if intervals.held_out is None:
        return []
    return [
        callout(
            f"{DIVERGED}, {_percent(suite, run.loss, run.budget):+.0f}%",
            f"x{_number(panel)}",
            f"y{_number(panel)}",
            math.log10(run.budget),
            math.log10(run.loss),
            ax=-10,
            ay=0,
            xanchor="right",
            arrowcolor=TRANSPARENT,
        )
        for run in intervals.held_out.diverged(suite.suite)
    ]
