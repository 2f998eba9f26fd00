"""scaling-law-asymptote: optima follow a law with a floor; held-out runs land on it or diverge."""

from __future__ import annotations

from collections.abc import Mapping

from delphi_jax.labels import COMPUTE, DIVERGED
from delphi_jax.plots.drawers import (
    Document,
    NothingToDraw,
    Trace,
    compute_range,
    diverged_marks,
    divider,
    document,
    held_out_marks,
    law_end,
    law_line,
    optima_marks,
    status_note,
    suite_colors,
)
from delphi_jax.plots.theme import INK, PAGE_TAN
from delphi_jax.results import HeldOutFit, IsoflopFit, LawFit
from delphi_jax.text import escape

__all__ = ["build_scaling_law_asymptote"]


def build_scaling_law_asymptote(
    isoflop: IsoflopFit | None, laws: Mapping[str, LawFit], held_out: HeldOutFit | None
) -> Document:
    """The scaling-law-asymptote figure; ``laws`` are the free-asymptote laws by suite.

    Raises :class:`NothingToDraw` without a single fitted bucket.
    """
    suites = [suite for suite in isoflop.suites if isoflop.of(suite)] if isoflop is not None else []
    if isoflop is None or not suites:
        raise NothingToDraw("no IsoFLOP optimum could be fitted: every budget has under 3 sweep runs")

    colors = suite_colors(isoflop, held_out)
    start = min(fit.bucket for suite in suites for fit in isoflop.of(suite))
    end = law_end(isoflop.definition, held_out.runs if held_out is not None else ())
    fitted: list[Trace] = []
    for suite in suites:
        compute, loss, _ = isoflop.optima(suite)
        name, color = escape(suite), colors[suite]
        entry = {"legendgroup": name}
        drawn = suite in laws and laws[suite].fitted
        title = name + (status_note(laws[suite].status, "law", lead=", ") if drawn else "")
        fitted.append(optima_marks(compute, loss, color, f"{name} (IsoFLOP optimum)", **entry, name=title))
        if drawn:
            fitted.append(law_line(laws[suite], color, f"{name} fit", end, **entry))

    measured: list[Trace] = []
    diverged: list[Trace] = []
    if held_out is not None:
        for suite, color in colors.items():
            name = escape(suite)
            entry = {"legendgroup": name}
            compute, loss = held_out.means(suite)
            if len(compute):
                measured.append(held_out_marks(compute, loss, color, f"{name} (held-out optimal)", **entry))
            runs = held_out.diverged(suite)
            if runs:
                words = {"text": DIVERGED, "textposition": "middle left", "textfont": {"color": INK}}
                title = f"{name} (diverged mid-run)"
                diverged.append(diverged_marks(runs, color, title, mode="markers+text", **words, **entry))

    divide = isoflop.definition.divide
    shape, sides = divider("x", "paper", divide) if divide is not None else (None, [])
    return document(
        fitted + measured + diverged,
        {
            "shapes": [] if shape is None else [shape],
            "annotations": sides,
            "xaxis": {"title": {"text": COMPUTE}, "type": "log", "range": compute_range(start, end)},
            "yaxis": {"title": {"text": escape(isoflop.definition.metric.optimum_title)}},
            "legend": {
                "orientation": "v",
                "x": 1,
                "xanchor": "right",
                "y": 0.925,
                "yanchor": "top",
                "bgcolor": PAGE_TAN,
                "borderwidth": 0,
                "tracegroupgap": 4,
            },
            "margin": {"t": 10, "r": 40, "b": 10, "l": 40},
        },
    )
