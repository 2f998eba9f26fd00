"""Downstream tasks: what is measured of each, from which tables, by which rules it is fitted, and how figures speak."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import Annotated, Literal, get_args

from annotated_types import Ge, Gt, Le, Lt

from delphi_jax.checked import (
    Checked,
    Label,
    Positive,
    Text,
    Unfit,
    Where,
    as_tuples,
    has_suffix,
    stays,
    table_file,
)

__all__ = [
    "BITS_PER_BYTE",
    "LEAST_AMPLITUDE",
    "LOG_PROBABILITY",
    "LOSS",
    "SoftKind",
    "Task",
    "TaskWords",
    "no_evaluations",
    "task_faults",
]

SoftKind = Literal["log-probability", "bits per byte", "loss"]
"""What a soft metric can be."""
LOG_PROBABILITY, BITS_PER_BYTE, LOSS = get_args(SoftKind)

LEAST_AMPLITUDE = 0.05
"""Of a curve whose ceiling is fitted: ceiling - floor."""


@dataclass(frozen=True)
class TaskWords(Checked):
    """How figures speak of a task's two metrics; an empty one is that of the kind, or of the column."""

    soft: str = ""
    """Soft metric on an axis, behind the task's name."""
    soft_subject: str = ""
    """Soft metric at the head of a sentence."""
    soft_hover: str = ""
    hard: str = ""
    """Hard metric on an axis, behind the task's name, and in hover text."""
    hard_short: str = ""
    """Hard metric behind "predicted"."""
    law: str = ""
    """What hovering over the law calls it."""


_WORDS = {
    LOG_PROBABILITY: TaskWords("log-prob", "Log-prob", "log p(correct)"),
    BITS_PER_BYTE: TaskWords("bits/byte", "Bits/byte", "bits/byte"),
    LOSS: TaskWords("loss", "Loss", "loss"),
}
_TICKS = {
    LOG_PROBABILITY: (3.0, 2.0, 1.5, 1.0, 0.7, 0.5, 0.3),
    BITS_PER_BYTE: (0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.75, 1.0, 1.5, 2.0),
    LOSS: (),
}


@dataclass(frozen=True)
class Task(Checked):
    """One downstream task. Column names are those of its tables. Raises :class:`Unfit` where its parts do not agree."""

    key: Label
    """Names the task in results; also its table, unless another is given."""
    name: Label
    """As figures show it."""
    soft: SoftKind
    """A log-probability is negated on reading, so that every soft metric is positive and falls with compute."""
    soft_column: Text
    hard_column: Text
    """Share of problems solved, from 0 to 1."""
    n_problems: Annotated[int, Ge(1), Le(10**9)]
    floor: Annotated[float, Ge(0), Lt(1)] = 0.0
    """Hard metric of random guessing."""
    ceiling: Annotated[float, Gt(0), Le(1)] | None = None
    """Of the hard metric; None to fit it."""
    forecast_budget: Positive = 1e25
    """FLOPs"""

    table: str = ""
    """Of the study's own runs, as a file of the data folder; the key where it is empty."""
    external_table: str = ""
    """Of the external models; that of the own runs with "_external" behind its stem where it is empty."""
    where: Where = field(default_factory=dict)
    """Values of its columns of the rows that are this task's own runs, in a table that holds others too."""
    external_where: Where = field(default_factory=dict)
    """The same of the external table: one table may serve several tasks, and both."""
    budget_column: Text = "budget"
    """FLOPs"""
    shot_column: str = ""
    """Number of in-context examples of every own run; empty where all had :attr:`shots`."""
    shots: Annotated[int, Ge(0), Le(10**6)] = 0
    first_shot: Annotated[int, Ge(0), Le(10**6)] | None = None
    """Shot count of the view that the figure shows first; on one task at most."""
    hard_required: bool = False
    """Whether rows without the hard metric are left out."""
    run_column: Text = "run_name"
    """Run of an evaluation, which names an external model: see :func:`~delphi_jax.model_names.model_name`."""
    display_column: Text = "display_name"
    """Name of an external model as it is."""
    named_by: Literal["run", "display name"] = "display name"
    """Which of both names an external model where it has both."""
    in_house: tuple[Text, ...] = ()
    """Parts of a run's name, in any case, that mark a row of the external table as none."""

    curve_from: Literal["externals", "train and externals"] = "train and externals"
    """Rows of the curve from soft to hard metric, train being the study's own runs below the divide."""
    curve_without_externals: bool = True
    """Whether train rows alone make a curve, where there are no external models."""
    curve_least_points: Annotated[int, Ge(0)] = 4
    """Fewer points with both metrics ask for no curve."""
    asymptote_below: Literal["every row", "curve"] = "every row"
    """Rows whose smallest soft metric bounds the asymptote of the law: every one, or those of the curve."""
    asymptote_default: Positive | None = None
    """As a loss, where no row bounds it: with "curve", where there are no points for one."""

    words: TaskWords = TaskWords()
    soft_ticks: tuple[Positive, ...] = ()
    """Of an axis of the soft metric, as a loss; those of its kind where it is empty."""
    sort_points: bool = True
    """Whether figures list the points by their soft metric, not in the order of the table."""

    def __post_init__(self) -> None:
        filled = {
            "table": self.table or self.key,
            "external_table": self.external_table or _external(self.table or self.key),
            "soft_ticks": self.soft_ticks or _TICKS[self.soft],
            "words": self._filled_words(),
        }
        for name, value in filled.items():
            object.__setattr__(self, name, value)
        for fault in self._faults():
            raise fault

    @property
    def soft_sign(self) -> int:
        """-1 where the tables hold a log-probability, which is negated on reading, else 1."""
        return -1 if self.soft == LOG_PROBABILITY else 1

    def view_name(self, shot: int) -> str:
        """The task at one shot count: "MMLU 5-Shot"."""
        return f"{self.name} {shot}-Shot"

    def _filled_words(self) -> TaskWords:
        default, given = _WORDS[self.soft], self.words
        hard = given.hard or self.hard_column.replace("_", " ")
        return replace(
            given,
            soft=given.soft or default.soft,
            soft_subject=given.soft_subject or default.soft_subject,
            soft_hover=given.soft_hover or default.soft_hover,
            hard=hard,
            hard_short=given.hard_short or hard,
            law=given.law or "law",
        )

    def _faults(self) -> Iterator[Unfit]:
        columns = {
            name: getattr(self, name)
            for name in ("budget_column", "shot_column", "soft_column", "hard_column", "run_column", "display_column")
        }
        for place, (name, column) in enumerate(columns.items()):
            if column and (twin := next((n for n in list(columns)[:place] if columns[n] == column), None)):
                yield Unfit((name,), f"{column!r} is also the {twin}; name two columns")
        for name in ("table", "external_table"):
            if not stays(getattr(self, name)):
                yield Unfit((name,), f"{getattr(self, name)!r} leaves the data folder; give a path within it")
        highest = 1.0 if self.ceiling is None else self.ceiling
        if self.floor >= highest - LEAST_AMPLITUDE:
            limit = f"at least {LEAST_AMPLITUDE:g} below the ceiling, {highest:g}"
            yield Unfit(("floor",), f"{self.floor:g} is too high; it must lie {limit}")
        # One problem's worth below the ceiling, the curve is inverted: that must lie above the floor.
        least = LEAST_AMPLITUDE if self.ceiling is None else self.ceiling - self.floor
        if 1 / self.n_problems >= least:
            said = f"{self.n_problems} are too few; more than {1 / least:g} tell floor from ceiling"
            yield Unfit(("n_problems",), said)
        if self.asymptote_below == "curve" and self.asymptote_default is None:
            yield Unfit(("asymptote_default",), "is missing; without points of the curve, nothing bounds the asymptote")


def _external(table: str) -> str:
    path = PurePosixPath(table)
    return str(path.with_stem(f"{path.stem}_external")) if has_suffix(table) else f"{table}_external"


def task_faults(tasks: Sequence[Task], taken: Sequence[str] = ()) -> Iterator[Unfit]:
    """What contradicts each other among the tasks of one study, whose other tables are ``taken``.

    Paths start at its "tasks".
    """
    for attribute, said in (("key", "the key"), ("name", "the name")):
        values = [getattr(task, attribute) for task in tasks]
        for i, value in enumerate(values):
            if value in values[:i]:
                yield Unfit(("tasks", i, attribute), f"{value!r} is also {said} of another task; call them apart")
    tables: list[tuple[str, Where]] = [(table, {}) for table in taken]
    for i, task in enumerate(tasks):
        for name, where in (("table", task.where), ("external_table", task.external_where)):
            table = getattr(task, name)
            if any(table == other and not _apart(where, sorting) for other, sorting in tables):
                said = f"{table!r} is another table of the study too; give every task its own"
                rows = "where" if name == "table" else "external_where"
                yield Unfit(("tasks", i, name), f"{said}, or say with {rows} which of its rows are whose")
            tables.append((table, where))
    first = [i for i, task in enumerate(tasks) if task.first_shot is not None]
    for i in first[1:]:
        yield Unfit(("tasks", i, "first_shot"), f"{tasks[first[0]].name} is shown first already; say it of one task")


def _apart(one: Where, other: Where) -> bool:
    """Whether a column tells the rows of both: no row has both values."""
    ours, theirs = as_tuples(one), as_tuples(other)
    return any(_words(ours[column]).isdisjoint(_words(theirs[column])) for column in ours.keys() & theirs.keys())


def _words(values: Sequence[object]) -> set[str]:
    return {str(value).strip().lower() for value in values}


def no_evaluations(tasks: Sequence[Task]) -> str:
    """Why there is no downstream forecast, and what to do."""
    if not tasks:
        return "no downstream evaluations: the study names no task; add [[tasks]] to its study file"
    tables = list(dict.fromkeys(table_file(task.table) for task in tasks))
    listed = " or ".join(part for part in (", ".join(tables[:-1]), tables[-1]) if part)
    return f"no downstream evaluations: put {listed} into the data folder"
