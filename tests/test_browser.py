"""The twelve pages in a real browser: they draw without errors, and every dropdown entry and slider stop
shows what the results say."""

from __future__ import annotations

import random
import re
import shutil
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from delphi_jax import StudyFit, draw_figures, fit_study, load_study, write_figures
from delphi_jax.labels import RANDOM_CHANCE
from delphi_jax.status import Status
from delphi_jax.text import overhead, overtraining_label, residual
from tests.delphi import FIGURE_TITLES, TASKS

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
CHOICES = ((8, 16, 32, 64), (256, 512), ("1B", "2.5B", "5B"))
CELLS = list(product(*CHOICES))
FIRST_CELL = (64, 512, "2.5B")

# What a chart draws, as one object: read back from plotly's state and from the document.
STATE = """() => {
  const gd = document.getElementById("figure");
  const texts = (selector) => [...gd.querySelectorAll(selector)].map((e) => e.textContent);
  return {
    visible: gd.data.flatMap((t, place) => (t.visible === true ? [place] : [])),
    groups: [...new Set(gd._fullData.filter((t) => t.visible === true).map((t) => t.legendgroup))],
    marks: gd.querySelectorAll(".scatterlayer .points path").length,
    labels: texts(".textpoint").filter((t) => t),
    annotations: texts(".annotation-text"),
    titles: texts(".xtitle, .ytitle, .x2title, .y2title"),
    message: texts(".gtitle").join(""),
    headers: texts(".updatemenu-header text.updatemenu-item-text"),
    open: gd.querySelectorAll(".updatemenu-dropdown-button").length,
  };
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    executable = next(filter(None, map(shutil.which, BROWSERS)), None)
    if executable is None:
        pytest.skip(f"no browser on the path: install one of {', '.join(BROWSERS)}")
    with playwright.sync_playwright() as driver:
        launched = driver.chromium.launch(executable_path=executable, args=FLAGS)
        yield launched
        launched.close()


@pytest.fixture(scope="module")
def study() -> StudyFit:
    """The golden study where it is at hand, else the simulated one of the repository."""
    root = Path(__file__).parents[1]
    golden = root.parent / "shared" / "golden" / "dev" / "data"
    return fit_study(load_study(golden if golden.is_dir() else root / "data"))


@pytest.fixture(scope="module")
def pages(study: StudyFit, tmp_path_factory: pytest.TempPathFactory) -> Path:
    documents = draw_figures(study).documents
    assert set(documents) == set(FIGURE_TITLES)
    folder = tmp_path_factory.mktemp("pages")
    assert not write_figures(documents, folder, ["html"]).unwritten
    return folder


@pytest.fixture
def opened(browser: Any, pages: Path, request: pytest.FixtureRequest) -> Iterator[Any]:
    """The page named by the parameter, drawn; any message on its console fails the test."""
    name = request.param
    narrow = name.endswith("-mobile")
    page = browser.new_page(viewport={"width": 390 if narrow else 1200, "height": 1100 if narrow else 800})
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("requestfailed", lambda request: complaints.append(request.url))
    page.goto((pages / f"{name}.html").as_uri())
    page.wait_for_selector("#figure .main-svg")
    yield page
    page.close()
    assert not complaints


def choose(page: Any, header: int, item: int) -> None:
    """Click on the ``header``-th dropdown from the left, then on its ``item``-th entry."""
    headers = page.locator(".updatemenu-header")
    boxes = [(headers.nth(place).bounding_box()["x"], place) for place in range(headers.count())]
    headers.nth(sorted(boxes)[header][1]).click()
    page.locator(".updatemenu-dropdown-button").nth(item).click()


@pytest.mark.parametrize("opened", list(FIGURE_TITLES), indirect=True)
def test_every_page_draws_without_errors(opened: Any) -> None:
    drawn = opened.evaluate(
        """() => {
          const gd = document.getElementById("figure");
          const parts = gd.querySelectorAll(".scatterlayer .trace").length;
          const outlines = [...gd.querySelectorAll("path")].map((path) => path.getAttribute("d"));
          const shown = gd._fullData.filter((t) => t.visible === true && t.x.some((x) => x !== null));
          return [shown.length, parts, outlines.filter((d) => /NaN|Infinity/.test(d)).length];
        }"""
    )
    visible, parts, bad = drawn
    assert visible > 0 and parts >= visible and bad == 0


@pytest.mark.parametrize("opened", ["mmlu-emergence", "mmlu-emergence-mobile"], indirect=True)
def test_every_downstream_view_shows_its_own_task(opened: Any, study: StudyFit) -> None:
    places = list(TASKS)
    views = sorted(study.downstream, key=lambda view: (places.index(view.task.key), view.shot))
    order = [*range(len(views)), *random.Random(0).sample(range(len(views)), len(views)), 1, 1]
    for place in order:
        choose(opened, 0, place)
        view, state = views[place], opened.evaluate(STATE)
        name, words, task = view.name, view.task.words, view.task
        assert state["headers"] == [name]
        assert set(state["groups"]) == {name, "external"}
        soft, hard = f"{task.name} {words.soft}", f"{task.name} {words.hard}"
        assert sorted(state["titles"]) == sorted(["Compute (FLOPs)", soft, soft, hard])
        assert (RANDOM_CHANCE in state["annotations"]) is (task.floor > 0)
        callouts = [residual(percent) for percent in view.held_out_residuals()[2]]
        assert state["labels"] == [*callouts, f"1e25 forecast: {100 * view.forecast_hard:.1f}%"]
        left = len(view.budget) + 1
        right = np.isfinite(view.hard).sum() + np.isfinite(view.external_hard).sum() + 1
        assert state["marks"] == left + right


@pytest.mark.parametrize("opened", ["hparam-scaling", "hparam-scaling-mobile"], indirect=True)
def test_three_dropdowns_reach_every_combination_in_any_order(opened: Any, study: StudyFit) -> None:
    assert study.sweep is not None
    rng = random.Random(1)
    current = FIRST_CELL
    for target in [FIRST_CELL, *rng.sample(CELLS, len(CELLS)), *rng.sample(CELLS, 4)]:
        dimensions = [d for d in range(3) if current[d] != target[d]]
        for dimension in rng.sample(dimensions, len(dimensions)):
            choose(opened, dimension, CHOICES[dimension].index(target[dimension]))
        current = target
        state = opened.evaluate(STATE)
        assert sorted(state["headers"]) == [f"{letter} = {value}" for letter, value in zip("BHT", target, strict=True)]
        assert state["open"] == 0
        start = 20 * CELLS.index(target)
        assert state["visible"] == [*range(start, start + 20), 480, 481, 482]
        cell = study.sweep.cell(*target)
        assert state["marks"] == (5 * len(cell.loss) + 5 if cell.fitted else 0)
        assert ("No finished runs" in state["message"]) is (cell.n_finished == 0)
        assert bool(state["message"]) is not cell.fitted


@pytest.mark.parametrize("opened", ["overtraining-forecast"], indirect=True)
def test_every_slider_stop_tells_the_truth(opened: Any, study: StudyFit) -> None:
    fit = study.overtraining
    assert fit is not None
    stops = list(range(len(fit.scales)))
    for stop in [*stops, *random.Random(2).sample(stops, len(stops))]:
        line = fit.scales[stop]
        rail = opened.locator(".slider-rail-touch-rect").bounding_box()
        x = rail["x"] + rail["width"] * stop / (len(stops) - 1)
        opened.mouse.click(min(max(x, rail["x"] + 1), rail["x"] + rail["width"] - 1), rail["y"] + rail["height"] / 2)
        cost = overhead(line.overhead) if line.status == Status.FITTED else "not reached"
        opened.wait_for_function(
            """(words) => [...document.querySelectorAll(".annotation-text")].some((label) =>
                 words.every((word) => label.textContent.includes(word)))""",
            arg=[overtraining_label(line.scale), cost],
            timeout=5000,
        )
        curve = opened.evaluate(
            """() => {
              const gd = document.getElementById("figure");
              const trace = gd._fullData.find((t) => t.name === "Sub-optimal fit");
              const [x, y, compute] = [trace.x, trace.y, trace.customdata].map((values) => [...values]);
              return {index: trace.index, x, y, compute};
            }"""
        )
        tokens = np.array(curve["x"])
        compute = 10 ** ((np.log10(tokens / line.scale) - fit.token_intercept) / fit.token_slope)
        np.testing.assert_allclose(np.array(curve["compute"], dtype=float), compute, rtol=1e-6)
        np.testing.assert_allclose(curve["y"], np.interp(np.log(compute), np.log(fit.compute), line.loss), rtol=1e-6)
        hovered = opened.evaluate(
            """(curve) => {
              const gd = document.getElementById("figure");
              Plotly.Fx.hover(gd, [{curveNumber: curve, pointNumber: 40}]);
              const texts = [...gd.querySelectorAll(".hoverlayer .hovertext")].map((e) => e.textContent);
              Plotly.Fx.unhover(gd);
              return texts.join(" ");
            }""",
            curve["index"],
        )
        (shown,) = re.findall(r"C=([0-9.e+]+) FLOPs", hovered)
        assert float(shown) == pytest.approx(compute[40], rel=6e-3)
