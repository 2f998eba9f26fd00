"""The figures of a study by name: what each needs, and how it is drawn from the study's fit."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from delphi_jax.definition import Definition
from delphi_jax.plots.asymptote import build_scaling_law_asymptote
from delphi_jax.plots.drawers import Document, NothingToDraw
from delphi_jax.plots.emergence import build_mmlu_emergence, build_mmlu_emergence_mobile
from delphi_jax.plots.hparam import build_hparam_scaling, build_hparam_scaling_mobile
from delphi_jax.plots.isoflop import build_isoflop_parabolas
from delphi_jax.plots.ladder import build_ladder, build_ladder_mobile
from delphi_jax.plots.lucky_seeds import build_lucky_seeds
from delphi_jax.plots.overtraining import build_overtraining_forecast
from delphi_jax.plots.theme import BRAND, Theme
from delphi_jax.results import StudyFit
from delphi_jax.results.base import Tabled

if TYPE_CHECKING:
    import plotly.graph_objects as go

__all__ = ["Drawing", "Figure", "draw_each", "draw_figures", "parts_for", "study_figures", "tables_for"]

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


def _ladder(suite: str) -> Figure:
    return Figure(_RUNS, _LADDER, lambda fit: build_ladder(fit.isoflop, fit.laws, fit.held_out, suite))


_WIDE: dict[str, Figure] = {
    "isoflop-parabolas": Figure(_RUNS, frozenset({"isoflop"}), lambda fit: build_isoflop_parabolas(fit.isoflop)),
    "scaling-law-asymptote": Figure(
        _RUNS, _LADDER, lambda fit: build_scaling_law_asymptote(fit.isoflop, fit.laws, fit.held_out)
    ),
    "lucky-seeds": Figure(_RUNS, frozenset({"seeds"}), lambda fit: build_lucky_seeds(fit.seeds)),
    "overtraining-forecast": Figure(
        _RUNS, frozenset({"overtraining"}), lambda fit: build_overtraining_forecast(fit.overtraining)
    ),
    "mmlu-emergence": Figure(
        frozenset({"tasks"}),
        frozenset({"downstream"}),
        lambda fit: build_mmlu_emergence(fit.downstream, fit.definition.tasks),
    ),
    "hparam-scaling": Figure(
        frozenset({"sweep"}),
        frozenset({"sweep"}),
        lambda fit: build_hparam_scaling(fit.sweep, fit.definition.sweep),
    ),
}
"""Those that are not of one suite."""

_RESTACKS = {"mmlu-emergence": build_mmlu_emergence_mobile, "hparam-scaling": build_hparam_scaling_mobile}


def study_figures(definition: Definition) -> dict[str, Figure]:
    """The figures of a study by name, in the order in which a reader meets them, mobile variants last.

    Examples:

    >>> import delphi_jax as dj
    >>> figures = dj.study_figures(dj.delphi())
    >>> list(figures)[:3], len(figures)
    (['isoflop-parabolas', 'scaling-law-asymptote', 'delphi-ladder'], 12)
    """
    wide = _WIDE | {name: _ladder(rule.label) for name, rule in definition.ladders.items()}
    restacks = _RESTACKS | dict.fromkeys(definition.ladders, build_ladder_mobile)
    figures = {}
    for name in definition.figure_titles:
        source = name.removesuffix("-mobile")
        figure = wide[source]
        if name != source:
            figure = Figure(figure.tables, figure.parts, mobile_of=source, restack=restacks[source])
        figures[name] = figure
    return figures


@dataclass(frozen=True, eq=False, repr=False)
class Drawing(Tabled):
    """What could be drawn, and why the rest could not; ``drawing[name]`` shows one figure in a notebook."""

    documents: dict[str, Document] = field(default_factory=dict)
    undrawn: dict[str, str] = field(default_factory=dict)
    """Reason by figure name, where data is missing."""
    failed: dict[str, str] = field(default_factory=dict)
    """Error by figure name, where a builder broke: a defect of this package."""

    def rows(self) -> list[dict[str, Any]]:
        drawn = [{"figure": name, "state": "drawn", "reason": ""} for name in self.documents]
        return drawn + [
            {"figure": name, "state": word, "reason": reason}
            for word, reasons in (("not drawn", self.undrawn), ("failed", self.failed))
            for name, reason in reasons.items()
        ]

    def __repr__(self) -> str:
        # Reasons are sentences: as a column they would be as wide as the longest one.
        lines = (": ".join(filter(None, (row["figure"], row["state"], row["reason"]))) for row in self.rows())
        return "\n".join([type(self).__name__, *lines])

    def figure(self, name: str, theme: Theme = BRAND) -> go.Figure:
        """One figure as its HTML page shows it; KeyError, with the reason, for one that was not drawn."""
        from delphi_jax.export import page_figure

        if name not in self.documents:
            reason = (self.undrawn | self.failed).get(name, f"the figures are {', '.join(self.documents)}")
            raise KeyError(f"{name} was not drawn: {reason}")
        return page_figure(name, self.documents[name], theme)

    def __getitem__(self, name: str) -> go.Figure:
        return self.figure(name)


def parts_for(names: Collection[str], definition: Definition) -> set[str]:
    """The parts of a study's fit that the figures ``names`` need."""
    figures = study_figures(definition)
    return set().union(*(figures[name].parts for name in names))


def tables_for(names: Collection[str], definition: Definition) -> set[str]:
    """The kinds of input tables that the figures ``names`` need."""
    figures = study_figures(definition)
    return set().union(*(figures[name].tables for name in names))


def draw_figures(fit: StudyFit, names: Collection[str] | None = None) -> Drawing:
    """Draw ``names`` (all by default) as plotly documents; see :func:`delphi_jax.export.to_plotly`.

    A figure whose data is missing is left out with its reason. Raises ValueError for an unknown name.

    Examples:

    >>> import delphi_jax as dj
    >>> fit = dj.fit_study(dj.load_study("data", tables=["runs"]), ["isoflop"])
    >>> drawing = dj.draw_figures(fit, ["isoflop-parabolas", "mmlu-emergence"])
    >>> drawing.undrawn["mmlu-emergence"]
    'no downstream evaluations: put mmlu.json, humaneval.json or gsm8k.json into the data folder'
    >>> list(drawing.documents)
    ['isoflop-parabolas']
    """
    figures = study_figures(fit.definition)
    names = list(figures) if names is None else list(names)
    if unknown := [name for name in names if name not in figures]:
        raise ValueError(f"unknown figures {unknown}, expected some of {list(figures)}")
    return draw_each(figures, names, fit)


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
