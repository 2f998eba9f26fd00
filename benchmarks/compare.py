"""Two saved sessions compared: a slowdown counts only beyond the noise that the sessions themselves measured.

The statistic is the logarithm of the ratio of median times, new over old. Its noise has two parts, both from the same
sessions: the spread of the rounds, as 1.4826 times the median absolute deviation of their logarithms (Hampel 1974,
JASA 69, 383; 1.4826 makes it the standard deviation of a normal sample), three of the two sessions' spreads combined;
and the drift of the control, a fixed piece of work timed at the start and after every benchmark of both sessions, as
the logarithm of its slowest over its fastest time. The spread is not divided by the root of the number of rounds:
rounds of one process share its luck. To report a change as a ratio of times with its uncertainty follows Kalibera and
Jones (2020, arXiv:2007.10899).
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.saved import Benchmark, Session

__all__ = ["Change", "Comparison", "compare", "drift", "spread"]

_NORMAL = 1.4826
_SPREADS = 3.0
_LEAST_ROUNDS = 5
"""Fewer rounds have no spread to speak of."""


@dataclass(frozen=True)
class Change:
    """How one benchmark changed."""

    title: str
    factor: float
    """New time over old; above 1 is slower. Of times relative to the baseline where the machines differ."""
    noise: float | None
    """Factors below this, or above its inverse, are noise; None where too few rounds were kept to tell."""

    @property
    def verdict(self) -> str:
        if self.noise is None:
            return f"not judged: under {_LEAST_ROUNDS} rounds kept"
        if self.factor > self.noise:
            return "SLOWER"
        return "faster" if self.factor < 1 / self.noise else "within noise"


@dataclass(frozen=True)
class Comparison:
    """Two sessions side by side."""

    in_seconds: bool
    """Whether seconds compare; else only ratios to each session's own baseline do."""
    differences: tuple[str, ...]
    """What differs between the machines and versions."""
    changes: tuple[Change, ...]
    left_out: tuple[tuple[str, str], ...]
    """Title and reason of every benchmark that could not be compared."""


def compare(old: Session, new: Session) -> Comparison:
    """Match benchmarks by name and size, and set each change beside its noise."""
    keys = sorted(old.machine.keys() | new.machine.keys())
    differences = tuple(
        f"{key}: {old.machine.get(key, 'none')} then, {new.machine.get(key, 'none')} now"
        for key in keys
        if old.machine.get(key) != new.machine.get(key)
    )
    in_seconds = not differences
    before, now = ({benchmark.title: benchmark for benchmark in session.benchmarks} for session in (old, new))
    changes, left_out = [], []
    # A control that is slower throughout one of two sessions on one machine is noise too.
    shared = drift(old.controls + new.controls) if in_seconds else drift(old.controls) + drift(new.controls)
    for title in before | now:
        if title not in before or title not in now:
            left_out.append((title, f"only in the {'old' if title in before else 'new'} session"))
        elif not in_seconds and (before[title].ratio is None or now[title].ratio is None):
            left_out.append((title, "no baseline to take a ratio to"))
        else:
            changes.append(_change(before[title], now[title], shared, in_seconds))
    return Comparison(in_seconds, differences, tuple(changes), tuple(left_out))


def _change(old: Benchmark, new: Benchmark, shared: float, in_seconds: bool) -> Change:
    samples = [old.rounds, new.rounds]
    if in_seconds:
        factor = new.seconds / old.seconds
    else:
        factor = old.ratio / new.ratio
        samples += [old.baseline_rounds, new.baseline_rounds]
    if min(map(len, samples)) < _LEAST_ROUNDS:
        return Change(new.title, factor, None)
    return Change(new.title, factor, math.exp(_SPREADS * math.hypot(*map(spread, samples)) + shared))


def spread(rounds: Sequence[float]) -> float:
    """Robust standard deviation of the logarithms of ``rounds``, from their median absolute deviation."""
    logs = [math.log(seconds) for seconds in rounds]
    middle = statistics.median(logs)
    return _NORMAL * statistics.median(abs(value - middle) for value in logs)


def drift(controls: Sequence[float]) -> float:
    """Logarithm of the slowest over the fastest control."""
    return math.log(max(controls) / min(controls)) if controls else 0.0
