"""law-profile: how well the data determine the law's asymptote."""

from __future__ import annotations

import math
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
    status_note,
)
from delphi_jax.plots.theme import TRANSPARENT, cycle_color
from delphi_jax.results.law_intervals import AsymptoteProfile, LawIntervals, LawStudy
from delphi_jax.status import Bound
from delphi_jax.text import escape

__all__ = ["build_law_profile", "build_law_profile_mobile"]

LEAST_TOP = 10.0
"""The axis of ratios reaches at least so far, and three times as far as the farthest limit."""


def build_law_profile(study: LawStudy) -> Document:
    """The law-profile figure: per series the score of the best law with each asymptote, over the least score.

    Raises :class:`NothingToDraw` where no series has a profile.
    """
    drawn = [each for each in study.intervals if _has_profile(study, each)]
    if not drawn:
        raise NothingToDraw(
            "no profile over the asymptote: it is pinned, or no series has a law with residuals to compare"
        )
    data = [
        trace for place, each in enumerate(study.intervals) if each in drawn for trace in _traces(study, each, place)
    ]
    limits = [study.profiles[each.law.series].limit for each in drawn]
    top = max([LEAST_TOP, *(3 * limit for limit in limits if math.isfinite(limit))])
    metric = drawn[0].law.metric
    return document(
        data,
        {
            "xaxis": {"title": {"text": f"Asymptote L_inf{f' ({metric})' if metric else ''}"}},
            "yaxis": {
                "title": {"text": "Least score with this asymptote / least score"},
                "type": "log",
                "range": [-0.05, math.log10(top)],
            },
            "legend": horizontal_legend(x=0.5, y=-0.2),
            "margin": {"t": 20, "r": 30, "b": 10, "l": 60},
        },
    )


def build_law_profile_mobile(wide: Document) -> Document:
    """A figure from :func:`build_law_profile` for narrow screens."""
    layout = {
        "height": 520,
        "margin": {"t": 20, "r": 16, "b": 20, "l": 50},
        "legend": wide["layout"]["legend"] | {"orientation": "v", "xanchor": "left", "x": 0.0},
    }
    return wide | {"layout": wide["layout"] | layout}


def _has_profile(study: LawStudy, each: LawIntervals) -> bool:
    profile = study.profiles.get(each.law.series)
    return profile is not None and bool(np.isfinite(profile.ratio).any())


def _traces(study: LawStudy, each: LawIntervals, place: int) -> list[Trace]:
    law, color = each.law, cycle_color(place)
    profile, name = study.profiles[law.series], escape(law.series)
    group: dict[str, Any] = {"legendgroup": name}
    cut = (each.low_bound[0] | each.high_bound[0]).label
    interval = (
        f"{100 * each.level:g} % interval {each.low[0]:.4g} to {each.high[0]:.4g}{f', cut by {cut}' if cut else ''}"
    )
    title = f"{name}, {law.objective.label}{status_note(law.status, 'law', lead=', ')}"
    traces = [
        line(
            profile.L_inf,
            profile.ratio,
            {"color": color, "width": 2},
            f"{title}<br>L_inf=%{{x:.4f}}<br>score ratio=%{{y:.4f}}",
            name=name + status_note(law.status, "law", lead=", "),
            connectgaps=False,
            **group,
        ),
        *_interval(profile, each, color, f"{title}<br>{interval}", group),
        marks(
            [law.L_inf],
            [1.0],
            {"color": color, "size": 12, "symbol": "x", "line": {"width": 2}},
            f"{title}<br>optimum L_inf=%{{x:.5f}}<br>{interval}",
            showlegend=False,
            **group,
        ),
    ]
    reference = study.reference.get(law.series)
    if law.objective.of_reference and law.asymptote == "free" and reference is not None and reference.fitted:
        ratio = reference.score / law.score
        marker = {"color": TRANSPARENT, "size": 11, "symbol": "circle", "line": {"color": color, "width": 2}}
        hover = f"{name}<br>grid's choice L_inf=%{{x:.5f}}<br>score ratio=%{{y:.6f}}"
        traces.append(marks([reference.L_inf], [ratio], marker, hover, showlegend=False, **group))
    return traces


def _interval(
    profile: AsymptoteProfile, each: LawIntervals, color: str, hover: str, group: dict[str, Any]
) -> list[Trace]:
    """The interval as a bar at its limit; a cut end is an arrow's head. Nothing where there is none."""
    low, high = float(each.low[0]), float(each.high[0])
    if not (math.isfinite(profile.limit) and math.isfinite(low) and math.isfinite(high)):
        return []
    symbols = [
        "line-ns" if bound is Bound.NONE else arrow
        for bound, arrow in ((each.low_bound[0], "arrow-left"), (each.high_bound[0], "arrow-right"))
    ]
    marker = {"color": color, "size": 12, "symbol": symbols, "line": {"color": color, "width": 2}}
    stroke = {"color": color, "width": 2, "dash": "dot"}
    bar = line([low, high], [profile.limit] * 2, stroke, hover, marker=marker, showlegend=False, **group)
    return [bar | {"mode": "lines+markers"}]
