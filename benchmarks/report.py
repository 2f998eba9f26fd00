"""Print saved benchmarks as a table of ratios: ``python -m benchmarks.report [saved.json]``.

Without a file, the newest one that ``--benchmark-autosave`` kept under ``.benchmarks`` is taken.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

__all__ = ["table"]

_COLUMNS = (
    "what",
    "baseline",
    "ours",
    "ratio",
    "target",
    "compile",
    "public call",
    "difference",
    "worse",
    "failed or skipped",
)


def main() -> int:
    paths = [Path(path) for path in sys.argv[1:]] or sorted(
        Path(".benchmarks").rglob("*.json"), key=lambda path: path.stat().st_mtime
    )
    if not paths:
        print(
            "no saved benchmarks: run pytest benchmarks --benchmark-json=FILE, then give FILE",
            file=sys.stderr,
        )
        return 1
    saved = json.loads(paths[-1].read_text())
    print(table(saved["benchmarks"]))
    return 0


def table(benchmarks: list[dict[str, Any]]) -> str:
    """A Markdown table of the benchmarks, and what they ran on."""
    lines = [_COLUMNS, ("---", *["---:"] * (len(_COLUMNS) - 1)), *map(_row, benchmarks)]
    machines = {json.dumps(benchmark["extra_info"]["machine"]) for benchmark in benchmarks}
    words = [", ".join(f"{key} {value}" for key, value in json.loads(machine).items()) for machine in machines]
    return "\n".join([*("| " + " | ".join(line) + " |" for line in lines), "", *words])


def _row(benchmark: dict[str, Any]) -> tuple[str, ...]:
    info, ours = benchmark["extra_info"], benchmark["stats"]["median"]
    share = info["baseline_share"]
    scaled = "" if share == 1 else f" (from {share:.2g} of it)"
    return (
        f"{info['name']}: {info['size']}",
        _seconds(info["baseline_seconds"]) + scaled,
        _seconds(ours),
        f"{_digits(info['baseline_seconds'] / ours)}x",
        f"{info['target']:g}x" if info["target"] else "",
        _seconds(info.get("compile_seconds")),
        _seconds(info.get("public_seconds")),
        f"{info['difference']:.1g}",
        f"{info['worse']} of {info['compared']}" if "worse" in info else "",
        str(info["failures"]),
    )


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
