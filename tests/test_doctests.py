"""Every public function, and every class that a reader constructs, has an example that runs."""

from __future__ import annotations

import doctest
import inspect
from pathlib import Path

import pytest

import delphi_jax

ROOT = Path(__file__).resolve().parents[1]
CONSTRUCTED = {
    "ColumnMap",
    "Definition",
    "Objective",
    "PinnedAsymptote",
    "RichardsProblem",
    "Status",
    "StudyBatch",
    "SurfaceObjective",
    "Theme",
}
"""Public classes that a reader constructs or looks up; the others are results."""
OF_A_SERVER = {"check_hf", "check_wandb", "fetch_hf", "fetch_wandb"}
"""What asks a server, and is tested against one of its own elsewhere."""
FLAGS = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS


def with_example() -> dict[str, object]:
    """The public objects that must have an example."""
    public = {name: getattr(delphi_jax, name) for name in delphi_jax.__all__ if name not in OF_A_SERVER}
    return {
        name: each
        for name, each in public.items()
        if callable(each) and (not inspect.isclass(each) or name in CONSTRUCTED)
    }


@pytest.mark.parametrize("name", sorted(with_example()))
def test_the_example_runs(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    example = doctest.DocTestParser().get_doctest(inspect.getdoc(with_example()[name]), {}, name, None, 0)
    assert example.examples, f"{name} has no example in its docstring"
    assert any(each.want for each in example.examples), f"the example of {name} shows nothing"
    said: list[str] = []
    doctest.DocTestRunner(optionflags=FLAGS).run(example, out=said.append)
    assert not said, "".join(said)


def test_the_exceptions_are_public() -> None:
    assert set(delphi_jax.__all__) >= CONSTRUCTED | OF_A_SERVER
