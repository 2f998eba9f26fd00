"""effective-speedup: how many times the compute one recipe needs for the loss of another, against budget."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from delphi_jax.labels import COMPUTE
from delphi_jax.plots.drawers import (
    Document,
    NothingToDraw,
    Trace,
    callout,
    compute_range,
    divider,
    document,
    horizontal_legend,
    line,
    marks,
    subplot_title,
)
from delphi_jax.plots.theme import BRAND_BLACK, BRAND_BLUE, BRAND_UMBER, rgba
from delphi_jax.results.speedup import ComputeMultiplier, MatchedSpeedup, SpeedupFit, SpeedupLine
from delphi_jax.status import Status
from delphi_jax.text import axis_value, escape, scientific

__all__ = ["build_effective_speedup", "build_effective_speedup_mobile"]

TICKS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.8, 0.9, 1, 1.1, 1.2, 1.3, 1.5, 2, 3, 5, 10, 20, 50, 100)
"""Speedups that an axis may name."""

MOST_TICKS = 11

ROOM = 1.6
"""Factor above and below all estimates that is shown: where an interval is wider, it leaves the picture."""

LOWEST, HIGHEST = 0.01, 100.0
"""Speedups beyond these are not shown."""

NOT_REACHABLE, SHORT_NOT_REACHABLE = "not reachable<br>at any budget", "not<br>reachable"

LABELS = 4
"""Labelled budgets of the curve at most."""

Floats = NDArray[np.float64]


def build_effective_speedup(speedup: SpeedupFit) -> Document:
    """The effective-speedup figure: matched budgets with whiskers, and the multiplier between the laws with its band.

    Raises :class:`NothingToDraw` where neither gives a number.
    """
    matched, multiplier = speedup.matched, speedup.multiplier
    points = [line for line in matched.lines if line is not matched.pooled and math.isfinite(line.value)]
    curve = [line for line in multiplier.curve if math.isfinite(line.value) or math.isfinite(line.low)]
    if not points and not any(math.isfinite(line.value) for line in curve):
        raise NothingToDraw(
            f"no speedup of {speedup.suites[0]} over {speedup.suites[1]}: at matched budgets {matched.status.label}, "
            f"between laws {multiplier.status.label}"
        )
    low, high = _shown(points, curve)
    data = _curve_traces(multiplier, curve, low, high) + _matched_traces(matched, points)
    budgets = [line.budget for line in (*points, *multiplier.curve)]
    first, second = map(escape, speedup.suites)
    divide = speedup.definition.divide
    across = divide is not None and min(budgets) < divide < max(budgets)
    shape, sides = divider("x", "y domain", divide) if across else (None, [])
    ticks = _ticks(low, high)
    return document(
        data,
        {
            "xaxis": {"type": "log", "title": {"text": COMPUTE}, "range": compute_range(min(budgets), max(budgets))},
            "yaxis": {
                "type": "log",
                "title": {"text": "Speedup (times the compute)"},
                "range": [math.log10(low), math.log10(high)],
                "tickmode": "array",
                "tickvals": ticks,
                "ticktext": [f"{tick:g}×" for tick in ticks],
            },
            "annotations": [
                subplot_title(f"{first}<br>over {second}", [0.0, 1.0]),
                *sides,
                *_labels(multiplier, points, high),
            ],
            "shapes": [_one_line(), *([shape] if shape is not None else [])],
            "legend": horizontal_legend(x=0.5, y=-0.2),
            "margin": {"t": 60, "r": 30, "b": 10, "l": 60},
        },
    )


def build_effective_speedup_mobile(wide: Document) -> Document:
    """A figure from :func:`build_effective_speedup` for narrow screens."""
    old = wide["layout"]
    title, *rest = old["annotations"]
    # Side by side the labels are wider than a decade is here.
    labels = [
        note | {"text": note["text"].replace("P(>1)", "P").replace(NOT_REACHABLE, SHORT_NOT_REACHABLE)}
        for note in rest
        if note["showarrow"]
    ]
    if labels:
        labels[-1] |= {"xanchor": "right"}
    rest = [note for note in rest if not note["showarrow"]]
    new = {
        "height": 480,
        "margin": {"t": 48, "r": 16, "b": 16, "l": 48},
        "legend": old["legend"] | {"entrywidth": 0.95, "entrywidthmode": "fraction", "y": -0.25},
        "annotations": [title | {"font": {"size": 12}}, *rest, *labels],
    }
    return wide | {"layout": old | new}


def _shown(points: Sequence[SpeedupLine], curve: Sequence[SpeedupLine]) -> tuple[float, float]:
    """Range of speedups that is shown: all estimates, whiskers and 1, with room for the band."""
    values = [1.0, *(line.value for line in curve if math.isfinite(line.value))]
    for point in points:
        values += [value for value in (point.value, point.low, point.high) if math.isfinite(value)]
    return max(min(values) / ROOM, LOWEST), min(max(values) * ROOM, HIGHEST)


def _curve_traces(multiplier: ComputeMultiplier, curve: list[SpeedupLine], low: float, high: float) -> list[Trace]:
    """The multiplier between the laws, with the band of its intervals."""
    if not curve:
        return []
    said = "" if multiplier.status is Status.FITTED else f" ({multiplier.status.label})"
    name = f"between {multiplier.laws[0].asymptote} laws{said}"
    traces = []
    banded = [line for line in curve if not math.isnan(line.low)]
    if banded:
        x = np.array([line.budget for line in banded])
        # An infinite end is beyond the picture; a band needs a number there.
        ends = [np.clip([getattr(line, end) for line in banded], low / 10, high * 10) for end in ("low", "high")]
        stroke = {"width": 0, "color": BRAND_BLUE}
        words = f"{100 * multiplier.level:g}% interval between laws"
        traces += [
            line(x, ends[0], stroke, legendgroup="laws", showlegend=False),
            line(
                x,
                ends[1],
                stroke,
                name=words,
                legendgroup="laws",
                showlegend=True,
                fill="tonexty",
                fillcolor=rgba(BRAND_BLUE, 0.18),
            ),
        ]
    x, y = np.array([line.budget for line in curve]), np.array([line.value for line in curve])
    text = [_words(each, multiplier.level) for each in curve]
    stroke = {"color": BRAND_BLUE, "width": 2, "dash": "dash"}
    return [
        *traces,
        line(x, y, stroke, f"{name}<br>%{{text}}", text=text, name=name, legendgroup="laws", showlegend=True),
    ]


def _matched_traces(matched: MatchedSpeedup, points: list[SpeedupLine]) -> list[Trace]:
    """Each matched budget with its whisker, and the estimate from all of them with its band."""
    if not points:
        return []
    traces = []
    pooled = matched.pooled
    x = np.array([point.budget for point in points])
    ends = x[[0, -1]]
    if not math.isnan(pooled.low):
        stroke = {"width": 0, "color": BRAND_UMBER}
        traces = [
            line(ends, np.full(2, pooled.low), stroke, legendgroup="pooled", showlegend=False),
            line(
                ends,
                np.full(2, pooled.high),
                stroke,
                legendgroup="pooled",
                showlegend=False,
                fill="tonexty",
                fillcolor=rgba(BRAND_UMBER, 0.35),
            ),
        ]
    value = np.array([point.value for point in points])
    bars = {"type": "data", "symmetric": False, "color": BRAND_UMBER, "thickness": 1.5, "width": 4}
    bars |= {
        "array": [_reach(point.high - point.value) for point in points],
        "arrayminus": [_reach(point.value - point.low) for point in points],
    }
    how = f"L_inf {'fitted' if matched.laws[0].asymptote == 'shared' else 'pinned'}: {matched.laws[0].L_inf:.4g}"
    said = "" if matched.status is Status.FITTED else f" ({matched.status.label})"
    return [
        *traces,
        line(
            ends,
            np.full(2, pooled.value),
            {"color": BRAND_UMBER, "width": 2},
            f"all matched budgets<br>%{{text}}<br>{how}{said}",
            text=[_words(pooled, matched.level)] * 2,
            name=f"all matched{said}: {_short(pooled)}",
            legendgroup="pooled",
            showlegend=True,
        ),
        marks(
            x,
            value,
            {"color": BRAND_UMBER, "size": 9, "symbol": "circle"},
            f"matched budget<br>%{{text}}<br>{how}{said}",
            text=[_words(point, matched.level) for point in points],
            error_y=bars,
            name=f"matched budget, {100 * matched.level:g}% interval",
        ),
    ]


def _reach(length: float) -> float | None:
    """Of a whisker; an infinite one goes off the picture."""
    return HIGHEST * 10 if math.isinf(length) else None if math.isnan(length) else length


def _short(estimate: SpeedupLine) -> str:
    probability = "" if math.isnan(estimate.probability) else f", P(>1) {_percent(estimate.probability)}"
    return f"{estimate.value:.3g}×{probability}"


def _percent(probability: float) -> str:
    if probability > 0.999:
        return "> 99.9%"
    return "< 0.1%" if probability < 0.001 else f"{100 * probability:.3g}%"


def _words(estimate: SpeedupLine, level: float) -> str:
    """What is known of one speedup, for a hover."""
    lines = [] if math.isnan(estimate.budget) else [f"C={scientific(estimate.budget)} FLOPs"]
    if estimate.status is Status.NOT_REACHED:
        lines.append("not reachable at any budget")
    else:
        lines.append(f"speedup {estimate.value:.4g}×")
    if math.isnan(estimate.low):
        lines.append(f"no interval: {estimate.interval_status.label}")
    else:
        low, high = ("∞" if math.isinf(end) else f"{end:.4g}×" for end in (estimate.low, estimate.high))
        lines.append(f"{100 * level:g}%: {low} to {high}, P(>1) {_percent(estimate.probability)}")
    if estimate.unreached > 0:
        lines.append(f"not reachable in {100 * estimate.unreached:.2g}% of the draws")
    return "<br>".join(lines)


def _labels(multiplier: ComputeMultiplier, points: list[SpeedupLine], high: float) -> list[dict[str, Any]]:
    """The probability at the budgets beyond the matched ones, the last few."""
    last = max((point.budget for point in points), default=0.0)
    beyond = sorted((line for line in multiplier.lines if line.budget > last), key=lambda line: line.budget)
    labels = []
    for each in beyond[-LABELS:]:
        if each.status is Status.NOT_REACHED:
            words = NOT_REACHABLE
        elif math.isnan(each.value):
            continue
        else:
            words = f"{axis_value(each.value)}×"
        if not math.isnan(each.probability):
            words += f"<br>P(>1) {_percent(each.probability)}"
        # What lies beyond the top hangs from there, and there is no room above what lies near it.
        y = math.log10(min(each.value, high) if math.isfinite(each.value) else high)
        above = each.value < high / ROOM
        spot = {"ax": 0, "ay": -34, "yanchor": "bottom"} if above else {"ax": 0, "ay": 28, "yanchor": "top"}
        labels.append(callout(words, "x", "y", math.log10(each.budget), y, **spot))
    return labels


def _ticks(low: float, high: float) -> list[float]:
    """The named speedups up and down from 1 that stand far enough from one another."""
    apart = math.log(high / low) / MOST_TICKS
    ticks = [1.0]
    for tick in TICKS[TICKS.index(1) + 1 :]:
        if tick <= high and math.log(tick / ticks[-1]) >= apart:
            ticks.append(tick)
    for tick in reversed(TICKS[: TICKS.index(1)]):
        if tick >= low and math.log(ticks[0] / tick) >= apart:
            ticks.insert(0, tick)
    return ticks


def _one_line() -> dict[str, Any]:
    """The line of equal recipes."""
    return {
        "type": "line",
        "xref": "x domain",
        "yref": "y",
        "x0": 0,
        "x1": 1,
        "y0": 1,
        "y1": 1,
        "line": {"color": BRAND_BLACK, "width": 1.5, "dash": "dash"},
        "layer": "below",
    }
