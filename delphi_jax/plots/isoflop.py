"""isoflop-parabolas: where the compute-optimal point of each budget lies, one panel per suite."""

from __future__ import annotations

from delphi_jax.labels import COMPUTE, TOKENS
from delphi_jax.plots.drawers import (
    Document,
    NothingToDraw,
    Trace,
    bucket_color,
    bucket_hover,
    document,
    horizontal_legend,
    marks,
    on_panel,
    optimum_mark,
    parabola_line,
    side_by_side,
    subplot_title,
)
from delphi_jax.results import IsoflopFit, ParabolaFit
from delphi_jax.text import escape, scientific

__all__ = ["bucket_traces", "build_isoflop_parabolas"]


def bucket_traces(fit: ParabolaFit, color: str, hover: str, stroke: dict[str, object], in_legend: bool) -> list[Trace]:
    """Runs, parabola and optimum of one bucket, tied together by its legend entry."""
    name = scientific(fit.bucket)
    entry = {"name": name, "legendgroup": name}
    marker = {"color": color, "size": 7}
    return [
        marks(fit.tokens, fit.loss, marker, hover, **entry, showlegend=in_legend),
        parabola_line(fit, {"color": color} | stroke, **entry, showlegend=False),
        optimum_mark(fit, color, **entry, showlegend=False),
    ]


def build_isoflop_parabolas(isoflop: IsoflopFit | None) -> Document:
    """The isoflop-parabolas figure.

    Raises :class:`NothingToDraw` without a single fitted bucket.
    """
    suites = [suite for suite in isoflop.suites if isoflop.of(suite)] if isoflop is not None else []
    if isoflop is None or not suites:
        raise NothingToDraw("no compute budget has the 3 IsoFLOP runs that a parabola needs: add runs")

    domains = side_by_side(len(suites), spacing=0.05)
    data: list[Trace] = []
    layout: dict[str, object] = {}
    in_legend: set[float] = set()
    for panel, (suite, domain) in enumerate(zip(suites, domains, strict=True), start=1):
        for fit in isoflop.of(suite):
            hover = f"{bucket_hover(fit.bucket)}<br>{escape(suite)}"
            color = bucket_color(isoflop, fit.bucket)
            traces = bucket_traces(fit, color, hover, {"width": 3}, fit.bucket not in in_legend)
            data += [on_panel(trace, panel) for trace in traces]
            in_legend.add(fit.bucket)
        number = "" if panel == 1 else str(panel)
        layout[f"xaxis{number}"] = {
            "anchor": f"y{number}",
            "domain": domain,
            "type": "log",
            "title": {"text": TOKENS},
        }
        layout[f"yaxis{number}"] = {"anchor": f"x{number}", "domain": [0.0, 1.0]} | (
            {"title": {"text": escape(isoflop.definition.metric.title)}}
            if panel == 1
            else {"matches": "y", "showticklabels": False}
        )
    return document(
        data,
        layout
        | {
            "annotations": [
                subplot_title(escape(suite), domain) for suite, domain in zip(suites, domains, strict=True)
            ],
            "legend": horizontal_legend(
                x=0.5, y=-0.2, title={"text": COMPUTE}, entrywidth=0.22, entrywidthmode="fraction"
            ),
            "margin": {"t": 40, "r": 40, "b": 10, "l": 60},
        },
    )
