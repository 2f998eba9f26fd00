"""How numbers and names are written in figures and tables."""

from __future__ import annotations

import math

__all__ = [
    "axis_value",
    "escape",
    "overhead",
    "overtraining_label",
    "overtraining_tick",
    "residual",
    "scientific",
]


def scientific(value: float) -> str:
    """``value`` with up to 3 significant digits and an unpadded, signed exponent: 3e18 -> "3e+18"."""
    mantissa, exponent = f"{value:.2e}".split("e")
    return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent):+d}"


def residual(percent: float) -> str:
    """A held-out residual in percent, where more loss is worse: "0.5% worse"; empty for NaN."""
    if math.isnan(percent):
        return ""
    return f"{abs(percent):.1f}% {'worse' if percent >= 0 else 'better'}"


def axis_value(value: float) -> str:
    """A tick label: plain digits near one, scientific elsewhere; values just below one keep 5 digits."""
    size = abs(value)
    if value == 0:
        return "0"
    if 0.9 < size < 1:
        return f"{value:.5g}"
    if 0.01 <= size < 1000:
        return f"{value:.3g}"
    return scientific(value)


def overtraining_tick(scale: float) -> str:
    """T/T* on the slider: "2×", "0.333×"."""
    return f"{scale:.3g}×"


def overtraining_label(scale: float) -> str:
    """T/T* in words: "2× overtrained", "3× undertrained" for one third, "compute-optimal" at one."""
    if scale == 1:
        return "compute-optimal"
    if scale > 1:
        return f"{overtraining_tick(scale)} overtrained"
    return f"{overtraining_tick(1 / scale)} undertrained"


def overhead(percent: float) -> str:
    """Extra compute in percent, signed: "+14.6%"."""
    return f"{percent:+.1f}%"


def escape(name: str) -> str:
    """``name`` with markup made harmless: plotly renders a subset of HTML in every label and hover text."""
    return name.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
