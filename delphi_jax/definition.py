"""What a study is: its tables and their columns, suites, held-out runs, budgets, metric, targets, tasks and sweep.

A study file (TOML) holds these classes field by field, or extends a shipped one: see :mod:`~delphi_jax.io.definition`;
:func:`~delphi_jax.io.definition.read_definition` reads one.
"""

from __future__ import annotations

import functools
import itertools
import math
import re
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le, Len, Lt

from delphi_jax.checked import Checked, Positive, Text, Unfit, Value, Where, stays
from delphi_jax.heuristics import SweepDesign
from delphi_jax.labels import (
    ANSWER_TITLES,
    ANSWER_TITLES_ALONE,
    FIGURE_TITLES,
    LADDER_TITLE,
    LADDER_TITLE_ALONE,
    MOBILE_FIGURES,
    budget_name,
)
from delphi_jax.tasks import Task, task_faults
from delphi_jax.text import shown

__all__ = [
    "RUN_COLUMNS",
    "Budgets",
    "Definition",
    "HeldOutRule",
    "Metric",
    "Overtraining",
    "RunSource",
    "SeedRule",
    "SuiteRule",
    "delphi",
    "figure_title",
    "slug",
]

RUN_COLUMNS = ("name", "params", "tokens", "loss", "flops", "budget", "state", "suite", "held_out", "seed")
"""Our names of the columns of a table of runs."""
_TITLED = tuple(FIGURE_TITLES)


@dataclass(frozen=True)
class Metric(Checked):
    """The loss that is fitted."""

    name: Text = "loss"
    """Tag that a pinned asymptote must bear, and the words of an axis."""
    unit: Text = "nats per token"
    axis: str = ""
    """Title of a loss axis; the name where it is empty."""
    optimum_axis: str = ""
    """Title of an axis of losses at optima; "<axis> at IsoFLOP optimum" where it is empty."""

    @property
    def title(self) -> str:
        """Of a loss axis."""
        return self.axis or self.name

    @property
    def optimum_title(self) -> str:
        """Of an axis of losses at optima."""
        return self.optimum_axis or f"{self.title} at IsoFLOP optimum"


@dataclass(frozen=True)
class RunSource(Checked):
    """Tables of training runs that share a layout."""

    files: Annotated[tuple[Text, ...], Len(1)] = ("runs",)
    """Relative to the data folder; without a suffix, the one of .json, .csv and .parquet that is there."""
    columns: Mapping[Literal[RUN_COLUMNS], Text] = field(default_factory=dict)
    """Their name of each of our columns (:data:`RUN_COLUMNS`). "params", "tokens", "loss", "flops" go by our name
    where they are not mapped, and "name" and "state" where the table has them; the others are read where mapped. The
    budget column also stands for FLOPs that are not mapped."""
    flops_unit: Positive = 1.0
    """FLOPs in one unit of the FLOPs and budget columns: 1e9 where they hold GFLOPs."""
    derive: Literal["", "flops", "tokens"] = ""
    """The column that the tables lack, from C = 6*N*D."""
    suite: str = ""
    """Label of the suite of every run in these files."""
    where: Where = field(default_factory=dict)
    """Values of their columns, one or several, of the rows that count; other rows are left out."""


@dataclass(frozen=True)
class SuiteRule(Checked):
    """One suite: the runs of one recipe."""

    label: Text
    match: tuple[Text, ...] = ()
    """Parts of a run's name, in any case: the first suite with one that occurs takes the run."""
    values: tuple[Text, ...] = ()
    """Values of the suite column, beside the label itself."""
    color: str = ""
    """As "#rrggbb"; that of the theme's cycle where it is empty."""
    ladder: Annotated[str, Len(0, 80)] = ""
    """Name of its ladder figure; "ladder-<slug of the label>" where it is empty."""
    ladder_title: str = ""
    """Of its ladder figure, before the colon; the label where it is empty."""
    grid_of: str = ""
    """Label of a suite: IsoFLOP runs whose (params, budget) it did not measure are left out."""


@dataclass(frozen=True)
class HeldOutRule(Checked):
    """Which runs are held out: those that a part of the name, the held_out column or the budget says."""

    match: tuple[Text, ...] = ()
    """Parts of a run's name, in any case."""
    values: Annotated[tuple[Value, ...], Len(1)] = (True,)
    """Values of the held_out column of a held-out run."""
    above: Positive | None = None
    """FLOPs: budgets above this one are held out."""
    divide: Positive | None = None
    """FLOPs: where figures draw the line between fit and held-out runs; None: between the largest IsoFLOP budget and
    the next held-out one, if there is one."""
    nominal: Literal["digits", "power of ten"] = "digits"
    """A held-out run's nominal budget: rounded as :attr:`Budgets.digits`, or the nearest power of ten by logarithm."""


@dataclass(frozen=True)
class SeedRule(Checked):
    """A run's seed: the digits in its name between ``prefix`` and ``suffix``; "default" where there are none."""

    prefix: Text = "seed"
    suffix: str = ""

    def __post_init__(self) -> None:
        if self.prefix[-1].isdigit():
            raise Unfit(
                ("prefix",), f"{self.prefix!r} ends with a digit: which are the seed's? Leave digits to the seed"
            )


@dataclass(frozen=True)
class Budgets(Checked):
    """How the compute of IsoFLOP runs becomes a budget."""

    digits: Annotated[int, Ge(1), Le(15)] = 2
    """Significant digits to which compute is rounded."""
    values: tuple[Positive, ...] = ()
    """FLOPs: instead, the nearest of these (by ratio), if it is within the tolerance; other runs are left out."""
    tolerance: Annotated[float, Gt(0), Lt(1)] = 0.1
    """Relative."""


@dataclass(frozen=True)
class Overtraining(Checked):
    """The overtraining forecast."""

    forecast_budget: Positive | None = None
    """FLOPs; None: the largest target."""
    scales: Annotated[tuple[Positive, ...], Len(1, 100)] = (0.2, 1 / 3, 0.5, 2 / 3, 2.0, 3.0, 4.0, 5.0, 10.0)
    """T/T*"""


@dataclass(frozen=True)
class Definition(Checked):
    """One study. Raises :class:`Unfit`, a ValueError, where its parts contradict each other.

    Examples:

    >>> import delphi_jax as dj
    >>> pilot = dj.Definition("pilot", targets=(1e22, 1e23))
    >>> pilot.largest_target, pilot.metric.unit
    (1e+23, 'nats per token')
    """

    name: Text
    metric: Metric = Metric()
    runs: Annotated[tuple[RunSource, ...], Len(1)] = (RunSource(),)
    suites: tuple[SuiteRule, ...] = ()
    """In the order in which they are matched."""
    unmatched_suite: str = "Unknown"
    """Label of the runs that no suite takes; "" leaves them out."""
    held_out: HeldOutRule = HeldOutRule()
    seeds: SeedRule = SeedRule()
    budgets: Budgets = Budgets()
    focus: str = ""
    """Label of the suite of figures that show one; the first suite where it is empty."""
    targets: Annotated[tuple[Positive, ...], Len(0, 100)] = ()
    """FLOPs of the forecasts; where empty, the first three powers of ten beyond the IsoFLOP budgets."""
    overtraining: Overtraining = Overtraining()
    run_names: Mapping[str, Text] = field(default_factory=dict)
    """What the compute-optimal run at a fitted budget ("3e18", FLOPs) is called."""
    titles: Mapping[Literal[_TITLED], Text] = field(default_factory=dict)
    """Of figures by name, instead of those that say only what is shown: what this study concludes from them."""
    theme: str | Mapping[str, Any] = ""
    """Name or table of a theme; "" is the default one."""
    tasks: tuple[Task, ...] = ()
    sweep: SweepDesign | None = None
    source: str = ""
    """The file it was read from."""

    def __post_init__(self) -> None:
        for fault in _contradictions(self):
            raise fault

    @property
    def focus_label(self) -> str:
        """Label of the suite of figures that show one; "" where no suite is declared."""
        return self.focus or (self.suites[0].label if self.suites else "")

    @property
    def largest_target(self) -> float:
        """FLOPs: where forecasts end. Raises ValueError for a study that leaves its targets to tables not yet read."""
        if not self.targets:
            raise ValueError(f"the study {self.name!r} has no targets: give some, or load it with its tables")
        return max(self.targets)

    @property
    def overtraining_budget(self) -> float:
        """FLOPs of the overtraining forecast."""
        return self.overtraining.forecast_budget or self.largest_target

    @property
    def divide(self) -> float | None:
        """FLOPs between fitted and held-out budgets; None where nothing is held out."""
        return self.held_out.divide

    @property
    def reads_names(self) -> bool:
        """Whether the names of runs say something: their suite, or that they are held out."""
        return bool(self.held_out.match or any(rule.match for rule in self.suites))

    @functools.cached_property
    def ladders(self) -> Mapping[str, SuiteRule]:
        """The suites by the names of their ladder figures."""
        named = {rule.ladder: rule for rule in self.suites if rule.ladder}
        for rule in self.suites or (SuiteRule(self.name),):
            if not rule.ladder:
                stem = f"ladder-{slug(rule.label)}"
                name = next(
                    each for n in itertools.count(1) if (each := stem if n == 1 else f"{stem}-{n}") not in named
                )
                named[name] = rule
        return {name: rule for rule in self.suites or named.values() for name in named if named[name] is rule}

    @functools.cached_property
    def figure_titles(self) -> Mapping[str, str]:
        """What each figure of the study shows or argues, by name, as a reader meets them; mobile ones last."""
        absent = {name for name, part in (("mmlu-emergence", self.tasks), ("hparam-scaling", self.sweep)) if not part}
        first, second, *rest = (name for name in FIGURE_TITLES if name not in absent)
        own = FIGURE_TITLES | self.titles
        if self.sweep and all(parameter.heuristic is None for parameter in self.sweep.hyper_parameters):
            # A title that was inherited may judge a recipe that this sweep has not.
            own["hparam-scaling"] = FIGURE_TITLES["hparam-scaling"]
        ladder = LADDER_TITLE_ALONE if self.divide is None else LADDER_TITLE
        titles = {name: own[name] for name in (first, second)}
        for name, rule in self.ladders.items():
            titles[name] = ladder.format(rule.ladder_title or rule.label)
        titles |= {name: own[name] for name in rest}
        mobile = [name for name in titles if name in self.ladders or name in MOBILE_FIGURES]
        return titles | {f"{name}-mobile": titles[name] for name in mobile}

    def isoflop_name(self, budget: float) -> str:
        """The compute-optimal run at a fitted ``budget`` in FLOPs: by its name where it has one."""
        names = (name for text, name in self.run_names.items() if float(text) == budget)
        return f"isoflop {next(names, budget_name(budget))}"

    def held_out_name(self, budget: float) -> str:
        """The run at a held-out ``budget`` in FLOPs."""
        return f"{self.name} optimal {budget_name(budget)}"

    def suite(self, label: str) -> SuiteRule:
        """The rule of a suite; a bare one for a label that no rule bears."""
        return next((rule for rule in self.suites if rule.label == label), SuiteRule(label))


@functools.cache
def delphi() -> Definition:
    """The Delphi study, which is shipped and the default wherever none is given.

    Examples:

    >>> import delphi_jax as dj
    >>> [rule.label for rule in dj.delphi().suites]
    ['Delphi Scaling Suite (AdamH)', 'Initial Scaling Suite (Cautious AdamC)']
    """
    # The reader stands above this module.
    from delphi_jax.io.definition import read_shipped

    return read_shipped("delphi")


def figure_title(name: str, definition: Definition | None = None) -> str:
    """The title of a figure of a study (Delphi) or of an answer, wide or mobile; its name where it has none."""
    definition = definition or delphi()
    answers = ANSWER_TITLES | (ANSWER_TITLES_ALONE if definition.divide is None else {})
    return definition.figure_titles.get(name) or answers.get(name.removesuffix("-mobile"), name)


def slug(label: str) -> str:
    """``label`` as a part of a file's name: ASCII letters, digits and single hyphens, 60 at most."""
    plain = unicodedata.normalize("NFKD", label).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:60].strip("-") or "suite"


def _contradictions(definition: Definition) -> Iterator[Unfit]:
    labels = [rule.label for rule in definition.suites]
    ladders: dict[str, str] = {}
    for i, rule in enumerate(definition.suites):
        if rule.label in labels[:i]:
            yield Unfit(("suites", i, "label"), f"two suites have the label {shown(rule.label)}; name them apart")
        if rule.ladder and rule.ladder != slug(rule.ladder):
            remedy = f"use a-z, 0-9 and hyphens, such as {slug(rule.ladder)!r}"
            yield Unfit(("suites", i, "ladder"), f"{rule.ladder!r} is no name of a figure; {remedy}")
        if rule.ladder and rule.ladder in ladders:
            yield Unfit(("suites", i, "ladder"), f"{rule.ladder!r} is also the ladder of {ladders[rule.ladder]!r}")
        if rule.ladder in FIGURE_TITLES or rule.ladder in ANSWER_TITLES or rule.ladder.endswith("-mobile"):
            yield Unfit(("suites", i, "ladder"), f"{rule.ladder!r} names another figure; take another name")
        if rule.color and not re.fullmatch("#[0-9a-fA-F]{6}", rule.color):
            yield Unfit(("suites", i, "color"), f"found {shown(rule.color)}, expected a colour such as '#385C8F'")
        ladders[rule.ladder] = rule.label
        if rule.grid_of and (rule.grid_of == rule.label or rule.grid_of not in labels):
            yield Unfit(("suites", i, "grid_of"), f"{rule.grid_of!r} is not the label of another suite{_of(labels)}")
    if definition.focus and definition.focus not in labels:
        yield Unfit(("focus",), f"{definition.focus!r} is not the label of a suite{_of(labels)}")
    for i, source in enumerate(definition.runs):
        for j, file in enumerate(source.files):
            if not stays(file):
                yield Unfit(("runs", i, "files", j), f"{file!r} leaves the data folder; give a path within it")
        if source.suite and labels and source.suite not in labels:
            yield Unfit(("runs", i, "suite"), f"{source.suite!r} is not the label of a suite{_of(labels)}")
        if source.derive in source.columns:
            yield Unfit(
                ("runs", i, "derive"),
                f"{source.derive!r} has a column, {source.columns[source.derive]!r}: read it, or derive it",
            )
    if definition.tasks and definition.held_out.divide is None:
        yield Unfit(("held_out", "divide"), "is missing; tasks are fitted below it and forecast beyond it: add it")
    yield from task_faults(definition.tasks, [definition.sweep.table] if definition.sweep is not None else [])
    for text in definition.run_names:
        if not _is_budget(text):
            yield Unfit(("run_names", text), f'{text!r} is no budget in FLOPs; write it as "3e18"')


def _of(labels: list[str]) -> str:
    return f"; the suites are {', '.join(map(repr, labels))}" if labels else "; declare one with [[suites]]"


def _is_budget(text: str) -> bool:
    try:
        return 0 < float(text) < math.inf
    except ValueError:
        return False
