"""Studies at the large scale, each in a fresh process, with the memory that it took. Nothing is asserted of times."""

from __future__ import annotations

import json
from typing import Any

import pytest

from benchmarks.processes import run_python
from benchmarks.studies import STUDIES

pytestmark = pytest.mark.large


@pytest.mark.parametrize("name", STUDIES)
def test_study(benchmark: Any, name: str) -> None:
    done = benchmark.pedantic(lambda: run_python("-m", "benchmarks.studies", name), rounds=1)
    benchmark.extra_info.update(kind="study", **json.loads(done))
