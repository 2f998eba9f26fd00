"""The ladders: one suite's whole story, from IsoFLOP parabolas to held-out validation."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from delphi_jax.labels import COMPUTE, DIVERGED, TOKENS
from delphi_jax.plots.drawers import (
    Document,
    NothingToDraw,
    Trace,
    bucket_color,
    bucket_hover,
    callout,
    compute_range,
    diverged_marks,
    divider,
    document,
    held_out_marks,
    horizontal_legend,
    law_end,
    law_line,
    on_panel,
    optima_marks,
    side_by_side,
    status_note,
    subplot_title,
    suite_colors,
)
from delphi_jax.plots.isoflop import bucket_traces
from delphi_jax.plots.mobile import stacked
from delphi_jax.results import HeldOutFit, IsoflopFit, LawFit
from delphi_jax.text import escape, residual

__all__ = ["build_ladder", "build_ladder_mobile"]

# A residual stands above its point on the right; within a decade of the panel's right edge, below on the left.
RIGHT = {"ax": 4, "ay": -4, "xanchor": "left", "yanchor": "bottom"}
LEFT = {"ax": -4, "ay": 4, "xanchor": "right", "yanchor": "top"}
ABOVE = {"ax": -30, "ay": -22, "xanchor": "center", "yanchor": "bottom"}


def build_ladder(
    isoflop: IsoflopFit | None, laws: Mapping[str, LawFit], held_out: HeldOutFit | None, suite: str
) -> Document:
    """The ladder figure of ``suite``; ``laws`` are the free-asymptote laws by suite.

    Raises :class:`NothingToDraw` where the suite has no fitted bucket.
    """
    fits = isoflop.of(suite) if isoflop is not None else ()
    if isoflop is None or not fits:
        raise NothingToDraw(f"no fitted IsoFLOP budget of {suite}: there is no budget with 3 or more of its runs")

    color = suite_colors(isoflop, held_out)[suite]
    stroke = {"width": 2.5, "dash": "dash"}
    data: list[Trace] = []
    for fit in fits:
        traces = bucket_traces(fit, bucket_color(isoflop, fit.bucket), bucket_hover(fit.bucket), stroke, in_legend=True)
        data += [on_panel(trace, 1) for trace in traces]

    runs = [run for run in held_out.optimal if run.suite == suite] if held_out is not None else []
    end = law_end(isoflop.definition, runs)
    compute, loss, _ = isoflop.optima(suite)
    title = "IsoFLOP optimum"
    law_panel = [optima_marks(compute, loss, color, title, name=title, showlegend=False)]
    law_title = "Scaling law + held-out validation" if runs else "Scaling law"
    if suite in laws and laws[suite].fitted:
        law_title += status_note(laws[suite].status, "law", lead=", ")
        law_panel.append(law_line(laws[suite], color, "scaling-law fit", end))
    callouts: list[dict[str, Any]] = []
    if held_out is not None:
        budgets, means = held_out.means(suite)
        if len(budgets):
            law_panel.append(held_out_marks(budgets, means, color, "held-out run"))
        for budget, mean, percent in zip(budgets, means, held_out.residuals(suite), strict=True):
            if math.isfinite(percent):
                side = LEFT if 10 * budget >= end else RIGHT
                callouts.append(_callout(residual(percent), budget, mean, side))
        diverged = held_out.diverged(suite)
        if diverged:
            law_panel.append(diverged_marks(diverged, color, "diverged mid-run"))
        callouts += [_callout(DIVERGED, run.budget, run.loss, ABOVE) for run in diverged]
    data += [on_panel(trace, 2) for trace in law_panel]

    left, right = side_by_side(2, spacing=0.1)
    divide, metric = isoflop.definition.divide, isoflop.definition.metric
    shape, sides = divider("x2", "y2 domain", divide) if divide is not None else (None, [])
    return document(
        data,
        {
            "xaxis": {"anchor": "y", "domain": left, "type": "log", "title": {"text": TOKENS}},
            "yaxis": {"anchor": "x", "domain": [0.0, 1.0], "type": "log", "title": {"text": escape(metric.title)}},
            "xaxis2": {
                "anchor": "y2",
                "domain": right,
                "type": "log",
                "title": {"text": COMPUTE},
                "range": compute_range(compute.min(), end),
            },
            "yaxis2": {
                "anchor": "x2",
                "domain": [0.0, 1.0],
                "type": "log",
                "title": {"text": escape(metric.optimum_title)},
            },
            "annotations": [
                subplot_title("IsoFLOP parabolas per compute bucket", left),
                subplot_title(law_title, right),
                *sides,
                *callouts,
            ],
            "shapes": [] if shape is None else [shape],
            "legend": horizontal_legend(
                x=1.0,
                y=-0.2,
                xanchor="right",
                title={"text": COMPUTE},
                entrywidth=0.22,
                entrywidthmode="fraction",
            ),
            "margin": {"t": 40, "r": 30, "b": 10, "l": 60},
        },
    )


def build_ladder_mobile(ladder: Document) -> Document:
    """A ladder from :func:`build_ladder`, stacked for narrow screens."""
    return stacked(
        ladder,
        height=660,
        margin={"t": 24, "r": 24, "b": 32, "l": 56},
        legend={"title": {"text": ""}, "tracegroupgap": 4, "entrywidth": 0.3, "y": -0.12},
    )


def _callout(text: str, budget: float, loss: float, side: dict[str, Any]) -> dict[str, Any]:
    return callout(text, "x2", "y2", math.log10(budget), math.log10(loss), **side)
