"""leave-future-out: how far off the law of the first few budgets was, by how far ahead it looked."""

from __future__ import annotations

from typing import Any

import numpy as np

from delphi_jax.plots.drawers import (
    Document,
    NothingToDraw,
    Trace,
    document,
    horizontal_legend,
    line,
    marks,
    on_panel,
    side_by_side,
    subplot_title,
)
from delphi_jax.plots.theme import BRAND_BLACK, INK, cycle_color
from delphi_jax.results.validation import HELD_OUT, OPTIMUM, Prediction, Refit, ValidationFit
from delphi_jax.status import Status
from delphi_jax.text import escape, scientific

__all__ = ["build_leave_future_out", "build_leave_future_out_mobile"]

SYMBOLS = {OPTIMUM: "circle", HELD_OUT: "diamond"}
SIZES = {OPTIMUM: 7, HELD_OUT: 9}
NAMES = {OPTIMUM: "IsoFLOP optimum", HELD_OUT: "held-out mean"}
ON_BOUND = "L_inf on a bound"

PANEL_HEIGHT, MOBILE_PANEL_HEIGHT = 380, 260
"""Pixels of a row of panels."""
LEGEND_HEIGHT, MOBILE_LEGEND_HEIGHT = 130, 200
LEGEND_DROP, MOBILE_LEGEND_DROP = 90, 70
"""Pixels between the lowest panel and the legend, for the axis title."""

ROW_GAP = 0.14
"""Between rows of panels, as a share of the plot's height."""


def build_leave_future_out(validation: ValidationFit) -> Document:
    """The leave-future-out figure: a panel per suite and asymptote, a line per number of fitted budgets.

    Raises :class:`NothingToDraw` where no refit predicts anything.
    """
    if not validation.predictions:
        raise NothingToDraw(
            "no refit has something later to predict: the study needs IsoFLOP runs of 4 budgets, or held-out runs"
        )
    kinds = validation.kinds
    suites = list(dict.fromkeys(suite for suite, _ in kinds))
    asymptotes = list(dict.fromkeys(asymptote for _, asymptote in kinds))
    counts = sorted({refit.budgets for refit in validation.refits})
    colors = {count: cycle_color(place) for place, count in enumerate(counts)}
    columns, rows = side_by_side(len(suites), spacing=0.08), _rows(len(asymptotes), ROW_GAP)
    data: list[Trace] = []
    layout: dict[str, Any] = {}
    titles, notes = [], []
    for panel, (suite, asymptote) in enumerate(kinds, 1):
        refits = validation.of(suite, asymptote)
        for refit, predictions in refits:
            data += [on_panel(trace, panel) for trace in _refit_traces(refit, predictions, colors[refit.budgets])]
        x, y = columns[suites.index(suite)], rows[asymptotes.index(asymptote)]
        layout |= _axes(panel, x, y)
        titles.append(subplot_title(f"{escape(suite)}, {_title(validation, suite, asymptote)}", x) | {"y": y[1]})
        notes += _missing_note(panel, [refit for refit, _ in refits])
    data += _legend_entries(validation, colors)
    height = PANEL_HEIGHT * len(rows) + LEGEND_HEIGHT
    return document(
        data,
        layout
        | {
            "annotations": titles + notes,
            "shapes": [_zero_line(panel) for panel in range(1, len(kinds) + 1)],
            "legend": horizontal_legend(
                x=0.5, y=-LEGEND_DROP / height, entrywidth=0.16, entrywidthmode="fraction", traceorder="normal"
            ),
            "margin": {"t": 40, "r": 30, "b": 10, "l": 60},
            "height": height,
        },
    )


def build_leave_future_out_mobile(wide: Document) -> Document:
    """A figure from :func:`build_leave_future_out`, its panels under one another."""
    old = wide["layout"]
    n = len(old["shapes"])
    rows = _rows(n, 0.3 / n)
    axes = {
        f"{name}axis{_number(panel)}": old[f"{name}axis{_number(panel)}"] | {"domain": domain}
        for panel, row in enumerate(rows, 1)
        for name, domain in (("x", [0.0, 1.0]), ("y", row))
    }
    titles = [
        title | {"x": 0.5, "y": row[1], "font": {"size": 12}}
        for title, row in zip(old["annotations"][:n], rows, strict=True)
    ]
    height = MOBILE_PANEL_HEIGHT * n + MOBILE_LEGEND_HEIGHT
    new = axes | {
        "annotations": titles + old["annotations"][n:],
        "height": height,
        "margin": {"t": 32, "r": 16, "b": 16, "l": 52},
        "legend": old["legend"] | {"entrywidth": 0.45, "y": -MOBILE_LEGEND_DROP / height},
    }
    return wide | {"layout": old | new}


def _rows(n: int, gap: float) -> list[list[float]]:
    """Vertical domains of ``n`` panels under one another, the first on top."""
    height = (1 - gap * (n - 1)) / n
    return [[1 - (i + 1) * height - i * gap, 1 - i * (height + gap)] for i in range(n)]


def _number(panel: int) -> str:
    return "" if panel == 1 else str(panel)


def _axes(panel: int, x: list[float], y: list[float]) -> dict[str, Any]:
    number = _number(panel)
    shared = {"matches": "x"} if panel > 1 else {}
    return {
        f"xaxis{number}": {
            "anchor": f"y{number}",
            "domain": x,
            "title": {"text": "Decades beyond the last fitted budget"},
            "rangemode": "tozero",
            **shared,
        },
        f"yaxis{number}": {
            "anchor": f"x{number}",
            "domain": y,
            "title": {"text": "Observed − predicted (%)"},
            "ticksuffix": "%",
            **({"matches": "y"} if panel > 1 else {}),
        },
    }


def _title(validation: ValidationFit, suite: str, asymptote: str) -> str:
    if asymptote == "pinned":
        return f"pinned to {validation.pinned[suite]:g}"
    return f"{asymptote} asymptote"


def _refit_traces(refit: Refit, predictions: list[Prediction], color: str) -> list[Trace]:
    """A thin line through all predictions of one refit, and their marks by kind."""
    if not predictions:
        return []
    group = {"legendgroup": str(refit.budgets), "showlegend": False}
    far = sorted(predictions, key=lambda each: each.distance)
    traces = [line(*_places(far), {"color": color, "width": 1}, **group)]
    for kind in SYMBOLS:
        own = [each for each in far if each.kind == kind]
        if own:
            note = "" if refit.status is Status.FITTED else f"<br>{refit.status.label}"
            hover = f"first {refit.budgets} budgets, to {scientific(refit.last_budget)} FLOPs{note}<br>%{{text}}"
            traces.append(marks(*_places(own), _marker(kind, color, refit), hover, text=[*map(_words, own)], **group))
    return traces


def _places(predictions: list[Prediction]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([each.distance for each in predictions]), np.array([each.error for each in predictions])


def _marker(kind: str, color: str, refit: Refit) -> dict[str, Any]:
    hollow = "" if refit.status is Status.FITTED else "-open"
    return {
        "color": color,
        "size": SIZES[kind],
        "symbol": f"{SYMBOLS[kind]}{hollow}",
        "line": {"color": color, "width": 1.5},
    }


def _words(prediction: Prediction) -> str:
    return (
        f"{NAMES[prediction.kind]} at {scientific(prediction.budget)} FLOPs, {prediction.distance:.2f} decades ahead"
        f"<br>predicted {prediction.predicted:.4f}, observed {prediction.observed:.4f}: {prediction.error:+.2f}%"
    )


def _missing_note(panel: int, refits: list[Refit]) -> list[dict[str, Any]]:
    """Refits that have no law are not drawn: how many, in the panel's corner."""
    missing = [refit for refit in refits if not refit.status.usable]
    if not missing:
        return []
    number = _number(panel)
    budgets = ", ".join(str(refit.budgets) for refit in missing)
    return [
        {
            "text": f"no law from the first {budgets} budgets: {missing[0].status.label}",
            "x": 0.02,
            "y": 0.02,
            "xref": f"x{number} domain",
            "yref": f"y{number} domain",
            "xanchor": "left",
            "yanchor": "bottom",
            "showarrow": False,
            "font": {"color": INK, "size": 11},
        }
    ]


def _legend_entries(validation: ValidationFit, colors: dict[int, str]) -> list[Trace]:
    """One per number of budgets, one per kind of target, and what hollow marks mean where there are some."""
    drawn = {each.refit for each in validation.predictions}
    refits = [validation.refits[place] for place in sorted(drawn)]
    counts = {refit.budgets for refit in refits}
    entries = [
        _entry(f"first {count} budgets", {"color": color, "size": 8, "symbol": "square"}, legendgroup=str(count))
        for count, color in colors.items()
        if count in counts
    ]
    kinds = {each.kind for each in validation.predictions}
    entries += [
        _entry(NAMES[kind], {"color": INK, "size": 8, "symbol": SYMBOLS[kind]}) for kind in SYMBOLS if kind in kinds
    ]
    if any(refit.status is not Status.FITTED for refit in refits):
        entries.append(_entry(ON_BOUND, {"color": INK, "size": 8, "symbol": "circle-open"}))
    return entries


def _entry(name: str, marker: dict[str, Any], **rest: Any) -> Trace:
    return {"type": "scatter", "mode": "markers", "x": [None], "y": [None], "name": name, "marker": marker} | rest


def _zero_line(panel: int) -> dict[str, Any]:
    number = _number(panel)
    return {
        "type": "line",
        "xref": f"x{number} domain",
        "yref": f"y{number}",
        "x0": 0,
        "x1": 1,
        "y0": 0,
        "y1": 0,
        "line": {"color": BRAND_BLACK, "width": 1.5, "dash": "dash"},
        "layer": "below",
    }
