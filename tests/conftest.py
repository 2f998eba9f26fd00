"""Fixtures shared by the tests: reference outputs and public measurements, where they are at hand."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from threadpoolctl import threadpool_limits

from delphi_jax.fit.study import fit_study
from delphi_jax.io.study import load_study
from delphi_jax.results import StudyFit
from delphi_jax.tables import Study

# What a shell puts into the background ignores interrupts, and so would the commands that tests start there.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

_SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session", autouse=True)
def single_thread() -> Iterator[None]:
    """Of matrices as small as the tests', threads of linear algebra wait for one another most of their time."""
    with threadpool_limits(1, user_api="blas"):
        yield


@pytest.fixture(scope="session")
def golden_dir() -> Path:
    """Reference input, figures and numbers."""
    return _shared("golden", "dev")


@pytest.fixture(scope="session")
def real_dir() -> Path:
    """Public measurements, kept outside the repository."""
    return _shared("real")


@pytest.fixture(scope="session")
def golden_numbers(golden_dir: Path) -> dict[str, Any]:
    """The reference's numbers behind its figures."""
    return json.loads((golden_dir / "numbers.json").read_text())


@pytest.fixture(scope="session")
def golden_study(golden_dir: Path) -> Study:
    return load_study(golden_dir / "data")


@pytest.fixture(scope="session")
def golden_fit(golden_study: Study) -> StudyFit:
    return fit_study(golden_study)


@pytest.fixture(scope="session")
def bundled_fit() -> StudyFit:
    """The fits of the simulated study that the package carries."""
    return fit_study(load_study(Path(__file__).resolve().parents[1] / "data"))


def _shared(*parts: str) -> Path:
    folder = _SHARED.joinpath(*parts)
    if not folder.is_dir():
        pytest.skip(f"{'/'.join(('shared', *parts))} is not beside the repository")
    return folder
