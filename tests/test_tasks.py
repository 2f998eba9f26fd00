"""Tasks as a study file says them: defaults, what is refused, and what becomes of each rule in tables and fits."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from delphi_jax.checked import Unfit
from delphi_jax.definition import Definition, HeldOutRule, delphi
from delphi_jax.fit.downstream import TaskPoints, fit_downstream, task_points
from delphi_jax.formulas import law_loss, richards, richards_inverse
from delphi_jax.io.definition import parse_definition
from delphi_jax.schema import LABEL, TEXT, evals_schema, externals_schema
from delphi_jax.status import InputError, Status
from delphi_jax.tables import EvalTable, ExternalTable, eval_table
from delphi_jax.tasks import Task, TaskWords, no_evaluations, task_faults
from tests.delphi import GSM8K, MMLU, TASKS

DIVIDE = 1e21


def task(**given: Any) -> Task:
    least = {"key": "arc", "name": "ARC", "soft": "log-probability", "soft_column": "logp", "hard_column": "acc_norm"}
    return Task(**{**least, "n_problems": 1000, **given})


def test_the_shipped_tasks_are_those_of_the_methods() -> None:
    assert [(t.key, t.floor, t.n_problems, t.ceiling) for t in TASKS.values()] == [
        ("mmlu", 0.25, 14042, None),
        ("humaneval", 0.0, 164, None),
        ("gsm8k", 0.0, 1319, None),
    ]
    assert [t.soft_sign for t in TASKS.values()] == [-1, 1, 1]
    assert {t.forecast_budget for t in TASKS.values()} == {1e25}
    assert [(t.table, t.external_table) for t in TASKS.values()] == [
        (key, f"{key}_external") for key in ("mmlu", "humaneval", "gsm8k")
    ]


def test_what_is_not_said_follows_from_kind_and_column() -> None:
    bare = task()
    assert (bare.table, bare.external_table, bare.soft_sign, bare.view_name(3)) == (
        "arc",
        "arc_external",
        -1,
        "ARC 3-Shot",
    )
    assert bare.words == TaskWords("log-prob", "Log-prob", "log p(correct)", "acc norm", "acc norm", "law")
    bits = task(soft="bits per byte", table="evals/arc.csv", words=TaskWords(hard="accuracy", hard_short="acc"))
    assert (bits.external_table, bits.soft_sign) == ("evals/arc_external.csv", 1)
    assert (bits.words.soft, bits.words.hard, bits.words.hard_short) == ("bits/byte", "accuracy", "acc")
    assert task(soft="loss").words.soft_subject == "Loss"


@pytest.mark.parametrize(
    ("given", "path", "message"),
    [
        ({"floor": 0.96}, "floor", "at least 0.05 below the ceiling, 1"),
        ({"floor": 0.5, "ceiling": 0.5}, "floor", "below the ceiling, 0.5"),
        ({"n_problems": 20}, "n_problems", "20 are too few; more than 20"),
        ({"n_problems": 2, "ceiling": 0.5}, "n_problems", "2 are too few; more than 2"),
        ({"hard_column": "logp"}, "hard_column", "'logp' is also the soft_column"),
        ({"shot_column": "budget"}, "shot_column", "'budget' is also the budget_column"),
        ({"table": "../arc"}, "table", "leaves the data folder"),
        ({"external_table": "/etc/passwd"}, "external_table", "leaves the data folder"),
        ({"asymptote_below": "curve"}, "asymptote_default", "is missing"),
    ],
)
def test_parts_that_do_not_agree(given: dict[str, Any], path: str, message: str) -> None:
    with pytest.raises(Unfit, match=message) as refused:
        task(**given)
    assert refused.value.path == (path,)


def test_tasks_that_do_not_agree() -> None:
    one = task(first_shot=5)
    for other, field in (
        ({"key": "arc", "name": "B", "table": "b"}, "key"),
        ({"key": "b", "name": "ARC"}, "name"),
        ({"key": "b", "name": "B", "table": "arc", "external_table": "b"}, "table"),
        ({"key": "b", "name": "B", "external_table": "arc_external"}, "external_table"),
        ({"key": "b", "name": "B", "first_shot": 0}, "first_shot"),
    ):
        assert [fault.path for fault in task_faults([one, task(**other)])] == [("tasks", 1, field)]
    assert list(task_faults([one, task(key="b", name="B")])) == []
    assert [fault.path for fault in task_faults([one], taken=["arc_external"])] == [("tasks", 0, "external_table")]


STUDY = """name = "Other"
[held_out]
divide = 1e21
[[tasks]]
key = "arc"
name = "ARC"
soft = "log-probability"
soft_column = "logp"
hard_column = "acc"
n_problems = 1172
"""


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("floor = 0.97", "line 11, tasks[1].floor: 0.97 is too high"),
        ('soft_colum = "x"', "line 11, tasks[1].soft_colum: is not a key that is known; did you mean 'soft_column'?"),
        ('words = { harder = "x" }', "line 11, tasks[1].words.harder: is not a key that is known"),
        ("ceiling = 2", "line 11, tasks[1].ceiling: found 2, expected a number of at most 1"),
        ("shots = 2.5", "line 11, tasks[1].shots: found 2.5, expected a whole number"),
        ('asymptote_below = "all"', "line 11, tasks[1].asymptote_below: found 'all', expected 'every row' or 'curve'"),
    ],
)
def test_a_study_file_is_told_the_line(lines: str, said: str) -> None:
    assert parse_definition(STUDY, "study.toml").tasks[0].floor == 0
    with pytest.raises(InputError) as refused:
        parse_definition(f"{STUDY}{lines}\n", "study.toml")
    assert said in str(refused.value)


def test_no_evaluations_says_which_tables_to_bring() -> None:
    assert no_evaluations(delphi().tasks).endswith("put mmlu.json, humaneval.json or gsm8k.json into the data folder")
    assert no_evaluations([task(table="evals/arc.csv")]).endswith("put evals/arc.csv into the data folder")
    assert "add [[tasks]]" in no_evaluations([])


# What tables must hold


def test_columns_by_how_much_they_matter() -> None:
    own = evals_schema(task(shot_column="k", budget_column="flops"))
    assert list(own.needed) == ["k", "flops", "logp"] and list(own.optional) == ["acc_norm", "run_name"]
    assert list(evals_schema(task(hard_required=True)).needed) == ["budget", "logp", "acc_norm"]
    external = externals_schema(task(display_column="model", in_house=("ours",)))
    assert (list(external.needed), list(external.nullable)) == (["logp"], ["acc_norm"])
    assert external.optional == {"run_name": TEXT, "model": TEXT} and external.in_house == ("ours",)
    assert externals_schema(task(named_by="run")).optional == {"run_name": TEXT, "display_name": LABEL}
    assert externals_schema(task()).optional == {"run_name": LABEL, "display_name": TEXT}


@pytest.mark.parametrize(
    ("soft", "good", "bad"),
    [("log-probability", -0.5, 0.5), ("bits per byte", 0.5, -0.5), ("loss", 2.5, -2.5)],
)
def test_the_kind_of_soft_metric_has_its_range_and_direction(soft: Any, good: float, bad: float) -> None:
    kind = task(soft=soft)
    assert evals_schema(kind).needed["logp"].holds(np.array([good, bad])).tolist() == [True, False]
    own = eval_table(kind, np.array([1e20]), np.array([good]), np.array([0.5]), None)
    assert own.soft[0] == abs(good) and own.shot[0] == 0


# What the rules make of the rows


def points(task: Task, externals: int) -> TaskPoints:
    """Six own runs, two of them held out and one, a train run, without the hard metric."""
    budget = np.array([1e18, 1e19, 1e20, 5e20, 1e21, 1e22])
    hard = np.array([0.3, np.nan, 0.4, 0.5, 0.6, 0.7])
    own = EvalTable(task, np.zeros(6, dtype=np.int64), budget, np.linspace(2, 1, 6), hard)
    names = np.array(["model"] * externals, dtype=object)
    external = ExternalTable(task, names, np.linspace(1.5, 0.5, externals), np.linspace(0.4, 0.8, externals))
    return task_points(own, external if externals else None, DIVIDE)


@pytest.mark.parametrize(
    ("given", "externals", "curve", "bounding"),
    [
        ({"curve_from": "externals"}, 5, "eeeee", "oooooo eeeee"),
        ({"curve_from": "externals", "curve_least_points": 0}, 0, "ttt", "oooooo"),
        ({"curve_from": "externals", "curve_least_points": 4}, 0, "", "oooooo"),
        ({}, 5, "ttt eeeee", "oooooo eeeee"),
        ({"curve_least_points": 9}, 5, "", "oooooo eeeee"),
        ({"curve_without_externals": False}, 0, "", "oooooo"),
        ({"asymptote_below": "curve", "asymptote_default": 0.1}, 5, "ttt eeeee", "ttt eeeee"),
        ({"asymptote_below": "curve", "asymptote_default": 0.1, "curve_without_externals": False}, 0, "", ""),
        ({"asymptote_below": "curve", "asymptote_default": 0.1, "curve_least_points": 3}, 0, "ttt", "ttt"),
    ],
)
def test_rows_of_curve_and_asymptote(given: dict[str, Any], externals: int, curve: str, bounding: str) -> None:
    found = points(task(**given), externals)
    train = [0, 2, 3]
    rows = {"t": train, "o": list(range(6)), "e": list(range(6, 6 + externals))}

    def expected(said: str) -> list[int]:
        return sorted(row for part in set(said) - {" "} for row in rows[part])

    assert np.flatnonzero(found.on_curve).tolist() == expected(curve)
    assert np.flatnonzero(found.bounding).tolist() == expected(bounding)
    assert found.asks_curve is bool(curve)


def study_of(*tasks: Task) -> Definition:
    return Definition("Other", tasks=tasks, held_out=HeldOutRule(divide=DIVIDE))


@pytest.mark.parametrize("ceiling", [None, 0.85])
def test_a_noiseless_study_gives_its_truth_back(ceiling: float | None) -> None:
    """A law down to the asymptote that the curve implies, and the curve of it, from own runs alone."""
    arc = task(floor=0.2, ceiling=ceiling, forecast_budget=1e24)
    curve = {"k": 12.0, "x0": -0.9, "v": 1.2, "ceiling": 0.85, "floor": arc.floor}
    L_inf = -float(richards_inverse(np.array(0.85 - 1 / arc.n_problems), **curve))
    assert L_inf > 0
    budget = np.geomspace(1e17, 5e20, 30)
    soft = law_loss(budget, L_inf, 1.5 * 1e17**0.4, 0.4)
    own = EvalTable(arc, np.zeros(30, dtype=np.int64), budget, soft, richards(-soft, **curve))
    (view,) = fit_downstream({"arc": own}, {}, study_of(arc))
    assert view.asymptote_source == "inverted"
    assert view.richards.ceiling_pinned is (ceiling is not None)
    assert view.richards.ceiling == (ceiling or pytest.approx(0.85, rel=1e-4))
    expected = law_loss(np.array(1e24), L_inf, 1.5 * 1e17**0.4, 0.4)
    assert view.forecast_budget == 1e24
    assert view.forecast_soft == pytest.approx(float(expected), rel=1e-3)
    assert view.forecast_hard == pytest.approx(float(richards(-expected, **curve)), rel=1e-3)


def test_views_stand_in_the_order_of_the_study_and_know_it() -> None:
    budget, soft = np.geomspace(1e18, 1e22, 8), np.linspace(2, 1, 8)
    tables = {
        each.key: EvalTable(each, np.full(8, each.shots), budget, soft, np.linspace(0.3, 0.6, 8))
        for each in (task(), task(key="b", name="B", shots=4))
    }
    other = study_of(tables["b"].task, tables["arc"].task)
    views = fit_downstream(tables, {}, other)
    assert [view.name for view in views] == ["B 4-Shot", "ARC 0-Shot"]
    for view in views:
        np.testing.assert_array_equal(view.train, budget < DIVIDE)
        assert view.to_dict()["task"] == view.task.key and "definition" not in view.to_dict()


def test_the_constant_asymptote_is_the_task_s_own() -> None:
    own = EvalTable(GSM8K, np.full(5, 5), np.geomspace(1e18, 1e20, 5), np.linspace(2, 1, 5), np.full(5, np.nan))
    for default in (0.2, 0.7):
        ours = dataclasses.replace(GSM8K, asymptote_default=default)
        table = dataclasses.replace(own, task=ours)
        (view,) = fit_downstream({"gsm8k": table}, {}, dataclasses.replace(delphi(), tasks=(ours,)))
        assert (view.asymptote_source, view.law.L_inf, view.status) == ("constant", default, Status.NO_CURVE)


def test_a_task_replaced_keeps_what_was_filled_in() -> None:
    assert dataclasses.replace(MMLU, floor=0.2).words == MMLU.words
