"""The state file: what is written comes back, anything else is refused with a reason."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from delphi_jax.checkpoint import check_writable, digest, read_state, write_state
from delphi_jax.status import InputError

SETTINGS = {"seed": 1, "targets": [1e21, 1e22], "version": "0.1.0"}
ARRAYS = {"counts": np.array([3, 2**60]), "lowest": np.array([0.1, -np.inf]), "next": np.int64(7)}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "study.state"
    write_state(path, SETTINGS, ARRAYS)
    return path


def test_what_is_written_comes_back(path: Path) -> None:
    found = read_state(path, dict(reversed(SETTINGS.items())))
    assert set(found) == set(ARRAYS)
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].dtype == array.dtype
    assert [each.name for each in path.parent.iterdir()] == [path.name]


def test_no_file_is_no_state(tmp_path: Path) -> None:
    assert read_state(tmp_path / "new.state", SETTINGS) is None


def test_any_damage_is_seen(path: Path) -> None:
    whole = path.read_bytes()
    for place in range(0, len(whole), 23):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(InputError, match=r"study\.state: (the state is damaged|not a state)"):
            read_state(path, SETTINGS)
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="delete it to start anew"):
        read_state(path, SETTINGS)


def test_someone_elses_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "thesis.tex"
    path.write_text("precious")
    with pytest.raises(InputError, match=r"thesis\.tex: not a state"):
        read_state(path, SETTINGS)


def test_every_other_setting_is_named(path: Path) -> None:
    with pytest.raises(InputError) as refused:
        read_state(path, {"seed": 2, "targets": [1e21, 1e22], "version": "0.2.0", "draws": 5})
    said = str(refused.value)
    assert "made with seed 1, this one has 2" in said
    assert "made with version 0.1.0, this one has 0.2.0" in said
    assert "made with draws None, this one has 5" in said
    assert "targets" not in said


def test_folders_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        read_state(tmp_path / "no" / "state", SETTINGS)
    with pytest.raises(InputError, match="cannot be written"):
        write_state(tmp_path / "no" / "state", SETTINGS, ARRAYS)
    with pytest.raises(InputError, match="cannot be read"):
        read_state(tmp_path, SETTINGS)


def test_a_failed_writing_leaves_the_old_state(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = path.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("delphi_jax.whole.os.replace", full)
    with pytest.raises(InputError, match="No space left"):
        write_state(path, SETTINGS, {"counts": np.zeros(2)})
    assert path.read_bytes() == old
    assert [each.name for each in path.parent.iterdir()] == [path.name]


def test_whether_a_state_can_be_written_is_known_before(path: Path) -> None:
    old = path.read_bytes()
    check_writable(path)
    check_writable(path.with_name("new.state"))
    assert path.read_bytes() == old
    assert [each.name for each in path.parent.iterdir()] == [path.name]
    with pytest.raises(InputError, match=r"new\.state: the state cannot be written: Not a directory"):
        check_writable(path / "new.state")


def test_a_digest_tells_settings_apart_not_their_order() -> None:
    assert digest(SETTINGS) == digest(dict(reversed(SETTINGS.items())))
    assert digest(SETTINGS) != digest({**SETTINGS, "seed": 2})
