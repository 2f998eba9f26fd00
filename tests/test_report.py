"""The report: what its model holds, and the page in a real browser: every size, both colours, hostile data."""

from __future__ import annotations

import argparse
import base64
import csv
import dataclasses
import hashlib
import io
import json
import re
import shutil
from collections.abc import Iterator
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from delphi_jax import (
    InputError,
    Status,
    allocate,
    downstream_intervals,
    effective_speedup,
    fetch_file,
    fit_study,
    fit_study_surfaces,
    forecast_intervals,
    law_study,
    leave_future_out,
    load_study,
)
from delphi_jax.cli import main
from delphi_jax.io.definition import parse_definition
from delphi_jax.plots.theme import THEMES, color_map, mixed, recolor, theme_from
from delphi_jax.plots.vision import contrast
from delphi_jax.report.build import build_report, page_bytes, page_colors, readable, shared
from delphi_jax.report.model import Report, Table, table_of
from delphi_jax.report.words import says
from tests.test_theme import colors_of, opaque

pytest.importorskip("jinja2", reason="jinja2 is not installed")

DATA = Path(__file__).parents[1] / "data"
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
HOSTILE_SUITES = ("</script><script>window.broken = 1</script>\"'&amp;", '=HYPERLINK("x")\u202e<b>%{x}</b>')
HOSTILE_RUNS = (
    "=1+1",
    "+x",
    "-x,y",
    "@x",
    "\tx",
    "\rx",
    'a"b',
    "-5",
    "\u202eevil",
    "x" * 10_000,
    "<img src=x onerror=alert(1)>",
)


def answers_of(study: Any, fit: Any) -> dict[str, Any]:
    isoflop, definition = fit.isoflop, study.definition
    optima = {suite: isoflop.optima(suite)[:2] for suite in isoflop.suites}
    means = {suite: fit.held_out.means(suite) for suite in isoflop.suites}
    return {
        "law-profile": law_study(optima, definition.targets),
        "forecast-fan": forecast_intervals(
            isoflop, definition.targets, methods=("percentile", "profile"), draws=40, held_out=fit.held_out
        ),
        "leave-future-out": leave_future_out(optima, {suite: pair for suite, pair in means.items() if len(pair[0])}),
        "allocation": allocate(study.runs, definition.targets, draws=40),
        "loss-surface": fit_study_surfaces(study.runs, draws=40),
        "effective-speedup": effective_speedup(optima, draws=40, definition=definition),
        "downstream-intervals": downstream_intervals(study.evals, study.externals, definition, draws=40),
    }


@pytest.fixture(scope="module")
def study() -> Any:
    return load_study(DATA)


@pytest.fixture(scope="module")
def answers(study: Any, bundled_fit: Any) -> dict[str, Any]:
    return answers_of(study, bundled_fit)


@pytest.fixture(scope="module")
def report(study: Any, bundled_fit: Any, answers: dict[str, Any]) -> Report:
    return build_report(
        study,
        bundled_fit,
        answers,
        left_out={"interval-coverage": "not asked for"},
        made="2026-01-02",
        simulated=True,
        versions={"delphi-jax": "0.1.0", "jax": "0.10"},
        provenance={"seed": "0"},
    )


@pytest.fixture(scope="module")
def page(report: Report) -> str:
    return page_bytes(report).decode()


def own_folder(out: Path, *, held_out: bool = False, edge: bool = False, name: str = "pilot") -> Path:
    """A study of one's own in one nested table: six budgets, with ``edge`` one whose parabola has no minimum."""
    (out / "deep").mkdir(parents=True)
    rule = 'held_out = { match = ["final"] }\n' if held_out else ""
    (out / "study.toml").write_text(f'name = "{name}"\n{rule}[[runs]]\nfiles = ["deep/a"]\nderive = "flops"\n')
    lines = ["name,params,tokens,loss"]
    budgets = np.logspace(18, 20.5, 6)
    for place, budget in enumerate(budgets):
        best, lowest = np.log10(budget / 1e18) / 2 + 9, 1.5 + (budget / 1e18) ** -0.1
        for x in best + np.linspace(-0.4, 0.5, 6):
            bend = -0.002 if edge and place == 2 else 0.2
            loss = lowest + bend * (x - best) ** 2 + 0.003 * np.cos(9 * (x - best))
            lines.append(f"run-{place}-{x:.3f},{float(budget / 6 / 10**x)!r},{float(10**x)!r},{float(loss)!r}")
    if held_out:
        lines += [f"final-seed{k},{1e22 / 6 / 1e11!r},{1e11!r},{1.9 + k / 100}" for k in range(3)]
    (out / "deep" / "a.csv").write_text("\n".join(lines) + "\n")
    return out


def own_report(folder: Path) -> tuple[Report, Any]:
    own = load_study(folder)
    fit = fit_study(own, draws=100)
    optima = {suite: fit.isoflop.optima(suite)[:2] for suite in fit.isoflop.suites}
    fan = forecast_intervals(
        fit.isoflop, own.definition.targets, methods=("percentile", "hierarchical"), draws=40, held_out=fit.held_out
    )
    answers = {"law-profile": law_study(optima, own.definition.targets), "forecast-fan": fan}
    return build_report(own, fit, answers, left_out={}, made="2026-01-02"), fit


@pytest.fixture(scope="module")
def hostile(study: Any) -> Report:
    """Suites and runs whose names are markup, formulas, direction marks, or endless."""
    runs = study.runs
    names, suites = runs.name.copy(), runs.suite.copy()
    names[: len(HOSTILE_RUNS)] = HOSTILE_RUNS
    for old, new in zip(sorted(set(suites)), HOSTILE_SUITES, strict=False):
        suites[suites == old] = new
    wild = dataclasses.replace(
        study, runs=dataclasses.replace(runs, name=names, suite=suites), sweep=None, evals={}, externals={}
    )
    fit = fit_study(wild, ("isoflop", "laws", "held_out", "bootstraps"), draws=100)
    optima = {suite: fit.isoflop.optima(suite)[:2] for suite in fit.isoflop.suites}
    profiles = {"law-profile": law_study(optima, study.definition.targets)}
    provenance = {"</dd><script>window.broken = 1</script>": "=1"}
    return build_report(wild, fit, profiles, left_out={}, made="2026-01-02", provenance=provenance)


class Page(HTMLParser):
    """Elements in their order, with their attributes and the text directly inside."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str], list[str]]] = []
        self._open: list[list[str]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.elements.append((tag, dict(attrs), []))

    def handle_data(self, data: str) -> None:
        if self.elements:
            self.elements[-1][2].append(data)

    def of(self, *tags: str) -> list[tuple[str, dict[str, str], str]]:
        return [(tag, attrs, "".join(text).strip()) for tag, attrs, text in self.elements if tag in tags]


# The model.


def numbers(table: Table, column: str) -> list[float]:
    place = [each.name for each in table.columns].index(column)
    assert table.columns[place].numeric
    return [float(row[place].value or "nan") for row in table.rows]


def test_numbers_of_a_table_survive_in_full_and_are_shown_short() -> None:
    rows = [
        {"a": 1 / 3, "b": "x", "c": np.int64(7)},
        {"a": float("nan"), "b": "", "c": 10**20},
        {"a": -1e-9, "d": True},
    ]
    table = table_of("k", "T", rows)
    assert [(each.name, each.numeric) for each in table.columns] == [
        ("a", True),
        ("b", False),
        ("c", True),
        ("d", False),
    ]
    np.testing.assert_array_equal(numbers(table, "a"), [1 / 3, np.nan, -1e-9])
    assert [[cell.shown for cell in row] for row in table.rows] == [
        ["0.33333", "x", "7", ""],
        ["–", "", "1e+20", ""],
        ["-1e-9", "", "", "yes"],
    ]
    assert table.rows[1][0].value == "" and table.rows[1][2].value == str(10**20)


def test_trailing_zeros_are_kept_and_points_stand_under_points() -> None:
    table = table_of("k", "T", [{"a": value} for value in (2.5, 2.71828, 12345.678, 0.0, 5.0)])
    assert [row[0].shown for row in table.rows] == ["2.5000", "2.7183", "12346", "0", "5"]


def test_every_figure_is_there_with_its_data_and_a_reading(report: Report, study: Any) -> None:
    titles = study.definition.figure_titles
    wide = [name for name in titles if not name.endswith("-mobile")]
    assert [figure.key for figure in report.sections[0].figures] == wide
    assert [figure.key for figure in report.sections[1].figures] == [
        "law-profile",
        "forecast-fan",
        "leave-future-out",
        "allocation",
        "loss-surface",
        "effective-speedup",
        "downstream-intervals",
    ]
    for figure in (*report.sections[0].figures, *report.sections[1].figures):
        assert figure.reading.endswith(".") and figure.table.rows and figure.title
        assert (figure.mobile is not None) is (figure.key in report_mobiles(titles))
    assert report.sections[1].absent == ("interval-coverage: not asked for",)


def report_mobiles(titles: Any) -> set[str]:
    answers = {"law-profile", "forecast-fan", "leave-future-out", "allocation", "loss-surface", "effective-speedup"}
    return (
        {name.removesuffix("-mobile") for name in titles if name.endswith("-mobile")}
        | answers
        | {"downstream-intervals"}
    )


def test_sentences_tell_each_law_with_interval_and_status(report: Report, bundled_fit: Any, answers: Any) -> None:
    groups = {group.title: {each.of: each.text for each in group.sentences} for group in report.says}
    intervals = {each.law.series: each for each in answers["law-profile"].intervals}
    for suite, law in bundled_fit.laws.items():
        said, each = groups["Scaling laws"][suite], intervals[suite]
        for number in (each.estimates[0], each.low[0], each.high[0]):
            assert f"{number:.3f}" in said
        for number in (each.estimates[1], each.low[1], each.high[1]):
            assert f"{number:.4f}" in said
        assert law.status.label in said and "95 %" in said
        bootstrap = bundled_fit.bootstraps[suite]
        said = groups["Forecasts"][suite]
        assert f"{law.loss_at(1e23):.3f} at 1e+23 FLOPs" in said and bootstrap.status.label in said
        assert f"{bootstrap.intervals[-1].low:.3f} to {bootstrap.intervals[-1].high:.3f}" in said
        assert f"{each.low[-1]:.3f} to {each.high[-1]:.3f} by profile likelihood" in said
        for residual in bundled_fit.held_out.residuals(suite):
            assert f"{abs(residual):.2f} % {'worse' if residual >= 0 else 'better'}" in groups["Held-out runs"][suite]
    assert set(groups["Downstream tasks"]) == {view.name for view in bundled_fit.downstream}
    pooled = answers["effective-speedup"].matched.pooled
    assert f"{pooled.value:.3g} times" in next(iter(groups["One recipe against the other"].values()))


def test_headlines_are_never_without_interval_and_status(report: Report) -> None:
    assert len(report.headlines) == 3
    for each in report.headlines:
        assert re.fullmatch(r"[0-9.]+×?", each.value) and re.fullmatch(r"[0-9.]+ to [0-9.]+", each.interval)
        assert each.status == "fitted"


def test_the_forecast_table_holds_both_intervals_and_the_residuals(
    report: Report, bundled_fit: Any, answers: Any
) -> None:
    table = report.headline_table
    rows = [row for each in bundled_fit.bootstraps.values() for row in each.rows()]
    assert numbers(table, "bootstrap low") == [row["2.5 %"] for row in rows]
    assert numbers(table, "bootstrap high") == [row["97.5 %"] for row in rows]
    low = [end for each in answers["law-profile"].intervals for end in each.low[2:]]
    assert numbers(table, "profile low") == pytest.approx(low)
    held_out = {
        (row["suite"], row["compute budget (FLOPs)"]): row["residual (%)"] for row in bundled_fit.held_out.rows()
    }
    expected = [held_out.get((row["series"], row["compute budget (FLOPs)"]), np.nan) for row in rows]
    np.testing.assert_allclose(numbers(table, "residual (%)"), expected)


def test_every_result_and_every_row_that_was_left_out_is_in_a_table(
    report: Report, study: Any, bundled_fit: Any
) -> None:
    tables = {table.title: table for table in report.tables}
    assert len(tables["Training runs"].rows) == len(study.runs)
    counts: dict[str, int] = {}
    for title, part in bundled_fit.parts():
        counts[title] = counts.get(title, 0) + len(part.rows())
    assert {title: len(tables[title].rows) for title in counts} == counts
    assert len(report.skipped.rows) == sum(part.count for part in bundled_fit.skipped)
    assert set(bundled_fit.notices()) <= set(report.notices)
    assert len({table.key for table in report.tables}) == len(report.tables)


def test_statuses_with_a_remedy_lead_to_the_next_step(study: Any) -> None:
    runs = study.runs
    keep = ~runs.held_out & (runs.bucket <= np.sort(np.unique(runs.bucket[~runs.held_out]))[1])
    few = dataclasses.replace(study, runs=runs.where(keep), sweep=None, evals={}, externals={})
    fit = fit_study(few, ("isoflop", "laws", "held_out", "bootstraps"), draws=40)
    assert {law.status for law in fit.laws.values()} == {Status.UNDETERMINED}
    report = build_report(few, fit, {}, left_out={"law-profile": "no suite"}, made="2026-01-02")
    (steps,) = [group for group in report.says if group.title == "What to do next"]
    assert any("add budgets, or pin the asymptote".capitalize()[1:] in each.text for each in steps.sentences)
    laws = [each.text for group in report.says if group.title == "Scaling laws" for each in group.sentences]
    assert all("intervals of both: not computed; asymptote not determined" in text for text in laws)
    assert "law-profile: no suite" in report.sections[1].absent
    assert b"Not drawn" in page_bytes(report)


def test_a_study_without_a_law_makes_a_page_that_says_so(study: Any) -> None:
    runs = study.runs
    keep = np.arange(len(runs)) == int(np.flatnonzero(~runs.held_out & runs.finished)[0])
    one = dataclasses.replace(study, runs=runs.where(keep), sweep=None, evals={}, externals={})
    fit = fit_study(one, draws=40)
    report = build_report(one, fit, {}, left_out={}, made="2026-01-02")
    assert report.headlines == () and not report.headline_table.rows
    laws = [each.text for group in report.says if group.title == "Scaling laws" for each in group.sentences]
    assert laws and all(text.startswith("No law: ") for text in laws)
    assert "None." in page_bytes(report).decode()


CONCLUSIONS = (
    "luck",
    "recipe",
    "floor",
    "as published",
    "published figures",
    "reference's",
    "the reference",
    "Delphi ",
)


def test_a_study_of_ones_own_is_told_nothing_of_another(tmp_path: Path) -> None:
    report, _ = own_report(own_folder(tmp_path))
    figures = [figure for section in report.sections for figure in section.figures]
    assert {"scaling-law-asymptote", "overtraining-forecast", "forecast-fan"} <= {figure.key for figure in figures}
    for figure in figures:
        for text in (figure.title, figure.reading):
            assert "held-out" not in text and "never saw" not in text, (figure.key, text)
    page = page_bytes(report).decode()
    words = " ".join(each for *_, text in Page(page[: page.index("<script")]).elements for each in text)
    assert "pilot" in words and "grid of 400 values" in words
    # The name of a figure, and what any law has.
    words = words.replace("lucky-seeds", "").replace("when its floor is moved", "")
    for conclusion in CONCLUSIONS:
        assert conclusion not in words, conclusion


def test_what_is_held_out_is_in_the_readings(tmp_path: Path) -> None:
    report, fit = own_report(own_folder(tmp_path, held_out=True))
    assert len(fit.held_out.runs) == 3
    figures = {figure.key: figure for section in report.sections for figure in section.figures}
    ladder = next(figure for key, figure in figures.items() if key.startswith("ladder"))
    assert ladder.title.endswith("to held-out runs") and "never saw" in ladder.reading
    assert figures["lucky-seeds"].title == "Held-out runs beside the forecast's interval"
    assert figures["forecast-fan"].title.endswith("where the held-out runs fell")
    assert not any(word in figure.title + figure.reading for figure in figures.values() for word in ("luck", "recipe"))


def test_the_delphi_study_keeps_its_own_titles(report: Report) -> None:
    titles = {figure.key: figure.title for section in report.sections for figure in section.figures}
    assert titles["scaling-law-asymptote"] == "Optima follow a law with a floor"
    assert titles["lucky-seeds"] == "Held-out residuals are not luck"
    assert titles["mmlu-emergence"] == "A smooth soft metric forecasts a hard one"
    assert titles["hparam-scaling"] == "The recipe's hyper-parameters sit at the bottom of the loss valley"
    assert titles["delphi-ladder"] == "The Delphi ladder: from IsoFLOP parabolas to held-out runs"


def test_a_study_file_gives_figures_its_own_titles() -> None:
    own = parse_definition('name = "x"\n[titles]\nlucky-seeds = "Ours"\n', "x.toml")
    assert own.figure_titles["lucky-seeds"] == "Ours"
    assert own.figure_titles["scaling-law-asymptote"] == "Optima and their scaling law"
    with pytest.raises(InputError, match=r"line 3, titles\.lucky-seed.*did you mean 'lucky-seeds'"):
        parse_definition('name = "x"\n[titles]\nlucky-seed = "Ours"\n', "x.toml")


def test_optima_without_a_minimum_are_said_beside_the_law_and_its_forecast(tmp_path: Path) -> None:
    report, fit = own_report(own_folder(tmp_path, edge=True))
    statuses = [each.status for each in fit.isoflop.parabolas]
    assert statuses.count(Status.CURVATURE_NOT_POSITIVE) == 1 and len(statuses) == 6
    said = "1 of 6 optima has no minimum of its own (curvature not positive)"
    (law,) = [each.text for group in report.says if group.title == "Scaling laws" for each in group.sentences]
    assert law.endswith(f" {said}.")
    assert [each.status.endswith(f"; {said}") for each in report.headlines] == [True]


def test_a_missing_interval_is_said_in_words(bundled_fit: Any, answers: Any) -> None:
    found = answers["effective-speedup"]
    line = dataclasses.replace(found.matched.pooled, low=np.nan, high=np.nan, probability=np.nan)
    bare = dataclasses.replace(found, matched=dataclasses.replace(found.matched, pooled=line))
    view = answers["downstream-intervals"].views[0]
    nothing = dataclasses.replace(view.hard, low=view.hard.low * np.nan, high=view.hard.high * np.nan)
    views = (dataclasses.replace(view, hard=nothing),)
    tasks = dataclasses.replace(answers["downstream-intervals"], views=views)
    groups = says(bundled_fit, {"effective-speedup": bare, "downstream-intervals": tasks})
    texts = {group.title: [each.text for each in group.sentences] for group in groups}
    for text in (*texts["One recipe against the other"], *texts["Downstream tasks"]):
        assert "no 95 % interval" in text and "interval no interval" not in text and "nan" not in text
        assert "probability" not in text


def test_both_variants_share_their_traces(report: Report) -> None:
    for figure in report.sections[0].figures:
        packed = shared(figure.wide, figure.mobile)
        for name, document in (("wide", figure.wide), ("mobile", figure.mobile)):
            if document is not None:
                whole = packed[name] | {"data": [packed["traces"][place] for place in packed[name]["data"]]}
                np.testing.assert_equal(whole, document)
        if figure.mobile is not None:
            assert len(packed["traces"]) <= len(figure.wide["data"])


def test_every_colour_of_the_answers_has_a_role(report: Report) -> None:
    known, dark = color_map(THEMES["brand"]), THEMES["dark"]
    for figure in report.sections[1].figures:
        for key, color in colors_of(figure.wide):
            assert "color" in key and (color == "rgba(0,0,0,0)" or opaque(color) in known), (figure.key, key, color)
        for _, color in colors_of(recolor(figure.wide, dark)):
            if color != "rgba(0,0,0,0)" and opaque(color) != dark.page:
                assert contrast(opaque(color), dark.page) >= 3


@pytest.mark.parametrize("name", THEMES)
def test_text_is_readable_in_every_theme(name: str) -> None:
    colors = page_colors(THEMES[name])
    for text in ("ink", "muted"):
        for ground in ("page", "wash"):
            assert contrast(colors[text], colors[ground]) >= 4.5, (text, ground)
    assert mixed("#000000", "#FFFFFF", 0.25) == "#BFBFBF" and mixed("#102030", "#405060", 1.0) == "#102030"


# The page as text.


def test_the_page_is_small_deterministic_and_well_built(page: str, report: Report) -> None:
    assert page.encode() == page_bytes(report)
    assert len(page.encode()) < 6_000_000
    read = Page(page)
    assert [tag for tag, *_ in read.of("html", "h1", "main", "nav", "header")] == [
        "html",
        "header",
        "h1",
        "nav",
        "main",
    ]
    assert read.of("html")[0][1]["lang"] == "en"
    levels = [int(tag[1]) for tag, *_ in read.of("h1", "h2", "h3", "h4")]
    assert levels[0] == 1 and all(after <= before + 1 for before, after in pairwise(levels))
    ids = [attrs["id"] for _, attrs, _ in read.elements if "id" in attrs]
    assert len(ids) == len(set(ids))
    links = [attrs["href"] for _, attrs, _ in read.of("a")]
    assert links and all(link.startswith("#") and link[1:] in ids for link in links)
    labels = [attrs["aria-labelledby"] for _, attrs, _ in read.elements if "aria-labelledby" in attrs]
    assert set(labels) <= set(ids)
    # An image hides its controls from assistive technology; a group does not.
    assert not [attrs for _, attrs, _ in read.elements if attrs.get("role") == "img"]
    plots = [attrs for _, attrs, _ in read.elements if "data-figure" in attrs]
    assert len(plots) == 15 and all(attrs["role"] == "group" for attrs in plots)
    texts = {attrs.get("id"): "".join(text) for _, attrs, text in read.elements}
    assert all(texts[attrs["aria-labelledby"]] and len(texts[attrs["aria-describedby"]]) > 40 for attrs in plots)
    assert [attrs["aria-labelledby"] for _, attrs, _ in read.of("figure")] == [a["aria-labelledby"] for a in plots]
    assert all(attrs["scope"] == "col" for _, attrs, _ in read.of("th"))
    assert "No number here was measured" in page


def test_the_policy_lets_only_the_pages_own_scripts_run(page: str) -> None:
    read = Page(page)
    (policy,) = [a["content"] for _, a, _ in read.of("meta") if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert not re.search(r"script-src[^;]*unsafe|connect-src|https?:", policy)
    scripts = {attrs.get("type"): text for _, attrs, text in read.of("script")}
    own = page[page.rindex("<script>") + 8 : page.rindex("</script>")]
    assert base64.b64encode(hashlib.sha256(own.encode()).digest()).decode() in policy
    assert set(scripts) == {"application/json", "text/plain", None}
    assert [value for _, attrs, _ in read.elements for key, value in attrs.items() if key == "src"] == []
    assert not any(key.startswith("on") for _, attrs, _ in read.elements for key in attrs)


def test_names_are_text_wherever_they_stand(hostile: Report) -> None:
    text = page_bytes(hostile).decode()
    assert "<script>window.broken" not in text and "<img src" not in text and "onerror=alert(1)>" not in text
    read = Page(text)
    assert len(read.of("script")) == 3 + len(hostile.sections[0].figures) + len(hostile.sections[1].figures)
    assert not read.of("img", "b")
    cells = [shown for _, _, shown in read.of("td")]
    assert "<img src=x onerror=alert(1)>" in cells
    assert "\u202e" not in "".join(cells) and "\ufffdevil" in cells
    assert max(map(len, cells)) < 300 and any("(10000 characters)" in cell for cell in cells)
    assert any(attrs.get("data-value") == "x" * 10_000 for _, attrs, _ in read.of("td"))


def test_readable_texts_hide_nothing() -> None:
    assert readable("a\u202eb\u200fc\x00d\ne") == "a\ufffdb\ufffdc\ufffdd\ne"
    assert readable("5 % of 1e21 FLOPs") == "5\u00a0% of 1e21\u00a0FLOPs"
    assert readable("β₁ – 日本語 é 😀") == "β₁ – 日本語 é 😀"
    assert len(readable("y" * 10**6)) < 3100 and readable(5) == 5


def test_an_own_theme_colours_the_page(report: Report) -> None:
    own = theme_from({"page": "#FFFFFF", "ink": "#222222"})
    text = page_bytes(report, own).decode()
    assert "--page:#FFFFFF;--ink:#222222" in text and f"--page:{THEMES['dark'].page}" in text
    assert 'data-theme="night"' in page_bytes(report, THEMES["dark"]).decode()[:200]


# The command.


def test_the_command_writes_the_page_and_says_what_it_left_out(tmp_path: Path, capsys: Any) -> None:
    data = tmp_path / "data"
    data.mkdir()
    for name in ("runs.json", "provenance.json"):
        shutil.copy(DATA / name, data)
    (data / "notes.txt").write_text("not a table")
    out = tmp_path / "page.html"
    assert main(["report", "--data", str(data), "--out", str(out), "--quick", "--draws", "100", "--no-cache"]) == 0
    said = capsys.readouterr().out
    assert "Wrote" in said and "page.html" in said and "allocation: not asked for" in said
    read = Page(out.read_text())
    cells = [text for _, _, text in read.of("td")]
    digest = hashlib.sha256((data / "runs.json").read_bytes()).hexdigest()
    assert digest in cells and "as recorded" in cells and "notes.txt" not in cells
    facts = dict(zip([t for *_, t in read.of("dt")], [t for *_, t in read.of("dd")], strict=True))
    assert json.loads((data / "provenance.json").read_text())["generator"] == facts["generator"]
    assert {"jax", "numpy", "Python"} <= set(facts)
    assert "Simulated data." in out.read_text()
    assert "mmlu-emergence: " in out.read_text()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "page.html"]


@pytest.mark.parametrize("content", ["{", "[1]", '"x"', "\ud83d".encode("utf-8", "surrogatepass"), '{"sha256": 3}'])
def test_a_provenance_file_that_cannot_be_read_is_said_and_costs_nothing(content: Any, tmp_path: Path) -> None:
    from delphi_jax.commands.report import _files, _provenance
    from delphi_jax.definition import delphi

    class Args:
        data, study, runs, sweep = tmp_path, None, None, None

    shutil.copy(DATA / "runs.json", tmp_path)
    (tmp_path / "provenance.json").write_bytes(content if isinstance(content, bytes) else content.encode())
    told = _provenance(Args)
    assert told == {} if "sha256" in str(content) else "cannot be read" in told["provenance.json"]
    assert [(each.name, each.recorded) for each in _files(Args, delphi())] == [("runs.json", "not recorded")]


def command_args(data: Path, **given: Path) -> Any:
    return argparse.Namespace(**{"data": data, "study": None, "runs": None, "sweep": None} | given)


def test_just_the_files_that_were_read_are_listed(tmp_path: Path) -> None:
    from delphi_jax.commands.report import _files

    folder = own_folder(tmp_path / "data")
    (folder / "payroll.csv").write_text("name,salary\n")
    (folder / "runs.csv").write_text("not what the study names\n")
    definition = load_study(folder).definition
    assert [each.name for each in _files(command_args(folder), definition)] == ["study.toml", "deep/a.csv"]
    single, study = tmp_path / "single.csv", tmp_path / "other.toml"
    shutil.copy(folder / "deep" / "a.csv", single)
    shutil.copy(folder / "study.toml", study)
    files = _files(command_args(folder, runs=single, study=study), definition)
    assert [each.name for each in files] == ["other.toml", "single.csv"]
    shutil.copy(DATA / "hparam_sweep.json", folder)
    delphi_files = _files(command_args(folder, study=Path("delphi")), load_study(DATA).definition)
    assert [each.name for each in delphi_files] == ["runs.csv", "hparam_sweep.json"]


def test_a_fetched_table_has_its_origin_and_one_that_was_edited_is_said(tmp_path: Path, capsys: Any) -> None:
    folder, out = tmp_path / "data", tmp_path / "page.html"
    fetch_file(DATA / "runs.json", folder, "json")
    command = ["report", "--data", str(folder), "--out", str(out), "--quick", "--draws", "40", "--no-cache"]
    assert main(command) == 0
    read = Page(out.read_text())
    cells = [text for _, _, text in read.of("td")]
    assert "as recorded" in cells and "not recorded" not in cells and "runs.json" in cells
    assert "Where the tables came from" in [text for *_, text in read.of("h3")]
    facts = [text for *_, text in read.of("dd")]
    assert not any("{" in text for text in facts) and str(tmp_path) not in out.read_text()
    assert str(DATA) not in out.read_text()
    capsys.readouterr()
    (folder / "runs.json").write_text((folder / "runs.json").read_text().replace("\n", "\n ", 1))
    assert main(command) == 0
    assert "Not as fetched: runs.json" in capsys.readouterr().out
    read = Page(out.read_text())
    assert "differs from the record" in [text for *_, text in read.of("td")]
    notices = [text for *_, text in read.of("li")]
    assert any(text.startswith("not what the provenance file tells of it: runs.json;") for text in notices)


def test_the_study_that_was_used_is_said(tmp_path: Path, capsys: Any) -> None:
    own = ["--data", str(own_folder(tmp_path / "own", name="pilot [bold]"))]
    for given in (own, ["--data", str(DATA)]):
        assert main(["summary", *given, "--draws", "40", "--no-cache"]) == 0
    said = capsys.readouterr().out
    assert [line for line in said.splitlines() if line.startswith("Study: ")] == [
        f"Study: pilot [bold], as {tmp_path / 'own' / 'study.toml'} says"
    ]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--out", "{tmp}"], 1, "is a folder, expected a file"),
        (["--out", "{tmp}/none/page.html"], 1, "none: no such folder"),
        (["--data", "{tmp}/none"], 1, "no such folder"),
        (["--only", "law-profile", "--quick"], 2, "not allowed with"),
        (["--only", "horoscope"], 2, "invalid choice"),
        (["--theme", "mauve"], 2, "invalid choice"),
    ],
)
def test_what_cannot_be_done_is_refused_at_once(
    arguments: list[str], code: int, said: str, tmp_path: Path, capsys: Any
) -> None:
    given = [each.format(tmp=tmp_path) for each in arguments]
    assert main(["report", *given]) == code
    assert said in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_figure_that_breaks_costs_no_other_and_is_said(
    study: Any, bundled_fit: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import delphi_jax.draw as draw

    def broken(seeds: Any) -> None:
        raise RuntimeError("a builder broke")

    monkeypatch.setattr(draw, "build_lucky_seeds", broken)
    report = build_report(study, bundled_fit, {}, left_out={}, made="2026-01-02")
    assert report.sections[0].failed == ("lucky-seeds: RuntimeError: a builder broke",)
    keys = [figure.key for figure in report.sections[0].figures]
    assert "lucky-seeds" not in keys and "hparam-scaling" in keys
    assert "a builder broke" in page_bytes(report).decode()


# In a browser.


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    executable = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if executable is None:
        pytest.skip("no Chromium or Chrome on the path")
    with playwright.sync_playwright() as driver:
        launched = driver.chromium.launch(executable_path=executable, args=FLAGS)
        yield launched
        launched.close()


@pytest.fixture(scope="module")
def files(report: Report, hostile: Report, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("report")
    for name, each in (("page", report), ("hostile", hostile)):
        (folder / f"{name}.html").write_bytes(page_bytes(each))
    return {name: (folder / f"{name}.html").as_uri() for name in ("page", "hostile")}


@pytest.fixture
def visit(browser: Any, files: dict[str, str]) -> Iterator[Any]:
    """Opens a page; what its console says, and any address that it asks for beside itself, fails the test."""
    troubles: list[str] = []
    contexts = []

    def go(name: str = "page", width: int = 1366, height: int = 768, **options: Any) -> Any:
        contexts.append(browser.new_context(viewport={"width": width, "height": height}, **options))
        tab = contexts[-1].new_page()
        tab.on("console", lambda message: troubles.append(message.text))
        tab.on("pageerror", lambda error: troubles.append(str(error)))
        tab.on("dialog", lambda dialog: (troubles.append(dialog.message), dialog.dismiss()))
        tab.on("request", lambda request: request.url == files[name] or troubles.append(request.url))
        tab.goto(files[name])
        tab.wait_for_selector("html[data-ready]")
        return tab

    yield go
    for context in contexts:
        context.close()
    # plotly.js warns of numbers as colours where a marker follows a colour axis and has an entry in the legend.
    own = [
        each for each in troubles if not each.startswith(("WARN: Invalid color specifier: number", "data:,", "blob:"))
    ]
    assert own == []


def until(tab: Any, truth: str) -> None:
    """Wait for a JavaScript expression to hold."""
    for _ in range(100):
        if tab.evaluate(truth):
            return
        tab.wait_for_timeout(50)
    raise AssertionError(truth)


DRAW = """async (keys) => {
  for (const plot of document.querySelectorAll(".plot")) {
    if (keys && !keys.includes(plot.dataset.figure)) continue;
    plot.scrollIntoView({ behavior: "instant" });
    for (let wait = 0; wait < 100 && !plot.querySelector(".main-svg"); wait++) {
      await new Promise((done) => setTimeout(done, 50));
    }
  }
  return [...document.querySelectorAll(".plot")].map((plot) => ({
    key: plot.dataset.figure,
    drawn: plot.querySelectorAll(".main-svg").length > 0,
    traces: plot.data?.length,
    height: plot._fullLayout?.height,
    width: plot.getBoundingClientRect().width,
    bad: [...plot.querySelectorAll("path")].filter((path) => /NaN|Infinity/.test(path.getAttribute("d"))).length,
  }));
}"""


def test_figures_are_drawn_when_they_come_into_sight(visit: Any, report: Report) -> None:
    tab = visit()
    figures = {figure.key: figure for section in report.sections for figure in section.figures}
    early = tab.evaluate("document.querySelectorAll('.plot .main-svg').length")
    drawn = tab.evaluate(DRAW, None)
    assert early < len(figures)
    for state in drawn:
        figure = figures[state["key"]]
        assert state["drawn"] and not state["bad"] and state["traces"] == len(figure.wide["data"])
    assert tab.evaluate("document.documentElement.scrollWidth") == 1366
    # plotly.js offers to upload a figure: nothing here may leave the reader's machine.
    titles = tab.evaluate("[...document.querySelectorAll('.modebar-btn')].map((each) => each.dataset.title)")
    assert "Download plot as a PNG" in titles and not any(
        re.search("share|cloud|edit", title, re.I) for title in titles
    )


def test_narrow_screens_get_the_mobile_variants_and_never_scroll_sideways(visit: Any, report: Report) -> None:
    tab = visit(width=390, height=844)
    figures = {figure.key: figure for section in report.sections for figure in section.figures}
    for state in tab.evaluate(DRAW, None):
        figure = figures[state["key"]]
        assert state["drawn"] and not state["bad"]
        if figure.mobile is None:
            assert state["width"] >= 700
        else:
            assert state["height"] == figure.mobile["layout"].get("height", 560) and state["width"] <= 390
    assert tab.evaluate("document.documentElement.scrollWidth") == 390
    tab.set_viewport_size({"width": 1200, "height": 800})
    until(tab, "document.getElementById('plot-hparam-scaling')._fullLayout.height === 560")


def test_tables_are_sorted_from_the_keyboard(visit: Any, report: Report) -> None:
    tab = visit()
    table = tab.locator("#forecasts-at-a-glance")
    column = [each.name for each in report.headline_table.columns].index("held-out mean")
    head = table.locator("th").nth(column)
    head.locator("button").focus()

    def shown() -> list[str]:
        return table.locator(f"tbody tr td:nth-child({column + 1})").all_text_contents()

    present = sorted(value for value in numbers(report.headline_table, "held-out mean") if value == value)
    missing = ["–"] * (len(report.headline_table.rows) - len(present))
    assert missing
    tab.keyboard.press("Enter")
    assert head.get_attribute("aria-sort") == "ascending"
    assert shown() == [f"{value:#.5g}" for value in present] + missing
    tab.keyboard.press("Space")
    assert head.get_attribute("aria-sort") == "descending"
    assert shown() == [f"{value:#.5g}" for value in reversed(present)] + missing
    assert tab.locator("#said").text_content() == "Sorted by held-out mean, descending"
    table.locator("th").first.locator("button").press("Enter")
    assert table.locator("[aria-sort]").count() == 1
    assert tab.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"


def test_infinite_values_are_sorted_as_the_largest(browser: Any, report: Report, tmp_path: Path) -> None:
    values = [2.0, np.inf, -np.inf, 10.0, np.nan, np.inf, -3.0]
    table = table_of("forecasts-at-a-glance", "T", [{"a": value} for value in values])
    (tmp_path / "page.html").write_bytes(page_bytes(dataclasses.replace(report, headline_table=table)))
    tab = browser.new_page()
    tab.goto((tmp_path / "page.html").as_uri())
    cells = tab.locator("#forecasts-at-a-glance tbody td")
    head = tab.locator("#forecasts-at-a-glance th button")
    head.click()
    assert cells.all_text_contents() == ["-inf", "-3", "2", "10", "inf", "inf", "–"]
    head.click()
    assert cells.all_text_contents() == ["inf", "inf", "10", "2", "-3", "-inf", "–"]
    tab.close()


def downloaded(tab: Any, key: str) -> list[list[str]]:
    with tab.expect_download() as waiting:
        tab.evaluate("(key) => document.querySelector(`[data-table='${key}']`).click()", key)
    assert waiting.value.suggested_filename == f"{key}.csv"
    return list(csv.reader(io.StringIO(Path(waiting.value.path()).read_bytes().decode(), newline="")))


def test_downloads_hold_every_digit_and_no_formula(visit: Any, hostile: Report, study: Any) -> None:
    tab = visit("hostile")
    head, *rows = downloaded(tab, "training-runs")
    assert len(rows) == len(study.runs)
    names = [row[head.index("name")] for row in rows]
    formulas = {"=1+1", "+x", "-x,y", "@x", "\tx", "\rx", "-5"}
    for name in HOSTILE_RUNS:
        assert (f"'{name}" if name in formulas else name) in names
    assert not any(cell[:1] in tuple("=+-@\t\r") for row in rows for cell in row if not is_number(cell))
    np.testing.assert_array_equal([float(row[head.index("loss")] or "nan") for row in rows], study.runs.loss)
    assert {row[head.index("suite")] for row in rows} >= {HOSTILE_SUITES[0], "'" + HOSTILE_SUITES[1]}
    head, *rows = downloaded(tab, "held-out-runs")
    negative = [row[head.index("residual (%)")] for row in rows if row[head.index("residual (%)")].startswith("-")]
    table = next(table for table in hostile.tables if table.key == "held-out-runs")
    assert len(negative) == sum(value < 0 for value in numbers(table, "residual (%)"))


def is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def test_hostile_names_stay_text_in_a_browser(visit: Any) -> None:
    tab = visit("hostile")
    states = tab.evaluate(DRAW, None)
    assert states and all(state["drawn"] for state in states)
    assert tab.evaluate("window.broken") is None
    assert tab.evaluate("document.querySelectorAll('main script, main img, svg script, svg image').length") == 0
    assert "window.broken = 1" in tab.locator("#plot-scaling-law-asymptote").text_content()
    assert tab.evaluate("document.documentElement.scrollWidth") == 1366


def test_the_page_cannot_reach_the_network(browser: Any, files: dict[str, str]) -> None:
    tab = browser.new_page()
    tab.goto(files["page"])
    blocked = tab.evaluate(
        """async () => {
          const seen = [];
          document.addEventListener("securitypolicyviolation", (event) => seen.push(event.effectiveDirective));
          await fetch("http://127.0.0.1:9/x").catch(() => {});
          const image = new Image();
          image.src = "http://127.0.0.1:9/x.png";
          const script = document.createElement("script");
          script.textContent = "window.broken = 1";
          document.body.append(script);
          await new Promise((done) => setTimeout(done, 200));
          return seen;
        }"""
    )
    assert {"connect-src", "img-src", "script-src-elem"} <= set(blocked)
    assert tab.evaluate("window.broken") is None
    tab.close()


STROKES = """() => [...document.querySelectorAll(".plot")].flatMap((plot) => plot.querySelector(".main-svg")
  ? [...plot.querySelectorAll("text")].filter((e) => e.textContent.trim()).map((e) => getComputedStyle(e).fill) : [])"""


def rgb(color: str) -> str:
    return "rgb({}, {}, {})".format(*(int(color[i : i + 2], 16) for i in (1, 3, 5)))


def test_the_page_follows_the_reader_and_the_button(visit: Any) -> None:
    day, night = THEMES["light"], THEMES["dark"]
    tab = visit(color_scheme="dark")
    tab.evaluate(DRAW, ["lucky-seeds", "overtraining-forecast", "hparam-scaling"])
    ground = "getComputedStyle(document.body).backgroundColor"
    assert tab.evaluate(ground) == rgb(night.page)
    assert set(tab.evaluate(STROKES)) <= {rgb(night.ink), rgb(night.external)}
    # What the reader chose in a figure stays when the colours change.
    plot = "document.getElementById('plot-hparam-scaling')"
    choice = """(plot) => {
      const menu = plot.layout.updatemenus.find((menu) => menu.visible !== false);
      const [data, layout] = menu.buttons[1].args;
      return Plotly.update(plot, data, layout).then(() => undefined);
    }"""
    tab.locator("#plot-hparam-scaling").evaluate(choice)
    visible = f"{plot}._fullData.map((trace) => trace.visible)"
    before = tab.evaluate(visible)
    tab.get_by_role("button", name="Switch to light colours").click()
    assert tab.evaluate(ground) == rgb(day.page)
    until(tab, f"({STROKES})().every((fill) => ['{rgb(day.ink)}', '{rgb(day.external)}'].includes(fill))")
    assert tab.evaluate(visible) == before
    lines = tab.evaluate(f"{plot}._fullData.filter((t) => t.mode === 'lines').map((t) => t.line.color)")
    assert day.accent in lines and night.accent not in lines
    tab.get_by_role("button", name="Switch to dark colours").click()
    assert tab.evaluate(ground) == rgb(night.page)
    tab.reload()
    tab.wait_for_selector("html[data-ready]")
    assert tab.evaluate("document.documentElement.dataset.theme ?? ''") == ""


def test_print_is_light_whole_and_fits_the_paper(visit: Any) -> None:
    tab = visit(color_scheme="dark", width=673, height=900)
    tab.emulate_media(media="print")
    tab.evaluate("dispatchEvent(new Event('beforeprint'))")
    boxes = tab.evaluate(
        """() => [...document.querySelectorAll(".plot")].map((plot) => {
          const svg = plot.querySelector(".main-svg")?.getBoundingClientRect();
          return [svg?.left, svg?.right, document.documentElement.clientWidth];
        })"""
    )
    assert len(boxes) == 15
    assert all(left >= 0 and right <= width + 1 for left, right, width in boxes)
    assert set(tab.evaluate(STROKES)) <= {rgb(THEMES["light"].ink), rgb(THEMES["light"].external)}
    assert tab.evaluate("getComputedStyle(document.body).color") == rgb(THEMES["light"].ink)
    hidden = tab.evaluate("[...document.querySelectorAll('nav, .download, #theme')].every((e) => !e.offsetParent)")
    assert hidden
    tab.evaluate("dispatchEvent(new Event('afterprint'))")
    tab.emulate_media(media="screen")
    assert set(tab.evaluate(STROKES)) <= {rgb(THEMES["dark"].ink), rgb(THEMES["dark"].external)}


def test_an_old_browser_is_told_what_it_lacks(browser: Any, files: dict[str, str]) -> None:
    tab = browser.new_page()
    tab.add_init_script("delete window.DecompressionStream")
    tab.goto(files["page"])
    assert "needs a browser of 2023 or later" in tab.locator(".plot").first.text_content()
    tab.close()
