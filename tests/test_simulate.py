"""The simulated study: reproducible, complete, said to be simulated, and of use to every fit."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import curve_fit

from delphi_jax.io import load_study
from delphi_jax.simulate import simulate_study, write_study
from delphi_jax.status import InputError
from delphi_jax.tables import Study, fit_runs
from tests.delphi import TASKS

DATA = Path(__file__).resolve().parents[1] / "data"
ADAMH, ADAMC = "Delphi Scaling Suite (AdamH)", "Initial Scaling Suite (Cautious AdamC)"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("simulated") / "data"
    write_study(out, 0)
    return out


@pytest.fixture(scope="module")
def study(folder: Path) -> Study:
    return load_study(folder)


def test_same_bytes_as_the_bundled_study(folder: Path) -> None:
    names = sorted(path.name for path in folder.iterdir())
    assert names == sorted(path.name for path in DATA.iterdir())
    for name in names:
        assert (folder / name).read_bytes() == (DATA / name).read_bytes(), name


def test_provenance_vouches_for_every_file() -> None:
    provenance = json.loads((DATA / "provenance.json").read_text())
    assert provenance["simulated"] is True
    assert provenance["seed"] == 0
    assert set(provenance["sha256"]) == {path.name for path in DATA.iterdir()} - {"provenance.json"}
    for name, digest in provenance["sha256"].items():
        assert hashlib.sha256((DATA / name).read_bytes()).hexdigest() == digest
    for table, count in provenance["rows"].items():
        assert len(json.loads((DATA / f"{table}.json").read_text())) == count
    assert "simulated" in (DATA / "README.md").read_text().splitlines()[0].lower()
    assert "measured" in provenance["what"]


def test_values_have_few_digits_and_lines_are_rows() -> None:
    total = 0
    for path in DATA.glob("*.json"):
        total += path.stat().st_size
        if path.name == "provenance.json":
            continue
        rows = json.loads(path.read_text())
        assert len(path.read_text().splitlines()) == len(rows) + 2
        for row in rows:
            for value in row.values():
                if isinstance(value, float):
                    assert value == float(f"{value:.8e}")
    assert total < 1_000_000


def test_seeds_differ() -> None:
    zero, one = simulate_study(0), simulate_study(1)
    assert zero == simulate_study(0)
    assert all(zero[table] != one[table] for table in zero)


def test_no_measured_number_is_in_it(golden_dir: Path) -> None:
    for table, rows in simulate_study(0).items():
        golden = json.loads((golden_dir / "data" / f"{table}.json").read_text())
        measured = {row[column] for row in golden for column in row if "loss" in column or "bpb" in column}
        ours = {row[column] for row in rows for column in row if "loss" in column or "bpb" in column}
        assert not (measured & ours) - {None}, table


def test_runs_have_the_shape_of_a_study(study: Study) -> None:
    assert not study.missing
    runs, left_out = fit_runs(study.runs)
    assert left_out is not None
    assert left_out.count == 1
    for suite in (ADAMH, ADAMC):
        of = runs.suite == suite
        budgets = np.unique(runs.bucket[of])
        np.testing.assert_allclose(budgets, [3e18, 9e18, 2e19, 3e19, 9e19, 2e20, 3e20])
        for budget in budgets:
            rows = of & (runs.bucket == budget)
            x = np.log10(runs.tokens[rows])
            a, b, _ = np.polyfit(x, runs.loss[rows], 2)
            assert rows.sum() >= 5
            assert a > 0
            assert x.min() < -b / (2 * a) < x.max()
    off_grid = [part for part in study.skipped if "IsoFLOP runs of the Delphi" in part.reason]
    assert off_grid[0].count == 3
    held_out = study.runs.where(study.runs.held_out)
    seeds = held_out.seed[(held_out.suite == ADAMH) & (held_out.bucket == 1e21)]
    assert sorted(seeds) == ["1337", "42", "default"]
    diverged = held_out.where(~held_out.finished)
    assert list(diverged.suite) == [ADAMC]
    assert round(np.log10(diverged.compute[0])) == 23


def test_sweep_has_one_empty_cell(study: Study) -> None:
    sweep = study.sweep
    assert sweep is not None
    cells = list(zip(sweep.batch_size.tolist(), sweep.hidden_dim.tolist(), sweep.horizon, strict=True))
    counts = {cell: cells.count(cell) for cell in set(cells)}
    assert len(counts) == 23
    assert (16, 256, "5B") not in counts
    assert min(counts.values()) >= 33
    assert sum(part.count for part in study.skipped if part.table == "hparam_sweep") > 20


def test_one_asymptote_is_inverted_and_one_clamped(study: Study) -> None:
    sources = {}
    for key, task in TASKS.items():
        external, own = study.externals[key], study.evals[key]
        if key == "mmlu":
            x, y = -external.soft, external.hard
            smallest = min(own.soft.min(), external.soft.min())
        else:
            train = (own.budget < 5e20) & np.isfinite(own.hard)
            x = -np.concatenate([own.soft[train], external.soft])
            y = np.concatenate([own.hard[train], external.hard])
            smallest = -x.max()

        def curve(x: np.ndarray, k: float, x0: float, v: float, top: float, f: float = task.floor) -> np.ndarray:
            return f + (top - f) / (1 + np.exp(-k * (x - x0))) ** v

        bounds = ([0.1, x.min() - 2, 0.1, task.floor + 0.05], [50, x.max() + 2, 20, 1])
        (k, x0, v, top), _ = curve_fit(curve, x, y, p0=[5, np.median(x), 1, 0.95], bounds=bounds, max_nfev=100_000)
        share = (top - 1 / task.n_problems - task.floor) / (top - task.floor)
        saturation = np.log(share ** (-1 / v) - 1) / k - x0
        sources[key] = "inverted" if 0 < saturation < smallest else "clamped"
    assert sources["mmlu"] == "inverted"
    assert sources["gsm8k"] == "clamped"


def test_an_unchanged_study_is_replaced_and_nothing_else(tmp_path: Path) -> None:
    out = tmp_path / "data"
    written = write_study(out, 1)
    assert all(path.is_file() for path in written)
    write_study(out, 2)
    assert json.loads((out / "provenance.json").read_text())["seed"] == 2
    (out / "runs.json").write_text("[]")
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    with pytest.raises(InputError, match="data"):
        write_study(out, 3)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


@pytest.mark.parametrize("content", ["note.txt", "provenance.json", "runs.json"])
def test_a_folder_of_others_is_left_alone(tmp_path: Path, content: str) -> None:
    (tmp_path / content).write_text("{}")
    with pytest.raises(InputError, match="simulated"):
        write_study(tmp_path, 0)
    assert [path.name for path in tmp_path.iterdir()] == [content]


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="file"):
        write_study(tmp_path / "file" / "data", 0)


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    out = tmp_path / "new" / "data"
    out.mkdir(parents=True)
    assert len(write_study(out)) == 10


def test_a_failed_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Path, content: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(InputError, match="No space left"):
        write_study(tmp_path / "data")
    assert list(tmp_path.iterdir()) == []


def test_a_failed_swap_puts_the_old_study_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "data"
    write_study(out, 1)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    rename = Path.rename

    def refuse_the_new(self: Path, target: Path) -> Path:
        if self.name.endswith(".partial"):
            raise OSError(13, "Permission denied")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", refuse_the_new)
    with pytest.raises(InputError, match="Permission denied"):
        write_study(out, 2)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["data"]
