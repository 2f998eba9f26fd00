"""The downstream tasks of the study: what is measured, its floor and how many problems it has."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["GSM8K", "HUMANEVAL", "MMLU", "TASKS", "Task"]


@dataclass(frozen=True)
class Task:
    """One downstream task. Column names are those of the caches; the soft metric is stored as a loss."""

    key: str
    """Key of the task and stem of its cache files."""
    name: str
    soft_column: str
    soft_sign: int
    """-1 where the cache holds a log-probability (negated on reading), +1 where it holds bits per byte."""
    hard_column: str
    floor: float
    """Hard metric of random guessing."""
    n_problems: int
    default_shot: int
    """Shot count of a task whose cache has no shot column."""


# Problem counts: MMLU test split (Hendrycks et al. 2021), HumanEval (Chen et al. 2021), GSM8K test split
# (Cobbe et al. 2021).
MMLU = Task("mmlu", "MMLU", "choice_logprob", -1, "accuracy", 0.25, 14042, 5)
HUMANEVAL = Task("humaneval", "HumanEval", "macro_bpb", 1, "pass_at_1", 0.0, 164, 10)
GSM8K = Task("gsm8k", "GSM8K", "macro_bpb", 1, "exact_match_flex", 0.0, 1319, 5)

TASKS: dict[str, Task] = {task.key: task for task in (MMLU, HUMANEVAL, GSM8K)}
