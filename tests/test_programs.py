"""Kept programs: the same numbers, from memory, disk or afresh; anything unusable is compiled anew."""

from __future__ import annotations

import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import numpy as np
import pytest

from delphi_jax import programs
from delphi_jax.definition import delphi
from delphi_jax.draw import parts_for
from delphi_jax.fit.law import fit_law
from delphi_jax.fit.study import fit_study
from delphi_jax.io import load_study
from delphi_jax.kernels.power_law import fit_free_laws
from delphi_jax.kernels.precision import run_kernels_with
from delphi_jax.results import LawFit
from tests.delphi import FIGURE_TITLES

ROOT = Path(__file__).resolve().parents[1]

COMPUTE = np.array([3e18, 1e19, 3e19, 1e20, 3e20])
LOSS = 1.3 + 90.0 * COMPUTE**-0.085 * np.array([1.0, 1.0002, 0.9999, 1.0001, 1.0])


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    enabled = jax.config.jax_enable_compilation_cache
    yield tmp_path / "cache"
    run_kernels_with(None)
    jax.config.update("jax_enable_compilation_cache", enabled)


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the kernels that were compiled, in order."""
    names: list[str] = []
    compile_one = programs._compile

    def spy(name: str, *rest: object) -> object:
        names.append(name)
        return compile_one(name, *rest)

    monkeypatch.setattr(programs, "_compile", spy)
    return names


def numbers(law: LawFit) -> tuple[float, ...]:
    return law.L_inf, law.A, law.alpha, law.score


_IN_A_PROCESS_OF_ITS_OWN = """
import sys
from pathlib import Path

import numpy as np

from delphi_jax import programs
from delphi_jax.fit.law import fit_law
from tests.test_programs import COMPUTE, LOSS, numbers

compiled, compile_one = [], programs._compile
programs._compile = lambda name, *rest: compiled.append(name) or compile_one(name, *rest)
plain = fit_law(COMPUTE, LOSS)
programs.keep_programs(Path(sys.argv[1]))
kept, again = fit_law(COMPUTE, LOSS), fit_law(COMPUTE, LOSS)
programs.keep_programs(Path(sys.argv[1]))
loaded = fit_law(COMPUTE, LOSS)
assert compiled == ["fit_free_laws"], compiled
assert numbers(kept) == numbers(again) == numbers(loaded)
np.testing.assert_allclose(numbers(kept), numbers(plain), rtol=1e-12)
assert kept.grid_index == plain.grid_index
"""


def test_numbers_are_those_of_a_plain_call(folder: Path) -> None:
    """In a process of its own, as a command has one: among many other programs one may not load."""
    root = Path(__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", _IN_A_PROCESS_OF_ITS_OWN, str(folder)],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_the_folder_is_its_owners_alone(folder: Path) -> None:
    programs.keep_programs(folder)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


@pytest.mark.parametrize("damage", [b"", b"not a program", None])
def test_a_damaged_program_is_compiled_anew(folder: Path, compiled: list[str], damage: bytes | None) -> None:
    programs.keep_programs(folder)
    sound = numbers(fit_law(COMPUTE, LOSS))
    (path,) = folder.glob("*.program")
    path.write_bytes(path.read_bytes()[:1000] if damage is None else damage)
    programs.keep_programs(folder)
    assert numbers(fit_law(COMPUTE, LOSS)) == sound
    assert len(compiled) == 2
    programs.keep_programs(folder)
    assert numbers(fit_law(COMPUTE, LOSS)) == sound
    assert len(compiled) == 2


def test_a_program_of_another_world_is_not_used(
    folder: Path, compiled: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    programs.keep_programs(folder)
    fit_law(COMPUTE, LOSS)
    monkeypatch.setattr(programs, "_processor", lambda: "another processor")
    programs.keep_programs(folder)
    fit_law(COMPUTE, LOSS)
    assert compiled == ["fit_free_laws"] * 2
    assert len(list(folder.glob("*.program"))) == 2


def test_another_shape_is_another_program(folder: Path, compiled: list[str]) -> None:
    programs.keep_programs(folder)
    fit_law(COMPUTE, LOSS, n_grid=50)
    fit_law(COMPUTE, LOSS, n_grid=60)
    assert compiled == ["fit_free_laws"] * 2


def test_a_program_that_loads_but_does_not_run_is_compiled_anew(
    folder: Path, compiled: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    programs.keep_programs(folder)
    sound = numbers(fit_law(COMPUTE, LOSS))

    def broken(*_: object) -> object:
        def run(*_: object, **__: object) -> None:
            raise jax.errors.JaxRuntimeError("NOT_FOUND: function not found")

        return run

    monkeypatch.setattr(programs.serialize_executable, "deserialize_and_load", broken)
    programs.keep_programs(folder)
    assert numbers(fit_law(COMPUTE, LOSS)) == sound
    assert compiled == ["fit_free_laws"] * 2


def test_a_prepared_program_is_ready_and_made_once(folder: Path, compiled: list[str]) -> None:
    log_compute, mask = np.log(COMPUTE)[None], np.ones((1, 5), dtype=bool)
    grid = np.linspace(0, 1.2, 50)[None]
    fit_free_laws.prepare(log_compute, LOSS[None], mask, grid)
    assert compiled == []
    plain = fit_free_laws(log_compute, LOSS[None], mask, grid)
    programs.keep_programs(folder)
    with ThreadPoolExecutor() as pool:
        for _ in range(4):
            pool.submit(fit_free_laws.prepare, log_compute, LOSS[None], mask, np.empty_like(grid))
        calls = [pool.submit(fit_free_laws, log_compute, LOSS[None], mask, grid) for _ in range(4)]
    assert compiled == ["fit_free_laws"]
    programs.keep_programs(folder)
    fit_free_laws.prepare(log_compute, LOSS[None], mask, grid)
    loaded = fit_free_laws(log_compute, LOSS[None], mask, grid)
    assert compiled == ["fit_free_laws"]
    for laws in (loaded, *(call.result() for call in calls)):
        np.testing.assert_allclose(laws.alpha, plain.alpha, rtol=1e-12)


def test_what_was_prepared_but_does_not_run_is_compiled_anew(
    folder: Path, compiled: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    programs.keep_programs(folder)
    arguments = np.log(COMPUTE)[None], LOSS[None], np.ones((1, 5), dtype=bool), np.linspace(0, 1.2, 50)[None]
    sound = fit_free_laws(*arguments)

    def broken(*_: object, **__: object) -> None:
        raise jax.errors.JaxRuntimeError("NOT_FOUND: function not found")

    monkeypatch.setattr(programs, "_unpack", lambda _: broken)
    programs.keep_programs(folder)
    fit_free_laws.prepare(*arguments)
    np.testing.assert_array_equal(fit_free_laws(*arguments).alpha, sound.alpha)
    assert compiled == ["fit_free_laws"] * 2


def test_a_kernel_within_a_program_is_not_kept_apart(folder: Path, compiled: list[str]) -> None:
    arguments = np.log(COMPUTE)[None], LOSS[None], np.ones((1, 5), dtype=bool), np.linspace(0, 1.2, 50)[None]
    plain = fit_free_laws(*arguments)
    programs.keep_programs(folder)
    with jax.enable_x64(True):
        np.testing.assert_allclose(jax.jit(fit_free_laws)(*arguments).alpha, plain.alpha, rtol=1e-12)
    assert compiled == []


def test_who_gives_up_waiting_lets_the_others_pass() -> None:
    turns, held, done = programs._Turns(), threading.Event(), threading.Event()

    def hold() -> None:
        with turns.turn("another"):
            held.set()
            done.wait(30)

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with ThreadPoolExecutor() as pool:
        holder = pool.submit(hold)
        assert held.wait(30)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(turns._changed, "wait_for", interrupted)
            with pytest.raises(KeyboardInterrupt), turns.turn("fit_processes"):
                pass
        done.set()
        holder.result(30)
        order: list[str] = []
        for name in ("another", "fit_processes"):
            with turns.turn(name):
                order.append(name)
    assert order == ["another", "fit_processes"]


def test_the_longest_come_first() -> None:
    turns, order = programs._Turns(), []
    held, waiting = threading.Event(), ("another", "fit_richards", "fit_processes")

    def hold() -> None:
        with turns.turn("first"):
            held.set()
            while len(turns._waiting) < len(waiting):
                held.wait(0.01)

    def take(name: str) -> None:
        with turns.turn(name):
            order.append(name)

    with ThreadPoolExecutor() as pool:
        pool.submit(hold)
        assert held.wait(30)
        list(pool.map(take, waiting))
    assert order == ["fit_processes", "fit_richards", "another"]


def test_every_program_made_ahead_is_one_that_a_fit_runs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepared, called = set(), set()

    class Notes(programs._Programs):
        def _place(self, name: str, args: object, kwargs: object) -> object:
            place = super()._place(name, args, kwargs)
            noted = called if sys._getframe(1).f_code.co_name == "__call__" else prepared
            noted.add(place[1].name.split("-")[0] + str(jax.tree.map(np.shape, args)))
            return place

    monkeypatch.setattr(programs, "_Programs", Notes)
    programs.keep_programs(folder)
    fit_study(load_study(ROOT / "data"), parts_for(FIGURE_TITLES, delphi()))
    assert {name.partition("(")[0] for name in prepared} == {
        "averaged_process",
        "bootstrap_laws",
        "fit_free_laws",
        "fit_pinned_laws",
        "summed_covariance",
    }
    assert prepared <= called


def test_an_option_that_xla_does_not_know_is_left_out(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs, "_UNOPTIMISED", programs._UNOPTIMISED | {"xla_cpu_no_such_option": True})
    plain = fit_law(COMPUTE, LOSS)
    programs.keep_programs(folder)
    np.testing.assert_allclose(numbers(fit_law(COMPUTE, LOSS)), numbers(plain), rtol=1e-12)
