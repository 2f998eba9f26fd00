"""How numbers and names are written in figures and tables."""

from __future__ import annotations

import math
import unicodedata

__all__ = [
    "axis_value",
    "escape",
    "one_line",
    "overhead",
    "overtraining_label",
    "overtraining_tick",
    "residual",
    "scientific",
    "shown",
]

_MAX_SHOWN = 40
_MOST_SHOWN_OF_NAME = 120
"""Characters of a name in a figure."""
_CONTROLS = ("Cc", "Cf", "Cs", "Co")
"""Unicode's categories of what is no letter to be seen: controls, marks of direction, surrogates, private use."""


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


def one_line(text: str) -> str:
    """``text`` on one line, without what is no letter to be seen: no mark that turns the direction of writing, and no
    control of a terminal, acts on what stands around it."""
    return "".join(letter for letter in " ".join(text.split()) if unicodedata.category(letter) not in _CONTROLS)


def escape(name: str) -> str:
    """``name`` as text of a figure, whatever it holds: one line, shortened where it is long, no markup.

    Plotly renders a subset of HTML in every label and hover text, and fills in "%{...}" in hover templates. Controls
    are left out, so that a mark that turns the direction of writing cannot turn what stands around the name.
    """
    line = one_line(name)
    if len(line) > _MOST_SHOWN_OF_NAME:
        line = f"{line[: _MOST_SHOWN_OF_NAME - 1]}…"
    return line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("%{", "%&#123;")


def shown(value: object) -> str:
    """A value for an error message: short, on one line."""
    if value is None:
        return "nothing"
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, (list, tuple)):
        return "a list"
    if isinstance(value, bool):
        return str(value).lower()
    text = ascii(value) if isinstance(value, str) else f"{value}"
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}..."
