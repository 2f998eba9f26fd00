"""The stacking of a two-panel figure for narrow screens."""

from __future__ import annotations

from typing import Any

from delphi_jax.plots.drawers import Document

__all__ = ["stacked"]


def stacked(wide: Document, height: int, margin: dict[str, int], legend: dict[str, Any], **layout: Any) -> Document:
    """``wide`` with its second panel under the first; traces are shared, not copied.

    The first two annotations of ``wide`` are the panels' titles. ``height`` and ``margin`` in pixels;
    ``legend`` and further ``layout`` parts override those of ``wide``.
    """
    old = wide["layout"]
    titles = [
        title | {"x": 0.5, "y": y, "yanchor": "middle"}
        for title, y in zip(old["annotations"][:2], (0.99, 0.43), strict=True)
    ]
    new = {
        "height": height,
        "margin": margin,
        "legend": old["legend"] | legend,
        "annotations": titles + old["annotations"][2:],
        "xaxis": old["xaxis"] | {"domain": [0.0, 1.0]},
        "yaxis": old["yaxis"] | {"domain": [0.6, 0.98]},
        "xaxis2": old["xaxis2"] | {"domain": [0.0, 1.0]},
        "yaxis2": old["yaxis2"] | {"domain": [0.0, 0.38]},
    }
    return wide | {"layout": old | new | layout}
