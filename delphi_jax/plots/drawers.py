"""The drawers that figures share: each turns arrays and words into one plain plotly trace, label or part.

A figure document is a plain mapping {"data", "layout"[, "frames"]} of Python values and NumPy arrays. Plotly
itself is not needed to build one.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from delphi_jax.definition import Definition
from delphi_jax.labels import EXTRAPOLATION_SIDE, FIT_SIDE
from delphi_jax.plots.theme import INK, LEADER_GREY, TRANSPARENT, cycle_color, rgba, transparent
from delphi_jax.results import HeldOutFit, HeldOutRun, IsoflopFit, LawFit, ParabolaFit
from delphi_jax.status import Status
from delphi_jax.text import scientific

__all__ = [
    "Document",
    "NothingToDraw",
    "Trace",
    "bucket_color",
    "bucket_hover",
    "callout",
    "compute_grid",
    "compute_range",
    "diverged_marks",
    "divider",
    "document",
    "held_out_marks",
    "horizontal_legend",
    "law_end",
    "law_line",
    "line",
    "log_grid",
    "marks",
    "observed_log_tokens",
    "on_panel",
    "optima_marks",
    "optimum_mark",
    "parabola_line",
    "side_by_side",
    "status_note",
    "subplot_title",
    "suite_colors",
]

Document = dict[str, Any]
Trace = dict[str, Any]
Floats = NDArray[np.float64]

SUBPLOT_TITLE_SIZE = 16


class NothingToDraw(Exception):
    """A figure's data is missing: the message says what and how to get it."""


def document(data: list[Trace], layout: dict[str, Any], frames: list[dict[str, Any]] | None = None) -> Document:
    """A figure document on transparent backgrounds."""
    parts: Document = {"data": data, "layout": transparent(layout)}
    if frames is not None:
        parts["frames"] = frames
    return parts


def on_panel(trace: Trace, panel: int) -> Trace:
    """``trace`` on the axes of subplot ``panel``, counted from 1."""
    number = "" if panel == 1 else str(panel)
    return trace | {"xaxis": f"x{number}", "yaxis": f"y{number}"}


def marks(x: Any, y: Any, marker: dict[str, Any], hover: str, **rest: Any) -> Trace:
    """Points; ``hover`` is a plotly hover template without the trailing ``<extra>`` box."""
    base = {"type": "scatter", "mode": "markers", "x": x, "y": y, "marker": marker}
    return base | {"hovertemplate": f"{hover}<extra></extra>"} | rest


def line(x: Any, y: Any, stroke: dict[str, Any], hover: str | None = None, **rest: Any) -> Trace:
    """A curve; without ``hover`` it does not react to the pointer."""
    base = {"type": "scatter", "mode": "lines", "x": x, "y": y, "line": stroke}
    reaction = {"hoverinfo": "skip"} if hover is None else {"hovertemplate": f"{hover}<extra></extra>"}
    return base | reaction | rest


def status_note(status: Status, what: str = "", lead: str = "<br>") -> str:
    """A warning behind a label or hover text, with ``what`` it is of: nothing for a fit without reservation."""
    if status is Status.FITTED:
        return ""
    return f"{lead}{what}: {status.label}" if what else f"{lead}{status.label}"


def log_grid(low: float, high: float, n: int) -> Floats:
    """``n`` log-spaced values from ``low`` to ``high``."""
    return 10.0 ** np.linspace(math.log10(low), math.log10(high), n)


def compute_grid(start: float, end: float) -> Floats:
    """[400] budgets in FLOPs on which a law is drawn."""
    return log_grid(start, end, 400)


def observed_log_tokens(fit: ParabolaFit, pad: float = 0.0) -> Floats:
    """[200] values of log10 tokens over a bucket's observed range, widened by ``pad`` on both sides."""
    low, high = np.log10([fit.tokens.min(), fit.tokens.max()])
    return np.linspace(low - pad, high + pad, 200)


def parabola_line(fit: ParabolaFit, stroke: dict[str, Any], **rest: Any) -> Trace:
    """A fitted IsoFLOP parabola over its observed tokens."""
    log_tokens = observed_log_tokens(fit)
    return line(10.0**log_tokens, fit.loss_at(log_tokens), stroke, **rest)


def optimum_mark(fit: ParabolaFit, color: str, title: str = "optimum", **rest: Any) -> Trace:
    """The compute-optimal point of one bucket; its hover warns of a minimum outside the data."""
    hover = f"{title}<br>T*={fit.tokens_star:.3e}<br>loss*={fit.loss_star:.4f}{status_note(fit.status)}"
    marker = {"color": color, "size": 12, "symbol": "x", "line": {"width": 2}}
    return marks([fit.tokens_star], [fit.loss_star], marker, hover, **rest)


def optima_marks(compute: Floats, loss: Floats, color: str, title: str, **rest: Any) -> Trace:
    """The IsoFLOP optima of one suite against compute."""
    hover = f"{title}<br>C=%{{x:.3e}} FLOPs<br>loss*=%{{y:.4f}}"
    return marks(compute, loss, {"color": color, "size": 9, "symbol": "circle"}, hover, **rest)


def law_line(law: LawFit, color: str, title: str, end: float, **rest: Any) -> Trace:
    """A fitted law, dashed, from its smallest budget out to ``end`` FLOPs."""
    compute = compute_grid(law.compute.min(), end)
    hover = f"{title}<br>C=%{{x:.3e}} FLOPs<br>loss=%{{y:.4f}}{status_note(law.status, 'law')}"
    stroke = {"color": color, "width": 2, "dash": "dash"}
    return line(compute, law.loss_at(compute), stroke, hover, showlegend=False, **rest)


def held_out_marks(compute: Floats, loss: Floats, color: str, title: str, **rest: Any) -> Trace:
    """Held-out runs of one suite, averaged over seeds."""
    hover = f"{title}<br>C=%{{x:.3e}} FLOPs<br>mean loss=%{{y:.4f}}"
    marker = {"color": color, "size": 11, "symbol": "circle"}
    return marks(compute, loss, marker, hover, showlegend=False, **rest)


def diverged_marks(runs: Sequence[HeldOutRun], color: str, title: str, **rest: Any) -> Trace:
    """Runs that did not finish: a thin x at their final loss."""
    compute, loss = [run.budget for run in runs], [run.loss for run in runs]
    hover = f"{title}<br>C=%{{x:.3e}} FLOPs<br>final loss=%{{y:.4f}}"
    marker = {"color": color, "size": 14, "symbol": "x-thin", "line": {"color": color, "width": 3}}
    return marks(compute, loss, marker, hover, showlegend=False, **rest)


def law_end(definition: Definition, runs: Iterable[HeldOutRun]) -> float:
    """FLOPs: where laws end, so that they span every target and held-out run."""
    return max([*definition.targets, *(run.budget for run in runs)])


def compute_range(start: float, end: float) -> list[float]:
    """Range of a compute axis, log10 FLOPs, with a margin around [start, end]."""
    return [math.log10(start) - 0.12, math.log10(end) + 0.12]


def suite_colors(isoflop: IsoflopFit, held_out: HeldOutFit | None) -> dict[str, str]:
    """Colour of every suite, whether or not it could be fitted: its own, else by alphabetical order."""
    suites = set(isoflop.suites) | {run.suite for run in (held_out.runs if held_out is not None else ())}
    own = {suite: isoflop.definition.suite(suite).color for suite in suites}
    return {suite: own[suite] or cycle_color(place) for place, suite in enumerate(sorted(suites))}


def bucket_color(isoflop: IsoflopFit, bucket: float) -> str:
    """Colour of a compute budget, by ascending order over the whole study."""
    return cycle_color(isoflop.buckets.index(bucket))


def divider(xref: str, yref: str, at: float) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The dotted line between fitted and held-out budgets, ``at`` FLOPs, and its two labels: (shape, annotations).

    ``yref`` is a reference that spans the panel: "paper" or "y domain". A shape takes data coordinates on a
    logarithmic axis, an annotation their log10.
    """
    shape = {
        "type": "line",
        "xref": xref,
        "yref": yref,
        "x0": at,
        "x1": at,
        "y0": 0,
        "y1": 1,
        "line": {"color": INK, "width": 1, "dash": "dot"},
        "opacity": 0.45,
        "layer": "below",
    }
    label = {
        "x": math.log10(at),
        "y": 0.98,
        "xref": xref,
        "yref": yref,
        "yanchor": "top",
        "showarrow": False,
        "font": {"color": INK, "size": 12},
    }
    left = label | {"text": FIT_SIDE, "xanchor": "right", "xshift": -4}
    right = label | {"text": EXTRAPOLATION_SIDE, "xanchor": "left", "xshift": 4}
    return shape, [left, right]


def side_by_side(n: int, spacing: float) -> list[list[float]]:
    """Horizontal domains of ``n`` panels in one row, ``spacing`` apart, in fractions of the plot's width."""
    width = (1 - spacing * (n - 1)) / n
    return [[i * (width + spacing), i * (width + spacing) + width] for i in range(n)]


def subplot_title(text: str, domain: list[float]) -> dict[str, Any]:
    """A panel's title, centred above its horizontal ``domain``."""
    return {
        "text": text,
        "x": sum(domain) / 2,
        "y": 1.0,
        "xref": "paper",
        "yref": "paper",
        "xanchor": "center",
        "yanchor": "bottom",
        "showarrow": False,
        "font": {"size": SUBPLOT_TITLE_SIZE},
    }


def horizontal_legend(x: float, y: float, **rest: Any) -> dict[str, Any]:
    """A legend in a row, without box, centred at ``x`` and hanging from ``y`` (fractions of the plot)."""
    base = {"orientation": "h", "x": x, "xanchor": "center", "y": y, "yanchor": "top"}
    return base | {"bgcolor": TRANSPARENT, "borderwidth": 0, "tracegroupgap": 10} | rest


def callout(text: str, xref: str, yref: str, x: float, y: float, **rest: Any) -> dict[str, Any]:
    """A label on a thin leader line; ``x`` and ``y`` in the axes' own units (log10 on logarithmic axes)."""
    return {
        "text": text,
        "x": x,
        "y": y,
        "xref": xref,
        "yref": yref,
        "showarrow": True,
        "arrowhead": 0,
        "arrowwidth": 1,
        "arrowcolor": rgba(LEADER_GREY, 0.5),
        "bgcolor": TRANSPARENT,
        "borderpad": 0,
        "font": {"color": INK, "size": 11},
    } | rest


def bucket_hover(bucket: float) -> str:
    """What hovering over one run of an IsoFLOP bucket says."""
    return f"tokens=%{{x:.3e}}<br>loss=%{{y:.4f}}<br>bucket={scientific(bucket)}"
