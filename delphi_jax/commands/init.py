"""``delphi-jax init``: a first study file from tables."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from delphi_jax.commands.options import OK
from delphi_jax.status import InputError

__all__ = ["add_parser"]


def add_parser(commands: Any) -> None:
    """Add the command to the ``commands`` of the parser."""
    parser = commands.add_parser(
        "init",
        help="write a first study file from tables of runs",
        description="Guess from tables of training runs what a study file must say: columns, units, suites, budgets "
        "and held-out runs; and write one, with comments on what was guessed and what is unsure.",
    )
    parser.add_argument("tables", nargs="+", type=Path, metavar="TABLE", help="tables of training runs")
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="study file to write (default: study.toml beside the tables)"
    )
    parser.add_argument("--force", action="store_true", help="write over a file that is there")
    parser.set_defaults(run=_init)


def _init(args: argparse.Namespace) -> int:
    from delphi_jax.io.definition import STUDY_FILE, parse_definition
    from delphi_jax.io.guess import study_text
    from delphi_jax.whole import write_whole

    root = _folder(args.tables)
    out = args.out or root / STUDY_FILE
    if os.path.lexists(out) and not args.force:
        raise InputError(f"{out}: is there already; give another --out, or --force to write over it")
    if out.parent.resolve() in (root, *root.parents):
        root = out.parent.resolve()
    text = study_text([path.resolve() for path in dict.fromkeys(args.tables)], root)
    parse_definition(text, str(out))
    try:
        write_whole(out, text.encode())
    except OSError as error:
        raise InputError(f"{out}: cannot be written ({error.strerror or error})") from None
    beside = out.parent.resolve() == root
    data = f"--data {out.parent}" if beside and out.name == STUDY_FILE else f"--study {out}"
    if not beside:
        data = f"--data {root} --study {out}"
    print(text, end="")
    print(f"\nWrote {out}. Read it, correct it, then: delphi-jax check {data}")
    return OK


def _folder(tables: Sequence[Path]) -> Path:
    """The innermost folder that holds all tables."""
    return Path(os.path.commonpath([path.resolve().parent for path in tables]))
