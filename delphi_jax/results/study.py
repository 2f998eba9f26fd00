"""Everything fitted for one study."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from delphi_jax.definition import Definition, delphi
from delphi_jax.results.base import Result
from delphi_jax.results.downstream import DownstreamFit
from delphi_jax.results.held_out import HeldOutFit, SeedFit
from delphi_jax.results.isoflop import IsoflopFit
from delphi_jax.results.law import BootstrapFit, LawFit
from delphi_jax.results.overtraining import OvertrainingFit
from delphi_jax.results.sweep import SweepFit
from delphi_jax.status import Status
from delphi_jax.tables import Missing, Skipped
from delphi_jax.text import scientific

__all__ = ["StudyFit"]


@dataclass(frozen=True, eq=False, repr=False)
class StudyFit(Result):
    """Everything fitted for one study. A part that was not asked for, or has no data, is None."""

    source: str
    isoflop: IsoflopFit | None = None
    laws: Mapping[str, LawFit] = field(default_factory=dict)
    """Free-asymptote law per suite."""
    shared_laws: Mapping[str, LawFit] = field(default_factory=dict)
    held_out: HeldOutFit | None = None
    bootstraps: Mapping[str, BootstrapFit] = field(default_factory=dict)
    seeds: SeedFit | None = None
    overtraining: OvertrainingFit | None = None
    downstream: tuple[DownstreamFit, ...] = ()
    sweep: SweepFit | None = None
    skipped: tuple[Skipped, ...] = ()
    missing: tuple[Missing, ...] = ()
    definition: Definition = field(default_factory=delphi)

    def parts(self) -> Iterator[tuple[str, Result]]:
        """The fitted parts by title, in the order in which a reader wants them."""
        if self.isoflop is not None:
            yield "IsoFLOP optima", self.isoflop
        for law in self._laws():
            yield "Scaling laws", law
        for bootstrap in self.bootstraps.values():
            yield "Forecasts", bootstrap
        if self.held_out is not None:
            yield "Held-out runs", self.held_out
        if self.seeds is not None:
            yield "Seeds", self.seeds
        if self.overtraining is not None:
            yield "Overtraining", self.overtraining
        # One curve serves all shot counts of a task.
        for curve in {id(view.richards): view.richards for view in self.downstream}.values():
            if curve is not None:
                yield "Richards curves", curve
        for view in self.downstream:
            yield "Downstream forecasts", view
        if self.sweep is not None:
            yield "Hyper-parameter sweep", self.sweep

    def rows(self) -> list[dict[str, Any]]:
        return [{"part": title, "lines": len(part.rows())} for title, part in self.parts()]

    def notices(self) -> list[str]:
        """A sentence for every fit that did not end as FITTED, with its remedy."""
        isoflop = self.isoflop.parabolas if self.isoflop is not None else ()
        said: list[tuple[str, Status]] = [
            (
                f"IsoFLOP parabola of {fit.suite} at {scientific(fit.bucket)} FLOPs (runs: {len(fit.loss)})",
                fit.status,
            )
            for fit in isoflop
        ]
        said += [(f"scaling law of {law.series}, {law.asymptote} asymptote", law.status) for law in self._laws()]
        bootstraps = dict(self.bootstraps)
        if self.seeds is not None:
            bootstraps[self.seeds.suite] = self.seeds.bootstrap
        if self.overtraining is not None:
            scales: dict[Status, list[str]] = {}
            for line in self.overtraining.scales:
                scales.setdefault(line.status, []).append(f"{line.scale:.3g}")
            said += [(f"{', '.join(each)} times the optimal tokens", status) for status, each in scales.items()]
        for view in self.downstream:
            name = view.name
            said += [(f"soft-metric law of {name}", view.law.status)]
            if view.richards is None:
                said += [(f"Richards curve of {name}", Status.NO_CURVE)]
            elif view.richards.status is Status.BOUND_HIT:
                said += [
                    (
                        f"{' and '.join(view.richards.bounds_hit)} of the Richards curve of {name}",
                        Status.BOUND_HIT,
                    )
                ]
            else:
                said += [(f"Richards curve of {name}", view.richards.status)]
        sentences = [f"{what}: {status.label}; {status.remedy}" for what, status in said if status is not Status.FITTED]
        sentences += [sentence for fit in bootstraps.values() for sentence in fit.notices()]
        sentences += self.held_out.notices() if self.held_out is not None else []
        unmatched = self.definition.unmatched_suite
        if self.isoflop is not None and unmatched in self.isoflop.suites:
            count = sum(len(fit.loss) for fit in isoflop if fit.suite == unmatched)
            sentences.append(f"{count} IsoFLOP runs belong to no known suite by their names: fitted as {unmatched!r}")
        focus = self.definition.focus_label
        if focus and self.overtraining is not None and self.overtraining.suite != focus:
            sentences.append(f"{focus} has no law: seeds and overtraining are those of {self.overtraining.suite}")
        return sentences + (self.sweep.notices() if self.sweep is not None else [])

    def _laws(self) -> tuple[LawFit, ...]:
        return (*self.laws.values(), *self.shared_laws.values())
