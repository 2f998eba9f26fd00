"""The commands of ``delphi-jax``, a module each: ``add_parser`` says what it takes, and its ``run`` does it.

Everything heavy is imported inside the command that needs it: ``--help`` and ``--version`` load nothing. Only this
package and ``cli.py`` print.
"""

from delphi_jax.commands import (
    allocate,
    bootstrap,
    check,
    coverage,
    downstream,
    fetch,
    init,
    intervals,
    law,
    report,
    simulate,
    speedup,
    study,
    surface,
    validate,
)

__all__ = ["COMMANDS"]

COMMANDS = (
    fetch,
    init,
    check,
    study,
    report,
    bootstrap,
    law,
    intervals,
    coverage,
    downstream,
    validate,
    speedup,
    surface,
    allocate,
    simulate,
)
"""In the order in which ``--help`` lists them."""
