"""The same numbers on one device, on eight, on two processes, and after being killed."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import jax
import pytest

from delphi_jax.cli import main
from delphi_jax.devices import _await_answer, from_first_process, join_cluster
from delphi_jax.fit.isoflop import fit_isoflop
from delphi_jax.fit.stream import bootstrap_study
from delphi_jax.io.study import load_study

DATA = Path(__file__).resolve().parents[1] / "data"
SUITE = "Initial Scaling Suite (Cautious AdamC)"
DRAWS = 150_000
"""19 blocks: every one of eight devices has some, and not the same number."""

MANY = 1_200_000
EIGHT = {"XLA_FLAGS": "--xla_force_host_platform_device_count=8"}


def start(*options: str, draws: int = DRAWS, **environment: str) -> subprocess.Popen[str]:
    arguments = ("bootstrap", "--data", str(DATA), "--suite", SUITE, "--draws", str(draws), "--json", "--no-cache")
    return subprocess.Popen(
        [sys.executable, "-m", "delphi_jax", *arguments, "--method", "stream", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    try:
        out, err = process.communicate(timeout=120)
    finally:
        process.kill()
    return process.returncode, out, err


def numbers(process: subprocess.Popen[str]) -> dict[str, Any]:
    code, out, err = finish(process)
    assert code == 0, err
    return json.loads(out)["bootstraps"][SUITE]


def here(draws: int) -> dict[str, Any]:
    """The study in this process, on its devices."""
    compute, loss, _ = fit_isoflop(load_study(DATA, tables={"runs"}).runs).optima(SUITE)
    return bootstrap_study(compute, loss, draws=draws, method="stream", series=SUITE).to_dict()


def test_eight_devices_give_the_numbers_of_one() -> None:
    assert jax.device_count() == 1
    expected = here(DRAWS)
    assert numbers(start(**EIGHT)) == expected
    assert expected["draw_counts"]["fitted"] > 0.99 * DRAWS > expected["at_zero"] > 0


def test_two_processes_give_the_numbers_of_one() -> None:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    cluster = ("--distributed", "--coordinator", address, "--processes", "2", "--process-id")
    first, second = (start(*cluster, process) for process in ("0", "1"))
    assert numbers(first) == here(DRAWS)
    assert finish(second)[:2] == (0, "")


def wait_for(path: Path, process: subprocess.Popen[str], than: float = 0.0) -> None:
    """Until ``path`` was written after ``than``, while ``process`` runs."""
    for _ in range(12_000):
        if path.exists() and path.stat().st_mtime_ns > than:
            return
        assert process.poll() is None, process.communicate()
        time.sleep(0.005)
    pytest.fail(f"{path} was not written")


def test_killed_and_interrupted_a_study_goes_on_with_other_devices(tmp_path: Path) -> None:
    state = tmp_path / "study.state"
    options = ("--state", str(state), "--chunk", "8192")
    killed = start(*options, draws=MANY)
    wait_for(state, killed)
    killed.send_signal(signal.SIGKILL)
    assert finish(killed)[0] == -signal.SIGKILL

    interrupted = start(*options, draws=MANY)
    wait_for(state, interrupted, than=state.stat().st_mtime_ns)
    interrupted.send_signal(signal.SIGINT)
    code, out, err = finish(interrupted)
    assert (code, out) == (130, ""), err
    assert f"of {MANY} draws were made before" in err
    assert f"interrupted; the state is kept in {state}, and the same call goes on" in err

    assert numbers(start(*options, draws=MANY, **EIGHT)) == here(MANY)


def test_a_process_alone_is_the_first() -> None:
    assert from_first_process(2**40) == 2**40


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("localhost:1", 2, None), "all of coordinator"),
        (("localhost", 2, 0), "host:port"),
        ((":1", 2, 0), "host:port"),
        (("localhost:65536", 2, 1), "host:port"),
        (("localhost:1", 2, 2), "from 0 to 1, got 2"),
    ],
)
def test_half_a_cluster_is_refused(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        join_cluster(*arguments)


def test_a_coordinator_that_does_not_answer_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("delphi_jax.devices._PATIENCE", 0.5)
    with socket.socket() as silent:
        # Bound, but not listening.
        silent.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(RuntimeError, match=f"nothing answers at {address} .*: start process 0 first, or check"):
            join_cluster(address, 2, 1)
        monkeypatch.setattr("delphi_jax.devices.use_all_cores", lambda: None)
        cluster = ["--distributed", "--coordinator", address, "--processes", "2", "--process-id", "1"]
        assert main(["bootstrap", "--data", str(DATA), "--no-cache", *cluster]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert f"waiting for 2 processes at {address}\ndelphi-jax: --distributed: nothing answers at {address}" in said.err


def test_a_coordinator_that_comes_later_is_waited_for() -> None:
    with socket.socket() as coordinator:
        coordinator.bind(("127.0.0.1", 0))
        later = threading.Timer(0.5, coordinator.listen)
        later.start()
        _await_answer(*coordinator.getsockname())
        assert later.finished.is_set()
        later.join()


def test_no_cluster_is_said() -> None:
    code, out, err = finish(start("--distributed"))
    assert (code, out) == (1, "")
    assert "no cluster found: start with srun (Slurm) or mpirun (Open MPI), or give" in err
