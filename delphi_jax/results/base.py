"""What every result can do, and the parts that several share."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from delphi_jax.definition import Definition
from delphi_jax.status import Bound, Status
from delphi_jax.tasks import Task

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["BESIDE", "MOST_SKIPPED", "Floats", "Interval", "Result", "Tabled", "plain"]

Floats = NDArray[np.float64]

BESIDE = {"beside": True}
"""Metadata of a field that says of what study a part is: JSON leaves it out, the whole holds it once."""
MOST_SKIPPED = 0.1
"""Share of skipped draws above which a reader is told."""


def plain(value: Any) -> Any:
    """``value`` as JSON holds it: arrays as lists, statuses and bounds as words, non-finite numbers as null."""
    if isinstance(value, (Status, Bound)):
        return value.label
    if isinstance(value, np.ndarray):
        return [plain(item) for item in value.tolist()]
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float):
        return value if np.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, Task):
        return value.key
    if isinstance(value, Definition):
        return {"name": value.name, "source": value.source}
    if is_dataclass(value):
        return {f.name: plain(getattr(value, f.name)) for f in fields(value) if not f.metadata.get("beside")}
    return value


class Tabled:
    """What prints as a table: in a terminal, and in a notebook with every text escaped."""

    def rows(self) -> list[dict[str, Any]]:
        """One mapping of column to value per line of the table that a reader should see."""
        raise NotImplementedError

    def to_frame(self) -> pd.DataFrame:
        """The rows as a pandas data frame."""
        import pandas as pd

        return pd.DataFrame(self.rows())

    def __repr__(self) -> str:
        return f"{type(self).__name__}\n{self.to_frame().to_string(index=False)}"

    def _repr_html_(self) -> str:
        return self.to_frame().to_html(index=False, float_format="{:.6g}".format)


class Result(Tabled):
    """What every result can do: print as a table, become a data frame or JSON."""

    def to_dict(self) -> dict[str, Any]:
        """Every field, arrays included, as JSON holds it."""
        return plain(self)

    def to_json(self, indent: int | None = None) -> str:
        """Every field as a JSON text; numbers that do not exist are null, beside their status."""
        return json.dumps(self.to_dict(), indent=indent, ensure_ascii=False, allow_nan=False)


@dataclass(frozen=True)
class Interval:
    """A central percentile interval."""

    low: float
    median: float
    high: float
