"""The figures of the answers: which ones a kind of result has, and how each is drawn."""

from __future__ import annotations

from collections.abc import Callable

from delphi_jax.draw import Drawing, Figure, draw_each
from delphi_jax.plots.drawers import Document
from delphi_jax.results import Result

__all__ = ["ANSWER_FIGURES", "draw_answer"]


def _pair(name: str, build: Callable[..., Document], restack: Callable[[Document], Document]) -> dict[str, Figure]:
    """A figure and its mobile variant."""
    return {name: Figure(build=build), f"{name}-mobile": Figure(mobile_of=name, restack=restack)}


ANSWER_FIGURES: dict[type[Result], dict[str, Figure]] = {}
"""Figures by name, for every kind of result that has some; their titles stand in :mod:`delphi_jax.labels`."""


def draw_answer(result: Result) -> Drawing:
    """Draw the figures of ``result`` as plotly documents; ValueError where results of its kind have none."""
    figures = ANSWER_FIGURES.get(type(result))
    if figures is None:
        known = ", ".join(sorted(kind.__name__ for kind in ANSWER_FIGURES))
        raise ValueError(f"{type(result).__name__} has no figures, these have some: {known}")
    return draw_each(figures, figures, result)
