"""Names and labels are text: whatever they hold, no figure renders it as markup, template or direction of writing."""

from __future__ import annotations

import dataclasses
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from delphi_jax.answers import draw_answer
from delphi_jax.cli import main
from delphi_jax.definition import Definition, HeldOutRule, Metric, SeedRule, SuiteRule
from delphi_jax.draw import Drawing, draw_figures, study_figures
from delphi_jax.export import page_html, to_plotly
from delphi_jax.fit.allocation import allocate
from delphi_jax.fit.forecasts import forecast_intervals
from delphi_jax.fit.law_intervals import law_study
from delphi_jax.fit.speedup import effective_speedup
from delphi_jax.fit.study import fit_study
from delphi_jax.fit.surface_study import fit_study_surfaces
from delphi_jax.fit.validation import leave_future_out
from delphi_jax.tables import Study, resolved, run_table
from delphi_jax.text import escape

HOSTILE = "<script>alert('1')</script><b>&\"\u202e\u200f\x07%{hostile}"
LONG = "<i>" + "long " * 2000 + "%{hostile}"
IDENTIFIERS = {"uid", "ids"}
"""Keys whose text is never shown."""


def texts(node: Any, key: str = "") -> Iterator[str]:
    """Every text of a document that plotly may show."""
    if isinstance(node, dict):
        for name, value in node.items():
            if name not in IDENTIFIERS:
                yield from texts(value, name)
    elif isinstance(node, (list, tuple)) or (isinstance(node, np.ndarray) and node.dtype == object):
        for value in node:
            yield from texts(value, key)
    elif isinstance(node, str):
        yield node


def assert_harmless(drawing: Drawing) -> None:
    assert drawing.documents and not drawing.failed, drawing.failed
    for name, document in drawing.documents.items():
        for text in texts(document):
            assert "<script" not in text and "<b>" not in text and "<i>" not in text, (name, text)
            assert "%{hostile" not in text, (name, text)
            assert not set("\u202e\u200f\x07") & set(text), (name, text)
            assert len(text) < 1000, name
        to_plotly(document)


@pytest.fixture(scope="module")
def study() -> Study:
    """Two suites with hostile labels, names, seeds and words."""
    definition = Definition(
        HOSTILE,
        metric=Metric(HOSTILE, HOSTILE),
        suites=(SuiteRule(f"{HOSTILE} one", match=("one",), ladder_title=HOSTILE), SuiteRule(LONG, match=("two",))),
        held_out=HeldOutRule(match=("optimal",)),
        seeds=SeedRule("seed"),
        targets=(1e21, 1e22),
    )
    rows = []
    for suite, lift in (("one", 0.0), ("two", 0.05)):
        for budget in 10.0 ** np.arange(18, 21, 0.5):
            best, lowest = np.log10(budget / 1e18) / 2 + 9, 1.5 + lift + (budget / 1e18) ** -0.1
            rows += [
                (f"{HOSTILE}-{suite}", budget, 10**x, lowest + 0.2 * (x - best) ** 2 + 0.003 * np.cos(9 * x))
                for x in best + np.linspace(-0.4, 0.5, 6)
            ]
        rows += [(f"{suite}-optimal-seed{k}{HOSTILE}", 1e21, 3e10, 2.0 + 0.01 * k) for k in range(3)]
    names, compute, tokens, loss = (list(column) for column in zip(*rows, strict=True))
    compute, tokens, loss = (np.array(column) for column in (compute, tokens, loss))
    labels = np.empty(len(rows), dtype=object)
    labels[[i for i, name in enumerate(names) if "optimal" in name]] = HOSTILE
    runs, _ = run_table(
        np.array(names, dtype=object),
        compute / (6 * tokens),
        tokens,
        loss,
        compute,
        definition=definition,
        labels={"seed": labels},
    )
    definition = resolved(definition, runs)
    return Study(dataclasses.replace(runs, definition=definition), None, {}, {}, (), (), "made up", definition)


def test_the_figures_of_a_study(study: Study) -> None:
    fit = fit_study(study, draws=50)
    drawing = draw_figures(fit)
    assert not drawing.undrawn
    assert list(drawing.documents) == list(study_figures(study.definition))
    assert all(set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-") for name in drawing.documents)
    assert_harmless(drawing)
    for name, document in drawing.documents.items():
        assert b"<script>alert" not in page_html(name, document)


def test_the_figures_of_the_answers(study: Study) -> None:
    fit = fit_study(study, ("laws", "held_out"), draws=50)
    series = {suite: fit.isoflop.optima(suite)[:2] for suite in fit.isoflop.suites}
    held_out = {suite: fit.held_out.means(suite) for suite in series}
    answers = (
        forecast_intervals(fit.isoflop, methods=("percentile", "profile"), draws=50, held_out=fit.held_out),
        law_study(series),
        effective_speedup(series, draws=50, definition=study.definition),
        leave_future_out(series, held_out),
        fit_study_surfaces(study.runs, draws=20),
        allocate(study.runs, [1e22], draws=20),
    )
    for answer in answers:
        assert_harmless(draw_answer(answer))


@pytest.mark.parametrize("command", [["check"], ["summary", "--draws", "40", "--no-cache"]])
def test_a_terminal_gets_no_control_of_a_name(command: list[str], tmp_path: Path, capsys: Any) -> None:
    evil = "\x1b[31mRED\x1b]0;t\x07\u202e\x9b2J\ufeff[bold]"
    (tmp_path / "study.toml").write_text(
        'name = "T\\u001b[2J\\u202e"\n[[runs]]\ncolumns = { suite = "recipe" }\nderive = "flops"\n'
    )
    lines = ["name,params,tokens,loss,recipe"]
    for budget in (1e18, 1e19, 1e20, 1e21):
        lines += [f"{evil}{x},{budget / 6 / 10**x},{10**x},{2 + (x - 9) ** 2},{evil}" for x in (8.5, 9.0, 9.5)]
    lines += [lines[1], f"{evil}bad,1e9,1e9,,{evil}"]
    (tmp_path / "runs.csv").write_text("\r\n".join(lines), newline="")
    main([*command, "--data", str(tmp_path)])
    said = capsys.readouterr()
    assert "[31mRED" in said.out and "[bold]" in said.out
    for text in (said.out, said.err):
        assert [sign for sign in text if unicodedata.category(sign) in ("Cc", "Cf", "Cs", "Co") and sign != "\n"] == []


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("a run", "a run"),
        ("a < b & c > d", "a &lt; b &amp; c &gt; d"),
        ("100 %{x} {y}", "100 %&#123;x} {y}"),
        ("a\nb\tc  d", "a b c d"),
        ("\u202eabc\u200f\u2066", "abc"),
        ("naïve β₁ 模型", "naïve β₁ 模型"),
    ],
)
def test_escape(name: str, shown: str) -> None:
    assert escape(name) == shown


def test_long_names_are_shortened_before_they_are_escaped() -> None:
    assert escape("x" * 120) == "x" * 120
    assert escape("<" * 10_000) == "&lt;" * 119 + "…"
