"""hparam-scaling: where the recipe's hyper-parameters lie in the loss valley of each sweep cell.

A plotly button applies fixed changes and cannot ask what other dropdowns say, so three independent dropdowns
cannot combine. Here each dropdown has one copy per setting of the two others, and three copies are visible at
a time: choosing a value draws its cell and swaps the two other dropdowns for the copies that belong to it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from delphi_jax.checked import table_file
from delphi_jax.heuristics import Cell, HyperParameter, SweepDesign
from delphi_jax.labels import ARD, BROAD, PROCESS_NAMES
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
from delphi_jax.text import axis_value, escape

__all__ = ["build_hparam_scaling", "build_hparam_scaling_mobile"]

Copy = tuple[int, tuple[Any, ...]]
"""A dropdown: the dimension that it chooses, and the setting of the two other dimensions."""

CAPTIONS = ("Batch size", "Hidden dim", "Token horizon")
DIMENSIONS = range(len(CAPTIONS))
LETTERS = ("B", "H", "T")
CAPTION_Y, MENU_Y = 0.1, 0.11
"""Above the panels, in fractions of the height of a page's plot."""
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

ROW_GAP, ROW_GAP_MOBILE = 0.32, 0.24
"""Between rows of panels, in fractions of a row."""
ROW_HEIGHT, ROW_HEIGHT_MOBILE = 250, 300
"""Pixels; the height of a wide figure is given where there are more rows than a page gives room."""
ROWS_OF_A_PAGE = 2
_ROOM_FOR_RUG = 0.12
"""Below the curves of an axis that has none to spare, as a share of their range."""
MOST_TICKS = 5


def build_hparam_scaling(sweep: SweepFit | None, design: SweepDesign | None) -> Document:
    """Partial dependence of the loss on every hyper-parameter, in the sweep cell that three dropdowns choose.

    A cell without finished runs, or whose process could not be fitted, says so in place of its curves. Curves of
    another process than the published one are named over the legend and when hovered; with the ARD process each cell
    has a loss axis of its own, the same on all panels: its valleys are small beside the differences between cells.
    ``design`` is that of the study, whether or not it has a table of trials. Raises :class:`NothingToDraw` where no
    cell was fitted.
    """
    if design is None:
        raise NothingToDraw("no hyper-parameter sweep: the study names none; add [sweep] to its study file")
    results = {(cell.batch_size, cell.hidden_dim, cell.horizon): cell for cell in sweep.cells} if sweep else {}
    fitted = {cell: results[cell] for cell in design.cells if cell in results and results[cell].fitted}
    if not fitted:
        raise NothingToDraw(
            f"no fitted cell of the hyper-parameter sweep: {table_file(design.table)} needs finished runs of a studied "
            "batch size, hidden dim and token horizon"
        )
    n_panels = len(design.hyper_parameters)
    panels = [[fit.dependence[place] for fit in fitted.values()] for place in range(n_panels)]
    shared_ranges = [_loss_range(curves) for curves in panels]
    own_ranges = {}
    if sweep.process == ARD:
        own_ranges = {cell: [_loss_range(fit.dependence, _ROOM_FOR_RUG)] * n_panels for cell, fit in fitted.items()}
    loss_ranges = {cell: own_ranges.get(cell, shared_ranges) for cell in design.cells}

    first = design.first_cell
    data: list[Trace] = []
    for cell in design.cells:
        traces = _cell_traces(fitted[cell], loss_ranges[cell]) if cell in fitted else _blank_traces(design)
        data += [trace | {"visible": cell == first} for trace in traces]
    messages = {cell: _message(cell, results.get(cell)) for cell in design.cells}
    legend = _legend_traces(design)
    grid = _Grid.wide(n_panels)
    page = min(1.0, ROWS_OF_A_PAGE / grid.rows)
    (left, right), (bottom, top) = grid.column(grid.last), grid.row(grid.last)
    layout = {
        "annotations": [_caption(text, x, 1 + CAPTION_Y * page) for text, x in zip(CAPTIONS, MENU_X, strict=True)],
        "legend": {
            "x": round((left + right) / 2, 3),
            "xanchor": "center",
            "y": round((bottom + top) / 2, 3),
            "yanchor": "middle",
            "bgcolor": rgba(PAGE_TAN, 0.8),
            "borderwidth": 0,
            **({} if sweep.process == BROAD else {"title": {"text": _process_name(sweep.process)}}),
        },
        "margin": {"t": 80, "r": 30, "b": 10, "l": 60},
        "title": {
            "text": messages[first],
            "x": sum(grid.column((grid.columns - 1) // 2)) / 2,
            "y": sum(grid.row(0)) / 2,
            "xref": "paper",
            "yref": "paper",
            "xanchor": "center",
            "yanchor": "middle",
            "font": {"size": 14},
        },
        "updatemenus": [
            menu | {"y": 1 + MENU_Y * page}
            for menu in _menus(design, messages, len(legend), loss_ranges if own_ranges else {})
        ],
    }
    if grid.rows > ROWS_OF_A_PAGE:
        layout["height"] = ROW_HEIGHT * grid.rows
    return document(data + legend, _axes(design, grid, panels, loss_ranges[first]) | layout)


def build_hparam_scaling_mobile(wide: Document) -> Document:
    """The figure of :func:`build_hparam_scaling` in two columns for narrow screens; traces are shared."""
    layout = dict(wide["layout"])
    del layout["annotations"]
    n_panels = sum(key.startswith("xaxis") for key in layout) - 1
    loss_title = layout["yaxis"]["title"]
    grid = _Grid.mobile(n_panels)
    for place in range(n_panels + 1):
        x, y = _axis_keys(place + 1)
        layout[x] = layout[x] | {"domain": grid.column(place), "tickangle": 45}
        layout[y] = layout[y] | {"domain": grid.row(place)}
        if place % grid.columns == 0 and place < n_panels:
            layout[y]["title"] = loss_title
        elif "title" in layout[y]:
            layout[y]["title"] = {}
    menu_x = dict(zip(MENU_X, MENU_X_MOBILE, strict=True))
    layout |= {
        "height": ROW_HEIGHT_MOBILE * grid.rows,
        "legend": layout["legend"] | {"x": 1.02, "xanchor": "right", "y": 0.1, "yanchor": "bottom"},
        "margin": {"t": 36, "r": 0, "b": 0, "l": 0},
        "title": layout["title"] | {"x": sum(grid.column(0)) / 2, "y": sum(grid.row(0)) / 2, "font": {"size": 12}},
        "updatemenus": [
            menu | {"x": menu_x[menu["x"]], "y": 1.0, "yanchor": "bottom"} for menu in layout["updatemenus"]
        ],
    }
    return wide | {"layout": layout}


@dataclass(frozen=True)
class _Grid:
    """Places of panels from the upper left, row by row; the last one is left to the legend."""

    rows: int
    columns: int
    row_gap: float
    column_gap: float

    @classmethod
    def wide(cls, n_panels: int) -> _Grid:
        columns = 2 if n_panels in (1, 3) else 3
        return cls(-(-(n_panels + 1) // columns), columns, ROW_GAP, 0.1)

    @classmethod
    def mobile(cls, n_panels: int) -> _Grid:
        columns = 1 if n_panels == 1 else 2
        return cls(-(-(n_panels + 1) // columns), columns, ROW_GAP_MOBILE, 0.1)

    @property
    def last(self) -> int:
        return self.rows * self.columns - 1

    def row(self, place: int) -> list[float]:
        """Vertical domain of a place."""
        return side_by_side(self.rows, spacing=self.row_gap / self.rows)[self.rows - 1 - place // self.columns]

    def column(self, place: int) -> list[float]:
        """Horizontal domain of a place."""
        return side_by_side(self.columns, spacing=self.column_gap)[place % self.columns]


def _loss_range(curves: Sequence[PartialDependence], below: float = 0.0) -> list[float]:
    """The loss axis that holds all bands, headroom above, and a share ``below``."""
    low = min(float(np.min(curve.mean - curve.sd)) for curve in curves)
    high = max(float(np.max(curve.mean + curve.sd)) for curve in curves)
    return [low - below * (high - low), high + 0.04 * (high - low)]


def _cell_traces(fit: CellFit, loss_ranges: list[list[float]]) -> list[Trace]:
    """On each panel: trials as a rug on the floor, curve, one-sigma band, the heuristic's point."""
    traces: list[Trace] = []
    for place, (parameter, curve) in enumerate(zip(fit.design.hyper_parameters, fit.dependence, strict=True)):
        trials = fit.features[:, place]
        floor = np.full(len(trials), loss_ranges[place][0])
        process = _process_note(fit, place)
        panel = [
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
        ]
        if parameter.heuristic is not None:
            panel.append(_heuristic_mark(fit, parameter, curve, process))
        traces += [on_panel(trace, place + 1) | {"showlegend": False} for trace in panel]
    return traces


def _heuristic_mark(fit: CellFit, parameter: HyperParameter, curve: PartialDependence, process: str) -> Trace:
    support = "" if curve.heuristic_in_support else " (extrapolated)"
    units = f"{escape(parameter.title)}=%{{customdata[0]:.3g}}"
    hover = f"{escape(fit.design.heuristic_name)}{support}<br>{units}<br>PDP loss=%{{y:.4f}}{process}"
    value = [[parameter.backward(curve.heuristic)]]
    return marks([curve.heuristic], [curve.heuristic_mean], HEURISTIC, hover, customdata=value)


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
        lines.append(f"on a bound: {escape(', '.join(fit.bounds_hit))}")
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


def _traces_per_cell(design: SweepDesign) -> int:
    """Three traces a panel, and the mark of the heuristic where there is one."""
    return sum(3 if parameter.heuristic is None else 4 for parameter in design.hyper_parameters)


def _blank_traces(design: SweepDesign) -> list[Trace]:
    """The traces of a cell without curves: as many as with curves, so that all cells are switched alike."""
    blank = on_panel({"type": "scatter", "mode": "markers", "x": [], "y": []}, 1)
    return [blank] * _traces_per_cell(design)


def _legend_traces(design: SweepDesign) -> list[Trace]:
    """The entries of the legend, which stand for the traces of whichever cell is shown."""
    entry = {"type": "scatter", "x": [None], "y": [None], "showlegend": True, "visible": True}
    entries = [
        entry | {"mode": "markers", "marker": RUG, "name": "Sampled runs"},
        entry | {"mode": "lines", "line": CURVE, "name": "Sensitivity curve"},
    ]
    if any(parameter.heuristic is not None for parameter in design.hyper_parameters):
        entries.append(entry | {"mode": "markers", "marker": HEURISTIC, "name": escape(design.heuristic_legend)})
    return entries


def _message(cell: Cell, fit: CellFit | None) -> str:
    """What stands in the chart where a cell has no curves, short enough for one panel; empty where it has."""
    if fit is not None and fit.fitted:
        return ""
    place = ", ".join(f"{letter} = {escape(str(value))}" for letter, value in zip(LETTERS, cell, strict=True))
    if fit is None or fit.n_finished == 0:
        return f"No finished runs for<br>{place}"
    return f"Not fitted ({fit.status.label}):<br>{place}"


def _caption(text: str, x: float, y: float) -> dict[str, Any]:
    """What stands above a dropdown."""
    place = {"x": x, "y": y, "xref": "paper", "yref": "paper", "xanchor": "left", "yanchor": "bottom"}
    return place | {"text": text, "showarrow": False, "font": {"size": 12}}


def _axis_keys(panel: int) -> tuple[str, str]:
    number = "" if panel == 1 else str(panel)
    return f"xaxis{number}", f"yaxis{number}"


def _axes(
    design: SweepDesign, grid: _Grid, panels: list[list[PartialDependence]], loss_ranges: list[list[float]]
) -> dict[str, Any]:
    """The panels, and behind them an empty one."""
    axes: dict[str, Any] = {}
    for place in range(len(panels) + 1):
        x, y = _axis_keys(place + 1)
        axes[x] = {"anchor": y.replace("axis", ""), "domain": grid.column(place)}
        axes[y] = {"anchor": x.replace("axis", ""), "domain": grid.row(place)}
        if place == len(panels):
            axes[x]["visible"] = axes[y]["visible"] = False
            continue
        axes[x] |= _feature_axis(design.hyper_parameters[place], panels[place])
        axes[y]["range"] = loss_ranges[place]
        if place % grid.columns == 0:
            axes[y]["title"] = {"text": escape(design.loss_title)}
    return axes


def _feature_axis(parameter: HyperParameter, curves: Sequence[PartialDependence]) -> dict[str, Any]:
    """One hyper-parameter's axis over all cells: drawn on the scale of its transform, labelled in original units."""
    low = min(float(curve.grid[0]) for curve in curves)
    high = max(float(curve.grid[-1]) for curve in curves)
    axis = {"title": {"text": escape(parameter.title)}, "range": [low, high]}
    if parameter.transform == "linear":
        return axis
    ticks = _ticks(parameter, low, high)
    texts = [axis_value(parameter.backward(tick)) for tick in ticks]
    return axis | {"tickmode": "array", "tickvals": ticks, "ticktext": texts}


def _ticks(parameter: HyperParameter, low: float, high: float) -> list[float]:
    """Logs of 1, 2, 5 times powers of ten within [low, high], thinned evenly, ascending in original units."""
    decades = range(math.floor(low / math.log(10)), math.ceil(high / math.log(10)))
    logs = [math.log(digit * 10.0**decade) for decade in decades for digit in (1, 2, 5)]
    inside = [tick for tick in logs if low <= tick <= high]
    if parameter.transform == "log(1-x)":
        inside.reverse()
    if len(inside) > MOST_TICKS:
        inside = [inside[place] for place in np.linspace(0, len(inside) - 1, MOST_TICKS).round().astype(int)]
    return inside


def _copy(dimension: int, cell: Cell) -> Copy:
    """The dropdown of ``dimension`` that shows while ``cell`` is drawn."""
    return dimension, cell[:dimension] + cell[dimension + 1 :]


def _menus(
    design: SweepDesign, messages: dict[Cell, str], n_legend: int, loss_ranges: dict[Cell, list[list[float]]]
) -> list[dict[str, Any]]:
    """Every copy of the three dropdowns. Those of the first cell stand first, and only they are visible.

    ``loss_ranges`` of the panels by cell, where they differ from cell to cell.
    """
    cells, choices, first_cell = design.cells, _choices(design), design.first_cell
    first = [_copy(dimension, first_cell) for dimension in DIMENSIONS]
    copies = dict.fromkeys([*first, *(_copy(dimension, cell) for dimension in DIMENSIONS for cell in cells)])
    places = {copy: place for place, copy in enumerate(copies)}
    per_cell = _traces_per_cell(design)
    visible = {cell: [owner == cell for owner in cells for _ in range(per_cell)] + [True] * n_legend for cell in cells}
    menus = []
    for dimension, others in copies:
        buttons = []
        for value in choices[dimension]:
            cell = (*others[:dimension], value, *others[dimension:])
            buttons.append(
                {
                    "method": "update",
                    "label": f"{LETTERS[dimension]} = {escape(str(value))}",
                    "args": [
                        {"visible": visible[cell]},
                        {"title.text": messages[cell]}
                        | {
                            f"{_axis_keys(panel)[1]}.range": loss_range
                            for panel, loss_range in enumerate(loss_ranges.get(cell, ()), start=1)
                        }
                        | _swap(choices, dimension, cell, places),
                    ],
                }
            )
        menus.append(
            {
                "x": MENU_X[dimension],
                "xanchor": "left",
                "yanchor": "top",
                "buttons": buttons,
                "active": choices[dimension].index(first_cell[dimension]),
                "visible": (dimension, others) in first,
                "showactive": True,
                "direction": "down",
                "bgcolor": rgba(PAGE_TAN, 0.9),
                "borderwidth": 0,
            }
        )
    return menus


def _choices(design: SweepDesign) -> tuple[tuple[Any, ...], ...]:
    """What each dropdown offers."""
    return design.batch_sizes, design.hidden_dims, tuple(horizon.key for horizon in design.horizons)


def _swap(choices: tuple[tuple[Any, ...], ...], dimension: int, cell: Cell, places: dict[Copy, int]) -> dict[str, Any]:
    """What choosing ``cell`` along ``dimension`` does to the other dropdowns; the clicked one updates itself.

    Before the click, the cell may have had any value of ``dimension``: the copies that belong to those values
    are hidden, the copies that belong to ``cell`` are shown with its values chosen.
    """
    changes: dict[str, Any] = {}
    for other in DIMENSIONS:
        if other == dimension:
            continue
        for value in choices[dimension]:
            before = (*cell[:dimension], value, *cell[dimension + 1 :])
            changes[f"updatemenus[{places[_copy(other, before)]}].visible"] = before == cell
        changes[f"updatemenus[{places[_copy(other, cell)]}].active"] = choices[other].index(cell[other])
    return changes
