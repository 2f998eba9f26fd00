"""``delphi-jax simulate``: a study with known truth."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from delphi_jax.commands.options import OK, natural
from delphi_jax.commands.printing import count

__all__ = ["add_parser"]


def add_parser(commands: Any) -> None:
    """Add the command to the ``commands`` of the parser."""
    simulate = commands.add_parser(
        "simulate",
        help="write a simulated study, labelled as such",
        description="Write a simulated study: the same bytes for a seed on every machine, labelled as simulated.",
    )
    simulate.add_argument("--seed", type=natural, default=0, help="seed of the generator (default: 0)")
    simulate.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write to")
    simulate.set_defaults(run=_simulate)


def _simulate(args: argparse.Namespace) -> int:
    from delphi_jax.simulate import write_study

    files = write_study(args.out, args.seed)
    print(f"Wrote a simulated study (seed {args.seed}, {count(len(files), 'file')}) to {args.out}")
    print("No number in it was measured.")
    return OK
