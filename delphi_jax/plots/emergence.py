"""mmlu-emergence: a smooth soft metric forecasts a hard one, per downstream task and shot count."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from delphi_jax.labels import (
    COMPUTE,
    EXTERNAL_MODELS,
    RANDOM_CHANCE,
    budget_name,
)
from delphi_jax.plots.drawers import (
    Document,
    NothingToDraw,
    Trace,
    compute_grid,
    divider,
    document,
    horizontal_legend,
    line,
    log_grid,
    marks,
    on_panel,
    side_by_side,
    subplot_title,
)
from delphi_jax.plots.mobile import stacked
from delphi_jax.plots.theme import BRAND_TERRACOTTA, EXTERNAL_GREY, INK, LEADER_GREY, PAGE_TAN, rgba
from delphi_jax.results import DownstreamFit
from delphi_jax.tasks import Task, TaskWords, no_evaluations
from delphi_jax.text import axis_value, escape, residual

__all__ = [
    "CURVE",
    "EmergenceView",
    "build_emergence",
    "build_mmlu_emergence",
    "build_mmlu_emergence_mobile",
    "escaped_words",
]

Floats = NDArray[np.float64]

FEWEST_TICKS = 2
"""Of the task's own that an axis must hold: else it has ticks at digits times powers of ten."""
BELOW_FLOOR = 0.05
"""How far the axis of a hard metric reaches below its floor, if that is above zero."""
PAD = 0.06
"""Decades between the outermost value and the edge of a logarithmic axis."""

CURVE = {"color": BRAND_TERRACOTTA, "width": 1.5, "dash": "dash"}
LABEL_FONT = {"color": INK, "size": 11}


@dataclass(frozen=True, eq=False)
class EmergenceView:
    """One entry of the dropdown, and what stands in its panels besides points, law, curve and forecast."""

    fit: DownstreamFit
    under: list[Trace] = field(default_factory=list)
    """Drawn below the points."""
    over: list[Trace] = field(default_factory=list)
    """Drawn above them."""
    note: str = ""
    """Behind the label of the forecast."""
    detail: str = ""
    """Behind what hovering over the forecast says."""
    best_soft: float = math.inf
    """Soft metric that both axes reach at least."""
    last_compute: float = 0.0
    """FLOPs that the compute axis reaches at least."""


@dataclass(frozen=True)
class _SoftAxis:
    """The soft metric of one task on both panels. Ranges run from worse to better, in log10."""

    law_range: list[float]
    curve_range: list[float]
    curve_grid: Floats
    """[400] soft metric at which the Richards curve is drawn."""


def build_mmlu_emergence(views: Iterable[DownstreamFit], tasks: Sequence[Task]) -> Document:
    """Soft metric against compute, hard metric against soft metric; a dropdown switches task and shot count.

    Views stand in the order of the study's ``tasks``. A law or a curve that could not be fitted is left out, its
    points stay. Raises :class:`NothingToDraw` where no task was evaluated.
    """
    return build_emergence([EmergenceView(view) for view in views], tasks)


def build_emergence(views: Iterable[EmergenceView], tasks: Sequence[Task]) -> Document:
    """The figure of :func:`build_mmlu_emergence`, with what its ``views`` add to their panels."""
    places = [task.key for task in tasks]
    shown = sorted(
        (view for view in views if len(view.fit.budget)),
        key=lambda view: (places.index(view.fit.task.key), view.fit.shot),
    )
    if not shown:
        raise NothingToDraw(no_evaluations(tasks))
    first = next((i for i, view in enumerate(shown) if view.fit.shot == view.fit.task.first_shot), 0)
    keys = dict.fromkeys(view.fit.task.key for view in shown)
    axes = {key: _soft_axis([view for view in shown if view.fit.task.key == key]) for key in keys}
    floors = [view.fit.task.floor for view in shown if view.fit.task.floor > 0]
    start = float(min(view.fit.budget.min() for view in shown)) / 10**0.1
    end = 3 * max(max(view.fit.forecast_budget, view.last_compute) for view in shown)
    compute = compute_grid(start, end)

    traces: list[list[Trace]] = [
        _view_traces(view, compute, axes[view.fit.task.key], visible=place == first) for place, view in enumerate(shown)
    ]
    owners = [place for place, drawn in enumerate(traces) for _ in drawn]
    updates = [_view_layout(view.fit, axes[view.fit.task.key]) for view in shown]
    if len(set(floors)) > 1:
        for view, update in zip(shown, updates, strict=True):
            floor = view.fit.task.floor
            update |= {"annotations[4].y": floor, "shapes[1].y0": floor, "shapes[1].y1": floor}
    buttons = [
        {
            "method": "update",
            "label": escape(view.fit.name),
            "args": [{"visible": [owner == place for owner in owners]}, update],
        }
        for place, (view, update) in enumerate(zip(shown, updates, strict=True))
    ]
    menu = {
        "x": -0.16,
        "y": -0.16,
        "xanchor": "left",
        "yanchor": "top",
        "buttons": buttons,
        "active": first,
        "showactive": True,
        "direction": "up",
        "pad": {"t": 4, "b": 4, "l": 6, "r": 6},
        "bgcolor": rgba(PAGE_TAN, 0.9),
        "borderwidth": 0,
    }
    chance = next((floor for floor in (shown[first].fit.task.floor, *floors) if floor > 0), 0.0)
    layout = _layout(updates[first], [math.log10(start), math.log10(end)], chance, shown[first].fit.definition.divide)
    return document([trace for drawn in traces for trace in drawn], layout | {"updatemenus": [menu]})


def build_mmlu_emergence_mobile(wide: Document) -> Document:
    """The figure of :func:`build_mmlu_emergence`, stacked for narrow screens."""
    (menu,) = wide["layout"]["updatemenus"]
    return stacked(
        wide,
        height=760,
        margin={"t": 32, "r": 24, "b": 110, "l": 56},
        legend={"x": 0.5, "y": -0.08},
        updatemenus=[menu | {"x": 0.5, "xanchor": "center", "y": -0.22}],
    )


def escaped_words(task: Task) -> TaskWords:
    """The words of a task as text, never markup."""
    return TaskWords(**{name: escape(word) for name, word in vars(task.words).items()})


def _soft_axis(views: Sequence[EmergenceView]) -> _SoftAxis:
    """Ranges over all views of one task, so that switching the shot count moves points, not axes."""
    fits = [view.fit for view in views]
    own = np.concatenate([fit.soft for fit in fits])
    pool = np.concatenate([own, *(fit.external_soft for fit in fits)])
    low, high = float(pool.min()), float(pool.max())
    fitted = [fit for fit in fits if fit.law.fitted]
    best = [view.best_soft for view in views]
    floor = min([low, *(fit.law.L_inf for fit in fitted), *best])
    if fits[0].task.soft_sign < 0:
        pad = 0.08 * (high - low)
        span = [math.log10(high) + PAD, math.log10(floor) - PAD]
        return _SoftAxis(span, span, np.linspace(high + pad, low - pad, 400))
    # Wide enough for the points, and for a forecast that lies beyond them.
    edge = min([0.85 * low, *(0.95 * fit.forecast_soft for fit in fitted), *(0.95 * value for value in best)])
    return _SoftAxis(
        law_range=[math.log10(own.max()) + PAD, math.log10(floor) - PAD],
        curve_range=[math.log10(1.15 * high), math.log10(edge)],
        curve_grid=log_grid(0.5 * low, 1.3 * high, 400),
    )


def _ticks(task: Task, span: list[float]) -> tuple[list[float], list[str]]:
    """Tick values and their texts on an axis of the soft metric over ``span``, log10."""
    minus = "−" if task.soft_sign < 0 else ""
    inside = [tick for tick in task.soft_ticks if 10 ** span[1] <= tick <= 10 ** span[0]]
    if len(inside) < FEWEST_TICKS:
        inside = _plain_ticks(10 ** span[1], 10 ** span[0])
    elif minus:
        # A tick beyond the axis costs nothing, and all views of the task have the same ones.
        inside = list(task.soft_ticks)
    return inside, [f"{minus}{axis_value(tick)}" for tick in inside]


def _plain_ticks(low: float, high: float) -> list[float]:
    """One to nine times powers of ten within [low, high], of the fewest digits that give two of them."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for digits in ((1,), (1, 3), (1, 2, 5), tuple(range(1, 10)), tuple(place / 10 for place in range(10, 100))):
        ticks = [digit * 10.0**decade for decade in decades for digit in digits]
        inside = [tick for tick in ticks if low <= tick <= high]
        if len(inside) >= FEWEST_TICKS:
            break
    return inside


def _view_traces(view: EmergenceView, compute: Floats, axis: _SoftAxis, visible: bool) -> list[Trace]:
    """Every trace of one view, those that its data cannot support left out."""
    fit = view.fit
    drawn = [
        *view.under,
        *_law_panel(fit, compute),
        *_curve_panel(fit, axis.curve_grid),
        *_forecast_marks(view, axis.curve_range),
        *view.over,
    ]
    return [trace | {"visible": visible} for trace in drawn]


def _law_panel(view: DownstreamFit, compute: Floats) -> list[Trace]:
    """Soft metric against compute: law, runs, held-out runs and their residuals on leader lines."""
    words, name, sign = escaped_words(view.task), escape(view.name), view.task.soft_sign
    value = "%{y:.3f}" if sign > 0 else "%{customdata[0]:.3f}"
    where = f"C=%{{x:.3e}} FLOPs<br>{words.soft_hover}={value}"
    traces = []
    if view.law.fitted:
        soft = view.law.loss_at(compute)
        title = f"{name} asymptote (α={view.law.alpha:.3f}, L∞={view.law.L_inf:.3f})"
        curve = line(compute, soft, CURVE, f"{name} {words.law}<br>{where}", name=title, showlegend=False)
        traces.append(curve if sign > 0 else curve | {"customdata": -soft[:, None]})
    for held_out, rows in ((False, view.train), (True, ~view.train)):
        if rows.any():
            labels = _run_names(view, rows, held_out)
            custom = [[label] for label in labels] if sign > 0 else _pairs(-view.soft[rows], labels)
            label = "%{customdata[0]}" if sign > 0 else "%{customdata[1]}"
            hover = f"{_run_title(name, held_out)}<br>{label}<br>{where}"
            points = _own_marks(view, view.budget[rows], view.soft[rows], held_out, hover, custom)
            traces.append(points | {"showlegend": False} if held_out else points)
    if view.law.fitted and (~view.train).any():
        traces.append(_residual_callouts(view))
    return [on_panel({"legendgroup": name} | trace, 1) for trace in traces]


def _curve_panel(view: DownstreamFit, grid: Floats) -> list[Trace]:
    """Hard metric against soft metric: Richards curve, external models, runs and held-out runs."""
    words, name, sign = escaped_words(view.task), escape(view.name), view.task.soft_sign
    traces = []
    if view.richards is not None and view.richards.fitted:
        fit = view.richards
        numbers = f"k={fit.k:.2f}, v={fit.v:.2f}, C={fit.ceiling:.2f}"
        if view.law.fitted:
            numbers += f", L∞={view.law.L_inf:.3f}"
        hover = (
            f"{name} Richards fit<br>{words.soft_hover}=%{{customdata[0]:.3f}}"
            f"<br>predicted {words.hard_short}=%{{y:.3f}}"
        )
        title = f"{name} Richards fit ({numbers})"
        curve = line(grid, fit.predict(-grid), CURVE, hover, name=title, showlegend=False)
        traces.append(curve | {"customdata": sign * grid[:, None]})
    external = np.flatnonzero(np.isfinite(view.external_hard))
    own = np.flatnonzero(np.isfinite(view.hard))
    if view.task.sort_points:
        external = external[np.argsort(view.external_soft[external], kind="stable")]
        own = own[np.argsort(view.soft[own], kind="stable")]
    if len(external):
        names = [escape(view.external_names[row]) for row in external]
        pairs = _pairs(sign * view.external_soft[external], names)
        custom, model, value = (pairs, 1, 0) if sign > 0 else ([pair[::-1] for pair in pairs], 0, 1)
        hover = (
            f"%{{customdata[{model}]}}<br>{words.soft_hover}=%{{customdata[{value}]:.3f}}<br>{words.hard}=%{{y:.3f}}"
        )
        marker = {
            "color": EXTERNAL_GREY,
            "size": 7,
            "symbol": "circle",
            "opacity": 0.55,
            "line": {"width": 0},
        }
        soft, hard = view.external_soft[external], view.external_hard[external]
        group = {"name": EXTERNAL_MODELS, "legendgroup": "external"}
        traces.append(marks(soft, hard, marker, hover, customdata=custom, **group))
    for held_out in (False, True):
        rows = own[view.train[own] != held_out]
        if len(rows):
            custom = _pairs(sign * view.soft[rows], _run_names(view, rows, held_out))
            hover = (
                f"{_run_title(name, held_out)}<br>%{{customdata[1]}}"
                f"<br>{words.soft_hover}=%{{customdata[0]:.3f}}<br>{words.hard}=%{{y:.3f}}"
            )
            points = _own_marks(view, view.soft[rows], view.hard[rows], held_out, hover, custom)
            traces.append(points | {"showlegend": False})
    return [on_panel({"legendgroup": name} | trace, 2) for trace in traces]


def _forecast_marks(shown: EmergenceView, span: list[float]) -> list[Trace]:
    """The forecast of the law and, where there is a curve, of the hard metric, on a soft axis over ``span``, log10."""
    view = shown.fit
    if not view.law.fitted:
        return []
    words, name = escaped_words(view.task), escape(view.name)
    budget, signed = budget_name(view.forecast_budget), view.task.soft_sign * view.forecast_soft
    hover = f"{name} {budget} forecast<br>C={budget} FLOPs<br>{words.soft_hover}={signed:.3f}"
    has_curve = view.richards is not None and view.richards.fitted
    if has_curve:
        hover += f"<br>predicted {words.hard_short}={view.forecast_hard:.3f}"
    hover += shown.detail
    marker = {
        "color": BRAND_TERRACOTTA,
        "size": 14,
        "symbol": "x-open",
        "line": {"color": BRAND_TERRACOTTA, "width": 2},
    }
    rest = {"name": f"{name} ({budget} forecast)", "legendgroup": name, "showlegend": False}
    traces = [on_panel(marks([view.forecast_budget], [view.forecast_soft], marker, hover, **rest), 1)]
    if has_curve:
        # A label with a note is too long for the left half of the panel, where it would stand beyond the axis.
        left_half = math.log10(view.forecast_soft) > sum(span) / 2
        rest |= {
            "mode": "markers+text",
            "text": [f"{budget} forecast: {100 * view.forecast_hard:.1f}%{shown.note}"],
            "textfont": LABEL_FONT,
            "textposition": "bottom right" if shown.note and left_half else "top left",
        }
        mark = marks([view.forecast_soft], [view.forecast_hard], marker, hover, **rest)
        traces.append(on_panel(mark, 2))
    return traces


def _own_marks(view: DownstreamFit, x: Floats, y: Floats, held_out: bool, hover: str, custom: list[list[str]]) -> Trace:
    marker = {"color": BRAND_TERRACOTTA, "size": 11 if held_out else 9, "symbol": "circle"}
    title = f"{escape(view.name)} ({escape(view.definition.name)} {'held-out' if held_out else 'fit'})"
    return marks(x, y, marker, hover, name=title, customdata=custom)


def _residual_callouts(view: DownstreamFit) -> Trace:
    """Leader lines from each held-out mean to its residual, as one trace.

    The ids keep labels at their points: without them plotly.js matches labels to points by place, which the
    gaps and the empty texts shift on every redraw, and labels disappear.
    """
    x: list[float | None] = []
    y: list[float | None] = []
    text: list[str] = []
    for budget, mean, percent in zip(*view.held_out_residuals(), strict=True):
        x += [float(budget), 1.7 * float(budget), None]
        y += [float(mean), 1.08 * float(mean), None]
        text += ["", residual(percent), ""]
    stroke = {"color": rgba(LEADER_GREY, 0.55), "width": 1}
    label = {"mode": "lines+text", "text": text, "textposition": "middle right", "textfont": LABEL_FONT}
    return line(x, y, stroke, ids=[str(place) for place in range(len(x))], showlegend=False, **label)


def _run_title(name: str, held_out: bool) -> str:
    return f"{name} ({'held-out' if held_out else 'fit'})"


def _run_names(view: DownstreamFit, rows: NDArray[Any], held_out: bool) -> list[str]:
    name = view.definition.held_out_name if held_out else view.definition.isoflop_name
    return [escape(name(budget)) for budget in view.budget[rows].tolist()]


def _pairs(values: Floats, names: Sequence[str]) -> list[list[str]]:
    """Hover data of points: the value, as text beside text, and the name."""
    return [[str(value), name] for value, name in zip(values.tolist(), names, strict=True)]


def _view_layout(view: DownstreamFit, axis: _SoftAxis) -> dict[str, Any]:
    """What choosing a view sets, by the path of each layout attribute."""
    task, words, name = view.task, escaped_words(view.task), escape(view.task.name)
    law_ticks, law_texts = _ticks(task, axis.law_range)
    curve_ticks, curve_texts = _ticks(task, axis.curve_range)
    hard = escape(task.words.hard[0].upper() + task.words.hard[1:])
    has_hard = bool(np.isfinite(view.hard).any() or np.isfinite(view.external_hard).any())
    return {
        "annotations[0].text": f"{words.soft_subject} improves smoothly with compute",
        "annotations[1].text": f"{hard} emerges at larger scales" if has_hard else "",
        "annotations[4].visible": has_hard and task.floor > 0,
        "shapes[1].visible": has_hard and task.floor > 0,
        "yaxis.title.text": f"{name} {words.soft}",
        "yaxis.range": axis.law_range,
        "yaxis.tickvals": law_ticks,
        "yaxis.ticktext": law_texts,
        "xaxis2.visible": has_hard,
        "xaxis2.type": "log",
        "xaxis2.title.text": f"{name} {words.soft}",
        "xaxis2.range": axis.curve_range,
        "xaxis2.tickvals": curve_ticks,
        "xaxis2.ticktext": curve_texts,
        "yaxis2.visible": has_hard,
        "yaxis2.type": "linear",
        "yaxis2.title.text": f"{name} {words.hard}",
        "yaxis2.range": [task.floor - BELOW_FLOOR, 1.0] if task.floor > BELOW_FLOOR else [-0.01, 1.0],
        "yaxis2.tickformat": ".0%",
    }


def _layout(update: dict[str, Any], compute_range: list[float], chance: float, divide: float) -> dict[str, Any]:
    """Both panels as the view behind ``update`` shows them.

    ``chance`` is the hard metric of random guessing, ``divide`` in FLOPs.
    """

    def axis(key: str, *fields: str) -> dict[str, Any]:
        return {field: update[f"{key}.{field}"] for field in fields} | {"title": {"text": update[f"{key}.title.text"]}}

    left, right = side_by_side(2, spacing=0.14)
    divide_line, divide_labels = divider("x", "y domain", divide)
    chance_line, chance_label = _random_chance(chance, update["shapes[1].visible"])
    ticks = ("range", "tickvals", "ticktext")
    return {
        "xaxis": {
            "anchor": "y",
            "domain": left,
            "title": {"text": COMPUTE},
            "type": "log",
            "range": compute_range,
        },
        "yaxis": {"anchor": "x", "domain": [0.0, 1.0], "type": "log"} | axis("yaxis", *ticks),
        "xaxis2": {"anchor": "y2", "domain": right} | axis("xaxis2", "type", "visible", *ticks),
        "yaxis2": {"anchor": "x2", "domain": [0.0, 1.0]} | axis("yaxis2", "type", "visible", "range", "tickformat"),
        "annotations": [
            subplot_title(update["annotations[0].text"], left),
            subplot_title(update["annotations[1].text"], right),
            *divide_labels,
            chance_label,
        ],
        "shapes": [divide_line, chance_line],
        "legend": horizontal_legend(x=0.62, y=-0.18, tracegroupgap=12),
        "margin": {"t": 40, "r": 30, "b": 60, "l": 60},
    }


def _random_chance(floor: float, visible: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    """The line of random guessing on the right panel and its label, for tasks of which it solves some."""
    shape = {
        "type": "line",
        "xref": "x2 domain",
        "yref": "y2",
        "x0": 0,
        "x1": 1,
        "y0": floor,
        "y1": floor,
        "line": {"color": INK, "width": 1, "dash": "dot"},
        "opacity": 0.45,
        "visible": visible,
    }
    label = {
        "text": RANDOM_CHANCE,
        "xref": "x2 domain",
        "yref": "y2",
        "x": 0.98,
        "y": floor,
        "xanchor": "right",
        "yanchor": "top",
        "showarrow": False,
        "font": LABEL_FONT,
        "visible": visible,
    }
    return shape, label
