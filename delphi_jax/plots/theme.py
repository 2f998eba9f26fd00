"""Palettes, strokes and the style that a host page owes a figure: the brand's, two neutral ones, and a user's own.

Builders draw in the brand's colours. Any other theme is the brand's with every colour exchanged for the one of the same
role, by :func:`recolor`. The command lists the themes in its help, so this module loads nothing heavy.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

__all__ = [
    "BRAND",
    "BRAND_BLACK",
    "BRAND_BLUE",
    "BRAND_TERRACOTTA",
    "BRAND_UMBER",
    "CYCLE",
    "EXTERNAL_GREY",
    "INK",
    "LEADER_GREY",
    "PAGE_TAN",
    "READABLE",
    "THEMES",
    "TRANSPARENT",
    "Theme",
    "color_map",
    "cycle_color",
    "mixed",
    "recolor",
    "rgba",
    "template",
    "theme_from",
    "transparent",
]

BRAND_BLACK = "#1F1E1B"
BRAND_BLUE = "#385C8F"
BRAND_UMBER = "#8F6B38"
BRAND_TERRACOTTA = "#B5563C"
CYCLE = (BRAND_BLUE, BRAND_UMBER, BRAND_TERRACOTTA, "#5E7F57", "#7A5C86", "#C29A4B", "#4F8A8B", "#8C4A55")
EXTERNAL_GREY = "#7A736B"
LEADER_GREY = "#505050"
PAGE_TAN = "#C4B9AE"
INK = BRAND_BLACK
TRANSPARENT = "rgba(0,0,0,0)"

_FONT = 'Inter, "Helvetica Neue", Helvetica, Arial, sans-serif'
_HEX = re.compile(r"#[0-9A-Fa-f]{6}")
_RGBA = re.compile(r"rgba\((\d+),(\d+),(\d+),([0-9.e+-]+)\)")
READABLE = 4.5
"""Least contrast of text and page: WCAG 2.2, success criterion 1.4.3."""


@dataclass(frozen=True)
class Theme:
    """Colours by role, ``#rrggbb`` each, and the font.

    Examples:

    >>> import delphi_jax as dj
    >>> list(dj.THEMES), dj.THEMES["dark"].ink, dj.THEMES["dark"].dark
    (['brand', 'light', 'dark'], '#ECE8E1', True)
    """

    name: str
    cycle: tuple[str, ...]
    """[8] of suites, buckets, tasks and methods, in their canonical order."""
    ink: str
    """Text, lines through data, axes and, thinned, the grid."""
    page: str
    """What figures lie on."""
    external: str
    """What is not the study's own: external models, published intervals."""
    leader: str
    """Lines from a label to its point."""
    font: str = _FONT

    @property
    def accent(self) -> str:
        return self.cycle[0]

    @property
    def dark(self) -> bool:
        from delphi_jax.plots.vision import luminance

        return luminance(self.page) < luminance(self.ink)


BRAND = Theme("brand", CYCLE, INK, PAGE_TAN, EXTERNAL_GREY, LEADER_GREY)

THEMES = {
    "brand": BRAND,
    "light": Theme(
        "light",
        ("#3964A2", "#563000", "#AC561A", "#77936E", "#52356B", "#B98518", "#3B969A", "#8A2D4E"),
        ink="#1D1C1A",
        page="#FCFBF9",
        external="#77726C",
        leader="#5C5853",
    ),
    "dark": Theme(
        "dark",
        ("#7BA7E9", "#CAA750", "#BA5C3F", "#BDE4B4", "#9E7BAC", "#FBD875", "#7DDBD9", "#DF758D"),
        ink="#ECE8E1",
        page="#171614",
        external="#9C958C",
        leader="#B5AEA4",
    ),
}
"""By name. The cycles of the last two can be told apart by colour-blind readers: see
:func:`~delphi_jax.plots.vision.color_conflicts`, which the brand's own cycle does not pass."""


def theme_from(given: Mapping[str, Any]) -> Theme:
    """A user's own theme: ``base``, the name of one of :data:`THEMES` ("light" by default), and what differs from it.

    Keys are the fields of :class:`Theme`. Raises ValueError for an unknown key, and for a value that is not what its
    key needs, naming both.

    Examples:

    >>> import delphi_jax as dj
    >>> theme = dj.theme_from({"base": "dark", "page": "#000000"})
    >>> theme.page, theme.ink, theme.dark
    ('#000000', '#ECE8E1', True)
    """
    from delphi_jax.plots.vision import contrast

    names = [field.name for field in fields(Theme)]
    if unknown := sorted(set(map(str, given)) - {"base", *names}):
        raise ValueError(f"theme: unknown key {unknown[0]!r}, expected some of base, {', '.join(names)}")
    base = given.get("base", "light")
    if base not in tuple(THEMES):
        raise ValueError(f"theme: base must be one of {', '.join(THEMES)}, got {base!r}")
    parts = {key: _part(key, value) for key, value in given.items() if key != "base"}
    theme = replace(THEMES[base], **{"name": "own"} | parts)
    if (found := contrast(theme.ink, theme.page)) < READABLE:
        raise ValueError(
            f"theme: ink {theme.ink} on page {theme.page} has a contrast of {found:.2g}, expected at least "
            f"{READABLE:g} (WCAG 2.2, 1.4.3), as text is written so"
        )
    return theme


def _part(key: str, value: Any) -> Any:
    """``value`` as the field ``key`` holds it; ValueError where it is something else."""
    if key == "cycle":
        n = len(CYCLE)
        if not isinstance(value, (list, tuple)) or len(value) != n:
            count = f" of {len(value)}" if isinstance(value, (list, tuple)) else ""
            raise ValueError(f"theme: cycle must be a list of {n} colours, got a {type(value).__name__}{count}")
        colors = tuple(_color(f"cycle[{place}]", color) for place, color in enumerate(value))
        if len(set(colors)) < n:
            twice = next(color for color in colors if colors.count(color) > 1)
            raise ValueError(f"theme: cycle must hold {n} different colours, but {twice} stands in it twice")
        return colors
    if key in ("name", "font"):
        if not isinstance(value, str) or not value.strip():
            raise ValueError(f"theme: {key} must be a text that is not empty, got {value!r}")
        if key == "font" and re.search(r"[<>{};\\]", value):
            raise ValueError(f"theme: font must be names of fonts, separated by commas, got {value!r}")
        return value
    return _color(key, value)


def _color(key: str, value: Any) -> str:
    if not isinstance(value, str) or not _HEX.fullmatch(value):
        raise ValueError(f'theme: {key} must be a colour such as "#385C8F", got {value!r}')
    return value.upper()


def cycle_color(place: int) -> str:
    """Colour of the suite or bucket at ``place`` in its canonical order; the cycle repeats after eight."""
    return CYCLE[place % len(CYCLE)]


def rgba(color: str, alpha: float) -> str:
    """A ``#rrggbb`` colour with an opacity, in the notation of plotly."""
    red, green, blue = (int(color[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},{alpha:g})"


def mixed(color: str, other: str, share: float) -> str:
    """``share`` of one colour in another, in encoded sRGB as browsers mix opacities."""
    pairs = ((int(color[i : i + 2], 16), int(other[i : i + 2], 16)) for i in (1, 3, 5))
    return "#" + "".join(f"{round(share * one + (1 - share) * two):02X}" for one, two in pairs)


def transparent(layout: dict[str, Any]) -> dict[str, Any]:
    """``layout`` on transparent backgrounds: the host page supplies its own."""
    return layout | {"plot_bgcolor": TRANSPARENT, "paper_bgcolor": TRANSPARENT}


def template(theme: Theme) -> dict[str, Any]:
    """The style that a host page owes a figure document."""
    grid, axis, wash = (rgba(theme.ink, alpha) for alpha in (0.12, 0.45, 0.06))
    axes = {
        "automargin": True,
        "gridcolor": grid,
        "linecolor": axis,
        "zeroline": False,
        "ticks": "outside",
        "ticklen": 4,
        "tickcolor": TRANSPARENT,
        "exponentformat": "power",
        "title": {"standoff": 6},
    }
    return {
        "layout": {
            "colorway": list(theme.cycle),
            # Upright labels: turned ones push the axis title into what lies below.
            "xaxis": axes | {"tickangle": 0},
            "yaxis": axes,
            "modebar": {"bgcolor": TRANSPARENT, "color": axis, "activecolor": theme.accent},
            "hoverlabel": {"align": "left", "font": {"family": theme.font}},
            "sliderdefaults": {"bgcolor": wash, "bordercolor": axis, "activebgcolor": axis, "tickcolor": axis},
        },
        # Outlines that a builder leaves to plotly would be #444 on any page.
        "data": {"scatter": [{"marker": {"line": {"color": theme.leader}}}]},
    }


def color_map(theme: Theme) -> dict[str, str]:
    """The colour of ``theme`` for every colour of the brand, by role."""
    pairs = zip((*CYCLE, INK, PAGE_TAN, EXTERNAL_GREY, LEADER_GREY), _palette(theme), strict=True)
    return dict(pairs)


def _palette(theme: Theme) -> tuple[str, ...]:
    return (*theme.cycle, theme.ink, theme.page, theme.external, theme.leader)


def recolor(document: dict[str, Any], theme: Theme) -> dict[str, Any]:
    """A figure document, drawn in the brand's colours, in those of ``theme``; the brand is the identity.

    Only values of keys that hold colours are exchanged: a run may be called "#385C8F". Opacities stay.

    Examples:

    >>> import delphi_jax as dj
    >>> brand, dark = dj.THEMES["brand"], dj.THEMES["dark"]
    >>> document = {"data": [{"line": {"color": brand.accent}}], "layout": {}}
    >>> dj.recolor(document, dark)["data"][0]["line"]["color"] == dark.accent
    True
    """
    if theme == BRAND:
        return document
    return _recolored(document, color_map(theme), False)


def _recolored(node: Any, colors: Mapping[str, str], of_color: bool) -> Any:
    """``node`` in the colours that ``colors`` maps to; ``of_color`` says whether its texts are colours."""
    if isinstance(node, dict):
        return {key: _recolored(value, colors, "color" in key) for key, value in node.items()}
    if isinstance(node, (list, tuple)):
        return [_recolored(value, colors, of_color) for value in node]
    return _exchanged(node, colors) if of_color and isinstance(node, str) else node


def _exchanged(color: str, colors: Mapping[str, str]) -> str:
    if found := _RGBA.fullmatch(color):
        *parts, alpha = found.groups()
        new = colors.get("#" + "".join(f"{int(part):02X}" for part in parts))
        return color if new is None else rgba(new, float(alpha))
    return colors.get(color, color)
