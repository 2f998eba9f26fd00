"""Fresh Python processes, as a user's shell would start them: one BLAS thread, compiled Python files."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

__all__ = ["ROOT", "environment", "run_python"]

ROOT = Path(__file__).resolve().parents[1]


def environment() -> dict[str, str]:
    """This process's, with one BLAS thread and with Python's own cache of compiled files."""
    kept = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    return kept | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}


def run_python(*arguments: str) -> str:
    """The output of one Python process in the project's folder; its errors pass through, and a failure raises."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", *arguments],
        cwd=ROOT,
        env=environment(),
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    return done.stdout
