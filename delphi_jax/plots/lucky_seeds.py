"""lucky-seeds: the held-out residuals are not luck. Seeds beside the bootstrap interval of the forecast."""

from __future__ import annotations

from typing import Any

import numpy as np

from delphi_jax.plots.drawers import Document, NothingToDraw, Trace, document, horizontal_legend, marks, status_note
from delphi_jax.plots.theme import BRAND_BLACK, BRAND_BLUE, BRAND_UMBER, INK, rgba
from delphi_jax.results import SeedFit
from delphi_jax.status import Status
from delphi_jax.text import escape, scientific

__all__ = ["build_lucky_seeds"]

RUN_MARKER = {
    "color": BRAND_BLUE,
    "size": 7,
    "symbol": "circle-open",
    "line": {"color": BRAND_BLUE, "width": 1.5},
}


def build_lucky_seeds(seeds: SeedFit | None) -> Document:
    """The lucky-seeds figure: one row per held-out budget, percent deviation from the point forecast.

    Raises :class:`NothingToDraw` without a forecast to compare with.
    """
    if seeds is not None and seeds.bootstrap.status is Status.BEYOND_DRAWS:
        raise NothingToDraw(f"the bootstrap of {seeds.suite} has too few draws for an interval: take more draws")
    if (
        seeds is None
        or not (seeds.law.fitted and seeds.bootstrap.status.usable)
        or not any(line.seeds for line in seeds.budgets)
    ):
        raise NothingToDraw(
            "no bootstrapped forecast with held-out runs of its suite: the study needs IsoFLOP runs of one suite at "
            "4 or more budgets, and finished held-out runs of it at the targets of its forecasts"
        )
    low, _, high = seeds.bootstrap.percentiles
    top = len(seeds.budgets) - 0.5
    data: list[Trace] = []
    bands: list[dict[str, Any]] = []
    for row, line in enumerate(seeds.budgets):
        order = sorted(range(len(line.seeds)), key=line.seeds.__getitem__)
        hover = f"C={scientific(line.budget)}<br>seed=%{{text}}<br>deviation=%{{x:.2f}}%"
        names = [escape(line.seeds[i]) for i in order]
        rows = np.full(len(order), row)
        data.append(marks(line.deviations[order], rows, RUN_MARKER, hover, text=names, showlegend=False))
        bands.append(
            {
                "type": "rect",
                "x0": line.low,
                "x1": line.high,
                "y0": row - 0.3,
                "y1": row + 0.3,
                "fillcolor": rgba(BRAND_UMBER, 0.35),
                "line": {"width": 0},
                "layer": "below",
            }
        )
    band_marker = {"color": rgba(BRAND_UMBER, 0.55), "size": 14, "symbol": "square"}
    band_name = f"Forecast {low:g}–{high:g}% CI (bootstrap over bucket optima)"
    data += [_legend_entry(band_name, band_marker), _legend_entry("Independent Training Runs", RUN_MARKER)]
    zero = {
        "type": "line",
        "x0": 0,
        "x1": 0,
        "y0": -0.5,
        "y1": top,
        "line": {"color": BRAND_BLACK, "width": 1.5, "dash": "dash"},
        "layer": "below",
    }
    caption = {
        "text": f"point forecast{status_note(seeds.law.status, 'law', lead=', ')}",
        "x": 0,
        "y": top,
        "xanchor": "center",
        "yanchor": "bottom",
        "yshift": 4,
        "showarrow": False,
        "font": {"color": INK, "size": 11},
    }
    return document(
        data,
        {
            "shapes": [zero, *bands],
            "annotations": [caption],
            "yaxis": {
                "tickmode": "array",
                "tickvals": list(range(len(seeds.budgets))),
                "ticktext": [f"C = {scientific(line.budget)} FLOPs" for line in seeds.budgets],
                "range": [-0.5, top],
                "showgrid": False,
            },
            "xaxis": {
                "title": {"text": "Loss − point forecast (% of point forecast)"},
                "ticksuffix": "%",
                "zeroline": False,
            },
            "margin": {"t": 40, "r": 30, "b": 90, "l": 90},
            "legend": horizontal_legend(x=0.5, y=-0.35),
        },
    )


def _legend_entry(name: str, marker: dict[str, Any]) -> Trace:
    """A legend entry for marks that no single trace stands for."""
    return {
        "type": "scatter",
        "mode": "markers",
        "x": [None],
        "y": [None],
        "name": name,
        "marker": marker,
        "showlegend": True,
    }
