"""The state of a long computation in one file: written whole or not at all, checked when read.

The file is a line that says what it is, a line with the SHA-256 of the rest, and NumPy's npz format without pickle.
Beside the arrays it holds the settings that they depend on, so that no other computation goes on from them.
"""

from __future__ import annotations

import hashlib
import io
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from delphi_jax.status import InputError
from delphi_jax.whole import write_whole

__all__ = ["check_writable", "digest", "read_state", "write_state"]

_TITLE = b"delphi_jax state 1\n"
_SETTINGS = "settings"
_UNWRITABLE = "{}: the state cannot be written: {}"

Settings = Mapping[str, Any]
"""What a state depends on, as JSON holds it, by the name that a message can show."""


def digest(settings: Settings) -> str:
    """SHA-256 of ``settings``, in hexadecimal."""
    return hashlib.sha256(_json(settings)).hexdigest()


def check_writable(path: Path) -> None:
    """Raise InputError where no state can be written to ``path``, so that this is known before hours of work."""
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp") as scratch:
            scratch.write(_TITLE)
            scratch.flush()
    except OSError as error:
        raise InputError(_UNWRITABLE.format(path, error.strerror)) from error


def write_state(path: Path, settings: Settings, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write ``arrays`` and the ``settings`` that they depend on. Raises InputError where the file cannot be written."""
    buffer = io.BytesIO()
    np.savez(buffer, **{_SETTINGS: np.frombuffer(_json(settings), dtype=np.uint8)}, **arrays)
    content = buffer.getvalue()
    try:
        write_whole(path, b"".join((_TITLE, hashlib.sha256(content).hexdigest().encode(), b"\n", content)))
    except OSError as error:
        raise InputError(_UNWRITABLE.format(path, error.strerror)) from error


def read_state(path: Path, settings: Settings) -> dict[str, NDArray[Any]] | None:
    """The arrays in ``path``, or None where there is no such file.

    Raises InputError for a file that is no state, is damaged, or was made with other ``settings``, which are named.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        if not path.parent.is_dir():
            raise InputError(f"{path}: no such folder for the state: make it, or name another") from None
        return None
    except OSError as error:
        raise InputError(f"{path}: the state cannot be read: {error.strerror}") from error
    if not content.startswith(_TITLE):
        raise InputError(f"{path}: not a state of this version of delphi_jax; name a file that is new or such a state")
    checksum, _, body = content[len(_TITLE) :].partition(b"\n")
    if hashlib.sha256(body).hexdigest().encode() != checksum:
        raise InputError(f"{path}: the state is damaged (its checksum does not match): delete it to start anew")
    with np.load(io.BytesIO(body), allow_pickle=False) as file:
        arrays = dict(file)
    made_with = json.loads(arrays.pop(_SETTINGS).tobytes())
    if differences := _differences(made_with, json.loads(_json(settings))):
        raise InputError(
            f"{path}: the state is of another computation: {'; '.join(differences)}. "
            "Use the settings that it was made with, delete it to start anew, or name another file"
        )
    return arrays


def _json(settings: Settings) -> bytes:
    return json.dumps(settings, sort_keys=True).encode()


def _differences(made_with: Settings, settings: Settings) -> list[str]:
    names = sorted({*made_with, *settings})
    return [
        f"made with {name} {made_with.get(name)}, this one has {settings.get(name)}"
        for name in names
        if made_with.get(name) != settings.get(name)
    ]
