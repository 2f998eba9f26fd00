"""loss-surface: the loss over parameters and tokens, where the runs lie off it, and the cheapest way down."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from delphi_jax.formulas import FLOPS_PER_PARAM_TOKEN, optimal_params, residual_percent
from delphi_jax.labels import PARAMS, TOKENS
from delphi_jax.plots.drawers import (
    Document,
    NothingToDraw,
    Trace,
    document,
    horizontal_legend,
    line,
    log_grid,
    marks,
    on_panel,
    side_by_side,
    status_note,
    subplot_title,
)
from delphi_jax.plots.theme import BRAND_BLACK, BRAND_BLUE, BRAND_TERRACOTTA, INK, PAGE_TAN, rgba
from delphi_jax.results.surface import SurfaceFit, SurfaceStudy
from delphi_jax.text import escape

__all__ = ["build_loss_surface", "build_loss_surface_mobile"]

GRID = 60
"""Values along each axis of the contours."""
MARGIN = 0.15
"""Decades beside the outermost runs."""
CONTOURS = 14
"""About as many lines of equal loss in a panel."""
DIVERGING = [[0.0, BRAND_BLUE], [0.5, PAGE_TAN], [1.0, BRAND_TERRACOTTA]]
"""Runs better than the surface, on it, and worse."""
ROW_HEIGHT = 420
"""Pixels of a panel on narrow screens."""


def build_loss_surface(study: SurfaceStudy) -> Document:
    """The loss-surface figure: per suite lines of equal loss, the runs by residual, and the optimal allocation.

    Raises :class:`NothingToDraw` where no suite has a surface.
    """
    fits = [fit for fit in study.fits if fit.fitted]
    if not fits:
        reasons = "; ".join(f"{fit.series}: {fit.status.label}" for fit in study.fits)
        raise NothingToDraw(f"no suite has a surface ({reasons or 'there are no IsoFLOP runs'})")
    columns = side_by_side(len(fits), spacing=0.1)
    residuals = [residual_percent(fit.loss, fit.loss_at(fit.params, fit.tokens)) for fit in fits]
    largest = max(float(np.max(np.abs(each))) for each in residuals)
    data: list[Trace] = []
    layout: dict[str, Any] = {"annotations": []}
    for panel, (fit, residual, column) in enumerate(zip(fits, residuals, columns, strict=True), 1):
        traces = [_contours(fit), _equal_compute(fit, panel), *_path(fit, panel), _runs(fit, residual, panel)]
        data += [on_panel(trace, panel) for trace in traces]
        number = "" if panel == 1 else str(panel)
        (low_n, high_n), (low_d, high_d) = _ends(fit.params), _ends(fit.tokens)
        layout[f"xaxis{number}"] = {
            "anchor": f"y{number}",
            "domain": column,
            "type": "log",
            "title": {"text": PARAMS},
            "range": [low_n, high_n],
        }
        layout[f"yaxis{number}"] = {
            "anchor": f"x{number}",
            "domain": [0.0, 1.0],
            "type": "log",
            "title": {"text": TOKENS},
            "range": [low_d, high_d],
        }
        layout["annotations"].append(
            subplot_title(f"{escape(fit.series)}{status_note(fit.status, 'surface', lead=', ')}", column)
        )
    bar = {
        "title": {"text": "run − surface (%)", "side": "right"},
        "thickness": 12,
        "len": 0.8,
        "outlinewidth": 0,
        "tickformat": "+.1f",
    }
    return document(
        data,
        layout
        | {
            "coloraxis": {"colorscale": DIVERGING, "cmin": -largest, "cmax": largest, "colorbar": bar},
            "legend": horizontal_legend(x=0.5, y=-0.2),
            "margin": {"t": 40, "r": 30, "b": 10, "l": 60},
        },
    )


def build_loss_surface_mobile(wide: Document) -> Document:
    """A figure from :func:`build_loss_surface`, its panels under one another for narrow screens."""
    old = wide["layout"]
    n = len(old["annotations"])
    rows = side_by_side(n, spacing=0.2 / n)[::-1]
    layout: dict[str, Any] = {}
    for panel, row in enumerate(rows, 1):
        number = "" if panel == 1 else str(panel)
        layout[f"xaxis{number}"] = old[f"xaxis{number}"] | {"domain": [0.0, 1.0]}
        layout[f"yaxis{number}"] = old[f"yaxis{number}"] | {"domain": row}
    titles = [title | {"x": 0.5, "y": row[1]} for title, row in zip(old["annotations"], rows, strict=True)]
    # A bar beside the panels would take their width.
    bar = old["coloraxis"]["colorbar"] | {
        "orientation": "h",
        "y": -0.16 / n,
        "yanchor": "top",
        "len": 1.0,
        "title": old["coloraxis"]["colorbar"]["title"] | {"side": "bottom"},
    }
    layout |= {
        "height": n * ROW_HEIGHT + 80,
        "margin": {"t": 30, "r": 20, "b": 20, "l": 56},
        "annotations": titles,
        "coloraxis": old["coloraxis"] | {"colorbar": bar},
        "legend": old["legend"] | {"y": -0.36 / n},
    }
    return wide | {"layout": old | layout}


def _ends(values: np.ndarray) -> tuple[float, float]:
    """log10 of the panel's ends along one axis."""
    return math.log10(values.min()) - MARGIN, math.log10(values.max()) + MARGIN


def _grid(values: np.ndarray) -> np.ndarray:
    low, high = _ends(values)
    return log_grid(10**low, 10**high, GRID)


def _contours(fit: SurfaceFit) -> Trace:
    params, tokens = _grid(fit.params), _grid(fit.tokens)
    return {
        "type": "contour",
        "x": params,
        "y": tokens,
        "z": fit.loss_at(params[None, :], tokens[:, None]),
        "ncontours": CONTOURS,
        "contours": {"coloring": "none", "showlabels": True, "labelfont": {"color": INK, "size": 10}},
        "line": {"color": rgba(BRAND_BLACK, 0.35), "width": 1},
        "showscale": False,
        "showlegend": False,
        "hovertemplate": f"surface<br>N=%{{x:.3e}}<br>D=%{{y:.3e}}<br>loss=%{{z:.4f}}{status_note(fit.status)}"
        "<extra></extra>",
    }


def _equal_compute(fit: SurfaceFit, panel: int) -> Trace:
    """Lines of equal N*D, through every power of ten of 6*N*D FLOPs."""
    (low_n, high_n), (low_d, high_d) = _ends(fit.params), _ends(fit.tokens)
    six = math.log10(FLOPS_PER_PARAM_TOKEN)
    decades = np.arange(math.ceil(low_n + low_d + six), math.floor(high_n + high_d + six) + 1)
    left, right = np.maximum(low_n, decades - six - high_d), np.minimum(high_n, decades - six - low_d)
    # A gap behind each line, so that all of them are one trace.
    params = np.stack([left, right, np.full(len(decades), np.nan)], axis=1)
    tokens = decades[:, None] - six - params
    return line(
        10.0 ** params.ravel(),
        10.0 ** tokens.ravel(),
        {"color": rgba(BRAND_BLUE, 0.5), "width": 1, "dash": "dot"},
        "6ND=%{customdata:.0e} FLOPs",
        customdata=np.repeat(10.0**decades, 3),
        name="equal compute (6ND)",
        legendgroup="compute",
        showlegend=panel == 1,
    )


def _path(fit: SurfaceFit, panel: int) -> list[Trace]:
    """Parameters and tokens of the lowest loss where their product is given; none where the loss lacks one of them."""
    if not (fit.A > 0 and fit.B > 0):
        return []
    (low_n, high_n), (low_d, high_d) = _ends(fit.params), _ends(fit.tokens)
    product = log_grid(10 ** (low_n + low_d), 10 ** (high_n + high_d), 200)
    params = optimal_params(product, fit.A, fit.B, fit.a, fit.b)
    tokens = product / params
    seen = (np.abs(np.log10(params) - (low_n + high_n) / 2) <= (high_n - low_n) / 2) & (
        np.abs(np.log10(tokens) - (low_d + high_d) / 2) <= (high_d - low_d) / 2
    )
    params, tokens = params[seen], tokens[seen]
    return [
        line(
            params,
            tokens,
            {"color": BRAND_BLACK, "width": 2, "dash": "dash"},
            "optimal allocation<br>N=%{x:.3e}<br>D=%{y:.3e}<br>D/N=%{customdata[0]:.3g}<br>loss=%{customdata[1]:.4f}"
            f"{status_note(fit.status)}",
            customdata=np.stack([tokens / params, fit.loss_at(params, tokens)], axis=1),
            name="optimal allocation",
            legendgroup="path",
            showlegend=panel == 1,
        )
    ]


def _runs(fit: SurfaceFit, residual: np.ndarray, panel: int) -> Trace:
    marker = {
        "color": residual,
        "coloraxis": "coloraxis",
        "size": 9,
        "line": {"color": rgba(BRAND_BLACK, 0.6), "width": 1},
    }
    return marks(
        fit.params,
        fit.tokens,
        marker,
        "N=%{x:.3e}<br>D=%{y:.3e}<br>loss=%{customdata[0]:.4f}<br>run − surface=%{customdata[1]:+.2f}%"
        f"{status_note(fit.status, 'surface')}",
        customdata=np.stack([fit.loss, residual], axis=1),
        name="IsoFLOP runs",
        legendgroup="runs",
        showlegend=panel == 1,
    )
