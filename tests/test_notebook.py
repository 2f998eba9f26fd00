"""In a notebook: what IPython's formatters make of results, drawings and figures."""

from __future__ import annotations

from html import escape
from typing import Any

import numpy as np
import pytest

import delphi_jax as dj
from delphi_jax.draw import Drawing
from delphi_jax.export import MOBILE_WIDTH, PAGE_HEIGHT, page_html

DisplayFormatter = pytest.importorskip("IPython.core.formatters", reason="IPython is not installed").DisplayFormatter

SCRIPT = "<script>alert(1)</script>"
COMPUTE = np.logspace(18, 20, 7)
LOSS = 2 + 1000 * COMPUTE**-0.2
NAME = "leave-future-out"


def shown(value: Any) -> dict[str, str]:
    """What a notebook is given of ``value``, by MIME type."""
    data, metadata = DisplayFormatter().format(value)
    assert not metadata
    return data


@pytest.fixture(scope="module")
def drawing() -> Drawing:
    return dj.draw_answer(dj.leave_future_out({SCRIPT: (COMPUTE, LOSS)}))


def test_a_result_is_a_table_of_text_and_of_html() -> None:
    law = dj.fit_law(COMPUTE, LOSS, series=SCRIPT, method="optimum")
    data = shown(law)
    assert set(data) == {"text/plain", "text/html"}
    assert data["text/plain"] == repr(law)
    assert SCRIPT in data["text/plain"]
    assert "<script" not in data["text/html"]
    assert escape(SCRIPT) in data["text/html"]
    assert "<td>0.2</td>" in data["text/html"]


def test_texts_are_whole_and_numbers_are_short() -> None:
    name = "x" * 200
    law = dj.fit_law(COMPUTE, LOSS, series=name)
    html = shown(dj.bootstrap_law(COMPUTE, LOSS, [1e22], draws=100, series=name))["text/html"]
    assert f"<td>{name}</td>" in html
    assert "<td>1e+22</td>" in html
    assert f"<td>{law.alpha:.6g}</td>" in shown(law)["text/html"]


def test_a_drawing_says_what_was_drawn_and_why_the_rest_was_not(drawing: Drawing) -> None:
    full = Drawing(drawing.documents, {"mmlu-emergence": f"no table of {SCRIPT}"}, {SCRIPT: "KeyError: 'x'" + "y" * 99})
    data = shown(full)
    assert set(data) == {"text/plain", "text/html"}
    assert data["text/html"].count("<tr") == 1 + 4
    for text in (NAME, f"{NAME}-mobile", "mmlu-emergence", "no table of", "failed", "y" * 99):
        assert text in data["text/plain"]
        assert text in data["text/html"]
    assert "<script" not in data["text/html"]
    assert data["text/html"].count(escape(SCRIPT)) == 2
    assert data["text/plain"].splitlines()[:2] == ["Drawing", f"{NAME}: drawn"]
    assert len(data["text/plain"].splitlines()) == 1 + 4
    assert set(shown(Drawing())) == {"text/plain", "text/html"}


def test_a_figure_is_shown_as_on_its_page(drawing: Drawing) -> None:
    import plotly.io as pio

    figure = drawing[NAME]
    page = page_html(NAME, drawing.documents[NAME]).decode()
    assert figure.layout.font.family.split(",")[0] in page
    assert figure.layout.height == drawing.documents[NAME]["layout"].get("height", PAGE_HEIGHT)
    assert figure.layout.width is None
    assert figure.layout.template.layout.colorway == dj.THEMES["brand"].cycle
    assert figure.layout.paper_bgcolor == dj.THEMES["brand"].page
    dark = drawing.figure(NAME, dj.THEMES["dark"])
    assert dark.layout.paper_bgcolor == dj.THEMES["dark"].page
    assert dark.layout.font.color == dj.THEMES["dark"].ink
    assert drawing[f"{NAME}-mobile"].layout.width == MOBILE_WIDTH
    # The document is as it was: a host page themes it by itself.
    assert "template" not in drawing.documents[NAME]["layout"]

    before = pio.renderers.default
    try:
        pio.renderers.default = "plotly_mimetype"
        bundle = figure._repr_mimebundle_()
    finally:
        pio.renderers.default = before
    assert set(bundle) == {"application/vnd.plotly.v1+json"}
    traces = bundle["application/vnd.plotly.v1+json"]["data"]
    assert len(traces) == len(drawing.documents[NAME]["data"])


def test_a_figure_that_was_not_drawn_says_why(drawing: Drawing) -> None:
    some = Drawing(drawing.documents, {"lucky-seeds": "no held-out run"}, {"hparam-scaling": "KeyError: 8"})
    with pytest.raises(KeyError, match="lucky-seeds was not drawn: no held-out run"):
        some["lucky-seeds"]
    with pytest.raises(KeyError, match="hparam-scaling was not drawn: KeyError: 8"):
        some.figure("hparam-scaling")
    with pytest.raises(KeyError, match=f"no-such was not drawn: the figures are {NAME}, {NAME}-mobile"):
        some["no-such"]


def test_a_study_drawn_in_part(bundled_fit: dj.StudyFit) -> None:
    part = dj.StudyFit(bundled_fit.source, isoflop=bundled_fit.isoflop)
    drawing = dj.draw_figures(part)
    rows = {row["figure"]: row for row in drawing.rows()}
    assert list(drawing.undrawn) == [name for name, row in rows.items() if row["state"] == "not drawn"]
    assert set(rows) == set(bundled_fit.definition.figure_titles)
    for name in ("lucky-seeds", "overtraining-forecast", "mmlu-emergence", "hparam-scaling-mobile"):
        assert (rows[name]["state"], rows[name]["reason"]) == ("not drawn", drawing.undrawn[name])
    assert not drawing.failed
    assert len(drawing["isoflop-parabolas"].data) == len(drawing.documents["isoflop-parabolas"]["data"])
