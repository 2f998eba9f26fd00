"""The design of a hyper-parameter sweep: its cells, what was swept in them, and the heuristic to compare that with."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Annotated, Any, Literal

import numpy as np
from annotated_types import Ge, Le, Len
from numpy.typing import ArrayLike, NDArray

from delphi_jax.checked import Checked, Label, Positive, Text, Unfit, stays

__all__ = ["Cell", "Horizon", "HyperParameter", "Rule", "SweepDesign"]

Floats = NDArray[np.float64]
Cell = tuple[int, int, str]
"""Batch size, hidden dim, key of the token horizon."""
Size = Annotated[int, Ge(1), Le(10**9)]

_MOST_CELLS = 200
"""Of one sweep: its figure holds the curves of all."""
_LEAST = 1e-20
"""Values are floored here before the logarithm."""


@dataclass(frozen=True)
class Horizon(Checked):
    """A token bucket of the sweep."""

    key: Label
    tokens: Positive
    """Nominal."""
    below: Positive = math.inf
    """Trials with fewer tokens than this, and at least the previous horizon's, belong here."""


@dataclass(frozen=True)
class Rule(Checked):
    """A heuristic, as numbers: reference * (batch / batch_ref)**batch_power * (tokens / tokens_ref)**tokens_power.

    With ``decay`` the reference is a decay per step, and is raised to that power of the ratios instead: a batch of
    half the size takes two steps for the same tokens, and decays by the square root in each.
    """

    reference: float
    """At the design's reference batch size and tokens."""
    batch_power: float = 0.0
    tokens_power: float = 0.0
    decay: bool = False
    least: float = -math.inf
    most: float = math.inf

    def at(self, batch_ratio: float, tokens_ratio: float) -> float:
        """The value at ratios to the reference point."""
        factor = batch_ratio**self.batch_power * tokens_ratio**self.tokens_power
        value = self.reference**factor if self.decay else self.reference * factor
        return min(max(value, self.least), self.most)


@dataclass(frozen=True)
class HyperParameter(Checked):
    """One swept hyper-parameter."""

    key: Label
    title: str = ""
    """Of its axis; the key where it is empty."""
    column: str = ""
    """The key where it is empty."""
    range: Literal["rate", "epsilon", "beta", "number"] = "rate"
    """Values that make sense: positive, at least 0, at least 0 and below 1, or any."""
    transform: Literal["log", "log(1-x)", "linear"] = "log"
    """Scale on which the process sees it, and its axis is drawn."""
    heuristic: Rule | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "title", self.title or self.key)
        object.__setattr__(self, "column", self.column or self.key)
        for fault in self._faults():
            raise fault

    def forward(self, values: ArrayLike) -> Floats:
        """``values``, any shape, on the scale of the transform; logarithms of at least 1e-20."""
        values = np.asarray(values, dtype=np.float64)
        if self.transform == "linear":
            return values
        return np.log(np.maximum(1.0 - values if self.transform == "log(1-x)" else values, _LEAST))

    def backward(self, value: float) -> float:
        """The value behind one on the scale of the transform."""
        if self.transform == "linear":
            return value
        return 1 - math.exp(value) if self.transform == "log(1-x)" else math.exp(value)

    def _faults(self) -> Iterator[Unfit]:
        if self.transform == "log(1-x)" and self.range != "beta":
            yield Unfit(("range",), f'{self.range!r} does not go with transform "log(1-x)"; give range = "beta"')
        if self.transform == "log" and self.range == "number":
            yield Unfit(("transform",), 'a "number" may be negative and has no logarithm; give transform = "linear"')
        rule = self.heuristic
        if rule is None:
            return
        if rule.least > rule.most:
            yield Unfit(("heuristic", "least"), f"{rule.least:g} is above most, {rule.most:g}; exchange them")
        if rule.decay and rule.reference <= 0:
            yield Unfit(("heuristic", "reference"), f"{rule.reference:g} has no powers; a decay must be positive")


@dataclass(frozen=True)
class SweepDesign(Checked):
    """A hyper-parameter sweep: where its table is, its cells and what was swept in each.

    Raises :class:`Unfit` where its parts do not agree.
    """

    hyper_parameters: Annotated[tuple[HyperParameter, ...], Len(1, 8)]
    """In the order of the panels."""
    batch_sizes: Annotated[tuple[Size, ...], Len(1, 50)]
    hidden_dims: Annotated[tuple[Size, ...], Len(1, 50)]
    horizons: Annotated[tuple[Horizon, ...], Len(1, 50)]
    """By ascending tokens."""
    loss_column: Text = "loss"
    loss_title: Text = "Loss"
    """Of the loss axes."""
    table: Text = "hparam_sweep"
    """As a file of the data folder."""
    batch_column: Text = "batch_size"
    hidden_column: Text = "hidden_dim"
    tokens_column: Text = "tokens"
    state_column: str = "state"
    """Only rows where it says "finished" count; empty where all do."""
    first_shown: tuple[int, int, str] | None = None
    """Cell that the figure shows first: batch size, hidden dim, key of the horizon; None for the first."""
    reference_batch: Positive | None = None
    reference_tokens: Positive | None = None
    """Where every heuristic has its reference value; needed where one scales with it."""
    heuristic_name: Text = "Heuristic"
    """As a hover writes it."""
    heuristic_legend: str = ""
    """As the legend writes it; the name where it is empty."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "heuristic_legend", self.heuristic_legend or self.heuristic_name)
        for fault in self._faults():
            raise fault

    @property
    def keys(self) -> tuple[str, ...]:
        """[F] of the hyper-parameters."""
        return tuple(parameter.key for parameter in self.hyper_parameters)

    @property
    def cells(self) -> tuple[Cell, ...]:
        """In canonical order: batch size, hidden dim, token horizon."""
        return tuple(product(self.batch_sizes, self.hidden_dims, (horizon.key for horizon in self.horizons)))

    @property
    def first_cell(self) -> Cell:
        """The one that the figure shows first."""
        return self.first_shown or self.cells[0]

    def horizon_of(self, tokens: float) -> str | None:
        """Key of the horizon of a trial; None beyond the last."""
        return next((horizon.key for horizon in self.horizons if tokens < horizon.below), None)

    def heuristic_point(self, cell: Cell) -> Floats:
        """[F] the heuristic's values at a cell, in original units; NaN for a hyper-parameter without one."""
        batch_size, _, key = cell
        tokens = next(horizon.tokens for horizon in self.horizons if horizon.key == key)
        ratios = batch_size / (self.reference_batch or batch_size), tokens / (self.reference_tokens or tokens)
        rules = [parameter.heuristic for parameter in self.hyper_parameters]
        return np.array([math.nan if rule is None else rule.at(*ratios) for rule in rules])

    def forward(self, values: ArrayLike) -> Floats:
        """Hyper-parameters [..., F] in original units on the scales of their transforms."""
        columns = np.moveaxis(np.asarray(values, dtype=np.float64), -1, 0)
        pairs = zip(self.hyper_parameters, columns, strict=True)
        return np.stack([parameter.forward(column) for parameter, column in pairs], axis=-1)

    def _faults(self) -> Iterator[Unfit]:
        n_cells = len(self.batch_sizes) * len(self.hidden_dims) * len(self.horizons)
        if n_cells > _MOST_CELLS:
            said = f"make {n_cells} cells with the hidden dims and horizons, more than {_MOST_CELLS}; leave some out"
            yield Unfit(("batch_sizes",), said)
        yield from self._repeated()
        if not stays(self.table):
            yield Unfit(("table",), f"{self.table!r} leaves the data folder; give a path within it")
        last = 0.0
        for i, horizon in enumerate(self.horizons):
            if not last <= horizon.tokens < horizon.below:
                limits = f"at least {last:g}, where the previous one ends, and below {horizon.below:g}"
                yield Unfit(("horizons", i, "tokens"), f"{horizon.tokens:g} lies outside its horizon: {limits}")
            last = horizon.below
        if self.first_shown is not None and self.first_shown not in self.cells:
            yield Unfit(("first_shown",), f"{list(self.first_shown)} is not a cell of this sweep")
        for power, reference in (("batch_power", "reference_batch"), ("tokens_power", "reference_tokens")):
            scaled = [h.key for h in self.hyper_parameters if h.heuristic is not None and getattr(h.heuristic, power)]
            if scaled and getattr(self, reference) is None:
                yield Unfit((reference,), f"is missing; the heuristic of {scaled[0]!r} scales with it")
        for i, parameter in enumerate(self.hyper_parameters):
            if parameter.heuristic is not None:
                yield from self._outside(i, parameter)

    def _repeated(self) -> Iterator[Unfit]:
        horizons = [horizon.key for horizon in self.horizons]
        keys = [parameter.key for parameter in self.hyper_parameters]
        lists: tuple[tuple[str, list[Any], tuple[str, ...]], ...] = (
            ("batch_sizes", list(self.batch_sizes), ()),
            ("hidden_dims", list(self.hidden_dims), ()),
            ("horizons", horizons, ("key",)),
            ("hyper_parameters", keys, ("key",)),
        )
        for name, values, rest in lists:
            for i, value in enumerate(values):
                if value in values[:i]:
                    yield Unfit((name, i, *rest), f"{value!r} stands there twice; name each once")
        named = [(name,) for name in ("loss_column", "batch_column", "hidden_column", "tokens_column", "state_column")]
        columns = [getattr(self, name) for (name,) in named]
        columns += [parameter.column for parameter in self.hyper_parameters]
        paths = [*named, *(("hyper_parameters", i, "column") for i in range(len(keys)))]
        for i, (column, path) in enumerate(zip(columns, paths, strict=True)):
            if column and column in columns[:i]:
                yield Unfit(path, f"{column!r} is read as something else too; name two columns")

    def _outside(self, i: int, parameter: HyperParameter) -> Iterator[Unfit]:
        """A heuristic that has no place on its axis, at some cell."""
        for cell in self.cells:
            value = self.heuristic_point(cell)[i]
            low = {"rate": value > 0, "number": True}.get(parameter.range, value >= 0)
            if not (math.isfinite(value) and low and (parameter.range != "beta" or value < 1)):
                where = f"batch size {cell[0]} and horizon {cell[2]}"
                remedy = "bound it with least and most"
                yield Unfit(
                    ("hyper_parameters", i, "heuristic"), f"gives {value:g} at {where}, no {parameter.range}; {remedy}"
                )
                return
