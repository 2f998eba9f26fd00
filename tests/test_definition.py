"""Study files: what they say, what is wrong with them and on which line, and the rules that they set."""

from __future__ import annotations

import dataclasses
import json
import tomllib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from delphi_jax.definition import (
    Budgets,
    Definition,
    HeldOutRule,
    Metric,
    RunSource,
    SeedRule,
    SuiteRule,
    delphi,
    figure_title,
    slug,
)
from delphi_jax.io import load_study
from delphi_jax.io.definition import key_lines, parse_definition, read_definition
from delphi_jax.status import InputError
from delphi_jax.tables import is_one_of, resolved, run_table, seed_label, suite_of

ROOT = Path(__file__).resolve().parents[1]
HEADER = "name,params,tokens,loss,flops\n"


def refusal(text: str) -> str:
    with pytest.raises(InputError) as caught:
        parse_definition(text, "study.toml")
    return str(caught.value)


# Reading


def test_the_shipped_study_says_what_it_always_was() -> None:
    study = delphi()
    assert study is delphi()
    assert (study.name, study.targets, study.divide) == ("Delphi", (1e21, 1e22, 1e23), 5e20)
    assert study.metric.optimum_title == "Paloma macro loss at IsoFLOP optimum"
    assert study.overtraining.scales == (0.2, 1 / 3, 0.5, 2 / 3, 2.0, 3.0, 4.0, 5.0, 10.0)
    assert set(study.ladders) == {"delphi-ladder", "first-ladder"}
    assert len(study.figure_titles) == 12
    assert figure_title("first-ladder-mobile") == "The first ladder: from IsoFLOP parabolas to held-out runs"
    assert study.isoflop_name(3e18) == "isoflop d1024 / L11 / B8"
    assert study.isoflop_name(4e18) == "isoflop 4e18"
    assert study.held_out_name(1e25) == "Delphi optimal 1e25"


def test_defaults_are_those_of_the_classes() -> None:
    found = parse_definition('name = "x"', "study.toml")
    assert dataclasses.replace(found, source="") == Definition("x")


def test_every_key_is_read() -> None:
    text = """
name = "A"
focus = "two"
unmatched_suite = ""
targets = [1e21, 2]
theme = { base = "dark" }
run_names = { "3e18" = "d1" }
[metric]
name = "m"
unit = "bits"
axis = "a"
optimum_axis = "o"
[[runs]]
files = ["a/b.csv", "c"]
columns = { name = "Name", params = "N", tokens = "D", loss = "L", budget = "C", suite = "S", held_out = "H" }
flops_unit = 1e9
suite = "one"
where = { ok = true, kind = ["a", 3] }
[[runs]]
derive = "flops"
[[suites]]
label = "one"
values = ["1"]
color = "#385C8F"
ladder_title = "One"
[[suites]]
label = "two"
match = ["b"]
ladder = "second"
grid_of = "one"
[held_out]
match = ["opt"]
values = ["yes", 1]
above = 1e21
divide = 1e20
nominal = "power of ten"
[seeds]
prefix = "s"
suffix = "-"
[budgets]
digits = 3
values = [1e18, 1e19]
tolerance = 0.2
[overtraining]
forecast_budget = 1e22
scales = [2]
"""
    found = parse_definition(text, "study.toml")
    assert found.metric == Metric("m", "bits", "a", "o")
    columns = {"name": "Name", "params": "N", "tokens": "D", "loss": "L", "budget": "C", "suite": "S", "held_out": "H"}
    where = {"ok": True, "kind": ("a", 3)}
    assert found.runs == (
        RunSource(("a/b.csv", "c"), columns, 1e9, "", "one", where),
        RunSource(derive="flops"),
    )
    assert found.suites == (
        SuiteRule("one", (), ("1",), "#385C8F", "", "One"),
        SuiteRule("two", ("b",), (), "", "second", "", "one"),
    )
    assert found.held_out == HeldOutRule(("opt",), ("yes", 1), 1e21, 1e20, "power of ten")
    assert (found.seeds, found.budgets) == (SeedRule("s", "-"), Budgets(3, (1e18, 1e19), 0.2))
    assert (found.overtraining_budget, found.overtraining.scales) == (1e22, (2.0,))
    assert (found.focus_label, found.unmatched_suite, found.targets) == ("two", "", (1e21, 2.0))
    assert (found.theme, found.run_names) == ({"base": "dark"}, {"3e18": "d1"})
    assert list(found.ladders) == ["ladder-one", "second"]
    assert found.source == "study.toml"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ("name: is missing",)),
        ("name = 3", ("line 1, name: found 3, expected text",)),
        ('name = ""', ("line 1, name: found '', expected text of at least 1 character",)),
        ('\nnam = "x"', ("line 2, nam: is not a key that is known; did you mean 'name'?",)),
        ('name = "x"\nsource = "y"', ("line 2, source: is not a key",)),
        ('name = "x"\nsuites = ["a"]', ("line 2, suites[1]: found 'a', expected a table",)),
        ('name = "x"\n[suites]\nlabel = "a"', ("line 2, suites: is one table, expected a list", "write [[suites]]")),
        (
            'name = "x"\n[[suites]]\nlabel = "a"\n\n[[suites]]  # b\nmatch = "b"\ncolour = "#000000"',
            (
                "3 keys cannot be used",
                "line 5, suites[2].label: is missing",
                "line 6, suites[2].match: found 'b', expected a list",
                "line 7, suites[2].colour: is not a key that is known; did you mean 'color'?",
            ),
        ),
        ('name = "x"\n[metric]\nfoo = 1', ("line 3, metric.foo", "the keys here are name, unit, axis, optimum_axis")),
        ('name = "x"\n[[runs]]\ncolumns = { flop = "a" }', ("line 3, runs[1].columns.flop", "did you mean 'flops'?")),
        ('name = "x"\ntargets = [1, -1]', ("line 2, targets[2]: found -1, expected a number greater than 0",)),
        ('name = "x"\ntargets = [inf]', ("line 2, targets[1]: found inf, expected a finite number",)),
        ('name = "x"\n[budgets]\ndigits = 2.5', ("line 3, budgets.digits: found 2.5, expected a whole number",)),
        (
            'name = "x"\n[budgets]\ntolerance = 1',
            ("line 3, budgets.tolerance: found 1, expected a number less than 1",),
        ),
        ('name = "x"\n[[runs]]\nfiles = []', ("line 3, runs[1].files: found a list, expected a list of at least 1",)),
        (
            'name = "x"\n[[runs]]\nderive = "C"',
            ("line 3, runs[1].derive: found 'C', expected '', 'flops' or 'tokens'",),
        ),
        ('name = "x"\n[[runs]]\nwhere = { a = {} }', ("line 3, runs[1].where.a: found an object, expected text or",)),
        ('name = "x"\nfocus = "y"', ("line 2, focus: 'y' is not the label of a suite",)),
        (
            'name = "x"\n[[suites]]\nlabel = "a"\n[[suites]]\nlabel = "a"',
            ("line 5, suites[2].label: two suites have the label 'a'",),
        ),
        ('name = "x"\n[[suites]]\nlabel = "a"\nladder = "../b"', ("line 4, suites[1].ladder", "such as 'b'")),
        ('name = "x"\n[[suites]]\nlabel = "a"\nladder = "lucky-seeds"', ("names another figure",)),
        ('name = "x"\n[[suites]]\nlabel = "a"\ncolor = "red"', ("line 4, suites[1].color: found 'red', expected",)),
        ('name = "x"\n[[suites]]\nlabel = "a"\ngrid_of = "a"', ("line 4", "not the label of another suite")),
        ('name = "x"\n[[runs]]\nsuite = "b"\n[[suites]]\nlabel = "a"', ("line 3, runs[1].suite", "the suites are 'a'")),
        ('name = "x"\n[run_names]\nbig = "b"', ("line 3, run_names.big", 'write it as "3e18"')),
        ('name = "x"\n[seeds]\nprefix = "s1"', ("line 3, seeds.prefix", "ends with a digit")),
        ('name = "x\n', ("is not valid TOML", "line 1")),
        ('name = "x"\nname = "y"', ("is not valid TOML",)),
        ("a = " + "[" * 5000, ("nested too deeply",)),
        ("a = " + "9" * 5000, ("too many digits", "1e21")),
    ],
)
def test_errors_name_line_key_found_expected_and_remedy(text: str, words: tuple[str, ...]) -> None:
    said = refusal(text)
    assert said.startswith("study.toml: ")
    for word in words:
        assert word in said, said


@pytest.mark.parametrize(
    "file", ["/etc/passwd", "../runs", "a/../../b.csv", "..\\b", "\\\\host\\b", "C:/b.csv", "c:b", "~/b", "a\\u0000b"]
)
def test_tables_stay_in_the_data_folder(file: str) -> None:
    escaped = file.replace("\\", "\\\\").replace("\\\\u", "\\u")
    assert "leaves the data folder" in refusal(f'name = "x"\n[[runs]]\nfiles = ["{escaped}"]')


def test_only_the_first_faults_are_told() -> None:
    said = refusal("\n".join(["name = 'x'", *(f"k{i} = 1" for i in range(9))]))
    assert "9 keys cannot be used" in said and "and 4 more" in said


def test_a_python_definition_is_checked_too() -> None:
    with pytest.raises(ValueError, match="'y' is not the label of a suite"):
        Definition("x", focus="y")
    with pytest.raises(ValueError, match="is missing; tasks are fitted below it"):
        Definition("x", tasks=delphi().tasks)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    path = tmp_path / "study.toml"
    for content, words in (
        (b'name = "\xff"', "line 1 is not UTF-8"),
        (b"#" * 1_000_001, "holds 1000001 bytes"),
        (b"\x00\x01", "is not valid TOML"),
    ):
        path.write_bytes(content)
        with pytest.raises(InputError, match=words):
            read_definition(path)
    with pytest.raises(InputError, match="is a directory"):
        read_definition(tmp_path)
    with pytest.raises(InputError, match="cannot be read"):
        read_definition(tmp_path / "absent.toml")
    path.write_bytes(b'\xef\xbb\xbfname = "x"\r\n')
    assert read_definition(path).name == "x"


names = st.sampled_from(["a", "b-c", '"d e"', "'f.g'", '"h]i"'])
values = st.sampled_from(
    ["1", '"]"', "'['", '"""\n[x]\ny = 1\n"""', "'''\n# [z]\n'''", "[\n  1, # ]\n  [2],\n]", '{ q = "}" }', '"\\""']
)


@settings(max_examples=200)
@given(st.lists(st.tuples(st.sampled_from(["", "[", "[["]), names, st.lists(st.tuples(names, values), max_size=3))))
def test_key_lines_are_where_the_keys_stand(blocks: list[tuple[str, str, list[tuple[str, str]]]]) -> None:
    lines, places, arrays, seen = [], {}, {}, set()
    for i, (opening, name, items) in enumerate(blocks):
        plain = name.strip("\"'")
        path: tuple[str | int, ...] = ()
        if opening:
            path = (f"t{i}", plain) if opening == "[" else (f"u{plain}",)
            text = f"t{i} . {name}" if opening == "[" else f'"u{plain}"'
            lines += ["", f"{opening} {text} {']' * len(opening)} # x"]
            if opening == "[[":
                arrays[path] = arrays.get(path, -1) + 1
                path = (*path, arrays[path])
            places[path] = len(lines)
        elif any(block[0] for block in blocks[:i]):
            continue
        for key, value in items:
            whole = (*path, key.strip("\"'"))
            if whole in seen:
                continue
            seen.add(whole)
            places[whole] = len(lines) + 1
            lines += f"{key} = {value}".split("\n")
    text = "\n".join(lines)
    tomllib.loads(text)
    found = key_lines(text)
    assert {path: found[path] for path in places} == places


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=300))
def test_any_text_is_a_study_or_an_error_of_ours(text: str) -> None:
    try:
        parse_definition(f'name = "x"\n{text}', "study.toml")
    except InputError as error:
        assert str(error).startswith("study.toml: ")


@given(st.text(max_size=200))
def test_slugs_are_safe(label: str) -> None:
    found = slug(label)
    assert found and len(found) <= 60
    assert set(found) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")
    assert found == slug(found) and not found.startswith("-") and not found.endswith("-")


def test_ladders_have_names_of_their_own() -> None:
    labels = ["A b", "a-b", "模型", "型", "A  b!"]
    study = Definition("x", suites=tuple(SuiteRule(label) for label in labels))
    assert list(study.ladders) == ["ladder-a-b", "ladder-a-b-2", "ladder-suite", "ladder-suite-2", "ladder-a-b-3"]
    assert [rule.label for rule in study.ladders.values()] == labels
    assert list(Definition("My study").ladders) == ["ladder-my-study"]
    assert "mmlu-emergence" not in study.figure_titles and "hparam-scaling" not in study.figure_titles


# Rules


def test_suites() -> None:
    rules = (SuiteRule("One", ("a", "B"), ("1",)), SuiteRule("Two", ("ab",)))
    study = Definition("x", suites=rules, unmatched_suite="rest")
    assert [suite_of(study, name) for name in ("xAx", "b", "AB", "c")] == ["One", "One", "One", "rest"]
    assert [suite_of(study, "c", value) for value in ("1", "Two", "3", None)] == ["One", "Two", "rest", "rest"]
    assert suite_of(study, "ab", "Two") == "Two"
    assert suite_of(dataclasses.replace(study, unmatched_suite=""), "c") is None
    assert suite_of(Definition("x"), "anything") == "x"
    assert suite_of(Definition("x"), "anything", "value") == "value"


@pytest.mark.parametrize(
    ("rule", "name", "label"),
    [
        (SeedRule(), "run-seed42", "42"),
        (SeedRule(), "seed-42", "default"),
        (SeedRule("-seed", "-"), "a-seed4-seed5x-seed6-", "4"),
        (SeedRule("-seed", "-"), "a-seed4x-seed56-", "56"),
        (SeedRule("s="), "s=s=7", "7"),
        (SeedRule("seed"), "seed٣", "default"),
    ],
)
def test_seeds(rule: SeedRule, name: str, label: str) -> None:
    assert seed_label(rule, name) == label


def test_cells_are_compared_as_a_reader_would() -> None:
    assert all(is_one_of(cell, (False,)) for cell in (False, "False", "false ", "0", 0, 0.0, "no"))
    assert not any(is_one_of(cell, (False,)) for cell in (True, "true", None, "", 2, "2"))
    assert is_one_of("Abc", ("abc", "d")) and not is_one_of("abcd", ("abc",))
    assert is_one_of("3.0", (3,)) and is_one_of(3.0, (3,)) and not is_one_of("x", (3,))
    assert not is_one_of(None, ("none",))


def table(definition: Definition, compute: list[float], names: list[str] | None = None, **columns: object) -> object:
    n = len(compute)
    runs = run_table(
        np.array(names or [f"run {i}" for i in range(n)], dtype=object),
        np.full(n, 1e9),
        np.full(n, 1e9),
        np.linspace(3, 4, n),
        np.array(compute),
        definition=definition,
        **columns,
    )
    return runs


def test_budgets_by_digits_or_from_a_list() -> None:
    compute = [1.04e18, 1.06e18, 9.4e18]
    assert table(Definition("x"), compute)[0].bucket.tolist() == [1e18, 1.1e18, 9.4e18]
    assert table(Definition("x", budgets=Budgets(1)), compute)[0].bucket.tolist() == [1e18, 1e18, 9e18]
    listed = Definition("x", budgets=Budgets(values=(1e18, 1e19), tolerance=0.07))
    runs, (skipped,) = table(listed, [*compute, 1.08e19, 1.01e19])
    assert runs.bucket.tolist() == [1e18, 1e18, 1e19, 1e19]
    assert (skipped.reason, skipped.names) == ("compute not within 7 % of a listed budget", ("run 3",))
    given_budget = table(Definition("x"), compute, budget=np.array([1e18, np.nan, 9e18]))[0]
    assert given_budget.bucket.tolist() == [1e18, 1.1e18, 9e18]
    assert given_budget.compute.tolist() == compute


def test_held_out_runs_by_name_column_and_budget() -> None:
    flags = np.array([True, None, False], dtype=object)
    rule = HeldOutRule(match=("OPT",), above=1e19)
    study = Definition("x", held_out=rule, budgets=Budgets(values=(1e18,)))
    runs, (skipped,) = table(study, [1e18, 1.04e19, 1e18], ["a", "b", "an-opt"], labels={"held_out": flags})
    assert runs.held_out.tolist() == [True, True]
    assert skipped.names == ("b",)
    runs, skipped = table(study, [1e18, 1.06e19, 1e18], ["a", "b", "c"], labels={"held_out": flags})
    assert runs.held_out.tolist() == [True, True, False]
    assert runs.bucket.tolist() == [1e18, 1.1e19, 1e18] and not skipped
    tens = dataclasses.replace(study, held_out=HeldOutRule(("b",), nominal="power of ten"))
    assert table(tens, [1e18, 4e19, 1e18], ["a", "b", "c"])[0].bucket.tolist() == [1e18, 1e20, 1e18]


def test_what_the_tables_decide() -> None:
    study = Definition("x", held_out=HeldOutRule(("opt",)))
    runs = table(study, [3e18, 3e20, 1e20, 1e22, 1e23], ["a", "b", "opt", "opt", "opt"])[0]
    found = resolved(study, runs)
    assert found.targets == (1e21, 1e22, 1e23)
    assert found.divide == pytest.approx(np.sqrt(3e20 * 1e22), rel=1e-12)
    assert [rule.label for rule in found.suites] == ["x"]
    assert resolved(study, runs.where(~runs.held_out)).divide is None
    own = dataclasses.replace(study, targets=(7e21,), held_out=HeldOutRule(("opt",), divide=1e21))
    assert (resolved(own, runs).targets, resolved(own, runs).divide) == ((7e21,), 1e21)
    assert resolved(study, runs.where(np.zeros(5, bool))).targets == ()
    with pytest.raises(ValueError, match="'x' has no targets: give some, or load it with its tables"):
        study.overtraining_budget  # noqa: B018


# Loading


def write(folder: Path, study: str, **tables: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "study.toml").write_text(study, encoding="utf-8")
    for name, text in tables.items():
        (folder / f"{name}.csv").write_text(text, encoding="utf-8")
    return folder


def test_a_study_file_is_found_in_the_folder_or_given(tmp_path: Path) -> None:
    rows = "a,1e9,1e9,3,6e18\nb,1e9,2e9,2.9,1.2e19\n"
    folder = write(tmp_path / "one", 'name = "one"', runs=HEADER + rows)
    other = tmp_path / "other.toml"
    other.write_text('name = "two"')
    assert load_study(folder).definition.name == "one"
    assert load_study(folder, study=other).definition.name == "two"
    assert load_study(folder, study=Definition("three")).definition.name == "three"
    assert load_study(study=folder / "study.toml").source == str(folder)
    assert load_study(ROOT / "data").definition.name == "Delphi"
    with pytest.raises(InputError, match=r"the table of training runs is missing; put runs\.json"):
        load_study(study=other)


def test_columns_units_filters_and_derived_numbers(tmp_path: Path) -> None:
    study = """
name = "x"
[[runs]]
files = ["first.CSV"]
columns = { name = "Run", params = "N", tokens = "D", loss = "L", flops = "G", held_out = "val", seed = "s" }
flops_unit = 1e9
where = { kind = ["a", "B"], bad = false }
[[runs]]
files = ["sub/second"]
columns = { suite = "recipe" }
derive = "flops"
[[runs]]
files = ["third.csv"]
derive = "tokens"
suite = "Third"
"""
    folder = write(
        tmp_path,
        study,
        first="Run,N,D,L,G,val,s,kind,bad\n"
        "r1,1e9,2e9,3,1.2e10,true,7,a,False\nr2,1e9,3e9,3,1.8e10,,,b,no\nr3,1,1,1,1,0,1,c,False\nr4,1,1,1,1,0,1,A,True\n",
        third="params,loss,flops\n1e9,3,6e18\n2e9,3,6e18\n",
    )
    (folder / "first.csv").rename(folder / "first.CSV")
    (folder / "sub").mkdir()
    (folder / "sub" / "second.json").write_text(
        '[{"name": "s", "params": 1e9, "tokens": 4e9, "loss": 2, "recipe": 5, "state": "crashed"}]'
    )
    study_read = load_study(folder)
    runs = study_read.runs
    assert runs.name.tolist() == ["r1", "r2", "s", "third line 2", "third line 3"]
    assert runs.compute.tolist() == [1.2e19, 1.8e19, 6 * 1e9 * 4e9, 6e18, 6e18]
    assert runs.tokens[3:].tolist() == [1e9, 5e8]
    assert runs.suite.tolist() == ["x", "x", "5", "Third", "Third"]
    assert runs.seed.tolist() == ["7", "default", "default", "default", "default"]
    assert runs.held_out.tolist() == [True, False, False, False, False]
    assert runs.finished.tolist() == [True, True, False, True, True]
    assert {(part.table, part.reason, part.names) for part in study_read.skipped} == {
        ("first", "kind is not 'a' or 'B'", ("r3",)),
        ("first", "bad is not false", ("r4",)),
    }
    assert [rule.label for rule in study_read.definition.suites] == ["5", "Third", "x"]
    with pytest.raises(InputError, match="runs in 3 layouts: one file cannot stand for them"):
        load_study(folder, runs=folder / "first.CSV")


def test_errors_of_tables_name_their_own_columns(tmp_path: Path) -> None:
    study = 'name = "x"\n[[runs]]\ncolumns = { loss = "L", flops = "G", held_out = "val" }\nflops_unit = 1e15\n'
    folder = write(tmp_path, study, runs="params,tokens,L,val\n1e9,1e9,3,no\n")
    with pytest.raises(InputError, match="no row has column 'G'"):
        load_study(folder)
    write(tmp_path, study, runs="params,tokens,L,G,val\n1e9,1e9,-3,6,no\n")
    with pytest.raises(InputError, match=r"line 2, column 'L': found -3\.0, expected a positive loss"):
        load_study(folder)
    write(tmp_path, study, runs="params,tokens,L,G,val\n1e9,1e9,3,-6,no\n")
    with pytest.raises(InputError, match=r"column 'G': found -6\.0, expected a positive number of 1e\+15 FLOPs"):
        load_study(folder)
    write(tmp_path, study, runs="params,tokens,L,G,val\n1e9,1e9,3,6,maybe\n")
    with pytest.raises(InputError, match=r"column 'val': found 'maybe', expected true or false.*held_out\.values"):
        load_study(folder)


def test_grids_are_matched_where_the_study_says_so(tmp_path: Path) -> None:
    suites = '[[suites]]\nlabel = "A"\nmatch = ["a"]\n[[suites]]\nlabel = "B"\nmatch = ["b"]\n'
    rows = "a1,1e9,1e9,3,6e18\nb1,1e9,1e9,3,6e18\nb2,2e9,5e8,3,6e18\n"
    free = load_study(write(tmp_path / "free", f'name = "x"\n{suites}', runs=HEADER + rows))
    assert len(free.runs) == 3 and not free.skipped
    bound = load_study(write(tmp_path / "bound", f'name = "x"\n{suites}grid_of = "A"\n', runs=HEADER + rows))
    assert bound.runs.name.tolist() == ["a1", "b1"]
    assert [part.names for part in bound.skipped] == [("b2",)]


def test_runs_of_no_suite_can_be_left_out(tmp_path: Path) -> None:
    study = 'name = "x"\nunmatched_suite = ""\n[[suites]]\nlabel = "A"\nmatch = ["a"]\n'
    folder = write(tmp_path, study, runs=HEADER + "a1,1e9,1e9,3,6e18\nc,1e9,1e9,3,6e18\n")
    (skipped,) = load_study(folder).skipped
    assert (skipped.reason, skipped.names) == ("no suite takes it by its name", ("c",))
    write(tmp_path, study, runs=HEADER + "c,1e9,1e9,3,6e18\n")
    with pytest.raises(InputError, match=r"no run is left .*no suite takes it"):
        load_study(folder)


def test_runs_of_no_suite_are_told_by_the_value_of_their_column(tmp_path: Path) -> None:
    study = 'name = "x"\nunmatched_suite = ""\n[[runs]]\ncolumns = { suite = "recipe" }\n'
    study += '[[suites]]\nlabel = "A"\nvalues = ["a"]\n'
    rows = [("a1", "a"), ("b1", "B2"), ("b2", "B2"), ("c", ""), ("d", "D")]
    text = "".join(f"{name},1e9,{1 + i}e9,3,6e18,{value}\n" for i, (name, value) in enumerate(rows))
    read = load_study(write(tmp_path, study, runs=HEADER.strip() + ",recipe\n" + text))
    assert read.runs.name.tolist() == ["a1"]
    assert {part.reason: part.names for part in read.skipped} == {
        "no suite takes the value 'B2' of its suite column, nor it by its name": ("b1", "b2"),
        "no suite takes it by its name": ("c",),
        "no suite takes the value 'D' of its suite column, nor it by its name": ("d",),
    }


@pytest.mark.parametrize("column", ["suite", "seed"])
def test_numbers_that_name_suites_and_seeds_keep_all_digits(tmp_path: Path, column: str) -> None:
    write(tmp_path, f'name = "x"\n[[runs]]\ncolumns = {{ {column} = "date" }}\n')
    dates = [20240101.0, 20240102.0, 20240102, 0.12345678901, "20240103"]
    numbers = {"params": 1e9, "loss": 3.0, "flops": 6e18}
    rows = [{"name": f"run {i}", "tokens": (1 + i) * 1e9, "date": date} | numbers for i, date in enumerate(dates)]
    (tmp_path / "runs.json").write_text(json.dumps(rows))
    found = getattr(load_study(tmp_path).runs, column)
    assert found.tolist() == ["20240101", "20240102", "20240102", "0.12345678901", "20240103"]


@pytest.mark.parametrize("names", ["name,", ""])
def test_rows_that_stand_in_two_files_count_once(tmp_path: Path, names: str) -> None:
    header = f"{names}params,tokens,loss,flops\n"
    rows = [(f"r{i}," if names else "") + f"1e9,{1 + i}e9,{3 + i / 10},6e18\n" for i in range(5)]
    study = 'name = "x"\n[[runs]]\nfiles = ["a", "b"]\n'
    # The place in the second file is another than in the first.
    write(tmp_path, study, a=header + "".join(rows[:3]), b=header + "".join([*rows[3:], rows[1], rows[2]]))
    read = load_study(tmp_path)
    assert read.runs.tokens.tolist() == [1e9, 2e9, 3e9, 4e9, 5e9]
    (skipped,) = read.skipped
    places = ("r1", "r2") if names else ("line 4", "line 5")
    assert (skipped.table, skipped.reason, skipped.names) == ("b", "duplicate of a row of an earlier file", places)
    write(tmp_path, study, b=header + "".join(rows[:3]))
    assert len(load_study(tmp_path).runs) == 3


def test_a_file_is_named_once(tmp_path: Path) -> None:
    write(tmp_path, 'name = "x"\n[[runs]]\nfiles = ["a", "a.csv"]\n', a=HEADER + "r,1e9,1e9,3,6e18\n")
    with pytest.raises(InputError, match=r"study\.toml: runs\.files names 'a\.csv' twice; name each file once"):
        load_study(tmp_path)


def test_a_single_file_is_read_by_the_study_file_beside_it(tmp_path: Path) -> None:
    folder = write(tmp_path / "alone", 'name = "one"', runs=HEADER + "a,1e9,1e9,3,6e18\n")
    single = folder / "runs.csv"
    assert load_study(runs=single).definition.name == "one"
    assert load_study(runs=single, study=Definition("two")).definition.name == "two"
    other = write(tmp_path / "other", 'name = "three"')
    assert load_study(other, runs=single).definition.name == "three"
    (folder / "study.toml").unlink()
    with pytest.raises(InputError, match="no row has column 'total_gflops'"):  # as Delphi's runs have
        load_study(runs=single)
