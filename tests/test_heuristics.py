"""The design of a sweep: the recipe's closed forms, transforms both ways, cells, and what is refused."""

from __future__ import annotations

import math
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from delphi_jax.checked import Unfit
from delphi_jax.heuristics import Horizon, HyperParameter, Rule, SweepDesign
from delphi_jax.io.definition import parse_definition
from delphi_jax.schema import TEXT, sweep_schema
from delphi_jax.status import InputError
from delphi_jax.tables import sweep_table
from tests.delphi import SWEEP
from tests.tolerances import ROUNDING

LR = HyperParameter("lr")


def design(*parameters: HyperParameter, **rest: Any) -> SweepDesign:
    least = {"batch_sizes": (128, 256), "hidden_dims": (1024,), "horizons": (Horizon("10B", 1e10),)}
    return SweepDesign(parameters or (LR,), **{**least, **rest})


def test_the_shipped_heuristic_is_that_of_the_methods() -> None:
    nominal = {"1B": 1e9, "2.5B": 2.5e9, "5B": 5e9}
    assert SWEEP.cells == tuple(product((8, 16, 32, 64), (256, 512), nominal))
    assert SWEEP.first_cell == (64, 512, "2.5B")
    for cell in SWEEP.cells:
        batch, _, key = cell
        tokens = nominal[key]
        r = (batch * 2.5e9) / (64 * tokens)
        expected = [
            0.00630 * math.sqrt(batch / 64) * (2.5e9 / tokens) ** 0.3,
            0.000656 * math.sqrt(r),
            1.85e-8 * math.sqrt(1 / r),
            0.9,
            min(max(0.9999 ** (batch / 64), 0.9), 0.9999),
        ]
        np.testing.assert_allclose(SWEEP.heuristic_point(cell), expected, rtol=ROUNDING)


def test_a_rule_is_clipped_and_a_decay_compounds() -> None:
    rule = Rule(0.1, batch_power=1.0, tokens_power=-0.5, least=0.05, most=0.3)
    assert [rule.at(*ratios) for ratios in ((1, 1), (2, 4), (8, 1), (0.1, 1))] == pytest.approx([0.1, 0.1, 0.3, 0.05])
    # The half of the batch, twice: the same decay over the same tokens.
    decay = Rule(0.99, batch_power=1.0, decay=True)
    assert decay.at(0.5, 1) ** 2 == pytest.approx(decay.at(1, 1)) == pytest.approx(0.99)


@given(st.floats(1e-12, 1 - 1e-12))
def test_transforms_lead_back(value: float) -> None:
    for transform, kind in (("log", "rate"), ("log(1-x)", "beta"), ("linear", "number")):
        parameter = HyperParameter("x", range=kind, transform=transform)
        assert parameter.backward(float(parameter.forward(value))) == pytest.approx(value, rel=1e-9, abs=1e-15)


def test_what_has_no_logarithm_is_floored() -> None:
    expected = np.log([0.1, 1e-20, 1e-20, 1 - 0.9, 1e-20])
    np.testing.assert_allclose(SWEEP.forward([0.1, 0.0, 1e-30, 0.9, 1.0]), expected)
    np.testing.assert_allclose(SWEEP.forward(np.full((3, 2, 5), 0.5)), np.full((3, 2, 5), np.log(0.5)))


def test_trials_find_their_cells() -> None:
    two = design(horizons=(Horizon("10B", 1e10, 2e10), Horizon("40B", 4e10, 5e10)))
    tokens = np.array([1e9, np.nextafter(2e10, 0), 2e10, 5e10])
    features = np.ones((4, 1))
    table = sweep_table(two, np.array([127.9, 128.2, 256, 256]), np.full(4, 1024.0), tokens, np.ones(4), features)
    assert table.horizon.tolist() == ["10B", "10B", "40B", None]
    assert table.batch_size.tolist() == [128, 128, 256, 256]


def test_the_table_of_a_sweep_has_the_columns_of_its_design() -> None:
    beta = HyperParameter("beta2", column="optimizer/beta2", range="beta", transform="log(1-x)")
    schema = sweep_schema(design(LR, beta, loss_column="eval/loss", batch_column="bs", state_column="", table="s"))
    assert schema.table == "s" and schema.finished == "" and not schema.nullable
    assert list(schema.needed) == ["bs", "hidden_dim", "tokens", "lr", "optimizer/beta2", "eval/loss"]
    assert schema.needed["optimizer/beta2"].holds(np.array([0.0, 0.9, 1.0])).tolist() == [True, True, False]
    assert sweep_schema(design()).nullable == {"state": TEXT}


@pytest.mark.parametrize(
    ("given", "path", "message"),
    [
        ({"batch_sizes": (8, 16, 8)}, ("batch_sizes", 2), "8 stands there twice"),
        ({"horizons": (Horizon("a", 1e9, 2e9), Horizon("a", 3e9))}, ("horizons", 1, "key"), "'a' stands there twice"),
        ({"horizons": (Horizon("a", 3e9, 2e9),)}, ("horizons", 0, "tokens"), "3e\\+09 lies outside its horizon"),
        ({"horizons": (Horizon("a", 1e9), Horizon("b", 2e9))}, ("horizons", 1, "tokens"), "at least inf"),
        ({"batch_sizes": tuple(range(1, 51)), "hidden_dims": (1, 2, 3, 4, 5)}, ("batch_sizes",), "make 250 cells"),
        ({"first_shown": (128, 1024, "1B")}, ("first_shown",), "is not a cell"),
        ({"table": "../sweep"}, ("table",), "leaves the data folder"),
        ({"loss_column": "lr"}, ("hyper_parameters", 0, "column"), "'lr' is read as something else too"),
    ],
)
def test_parts_that_do_not_agree(given: dict[str, Any], path: tuple[Any, ...], message: str) -> None:
    with pytest.raises(Unfit, match=message) as refused:
        design(**given)
    assert refused.value.path == path


@pytest.mark.parametrize(
    ("given", "path", "message"),
    [
        ({"transform": "log(1-x)"}, ("range",), "does not go with transform"),
        ({"range": "number"}, ("transform",), "may be negative"),
        ({"heuristic": Rule(0.1, least=1.0, most=0.5)}, ("heuristic", "least"), "1 is above most, 0.5"),
        ({"heuristic": Rule(-0.1, decay=True)}, ("heuristic", "reference"), "has no powers"),
    ],
)
def test_hyper_parameters_that_do_not_agree(given: dict[str, Any], path: tuple[Any, ...], message: str) -> None:
    with pytest.raises(Unfit, match=message) as refused:
        HyperParameter("x", **given)
    assert refused.value.path == path


@pytest.mark.parametrize(
    ("parameter", "given", "path", "message"),
    [
        (HyperParameter("lr", heuristic=Rule(0.1, batch_power=0.5)), {}, ("reference_batch",), "'lr' scales with it"),
        (HyperParameter("lr", heuristic=Rule(0.1, tokens_power=0.5)), {}, ("reference_tokens",), "'lr' scales"),
        (HyperParameter("lr", heuristic=Rule(0.0)), {}, ("hyper_parameters", 0, "heuristic"), "gives 0 at batch size"),
        (
            HyperParameter("b", range="beta", transform="log(1-x)", heuristic=Rule(0.9, batch_power=1)),
            {"reference_batch": 128.0},
            ("hyper_parameters", 0, "heuristic"),
            "gives 1.8 at batch size 256 and horizon 10B, no beta; bound it",
        ),
    ],
)
def test_a_heuristic_has_a_place_in_every_cell(
    parameter: HyperParameter, given: dict[str, Any], path: tuple[Any, ...], message: str
) -> None:
    with pytest.raises(Unfit, match=message) as refused:
        design(parameter, **given)
    assert refused.value.path == path


STUDY = """name = "Other"
[sweep]
batch_sizes = [128, 256]
hidden_dims = [1024]
horizons = [{ key = "10B", tokens = 1e10 }]
[[sweep.hyper_parameters]]
key = "lr"
"""


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ('transform = "log2"', "line 8, sweep.hyper_parameters[1].transform: found 'log2', expected 'log', 'log(1-x)'"),
        ('range = "number"', 'sweep.hyper_parameters[1].transform: a "number" may be negative'),
        ("heuristic = { reference = 1, code = 'x' }", "line 8, sweep.hyper_parameters[1].heuristic.code: is not a key"),
        ("[[sweep.hyper_parameters]]\nkey = 'lr'", "line 9, sweep.hyper_parameters[2].key: 'lr' stands there twice"),
    ],
)
def test_a_study_file_is_told_the_line(lines: str, said: str) -> None:
    found = parse_definition(STUDY, "study.toml").sweep
    assert found.keys == ("lr",) and found.first_cell == (128, 1024, "10B")
    assert np.isnan(found.heuristic_point(found.first_cell)).all()
    with pytest.raises(InputError) as refused:
        parse_definition(f"{STUDY}{lines}\n", "study.toml")
    assert said in str(refused.value)
