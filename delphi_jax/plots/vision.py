"""What readers see of colours: contrast, colour-vision deficiencies, and colours that cannot be told apart.

Colours are ``#rrggbb`` texts in sRGB. Sources: contrast by WCAG 2.2 (definitions of relative luminance and contrast
ratio), deficiencies by Machado, Oliveira and Fernandes (2009, table 1, severity 1.0) in linear RGB, differences by
CIEDE2000 (Sharma, Wu and Dalal 2005) in CIELAB under D65.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:
    from delphi_jax.plots.theme import Theme

__all__ = [
    "DEFICIENCIES",
    "LEAST_CONTRAST",
    "LEAST_DIFFERENCE",
    "color_conflicts",
    "color_difference",
    "contrast",
    "luminance",
    "seen_lab",
]

Floats = NDArray[np.float64]

LEAST_CONTRAST = 3.0
"""Of a mark and the page: WCAG 2.2, success criterion 1.4.11."""
LEAST_DIFFERENCE = 10.0
"""CIEDE2000 below which marks of a few pixels, apart from each other, are taken for the same. One is just noticeable
where fields touch; there is no standard for marks, ten is this project's choice."""

DEFICIENCIES: dict[str, Floats] = {
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
    "tritanopia": np.array(
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]
    ),
}
"""[3, 3] by name: linear RGB to the linear RGB that looks the same to such a reader."""

_NORMAL = "normal vision"
_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)
"""Linear sRGB to CIE XYZ under D65 (IEC 61966-2-1)."""


def luminance(color: str) -> float:
    """Relative luminance in [0, 1] (WCAG 2.2)."""
    return float(_linear(color) @ [0.2126, 0.7152, 0.0722])


def contrast(one: str, other: str) -> float:
    """Contrast ratio of two colours, 1 to 21 (WCAG 2.2)."""
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def seen_lab(color: str, deficiency: str | None = None) -> Floats:
    """[3] CIELAB of ``color`` as a reader sees it who has one of :data:`DEFICIENCIES`, or none."""
    linear = _linear(color)
    if deficiency is not None:
        linear = np.clip(DEFICIENCIES[deficiency] @ linear, 0.0, 1.0)
    relative = _XYZ @ linear / _XYZ.sum(axis=1)
    f = np.where(relative > 216 / 24389, np.cbrt(relative), (24389 / 27 * relative + 16) / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def color_difference(one: ArrayLike, other: ArrayLike) -> Any:
    """CIEDE2000 of two arrays of CIELAB colours, [..., 3] each, by the equations of Sharma et al. (2005)."""
    (L1, a1, b1), (L2, a2, b2) = (np.moveaxis(np.asarray(lab, dtype=np.float64), -1, 0) for lab in (one, other))
    mean = (np.hypot(a1, b1) + np.hypot(a2, b2)) / 2
    stretch = 1 + 0.5 * (1 - _of_chroma(mean))
    C1, C2 = np.hypot(stretch * a1, b1), np.hypot(stretch * a2, b2)
    h1, h2 = (np.degrees(np.arctan2(b, stretch * a)) % 360 for a, b in ((a1, b1), (a2, b2)))
    grey = C1 * C2 == 0

    apart = np.where(grey, 0.0, (h2 - h1 + 180) % 360 - 180)
    dL, dC, dH = L2 - L1, C2 - C1, 2 * np.sqrt(C1 * C2) * np.sin(np.radians(apart) / 2)

    L, C, total = (L1 + L2) / 2, (C1 + C2) / 2, h1 + h2
    around = np.where(total < 360, total + 360, total - 360) / 2
    h = np.where(grey, total, np.where(np.abs(h1 - h2) <= 180, total / 2, around))
    T = (
        1
        - 0.17 * np.cos(np.radians(h - 30))
        + 0.24 * np.cos(np.radians(2 * h))
        + 0.32 * np.cos(np.radians(3 * h + 6))
        - 0.20 * np.cos(np.radians(4 * h - 63))
    )
    S_L = 1 + 0.015 * (L - 50) ** 2 / np.sqrt(20 + (L - 50) ** 2)
    S_C, S_H = 1 + 0.045 * C, 1 + 0.015 * C * T
    turn = 60 * np.exp(-(((h - 275) / 25) ** 2))
    R_T = -2 * _of_chroma(C) * np.sin(np.radians(turn))
    lightness, chroma, hue = dL / S_L, dC / S_C, dH / S_H
    return np.sqrt(lightness**2 + chroma**2 + hue**2 + R_T * chroma * hue)


def color_conflicts(colors: Mapping[str, str], theme: Theme) -> list[str]:
    """Sentences on colours, by the suite that wears them, that readers may confuse, or overlook on ``theme``'s page.

    Two are confused where their CIEDE2000 under normal vision or one of :data:`DEFICIENCIES` is less than
    :data:`LEAST_DIFFERENCE`; one is overlooked where its contrast to the page is less than :data:`LEAST_CONTRAST`.

    Examples:

    >>> import delphi_jax as dj
    >>> [sentence[:40] for sentence in dj.color_conflicts({"one": "#000000", "other": "#FFFFFF"}, dj.THEMES["light"])]
    ['other (#FFFFFF) has a contrast of 1.03 t']
    >>> dj.color_conflicts({"one": "#3964A2", "other": "#AC561A"}, dj.THEMES["light"])
    []
    """
    sentences = []
    for (one, first), (other, second) in combinations(colors.items(), 2):
        found = {kind or _NORMAL: _distance(first, second, kind) for kind in (None, *DEFICIENCIES)}
        if close := [f"{kind} {value:.1f}" for kind, value in found.items() if value < LEAST_DIFFERENCE]:
            sentences.append(
                f"{one} ({first}) and {other} ({second}) look alike under {', '.join(close)} "
                f"(CIEDE2000, at least {LEAST_DIFFERENCE:g} tells them apart): give one another colour"
            )
    for name, color in colors.items():
        if (ratio := contrast(color, theme.page)) < LEAST_CONTRAST:
            sentences.append(
                f"{name} ({color}) has a contrast of {ratio:.2f} to the page {theme.page}, expected at least "
                f"{LEAST_CONTRAST:g} (WCAG 2.2, 1.4.11): give it another colour"
            )
    return sentences


def _distance(one: str, other: str, deficiency: str | None) -> float:
    return float(color_difference(seen_lab(one, deficiency), seen_lab(other, deficiency)))


def _linear(color: str) -> Floats:
    """[3] linear RGB in [0, 1]."""
    encoded = np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)


def _of_chroma(C: Floats) -> Floats:
    return np.sqrt(C**7 / (C**7 + 25.0**7))
