"""hparam-scaling: where the recipe's hyper-parameters lie in the loss valley of each sweep cell.

A plotly button applies fixed changes and cannot ask what other dropdowns say, so three independent dropdowns
cannot combine. Here each dropdown has one copy per setting of the two others, and three copies are visible at
a time: choosing a value draws its cell and swaps the two other dropdowns for the copies that belong to it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np

from delphi_jax.heuristics import BATCH_SIZES, FEATURES, HIDDEN_DIMS, HORIZONS
from delphi_jax.labels import ARD, BROAD, FEATURE_NAMES, PROCESS_NAMES, SWEEP_LOSS
from delphi_jax.plots.drawers import (
    Document,
    NothingToDraw,
    Trace,
    document,
    line,
    marks,
    on_panel,
    side_by_side,
)
from delphi_jax.plots.theme import BRAND_BLUE, INK, PAGE_TAN, rgba
from delphi_jax.results import CellFit, PartialDependence, SweepFit
from delphi_jax.text import axis_value

__all__ = ["build_hparam_scaling", "build_hparam_scaling_mobile"]

Cell = tuple[Any, ...]
"""Batch size, hidden dim, token horizon."""
Copy = tuple[int, Cell]
"""A dropdown: the dimension that it chooses, and the setting of the two other dimensions."""

CHOICES = (BATCH_SIZES, HIDDEN_DIMS, tuple(horizon.key for horizon in HORIZONS))
DIMENSIONS = range(len(CHOICES))
CELLS: tuple[Cell, ...] = tuple(product(*CHOICES))
FIRST_SHOWN: Cell = (64, 512, "2.5B")

CAPTIONS = ("Batch size", "Hidden dim", "Token horizon")
LETTERS = ("B", "H", "T")
MENU_X = (0.0, 0.2, 0.42)
MENU_X_MOBILE = (0.0, 0.36, 0.7)

RUG = {
    "color": BRAND_BLUE,
    "size": 10,
    "symbol": "line-ns-open",
    "opacity": 0.35,
    "line": {"color": BRAND_BLUE, "width": 1.5},
}
CURVE = {"color": BRAND_BLUE, "width": 2.5}
HEURISTIC = {"color": INK, "size": 11, "symbol": "x", "line": {"color": INK, "width": 3}}

TRACES_PER_PANEL = 4
_ROOM_FOR_RUG = 0.12
"""Below the curves of an axis that has none to spare, as a share of their range."""
MOST_TICKS = 5


def build_hparam_scaling(sweep: SweepFit | None) -> Document:
    """Partial dependence of the loss on five hyper-parameters, in the sweep cell that three dropdowns choose.

    A cell without finished runs, or whose process could not be fitted, says so in place of its curves. Curves of
    another process than the published one are named over the legend and when hovered; with the ARD process each cell
    has a loss axis of its own, the same on all panels: its valleys are small beside the differences between cells.
    Raises :class:`NothingToDraw` where no cell was fitted.
    """
    results = {(cell.batch_size, cell.hidden_dim, cell.horizon): cell for cell in sweep.cells} if sweep else {}
    fitted = {cell: results[cell] for cell in CELLS if cell in results and results[cell].fitted}
    if not fitted:
        raise NothingToDraw(
            "no fitted cell of the hyper-parameter sweep: "
            "hparam_sweep.json needs finished runs of a studied batch size, hidden dim and token horizon"
        )
    panels = [[fit.dependence[place] for fit in fitted.values()] for place in range(len(FEATURES))]
    shared_ranges = [_loss_range(curves) for curves in panels]
    own_ranges = {}
    if sweep.process == ARD:
        own_ranges = {
            cell: [_loss_range(fit.dependence, _ROOM_FOR_RUG)] * len(FEATURES) for cell, fit in fitted.items()
        }
    loss_ranges = {cell: own_ranges.get(cell, shared_ranges) for cell in CELLS}

    data: list[Trace] = []
    for cell in CELLS:
        traces = _cell_traces(fitted[cell], loss_ranges[cell]) if cell in fitted else _blank_traces()
        data += [trace | {"visible": cell == FIRST_SHOWN} for trace in traces]
    messages = {cell: _message(cell, results.get(cell)) for cell in CELLS}
    legend = _legend_traces()
    layout = {
        "annotations": [_caption(text, x) for text, x in zip(CAPTIONS, MENU_X, strict=True)],
        "legend": {
            "x": 0.867,
            "xanchor": "center",
            "y": 0.21,
            "yanchor": "middle",
            "bgcolor": rgba(PAGE_TAN, 0.8),
            "borderwidth": 0,
            **({} if sweep.process == BROAD else {"title": {"text": _process_name(sweep.process)}}),
        },
        "margin": {"t": 80, "r": 30, "b": 10, "l": 60},
        "title": {
            "text": messages[FIRST_SHOWN],
            "x": 0.5,
            "y": 0.79,
            "xref": "paper",
            "yref": "paper",
            "xanchor": "center",
            "yanchor": "middle",
            "font": {"size": 14},
        },
        "updatemenus": _menus(messages, len(legend), loss_ranges if own_ranges else {}),
    }
    return document(data + legend, _axes(panels, loss_ranges[FIRST_SHOWN]) | layout)


def build_hparam_scaling_mobile(wide: Document) -> Document:
    """The figure of :func:`build_hparam_scaling` in two columns for narrow screens; traces are shared."""
    layout = dict(wide["layout"])
    del layout["annotations"]
    grid = product(([0.72, 1.0], [0.36, 0.64], [0.0, 0.28]), ([0.0, 0.45], [0.55, 1.0]))
    for panel, (rows, columns) in enumerate(grid, start=1):
        x, y = _axis_keys(panel)
        layout[x] = layout[x] | {"domain": columns, "tickangle": 45}
        layout[y] = layout[y] | {"domain": rows}
        if panel in (3, 5):
            layout[y]["title"] = {"text": SWEEP_LOSS}
    layout["yaxis4"]["title"] = {}
    menu_x = dict(zip(MENU_X, MENU_X_MOBILE, strict=True))
    layout |= {
        "height": 900,
        "legend": layout["legend"] | {"x": 1.02, "xanchor": "right", "y": 0.1, "yanchor": "bottom"},
        "margin": {"t": 36, "r": 0, "b": 0, "l": 0},
        "title": layout["title"] | {"x": 0.225, "y": 0.86, "font": {"size": 12}},
        "updatemenus": [
            menu | {"x": menu_x[menu["x"]], "y": 1.0, "yanchor": "bottom"} for menu in layout["updatemenus"]
        ],
    }
    return wide | {"layout": layout}


def _loss_range(curves: Sequence[PartialDependence], below: float = 0.0) -> list[float]:
    """The loss axis that holds all bands, headroom above, and a share ``below``."""
    low = min(float(np.min(curve.mean - curve.sd)) for curve in curves)
    high = max(float(np.max(curve.mean + curve.sd)) for curve in curves)
    return [low - below * (high - low), high + 0.04 * (high - low)]


def _cell_traces(fit: CellFit, loss_ranges: list[list[float]]) -> list[Trace]:
    """On each panel: trials as a rug on the floor, curve, one-sigma band, the heuristic's point."""
    traces: list[Trace] = []
    for place, (feature, curve) in enumerate(zip(FEATURES, fit.dependence, strict=True)):
        trials = fit.features[:, place]
        floor = np.full(len(trials), loss_ranges[place][0])
        support = "" if curve.heuristic_in_support else " (extrapolated)"
        units = f"{FEATURE_NAMES[feature]}=%{{customdata[0]:.3g}}"
        process = _process_note(fit, place)
        hover = f"CompletedAdamH{support}<br>{units}<br>PDP loss=%{{y:.4f}}{process}"
        value = [[_in_units(feature, curve.heuristic)]]
        panel = (
            {
                "type": "scatter",
                "mode": "markers",
                "x": trials,
                "y": floor,
                "marker": RUG,
                "hoverinfo": "skip",
            },
            line(curve.grid, curve.mean, CURVE, f"PDP loss=%{{y:.4f}}{process}" if process else None),
            _band(curve),
            marks([curve.heuristic], [curve.heuristic_mean], HEURISTIC, hover, customdata=value),
        )
        traces += [on_panel(trace, place + 1) | {"showlegend": False} for trace in panel]
    return traces


def _process_name(process: str) -> str:
    """In capitals at the head."""
    return PROCESS_NAMES[process][0].upper() + PROCESS_NAMES[process][1:]


def _process_note(fit: CellFit, place: int) -> str:
    """What a hover says of the process behind the curve of one hyper-parameter; nothing of the published one."""
    if fit.process == BROAD:
        return ""
    lines = [_process_name(fit.process), f"leave-one-out R²={fit.r2:.2f}"]
    if fit.process == ARD:
        lines.append(f"length scale={fit.length_scales[place]:.3g} standard deviations")
    if fit.bounds_hit:
        lines.append(f"on a bound: {', '.join(fit.bounds_hit)}")
    return "".join(f"<br>{line}" for line in lines)


def _band(curve: PartialDependence) -> Trace:
    """One standard deviation about the curve. Single precision: no hover reads it, and it fills the file."""
    x = np.concatenate([curve.grid, curve.grid[::-1]])
    y = np.concatenate([curve.mean + curve.sd, (curve.mean - curve.sd)[::-1]])
    return {
        "type": "scatter",
        "x": x.astype(np.float32),
        "y": y.astype(np.float32),
        "fill": "toself",
        "fillcolor": rgba(BRAND_BLUE, 0.15),
        "line": {"width": 0},
        "hoverinfo": "skip",
    }


def _blank_traces() -> list[Trace]:
    """The traces of a cell without curves: as many as with curves, so that all cells are switched alike."""
    blank = on_panel({"type": "scatter", "mode": "markers", "x": [], "y": []}, 1)
    return [blank] * (TRACES_PER_PANEL * len(FEATURES))


def _legend_traces() -> list[Trace]:
    """The entries of the legend, which stand for the traces of whichever cell is shown."""
    entry = {"type": "scatter", "x": [None], "y": [None], "showlegend": True, "visible": True}
    return [
        entry | {"mode": "markers", "marker": RUG, "name": "Sampled runs"},
        entry | {"mode": "lines", "line": CURVE, "name": "Sensitivity curve"},
        entry | {"mode": "markers", "marker": HEURISTIC, "name": "Our Heuristic"},
    ]


def _message(cell: Cell, fit: CellFit | None) -> str:
    """What stands in the chart where a cell has no curves, short enough for one panel; empty where it has."""
    if fit is not None and fit.fitted:
        return ""
    place = ", ".join(f"{letter} = {value}" for letter, value in zip(LETTERS, cell, strict=True))
    if fit is None or fit.n_finished == 0:
        return f"No finished runs for<br>{place}"
    return f"Not fitted ({fit.status.label}):<br>{place}"


def _caption(text: str, x: float) -> dict[str, Any]:
    """What stands above a dropdown."""
    place = {"x": x, "y": 1.1, "xref": "paper", "yref": "paper", "xanchor": "left", "yanchor": "bottom"}
    return place | {"text": text, "showarrow": False, "font": {"size": 12}}


def _axis_keys(panel: int) -> tuple[str, str]:
    number = "" if panel == 1 else str(panel)
    return f"xaxis{number}", f"yaxis{number}"


def _axes(panels: list[list[PartialDependence]], loss_ranges: list[list[float]]) -> dict[str, Any]:
    """Two rows of three panels; the sixth stays empty for the legend."""
    axes: dict[str, Any] = {}
    grid = product(([0.58, 1.0], [0.0, 0.42]), side_by_side(3, spacing=0.1))
    for panel, (rows, columns) in enumerate(grid, start=1):
        x, y = _axis_keys(panel)
        axes[x] = {"anchor": y.replace("axis", ""), "domain": columns}
        axes[y] = {"anchor": x.replace("axis", ""), "domain": rows}
        if panel <= len(FEATURES):
            axes[x] |= _feature_axis(FEATURES[panel - 1], panels[panel - 1])
            axes[y]["range"] = loss_ranges[panel - 1]
        else:
            axes[x]["visible"] = axes[y]["visible"] = False
        if panel in (1, 4):
            axes[y]["title"] = {"text": SWEEP_LOSS}
    return axes


def _feature_axis(feature: str, curves: Sequence[PartialDependence]) -> dict[str, Any]:
    """One hyper-parameter's axis over all cells: drawn in logarithms, labelled in original units."""
    low = min(float(curve.grid[0]) for curve in curves)
    high = max(float(curve.grid[-1]) for curve in curves)
    ticks = _ticks(feature, low, high)
    return {
        "title": {"text": FEATURE_NAMES[feature]},
        "range": [low, high],
        "tickmode": "array",
        "tickvals": ticks,
        "ticktext": [axis_value(_in_units(feature, tick)) for tick in ticks],
    }


def _ticks(feature: str, low: float, high: float) -> list[float]:
    """Logs of 1, 2, 5 times powers of ten within [low, high], thinned evenly, ascending in original units."""
    decades = range(math.floor(low / math.log(10)), math.ceil(high / math.log(10)))
    logs = [math.log(digit * 10.0**decade) for decade in decades for digit in (1, 2, 5)]
    inside = [tick for tick in logs if low <= tick <= high]
    if _is_beta(feature):
        inside.reverse()
    if len(inside) > MOST_TICKS:
        inside = [inside[place] for place in np.linspace(0, len(inside) - 1, MOST_TICKS).round().astype(int)]
    return inside


def _is_beta(feature: str) -> bool:
    return feature.startswith("beta")


def _in_units(feature: str, value: float) -> float:
    """The hyper-parameter behind a logarithmic feature; the betas enter as log(1 - beta)."""
    return 1 - math.exp(value) if _is_beta(feature) else math.exp(value)


def _copy(dimension: int, cell: Cell) -> Copy:
    """The dropdown of ``dimension`` that shows while ``cell`` is drawn."""
    return dimension, cell[:dimension] + cell[dimension + 1 :]


def _menus(
    messages: dict[Cell, str], n_legend: int, loss_ranges: dict[Cell, list[list[float]]]
) -> list[dict[str, Any]]:
    """Every copy of the three dropdowns. Those of the first cell stand first, and only they are visible.

    ``loss_ranges`` of the panels by cell, where they differ from cell to cell.
    """
    first = [_copy(dimension, FIRST_SHOWN) for dimension in DIMENSIONS]
    copies = dict.fromkeys([*first, *(_copy(dimension, cell) for dimension in DIMENSIONS for cell in CELLS)])
    places = {copy: place for place, copy in enumerate(copies)}
    per_cell = TRACES_PER_PANEL * len(FEATURES)
    visible = {cell: [owner == cell for owner in CELLS for _ in range(per_cell)] + [True] * n_legend for cell in CELLS}
    menus = []
    for dimension, others in copies:
        buttons = []
        for value in CHOICES[dimension]:
            cell = (*others[:dimension], value, *others[dimension:])
            buttons.append(
                {
                    "method": "update",
                    "label": f"{LETTERS[dimension]} = {value}",
                    "args": [
                        {"visible": visible[cell]},
                        {"title.text": messages[cell]}
                        | {
                            f"{_axis_keys(panel)[1]}.range": loss_range
                            for panel, loss_range in enumerate(loss_ranges.get(cell, ()), start=1)
                        }
                        | _swap(dimension, cell, places),
                    ],
                }
            )
        menus.append(
            {
                "x": MENU_X[dimension],
                "y": 1.11,
                "xanchor": "left",
                "yanchor": "top",
                "buttons": buttons,
                "active": CHOICES[dimension].index(FIRST_SHOWN[dimension]),
                "visible": (dimension, others) in first,
                "showactive": True,
                "direction": "down",
                "bgcolor": rgba(PAGE_TAN, 0.9),
                "borderwidth": 0,
            }
        )
    return menus


def _swap(dimension: int, cell: Cell, places: dict[Copy, int]) -> dict[str, Any]:
    """What choosing ``cell`` along ``dimension`` does to the other dropdowns; the clicked one updates itself.

    Before the click, the cell may have had any value of ``dimension``: the copies that belong to those values
    are hidden, the copies that belong to ``cell`` are shown with its values chosen.
    """
    changes: dict[str, Any] = {}
    for other in DIMENSIONS:
        if other == dimension:
            continue
        for value in CHOICES[dimension]:
            before = (*cell[:dimension], value, *cell[dimension + 1 :])
            changes[f"updatemenus[{places[_copy(other, before)]}].visible"] = before == cell
        changes[f"updatemenus[{places[_copy(other, cell)]}].active"] = CHOICES[other].index(cell[other])
    return changes
