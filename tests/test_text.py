"""How numbers and names are written: tables of known answers and a few properties."""

import html

import pytest
from hypothesis import given
from hypothesis import strategies as st

from delphi_jax.text import (
    axis_value,
    escape,
    overhead,
    overtraining_label,
    overtraining_tick,
    residual,
    scientific,
)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (3e18, "3e+18"),
        (1.8e19, "1.8e+19"),
        (1.234e20, "1.23e+20"),
        (9.996e5, "1e+6"),
        (1e-8, "1e-8"),
        (-2.5e-3, "-2.5e-3"),
        (100.0, "1e+2"),
        (7.0, "7e+0"),
    ],
)
def test_scientific(value, expected):
    assert scientific(value) == expected


@given(st.floats(min_value=1e-300, max_value=1e300))
def test_scientific_keeps_three_digits_and_nothing_superfluous(value):
    written = scientific(value)
    mantissa, exponent = written.split("e")
    assert float(written) == pytest.approx(value, rel=5.001e-3)
    assert "." not in mantissa or not mantissa.endswith("0")
    assert exponent[0] in "+-" and exponent[1:] == str(int(exponent[1:]))


@pytest.mark.parametrize(
    ("percent", "expected"),
    [
        (0.46, "0.5% worse"),
        (-0.46, "0.5% better"),
        (0.0, "0.0% worse"),
        (-0.01, "0.0% better"),
        (12.34, "12.3% worse"),
        (float("nan"), ""),
    ],
)
def test_residual(percent, expected):
    assert residual(percent) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0, "0"),
        (0.95, "0.95"),
        (0.999891, "0.99989"),
        (-0.999891, "-0.99989"),
        (0.9, "0.9"),
        (1.0, "1"),
        (1.23456, "1.23"),
        (0.01, "0.01"),
        (0.012345, "0.0123"),
        (0.00999, "9.99e-3"),
        (999.0, "999"),
        (1000.0, "1e+3"),
        (2e-9, "2e-9"),
    ],
)
def test_axis_value(value, expected):
    assert axis_value(value) == expected


@pytest.mark.parametrize(
    ("scale", "tick", "label"),
    [
        (2.0, "2×", "2× overtrained"),
        (10.0, "10×", "10× overtrained"),
        (1 / 3, "0.333×", "3× undertrained"),
        (2 / 3, "0.667×", "1.5× undertrained"),
        (1.0, "1×", "compute-optimal"),
    ],
)
def test_overtraining_words(scale, tick, label):
    assert overtraining_tick(scale) == tick
    assert overtraining_label(scale) == label


def test_overhead_is_signed():
    assert overhead(14.62) == "+14.6%"
    assert overhead(-3.0) == "-3.0%"


@given(st.text())
def test_escaped_names_hold_no_markup(name):
    assert not set("<>") & set(escape(name))


@pytest.mark.parametrize("name", ["a<b>bold</b>", "R&D", "x &lt; y", "<extra>"])
def test_escape_is_undone_by_the_renderer(name):
    assert html.unescape(escape(name)) == name
