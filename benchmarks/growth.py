"""Draw how cost grows: ``python -m benchmarks.growth [SAVED] [--out FOLDER]``.

Writes ``how-cost-grows.html`` and ``.json``: seconds against draws, series, points and cells, on logarithmic axes, as
measured, for our kernels and, at the sizes that it was given, the baseline.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterable, Sequence
from itertools import product
from pathlib import Path
from typing import Any

from benchmarks.saved import Benchmark, SavedError, load, newest
from delphi_jax.export import write_figures
from delphi_jax.plots.drawers import Document, document, horizontal_legend, line, on_panel
from delphi_jax.plots.theme import BRAND_BLUE, BRAND_TERRACOTTA, EXTERNAL_GREY
from delphi_jax.status import InputError

__all__ = ["AXES", "build_growth", "exponent", "growth_table", "main"]

AXES = ("draws", "series", "points", "cells")
NAME = "how-cost-grows"

_SIDES = {"ours": ("Ours", BRAND_BLUE, "solid"), "baseline": ("Baseline, small sizes only", BRAND_TERRACOTTA, "dot")}
_DECADE = 10.0
_GAP = (0.1, 0.18)
"""Between panels, across and down, in fractions of the plot."""
_HEIGHT = 760

Points = list[tuple[int, Benchmark]]
"""(size, benchmark), ascending."""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.growth", description="Draw how cost grows.")
    parser.add_argument("saved", nargs="?", type=Path, help="file of --benchmark-json (default: the newest autosaved)")
    parser.add_argument("--out", type=Path, default=Path("figures"), help="folder to write to (default: figures)")
    options = parser.parse_args(arguments)
    try:
        session = load(options.saved or newest())
        benchmarks = [benchmark for benchmark in session.benchmarks if benchmark.kind == "growth"]
        if not benchmarks:
            raise SavedError(f"{session.path} holds no benchmarks of growth: run pytest benchmarks without a choice")
        report = write_figures({NAME: build_growth(benchmarks)}, options.out, ("html", "json"))
    except (SavedError, InputError) as error:
        print(error, file=sys.stderr)
        return 1
    for failed in report.unwritten:
        print(f"could not write {failed.figure}.{failed.format}: {failed.reason}", file=sys.stderr)
    print(growth_table(benchmarks))
    for path in report.written:
        print(path)
    return 1 if report.unwritten else 0


def exponent(sizes: Sequence[float], seconds: Sequence[float]) -> float | None:
    """Slope of log seconds on log size by least squares over the largest decade of ``sizes``.

    None where fewer than two sizes lie in it.
    """
    top = max(sizes, default=0.0)
    points = [
        (math.log(size), math.log(time)) for size, time in zip(sizes, seconds, strict=True) if size * _DECADE >= top
    ]
    if len({x for x, _ in points}) < 2:
        return None
    mean_x, mean_y = (sum(values) / len(points) for values in zip(*points, strict=True))
    across = sum((x - mean_x) ** 2 for x, _ in points)
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / across


def growth_table(benchmarks: Iterable[Benchmark]) -> str:
    """A Markdown table of the measured times by size, with the exponent over the largest decade; empty without any."""
    benchmarks = list(benchmarks)
    lines = [
        f"| {axis} | {side} | " + ", ".join(f"{n:,}: {_short(b.seconds)}" for n, b in points) + f" | {_slope(points)} |"
        for axis, side in product(AXES, _SIDES)
        if (points := _points(benchmarks, axis, side))
    ]
    if not lines:
        return ""
    return "\n".join(["| cost by | side | size: time | exponent |", "| --- | --- | --- | ---: |", *lines])


def build_growth(benchmarks: Iterable[Benchmark]) -> Document:
    """The figure: one panel per axis, logarithmic; markers are measurements, lines only join them."""
    benchmarks = list(benchmarks)
    data: list[dict[str, Any]] = []
    layout: dict[str, Any] = {
        "height": _HEIGHT,
        "legend": horizontal_legend(0.5, -0.08),
        "margin": {"t": 40, "r": 20, "b": 60, "l": 20},
        "annotations": [],
    }
    width, height = ((1 - gap) / 2 for gap in _GAP)
    for place, axis in enumerate(AXES):
        row, column = divmod(place, 2)
        left, bottom = column * (width + _GAP[0]), (1 - row) * (height + _GAP[1])
        number = "" if place == 0 else str(place + 1)
        layout[f"xaxis{number}"] = _axis(axis, [left, left + width], f"y{number}")
        layout[f"yaxis{number}"] = _axis("seconds", [bottom, bottom + height], f"x{number}")
        slopes = []
        for side, (title, color, dash) in _SIDES.items():
            points = _points(benchmarks, axis, side)
            if not points:
                continue
            slopes.append(f"{side} n^{_slope(points)}" if _slope(points) else side)
            trace = line(
                [n for n, _ in points],
                [benchmark.seconds for _, benchmark in points],
                {"color": color, "dash": dash},
                f"%{{x:,}} {axis}<br>%{{y:.3g}} s<br>%{{text}}",
                mode="lines+markers",
                text=[benchmark.size for _, benchmark in points],
                name=title,
                legendgroup=side,
                showlegend=not any(other["legendgroup"] == side for other in data),
            )
            data.append(on_panel(trace, place + 1))
        layout["annotations"].append(
            {
                "text": ", ".join(slopes) or "not measured",
                "x": left,
                "y": bottom + height,
                "xref": "paper",
                "yref": "paper",
                "xanchor": "left",
                "yanchor": "bottom",
                "showarrow": False,
                "font": {"color": EXTERNAL_GREY},
            }
        )
    return document(data, layout)


def _axis(title: str, domain: list[float], anchor: str) -> dict[str, Any]:
    return {"title": {"text": title}, "type": "log", "domain": domain, "anchor": anchor, "dtick": 1}


def _points(benchmarks: Iterable[Benchmark], axis: str, side: str) -> Points:
    chosen = [b for b in benchmarks if b.info["axis"] == axis and b.info["side"] == side]
    return sorted(((b.info["amount"], b) for b in chosen), key=lambda point: point[0])


def _slope(points: Points) -> str:
    """The exponent in words; empty where there is none."""
    slope = exponent([n for n, _ in points], [benchmark.seconds for _, benchmark in points])
    return "" if slope is None else f"{slope:.2f}"


def _short(seconds: float) -> str:
    return f"{seconds:.3g} s" if seconds >= 1 else f"{1e3 * seconds:.3g} ms"


if __name__ == "__main__":
    raise SystemExit(main())
