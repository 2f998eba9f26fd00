"""``delphi-jax check``: what is understood of a study, before anything is fitted."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from delphi_jax.commands.options import BAD_INPUT, OK, add_input, add_json
from delphi_jax.commands.printing import (
    folders_read,
    print_json,
    print_left_out,
    print_list,
    print_provenance,
    print_rows,
)
from delphi_jax.commands.reading import load, study_theme
from delphi_jax.text import one_line

if TYPE_CHECKING:
    from delphi_jax.results.check import StudyCheck

__all__ = ["add_parser"]


def add_parser(commands: Any) -> None:
    """Add the command to the ``commands`` of the parser."""
    parser = commands.add_parser(
        "check",
        help="say what is understood of a study: suites, budgets, counts, what is held out, what is left out and why",
        description="Read the study file and the tables, and say what was understood, before anything is fitted: "
        "suites, budgets, counts, held-out runs, rows that are left out and why, targets, tasks, sweep, and what "
        "contradicts itself. Exit code 1 where nothing can be fitted.",
    )
    add_input(parser)
    add_json(parser, "print one JSON object")
    parser.set_defaults(run=_check)


def _check(args: argparse.Namespace) -> int:
    from delphi_jax.results.check import check_study

    found = check_study(load(args, None))
    conflicts = [*found.conflicts, *_colors(found)]
    if args.json:
        print_json(args, {"check": found.to_dict() | {"conflicts": conflicts}}, [], found)
    else:
        _print(args, found, conflicts)
    return OK if found.fittable else BAD_INPUT


def _print(args: argparse.Namespace, found: StudyCheck, conflicts: list[str]) -> None:
    told = f"{found.definition.name}, as {found.definition.source} says, from {found.source}"
    print(f"{one_line(told)}\n")
    for title, rows in (
        ("Suites", found.suites),
        ("IsoFLOP budgets", found.budgets),
        ("Held-out runs", found.held_out),
        ("Downstream tasks", found.tasks),
        ("Hyper-parameter sweep", found.sweep),
    ):
        if rows:
            print_rows(title, list(rows))
    print_list("Understood", found.rules)
    titles = found.definition.figure_titles
    print_list("Figures", [f"{name}: {titles[name]}" for name in found.figures if not name.endswith("-mobile")])
    print_provenance(folders_read(args))
    print_left_out(found.skipped, found.missing)
    print_list("To look at", conflicts)
    print("Ready to be fitted." if found.fittable else "Nothing here can be fitted: see what is left out and missing.")


def _colors(found: StudyCheck) -> list[str]:
    """Suites that readers may confuse by their colours."""
    from delphi_jax.plots.vision import color_conflicts

    theme = study_theme(found.definition)
    labels = [row["suite"] for row in found.suites if row["IsoFLOP runs"] or row["held-out runs"]]
    cycle = theme.cycle
    own = {label: found.definition.suite(label).color for label in labels}
    colors = {label: own[label] or cycle[i % len(cycle)] for i, label in enumerate(labels)}
    # The themes are as they are: only colours that the study file gives can be corrected in it.
    return [sentence for sentence in color_conflicts(colors, theme) if any(c and c in sentence for c in own.values())]
