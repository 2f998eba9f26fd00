"""The ``delphi-jax`` command: parse, call, and say how it ended."""

from __future__ import annotations

import argparse
import atexit
import gc
import os
import sys
from collections.abc import Sequence

from delphi_jax import __version__
from delphi_jax.commands import COMMANDS
from delphi_jax.commands.options import BAD_INPUT, OK
from delphi_jax.status import InputError

__all__ = ["command", "main"]


def command() -> None:
    """The process behind ``delphi-jax``: :func:`main`, and out.

    Without garbage collection, which a command is too short to need, and without taking the interpreter and JAX apart
    at the end, which takes longer than drawing and frees what the system frees anyway.
    """
    gc.disable()
    code = main()
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        pass
    except OSError as error:
        print(f"delphi-jax: standard output: {error.strerror}", file=sys.stderr)
        code = code or BAD_INPUT
    if not sys.stderr.closed:
        sys.stderr.flush()
    atexit._run_exitfuncs()
    os._exit(code)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns 0, 1 for bad input or a figure that failed, 2 for bad usage."""
    parser = _parser()
    try:
        args = parser.parse_args(argv)
        return args.run(args)
    except SystemExit as stop:
        return int(stop.code or 0)
    except InputError as error:
        print(f"delphi-jax: {error}", file=sys.stderr)
        return BAD_INPUT
    except BrokenPipeError:
        # The reader of a pipe (head, less) has seen enough.
        sys.stderr.close()
        return OK
    except KeyboardInterrupt as stop:
        print(f"delphi-jax: interrupted; {str(stop) or 'every file that was written is whole'}", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="delphi-jax", description="Fit scaling laws, say how sure they are, and draw the figures."
    )
    parser.add_argument("--version", action="version", version=f"delphi-jax {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for each in COMMANDS:
        each.add_parser(commands)
    return parser
