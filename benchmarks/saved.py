"""Saved sessions of the benchmarks: pytest-benchmark's JSON, read and checked."""

from __future__ import annotations

import json
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["Benchmark", "SavedError", "Session", "load", "newest"]

_AUTOSAVED = Path(".benchmarks")


class SavedError(Exception):
    """A saved file that cannot be read: which, why, and what to do."""


@dataclass(frozen=True)
class Benchmark:
    """One benchmark of a session."""

    name: str
    size: str
    kind: str
    """One of kernel, command, peer, growth and study."""
    rounds: tuple[float, ...]
    """Seconds of each round; empty where the file was saved without them."""
    seconds: float
    """Their median."""
    info: dict[str, Any]
    """What the benchmark noted beside the time."""

    @property
    def title(self) -> str:
        return f"{self.name}: {self.size}"

    @property
    def baseline_rounds(self) -> tuple[float, ...]:
        """Seconds of the baseline for the same work, or of the peer; empty where there is none."""
        return tuple(self.info.get("baseline_rounds", ()))

    @property
    def baseline_seconds(self) -> float | None:
        return self.info.get("baseline_seconds")

    @property
    def ratio(self) -> float | None:
        """The baseline's time over ours."""
        return None if self.baseline_seconds is None else self.baseline_seconds / self.seconds


@dataclass(frozen=True)
class Session:
    """All benchmarks of one run of pytest."""

    path: Path
    scale: str
    machine: dict[str, Any]
    controls: tuple[float, ...]
    """Seconds of the control: at the start, and after every benchmark."""
    rates: dict[str, float] | None
    benchmarks: tuple[Benchmark, ...]


def newest() -> Path:
    """The newest file of ``--benchmark-autosave``."""
    paths = sorted(_AUTOSAVED.rglob("*.json"), key=lambda path: path.stat().st_mtime)
    if not paths:
        raise SavedError("no saved benchmarks: run pytest benchmarks --benchmark-json=FILE, then give FILE")
    return paths[-1]


def load(path: Path) -> Session:
    """Read a saved session. Raises :class:`SavedError` where the file is not one."""
    try:
        saved = json.loads(path.read_text())
    except OSError as error:
        raise SavedError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise SavedError(f"{path} is not JSON ({error}): run pytest benchmarks --benchmark-json=FILE again") from error
    try:
        session = saved["session"]
        return Session(
            path,
            session["scale"],
            session["machine"],
            tuple(map(float, session["controls"])),
            session["rates"],
            tuple(_benchmark(benchmark) for benchmark in saved["benchmarks"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        missing = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise SavedError(
            f"{path} was not saved by these benchmarks ({missing}): run pytest benchmarks --benchmark-json=FILE"
        ) from error


def _benchmark(saved: dict[str, Any]) -> Benchmark:
    info = saved["extra_info"]
    # A study runs in a process of its own, whose inner rounds count: the process also starts JAX.
    rounds = tuple(map(float, info.get("rounds", saved["stats"].get("data", ()))))
    seconds = statistics.median(rounds) if rounds else float(saved["stats"]["median"])
    return Benchmark(info["name"], info["size"], info["kind"], rounds, seconds, info)
