"""The brand: palette, strokes and the layout parts that every figure shares."""

from __future__ import annotations

from typing import Any

__all__ = [
    "BRAND_BLACK",
    "BRAND_BLUE",
    "BRAND_TERRACOTTA",
    "BRAND_UMBER",
    "CYCLE",
    "EXTERNAL_GREY",
    "INK",
    "PAGE_TAN",
    "TRANSPARENT",
    "cycle_color",
    "rgba",
    "transparent",
]

BRAND_BLACK = "#1F1E1B"
BRAND_BLUE = "#385C8F"
BRAND_UMBER = "#8F6B38"
BRAND_TERRACOTTA = "#B5563C"
CYCLE = (BRAND_BLUE, BRAND_UMBER, BRAND_TERRACOTTA, "#5E7F57", "#7A5C86", "#C29A4B", "#4F8A8B", "#8C4A55")
EXTERNAL_GREY = "#7A736B"
PAGE_TAN = "#C4B9AE"
INK = BRAND_BLACK
TRANSPARENT = "rgba(0,0,0,0)"


def cycle_color(place: int) -> str:
    """Colour of the suite or bucket at ``place`` in its canonical order; the cycle repeats after eight."""
    return CYCLE[place % len(CYCLE)]


def rgba(color: str, alpha: float) -> str:
    """A ``#rrggbb`` colour with an opacity, in the notation of plotly."""
    red, green, blue = (int(color[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},{alpha:g})"


def transparent(layout: dict[str, Any]) -> dict[str, Any]:
    """``layout`` on transparent backgrounds: the host page supplies its own."""
    return layout | {"plot_bgcolor": TRANSPARENT, "paper_bgcolor": TRANSPARENT}
