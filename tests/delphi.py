"""What the shipped Delphi study calls things."""

from __future__ import annotations

from delphi_jax.definition import delphi
from delphi_jax.heuristics import SweepDesign
from delphi_jax.tasks import Task

ADAMH_SUITE, ADAMC_SUITE = (rule.label for rule in delphi().suites)
UNKNOWN_SUITE = delphi().unmatched_suite
LOSS, OPTIMAL_LOSS = delphi().metric.title, delphi().metric.optimum_title
TARGETS = delphi().targets
FIGURE_TITLES = delphi().figure_titles

TASKS: dict[str, Task] = {task.key: task for task in delphi().tasks}
MMLU, HUMANEVAL, GSM8K = TASKS["mmlu"], TASKS["humaneval"], TASKS["gsm8k"]
SWEEP: SweepDesign = delphi().sweep  # type: ignore[assignment]
FEATURES = SWEEP.keys
