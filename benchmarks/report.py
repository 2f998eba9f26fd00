"""Print saved benchmarks: ``python -m benchmarks.report [SAVED]``, or compare two: ``... report OLD NEW``.

Without a file, the newest one that ``--benchmark-autosave`` kept under ``.benchmarks`` is taken. Nothing here is a pass
or a fail: the exit status is 0 unless a file cannot be read.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from benchmarks.compare import Comparison, compare, drift
from benchmarks.growth import growth_table
from benchmarks.saved import Benchmark, SavedError, Session, load, newest

__all__ = ["comparison", "main", "report"]

Row = Sequence[str]

_RATIOS = (
    "what",
    "baseline",
    "ours",
    "ratio",
    "target",
    "over floor",
    "compile",
    "public call",
    "difference",
    "worse",
    "failed or skipped",
)
_PEERS = ("what", "peer", "ours", "ratio", "peer failed", "peer worse", "by up to", "ours worse", "by up to")
_STUDIES = ("what", "ours", "over floor", "first call", "peak memory", "of it before", "objective", "failed or skipped")
_CHANGES = ("what", "new / old", "noise", "verdict")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.report", description="Saved benchmarks as tables; two of them, compared."
    )
    parser.add_argument("saved", nargs="*", type=Path, help="files of --benchmark-json: one, or an old and a new one")
    paths = parser.parse_args(arguments).saved
    if len(paths) > 2:
        parser.error("at most two files")
    try:
        sessions = [load(path) for path in paths or [newest()]]
    except SavedError as error:
        print(error, file=sys.stderr)
        return 1
    print(comparison(*sessions) if len(sessions) == 2 else report(sessions[0]))
    return 0


def report(session: Session) -> str:
    """Every table that ``session`` has rows for, in Markdown, and what it ran on."""
    kinds = {
        kind: [benchmark for benchmark in session.benchmarks if benchmark.kind == kind]
        for kind in ("command", "kernel", "peer", "study", "growth")
    }
    parts = [
        _table(_RATIOS, map(_ratio_row, kinds["command"] + kinds["kernel"])),
        _table(_PEERS, map(_peer_row, kinds["peer"])),
        _table(_STUDIES, map(_study_row, kinds["study"])),
        growth_table(kinds["growth"]),
        _about(session),
    ]
    return "\n\n".join(part for part in parts if part)


def comparison(old: Session, new: Session) -> str:
    """What changed from ``old`` to ``new``, in Markdown."""
    found = compare(old, new)
    slower = sum(change.verdict == "SLOWER" for change in found.changes)
    parts = [_basis(found, old, new)]
    rows = [
        (change.title, f"{change.factor:.3g}x", f"{change.noise:.3g}x" if change.noise else "", change.verdict)
        for change in found.changes
    ]
    parts.append(_table(_CHANGES, rows))
    parts.append("\n".join(f"Not compared: {title} ({reason})" for title, reason in found.left_out))
    parts.append(f"{slower} of {len(rows)} slower beyond noise.")
    return "\n\n".join(part for part in parts if part)


def _basis(found: Comparison, old: Session, new: Session) -> str:
    if found.in_seconds:
        changed = drift(old.controls + new.controls)
        return f"Same machine and versions: seconds compared. The control varied by {math.exp(changed):.3g}x."
    differences = "; ".join(found.differences)
    return f"Seconds do not compare ({differences}): what is compared is time relative to each session's own baseline."


def _table(columns: Row, rows: Iterable[Row]) -> str:
    lines = [columns, ("---", *["---:"] * (len(columns) - 1)), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) if len(lines) > 2 else ""


def _ratio_row(benchmark: Benchmark) -> Row:
    info = benchmark.info
    aim = f" (aim {info['aim']:g}x)" if info.get("aim") else ""
    return (
        benchmark.title,
        _baseline(benchmark),
        _seconds(benchmark.seconds),
        _times(benchmark.ratio),
        f"{info['target']:g}x{aim}" if info.get("target") else "",
        _over_floor(benchmark),
        _seconds(info.get("compile_seconds")),
        _seconds(info.get("public_seconds")),
        f"{info['difference']:.1g}" if "difference" in info else "",
        f"{info['worse']} of {info['compared']}" if "worse" in info else "",
        str(info["failures"]),
    )


def _peer_row(benchmark: Benchmark) -> Row:
    info = benchmark.info
    return (
        benchmark.title,
        _baseline(benchmark),
        _seconds(benchmark.seconds),
        _times(benchmark.ratio),
        str(info["peer_failures"]),
        f"{info['peer_worse']} of {info['compared']}",
        f"{info['peer_largest_excess']:.1g}",
        f"{info['worse']} of {info['compared']}",
        f"{info['largest_excess']:.1g}",
    )


def _study_row(benchmark: Benchmark) -> Row:
    info = benchmark.info
    return (
        benchmark.title,
        _seconds(benchmark.seconds),
        _over_floor(benchmark),
        _seconds(info["first_call_seconds"]),
        _gigabytes(info["peak_bytes"]),
        _gigabytes(info["peak_bytes_before"]),
        f"{info['objective']:.6g}",
        str(info["failures"]),
    )


def _about(session: Session) -> str:
    words = [f"scale {session.scale}", *(f"{key} {value}" for key, value in session.machine.items())]
    if session.controls:
        words.append(f"control varied by {math.exp(drift(session.controls)):.3g}x")
    if session.rates:
        words.append(
            f"attainable {session.rates['operations'] / 1e9:.0f} GFLOP/s, {session.rates['bytes'] / 1e9:.0f} GB/s"
        )
    return ", ".join(words)


def _baseline(benchmark: Benchmark) -> str:
    share = benchmark.info["baseline_share"]
    return _seconds(benchmark.baseline_seconds) + ("" if share == 1 else f" (from {share:.2g} of it)")


def _over_floor(benchmark: Benchmark) -> str:
    floor = benchmark.info.get("floor_seconds")
    return "" if floor is None else _times(benchmark.seconds / floor)


def _times(value: float | None) -> str:
    return "" if value is None else f"{_digits(value)}x"


def _gigabytes(value: float) -> str:
    return f"{value / 1e9:.2f} GB"


def _seconds(value: float | None) -> str:
    if value is None:
        return ""
    unit, factor = ("s", 1.0) if value >= 1 else ("ms", 1e3) if value >= 1e-3 else ("µs", 1e6)
    return f"{_digits(value * factor)} {unit}"


def _digits(value: float) -> str:
    """Two digits after the point below ten, one below a hundred, else none."""
    return f"{value:.{2 if value < 10 else 1 if value < 100 else 0}f}"


if __name__ == "__main__":
    raise SystemExit(main())
