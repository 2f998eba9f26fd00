"""From results to a report, and from a report to one page that needs no network."""

from __future__ import annotations

import base64
import gzip
import hashlib
import unicodedata
from collections.abc import Iterable, Mapping
from importlib.resources import files
from typing import Any

from delphi_jax.answers import draw_answer
from delphi_jax.definition import figure_title
from delphi_jax.draw import Drawing, draw_figures
from delphi_jax.export import FONT_SIZE, MOBILE_FONT_SIZE, PAGE_HEIGHT, PLOT_CONFIG, document_json, plotly_js
from delphi_jax.plots.drawers import Document
from delphi_jax.plots.theme import READABLE, THEMES, Theme, color_map, mixed, template
from delphi_jax.report.model import File, PageFigure, Report, Section, shortened, table_of
from delphi_jax.report.tables import figure_table, forecast_table, result_tables, skipped_table
from delphi_jax.report.words import figure_reading, headlines, methods, profile_ends, says
from delphi_jax.results import Result, StudyFit
from delphi_jax.tables import Study

__all__ = ["build_report", "page_bytes", "page_colors"]

NARROW = 720
"""Pixels of a screen below which mobile variants are shown."""
_LONGEST = 3000
"""Characters of one sentence that a reader is shown."""
_MOBILE = "-mobile"


def build_report(
    study: Study,
    fit: StudyFit,
    answers: Mapping[str, Result],
    *,
    left_out: Mapping[str, str],
    made: str,
    simulated: bool = False,
    versions: Mapping[str, str] | None = None,
    sources: Iterable[File] = (),
    provenance: Mapping[str, str] | None = None,
    origin: Iterable[Mapping[str, Any]] = (),
) -> Report:
    """The report of a study from its ``fit`` and from ``answers`` by the name of their figure.

    ``left_out`` says why other answers are not there, ``origin`` where each table came from, a row each. Draws every
    figure, and never fits; a figure that cannot be drawn is named with its reason. The same arguments give the same
    report.

    Examples:

    >>> import delphi_jax as dj
    >>> study = dj.load_study("data", tables=["runs"])
    >>> fit = dj.fit_study(study, ["laws"])
    >>> report = dj.build_report(study, fit, {}, left_out={}, made="2026-01-01", simulated=True)
    >>> report.title, report.simulated
    ('Delphi', True)
    """
    drawn = draw_figures(fit)
    drawings = {name: draw_answer(answer) for name, answer in answers.items()}
    notices = [sentence for each in (fit, *answers.values()) for sentence in getattr(each, "notices", list)()]
    rows = [
        {"file": each.name, "bytes": each.size, "sha256": each.sha256, "provenance": each.recorded} for each in sources
    ]
    return Report(
        title=fit.definition.name,
        source=fit.source,
        made=made,
        simulated=simulated,
        headlines=headlines(fit, answers),
        says=says(fit, answers),
        headline_table=forecast_table(fit, profile_ends(answers)),
        sections=(
            _section("figures", "The study in figures", "Figures", [drawn], fit, {}),
            _section(
                "answers", "How sure it is, and what to plan with", "Plans", drawings.values(), fit, answers, left_out
            ),
        ),
        tables=result_tables(study, fit, answers),
        skipped=skipped_table(fit.skipped),
        missing=tuple(f"{part.table}, for {part.needed_for}: {part.how}" for part in fit.missing),
        notices=tuple(dict.fromkeys(notices)),
        methods=methods(fit, answers),
        versions=versions or {},
        files=table_of("files", "Files that were read", rows) if rows else None,
        provenance=provenance or {},
        origin=table_of("origin", "Where the tables came from", told) if (told := list(origin)) else None,
    )


def _section(
    key: str,
    title: str,
    short: str,
    drawings: Iterable[Drawing],
    fit: StudyFit,
    answers: Mapping[str, Result],
    left_out: Mapping[str, str] | None = None,
) -> Section:
    figures, absent, failed = [], [], []
    for drawing in drawings:
        for name, document in drawing.documents.items():
            if not name.endswith(_MOBILE):
                heading = figure_title(name, fit.definition)
                reading = figure_reading(name, fit)
                table = figure_table(name, heading, document, fit, answers.get(name))
                mobile = drawing.documents.get(name + _MOBILE)
                figures.append(PageFigure(name, heading, reading, document, mobile, table))
        absent += [f"{name}: {reason}" for name, reason in drawing.undrawn.items()]
        failed += [f"{name}: {error}" for name, error in drawing.failed.items()]
    absent += [f"{name}: {reason}" for name, reason in (left_out or {}).items()]
    return Section(key, title, short, tuple(figures), tuple(absent), tuple(failed))


def page_bytes(report: Report, theme: Theme = THEMES["light"]) -> bytes:
    """``report`` as one HTML page: styles, scripts, plotly.js and data are inside, and nothing else may load.

    A dark ``theme`` is shown whatever the reader prefers; with any other the page follows the reader between it and
    the dark one. Texts of the data are text: escaped, without control and direction characters, and shortened where
    they are longer than a reader can take in; downloaded tables hold them as they are.

    Examples:

    >>> import delphi_jax as dj
    >>> study = dj.load_study("data", tables=["runs"])
    >>> fit = dj.fit_study(study, ["laws"])
    >>> report = dj.build_report(study, fit, {}, left_out={}, made="2026-01-01", simulated=True)
    >>> dj.page_bytes(report)[:15]
    b'<!doctype html>'
    """
    import jinja2
    from markupsafe import Markup, escape

    day, night = (THEMES["light"], theme) if theme.dark else (theme, THEMES["dark"])
    library, script = plotly_js(), _part("page.js")
    settings = {
        "narrow": NARROW,
        "themes": {"day": _for_script(day), "night": _for_script(night)},
        "fontSizes": {"wide": FONT_SIZE, "mobile": MOBILE_FONT_SIZE},
        "height": PAGE_HEIGHT,
        "config": PLOT_CONFIG,
    }
    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        # Every text that is not markup already passes through here.
        finalize=lambda value: value if isinstance(value, Markup) else readable(value),
    )
    environment.globals["readable"] = readable
    environment.filters["short"] = shortened
    # A literal carriage return would be read as a line feed.
    environment.filters["whole"] = lambda text: Markup(escape(text).replace("\r", Markup("&#13;")))
    page = environment.from_string(_part("page.html")).render(
        report=report,
        forced="night" if theme.dark else "",
        policy=_policy(library.decode(), script),
        style=Markup(_style(day, night)),
        script=Markup(script),
        library=Markup(base64.b64encode(gzip.compress(library, 9, mtime=0)).decode()),
        settings=Markup(_script_json(settings)),
        documents={
            figure.key: Markup(_script_json(shared(figure.wide, figure.mobile)))
            for section in report.sections
            for figure in section.figures
        },
        heights={
            figure.key: [_height(figure.wide), _height(figure.mobile or figure.wide)]
            for section in report.sections
            for figure in section.figures
        },
    )
    return page.encode()


def page_colors(theme: Theme) -> dict[str, str]:
    """The page's colours by the name of their CSS variable, made from the theme's ink and page."""
    from delphi_jax.plots.vision import contrast

    wash = mixed(theme.ink, theme.page, 0.045)
    # The softest that can still be read.
    soft = (mixed(theme.ink, theme.page, share) for share in (0.72, 0.78, 0.84, 0.9))
    return {
        "page": theme.page,
        "ink": theme.ink,
        "muted": next((color for color in soft if contrast(color, wash) >= READABLE), theme.ink),
        "line": mixed(theme.ink, theme.page, 0.16),
        "wash": wash,
        "accent": theme.accent,
    }


def readable(value: Any) -> Any:
    """A text as a reader should see it: no control or direction characters, which could hide or turn what follows, and
    not longer than a reader takes in; a number and its unit on one line. Anything else is returned as it is."""
    if not isinstance(value, str):
        return value
    plain = "".join(
        "\ufffd" if unicodedata.category(sign) in ("Cc", "Cf", "Cs") and sign not in "\t\n" else sign for sign in value
    )
    plain = plain.replace(" %", "\u00a0%").replace(" FLOPs", "\u00a0FLOPs")
    return plain if len(plain) <= _LONGEST else f"{plain[:_LONGEST]}… ({len(plain)} characters)"


def shared(wide: Document, mobile: Document | None) -> dict[str, Any]:
    """Both variants of a figure with every trace once: their ``data`` are places in ``traces``."""
    places: dict[bytes, int] = {}
    traces: list[Any] = []

    def place(trace: Any) -> int:
        text = document_json(trace)
        if text not in places:
            places[text] = len(traces)
            traces.append(trace)
        return places[text]

    variants = {"wide": wide} | ({} if mobile is None else {"mobile": mobile})
    packed = {
        name: document | {"data": [place(trace) for trace in document["data"]]} for name, document in variants.items()
    }
    return {"traces": traces, **packed}


def _height(document: Document) -> int:
    return int(document["layout"].get("height", PAGE_HEIGHT))


def _for_script(theme: Theme) -> dict[str, Any]:
    return {
        "colors": list(color_map(theme).items()),
        "template": template(theme),
        "font": {"family": theme.font, "color": theme.ink},
    }


def _script_json(document: Any) -> str:
    """JSON within a script element, which no "</script>" of the data can end."""
    return document_json(document).decode().replace("<", r"\u003c")


def _policy(*scripts: str) -> str:
    """A content security policy under which only ``scripts`` run, and nothing is fetched."""
    hashes = (base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts)
    allowed = " ".join(f"'sha256-{digest}'" for digest in hashes)
    # plotly.js sets styles of its own on what it draws.
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data: blob:; "
        "base-uri 'none'; form-action 'none'"
    )


def _style(day: Theme, night: Theme) -> str:
    def colors(theme: Theme) -> str:
        scheme = "dark" if theme.dark else "light"
        return f"color-scheme:{scheme};" + "".join(f"--{name}:{color};" for name, color in page_colors(theme).items())

    return (
        f":root{{{colors(day)}--font:{day.font};}}\n"
        f"@media screen and (prefers-color-scheme:dark){{:root:not([data-theme=day]){{{colors(night)}}}}}\n"
        f"@media screen{{:root[data-theme=night]{{{colors(night)}}}}}\n" + _part("page.css")
    )


def _part(name: str) -> str:
    return (files(__package__) / name).read_text(encoding="utf-8")
