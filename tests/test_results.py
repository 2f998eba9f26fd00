"""Results: frozen, printable, and the same numbers as table, data frame, dictionary and JSON."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import delphi_jax as dj
from delphi_jax.answers import ANSWER_FIGURES
from delphi_jax.definition import Definition
from delphi_jax.fit.law import bootstrap_law, fit_law
from delphi_jax.io import load_study
from delphi_jax.labels import ANSWER_TITLES
from delphi_jax.results import CellFit, LawFit, Result, RichardsFit, StudyFit, SweepFit
from delphi_jax.results.base import plain
from delphi_jax.status import Bound, Status
from delphi_jax.tasks import Task
from tests.delphi import ADAMH_SUITE, LOSS, SWEEP

DATA = Path(__file__).parents[1] / "data"


@pytest.fixture(scope="module")
def results(bundled_fit: StudyFit) -> list[Result]:
    """A result of every kind."""
    study = load_study(DATA)
    optima = {suite: bundled_fit.isoflop.optima(suite)[:2] for suite in bundled_fit.isoflop.suites}
    answers = [
        dj.allocate(study.runs, [1e21], draws=20),
        dj.coverage_study(study.runs, bundled_fit.laws[ADAMH_SUITE], [1e21], studies=2, draws=20),
        dj.downstream_intervals(study.evals, study.externals, study.definition, draws=40),
        dj.effective_speedup(optima, budgets=[1e21], draws=50),
        dj.fit_study_surfaces(study.runs, at=[(1e9, 2e10)], draws=5),
        dj.forecast_intervals(bundled_fit.isoflop, draws=20),
        dj.law_study(optima, metric=LOSS),
        dj.leave_future_out(optima),
        dj.check_study(study),
    ]
    studies = [
        dj.bootstrap_study(law.compute, law.loss, draws=1e4, series=name) for name, law in bundled_fit.laws.items()
    ]
    return [result for each in (bundled_fit, *studies, *answers) for result in parts_of(each)]


def parts_of(value: Any) -> Iterator[Result]:
    """Every result in ``value``, itself included."""
    if isinstance(value, Result):
        yield value
    if dataclasses.is_dataclass(value):
        value = [getattr(value, field.name) for field in dataclasses.fields(value)]
    elif isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list | tuple):
        for item in value:
            yield from parts_of(item)


def kinds_of(kind: type) -> set[type]:
    """Every kind of result that stands for itself."""
    below = kind.__subclasses__()
    return {kind}.union(*map(kinds_of, below)) if not below else set().union(*map(kinds_of, below))


def numbers(value: Any) -> list[float]:
    """Every finite number below a field, in order; the rest as NaN."""
    if isinstance(value, bool | str | Task | Status | Bound | Definition) or value is None:
        return [np.nan] if value is None else []
    if isinstance(value, int | float | np.generic):
        return [float(value) if np.isfinite(value) else np.nan]
    if isinstance(value, np.ndarray) and value.dtype.kind in "Ob":
        return []
    if isinstance(value, np.ndarray):
        return [float(item) if np.isfinite(item) else np.nan for item in value.ravel()]
    if isinstance(value, Mapping):
        return [number for item in value.values() for number in numbers(item)]
    if isinstance(value, list | tuple):
        return [number for item in value for number in numbers(item)]
    return [number for field in told(value) for number in numbers(getattr(value, field.name))]


def told(value: Any) -> list[dataclasses.Field[Any]]:
    """The fields that JSON holds: all but those that say of what study a part is."""
    return [field for field in dataclasses.fields(value) if not field.metadata.get("beside")]


def test_every_kind_of_result_is_here(results: list[Result]) -> None:
    kinds = {type(result) for result in results}
    assert kinds == kinds_of(Result)
    assert len(kinds) > 25


def test_every_kind_with_figures_draws_them(results: list[Result]) -> None:
    kinds = {type(result): result for result in results}
    assert set(ANSWER_FIGURES) <= set(kinds)
    names = [name for figures in ANSWER_FIGURES.values() for name in figures]
    assert sorted(names) == sorted([*ANSWER_TITLES, *(f"{name}-mobile" for name in ANSWER_TITLES)])
    for kind in ANSWER_FIGURES:
        drawing = dj.draw_answer(kinds[kind])
        assert list(drawing.documents) == list(ANSWER_FIGURES[kind]), drawing.failed | drawing.undrawn
    with pytest.raises(ValueError, match="LawFit has no figures, these have some: AllocationFit"):
        dj.draw_answer(kinds[LawFit])


def test_results_are_frozen(results: list[Result]) -> None:
    for result in results:
        for field in dataclasses.fields(result)[:2]:
            with pytest.raises(dataclasses.FrozenInstanceError):
                setattr(result, field.name, None)


def test_results_print_as_their_rows(results: list[Result]) -> None:
    for result in results:
        rows = result.rows()
        assert rows
        text, html = repr(result), result._repr_html_()
        assert text.startswith(type(result).__name__)
        assert html.count("<tr") == len(rows) + 1
        for column in rows[0]:
            assert column in text
            assert escape(column, quote=False) in html
        # One header under the name, then a line per row.
        assert len(text.splitlines()) == len(rows) + 2


def test_frames_hold_the_rows(results: list[Result]) -> None:
    for result in results:
        frame, rows = result.to_frame(), result.rows()
        assert list(frame.columns) == list(rows[0])
        assert len(frame) == len(rows)
        for row, (_, line) in zip(rows, frame.iterrows(), strict=True):
            for column, value in row.items():
                same = line[column] == value or (np.isnan(value) and np.isnan(line[column]))
                assert same, column


def test_json_round_trips_every_number(results: list[Result], bundled_fit: StudyFit) -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    for result in results:
        document = json.loads(result.to_json(), parse_constant=refuse)
        assert list(document) == [field.name for field in told(result)]
        if type(result) is not StudyFit:
            np.testing.assert_array_equal(numbers(document), numbers(result), err_msg=type(result).__name__)
    assert json.loads(bundled_fit.to_json(indent=2)) == json.loads(bundled_fit.to_json())
    assert "\n  " in bundled_fit.to_json(indent=2)


def test_json_of_a_study_holds_its_parts(bundled_fit: StudyFit) -> None:
    document = json.loads(bundled_fit.to_json())
    suite, law = next(iter(bundled_fit.laws.items()))
    assert document["laws"][suite]["L_inf"] == law.L_inf
    assert document["laws"][suite]["status"] == law.status.label
    assert document["laws"][suite]["profile"][0] == law.profile[0]
    parabola = bundled_fit.isoflop.parabolas[0]
    assert document["isoflop"]["parabolas"][0]["tokens"] == parabola.tokens.tolist()
    interval = bundled_fit.bootstraps[suite].intervals[0]
    assert document["bootstraps"][suite]["intervals"][0] == dataclasses.asdict(interval)
    run = bundled_fit.held_out.runs[0]
    assert document["held_out"]["runs"][0] == dataclasses.asdict(run)
    curve = bundled_fit.sweep.cells[0].dependence[0]
    assert document["sweep"]["cells"][0]["dependence"][0]["mean"] == curve.mean.tolist()
    line = bundled_fit.overtraining.scales[0]
    assert document["overtraining"]["scales"][0]["overhead"] == line.overhead


def test_plain_values() -> None:
    nested = {
        "a": np.float64(1.5),
        2: (np.int64(3), np.nan, np.inf),
        "s": Status.NO_DATA,
        "m": np.array([[1.0, np.nan]]),
    }
    assert plain(nested) == {"a": 1.5, "2": [3, None, None], "s": "no data", "m": [[1.0, None]]}
    assert plain(True) is True
    assert plain(None) is None


def test_numbers_that_do_not_exist_come_with_their_status() -> None:
    empty = np.empty(0)
    law = fit_law([1e18, 1e19, 1e20], [2.0, 2.5, 3.0])
    curve = RichardsFit("curve", empty, empty, 0.0, Status.TOO_FEW_POINTS)
    cell = CellFit(SWEEP, 8, 256, "1B", Status.NO_DATA, 0, np.nan, np.empty((0, 5)), empty)
    for result in (law, curve, cell):
        document = json.loads(result.to_json())
        assert document["status"] == result.status.label != "fitted"
        assert None in document.values()
        assert not result.fitted
        assert result.rows()[0]["status"] == result.status.label
    assert np.isnan(law.loss_at([1e21, 1e22])).all()
    assert np.isnan(curve.predict(np.array([-1.0, 0.0]))).all()
    assert repr(SweepFit(SWEEP, (cell,)))
    draws = bootstrap_law([1e18, 1e19, 1e20], [2.0, 2.5, 3.0], draws=8)
    assert json.loads(draws.to_json())["intervals"][0] == {"low": None, "median": None, "high": None}


def test_every_status_has_words_and_a_remedy() -> None:
    assert len({status.label for status in Status}) == len(Status)
    for status in Status:
        assert status.label and status.remedy and str(status) == status.label
    unusable = {status for status in Status if not status.usable}
    assert unusable == {
        Status.NO_GRID_VALUE_FITS,
        Status.TOO_FEW_POINTS,
        Status.NOT_CONVERGED,
        Status.NO_DATA,
        Status.NOT_REACHED,
        Status.NO_CURVE,
        Status.ASYMPTOTE_ABOVE_LOSS,
        Status.LOSS_DOES_NOT_FALL,
        Status.NOT_PINNED,
        Status.BEYOND_DRAWS,
        Status.NO_SHARED_BUDGET,
        Status.NO_SPREAD,
        Status.NO_OPTIMUM,
        Status.ONE_LINE,
        Status.TOO_FEW_WITHIN_DELTA,
    }


def test_results_hold_numpy_and_no_jax(bundled_fit: StudyFit) -> None:
    def walk(value: Any) -> None:
        assert type(value).__module__.split(".")[0] not in ("jax", "jaxlib"), type(value)
        if dataclasses.is_dataclass(value):
            for field in dataclasses.fields(value):
                walk(getattr(value, field.name))
        elif isinstance(value, Mapping):
            for item in value.values():
                walk(item)
        elif isinstance(value, tuple):
            for item in value:
                walk(item)
        elif isinstance(value, np.ndarray):
            assert value.dtype != np.float32

    walk(bundled_fit)


def test_predictions_take_any_shape(bundled_fit: StudyFit) -> None:
    law: LawFit = next(iter(bundled_fit.laws.values()))
    compute = np.array([[1e18, 1e20], [1e22, 1e24]])
    expected = law.L_inf + law.A / compute**law.alpha
    np.testing.assert_allclose(law.loss_at(compute), expected, rtol=1e-12)
    np.testing.assert_allclose(law.loss_at(1e20), expected[0, 1], rtol=1e-12)
    curve = bundled_fit.downstream[0].richards
    x = np.array([[-40.0, -0.7], [-0.2, 40.0]])
    values = curve.predict(x)
    assert values.shape == (2, 2)
    assert values[0, 0] == pytest.approx(curve.floor) and values[1, 1] == pytest.approx(curve.ceiling)
    middle = curve.floor + (curve.ceiling - curve.floor) / (1 + np.exp(-curve.k * (-0.7 - curve.x0))) ** curve.v
    assert values[0, 1] == pytest.approx(middle, rel=1e-12)
