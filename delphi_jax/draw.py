"""The twelve figures by name: what each needs, and how it is drawn from a study's fit."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from delphi_jax.labels import ADAMC_SUITE, ADAMH_SUITE
from delphi_jax.plots.asymptote import build_scaling_law_asymptote
from delphi_jax.plots.drawers import Document, NothingToDraw
from delphi_jax.plots.emergence import build_mmlu_emergence, build_mmlu_emergence_mobile
from delphi_jax.plots.hparam import build_hparam_scaling, build_hparam_scaling_mobile
from delphi_jax.plots.isoflop import build_isoflop_parabolas
from delphi_jax.plots.ladder import build_ladder, build_ladder_mobile
from delphi_jax.plots.lucky_seeds import build_lucky_seeds
from delphi_jax.plots.overtraining import build_overtraining_forecast
from delphi_jax.results import StudyFit
from delphi_jax.tasks import TASKS

__all__ = ["FIGURES", "Drawing", "Figure", "draw_each", "draw_figures", "parts_for", "tables_for"]

_RUNS = frozenset({"runs"})
_LADDER = frozenset({"isoflop", "laws", "held_out"})


@dataclass(frozen=True)
class Figure:
    """One figure: the tables and parts of a study's fit that it needs, and its builder."""

    tables: frozenset[str] = frozenset()
    parts: frozenset[str] = frozenset()
    build: Callable[[Any], Document] | None = None
    mobile_of: str | None = None
    """The wide figure that a mobile variant is restacked from, by :attr:`restack`."""
    restack: Callable[[Document], Document] | None = None


def _mobile(wide: str, restack: Callable[[Document], Document]) -> Figure:
    return Figure(_WIDE[wide].tables, _WIDE[wide].parts, mobile_of=wide, restack=restack)


_WIDE: dict[str, Figure] = {
    "isoflop-parabolas": Figure(_RUNS, frozenset({"isoflop"}), lambda fit: build_isoflop_parabolas(fit.isoflop)),
    "scaling-law-asymptote": Figure(
        _RUNS, _LADDER, lambda fit: build_scaling_law_asymptote(fit.isoflop, fit.laws, fit.held_out)
    ),
    "first-ladder": Figure(_RUNS, _LADDER, lambda fit: build_ladder(fit.isoflop, fit.laws, fit.held_out, ADAMC_SUITE)),
    "delphi-ladder": Figure(_RUNS, _LADDER, lambda fit: build_ladder(fit.isoflop, fit.laws, fit.held_out, ADAMH_SUITE)),
    "lucky-seeds": Figure(_RUNS, frozenset({"seeds"}), lambda fit: build_lucky_seeds(fit.seeds)),
    "overtraining-forecast": Figure(
        _RUNS, frozenset({"overtraining"}), lambda fit: build_overtraining_forecast(fit.overtraining)
    ),
    "mmlu-emergence": Figure(
        frozenset(name for key in TASKS for name in (key, f"{key}_external")),
        frozenset({"downstream"}),
        lambda fit: build_mmlu_emergence(fit.downstream),
    ),
    "hparam-scaling": Figure(
        frozenset({"hparam_sweep"}), frozenset({"sweep"}), lambda fit: build_hparam_scaling(fit.sweep)
    ),
}

FIGURES: dict[str, Figure] = _WIDE | {
    "first-ladder-mobile": _mobile("first-ladder", build_ladder_mobile),
    "delphi-ladder-mobile": _mobile("delphi-ladder", build_ladder_mobile),
    "mmlu-emergence-mobile": _mobile("mmlu-emergence", build_mmlu_emergence_mobile),
    "hparam-scaling-mobile": _mobile("hparam-scaling", build_hparam_scaling_mobile),
}
"""The figures in the order in which a reader meets them, mobile variants last."""


@dataclass(frozen=True, eq=False)
class Drawing:
    """What could be drawn, and why the rest could not."""

    documents: dict[str, Document] = field(default_factory=dict)
    undrawn: dict[str, str] = field(default_factory=dict)
    """Reason by figure name, where data is missing."""
    failed: dict[str, str] = field(default_factory=dict)
    """Error by figure name, where a builder broke: a defect of this package."""


def parts_for(names: Collection[str]) -> set[str]:
    """The parts of a study's fit that the figures ``names`` need."""
    return set().union(*(FIGURES[name].parts for name in names))


def tables_for(names: Collection[str]) -> set[str]:
    """The input tables that the figures ``names`` need."""
    return set().union(*(FIGURES[name].tables for name in names))


def draw_figures(fit: StudyFit, names: Collection[str] | None = None) -> Drawing:
    """Draw ``names`` (all by default) as plotly documents; see :func:`delphi_jax.export.to_plotly`.

    A figure whose data is missing is left out with its reason. Raises ValueError for an unknown name.
    """
    names = list(FIGURES) if names is None else list(names)
    if unknown := [name for name in names if name not in FIGURES]:
        raise ValueError(f"unknown figures {unknown}, expected some of {list(FIGURES)}")
    return draw_each(FIGURES, names, fit)


def draw_each(figures: Mapping[str, Figure], names: Iterable[str], result: Any) -> Drawing:
    """Draw ``names`` of ``figures`` from ``result``, each by itself: what one lacks does not cost the others."""
    wide: dict[str, Document] = {}
    drawing = Drawing()
    for name in names:
        figure = figures[name]
        source = figure.mobile_of or name
        try:
            if source not in wide:
                wide[source] = figures[source].build(result)
            drawing.documents[name] = wide[source] if figure.restack is None else figure.restack(wide[source])
        except NothingToDraw as reason:
            drawing.undrawn[name] = str(reason)
        except Exception as error:
            # One broken figure must not cost the reader the others.
            drawing.failed[name] = f"{type(error).__name__}: {error}"
    return drawing
