"""The example notebooks run, and what is kept of them is what a fresh run shows."""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

nbformat = pytest.importorskip("nbformat", reason="nbformat is not installed")
pytest.importorskip("IPython", reason="IPython is not installed")

from examples.execute import EXAMPLES, executed  # noqa: E402

SHOWN = 2e-6
"""Relative, a number of six or seven digits as tables print it: its last digit may differ on another machine."""
DRAWN = 1e-6
"""Relative, a number of a figure: what a least-squares optimum is known to on another machine."""

PLOTLY = "application/vnd.plotly.v1+json"
SVG = "image/svg+xml"
NUMBER = re.compile(r"[-+]?\d+(?:\.\d+)?(?:e[-+]?\d+)?")


@pytest.fixture(scope="module", params=EXAMPLES, ids=lambda path: path.stem)
def example(request: pytest.FixtureRequest) -> tuple[Any, Any]:
    """One notebook as it is kept, and as a fresh run leaves it."""
    folder = Path.cwd()
    fresh = executed(request.param, "plotly_mimetype")
    assert Path.cwd() == folder
    return nbformat.read(request.param, as_version=4), fresh


def outputs(book: Any) -> list[tuple[str, Any]]:
    """(cell, output) of every output, in order."""
    return [(cell.id, output) for cell in book.cells for output in cell.get("outputs", ())]


def data_of(output: Any) -> dict[str, Any]:
    return {"text/plain": output.text} if output.output_type == "stream" else dict(output.data)


def assert_same_text(kept: str, fresh: str, what: str) -> None:
    """Word for word, blanks aside, and number for number as far as they are printed."""
    assert NUMBER.sub("0", kept).split() == NUMBER.sub("0", fresh).split(), what
    old, new = (np.array([float(number) for number in NUMBER.findall(text)]) for text in (kept, fresh))
    np.testing.assert_allclose(new, old, rtol=SHOWN, atol=1e-6, err_msg=what)


def assert_same_figure(kept: Any, fresh: Any, where: str) -> None:
    assert type(kept) is type(fresh), where
    if isinstance(kept, Mapping):
        assert set(kept) == set(fresh), where
        for key in kept:
            assert_same_figure(kept[key], fresh[key], f"{where}.{key}")
    elif isinstance(kept, list):
        assert len(kept) == len(fresh), where
        for place, pair in enumerate(zip(kept, fresh, strict=True)):
            assert_same_figure(*pair, f"{where}[{place}]")
    elif isinstance(kept, str):
        assert_same_text(kept, fresh, where)
    elif isinstance(kept, float):
        assert fresh == pytest.approx(kept, rel=DRAWN, abs=DRAWN, nan_ok=True), where
    else:
        assert kept == fresh, where


def decoded(node: Any) -> Any:
    """A figure with its typed arrays as lists of numbers."""
    if isinstance(node, list):
        return [decoded(item) for item in node]
    if not isinstance(node, Mapping):
        return node
    if "bdata" in node:
        numbers = np.frombuffer(base64.b64decode(node["bdata"]), node["dtype"])
        return numbers.reshape([int(n) for n in node.get("shape", str(len(numbers))).split(",")]).tolist()
    return {key: decoded(value) for key, value in node.items()}


def test_there_are_two_examples() -> None:
    assert [path.stem for path in EXAMPLES] == ["first_study", "plan_a_run"]
    for path in EXAMPLES:
        assert path.stat().st_size < 400_000


def test_the_first_study_takes_ten_lines() -> None:
    book = nbformat.read(EXAMPLES[0], as_version=4)
    lines = [line for cell in book.cells if cell.cell_type == "code" for line in cell.source.splitlines() if line]
    assert len(lines) == 10


def test_what_is_kept_is_what_a_fresh_run_shows(example: tuple[Any, Any]) -> None:
    kept, fresh = example
    assert [cell.source for cell in kept.cells] == [cell.source for cell in fresh.cells]
    assert [name for name, _ in outputs(kept)] == [name for name, _ in outputs(fresh)]
    for (name, old), (_, new) in zip(outputs(kept), outputs(fresh), strict=True):
        old, new = data_of(old), data_of(new)
        assert set(new) == set(old) - {SVG}, name
        for kind, value in new.items():
            if kind == PLOTLY:
                assert_same_figure(decoded(old[kind]), decoded(value), name)
            else:
                assert_same_text(old[kind], value, name)


def test_every_figure_is_drawn_for_readers_without_plotly(example: tuple[Any, Any]) -> None:
    figures = [data_of(output) for _, output in outputs(example[0]) if PLOTLY in data_of(output)]
    assert figures
    for figure in figures:
        assert figure[SVG].startswith("<svg")
        titles = [axis["title"]["text"] for axis in figure[PLOTLY]["layout"].values() if "title" in dict_of(axis)]
        assert titles
        for title in titles:
            assert title in figure[SVG]


def dict_of(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def test_notebooks_are_clean(example: tuple[Any, Any]) -> None:
    kept, _ = example
    nbformat.validate(kept)
    assert set(kept.metadata) == {"kernelspec", "language_info"}
    assert all(not cell.metadata for cell in kept.cells)
    text = nbformat.writes(kept)
    for place in (os.path.expanduser("~"), str(EXAMPLES[0].parents[1]), "/tmp/"):
        assert f"{place}/".replace("//", "/") not in text
    assert "simulated" in kept.cells[0].source
